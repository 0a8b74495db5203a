"""Confirmation policies: a merchant's rules, version by version, and what they choose for a new invoice.

For: the API, and creating invoices. Holds true: putting rules adds a version and never touches an older one, nor any
invoice; the same rules again are the same version. What `choose_for` answers is what the preview shows and what is
then stored with the option, an operator's raise included. While it is used, no raise can come between.
Must not: judge a rule (`core.policy`), or write an option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tallystick.chains.families import FAMILIES
from tallystick.core import policy_rules as core
from tallystick.core.chain import RISKS, Finality, Requirement, Trait
from tallystick.core.errors import Conflict, InvalidInput, NoQuote, NotFound, StaleWrite
from tallystick.core.invoice import Tolerance
from tallystick.core.money import AMOUNT_TEXT_LENGTH_MAX, DECIMAL_PATTERN, Asset, Price, format_units
from tallystick.core.network import Network
from tallystick.core.policy import Applied, Floor, SightLimit, Subject, choose, currencies_needed, raised
from tallystick.db import policies as store
from tallystick.db.merchants import MerchantSettings, merchant_settings
from tallystick.db.sql import Connection
from tallystick.services import objects, quoting
from tallystick.services.context import Actor, Context
from tallystick.services.issuing import issuing_wallets

_DEFAULTS: Final = Tolerance()
_encode: Final = msgspec.json.Encoder().encode

Text = Annotated[str, Meta(min_length=1, max_length=100)]
Amount = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=AMOUNT_TEXT_LENGTH_MAX,
        description='A decimal string such as "100.00".',
        examples=["100.00"],
        extra_json_schema={"pattern": f"^{DECIMAL_PATTERN}$"},
    ),
]


Risk = Literal["replaceable", "unconfirmed_parent"]


class RuleMatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a rule matches: everything given must hold; `{}` is everything. Amounts are compared with the invoice's in
    `amount_currency` (default: the invoice's own), from `amount_gte` up to, and without, `amount_lt`."""

    network: Annotated[str, Meta(min_length=1, max_length=100, examples=["ethereum"])] | None = None
    asset: Annotated[str, Meta(min_length=1, max_length=100, examples=["ETH"])] | None = None
    product_type: Text | None = None
    amount_gte: Amount | None = None
    amount_lt: Amount | None = None
    amount_currency: Annotated[str, Meta(min_length=1, max_length=20, examples=["USD"])] | None = None


class RuleRequire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a payment counts: `confirmations` blocks hold or follow it, or the network's own word (`confirmations` is
    not needed then)."""

    finality: Finality = Finality.DEPTH
    confirmations: Annotated[int, Meta(ge=1, le=core.CONFIRMATIONS_MAX)] | UnsetType | None = UNSET


class RuleTolerance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Basis points below and above the asked amount that still count as paid in full."""

    under_bps: Annotated[int, Meta(ge=0, le=core.UNDER_BPS_MAX)] = _DEFAULTS.under_bps
    over_bps: Annotated[int, Meta(ge=0, le=core.OVER_BPS_MAX)] = _DEFAULTS.over_bps


class PolicyRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule of a confirmation policy. With `zero_conf` a payment counts at first sight: coins before any block holds
    them, tokens in their first block; not where it is shown with a risk that `zero_conf_accepts` does not name."""

    name: Annotated[str, Meta(min_length=1, max_length=core.NAME_LENGTH_MAX)]
    match: RuleMatch = RuleMatch()
    require: RuleRequire
    zero_conf: bool = False
    zero_conf_accepts: Annotated[list[Risk], Meta(max_length=len(RISKS))] = []  # copied by msgspec
    tolerance: RuleTolerance = RuleTolerance()


class NetworkDefault(msgspec.Struct, frozen=True, kw_only=True):
    """What closes the list on a network: its own requirement. `raised_to`: confirmations an operator requires at
    present, whatever a rule says."""

    name: str = core.NETWORK_DEFAULT
    network: str
    require: RuleRequire
    zero_conf: bool
    tolerance: RuleTolerance
    raised_to: int | None


class PolicyObject(msgspec.Struct, frozen=True, kw_only=True):
    """A merchant's rules in order. Version 0: there never were any, and each network's default applies."""

    object: str = "confirmation_policy"
    version: int
    rules: list[PolicyRule]
    defaults: list[NetworkDefault]
    changed_by: objects.ActorObject | None
    created_at: datetime | None


class PreviewOption(msgspec.Struct, frozen=True, kw_only=True):
    """What would be applied to one payment option; its fields are those of the option."""

    asset: str
    network: str
    token_contract: str | None
    finality: str
    confirmations_required: int | None
    zero_conf: bool
    tolerance: objects.Tolerance
    policy: objects.Policy


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy would choose at present, option by option."""

    object: str = "confirmation_policy_preview"
    amount: str
    currency: str
    version: int
    options: list[PreviewOption]


@dataclass(frozen=True, slots=True)
class Wanted:
    """For what rules are chosen: a price, the ways to pay it, the product, and a rule asked for by name.

    `amounts` is what each way asks in base units; None: not quoted yet.
    """

    price: Price
    ways: Sequence[tuple[Network, Asset]]
    product_type: str | None = None
    asked_for: str | None = None
    amounts: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """An invoice as far as rules look at it. `asset` and `network` None: all that would be accepted."""

    amount: str
    currency: str
    asset: str | None = None
    network: str | None = None
    product_type: str | None = None
    confirmation_policy: str | None = None


async def put_policy(
    connection: Connection, ctx: Context, merchant_id: str, actor: Actor, rules: Sequence[PolicyRule]
) -> PolicyObject:
    """Put these rules in force as the next version; the rules in force again change nothing.

    Raises InvalidInput at the wrong fields, StaleWrite when another writer was first.
    """
    wanted = tuple(_rule(rule) for rule in rules)
    core.validate(wanted, ctx.networks)
    row = await store.read_policy(connection, merchant_id)
    before = _policy(row)
    if wanted != before.rules:
        added = await store.add_version(
            connection,
            merchant_id,
            before.version + 1,
            _encode([_published(rule) for rule in wanted]).decode(),
            actor_type=actor.type.value,
            actor_id=actor.id,
            at=ctx.now(),
        )
        if not added:
            raise StaleWrite("The confirmation policy was changed meanwhile.", object_id=merchant_id)
    return await get_policy(connection, ctx, merchant_id)


async def get_policy(
    connection: Connection, ctx: Context, merchant_id: str, version: int | None = None
) -> PolicyObject:
    """A version of the merchant's rules (None: those in force) with what closes the list. Raises NotFound."""
    row = await store.read_policy(connection, merchant_id, version)
    if row is None and version is not None:
        raise NotFound(f"The confirmation policy has no version {version}.")
    policy = _policy(row)
    floors = await store.standing_raises(connection, list(ctx.networks))
    return PolicyObject(
        version=policy.version,
        rules=[_published(rule) for rule in policy.rules],
        defaults=[_default(network, floors.get(network.name)) for network in ctx.networks.values()],
        changed_by=None if row is None else objects.ActorObject(type=row.actor_type, id=row.actor_id),
        created_at=None if row is None else row.created_at,
    )


async def preview(connection: Connection, ctx: Context, merchant_id: str, asked: PreviewRequest) -> Preview:
    """What an invoice made now would get. Raises InvalidInput naming the field, Conflict."""
    families = set(await issuing_wallets(connection, merchant_id)) or set(FAMILIES)
    ways = _ways(ctx, asked, families)
    accepted = [quoting.Accepted(network, asset, "") for network, asset in ways]
    price = quoting.read_price(ctx, asked.amount, asked.currency, accepted)
    wanted = Wanted(price, ways, asked.product_type, asked.confirmation_policy)
    chosen = await choose_for(connection, ctx, merchant_id, wanted)
    return Preview(
        amount=asked.amount,
        currency=asked.currency,
        version=chosen[0].version,
        options=[_preview_option(way, applied) for way, applied in zip(ways, chosen, strict=True)],
    )


async def choose_for(connection: Connection, ctx: Context, merchant_id: str, wanted: Wanted) -> list[Applied]:
    """What the merchant's rules in force, and the operators' raises, ask of each way to pay, in their order.

    Until the transaction ends nothing can be raised, so what is stored by it is what holds.
    Raises InvalidInput at /confirmation_policy, Conflict where a network cannot do what the rule asks.
    """
    policy = _policy(await store.read_policy(connection, merchant_id))
    _check_asked_for(policy, wanted)
    rates = await _rates(ctx, policy, wanted)
    amounts = await _amounts(connection, ctx, merchant_id, policy, wanted)
    await store.keep_raises_away(connection)  # after the rates: an exchange may take its time
    floors = await store.standing_raises(connection, [network.name for network, _ in wanted.ways])
    found = []
    for (network, asset), amount in zip(wanted.ways, amounts, strict=True):
        subject = Subject(
            network=network.name,
            asset=asset.symbol,
            product_type=wanted.product_type,
            price=wanted.price,
            default=network.requirement,
            rates=rates,
            amount=amount,
            sight_limit=_sight_limit(network),
            shows_risks=network.shows_risks,
        )
        applied = choose(policy, subject, asked_for=wanted.asked_for)
        if applied.requirement.finality is not Finality.DEPTH and not network.finality_tags:
            raise Conflict(
                f"{applied.explanation} But {network.name} names no such blocks.",
                object_id=network.name,
                remedy="Put rules that ask for a depth there, or accept assets of other networks only.",
            )
        floor = floors.get(network.name)
        found.append(applied if floor is None else raised(applied, floor))
    return found


def _check_asked_for(policy: core.Policy, wanted: Wanted) -> None:
    if wanted.asked_for in (None, core.NETWORK_DEFAULT):
        return
    rule = policy.rule(wanted.asked_for)
    if rule is None:
        raise InvalidInput.at(
            "/confirmation_policy", f'is neither a rule in force nor "{core.NETWORK_DEFAULT}"'
        )
    if not any(
        core.fits_place(rule.conditions, network.name, asset.symbol) for network, asset in wanted.ways
    ):
        raise InvalidInput.at(
            "/confirmation_policy", "is a rule for none of the accepted assets and networks"
        )


async def _rates(ctx: Context, policy: core.Policy, wanted: Wanted) -> dict[str, Fraction]:
    """Units of other currencies for one of the price's own, as far as the rules need them and they are known."""
    currency = wanted.price.currency
    rules = tuple(
        rule
        for rule in policy.rules
        if rule.conditions.product_type in (None, wanted.product_type)
        and any(
            core.fits_place(rule.conditions, network.name, asset.symbol) for network, asset in wanted.ways
        )
    )
    found: dict[str, Fraction] = {}
    for other in currencies_needed(core.Policy(policy.version, rules), currency):
        pegged = any(
            asset.symbol == currency and network.pegs.get(asset.key) == other
            for network, asset in wanted.ways
        )
        if pegged:
            found[other] = Fraction(1)
            continue
        try:
            found[other] = (await ctx.rates.rate(currency, other)).value
        except NoQuote:
            continue  # `core.policy.choose` then takes the strictest that might apply
    return found


def _sight_limit(network: Network) -> SightLimit | None:
    limit, native = network.zero_conf_limit, network.native
    return (
        None
        if limit is None
        else SightLimit(limit, f"{format_units(limit, native.decimals)} {native.symbol}")
    )


async def _amounts(
    connection: Connection, ctx: Context, merchant_id: str, policy: core.Policy, wanted: Wanted
) -> list[int | None]:
    """What each way asks in the coin that its network's limit is in; None where it is not known or no limit is."""
    limited = [
        network.zero_conf_limit is not None and asset.contract is None for network, asset in wanted.ways
    ]
    given: Sequence[int | None] | None = wanted.amounts
    if given is None and any(limited) and any(rule.zero_conf for rule in policy.rules):
        given = await _quoted(connection, ctx, merchant_id, wanted)
    if given is None:
        return [None] * len(limited)
    return [amount if known else None for amount, known in zip(given, limited, strict=True)]


async def _quoted(connection: Connection, ctx: Context, merchant_id: str, wanted: Wanted) -> list[int | None]:
    """What a quote would ask now, for the preview."""
    settings = await merchant_settings(connection, merchant_id) or MerchantSettings("")
    symbols = {quoting.symbol_to_ask(network, asset, wanted.price.currency) for network, asset in wanted.ways}
    rates = await quoting.ask_rates(ctx, symbols, wanted.price.currency)
    found: list[int | None] = []
    for network, asset in wanted.ways:
        try:
            quoted = quoting.quote_option(network, asset, wanted.price, rates, settings.spread_bps)
            found.append(quoted.amount)
        except (NoQuote, InvalidInput):  # it could not be offered at all
            found.append(None)
    return found


def _ways(ctx: Context, asked: PreviewRequest, families: set[str]) -> list[tuple[Network, Asset]]:
    if asked.network is not None and asked.network not in ctx.networks:
        raise InvalidInput.at("/network", "is not a network configured here", code="unsupported_network")
    ways = [
        (network, asset)
        for network in ctx.networks.values()
        if network.name == asked.network or (asked.network is None and network.family in families)
        for asset in network.assets
        if asked.asset in (None, asset.symbol)
    ]
    if not ways:
        if asked.asset is None:
            raise Conflict("No network is configured.", remedy="Ask the operator to configure one.")
        where = asked.network or "any network"
        raise InvalidInput.at("/asset", f"is not an asset configured on {where}", code="unsupported_asset")
    if len(ways) > quoting.OPTIONS_MAX:
        raise InvalidInput.at(
            "/network",
            f"must be named: there are {len(ways)} ways to pay, an invoice offers at most {quoting.OPTIONS_MAX}",
        )
    return ways


def _policy(row: store.PolicyRow | None) -> core.Policy:
    """Stored rules as core takes them."""
    if row is None:
        return core.Policy()
    return core.Policy(
        row.version, tuple(_rule(rule) for rule in msgspec.convert(row.rules, list[PolicyRule]))
    )


def _rule(rule: PolicyRule) -> core.Rule:
    """A rule as core takes it. A number of confirmations beside safe or finalized says nothing and is left out."""
    confirmations = rule.require.confirmations if rule.require.finality is Finality.DEPTH else None
    return core.Rule(
        name=rule.name,
        conditions=core.Conditions(
            network=rule.match.network,
            asset=rule.match.asset,
            product_type=rule.match.product_type,
            amount_gte=rule.match.amount_gte,
            amount_lt=rule.match.amount_lt,
            amount_currency=rule.match.amount_currency,
        ),
        finality=rule.require.finality,
        confirmations=None if confirmations is UNSET else confirmations,
        zero_conf=rule.zero_conf,
        zero_conf_accepts=frozenset(Trait(one) for one in rule.zero_conf_accepts),
        tolerance=Tolerance(rule.tolerance.under_bps, rule.tolerance.over_bps),
    )


def _published(rule: core.Rule) -> PolicyRule:
    """A rule as it is stored and shown."""
    wanted = rule.conditions
    return PolicyRule(
        name=rule.name,
        match=RuleMatch(
            network=wanted.network,
            asset=wanted.asset,
            product_type=wanted.product_type,
            amount_gte=wanted.amount_gte,
            amount_lt=wanted.amount_lt,
            amount_currency=wanted.amount_currency,
        ),
        require=_require(rule.requirement),
        zero_conf=rule.zero_conf,
        zero_conf_accepts=[risk for risk in get_args(Risk) if Trait(risk) in rule.zero_conf_accepts],
        tolerance=_tolerance(rule.tolerance),
    )


def _require(requirement: Requirement) -> RuleRequire:
    by_depth = requirement.finality is Finality.DEPTH
    return RuleRequire(
        finality=requirement.finality, confirmations=requirement.confirmations if by_depth else UNSET
    )


def _tolerance(tolerance: Tolerance) -> RuleTolerance:
    return RuleTolerance(under_bps=tolerance.under_bps, over_bps=tolerance.over_bps)


def _default(network: Network, floor: Floor | None) -> NetworkDefault:
    return NetworkDefault(
        network=network.name,
        require=_require(network.requirement),
        zero_conf=network.requirement.zero_conf,
        tolerance=_tolerance(_DEFAULTS),
        raised_to=None if floor is None else floor.confirmations,
    )


def _preview_option(way: tuple[Network, Asset], applied: Applied) -> PreviewOption:
    network, asset = way
    requirement, tolerance = applied.requirement, applied.tolerance
    contract = asset.contract
    return PreviewOption(
        asset=asset.symbol,
        network=network.name,
        token_contract=None if contract is None else FAMILIES[network.family].display(contract, network),
        finality=requirement.finality.value,
        confirmations_required=requirement.confirmations if requirement.finality is Finality.DEPTH else None,
        zero_conf=requirement.zero_conf,
        tolerance=objects.Tolerance(under_bps=tolerance.under_bps, over_bps=tolerance.over_bps),
        policy=objects.Policy(name=applied.name, version=applied.version, explanation=applied.explanation),
    )
