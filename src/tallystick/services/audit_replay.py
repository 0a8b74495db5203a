"""Replaying the facts of stored invoices, and comparing what follows with what is stored.

For: `services.auditing`. Holds true: status, amounts, payments, refunds, what is waited for, cases and books are found
again by the same pure functions that the one writer uses, from facts alone; a difference is a problem with a name.
Must not: change anything, or open a transaction.

A window that has ended and was not judged yet is no difference: the invoice says in its wakeups which windows it knew
to be open, so those are taken as open here. That nobody judges them in time is another rule's matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from tallystick.core.assess import OUR_CLOCK, Assessment, Marker, assess
from tallystick.core.books import books
from tallystick.core.cases import DERIVED, CaseKind, wanted_cases
from tallystick.core.chain import NetworkView
from tallystick.core.errors import TallystickError
from tallystick.core.invoice import Facts, Match
from tallystick.core.ledger import Entry
from tallystick.db import audit as stored
from tallystick.db import invoices as store
from tallystick.db import ledger
from tallystick.db.networks import read_views
from tallystick.db.sql import Connection, Record
from tallystick.services.context import Context

REPLAYED: Final[dict[str, str]] = {
    "replay-status": "The status of an invoice is what its facts say.",
    "replay-amount": "The amount that an invoice credits is what its facts say.",
    "replay-payment": "Every payment is what the facts of its transfer say, and every transfer that is one has one.",
    "replay-refund": "Every refund is where the chain says it is.",
    "replay-wakeups": "An invoice waits for exactly what can change it without a new fact.",
    "replay-order": "The order in which facts came, and how often they came, changes nothing.",
    "replay-case": "What is the matter has an open exception or a decision, and no exception is open without a reason.",
    "replay-books": "The ledger entries in force are exactly what the facts say.",
    "unreadable": "What is stored can be read.",
}
"""The rules that are checked here, each with what must hold."""

_UNREADABLE: Final = (TallystickError, ValueError, LookupError, TypeError, ArithmeticError)
"""What reading rows raises that no code of ours wrote."""

Wait = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class _Stored:
    """Everything stored about some invoices that follows from facts, or is one."""

    invoices: list[store.StoredInvoice]
    wakeups: dict[str, set[Wait]]
    exceptions: dict[str, list[Record]]
    entries: dict[str, Entry]


async def replay(connection: Connection, ctx: Context, ids: Sequence[str]) -> list[stored.Broken]:
    """Every difference between what is stored about these invoices and what their facts say.

    What cannot be read at all is a problem of the invoice it belongs to, and hides nothing of the others.
    """
    if not ids:
        return []
    try:
        found = await _read(connection, ids)
    except _UNREADABLE as error:
        if len(ids) == 1:
            return [stored.Broken("unreadable", ids[0], f"{type(error).__name__}: {error}")]
        return [broken for one in ids for broken in await replay(connection, ctx, [one])]
    views = await read_views(connection, ctx.networks)
    now = ctx.now()
    problems: list[stored.Broken] = []
    for invoice in found.invoices:
        try:
            problems += _of_invoice(invoice, found, views, now)
        except _UNREADABLE as error:
            problems.append(stored.Broken("unreadable", invoice.id, f"{type(error).__name__}: {error}"))
    return problems


async def _read(connection: Connection, ids: Sequence[str]) -> _Stored:
    invoices = await store.read_invoices(connection, ids)
    subjects = [one.id for one in invoices]
    for invoice in invoices:
        subjects += [one.payment.id for one in invoice.transfers if one.payment is not None]
        subjects += [refund.id for refund in invoice.refunds]
    in_force = await ledger.in_force(connection, subjects)
    return _Stored(
        invoices,
        await stored.wakeups_of(connection, ids),
        await stored.exceptions_of(connection, ids),
        {one.about.subject: one.entry for one in in_force},
    )


def _of_invoice(
    invoice: store.StoredInvoice, found: _Stored, views: dict[str, NetworkView], now: datetime
) -> Iterator[stored.Broken]:
    wakeups = found.wakeups[invoice.id]
    views, now = _when_last_judged(invoice, wakeups, views, now)
    facts = invoice.facts(views)
    judged = assess(invoice.terms, facts, now)
    yield from _differences(invoice, judged)
    wanted = {(wakeup.network, wakeup.marker.value, wakeup.position) for wakeup in judged.wakeups}
    if wanted != wakeups:
        detail = f"it waits for {sorted(wakeups)}, and should for {sorted(wanted)}"
        yield stored.Broken("replay-wakeups", invoice.id, detail)
    if _has_order(facts) and assess(invoice.terms, _backwards(facts), now) != judged:
        yield stored.Broken("replay-order", invoice.id, "told in another order, its facts say something else")
    yield from _cases(invoice, facts, judged, found.exceptions[invoice.id])
    yield from _books(invoice, facts, judged, found.entries)


def _when_last_judged(
    invoice: store.StoredInvoice, wakeups: set[Wait], views: dict[str, NetworkView], now: datetime
) -> tuple[dict[str, NetworkView], datetime]:
    """Views and time by which the windows that the invoice waits for are still open."""
    deadline = invoice.terms.deadline
    for network, marker, _ in wakeups:
        if marker != Marker.TIME:
            continue
        if network == OUR_CLOCK:
            now = min(now, invoice.terms.expires_at)
            continue
        view = views.get(network)
        if view is not None and view.scanned_until is not None and view.scanned_until > deadline:
            views = views | {network: replace(view, scanned_until=deadline)}
    return views, now


def _differences(invoice: store.StoredInvoice, judged: Assessment) -> Iterator[stored.Broken]:
    if judged.status is not invoice.status:
        detail = f"stored as {invoice.status}, and its facts say {judged.status}"
        yield stored.Broken("replay-status", invoice.id, detail)
    if judged.amount_paid != invoice.amount_paid:
        detail = f"{invoice.amount_paid} stored as paid, and its facts say {judged.amount_paid}"
        yield stored.Broken("replay-amount", invoice.id, detail)
    refunds = {refund.id: refund.status for refund in invoice.refunds}
    for one in judged.refunds:
        if one.status is not refunds[one.refund_id]:
            detail = f"stored as {refunds[one.refund_id]}, and the chain says {one.status}"
            yield stored.Broken("replay-refund", one.refund_id, detail)
    verdicts = {verdict.transfer_id: verdict for verdict in judged.verdicts}
    for transfer in invoice.transfers:
        verdict, payment = verdicts.get(transfer.fact.id), transfer.payment
        if verdict is None:
            yield stored.Broken("replay-payment", transfer.fact.id, "another transfer has its credit key")
        elif payment is None:
            if verdict.match is not Match.UNSUPPORTED_TOKEN and not transfer.fact.internal:
                yield stored.Broken("replay-payment", transfer.fact.id, "the transfer is no payment")
        elif (payment.status, payment.match) != (verdict.status, verdict.match):
            detail = (
                f"stored as {payment.status} ({payment.match}), "
                f"and its facts say {verdict.status} ({verdict.match})"
            )
            yield stored.Broken("replay-payment", payment.id, detail)


def _has_order(facts: Facts) -> bool:
    return len(facts.transfers) > 1 or any(len(one.anchors + one.conflicts) > 1 for one in facts.transfers)


def _backwards(facts: Facts) -> Facts:
    """The same facts told in another order, each twice."""
    return replace(
        facts,
        transfers=tuple(
            replace(fact, anchors=fact.anchors[::-1], conflicts=fact.conflicts[::-1])
            for fact in (*reversed(facts.transfers), *facts.transfers)
        ),
    )


def _cases(
    invoice: store.StoredInvoice, facts: Facts, judged: Assessment, rows: list[Record]
) -> Iterator[stored.Broken]:
    wanted = {case.kind: case for case in wanted_cases(invoice.terms, facts, judged)}
    for case in wanted.values():
        covering = [
            row
            for row in rows
            if row["kind"] == case.kind
            and (case.kind is CaseKind.UNSUPPORTED_TOKEN or case.transfer_ids <= set(row["transfer_ids"]))
            and (row["status"] == "open" or row["resolution"]["action"] is not None)
        ]
        if not covering:
            detail = f"nobody has to do with it that {sorted(case.transfer_ids)} are {case.kind}"
            yield stored.Broken("replay-case", invoice.id, detail)
    for row in rows:
        lasting = row["kind"] == CaseKind.UNSUPPORTED_TOKEN  # junk may come back; see `services.cases`
        if row["status"] == "open" and row["kind"] in DERIVED and not lasting and row["kind"] not in wanted:
            yield stored.Broken("replay-case", row["id"], f"it is open, and nothing is {row['kind']}")


def _books(
    invoice: store.StoredInvoice, facts: Facts, judged: Assessment, entries: dict[str, Entry]
) -> Iterator[stored.Broken]:
    found = books(invoice.terms, facts, judged)
    wanted: dict[str, Entry | None] = {invoice.id: found.position}
    for transfer in invoice.transfers:
        if transfer.payment is not None:
            wanted[transfer.payment.id] = found.receipts.get(transfer.fact.id)
    wanted |= {refund.id: found.refunds.get(refund.id) for refund in invoice.refunds}
    for subject, entry in wanted.items():
        if entries.get(subject) != entry:
            detail = f"booked {_told(entries.get(subject))}, and its facts say {_told(entry)}"
            yield stored.Broken("replay-books", subject, detail)
    for transfer_id in found.receipts.keys() - {one.fact.id for one in invoice.transfers if one.payment}:
        yield stored.Broken("replay-books", transfer_id, "its receipt has no payment to stand for")


def _told(entry: Entry | None) -> str:
    if entry is None:
        return "nothing"
    lines = (f"{one.account} {one.amount} {one.denomination.symbol}" for one in entry.postings)
    return f"{entry.kind} ({', '.join(lines)}; {entry.note})"
