"""The part of `tallystick doctor` that asks the configured exchanges. Must not: change anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tallystick.cli.doctor_report import OK, WARNING, Check
from tallystick.core.errors import NoQuote
from tallystick.core.money import format_rate

if TYPE_CHECKING:
    from tallystick.config import Config
    from tallystick.rates.source import Rate

CURRENCY: Final = "USD"
SHOWN_PLACES: Final = 8


def check_written_rates(config: Config) -> list[Check]:
    """Without exchanges: which assets can be priced by what is written."""
    if config.rates.exchanges:
        return []
    priced = {symbol for pair in config.rates.static for symbol in pair.split("/")}
    return [
        Check(
            name=f"{name} {asset.symbol}",
            level=WARNING,
            text="No rate is known, so only invoices priced in the asset itself can be paid with it.",
            remedy="Add a pair under [rates.static], or `par` to the token.",
        )
        for name, network in config.networks.items()
        for asset in network.network.assets
        if asset.symbol not in priced and asset.key not in network.network.pegs
    ]


async def check_live_rates(config: Config) -> list[Check]:
    """With exchanges: the price of every asset in dollars, and what each of them said where there is none."""
    if not config.rates.exchanges:
        return []
    from tallystick.runtime import build_rates

    wanted = sorted(
        {
            asset.symbol
            for network in config.networks.values()
            for asset in network.network.assets
            if asset.key not in network.network.pegs
        }
    )
    rates = build_rates(config.rates)
    checks = []
    try:
        await rates.open()
        for symbol in wanted:
            try:
                checks.append(_priced(symbol, await rates.rate(symbol, CURRENCY)))
            except NoQuote as missing:
                checks.append(
                    Check(
                        name=f"rate of {symbol}",
                        level=WARNING,
                        text=f"{missing.what} Invoices in {CURRENCY} cannot be paid with it.",
                        remedy="Look at [rates]: sources, pegs, pivots. Is the way to the exchanges open?",
                    )
                )
    finally:
        await rates.close()
    return checks


def _priced(symbol: str, rate: Rate) -> Check:
    unused = "".join(f" {answer.source}: {answer.problem}." for answer in rate.answers if not answer.used)
    value = format_rate(rate.value, places_max=SHOWN_PLACES)
    return Check(
        name=f"rate of {symbol}",
        level=WARNING if unused else OK,
        text=f"{value} {CURRENCY} ({rate.source}).{unused}",
        remedy="A source that is never used is no help when another one fails." if unused else None,
    )
