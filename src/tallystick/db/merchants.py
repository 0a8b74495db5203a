"""Rows of merchants and of their keys.

For: `services.merchants`. Holds true: a key is only ever looked up by its hash; the key itself never gets here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tallystick.db.sql import Connection, load

_SQL: Final = load("merchants")


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key in force, without the key."""

    id: str
    merchant_id: str
    scopes: frozenset[str]


async def insert_merchant(connection: Connection, *, id: str, name: str, created_at: datetime) -> None:
    """Add a merchant."""
    await _SQL.insert_merchant.run(connection, id=id, name=name, created_at=created_at)


async def merchant_name(connection: Connection, id: str) -> str | None:
    """The merchant's name, or None if there is no such merchant."""
    name: str | None = await _SQL.merchant_name.value(connection, id=id)
    return name


async def insert_key(
    connection: Connection,
    *,
    id: str,
    merchant_id: str,
    name: str,
    key_hash: bytes,
    scopes: Sequence[str],
    created_at: datetime,
) -> None:
    """Add a key by its hash (SHA-256, 32 bytes)."""
    await _SQL.insert_key.run(
        connection,
        id=id,
        merchant_id=merchant_id,
        name=name,
        key_hash=key_hash,
        scopes=list(scopes),
        created_at=created_at,
    )


async def key_by_hash(connection: Connection, key_hash: bytes) -> KeyRow | None:
    """The key in force that has this hash, or None."""
    row = await _SQL.key_by_hash.one(connection, key_hash=key_hash)
    if row is None:
        return None
    return KeyRow(row["id"], row["merchant_id"], frozenset(row["scopes"]))
