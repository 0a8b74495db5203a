"""One effect per idempotency key, however often, however simultaneously, and wherever the power fails.

For: every POST. Holds true: the answer is stored in the very transaction of the effect. So a crash between commit
and answer changes nothing (the repeat finds the answer), and a crash before the commit leaves neither. Twins meet
at an advisory lock that lives as long as the transaction: the second is told at once that the first is being
carried out. Only successes are stored: an error has no effect to protect, and its cause may pass.
Must not: open the transaction (the caller does), or look into the answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from tallystick.core.errors import IdempotencyInProgress, IdempotencyKeyReused, Malformed
from tallystick.db import idempotency as rows
from tallystick.db.idempotency import StoredAnswer
from tallystick.db.sql import Connection
from tallystick.services.context import Context

KEPT_FOR: Final = timedelta(hours=48)
"""How long an answer is kept: twice the promised day."""

REMOVE_COUNT_MAX: Final = 1_000

_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body to send. `replayed` says that they are those of an earlier request."""

    status: int
    body: bytes
    replayed: bool = False


Work = Callable[[Connection], Awaitable[Answer]]


def check_key(key: str) -> str:
    """The key, if it is 1 to 255 printable ASCII characters. Raises Malformed."""
    if _KEY.fullmatch(key) is None:
        raise Malformed(
            "The Idempotency-Key header must be 1 to 255 printable ASCII characters.",
            code="idempotency_key_invalid",
        )
    return key


def hash_request(method: str, path: str, body: bytes) -> bytes:
    """What makes two requests the same: method, path and body, byte for byte."""
    return hashlib.sha256(b"\0".join((method.encode(), path.encode(), body))).digest()


async def run_once(
    connection: Connection, ctx: Context, merchant_id: str, key: str, request_hash: bytes, work: Work
) -> Answer:
    """Run `work` unless it was run under this key before; then answer what was answered then.

    Must be called inside a transaction. Raises IdempotencyInProgress while a twin is being carried out, and
    IdempotencyKeyReused when the key belongs to another request.
    """
    if not await rows.try_lock(connection, _lock_number(merchant_id, key)):
        raise IdempotencyInProgress("A request with this idempotency key is being carried out right now.")
    # A second statement on purpose: it sees what the previous holder of the lock committed.
    stored = await rows.find(connection, merchant_id, key)
    if stored is not None:
        if stored.request_hash != request_hash:
            raise IdempotencyKeyReused("This idempotency key was used before with another request.")
        return Answer(stored.status, stored.body, replayed=True)
    answer = await work(connection)
    kept = StoredAnswer(request_hash, answer.status, answer.body)
    await rows.store(connection, merchant_id, key, kept, ctx.now())
    return answer


async def remove_old(connection: Connection, ctx: Context) -> int:
    """Forget answers older than KEPT_FOR, at most REMOVE_COUNT_MAX at a time; answer how many were."""
    return await rows.remove_old(connection, ctx.now() - KEPT_FOR, REMOVE_COUNT_MAX)


def _lock_number(merchant_id: str, key: str) -> int:
    """A signed 64-bit number for the pair. A collision (1 in 2**64) costs one needless 409."""
    digest = hashlib.sha256(f"idempotency\0{merchant_id}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
