"""BIP21 links: the BIP's own examples, and what comes back when a wallet reads one of ours."""

from __future__ import annotations

from fractions import Fraction
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.chains.bitcoin.payment_uri import UNITS_MAX, payment_uri
from tallystick.chains.families import FAMILIES
from tallystick.core.errors import InvalidInput
from tests.chains.bitcoin.test_keys import network

ADDRESS = "175tWpb8K1S7NmH4Zx6rewF9WQrcZv245W"
SCRIPT = "0014751e76e8199196d454941c45d1b3a323f1433bd6"


@pytest.mark.parametrize(
    ("coins", "link"),
    [  # the amounts of BIP21's examples
        ("20.3", f"bitcoin:{ADDRESS}?amount=20.3"),
        ("50", f"bitcoin:{ADDRESS}?amount=50"),
        ("50.00", f"bitcoin:{ADDRESS}?amount=50"),
    ],
)
def test_published_examples(coins: str, link: str) -> None:
    assert payment_uri("bitcoin", ADDRESS, int(Fraction(coins) * 10**8)) == link


@given(st.integers(1, UNITS_MAX), st.sampled_from(["bitcoin", "litecoin"]))
def test_a_wallet_reads_exactly_what_is_asked(amount: int, family: str) -> None:
    """Planted once, and seen to fail: amounts in base units, and amounts with an exponent."""
    chain = f"{family}-regtest"
    asset = network(chain).native
    link = FAMILIES[family].payment_uri(network(chain), asset, SCRIPT, amount)
    parts = urlsplit(link)
    assert parts.scheme == family
    assert FAMILIES[family].normalize(parts.path, network(chain)) == SCRIPT
    ((key, value),) = parse_qsl(parts.query, strict_parsing=True)
    assert key == "amount"
    assert set(value) <= set("0123456789.")
    assert not value.endswith(".")
    assert Fraction(value) * 10**8 == amount


@pytest.mark.parametrize("amount", [0, -1, UNITS_MAX + 1])
def test_amounts_that_cannot_be_paid(amount: int) -> None:
    with pytest.raises(InvalidInput):
        payment_uri("bitcoin", ADDRESS, amount)


def test_each_chain_has_its_own_address_in_the_link() -> None:
    links = {
        chain: FAMILIES[chain.partition("-")[0]].payment_uri(network(chain), network(chain).native, SCRIPT, 1)
        for chain in ("bitcoin", "bitcoin-signet", "litecoin", "litecoin-regtest")
    }
    assert links == {
        "bitcoin": "bitcoin:bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4?amount=0.00000001",
        "bitcoin-signet": "bitcoin:tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx?amount=0.00000001",
        "litecoin": "litecoin:ltc1qw508d6qejxtdg4y5r3zarvary0c5xw7kgmn4n9?amount=0.00000001",
        "litecoin-regtest": f"litecoin:{FAMILIES['litecoin'].display(SCRIPT, network('litecoin-regtest'))}"
        "?amount=0.00000001",
    }
