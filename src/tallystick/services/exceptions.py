"""The queue of exceptions for people: look at it, take a case, resolve it.

For: the API, the command line and the dashboard. Holds true: a resolution is one transaction: the decisions it records,
everything that follows from them about the invoice, and the closed case, or nothing of it; a case is resolved once,
whoever else resolves it at the same time; nothing here sets a status, people only add facts.
Must not: open cases or close them by themselves (`services.cases`), or move money (a refund is a new payment that
somebody approves and signs).

Locks: networks by name, invoices by id, then the case. The one writer takes them in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from tallystick.core.assess import assess
from tallystick.core.cases import GUIDES, Case, CaseKind, CaseStatus, Resolution, decision_on
from tallystick.core.errors import Conflict, FieldProblem, InvalidInput, NotFound
from tallystick.core.invoice import DecisionKind
from tallystick.core.money import Price, format_price, parse_units
from tallystick.core.refund import FeePayer, RefundRule
from tallystick.db.invoices import StoredInvoice
from tallystick.db.networks import read_views
from tallystick.db.sql import Connection, Record
from tallystick.rates.source import Rate
from tallystick.services import objects
from tallystick.services.cases import SQL, close_case, exception_object
from tallystick.services.context import Actor, Context
from tallystick.services.deciding import Decider, attach
from tallystick.services.locking import lock_invoices
from tallystick.services.paging import Page, page_of
from tallystick.services.refunds import REASON_LENGTH_MAX, NewRefund, rate_for, request_refund

NOTE_LENGTH_MAX: Final = 2000
OWNER_LENGTH_MAX: Final = 200

_FIELDS: Final[dict[Resolution, frozenset[str]]] = {
    Resolution.ACCEPT: frozenset(),
    Resolution.CREDIT: frozenset({"value"}),
    Resolution.REFUND: frozenset({"refund"}),
    Resolution.ATTACH: frozenset({"invoice_id", "payment_option_id", "value"}),
    Resolution.WRITE_OFF: frozenset(),
    Resolution.IGNORE: frozenset(),
}
"""What belongs to an action besides its note."""

_NEEDED: Final[dict[Resolution, str]] = {Resolution.CREDIT: "value", Resolution.ATTACH: "invoice_id"}

_OF_AN_INVOICE: Final = frozenset(
    {Resolution.ACCEPT, Resolution.CREDIT, Resolution.REFUND, Resolution.ATTACH}
)
"""Actions that say something about an invoice, so that a case about none cannot be resolved by them."""


@dataclass(frozen=True, slots=True)
class ExceptionFilter:
    """Which exceptions a list shows; None does not restrict."""

    status: CaseStatus | None = None
    kind: CaseKind | None = None
    invoice_id: str | None = None


@dataclass(frozen=True, slots=True)
class RefundWish:
    """How a refund that resolves a case is to be made; what is left out follows from the case (see `NewRefund`)."""

    reason: str | None = None
    payment_option_id: str | None = None
    amount: str | None = None
    rule: RefundRule | None = None
    address: str | None = None
    network: str | None = None
    asset: str | None = None
    fee: FeePayer = FeePayer.MERCHANT
    fee_amount: str | None = None


@dataclass(frozen=True, slots=True)
class Resolve:
    """What a person decided about a case. `value` is in the currency of the invoice that it counts to."""

    action: Resolution
    note: str
    refund: RefundWish = RefundWish()
    value: str | None = None
    invoice_id: str | None = None
    payment_option_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Work:
    """A case about to be resolved, with everything that is locked for it."""

    connection: Connection
    decider: Decider
    case: Case
    invoice: StoredInvoice
    asked: Resolve
    target: StoredInvoice | None
    rate: Rate | None  # for a refund that needs one
    refunds: list[objects.Refund]  # what was made, for the answer: the claim's link is told once


async def list_exceptions(
    connection: Connection,
    ctx: Context,
    merchant_id: str,
    wanted: ExceptionFilter,
    limit: int,
    cursor: str | None,
) -> Page[objects.ExceptionObject]:
    """A page of the merchant's exceptions, oldest first: who waits longest comes first."""
    rows = await SQL.list_ids.all(
        connection,
        merchant_id=merchant_id,
        after_id=cursor,
        status=wanted.status,
        kind=wanted.kind,
        invoice_id=wanted.invoice_id,
        row_count=limit + 1,
    )
    kept, next_cursor = page_of([row["id"] for row in rows], limit, lambda found: found)
    return Page(data=await show_exceptions(connection, ctx, list(kept)), next_cursor=next_cursor)


async def show_exceptions(
    connection: Connection, ctx: Context, ids: list[str]
) -> list[objects.ExceptionObject]:
    """These exceptions, oldest first. For callers that checked whose they are."""
    now = ctx.now()
    return [exception_object(row, now) for row in await SQL.read_exceptions.all(connection, ids=ids)]


async def get_exception(
    connection: Connection, ctx: Context, merchant_id: str, exception_id: str
) -> objects.ExceptionObject:
    """One exception. Raises NotFound."""
    await _own(connection, merchant_id, exception_id)
    return (await show_exceptions(connection, ctx, [exception_id]))[0]


async def assign(
    connection: Connection,
    ctx: Context,
    merchant_id: str,
    actor: Actor,
    exception_id: str,
    owner: str,
    note: str | None = None,
) -> objects.ExceptionObject:
    """Give an open case to a person or a team.

    Raises NotFound, InvalidInput at /owner and /note, Conflict once it is resolved.
    """
    if not 1 <= len(owner.strip()) <= len(owner) <= OWNER_LENGTH_MAX:
        raise InvalidInput.at("/owner", f"must be 1 to {OWNER_LENGTH_MAX} characters, and not blank")
    if note is not None and not 1 <= len(note) <= NOTE_LENGTH_MAX:
        raise InvalidInput.at("/note", f"must be 1 to {NOTE_LENGTH_MAX} characters")
    row = await _own(connection, merchant_id, exception_id)
    by = {"type": actor.type, "id": actor.id}
    said = {"owner": owner, "note": note, "actor": by, "at": ctx.now()}
    if not await SQL.assign_exception.run(
        connection, id=row["id"], owner=owner, assignment=msgspec.json.encode(said).decode()
    ):
        raise _resolved_already(exception_id)
    return await get_exception(connection, ctx, merchant_id, exception_id)


async def resolve(
    connection: Connection, ctx: Context, merchant_id: str, actor: Actor, exception_id: str, asked: Resolve
) -> objects.ExceptionObject:
    """Carry out what a person decided about a case, and close it.

    Raises NotFound; InvalidInput at /action where the kind of case does not have it, and at the field that is wrong;
    Conflict when it is resolved already, or when what it is about does not allow this.
    """
    row = await _own(connection, merchant_id, exception_id)
    _check(CaseKind(row["kind"]), asked)
    rate = await _rate_for(connection, ctx, merchant_id, asked, exception_id)
    invoices = await _lock_invoices(connection, merchant_id, row["invoice_id"], asked.invoice_id)
    row = await _own(connection, merchant_id, exception_id, lock=True)
    if row["status"] != CaseStatus.OPEN:
        raise _resolved_already(exception_id)
    decider = Decider(ctx, actor, asked.note, exception_id, ctx.now())
    refunds: list[objects.Refund] = []
    outcome = None
    if row["invoice_id"] is not None:
        case = Case(CaseKind(row["kind"]), frozenset(row["transfer_ids"]))
        target = invoices[asked.invoice_id] if asked.invoice_id is not None else None
        work = _Work(connection, decider, case, invoices[row["invoice_id"]], asked, target, rate, refunds)
        outcome = partial(_carry_out, work)
    elif asked.action in _OF_AN_INVOICE:
        raise Conflict(
            "This case is about no invoice yet.",
            object_id=exception_id,
            remedy="Write it off or ignore it here; reconciliation attaches what belongs to an invoice.",
        )
    await close_case(
        connection,
        ctx,
        exception_id,
        asked.note,
        decider.at,
        action=asked.action,
        actor=actor,
        outcome=outcome,
    )
    shown = await get_exception(connection, ctx, merchant_id, exception_id)
    return msgspec.structs.replace(shown, refund=refunds[0]) if refunds else shown


async def _carry_out(work: _Work) -> dict[str, Any]:
    """Record what was decided and judge the invoices anew. Answers what came of it, for the resolution."""
    if work.asked.action is Resolution.ATTACH:
        return await _attach(work)
    if work.asked.action is Resolution.REFUND:
        return await _refund(work)
    return await _decide(work)


async def _decide(work: _Work) -> dict[str, Any]:
    connection, decider, invoice = work.connection, work.decider, work.invoice
    action = work.asked.action
    judged = assess(
        invoice.terms, invoice.facts(await read_views(connection, decider.ctx.networks)), decider.at
    )
    decision = decision_on(work.case, action, invoice.facts({}), judged)
    if decision is None:
        return {}
    kind, named = decision
    if not named:
        raise Conflict("What this case is about is not there any more.", object_id=decider.exception_id)
    value = _value(work.asked.value, invoice.terms.price) if kind is DecisionKind.CREDIT else None
    await decider.record(connection, invoice, kind, named, value=value)
    said = {"value": format_price(value, invoice.terms.price)} if value is not None else {}
    await decider.assess(connection, [invoice.id], action, {"transfer_ids": sorted(named), **said})
    return {"decision": kind, **said}


async def _refund(work: _Work) -> dict[str, Any]:
    """Ask for the refund. The case is answered by it as far as it gives the money back, and until it is given up.

    Judged anew at once: what a refund of a part leaves is a case of its own.
    """
    decider, merchant_id = work.decider, work.invoice.merchant_id
    wished = _wished(work.asked, decider.exception_id)
    try:
        made = await request_refund(
            work.connection, decider.ctx, merchant_id, decider.actor, wished, work.rate
        )
    except InvalidInput as error:
        raise _below("/refund", error) from None
    work.refunds.append(made)
    await decider.assess(work.connection, [work.invoice.id], work.asked.action, {"refund_id": made.id})
    return {"refund_id": made.id}


def _wished(asked: Resolve, exception_id: str | None) -> NewRefund:
    """The refund that resolves a case, as `services.refunds` takes it."""
    return NewRefund(
        reason=asked.refund.reason or asked.note[:REASON_LENGTH_MAX],
        exception_id=exception_id,
        payment_option_id=asked.refund.payment_option_id,
        amount=asked.refund.amount,
        rule=asked.refund.rule,
        address=asked.refund.address,
        network=asked.refund.network,
        asset=asked.refund.asset,
        fee=asked.refund.fee,
        fee_amount=asked.refund.fee_amount,
    )


async def _rate_for(
    connection: Connection, ctx: Context, merchant_id: str, asked: Resolve, exception_id: str
) -> Rate | None:
    """The rate that a refund will need, before anything is locked."""
    if asked.action is not Resolution.REFUND:
        return None
    try:
        return await rate_for(connection, ctx, merchant_id, _wished(asked, exception_id))
    except InvalidInput as error:
        raise _below("/refund", error) from None


def _below(field: str, error: InvalidInput) -> InvalidInput:
    """The same error about fields inside `field`."""
    problems = tuple(FieldProblem(field + one.pointer, one.detail) for one in error.problems)
    return InvalidInput(error.what, problems=problems, code=error.code)


async def _attach(work: _Work) -> dict[str, Any]:
    target, asked = work.target, work.asked
    if target is None:  # `_check` has seen to it that the field is there
        raise AssertionError
    value = _value(asked.value, target.terms.price) if asked.value is not None else None
    await attach(
        work.connection,
        work.decider,
        work.case.transfer_ids,
        work.invoice,
        target,
        option_id=asked.payment_option_id,
        value=value,
    )
    where = {"from_invoice_id": work.invoice.id, "to_invoice_id": target.id}
    said = {"value": format_price(value, target.terms.price)} if value is not None else {}
    more = {"transfer_ids": sorted(work.case.transfer_ids), **where, **said}
    await work.decider.assess(work.connection, [work.invoice.id, target.id], asked.action, more)
    return {"invoice_id": target.id, **said}


async def _lock_invoices(
    connection: Connection, merchant_id: str, invoice_id: str | None, target_id: str | None
) -> dict[str, StoredInvoice]:
    ids = sorted({found for found in (invoice_id, target_id) if found is not None})
    try:
        return await lock_invoices(connection, merchant_id, ids) if ids else {}
    except NotFound as error:
        if error.object_id == target_id:
            raise InvalidInput.at("/invoice_id", "There is no such invoice.") from None
        raise


def _check(kind: CaseKind, asked: Resolve) -> None:
    """Whether the request is one that this kind of case can have. Raises InvalidInput."""
    if not 1 <= len(asked.note.strip()) <= len(asked.note) <= NOTE_LENGTH_MAX:
        raise InvalidInput.at("/note", f"must be 1 to {NOTE_LENGTH_MAX} characters, and not blank")
    possible = GUIDES[kind].resolutions
    if asked.action not in possible:
        raise InvalidInput.at("/action", f"is not possible for {kind}; possible are {', '.join(possible)}")
    given = {
        "value": asked.value,
        "invoice_id": asked.invoice_id,
        "payment_option_id": asked.payment_option_id,
        "refund": None if asked.refund == RefundWish() else asked.refund,
    }
    wrong = [
        FieldProblem(f"/{name}", f"does not belong to {asked.action}")
        for name, value in given.items()
        if value is not None and name not in _FIELDS[asked.action]
    ]
    needed = _NEEDED.get(asked.action)
    if needed is not None and given[needed] is None:
        wrong.append(FieldProblem(f"/{needed}", f"is needed to {asked.action}"))
    if wrong:
        raise InvalidInput("The fields do not fit the action.", problems=tuple(wrong))


def _value(text: str | None, price: Price) -> int:
    """A value in units of the price. Raises InvalidInput at /value."""
    units = parse_units(text or "", price.decimals, pointer="/value")
    if units == 0:
        raise InvalidInput.at("/value", f"must be more than nothing, in {price.currency}")
    return units


async def _own(connection: Connection, merchant_id: str, exception_id: str, *, lock: bool = False) -> Record:
    statement = SQL.lock_exception if lock else SQL.read_exception
    row = await statement.one(connection, id=exception_id, merchant_id=merchant_id)
    if row is None:
        raise NotFound("There is no such exception.", object_id=exception_id)
    return row


def _resolved_already(exception_id: str) -> Conflict:
    return Conflict("The exception is resolved already.", object_id=exception_id)
