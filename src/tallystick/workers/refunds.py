"""The refund watch: stops refunds that should have been seen on chain by now, and makes PSBTs anew that are dead.

Holds true: a refund is stopped only once its network was read past its due time, so an outage of ours is no trouble of
the refund's; each is its own transaction. It says that a person has to look, and sends nothing again.
Must not: decide whether a refund was sent (the chain does), or whether a PSBT is dead (`services.refund_psbts` does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import structlog

from tallystick.db import refund_inputs
from tallystick.db.refunds import SQL
from tallystick.db.sql import Connection
from tallystick.services.context import Context
from tallystick.services.failures import RETRYABLE
from tallystick.services.refund_decisions import flag_overdue, renew_psbt
from tallystick.workers.waiting import wait_or_stop

log = structlog.get_logger(__name__)

BATCH_REFUNDS: Final = 100
PAUSE_SECONDS: Final = 5.0
PSBT_EVERY: Final = timedelta(minutes=1)
"""How long a refund without a PSBT rests before another try: outputs become final, and fees known, in minutes."""


class RefundWatch:
    """Looks for refunds to be stopped and for PSBTs to be made, until told to stop. Any number may run side by side."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def run(self, stop: asyncio.Event) -> None:
        """Look every few seconds."""
        while not stop.is_set():
            stopped = await self.batch()
            renewed = await self.renew()
            if max(stopped, renewed) < BATCH_REFUNDS:
                await wait_or_stop(stop, PAUSE_SECONDS)

    async def batch(self) -> int:
        """Stop up to BATCH_REFUNDS overdue refunds; answer how many were stopped."""
        async with self._ctx.database.connection() as connection:
            due = await SQL.due_refunds.all(connection, now=self._ctx.now(), row_count=BATCH_REFUNDS)
        return sum([await self._one(row["id"], flag_overdue, "refund.needs_attention") for row in due])

    async def renew(self) -> int:
        """Make up to BATCH_REFUNDS PSBTs that are missing or dead; answer how many changed."""
        async with self._ctx.database.connection() as connection:
            due = await refund_inputs.SQL.due_psbts.all(
                connection, tried_before=self._ctx.now() - PSBT_EVERY, row_count=BATCH_REFUNDS
            )
        return sum([await self._one(row["id"], renew_psbt, "refund.psbt_renewed") for row in due])

    async def _one(
        self, refund_id: str, work: Callable[[Connection, Context, str], Awaitable[bool]], event: str
    ) -> bool:
        try:
            async with self._ctx.database.transaction() as connection:
                done = await work(connection, self._ctx, refund_id)
        except RETRYABLE:
            return False  # somebody else was at it: the next turn looks again
        if done:
            log.warning(event, refund_id=refund_id)
        return done
