"""Nodes that lie, lag, break and disagree, with the real loops running: noticed, waited out, one credit at the end.

Cites F-NODE 1-5, R-CHAIN 6, 9-10, design idea 8. The lies are `tests/support/lying_proxy.py`'s, before a real anvil.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

import pytest

from tallystick.core.errors import SourceError
from tallystick.services import objects
from tests.support.anvil import start_anvil, unique_chain_id
from tests.support.evm import Chain
from tests.support.invariants import check_invariants
from tests.support.lying_proxy import Fault, LyingProxy
from tests.support.stand import Stand, address_in, evm_network, open_stand, units, until


@pytest.fixture
async def proxy(chain: Chain) -> AsyncIterator[LyingProxy]:
    """What stands between the shop and the chain."""
    async with LyingProxy(chain.url) as between:
        yield between


@pytest.fixture
async def behind(database_url: str, chain: Chain, token: str, proxy: LyingProxy) -> AsyncIterator[Stand]:
    """A shop that sees the chain through the proxy only."""
    await chain.mine(15)
    async with open_stand(
        database_url, (evm_network("local", chain.chain_id, token=token), proxy.url)
    ) as shop:
        yield shop


async def assert_paid_once(stand: Stand, invoice: objects.Invoice) -> None:
    """Exactly one credit."""
    paid = await stand.get(invoice)
    assert (paid.status, paid.amount_paid, len(paid.payments)) == ("paid", "25.00", 1)
    assert await stand.event_types(paid.payments[0].id) == ["payment.detected", "payment.confirmed"]


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        (Fault.NULL_RECEIPTS, "degraded"),
        (Fault.ONE_NULL_RECEIPT, "degraded"),
        (Fault.MISSING_RECEIPT, "degraded"),
        (Fault.EMPTY_LOGS, "degraded"),
        (Fault.EMPTY_LOGS_AND_BLOOMS, "degraded"),
        (Fault.DROPPED_LAST_LOG, "degraded"),
        (Fault.DOUBLED_LOG, "degraded"),
        (Fault.TRUNCATED_JSON, "degraded"),
        (Fault.NULL_BLOCK, "degraded"),
        (Fault.OTHER_CHAIN, "misconfigured"),
        (Fault.TOO_MANY_REQUESTS, "degraded"),
        (Fault.SERVER_ERROR, "degraded"),
        (Fault.HTML, "degraded"),
        (Fault.NOT_UTF8, "degraded"),
        (Fault.DROPPED_CONNECTION, "degraded"),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Fault) else value,
)
async def test_a_lie_is_noticed_and_the_truth_credited_once(
    behind: Stand, chain: Chain, proxy: LyingProxy, token: str, fault: Fault, shown: str
) -> None:
    """While the node lies nothing is credited or skipped; after it everything is there (F-NODE 2, 4, 5).

    Bug planted: an incomplete block taken as an empty one; the payment is lost. The trouble also stays shown: it did
    not, since every attempt said `following` before it failed.
    """
    proxy.retry_after = "0"
    invoice = await behind.create("25.00", ("DUSD", "local"))
    before = await behind.network()
    proxy.lie(fault)
    await chain.send_token(token, address_in(invoice), units("25", 6))
    await chain.mine(3)
    async with behind.running():
        seen = await behind.until_network(shown)
        assert seen.problem
        assert seen.height == before.height
        asked = proxy.requests
        while proxy.requests < asked + 8:  # it goes on asking, and on saying so
            now = await behind.network()
            assert (now.status, now.height) == (shown, before.height)
            await asyncio.sleep(0.01)
        assert await behind.status(invoice) == "awaiting_payment"
        proxy.lie(None)
        await behind.until_status(invoice, "paid")
        await behind.until_network("following")
    await assert_paid_once(behind, invoice)


async def test_an_older_head_rewinds_nothing(behind: Stand, chain: Chain, proxy: LyingProxy) -> None:
    """A load balancer's other node is ten blocks behind: shown, but no payment loses a confirmation (F-NODE 3).

    Bug planted: a lower head taken as a reorganisation; the invoice steps back.
    """
    invoice = await behind.create("25.00")
    await chain.send_native(address_in(invoice), units("0.01"))
    await chain.mine(3)
    await behind.follow()
    before = await behind.network()
    proxy.lie(Fault.OLDER_HEAD)
    async with behind.running():
        seen = await behind.until_network("degraded")
        assert (seen.height, seen.head) == (before.height, await chain.height() - 10)
        assert await behind.status(invoice) == "paid"
        proxy.lie(None)
        await chain.mine()
        await behind.until_network("following")
    await assert_paid_once(behind, invoice)
    assert await behind.way(invoice) == ["created", "quoted", "awaiting_payment", "confirming", "paid"]


async def test_down_from_before_the_first_block(database_url: str, chain: Chain, proxy: LyingProxy) -> None:
    """A network never reached is unavailable, not degraded, and begins by itself once there is a node."""
    proxy.lie(Fault.SERVER_ERROR)
    network = evm_network("local", chain.chain_id)
    async with open_stand(database_url, (network, proxy.url), follow=False) as stand, stand.running():
        await until(lambda: has_problem(stand))
        assert (await stand.network()).status == "unavailable"
        proxy.lie(None)
        await stand.until_network("following")


async def has_problem(stand: Stand) -> bool:
    """Whether operators are shown one."""
    return (await stand.network()).problem is not None


async def test_lies_in_the_middle_of_a_reorganisation(behind: Stand, chain: Chain, proxy: LyingProxy) -> None:
    """Nothing is half changed: either the whole old branch stands or the whole new one."""
    invoice = await behind.create("25.00")
    sent = await chain.send_native(address_in(invoice), units("0.01"))
    await chain.mine(3)
    await behind.follow()
    old, height = await cursor_hash(behind), await chain.height()
    await chain.reorg(3, [(sent, 2)])
    new = await chain.block_hash(height)
    for fault in (Fault.NULL_RECEIPTS, Fault.NULL_BLOCK, Fault.TRUNCATED_JSON):
        for lies in range(1, 6):
            proxy.lie(fault, times=lies)
            with contextlib.suppress(SourceError):
                await behind.followers["local"].poll()
            assert await cursor_hash(behind) in {old, new}
            await check_invariants(behind.ctx)
    proxy.lie(None)
    await behind.follow()
    assert await cursor_hash(behind) == new
    assert await behind.status(invoice) == "confirming"
    await chain.mine(2)
    await behind.follow()
    seen = await behind.get(invoice)
    assert (seen.status, len(seen.payments)) == ("paid", 1)


async def cursor_hash(stand: Stand) -> str:
    """The last processed block."""
    return str((await stand.rows("SELECT cursor_hash FROM networks"))[0]["cursor_hash"])


async def test_two_nodes_that_disagree_hold_crediting(database_url: str, chain: Chain, token: str) -> None:
    """Each is right by itself; which one is true is not ours to guess. When they agree, all is credited once.

    Bug planted: agreement not asked for; the payment is credited on one node's word.
    """
    async with LyingProxy(chain.url) as second:
        network = evm_network("local", chain.chain_id, token=token)
        async with open_stand(database_url, (network, (chain.url, second.url))) as stand:
            invoice = await stand.create("25.00", ("DUSD", "local"))
            height = (await stand.network()).height
            second.lie(Fault.OTHER_HASH)
            await chain.send_token(token, address_in(invoice), units("25", 6))
            await chain.mine(3)
            async with stand.running():
                seen = await stand.until_network("degraded")
                assert seen.height == height
                assert "another node" in str(seen.problem)
                assert await stand.status(invoice) == "awaiting_payment"
                second.lie(None)
                await stand.until_status(invoice, "paid")
            await assert_paid_once(stand, invoice)


async def test_the_second_node_serves_while_the_first_is_dead(database_url: str, chain: Chain) -> None:
    """One dead node of two is no trouble for anybody."""
    async with LyingProxy(chain.url) as first:
        network = evm_network("local", chain.chain_id)
        async with open_stand(database_url, (network, (first.url, chain.url))) as stand:
            invoice = await stand.create("25.00")
            first.lie(Fault.SERVER_ERROR)
            await chain.send_native(address_in(invoice), units("0.01"))
            await chain.mine(3)
            async with stand.running():
                await stand.until_status(invoice, "paid")
            await assert_paid_once(stand, invoice)


async def test_another_genesis_is_another_chain(behind: Stand, chain: Chain) -> None:
    """The node was replaced by one of a fresh chain under the same id: refused, nothing read from it (F-NODE 2).

    Bug planted: the genesis not compared with the stored one; the network halts or goes on instead.
    """
    invoice = await behind.create("25.00")
    before = await behind.network()
    extra = ["--timestamp", str(await chain.time() + 10)]
    async with start_anvil(chain_id=chain.chain_id, extra=extra) as node:
        await node.mine(50)
        await behind.restart(url=node.url)
        async with behind.running():
            seen = await behind.until_network("misconfigured")
            assert "genesis" in str(seen.problem)
        assert seen.height == before.height
    await behind.restart(url=chain.url)
    async with behind.running():
        await chain.send_native(address_in(invoice), units("0.01"))
        await chain.mine(3)
        await behind.until_status(invoice, "paid")
        await behind.until_network("following")


async def test_another_chain_id_is_refused_before_the_first_block(database_url: str, chain: Chain) -> None:
    """A configuration that names another chain than its node serves never gets a cursor."""
    network = dataclasses.replace(evm_network("local", chain.chain_id), chain=str(unique_chain_id()))
    async with open_stand(database_url, (network, chain.url), follow=False) as stand, stand.running():
        seen = await stand.until_network("misconfigured")
        assert seen.height is None
