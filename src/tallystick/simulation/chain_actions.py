"""What networks and their nodes do: mine, fork, lose, replace, lag, lie.

Holds true: every fault is one a real network or node can have (failures.md F-CHAIN, F-NODE). Of a network's nodes at
most one forges content at a time: nobody can find out the truth where all lie alike.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tallystick.chains.simulated.blocks import SimulatedBlock
from tallystick.chains.simulated.chain import SimulatedChain
from tallystick.chains.simulated.nodes import NodeFault, SimulatedNode, inflate, leave_out
from tallystick.chains.simulated.transactions import address_of, failed, instead_of
from tallystick.simulation.output_actions import made_by_miner, rival_of, waits_to_mature
from tallystick.simulation.world import Place, World

FORK_COMMON_MAX = 4
LONG_RUN = 101
"""Blocks after which what the first of them made can be spent."""
_LOOSE_DRIFTS = (0, 0, 0, 0, -7, 3, -900, -4000, 600, 3600, 7200)

_QUIET_FAULTS = (
    NodeFault.TIMEOUT,
    NodeFault.UNAVAILABLE,
    NodeFault.LIMITED,
    NodeFault.TRUNCATED,
    NodeFault.EMPTIED,
    NodeFault.DOUBLED,
    NodeFault.SWAPPED,
    NodeFault.RELINKED,
    NodeFault.OTHER_HEIGHT,
    NodeFault.NOT_FOUND,
    NodeFault.STUCK,
    NodeFault.REWOUND,
    NodeFault.NO_STATE,
    NodeFault.UNTRACED,
    NodeFault.NO_MEMPOOL,
    NodeFault.FORGETFUL,
    NodeFault.SPEECHLESS,
    NodeFault.DEAF_MEMPOOL,
)


def any_place(world: World) -> Place:
    """One of the networks."""
    return world.chance.pick(list(world.places.values()))


def next_time(world: World, place: Place, parent: SimulatedBlock | None = None) -> datetime:
    """The time that a miner writes into a block on a parent (None: on the head): now, give or take.

    Never before the parent's; where times are loose, up to two hours ahead, or back as far as the chain allows.
    """
    below = place.chain.head if parent is None else parent
    if place.network.loose_times:
        drift = world.chance.pick(_LOOSE_DRIFTS)
        earliest = place.chain.earliest(below.hash)
    else:
        drift = world.chance.pick((0, 0, 0, -7, 3))
        earliest = below.header.time + timedelta(seconds=1)
    now = (world.clock.true + timedelta(seconds=drift)).replace(microsecond=0)
    return max(earliest, now)


async def mine(world: World) -> str:
    """A block or a few, with some of what waits."""
    place, chance = any_place(world), world.chance
    blocks = chance.weighted([(1, 12), (2, 4), (3, 2), (9, 1)])
    loose = place.network.loose_times
    if loose and waits_to_mature(place) and chance.one_in(8):
        blocks = LONG_RUN
    held = 0
    for _ in range(blocks):
        waiting = list(place.chain.mempool)
        if chance.one_in(5):
            waiting = chance.sample(waiting)
        elif chance.one_in(8):
            waiting = chance.shuffled(waiting)
        waiting = list(place.chain.minable(waiting))  # what rests on others comes after them
        held += len(waiting)
        made = made_by_miner(world, place, place.chain.head) if blocks != LONG_RUN else []
        place.chain.mine(next_time(world, place), waiting, salt=chance.below(1 << 30), made=made)
        world.clock.advance(1000 * (place.interval_seconds if blocks != LONG_RUN else 1))
    return f"{place.network.name} {place.chain.height} {place.chain.head.hash[:12]} +{blocks} with {held}"


def fork(world: World, place: Place, depth: int, length: int) -> None:
    """Replace the newest `depth` blocks by `length` others, which hold what the seed says of the lost transactions."""
    chain, chance = place.chain, world.chance
    parent = chain.at(chain.height - depth)
    if parent is None:
        raise ValueError("a fork begins above the first block")
    lost = [
        one
        for height in range(parent.header.height + 1, chain.height + 1)
        if (block := chain.at(height)) is not None
        for one in block.transactions
    ]
    gone = [one.hash for one in lost if chance.one_in(8)]
    for one in lost:
        if one.hash in gone or one.is_made or not chance.one_in(2 if one.spends else 6):
            continue
        if one.spends:
            other = rival_of(world, place, one)
        elif chance.one_in(2):  # the sender sends something else instead, which only the new branch holds
            other = instead_of(one, address_of("elsewhere"), 1, salt=chance.below(1 << 30))
        else:
            other = failed(one)
        chain.submit(other)
        gone.append(other.hash) if other.hash != one.hash else None
        lost = [other if known.hash == one.hash else known for known in lost]
    wanted = chance.shuffled([one.hash for one in lost if one.hash not in gone or one not in lost])
    wanted += [tx_hash for tx_hash in chain.mempool if tx_hash not in wanted]
    top = parent
    for left in range(length, 0, -1):
        chosen = wanted if left == 1 and not chance.one_in(4) else chance.sample(wanted)
        minable = chain.minable(chosen, parent=top.hash)
        time = next_time(world, place, top)
        made = made_by_miner(world, place, top)
        top = chain.mine(time, minable, parent=top.hash, salt=chance.below(1 << 30), made=made)
        wanted = [tx_hash for tx_hash in wanted if tx_hash not in minable]
    chain.adopt(top.hash, lose=gone)


async def reorganise(world: World) -> str:
    """The best chain changes: mostly a block or two, seldom deeper than is safe; also to a shorter branch."""
    place, chance = any_place(world), world.chance
    depth_max = place.chain.height
    if depth_max < 1:
        return f"{place.network.name} has nothing to fork"
    depth = chance.between(1, FORK_COMMON_MAX)
    if chance.one_in(6):
        depth = chance.between(1, place.network.safety_depth)
    if chance.one_in(60):
        depth = place.network.safety_depth + chance.between(1, 3)
    depth = min(depth, depth_max)
    length = max(1, depth + chance.weighted([(-1, 1), (0, 2), (1, 5), (2, 2)]))
    fork(world, place, depth, length)
    return f"{place.network.name} -{depth} +{length} {place.chain.head.hash[:12]}"


async def mempool_changes(world: World) -> str:
    """Something that waits is dropped, or replaced by its sender."""
    place, chance = any_place(world), world.chance
    waiting = list(place.chain.mempool.values())
    if not waiting:
        return f"{place.network.name} nothing waits"
    one = chance.pick(waiting)
    if chance.one_in(2):
        place.chain.drop(one.hash)
        return f"{place.network.name} dropped {one.hash[:12]}"
    if one.spends:
        other = rival_of(world, place, one)
    else:
        other = instead_of(one, address_of("elsewhere"), 1, salt=chance.below(1 << 30))
    place.chain.submit(other)
    return f"{place.network.name} replaced {one.hash[:12]} by {other.hash[:12]}"


def _forges(nodes: list[SimulatedNode]) -> bool:
    return any(NodeFault.FORGED in node.faults for node in nodes)


def _some_branch(world: World, chain: SimulatedChain) -> str:
    blocks = [block for block in chain.blocks if chain.block(block).header.height + 6 >= chain.height]
    return world.chance.pick(blocks)


async def node_fault(world: World) -> str:
    """A node begins to lag, lie, or say nothing."""
    place, chance = any_place(world), world.chance
    node = chance.pick(place.nodes + place.side_nodes)
    answers = chance.pick((1, 2, 5, 20))
    if chance.one_in(10):
        node.inject(NodeFault.BRANCH, answers=answers, block=_some_branch(world, place.chain))
        return f"{node.name} branch {answers}"
    if chance.one_in(12) and node in place.nodes and not _forges(place.nodes):
        height = place.chain.height + chance.between(0, 2)
        forgery = chance.pick((leave_out, inflate))
        node.inject(NodeFault.FORGED, height=max(1, height), forgery=forgery)
        return f"{node.name} forges from {height}"
    if chance.one_in(20):
        node.inject(NodeFault.WRONG_CHAIN, answers=answers)
        return f"{node.name} another chain {answers}"
    fault = chance.pick(_QUIET_FAULTS)
    node.inject(
        fault, answers=answers, depth=chance.between(1, 4), retry_after_seconds=chance.pick((None, 3))
    )
    return f"{node.name} {fault} {answers}"


async def nodes_recover(world: World) -> str:
    """All nodes of a network are well again."""
    place = any_place(world)
    for node in place.nodes + place.side_nodes:
        node.clear()
        node.equalize()
    return place.network.name


async def mempools_differ(world: World) -> str:
    """A node does not show something that another shows."""
    place, chance = any_place(world), world.chance
    waiting = list(place.chain.mempool)
    if not waiting:
        return f"{place.network.name} nothing waits"
    node = chance.pick(place.nodes)
    hidden = chance.pick(waiting)
    node.withhold(hidden)
    return f"{node.name} hides {hidden[:12]}"
