"""Sightings: what a node shows outside any block becomes a fact without an anchor, and stops being one.

For: the follower of a network, after each look at its node's mempool. Holds true: a sighting is a hint. Nothing is
credited for it, unless the invoice's own rule counts it (zero confirmations); as soon as a block holds the transfer, or
one that conflicts with it, only that counts. A sighting that a node no longer shows is taken back, never forgotten: the
transfer keeps its first evidence. What changes and every status that follows are committed together.
Must not: ask a node, or judge an invoice (`services.assessing` does).

What is recorded. Only what an address was issued for: that asset, on that network, and only while its invoice waits for
money. Anybody can send a transaction that never gets into a block, for nothing; so a wrong asset, a junk token, coins
moved among one's own addresses, dust or money after the end are told when a block holds them, not before, and what is
kept per invoice and per network is bounded. Where
zero confirmations are enough, a token's sighting is left out too: its call may fail in the block, which nothing in a
mempool shows, so a token counts from its first block there.

When it is gone.
- Another transaction that needs one of its spend keys is shown: at once. One of the two can be mined, and the node says
  which.
- The node does not know the transaction any more: after `GONE_AFTER`, if no node said otherwise meanwhile. Nodes behind
  one name differ for moments, and a status that flickers helps nobody.
- A block of the best chain holds it or its conflict: at once (`services.intake`).
For as long as `GONE_AFTER` a transaction that went without a block is not listened to: of two nodes that show either of
two conflicting transactions, the newer one stands and does not alternate with the older. A snapshot of an older head
than our cursor says nothing at all.

When it was. The first evidence of a sighting is our clock's time, to the second, but not before the chain time of the
cursor, nor of the block that the node would put it on, which may be one that we have not read yet: it was in neither.
So a clock that lags makes nothing earlier than the chain shows. A clock that is ahead
makes it late, until a block does better: the earlier of sighting and first block is the first evidence (see
`insert_transfers`). Where miners may date blocks back (`loose_times`) a block does no better: the sighting stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from tallystick.chains.source import MEMPOOL_ASKED_MAX
from tallystick.core.chain import MempoolSnapshot, ObservedTransfer, Trait
from tallystick.core.ids import IdKind
from tallystick.core.invoice import DUST_PER_PRICE, Status
from tallystick.core.network import Network
from tallystick.db import networks as network_store
from tallystick.db import sightings as store
from tallystick.db.sql import Connection, Record
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.context import SYSTEM, Context
from tallystick.services.credit_keys import keyed
from tallystick.services.intake import origins_of

GONE_AFTER: Final = timedelta(seconds=30)
"""So long a node must not know a transaction until its sighting is taken back; and it rests so long after that."""

UNANCHORED_PER_INVOICE_MAX: Final = 20
"""Transfers per invoice that were sighted and never stood in a block, gone ones included: they cost nobody anything."""

LIVE_PER_NETWORK_MAX: Final = 1_000
"""Sightings of one network that count at a time; more are told when a block holds them."""

EVIDENCE_HASHES_MAX: Final = 20

_WAITING: Final = frozenset(
    {
        Status.AWAITING_PAYMENT,
        Status.DETECTED,
        Status.PARTIALLY_PAID,
        Status.CONFIRMING,
        Status.REVIEW_REQUIRED,
    }
)


@dataclass(frozen=True, slots=True)
class SightingsResult:
    """What a snapshot changed, for logs."""

    seen: int = 0
    gone: int = 0
    invoices_assessed: int = 0


@dataclass(slots=True)
class _Plan:
    """What a snapshot asks to be written. Empty lists: nothing."""

    new: list[ObservedTransfer] = field(default_factory=list)
    owners: dict[str, Record] = field(default_factory=dict)
    again: dict[str, frozenset[Trait]] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    tx_hashes_seen: list[str] = field(default_factory=list)
    tx_hashes_gone: list[str] = field(default_factory=list)
    invoices: set[str] = field(default_factory=set)

    @property
    def empty(self) -> bool:
        return not (self.new or self.again or self.gone or self.missing or self.present)


async def interest(connection: Connection, network: Network) -> tuple[str, ...] | None:
    """Transactions to ask the node about; None when a look is not worth a call: nobody may pay, nothing is sighted."""
    row = await store.SQL.interest.one(connection, network=network.name, row_count=MEMPOOL_ASKED_MAX)
    if row is None or not (row["awaited"] or row["tx_hashes"]):
        return None
    return tuple(row["tx_hashes"])


async def apply_sightings(ctx: Context, network: Network, snapshot: MempoolSnapshot) -> SightingsResult:
    """Carry out what a snapshot says. Most say nothing new: that costs some reads and no lock. Raises StaleWrite."""
    async with ctx.database.connection() as connection:
        row = await network_store.SQL.read_network.one(connection, name=network.name)
        if row is None or (await _plan(connection, network, snapshot, row, ctx.now())).empty:
            return SightingsResult()
    async with ctx.database.transaction() as connection:
        row = await network_store.SQL.lock_network.one(connection, name=network.name)
        if row is None:
            return SightingsResult()
        now = ctx.now()
        plan = await _plan(connection, network, snapshot, row, now)
        # Where miners may date ahead, a head's time says less than our clock does.
        head_time = None if network.loose_times else snapshot.head_time
        await _write(connection, ctx, network, plan, row, now, head_time)
        await assess_invoices(connection, ctx, sorted(plan.invoices), _cause(network, snapshot, plan))
    return SightingsResult(len(plan.tx_hashes_seen), len(plan.gone), len(plan.invoices))


async def withdraw_sightings(ctx: Context, network: Network) -> SightingsResult:
    """Take back every sighting of a network whose mempool is looked at no more: nobody would say when it is gone."""
    async with ctx.database.transaction() as connection:
        row = await network_store.SQL.lock_network.one(connection, name=network.name)
        live = await store.read_live(connection, network.name)
        if row is None or row["halted_at"] is not None or not live:
            return SightingsResult()
        plan = _Plan()
        for sighting in live:
            _take_back(plan, sighting)
        await _write(connection, ctx, network, plan, row, ctx.now())
        await assess_invoices(connection, ctx, sorted(plan.invoices), _cause(network, None, plan))
    return SightingsResult(0, len(plan.gone), len(plan.invoices))


async def _plan(
    connection: Connection, network: Network, snapshot: MempoolSnapshot, row: Record, now: datetime
) -> _Plan:
    """What is to be written, given where the network stands. Reads only."""
    plan = _Plan()
    if row["halted_at"] is not None or row["cursor_hash"] is None:
        return plan
    if snapshot.head.height <= row["cursor_height"] and snapshot.head.hash != row["cursor_hash"]:
        return plan
    live = await store.read_live(connection, network.name)
    recipients = list({transfer.to for transfer in snapshot.transfers})
    rows: list[Record] = []
    if recipients:
        rows = await store.SQL.waiting_recipients.all(
            connection, family=network.family, addresses=recipients, network=network.name
        )
    plan.owners = {found["address"]: found for found in rows}
    ours = [transfer for transfer in snapshot.transfers if _is_asked(transfer, plan.owners)]
    ours = await _keyed_income(connection, network, ours, plan.owners)
    known = await store.read_known(connection, network.name, ours)
    resting = _resting(known, now)
    _judge_live(plan, snapshot, live, resting, now)
    await _judge_shown(connection, plan, ours, known, resting, live)
    return plan


def _is_asked(transfer: ObservedTransfer, owners: dict[str, Record]) -> bool:
    """Whether the address was issued for exactly this asset, and a sighting of it may be counted.

    Not where it is too little to change anything: places are few, and it would take one from a real payment.
    """
    owner = owners.get(transfer.to)
    if owner is None or owner["contract"] != transfer.contract:
        return False
    if transfer.amount * DUST_PER_PRICE < owner["amount_expected"]:
        return False
    return not (owner["zero_conf"] and transfer.contract is not None)


async def _keyed_income(
    connection: Connection, network: Network, ours: list[ObservedTransfer], owners: dict[str, Record]
) -> list[ObservedTransfer]:
    """Without coins that a merchant moves among his own addresses, each under the key that it is stored under."""
    if not ours:
        return ours
    merchants = [owners[transfer.to]["merchant_id"] for transfer in ours]
    origins = await origins_of(connection, network, ours, merchants)
    income = [
        transfer
        for transfer, merchant_id, came_from in zip(ours, merchants, origins, strict=True)
        if merchant_id not in came_from
    ]
    return await keyed(connection, network, income) if income else income


def _resting(known: dict[tuple[str, str, int], store.KnownTransfer], now: datetime) -> set[str]:
    """Transactions that went a moment ago without ever having stood in a block."""
    return {
        key[0]
        for key, found in known.items()
        if found.gone_at is not None and not found.anchored and now - found.gone_at < GONE_AFTER
    }


def _judge_live(
    plan: _Plan,
    snapshot: MempoolSnapshot,
    live: Sequence[store.LiveSighting],
    resting: set[str],
    now: datetime,
) -> None:
    """Which of the sightings that count now are replaced, missing, gone or there after all."""
    for sighting in live:
        holders = {snapshot.spends[key] for key in sighting.spend_keys if key in snapshot.spends}
        if holders - {sighting.tx_hash} - resting:
            _take_back(plan, sighting)
        elif sighting.tx_hash in snapshot.missing:
            if sighting.missing_since is None:
                plan.missing.append(sighting.transfer_id)
            elif now - sighting.missing_since >= GONE_AFTER:
                _take_back(plan, sighting)
        elif sighting.missing_since is not None and (
            sighting.tx_hash in holders or sighting.tx_hash in snapshot.present
        ):
            plan.present.append(sighting.transfer_id)


def _take_back(plan: _Plan, sighting: store.LiveSighting) -> None:
    plan.gone.append(sighting.transfer_id)
    plan.tx_hashes_gone.append(sighting.tx_hash)
    plan.invoices.add(sighting.invoice_id)


async def _judge_shown(
    connection: Connection,
    plan: _Plan,
    ours: Sequence[ObservedTransfer],
    known: dict[tuple[str, str, int], store.KnownTransfer],
    resting: set[str],
    live: Sequence[store.LiveSighting],
) -> None:
    """Which transfers of the snapshot are new, or sighted again."""
    room = LIVE_PER_NETWORK_MAX - len(live) + len(plan.gone)
    unknown: list[ObservedTransfer] = []
    for transfer in ours:
        found = known.get((transfer.tx_hash, transfer.channel, transfer.ordinal))
        if transfer.tx_hash in resting or (found is not None and found.placed):
            continue
        if found is None:
            unknown.append(transfer)
        elif (not found.sighted or found.gone_at is not None) and room > 0:
            room -= 1
            plan.again[found.transfer_id] = transfer.traits
            plan.tx_hashes_seen.append(transfer.tx_hash)
            plan.invoices.add(found.invoice_id)
    waiting = [one for one in unknown if Status(plan.owners[one.to]["status"]) in _WAITING]
    if not waiting:
        return
    ids = sorted({plan.owners[transfer.to]["invoice_id"] for transfer in waiting})
    counts = {
        found["invoice_id"]: found["transfers"]
        for found in await store.SQL.unanchored_counts.all(connection, ids=ids)
    }
    for transfer in waiting:
        invoice_id = plan.owners[transfer.to]["invoice_id"]
        counts[invoice_id] = counts.get(invoice_id, 0) + 1
        if counts[invoice_id] > UNANCHORED_PER_INVOICE_MAX or room <= 0:
            continue
        room -= 1
        plan.new.append(transfer)
        plan.tx_hashes_seen.append(transfer.tx_hash)
        plan.invoices.add(invoice_id)


async def _write(
    connection: Connection,
    ctx: Context,
    network: Network,
    plan: _Plan,
    row: Record,
    now: datetime,
    head_time: datetime | None = None,
) -> None:
    """Write the marks. The caller holds the network's lock."""
    if plan.new:
        await store.insert_sighted(
            connection,
            network.name,
            plan.new,
            ids=[ctx.new_id(IdKind.TRANSFER) for _ in plan.new],
            owners=plan.owners,
            evidence_at=max(row["cursor_time"], head_time or row["cursor_time"], now.replace(microsecond=0)),
            at=now,
        )
    if plan.again:
        await store.SQL.sight_again.run(connection, network=network.name, ids=list(plan.again), at=now)
        await store.add_traits(connection, plan.again)
    if plan.missing:
        await store.SQL.mark_missing.run(connection, ids=plan.missing, at=now)
    if plan.present:
        await store.SQL.mark_present.run(connection, ids=plan.present)
    if plan.gone:
        await store.SQL.mark_gone.run(connection, ids=plan.gone, at=now)


def _cause(network: Network, snapshot: MempoolSnapshot | None, plan: _Plan) -> Cause:
    """Evidence: what was shown and what no longer was, on top of which block. None: nobody looks any more."""
    shown: dict[str, Any] = {
        "type": "mempool",
        "network": network.name,
        "seen": plan.tx_hashes_seen[:EVIDENCE_HASHES_MAX],
        "gone": plan.tx_hashes_gone[:EVIDENCE_HASHES_MAX],
    }
    if snapshot is not None:
        shown |= {"head_hash": snapshot.head.hash, "head_height": snapshot.head.height}
    return Cause(CauseKind.MEMPOOL, SYSTEM, (shown,))
