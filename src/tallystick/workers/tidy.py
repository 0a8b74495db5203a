"""The tidier: forgets what was promised to be kept for a while only.

Holds true: answers under idempotency keys are kept as long as the contract says, then removed a bounded number at a
time. Facts, history, events and their deliveries are not touched. Must not: hold a lock for long.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from tallystick.services.context import Context
from tallystick.services.idempotency import REMOVE_COUNT_MAX, remove_old
from tallystick.workers.waiting import wait_or_stop

log = structlog.get_logger(__name__)

PAUSE_SECONDS: Final = 600.0


class Tidier:
    """Removes what is old, until told to stop."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def run(self, stop: asyncio.Event) -> None:
        """Tidy every ten minutes."""
        while not stop.is_set():
            removed = await self.batch()
            if removed:
                log.info("idempotency.forgotten", answers=removed)
            if removed < REMOVE_COUNT_MAX:
                await wait_or_stop(stop, PAUSE_SECONDS)

    async def batch(self) -> int:
        """Remove a bounded number of old answers; answer how many."""
        async with self._ctx.database.transaction() as connection:
            return await remove_old(connection, self._ctx)
