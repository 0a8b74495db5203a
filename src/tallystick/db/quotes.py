"""Quotes after the first, as stored.

For: `services.requoting`. Holds true: a quote is added under the number that follows the one it replaces, or not at
all; no quote is ever changed. Must not: know where a rate comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tallystick.core.invoice import OptionStatus, Status
from tallystick.core.money import Price
from tallystick.db.sql import Connection, load

_SQL: Final = load("quotes")


@dataclass(frozen=True, slots=True)
class QuotedRow:
    """An option with its quote in force, what its invoice asks, and what its merchant decided for new quotes.

    `asset_key` is the contract, or `native`.
    """

    option_id: str
    invoice_id: str
    network: str
    asset_key: str
    asset_decimals: int
    option_status: OptionStatus
    quote_number: int
    quote_ends_at: datetime
    status: Status
    price: Price
    expires_at: datetime
    spread_bps: int
    quote_seconds: int


@dataclass(frozen=True, slots=True)
class NewQuote:
    """A quote to be added: what `db.invoices.StoredQuote` says of the first one, and which it is."""

    option_id: str
    number: int
    amount: int
    rate: str
    source: str
    ends_at: datetime
    spread_bps: int
    answers: str


async def due_options(connection: Connection, now: datetime, count_max: int) -> list[str]:
    """Ids of options whose quote was to be looked at by now, the longest overdue first."""
    rows = await _SQL.due.all(connection, now=now, row_count=count_max)
    return [row["option_id"] for row in rows]


async def lock_invoices_of(connection: Connection, option_ids: Sequence[str]) -> set[str]:
    """Lock the invoices of these options; answer the ids of those that nobody else holds."""
    rows = await _SQL.lock_invoices_of.all(connection, option_ids=list(option_ids))
    return {row["id"] for row in rows}


async def read_quoted(connection: Connection, option_ids: Sequence[str]) -> list[QuotedRow]:
    """These options as they stand."""
    return [
        QuotedRow(
            option_id=row["option_id"],
            invoice_id=row["invoice_id"],
            network=row["network"],
            asset_key=row["contract"] or "native",
            asset_decimals=row["asset_decimals"],
            option_status=OptionStatus(row["option_status"]),
            quote_number=row["quote_number"],
            quote_ends_at=row["quote_ends_at"],
            status=Status(row["status"]),
            price=Price(row["amount"], row["currency"], row["decimals"]),
            expires_at=row["expires_at"],
            spread_bps=row["spread_bps"],
            quote_seconds=row["quote_seconds"],
        )
        for row in await _SQL.read_quoted.all(connection, option_ids=list(option_ids))
    ]


async def renew(connection: Connection, quotes: Sequence[NewQuote], at: datetime) -> dict[str, str]:
    """Put new quotes in force; answer the options that took theirs, each with its invoice's id."""
    rows = await _SQL.renew.all(
        connection,
        option_ids=[quote.option_id for quote in quotes],
        numbers=[quote.number for quote in quotes],
        amounts=[quote.amount for quote in quotes],
        rates=[quote.rate for quote in quotes],
        sources=[quote.source for quote in quotes],
        ends=[quote.ends_at for quote in quotes],
        spreads_bps=[quote.spread_bps for quote in quotes],
        answers=[quote.answers for quote in quotes],
        at=at,
    )
    return {row["option_id"]: row["invoice_id"] for row in rows}


async def reschedule(connection: Connection, due_at: dict[str, datetime]) -> None:
    """Look at these options (keys) again at these times."""
    if due_at:
        await _SQL.reschedule.run(connection, option_ids=list(due_at), due_at=list(due_at.values()))


async def forget(connection: Connection, option_ids: Sequence[str]) -> None:
    """These options need no other quote."""
    if option_ids:
        await _SQL.forget.run(connection, option_ids=list(option_ids))
