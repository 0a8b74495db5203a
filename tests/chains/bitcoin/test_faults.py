"""F-NODE 1-5: each way in which a node of Core's kind lies, lags or breaks is noticed, and it is believed again after.

On a made-up node that answers as Bitcoin Core 28 does; the same source runs on a real, old one in `test_contract`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tallystick.chains.bitcoin.source import BitcoinOptions, BitcoinSource
from tallystick.chains.json_rpc import RpcLimits
from tallystick.core.chain import Block, Head
from tallystick.core.errors import (
    BlockNotFound,
    ConfigurationError,
    SourceError,
    SourceIncomplete,
    SourcesDisagree,
    SourceUnavailable,
    WrongChain,
)
from tests.support.core_stub import (
    CoreStubServer,
    StubCore,
    StubRefusalError,
    filler,
    make_transaction,
    p2tr,
    p2wpkh,
)
from tests.support.lying_core import CoreFault, LyingCore
from tests.support.lying_proxy import Fault

LIMITS = RpcLimits(
    response_bytes_max=1_000_000,
    total_timeout_seconds=2.0,
    attempts_max=2,
    retry_wait_seconds_max=0.05,
    batch_size_max=500,
)


def options(node: StubCore, *urls: str, cookie: Path | None = None) -> BitcoinOptions:
    return BitcoinOptions(
        "local", "bitcoin-regtest", urls, cookie_file=cookie, genesis_hash=node.genesis_hash, limits=LIMITS
    )


@dataclass(frozen=True, slots=True)
class World:
    """A chain with a block of payments, a proxy that can lie about it, and a source that sees only the proxy."""

    node: StubCore
    server: CoreStubServer
    proxy: LyingCore
    source: BitcoinSource
    height: int
    block: Block
    head: Head


@pytest.fixture
async def world() -> AsyncIterator[World]:
    node = StubCore()
    for number in range(20):
        node.extend(filler(3, 6, number))
    ours = make_transaction([("aa" * 32, 0)], [(70_000, p2tr("ours")), (5_000, p2wpkh("change"))])
    height = node.extend([*filler(4, 9, 99), ours]).height
    async with CoreStubServer(node) as server, LyingCore(server.url) as proxy:
        source = BitcoinSource(options(node, proxy.url))
        await source.identity()
        yield World(node, server, proxy, source, height, await source.block_at(height), await source.head())
        await source.close()


BLOCK_FAULTS = {
    CoreFault.MISSING_TRANSACTION: SourceIncomplete,
    CoreFault.FOREIGN_TRANSACTION: SourceIncomplete,
    CoreFault.DOUBLED_TAIL: SourceIncomplete,
    CoreFault.SWAPPED_TRANSACTIONS: SourceIncomplete,
    CoreFault.CHANGED_AMOUNT: SourceIncomplete,
    CoreFault.CHANGED_SCRIPT: SourceIncomplete,
    CoreFault.TRUNCATED_BLOCK: SourceIncomplete,
    CoreFault.LONGER_BLOCK: SourceIncomplete,
    CoreFault.OTHER_BYTES: SourceIncomplete,
    CoreFault.NOT_HEX: SourceIncomplete,
    CoreFault.EMPTY_BLOCK: SourceIncomplete,
    CoreFault.NULL_BLOCK: SourceIncomplete,
    CoreFault.CHANGED_TIME: SourceIncomplete,
    CoreFault.LEFT_CHAIN: SourceIncomplete,
    CoreFault.NO_BLOCKS: BlockNotFound,
    CoreFault.OTHER_HEIGHT: SourceIncomplete,
    CoreFault.PRUNED: SourceUnavailable,
    CoreFault.WARMING_UP: SourceUnavailable,
}

ANY_CALL_FAULTS = {
    Fault.TOO_MANY_REQUESTS: SourceUnavailable,
    Fault.LIMIT_ERROR: SourceUnavailable,
    Fault.SERVER_ERROR: SourceUnavailable,
    Fault.ERROR_OBJECT: SourceUnavailable,
    Fault.HTML: SourceUnavailable,
    Fault.SILENCE: SourceUnavailable,
    Fault.DROPPED_CONNECTION: SourceUnavailable,
    Fault.REDIRECT: SourceUnavailable,
    Fault.NO_RESULT: SourceUnavailable,
    Fault.WRONG_ID: SourceError,
    Fault.SHORT_BATCH: SourceIncomplete,
    Fault.HUGE_BODY: SourceUnavailable,
    Fault.TRUNCATED_JSON: SourceUnavailable,
    Fault.DEEP_JSON: SourceUnavailable,
    Fault.NOT_UTF8: SourceError,
}


@pytest.mark.parametrize("fault", BLOCK_FAULTS)
async def test_block_faults_are_noticed_and_pass(world: World, fault: CoreFault) -> None:
    """Never an empty block, never another, never another amount (F-NODE 4)."""
    await world.proxy.lie_so(fault)
    with pytest.raises(SourceError) as caught:
        await world.source.block_at(world.height)
    assert type(caught.value) is BLOCK_FAULTS[fault]
    await world.proxy.lie_so(None)
    assert await world.source.block_at(world.height) == world.block


@pytest.mark.parametrize("fault", ANY_CALL_FAULTS)
async def test_any_call_faults_end_in_time_and_pass(world: World, fault: Fault) -> None:
    """F-NODE 5: an error of the tree, within the limits, for whatever is asked."""
    world.proxy.retry_after = "0"
    questions: list[Callable[[], Awaitable[object]]] = [
        lambda: world.source.block_at(world.height),
        world.source.mempool,
    ]
    if fault not in (
        Fault.SHORT_BATCH,
        Fault.SILENCE,
    ):  # what is asked alone is no batch; silence lasts seconds
        questions += [world.source.head, lambda: world.source.header_at(world.height), world.source.fee_rate]
    for question in questions:
        await world.source.head()
        await world.proxy.lie_so(fault)
        begun = time.monotonic()
        with pytest.raises(ANY_CALL_FAULTS[fault]):
            await question()
        assert time.monotonic() - begun < 3 * LIMITS.total_timeout_seconds
        await world.proxy.lie_so(None)
    assert await world.source.block_at(world.height) == world.block


async def test_a_shuffled_batch_is_put_in_order(world: World) -> None:
    await world.proxy.lie_so(Fault.SHUFFLED_BATCH)
    assert await world.source.block_at(world.height) == world.block


async def test_a_starting_node_is_named_so(world: World) -> None:
    await world.proxy.lie_so(CoreFault.WARMING_UP)
    for question in (world.source.head, world.source.identity):
        with pytest.raises(SourceUnavailable, match="still starting"):
            await question()


async def test_a_pruned_block_is_named_so(world: World) -> None:
    await world.proxy.lie_so(CoreFault.PRUNED)
    with pytest.raises(SourceUnavailable, match="pruned") as caught:
        await world.source.block_at(world.height)
    assert "prune" in (caught.value.remedy or "")
    assert (await world.source.head()).header == world.head.header  # it is a good node otherwise


async def test_a_node_that_downloads_the_chain_is_named_so(world: World) -> None:
    """F-NODE 1: its head is no head. One that lags without downloading tells its head as it is."""
    await world.proxy.lie_so(CoreFault.DOWNLOADING)
    with pytest.raises(SourceUnavailable, match=r"still downloading the chain: it has 21 of 1021 blocks"):
        await world.source.head()
    await world.proxy.lie_so(CoreFault.LAGGING)
    assert (await world.source.head()).header.height == world.height - 10


@pytest.mark.parametrize("fault", [CoreFault.OTHER_CHAIN, CoreFault.OTHER_GENESIS])
async def test_another_chain_is_refused(world: World, fault: CoreFault) -> None:
    """F-NODE 2. Chains of all families have the same names, so the first block decides."""
    await world.proxy.lie_so(fault)
    with pytest.raises(WrongChain):
        await world.source.identity()
    with pytest.raises(WrongChain):
        await world.source.head()
    await world.proxy.lie_so(None)
    assert (await world.source.head()).header == world.head.header


async def test_litecoins_node_is_no_bitcoin_node() -> None:
    """Both call their chains `main` and `regtest`: told apart by the first block, which is pinned without being set."""
    node = StubCore()
    async with CoreStubServer(node) as server:
        for chain in ("bitcoin-regtest", "litecoin-regtest", "bitcoin"):
            source = BitcoinSource(BitcoinOptions("net", chain, (server.url,), limits=LIMITS))
            with pytest.raises(WrongChain):
                await source.head()
            await source.close()
    with pytest.raises(ConfigurationError):
        BitcoinSource(BitcoinOptions("net", "dogecoin", ("http://127.0.0.1:1",)))


async def test_nodes_on_two_branches_are_not_believed(world: World) -> None:
    """F-NODE 3."""
    pair = BitcoinSource(options(world.node, world.proxy.url, world.server.url))
    await pair.identity()
    await world.proxy.lie_so(CoreFault.OTHER_BRANCH)
    world.node.extend()
    header = await pair.header_at(world.height + 1)
    with pytest.raises(SourcesDisagree):
        await pair.confirm_agreement(header)
    assert (await pair.head()).header == header  # the first node's branch is whole in itself
    await world.proxy.lie_so(None)
    await pair.confirm_agreement(await pair.header_at(world.height + 1))
    await pair.close()


async def test_a_head_that_goes_back_is_told_as_it_is(world: World) -> None:
    """F-NODE 3: what that means is the follower's to find out."""
    del world.node.blocks[-3:]
    head = await world.source.head()
    assert (head.header.height, head.header.hash) == (world.height - 3, world.node.blocks[-1].hash)
    with pytest.raises(BlockNotFound):
        await world.source.block_at(world.height)


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
async def test_a_refusal_by_http_is_no_answer(status: int) -> None:
    """503: the node's queue is full. 500 and 404 may hold an error object, but these hold words."""
    node = StubCore()
    async with CoreStubServer(node) as server:
        source = BitcoinSource(options(node, server.url))
        before = await source.head()
        server.status = status
        with pytest.raises(SourceUnavailable, match=str(status)):
            await source.head()
        server.status = 200
        assert await source.head() == before
        await source.close()


async def test_an_error_under_a_status_of_http_is_read(world: World) -> None:
    """Single calls' errors come under 500 or 404 from nodes before Core 28: a height above the head is no outage."""
    source = BitcoinSource(options(world.node, world.server.url))
    with pytest.raises(BlockNotFound):
        await source.header_at(world.height + 1)
    assert all(node.ok for node in source.nodes())
    await source.close()


# -- credentials


async def test_a_nodes_password_of_the_day_is_read_anew(tmp_path: Path) -> None:
    """A node writes another password to its cookie file at each start. Bug planted: the first is kept for ever."""
    cookie = tmp_path / ".cookie"
    node = StubCore()
    async with CoreStubServer(node) as server:
        source = BitcoinSource(options(node, server.url, cookie=cookie))
        with pytest.raises(SourceUnavailable, match="cookie file cannot be read"):
            await source.head()
        for password in ("first", "second"):
            cookie.write_text(f"__cookie__:{password}\n")
            server.password = aiohttp.encode_basic_auth("__cookie__", password)
            assert (await source.head()).header.height == 0
        cookie.write_text("__cookie__:third-word")
        server.password = aiohttp.encode_basic_auth("__cookie__", "fourth")
        with pytest.raises(SourceUnavailable, match="name and password") as caught:
            await source.head()
        assert "third-word" not in f"{caught.value} {source.nodes()}"
        cookie.write_text("no colon")
        with pytest.raises(SourceUnavailable, match="no name and password"):
            await source.head()
        await source.close()


async def test_a_nodes_password_goes_to_no_service_elsewhere(tmp_path: Path) -> None:
    """A second node is often a provider's, with a key in its path. Bug found: it was sent our own node's password."""
    cookie = tmp_path / ".cookie"
    cookie.write_text("__cookie__:secretword")
    node = StubCore()
    urls = ("https://provider.invalid/v1/key", "http://user@127.0.0.1:1", "HTTP://127.0.0.1:2/a@b")
    source = BitcoinSource(options(node, *urls, cookie=cookie))
    given = [one.rpc._read_credentials is not None for one in source._pool.nodes]
    await source.close()
    assert given == [False, False, True]


async def test_a_url_with_a_password_does_not_need_the_file(tmp_path: Path) -> None:
    node = StubCore()
    async with CoreStubServer(node) as server:
        server.password = aiohttp.encode_basic_auth("user", "secretword")
        url = server.url.replace("http://", "http://user:secretword@")
        source = BitcoinSource(options(node, url, cookie=tmp_path / "none"))
        assert (await source.head()).header.height == 0
        server.password = aiohttp.encode_basic_auth("user", "another")
        with pytest.raises(SourceUnavailable) as caught:
            await source.head()
        assert "secretword" not in f"{caught.value} {source.nodes()}"
        await source.close()


async def test_a_host_that_is_none_is_a_nodes_trouble() -> None:
    """Bug found: a name with a part of more than 63 letters ended the follower with an error of no tree."""
    source = BitcoinSource(BitcoinOptions("local", "bitcoin", (f"http://{'a' * 64}.invalid:1",)))
    with pytest.raises(SourceUnavailable, match="cannot be sent"):
        await source.head()
    await source.close()


# -- fees


@pytest.mark.parametrize(
    ("told", "rate"),
    [
        ("0.00012345", 12_345),
        ("0.00001000", 1_000),
        ("1e-8", 1),
        ("0.1", 10_000_000),
        ("0.10000001", None),
        ("0.00000000", None),
        ("-1", None),
        (None, None),
    ],
)
async def test_the_fee_rate_is_the_nodes_estimate(told: str | None, rate: int | None) -> None:
    """In base units per 1,000 vbytes; none where the node has seen too little, or what it says cannot be meant."""
    node = StubCore(fee_rate=told)
    async with CoreStubServer(node) as server:
        source = BitcoinSource(options(node, server.url))
        with pytest.raises(SourceUnavailable, match="No node is in use"):
            await source.fee_rate()
        await source.head()
        assert await source.fee_rate() == rate
        assert all(one.ok for one in source.nodes())
        await source.close()


class _WithoutFees(StubCore):
    """A provider that answers everything but what transactions should pay."""

    def _answer(self, method: str, params: list[Any]) -> bytes:
        if method == "estimatesmartfee":
            raise StubRefusalError(-32601, "Method not found")
        return super()._answer(method, params)


async def test_a_node_that_does_not_know_fees_stays_in_use() -> None:
    """The next one that is in use says it. Bug found: the node was put aside, every five minutes, and blocks waited."""
    node, knowing = _WithoutFees(), StubCore()
    async with CoreStubServer(node) as first, CoreStubServer(knowing) as second:
        source = BitcoinSource(options(node, first.url))
        await source.head()
        with pytest.raises(SourceUnavailable, match="refused estimatesmartfee"):
            await source.fee_rate()
        assert [one.ok for one in source.nodes()] == [True]
        await source.close()
        source = BitcoinSource(options(node, first.url, second.url))
        await source.identity()
        assert await source.fee_rate() == 12_345
        assert [one.ok for one in source.nodes()] == [True, True]
        await source.close()


async def test_reading_many_blocks_at_once(world: World) -> None:
    """The follower prefetches; answers do not get mixed up."""
    blocks = await asyncio.gather(*(world.source.block_at(height) for height in range(world.height + 1)))
    assert [block.header.hash for block in blocks] == [block.hash for block in world.node.blocks]
