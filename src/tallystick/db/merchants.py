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


@dataclass(frozen=True, slots=True)
class MerchantSettings:
    """What a merchant decided for all new invoices. The spread is in 1/10,000 of the amount asked."""

    name: str
    spread_bps: int = 0
    quote_seconds: int = 900
    grace_seconds: int = 0
    refund_second_person: bool = False


async def merchant_settings(connection: Connection, id: str) -> MerchantSettings | None:
    """The merchant's settings, or None if there is no such merchant."""
    row = await _SQL.merchant_settings.one(connection, id=id)
    return None if row is None else MerchantSettings(**row)


async def set_merchant_settings(
    connection: Connection,
    id: str,
    *,
    spread_bps: int | None,
    quote_seconds: int | None,
    grace_seconds: int | None,
    refund_second_person: bool | None,
) -> bool:
    """Change those settings that are given; answer whether there is such a merchant."""
    changed = await _SQL.set_merchant_settings.run(
        connection,
        id=id,
        spread_bps=spread_bps,
        quote_seconds=quote_seconds,
        grace_seconds=grace_seconds,
        refund_second_person=refund_second_person,
    )
    return changed == 1


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
