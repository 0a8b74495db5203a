"""Refunds: request and read them. What is decided about them afterwards is in `refund_decisions`.

For: the API, the exception queue, the command line. Holds true: whoever changes a refund holds its invoice's lock, so
that of many requests for the same money one gets it; only confirmed money is given back, in the asset and on the
network it came by; the destination is never taken from the chain. An object of another merchant does not exist. Nothing
here sends anything: a payment request is signed elsewhere.
Must not: write a status (`refund_writing` does), hold a key, or know HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tallystick.core.assess import Assessment, assess
from tallystick.core.cases import GUIDES, CaseKind, Resolution
from tallystick.core.chain import NetworkView
from tallystick.core.errors import Conflict, InvalidInput, NetworkUnavailable, NotFound
from tallystick.core.ids import IdKind
from tallystick.core.invoice import Facts
from tallystick.core.money import parse_units
from tallystick.core.network import Network
from tallystick.core.refund import (
    AddressSource,
    FeePayer,
    RefundRule,
    RefundStatus,
)
from tallystick.db import invoices as invoice_store
from tallystick.db import refunds as store
from tallystick.db.networks import read_views, share_networks
from tallystick.db.refunds import StoredRefund
from tallystick.db.sql import Connection
from tallystick.rates.source import Rate
from tallystick.services import objects
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.cases import close_case
from tallystick.services.context import Actor, Context
from tallystick.services.paging import Page, page_of
from tallystick.services.refund_amounts import Found, Wanted, choose_asset, find_amount
from tallystick.services.refund_claims import check_address, issue_claim
from tallystick.services.refund_writing import create, refund_object, required_depth, show

REASON_LENGTH_MAX: Final = 1_000

_R = RefundStatus


REFUNDS_PER_INVOICE_MAX: Final = 200
"""Each is judged whenever its invoice is, so their number is bounded; nobody gives one order back in more parts."""


@dataclass(frozen=True, slots=True)
class NewRefund:
    """What is asked for. Of an invoice, or of what an exception is about; `amount` (a decimal string of the asset) or a
    rule. From an exception neither is needed: the excess of an overpayment, else everything it is about.

    With `fee` customer, `fee_amount` (a decimal string of the asset) is kept back from what is sent: the requester says
    how much, because what the network will ask for is not known before somebody signs. Without an address the customer
    gives one on the claim page.
    """

    reason: str
    invoice_id: str | None = None
    exception_id: str | None = None
    payment_option_id: str | None = None
    amount: str | None = None
    rule: RefundRule | None = None
    address: str | None = None
    network: str | None = None
    asset: str | None = None
    fee: FeePayer = FeePayer.MERCHANT
    fee_amount: str | None = None


@dataclass(frozen=True, slots=True)
class RefundFilter:
    """Which refunds a list shows; None does not restrict."""

    status: RefundStatus | None = None
    invoice_id: str | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """An invoice under lock, with everything known about it."""

    invoice: invoice_store.StoredInvoice
    facts: Facts
    judged: Assessment
    views: dict[str, NetworkView]


async def request_refund(
    connection: Connection, ctx: Context, merchant_id: str, actor: Actor, new: NewRefund, rate: Rate | None
) -> objects.Refund:
    """Ask for a refund; nothing is paid before it is approved. Its `claim_url` is in this answer only.

    `rate` is what `rate_for` answered: the caller asks it before it locks anything. An exception it comes from stays as
    it is: its resolution is the caller's. Raises NotFound, InvalidInput naming the field, Conflict where nothing
    confirmed is left to give back, NetworkUnavailable.
    """
    check_text("/reason", new.reason, REASON_LENGTH_MAX)
    invoice_id, wanted = await _scope_of(connection, merchant_id, new)
    ground = await lock_ground(connection, ctx, invoice_id)
    if len(ground.facts.refunds) >= REFUNDS_PER_INVOICE_MAX:
        raise Conflict(
            f"An invoice can have {REFUNDS_PER_INVOICE_MAX} refunds at most.", object_id=invoice_id
        )
    found = find_amount(ground.invoice.terms, ground.facts, ground.judged, wanted, rate)
    network = ctx.networks.get(found.asset.network)
    if network is None:
        raise NetworkUnavailable(
            "The network is no longer configured: a refund there would not be seen.",
            object_id=found.asset.network,
        )
    fee_amount = _fee_amount(new, found)
    address = None
    if new.address is not None:
        address = await check_address(connection, ctx, network, new.address)
    refund = _new_refund(ctx, ground.invoice, network, actor, new, wanted.rule, found, fee_amount, address)
    claim_url = None
    if address is None:
        refund, claim_url = issue_claim(ctx, refund)
    made = await create(connection, ctx, refund, actor, new.reason)
    return refund_object(ctx, made, claim_url=claim_url)


async def create_refund(
    connection: Connection, ctx: Context, merchant_id: str, actor: Actor, new: NewRefund
) -> objects.Refund:
    """`request_refund`, and where it comes from an exception, that is resolved by it. Raises Conflict, where it was."""
    rate = await rate_for(connection, ctx, merchant_id, new)
    if new.exception_id is None:
        return await _request_and_look(connection, ctx, merchant_id, actor, new, rate)
    invoice_id, _ = await _scope_of(connection, merchant_id, new)
    await lock_ground(connection, ctx, invoice_id)
    made: list[objects.Refund] = []

    async def carry_out() -> dict[str, str]:
        made.append(await _request_and_look(connection, ctx, merchant_id, actor, new, rate))
        return {"refund_id": made[0].id}

    closed = await close_case(
        connection,
        ctx,
        new.exception_id,
        new.reason,
        ctx.now(),
        action=Resolution.REFUND,
        actor=actor,
        outcome=carry_out,
    )
    if not closed:
        raise Conflict("The exception is resolved already.", object_id=new.exception_id)
    return made[0]


async def _request_and_look(
    connection: Connection, ctx: Context, merchant_id: str, actor: Actor, new: NewRefund, rate: Rate | None
) -> objects.Refund:
    """`request_refund`, and judge the invoice anew: what it gives back in full is no case, what it leaves is one."""
    asked = await request_refund(connection, ctx, merchant_id, actor, new, rate)
    evidence = {"type": "refund", "refund_id": asked.id}
    cause = Cause(CauseKind.DECISION, actor, (evidence,))
    await assess_invoices(connection, ctx, [asked.invoice_id], cause)
    return asked


async def _scope_of(connection: Connection, merchant_id: str, new: NewRefund) -> tuple[str, Wanted]:
    """Of which invoice, and what is to be given back. Raises InvalidInput, NotFound."""
    if (new.invoice_id is None) == (new.exception_id is None):
        raise InvalidInput.at("/invoice_id", "needs exactly one of invoice_id and exception_id")
    if new.amount is not None and new.rule is not None:
        raise InvalidInput.at("/rule", "cannot be given together with an amount")
    rule, scope, invoice_id = new.rule, None, new.invoice_id
    if new.exception_id is not None:
        row = await store.SQL.exception_scope.one(connection, id=new.exception_id, merchant_id=merchant_id)
        if row is None:
            raise NotFound("There is no such exception.", object_id=new.exception_id)
        possible = Resolution.REFUND in GUIDES[CaseKind(row["kind"])].resolutions
        if row["invoice_id"] is None or not row["transfer_ids"] or not possible:
            raise InvalidInput.at("/exception_id", "is not about money that can be given back")
        invoice_id = row["invoice_id"]
        scope = frozenset(row["transfer_ids"])
        if rule is None and new.amount is None:
            rule = RefundRule.EXCESS if row["kind"] == CaseKind.OVERPAID else RefundRule.RECEIVED
    if rule is RefundRule.AMOUNT or (rule is None and new.amount is None):
        raise InvalidInput.at("/amount", "is needed, or a rule: received, excess or fiat_value")
    owner = await invoice_store.SQL.invoice_owner.one(connection, id=invoice_id)
    if owner is None or owner["merchant_id"] != merchant_id or invoice_id is None:
        raise NotFound("There is no such invoice.", object_id=invoice_id)
    wanted = Wanted(
        rule=rule or RefundRule.AMOUNT,
        amount=new.amount,
        option_id=new.payment_option_id,
        asset=new.asset,
        network=new.network,
        scope=scope,
    )
    return invoice_id, wanted


async def rate_for(connection: Connection, ctx: Context, merchant_id: str, new: NewRefund) -> Rate | None:
    """The asset's rate in the invoice's currency, where the rule needs one.

    It takes as long as the sources do: ask before anything is locked, or no block of these networks is read meanwhile.
    Raises NoQuote, and as `request_refund` does.
    """
    if new.rule is not RefundRule.FIAT_VALUE:
        return None
    invoice_id, wanted = await _scope_of(connection, merchant_id, new)
    (invoice,) = await invoice_store.read_invoices(connection, [invoice_id])
    facts = invoice.facts(await read_views(connection, ctx.networks))
    asset, _ = choose_asset(invoice.terms, facts, wanted)
    currency = invoice.terms.price.currency
    if asset.symbol == currency:
        return None
    network = ctx.networks.get(asset.network)
    peg = network.pegs.get(asset.key) if network is not None else None
    return await ctx.rates.rate(peg or asset.symbol, currency)


async def lock_ground(connection: Connection, ctx: Context, invoice_id: str) -> Ground:
    """Lock the invoice and, before it, every network that matters: the order that every writer keeps."""
    networks = await store.SQL.networks_of.all(connection, invoice_id=invoice_id)
    await share_networks(connection, [row["network"] for row in networks])
    (invoice,) = await invoice_store.read_invoices(connection, [invoice_id], lock=True)
    views = await read_views(connection, ctx.networks)
    facts = invoice.facts(views)
    return Ground(invoice, facts, assess(invoice.terms, facts, ctx.now()), views)


def _fee_amount(new: NewRefund, found: Found) -> int:
    if new.fee is FeePayer.MERCHANT:
        if new.fee_amount is not None:
            raise InvalidInput.at("/fee_amount", "belongs to a fee that the customer bears")
        return 0
    if new.fee_amount is None:
        raise InvalidInput.at(
            "/fee_amount", "is needed where the customer bears the fee: it is never guessed"
        )
    fee_amount = parse_units(new.fee_amount, found.asset.decimals, pointer="/fee_amount")
    if fee_amount >= found.amount:
        raise InvalidInput.at("/fee_amount", "leaves nothing to send")
    return fee_amount


def _new_refund(
    ctx: Context,
    invoice: invoice_store.StoredInvoice,
    network: Network,
    actor: Actor,
    new: NewRefund,
    rule: RefundRule,
    found: Found,
    fee_amount: int,
    address: str | None,
) -> StoredRefund:
    now = ctx.now()
    return StoredRefund(
        id=ctx.new_id(IdKind.REFUND),
        merchant_id=invoice.merchant_id,
        invoice_id=invoice.id,
        option_id=found.option_id,
        exception_id=new.exception_id,
        status=_R.REQUESTED,
        rule=rule,
        asset=found.asset,
        family=network.family,
        amount=found.amount,
        fee=new.fee,
        fee_amount=fee_amount,
        transfer_ids=found.transfer_ids,
        basis_ids=found.basis_ids,
        withdraws=found.withdraws,
        reason=new.reason,
        detail=found.detail,
        requested_by_type=actor.type.value,
        requested_by=actor.id,
        requested_at=now,
        updated_at=now,
        address=address,
        address_source=AddressSource.MERCHANT if address is not None else None,
        address_at=now if address is not None else None,
        confirmations_required=required_depth(invoice, found.option_id),
        option_network=invoice.terms.option(found.option_id).asset.network,
    )


async def get_refund(
    connection: Connection, ctx: Context, merchant_id: str | None, refund_id: str
) -> objects.Refund:
    """The refund as it stands; `merchant_id` None is an operator. Raises NotFound."""
    await invoice_of(connection, merchant_id, refund_id)
    return (await show(connection, ctx, [refund_id]))[0]


async def list_refunds(
    connection: Connection,
    ctx: Context,
    merchant_id: str,
    wanted: RefundFilter,
    limit: int,
    cursor: str | None,
) -> Page[objects.Refund]:
    """A page of the merchant's refunds, newest first."""
    rows = await store.SQL.list_ids.all(
        connection,
        merchant_id=merchant_id,
        before_id=cursor,
        status=wanted.status,
        invoice_id=wanted.invoice_id,
        row_count=limit + 1,
    )
    kept, next_cursor = page_of([row["id"] for row in rows], limit, lambda found: found)
    return Page(data=await show(connection, ctx, list(kept)), next_cursor=next_cursor)


async def all_refunds(
    connection: Connection, ctx: Context, merchant_id: str | None, status: str | None, count_max: int
) -> list[objects.Refund]:
    """Refunds of every merchant, or of one, newest first. For operators only."""
    rows = await store.SQL.list_all_ids.all(
        connection, merchant_id=merchant_id, status=status, row_count=count_max
    )
    return await show(connection, ctx, [row["id"] for row in rows])


async def history_of(connection: Connection, refund_id: str) -> list[objects.Transition]:
    """Every status a refund had, oldest first, with who caused it and why, in their words."""
    return [
        objects.Transition(
            sequence=row["sequence"],
            from_=row["from_status"],
            to=row["to_status"],
            reason=row["note"],
            actor=objects.ActorObject(type=row["actor_type"], id=row["actor_id"]),
            evidence=[],
            at=row["at"],
        )
        for row in await store.SQL.transitions_of.all(connection, refund_id=refund_id)
    ]


async def invoice_of(connection: Connection, merchant_id: str | None, refund_id: str) -> str:
    """The invoice of a refund, once it is sure that the merchant owns it."""
    row = await store.SQL.owner_of.one(connection, id=refund_id)
    if row is None or (merchant_id is not None and row["merchant_id"] != merchant_id):
        raise NotFound("There is no such refund.", object_id=refund_id)
    invoice_id: str = row["invoice_id"]
    return invoice_id


async def lock_refund(
    connection: Connection, ctx: Context, merchant_id: str | None, refund_id: str
) -> tuple[Ground, StoredRefund]:
    """Lock a refund's invoice and read both. Raises NotFound."""
    ground = await lock_ground(connection, ctx, await invoice_of(connection, merchant_id, refund_id))
    (refund,) = await store.read_refunds(connection, [refund_id])
    return ground, refund


def check_text(pointer: str, text: str, length_max: int, *, optional: bool = False) -> None:
    """Raise InvalidInput at `pointer` for a text that is too long, or missing where it is needed."""
    if not (0 if optional else 1) <= len(text) <= length_max:
        raise InvalidInput.at(
            pointer, f"must have {'at most' if optional else '1 to'} {length_max} characters"
        )
