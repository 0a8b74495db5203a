"""How the amount of a refund is found, and what it is built on.

For: `services.refunds`. Holds true: never more than what stands and nobody gives back yet; the asset and network are
those that arrived, so that nothing is exchanged by refunding; every refusal names the field.
Must not: store anything, or read a clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tallystick.core.assess import Assessment
from tallystick.core.errors import Conflict, InvalidInput
from tallystick.core.invoice import Facts, InvoiceTerms
from tallystick.core.money import Asset, Price, format_rate, format_units, parse_units, quote_amount
from tallystick.core.refund import RefundRule
from tallystick.core.refundable import (
    Holding,
    credited_value,
    excess,
    holding,
    partly_allowed,
    same_asset,
    standing,
)
from tallystick.rates.source import Rate


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be given back: `amount` (a decimal string) or a rule, of which asset. `scope` are the transfers in
    question, None for all of the invoice."""

    rule: RefundRule
    amount: str | None = None
    option_id: str | None = None
    asset: str | None = None
    network: str | None = None
    scope: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The amount in base units, and what it rests on. `transfer_ids` are given back in full, if any are."""

    asset: Asset
    option_id: str
    amount: int
    transfer_ids: tuple[str, ...]
    basis_ids: tuple[str, ...]
    withdraws: bool
    detail: dict[str, Any]


def choose_asset(terms: InvoiceTerms, facts: Facts, wanted: Wanted) -> tuple[Asset, str]:
    """The asset that is given back, and the option it came to. Raises InvalidInput, Conflict."""
    options = {option.id: option for option in terms.options}
    if wanted.option_id is not None and wanted.option_id not in options:
        raise InvalidInput.at("/payment_option_id", "is not a payment option of this invoice")
    there = [fact for fact in standing(terms, facts) if wanted.scope is None or fact.id in wanted.scope]
    if not there:
        raise Conflict(
            "Nothing that could be given back is confirmed.",
            object_id=terms.id,
            remedy="Wait for the confirmations: only confirmed money can be refunded.",
        )
    found: dict[tuple[str, str], tuple[Asset, str]] = {}
    for fact in there:
        if fact.asset is not None and wanted.option_id in (None, fact.option_id):
            found.setdefault((fact.asset.network, fact.asset.key), (fact.asset, fact.option_id))
    choices = list(found.values())
    if not choices:
        raise Conflict("Nothing confirmed came by this payment option.", object_id=wanted.option_id)
    choices = _only(choices, [asset.network for asset, _ in choices], wanted.network, "/network")
    choices = _only(choices, [asset.symbol for asset, _ in choices], wanted.asset, "/asset")
    if len(choices) > 1 and wanted.option_id is not None:
        own = options[wanted.option_id].asset
        choices = [choice for choice in choices if same_asset(choice[0], own)] or choices
    if len(choices) > 1:
        raise InvalidInput.at("/asset", f"must say which of what was received: {_listed(choices)}")
    return choices[0]


def _only(
    choices: list[tuple[Asset, str]], names: Sequence[str], wanted: str | None, pointer: str
) -> list[tuple[Asset, str]]:
    kept = [choice for choice, name in zip(choices, names, strict=True) if wanted in (None, name)]
    if not kept:
        raise InvalidInput.at(
            pointer,
            f"is not what was received ({_listed(choices)}): a refund goes back in the same asset on the same network",
        )
    return kept


def _listed(choices: Sequence[tuple[Asset, str]]) -> str:
    return ", ".join(sorted(f"{asset.symbol} on {asset.network}" for asset, _ in choices))


def find_amount(
    terms: InvoiceTerms, facts: Facts, judged: Assessment, wanted: Wanted, rate: Rate | None
) -> Found:
    """The amount by the request or its rule. `rate` prices the asset in the invoice's currency, for a fiat value (None:
    the price is in the asset itself). Raises InvalidInput, Conflict."""
    asset, option_id = choose_asset(terms, facts, wanted)
    holds = holding(terms, facts, asset, scope=wanted.scope)
    amount, detail = _amount(terms, facts, judged, wanted, holds, rate)
    if amount <= 0:
        raise Conflict(f"There is no {asset.symbol} left to give back by this rule.", object_id=terms.id)
    whole = amount == holds.left
    if not whole and not partly_allowed(terms, judged):
        raise InvalidInput.at(
            "/amount",
            "must be everything that was received while more money could still make the invoice paid: "
            'use the rule "received"',
        )
    transfer_ids = tuple(fact.id for fact in holds.transfers) if whole else ()
    return Found(
        asset=asset,
        option_id=option_id,
        amount=amount,
        transfer_ids=transfer_ids,
        basis_ids=tuple(fact.id for fact in standing(terms, facts) if same_asset(fact.asset, asset))
        if wanted.scope is None
        else tuple(fact.id for fact in holds.transfers),
        withdraws=whole and not judged.sufficient,
        detail=detail,
    )


def _amount(
    terms: InvoiceTerms,
    facts: Facts,
    judged: Assessment,
    wanted: Wanted,
    holds: Holding,
    rate: Rate | None,
) -> tuple[int, dict[str, Any]]:
    asset = holds.asset
    match wanted.rule:
        case RefundRule.RECEIVED:
            return holds.left, {}
        case RefundRule.EXCESS:
            return min(holds.left, excess(terms, facts, judged, asset)), {}
        case RefundRule.FIAT_VALUE:
            value = credited_value(terms, facts, asset)
            worth, detail = _worth_now(terms.price, value, asset, rate)
            return min(holds.left, max(0, worth - holds.taken)), detail
    amount = parse_units(wanted.amount or "", asset.decimals, pointer="/amount")
    if amount == 0:
        raise InvalidInput.at("/amount", "must be more than zero")
    if amount > holds.left:
        left = format_units(holds.left, asset.decimals)
        raise InvalidInput.at("/amount", f"is more than can be given back: {left} {asset.symbol}")
    return amount, {}


def _worth_now(price: Price, value: Fraction, asset: Asset, rate: Rate | None) -> tuple[int, dict[str, Any]]:
    """Base units of the asset that are worth `value` times the price now, rounded up like a quote."""
    units = math.floor(value * price.amount)
    if units == 0:
        return 0, {}
    worth = quote_amount(
        Price(units, price.currency, price.decimals), asset, None if rate is None else rate.value
    )
    detail: dict[str, Any] = {
        "value": format_units(units, price.decimals),
        "currency": price.currency,
        "rate": "1" if rate is None else format_rate(rate.value),
        "rate_source": "exact" if rate is None else rate.source,
    }
    return worth, detail
