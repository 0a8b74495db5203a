"""Quoting: what each accepted asset costs, fixed when the invoice is made.

Holds true: an asset that is not configured, has no wallet or no trustworthy rate is refused with the field that
named it; the rate, its source, every source's answer and the merchant's spread stand on the quote. Must not: guess a
rate, or round in the customer's favour.

The spread makes the amount asked larger by so many 1/10,000 before it is rounded up. It guards against a rate that
moves while it is promised, so a price in the asset itself, or in the currency at whose par it is taken, carries none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Final

import msgspec

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
from tallystick.rates.source import Answer, Rate
from tallystick.services.context import Context

OPTIONS_MAX: Final = 32
BPS: Final = 10_000

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Accepted:
    """An asset on a network that the merchant takes, and where the request named it."""

    network: Network
    asset: Asset
    pointer: str


@dataclass(frozen=True, slots=True)
class QuotedOption:
    """An accepted asset with its price. `exact`: the price is in the asset itself, so no rate can move it."""

    network: Network
    asset: Asset
    amount: int
    rate: str
    source: str
    spread_bps: int = 0
    answers: str = "[]"
    exact: bool = False


class AnswerObject(msgspec.Struct, frozen=True, kw_only=True):
    """What one source of rates answered: from which pair, at which time, and whether and why not it was used."""

    source: str
    pair: str
    rate: str | None
    at: datetime | None
    used: bool
    problem: str | None


Rates = Mapping[str, Rate | NoQuote]
"""What was asked and found, by symbol: units of one currency for one whole of it, or why there is none."""


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
    ctx: Context, price: Price, accepted: Sequence[Accepted], *, asked: bool, spread_bps: int = 0
) -> list[QuotedOption]:
    """Price every accepted asset. With `asked` False an asset without a rate is left out instead of refused."""
    symbols = {symbol_to_ask(one.network, one.asset, price.currency) for one in accepted}
    rates = await ask_rates(ctx, symbols, price.currency)
    quoted: list[QuotedOption] = []
    for one in accepted:
        try:
            quoted.append(quote_option(one.network, one.asset, price, rates, spread_bps))
        except NoQuote:
            if asked:
                raise
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


def symbol_to_ask(network: Network, asset: Asset, currency: str) -> str | None:
    """Whose rate in the currency prices the asset: its own, or that of the currency it is pegged to; None where the
    price is in the asset itself or its peg."""
    if asset.symbol == currency:
        return None
    peg = network.pegs.get(asset.key)
    if peg == currency:
        return None
    return asset.symbol if peg is None else peg


async def rate_between(ctx: Context, base: str, quote: str) -> Rate:
    """The rate of two symbols for whoever wants to know. Raises InvalidInput for symbols of nothing, and NoQuote."""
    assets = {asset.symbol for network in ctx.networks.values() for asset in network.assets}
    for pointer, symbol in (("/base", base), ("/quote", quote)):
        if symbol not in assets and fiat_decimals(symbol) is None:
            raise InvalidInput.at(
                pointer, "is neither a configured asset nor an ISO 4217 currency", code="unknown_symbol"
            )
    return await ctx.rates.rate(base, quote)


async def ask_rates(
    ctx: Context, symbols: Collection[str | None], currency: str
) -> dict[str, Rate | NoQuote]:
    """Ask for all these symbols' rates at the same time."""

    async def asked(symbol: str) -> Rate | NoQuote:
        try:
            return await ctx.rates.rate(symbol, currency)
        except NoQuote as missing:
            return missing

    wanted = sorted(symbol for symbol in symbols if symbol is not None)
    found = await asyncio.gather(*(asked(symbol) for symbol in wanted))
    return dict(zip(wanted, found, strict=True))


def quote_option(network: Network, asset: Asset, price: Price, rates: Rates, spread_bps: int) -> QuotedOption:
    """What of the asset is asked for the price. Raises NoQuote, and InvalidInput for what cannot be expressed."""
    symbol = symbol_to_ask(network, asset, price.currency)
    pegged = network.pegs.get(asset.key) is not None
    if symbol is None:
        exact = asset.symbol == price.currency
        rate, source, answers, spread_bps = Fraction(1), "exact" if exact else "par", "[]", 0
        amount = quote_amount(price, asset, None if exact else rate)
    else:
        found = rates[symbol]
        if isinstance(found, NoQuote):
            raise found
        exact, rate, answers = False, found.value, _encode(answer_objects(found.answers)).decode()
        source = f"par, {found.source}" if pegged else found.source
        # The spread as a worse rate: the amount is then rounded once, up.
        amount = quote_amount(price, asset, rate * Fraction(BPS, BPS + spread_bps))
    if amount > AMOUNT_MAX:
        raise InvalidInput.at("/amount", f"is more than {asset.symbol} can express")
    return QuotedOption(network, asset, amount, format_rate(rate), source, spread_bps, answers, exact)


def answer_objects(answers: Sequence[Answer]) -> list[AnswerObject]:
    """Answers as they are stored and published."""
    return [
        AnswerObject(
            source=answer.source,
            pair=answer.pair,
            rate=None if answer.rate is None else format_rate(answer.rate),
            at=answer.at,
            used=answer.used,
            problem=answer.problem,
        )
        for answer in answers
    ]
