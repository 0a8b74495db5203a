"""Rows of confirmation policies and of the operator's raises.

For: `services.policies` and `services.congestion`. Holds true: a version is written once and never changed; what
operators require is read under a lock that keeps raises away until the new invoice is written.
Must not: choose a rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tallystick.core.policy import Floor
from tallystick.db.sql import Connection, Record, load

SQL: Final = load("policies")

_RAISES_SPACE: Final = 0x7A12  # first half of the advisory lock's key; followers have another


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One version of a merchant's rules. `rules` is JSON as published."""

    version: int
    rules: list[Any]
    actor_type: str
    actor_id: str | None
    created_at: datetime


async def read_policy(
    connection: Connection, merchant_id: str, version: int | None = None
) -> PolicyRow | None:
    """A version of a merchant's rules (None: the newest), if there is one."""
    if version is None:
        return _row(await SQL.current_policy.one(connection, merchant_id=merchant_id))
    return _row(await SQL.policy_of_version.one(connection, merchant_id=merchant_id, version=version))


def _row(row: Record | None) -> PolicyRow | None:
    if row is None:
        return None
    return PolicyRow(row["version"], row["rules"], row["actor_type"], row["actor_id"], row["created_at"])


async def add_version(
    connection: Connection,
    merchant_id: str,
    version: int,
    rules: str,
    *,
    actor_type: str,
    actor_id: str | None,
    at: datetime,
) -> bool:
    """Add a version; `rules` is rendered JSON. False when another writer has added it meanwhile."""
    added = await SQL.add_version.run(
        connection,
        merchant_id=merchant_id,
        version=version,
        rules=rules,
        actor_type=actor_type,
        actor_id=actor_id,
        at=at,
    )
    return added == 1


async def keep_raises_away(connection: Connection) -> None:
    """From here to the end of the transaction no operator's raise begins; one under way is waited for.

    What `standing_raises` answers afterwards holds until then. Take it late: a raise waits for whoever holds it.
    """
    await SQL.keep_raises_away.all(connection, space=_RAISES_SPACE)


async def begin_raise(connection: Connection) -> None:
    """From here to the end of the transaction nobody else makes an invoice, raises or lifts."""
    await SQL.begin_raise.all(connection, space=_RAISES_SPACE)


async def standing_raises(connection: Connection, names: Sequence[str]) -> dict[str, Floor]:
    """What operators require at present on these networks, where they do."""
    rows = await SQL.standing_raises.all(connection, names=sorted(set(names)))
    return {row["network"]: Floor(row["network"], row["confirmations"], row["note"]) for row in rows}
