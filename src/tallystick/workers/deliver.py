"""Delivers due webhooks: claim, send, record, for ever.

For: `tallystick deliver`, `up`, `demo`. Any number of deliverers may run side by side.
Holds true: nothing is sent that was not claimed and committed before, and no transaction is open while something is
sent; an outcome is recorded after it is known, so a crash at any instruction means that the delivery is due again when
its lease ends (at least once, never lost); a claim takes a few deliveries of each endpoint only (`workers.lanes`), so
one endpoint's backlog or slowness delays nobody else.
Must not: decide what follows from an attempt (`core.webhook` does).

One task claims, one records, one listens; each delivery is a task in between. What was sent while one record
transaction ran is recorded together in the next one, so the number of transactions adapts to the load.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

import asyncpg
import structlog
from aiohttp.abc import AbstractResolver
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from tallystick.db.listening import listening
from tallystick.db.webhooks import ClaimedDelivery
from tallystick.observability import show_deliveries
from tallystick.services.context import Context
from tallystick.services.delivering import (
    LEASE,
    Attempted,
    Disabled,
)
from tallystick.services.events import DELIVERIES_CHANNEL
from tallystick.workers.courier import Courier, Sends
from tallystick.workers.lanes import Lanes
from tallystick.workers.webhook_sender import ATTEMPT_SECONDS_MAX, Sender

log = structlog.get_logger(__name__)

IN_FLIGHT_MAX: Final = 256
PER_ENDPOINT_MAX: Final = 32
POLL_SECONDS: Final = 1.0
HOUSEKEEPING_SECONDS: Final = 10.0
RECORD_BATCH_MAX: Final = 256
# Under load, what comes within this time goes into one transaction. The first event after a quiet moment does not wait.
GATHER_SECONDS: Final = 0.01
FAILING_CLAIM_SECONDS: Final = 0.2  # between claims for failing endpoints: their retries are not in a hurry
STOP_SECONDS_MAX: Final = 5.0  # for what is in flight; the rest is given back
DATABASE_PATIENCE_SECONDS: Final = 30.0
BACKLOG_COUNT_MAX: Final = 100_000
# Passing troubles of a database: worth another try on another connection.
DATABASE_TROUBLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the driver, when a connection dies between two steps of one exchange
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DelivererOptions:
    """Limits and times. The defaults are for production; tests shorten them.

    `lease` must be longer than an attempt and its recording take. `resolver` replaces the system's, `tls` the default
    verification of certificates.
    """

    in_flight_max: int = IN_FLIGHT_MAX
    per_endpoint_max: int = PER_ENDPOINT_MAX
    poll_seconds: float = POLL_SECONDS
    attempt_seconds_max: float = ATTEMPT_SECONDS_MAX
    stop_seconds_max: float = STOP_SECONDS_MAX
    lease: timedelta = LEASE
    resolver: AbstractResolver | None = None
    tls: ssl.SSLContext | None = None


class Deliverer:
    """Delivers until told to stop: `await Deliverer(ctx).run(stop)`. One object runs once at a time.

    Uses up to three connections of `ctx.database`. `on_disabled` is told of each endpoint that was disabled.
    """

    def __init__(
        self,
        ctx: Context,
        options: DelivererOptions | None = None,
        *,
        on_disabled: Callable[[Disabled], None] | None = None,
    ) -> None:
        self._ctx = ctx
        self._options = options or DelivererOptions()
        self._on_disabled = on_disabled
        self._wake = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set; then let what is in flight end, record it, and give the rest back.

        Raises when the database stays away; run again, it continues where the database says.
        """
        async with Sender(
            self._ctx,
            connections_max=self._options.in_flight_max,
            timeout_seconds=self._options.attempt_seconds_max,
            resolver=self._options.resolver,
            tls=self._options.tls,
        ) as sender:
            run = _Run(self._ctx, self._options, self._wake, self._on_disabled, sender)
            try:
                await run.until(stop)
            except ExceptionGroup as group:
                raise group.exceptions[
                    0
                ] from group  # the first failure is the reason, the others follow from it


class _Run:
    """What one run of a deliverer knows: its courier, tasks and outcomes. Forgotten at its end."""

    def __init__(
        self,
        ctx: Context,
        options: DelivererOptions,
        wake: asyncio.Event,
        on_disabled: Callable[[Disabled], None] | None,
        sender: Sends,
    ) -> None:
        self._ctx = ctx
        self._options = options
        self._wake = wake
        self._on_disabled = on_disabled
        self._clock = asyncio.get_running_loop().time
        self._courier = Courier(
            ctx,
            sender,
            Lanes(in_flight_max=options.in_flight_max, per_endpoint_max=options.per_endpoint_max),
            lease=options.lease,
            monotonic=self._clock,
        )
        self._sending: dict[asyncio.Task[None], ClaimedDelivery] = {}
        self._outcomes: asyncio.Queue[Attempted] = asyncio.Queue()
        self._failing_claim_at = 0.0

    async def until(self, stop: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(self._record_for_ever(), name="deliver: record"),
                    group.create_task(self._listen_for_ever(), name="deliver: listen"),
                    group.create_task(self._keep_house_for_ever(), name="deliver: housekeeping"),
                    group.create_task(self._wake_at(stop), name="deliver: stop"),
                ]
                while not stop.is_set():
                    await self._wait_for_work()
                    if not stop.is_set() and await self._claim_and_send():
                        await asyncio.sleep(GATHER_SECONDS)
                await self._finish()
                for helper in helpers:
                    helper.cancel()
        finally:
            # Only after a failure or a cancellation is something left here; its leases will end.
            left = list(self._sending)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _wait_for_work(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.poll_seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _claim_and_send(self) -> int:
        """Claim what there is room for and start sending it. Answers how many for endpoints that work."""
        count = await self._go_round(failing=False)
        if self._clock() >= self._failing_claim_at:
            self._failing_claim_at = self._clock() + FAILING_CLAIM_SECONDS
            await self._go_round(failing=True)
        return count

    async def _go_round(self, *, failing: bool) -> int:
        """Claim round the endpoints once, or until all places are taken."""
        went_round = self._courier.at_start(failing=failing)
        count = 0
        while self._courier.free(failing=failing) > 0:
            claimed, more = await self._with_patience(partial(self._courier.claim, failing=failing))
            for delivery in claimed:
                task = asyncio.create_task(self._attempt(delivery))
                self._sending[task] = delivery
                task.add_done_callback(self._forget)
            count += len(claimed)
            if more or went_round:
                break
            went_round = True
        return count

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._sending.pop(task, None)

    async def _attempt(self, delivery: ClaimedDelivery) -> None:
        try:
            self._outcomes.put_nowait(await self._courier.attempt(delivery))
        finally:
            self._wake.set()  # there is room again

    async def _record_for_ever(self) -> None:
        while True:
            batch = [await self._outcomes.get()]
            await asyncio.sleep(GATHER_SECONDS)
            while len(batch) < RECORD_BATCH_MAX and not self._outcomes.empty():
                batch.append(self._outcomes.get_nowait())
            for disabled in await self._with_patience(partial(self._courier.record, batch)):
                log.warning("endpoint.disabled", endpoint_id=disabled.endpoint_id, reason=disabled.reason)
                if self._on_disabled is not None:
                    self._on_disabled(disabled)
            for _ in batch:
                self._outcomes.task_done()

    async def _finish(self) -> None:
        """Wait for what is in flight, record what ended, give back what did not."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=self._options.stop_seconds_max)
        unfinished = dict(self._sending)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        await self._outcomes.join()
        if unfinished:
            await self._courier.release(list(unfinished.values()))

    async def _listen_for_ever(self) -> None:
        """Be woken when deliveries are created. Polling works without it, only later."""
        retrying = AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.2, max=DATABASE_PATIENCE_SECONDS),
            retry=retry_if_exception_type(DATABASE_TROUBLE),
            before_sleep=_log_trouble,
        )
        await retrying(self._listen)

    async def _listen(self) -> None:
        lost = asyncio.Event()

        def connection_lost(_connection: Any) -> None:
            lost.set()

        async with (
            self._ctx.database.connection() as connection,
            listening(connection, {DELIVERIES_CHANNEL: self._notified}, connection_lost),
        ):
            self._wake.set()  # for what came while nobody listened
            await lost.wait()
            raise ConnectionResetError("the listening connection was closed by the server")

    def _notified(self, _connection: Any, _pid: int, _channel: str, _payload: Any) -> None:
        self._wake.set()

    async def _keep_house_for_ever(self) -> None:
        while True:
            await self._with_patience(self._keep_house)
            await asyncio.sleep(HOUSEKEEPING_SECONDS)

    async def _keep_house(self) -> None:
        """Fail what nobody will send any more, and publish how much waits."""
        waiting = await self._courier.keep_house(count_max=BACKLOG_COUNT_MAX)
        show_deliveries(waiting.pending, waiting.oldest_due_at, self._ctx.now())

    async def _with_patience(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work`, again after passing troubles of the database, for a while. Each try is a new transaction."""
        retrying = AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.1, max=5),
            stop=stop_after_delay(DATABASE_PATIENCE_SECONDS),
            retry=retry_if_exception_type(DATABASE_TROUBLE),
            before_sleep=_log_trouble,
            reraise=True,
        )
        return await retrying(work)


def _log_trouble(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    log.warning("deliver.database_trouble", problem=type(error).__name__, tries=state.attempt_number)
