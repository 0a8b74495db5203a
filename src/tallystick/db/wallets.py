"""Rows of wallets and of the counters they draw from.

For: `services.wallets`. Holds true: one counter per public key, whoever registers it. Raising a counter is the work of
whoever issues addresses, not of this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tallystick.db.sql import Connection, Record, load

_SQL: Final = load("wallets")


@dataclass(frozen=True, slots=True)
class WalletRow:
    """A wallet and the next unused child of its key."""

    id: str
    family: str
    account_key: str
    key_fingerprint: bytes
    label: str
    created_at: datetime
    next_index: int


def _wallet(row: Record) -> WalletRow:
    return WalletRow(
        row["id"],
        row["family"],
        row["account_key"],
        row["key_fingerprint"],
        row["label"],
        row["created_at"],
        row["next_index"],
    )


async def insert_wallet(connection: Connection, merchant_id: str, wallet: WalletRow) -> bool:
    """Add a wallet and, if it is new, the counter of its key. False when the merchant has this key already."""
    await _SQL.ensure_counter.run(connection, key_fingerprint=wallet.key_fingerprint)
    added = await _SQL.insert_wallet.run(
        connection,
        id=wallet.id,
        merchant_id=merchant_id,
        family=wallet.family,
        account_key=wallet.account_key,
        key_fingerprint=wallet.key_fingerprint,
        label=wallet.label,
        created_at=wallet.created_at,
    )
    return added == 1


async def get_wallet(connection: Connection, merchant_id: str, id: str) -> WalletRow | None:
    """A wallet of this merchant, or None."""
    row = await _SQL.get_wallet.one(connection, merchant_id=merchant_id, id=id)
    return None if row is None else _wallet(row)


async def list_wallets(
    connection: Connection, merchant_id: str, below: str | None, count_max: int
) -> list[WalletRow]:
    """A merchant's wallets with ids below `below` (None: all), newest first."""
    found = await _SQL.list_wallets.all(connection, merchant_id=merchant_id, below=below, count_max=count_max)
    return [_wallet(row) for row in found]


async def paid_gap(connection: Connection, key_fingerprint: bytes) -> int:
    """The widest step between neighbouring children of a key that hold money (see the statement)."""
    return int(await _SQL.paid_gap.value(connection, key_fingerprint=key_fingerprint))
