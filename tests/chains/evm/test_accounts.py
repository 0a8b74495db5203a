"""Balances and nonces at one block: of exactly that block, or an error (F-TOKEN 4, F-NODE)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tallystick.chains.evm.source import EvmOptions, EvmSource
from tallystick.chains.json_rpc import RpcLimits
from tallystick.chains.source import AccountSource
from tallystick.core.balance import AccountState
from tallystick.core.chain import BlockRef
from tallystick.core.errors import SourceError, SourceIncomplete, SourceUnavailable
from tests.support.evm import Chain, address_of
from tests.support.lying_proxy import Fault, LyingProxy
from tests.support.rpc_stub import RpcStub, StubChain, stub_address

pytestmark = pytest.mark.chain

SHOP = stub_address("shop")
LIMITS = RpcLimits(total_timeout_seconds=3.0, attempts_max=1, batch_size_max=3)


@pytest.fixture
async def proxy(chain: Chain) -> AsyncIterator[LyingProxy]:
    async with LyingProxy(chain.url) as between:
        yield between


@pytest.fixture
async def source(chain: Chain, proxy: LyingProxy) -> AsyncIterator[EvmSource]:
    source = EvmSource(EvmOptions("local", chain.chain_id, (proxy.url,), limits=LIMITS))
    yield source
    await source.close()


async def ref(chain: Chain, height: int) -> BlockRef:
    return BlockRef(await chain.block_hash(height), height)


async def test_accounts_at_a_block_are_those_of_that_block(chain: Chain, source: AccountSource) -> None:
    """Also after later blocks, in the order asked, in batches smaller than the question."""
    await chain.send_native(SHOP, 5)
    first = await ref(chain, await chain.mine())
    await chain.send_native(SHOP, 6)
    second = await ref(chain, await chain.mine())
    payer, other = address_of(0), stub_address("nobody")
    before = await source.accounts_at(first, [SHOP, other, payer])
    after = await source.accounts_at(second, [payer, SHOP])
    assert before[:2] == [AccountState(5, 0), AccountState(0, 0)]
    assert after[1] == AccountState(11, 0)
    assert (before[2].nonce, after[0].nonce) == (1, 2)
    assert await source.accounts_at(second, []) == []


async def test_a_block_that_is_not_in_the_chain_is_an_error(chain: Chain, source: AccountSource) -> None:
    """Unknown, or reorganised away: never a balance of nothing.

    Bug planted: asked by number alone; the balance is that of another block.
    """
    await chain.send_native(SHOP, 5)
    gone = await ref(chain, await chain.mine())
    await chain.reorg(1)
    for block in (gone, BlockRef("0x" + "ee" * 32, gone.height)):
        with pytest.raises(SourceUnavailable):
            await source.accounts_at(block, [SHOP])


@pytest.mark.parametrize(
    "fault",
    [
        Fault.SERVER_ERROR,
        Fault.ERROR_OBJECT,
        Fault.SHORT_BATCH,
        Fault.NO_RESULT,
        Fault.HTML,
        Fault.LIMIT_ERROR,
    ],
)
async def test_trouble_is_not_a_balance_of_nothing(
    chain: Chain, proxy: LyingProxy, source: EvmSource, fault: Fault
) -> None:
    await chain.send_native(SHOP, 5)
    block = await ref(chain, await chain.mine())
    assert await source.accounts_at(block, [SHOP]) == [AccountState(5, 0)]
    proxy.lie(fault)
    with pytest.raises(SourceError):
        await source.accounts_at(block, [SHOP])
    proxy.lie(None)
    assert await source.accounts_at(block, [SHOP]) == [AccountState(5, 0)]


class OldNode(StubChain):
    """A node without EIP-1898: it knows block numbers only. Its balances tell the height they are of."""

    def answer(self, method: str, params: list[Any]) -> bytes:
        if method in ("eth_getBalance", "eth_getTransactionCount"):
            if not isinstance(params[1], str):
                raise LookupError(method)
            return b'"%s"' % params[1].encode() if method == "eth_getBalance" else b'"0x0"'
        return super().answer(method, params)


async def test_a_node_that_knows_numbers_only_is_asked_by_number_and_checked() -> None:
    """Between two looks at the block there; another block is an error."""
    chain = OldNode()
    for _ in range(4):
        chain.extend()
    async with RpcStub(chain) as stub:
        source = EvmSource(EvmOptions("stub", 1, (stub.url,), limits=LIMITS))
        block = BlockRef(chain.blocks[3].hash, 3)
        assert await source.accounts_at(block, [SHOP, SHOP]) == [AccountState(3, 0)] * 2
        chain.fork(2, [(), ()])
        with pytest.raises(SourceIncomplete):
            await source.accounts_at(block, [SHOP])
        await source.close()
