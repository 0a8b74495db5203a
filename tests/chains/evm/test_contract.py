"""The EVM source keeps the contract of every source, on a real node."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tallystick.chains.evm.source import EvmOptions, EvmSource
from tallystick.chains.json_rpc import RpcLimits
from tallystick.demo.customer import Signed
from tests.chains.contract_suite import (
    AccountContract,
    MempoolContract,
    Payment,
    SourceContract,
    Trouble,
    TroubleContract,
)
from tests.support.evm import Chain, address_of
from tests.support.lying_proxy import Fault, LyingProxy

FAULTS = {
    Trouble.SILENT: Fault.DROPPED_CONNECTION,
    Trouble.PARTS_MISSING: Fault.MISSING_RECEIPT,
    Trouble.PARTS_FOREIGN: Fault.FOREIGN_BLOCK,
    Trouble.NO_BLOCKS: Fault.NULL_BLOCK,
    Trouble.OTHER_BLOCK: Fault.OTHER_HEIGHT,
    Trouble.OTHER_HASH: Fault.OTHER_HASH,
    Trouble.OTHER_CHAIN: Fault.OTHER_CHAIN,
    Trouble.LAGGING: Fault.OLDER_HEAD,
}


class EvmRig:
    """anvil behind a proxy that can be cut off."""

    def __init__(self, chain: Chain, proxy: LyingProxy) -> None:
        self._chain = chain
        self._proxy = proxy
        self._signed: dict[str, Signed] = {}
        url = proxy.url.replace("http://", "http://user:secret@") + "/secret-access-key"
        limits = RpcLimits(total_timeout_seconds=5.0, attempts_max=1)
        self.source = EvmSource(EvmOptions("local", chain.chain_id, (url,), limits=limits))
        self.pair = EvmSource(EvmOptions("local", chain.chain_id, (url, chain.url), limits=limits))
        self.accounts = self.source
        self.payer = address_of(0)

    async def mine(self, blocks: int = 1) -> int:
        return await self._chain.mine(blocks)

    async def pay(self, amount: int) -> tuple[Payment, int]:
        signed = await self._chain.send_native(address_of(5), amount)
        self._signed[signed.tx_hash] = signed
        height = await self._chain.mine()
        return Payment(signed.tx_hash, address_of(5), amount), height

    async def conflict(self, payment: Payment) -> Payment:
        other = await self._chain.replacement(self._signed[payment.tx_hash], to=address_of(6), value=1)
        await self._chain.reorg(1, [(other, 0)])
        return Payment(other.tx_hash, address_of(6), 1)

    async def remine(self, payment: Payment) -> int:
        await self._chain.reorg(1)
        await self._chain.submit(self._signed[payment.tx_hash])
        return await self._chain.mine()

    async def reorganise(self, depth: int) -> int:
        return await self._chain.reorg(depth)

    async def send(self, amount: int) -> Payment:
        signed = await self._chain.send_native(address_of(5), amount)
        self._signed[signed.tx_hash] = signed
        return Payment(signed.tx_hash, address_of(5), amount)

    async def drop(self, payment: Payment) -> None:
        await self._chain.drop(payment.tx_hash)

    async def outbid(self, payment: Payment) -> Payment:
        other = await self._chain.replacement(self._signed[payment.tx_hash], to=address_of(6), value=1)
        await self._chain.submit(other)
        return Payment(other.tx_hash, address_of(6), 1)

    async def cut_off(self) -> None:
        self._proxy.lie(Fault.DROPPED_CONNECTION)

    async def reconnect(self) -> None:
        self._proxy.lie(None)

    async def trouble(self, trouble: Trouble | None) -> None:
        self._proxy.lie(None if trouble is None else FAULTS[trouble])


@pytest.mark.chain
class TestEvmSource(SourceContract, MempoolContract, TroubleContract, AccountContract):
    """All suites on anvil."""

    @pytest.fixture
    async def rig(self, chain: Chain) -> AsyncIterator[EvmRig]:
        async with LyingProxy(chain.url) as proxy:
            rig = EvmRig(chain, proxy)
            yield rig
            await rig.source.close()
            await rig.pair.close()
