"""TRON by its JSON-RPC: the EVM source with TRON's options, on anvil behind a proxy that answers as TRON does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tallystick.chains.evm.source import EvmSource
from tallystick.chains.json_rpc import RpcLimits
from tallystick.chains.tron.json_rpc import evm_options, with_path
from tallystick.core.chain import Channel
from tallystick.core.errors import SourceUnavailable
from tallystick.demo.customer import Signed
from tests.chains.contract_suite import AMOUNT, Payment, Rig, SourceContract, transfers_of
from tests.support.evm import Chain, address_of, contract
from tests.support.tron_rpc import SOLIDIFIED_BEHIND, TronRpc

pytestmark = pytest.mark.chain

SHOP = "0x" + "5b" * 20
LIMITS = RpcLimits(total_timeout_seconds=5.0, attempts_max=1)
KEY = "secret-access-key"


@pytest.fixture
async def node(chain: Chain) -> AsyncIterator[TronRpc]:
    async with TronRpc(chain.url) as node:
        yield node


@pytest.fixture
async def source(chain: Chain, node: TronRpc) -> AsyncIterator[EvmSource]:
    url = node.url.replace("http://", f"http://{KEY}@")
    options = evm_options("tron", chain.chain_id, (url,), limits=LIMITS, requests_per_second=2000.0)
    source = EvmSource(options)
    yield source
    await source.close()


class JsonRpcRig:
    """A token payment is a payment here: TRX is not told."""

    def __init__(self, chain: Chain, node: TronRpc, source: EvmSource, token: str) -> None:
        self._chain = chain
        self._node = node
        self._token = token
        self._signed: dict[str, Signed] = {}
        self.source = source

    async def mine(self, blocks: int = 1) -> int:
        return await self._chain.mine(blocks)

    async def pay(self, amount: int) -> tuple[Payment, int]:
        signed = await self._chain.send_token(self._token, SHOP, amount)
        self._signed[signed.tx_hash] = signed
        return Payment(signed.tx_hash, SHOP, amount, self._token), await self._chain.mine()

    async def conflict(self, payment: Payment) -> Payment:
        data = contract("DemoToken").call("transfer", address_of(6), 1)
        other = await self._chain.replacement(self._signed[payment.tx_hash], to=self._token, data=data)
        await self._chain.reorg(1, [(other, 0)])
        return Payment(other.tx_hash, address_of(6), 1, self._token)

    async def remine(self, payment: Payment) -> int:
        await self._chain.reorg(1)
        await self._chain.submit(self._signed[payment.tx_hash])
        return await self._chain.mine()

    async def reorganise(self, depth: int) -> int:
        return await self._chain.reorg(depth)

    async def cut_off(self) -> None:
        self._node.reachable = False

    async def reconnect(self) -> None:
        self._node.reachable = True


class TestTronByJsonRpc(SourceContract):
    """The suite of all sources."""

    @pytest.fixture
    async def rig(self, chain: Chain, node: TronRpc, source: EvmSource) -> JsonRpcRig:
        return JsonRpcRig(chain, node, source, await chain.deploy_token())

    async def test_conflicting_payment_spends_the_same(self, rig: Rig) -> None:
        """As by the other interface: no nonce, so that nothing may look as if it replaced something."""
        payment, height = await rig.pay(AMOUNT)
        (transfer,) = transfers_of(await rig.source.block_at(height), payment)
        other = await rig.conflict(payment)
        block = await rig.source.block_at(height)
        assert not transfers_of(block, payment)
        assert (other.tx_hash in block.spends.values(), payment.tx_hash in block.spends.values()) == (
            True,
            False,
        )
        assert not set(transfer.spend_keys) & set(block.spends)


async def test_a_value_is_never_taken_for_trx(chain: Chain, source: EvmSource) -> None:
    """TRON's nodes show a transfer of any TRC-10 token just like one of TRX (`value`, `to`), so none is believed.

    Bug planted: native values told as on other EVM networks; who sends worthless tokens pays with them.
    """
    await chain.send_native(SHOP, AMOUNT)
    block = await source.block_at(await chain.mine())
    assert (len(block.spends), block.transfers) == (1, ())
    assert block.untraced is not None


async def test_tokens_of_a_transaction_that_also_has_a_value_are_told(
    chain: Chain, source: EvmSource
) -> None:
    token = await chain.deploy_token()
    await chain.send_native(SHOP, 7)
    sent = await chain.send_token(token, SHOP, AMOUNT)
    (transfer,) = (await source.block_at(await chain.mine())).transfers
    assert (transfer.tx_hash, transfer.channel, transfer.amount) == (sent.tx_hash, Channel.LOG, AMOUNT)
    assert transfer.spend_keys == (f"tx:{sent.tx_hash}",)


async def test_a_failed_call_moves_nothing(chain: Chain, source: EvmSource) -> None:
    token = await chain.deploy_token(supply=1)
    await chain.send_token(token, SHOP, AMOUNT)
    block = await source.block_at(await chain.mine())
    assert (len(block.spends), block.transfers) == (1, ())


@pytest.mark.parametrize("by_block", [False, True])
async def test_receipts_come_by_block_or_one_by_one(
    chain: Chain, node: TronRpc, source: EvmSource, by_block: bool
) -> None:
    """Older nodes have no method for a block's receipts."""
    node.receipts_by_block = by_block
    token = await chain.deploy_token()
    for _ in range(3):
        await chain.send_token(token, SHOP, AMOUNT)
    height = await chain.mine()
    assert len((await source.block_at(height)).transfers) == 3
    assert len((await source.block_at(height)).transfers) == 3


async def test_solidified_is_finalized_and_safe(chain: Chain, node: TronRpc, source: EvmSource) -> None:
    """The tags `safe` and `pending` are never asked for: refusing them says nothing about `finalized`.

    Bug planted: `safe` asked for as well; the refusal switches all tags off, and nothing is ever final.
    """
    height = await chain.mine(SOLIDIFIED_BEHIND + 5)
    for _ in range(2):
        head = await source.head()
        assert (head.safe_height, head.finalized_height) == (height - SOLIDIFIED_BEHIND,) * 2
    node.finalized = height - 2
    assert (await source.head()).finalized_height == height - 2


async def test_the_access_key_goes_into_its_header_and_nowhere_else(
    chain: Chain, node: TronRpc, source: EvmSource
) -> None:
    await chain.mine()
    await source.head()
    assert node.keys == {KEY}
    assert KEY not in str(source.nodes())
    node.reachable = False
    with pytest.raises(SourceUnavailable) as caught:
        await source.head()
    assert KEY not in str(caught.value)


async def test_no_mempool_is_shown_for_there_is_no_pending_block(chain: Chain, source: EvmSource) -> None:
    await source.head()
    await chain.send_native(SHOP, 1)
    snapshot = await source.mempool()
    assert (snapshot.transfers, snapshot.spends) == ((), {})


def test_the_path_is_added_once() -> None:
    assert with_path("https://key@api.trongrid.io") == "https://key@api.trongrid.io/jsonrpc"
    assert with_path("http://10.0.0.5:8545/jsonrpc") == "http://10.0.0.5:8545/jsonrpc"
    assert with_path("https://x.example/abc/jsonrpc/") == "https://x.example/abc/jsonrpc/"
    assert with_path("https://x.example/abc") == "https://x.example/abc/jsonrpc"
    assert with_path("nonsense") == "nonsense"


async def test_requests_keep_to_the_rate(chain: Chain, node: TronRpc) -> None:
    """Six requests at twenty a second take a quarter of a second or more.

    Bug planted: the pace not asked; they take a few milliseconds.
    """
    import asyncio

    options = replace(
        evm_options("tron", chain.chain_id, (node.url,), limits=LIMITS), requests_per_second=20.0
    )
    source = EvmSource(options)
    try:
        await source.identity()
        loop = asyncio.get_running_loop()
        before = loop.time()
        for _ in range(6):
            await source.head()
        assert loop.time() - before >= 0.25
    finally:
        await source.close()
