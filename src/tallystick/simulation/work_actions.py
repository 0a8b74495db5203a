"""What the workers do, one batch at a time, in whatever order the seed says.

Holds true: each action is one turn of a production loop, with the same pieces; what the loop's retry or supervisor
would do with an error is done here at once. An error that nobody injected and no loop expects is a violation.
"""

from __future__ import annotations

import asyncpg

from tallystick.chains.simulated.nodes import NodeFault
from tallystick.core.errors import InvalidInput, SourceError, StaleWrite, TallystickError
from tallystick.db.networks import SQL as NETWORKS
from tallystick.services.claiming import confirm_address
from tallystick.services.networks import resume
from tallystick.simulation.chain_actions import any_place
from tallystick.simulation.output_actions import typed
from tallystick.simulation.world import Place, World
from tallystick.workers.follow import Follower


async def follow(world: World) -> str:
    """A follower looks once, or catches up."""
    place = any_place(world)
    follower = place.follower
    if world.chance.one_in(12):  # two at once think that they are the active one
        follower = place.standby
    turns = world.chance.pick((1, 1, 1, 8))
    outcome = ""
    for _ in range(turns):
        outcome, more = await look(world, follower)
        place.failures = place.failures + 1 if outcome else 0
        if not more:
            break
    return f"{place.network.name} {outcome}"


async def look(world: World, follower: Follower) -> tuple[str, bool]:
    """One look of a follower: what went wrong (empty: nothing), and whether more is waiting."""
    place = next(one for one in world.places.values() if follower in (one.follower, one.standby))
    contradicted = _can_be_contradicted(place)
    before = await _cursor(world, place) if contradicted else None
    try:
        outcome, more = "", await follower.poll()
    except (SourceError, StaleWrite) as error:
        await follower.note_trouble(error, 1 + world.chance.below(2))
        outcome, more = type(error).__name__, False
    if contradicted:
        after = await _cursor(world, place)
        if after != before and after not in place.chain.blocks:
            world.flaw(
                "forged-block", place.network.name, f"{after} is believed, and a node that is well has it not"
            )
    return outcome, more


def _can_be_contradicted(place: Place) -> bool:
    """Whether one node makes blocks up, and all the others are well."""
    forging = [node for node in place.nodes if NodeFault.FORGED in node.faults]
    return bool(forging) and not any(node.faults for node in place.nodes if node not in forging)


async def _cursor(world: World, place: Place) -> str | None:
    async with world.database.connection() as connection:
        row = await NETWORKS.read_network.one(connection, name=place.network.name)
    return None if row is None else row["cursor_hash"]


async def expire(world: World) -> str:
    """Windows that ended are judged."""
    names = ["", *world.networks]
    judged = [await world.expirer.batch(name) for name in names]
    return str(sum(judged))


async def requote(world: World) -> str:
    """Quotes that ended are made anew."""
    return str(await world.requoter.batch())


async def watch_refunds(world: World) -> str:
    """Refunds that should have been seen are stopped."""
    return str(await world.refund_watch.batch())


async def check_balances(world: World) -> str:
    """Addresses whose windows ended are looked at."""
    checker = any_place(world).checker
    return "nothing to look at" if checker is None else str(await checker.batch())


async def tidy(world: World) -> str:
    """Old answers are forgotten."""
    return str(await world.tidier.batch())


async def claim_address(world: World) -> str:
    """A customer says where a refund is to go, with the link that they were sent."""
    if not world.claim_links:
        return "no link"
    refund_id, token = world.chance.pick(world.claim_links)
    ours = [typed(one, "customer 1") for one in world.networks.values() if one.shows_risks]
    address = world.chance.pick((*ours, "0x" + "7e" * 20, "0x" + "00" * 20, "nonsense"))
    try:
        async with world.database.transaction() as connection:
            await confirm_address(connection, world.ctx, refund_id, token, address)
    except (InvalidInput, TallystickError) as error:
        return f"{refund_id} {type(error).__name__}"
    return f"{refund_id} claimed"


async def resume_networks(world: World) -> str:
    """An operator looks at a halted network and lets it go on."""
    resumed = []
    for name in world.networks:
        async with world.database.transaction() as connection:
            try:
                await resume(connection, world.ctx, name)
            except TallystickError:
                continue
        resumed.append(name)
    return " ".join(resumed)


async def time_passes(world: World) -> str:
    """Seconds, minutes, now and then hours."""
    seconds = world.chance.weighted([(1, 20), (10, 16), (60, 8), (600, 4), (7200, 2), (43_200, 1)])
    world.clock.advance(1000 * seconds)
    return f"{seconds} s"


async def clock_jumps(world: World) -> str:
    """Our machine's clock is set: forward, back, or right again."""
    world.clock.error_seconds = world.chance.pick((0, 0, 0, -2, 3, -90, 90, -3000, 3000))
    return f"{world.clock.error_seconds} s wrong"


async def rates_change(world: World) -> str:
    """Prices move, or nobody knows them for a while."""
    chance = world.chance
    world.rates.silent = chance.one_in(8)
    for symbol, cents in world.rates.prices.items():
        world.rates.prices[symbol] = max(1, cents * chance.between(930, 1075) // 1000)
    return "silent" if world.rates.silent else str(world.rates.prices["ETH"])


async def kill(world: World) -> str:
    """The process dies between two pieces of work, and starts again."""
    world.restart()
    return f"start {world.restarts}"


EXPECTED_WHEN_CUT = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""What a loop is restarted for when the database's connection was lost."""
