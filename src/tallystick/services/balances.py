"""Balances: native coin that reached an issued address without a transaction that names it.

For: the worker that looks when a window has ended without enough money, and `tallystick invoice check`. Where a node
tells what contract calls move, such value is a transfer already and explains the balance; where it does not, this is
how it is found. On every network, because an address issued for one is the same address on all of its family.
Holds true: a balance is read at one block of our best chain and compared with what was seen to arrive up to that block;
what is left over becomes a transfer of channel `balance`, anchored at that block: it leaves the best chain with it, and
stands again when a later look finds it again. Nothing is credited by that: `Match.UNATTRIBUTED_VALUE` waits for a
person. What was found before counts as explained, so looking twice finds nothing new.
Must not: hold a lock or a transaction while a node is asked, or take a refusal for a balance of nothing.

The identity of a finding. Its transaction hash is `balance:<address>:<block hash>`, after the block where it was first
found: no transaction of any chain is written so, and whoever reads it knows where to look. Its ordinal is 0, counting
up should more turn up at the same block. Its sender is unknown and stays empty; its spend key is its own, so that
nothing ever replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from tallystick.chains.families import FAMILIES
from tallystick.chains.source import ACCOUNTS_ASKED_MAX, AccountSource
from tallystick.core.balance import AccountState, BalanceOutcome, Finding, judge_balance
from tallystick.core.chain import BlockHeader, BlockRef
from tallystick.core.errors import NotFound, StaleWrite
from tallystick.core.ids import IdKind
from tallystick.core.money import format_units
from tallystick.core.network import Network
from tallystick.db import balances as store
from tallystick.db import invoices as invoice_store
from tallystick.db import networks as network_store
from tallystick.db.sql import Connection
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.context import Actor, Context

LOOK_AFTER: Final = (timedelta(0), timedelta(minutes=10), timedelta(days=1))
"""When an address is looked at, counted from the end of its window."""

EVIDENCE_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Look:
    """What came of looking at one address on one network. Amounts are base units."""

    network: str
    address: str
    invoice_id: str
    block: BlockRef
    state: AccountState
    received: int
    finding: Finding


@dataclass(slots=True)
class _Work:
    """What one transaction of looks carries along."""

    connection: Connection
    ctx: Context
    network: Network
    pinned: BlockHeader
    found: list[store.Found]
    touched: set[str]


async def check_addresses(
    ctx: Context,
    network: Network,
    source: AccountSource,
    addresses: Sequence[str],
    cause: CauseKind,
    actor: Actor,
) -> list[Look]:
    """Look at these issued addresses (at most `ACCOUNTS_ASKED_MAX`) at the network's cursor, and record what is left.

    Answers nothing for a network without a cursor. Raises SourceError, or StaleWrite if the block left the best chain
    meanwhile: look again.
    """
    async with ctx.database.connection() as connection:
        row = await network_store.SQL.read_network.one(connection, name=network.name)
    if row is None or row["cursor_hash"] is None or not addresses:
        return []
    block = BlockRef(row["cursor_hash"], row["cursor_height"])
    asked = sorted(set(addresses))
    states = dict(zip(asked, await source.accounts_at(block, asked), strict=True))
    async with ctx.database.transaction() as connection:
        return await _record(connection, ctx, network, block, states, Cause(cause, actor, ()))


async def check_invoices(
    ctx: Context, sources: Mapping[str, AccountSource], invoice_ids: Sequence[str], actor: Actor
) -> list[Look]:
    """Look now at every address of these invoices, on every network of its family that has a source.

    Raises NotFound if there is no address among them, SourceError, StaleWrite.
    """
    async with ctx.database.connection() as connection:
        rows = await store.SQL.addresses_of.all(connection, invoice_ids=list(invoice_ids))
    if not rows:
        raise NotFound("No address was issued to this invoice.", object_id=", ".join(invoice_ids))
    looks: list[Look] = []
    for name, source in sources.items():
        network = ctx.networks[name]
        addresses = [row["address"] for row in rows if row["family"] == network.family]
        for start in range(0, len(addresses), ACCOUNTS_ASKED_MAX):
            part = addresses[start : start + ACCOUNTS_ASKED_MAX]
            looks += await check_addresses(ctx, network, source, part, CauseKind.REQUEST, actor)
    return looks


async def _record(
    connection: Connection,
    ctx: Context,
    network: Network,
    block: BlockRef,
    states: Mapping[str, AccountState],
    cause: Cause,
) -> list[Look]:
    addresses = list(states)
    pinned = await _lock(connection, network, block, addresses)
    subjects = await store.read_subjects(connection, network.name, network.family, block.height, addresses)
    found = await store.read_findings(connection, network.name, addresses)
    work = _Work(connection, ctx, network, pinned, found, set())
    looks: list[Look] = []
    for address, subject in subjects.items():
        look = _judged(network, block, subject, states[address])
        if look.finding.outcome is BalanceOutcome.UNATTRIBUTED:
            await _keep(work, subject, look.finding.amount)
        looks.append(look)
    now = ctx.now()
    await store.SQL.record_check.many(connection, [_row(look, subjects[look.address], now) for look in looks])
    if work.touched:
        evidence = tuple(_evidence(network, look) for look in looks if look.finding.amount)[:EVIDENCE_MAX]
        why = Cause(cause.kind, cause.actor, evidence)
        await assess_invoices(connection, ctx, sorted(work.touched), why)
    return looks


async def _lock(
    connection: Connection, network: Network, block: BlockRef, addresses: Sequence[str]
) -> BlockHeader:
    """Keep networks and invoices as they are until the end. Raises StaleWrite if the block is no longer ours.

    The networks first: none of them moves then. The invoices keep two looks at one address from finding the same twice.
    """
    found = await store.read_findings(connection, network.name, addresses)
    subjects = await store.read_subjects(connection, network.name, network.family, block.height, addresses)
    ids = sorted({one.invoice_id for one in subjects.values()} | {one.invoice_id for one in found})
    names = {network.name, *await invoice_store.networks_of(connection, ids)}
    await network_store.share_networks(connection, sorted(names))
    await invoice_store.SQL.lock_invoices.all(connection, ids=ids)
    pinned = await store.read_pinned(connection, network.name, block.hash)
    if pinned is None:
        raise StaleWrite("The block left the best chain while balances were read.", object_id=block.hash)
    return pinned


def _judged(network: Network, block: BlockRef, subject: store.Subject, state: AccountState) -> Look:
    finding = judge_balance(
        state,
        decimals=network.native.decimals,
        received=subject.received,
        baseline=subject.baseline,
        received_since=subject.received_since,
    )
    return Look(network.name, subject.address, subject.invoice_id, block, state, subject.received, finding)


async def _keep(work: _Work, subject: store.Subject, amount: int) -> None:
    """What is left over becomes a transfer, or an earlier one whose block left the best chain stands again."""
    known = [one for one in work.found if one.address == subject.address]
    for one in known:
        if not one.stands and one.amount <= amount:
            await store.SQL.anchor_finding.run(
                work.connection,
                transfer_id=one.transfer_id,
                network=work.network.name,
                block_hash=work.pinned.hash,
            )
            work.touched.add(one.invoice_id)
            amount -= one.amount
    if amount == 0:
        return
    tx_hash = f"balance:{subject.address}:{work.pinned.hash}"
    transfer_id = work.ctx.new_id(IdKind.TRANSFER)
    await store.SQL.insert_finding.run(
        work.connection,
        id=transfer_id,
        network=work.network.name,
        tx_hash=tx_hash,
        ordinal=sum(one.tx_hash == tx_hash for one in known),
        recipient=subject.address,
        symbol=work.network.native.symbol,
        decimals=work.network.native.decimals,
        amount=amount,
        evidence_at=work.pinned.time,
        at=work.ctx.now(),
        merchant_id=subject.merchant_id,
        invoice_id=subject.invoice_id,
        option_id=subject.option_id,
    )
    await store.SQL.anchor_finding.run(
        work.connection, transfer_id=transfer_id, network=work.network.name, block_hash=work.pinned.hash
    )
    work.touched.add(subject.invoice_id)


def _row(look: Look, subject: store.Subject, now: datetime) -> dict[str, Any]:
    return {
        "network": look.network,
        "address": look.address,
        "family": subject.family,
        "invoice_id": subject.invoice_id,
        "due_at": next_look(subject.started_at, now),
        "at": now,
        "block_hash": look.block.hash,
        "block_height": look.block.height,
        "balance": look.state.balance,
        "nonce": look.state.nonce,
        "outcome": look.finding.outcome,
    }


def next_look(started_at: datetime | None, now: datetime) -> datetime | None:
    """When an address is looked at next, after a look at `now`; None when no more is planned."""
    if started_at is None:
        return None
    return next((started_at + after for after in LOOK_AFTER if started_at + after > now), None)


def _evidence(network: Network, look: Look) -> dict[str, Any]:
    decimals = network.native.decimals
    return {
        "type": "balance",
        "network": network.name,
        "address": FAMILIES[network.family].display(look.address, network),
        "block_hash": look.block.hash,
        "block_height": look.block.height,
        "balance": format_units(look.state.balance, decimals),
        "seen_arriving": format_units(look.received, decimals),
        "unexplained": format_units(look.finding.amount, decimals),
        "transactions_sent": look.state.nonce,
    }
