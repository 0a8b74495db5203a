"""Rows of stored answers.

For: `services.idempotency`. Holds true: an answer is stored in the transaction of its effect, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tallystick.db.sql import Connection, load

_SQL: Final = load("idempotency")


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What was answered the first time, byte for byte, and the hash of what was asked."""

    request_hash: bytes
    status: int
    body: bytes


async def try_lock(connection: Connection, lock: int) -> bool:
    """Take a lock (a signed 64-bit number) until the transaction ends; False when another transaction has it."""
    return bool(await _SQL.try_lock.value(connection, lock=lock))


async def find(connection: Connection, merchant_id: str, key: str) -> StoredAnswer | None:
    """The stored answer, or None."""
    row = await _SQL.find.one(connection, merchant_id=merchant_id, key=key)
    return (
        None
        if row is None
        else StoredAnswer(row["request_hash"], row["response_status"], row["response_body"])
    )


async def store(
    connection: Connection, merchant_id: str, key: str, answer: StoredAnswer, created_at: datetime
) -> None:
    """Keep an answer."""
    await _SQL.store.run(
        connection,
        merchant_id=merchant_id,
        key=key,
        request_hash=answer.request_hash,
        response_status=answer.status,
        response_body=answer.body,
        created_at=created_at,
    )


async def remove_old(connection: Connection, before: datetime, count_max: int) -> int:
    """Forget at most `count_max` answers from before a time; answer how many."""
    return await _SQL.remove_old.run(connection, before=before, count_max=count_max)
