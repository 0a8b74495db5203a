"""A shop on a chain of outputs whose blocks and mempool are written by hand: real PostgreSQL, real services, no node.

For: scenarios about what blocks of Bitcoin's family mean, where a real node would make the test about the node: blocks
dated ahead, coinbases to customers, transactions with several inputs. Times are told by a clock that stands.
Holds true: blocks go through the intake that followers use, sightings through the one that they use; `open_till` checks
the invariants of the whole database before it closes.
Must not: write to the database except through services.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

from tallystick.chains.families import FAMILIES
from tallystick.core.chain import (
    Block,
    BlockHeader,
    BlockRef,
    Channel,
    Finality,
    MempoolSnapshot,
    ObservedTransfer,
    Requirement,
    Trait,
)
from tallystick.core.money import Asset
from tallystick.core.network import Network
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services import invoices, objects, policies
from tallystick.services.context import Actor, ActorType, Context
from tallystick.services.intake import Step, apply_step
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import record_status, sync_networks
from tallystick.services.sightings import apply_sightings
from tallystick.services.wallets import NewWallet, register_wallet
from tests.support.invariants import check_invariants
from tests.support.lite_shop import account_key
from tests.support.stand import Clock

NAME: Final = "bitcoin"
ASKED: Final = 25_000
"""What 25.00 USD ask, in satoshi."""

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
OUTPUTS: Final = Network(
    name=NAME,
    family="bitcoin",
    chain="bitcoin-regtest",
    native=Asset(NAME, "BTC", 8),
    requirement=Requirement(Finality.DEPTH, 2),
    finality_tags=False,
    loose_times=True,
    zero_conf_limit=1_000_000,
    has_accounts=False,
)
ACTOR: Final = Actor(ActorType.MERCHANT, "key_test")


def hash_of(text: str) -> str:
    """A hash that only this text has."""
    return hashlib.sha256(text.encode()).hexdigest()


def coin(text: str) -> str:
    """The spend key of some output that is not ours."""
    return f"{hash_of(text)}:0"


@dataclass(slots=True)
class Till:
    """One merchant with one wallet on one chain. `chain` is the best chain as told so far."""

    ctx: Context
    network: Network
    clock: Clock
    merchant_id: str
    chain: list[Block] = field(default_factory=list)
    count: int = 0

    @property
    def tip(self) -> BlockRef:
        """The newest block."""
        return self.chain[-1].header.ref

    def pay(
        self,
        *invoices_: objects.Invoice,
        amount: int = ASKED,
        inputs: Sequence[str] = (),
        traits: Sequence[Trait] = (),
    ) -> list[ObservedTransfer]:
        """One transaction with an output to each invoice; `inputs` are spend keys (default: one nobody knows)."""
        self.count += 1
        tx_hash = hash_of(f"transaction {self.count}")
        keys = tuple(inputs) or (coin(f"input of {tx_hash}"),)
        return [
            ObservedTransfer(
                tx_hash,
                Channel.OUTPUT,
                ordinal,
                "",
                self.script(invoice),
                None,
                amount,
                keys,
                traits=frozenset(traits),
            )
            for ordinal, invoice in enumerate(invoices_)
        ]

    def script(self, invoice: objects.Invoice) -> str:
        """The normal form of an invoice's address."""
        address = invoice.payment_options[0].address
        assert address is not None
        return FAMILIES["bitcoin"].normalize(address, self.network)

    def block(
        self,
        *transfers: ObservedTransfer,
        on: BlockRef | None,
        time: datetime | None = None,
        spends: dict[str, str] | None = None,
    ) -> Block:
        """A block on another, at our clock's time unless said otherwise. `spends` are those of other transactions."""
        self.count += 1
        height = 100 if on is None else on.height + 1
        parent = hash_of("genesis") if on is None else on.hash
        header = BlockHeader(hash_of(f"block {self.count}"), parent, height, time or self.clock.at)
        keys = {key: transfer.tx_hash for transfer in transfers for key in transfer.spend_keys}
        return Block(header, transfers, keys | (spends or {}))

    async def mine(self, *transfers: ObservedTransfer, blocks: int = 1, **more: Any) -> Block:
        """Take in a block with these transfers, and empty ones up to `blocks`. Answers the first."""
        expected = self.tip if self.chain else None
        new = [self.block(*transfers, on=expected, **more)]
        for _ in range(1, blocks):
            new.append(self.block(on=new[-1].header.ref))
        for one in new:
            await apply_step(self.ctx, self.network, Step(self.tip if self.chain else None, (one,)))
            self.chain.append(one)
        return new[0]

    async def reorganise(self, drop: int, *contents: Sequence[ObservedTransfer]) -> None:
        """Put blocks with these contents in place of the last `drop` ones, in one step."""
        expected, kept = self.tip, self.chain[: len(self.chain) - drop]
        ancestor = kept[-1].header.ref
        new: list[Block] = []
        for content in contents:
            new.append(self.block(*content, on=new[-1].header.ref if new else ancestor))
        await apply_step(self.ctx, self.network, Step(expected, tuple(new), ancestor=ancestor))
        self.chain = [*kept, *new]

    async def show(self, *transfers: ObservedTransfer, **more: Any) -> None:
        """A look at the mempool that shows these transfers."""
        spends = {key: transfer.tx_hash for transfer in transfers for key in transfer.spend_keys}
        snapshot = MempoolSnapshot(self.tip, transfers, spends, head_time=self.chain[-1].header.time)
        await apply_sightings(self.ctx, self.network, replace(snapshot, **more))

    async def create(
        self, amount: str = "25.00", merchant_id: str | None = None, **more: Any
    ) -> objects.Invoice:
        """A new invoice in USD."""
        new = invoices.NewInvoice(amount=amount, currency="USD", accepted=(("BTC", NAME),), **more)
        async with self.ctx.database.transaction() as connection:
            return await invoices.create_invoice(
                connection, self.ctx, merchant_id or self.merchant_id, ACTOR, new
            )

    async def get(self, invoice: objects.Invoice, merchant_id: str | None = None) -> objects.Invoice:
        """The invoice as it stands."""
        async with self.ctx.database.connection() as connection:
            return await invoices.get_invoice(
                connection, self.ctx, merchant_id or self.merchant_id, invoice.id
            )

    async def status(self, invoice: objects.Invoice) -> str:
        """The invoice's status."""
        return (await self.get(invoice)).status

    async def rules(self, **rule: Any) -> None:
        """Put one rule in force, by depth of 2."""
        wanted = policies.PolicyRule(
            name="rule", require=policies.RuleRequire(finality=Finality.DEPTH, confirmations=2), **rule
        )
        async with self.ctx.database.transaction() as connection:
            await policies.put_policy(connection, self.ctx, self.merchant_id, ACTOR, [wanted])

    async def rows(self, statement: str, *arguments: Any) -> list[Any]:
        """Whatever a test wants to see of the database."""
        async with self.ctx.database.connection() as connection:
            return list(await connection.fetch(statement, *arguments))

    async def another_merchant(self) -> str:
        """A second merchant, with an account of its own."""
        async with self.ctx.database.transaction() as connection:
            merchant_id, _ = await create_merchant(connection, self.ctx, "Other")
            new = NewWallet("bitcoin", account_key(number=1), "main")
            await register_wallet(connection, self.ctx, merchant_id, new)
        return merchant_id


@contextlib.asynccontextmanager
async def open_till(database_url: str, network: Network = OUTPUTS) -> AsyncIterator[Till]:
    """A shop with the chain's first block read."""
    database = await Database.open(database_url, connections_max=5)
    clock = Clock(START)
    ctx = Context(
        database=database,
        networks={network.name: network},
        rates=StaticRates({"BTC/USD": Fraction(100_000)}),
        public_url="http://127.0.0.1:8420",
        clock=clock,
    )
    try:
        async with database.transaction() as connection:
            await sync_networks(connection, ctx.networks)
            merchant_id, _ = await create_merchant(connection, ctx, "Tally & Sons")
            await register_wallet(connection, ctx, merchant_id, NewWallet("bitcoin", account_key(), "main"))
        till = Till(ctx, network, clock, merchant_id)
        await till.mine()
        async with database.transaction() as connection:
            await record_status(connection, network.name, "following", None)
        yield till
        await check_invariants(ctx)
    finally:
        await database.close()
