"""The balance checker of one network: looks at addresses whose windows ended without enough money.

Holds true: which addresses are due is an index look-up; they are read in bounded batches; an address that could not be
read stays due. One checker for each network, so that no node's trouble delays another's. Any number may run side by
side. Must not: decide what a balance means (`services.balances`), or hold up an expiry for longer than
`HOLD_SECONDS_MAX`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from tallystick.chains.source import AccountSource
from tallystick.core.balance import BalanceOutcome
from tallystick.core.errors import IllegalTransition, SourceError, StaleWrite
from tallystick.core.network import Network
from tallystick.db import balances as store
from tallystick.services.assessing import CauseKind
from tallystick.services.balances import Look, check_addresses
from tallystick.services.context import SYSTEM, Context
from tallystick.workers.waiting import wait_or_stop

log = structlog.get_logger(__name__)

BATCH_ADDRESSES: Final = 100
POLL_SECONDS: Final = 1.0
LEASE: Final = timedelta(seconds=60)
LOOK_SECONDS_MAX: Final = 15.0
HOLD_SECONDS_MAX: Final = 60.0


class BalanceChecker:
    """Looks at due addresses of one network, until told to stop."""

    def __init__(self, ctx: Context, network: Network, source: AccountSource) -> None:
        self._ctx = ctx
        self._network = network
        self._source = source
        self._failing_since: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Look for due addresses again and again."""
        while not stop.is_set():
            if await self.batch() < BATCH_ADDRESSES:
                await wait_or_stop(stop, POLL_SECONDS)

    async def batch(self) -> int:
        """Look at up to BATCH_ADDRESSES due addresses; answer how many were due."""
        now = self._ctx.now()
        async with self._ctx.database.transaction() as connection:
            addresses = await store.claim_due(
                connection, self._network.name, now, now + LEASE, count_max=BATCH_ADDRESSES
            )
        if addresses:
            await self._look(addresses)
        return len(addresses)

    async def before_end(self, invoice_ids: Sequence[str]) -> bool:
        """Look once more before these invoices are judged to have ended without enough money.

        False: their addresses cannot be read now, so that their end waits, but not for longer than HOLD_SECONDS_MAX;
        then it is judged by what is known, and the looks that follow an end correct it.
        """
        async with self._ctx.database.connection() as connection:
            rows = await store.SQL.unpaid_before_end.all(
                connection, invoice_ids=list(invoice_ids), network=self._network.name
            )
        addresses = [row["address"] for row in rows]
        for start in range(0, len(addresses), BATCH_ADDRESSES):
            if not await self._look(addresses[start : start + BATCH_ADDRESSES]):
                now = self._ctx.monotonic()
                since = now if self._failing_since is None else self._failing_since
                return now - since >= HOLD_SECONDS_MAX
        return True

    async def _look(self, addresses: Sequence[str]) -> bool:
        """Look at these addresses; whether they could be read.

        An invoice that cannot be judged (a defect) is left as it is, shown in the log, and does not hold up the others.
        """
        try:
            async with asyncio.timeout(LOOK_SECONDS_MAX):
                looks = await check_addresses(
                    self._ctx, self._network, self._source, addresses, CauseKind.CLOCK, SYSTEM
                )
        except (SourceError, StaleWrite, TimeoutError) as error:
            if self._failing_since is None:
                self._failing_since = self._ctx.monotonic()
            log.warning(
                "balances.not_read",
                network=self._network.name,
                addresses=len(addresses),
                problem=str(error) or "The node did not answer in time.",
            )
            return False
        except IllegalTransition:
            if len(addresses) == 1:
                log.exception(
                    "balances.invoice_cannot_be_judged", network=self._network.name, address=addresses[0]
                )
            else:
                for address in addresses:
                    await self._look([address])
            return True
        self._failing_since = None
        self._tell(looks)
        return True

    def _tell(self, looks: Sequence[Look]) -> None:
        for look in looks:
            if look.finding.outcome in (BalanceOutcome.UNATTRIBUTED, BalanceOutcome.MISSING):
                log.warning(
                    "balances.looked",
                    outcome=look.finding.outcome.value,
                    network=look.network,
                    address=look.address,
                    invoice_id=look.invoice_id,
                    amount=look.finding.amount,
                    block=look.block.hash,
                )
