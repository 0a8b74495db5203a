"""What is looked at on networks whose coins are outputs: what was spent, what is immature, what was risky at sight.

For: `checks`. Holds true: as there, the truth is the chain's, never the code's own opinion.
Must not: change anything.
"""

from __future__ import annotations

from typing import Final

from tallystick.chains.simulated.blocks import Transaction
from tallystick.core.chain import Trait
from tallystick.db.sql import Connection, load
from tallystick.services.auditing import Problem
from tallystick.simulation.shop_actions import EVERYTHING
from tallystick.simulation.world import Place, World

SQL: Final = load("simulation")

BLOCKS_TO_SPEND: Final = {Trait.COINBASE: 100, Trait.PEGOUT: 6}
"""Blocks until what a miner made can be spent, by the rules of the chains: not read from the code under test."""


async def output_problems(world: World, connection: Connection) -> list[Problem]:
    """Everything of this kind, on every such network."""
    problems: list[Problem] = []
    for place in world.places.values():
        if place.network.shows_risks:
            problems += await _spent(place, connection)
            problems += await _standing(place, connection)
            problems += await _at_sight(place, connection)
            problems += await _time(world, place, connection)
    return problems


async def _transactions(place: Place, connection: Connection) -> dict[tuple[str, str], Transaction]:
    """The transactions of the blocks that count as processed, by block and hash; forged blocks hold no truth."""
    rows = await SQL.best_chain.all(connection, network=place.network.name)
    known = place.chain.blocks
    return {
        (row["hash"], one.hash): one
        for row in rows
        if row["hash"] in known
        for one in known[row["hash"]].transactions
    }


async def _spent(place: Place, connection: Connection) -> list[Problem]:
    """What is stored of spendings, against the blocks. Only outputs that are stored can be."""
    name, blocks = place.network.name, place.chain.blocks
    rows = await SQL.outputs.all(connection, network=name)
    ours = {f"{row['tx_hash']}:{row['ordinal']}" for row in rows if row["block_hash"] in blocks}
    true = {
        (key, tx_hash, block_hash)
        for (block_hash, tx_hash), one in (await _transactions(place, connection)).items()
        for key in one.spends
        if key in ours
    }
    stored = {
        (f"{row['tx_hash']}:{row['ordinal']}", row["spent_by"], row["block_hash"])
        for row in await SQL.spent_outputs.all(connection, network=name)
        if row["block_hash"] in blocks
    }
    return [
        Problem(
            "spending-untrue", f"{name} {key}", f"{'not stored' if missing else 'stored'}: {by} in {block}"
        )
        for key, by, block in sorted(true ^ stored)
        for missing in [(key, by, block) in true]
    ]


async def _standing(place: Place, connection: Connection) -> list[Problem]:
    """Of what stands in blocks: whose own coins it moves, and whether it can be spent yet."""
    name, problems = place.network.name, list[Problem]()
    transactions = await _transactions(place, connection)
    rows = await SQL.outputs.all(connection, network=name)
    owners = {f"{row['tx_hash']}:{row['ordinal']}": row["merchant_id"] for row in rows}
    for row in rows:
        one = transactions.get((row["block_hash"], row["tx_hash"]))
        if one is None:
            continue  # in a block that somebody made up
        own = any(owners.get(key) == row["merchant_id"] for key in one.spends)
        if own != row["internal"]:
            problems.append(Problem("internal-untrue", row["id"], f"{row['tx_hash']}: own coins {own}"))
        needed = max((BLOCKS_TO_SPEND.get(trait, 0) for trait in one.traits), default=0)
        if row["status"] == "confirmed" and row["depth"] < needed:
            detail = f"{row['tx_hash']} is {row['depth']} blocks deep, and needs {needed}"
            problems.append(Problem("immature-final", row["id"], detail))
    return problems


async def _at_sight(place: Place, connection: Connection) -> list[Problem]:
    """What counts before any block holds it."""
    name, problems = place.network.name, list[Problem]()
    for row in await SQL.counted_at_sight.all(connection, network=name):
        one = place.chain.known.get(row["tx_hash"])
        risks = set() if one is None else one.traits & {Trait.REPLACEABLE}
        if risks - set(row["zero_conf_accepts"]):
            problems.append(Problem("risk-taken", row["id"], f"{row['tx_hash']} can be replaced"))
    limit = place.network.zero_conf_limit
    rows = await SQL.above_limit.all(connection, network=name, rule=EVERYTHING, limit=limit)
    return problems + [Problem("sight-limit", row["id"], f"asks {row['amount_expected']}") for row in rows]


async def _time(world: World, place: Place, connection: Connection) -> list[Problem]:
    """How far the chain counts as read. Our clock may have been ahead of the true time, and was asked then."""
    until = await SQL.read_until.value(connection, network=place.network.name)
    if until is None or until <= max(world.clock.latest, place.chain.genesis.header.time):
        return []
    return [Problem("time-ahead", place.network.name, f"{until}, and the clock showed {world.clock.latest}")]
