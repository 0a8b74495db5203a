"""For connections that only listen: whether they still live.

Holds true: the answer comes from the server, not from the driver's belief. Must not: know channels or payloads.
"""

from __future__ import annotations

from typing import Final

from tallystick.db.sql import Connection, load

SQL: Final = load("listening")


async def ping(connection: Connection) -> None:
    """Ask the server for anything. Raises what the driver raises when the connection is dead."""
    await SQL.ping.value(connection)
