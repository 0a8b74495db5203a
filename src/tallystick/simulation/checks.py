"""What is looked at beside the rules of the audit: truth, which only the simulation knows.

For: `run`. Holds true: nothing here reads the code's own opinion where the truth is at hand: the chains say what came,
the receivers what arrived, the callers what was answered.
Must not: change anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tallystick.core.chain import Channel
from tallystick.db.sql import Record, load
from tallystick.services.auditing import Problem
from tallystick.services.credit_keys import PLACES
from tallystick.simulation.world import Place, World

SQL: Final = load("simulation")


@dataclass(frozen=True, slots=True)
class _Fact:
    tx_hash: str
    channel: str
    ordinal: int
    contract: str | None
    to: str
    amount: int


async def truth_problems(world: World) -> list[Problem]:
    """Everything that must be so once the dust has settled. Call when nothing is left to do."""
    problems = [Problem("webhook-complaint", "", text) for text in world.mailroom.complaints]
    async with world.database.connection() as connection:
        addresses = {row["address"] for row in await SQL.issued_addresses.all(connection)}
        for place in world.places.values():
            stored = {
                _stored_fact(row)
                for row in await SQL.best_transfers.all(connection, network=place.network.name)
            }
            problems += _compare(place, addresses, stored)
        for row in await SQL.done_twice.all(connection):
            problems.append(Problem("one-effect-per-call", row["what"], f"{row['times']} times"))
        for row in await SQL.not_delivered.all(connection):
            problems.append(
                Problem("delivered-at-least-once", row["delivery_id"], "still waits, with its server up")
            )
        delivered = await SQL.delivered.all(connection)
    for row in delivered:
        receiver = world.mailroom.by_url.get(row["url"])
        if receiver is None or receiver.accepted.get(row["event_id"]) != row["body"].encode():
            problems.append(
                Problem("delivered-at-least-once", row["event_id"], "called delivered, never arrived")
            )
    return problems


def _stored_fact(row: Record) -> _Fact:
    # Above PLACES stands the same place of the same transaction, mined again with another content.
    place = row["ordinal"] % PLACES
    return _Fact(row["tx_hash"], row["channel"], place, row["contract"], row["recipient"], row["amount"])


def _compare(place: Place, addresses: set[str], stored: set[_Fact]) -> list[Problem]:
    true: dict[_Fact, bool] = {}
    for block in place.chain.branch():
        for one in block.transactions:
            for move in one.done:
                if move.to in addresses and move.amount > 0:
                    fact = _Fact(
                        one.hash, move.channel.value, move.ordinal, move.contract, move.to, move.amount
                    )
                    true[fact] = move.channel is not Channel.TRACE  # a node need not tell of those
    name = place.network.name
    missing = [fact for fact, needed in true.items() if needed and fact not in stored]
    invented = [fact for fact in stored if fact not in true and fact.channel != Channel.BALANCE.value]
    return [
        *(Problem("canonical-transfer-absent", f"{name} {fact.tx_hash}", f"{fact}") for fact in missing),
        *(Problem("credited-without-chain", f"{name} {fact.tx_hash}", f"{fact}") for fact in invented),
    ]
