"""What a network's transactions should pay, asked of its nodes now and then and written down for refunds.

Holds true: asking is nobody's trouble but its own: a node that does not say, or fails, leaves what was known, which
grows old and is then not used. Families that pay for gas are never asked. The active follower asks, so one process
does.
Must not: judge the rate (`chains.bitcoin.choosing` does), or hold up the reading of blocks by asking often.
"""

from __future__ import annotations

from typing import Final

import structlog

from tallystick.chains.source import FeeSource, Source
from tallystick.core.errors import SourceError
from tallystick.core.network import Network
from tallystick.db.networks import SQL
from tallystick.services.context import Context

log = structlog.get_logger(__name__)

ASK_EVERY_SECONDS: Final = 300.0


class FeeWatch:
    """Keeps one network's fee rate. Call `look` as often as you like."""

    def __init__(self, ctx: Context, network: Network, source: Source) -> None:
        self._ctx = ctx
        self._network = network
        self._source = source if isinstance(source, FeeSource) else None
        self._next_at = float("-inf")

    async def look(self) -> None:
        """Ask, if it is time to."""
        if self._source is None or self._ctx.monotonic() < self._next_at:
            return
        self._next_at = self._ctx.monotonic() + ASK_EVERY_SECONDS
        try:
            fee_rate = await self._source.fee_rate()
        except SourceError as error:
            log.info("fee_rate.trouble", network=self._network.name, problem=str(error))
            return
        if fee_rate is None:
            return
        async with self._ctx.database.transaction() as connection:
            await SQL.record_fee_rate.run(
                connection, name=self._network.name, fee_rate=fee_rate, at=self._ctx.now()
            )
