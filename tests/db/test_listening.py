"""Connections that are kept for long, and die: what ends their time goes on as it is."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tallystick.db.listening import listening
from tallystick.db.pool import Database


async def test_a_cancellation_goes_through_a_dead_connection(database_url: str) -> None:
    """Cancelled while its connection is gone, a listener ends as cancelled.

    Found by `tests/system/test_database_outages.py`: letting go of a dead connection raised an error of its own, which
    took the cancellation's place. The deliverer's listener began anew, the deliverer waited for its end for ever, and
    no webhook was sent until the server was started again.
    """
    database = await Database.open(database_url, connections_max=2)
    lost, inside = asyncio.Event(), asyncio.Event()

    async def listen() -> None:
        async with (
            database.connection() as connection,
            listening(connection, {"anything": lambda *_: None}, lambda _: lost.set()),
        ):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(listen())
    try:
        await inside.wait()
        other = await asyncpg.connect(database_url)
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        )
        await other.close()
        async with asyncio.timeout(10):
            await lost.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        await database.close()


async def test_it_hears_until_its_end_and_gives_the_connection_back_clean(database_url: str) -> None:
    database = await Database.open(database_url, connections_max=2)
    heard: asyncio.Queue[str] = asyncio.Queue()
    try:
        async with database.connection() as speaking, database.connection() as connection:
            hear = {"news": lambda _connection, _pid, _channel, payload: heard.put_nowait(payload)}
            async with listening(connection, hear, lambda _: None):
                await speaking.execute("NOTIFY news, 'first'")
                async with asyncio.timeout(10):
                    assert await heard.get() == "first"
            assert await connection.fetchval("SELECT count(*) FROM pg_listening_channels()") == 0
    finally:
        await database.close()
