"""Hand-written SQL, loaded from `queries/*.sql` by name.

For: the modules of `db`, one per aggregate. Holds true: a statement's parameters are given by name, and exactly its
own must be given; a misspelt statement or parameter fails at once. Reading the files is aiosql's work, running them
asyncpg's.
Must not: build SQL from strings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeAlias

import aiosql
import asyncpg
from aiosql.adapters.asyncpg import AsyncPGAdapter
from asyncpg.pool import PoolConnectionProxy

Record: TypeAlias = asyncpg.Record
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class Statement:
    """One named statement: positional SQL and the names of its parameters in order."""

    name: str
    sql: str
    parameters: tuple[str, ...]

    def _arguments(self, given: dict[str, Any]) -> tuple[Any, ...]:
        if given.keys() != set(self.parameters):
            raise TypeError(f"{self.name} takes {sorted(self.parameters)}, got {sorted(given)}")
        return tuple(given[name] for name in self.parameters)

    async def all(self, connection: Connection, **given: Any) -> list[Record]:
        """Every row."""
        return await connection.fetch(self.sql, *self._arguments(given))

    async def one(self, connection: Connection, **given: Any) -> Record | None:
        """The first row, or None."""
        return await connection.fetchrow(self.sql, *self._arguments(given))

    async def value(self, connection: Connection, **given: Any) -> Any:
        """The first column of the first row, or None."""
        return await connection.fetchval(self.sql, *self._arguments(given))

    async def run(self, connection: Connection, **given: Any) -> int:
        """Run it; answer how many rows were touched."""
        tag = await connection.execute(self.sql, *self._arguments(given))
        count = tag.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def many(self, connection: Connection, rows: Iterable[dict[str, Any]]) -> None:
        """Run it once per row, pipelined by asyncpg."""
        await connection.executemany(self.sql, [self._arguments(row) for row in rows])


class Statements:
    """The statements of one file, as attributes."""

    def __init__(self, statements: dict[str, Statement]) -> None:
        self._statements = statements

    def __getattr__(self, name: str) -> Statement:
        try:
            return self._statements[name]
        except KeyError:
            raise AttributeError(f"no statement named {name}") from None


@cache
def load(aggregate: str) -> Statements:
    """Load `queries/<aggregate>.sql`."""
    text = resources.files(__package__).joinpath("queries", f"{aggregate}.sql").read_text()
    adapter = AsyncPGAdapter()  # type: ignore[no-untyped-call]
    queries = aiosql.from_str(text, lambda: adapter, mandatory_parameters=False)
    found: dict[str, Statement] = {}
    for name in queries.available_queries:
        if name.endswith("_cursor") and name.removesuffix("_cursor") in queries.available_queries:
            continue  # aiosql offers a cursor variant of each select; we never use it
        found[name] = Statement(name, getattr(queries, name).sql, tuple(adapter.var_sorted[name]))
    return Statements(found)
