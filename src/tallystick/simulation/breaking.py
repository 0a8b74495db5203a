"""Connections to the real database that break off where the simulation says.

For: `world`. Holds true: a statement before the break is carried out, one after it never reaches the server; a break
before COMMIT leaves nothing of the transaction, one after it leaves all of it and no answer. That is all a `kill -9` or
a cut cable can do to the database, whose own durability is PostgreSQL's business.
Must not: change a statement or an answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import asyncpg

T = TypeVar("T")


class Died(BaseException):
    """The process was killed here. Not an Exception: nothing in the process can have noticed."""


class Break(StrEnum):
    """What happens at the chosen statement."""

    DIE_BEFORE = "die_before"  # the process ends; the statement was never sent
    DIE_AFTER = "die_after"  # the process ends; the statement was carried out
    CUT_BEFORE = "cut_before"  # the connection is lost; the statement was never sent
    CUT_AFTER = "cut_after"  # the connection is lost; the statement was carried out, but nobody was told


class Referee(Protocol):
    """Decides whose statement is next where two pieces of work run at once."""

    async def before(self, connection: asyncpg.Connection[Any], query: str) -> None:
        """Come back when this statement may be sent."""
        ...

    async def after(self) -> None:
        """Come back when whoever sent a statement may go on."""
        ...


@dataclass(slots=True)
class Breaker:
    """Counts statements, and breaks at the one it was armed for. One statement is under way at a time.

    `statements` counts since the last `arm` or `rest`; `commits` only those that ended a transaction; `sent` everything
    that ever went to the database.
    """

    kind: Break | None = None
    at: int = 0
    only_commits: bool = False
    statements: int = 0
    commits: int = 0
    sent: int = 0
    broke_at: str | None = None
    referee: Referee | None = None
    deadlocks: int = 0

    def arm(self, kind: Break, at: int, *, only_commits: bool = False) -> None:
        """Break at the `at`-th statement from now (from 1), or at the `at`-th COMMIT."""
        self.rest()
        self.kind, self.at, self.only_commits = kind, at, only_commits

    def rest(self) -> None:
        """Break nothing any more, and count from zero."""
        self.kind, self.broke_at = None, None
        self.statements = self.commits = 0

    async def through(
        self, connection: asyncpg.Connection[Any], query: str, run: Callable[[], Awaitable[T]]
    ) -> T:
        """Carry a statement out, unless it breaks off here. With a referee, when it says so."""
        self.sent += 1
        referee = self.referee
        if referee is None:
            return await self._through(connection, query, run)
        await referee.before(connection, query)
        try:
            return await self._through(connection, query, run)
        except asyncpg.DeadlockDetectedError:
            self.deadlocks += 1
            raise
        finally:
            await referee.after()

    async def _through(
        self, connection: asyncpg.Connection[Any], query: str, run: Callable[[], Awaitable[T]]
    ) -> T:
        if query.startswith(
            "BEGIN"
        ):  # says nothing to the database yet: breaking before what follows is the same
            return await run()
        self.statements += 1
        commits = query.startswith("COMMIT")
        self.commits += commits
        kind = self.kind
        if kind is None or (self.commits if self.only_commits else self.statements) != self.at:
            return await run()
        if self.only_commits and not commits:
            return await run()
        self.kind = None
        self.broke_at = query[:60]
        if kind in (Break.DIE_AFTER, Break.CUT_AFTER):
            await run()
        elif commits:
            # The server rolls back what a lost connection leaves open; this one lives on, so it is told to.
            await asyncpg.Connection.execute(connection, "ROLLBACK")
        if kind in (Break.DIE_BEFORE, Break.DIE_AFTER):
            raise Died(query[:60])
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


def breakable(breaker: Breaker) -> type[asyncpg.Connection[asyncpg.Record]]:
    """The class of connections that `breaker` watches over, to be given to the pool."""

    class Breakable(asyncpg.Connection):
        """A connection whose statements go through the breaker."""

        __slots__ = ()

        async def execute(self, query: str, *args: Any, **named: Any) -> Any:
            return await breaker.through(
                self, query, lambda: super(Breakable, self).execute(query, *args, **named)
            )

        async def executemany(self, command: str, args: Any, **named: Any) -> Any:
            return await breaker.through(
                self, command, lambda: super(Breakable, self).executemany(command, args, **named)
            )

        async def fetch(self, query: str, *args: Any, **named: Any) -> Any:
            return await breaker.through(
                self, query, lambda: super(Breakable, self).fetch(query, *args, **named)
            )

        async def fetchrow(self, query: str, *args: Any, **named: Any) -> Any:
            return await breaker.through(
                self, query, lambda: super(Breakable, self).fetchrow(query, *args, **named)
            )

        async def fetchval(self, query: str, *args: Any, **named: Any) -> Any:
            return await breaker.through(
                self, query, lambda: super(Breakable, self).fetchval(query, *args, **named)
            )

    return Breakable
