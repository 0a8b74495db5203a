"""The [rates] table: where prices come from, and when they are trusted.

For: `config`. Holds true: rates are exact fractions; a source that does not exist, a rule that can never be met and a
written rate that nobody would use are errors that name the key. Must not: ask a source, or load the exchanges' library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from tallystick.config_networks import SYMBOL, URL_LENGTH_MAX, is_web_url
from tallystick.config_reader import Table
from tallystick.core.errors import InvalidInput
from tallystick.core.money import parse_decimal
from tallystick.rates.exchange_ids import is_exchange

STATIC: Final = "static"
STATIC_RATES_MAX: Final = 2_000
SOURCES_MAX: Final = 16
PEGS_MAX: Final = 200
DEFAULT_PIVOTS: Final = ("USD", "EUR", "USDT", "BTC")


@dataclass(frozen=True, slots=True)
class RatesConfig:
    """Where prices come from; what every key means stands in the default file.

    `static` maps "ETH/USD" to an exact rate, `pegs` a symbol to the one for which it may stand,
    `urls` an exchange to another address of its interface.
    """

    sources: tuple[str, ...] = (STATIC,)
    static: Mapping[str, Fraction] = field(default_factory=dict)
    min_sources: int = 1
    stale_after_seconds: int = 120
    outlier_bps: int = 500
    cache_seconds: int = 10
    request_timeout_seconds: int = 5
    aside_seconds: int = 30
    pivots: tuple[str, ...] = DEFAULT_PIVOTS
    pegs: Mapping[str, str] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)

    @property
    def exchanges(self) -> tuple[str, ...]:
        """The sources that are asked over the network."""
        return tuple(name for name in self.sources if name != STATIC)


def read_rates(table: Table) -> RatesConfig:
    """The table as checked values. Raises ConfigurationError."""
    sources = _sources(table)
    exchanges = [name for name in sources if name != STATIC]
    static = _static(table.table("static"))
    if static and STATIC not in sources:
        raise table.error(
            "static",
            'holds rates, but "static" is not among the sources',
            remedy=f'Add it: sources = ["static", "{sources[0]}"]. A written rate then goes before the exchanges\'.',
        )
    found = RatesConfig(
        sources=sources,
        static=static,
        # Of one or two nobody can say which is wrong; from three on, two have to agree.
        min_sources=table.integer(
            "min_sources", 2 if len(exchanges) >= 3 else 1, at_least=1, at_most=max(1, len(exchanges))
        ),
        stale_after_seconds=table.integer("stale_after_seconds", 120, at_least=5, at_most=3600),
        outlier_bps=table.integer("outlier_bps", 500, at_least=1, at_most=5000),
        cache_seconds=table.integer("cache_seconds", 10, at_least=1, at_most=60),
        request_timeout_seconds=table.integer("request_timeout_seconds", 5, at_least=1, at_most=20),
        aside_seconds=table.integer("aside_seconds", 30, at_least=1, at_most=3600),
        pivots=_symbols(table, "pivots", DEFAULT_PIVOTS),
        pegs=_pegs(table.table("pegs")),
        urls=_urls(table.table("urls")),
    )
    table.finish()
    return found


def _sources(table: Table) -> tuple[str, ...]:
    sources = table.texts("sources", (STATIC,))
    if not 1 <= len(sources) <= SOURCES_MAX:
        raise table.error("sources", f"must name 1 to {SOURCES_MAX} sources")
    if len(set(sources)) != len(sources):
        raise table.error("sources", "names a source twice")
    for number, name in enumerate(sources, start=1):
        if name != STATIC and not is_exchange(name):
            raise table.error(
                "sources",
                f"number {number} is no source that there is",
                remedy='Use "static", "kraken", "coinbase", "binance", or the id of another exchange that ccxt knows.',
            )
    return sources


def _symbols(table: Table, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    symbols = table.texts(key, default)
    if not all(SYMBOL.fullmatch(symbol) for symbol in symbols):
        raise table.error(key, 'must be a list of symbols, such as ["USD", "BTC"]')
    return symbols


def _pegs(table: Table) -> dict[str, str]:
    pegs: dict[str, str] = {}
    for token in table.entries():
        pegs[token] = table.text(token)
        if not SYMBOL.fullmatch(token) or not SYMBOL.fullmatch(pegs[token]) or token == pegs[token]:
            raise table.error(token, 'must be two different symbols, such as USDT = "USD"')
    if len(pegs) > PEGS_MAX:
        raise table.error(None, f"has more than {PEGS_MAX} entries")
    for token, currency in pegs.items():
        if currency in pegs:
            raise table.error(
                token, "stands for a symbol that stands for another itself", remedy="Name the last one."
            )
    return pegs


def _urls(table: Table) -> dict[str, str]:
    urls: dict[str, str] = {}
    for name in table.entries():
        urls[name] = table.text(name, length_max=URL_LENGTH_MAX)
        if not is_exchange(name):
            raise table.error(name, "there is no such exchange")
        if not is_web_url(urls[name]):
            raise table.error(name, "must be an http:// or https:// address")
    return urls


def _static(table: Table) -> dict[str, Fraction]:
    pairs: dict[str, Fraction] = {}
    for pair in table.entries():
        pairs[pair] = _rate(table, pair, pairs)
        if len(pairs) > STATIC_RATES_MAX:
            raise table.error(None, f"has more than {STATIC_RATES_MAX} rates")
    return pairs


def _rate(table: Table, pair: str, earlier: Mapping[str, Fraction]) -> Fraction:
    base, slash, quote = pair.partition("/")
    if not slash or base == quote or not SYMBOL.fullmatch(base) or not SYMBOL.fullmatch(quote):
        raise table.error(pair, 'a rate\'s name is two different symbols, such as "ETH/USD"')
    if f"{quote}/{base}" in earlier:
        raise table.error(pair, "this pair is written in both directions", remedy="Keep one of the two.")
    try:
        value = parse_decimal(table.text(pair))
    except InvalidInput:
        value = Fraction(0)
    if value <= 0:
        raise table.error(pair, 'must be a positive decimal number in quotes, such as "2500.50"')
    return value
