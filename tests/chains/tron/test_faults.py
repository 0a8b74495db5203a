"""What the TRON source makes of nodes that break, refuse or slow it down (F-NODE 1-5), and how often it asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest

from tallystick.chains.evm.token_info import TokenInfo
from tallystick.chains.json_rpc import RpcLimits
from tallystick.chains.tron.source import TronOptions, TronSource
from tallystick.core.errors import (
    BlockNotFound,
    ConfigurationError,
    SourceError,
    SourceIncomplete,
    SourceUnavailable,
    WrongChain,
)
from tests.support.tron_node import (
    CHAIN_ID,
    SOLIDIFIED_BEHIND,
    Fault,
    TronNode,
    call,
    step,
    token_payment,
    transfer,
)

SHOP, USDT, VAULT = "0x" + "5b" * 20, "0xa614f803b6fd780986a42c78ec9c7f77e6ded13c", "0x" + "7e" * 20
KEY = "secret-access-key"
LIMITS = RpcLimits(
    response_bytes_max=1024 * 1024, total_timeout_seconds=1.0, attempts_max=1, retry_wait_seconds_max=0.01
)


@pytest.fixture
async def node() -> AsyncIterator[TronNode]:
    async with TronNode() as node:
        yield node


def options_of(*nodes: TronNode) -> TronOptions:
    urls = tuple(node.url.replace("http://", f"http://{KEY}@") for node in nodes)
    return TronOptions("tron", CHAIN_ID, urls, requests_per_second=2000.0, limits=LIMITS)


@pytest.fixture
async def source(node: TronNode) -> AsyncIterator[TronSource]:
    source = TronSource(options_of(node))
    yield source
    await source.close()


BLOCK_FAULTS = {
    Fault.MISSING_INFO: SourceIncomplete,
    Fault.NO_INFOS: BlockNotFound,
    Fault.INFOS_EMPTY_OBJECT: BlockNotFound,
    Fault.FOREIGN_INFOS: SourceIncomplete,
    Fault.OTHER_INFO_ID: SourceIncomplete,
    Fault.DOUBLED_INFO: SourceIncomplete,
    Fault.EMPTY_BLOCK: SourceIncomplete,
    Fault.MISSING_TRANSACTION: SourceIncomplete,
    Fault.CHANGED_BYTES: SourceIncomplete,
    Fault.CONTRADICTION: SourceIncomplete,
    Fault.NO_BLOCK: BlockNotFound,
    Fault.OTHER_HEIGHT: SourceIncomplete,
    Fault.FOREIGN_ID: SourceIncomplete,
    Fault.FOREIGN_PARENT: SourceIncomplete,
    Fault.DROPPED_CONNECTION: SourceUnavailable,
    Fault.SUSPENDED: SourceUnavailable,
    Fault.FORBIDDEN: SourceUnavailable,
    Fault.TOO_MANY_REQUESTS: SourceUnavailable,
    Fault.UNAVAILABLE: SourceUnavailable,
    Fault.LIMIT_SENTENCE: SourceUnavailable,
    Fault.ERROR_SENTENCE: SourceUnavailable,
    Fault.SERVER_ERROR: SourceUnavailable,
    Fault.HTML: SourceUnavailable,
    Fault.REDIRECT: SourceUnavailable,
    Fault.HUGE_BODY: SourceUnavailable,
    Fault.TRUNCATED_JSON: SourceUnavailable,
    Fault.DEEP_JSON: SourceUnavailable,
    Fault.NOT_UTF8: SourceUnavailable,
    Fault.OTHER_SHAPE: SourceIncomplete,
    Fault.SILENCE: SourceUnavailable,
}


@pytest.mark.parametrize("fault", BLOCK_FAULTS)
async def test_a_fault_has_a_name_and_passes(node: TronNode, source: TronSource, fault: Fault) -> None:
    """Never an empty block, never a secret in the words; and as soon as the node is honest, all is as before.

    Who wants a pause has it first: until then the node hears nothing from us.
    """
    failed = call(USDT, result="REVERT")
    height = node.mine(transfer(SHOP, 5), token_payment(USDT, SHOP, 6), failed)
    node.mine(blocks=2)
    await source.head()
    before = await source.block_at(height)
    assert len(before.transfers) == 2
    node.lie(fault)
    for _ in range(2):
        with pytest.raises(BLOCK_FAULTS[fault]) as caught:
            await source.block_at(height)
        assert KEY not in f"{caught.value!r} {caught.value} {source.nodes()}"
        assert "\n" not in str(caught.value)
    node.lie(None)
    if fault in PAUSES:
        asked = len(node.requests)
        with pytest.raises(SourceUnavailable):
            await source.block_at(height)
        assert len(node.requests) == asked
        return
    assert await source.block_at(height) == before


@pytest.mark.parametrize("fault", [fault for fault in BLOCK_FAULTS if fault is not Fault.SILENCE])
async def test_no_fault_of_a_head_or_header_escapes_the_tree(
    node: TronNode, source: TronSource, fault: Fault
) -> None:
    node.mine(transfer(SHOP, 5), blocks=3)
    node.lie(fault)
    for question in (source.head, lambda: source.header_at(1), source.identity):
        outcomes = await asyncio.gather(question(), return_exceptions=True)
        assert KEY not in str(outcomes)
        assert not isinstance(outcomes[0], Exception) or isinstance(outcomes[0], SourceError)


PAUSES = {
    Fault.SUSPENDED: 7,
    Fault.FORBIDDEN: 30,
    Fault.TOO_MANY_REQUESTS: 9,
    Fault.UNAVAILABLE: 4,
    Fault.LIMIT_SENTENCE: 7,
}


@pytest.mark.parametrize("fault", PAUSES)
async def test_a_pause_that_is_asked_for_is_passed_on(
    node: TronNode, source: TronSource, fault: Fault
) -> None:
    """By header, by a sentence under 403 or 200, or the provider's usual one where nothing is said.

    Bug planted: the sentence not read; the key stays suspended because we go on asking.
    """
    node.mine()
    node.lie(fault)
    with pytest.raises(SourceUnavailable) as caught:
        await source.head()
    assert caught.value.retry_after_seconds == PAUSES[fault]


async def test_an_access_key_that_no_header_can_hold_is_a_nodes_trouble(node: TronNode) -> None:
    """Pasted with the end of its line. Bug found: the follower ended with an error of no tree."""
    options = replace(options_of(node), urls=(node.url.replace("://", "://secret%0Akey@"),))
    source = TronSource(options)
    with pytest.raises(SourceUnavailable, match="cannot be sent") as caught:
        await source.head()
    assert "secret" not in f"{caught.value!r} {caught.value} {source.nodes()}"
    await source.close()


async def test_who_asks_for_a_pause_is_asked_after_the_others(node: TronNode) -> None:
    async with TronNode() as other:
        other.blocks = node.blocks
        source = TronSource(replace(options_of(node, other), aside_seconds=0.01))
        try:
            await source.identity()
            node.lie(Fault.SUSPENDED)
            height = node.mine()
            assert (await source.head()).header.height == height
            asked = len(node.requests)
            await asyncio.sleep(0.05)  # longer than any node is left aside that did not ask for a pause
            for _ in range(5):
                await source.head()
            assert len(node.requests) == asked
        finally:
            await source.close()


async def test_a_brief_trouble_is_tried_again_at_once(node: TronNode) -> None:
    source = TronSource(replace(options_of(node), limits=replace(LIMITS, attempts_max=3)))
    try:
        node.mine()
        for fault in (Fault.SERVER_ERROR, Fault.DROPPED_CONNECTION):
            node.lie(fault, times=2)
            assert (await source.head()).header.height == 1
    finally:
        await source.close()


async def test_the_access_key_goes_into_its_header_only(node: TronNode, source: TronSource) -> None:
    await source.identity()
    for request in node.requests:
        assert request.headers["TRON-PRO-API-KEY"] == KEY
        assert "Authorization" not in request.headers
    assert KEY not in source.nodes()[0].name


async def test_a_name_with_a_password_is_basic_authentication(node: TronNode) -> None:
    url = node.url.replace("http://", "http://user:secret-password@")
    source = TronSource(replace(options_of(node), urls=(url,)))
    try:
        await source.identity()
        assert node.requests[0].headers["Authorization"].startswith("Basic ")
        assert "TRON-PRO-API-KEY" not in node.requests[0].headers
    finally:
        await source.close()


async def test_requests_keep_to_the_rate(node: TronNode) -> None:
    """Also those asked for side by side, evenly, attempts included.

    Bug planted: the pace not asked; all come within a few milliseconds.
    """
    node.mine(transfer(SHOP, 5), blocks=12)
    source = TronSource(replace(options_of(node), requests_per_second=50.0))
    try:
        await asyncio.gather(*(source.header_at(height) for height in range(12)))
    finally:
        await source.close()
    times = [request.at for request in node.requests]
    assert len(times) > 12
    assert times[-1] - times[0] >= (len(times) - 2) / 50
    for position in range(len(times) - 5):
        assert times[position + 5] - times[position] >= 3 / 50


async def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        TronSource(TronOptions("tron", CHAIN_ID, ("http://127.0.0.1:1",), requests_per_second=0))


async def test_the_solidified_height_is_asked_for_every_third_block(
    node: TronNode, source: TronSource
) -> None:
    """It is what a day's allowance of requests allows; and what is told never runs ahead of the head."""
    node.mine(blocks=30)
    told = []
    for _ in range(9):
        told.append((await source.head()).finalized_height or 0)
        node.mine()
    assert told[0] == 30 - SOLIDIFIED_BEHIND
    assert [after - before for before, after in pairwise(told)] == [0, 0, 3] * 2 + [0, 0]
    assert node.asked("walletsolidity/getblock") == 3
    assert (
        node.asked("wallet/getblock") == 9 + 2
    )  # the first block, when the node was first used, and once more
    node.solidified = node.height + 5
    node.mine(blocks=5)
    head = await source.head()
    assert (head.safe_height, head.finalized_height) == (head.header.height, head.header.height)


async def test_the_solidified_height_is_asked_for_again_after_a_reorganisation(
    node: TronNode, source: TronSource
) -> None:
    node.mine(blocks=30)
    await source.head()
    node.reorganise(5)
    node.blocks = node.blocks[:-2]
    await source.head()
    assert node.asked("walletsolidity/getblock") == 2


async def test_a_block_without_transactions_costs_one_request(node: TronNode, source: TronSource) -> None:
    height = node.mine()
    await source.head()
    node.requests.clear()
    assert (await source.block_at(height)).transfers == ()
    assert [request.method for request in node.requests] == ["wallet/getblockbynum"]


async def test_nodes_that_give_no_bare_headers_are_asked_for_blocks(
    node: TronNode, source: TronSource
) -> None:
    """Once it is known, they are not asked in vain any more."""
    node.lie(Fault.NO_BARE_HEADERS)
    height = node.mine(transfer(SHOP, 5), blocks=2)
    for _ in range(3):
        head = await source.head()
        assert head.header.height == height
        assert await source.header_at(height) == head.header
    assert node.asked("wallet/getblock") == 1
    assert node.asked("walletsolidity/getblock") == 0
    assert all(state.ok for state in source.nodes())


async def test_infos_that_are_not_there_yet_leave_the_node_in_use(node: TronNode, source: TronSource) -> None:
    """Behind a balancer another node is asked for them, which may be a moment behind.

    Bug planted: a block of unknown outcomes taken as incomplete; the only node is left aside every few blocks.
    """
    height = node.mine(transfer(SHOP, 5))
    await source.head()
    node.lie(Fault.NO_INFOS)
    with pytest.raises(BlockNotFound):
        await source.block_at(height)
    assert all(state.ok for state in source.nodes())


async def test_another_chain_behind_the_same_address_is_noticed(node: TronNode, source: TronSource) -> None:
    """A load balancer may put another chain's node there without any trouble that would make us look."""
    node.mine(blocks=3)
    await source.head()
    node.lie(Fault.OTHER_CHAIN)
    node.mine(blocks=29 - 3)
    await source.head()
    node.mine(blocks=10)
    with pytest.raises(WrongChain):
        await source.head()


async def test_inner_transfers_are_known_to_be_told_once_one_was_seen(
    node: TronNode, source: TronSource
) -> None:
    quiet = node.mine(call(VAULT))
    telling = node.mine(call(VAULT, inner=[step(VAULT, SHOP, 7)]))
    later = node.mine(call(VAULT))
    assert (await source.block_at(quiet)).untraced is not None
    assert [one.amount for one in (await source.block_at(telling)).transfers] == [7]
    assert (await source.block_at(later)).untraced is None
    node.lie(Fault.SERVER_ERROR)
    with pytest.raises(SourceUnavailable):
        await source.block_at(later)
    node.lie(None)
    assert (await source.block_at(later)).untraced is not None


async def test_there_is_no_mempool(source: TronSource) -> None:
    assert await source.mempool(["0x" + "00" * 32]) is None


async def test_what_a_token_says_of_itself(node: TronNode, source: TronSource) -> None:
    node.tokens[USDT] = (6, "USDT")
    assert await source.token_info(USDT) == TokenInfo(6, "USDT", has_code=True)
    assert await source.token_info(VAULT) == TokenInfo(None, None, has_code=False)
    node.lie(Fault.ERROR_SENTENCE)
    with pytest.raises(SourceUnavailable):
        await source.token_info(USDT)
