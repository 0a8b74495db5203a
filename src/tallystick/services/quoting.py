"""Quoting: what each accepted asset costs, fixed when the invoice is made.

Holds true: an asset that is not configured, has no wallet or no trustworthy rate is refused with the field that
named it; the rate, its source and its time stand on the option. Must not: guess a rate, or round in the customer's
favour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from tallystick.core.errors import Conflict, InvalidInput, NoQuote
from tallystick.core.money import (
    AMOUNT_MAX,
    Asset,
    Price,
    fiat_decimals,
    format_rate,
    parse_units,
    quote_amount,
)
from tallystick.core.network import Network
from tallystick.services.context import Context

OPTIONS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Accepted:
    """An asset on a network that the merchant takes, and where the request named it."""

    network: Network
    asset: Asset
    pointer: str


@dataclass(frozen=True, slots=True)
class QuotedOption:
    """An accepted asset with its price."""

    network: Network
    asset: Asset
    amount: int
    rate: str
    source: str


def resolve_accepted(
    ctx: Context, asked: Sequence[tuple[str, str]] | None, families: set[str]
) -> tuple[Accepted, ...]:
    """The accepted assets; None means everything the merchant has a wallet for. Raises InvalidInput, Conflict."""
    if asked is None:
        found = tuple(
            Accepted(network, asset, "/accepted")
            for network in ctx.networks.values()
            if network.family in families
            for asset in network.assets
        )
        if not found:
            raise Conflict(
                "There is nothing to be paid with: no wallet is registered for any configured network.",
                remedy="Register one with POST /v1/wallets.",
            )
        return found
    if not 1 <= len(asked) <= OPTIONS_MAX:
        raise InvalidInput.at("/accepted", f"must name between 1 and {OPTIONS_MAX} assets")
    accepted = tuple(
        _accepted(ctx, symbol, name, families, f"/accepted/{position}")
        for position, (symbol, name) in enumerate(asked)
    )
    seen: set[tuple[str, str]] = set()
    for one in accepted:
        if (one.network.name, one.asset.key) in seen:
            raise InvalidInput.at(one.pointer, "names the same asset and network a second time")
        seen.add((one.network.name, one.asset.key))
    return accepted


def _accepted(ctx: Context, symbol: str, name: str, families: set[str], pointer: str) -> Accepted:
    network = ctx.networks.get(name)
    if network is None:
        raise InvalidInput.at(
            f"{pointer}/network", "is not a network configured here", code="unsupported_network"
        )
    asset = network.asset_by_symbol(symbol)
    if asset is None:
        raise InvalidInput.at(
            f"{pointer}/asset", f"is not an asset configured on {name}", code="unsupported_asset"
        )
    if network.family not in families:
        raise InvalidInput.at(f"{pointer}/network", f"has no wallet: register one of family {network.family}")
    return Accepted(network, asset, pointer)


def read_price(ctx: Context, amount: str, currency: str, accepted: Sequence[Accepted]) -> Price:
    """The price as asked. A price in an asset has as many decimals as all its accepted forms can express."""
    decimals = fiat_decimals(currency)
    if decimals is None:
        forms = [one.asset.decimals for one in accepted if one.asset.symbol == currency] or [
            asset.decimals
            for network in ctx.networks.values()
            for asset in network.assets
            if asset.symbol == currency
        ]
        if not forms:
            raise InvalidInput.at("/currency", "is neither an ISO 4217 currency nor a configured asset")
        decimals = min(forms)
    units = parse_units(amount, decimals, pointer="/amount")
    if units == 0:
        raise InvalidInput.at("/amount", "must be more than zero")
    return Price(units, currency, decimals)


async def quote(
    ctx: Context, price: Price, accepted: Sequence[Accepted], *, asked: bool
) -> list[QuotedOption]:
    """Price every accepted asset. With `asked` False an asset without a rate is left out instead of refused."""
    quoted: list[QuotedOption] = []
    for one in accepted:
        try:
            rate, source = await _rate(ctx, one, price.currency)
        except NoQuote:
            if asked:
                raise
            continue
        amount = quote_amount(price, one.asset, rate)
        if amount > AMOUNT_MAX:
            raise InvalidInput.at("/amount", f"is more than {one.asset.symbol} can express")
        shown = "1" if rate is None else format_rate(rate)
        quoted.append(QuotedOption(one.network, one.asset, amount, shown, source))
    if not quoted:
        raise NoQuote(
            f"No accepted asset has a rate in {price.currency}.", remedy="Configure rates for this currency."
        )
    if len(quoted) > OPTIONS_MAX:  # everything there is, because the request named nothing
        raise InvalidInput.at(
            "/accepted",
            f"must name the assets to accept: there are {len(quoted)}, an invoice offers at most {OPTIONS_MAX}",
        )
    return quoted


async def _rate(ctx: Context, one: Accepted, currency: str) -> tuple[Fraction | None, str]:
    """Units of `currency` for one whole asset, and where that came from; None where the price is in the asset
    itself."""
    if one.asset.symbol == currency:
        return None, "exact"
    peg = one.network.pegs.get(one.asset.key)
    if peg == currency:
        return Fraction(1), "par"
    if peg is not None:
        rate = await ctx.rates.rate(peg, currency)
        return rate.value, f"par, {rate.source}"
    rate = await ctx.rates.rate(one.asset.symbol, currency)
    return rate.value, rate.source
