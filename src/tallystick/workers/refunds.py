"""The refund watch: stops refunds that should have been seen on chain by now.

Holds true: a refund is stopped only once its network was read past its due time, so an outage of ours is no trouble of
the refund's; each is its own transaction. It says that a person has to look, and sends nothing again.
Must not: decide whether a refund was sent (the chain does).
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from tallystick.db.refunds import SQL
from tallystick.services.context import Context
from tallystick.services.failures import RETRYABLE
from tallystick.services.refund_decisions import flag_overdue
from tallystick.workers.waiting import wait_or_stop

log = structlog.get_logger(__name__)

BATCH_REFUNDS: Final = 100
PAUSE_SECONDS: Final = 5.0


class RefundWatch:
    """Looks for overdue refunds, until told to stop. Any number may run side by side."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def run(self, stop: asyncio.Event) -> None:
        """Look every few seconds."""
        while not stop.is_set():
            if await self.batch() < BATCH_REFUNDS:
                await wait_or_stop(stop, PAUSE_SECONDS)

    async def batch(self) -> int:
        """Stop up to BATCH_REFUNDS overdue refunds; answer how many were stopped."""
        async with self._ctx.database.connection() as connection:
            due = await SQL.due_refunds.all(connection, now=self._ctx.now(), row_count=BATCH_REFUNDS)
        return sum([await self._flag(row["id"]) for row in due])

    async def _flag(self, refund_id: str) -> bool:
        try:
            async with self._ctx.database.transaction() as connection:
                stopped = await flag_overdue(connection, self._ctx, refund_id)
        except RETRYABLE:
            return False  # somebody else was at it: the next turn looks again
        if stopped:
            log.warning("refund.needs_attention", refund_id=refund_id)
        return stopped
