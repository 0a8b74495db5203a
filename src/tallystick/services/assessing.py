"""The one writer of statuses.

For: everything that changes a fact about an invoice: a block, a reorganisation, a decision, the clock. Whatever it was,
`assess_invoices` runs the same pure assessment and writes the difference from what is stored: transitions with their
evidence, payments, wakeups, events with their deliveries, exceptions, ledger entries, all in the caller's transaction.
Holds true: no other code writes `invoices.status` or `payments.status`; each write names the status and sequence it
expects; running it twice writes nothing the second time.
Must not: decide a status (`core.assess` does), or open a transaction.

Locks are taken in one order everywhere: networks first (by name), then invoices (by id).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from tallystick.core.assess import Assessment, Wakeup, assess
from tallystick.core.chain import NetworkView
from tallystick.core.ids import IdKind
from tallystick.core.invoice import DecisionKind, Match, OptionStatus, PaymentStatus, Status
from tallystick.core.transitions import Reason, steps
from tallystick.db import invoice_writes as writes
from tallystick.db import invoices as store
from tallystick.db import networks as network_store
from tallystick.db.balances import schedule_checks
from tallystick.db.sql import Connection
from tallystick.services import objects
from tallystick.services.booking import book
from tallystick.services.cases import Look, update_cases
from tallystick.services.context import Actor, Context
from tallystick.services.events import INVOICES_CHANNEL, NewEvent, publish
from tallystick.services.evidence import Circumstances, evidence_of, reason_of
from tallystick.services.presenting import in_status, invoice_object, payment_object
from tallystick.services.refund_verdicts import write_refund_verdicts

BALANCES_MATTER: Final = frozenset(
    {Status.EXPIRED, Status.UNDERPAID, Status.LATE_PAID, Status.REVIEW_REQUIRED}
)
"""Ends at which the addresses are looked at for value that no transaction named (`services.balances`)."""

_encode: Final = msgspec.json.Encoder().encode


class CauseKind(StrEnum):
    """What made somebody look at an invoice again."""

    REQUEST = "request"  # a merchant, an operator or a customer asked for something
    BLOCK = "block"  # a block was connected
    REORG = "reorg"  # blocks left the best chain
    MEMPOOL = "mempool"  # a node shows, or no longer shows, something outside any block
    CLOCK = "clock"  # a window may have closed
    DECISION = "decision"  # a person decided about what arrived


@dataclass(frozen=True, slots=True)
class Cause:
    """Why invoices are assessed now, by whom, and what that rests on."""

    kind: CauseKind
    actor: Actor
    evidence: tuple[dict[str, Any], ...]


@dataclass(slots=True)
class Changes:
    """What one or more assessments ask to be written. Filled by `decide`, applied by `save`."""

    invoices: list[writes.InvoiceWrite] = field(default_factory=list)
    transitions: list[writes.TransitionWrite] = field(default_factory=list)
    payments: list[writes.PaymentWrite] = field(default_factory=list)
    wakeups: dict[str, tuple[Wakeup, ...]] = field(default_factory=dict)
    events: list[NewEvent] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    closed_with_open_options: list[str] = field(default_factory=list)
    ended_without_enough: list[str] = field(default_factory=list)


async def assess_invoices(connection: Connection, ctx: Context, ids: Sequence[str], cause: Cause) -> None:
    """Judge these invoices anew and write what differs. The caller holds the locks on networks."""
    stored = await store.read_invoices(connection, ids, lock=True)
    if not stored:
        return
    views = await network_store.read_views(connection, ctx.networks)
    now = ctx.now()
    changes = Changes()
    for invoice in stored:
        decide(ctx, invoice, views, cause, now, changes)
    await save(connection, ctx, changes, now)


async def save(connection: Connection, ctx: Context, changes: Changes, now: datetime) -> None:
    """Write what was decided. Raises StaleWrite, with nothing kept, when another writer was first."""
    await writes.write_invoices(connection, changes.invoices, now, channel=INVOICES_CHANNEL)
    await writes.write_transitions(connection, changes.transitions, now)
    await writes.write_payments(connection, changes.payments, now)
    await writes.write_wakeups(connection, changes.wakeups)
    if changes.closed_with_open_options:
        await store.SQL.expire_options.run(connection, ids=changes.closed_with_open_options)
    telling = [name for name, network in ctx.networks.items() if network.has_accounts]
    await schedule_checks(connection, changes.ended_without_enough, telling, now)
    await publish(connection, ctx, changes.events, at=now)
    # Refunds first: what a rule gives back is no case for a person any more.
    looks = await write_refund_verdicts(connection, ctx, changes.looks, now)
    await update_cases(connection, ctx, looks, now)
    await book(connection, ctx, looks, now)


def decide(
    ctx: Context,
    invoice: store.StoredInvoice,
    views: dict[str, NetworkView],
    cause: Cause,
    now: datetime,
    changes: Changes,
) -> Assessment:
    """Judge one invoice and add to `changes` what differs from what is stored."""
    judged = assess(invoice.terms, invoice.facts(views), now)
    changes.wakeups[invoice.id] = judged.wakeups
    over = judged.window_closed or invoice.decisions.withdrawn  # canceled: nothing is on offer any more
    if over and any(option.status is OptionStatus.QUOTED for option in invoice.options):
        changes.closed_with_open_options.append(invoice.id)
        invoice = _with_options_closed(invoice)
    if judged.window_closed and not judged.sufficient and judged.status in BALANCES_MATTER:
        changes.ended_without_enough.append(invoice.id)
    payments = _payment_changes(ctx, invoice, judged, changes)
    shown = _with_payments(invoice, payments, now)
    way = steps(invoice.status, judged.status, late=judged.late)
    # An invoice whose transfers were attached to another has decisions only: its cases and its books are looked at too.
    if invoice.transfers or invoice.refunds or invoice.decisions.recorded:
        last = invoice.sequence + len(way)
        # A person takes nothing off the chain: attached to an option that asks for more depth is not reversed.
        decided = cause.kind is CauseKind.DECISION
        gone = frozenset[str]() if decided else _reversed(invoice, payments)
        changes.looks.append(Look(shown, judged, gone, last))
    if not way and not payments and judged.amount_paid == invoice.amount_paid:
        return judged
    around = Circumstances(
        reorganised=cause.kind is CauseKind.REORG,
        vanished=cause.kind is CauseKind.MEMPOOL,
        decided=cause.kind is CauseKind.DECISION,
        became=frozenset(change.write.status for change in payments.values()),
        fulfilled=invoice.decisions.fulfilled_at is not None,
        settled=invoice.decisions.settled_at is not None,
    )
    writer = _StepWriter(ctx, shown, judged, views, cause, around, now)
    for status in way:
        writer.step(status, changes)
    changes.invoices.append(
        writes.InvoiceWrite(
            id=invoice.id,
            old_status=invoice.status,
            old_sequence=invoice.sequence,
            status=judged.status,
            sequence=invoice.sequence + len(way),
            event_sequence=writer.event_sequence,
            amount_paid=judged.amount_paid,
        )
    )
    return judged


def first_step(
    invoice: store.StoredInvoice, shown: objects.Invoice, cause: Cause
) -> tuple[writes.TransitionWrite, NewEvent]:
    """The transition and event of an invoice coming into being (sequence 1, status created)."""
    write = writes.TransitionWrite(
        invoice_id=invoice.id,
        sequence=1,
        from_status=None,
        to_status=Status.CREATED,
        reason=Reason.INVOICE_CREATED.value,
        actor_type=cause.actor.type.value,
        actor_id=cause.actor.id,
        evidence=_encode(cause.evidence).decode(),
    )
    event = NewEvent(
        merchant_id=invoice.merchant_id,
        type=f"invoice.{Status.CREATED}",
        object_id=invoice.id,
        sequence=1,
        object=in_status(shown, Status.CREATED, invoice.created_at),
        transition=_transition(write, cause.evidence, invoice.created_at),
    )
    return write, event


@dataclass(frozen=True, slots=True)
class _PaymentChange:
    transfer: store.StoredTransfer
    write: writes.PaymentWrite


_EVENTS_OF_PAYMENT: Final[dict[PaymentStatus, str]] = {
    PaymentStatus.DETECTED: "payment.detected",
    PaymentStatus.CONFIRMING: "payment.detected",
    PaymentStatus.CONFIRMED: "payment.confirmed",
    PaymentStatus.ORPHANED: "payment.orphaned",
    PaymentStatus.REPLACED: "payment.replaced",
    # A transaction that was mined again and failed can never pay: for the receiver it is a loss like a reorganisation.
    PaymentStatus.FAILED: "payment.orphaned",
}


def _payment_changes(
    ctx: Context, invoice: store.StoredInvoice, judged: Assessment, changes: Changes
) -> dict[str, _PaymentChange]:
    """Payments that are new or differ, by transfer id. Adds their writes and events to `changes`."""
    verdicts = {verdict.transfer_id: verdict for verdict in judged.verdicts}
    found: dict[str, _PaymentChange] = {}
    for transfer in invoice.transfers:
        verdict = verdicts[transfer.fact.id]
        known = transfer.payment
        if transfer.fact.internal or verdict.match is Match.UNSUPPORTED_TOKEN:
            continue
        if known is not None and known.status is verdict.status:
            continue
        types = _payment_events(known.status if known is not None else None, verdict.status)
        first = known.event_sequence if known is not None else 0
        write = writes.PaymentWrite(
            id=known.id if known is not None else ctx.new_id(IdKind.PAYMENT),
            transfer_id=transfer.fact.id,
            merchant_id=invoice.merchant_id,
            invoice_id=invoice.id,
            option_id=transfer.fact.option_id,
            match=verdict.match,
            old_status=known.status if known is not None else None,
            status=verdict.status,
            event_sequence=first + len(types),
        )
        found[transfer.fact.id] = _PaymentChange(transfer, write)
        changes.payments.append(write)
        shown = payment_object(
            ctx, invoice, transfer, verdict, write.id, known.confirmed_at if known else None
        )
        changes.events.extend(
            NewEvent(
                merchant_id=invoice.merchant_id,
                type=event_type,
                object_id=write.id,
                sequence=first + number,
                object=shown,
                previous_status=known.status.value if known is not None else None,
            )
            for number, event_type in enumerate(types, start=1)
        )
    return found


_COUNTED: Final = frozenset({Status.PAID, Status.OVERPAID, Status.SETTLED, Status.REFUNDED, Status.DISPUTED})


def _reversed(invoice: store.StoredInvoice, changed: dict[str, _PaymentChange]) -> frozenset[str]:
    """Transfers that had counted towards an invoice that was paid, and do not stand any more. Never junk or dust."""
    if invoice.status not in _COUNTED and invoice.decisions.fulfilled_at is None:
        return frozenset()
    counted = invoice.decisions.named(DecisionKind.ACCEPT, DecisionKind.CREDIT)
    return frozenset(
        transfer_id
        for transfer_id, change in changed.items()
        if change.write.old_status is PaymentStatus.CONFIRMED
        and change.write.status is not PaymentStatus.CONFIRMED
        and (change.write.match is Match.MATCHED or transfer_id in counted)
        and not invoice.terms.is_dust(change.transfer.fact)
    )


def _payment_events(old: PaymentStatus | None, new: PaymentStatus) -> list[str]:
    """What a receiver is told. A payment first seen already confirmed is told in two events, as every other."""
    if old is PaymentStatus.DETECTED and new is PaymentStatus.CONFIRMING:
        return []
    first = ["payment.detected"] if old is None and new is PaymentStatus.CONFIRMED else []
    return [*first, _EVENTS_OF_PAYMENT[new]]


def _with_options_closed(invoice: store.StoredInvoice) -> store.StoredInvoice:
    """The invoice as it will be read after options that nobody chose have ended, for showing in events."""
    options = tuple(
        replace(option, status=OptionStatus.EXPIRED) if option.status is OptionStatus.QUOTED else option
        for option in invoice.options
    )
    return replace(invoice, options=options)


def _with_payments(
    invoice: store.StoredInvoice, changed: dict[str, _PaymentChange], now: datetime
) -> store.StoredInvoice:
    """The invoice as it will be read after the payments are written, for showing in events."""
    if not changed:
        return invoice

    def after(transfer: store.StoredTransfer) -> store.StoredTransfer:
        change = changed.get(transfer.fact.id)
        if change is None:
            return transfer
        write = change.write
        before = transfer.payment.confirmed_at if transfer.payment is not None else None
        confirmed_at = now if write.status is PaymentStatus.CONFIRMED else before
        payment = store.StoredPayment(write.id, write.match, write.status, write.event_sequence, confirmed_at)
        return replace(transfer, payment=payment)

    return replace(invoice, transfers=tuple(after(transfer) for transfer in invoice.transfers))


class _StepWriter:
    """Turns the steps of one invoice's way into transitions and events, numbered without gaps."""

    def __init__(
        self,
        ctx: Context,
        invoice: store.StoredInvoice,
        judged: Assessment,
        views: dict[str, NetworkView],
        cause: Cause,
        around: Circumstances,
        now: datetime,
    ) -> None:
        self._invoice = invoice
        self._judged = judged
        self._views = views
        self._cause = cause
        self._around = around
        self._networks = ctx.networks
        # Rendered once: the steps of one assessment differ in the status alone.
        self._shown = invoice_object(ctx, invoice, judged, status=judged.status, updated_at=now)
        self._now = now
        self._status = invoice.status
        self._sequence = invoice.sequence
        self.event_sequence = invoice.event_sequence

    def step(self, status: Status, changes: Changes) -> None:
        """Add one step to `changes`."""
        self._sequence += 1
        self.event_sequence += 1
        found = evidence_of(self._invoice, status, self._judged, self._views, self._networks)
        evidence = found + self._cause.evidence
        reason = reason_of(self._status, status, self._judged, self._around)
        write = writes.TransitionWrite(
            invoice_id=self._invoice.id,
            sequence=self._sequence,
            from_status=self._status,
            to_status=status,
            reason=reason.value,
            actor_type=self._cause.actor.type.value,
            actor_id=self._cause.actor.id,
            evidence=_encode(evidence).decode(),
        )
        changes.transitions.append(write)
        shown = in_status(self._shown, status, self._now)
        changes.events.append(
            NewEvent(
                merchant_id=self._invoice.merchant_id,
                type=f"invoice.{status}",
                object_id=self._invoice.id,
                sequence=self.event_sequence,
                object=shown,
                previous_status=self._status.value,
                transition=_transition(write, evidence, self._now),
            )
        )
        self._status = status


def _transition(
    write: writes.TransitionWrite, evidence: tuple[dict[str, Any], ...], at: datetime
) -> objects.Transition:
    return objects.Transition(
        sequence=write.sequence,
        from_=write.from_status.value if write.from_status is not None else None,
        to=write.to_status.value,
        reason=write.reason,
        actor=objects.ActorObject(type=write.actor_type, id=write.actor_id),
        evidence=list(evidence),
        at=at,
    )
