"""Keeping the books: what is booked for an invoice is always what follows from its facts.

For: the one writer of statuses, which calls `book` for everything it looked at, in the same transaction. Holds true: at
most one entry of a subject (a payment, an invoice, a refund) is in force; a change is a reversing entry that names the
one it takes back, and a new one; running it twice writes nothing. The caller holds the invoices' locks, which is what
keeps two writers off one subject.
Must not: decide what is booked (`core.books` does), or change an entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from tallystick.core.books import books
from tallystick.core.ids import IdKind
from tallystick.core.ledger import Entry
from tallystick.db import ledger as store
from tallystick.db.sql import Connection
from tallystick.services.cases import Look
from tallystick.services.context import Context


async def book(connection: Connection, ctx: Context, looks: Sequence[Look], now: datetime) -> None:
    """Write the difference between the books as they should be and as they are, for every invoice looked at.

    One statement reads, one writes, whatever the number of invoices. What came into being in one look at an invoice
    carries the number of its last transition: why.
    """
    wanted: dict[str, tuple[store.About, Entry | None, int]] = {}
    for look in looks:
        wanted |= {about.subject: (about, entry, look.sequence) for about, entry in _subjects(look)}
    if not wanted:
        return
    stale: list[tuple[store.InForce, int]] = []
    for known in await store.in_force(connection, wanted):
        about, entry, sequence = wanted[known.about.subject]
        if (about, entry) == (known.about, known.entry):
            del wanted[about.subject]
        else:
            stale.append((known, sequence))
    new = [(about, entry, sequence) for about, entry, sequence in wanted.values() if entry is not None]
    # Ids of one moment in the order of booking: a list by id shows what was taken back below what took its place.
    ids = iter(sorted(ctx.new_id(IdKind.LEDGER_ENTRY) for _ in range(len(stale) + len(new))))
    writes = [
        store.EntryWrite(
            next(ids),
            known.about,
            known.entry.opposite(f"No longer so: {known.entry.note}"),
            sequence,
            known.id,
        )
        for known, sequence in stale
    ]
    writes += [store.EntryWrite(next(ids), about, entry, sequence) for about, entry, sequence in new]
    await store.insert_entries(connection, writes, now)


def _subjects(look: Look) -> Iterator[tuple[store.About, Entry | None]]:
    """Everything about an invoice that an entry can stand for, each with the entry that should be in force."""
    invoice = look.invoice
    wanted = books(invoice.terms, invoice.facts({}), look.judged)
    for transfer in invoice.transfers:
        payment = transfer.payment
        if payment is not None:
            about = store.About(invoice.merchant_id, payment.id, invoice.id, payment.id)
            yield about, wanted.receipts.get(transfer.fact.id)
    for refund in invoice.refunds:
        about = store.About(invoice.merchant_id, refund.id, invoice.id, refund_id=refund.id)
        yield about, wanted.refunds.get(refund.id)
    yield store.About(invoice.merchant_id, invoice.id, invoice.id), wanted.position
