"""Exchanges through ccxt, against local servers that speak as the real ones do. Cites R-INV 4, R-INV 8, F-MONEY 2.

What the library makes of an answer is tested as much as what we make of the library.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest

from tallystick.core.errors import SourceError, SourceIncomplete, SourceUnavailable
from tallystick.rates.exchange import (
    MARKETS_AGAIN_SECONDS,
    MARKETS_FRESH_SECONDS,
    TICKER_BYTES_MAX,
    Exchange,
    ExchangeOptions,
    read_price,
)
from tallystick.rates.exchange_ids import is_exchange
from tallystick.rates.live import utc_now
from tallystick.rates.routes import Map
from tests.support.exchanges import BOMB, Market, open_market

STYLES = ("kraken", "coinbase", "binance")
WAYS = Map(pivots=("USD", "BTC"), pegs={"USDT": "USD"})


@asynccontextmanager
async def exchange_at(market: Market, seconds_max: float = 5.0) -> AsyncIterator[Exchange]:
    """Our side of a market."""
    exchange = Exchange(ExchangeOptions(market.style, WAYS, market.url, seconds_max), utc_now)
    try:
        yield exchange
    finally:
        await exchange.close()


@pytest.fixture(params=STYLES)
async def market(request: pytest.FixtureRequest) -> AsyncIterator[Market]:
    """A server of each style."""
    async with open_market(request.param) as server:
        yield server


async def test_the_price_is_the_middle_and_its_time_the_exchanges(market: Market) -> None:
    """Odd names (XETHZUSD), texts and lists of the real interfaces; the list of pairs is fetched once."""
    pair = next(iter(market.quotes))
    market.set(pair, "2499.10", "2500.30", "2400", age=30)
    async with exchange_at(market) as exchange:
        answer = await exchange.ask("ETH", "USD")
        inverse = await exchange.ask("USD", "ETH")
    assert (answer.source, answer.pair) == (market.style, pair)
    assert answer.rate == Fraction("2499.70")
    assert inverse.rate == 1 / Fraction("2499.70")
    assert answer.at is not None
    assert abs(answer.at - (datetime.now(UTC) - timedelta(seconds=30))) < timedelta(seconds=20)
    assert market.asked["list"] == (3 if market.style == "coinbase" else 1)  # coinbase: futures apart
    assert market.tickers_asked == 2


@pytest.mark.parametrize(
    "digits", ["0.1", "2500.123456789012345678", "0.000000012345678901", "98765432109876.54321"]
)
async def test_no_digit_of_a_price_is_lost(market: Market, digits: str) -> None:
    """Eighteen places, and more digits than a float holds.

    Bug planted: the library's default number type (float); 2500.123456789012345678 comes back as 2500.1234567890123.
    """
    market.set(next(iter(market.quotes)), digits)
    async with exchange_at(market) as exchange:
        assert (await exchange.ask("ETH", "USD")).rate == Fraction(digits)


async def test_a_wide_or_empty_book_gives_the_last_price(market: Market) -> None:
    pair = next(iter(market.quotes))
    async with exchange_at(market) as exchange:
        for bid, ask in (("2000", "3000"), ("2501", "2500"), ("0", "2500"), ("2500", "0.00")):
            market.set(pair, bid, ask, "2444")
            assert (await exchange.ask("ETH", "USD")).rate == 2444


@pytest.mark.parametrize(
    ("bid", "ask", "last"),
    [
        ("0", "0", "0"),
        ("0.00", "0.00", "0.00"),
        ("-1", "2500", "2500"),
        ("2500", "-2500", "2500"),
        ("0", "0", "-2500"),
        ("NaN", "NaN", "NaN"),
        ("Infinity", "2500", "2500"),
        ("2,500", "2,500", "2,500"),
        ("0x9c4", "0x9c4", "0x9c4"),
        ("٢٥٠٠", "٢٥٠٠", "٢٥٠٠"),
        (BOMB, BOMB, BOMB),
        ("1" * 50, "1" * 50, "1" * 50),
    ],
)
async def test_what_is_no_price_is_refused(market: Market, bid: str, ask: str, last: str) -> None:
    """Zero, negative, NaN, foreign digits, and ten bytes that would be written out as a gigabyte.

    Bug planted: a missing price read as 0, or as 1; bids of -1 are averaged with asks.
    """
    market.set(next(iter(market.quotes)), bid, ask, last)
    async with exchange_at(market) as exchange:
        with pytest.raises(SourceError):
            await exchange.ask("ETH", "USD")


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        ("error", SourceUnavailable),  # HTTP 200 with an error in the body
        ("html", SourceIncomplete),
        ("429", SourceUnavailable),
        ("500", SourceUnavailable),
        ("redirect", SourceIncomplete),
        ("deep", SourceIncomplete),
        ("garbage", SourceIncomplete),
        ("no_json", SourceIncomplete),
        ("huge", SourceUnavailable),
    ],
)
async def test_every_trouble_is_an_error_and_nothing_the_exchange_wrote_is_repeated(
    market: Market, trouble: str, kind: type[SourceError]
) -> None:
    """One request, one error: the library does not try again, follows nowhere, reads no more than the limit."""
    async with exchange_at(market) as exchange:
        await exchange.open()
        market.trouble = trouble
        with pytest.raises(kind) as failed:
            await exchange.ask("ETH", "USD")
        assert market.tickers_asked == 1
        for written in ("Internal error", "Checking", "elsewhere", "unknown error", "something", "slow down"):
            assert written not in str(failed.value)
        if trouble == "429":
            assert isinstance(failed.value, SourceUnavailable)
            assert failed.value.retry_after_seconds == 7
        if trouble == "huge":
            assert str(TICKER_BYTES_MAX) in failed.value.what
        market.trouble = None
        assert (await exchange.ask("ETH", "USD")).rate == 2500


async def test_a_slow_exchange_is_given_up(market: Market) -> None:
    async with exchange_at(market, seconds_max=0.2) as exchange:
        await exchange.open()
        market.trouble = "slow"
        with pytest.raises(SourceUnavailable, match="in time"):
            await exchange.ask("ETH", "USD")


async def test_nobody_there(free_port: object) -> None:
    """An outage. The port is one that nobody listens on."""
    url = f"http://127.0.0.1:{free_port()}"  # type: ignore[operator]
    exchange = Exchange(ExchangeOptions("kraken", WAYS, url, 1.0), utc_now)
    try:
        with pytest.raises(SourceUnavailable, match="not available"):
            await exchange.ask("ETH", "USD")
    finally:
        await exchange.close()


async def test_the_list_of_pairs_is_asked_for_once_by_any_number_and_again_after_a_failure() -> None:
    async with open_market("kraken") as market, exchange_at(market) as exchange:
        market.trouble, market.trouble_everywhere = "500", True
        with pytest.raises(SourceUnavailable):
            await exchange.ask("ETH", "USD")
        market.trouble = None
        await asyncio.gather(*(exchange.ask("ETH", "USD") for _ in range(20)))
        assert market.asked["list"] == 2


async def test_a_pair_that_is_not_listed_is_no_failure(market: Market) -> None:
    async with exchange_at(market) as exchange:
        answer = await exchange.ask("ETH", "CHF")
    assert (answer.rate, answer.problem) == (None, "the exchange does not list it")
    assert market.tickers_asked == 0


async def test_a_cross_multiplies_exactly_and_is_as_old_as_its_older_leg() -> None:
    async with open_market("binance") as market, exchange_at(market) as exchange:
        market.set("ETH/BTC", "0.03", age=5)
        market.set("BTC/CHF", "80000.1", age=60)
        answer = await exchange.ask("ETH", "CHF")
    assert answer.pair == "ETH/BTC × BTC/CHF"
    assert answer.rate == Fraction("0.03") * Fraction("80000.1")
    assert answer.at is not None
    assert abs(answer.at - (datetime.now(UTC) - timedelta(seconds=60))) < timedelta(seconds=20)


async def test_numbers_in_json_stay_what_was_written() -> None:
    """Exchanges that send numbers instead of texts lose nothing either: 0.1 is a tenth."""
    from tallystick.rates.exchange import _read_json

    assert _read_json('{"a": 0.1, "b": 12345678901234567890123, "c": 1E-7}') == {
        "a": "0.1",
        "b": "12345678901234567890123",
        "c": "1E-7",
    }
    assert _read_json('{"a": "]]]][[[["}') == {"a": "]]]][[[["}
    for text in ('{"a": NaN}', '{"a": -Infinity}', '{"a": 1e9999}', '{"a":["1e9999"]}', "[" * 100_000, "{"):
        with pytest.raises(SourceIncomplete):
            _read_json(text)
    # What only looks like one inside a text stays.
    assert _read_json(json.dumps({"id": "3f2e1234-0000"})) == {"id": "3f2e1234-0000"}


DEEP = r"""
import sys
from tallystick.core.errors import SourceIncomplete
from tallystick.rates.exchange import _read_json

sys.setrecursionlimit(10**9)
opened, closed = "[" * 400_000, "]" * 500_000
hidden = '["' + closed + '", ' + opened  # brackets inside of texts close nothing
escaped = r'["\"' + closed + '", ' + opened
for text in (opened, '{"a":' * 150_000, "[" * 65 + "]" * 65, hidden, escaped):
    try:
        _read_json(text)
    except SourceIncomplete:
        continue
    sys.exit(1)
_read_json("[" * 64 + "]" * 64)
"""


def test_deep_nesting_is_refused_before_it_is_parsed() -> None:
    """Whatever limit the interpreter has: with a high one the parser runs off the stack and ends the whole process.

    Bug planted: no limit of our own; the test's process is gone (segmentation fault).
    """
    assert subprocess.run([sys.executable, "-c", DEEP], check=False).returncode == 0


def test_small_prices_may_be_written_with_an_exponent() -> None:
    assert read_price({"last": "1.5E-7"}) == Fraction("0.00000015")
    with pytest.raises(SourceIncomplete):
        read_price({"bid": "1", "ask": None, "last": None})
    with pytest.raises(SourceIncomplete):
        read_price({"bid": 1.0, "ask": 1.0, "last": 1.0})


def test_which_exchanges_there_are() -> None:
    assert all(is_exchange(name) for name in (*STYLES, "okx", "bitstamp"))
    assert not any(
        is_exchange(name) for name in ("krakken", "base", "", "__init__", "../kraken", "Kraken", "static")
    )


async def test_the_library_is_loaded_by_nobody_who_does_not_ask_an_exchange() -> None:
    """It takes a second and 65 MB: neither the configuration nor the start of a server may bring it in."""
    program = (
        "import sys, tallystick.runtime, tallystick.cli, tallystick.rates.live, tallystick.rates.exchange, "
        "tallystick.services.requoting, tallystick.workers.requote\n"
        "from tallystick.config import from_document\n"
        "table = {'rates': {'sources': ['kraken', 'coinbase', 'binance']}}\n"
        "config = from_document(table, environment={'TALLYSTICK_DATA_DIR': '/nowhere'})\n"
        "tallystick.runtime.build_rates(config.rates)\n"
        "sys.exit('ccxt' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == 0


async def test_an_old_list_of_pairs_is_used_while_a_new_one_cannot_be_had() -> None:
    """And a new one is not asked for with every price. Bug planted: asked for again at once, each time."""
    async with open_market("kraken") as market, exchange_at(market) as exchange:
        assert (await exchange.ask("ETH", "USD")).rate == 2500
        market.set("ETH/EUR", "2300")
        market.trouble, market.trouble_everywhere = "500", True
        exchange._loaded_at -= MARKETS_FRESH_SECONDS + 1
        for _ in range(3):
            with pytest.raises(SourceUnavailable):
                await exchange.ask("ETH", "USD")
            assert exchange._loading is not None
            await asyncio.gather(exchange._loading, return_exceptions=True)
        assert market.asked["list"] == 2
        market.trouble = None
        assert (await exchange.ask("ETH", "USD")).rate == 2500
        assert (await exchange.ask("ETH", "EUR")).problem == "the exchange does not list it"
        exchange._loaded_at -= MARKETS_AGAIN_SECONDS + 1
        await exchange.ask("ETH", "USD")
        while exchange._loading is not None and not exchange._loading.done():
            await asyncio.sleep(0.01)
        assert (await exchange.ask("ETH", "EUR")).rate == 2300
