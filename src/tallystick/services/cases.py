"""Opening and closing exceptions, so that the queue says what is the matter now.

For: the one writer of statuses (`update_cases`), and the services that see trouble which no assessment of an invoice
shows (`open_cases`, `close_case`, `close_subject`).
Holds true: of one kind and subject at most one case is open; a case closes by itself when its reason is gone, and says
so; what a person has decided about certain transfers is not asked again as long as the decision stands, and a case
about more transfers than were decided is a new one.
Must not: decide what is the matter (`core.cases` does), or carry out what a person resolves (`services.exceptions`
does).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from tallystick.core.assess import Assessment
from tallystick.core.cases import (
    DERIVED,
    GUIDES,
    Case,
    CaseKind,
    Resolution,
    counted_by_decision,
    wanted_cases,
)
from tallystick.core.ids import IdKind
from tallystick.core.invoice import PaymentStatus
from tallystick.core.money import format_price, format_units
from tallystick.db.invoices import StoredInvoice, StoredTransfer
from tallystick.db.sql import Connection, Record, load
from tallystick.services import objects
from tallystick.services.context import SYSTEM, Actor, Context
from tallystick.services.events import NewEvent, publish

SQL: Final = load("cases")

DETAIL_TRANSFERS_MAX: Final = 20

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Look:
    """An invoice after an assessment: which transfers stopped counting by it, and its last transition's number."""

    invoice: StoredInvoice
    judged: Assessment
    reversed: frozenset[str]
    sequence: int


async def update_cases(connection: Connection, ctx: Context, looks: Sequence[Look], now: datetime) -> None:
    """Open, extend and close the exceptions of these invoices. The caller holds their locks."""
    if not looks:
        return
    rows = await SQL.of_invoices.all(connection, ids=[look.invoice.id for look in looks])
    known: dict[str, list[Record]] = {}
    for row in rows:
        known.setdefault(row["invoice_id"], []).append(row)
    for look in looks:
        await _update(connection, ctx, look, known.get(look.invoice.id, []), now)


async def _update(
    connection: Connection, ctx: Context, look: Look, rows: list[Record], now: datetime
) -> None:
    invoice = look.invoice
    wanted = list(wanted_cases(invoice.terms, invoice.facts({}), look.judged))
    if look.reversed:
        wanted.append(Case(CaseKind.REVERSED, look.reversed))
    still = {case.kind for case in wanted}
    for row in rows:
        kind = CaseKind(row["kind"])
        if row["status"] == "open" and kind not in still and _is_over(kind, row, look):
            await close_case(connection, ctx, row["id"], "What was the matter is no longer so.", now)
    for case in wanted:
        await _want(connection, ctx, look, case, [row for row in rows if row["kind"] == case.kind], now)


def _is_over(kind: CaseKind, row: Record, look: Look) -> bool:
    """Whether an open case has lost its reason.

    Junk that left the chain may be mined again at any time, and there is one case about junk for an invoice, ever: it
    stays until somebody ignores it. (Found by simulation: closed by a reorganisation, it never came back.)
    """
    if kind in DERIVED:
        return kind is not CaseKind.UNSUPPORTED_TOKEN
    if kind is not CaseKind.REVERSED:
        return False
    # What was attached to another invoice meanwhile stands there, or is a case there.
    missing = {
        verdict.transfer_id
        for verdict in look.judged.verdicts
        if verdict.status is not PaymentStatus.CONFIRMED
    }
    return not set(row["transfer_ids"]) & missing


async def _want(
    connection: Connection, ctx: Context, look: Look, case: Case, rows: list[Record], now: datetime
) -> None:
    """See to it that the case is open, unless a person has decided about all of its transfers."""
    invoice = look.invoice
    is_open = next((row for row in rows if row["status"] == "open"), None)
    if is_open is not None:
        together = case.transfer_ids | set(is_open["transfer_ids"])
        if together != set(is_open["transfer_ids"]) and case.kind is not CaseKind.UNSUPPORTED_TOKEN:
            await SQL.extend_exception.run(
                connection,
                id=is_open["id"],
                transfer_ids=sorted(together),
                detail=_encode(_detail(look, together)).decode(),
            )
        return
    if case.kind is CaseKind.UNSUPPORTED_TOKEN and rows:
        return  # anybody can send junk: exactly one case an invoice, however much comes
    if case.kind is not CaseKind.REVERSED and any(_answers(row, case, look) for row in rows):
        return
    await open_cases(
        connection,
        ctx,
        merchant_ids=[invoice.merchant_id],
        kind=case.kind,
        invoice_id=invoice.id,
        transfer_ids=case.transfer_ids,
        detail=_detail(look, case.transfer_ids),
        now=now,
    )


def _answers(row: Record, case: Case, look: Look) -> bool:
    """Whether a person has decided about all transfers of a case, and that decision still says all.

    A case that closed by itself may open again. So may one that was accepted or credited: what was is no case as long
    as all of it stands. Refunds answer by what they take: a case that is wanted all the same is about money that none
    of them gives back, because a part was enough or because somebody refused one. A reversal is always told anew.
    """
    resolution = row["resolution"]
    if resolution is None or not case.transfer_ids <= set(row["transfer_ids"]):
        return False
    if resolution["action"] in (None, Resolution.ACCEPT, Resolution.REFUND):
        return False
    if resolution["action"] == Resolution.CREDIT:
        return case.transfer_ids <= counted_by_decision(look.invoice.facts({}), look.judged)
    return True


def _detail(look: Look, transfer_ids: Iterable[str]) -> dict[str, Any]:
    """What was the matter, for people: amounts as they were asked and arrived. Bounded."""
    invoice, price = look.invoice, look.invoice.terms.price
    ids = set(transfer_ids)
    named = [transfer for transfer in invoice.transfers if transfer.fact.id in ids]
    return {
        "amount": format_price(price.amount, price),
        "amount_paid": format_price(look.judged.amount_paid, price),
        "currency": price.currency,
        "transfers": [_transfer(transfer) for transfer in named[:DETAIL_TRANSFERS_MAX]],
    }


def _transfer(transfer: StoredTransfer) -> dict[str, Any]:
    fact = transfer.fact
    known = fact.asset
    return {
        "transfer_id": fact.id,
        "network": fact.key.network,
        "tx_hash": fact.key.tx_hash,
        "asset": known.symbol if known is not None else None,
        "token_contract": transfer.contract,
        "amount": format_units(fact.amount, known.decimals) if known is not None else str(fact.amount),
    }


async def open_cases(
    connection: Connection,
    ctx: Context,
    *,
    merchant_ids: Sequence[str],
    kind: CaseKind,
    now: datetime,
    detail: dict[str, Any],
    invoice_id: str | None = None,
    subject: str = "",
    transfer_ids: Iterable[str] = (),
) -> list[str]:
    """Open an exception with each of these merchants and tell them; the ids of those that were not open already."""
    rows = await SQL.insert_exceptions.all(
        connection,
        ids=[ctx.new_id(IdKind.EXCEPTION) for _ in merchant_ids],
        merchant_ids=list(merchant_ids),
        kind=kind,
        invoice_id=invoice_id,
        subject=subject,
        transfer_ids=sorted(transfer_ids),
        owner=GUIDES[kind].owner,
        detail=_encode(detail).decode(),
        at=now,
    )
    opened = sorted(row["id"] for row in rows)
    await _tell(connection, ctx, opened, "exception.opened", now)
    return opened


async def close_case(
    connection: Connection,
    ctx: Context,
    exception_id: str,
    note: str,
    now: datetime,
    *,
    action: Resolution | None = None,
    actor: Actor = SYSTEM,
    outcome: dict[str, Any] | Callable[[], Awaitable[dict[str, Any]]] | None = None,
) -> bool:
    """Resolve an open exception and tell the merchant; False when it was resolved already.

    Without an action it closes by itself: its reason is gone. `outcome` is what came of it, or carries out what was
    decided and answers that. It runs once the case is closed, so that the one writer, which looks at cases too, finds
    it decided.
    """
    resolution = {
        "action": action,
        "note": note,
        "actor": {"type": actor.type, "id": actor.id},
        "at": now,
    }
    closed = await SQL.resolve_exception.run(
        connection, id=exception_id, resolution=_encode(resolution).decode(), at=now
    )
    if not closed:
        return False
    came = await outcome() if callable(outcome) else outcome
    if came:
        await SQL.add_outcome.run(connection, id=exception_id, outcome=_encode(came).decode())
    await _tell(connection, ctx, [exception_id], "exception.resolved", now)
    return True


async def close_subject(
    connection: Connection,
    ctx: Context,
    kind: CaseKind,
    subject: str,
    note: str,
    now: datetime,
    *,
    merchant_id: str | None = None,
) -> None:
    """Close what is open about an endpoint or a network (with all its merchants): it is in order again, or gone."""
    rows = await SQL.open_subject.all(connection, kind=kind, subject=subject, merchant_id=merchant_id)
    for row in rows:
        await close_case(connection, ctx, row["id"], note, now)


async def _tell(
    connection: Connection, ctx: Context, exception_ids: Sequence[str], event_type: str, now: datetime
) -> None:
    if not exception_ids:
        return
    rows = await SQL.read_exceptions.all(connection, ids=list(exception_ids))
    events = [
        NewEvent(
            merchant_id=row["merchant_id"],
            type=event_type,
            object_id=row["id"],
            sequence=row["event_sequence"],
            object=exception_object(row),
        )
        for row in rows
    ]
    await publish(connection, ctx, events, at=now)


def exception_object(row: Record, now: datetime | None = None) -> objects.ExceptionObject:
    """A stored exception as the merchant sees it. `now` tells how old it is; events say nothing that changes by itself.

    A resolved one was as old as it got.
    """
    kind = CaseKind(row["kind"])
    guide = GUIDES[kind]
    is_open = row["status"] == "open"
    return objects.ExceptionObject(
        id=row["id"],
        kind=row["kind"],
        meaning=guide.means,
        invoice_id=row["invoice_id"],
        order_id=row["order_id"],
        subject=row["subject"] or None,
        payment_ids=list(row["payment_ids"]),
        owner=row["owner"],
        assignments=row["assignments"],
        status=row["status"],
        next_action=objects.NextAction(
            owner=row["owner"] if is_open else "none",
            action=guide.action if is_open else "none",
            text=guide.action_text if is_open else "Nothing to do.",
        ),
        actions=[one.value for one in guide.resolutions] if is_open else [],
        detail=row["detail"],
        opened_at=row["opened_at"],
        age_seconds=_age(row, now),
        resolution=row["resolution"],
        resolved_at=row["resolved_at"],
    )


def _age(row: Record, now: datetime | None) -> int | msgspec.UnsetType:
    if now is None:
        return msgspec.UNSET
    return max(0, int(((row["resolved_at"] or now) - row["opened_at"]).total_seconds()))
