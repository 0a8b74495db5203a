"""The simulated source keeps the contract of every source."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tallystick.chains.simulated.blocks import Transaction
from tallystick.chains.simulated.chain import SimulatedChain
from tallystick.chains.simulated.nodes import NodeFault, SimulatedNode
from tallystick.chains.simulated.source import SimulatedSource
from tallystick.chains.simulated.transactions import address_of, instead_of, native
from tests.chains.contract_suite import (
    AMOUNT,
    AccountContract,
    MempoolContract,
    Payment,
    SourceContract,
    Trouble,
    TroubleContract,
)
from tests.chains.simulated.networks import START, simulated_network

PAYEE = address_of("payee")
CUSTOMER = address_of("customer")


FAULTS = {
    Trouble.SILENT: NodeFault.TIMEOUT,
    Trouble.PARTS_MISSING: NodeFault.TRUNCATED,
    Trouble.PARTS_FOREIGN: NodeFault.RELINKED,
    Trouble.NO_BLOCKS: NodeFault.NOT_FOUND,
    Trouble.OTHER_BLOCK: NodeFault.OTHER_HEIGHT,
    Trouble.OTHER_CHAIN: NodeFault.WRONG_CHAIN,
    Trouble.LAGGING: NodeFault.REWOUND,
}


class SimulatedRig:
    """One node that can be cut off, of a chain that mines on demand."""

    def __init__(self) -> None:
        self.chain = SimulatedChain("local", "7001", START)
        self.node = SimulatedNode("node-1", self.chain)
        network = simulated_network("local", "7001")
        self.source = SimulatedSource(network, [self.node])
        self.pair = SimulatedSource(network, [self.node, SimulatedNode("node-2", self.chain)])
        self.accounts = self.source
        self.payer = CUSTOMER
        self._sent: dict[str, Transaction] = {}
        self._salt = 0

    async def mine(self, blocks: int = 1) -> int:
        for _ in range(blocks):
            self.chain.mine(self._next_time())
        return self.chain.height

    async def pay(self, amount: int) -> tuple[Payment, int]:
        payment = await self.send(amount)
        return payment, await self.mine()

    async def conflict(self, payment: Payment) -> Payment:
        other = self._other(payment)
        self.chain.submit(other)
        self._replace(1, [[other.hash]])
        return Payment(other.hash, PAYEE, 1)

    async def remine(self, payment: Payment) -> int:
        self._replace(1, [[], [payment.tx_hash]])
        return self.chain.height

    async def reorganise(self, depth: int) -> int:
        self._replace(depth, [[] for _ in range(depth)])
        return self.chain.height

    async def cut_off(self) -> None:
        self.node.inject(NodeFault.UNAVAILABLE)

    async def reconnect(self) -> None:
        self.node.clear()

    async def trouble(self, trouble: Trouble | None) -> None:
        self.node.clear()
        if trouble is Trouble.OTHER_HASH:
            # A block of its own and empty ones above it, hashed as they should be.
            self.node.inject(NodeFault.FORGED, height=self.chain.height, forgery=self._forge)
        elif trouble is not None:
            self.node.inject(FAULTS[trouble], depth=10)

    def _forge(self, transactions: tuple[Transaction, ...]) -> tuple[Transaction, ...]:
        return (*transactions, native(CUSTOMER, 10**6, PAYEE, AMOUNT))

    async def send(self, amount: int) -> Payment:
        transaction = native(CUSTOMER, len(self._sent), PAYEE, amount)
        self._sent[transaction.hash] = transaction
        self.chain.submit(transaction)
        return Payment(transaction.hash, PAYEE, amount)

    async def drop(self, payment: Payment) -> None:
        self.chain.drop(payment.tx_hash)

    async def outbid(self, payment: Payment) -> Payment:
        other = self._other(payment)
        self.chain.submit(other)
        return Payment(other.hash, PAYEE, 1)

    def _other(self, payment: Payment) -> Transaction:
        return instead_of(self._sent[payment.tx_hash], PAYEE, 1)

    def _next_time(self) -> datetime:
        return self.chain.head.header.time + timedelta(seconds=12)

    def _replace(self, depth: int, contents: list[list[str]]) -> None:
        """Mine these blocks beside the newest `depth` and go over to them."""
        self._salt += 1
        parent = self.chain.at(self.chain.height - depth)
        assert parent is not None
        for content in contents:
            time = parent.header.time + timedelta(seconds=12)
            parent = self.chain.mine(time, content, parent=parent.hash, salt=self._salt)
        self.chain.adopt(parent.hash)


class TestSimulatedSource(SourceContract, MempoolContract, TroubleContract, AccountContract):
    """All suites in memory."""

    @pytest.fixture
    def rig(self) -> SimulatedRig:
        return SimulatedRig()
