"""The hub between the database's notifications and the browsers that watch an invoice.

For: `GET /i/{id}/events`. Holds true:
- One connection per process listens, however many browsers watch; it is restored when the database was away.
- A notification only says *that* something changed. What is sent is read afresh, once per invoice however many
  notifications came and however many browsers watch; an unchanged view is not sent again.
- A watcher holds the newest view only, so a slow browser costs one view and never a queue.
- The number of watchers is bounded per process and per address. Whoever comes above it gets one view and is asked to
  come again: the page stays right, only less lively.
- Every watched invoice is read again every `reread_seconds` whatever happens, so a lost notification only delays.
Must not: decide or write anything.

Whoever stops the process calls `close()` (or cancels `run()`) *before* asking the HTTP server to stop: open streams
end at once and the server has nothing to wait for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import msgspec
import structlog
from litestar.response.sse import ServerSentEventMessage
from tenacity import AsyncRetrying, RetryCallState, wait_random

from tallystick.core.errors import DatabaseError, NotFound
from tallystick.db.listening import listening, ping
from tallystick.db.sql import Connection
from tallystick.services.checkout import customer_view
from tallystick.services.checkout_view import CustomerView, without_clock
from tallystick.services.context import Context
from tallystick.services.events import BLOCKS_CHANNEL, INVOICES_CHANNEL

log = structlog.get_logger(__name__)

RETRY_MS: Final = 3_000
"""How soon a browser comes back after a stream ended."""

_encode: Final = msgspec.json.Encoder().encode
DATABASE_TROUBLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    DatabaseError,
)


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How much watching one process offers. Times in seconds."""

    streams_max: int = 2_000
    streams_per_address_max: int = 40
    heartbeat_seconds: float = 15.0
    reread_seconds: float = 15.0
    lifetime_seconds_max: float = 1_800.0
    reconnect_seconds_max: float = 2.0


@dataclass(eq=False, slots=True)
class _Watcher:
    """One open stream: the newest view not yet sent, and a bell."""

    invoice_id: str
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: CustomerView | None = None
    sent: CustomerView | None = None

    def offer(self, view: CustomerView) -> None:
        if self.sent is None or without_clock(view) != without_clock(self.sent):
            self.waiting = view
            self.bell.set()
        else:
            self.waiting = None  # it is again what the browser shows: what was to be sent is outdated

    def counts(self) -> bool:
        """Whether each block may change what it shows: confirmations are counted, or nothing is known yet."""
        newest = self.waiting or self.sent
        return newest is None or newest.progress is not None


class InvoiceHub:
    """Fans out changes of invoices to the streams of one process. `run` is its loop, supervised by the caller."""

    def __init__(
        self,
        ctx: Context,
        *,
        limits: StreamLimits | None = None,
        read: Callable[[Connection, Context, str], Awaitable[CustomerView]] = customer_view,
    ) -> None:
        self._ctx = ctx
        self._limits = limits or StreamLimits()
        self._read = read
        self._watchers: dict[str, set[_Watcher]] = {}
        self._per_address: Counter[str] = Counter()
        self._dirty: set[str] = set()
        self._reading: str | None = None
        self._wake = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def streams(self) -> int:
        """How many streams are open now."""
        return sum(len(watchers) for watchers in self._watchers.values())

    def close(self) -> None:
        """End every open stream and refuse new ones. May be called twice."""
        self._closed.set()
        self._wake.set()
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.bell.set()

    async def run(self) -> None:
        """Listen and fan out until cancelled or closed.

        Whatever goes wrong is logged and tried again after a pause, with the streams kept open: the pages of all
        customers hang on this one loop, and every stream is brought up to date when it listens again.
        """
        retrying = AsyncRetrying(
            wait=wait_random(0.1, self._limits.reconnect_seconds_max),
            retry=self._is_trouble,
            before_sleep=_log_trouble,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    await self._listen()
        except asyncio.CancelledError:
            self.close()
            raise

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the loop for the length of the block: for tests and single-purpose servers."""
        task = asyncio.create_task(self.run(), name="checkout-hub")
        try:
            yield
        finally:
            self.close()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def events(self, invoice_id: str, address: str) -> AsyncIterator[ServerSentEventMessage]:
        """The stream of one browser: the view now, then on every change, with comments in between.

        The caller has checked that the invoice exists. `address` is the client's, to share streams out fairly.
        """
        admitted = (
            not self._closed.is_set()
            and self.streams < self._limits.streams_max
            and self._per_address[address] < self._limits.streams_per_address_max
        )
        if not admitted:
            yield _message(await self._read_now(invoice_id), retry_ms=int(self._limits.reread_seconds * 1000))
            return
        watcher = _Watcher(invoice_id)
        self._watchers.setdefault(invoice_id, set()).add(watcher)
        self._per_address[address] += 1
        try:
            # Registered before reading, so a change in between is not missed. A view the loop read meanwhile is newer.
            try:
                view = await self._read_now(invoice_id)
                if watcher.waiting is None:
                    watcher.offer(view)
            except DATABASE_TROUBLE:
                self._mark(invoice_id)  # the loop reads it once the database is back
            async for message in self._messages(watcher):
                yield message
        finally:
            self._remove(watcher, address)

    async def _messages(self, watcher: _Watcher) -> AsyncIterator[ServerSentEventMessage]:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.lifetime_seconds_max
        while not self._closed.is_set() and loop.time() < end:
            try:
                async with asyncio.timeout(self._limits.heartbeat_seconds):
                    await watcher.bell.wait()
            except TimeoutError:
                yield ServerSentEventMessage(data=None, comment="still here")
                continue
            watcher.bell.clear()
            if watcher.waiting is not None:
                watcher.sent, watcher.waiting = watcher.waiting, None
                yield _message(watcher.sent, retry_ms=RETRY_MS)

    async def _read_now(self, invoice_id: str) -> CustomerView:
        async with self._ctx.database.snapshot() as connection:
            return await self._read(connection, self._ctx, invoice_id)

    def _remove(self, watcher: _Watcher, address: str) -> None:
        watchers = self._watchers[watcher.invoice_id]
        watchers.discard(watcher)
        if not watchers:
            del self._watchers[watcher.invoice_id]
        self._per_address[address] -= 1
        if self._per_address[address] <= 0:
            del self._per_address[address]

    def _mark(self, *invoice_ids: str) -> None:
        self._dirty.update(invoice_ids)
        self._wake.set()

    def _is_trouble(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome is not None else None
        return isinstance(error, Exception) and not self._closed.is_set()

    async def _listen(self) -> None:
        """Listen on one connection until it dies (raises) or the hub is closed (returns)."""
        async with self._ctx.database.connection() as connection:
            channels = {INVOICES_CHANNEL: self._invoice_changed, BLOCKS_CHANNEL: self._block_processed}
            async with listening(connection, channels, self._connection_lost):
                self._mark(*self._watchers)  # whatever was missed while nobody listened
                await self._fan_out(connection)

    async def _fan_out(self, listening: Connection) -> None:
        loop = asyncio.get_running_loop()
        next_full = loop.time() + self._limits.reread_seconds
        while not self._closed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_full):
                    await self._wake.wait()
            self._wake.clear()
            if loop.time() >= next_full:
                await ping(listening)  # a connection that died silently shows here
                self._dirty.update(self._watchers)
                next_full = loop.time() + self._limits.reread_seconds
            elif listening.is_closed():
                raise ConnectionResetError("the listening connection was closed by the server")
            dirty, self._dirty = self._dirty & self._watchers.keys(), set()
            for invoice_id in sorted(dirty):
                await self._refresh(listening, invoice_id)

    async def _refresh(self, connection: Connection, invoice_id: str) -> None:
        """Read one invoice and offer the view to everyone who watches it."""
        if invoice_id not in self._watchers:
            return
        # What changes from here on may be missing in the view: whatever is told meanwhile has it read again.
        self._reading = invoice_id
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                view = await self._read(connection, self._ctx, invoice_id)
        except NotFound:
            return
        except DATABASE_TROUBLE:
            self._dirty.add(invoice_id)  # not lost: read again on the next connection
            raise
        except Exception:  # one invoice that cannot be shown must not stop the streams of all others
            log.exception("checkout_view_failed", invoice_id=invoice_id)
            return
        finally:
            self._reading = None
        for watcher in self._watchers.get(invoice_id, ()):
            watcher.offer(view)

    def _invoice_changed(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        if payload in self._watchers or payload == self._reading:
            self._mark(str(payload))

    def _block_processed(self, _connection: Any, _pid: int, _channel: str, _payload: Any) -> None:
        """A block changes what a watcher sees only where confirmations are counted."""
        counting = [
            invoice_id
            for invoice_id, watchers in self._watchers.items()
            if invoice_id == self._reading or any(watcher.counts() for watcher in watchers)
        ]
        if counting:
            self._mark(*counting)

    def _connection_lost(self, _connection: Any) -> None:
        self._wake.set()


def _message(view: CustomerView, *, retry_ms: int) -> ServerSentEventMessage:
    return ServerSentEventMessage(data=_encode(view), event="invoice", retry=retry_ms)


def _log_trouble(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    expected = isinstance(error, DATABASE_TROUBLE)
    log.warning(
        "checkout_stream_reconnecting",
        error=type(error).__name__,
        attempt=state.attempt_number,
        exc_info=None if expected else error,
    )
