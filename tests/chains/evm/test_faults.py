"""F-NODE: each way in which a node lies, lags or breaks is noticed, and the next honest answer works."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from tallystick.chains.evm.source import EvmOptions, EvmSource
from tallystick.chains.json_rpc import RpcLimits
from tallystick.core.chain import Block, Head
from tallystick.core.errors import (
    BlockNotFound,
    SourceError,
    SourceIncomplete,
    SourcesDisagree,
    SourceUnavailable,
    WrongChain,
)
from tests.support.evm import Chain, address_of
from tests.support.lying_proxy import Fault, LyingProxy

pytestmark = pytest.mark.chain

LIMITS = RpcLimits(
    response_bytes_max=1_000_000, total_timeout_seconds=2.0, attempts_max=2, retry_wait_seconds_max=0.05
)
# Where no fault is about time, a busy machine must not be taken for a silent node.
PATIENT = replace(LIMITS, total_timeout_seconds=20.0)


@dataclass(frozen=True, slots=True)
class World:
    """A chain with a block of payments, a proxy that can lie about it, and a source that sees only the proxy."""

    chain: Chain
    proxy: LyingProxy
    source: EvmSource
    height: int
    block: Block
    head: Head


@pytest.fixture
async def world(chain: Chain) -> AsyncIterator[World]:
    token = await chain.deploy_token()
    batch = await chain.deploy("Batch")
    await chain.approve(token, batch)
    await chain.mine_many(70)
    await chain.send_native(address_of(7), 5)
    await chain.send_token(token, address_of(7), 6)
    await chain.send_call(
        batch, "Batch", "payTokens", token, [address_of(8), address_of(9), address_of(8)], [7, 8, 7]
    )
    height = await chain.mine()
    async with LyingProxy(chain.url) as proxy:
        source = EvmSource(EvmOptions("local", chain.chain_id, (proxy.url,), limits=LIMITS))
        await source.identity()
        yield World(chain, proxy, source, height, await source.block_at(height), await source.head())
        await source.close()


BLOCK_FAULTS = {
    Fault.NULL_RECEIPTS: SourceIncomplete,
    Fault.ONE_NULL_RECEIPT: SourceIncomplete,
    Fault.MISSING_RECEIPT: SourceIncomplete,
    Fault.FOREIGN_BLOCK: SourceIncomplete,
    Fault.SWAPPED_RECEIPTS: SourceIncomplete,
    Fault.NO_STATUS: SourceIncomplete,
    Fault.EMPTY_LOGS: SourceIncomplete,
    Fault.EMPTY_LOGS_AND_BLOOMS: SourceIncomplete,
    # The last log equals an earlier one of its transaction, so that only its absence can show.
    Fault.DOUBLED_LOG: SourceIncomplete,
    Fault.REMOVED_LOG: SourceIncomplete,
    Fault.CHANGED_RECEIVER: SourceIncomplete,
    Fault.NULL_BLOCK: BlockNotFound,
    Fault.EMPTY_BLOCK: SourceIncomplete,
    Fault.OTHER_HEIGHT: SourceIncomplete,
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
    Fault.HUGE_BODY: SourceUnavailable,
    Fault.TRUNCATED_JSON: SourceUnavailable,
    Fault.DEEP_JSON: SourceUnavailable,
    Fault.NOT_UTF8: SourceError,
}


@pytest.mark.parametrize("fault", BLOCK_FAULTS)
async def test_block_faults_are_noticed_and_pass(world: World, fault: Fault) -> None:
    source = EvmSource(EvmOptions("local", world.chain.chain_id, (world.proxy.url,), limits=PATIENT))
    try:
        await source.identity()
        world.proxy.lie(fault)
        with pytest.raises(SourceError) as caught:
            await source.block_at(world.height)
        assert type(caught.value) is BLOCK_FAULTS[fault]
        world.proxy.lie(None)
        assert await source.block_at(world.height) == world.block
    finally:
        await source.close()


async def test_dropped_log_is_noticed(world: World) -> None:
    """The last log of the block is missing, and its receipt's bloom would need it."""
    signed = await world.chain.send_token(
        (await world.source.block_at(world.height)).transfers[1].contract or "", address_of(3), 1
    )
    height = await world.chain.mine()
    world.proxy.lie(Fault.DROPPED_LAST_LOG)
    with pytest.raises(SourceIncomplete):
        await world.source.block_at(height)
    world.proxy.lie(None)
    (transfer,) = (await world.source.block_at(height)).transfers
    assert transfer.tx_hash == signed.tx_hash


@pytest.mark.parametrize("fault", ANY_CALL_FAULTS)
async def test_broken_answers_are_typed_errors_and_pass(world: World, fault: Fault) -> None:
    world.proxy.retry_after = "0"
    world.proxy.lie(fault)
    for question in (
        world.source.block_at(world.height),
        world.source.header_at(world.height),
        world.source.head(),
        world.source.identity(),
    ):
        started = time.monotonic()
        with pytest.raises(ANY_CALL_FAULTS[fault]) as caught:
            await question
        assert time.monotonic() - started < LIMITS.total_timeout_seconds * LIMITS.attempts_max + 1
        assert "\n" not in str(caught.value)
    world.proxy.lie(None)
    assert await world.source.block_at(world.height) == world.block
    assert await world.source.head() == world.head


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.DROPPED_CONNECTION, Fault.TOO_MANY_REQUESTS])
async def test_a_short_trouble_is_not_even_noticed(world: World, fault: Fault) -> None:
    world.proxy.retry_after = "0"
    world.proxy.lie(fault, times=1)
    assert await world.source.block_at(world.height) == world.block


async def test_wrong_id(world: World) -> None:
    world.proxy.lie(Fault.WRONG_ID)
    with pytest.raises(SourceUnavailable, match="wrong id"):
        await world.source.block_at(world.height)
    with pytest.raises(SourceIncomplete):
        await world.source.head()
    world.proxy.lie(None)
    assert await world.source.head() == world.head


async def test_shuffled_batch_is_no_trouble(world: World) -> None:
    world.proxy.lie(Fault.SHUFFLED_BATCH)
    assert await world.source.head() == world.head


async def test_short_batch(world: World) -> None:
    world.proxy.lie(Fault.SHORT_BATCH)
    with pytest.raises(SourceIncomplete):
        await world.source.head()
    world.proxy.lie(None)
    assert await world.source.head() == world.head


async def test_retry_after_is_told_and_not_waited_for(world: World) -> None:
    world.proxy.retry_after = "30"
    world.proxy.lie(Fault.TOO_MANY_REQUESTS)
    before = world.proxy.requests
    with pytest.raises(SourceUnavailable) as caught:
        await world.source.header_at(world.height)
    assert caught.value.retry_after_seconds == 30
    assert world.proxy.requests == before + 1


async def test_huge_answers_are_not_read_to_the_end(world: World) -> None:
    world.proxy.lie(Fault.HUGE_BODY)
    with pytest.raises(SourceUnavailable, match="larger than 1000000 bytes"):
        await world.source.block_at(world.height)
    # What the proxy could send before it noticed: our limit, and what lay in the buffers between us.
    assert world.proxy.sent_bytes < 20 * LIMITS.response_bytes_max


@pytest.mark.parametrize("fault", [Fault.NO_TAGS, Fault.NULL_TAGS])
async def test_missing_finality_is_none(world: World, fault: Fault) -> None:
    world.proxy.lie(fault)
    head = await world.source.head()
    assert head.header == world.head.header
    assert (head.safe_height, head.finalized_height) == (None, None)


async def test_other_chain_is_refused_at_every_head(world: World) -> None:
    world.proxy.lie(Fault.OTHER_CHAIN)
    for question in (world.source.identity(), world.source.head()):
        with pytest.raises(WrongChain) as caught:
            await question
        assert str(0xDEAD) in str(caught.value)
        assert str(world.chain.chain_id) in str(caught.value)
        assert world.proxy.url.removeprefix("http://") in str(caught.value)
    # Once seen on another chain, the node is not used for blocks either, until it is back.
    with pytest.raises(WrongChain):
        await world.source.block_at(world.height)
    world.proxy.lie(None)
    assert await world.source.block_at(world.height) == world.block


async def test_other_genesis_is_refused(world: World) -> None:
    genesis = (await world.source.identity()).genesis_hash
    world.proxy.lie(Fault.OTHER_GENESIS)
    with pytest.raises(WrongChain) as caught:
        await world.source.identity()
    assert genesis in str(caught.value)
    world.proxy.lie(None)
    assert (await world.source.identity()).genesis_hash == genesis


async def test_pinned_genesis_is_compared_at_the_first_connection(world: World) -> None:
    options = EvmOptions("local", world.chain.chain_id, (world.chain.url,), genesis_hash="0x" + "ab" * 32)
    source = EvmSource(options)
    try:
        with pytest.raises(WrongChain):
            await source.head()
    finally:
        await source.close()


# -- several nodes


@pytest.fixture
async def pair(world: World) -> AsyncIterator[EvmSource]:
    """A source with two nodes: the lying proxy first, the honest node second."""
    urls = (world.proxy.url, world.chain.url)
    source = EvmSource(
        EvmOptions("local", world.chain.chain_id, urls, limits=LIMITS, agreement_timeout_seconds=0.5)
    )
    yield source
    await source.close()


@pytest.mark.parametrize("fault", [*BLOCK_FAULTS, Fault.SERVER_ERROR, Fault.HTML, Fault.SILENCE])
async def test_the_other_node_steps_in(world: World, pair: EvmSource, fault: Fault) -> None:
    await pair.identity()
    world.proxy.lie(fault)
    assert await pair.block_at(world.height) == world.block
    first, second = pair.nodes()
    assert second.ok
    assert first.ok == (BLOCK_FAULTS.get(fault) is BlockNotFound)  # a node that lags is not a broken one


async def test_a_failing_node_is_put_aside_for_a_while(world: World, pair: EvmSource) -> None:
    await pair.identity()
    world.proxy.lie(Fault.SERVER_ERROR)
    await pair.block_at(world.height)
    asked = world.proxy.requests
    await pair.block_at(world.height)
    assert world.proxy.requests == asked


async def test_identity_names_the_node_on_another_chain(world: World, pair: EvmSource) -> None:
    world.proxy.lie(Fault.OTHER_CHAIN)
    with pytest.raises(WrongChain, match=world.proxy.url.removeprefix("http://")):
        await pair.identity()


async def test_a_node_on_another_chain_stops_the_network_until_it_is_corrected(
    world: World, pair: EvmSource
) -> None:
    """The honest node does not cover it up: a person has to look. Once it is gone or right, work goes on."""
    await pair.identity()
    world.proxy.lie(Fault.OTHER_CHAIN)
    for _ in range(3):
        with pytest.raises(WrongChain):
            await pair.head()
        with pytest.raises(WrongChain):
            await pair.block_at(world.height)
    first, second = pair.nodes()
    assert not first.ok
    assert str(0xDEAD) in (first.problem or "")
    assert second.ok
    world.proxy.lie(Fault.DROPPED_CONNECTION)
    assert await pair.block_at(world.height) == world.block
    world.proxy.lie(None)
    assert await pair.block_at(world.height) == world.block
    await pair.identity()
    assert all(node.ok for node in pair.nodes())


async def test_identity_with_one_node_down(world: World, pair: EvmSource) -> None:
    world.proxy.lie(Fault.DROPPED_CONNECTION)
    assert (await pair.identity()).chain == str(world.chain.chain_id)


async def test_a_node_back_on_another_chain_is_refused(world: World) -> None:
    """It went away and came back as another chain: noticed before its first block is used."""
    world.proxy.lie(Fault.DROPPED_CONNECTION)
    with pytest.raises(SourceUnavailable):
        await world.source.head()
    world.proxy.lie(Fault.OTHER_CHAIN)
    with pytest.raises(WrongChain):
        await world.source.block_at(world.height)


async def test_disagreement_is_an_error(world: World, pair: EvmSource) -> None:
    header = await world.source.header_at(world.height)
    await pair.confirm_agreement(header)
    world.proxy.lie(Fault.OTHER_HASH)
    lied = await world.source.header_at(world.height)
    assert lied.hash != header.hash
    await pair.header_at(world.height)
    with pytest.raises(SourcesDisagree) as caught:
        await pair.confirm_agreement(await pair.header_at(world.height))
    assert header.hash in str(caught.value)
    assert lied.hash in str(caught.value)


@pytest.mark.parametrize("fault", [Fault.NULL_BLOCK, Fault.SILENCE, Fault.SERVER_ERROR, Fault.HTML])
async def test_silence_and_lag_are_no_disagreement(world: World, fault: Fault) -> None:
    urls = (world.chain.url, world.proxy.url)
    options = EvmOptions("local", world.chain.chain_id, urls, limits=LIMITS, agreement_timeout_seconds=0.3)
    source = EvmSource(options)
    try:
        await source.identity()
        header = await source.header_at(world.height)
        world.proxy.lie(fault)
        started = time.monotonic()
        await source.confirm_agreement(header)
        assert time.monotonic() - started < 1.5
    finally:
        await source.close()


async def test_an_older_head_is_told_as_it_is(world: World) -> None:
    """A head that goes backwards is a fact about the node; what it means is decided by the follower."""
    world.proxy.lie(Fault.OLDER_HEAD)
    head = await world.source.head()
    assert head.header.height == world.height - 10
    assert (await world.source.header_at(head.header.height)) == head.header
