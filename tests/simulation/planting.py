"""How a bug is planted in the product while it runs, and taken out again.

For: `plants`. Holds true: what a plant changed is as before when it is taken out, in this process and in the database;
a name, a statement or a piece of its text that is not there (any more) fails at once instead of planting nothing.
Must not: touch the simulation, or a rule that a plant is to be found by.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tallystick.db.sql import Statement, load
from tallystick.simulation.checks import SQL
from tallystick.simulation.world import World

_PARAMETER: Final = re.compile(r"(?<!:):([a-z_]+)")


@dataclass(slots=True)
class Ground:
    """Where a bug is planted: the product as it is loaded in this process, and the database of `world`."""

    world: World
    _undo: list[Callable[[], None]] = field(default_factory=list)
    _before: list[str] = field(default_factory=list)
    _after: list[str] = field(default_factory=list)
    _deaf: list[str] = field(default_factory=list)

    def put(self, path: str, make: Callable[[Any], Any]) -> None:
        """Replace `package.module.name` (or `package.module.Class.name`) by what `make` makes of it."""
        owner, name = _find(path)
        real = getattr(owner, name)
        setattr(owner, name, make(real))
        self._undo.append(lambda: setattr(owner, name, real))

    def reword(self, aggregate: str, statement: str, old: str, new: str) -> None:
        """Replace a piece of a statement's text by another, which names parameters as the file does (`:name`)."""
        statements: dict[str, Statement] = load(aggregate)._statements
        real = statements[statement]
        if old not in real.sql:
            raise LookupError(f"{aggregate}.{statement} does not say {old!r}")
        text = _PARAMETER.sub(lambda found: f"${real.parameters.index(found[1]) + 1}", new)
        statements[statement] = replace(real, sql=real.sql.replace(old, text))
        self._undo.append(lambda: statements.update({statement: real}))

    def database(self, before: str, after: str) -> None:
        """Change the schema, and how to change it back when every table is empty."""
        self._before.append(before)
        self._after.insert(0, after)

    def deafen(self, trigger_function: str) -> None:
        """Make a trigger's function look at nothing. The trigger is still there."""
        self._deaf.append(trigger_function)

    async def break_up(self) -> None:
        """Carry out what concerns the database."""
        async with self.world.database.connection() as connection:
            for name in self._deaf:
                real = await connection.fetchval("SELECT pg_get_functiondef($1::text::regproc)", name)
                self._after.insert(0, real)
                self._before.append(
                    f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
                    "$$ BEGIN RETURN NEW; END $$"
                )
            for statement in self._before:
                await connection.execute(statement)

    async def take_out(self) -> None:
        """Undo everything; the database is empty afterwards."""
        for undo in reversed(self._undo):
            undo()
        self.world.breaker.rest()
        async with self.world.database.connection() as connection:
            await SQL.wipe.run(connection)
            for statement in self._after:
                await connection.execute(statement)


def _find(path: str) -> tuple[Any, str]:
    *parts, name = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            owner: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            owner = getattr(owner, part)
        return owner, name
    raise LookupError(path)


@dataclass(frozen=True, slots=True)
class Plant:
    """A mistake that an engineer could make. `rules`: the ids of the rules it breaks, any of which finds it.

    `invariant` is the one of issue and `docs/correctness.md` it breaks, by its number there.
    """

    name: str
    about: str
    invariant: int
    rules: frozenset[str]
    put: Callable[[Ground], None]


@asynccontextmanager
async def planted(world: World, plant: Plant) -> AsyncIterator[None]:
    """Meanwhile the product has this bug."""
    ground = Ground(world)
    try:
        plant.put(ground)
        await ground.break_up()
        yield
    finally:
        await ground.take_out()
