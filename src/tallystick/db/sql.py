"""Hand-written SQL, loaded from `queries/*.sql` by name.

For: the modules of `db`, one per aggregate. Holds true: a statement's parameters are given by name, and exactly its
own must be given; a misspelt statement or parameter fails at once. Reading the files is aiosql's work, running them
asyncpg's.
Must not: build SQL from strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any, Final, TypeAlias

import aiosql
import asyncpg
from aiosql.adapters.asyncpg import AsyncPGAdapter
from asyncpg.pool import PoolConnectionProxy

Record: TypeAlias = asyncpg.Record
_PLACE: Final = re.compile(r"\$([0-9]+)")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class Statement:
    """One named statement: positional SQL, the names of its parameters in order, and what its comment says."""

    name: str
    sql: str
    parameters: tuple[str, ...]
    about: str = ""

    def _arguments(self, given: dict[str, Any]) -> tuple[Any, ...]:
        if len(given) == len(self.parameters):
            try:
                return tuple([given[name] for name in self.parameters])
            except KeyError:
                pass
        raise TypeError(f"{self.name} takes {sorted(self.parameters)}, got {sorted(given)}")

    async def all(self, connection: Connection, **given: Any) -> list[Record]:
        """Every row."""
        return await connection.fetch(self.sql, *self._arguments(given))

    async def all_within(self, connection: Connection, seconds: float, **given: Any) -> list[Record]:
        """Every row, of a statement that may take longer than any other."""
        return await connection.fetch(self.sql, *self._arguments(given), timeout=seconds)

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

    def items(self) -> Mapping[str, Statement]:
        """Every statement by its name."""
        return self._statements


def union(name: str, statements: Iterable[Statement]) -> Statement:
    """Statements with the same columns as one, whose first column says by name which of them a row comes from.

    Parameters of the same name are one. The text of each is taken as it was written.
    """
    parameters: list[str] = []
    parts: list[str] = []
    for statement in statements:
        parameters += [one for one in statement.parameters if one not in parameters]
        places = {str(at): one for at, one in enumerate(statement.parameters, start=1)}
        text = statement.sql.rstrip().rstrip(";")
        sql = _PLACE.sub(partial(_renumbered, places, parameters), text)
        # Names and texts are those of our own files.
        parts.append(f"(SELECT '{statement.name}' AS name, part.* FROM (\n{sql}\n) AS part)")  # noqa: S608
    return Statement(name, "\nUNION ALL\n".join(parts), tuple(parameters))


def _renumbered(places: Mapping[str, str], parameters: list[str], found: re.Match[str]) -> str:
    return f"${parameters.index(places[found[1]]) + 1}"


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
        query = getattr(queries, name)
        about = " ".join((query.__doc__ or "").split())
        found[name] = Statement(name, query.sql, tuple(adapter.var_sorted[name]), about)
    return Statements(found)
