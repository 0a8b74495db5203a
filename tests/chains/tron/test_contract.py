"""The TRON source keeps the contract of every source, on a node in memory that answers in TRON's shapes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tallystick.chains.json_rpc import RpcLimits
from tallystick.chains.tron.source import TronOptions, TronSource
from tests.chains.contract_suite import (
    AMOUNT,
    Payment,
    Rig,
    SourceContract,
    Trouble,
    TroubleContract,
    transfers_of,
)
from tests.support.tron_node import CHAIN_ID, Fault, TronNode, TronTransaction, call, transfer

SHOP, OTHER = "0x" + "5b" * 20, "0x" + "5c" * 20
FAULTS = {
    Trouble.SILENT: Fault.DROPPED_CONNECTION,
    Trouble.PARTS_MISSING: Fault.MISSING_INFO,
    Trouble.PARTS_FOREIGN: Fault.FOREIGN_INFOS,
    Trouble.NO_BLOCKS: Fault.NO_BLOCK,
    Trouble.OTHER_BLOCK: Fault.OTHER_HEIGHT,
    Trouble.OTHER_HASH: Fault.OTHER_HASH,
    Trouble.OTHER_CHAIN: Fault.OTHER_CHAIN,
    Trouble.LAGGING: Fault.OLDER_HEAD,
}


class TronRig:
    """Two nodes with one chain; the first can be troubled."""

    def __init__(self, node: TronNode, honest: TronNode) -> None:
        self._node = node
        self._honest = honest
        self._sent: dict[str, TronTransaction] = {}
        honest.blocks = node.blocks
        url = node.url.replace("http://", "http://secret-access-key@") + "/secret-path-key"
        limits = RpcLimits(total_timeout_seconds=5.0, attempts_max=1)
        options = TronOptions("tron", CHAIN_ID, (url,), limits=limits, requests_per_second=2000.0)
        self.source = TronSource(options)
        self.pair = TronSource(replace(options, urls=(url, honest.url)))

    async def mine(self, blocks: int = 1) -> int:
        return self._node.mine(blocks=blocks)

    async def pay(self, amount: int) -> tuple[Payment, int]:
        transaction = transfer(SHOP, amount)
        self._sent[transaction.tx_hash] = transaction
        # A second transaction beside it, so that a missing part leaves another one there.
        return Payment(transaction.tx_hash, SHOP, amount), self._node.mine(transaction, call(OTHER))

    async def conflict(self, payment: Payment) -> Payment:
        other = transfer(OTHER, 1)
        self._node.reorganise(1, other)
        return Payment(other.tx_hash, OTHER, 1)

    async def remine(self, payment: Payment) -> int:
        self._node.reorganise(1)
        return self._node.mine(self._sent[payment.tx_hash])

    async def reorganise(self, depth: int) -> int:
        return self._node.reorganise(depth)

    async def cut_off(self) -> None:
        self._node.lie(Fault.DROPPED_CONNECTION)

    async def reconnect(self) -> None:
        self._node.lie(None)

    async def trouble(self, trouble: Trouble | None) -> None:
        self._node.lie(None if trouble is None else FAULTS[trouble])


class TestTronSource(SourceContract, TroubleContract):
    """All suites that fit: TRON has no mempool to show and no balances of past blocks."""

    @pytest.fixture
    async def rig(self) -> AsyncIterator[TronRig]:
        async with TronNode() as node, TronNode() as honest:
            rig = TronRig(node, honest)
            yield rig
            await rig.source.close()
            await rig.pair.close()

    async def test_conflicting_payment_spends_the_same(self, rig: Rig) -> None:
        """TRON's accounts have no nonce: no two transactions conflict, so none may ever look as if it replaced another.

        Bug planted: the sender as spend key; the second of two payments of one customer replaces the first.
        """
        payment, height = await rig.pay(AMOUNT)
        (transfer,) = transfers_of(await rig.source.block_at(height), payment)
        other = await rig.conflict(payment)
        block = await rig.source.block_at(height)
        assert other.tx_hash != payment.tx_hash
        assert not transfers_of(block, payment)
        assert not set(transfer.spend_keys) & set(block.spends)
