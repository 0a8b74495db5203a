"""The pool of connections and the transaction, the only two ways to the database.

Holds true: a transaction is all or nothing, and what it wrote into history is in the log of transitions (`db.sealing`);
connections speak UTC and give up a statement that runs too long.
JSON is written as the text that was rendered and read as values; NUMERIC is an `int` both ways.
Must not: retry a transaction by itself (the caller knows whether its work may be repeated).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from tallystick.core.errors import DatabaseError
from tallystick.db.sealing import noting, seal
from tallystick.db.sql import Connection

CONNECT_SECONDS_MAX: Final = 10
STATEMENT_SECONDS_MAX: Final = 60
STATEMENTS_PREPARED_MAX: Final = 500  # more than we have: what is pushed out is planned anew at each use
STATEMENT_BYTES_PREPARED_MAX: Final = 200_000  # the rules of an audit are one long statement, prepared once
ASIDE_CONNECTIONS_MAX: Final = 2
_SETTINGS: Final = {"timezone": "UTC", "application_name": "tallystick"}


class Database:
    """A pool of connections to one PostgreSQL database. Open with `Database.open`, close with `close`."""

    def __init__(
        self, pool: asyncpg.Pool[asyncpg.Record], aside: asyncpg.Pool[asyncpg.Record], url: str
    ) -> None:
        self._pool = pool
        self._aside = aside
        self.url = url

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        connections_max: int = 10,
        connection_class: type[asyncpg.Connection[asyncpg.Record]] = asyncpg.Connection,
        settings: Mapping[str, str] | None = None,
    ) -> Database:
        """Open a pool. Raises DatabaseError when the server cannot be reached.

        `connection_class` lets the simulation watch statements, and break them off. `settings` are PostgreSQL's, for
        these connections.
        """
        own = {**_SETTINGS, **(settings or {})}
        try:
            pool = await _open_pool(
                url, connection_class, own, connections_min=1, connections_max=connections_max
            )
            aside = await _open_pool(
                url, connection_class, own, connections_min=0, connections_max=ASIDE_CONNECTIONS_MAX
            )
        except (OSError, asyncpg.PostgresError, TimeoutError) as error:
            raise DatabaseError(
                f"The database cannot be reached ({type(error).__name__}).",
                remedy="Check TALLYSTICK_DATABASE_URL and that the server runs.",
            ) from error
        return cls(pool, aside, url)

    def usage(self) -> tuple[int, int]:
        """How many connections are open, and how many of them are idle."""
        return self._pool.get_size(), self._pool.get_idle_size()

    async def close(self) -> None:
        """Give every connection back and close it."""
        await self._aside.close()
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection without a transaction, for reading and for sessions (LISTEN, advisory locks)."""
        async with self._pool.acquire() as connection:
            yield connection

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[Connection]:
        """A connection for one statement that commits on its own while the caller's transaction goes on.

        From a pool of its own: a caller that holds one connection and waits for a second from the same pool could wait
        for ever, together with all others that do.
        """
        async with self._aside.acquire() as connection:
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A read-only transaction in which every statement sees the same moment: for answers made of several reads."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A READ COMMITTED transaction: committed at the end of the block, rolled back by any exception.

        What it wrote into the history of invoices is sealed in the log right before the commit.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            with noting(connection):
                yield connection
                await seal(connection)


async def _open_pool(
    url: str,
    connection_class: type[asyncpg.Connection[asyncpg.Record]],
    settings: dict[str, str],
    *,
    connections_min: int,
    connections_max: int,
) -> asyncpg.Pool[asyncpg.Record]:
    return await asyncpg.create_pool(
        url,
        min_size=connections_min,
        max_size=connections_max,
        timeout=CONNECT_SECONDS_MAX,
        command_timeout=STATEMENT_SECONDS_MAX,
        max_cacheable_statement_size=STATEMENT_BYTES_PREPARED_MAX,
        statement_cache_size=STATEMENTS_PREPARED_MAX,
        init=_prepare,
        reset=_keep,
        connection_class=connection_class,
        server_settings=settings,
    )


async def _keep(_connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Give a connection back as it is; asyncpg has rolled back what was open and dropped its listeners.

    The usual reset is one more round trip for every request, and there is nothing to reset: no statement of ours
    changes a session, and the follower gives its advisory lock back itself.
    """


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    # NUMERIC as int: every numeric column has scale 0, and Decimal arithmetic is never wanted.
    await connection.set_type_codec("numeric", encoder=str, decoder=int, schema="pg_catalog", format="text")
    # JSON is decoded where it is evidence to show; rendered text is passed through on the way in.
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, encoder=str, decoder=json.loads, schema="pg_catalog", format="text"
        )
