"""What operators ask across merchants. Must not: be reachable through the API, where merchants are strictly apart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tallystick.db.sql import Connection, load

SQL: Final = load("operators")


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """The server's version and clock, and the schema's revision (None: never migrated)."""

    version: str
    clock: datetime
    revision: str | None


@dataclass(frozen=True, slots=True)
class NetworkState:
    """Chain and genesis as pinned at first contact (None: not yet), the last processed height, status and problem."""

    chain: str | None
    genesis_hash: str | None
    height: int | None
    status: str
    problem: str | None


async def merchant_of_invoice(connection: Connection, invoice_id: str) -> str | None:
    """Whose invoice this is, or None."""
    found = await SQL.merchant_of_invoice.value(connection, id=invoice_id)
    return None if found is None else str(found)


async def merchants_of_transaction(connection: Connection, tx_hash: str) -> list[str]:
    """Whose invoices or refunds a transaction paid."""
    rows = await SQL.merchants_of_transaction.all(connection, tx_hash=tx_hash)
    return [row["merchant_id"] for row in rows]


async def merchant_of_exception(connection: Connection, exception_id: str) -> str | None:
    """Whose exception this is, or None."""
    found = await SQL.merchant_of_exception.value(connection, id=exception_id)
    return None if found is None else str(found)


async def exception_ids(
    connection: Connection,
    *,
    merchant_id: str | None,
    status: str | None,
    kind: str | None,
    invoice_id: str | None,
    row_count: int,
) -> list[str]:
    """Exceptions of every merchant (None) or of one, oldest first."""
    rows = await SQL.exception_ids.all(
        connection,
        merchant_id=merchant_id,
        status=status,
        kind=kind,
        invoice_id=invoice_id,
        row_count=row_count,
    )
    return [row["id"] for row in rows]


async def database_state(connection: Connection) -> DatabaseState:
    """For doctor."""
    row = await SQL.database_state.one(connection)
    if row is None:  # a SELECT without FROM has one row
        raise AssertionError
    revision = await SQL.schema_revision.value(connection) if row["migrated"] else None
    return DatabaseState(row["version"], row["clock"], revision)


async def network_state(connection: Connection, network: str) -> NetworkState | None:
    """A network as stored; None where it never started."""
    row = await SQL.network_state.one(connection, name=network)
    if row is None:
        return None
    return NetworkState(
        row["chain"], row["genesis_hash"], row["cursor_height"], row["status"], row["problem"]
    )
