"""What a deliverer does, one piece at a time: claim, attempt, record, keep house.

For: `workers.deliver`, which does these side by side for ever, and the simulation, which does them in an order of its
own. Holds true: nothing is sent that was not claimed and committed before, and no transaction is open while something
is sent; a claim goes round the endpoints and takes no more of each than its lane has room for.
Must not: wait, start tasks, or decide what follows from an attempt (`core.webhook` does).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

import structlog

from tallystick.core.webhook import Answer
from tallystick.db.webhooks import Backlog, ClaimedDelivery, backlog
from tallystick.services.context import Context
from tallystick.services.delivering import (
    UNDELIVERABLE_BATCH_MAX,
    Attempted,
    Disabled,
    claim_deliveries,
    fail_undeliverable,
    record_attempts,
    release_deliveries,
)
from tallystick.workers.lanes import Lanes

log = structlog.get_logger(__name__)


class Sends(Protocol):
    """Makes one attempt at one delivery."""

    async def send(self, delivery: ClaimedDelivery) -> Answer:
        """Send it; whatever goes wrong outside is an answer in words. Raises nothing but cancellation."""
        ...


class Courier:
    """The pieces of one deliverer, and what it remembers of its endpoints until its end."""

    def __init__(
        self,
        ctx: Context,
        sender: Sends,
        lanes: Lanes,
        *,
        lease: timedelta,
        monotonic: Callable[[], float],
    ) -> None:
        self._ctx = ctx
        self._sender = sender
        self._lanes = lanes
        self._lease = lease
        self._monotonic = monotonic
        # The last endpoint served, among those that work and among those that fail; claims go round from there.
        self._position = {False: "", True: ""}

    def free(self, *, failing: bool) -> int:
        """How many more may be claimed for endpoints that fail, or that work."""
        return self._lanes.slow_free if failing else self._lanes.free

    def at_start(self, *, failing: bool) -> bool:
        """Whether the next claim begins with the first endpoint."""
        return self._position[failing] == ""

    async def claim(self, *, failing: bool) -> tuple[list[ClaimedDelivery], bool]:
        """Claim what there is room for; also whether there may be more, beyond the room. One transaction.

        Each claimed delivery has entered its lane and must be given to `attempt`.
        """
        limit = self.free(failing=failing)
        rooms = self._lanes.rooms(self._monotonic())
        if failing:
            rooms = {endpoint: min(1, room) for endpoint, room in rooms.items()}
        async with self._ctx.database.transaction() as connection:
            claimed = await claim_deliveries(
                connection,
                self._ctx,
                after=self._position[failing],
                rooms=rooms,
                room=1 if failing else self._lanes.room_first,
                failing=failing,
                limit=limit,
                lease=self._lease,
            )
        for delivery in claimed:
            self._lanes.enter(delivery.endpoint_id, failing=failing)
        more = len(claimed) == limit
        self._position[failing] = claimed[-1].endpoint_id if more else ""
        return claimed, more

    async def attempt(self, delivery: ClaimedDelivery) -> Attempted:
        """Send a claimed delivery once; what came of it is to be recorded. A broken-off attempt is one that failed."""
        begun_at, begun = self._ctx.now(), self._monotonic()
        answer = Answer(None, "The attempt was broken off.")
        try:
            answer = await self._sender.send(delivery)
        except Exception as error:  # a defect met by one delivery must not stop the others
            log.exception("delivery.defect", delivery_id=delivery.id, problem=type(error).__name__)
            answer = Answer(None, f"An error in Tallystick stopped the attempt ({type(error).__name__}).")
        finally:
            now = self._monotonic()
            self._lanes.leave(
                delivery.endpoint_id,
                now,
                accepted=answer.accepted,
                seconds=now - begun,
                hold_seconds=float(answer.retry_after_seconds or 0),
            )
        return Attempted(delivery, begun_at, int((now - begun) * 1000), answer)

    async def record(self, attempts: Sequence[Attempted]) -> list[Disabled]:
        """Record what came of attempts; which endpoints were disabled for it. One transaction."""
        async with self._ctx.database.transaction() as connection:
            return await record_attempts(connection, self._ctx, attempts)

    async def release(self, deliveries: Sequence[ClaimedDelivery]) -> None:
        """Give back what was claimed and not attempted to the end."""
        async with self._ctx.database.transaction() as connection:
            await release_deliveries(connection, self._ctx, deliveries)

    async def keep_house(self, *, count_max: int) -> Backlog:
        """Fail what nobody will send any more; answer how much waits, counted up to `count_max`."""
        while True:
            async with self._ctx.database.transaction() as connection:
                failed = await fail_undeliverable(connection, self._ctx)
            if failed < UNDELIVERABLE_BATCH_MAX:
                break
        async with self._ctx.database.connection() as reading:
            return await backlog(reading, count_max=count_max)
