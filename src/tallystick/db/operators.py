"""What operators ask across merchants. Must not: be reachable through the API, where merchants are strictly apart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tallystick.db.sql import Connection, load

SQL: Final = load("operators")


@dataclass(frozen=True, slots=True)
class Backlog:
    """Deliveries that are not done; `oldest_due` is None when there are none."""

    pending: int
    oldest_due: datetime | None


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """The server's version and clock, and the schema's revision (None: never migrated)."""

    version: str
    clock: datetime
    revision: str | None


async def merchant_of_invoice(connection: Connection, invoice_id: str) -> str | None:
    """Whose invoice this is, or None."""
    found = await SQL.merchant_of_invoice.value(connection, id=invoice_id)
    return None if found is None else str(found)


async def merchants_of_transaction(connection: Connection, tx_hash: str) -> list[str]:
    """Whose invoices a transaction paid."""
    rows = await SQL.merchants_of_transaction.all(connection, tx_hash=tx_hash)
    return [row["merchant_id"] for row in rows]


async def delivery_backlog(connection: Connection) -> Backlog:
    """How many deliveries are not done, and the earliest due time among them."""
    row = await SQL.delivery_backlog.one(connection)
    return Backlog(0, None) if row is None else Backlog(row["pending"], row["oldest_due"])


async def database_state(connection: Connection) -> DatabaseState:
    """For doctor."""
    row = await SQL.database_state.one(connection)
    if row is None:  # a SELECT without FROM has one row
        raise AssertionError
    revision = await SQL.schema_revision.value(connection) if row["migrated"] else None
    return DatabaseState(row["version"], row["clock"], revision)
