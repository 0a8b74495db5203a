"""Letting the dust settle: everything that was begun comes to its end, so that truth and database can be compared.

For: `run`, at the end of a seed. Holds true: only what would happen by itself happens, or what somebody has to do
anyway (answer a halted network, repair a receiver): faults end, blocks come, windows close, deliveries are retried.
Must not: decide anything about payments.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tallystick.simulation import delivery_actions, work_actions
from tallystick.simulation.chain_actions import next_time
from tallystick.simulation.checks import SQL
from tallystick.simulation.receivers import Mood
from tallystick.simulation.world import Place, World

BLOCKS_MORE: Final = (
    2  # above a network's safety depth, which is more than any requirement or finality lag here
)
BLOCKS_AT_THE_END: Final = 2  # later than every window; what they could hold was mined before
POLLS_MAX: Final = 60
ROUNDS_MAX: Final = 40
TURNS_MAX: Final = 5_000  # an endpoint that always fails takes ten for each event, one after the other
SOON_SECONDS: Final = 60
CALL_AGE_MAX: Final = timedelta(hours=24)
"""Nobody repeats a call that is older: its answer is promised for so long."""


async def settle(world: World) -> None:
    """Bring everything to its end. What does not come to one within generous bounds is a violation."""
    world.breaker.rest()
    world.clock.error_seconds = 0
    world.rates.silent = False
    world.restart()
    if world.unrecorded:
        await world.courier.record(world.unrecorded)
        world.unrecorded = []
    for place in world.places.values():
        for node in place.nodes + place.side_nodes:
            node.clear()
            node.equalize()
    for receiver in world.mailroom.by_url.values():
        receiver.mood = Mood.UP
    for asked in list(world.unanswered):
        if world.clock.now() - asked.made_at > CALL_AGE_MAX:
            world.unanswered.remove(asked)
        else:
            await world.repeat(asked)
    for place in world.places.values():
        _mine(world, place, place.network.safety_depth + BLOCKS_MORE)
    await _read_everything(world)
    world.clock.advance(2 * 3600 * 1000)  # every window has ended
    for place in world.places.values():
        _mine(world, place, BLOCKS_AT_THE_END)
    await _read_everything(world)
    for _ in range(ROUNDS_MAX):
        await _work_it_off(world)
        before = world.clock.monotonic()
        await _deliver_everything(world)
        if world.clock.monotonic() - before < SOON_SECONDS:
            return  # no leap to a later attempt, in which other work would have come due
    world.flaw("workers-come-to-rest", "", "there is always something due")


def _mine(world: World, place: Place, blocks: int) -> None:
    """Blocks, of which the first two hold all that waits."""
    for number in range(blocks):
        waiting = None if number < 2 else ()
        time = next_time(world, place)
        place.chain.mine(time, waiting, salt=world.chance.below(1 << 30))
        world.clock.advance(1000)


async def _read_everything(world: World) -> None:
    await work_actions.resume_networks(world)
    for place in world.places.values():
        outcome = ""
        for _ in range(POLLS_MAX):
            outcome, more = await work_actions.look(world, place.follower)
            if outcome == "ReorgTooDeep":
                await work_actions.resume_networks(world)
            elif not outcome and not more:
                break
        else:
            world.flaw(
                "network-caught-up", place.network.name, f"still behind after {POLLS_MAX} looks: {outcome}"
            )


async def _work_it_off(world: World) -> None:
    done: list[str] = []
    for _ in range(ROUNDS_MAX):
        done = [
            await work_actions.expire(world),
            await work_actions.requote(world),
            await work_actions.watch_refunds(world),
            *[
                str(await place.checker.batch())
                for place in world.places.values()
                if place.checker is not None
            ],
        ]
        if not any(int(count) for count in done):
            return
    world.flaw("workers-come-to-rest", "", f"still busy after {ROUNDS_MAX} rounds: {done}")


async def _deliver_everything(world: World) -> None:
    """Deliver until nothing waits, leaping to the time of the next attempt."""
    for _ in range(TURNS_MAX):
        await delivery_actions.deliver(world)
        async with world.database.connection() as connection:
            due = await SQL.earliest_delivery.value(connection)
        if due is None:
            await world.courier.keep_house(
                count_max=1
            )  # what waits for an endpoint that takes nothing any more
            return
        wait = (due - world.clock.now()).total_seconds()
        if wait > 0:
            world.clock.advance(int(wait * 1000) + 1)
    world.flaw("workers-come-to-rest", "", f"deliveries still wait after {TURNS_MAX} turns")
