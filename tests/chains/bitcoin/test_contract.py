"""The Bitcoin family's source keeps the contract of every source, on a real node."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tallystick.chains.bitcoin.source import BitcoinOptions, BitcoinSource
from tallystick.chains.json_rpc import RpcLimits
from tests.chains.contract_suite import (
    MempoolContract,
    Payment,
    SourceContract,
    Trouble,
    TroubleContract,
)
from tests.support.litecoind import Litecoind, Sent
from tests.support.lying_core import CoreFault, LyingCore
from tests.support.lying_proxy import Fault

FAULTS: dict[Trouble, CoreFault | Fault] = {
    Trouble.SILENT: Fault.DROPPED_CONNECTION,
    Trouble.PARTS_MISSING: CoreFault.MISSING_TRANSACTION,
    Trouble.PARTS_FOREIGN: CoreFault.FOREIGN_TRANSACTION,
    Trouble.NO_BLOCKS: CoreFault.NO_BLOCKS,
    Trouble.OTHER_BLOCK: CoreFault.OTHER_HEIGHT,
    Trouble.OTHER_HASH: CoreFault.OTHER_BRANCH,
    Trouble.OTHER_CHAIN: CoreFault.OTHER_CHAIN,
    Trouble.LAGGING: CoreFault.LAGGING,
}


class LitecoinRig:
    """litecoind behind a proxy that can be cut off."""

    def __init__(self, node: Litecoind, proxy: LyingCore, address: str, other: str, script: str) -> None:
        self._node = node
        self._proxy = proxy
        self._sent: dict[str, Sent] = {}
        self._address, self._other, self._script = address, other, script
        url = proxy.url.replace("http://", "http://user:secret@") + "/secret-access-key"
        limits = RpcLimits(total_timeout_seconds=5.0, attempts_max=1)
        self.source = BitcoinSource(BitcoinOptions("local", "litecoin-regtest", (url,), limits=limits))
        self.pair = BitcoinSource(BitcoinOptions("local", "litecoin-regtest", (url, node.url), limits=limits))

    async def mine(self, blocks: int = 1) -> int:
        return await self._node.mine(blocks)

    async def pay(self, amount: int) -> tuple[Payment, int]:
        payment = await self.send(amount)
        return payment, await self._node.mine()

    async def conflict(self, payment: Payment) -> Payment:
        other = await self._node.respend(self._sent[payment.tx_hash], {self._other: payment.amount})
        await self._node.reorg(1, [[other]])
        return Payment(other.txid, "", payment.amount)

    async def remine(self, payment: Payment) -> int:
        return await self._node.reorg(1, [[], [self._sent[payment.tx_hash]]])

    async def reorganise(self, depth: int) -> int:
        return await self._node.reorg(depth)

    async def send(self, amount: int) -> Payment:
        sent = await self._node.send(self._address, amount)
        self._sent[sent.txid] = sent
        return Payment(sent.txid, self._script, amount)

    async def drop(self, payment: Payment) -> None:
        await self._node.drop(payment.tx_hash)

    async def outbid(self, payment: Payment) -> Payment:
        other = await self._node.replace(self._sent[payment.tx_hash], {self._other: payment.amount})
        return Payment(other.txid, "", payment.amount)

    async def cut_off(self) -> None:
        await self._proxy.lie_so(Fault.DROPPED_CONNECTION)

    async def reconnect(self) -> None:
        await self._proxy.lie_so(None)

    async def trouble(self, trouble: Trouble | None) -> None:
        await self._proxy.lie_so(None if trouble is None else FAULTS[trouble])


@pytest.mark.chain
class TestBitcoinSource(SourceContract, MempoolContract, TroubleContract):
    """All suites on litecoind."""

    @pytest.fixture
    async def rig(self, litecoind: Litecoind) -> AsyncIterator[LitecoinRig]:
        address, other = await litecoind.new_address(), await litecoind.new_address("legacy")
        script = await litecoind.script_of(address)
        async with LyingCore(litecoind.url) as proxy:
            rig = LitecoinRig(litecoind, proxy, address, other, script)
            yield rig
            await rig.source.close()
            await rig.pair.close()
