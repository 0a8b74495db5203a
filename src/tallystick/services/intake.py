"""Intake: a block becomes facts, and their consequences, in one transaction.

For: the follower of a network. Holds true: a block's facts, every status that follows from them, and the cursor are
committed together or not at all; the cursor moves only from the block that was expected; a reorganisation is one step,
so nobody ever sees a chain that is half one branch and half the other. The work depends on what the block holds and
on what comes due at its height, not on how many invoices are open.
Must not: ask a node, skip a block, or judge an invoice (`services.assessing` does).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tallystick.core.chain import MATURITY, Block, BlockHeader, BlockRef, Channel, ObservedTransfer
from tallystick.core.errors import StaleWrite
from tallystick.core.ids import IdKind
from tallystick.core.invoice import DUST_PER_PRICE
from tallystick.core.money import Asset
from tallystick.core.network import Network
from tallystick.core.policy_rules import CONFIRMATIONS_MAX
from tallystick.db import networks as network_store
from tallystick.db import sightings, spends
from tallystick.db.balances import SQL as BALANCES
from tallystick.db.sql import Connection, Record, load
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.context import SYSTEM, Context
from tallystick.services.credit_keys import identity_of, keyed, stored_identity
from tallystick.services.events import BLOCKS_CHANNEL
from tallystick.services.refund_intake import outgoing_between, outgoing_in, record_outgoing

SQL: Final = load("intake")

UNASKED_MAX: Final = {"unknown": 20, "other": 100, "crumb": 100}
"""Transfers kept per invoice of what nobody asked for: unknown tokens, other configured assets, and crumbs of the asked
asset. Anybody can send them by the thousand for next to nothing, and each is judged whenever its invoice is; so the
evidence is bounded. What is left out of native coin still shows as a balance that nothing explains."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one transaction does to a network's best chain.

    `expected` is the cursor it starts from. `ancestor` is set for a reorganisation: our blocks above it leave the best
    chain. `blocks` are connected in order, each on top of the one before.
    """

    expected: BlockRef | None
    blocks: tuple[Block, ...]
    ancestor: BlockRef | None = None
    safe_height: int | None = None
    finalized_height: int | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did, for logs and metrics."""

    transfers_matched: int
    invoices_assessed: int


async def apply_step(ctx: Context, network: Network, step: Step) -> StepResult:
    """Carry out one step. Raises StaleWrite when the cursor is not the expected one or the network is halted."""
    if not step.blocks:
        raise ValueError("a step connects at least one block")
    async with ctx.database.transaction() as connection:
        row = await network_store.SQL.lock_network.one(connection, name=network.name)
        if row is None or row["halted_at"] is not None or row["cursor_hash"] != _hash(step.expected):
            raise StaleWrite("The cursor is not where it was expected.", object_id=network.name)
        touched: set[str] = set()
        if step.ancestor is not None:
            touched = await _disconnect(connection, network, step.ancestor, ctx.now())
        # After the old branch went, so that what only that held counts as without a place; before the new one comes.
        candidates = await _open_spends(connection, network, step)
        matched, counted = 0, step.blocks[-1].header.time
        for block in step.blocks:
            counted = await _connect(connection, network, block.header, ctx.now())
            found = await _record_incoming(connection, ctx, network, block, counted)
            matched += len(found)
            touched.update(found)
            touched.update(await record_outgoing(connection, ctx, network, block, counted))
            touched.update(await _record_conflicts(connection, network, block, candidates))
            await _record_spendings(connection, network, block)
        await sightings.SQL.close_placed.run(connection, network=network.name, at=ctx.now())
        await _move_cursor(connection, network, step, row, counted)
        touched.update(await _due(connection, network, step))
        tip = step.blocks[-1].header
        if step.expected is not None and tip.height < step.expected.height and step.ancestor is not None:
            touched.update(await _shallower(connection, network, tip.height, step.ancestor.height))
        await assess_invoices(connection, ctx, sorted(touched), _cause(network, step))
    return StepResult(matched, len(touched))


def _hash(block: BlockRef | None) -> str | None:
    return None if block is None else block.hash


async def _open_spends(connection: Connection, network: Network, step: Step) -> list[Record]:
    """Transfers without a place that need what the step's blocks used up."""
    used = {spend_key for block in step.blocks for spend_key in block.spends}
    if not used:
        return []
    return await spends.SQL.open_spends.all(connection, network=network.name, spend_keys=list(used))


async def _disconnect(connection: Connection, network: Network, ancestor: BlockRef, at: datetime) -> set[str]:
    """Take our blocks above the ancestor out of the best chain; answer the invoices of what they held or ruled out."""
    gone = await network_store.SQL.disconnect_above.all(
        connection, network=network.name, height=ancestor.height
    )
    hashes = [row["hash"] for row in gone]
    await BALANCES.recheck.run(connection, network=network.name, hashes=hashes, at=at)
    held = await SQL.touched_by_blocks.all(connection, network=network.name, hashes=hashes)
    return {row["invoice_id"] for row in held} | await outgoing_in(connection, network, hashes)


async def _connect(connection: Connection, network: Network, header: BlockHeader, now: datetime) -> datetime:
    """Record a block; answer the chain time that counts for it, which stays that of the first time it was recorded.

    Where miners may date a block ahead of its time, no more of that counts than has passed on our clock. Else one block
    could end every window early, and date what it holds after them.
    """
    counted = min(header.time, now.replace(microsecond=0)) if network.loose_times else header.time
    found: datetime = await network_store.SQL.connect_block.value(
        connection,
        network=network.name,
        hash=header.hash,
        height=header.height,
        parent_hash=header.parent_hash,
        time=header.time,
        counted_time=None if counted == header.time else counted,
    )
    return found


async def _record_incoming(
    connection: Connection, ctx: Context, network: Network, block: Block, counted: datetime
) -> list[str]:
    """Record a block's transfers to issued addresses; answer their invoices, one per transfer."""
    recipients = list({transfer.to for transfer in block.transfers})
    if not recipients:
        return []
    rows = await SQL.match_recipients.all(connection, family=network.family, addresses=recipients)
    if not rows:
        return []
    issued = {row["address"]: row for row in rows}
    ours = [transfer for transfer in block.transfers if transfer.to in issued]
    ours = await _bounded(connection, network, ours, issued)
    if not ours:
        return []
    await _record_transfers(connection, ctx, network, block, ours, issued, counted)
    # Not the addresses' invoices: a transfer mined again may have been attached to another one meanwhile.
    held = await SQL.held_by_block.all(connection, network=network.name, hash=block.header.hash)
    return [row["invoice_id"] for row in held]


async def _bounded(
    connection: Connection, network: Network, ours: list[ObservedTransfer], issued: dict[str, Record]
) -> list[ObservedTransfer]:
    """Leave out what was not asked for beyond what is kept per invoice. What is stored already stays."""
    classes = [unasked(network, transfer, issued) for transfer in ours]
    if not any(classes):
        return ours
    ids = sorted({issued[one.to]["invoice_id"] for one, named in zip(ours, classes, strict=True) if named})
    rows = await SQL.unasked_counts.all(connection, ids=ids, crumbs_per_price=DUST_PER_PRICE)
    counts = {(row["invoice_id"], name): row[name] for row in rows for name in UNASKED_MAX}
    kept: list[ObservedTransfer] = []
    beyond: list[ObservedTransfer] = []
    for transfer, named in zip(ours, classes, strict=True):
        if named is not None:
            key = issued[transfer.to]["invoice_id"], named
            counts[key] = counts.get(key, 0) + 1
            if counts[key] > UNASKED_MAX[named]:
                beyond.append(transfer)
                continue
        kept.append(transfer)
    if not beyond:
        return kept
    hashes = sorted({transfer.tx_hash for transfer in beyond})
    stored = await SQL.known_transfers.all(connection, network=network.name, tx_hashes=hashes)
    places = {(row["tx_hash"], row["channel"], row["ordinal"]) for row in stored}
    return kept + [one for one in beyond if (one.tx_hash, one.channel, one.ordinal) in places]


def unasked(network: Network, transfer: ObservedTransfer, issued: dict[str, Record]) -> str | None:
    """Which class of UNASKED_MAX a transfer belongs to; None for what was asked for."""
    asked = issued[transfer.to]
    if (network.name, transfer.contract) == (asked["network"], asked["contract"]):
        return "crumb" if transfer.amount * DUST_PER_PRICE < asked["amount_expected"] else None
    return "unknown" if network.asset_by_contract(transfer.contract) is None else "other"


def _asset(network: Network, transfer: ObservedTransfer, issued: dict[str, Record]) -> Asset | None:
    """The asset that arrived; None for a token nobody asked for.

    What an address was issued for counts there for ever, as it was quoted, also after the token left the configuration:
    the customer was told to send it.
    """
    asked = issued[transfer.to]
    if (network.name, transfer.contract) == (asked["network"], asked["contract"]):
        return Asset(network.name, asked["asset_symbol"], asked["asset_decimals"], asked["contract"])
    return network.asset_by_contract(transfer.contract)


async def _record_transfers(
    connection: Connection,
    ctx: Context,
    network: Network,
    block: Block,
    ours: Sequence[ObservedTransfer],
    issued: dict[str, Record],
    counted: datetime,
) -> None:
    """New transfers, and that this block holds them. Known ones keep their first evidence and get one more anchor."""
    ours = await keyed(connection, network, ours)
    assets = [_asset(network, transfer, issued) for transfer in ours]
    owners = [issued[transfer.to] for transfer in ours]
    identity: dict[str, Any] = {
        "network": network.name,
        "tx_hashes": [transfer.tx_hash for transfer in ours],
        "channels": [transfer.channel for transfer in ours],
        "ordinals": [transfer.ordinal for transfer in ours],
    }
    await SQL.insert_transfers.run(
        connection,
        **identity,
        ids=[ctx.new_id(IdKind.TRANSFER) for _ in ours],
        senders=[transfer.sender for transfer in ours],
        recipients=[transfer.to for transfer in ours],
        contracts=[transfer.contract for transfer in ours],
        symbols=[asset.symbol if asset is not None else None for asset in assets],
        decimals=[asset.decimals if asset is not None else None for asset in assets],
        amounts=[transfer.amount for transfer in ours],
        traits=[" ".join(sorted(transfer.traits)) for transfer in ours],
        internals=await _internals(connection, network, ours, owners),
        evidence_at=counted,
        sightings_stand=network.loose_times,
        at=ctx.now(),
        merchant_ids=[owner["merchant_id"] for owner in owners],
        invoice_ids=[owner["invoice_id"] for owner in owners],
        option_ids=[owner["option_id"] for owner in owners],
    )
    await SQL.insert_anchors.run(
        connection,
        **identity,
        block_hash=block.header.hash,
        log_indexes=[transfer.log_index for transfer in ours],
    )
    await spends.record_spends(connection, network.name, ours)


async def _internals(
    connection: Connection, network: Network, ours: Sequence[ObservedTransfer], owners: Sequence[Record]
) -> list[bool]:
    """Which of them come from another address of the same merchant: coins moved among one's own (F-TOKEN 8)."""
    merchants = [owner["merchant_id"] for owner in owners]
    origins = await origins_of(connection, network, ours, merchants)
    return [merchant_id in came_from for merchant_id, came_from in zip(merchants, origins, strict=True)]


async def origins_of(
    connection: Connection, network: Network, ours: Sequence[ObservedTransfer], merchants: Sequence[str]
) -> list[set[str]]:
    """Of each transfer, the merchants whose addresses it comes from: by its sender, or by the outputs that it spends.

    `merchants` are those that the transfers go to: an output may be spent where it was made, before it is stored.
    """
    senders = list({transfer.sender for transfer in ours} - {""})
    rows = await SQL.own_senders.all(connection, family=network.family, addresses=senders) if senders else []
    own = {row["address"]: row["merchant_id"] for row in rows}
    outputs = {
        f"{transfer.tx_hash}:{transfer.ordinal}": merchant_id
        for transfer, merchant_id in zip(ours, merchants, strict=True)
        if transfer.channel is Channel.OUTPUT
    }
    keys = {key for transfer in ours for key in transfer.spend_keys}
    stored = await spends.own_outputs(connection, network.name, keys)
    outputs |= {key: row["merchant_id"] for key, row in stored.items()}
    return [
        {own[sender] for sender in (transfer.sender,) if sender in own}
        | {outputs[key] for key in transfer.spend_keys if key in outputs}
        for transfer in ours
    ]


async def _record_conflicts(
    connection: Connection, network: Network, block: Block, candidates: Iterable[Record]
) -> set[str]:
    """Transfers without a place whose spend key this block used up otherwise; answer their invoices.

    The same transaction mined again counts as a conflict with itself where it no longer makes the transfer: it failed
    this time, or took another path, or moved another amount.
    """
    spent = [row for row in candidates if row["spend_key"] in block.spends]
    if not spent:
        return set()
    observed = {identity_of(transfer) for transfer in block.transfers}
    found = {
        row["id"]: row for row in spent if stored_identity(row) not in observed and not _untold(block, row)
    }
    if found:
        await SQL.insert_conflicts.run(
            connection,
            network=network.name,
            block_hash=block.header.hash,
            transfer_ids=list(found),
            tx_hashes=[block.spends[row["spend_key"]] for row in found.values()],
        )
    return {row["invoice_id"] for row in found.values()}


def _untold(block: Block, row: Record) -> bool:
    """Whether the block holds the transfer's own transaction, but its node did not tell what contract calls moved."""
    own = block.spends[row["spend_key"]] == row["tx_hash"]
    return own and row["channel"] == Channel.TRACE and block.untraced is not None


async def _record_spendings(connection: Connection, network: Network, block: Block) -> None:
    """That this block spends outputs which came to issued addresses, in this block or before."""
    found = await spends.own_outputs(connection, network.name, block.spends)
    if found:
        spent = [(row["id"], block.spends[key]) for key, row in found.items()]
        await spends.record_spendings(connection, network.name, block.header.hash, spent)


async def _move_cursor(
    connection: Connection, network: Network, step: Step, row: Record, counted: datetime
) -> None:
    header = step.blocks[-1].header
    moved = await network_store.SQL.move_cursor.one(
        connection,
        name=network.name,
        expected_hash=_hash(step.expected),
        hash=header.hash,
        height=header.height,
        time=counted,
        safe_height=_marker(step, row["safe_height"], step.safe_height),
        finalized_height=_marker(step, row["finalized_height"], step.finalized_height),
        channel=BLOCKS_CHANNEL,
    )
    if moved is None:
        raise StaleWrite("The cursor moved meanwhile.", object_id=network.name)


def _marker(step: Step, known: int | None, reported: int | None) -> int | None:
    """How far a network calls its chain safe or finalized; None as long as it never said so.

    A node that lags or says nothing for a moment takes nothing back. A reorganisation does: what was said about blocks
    that left the best chain is not true of those that took their places. Nothing is said of blocks not processed yet.
    """
    if known is not None and step.ancestor is not None:
        known = min(known, step.ancestor.height)
    said = [height for height in (known, reported) if height is not None]
    return min(max(said), step.blocks[-1].header.height) if said else None


async def _due(connection: Connection, network: Network, step: Step) -> set[str]:
    """Invoices that wait for a height reached by this step."""
    rows = await SQL.due_by_height.all(
        connection,
        network=network.name,
        tip=step.blocks[-1].header.height,
        safe=step.safe_height,
        finalized=step.finalized_height,
    )
    return {row["invoice_id"] for row in rows}


async def _shallower(connection: Connection, network: Network, tip: int, ancestor: int) -> set[str]:
    """Invoices whose transfers kept their block but lost depth, because the new branch is shorter than ours was."""
    deepest = max(network.safety_depth, network.requirement.confirmations, *MATURITY.values())
    rows = await SQL.anchored_between.all(
        connection,
        network=network.name,
        tip=tip,
        from_height=tip - deepest,
        to_height=ancestor,
        lowest=tip - CONFIRMATIONS_MAX,
    )
    outgoing = await outgoing_between(connection, network, tip - CONFIRMATIONS_MAX, ancestor)
    return {row["invoice_id"] for row in rows} | outgoing


def _cause(network: Network, step: Step) -> Cause:
    header = step.blocks[-1].header
    block = {
        "type": "block",
        "network": network.name,
        "hash": header.hash,
        "height": header.height,
        "time": header.time,
    }
    if step.ancestor is None or step.expected is None:
        return Cause(CauseKind.BLOCK, SYSTEM, (block,))
    reorg = {
        "type": "reorg",
        "network": network.name,
        "left_hash": step.expected.hash,
        "left_height": step.expected.height,
        "ancestor_hash": step.ancestor.hash,
        "ancestor_height": step.ancestor.height,
    }
    return Cause(CauseKind.REORG, SYSTEM, (reorg, block))
