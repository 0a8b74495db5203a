"""For connections that are kept for long: listening, whether they still live, and letting go of them.

Holds true: the answer whether one lives comes from the server, not from the driver's belief. Whatever ends the time of
such a connection goes on as it is: letting go of a dead one raises nothing, so that it never takes the place of a
cancellation. Must not: know channels or payloads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import asyncpg

from tallystick.db.sql import Connection, load

SQL: Final = load("listening")

GONE: Final = (asyncpg.InterfaceError, asyncpg.PostgresError, OSError, TimeoutError)
"""What a dead connection answers: a pool takes it back by itself, and asking it anything then is an error."""


async def ping(connection: Connection) -> None:
    """Ask the server for anything. Raises what the driver raises when the connection is dead."""
    await SQL.ping.value(connection)


def give_up(connection: Connection) -> None:
    """Close a connection of which nobody knows how it stands: what its session holds ends with it."""
    with suppress(*GONE):
        connection.terminate()


@asynccontextmanager
async def listening(
    connection: Connection, channels: Mapping[str, Callable[..., None]], on_lost: Callable[[Any], None]
) -> AsyncIterator[None]:
    """Listen to channels for the length of the block; `on_lost` is told when the connection dies."""
    connection.add_termination_listener(on_lost)
    for channel, callback in channels.items():
        await connection.add_listener(channel, callback)
    try:
        yield
    finally:
        with suppress(*GONE):
            connection.remove_termination_listener(on_lost)
            for channel, callback in channels.items():
                await connection.remove_listener(channel, callback)
