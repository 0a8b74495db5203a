"""Networks and blocks as stored: the cursor, the best chain, and the views that assessments take.

Holds true: the cursor moves only from the block that was expected; `scanned_until` never goes back.
Must not: decide what a reorganisation means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tallystick.core.chain import BlockRef, NetworkView
from tallystick.core.network import Network
from tallystick.db.sql import Connection, Record, load

SQL: Final = load("networks")


def view_of(row: Record, configured: Network | None) -> NetworkView:
    """A row of `networks` as the assessment sees it; `configured` is that network, None where it is not (any more)."""
    tip = None if row["cursor_hash"] is None else BlockRef(row["cursor_hash"], row["cursor_height"])
    return NetworkView(
        network=row["name"],
        tip=tip,
        scanned_until=row["scanned_until"],
        safe_height=row["safe_height"],
        finalized_height=row["finalized_height"],
        halted=row["halted_at"] is not None,
        requirement=configured.requirement if configured is not None else None,
    )


async def read_views(connection: Connection, networks: Mapping[str, Network]) -> dict[str, NetworkView]:
    """Every network's view, by name. `networks` are those configured."""
    rows = await SQL.all_networks.all(connection)
    return {row["name"]: view_of(row, networks.get(row["name"])) for row in rows}


async def share_networks(connection: Connection, names: Sequence[str]) -> None:
    """Keep these networks from moving until the transaction ends.

    Taken before invoices are locked, in the order of the names: a follower locks its network first as well.
    """
    if names:
        await SQL.share_networks.all(connection, names=sorted(names))
