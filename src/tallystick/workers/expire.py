"""The expirer: looks at invoices whose window has ended.

Holds true: which invoices are due is an index look-up on chain time scanned (or our clock where no address was issued);
however many end at once, they are judged in bounded batches, each its own transaction. Whether one expires is not
decided here. Must not: compare a clock with a deadline by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import structlog

from tallystick.core.assess import OUR_CLOCK
from tallystick.core.errors import IllegalTransition
from tallystick.db import invoices as store
from tallystick.db.networks import share_networks
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.context import SYSTEM, Context
from tallystick.services.intake import SQL
from tallystick.workers.balances import BalanceChecker
from tallystick.workers.waiting import wait_or_stop

log = structlog.get_logger(__name__)

BATCH_INVOICES: Final = 200
POLL_SECONDS: Final = 0.5


class Expirer:
    """Judges invoices whose window has ended, until told to stop. Any number may run side by side."""

    def __init__(self, ctx: Context, checkers: Mapping[str, BalanceChecker] | None = None) -> None:
        self._ctx = ctx
        self._checkers = checkers or {}

    async def run(self, stop: asyncio.Event) -> None:
        """Look for due invoices again and again."""
        while not stop.is_set():
            judged = 0
            for network in (OUR_CLOCK, *self._ctx.networks):
                judged += await self.batch(network)
            if judged == 0:
                await wait_or_stop(stop, POLL_SECONDS)

    async def batch(self, network: str) -> int:
        """Judge up to BATCH_INVOICES due invoices that waited for `network`; answer how many.

        Their balances are looked at before that, so that value sent by a contract does not come as a surprise after the
        end. Where they cannot be read, these invoices wait for a while; those of other networks do not.
        An invoice that cannot be judged (a defect) is left as it is, shown in the log, and does not hold up the others.
        """
        now = self._ctx.now()
        async with self._ctx.database.connection() as connection:
            due = await SQL.due_by_time.all(connection, network=network, now=now, row_count=BATCH_INVOICES)
        ids = [row["invoice_id"] for row in due]
        if not ids:
            return 0
        checker = self._checkers.get(network)
        if checker is not None and not await checker.before_end(ids):
            return 0
        try:
            await self._judge(ids, now)
            judged = len(ids)
        except IllegalTransition:
            judged = sum([await self._judged_alone(invoice_id, now) for invoice_id in ids])
        log.info("invoices.window_ended", network=network or "(our clock)", invoices=judged)
        return judged

    async def _judge(self, ids: list[str], now: datetime) -> None:
        async with self._ctx.database.transaction() as connection:
            await share_networks(connection, await store.networks_of(connection, ids))
            cause = Cause(CauseKind.CLOCK, SYSTEM, ({"type": "clock", "at": now},))
            await assess_invoices(connection, self._ctx, ids, cause)

    async def _judged_alone(self, invoice_id: str, now: datetime) -> bool:
        try:
            await self._judge([invoice_id], now)
        except IllegalTransition:
            log.exception("invoice.cannot_be_judged", invoice_id=invoice_id)
            return False
        return True
