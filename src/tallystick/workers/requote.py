"""The requoter: asks for today's rate where a quote ended while its invoice is open.

Holds true: which options are due is an index look-up; each rate is asked once a batch, with nothing locked; a batch is
bounded and a transaction of its own; any number of requoters may run side by side, and one that dies leaves either the
old quote or the new one in force. Where there is no rate, the old quote stays in force and that is shown. Must not:
decide what a payment is worth.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from tallystick.db.quotes import due_options, read_quoted
from tallystick.observability import QUOTES_NOT_RENEWED, QUOTES_RENEWED
from tallystick.services.context import Context
from tallystick.services.requoting import Outcome, ask_for, renew_due
from tallystick.workers.waiting import wait_or_stop

log = structlog.get_logger(__name__)

BATCH_OPTIONS: Final = 200
POLL_SECONDS: Final = 1.0


class Requoter:
    """Quotes anew, until told to stop."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def run(self, stop: asyncio.Event) -> None:
        """Look for ended quotes again and again."""
        while not stop.is_set():
            if not await self.batch():
                await wait_or_stop(stop, POLL_SECONDS)

    async def batch(self) -> int:
        """Look at a bounded number of options; answer how many were quoted anew."""
        async with self._ctx.database.connection() as connection:
            due = await due_options(connection, self._ctx.now(), BATCH_OPTIONS)
            rows = await read_quoted(connection, due)
        if not due:
            return 0
        asked = await ask_for(self._ctx, rows)
        async with self._ctx.database.transaction() as connection:
            outcome = await renew_due(connection, self._ctx, due, asked)
        self._tell(outcome)
        return outcome.renewed

    def _tell(self, outcome: Outcome) -> None:
        QUOTES_RENEWED.inc(outcome.renewed)
        QUOTES_NOT_RENEWED.inc(sum(outcome.waiting.values()))
        if outcome.renewed:
            log.info("quotes.renewed", options=outcome.renewed)
        for what, options in sorted(outcome.waiting.items()):
            log.warning("quotes.no_rate", rate=what, options=options, remedy="The old amounts stay in force.")
