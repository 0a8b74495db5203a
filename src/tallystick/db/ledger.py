"""The ledger as stored: entries with their postings, read and appended.

For: `services.booking` and `services.ledger`. Holds true: an entry and its postings are written in one statement; the
database refuses at commit what does not balance, and always what would change a row.
Must not: decide what is booked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tallystick.core.ledger import FROM_FACTS, Account, Denomination, Entry, EntryKind, Posting
from tallystick.db.sql import Connection, Record, load

SQL: Final = load("ledger")


@dataclass(frozen=True, slots=True)
class About:
    """What an entry stands for, and in whose books. `subject`: the id of a payment, an invoice, a refund or a batch."""

    merchant_id: str
    subject: str
    invoice_id: str | None = None
    payment_id: str | None = None
    refund_id: str | None = None
    settlement_id: str | None = None


@dataclass(frozen=True, slots=True)
class InForce:
    """An entry that nothing has taken back."""

    id: str
    about: About
    entry: Entry


@dataclass(frozen=True, slots=True)
class EntryWrite:
    """A new entry. `sequence` is the invoice's transition it was booked with, `reverses` the entry it takes back."""

    id: str
    about: About
    entry: Entry
    sequence: int | None
    reverses: str | None = None


async def in_force(connection: Connection, subjects: Iterable[str]) -> list[InForce]:
    """The entries that follow from facts and are in force for these subjects: at most one each."""
    rows = await SQL.in_force.all(connection, subjects=sorted(set(subjects)), kinds=sorted(FROM_FACTS))
    by_id: dict[str, list[Record]] = {}
    for row in rows:
        by_id.setdefault(row["id"], []).append(row)
    return [
        InForce(
            entry_id,
            About(
                lines[0]["merchant_id"],
                lines[0]["subject"],
                lines[0]["invoice_id"],
                lines[0]["payment_id"],
                lines[0]["refund_id"],
            ),
            Entry(EntryKind(lines[0]["kind"]), tuple(_posting(line) for line in lines), lines[0]["note"]),
        )
        for entry_id, lines in by_id.items()
    ]


def _posting(row: Record) -> Posting:
    denomination = Denomination(row["network"], row["contract"], row["asset"], row["decimals"])
    return Posting(Account(row["account"]), denomination, row["amount"])


async def insert_entries(connection: Connection, writes: Sequence[EntryWrite], at: datetime) -> None:
    """Append entries. What does not balance is refused when the transaction commits."""
    if not writes:
        return
    lines = [
        (write, number, posting)
        for write in writes
        for number, posting in enumerate(write.entry.postings, start=1)
    ]
    await SQL.insert_entries.run(
        connection,
        ids=[write.id for write in writes],
        merchant_ids=[write.about.merchant_id for write in writes],
        kinds=[write.entry.kind for write in writes],
        subjects=[write.about.subject for write in writes],
        invoice_ids=[write.about.invoice_id for write in writes],
        payment_ids=[write.about.payment_id for write in writes],
        refund_ids=[write.about.refund_id for write in writes],
        settlement_ids=[write.about.settlement_id for write in writes],
        sequences=[write.sequence for write in writes],
        reversed_ids=[write.reverses for write in writes],
        notes=[write.entry.note for write in writes],
        at=at,
        entry_ids=[write.id for write, _, _ in lines],
        positions=[number for _, number, _ in lines],
        posting_merchants=[write.about.merchant_id for write, _, _ in lines],
        accounts=[posting.account for _, _, posting in lines],
        assets=[posting.denomination.symbol for _, _, posting in lines],
        networks=[posting.denomination.network for _, _, posting in lines],
        contracts=[posting.denomination.contract for _, _, posting in lines],
        decimals=[posting.denomination.decimals for _, _, posting in lines],
        amounts=[posting.amount for _, _, posting in lines],
    )
