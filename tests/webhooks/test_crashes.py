"""Whatever stops a deliverer, and however many run: nothing is lost, nothing is recorded twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from tallystick.core.webhook import Answer
from tallystick.db.webhooks import ClaimedDelivery
from tallystick.services import delivering as services
from tallystick.services import webhooks
from tallystick.services.delivering import Attempted
from tallystick.workers import courier
from tallystick.workers.deliver import Deliverer, DelivererOptions
from tallystick.workers.webhook_sender import Sender
from tests.support.receiver import Received, Receiver, answering
from tests.support.webhooks import Bench, attempted, delivering

SHORT_LEASE = DelivererOptions(
    poll_seconds=0.05, stop_seconds_max=0.2, lease=timedelta(seconds=1), attempt_seconds_max=0.8
)


class Planted:
    """A point that a deliverer reaches and never leaves, unless it is cancelled there."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def stop_here(self, *_arguments: Any, **_named: Any) -> Any:
        self.reached.set()
        await asyncio.Event().wait()


async def kill_at(bench: Bench, point: Planted) -> None:
    """Run a deliverer until it reaches the point, then end it there: nothing after the point happens."""
    task = asyncio.create_task(Deliverer(bench.ctx, SHORT_LEASE).run(asyncio.Event()))
    async with asyncio.timeout(20):
        await point.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def plant_before_sending(patch: pytest.MonkeyPatch, point: Planted, _receiver: Receiver) -> None:
    patch.setattr(Sender, "send", point.stop_here)


def plant_while_the_receiver_works(patch: pytest.MonkeyPatch, point: Planted, receiver: Receiver) -> None:
    async def working(_request: web.Request, _received: Received) -> web.StreamResponse:
        await point.stop_here()
        return web.Response()

    receiver.answer = working


def plant_before_recording(patch: pytest.MonkeyPatch, point: Planted, _receiver: Receiver) -> None:
    patch.setattr(courier, "record_attempts", point.stop_here)


def plant_before_the_record_commits(patch: pytest.MonkeyPatch, point: Planted, _receiver: Receiver) -> None:
    record = services.record_attempts

    async def record_and_stop(*arguments: Any) -> Any:
        await record(*arguments)
        await point.stop_here()

    patch.setattr(courier, "record_attempts", record_and_stop)


@pytest.mark.parametrize(
    ("plant", "arrivals_min"),
    [
        (plant_before_sending, 0),
        (plant_while_the_receiver_works, 1),
        (plant_before_recording, 1),
        (plant_before_the_record_commits, 1),
    ],
)
async def test_a_kill_anywhere_loses_nothing(
    bench: Bench,
    receiver: Receiver,
    plant: Callable[[pytest.MonkeyPatch, Planted, Receiver], None],
    arrivals_min: int,
) -> None:
    await bench.endpoint(receiver.url)
    (event_id,) = await bench.publish()
    with pytest.MonkeyPatch.context() as patch:
        point = Planted()
        plant(patch, point, receiver)
        await kill_at(bench, point)
    assert len(receiver.received) == arrivals_min
    claimed = await bench.delivery(event_id)
    assert claimed.status == "pending"
    assert claimed.attempts == []

    receiver.answer = answering(204)
    async with delivering(bench, SHORT_LEASE):
        delivery = await bench.settled(lambda found: found.status == "delivered", event_id)
    assert receiver.ids == [event_id] * (arrivals_min + 1)
    assert len(delivery.attempts) == 1


async def test_two_deliverers_send_each_event_once(bench: Bench, receiver: Receiver) -> None:
    for number in range(3):
        await bench.endpoint(f"{receiver.url}/{number}")
    async with delivering(bench), delivering(bench):
        for _ in range(10):
            await bench.publish(20)
        await bench.all_are("delivered", 600)
    arrived = Counter((one.path, one.id) for one in receiver.received)
    assert len(arrived) == 600
    assert set(arrived.values()) == {1}
    assert await bench.attempts() == 600


async def claim(bench: Bench) -> list[ClaimedDelivery]:
    async with bench.ctx.database.transaction() as connection:
        return await services.claim_deliveries(
            connection, bench.ctx, after="", rooms={}, room=10, failing=False, limit=10
        )


async def record(bench: Bench, deliveries: Sequence[ClaimedDelivery], answer: Answer) -> None:
    async with bench.ctx.database.transaction() as connection:
        attempts = [Attempted(delivery, bench.clock(), 1, answer) for delivery in deliveries]
        await services.record_attempts(connection, bench.ctx, attempts)


async def test_an_outcome_under_a_lost_lease_is_not_recorded(bench: Bench) -> None:
    await bench.endpoint("http://127.0.0.1:9/")
    (event_id,) = await bench.publish()
    first = await claim(bench)
    bench.clock.ahead += services.LEASE
    second = await claim(bench)
    assert [one.id for one in first] == [one.id for one in second]
    await record(bench, first, Answer(500, "late"))
    assert (await bench.delivery(event_id)).attempts == []
    await record(bench, second, Answer(200))
    await record(bench, first, Answer(500, "late"))
    delivery = await bench.delivery(event_id)
    assert delivery.status == "delivered"
    assert [attempt.status_code for attempt in delivery.attempts] == [200]


async def test_outcomes_under_the_lost_and_the_live_lease_may_be_told_at_once(bench: Bench) -> None:
    """A deliverer whose database was away for longer than a lease. (Found by simulation: both were attempt 1
    then, which the database refused, and what else was in the batch was not recorded either.)
    """
    await bench.endpoint("http://127.0.0.1:9/")
    (event_id,) = await bench.publish()
    first = await claim(bench)
    bench.clock.ahead += services.LEASE
    second = await claim(bench)
    await record(bench, [*first, *second], Answer(200))
    delivery = await bench.delivery(event_id)
    assert (delivery.status, [attempt.status_code for attempt in delivery.attempts]) == ("delivered", [200])


async def test_a_lost_lease_is_recognised_after_a_redelivery(bench: Bench) -> None:
    """The place in the schedule is 0 again, so only the lease tells the claims apart."""
    await bench.endpoint("http://127.0.0.1:9/")
    (event_id,) = await bench.publish()
    first = await claim(bench)
    bench.clock.ahead += services.LEASE
    await record(bench, await claim(bench), Answer(200))
    async with bench.ctx.database.transaction() as connection:
        await webhooks.redeliver(connection, bench.ctx, bench.merchant_id, event_id)
    again = await claim(bench)
    assert [one.attempts_made for one in again] == [0]
    await record(bench, first, Answer(500, "late"))
    assert (await bench.delivery(event_id)).status == "pending"
    await record(bench, again, Answer(201))
    assert [attempt.status_code for attempt in (await bench.delivery(event_id)).attempts] == [200, 201]


async def test_a_redelivery_does_not_disturb_what_is_on_its_way(bench: Bench) -> None:
    await bench.endpoint("http://127.0.0.1:9/")
    (event_id,) = await bench.publish()
    claimed = await claim(bench)
    async with bench.ctx.database.transaction() as connection:
        await webhooks.redeliver(connection, bench.ctx, bench.merchant_id, event_id)
    assert await claim(bench) == []
    await record(bench, claimed, Answer(200))
    assert (await bench.delivery(event_id)).status == "delivered"


async def test_the_same_outcomes_again_change_nothing(bench: Bench) -> None:
    await bench.endpoint("http://127.0.0.1:9/")
    await bench.publish(5)
    claimed = await claim(bench)
    await record(bench, claimed, Answer(500, "no"))
    await record(bench, claimed, Answer(500, "no"))
    assert await bench.attempts() == 5


async def test_stopping_gives_back_what_was_not_finished(bench: Bench, receiver: Receiver) -> None:
    async def slow(_request: web.Request, _received: Received) -> web.StreamResponse:
        await asyncio.sleep(3600)
        return web.Response()

    receiver.answer = slow
    await bench.endpoint(receiver.url)
    (event_id,) = await bench.publish()
    async with delivering(bench):  # allows 0.2 s at its end
        await receiver.wait_for(1)
    delivery = await bench.delivery(event_id)
    assert delivery.status == "pending"
    assert delivery.next_attempt_at is not None
    assert delivery.next_attempt_at <= bench.clock()
    assert delivery.attempts == []


async def test_stopping_waits_for_what_is_nearly_done(bench: Bench, receiver: Receiver) -> None:
    async def takes_a_moment(_request: web.Request, _received: Received) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return web.Response()

    receiver.answer = takes_a_moment
    await bench.endpoint(receiver.url)
    (event_id,) = await bench.publish()
    async with delivering(bench, DelivererOptions(poll_seconds=0.05, stop_seconds_max=15)):
        await receiver.wait_for(1)
    delivery = await bench.delivery(event_id)
    assert delivery.status == "delivered"


async def test_lost_database_connections_are_survived(bench: Bench, receiver: Receiver) -> None:
    await bench.endpoint(receiver.url)
    async with delivering(bench):
        for _ in range(3):
            (event_id,) = await bench.publish()
            await bench.settled(attempted(1), event_id)
            async with bench.ctx.database.connection() as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        async with asyncio.timeout(20):
            while not await listens(bench):
                await asyncio.sleep(0.05)
        (event_id,) = await bench.publish()
        await bench.settled(attempted(1), event_id)
    assert len(receiver.received) == 4


async def listens(bench: Bench) -> bool:
    async with bench.ctx.database.connection() as connection:
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        )
