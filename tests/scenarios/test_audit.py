"""The audit of a whole database: silent about one in order, also while it is written; every kind of tampering is named.

Planted bugs that were seen to fail: no second look (what is mended between the looks is told); a comparison that looks
only at hashes (what is missing and what is invented stay unseen); a block that could not be read counted as compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import pytest

from tallystick.chains.evm.source import EvmSource
from tallystick.chains.source import ChainIdentity
from tallystick.core.chain import Block
from tallystick.core.errors import WrongChain
from tallystick.db.pool import Database
from tallystick.services import audit_database
from tallystick.services.audit_chain import Compared, chosen_heights, compare, heights_to_compare
from tallystick.services.audit_database import Report, audit
from tallystick.services.context import Context
from tallystick.services.refund_decisions import approve_refund
from tallystick.services.refunds import NewRefund, create_refund
from tallystick.services.webhooks import NewEndpoint, create_endpoint
from tests.conftest import database_url_for
from tests.support.evm import Chain
from tests.support.lying_proxy import Fault, LyingProxy
from tests.support.stand import Stand, address_in, evm_network, evm_options, open_stand, units

UNGUARDED = "SET session_replication_role = replica;"


async def busy_day(stand: Stand, chain: Chain) -> None:
    """A paid invoice of which a part is given back, a replaced payment, a reorganisation, one that waits."""
    async with stand.ctx.database.transaction() as connection:
        new = NewEndpoint("http://127.0.0.1:9/hook")
        await create_endpoint(connection, stand.ctx, stand.merchant_id, new)
    paid = await stand.create("25.00")
    undone = await stand.create("25.00")
    await stand.create("25.00")
    await chain.send_native(address_in(paid), units("0.01"))
    await chain.mine(3)
    await stand.follow()
    lost = await chain.send_native(address_in(undone), units("0.004"), sender=3)
    await chain.mine(2)
    await stand.follow()
    instead = await chain.sign(to=address_in(paid), value=units("0.001"), sender=3, nonce=lost.nonce)
    await chain.reorg(2, [(instead, 0)])
    await chain.mine(3)
    await stand.follow()
    part = NewRefund("a part", invoice_id=paid.id, amount="0.001", address=f"0x{'c0ffee' * 6}0001")
    asked = await stand.do(create_refund, part)
    await stand.do(approve_refund, asked.id, "looks right")


@pytest.fixture
async def busy(stand: Stand, chain: Chain) -> Stand:
    """The shop after such a day."""
    await busy_day(stand, chain)
    return stand


async def look(ctx: Context, **options: Any) -> Report:
    """An audit that does not wait between its looks."""
    return await audit(ctx, second_look_seconds=0, **options)


def rules(report: Report | Compared) -> set[str]:
    """Which rules are broken."""
    return {problem.rule for problem in report.problems}


async def test_a_database_in_order_is_found_so_with_figures(busy: Stand) -> None:
    told: list[tuple[int, int]] = []
    report = await look(busy.ctx, on_progress=lambda done, of: told.append((done, of)))
    assert report.problems == ()
    assert told[-1] == (3, 3)
    rows = await busy.rows("SELECT count(*) FROM transitions")
    assert report.checked["transitions"] == report.checked["log_rows"] == rows[0][0] > 10
    assert report.checked["invoices"] == 3
    assert report.checked["problems"] == 0
    assert report.ends[busy.merchant_id][0] == rows[0][0]


async def test_it_runs_in_batches(busy: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_database, "BATCH_INVOICES", 1)
    told: list[int] = []
    report = await look(busy.ctx, on_progress=lambda done, _of: told.append(done))
    assert (report.problems, told) == ((), [1, 2, 3])


# What is done behind our back, as the owner of the database; and the rules of which every one has to tell.
TAMPERING: dict[str, tuple[str, set[str]]] = {
    "a status": (
        "UPDATE invoices SET status = 'settled' WHERE status = 'paid'",
        {"replay-status", "transition-last"},
    ),
    "an amount paid": (
        "UPDATE invoices SET amount_paid = 9 WHERE status = 'paid'",
        {"replay-amount", "amount-paid"},
    ),
    "a posting": (
        "UPDATE postings SET amount = amount * 2 WHERE entry_id = (SELECT min(id) FROM ledger_entries)",
        {"replay-books", "account-onchain"},
    ),
    "one posting of two": (
        "UPDATE postings SET amount = amount + 1 WHERE account = 'onchain'",
        {"entry-balance", "account-sum"},
    ),
    "an event removed": (
        "DELETE FROM events WHERE type = 'invoice.confirming'",
        {"transition-event", "event-gap"},
    ),
    "an event's body": (
        """UPDATE events SET body = replace(body::text, 'invoice.paid', 'invoice.canceled')::json
        WHERE type = 'invoice.paid'""",
        {"transition-event"},
    ),
    "a transfer's amount": ("UPDATE transfers SET amount = amount * 3", {"replay-books", "amount-paid"}),
    "a cursor moved back": (
        """UPDATE networks SET cursor_height = cursor_height - 1, cursor_hash = (SELECT b.hash FROM blocks AS b
        WHERE b.in_best_chain AND b.height = cursor_height - 1)""",
        {"chain-cursor"},
    ),
    "a transition": ("UPDATE transitions SET reason = 'decided' WHERE to_status = 'paid'", {"log-hash"}),
    "a time in history": (
        "UPDATE transitions SET at = at - interval '1 day' WHERE sequence = 2",
        {"log-hash"},
    ),
    "an anchor removed": (
        "DELETE FROM anchors WHERE transfer_id = (SELECT transfer_id FROM payments WHERE status = 'confirmed' LIMIT 1)",
        {"payment-confirmed", "replay-payment"},
    ),
    "a block flipped": (
        "UPDATE blocks SET in_best_chain = false WHERE height = (SELECT max(height) - 1 FROM blocks)",
        {"chain-gap"},
    ),
    "a lost block taken back in": (
        "DROP INDEX blocks_best_height; UPDATE blocks SET in_best_chain = true",
        {"chain-height"},
    ),
    "an address": (
        """UPDATE addresses SET address = '0x00' || substr(address, 5); UPDATE payment_options AS o
        SET address = a.address FROM addresses AS a WHERE a.option_id = o.id AND o.address IS NOT NULL""",
        {"address-derived"},
    ),
    "a quote": (
        """UPDATE quotes SET amount_expected = amount_expected / 2; UPDATE payment_options
        SET amount_expected = amount_expected / 2""",
        {"quote-price"},
    ),
    "a refund's amount": (
        "UPDATE refunds SET amount = amount * 50, amount_sent = amount_sent * 50",
        {"refund-credit"},
    ),
    "a wakeup removed": ("DELETE FROM wakeups", {"replay-wakeups", "invoice-idle"}),
    "a merchant's payment": ("UPDATE payments SET merchant_id = 'mer_x'", {"owner-money"}),
    "a guard switched off": ("ALTER TABLE ledger_entries DISABLE TRIGGER ALL", {"guard"}),
    "a reference dropped": ("ALTER TABLE transitions DROP CONSTRAINT transitions_logged", {"guard"}),
    "a decision invented": (
        """INSERT INTO decisions (invoice_id, merchant_id, kind, note, actor_type, at)
        SELECT id, merchant_id, 'open_dispute', 'x', 'operator', now() FROM invoices""",
        {"replay-status"},
    ),
    "a row that cannot be read": (
        "ALTER TABLE payments DROP CONSTRAINT payments_status_check; UPDATE payments SET status = 'fine'",
        {"unreadable"},
    ),
}


@asynccontextmanager
async def copied(ctx: Context, template: str, name: str) -> AsyncIterator[Context]:
    """The same database again, to break it. Nobody may be connected to the template."""
    async with administrator(ctx.database.url) as connection:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    database = await Database.open(database_url_for(ctx.database.url, name))
    try:
        yield replace(ctx, database=database)
    finally:
        await database.close()
        async with administrator(ctx.database.url) as connection:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def administrator(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(database_url_for(url, "postgres"))
    try:
        yield connection
    finally:
        await connection.close()


async def test_every_kind_of_tampering_is_found_and_named(
    database_url: str, chain: Chain, token: str
) -> None:
    network = evm_network("local", chain.chain_id, token=token)
    async with open_stand(database_url, (network, chain.url)) as stand:
        await busy_day(stand, chain)
    template = database_url.split("@/", 1)[1].split("?", 1)[0]
    missed = []
    for number, (what, (statement, expected)) in enumerate(TAMPERING.items()):
        async with copied(stand.ctx, template, f"{template}_{number}") as ctx:
            async with ctx.database.connection() as connection:
                await connection.execute(f"{UNGUARDED} {statement}; RESET session_replication_role")
            found = rules(await look(ctx))
        if not found >= expected:
            missed.append((what, expected - found, found))
    assert not missed


async def test_ends_of_a_broken_log_are_not_for_noting_however_much_else_is_wrong(
    database_url: str, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noting them would hide for ever that the log was rewritten.

    Seen to fail where the command looked for problems of the log among those that are told: there are at most so many.
    """
    async with open_stand(database_url, (evm_network("local", chain.chain_id), chain.url)) as stand:
        await busy_day(stand, chain)
    monkeypatch.setattr(audit_database, "PROBLEMS_MAX", 1)
    template = database_url.split("@/", 1)[1].split("?", 1)[0]
    async with copied(stand.ctx, template, f"{template}_ends") as ctx:
        assert (await look(ctx)).logs_in_order
        async with ctx.database.connection() as connection:
            await connection.execute(f"{UNGUARDED} UPDATE networks SET safe_height = cursor_height + 1")
        elsewhere = {stand.merchant_id: (1, "00" * 32)}
        noted_otherwise = await look(ctx, noted=elsewhere)
        async with ctx.database.connection() as connection:
            await connection.execute("UPDATE transitions SET actor_id = 'me' WHERE sequence = 2")
        edited = await look(ctx)
    for report in (noted_otherwise, edited):
        assert rules(report) == {"chain-finality"}
        assert not report.logs_in_order


async def test_what_is_mended_before_the_second_look_is_not_told(
    busy: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As something that is only wrong for the moment of one snapshot."""
    looked = 0

    async def mend(_seconds: float) -> None:
        nonlocal looked
        looked += 1
        await busy.rows(
            "UPDATE invoices SET amount_paid = amount_paid - 1 WHERE status = 'paid' RETURNING id"
        )

    await busy.rows("UPDATE invoices SET amount_paid = amount_paid + 1 WHERE status = 'paid' RETURNING id")
    monkeypatch.setattr("tallystick.services.audit_database.asyncio.sleep", mend)
    report = await look(busy.ctx)
    assert (report.problems, looked) == ((), 1)


async def test_nothing_is_told_of_a_database_in_order_while_it_is_written(stand: Stand, chain: Chain) -> None:
    """Invoices are made and paid, blocks come and go, and audits run without a pause."""
    audits = 0

    async def keep_looking() -> None:
        nonlocal audits
        while True:
            report = await audit(stand.ctx, second_look_seconds=0.2)
            assert report.problems == ()
            audits += 1

    async with stand.running(), asyncio.timeout(60):
        looking = [asyncio.create_task(keep_looking()) for _ in range(2)]
        for _ in range(5):
            made = await asyncio.gather(*(stand.create("25.00") for _ in range(5)))
            for invoice in made:
                await chain.send_native(address_in(invoice), units("0.01"))
            await chain.mine(2)
            await asyncio.sleep(0.1)  # some blocks are read before they are taken back, some are not
            await chain.reorg(1)
            await chain.mine(2)
        while audits < 6 and not any(task.done() for task in looking):
            await asyncio.sleep(0.05)
        for task in looking:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    assert audits >= 6


# Another node ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class OtherNode:
    """Another node's source: it says what the honest one says, changed by `change` wherever something of ours is."""

    honest: EvmSource
    change: Callable[[Block], Block] = lambda block: block
    read: list[int] = field(default_factory=list)

    async def identity(self) -> ChainIdentity:
        return await self.honest.identity()

    async def block_at(self, height: int) -> Block:
        self.read.append(height)
        block = await self.honest.block_at(height)
        return self.change(block) if block.transfers else block


async def compared(stand: Stand, source: Any, wanted: Any = "all") -> Compared:
    network = stand.ctx.networks["local"]
    heights, _ = await heights_to_compare(stand.ctx, "local", wanted)
    return await compare(stand.ctx, network, source, heights, second_look_seconds=0)


async def test_an_honest_node_agrees_about_every_block(busy: Stand) -> None:
    found = await compared(busy, busy.sources["local"])
    rows = await busy.rows("SELECT count(*) FROM blocks WHERE in_best_chain")
    assert found.problems == []
    assert (found.blocks, found.blocks_unread) == (rows[0][0], 0)
    assert found.transfers == 2


def _without(block: Block) -> Block:
    return replace(block, transfers=block.transfers[1:])


def _dearer(block: Block) -> Block:
    first, *others = block.transfers
    return replace(block, transfers=(replace(first, amount=first.amount + 1), *others))


def _doubled(block: Block) -> Block:
    first = block.transfers[0]
    return replace(block, transfers=(*block.transfers, replace(first, tx_hash=f"0x{'ab' * 32}")))


LIES: dict[str, tuple[Callable[[Block], Block], set[str]]] = {
    "another block": (
        lambda block: replace(block, header=replace(block.header, hash=f"0x{'00' * 32}")),
        {"block-hash"},
    ),
    "another parent": (
        lambda block: replace(block, header=replace(block.header, parent_hash=f"0x{'00' * 32}")),
        {"block-link"},
    ),
    "a transfer less": (_without, {"transfer-invented"}),
    "a transfer more": (_doubled, {"transfer-missing"}),
    "another amount": (_dearer, {"transfer-invented", "transfer-missing"}),
    "another sender": (
        lambda block: replace(
            block, transfers=tuple(replace(one, sender=f"0x{'11' * 20}") for one in block.transfers)
        ),
        {"transfer-invented"},
    ),
    "nothing spent": (lambda block: replace(block, spends={}), {"conflict-invented"}),
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_another_node_says_otherwise_is_named(busy: Stand, lie: str) -> None:
    """Its blocks are whole and fit together, so nothing but the comparison can tell."""
    change, expected = LIES[lie]
    assert rules(await compared(busy, OtherNode(busy.sources["local"], change))) == expected


STORED_OTHERWISE: dict[str, tuple[str, set[str]]] = {
    "an amount": (
        "UPDATE transfers SET amount = amount + 1 WHERE id = (SELECT min(id) FROM transfers)",
        {"transfer-invented", "transfer-missing"},
    ),
    "places removed": ("DELETE FROM anchors", {"transfer-missing"}),
    "places moved": (
        "UPDATE anchors SET block_hash = (SELECT hash FROM blocks WHERE in_best_chain ORDER BY height LIMIT 1)",
        {"transfer-invented", "transfer-missing"},
    ),
    "a transfer invented": (
        """CREATE TABLE again AS SELECT * FROM transfers LIMIT 1; UPDATE again SET id = 'trf_0', tx_hash = '0x00';
        INSERT INTO transfers SELECT * FROM again; INSERT INTO anchors SELECT 'trf_0', network, block_hash, 3
        FROM anchors LIMIT 1""",
        {"transfer-invented"},
    ),
    "a time": (
        "UPDATE blocks SET time = time + interval '1 second' WHERE height = (SELECT min(height) FROM blocks)",
        {"block-link"},
    ),
    "a hash": (
        "UPDATE blocks SET hash = '0x00' WHERE height = (SELECT min(height) FROM blocks)",
        {"block-hash"},
    ),
    "a replacement": ("UPDATE conflicts SET tx_hash = '0x00'", {"conflict-invented"}),
}


async def test_what_is_stored_otherwise_than_the_chain_has_it_is_named(
    database_url: str, chain: Chain, token: str
) -> None:
    network = evm_network("local", chain.chain_id, token=token)
    async with open_stand(database_url, (network, chain.url)) as stand:
        await busy_day(stand, chain)
    template = database_url.split("@/", 1)[1].split("?", 1)[0]
    source = EvmSource(evm_options(network, chain.url))
    missed = []
    for number, (what, (statement, expected)) in enumerate(STORED_OTHERWISE.items()):
        async with copied(stand.ctx, template, f"{template}_{number}") as ctx:
            async with ctx.database.connection() as connection:
                await connection.execute(f"{UNGUARDED} {statement}; RESET session_replication_role")
            found = rules(await compared(replace(stand, ctx=ctx), source))
        if found != expected:
            missed.append((what, expected, found))
    await source.close()
    assert not missed


async def test_what_a_node_does_not_tell_is_no_agreement(busy: Stand, chain: Chain) -> None:
    """A node whose answers do not fit together is not believed; what is above its head is not read either."""
    network = busy.ctx.networks["local"]
    async with LyingProxy(chain.url) as proxy:
        source = EvmSource(evm_options(network, proxy.url))
        try:
            await source.identity()
            proxy.lie(Fault.NULL_RECEIPTS)
            found = await compared(busy, source)
            assert found.problems == []
            assert found.blocks_unread == len(found.unread) > 0
            assert found.transfers == 0
            proxy.lie(Fault.OTHER_CHAIN)
            stranger = EvmSource(evm_options(network, proxy.url))
            try:
                with pytest.raises(WrongChain):
                    await compared(busy, stranger)
            finally:
                await stranger.close()
        finally:
            await source.close()


async def test_only_chosen_blocks_are_read(busy: Stand) -> None:
    node = OtherNode(busy.sources["local"])
    await compared(busy, node, 3)
    top = (await busy.network()).height
    assert top is not None
    assert sorted(node.read) == [top - 2, top - 1, top]
    node.read.clear()
    await compared(busy, node, (2, 3))
    assert sorted(node.read) == [2, 3]


def test_unless_said_otherwise_ours_the_newest_and_a_sample_are_compared() -> None:
    heights = chosen_heights(range(10_000), [17, 5_001])
    assert {17, 5_001, 0, 9_999, 9_936} <= set(heights)
    assert 9_900 in heights  # of the sample
    assert len(heights) < 170
    assert chosen_heights([], []) == []
