"""By which pairs a symbol is priced in another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.rates.routes import Map

LISTED = frozenset(
    {
        "ETH/USD",
        "ETH/EUR",
        "ETH/BTC",
        "BTC/CHF",
        "BTC/USD",
        "EUR/USD",
        "SOL/USDT",
        "USDT/USD",
        "POL/USDC",
        "DOGE/USDT",
    }
)
PLAIN = Map(pivots=("USD", "EUR", "USDT", "BTC"))
PEGGED = Map(pivots=("USD", "EUR", "USDT", "BTC"), pegs={"USDT": "USD", "USDC": "USD", "WETH": "ETH"})


@pytest.mark.parametrize(
    ("ways", "base", "quote", "expected"),
    [
        (PLAIN, "ETH", "USD", "ETH/USD"),
        (PLAIN, "USD", "ETH", "1 ÷ ETH/USD"),
        (PLAIN, "ETH", "CHF", "ETH/BTC × BTC/CHF"),
        (PLAIN, "CHF", "ETH", "1 ÷ BTC/CHF × 1 ÷ ETH/BTC"),
        (PLAIN, "SOL", "USD", "SOL/USDT × USDT/USD"),
        (PLAIN, "POL", "USD", ""),  # a dollar token is not taken for dollars in silence
        (PLAIN, "WETH", "USD", ""),
        (PLAIN, "XYZ", "USD", ""),
        (PEGGED, "ETH", "USD", "ETH/USD"),  # the real thing goes before what stands for it
        (PEGGED, "POL", "USD", "POL/USDC"),
        (PEGGED, "DOGE", "USD", "DOGE/USDT"),
        (PEGGED, "WETH", "USD", "ETH/USD"),
        (PEGGED, "USDT", "EUR", "1 ÷ EUR/USD"),
        (PEGGED, "USDT", "USD", "USDT/USD"),  # asked, not assumed to be one
        (PEGGED, "USDC", "USD", ""),
    ],
)
def test_the_way(ways: Map, base: str, quote: str, expected: str) -> None:
    """Bug planted: pegs taken for granted (USDC for USD without a peg); POL is priced in a token's dollars."""
    assert " × ".join(map(str, ways.route(LISTED, base, quote))) == expected


symbols = st.sampled_from(["USD", "EUR", "USDT", "USDC", "ETH", "WETH", "BTC"])
pairs = st.tuples(symbols, symbols).filter(lambda pair: pair[0] != pair[1])


@given(
    listed=st.frozensets(pairs, max_size=12),
    pegs=st.dictionaries(
        st.sampled_from(["USDT", "USDC", "WETH"]), st.sampled_from(["USD", "ETH"]), max_size=3
    ),
    pivots=st.lists(symbols, max_size=4, unique=True),
    asked=pairs,
)
def test_a_way_uses_listed_pairs_and_none_of_them_twice(
    listed: frozenset[tuple[str, str]], pegs: dict[str, str], pivots: list[str], asked: tuple[str, str]
) -> None:
    """A pair there and back again would give exactly one, whatever it trades at.

    Bug planted: pegs used between symbols that one peg ties together; USDC in USD goes by EUR/USD there and back.
    """
    names = frozenset("/".join(pair) for pair in listed)
    way = Map(pivots, pegs).route(names, *asked)
    used = [leg.symbol for leg in way]
    assert len(way) <= 2
    assert set(used) <= names
    assert len(set(used)) == len(used)
