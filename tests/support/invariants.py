"""What must hold in the database after any scenario: the rules of `services.auditing`, all of them at once.

For: `open_stand`, which calls `check_invariants` at its end, so that no scenario can forget it; also simulations.
Holds true: every problem is found and named at once, not only the first.
Must not: change anything.
"""

from __future__ import annotations

from datetime import timedelta

from tallystick.db.sql import Connection
from tallystick.services.auditing import check_invoices, check_whole, touched_since
from tallystick.services.context import Context

NO_WORKERS = timedelta(days=10_000)
"""Scenarios move time by hand and run no deliverer: what is due there waits for nobody."""


async def check_invariants(ctx: Context) -> None:
    """Look at everything stored. Raises AssertionError that lists what is wrong."""
    async with ctx.database.connection() as connection, connection.transaction(isolation="repeatable_read"):
        found = await find_problems(connection, ctx)
    assert not found, "\n".join(["the database is not in order:", *found])


async def find_problems(
    connection: Connection, ctx: Context, *, patience: timedelta = NO_WORKERS
) -> list[str]:
    """Everything that is wrong as this connection sees it, each in a line."""
    _, ids = await touched_since(connection, None)
    found = await check_invoices(connection, ctx, ids)
    found += await check_whole(connection, ctx, patience=patience)
    return [f"{problem.rule}: {problem.object_id}: {problem.detail}" for problem in found]
