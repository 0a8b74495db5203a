"""Webhooks: merchants subscribe, receivers fail, deliverers work, stall and come back late.

Holds true: a turn of the deliverer has few places, so that whoever takes too many is seen to; an endpoint that works
and has something due is served in every turn, whatever others do (as long as no more than `SLOW_MAX` endpoints turned
slow at once: each of those may take a lane's worth of places once). What another deliverer sent and did not record
stays unknown until its record comes, late or never.
Must not: read what the product stores, beyond what is due now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from tallystick.db.sql import load
from tallystick.db.webhooks import ClaimedDelivery
from tallystick.services.delivering import Attempted, Disabled
from tallystick.simulation.calls import Response
from tallystick.simulation.receivers import Mood, Receiver
from tallystick.simulation.world import World
from tallystick.workers.courier import Courier

SQL: Final = load("simulation")

ROUNDS_MAX: Final = 20
SLOW_MAX: Final = 3
_AT_FIRST: Final = ((Mood.UP, 6), (Mood.SLOW, 1), (Mood.DOWN, 1), (Mood.FAILING, 1), (Mood.GONE, 1))
DEPLOYED_WITHIN_SECONDS: Final = (0, 600, 7200, 20 * 3600)
"""So long a merchant takes to make its server know a new secret; the old one signs as well for a day."""


async def deliver(world: World) -> str:
    """One turn of the deliverer: claim round the endpoints, send, record, keep house."""
    courier, mailroom = world.courier, world.mailroom
    waiting = await _working_and_waiting(world)
    before = len(mailroom.attempted)
    attempts: list[Attempted] = []
    slow: list[asyncio.Task[Attempted]] = []
    try:
        for failing in (False, True):
            went_round = courier.at_start(failing=failing)
            for _ in range(ROUNDS_MAX):
                if courier.free(failing=failing) <= 0:
                    break
                claimed, more = await courier.claim(failing=failing)
                attempts += await _attempt(world, courier, claimed, slow)
                if not more and went_round:
                    break
                went_round = went_round or not more
        mailroom.let_time_pass()
        attempts += [await one for one in slow]
    finally:
        await _call_off(slow)
    served = set(mailroom.attempted[before:])
    for endpoint_id in waiting - served:
        world.flaw("served-in-turn", endpoint_id, f"it works and had something due; served: {len(served)}")
    disabled = await _record(world, attempts) if attempts else []
    if world.chance.one_in(4):
        await courier.keep_house(count_max=1000)
    return f"{len(attempts)} {len(disabled)}"


async def _working_and_waiting(world: World) -> set[str]:
    """Endpoints that this turn has to serve: they work, were not told to wait, and have something due."""
    receivers = world.mailroom.by_url
    if sum(one.mood is Mood.SLOW for one in receivers.values()) > SLOW_MAX:
        return set()
    async with world.database.connection() as connection:
        rows = await SQL.due_endpoints.all(connection, now=world.clock.now())
    rooms = world.lanes.rooms(world.clock.monotonic())
    return {
        row["id"]
        for row in rows
        if row["url"] in receivers and receivers[row["url"]].mood is Mood.UP and rooms.get(row["id"], 1) > 0
    }


async def _attempt(
    world: World, courier: Courier, claimed: Sequence[ClaimedDelivery], slow: list[asyncio.Task[Attempted]]
) -> list[Attempted]:
    """Send what was claimed. What takes long holds its place until the turn is over."""
    quick: list[Attempted] = []
    for delivery in claimed:
        if world.mailroom.is_slow(delivery.url):
            slow.append(asyncio.create_task(courier.attempt(delivery)))
            await asyncio.sleep(0)  # it begins now: one that began after the turn is over would never end
        else:
            quick.append(await courier.attempt(delivery))
    return quick


async def _record(world: World, attempts: list[Attempted]) -> list[Disabled]:
    try:
        return await world.courier.record(attempts)
    finally:  # also where it broke off: it may have been committed
        world.mailroom.recorded(attempt.delivery.id for attempt in attempts)


async def _call_off(tasks: list[asyncio.Task[Attempted]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def stall(world: World) -> str:
    """Another deliverer claims and sends, and hangs before it records; or it comes to itself and records at last."""
    if world.unrecorded and not world.chance.one_in(3):
        late, world.unrecorded = world.unrecorded, []
        disabled = await _record(world, late)
        return f"recorded {len(late)} {len(disabled)}"
    courier = world.another_courier()
    slow: list[asyncio.Task[Attempted]] = []
    try:
        claimed, _ = await courier.claim(failing=False)
        world.unrecorded += await _attempt(world, courier, claimed, slow)
        world.mailroom.let_time_pass()
        world.unrecorded += [await one for one in slow]
    finally:
        await _call_off(slow)
    return f"sent {len(claimed)} and hangs"


async def subscribe(world: World) -> str:
    """A merchant makes or changes an endpoint, or has its secret changed."""
    shop, chance = world.chance.pick(world.shops), world.chance
    own = [one for one in world.mailroom.by_url.values() if one.merchant_id == shop.id]
    if not own or chance.one_in(4):
        url = f"https://shop-{world.shops.index(shop)}.example/hook/{world.calls + 1}"
        begins = chance.weighted(_AT_FIRST)

        def learn(response: Response) -> None:
            if response.ok:
                made = response.json()
                receiver = Receiver(shop.id, url, made["id"], made["secret"], begins)
                receiver.doubtful = begins is Mood.GONE
                world.mailroom.by_url[url] = receiver

        response = await world.post(shop, "/v1/webhook_endpoints", {"url": url, "events": ["*"]}, then=learn)
        return f"{shop.id[-4:]} {url} {response.word}"
    receiver = chance.pick(own)
    path = f"/v1/webhook_endpoints/{receiver.endpoint_id}"
    what = chance.weighted([("rotate_secret", 4), ("ping", 2), ("enable", 3), ("disable", 1)])
    if what in ("enable", "disable"):
        receiver.doubt()
        response = await world.ask(shop, "PATCH", path, {"status": f"{what}d"})
        return f"{receiver.endpoint_id} {what} {response.word}"
    if what == "ping":
        response = await world.post(shop, f"{path}/ping", {})
        return f"{receiver.endpoint_id} ping {response.word}"
    if receiver.rotation_asked_at is not None:
        return f"{receiver.endpoint_id} waits for the secret it asked for"
    receiver.deploy_now()
    receiver.rotation_asked_at = world.clock.true
    deployed_at = world.clock.true + timedelta(seconds=chance.pick(DEPLOYED_WITHIN_SECONDS))

    def learn_secret(response: Response) -> None:
        receiver.rotation_asked_at = None
        if response.ok:
            receiver.next_secret = (response.json()["secret"], deployed_at)

    response = await world.post(shop, f"{path}/rotate_secret", {}, then=learn_secret)
    return f"{receiver.endpoint_id} rotate_secret {response.word}"


async def mood(world: World) -> str:
    """A receiver changes how it behaves."""
    receivers = list(world.mailroom.by_url.values())
    if not receivers:
        return "no receiver"
    receiver = world.chance.pick(receivers)
    receiver.mood = world.chance.weighted(
        [
            (Mood.UP, 12),
            (Mood.DOWN, 2),
            (Mood.FAILING, 2),
            (Mood.SLOW, 2),
            (Mood.BUSY, 1),
            (Mood.MOVED, 1),
            (Mood.GONE, 1),
        ]
    )
    if receiver.mood is Mood.GONE:
        receiver.doubt()
    return f"{receiver.endpoint_id} {receiver.mood}"
