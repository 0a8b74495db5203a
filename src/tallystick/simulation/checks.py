"""What is looked at beside the rules of the audit: truth, which only the simulation knows.

For: `run`. Holds true: nothing here reads the code's own opinion where the truth is at hand: the chains say what came,
the receivers what arrived, the callers what was answered.
Must not: change anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tallystick.chains.simulated.blocks import SimulatedBlock
from tallystick.core.chain import Channel
from tallystick.core.invoice import PaymentStatus
from tallystick.core.webhook import RETRY_DELAYS
from tallystick.db.sql import Connection, Record, load
from tallystick.services.auditing import Problem
from tallystick.services.credit_keys import PLACES
from tallystick.simulation.output_checks import output_problems
from tallystick.simulation.world import Place, World

SQL: Final = load("simulation")

RULES: Final[dict[str, str]] = {
    "canonical-transfer-absent": "Every transfer to an issued address in a block that counts as processed is stored.",
    "credited-without-chain": "No transfer is stored as standing in a block that does not hold it.",
    "credited-twice": "No transfer of a block is stored as two, under whichever keys.",
    "forged-block": "No block is processed that one node made up while another node was well.",
    "conflict-absent": "What cannot come any more, its spend key being used otherwise, is said to be replaced.",
    "sighting-absent": "Nothing counts as sighted that waits in no mempool.",
    "spending-untrue": "Which of our outputs are spent, where and by what, is what the processed blocks say.",
    "internal-untrue": "What spends outputs of the merchant that it pays is no income, and anything else is.",
    "immature-final": "Nothing that a miner made counts as confirmed before it can be spent.",
    "risk-taken": "What its sender can replace counts at sight only where a rule accepts that.",
    "sight-limit": "Where no rule names an amount, nothing above a network's limit counts at sight.",
    "time-ahead": "No block, whatever its miner wrote, makes a network read further than our clock ever showed.",
    "network-caught-up": "Once nodes are well again, every network is read to its head.",
    "workers-come-to-rest": "Workers that have nothing to do do nothing.",
    "worker-failed": "No worker ends with an error that nobody injected.",
    "error-logged": "Nothing logs an error that nobody injected.",
    "internal-error": "No call of the API is answered with an error of ours.",
    "deadlock": "No two pieces of work wait for each other.",
    "one-effect-per-call": "A call of the API that is repeated, at once or after a crash, has one effect and answer.",
    "foreign-object": "Nobody sees or changes what is another merchant's.",
    "foreign-event": "No receiver is told what is another merchant's.",
    "webhook-complaint": "What receivers get is signed with a secret they know; an event has one body and one id.",
    "event-sent": "Every event that was published while an endpoint was enabled has a delivery for it.",
    "delivered-at-least-once": "An endpoint that is up gets everything, and what is called delivered did arrive.",
    "served-in-turn": "An endpoint that works and has something due is served in each turn, whoever is dead.",
    "sent-under-lease": "While one deliverer has a delivery, nobody sends it once more.",
    "sent-after-success": "What was delivered is not sent again, whoever comes late.",
    "quote-true": "A quote asks no less than the price at the true rate, nor as much as one asked unit more.",
}
"""What only the simulation can tell, by rule: for `docs/correctness.md`."""


@dataclass(frozen=True, slots=True)
class _Fact:
    block_hash: str
    tx_hash: str
    channel: str
    ordinal: int
    contract: str | None
    to: str
    amount: int


def complaints(world: World) -> list[Problem]:
    """What receivers complain about, so far."""
    return [Problem(rule, endpoint_id, text) for rule, endpoint_id, text in world.mailroom.complaints]


async def passing_problems(world: World) -> list[Problem]:
    """What must be so at any moment, and takes a while to look at."""
    async with world.database.connection() as connection:
        return [
            *await _blocks(world, connection),
            *await _calls(world, connection),
            *await _deliveries(world, connection),
            *(await output_problems(world, connection) if world.has_outputs else []),
        ]


async def truth_problems(world: World) -> list[Problem]:
    """Everything that must be so once the dust has settled. Call when nothing is left to do."""
    problems = await passing_problems(world)
    async with world.database.connection() as connection:
        for place in world.places.values():
            hashes = {row["hash"] for row in await SQL.best_chain.all(connection, network=place.network.name)}
            forged = [one for one in hashes if one not in place.chain.blocks]
            problems += [
                Problem("forged-block", f"{place.network.name} {one}", "no node has it") for one in forged
            ]
            missing = [block for block in place.chain.branch() if block.hash not in hashes]
            if missing:
                problems.append(
                    Problem("network-caught-up", place.network.name, f"{len(missing)} blocks are not read")
                )
        problems += _unplaced(world, await SQL.unplaced.all(connection))
        for row in await SQL.not_delivered.all(connection, attempts_max=len(RETRY_DELAYS) + 1):
            receiver = world.mailroom.by_url.get(row["url"])
            if row["status"] == "pending" or (receiver is not None and not receiver.doubtful):
                detail = f"{row['status']} after {row['attempts_made']} attempts, with its server up"
                problems.append(Problem("delivered-at-least-once", row["delivery_id"], detail))
        delivered = await SQL.delivered.all(connection)
    for row in delivered:
        receiver = world.mailroom.by_url.get(row["url"])
        if receiver is None or receiver.accepted.get(row["event_id"]) != row["body"].encode():
            problems.append(
                Problem("delivered-at-least-once", row["event_id"], "called delivered, never arrived")
            )
    return problems


async def _blocks(world: World, connection: Connection) -> list[Problem]:
    """What stands in the blocks that count as processed is what these blocks hold. Forged blocks hold no truth."""
    problems: list[Problem] = []
    issued = await SQL.issued_addresses.all(connection)
    for place in world.places.values():
        name = place.network.name
        addresses = {row["address"] for row in issued if row["family"] == place.network.family}
        known = place.chain.blocks
        hashes = [row["hash"] for row in await SQL.best_chain.all(connection, network=name)]
        blocks = [place.chain.block(one) for one in hashes if one in known]
        rows = await SQL.standing_transfers.all(connection, network=name)
        stored = Counter(_stored_fact(row) for row in rows if row["block_hash"] in known)
        problems += _compare(place, blocks, addresses, stored)
    return problems


async def _calls(world: World, connection: Connection) -> list[Problem]:
    """What a call did is there, once."""
    told = [invoice_id for shop in world.shops for invoice_id in shop.invoices]
    return [
        Problem("one-effect-per-call", row["what"], f"{row['times']} times")
        for row in await SQL.done_twice.all(connection)
    ] + [
        Problem("one-effect-per-call", row["id"], "it was answered as made, and is not there")
        for row in await SQL.not_there.all(connection, ids=told)
    ]


async def _deliveries(world: World, connection: Connection) -> list[Problem]:
    """Every event has its way to whoever was enabled since the last look, and none is sent once it has arrived."""
    problems = [
        Problem("sent-after-success", row["delivery_id"], "it was attempted again")
        for row in await SQL.sent_after_success.all(connection)
    ]
    states = {row["id"]: row for row in await SQL.endpoint_states.all(connection)}
    receivers = {one.endpoint_id: one for one in world.mailroom.by_url.values()}
    owed = {
        key: one
        for key, one in receivers.items()
        if one.told_from is not None and key in states and states[key]["takes"]
    }
    rows = await SQL.not_sent.all(
        connection, ids=list(owed), positions=[one.told_from for one in owed.values()]
    )
    problems += [Problem("event-sent", row["event_id"], f"not to {row['endpoint_id']}") for row in rows]
    for endpoint_id, receiver in receivers.items():
        state = states.get(endpoint_id)
        if state is None:
            problems.append(
                Problem("one-effect-per-call", endpoint_id, "it was answered as made, and is not there")
            )
        elif not state["takes"]:
            receiver.doubt()
        else:
            receiver.told_from = state["last"]
    return problems


def _unplaced(world: World, rows: list[Record]) -> list[Problem]:
    """What became of transfers that stand nowhere, now that nothing waits any more."""
    problems: list[Problem] = []
    used = {
        name: {
            key: one.hash
            for block in place.chain.branch()
            for one in block.transactions
            for key in one.spend_keys
        }
        for name, place in world.places.items()
    }
    final = (PaymentStatus.REPLACED, PaymentStatus.FAILED)
    for row in rows:
        if row["sighted"] and row["tx_hash"] not in world.places[row["network"]].chain.mempool:
            problems.append(Problem("sighting-absent", row["id"], f"{row['tx_hash']} waits in no mempool"))
        keys = used[row["network"]]
        one = world.places[row["network"]].chain.known.get(row["tx_hash"])
        by = None if one is None else next((keys[key] for key in one.spend_keys if key in keys), None)
        untold = by == row["tx_hash"] and row["channel"] == Channel.TRACE  # a node need not tell of it
        if by is not None and not untold and row["status"] not in final:
            detail = f"{row['status']}, and {by} used what it needs"
            problems.append(Problem("conflict-absent", row["id"], detail))
    return problems


def _stored_fact(row: Record) -> _Fact:
    # Above PLACES stands the same place of the same transaction, mined again with another content.
    place = row["ordinal"] % PLACES
    return _Fact(
        row["block_hash"],
        row["tx_hash"],
        row["channel"],
        place,
        row["contract"],
        row["recipient"],
        row["amount"],
    )


def _compare(
    place: Place, blocks: Iterable[SimulatedBlock], addresses: set[str], stored: Counter[_Fact]
) -> list[Problem]:
    true: dict[_Fact, bool] = {}
    for block in blocks:
        for one in block.transactions:
            for move in one.done:
                if move.to in addresses and move.amount > 0:
                    channel = move.channel.value
                    fact = _Fact(
                        block.hash, one.hash, channel, move.ordinal, move.contract, move.to, move.amount
                    )
                    true[fact] = move.channel is not Channel.TRACE  # a node need not tell of those
    name = place.network.name
    missing = [fact for fact, needed in true.items() if needed and fact not in stored]
    invented = [fact for fact in stored if fact not in true and fact.channel != Channel.BALANCE.value]
    twice = [fact for fact, times in stored.items() if times > 1]
    return [
        *(Problem("credited-twice", f"{name} {fact.tx_hash}", f"{fact}") for fact in twice),
        *(Problem("canonical-transfer-absent", f"{name} {fact.tx_hash}", f"{fact}") for fact in missing),
        *(Problem("credited-without-chain", f"{name} {fact.tx_hash}", f"{fact}") for fact in invented),
    ]
