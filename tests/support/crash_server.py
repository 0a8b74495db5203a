"""A real `tallystick up` that kills itself with SIGKILL at a commit point, started again in a fraction of a second.

For: `crash_driver`, which starts this module as a process of its own and talks to it in lines. It loads the program
once and forks for every start, so that a start costs no imports; what runs in the fork is the program's own entry.

    start <folder> <seconds that our clock is ahead>    →  started <pid>
                                                        →  exited <negative signal or exit code>   (by itself)

Holds true: at a point that is still to be died at, the process dies right before COMMIT is sent; when it comes there
again, right after COMMIT was answered. A transaction that wrote nothing is no commit. What was died at stands in the
folder's file `died`, a line each, before the signal; so the next start does not die there again. A statement that
writes and commits outside every point is put down in the file `loose`.
Must not: be part of the program: nothing in src knows of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import asyncpg
import asyncpg.transaction

from tallystick.db.pool import Database
from tests.support.commit_points import commit_points, point_of

BEFORE, AFTER = "before", "after"
_WRITES: Final = re.compile(
    r"^(?:\s|--[^\n]*\n)*(?:INSERT|UPDATE|DELETE|WITH\b.*\b(?:INSERT|UPDATE|DELETE)\b)",
    re.IGNORECASE | re.DOTALL,
)
_WROTE: Final = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"


class Crashes:
    """Where this process is still to die."""

    def __init__(self, folder: Path, spared: frozenset[str]) -> None:
        self._died = folder / "died"
        self._loose = folder / "loose"
        self._spared = spared
        self._done = set(self._died.read_text().splitlines()) if self._died.exists() else set()
        self.open: dict[Any, str | None] = {}  # connections in use for writing, and for which point
        # Nobody dies while another's COMMIT is on its way that is to be died after: that point's chance would be gone,
        # since what is committed is not done again. Whoever waits for a turn before COMMIT has committed nothing.
        self.turn = asyncio.Lock()

    def soon(self, point: str | None) -> bool:
        """Whether a commit at this point ends in a death, on one side or the other."""
        return self.due(point, BEFORE) or self.due(point, AFTER)

    def due(self, point: str | None, side: str) -> bool:
        """Whether to die here, now."""
        if point is None or point in self._spared:
            return False
        return f"{point} {side}" not in self._done and (side == BEFORE or f"{point} {BEFORE}" in self._done)

    def die(self, point: str | None, side: str) -> NoReturn:
        """The power goes."""
        with self._died.open("a") as file:
            file.write(f"{point} {side}\n")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("SIGKILL cannot be outlived")

    def note_loose(self, statement: str) -> None:
        """Something was written and committed where nobody looks for it."""
        with self._loose.open("a") as file:
            file.write(" ".join(statement.split())[:200] + "\n")


def arm(crashes: Crashes) -> None:
    """Put the crashes into this process's database access."""
    _wrap_openers(crashes)
    _wrap_commit(crashes)
    _wrap_statements(crashes)


def _wrap_openers(crashes: Crashes) -> None:
    for name in ("transaction", "aside"):
        original = getattr(Database, name)

        def opener(
            self: Database, original: Callable[..., Any] = original
        ) -> contextlib.AbstractAsyncContextManager[Any]:
            point = point_of(sys._getframe(1))

            @asynccontextmanager
            async def watched() -> AsyncIterator[Any]:
                async with original(self) as connection:
                    raw = connection._con
                    crashes.open[raw] = point
                    yield connection
                crashes.open.pop(raw, None)

            return watched()

        setattr(Database, name, opener)


def _wrap_commit(crashes: Crashes) -> None:
    commit = asyncpg.transaction.Transaction._Transaction__commit  # type: ignore[attr-defined]

    async def crashing(self: Any) -> None:
        raw = self._connection
        point = crashes.open.get(raw)
        wrote = not self._nested and await raw.fetchval(_WROTE)
        if not wrote or not crashes.soon(point):
            await commit(self)
            return
        async with crashes.turn:
            if crashes.due(point, BEFORE):
                crashes.die(point, BEFORE)
            await commit(self)
            crashes.die(point, AFTER)

    asyncpg.transaction.Transaction._Transaction__commit = crashing  # type: ignore[attr-defined]


def _wrap_statements(crashes: Crashes) -> None:
    """What is written outside a transaction commits with its statement."""
    for name in ("execute", "executemany", "fetch", "fetchrow", "fetchval"):
        original = getattr(asyncpg.Connection, name)

        async def statement(
            self: Any, query: str, *args: Any, original: Callable[..., Any] = original, **named: Any
        ) -> Any:
            if self.is_in_transaction() or not _WRITES.match(query):
                return await original(self, query, *args, **named)
            point = crashes.open.get(self)
            if point is None:
                crashes.note_loose(query)
            # Such a statement may wait for a row whose holder waits for the turn: only deaths are in turn here.
            if crashes.due(point, BEFORE):
                async with crashes.turn:
                    crashes.die(point, BEFORE)
            answer = await original(self, query, *args, **named)
            if crashes.due(point, AFTER):
                async with crashes.turn:
                    crashes.die(point, AFTER)
            return answer

        setattr(asyncpg.Connection, name, statement)


def _ahead(seconds: int) -> None:
    """Let our clock be ahead of the machine's."""
    from tallystick import runtime

    open_context = runtime.open_context

    async def later(*args: Any, **named: Any) -> Any:
        context = await open_context(*args, **named)
        return replace(context, clock=lambda: datetime.now(UTC) + timedelta(seconds=seconds))

    runtime.open_context = later


def _tell_fees() -> None:
    """Let nodes say what a transaction should pay, as those of the Bitcoin family do: writing it down commits."""
    from tallystick.chains.evm.source import EvmSource

    async def fee_rate(_source: EvmSource) -> int | None:
        return 2_000

    EvmSource.fee_rate = fee_rate  # type: ignore[attr-defined]


def _load() -> None:
    """Import what `tallystick up` imports, so that a start does not."""
    import uvicorn.protocols.http.httptools_impl
    import uvloop
    from litestar import Litestar

    import tallystick.api.app
    import tallystick.chains.evm.source
    import tallystick.cli.serve
    import tallystick.rates.live
    import tallystick.runtime
    import tallystick.server
    import tallystick.web.checkout
    import tallystick.web.claims
    import tallystick.workers.balances
    import tallystick.workers.deliver
    import tallystick.workers.expire
    import tallystick.workers.follow
    import tallystick.workers.refunds
    import tallystick.workers.requote
    import tallystick.workers.tidy  # noqa: F401

    Litestar([])  # it imports its plugins here
    _tell_fees()
    commit_points()  # it reads every source file
    _compile_pages()
    gc.freeze()  # what is loaded stays shared with every fork
    del uvloop, uvicorn


def _compile_pages() -> None:
    """Make the pages' templates here, so that every fork finds them made."""
    from tallystick.rates.source import StaticRates
    from tallystick.services.context import Context
    from tallystick.web import checkout, claims
    from tallystick.web.stream import InvoiceHub

    for module in (checkout, claims):
        environment = module.page_environment
        made = environment(module.texts.LABELS)
        module.page_environment = lambda _labels, made=made: made  # type: ignore[attr-defined]
    nowhere = Context(cast("Database", None), {}, StaticRates({}), "http://127.0.0.1")
    checkout.checkout_routes(nowhere, InvoiceHub(nowhere))
    claims.claim_routes(nowhere, lambda _: None)


def _run(folder: Path, seconds_ahead: int, spared: frozenset[str]) -> None:
    """In the fork: the program, on its own output file, with crashes."""
    from tallystick.cli import main

    os.setsid()
    output = os.open(folder / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    arm(Crashes(folder, spared))
    _ahead(seconds_ahead)
    main(["up"])


def serve() -> None:
    """Start servers as told on standard input, one at a time, and say how each ended."""
    folder, spared = Path(sys.argv[1]), frozenset(sys.argv[2].split(","))
    _load()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run(folder, int(line), spared)
        sys.stdout.write(f"started {pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"exited {os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
