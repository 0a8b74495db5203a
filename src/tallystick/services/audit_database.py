"""Auditing a whole database while it is in use, in bounded memory.

For: `tallystick audit`. Holds true: each batch of invoices is read in one snapshot, so that what a block or a request
is in the middle of doing is seen whole or not at all; what looks wrong is looked at a second time in a later snapshot,
and told only if it is wrong in both; nothing is changed, no lock is taken.
Must not: repair anything, or hold more than a batch of invoices at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

from tallystick.chains.families import FAMILIES
from tallystick.core.errors import TallystickError
from tallystick.db import audit as stored
from tallystick.db.sql import Connection
from tallystick.services.auditing import PATIENCE, RULES, Problem, Rule, check_invoices, check_whole
from tallystick.services.context import Context

BATCH_INVOICES: Final = 200
SECOND_LOOK_SECONDS: Final = 1.0
PROBLEMS_MAX: Final = 1_000

COMMAND_RULES: Final = (
    Rule("address-derived", "Every issued address is what its wallet's key gives at its index.", "invoice"),
    Rule("log-rewritten", "The logs still say what they said when their ends were last noted.", "whole"),
)
"""Rules that only the command checks: they cost time, or need what was kept outside the database."""

Ends = dict[str, tuple[int, str]]
"""Where the log of each merchant ends: its length and its last hash (hexadecimal)."""

Look = Callable[[Connection], Awaitable[list[Problem]]]


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit looked at (figures by name) and what it found, of which `problems` are the first.

    `ends` are to be kept outside the database, but only those of logs in order: noted instead of what was noted before,
    the ends of a rewritten log would hide that.
    """

    checked: dict[str, int]
    problems: tuple[Problem, ...]
    ends: Ends
    logs_in_order: bool


@dataclass(slots=True)
class Audit:
    """One run over a database. `on_progress` is told how many invoices are done, and of how many.

    `patience` is how long what is due may wait before it counts as forgotten. `second_look_seconds` lie between finding
    something and looking again.
    """

    ctx: Context
    on_progress: Callable[[int, int], None] = lambda _done, _of: None
    patience: timedelta = PATIENCE
    second_look_seconds: float = SECOND_LOOK_SECONDS
    noted: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    async def run(self) -> Report:
        """Look at everything. Raises DatabaseError and asyncpg's errors when the database goes away."""
        async with self._snapshot() as connection:
            checked = await stored.figures(connection)
        found = _Found()
        found.add(await self._twice(self._whole, self.second_look_seconds))
        found.add(await self._twice(self._rewritten, self.second_look_seconds))
        done, ids = 0, await self._ids_after("")
        while ids:
            # Where nearly everything is wrong, a pause for each batch would take hours and tell nothing more.
            pause = self.second_look_seconds if found.count < PROBLEMS_MAX else 0
            found.add(await self._twice(partial(self._invoices, ids), pause))
            done += len(ids)
            self.on_progress(done, max(done, checked["invoices"]))
            ids = await self._ids_after(ids[-1])
        async with self._snapshot() as connection:
            ends = await stored.log_ends(connection)
            if found.logs_in_order:  # in the moment whose ends are noted next
                found.add(await self._rewritten(connection))
        checked |= {"invoices": done, "rules": len(RULES) + len(COMMAND_RULES), "problems": found.count}
        return Report(checked, tuple(found.kept), ends, found.logs_in_order)

    async def _ids_after(self, last: str) -> list[str]:
        async with self.ctx.database.connection() as connection:
            return await stored.ids_after(connection, last, BATCH_INVOICES)

    def _snapshot(self) -> AbstractAsyncContextManager[Connection]:
        return self.ctx.database.snapshot()

    async def _twice(self, look: Look, pause_seconds: float) -> list[Problem]:
        """What is wrong now and a moment later."""
        async with self._snapshot() as connection:
            first = await look(connection)
        if not first:
            return []
        await asyncio.sleep(pause_seconds)
        async with self._snapshot() as connection:
            again = {(problem.rule, problem.object_id) for problem in await look(connection)}
        return [problem for problem in first if (problem.rule, problem.object_id) in again]

    async def _whole(self, connection: Connection) -> list[Problem]:
        """Nothing is forgotten by a system that does not run: what came due after its last sign of life is left out."""
        alive = await stored.last_sign_of_life(connection)
        now = self.ctx.now()
        asleep = max(timedelta(0), now - alive) if alive is not None else timedelta(0)
        return await check_whole(connection, self.ctx, patience=self.patience + asleep)

    async def _invoices(self, ids: list[str], connection: Connection) -> list[Problem]:
        problems = await check_invoices(connection, self.ctx, ids)
        for row in await stored.addresses_of(connection, ids):
            try:
                derived = FAMILIES[row["family"]].derive(row["account_key"], row["derivation_index"])
            except (TallystickError, LookupError) as error:
                derived = f"nothing ({error})"
            if derived != row["address"]:
                detail = f"issued for {row['invoice_id']}, and its key gives {derived}"
                problems.append(Problem("address-derived", row["address"], detail))
        return problems

    async def _rewritten(self, connection: Connection) -> list[Problem]:
        """Whether the logs still say what they said at the ends that were noted outside the database."""
        known = await stored.logged_at(connection, {one: length for one, (length, _) in self.noted.items()})
        return [
            Problem(
                "log-rewritten", merchant_id, f"row {length} of its log was {told[:16]}… when it was noted"
            )
            for merchant_id, (length, told) in sorted(self.noted.items())
            if known.get(merchant_id) != told
        ]


class _Found:
    """The problems, as many as are told, how many there are, and whether none of them, told or not, is of the logs."""

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.count = 0
        self.logs_in_order = True

    def add(self, problems: list[Problem]) -> None:
        self.logs_in_order &= not any(problem.rule.startswith("log-") for problem in problems)
        self.count += len(problems)
        self.kept.extend(problems[: PROBLEMS_MAX - len(self.kept)])


async def audit(
    ctx: Context,
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
    patience: timedelta = PATIENCE,
    second_look_seconds: float = SECOND_LOOK_SECONDS,
    noted: Mapping[str, tuple[int, str]] | None = None,
) -> Report:
    """Look at the whole database, which may be in use. See `Audit`."""
    return await Audit(ctx, on_progress, patience, second_look_seconds, noted or {}).run()
