"""Nodes that lie, lag, break and disagree, with the real loops running: noticed, waited out, one credit at the end.

Cites F-NODE 1-5, R-CHAIN 6, 9-10, design idea 8. The lies are `tests/support/lying_proxy.py`'s, before a real anvil.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tallystick.chains.json_rpc import RpcLimits
from tallystick.core.errors import SourceError
from tallystick.services import objects
from tests.support.anvil import start_anvil, unique_chain_id
from tests.support.evm import Chain
from tests.support.invariants import check_invariants
from tests.support.lying_proxy import Fault, LyingProxy
from tests.support.stand import Clock, Stand, address_in, evm_network, open_stand, units, until

TESTS = Path(__file__).parents[1]


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


LIMITS = RpcLimits(
    attempts_max=1, total_timeout_seconds=1.0, connect_timeout_seconds=1.0, response_bytes_max=1_000_000
)
BODY, BLOCK, TRANSPORT = "receipts", "blocks", "transport"
# Each is noticed while it lasts, with the payment in question (a token, or coins), and as what it is shown.
NOTICED: dict[str, dict[Fault, tuple[str, str]]] = {
    BODY: {
        Fault.NULL_RECEIPTS: ("DUSD", "degraded"),
        Fault.ONE_NULL_RECEIPT: ("DUSD", "degraded"),
        Fault.MISSING_RECEIPT: ("DUSD", "degraded"),
        Fault.FOREIGN_BLOCK: ("DUSD", "degraded"),
        Fault.NO_STATUS: ("DUSD", "degraded"),
        Fault.EMPTY_LOGS: ("DUSD", "degraded"),
        Fault.EMPTY_LOGS_AND_BLOOMS: ("DUSD", "degraded"),
        Fault.DROPPED_LAST_LOG: ("DUSD", "degraded"),
        Fault.DOUBLED_LOG: ("DUSD", "degraded"),
        Fault.REMOVED_LOG: ("DUSD", "degraded"),
        Fault.CHANGED_RECEIVER: ("DUSD", "degraded"),
    },
    BLOCK: {
        Fault.NULL_BLOCK: ("ETH", "degraded"),
        Fault.EMPTY_BLOCK: ("ETH", "degraded"),
        Fault.OTHER_HEIGHT: ("ETH", "degraded"),
        Fault.OTHER_CHAIN: ("ETH", "misconfigured"),
        Fault.SHORT_BATCH: ("ETH", "degraded"),
        Fault.WRONG_ID: ("ETH", "degraded"),
        Fault.NO_RESULT: ("ETH", "degraded"),
        Fault.ERROR_OBJECT: ("ETH", "degraded"),
        Fault.LIMIT_ERROR: ("ETH", "degraded"),
    },
    TRANSPORT: {
        Fault.TOO_MANY_REQUESTS: ("ETH", "degraded"),
        Fault.SERVER_ERROR: ("ETH", "degraded"),
        Fault.HTML: ("ETH", "degraded"),
        Fault.REDIRECT: ("ETH", "degraded"),
        Fault.NOT_UTF8: ("ETH", "degraded"),
        Fault.TRUNCATED_JSON: ("ETH", "degraded"),
        Fault.DEEP_JSON: ("ETH", "degraded"),
        Fault.HUGE_BODY: ("ETH", "degraded"),
        Fault.DROPPED_CONNECTION: ("ETH", "degraded"),
        Fault.SILENCE: ("ETH", "degraded"),
    },
}
# What is no trouble: the payment is credited all the same.
HARMLESS = (Fault.SHUFFLED_BATCH, Fault.NO_TAGS, Fault.NULL_TAGS)
_FAULTS, _TRACES = "chains/evm/test_faults.py", "chains/evm/test_traces.py"
# Faults that need something else around them.
ELSEWHERE = {
    Fault.SWAPPED_RECEIPTS: f"{_FAULTS}::test_block_faults_are_noticed_and_pass",
    Fault.OTHER_HASH: "scenarios/test_nodes.py::test_two_nodes_that_disagree_hold_crediting",
    Fault.OLDER_HEAD: "scenarios/test_nodes.py::test_an_older_head_rewinds_nothing",
    Fault.FROZEN_HEAD: "scenarios/test_nodes.py::test_a_frozen_node_expires_nothing_and_is_caught_up_with",
    Fault.OTHER_GENESIS: f"{_FAULTS}::test_other_genesis_is_refused",
    Fault.EMPTY_TRACES: f"{_TRACES}::test_a_lie_is_asked_again_for_ever",
    Fault.SHORT_TRACES: f"{_TRACES}::test_a_lie_is_asked_again_for_ever",
    Fault.NULL_TRACES: f"{_TRACES}::test_a_lie_is_asked_again_for_ever",
    Fault.NO_TRACING: f"{_TRACES}::test_a_node_without_tracing_is_asked_once",
    Fault.TRACES_REFUSED: f"{_TRACES}::test_a_refusal_is_said_with_the_block",
    Fault.TRACES_FORBIDDEN: f"{_TRACES}::test_a_refusal_is_said_with_the_block",
}
# Every fault that F-NODE names, and what shows it: lies of the tables above, or tests by their names.
F_NODE: dict[str, tuple[Fault | str, ...]] = {
    "1 behind": (Fault.OLDER_HEAD, f"{_FAULTS}::test_silence_and_lag_are_no_disagreement"),
    "1 stuck or frozen: shown, expiry waits": (Fault.FROZEN_HEAD,),
    "1 expiry waits while it is down": (
        "scenarios/test_windows.py::test_nothing_paid_in_time_expires_because_the_node_was_down",
    ),
    "1 catch-up of any length, in order": (
        "scenarios/test_isolation.py::test_catching_up_three_hundred_blocks_with_interruptions",
    ),
    "2 wrong chain id": (
        Fault.OTHER_CHAIN,
        "scenarios/test_nodes.py::test_another_chain_id_is_refused_before_the_first_block",
        f"{_FAULTS}::test_a_node_back_on_another_chain_is_refused",
    ),
    "2 wrong genesis": (
        Fault.OTHER_GENESIS,
        "scenarios/test_nodes.py::test_another_genesis_is_another_chain",
    ),
    "3 load-balanced nodes disagree": (
        "scenarios/test_nodes.py::test_a_load_balancer_with_a_bad_node",
        "scenarios/test_nodes.py::test_lies_in_the_middle_of_a_reorganisation",
    ),
    "3 the head goes backwards": (Fault.OLDER_HEAD, f"{_FAULTS}::test_an_older_head_is_told_as_it_is"),
    "3 disagreement holds crediting": (Fault.OTHER_HASH, f"{_FAULTS}::test_disagreement_is_an_error"),
    "4 limits and ranges of eth_getLogs": ("scenarios/test_nodes.py::test_no_range_is_ever_asked_for",),
    "4 truncated": (
        Fault.MISSING_RECEIPT,
        Fault.DROPPED_LAST_LOG,
        Fault.SHORT_TRACES,
        Fault.SHORT_BATCH,
        Fault.TRUNCATED_JSON,
    ),
    "4 empty without an error": (
        Fault.EMPTY_LOGS,
        Fault.EMPTY_LOGS_AND_BLOOMS,
        Fault.EMPTY_BLOCK,
        Fault.EMPTY_TRACES,
        Fault.NO_RESULT,
    ),
    "4 null": (
        Fault.NULL_RECEIPTS,
        Fault.ONE_NULL_RECEIPT,
        Fault.NULL_BLOCK,
        Fault.NULL_TRACES,
        Fault.NULL_TAGS,
    ),
    "4 logs twice": (Fault.DOUBLED_LOG,),
    "4 logs removed": (Fault.REMOVED_LOG,),
    "4 not what was asked for": (
        Fault.FOREIGN_BLOCK,
        Fault.OTHER_HEIGHT,
        Fault.SWAPPED_RECEIPTS,
        Fault.CHANGED_RECEIVER,
        Fault.NO_STATUS,
        "fuzz/test_rpc_answers.py::",
    ),
    "4 refused": (Fault.NO_TAGS, Fault.NO_TRACING, Fault.TRACES_REFUSED, Fault.TRACES_FORBIDDEN),
    "5 429": (
        Fault.TOO_MANY_REQUESTS,
        Fault.LIMIT_ERROR,
        f"{_FAULTS}::test_retry_after_is_told_and_not_waited_for",
    ),
    "5 5xx": (Fault.SERVER_ERROR, Fault.ERROR_OBJECT, f"{_FAULTS}::test_a_short_trouble_is_not_even_noticed"),
    "5 time-outs": (Fault.SILENCE, Fault.DROPPED_CONNECTION),
    "5 HTML": (Fault.HTML, Fault.REDIRECT, Fault.NOT_UTF8),
    "5 wrong id": (Fault.WRONG_ID,),
    "5 shuffled batches": (Fault.SHUFFLED_BATCH,),
    "5 huge bodies": (
        Fault.HUGE_BODY,
        Fault.DEEP_JSON,
        f"{_FAULTS}::test_huge_answers_are_not_read_to_the_end",
    ),
    "6 push channels are hints": ("chains/evm/test_rpc.py::test_unusable_urls_are_refused_without_an_echo",),
}


def test_every_fault_of_f_node_has_its_test() -> None:
    """The table is whole: each fault of the proxy is in it and shown somewhere, each test that it names exists."""
    shown = {fault for group in NOTICED.values() for fault in group} | set(HARMLESS) | set(ELSEWHERE)
    assert shown == set(Fault)
    named = [one for ways in F_NODE.values() for one in ways]
    assert {one for one in named if isinstance(one, Fault)} == set(Fault)
    for test in [one for one in named if not isinstance(one, Fault)] + list(ELSEWHERE.values()):
        file, _, name = test.partition("::")
        assert f"def {name}" in (TESTS / file).read_text(), test


@pytest.mark.parametrize("group", NOTICED)
async def test_a_lie_is_noticed_and_the_truth_credited_once(
    database_url: str, chain: Chain, proxy: LyingProxy, token: str, group: str
) -> None:
    """While the node lies nothing is credited or skipped; after it everything is there (F-NODE 2, 4, 5).

    Bug planted: an incomplete block taken as an empty one; the payment is lost. The trouble also stays shown: it did
    not, since every attempt said `following` before it failed. Found here: a block that came without its transactions
    was taken for an empty one where only coins were paid, since no log and no bloom missed them.
    """
    proxy.retry_after = "0"
    await chain.mine(15)
    network = evm_network("local", chain.chain_id, token=token)
    async with open_stand(database_url, (network, proxy.url), limits=LIMITS) as stand, stand.running():
        for fault, (asset, shown) in NOTICED[group].items():
            try:
                await lie_and_pay(stand, chain, proxy, token, fault, asset, shown)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"{fault.name}: {error}") from error


async def lie_and_pay(
    stand: Stand, chain: Chain, proxy: LyingProxy, token: str, fault: Fault, asset: str, shown: str
) -> None:
    """Lie while something is paid, see it noticed for several attempts, then tell the truth."""
    invoice = await stand.create("25.00", (asset, "local"))
    await stand.until_network("following")
    before = await stand.network()
    proxy.lie(fault)
    if asset == "ETH":
        await chain.send_native(address_in(invoice), units("0.01"))
    else:
        await chain.send_token(token, address_in(invoice), units("25", 6))
    await chain.mine(3)
    seen = await stand.until_network(shown)
    assert seen.problem
    assert seen.height == before.height
    asked = proxy.requests
    while proxy.requests < asked + (
        8 if fault is not Fault.SILENCE else 2
    ):  # it goes on asking, and on saying so
        now = await stand.network()
        assert (now.status, now.height) == (shown, before.height)
        await asyncio.sleep(0.01)
    assert await stand.status(invoice) in ("awaiting_payment", "detected")
    proxy.lie(None)
    await stand.until_status(invoice, "paid")
    paid = await stand.get(invoice)
    assert (paid.amount_paid, len(paid.payments)) == ("25.00", 1)
    assert await stand.event_types(paid.payments[0].id) == ["payment.detected", "payment.confirmed"]


@pytest.mark.parametrize(
    ("bad", "shop_sees"),
    [
        (Fault.OLDER_HEAD, "a node behind"),
        (Fault.NULL_BLOCK, "a node that lacks the block"),
        (Fault.OTHER_HASH, "a node on another branch"),
        (Fault.EMPTY_BLOCK, "a node without the block's body"),
        (Fault.NULL_RECEIPTS, "a node without the block's receipts"),
    ],
    ids=lambda value: value.replace(" ", "-") if not isinstance(value, Fault) else value.name.lower(),
)
async def test_a_load_balancer_with_a_bad_node(
    behind: Stand, chain: Chain, proxy: LyingProxy, bad: Fault, shop_sees: str
) -> None:
    """Behind one name some answers are another node's: all is credited once, and nothing is taken back (F-NODE 3).

    The two nodes' answers meet inside one question: a header of one, receipts of the other.
    """
    proxy.lie(bad, share=0.3)
    invoices = [await behind.create("25.00") for _ in range(3)]
    async with behind.running():
        for invoice in invoices:
            await chain.send_native(address_in(invoice), units("0.01"))
            await chain.mine()
        await chain.mine(3)
        for invoice in invoices:
            await behind.until_status(invoice, "paid")
        proxy.lie(None)
        await chain.mine()
        await behind.until_network("following")
    for invoice in invoices:
        paid = await behind.get(invoice)
        assert (paid.status, paid.amount_paid, len(paid.payments)) == ("paid", "25.00", 1), shop_sees
        way = await behind.way(invoice)
        assert len(way) == len(set(way)), (shop_sees, way)  # no step back
    if bad is not Fault.OTHER_HASH:  # an empty block of another hash is another branch, and may be one
        assert await behind.rows("SELECT hash FROM blocks WHERE NOT in_best_chain") == []


async def test_a_frozen_node_expires_nothing_and_is_caught_up_with(
    database_url: str, chain: Chain, token: str, proxy: LyingProxy, clock: Clock
) -> None:
    """The newest block stays the newest: said after a while, and no window ends by our clock alone (F-NODE 1).

    Bug planted: windows that end by our clock; the invoice is late although it was paid in time.
    """
    network = evm_network("local", chain.chain_id, token=token)
    async with open_stand(database_url, (network, proxy.url), clock=clock) as stand:
        invoice = await stand.create("25.00", expires_in_seconds=60)
        proxy.lie(Fault.FROZEN_HEAD)
        await stand.follow()
        start = await chain.time()
        await chain.send_native(address_in(invoice), units("0.01"))
        await chain.set_next_time(start + 30)
        await chain.mine()
        await chain.mine_many(40, interval_seconds=30)
        clock.advance(3600)
        async with stand.running():
            seen = await stand.until_network("degraded")
            assert "no new block for 60 minutes" in str(seen.problem)
            asked = proxy.requests
            await until(lambda: further(proxy, asked))
            assert await stand.status(invoice) in ("awaiting_payment", "detected")
            proxy.lie(None)
            await stand.until_status(invoice, "paid")
            await stand.until_network("following")
        paid = await stand.get(invoice)
        assert paid.payments[0].on_time is True
        rows = await stand.rows(
            "SELECT count(*) AS n, max(height) - min(height) + 1 AS all FROM blocks WHERE in_best_chain"
        )
        assert rows[0]["n"] == rows[0]["all"] >= 41


async def further(proxy: LyingProxy, asked: int) -> bool:
    """Whether the node was asked some more."""
    return proxy.requests > asked + 10


async def test_no_range_is_ever_asked_for(behind: Stand, chain: Chain, proxy: LyingProxy, token: str) -> None:
    """Limits and truncated ranges cannot hurt: blocks are read one by one, receipts by a block's hash (F-NODE 4).

    Payment, mempool, catch-up of a hundred blocks, and a reorganisation.
    """
    invoice = await behind.create("25.00", ("DUSD", "local"))
    await chain.send_token(token, address_in(invoice), units("25", 6))
    await behind.follow()
    await chain.mine_many(100)
    await behind.follow()
    await chain.reorg(3)
    await behind.follow()
    assert await behind.status(invoice) == "paid"
    assert "eth_getBlockReceipts" in proxy.methods
    assert not {
        method for method in proxy.methods if "Log" in method or "Filter" in method or "ubscri" in method
    }


async def test_what_is_harmless_is_no_trouble(behind: Stand, chain: Chain, proxy: LyingProxy) -> None:
    """Answers in another order, and a node without finality tags: credited while it lasts (F-NODE 5)."""
    async with behind.running():
        for fault in HARMLESS:
            proxy.lie(fault)
            invoice = await behind.create("25.00")
            await chain.send_native(address_in(invoice), units("0.01"))
            await chain.mine(3)
            await behind.until_status(invoice, "paid")
            assert (await behind.network()).problem is None


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
