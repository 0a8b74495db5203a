"""Outgoing transfers: which transfers of a block carry out a refund.

For: the intake of blocks. Holds true: a transfer carries out a refund when it goes to its address, in its asset, with
exactly its amount, whoever sends it, in a block no older than the refund; one transfer carries out one refund, and a
refund that a transfer in the best chain carries out takes no second one; the same transfer in another block is the same
transfer, and what a transaction moves otherwise when it is mined again is another one (see `credit_keys`). One look-up
by index a block.
Must not: judge a refund, or ask a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from tallystick.core.chain import Block, ObservedTransfer
from tallystick.core.ids import IdKind
from tallystick.core.network import Network
from tallystick.db.refunds import SQL
from tallystick.db.spends import record_spends
from tallystick.db.sql import Connection, Record
from tallystick.services.context import Context
from tallystick.services.credit_keys import at_free_place, identity_of, stored_identity

CLOCK_ALLOWANCE: Final = timedelta(minutes=2)
"""How much earlier than our clock at the request a block may be dated, and still hold the refund's transfer. A block's
time is its producer's: it is set when the block is begun, and that clock and ours may differ by some seconds each. What
is older was sent before anybody asked, for another reason: the shop's own earlier payment to the same customer, read
while a network that was away is caught up with."""

LOOSE_CLOCK_ALLOWANCE: Final = timedelta(hours=2)
"""The same where miners date blocks as they like (`Network.loose_times`): a block only has to be dated after the median
of the eleven before it, which is an hour ago as a rule, and more while blocks are slow. A refund that is not recognised
for its block's date looks unsent, and is paid again."""


async def record_outgoing(
    connection: Connection, ctx: Context, network: Network, block: Block, counted: datetime
) -> set[str]:
    """Record the transfers of a block that carry out refunds; answer the invoices of those refunds."""
    recipients = list({transfer.to for transfer in block.transfers})
    if not recipients:
        return set()
    watched = await SQL.watched_refunds.all(connection, network=network.name, addresses=recipients)
    if not watched:
        return set()
    addresses = {row["address"] for row in watched}
    ours = [transfer for transfer in block.transfers if transfer.to in addresses]
    rows = await SQL.known_transfers.all(connection, ids=[row["id"] for row in watched])
    known = {stored_identity(row): row for row in rows}
    again = [known[identity_of(transfer)] for transfer in ours if identity_of(transfer) in known]
    carried_out = {row["refund_id"] for row in rows if row["stands"]} | {row["refund_id"] for row in again}
    new: list[tuple[ObservedTransfer, Record]] = []
    latest = counted + (LOOSE_CLOCK_ALLOWANCE if network.loose_times else CLOCK_ALLOWANCE)
    for transfer in ours:
        refund = None if identity_of(transfer) in known else _choose(transfer, latest, watched, carried_out)
        if refund is not None:
            carried_out.add(refund["id"])
            new.append((transfer, refund))
    ids = await _insert(connection, ctx, network, counted, new) if new else []
    await SQL.insert_refund_anchors.run(
        connection,
        network=network.name,
        block_hash=block.header.hash,
        transfer_ids=[row["id"] for row in again] + ids,
    )
    invoice_of = {row["id"]: row["invoice_id"] for row in watched}
    return {invoice_of[row["refund_id"]] for row in again} | {refund["invoice_id"] for _, refund in new}


def _choose(
    transfer: ObservedTransfer, latest: datetime, watched: Sequence[Record], carried_out: set[str]
) -> Record | None:
    """The refund that this transfer carries out, if any: never one asked for after `latest`, when it was in a block.

    First the one of which just this transaction was told, then one of which none was told, the oldest first; one that
    was given up only if no other expects it.
    """
    fitting = [
        row
        for row in watched
        if row["id"] not in carried_out
        and row["address"] == transfer.to
        and row["contract"] == transfer.contract
        and row["amount_sent"] == transfer.amount
        and row["requested_at"] <= latest
    ]

    def rank(row: Record) -> tuple[bool, bool, bool, str]:
        told: str | None = row["tx_hash"]
        return told != transfer.tx_hash, row["status"] == "failed", told is not None, row["id"]

    return min(fitting, key=rank, default=None)


async def _insert(
    connection: Connection,
    ctx: Context,
    network: Network,
    counted: datetime,
    new: Sequence[tuple[ObservedTransfer, Record]],
) -> list[str]:
    ids = [ctx.new_id(IdKind.TRANSFER) for _ in new]
    hashes = sorted({transfer.tx_hash for transfer, _ in new})
    rows = await SQL.taken_places.all(connection, network=network.name, tx_hashes=hashes)
    taken = {(row["tx_hash"], row["channel"], row["ordinal"]) for row in rows}
    transfers = [at_free_place(transfer, taken) for transfer, _ in new]
    await SQL.insert_refund_transfers.run(
        connection,
        network=network.name,
        evidence_at=counted,
        ids=ids,
        refund_ids=[refund["id"] for _, refund in new],
        invoice_ids=[refund["invoice_id"] for _, refund in new],
        tx_hashes=[transfer.tx_hash for transfer in transfers],
        channels=[transfer.channel for transfer in transfers],
        ordinals=[transfer.ordinal for transfer in transfers],
        senders=[transfer.sender for transfer in transfers],
        recipients=[transfer.to for transfer in transfers],
        contracts=[transfer.contract for transfer in transfers],
        amounts=[transfer.amount for transfer in transfers],
    )
    await record_spends(connection, network.name, transfers)
    return ids


async def outgoing_in(connection: Connection, network: Network, hashes: Sequence[str]) -> set[str]:
    """Invoices whose refunds had a transfer in one of these blocks."""
    rows = await SQL.refunds_touched_by_blocks.all(connection, network=network.name, hashes=list(hashes))
    return {row["invoice_id"] for row in rows}


async def outgoing_between(
    connection: Connection, network: Network, from_height: int, to_height: int
) -> set[str]:
    """Invoices whose refunds have a transfer in the best chain between two heights."""
    rows = await SQL.refunds_anchored_between.all(
        connection, network=network.name, from_height=from_height, to_height=to_height
    )
    return {row["invoice_id"] for row in rows}
