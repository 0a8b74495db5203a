"""Decisions of people as stored: facts that only grow, and the move of transfers from one invoice to another.

For: `services.exceptions` and `services.disputes`. Holds true: a decision says who decided what about which transfers
and why, and belongs to one invoice; it is never changed. Must not: decide what follows from it (`core.assess` does).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tallystick.core.errors import StaleWrite
from tallystick.core.invoice import DecisionKind, Match
from tallystick.db.sql import Connection, Record, load

SQL: Final = load("decisions")


@dataclass(frozen=True, slots=True)
class Moved:
    """A transfer that goes to another invoice: which of its options it counts to, and how it fits there."""

    transfer_id: str
    option_id: str
    match: Match


async def insert_decision(
    connection: Connection,
    *,
    invoice_id: str,
    merchant_id: str,
    kind: DecisionKind,
    transfer_ids: Iterable[str],
    value: int | None,
    note: str,
    evidence: Sequence[Mapping[str, Any]],
    exception_id: str | None,
    actor_type: str,
    actor_id: str | None,
    at: datetime,
) -> int:
    """Record a decision; its number. `value` is in units of the price, for CREDIT only."""
    number = await SQL.insert_decision.value(
        connection,
        invoice_id=invoice_id,
        merchant_id=merchant_id,
        kind=kind,
        transfer_ids=sorted(transfer_ids),
        value=value,
        note=note,
        evidence=json.dumps(list(evidence)),
        exception_id=exception_id,
        actor_type=actor_type,
        actor_id=actor_id,
        at=at,
    )
    return int(number)


async def decisions_of(connection: Connection, invoice_id: str) -> list[Record]:
    """Everything that was decided about an invoice, in order."""
    return await SQL.decisions_of.all(connection, invoice_id=invoice_id)


async def move_transfers(
    connection: Connection,
    moved: Sequence[Moved],
    *,
    merchant_id: str,
    from_invoice_id: str,
    to_invoice_id: str,
    at: datetime,
) -> None:
    """Let these transfers, and their payments, count to another invoice of the merchant. The caller locks both.

    Raises StaleWrite when one of them was not at the invoice it should come from.
    """
    where = {
        "merchant_id": merchant_id,
        "from_invoice_id": from_invoice_id,
        "to_invoice_id": to_invoice_id,
        "transfer_ids": [one.transfer_id for one in moved],
        "option_ids": [one.option_id for one in moved],
    }
    if await SQL.move_transfers.run(connection, **where) != len(moved):
        raise StaleWrite("A transfer was attached elsewhere meanwhile.", object_id=from_invoice_id)
    await SQL.move_payments.run(connection, **where, matches=[one.match for one in moved], at=at)
