"""A dead, slow or flooded endpoint delays nobody else."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from tallystick.workers.deliver import DelivererOptions
from tallystick.workers.lanes import HOLD_SECONDS_MAX, Lanes
from tests.support.receiver import Received, Receiver, running_receiver
from tests.support.webhooks import Bench, delivering

DELAY_SECONDS_MAX = 2.0  # on a busy machine; a dead endpoint's time limit is 15 s


async def never(_request: web.Request, _received: Received) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response()


async def delays(bench: Bench, receiver: Receiver, merchant_id: str, count: int) -> list[float]:
    """Publish events one after another; the seconds from each commit to its arrival."""
    found = []
    for number in range(1, count + 1):
        (event_id,) = await bench.publish(merchant_id=merchant_id)
        committed = time.monotonic()
        await receiver.wait_until(lambda wanted=event_id: wanted in receiver.ids)  # type: ignore[misc]
        found.append(time.monotonic() - committed)
        assert len(receiver.received) == number
    return sorted(found)


async def test_a_dead_endpoint_with_a_backlog_delays_nobody(bench: Bench, receiver: Receiver) -> None:
    other = await bench.merchant()
    async with running_receiver() as dead:
        dead.answer = never
        await bench.endpoint(f"{dead.url}/dead")
        await bench.endpoint(receiver.url, merchant_id=other)
        for _ in range(4):
            await bench.publish(250)
        async with delivering(bench, DelivererOptions(in_flight_max=32, stop_seconds_max=0.2)):
            await dead.wait_for(1)
            found = await delays(bench, receiver, other, 20)
        assert found[-1] < DELAY_SECONDS_MAX
        assert len(dead.received) <= 4  # what an unknown endpoint gets at once


async def test_many_dead_endpoints_delay_nobody(bench: Bench, receiver: Receiver) -> None:
    """More dead endpoints than there are places: those known to fail share one half of them."""
    other = await bench.merchant()
    await bench.endpoint(receiver.url, merchant_id=other)
    async with running_receiver() as dead:
        dead.answer = never
        for number in range(16):
            await bench.endpoint(f"{dead.url}/dead{number}")
        async with bench.ctx.database.connection() as connection:
            await connection.execute(
                "UPDATE webhook_endpoints SET failing_since = now() WHERE merchant_id = $1", bench.merchant_id
            )
        await bench.publish(50)
        async with delivering(bench, DelivererOptions(in_flight_max=8, stop_seconds_max=0.2)):
            await dead.wait_for(4)
            found = await delays(bench, receiver, other, 20)
        assert found[-1] < DELAY_SECONDS_MAX
        assert len(dead.received) == 4  # half of the places


async def test_an_endpoint_that_works_is_given_more(bench: Bench, receiver: Receiver) -> None:
    at_once, most = 0, 0

    async def count(_request: web.Request, _received: Received) -> web.StreamResponse:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.05)
        at_once -= 1
        return web.Response()

    receiver.answer = count
    await bench.endpoint(receiver.url)
    await bench.publish(200)
    async with delivering(bench, DelivererOptions(per_endpoint_max=16)):
        await bench.all_are("delivered", 200)
    assert 8 <= most <= 16


def test_a_lane_grows_by_one_and_halves() -> None:
    lanes = Lanes(in_flight_max=100, per_endpoint_max=8)
    for _ in range(6):
        lanes.enter("a", failing=False)
        lanes.leave("a", 1.0, accepted=True, seconds=0.1)
    assert lanes.rooms(1.0) == {"a": 8}
    lanes.enter("a", failing=False)
    assert lanes.rooms(1.0) == {"a": 7}
    lanes.leave("a", 1.0, accepted=True, seconds=9.0)
    assert lanes.rooms(1.0) == {"a": 4}
    lanes.enter("a", failing=False)
    lanes.leave("a", 1.0, accepted=False, seconds=0.1)
    assert lanes.rooms(1.0) == {"a": 2}
    assert lanes.free == 100


def test_a_wish_to_wait_closes_the_lane_for_a_while() -> None:
    lanes = Lanes(in_flight_max=100, per_endpoint_max=8)
    lanes.enter("a", failing=False)
    lanes.leave("a", 10.0, accepted=False, seconds=0.1, hold_seconds=5)
    assert lanes.rooms(14.9) == {"a": 0}
    assert lanes.rooms(15.1) == {"a": 2}
    lanes.enter("a", failing=False)
    lanes.leave("a", 20.0, accepted=False, seconds=0.1, hold_seconds=10**6)
    assert lanes.rooms(20.0 + HOLD_SECONDS_MAX - 1) == {"a": 0}
    assert lanes.rooms(20.0 + HOLD_SECONDS_MAX + 1) == {"a": 1}


def test_slow_endpoints_share_one_half() -> None:
    lanes = Lanes(in_flight_max=4, per_endpoint_max=8)
    lanes.enter("dead1", failing=True)
    assert lanes.slow_free == 1
    lanes.enter("dead2", failing=True)
    assert lanes.slow_free == 0
    assert lanes.rooms(0.0) == {"dead1": 0, "dead2": 0}
    assert lanes.free == 2
    lanes.leave("dead1", 0.0, accepted=False, seconds=15)
    lanes.leave("dead2", 0.0, accepted=False, seconds=15)
    lanes.enter("dead3", failing=True)
    assert lanes.rooms(0.0) == {"dead1": 1, "dead2": 0, "dead3": 0}  # one place is left for them


def test_quick_endpoints_are_forgotten_and_slow_ones_are_not() -> None:
    lanes = Lanes(in_flight_max=100, per_endpoint_max=8)
    for name, accepted in (("quick", True), ("slow", False)):
        lanes.enter(name, failing=False)
        lanes.leave(name, 0.0, accepted=accepted, seconds=0.1)
    assert lanes.rooms(100.0) == {"slow": 2}
