"""What tests of webhooks start from: a context on a migrated database, a merchant, events, a running deliverer.

For: tests/webhooks. Holds true: events are published by the service that publishes all events. Must not: touch delivery
rows, except where a test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tallystick.core.ids import IdKind
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services import objects, webhooks
from tallystick.services.context import Context
from tallystick.services.events import NewEvent, publish
from tallystick.services.webhooks import NewEndpoint
from tallystick.workers.deliver import Deliverer, DelivererOptions


class Clock:
    """Our clock plus what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass(frozen=True, slots=True)
class Bench:
    """A context, one merchant, and the clock to move."""

    ctx: Context
    merchant_id: str
    clock: Clock

    async def endpoint(
        self, url: str, *, events: Sequence[str] = ("*",), merchant_id: str | None = None
    ) -> objects.WebhookEndpoint:
        async with self.ctx.database.transaction() as connection:
            return await webhooks.create_endpoint(
                connection, self.ctx, merchant_id or self.merchant_id, NewEndpoint(url, tuple(events))
            )

    async def publish(
        self, count: int = 1, *, type: str = "invoice.paid", merchant_id: str | None = None
    ) -> list[str]:
        async with self.ctx.database.transaction() as connection:
            return await self.publish_in(connection, count, type=type, merchant_id=merchant_id)

    async def publish_in(
        self,
        connection: Any,
        count: int = 1,
        *,
        type: str = "invoice.paid",
        object_id: str | None = None,
        sequence: int = 1,
        merchant_id: str | None = None,
    ) -> list[str]:
        new = []
        for _ in range(count):
            about = object_id or self.ctx.new_id(IdKind.INVOICE)
            new.append(
                NewEvent(
                    merchant_id=merchant_id or self.merchant_id,
                    type=type,
                    object_id=about,
                    sequence=sequence,
                    object={
                        "id": about,
                        "object": "invoice",
                        "amount": "12.50",
                        "note": "žluťoučký ☕ \u2028 <&>",
                    },
                )
            )
        return await publish(connection, self.ctx, new, at=self.ctx.now())

    async def merchant(self) -> str:
        merchant_id = self.ctx.new_id(IdKind.MERCHANT)
        async with self.ctx.database.transaction() as connection:
            await connection.execute(
                "INSERT INTO merchants (id, name, created_at) VALUES ($1, 'Shop', now())", merchant_id
            )
        return merchant_id

    async def deliveries(self, event_id: str) -> list[objects.Delivery]:
        async with self.ctx.database.connection() as connection:
            return await webhooks.list_deliveries(connection, self.ctx, self.merchant_id, event_id)

    async def delivery(self, event_id: str) -> objects.Delivery:
        (only,) = await self.deliveries(event_id)
        return only

    async def shown(self, endpoint_id: str) -> objects.WebhookEndpoint:
        async with self.ctx.database.connection() as connection:
            return await webhooks.get_endpoint(connection, self.ctx, self.merchant_id, endpoint_id)

    async def count(self, status: str) -> int:
        async with self.ctx.database.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM deliveries WHERE status = $1", status))

    async def attempts(self) -> int:
        async with self.ctx.database.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM delivery_attempts"))

    async def settled(
        self, condition: Callable[[objects.Delivery], bool], event_id: str, *, seconds: float = 20
    ) -> objects.Delivery:
        """Wait until the event's only delivery is as wanted; fails with what it is when it does not become so."""
        found = await self.delivery(event_id)
        try:
            async with asyncio.timeout(seconds):
                while not condition(found):
                    await asyncio.sleep(0.01)
                    found = await self.delivery(event_id)
        except TimeoutError:
            raise AssertionError(f"the delivery stayed {found}") from None
        return found

    async def all_are(self, status: str, count: int, *, seconds: float = 30) -> None:
        """Wait until that many deliveries have that status."""
        have = await self.count(status)
        try:
            async with asyncio.timeout(seconds):
                while have != count:
                    await asyncio.sleep(0.01)
                    have = await self.count(status)
        except TimeoutError:
            raise AssertionError(f"{have} deliveries are {status}, not {count}") from None


def attempted(count: int) -> Callable[[objects.Delivery], bool]:
    """A condition: so many attempts are recorded."""
    return lambda delivery: len(delivery.attempts) >= count


@asynccontextmanager
async def open_bench(database_url: str) -> AsyncIterator[Bench]:
    """A bench on a migrated database."""
    database = await Database.open(database_url)
    clock = Clock()
    try:
        ctx = Context(
            database=database,
            networks={},
            rates=StaticRates({}),
            public_url="https://pay.example.com",
            allow_private_targets=True,
            clock=clock,
        )
        bench = Bench(ctx, "", clock)
        yield replace(bench, merchant_id=await bench.merchant())
    finally:
        await database.close()


@asynccontextmanager
async def delivering(bench: Bench, options: DelivererOptions | None = None) -> AsyncIterator[Deliverer]:
    """A deliverer that runs for the length of the block. Its failure is the test's."""
    deliverer = Deliverer(bench.ctx, options or DelivererOptions(poll_seconds=0.05, stop_seconds_max=0.2))
    stop = asyncio.Event()
    task = asyncio.create_task(deliverer.run(stop))
    try:
        yield deliverer
    finally:
        stop.set()
        await task
