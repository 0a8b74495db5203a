"""A shop whose chains are made up block by block: real database, real services, no node.

For: tests of pages; `tests.web.scenes` brings invoices into every situation with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final

from tallystick.core.chain import (
    Block,
    BlockHeader,
    BlockRef,
    Channel,
    Finality,
    MempoolSnapshot,
    ObservedTransfer,
    Requirement,
)
from tallystick.core.invoice import Status
from tallystick.core.money import Asset, parse_units
from tallystick.core.network import Network
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services import invoices, objects
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.context import CUSTOMER, SYSTEM, Actor, ActorType, Context
from tallystick.services.disputes import open_dispute
from tallystick.services.intake import Step, apply_step
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import sync_networks
from tallystick.services.sightings import apply_sightings
from tallystick.services.wallets import NewWallet, register_wallet

# m/44'/60'/0' of the well-known test mnemonic ("test test … junk").
ACCOUNT_KEY: Final = "xpub6Ce9NcJvTk36xtLSrJLZqE7wtgA5deCeYs7rSQtreh4cj6ByPtrg9sD7V2FNFLPnf8heNP3FGkeV9qwfzvZNSd54JoNXVsXFYSYwHsnJxqP"  # noqa: E501
USDC: Final = Asset("ethereum", "USDC", 6, "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48")
NETWORKS: Final = {
    "ethereum": Network(
        name="ethereum",
        family="evm",
        chain="1",
        native=Asset("ethereum", "ETH", 18),
        tokens=(USDC,),
        requirement=Requirement(Finality.DEPTH, 12),
    ),
    "polygon": Network(
        name="polygon",
        family="evm",
        chain="137",
        native=Asset("polygon", "POL", 18),
        requirement=Requirement(Finality.FINALIZED),
    ),
}
RATES: Final = {"ETH/USD": Fraction(2500), "USDC/USD": Fraction(1), "POL/USD": Fraction(21, 100)}
ACCEPTED: Final = (("USDC", "ethereum"), ("ETH", "ethereum"), ("POL", "polygon"))
MERCHANT: Final = Actor(ActorType.MERCHANT, "key_test")


@dataclass(slots=True)
class Shop:
    """One merchant on two made-up chains. `now` is both our clock and the time of the next block."""

    database: Database
    merchant_id: str = ""
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    chains: dict[str, list[BlockRef]] = field(default_factory=dict)
    count: int = 0
    ctx: Context = field(init=False)

    def __post_init__(self) -> None:
        self.ctx = Context(
            database=self.database,
            networks=NETWORKS,
            rates=StaticRates(RATES),
            public_url="http://127.0.0.1:8420",
            clock=lambda: self.now,
        )

    async def create(
        self,
        *,
        amount: str = "49.00",
        currency: str = "USD",
        accepted: tuple[tuple[str, str], ...] = ACCEPTED,
        merchant_id: str | None = None,
        **more: Any,
    ) -> objects.Invoice:
        """A new invoice with links back to the shop."""
        new = invoices.NewInvoice(
            **(
                {
                    "amount": amount,
                    "currency": currency,
                    "accepted": accepted,
                    "order_id": "A-1001",
                    "success_url": "https://shop.example/thanks",
                    "cancel_url": "https://shop.example/basket",
                    "metadata": {"internal": "margin 31 %"},
                    "customer": {"email": "jo@customer.example", "name": "Jo"},
                }
                | more
            )
        )
        async with self.database.transaction() as connection:
            owner = merchant_id or self.merchant_id
            return await invoices.create_invoice(connection, self.ctx, owner, MERCHANT, new)

    async def merchant(self, name: str) -> str:
        """Another merchant with a wallet of the same key."""
        async with self.database.transaction() as connection:
            merchant_id, _ = await create_merchant(connection, self.ctx, name)
            await register_wallet(connection, self.ctx, merchant_id, NewWallet("evm", ACCOUNT_KEY, "main"))
        return merchant_id

    async def activate(self, invoice: objects.Invoice, place: int = 0) -> objects.Invoice:
        """Choose the option at a place of the list."""
        option_id = invoice.payment_options[place].id
        async with self.database.transaction() as connection:
            return await invoices.activate_option(connection, self.ctx, None, CUSTOMER, invoice.id, option_id)

    async def pay(
        self, invoice: objects.Invoice, share: str = "1", *, place: int = 0, wrong_asset: bool = False
    ) -> None:
        """A block with a transfer of this share of what the option asks (its address must be issued)."""
        option = invoice.payment_options[place]
        assert option.address is not None
        contract = option.token_contract.lower() if option.token_contract is not None else None
        amount = int(parse_units(option.amount_expected, option.decimals) * Fraction(share))
        if wrong_asset:
            contract, amount = (USDC.contract, 10**7) if contract is None else (None, 10**16)
        await self.block(option.network, to=option.address.lower(), contract=contract, amount=amount)

    async def sight(self, invoice: objects.Invoice, place: int = 0) -> None:
        """Let a node show the whole payment outside any block."""
        option = invoice.payment_options[place]
        assert option.address is not None
        contract = option.token_contract.lower() if option.token_contract is not None else None
        amount = parse_units(option.amount_expected, option.decimals)
        self.count += 1
        channel = Channel.VALUE if contract is None else Channel.LOG
        transfer = self._transfer(option.address.lower(), contract, amount, channel)
        head = self.chains[option.network][-1]
        snapshot = MempoolSnapshot(head, (transfer,), dict.fromkeys(transfer.spend_keys, transfer.tx_hash))
        result = await apply_sightings(self.ctx, NETWORKS[option.network], snapshot)
        assert result.seen == 1

    async def block(
        self,
        network: str,
        *,
        to: str | None = None,
        contract: str | None = None,
        amount: int = 1,
        channel: Channel | None = None,
    ) -> None:
        """Mine one block, with at most one transfer."""
        chain = self.chains.setdefault(network, [])
        tip = chain[-1] if chain else None
        header = self._header(network, tip)
        transfers: tuple[ObservedTransfer, ...] = ()
        if to is not None:
            channel = channel or (Channel.VALUE if contract is None else Channel.LOG)
            transfers = (self._transfer(to, contract, amount, channel),)
        spends = {key: transfer.tx_hash for transfer in transfers for key in transfer.spend_keys}
        await apply_step(self.ctx, NETWORKS[network], Step(tip, (Block(header, transfers, spends),)))
        chain.append(header.ref)

    async def reorganise(self, network: str, depth: int) -> None:
        """Replace the last blocks by one more empty ones."""
        chain = self.chains[network]
        kept, ancestor = chain[:-depth], chain[-depth - 1]
        blocks: list[Block] = []
        for _ in range(depth + 1):
            header = self._header(network, blocks[-1].header.ref if blocks else ancestor)
            blocks.append(Block(header, (), {}))
        await apply_step(self.ctx, NETWORKS[network], Step(chain[-1], tuple(blocks), ancestor=ancestor))
        self.chains[network] = [*kept, *(block.header.ref for block in blocks)]

    def _header(self, network: str, parent: BlockRef | None) -> BlockHeader:
        self.count += 1
        return BlockHeader(
            hash=hash_of(f"block {network} {self.count}"),
            parent_hash=parent.hash if parent is not None else hash_of("genesis"),
            height=parent.height + 1 if parent is not None else 100,
            time=self.now,
        )

    def _transfer(self, to: str, contract: str | None, amount: int, channel: Channel) -> ObservedTransfer:
        tx_hash = hash_of(f"transaction {self.count}")
        sender = f"0x{'5e' * 20}"
        return ObservedTransfer(
            tx_hash, channel, 0, sender, to, contract, amount, (f"{sender}:{self.count}",), None
        )

    async def mine(self, network: str, blocks: int) -> None:
        """Mine empty blocks."""
        for _ in range(blocks):
            await self.block(network)

    async def pass_time(self, seconds: int, *networks: str) -> None:
        """Let time pass on our clock, and on these chains by a block after it."""
        self.now += timedelta(seconds=seconds)
        for network in networks:
            await self.block(network)

    async def force(self, invoice: objects.Invoice, status: Status) -> None:
        """Write a status into the row and tell listeners, as the one writer will."""
        async with self.database.transaction() as connection:
            await connection.execute(
                "UPDATE invoices SET status = $2 WHERE id = $1", invoice.id, status.value
            )
            await connection.execute("SELECT pg_notify('tallystick_invoices', $1)", invoice.id)

    async def judge(self, invoice: objects.Invoice) -> None:
        """Assess again by our clock, as the expiry worker does."""
        async with self.database.transaction() as connection:
            cause = Cause(CauseKind.CLOCK, SYSTEM, ({"type": "clock"},))
            await assess_invoices(connection, self.ctx, [invoice.id], cause)

    async def cancel(self, invoice: objects.Invoice) -> None:
        """Withdraw it."""
        async with self.database.transaction() as connection:
            await invoices.cancel_invoice(connection, self.ctx, self.merchant_id, MERCHANT, invoice.id)

    async def fulfill(self, invoice: objects.Invoice) -> None:
        """Say that the goods have left."""
        async with self.database.transaction() as connection:
            await invoices.record_fulfillment(
                connection, self.ctx, self.merchant_id, MERCHANT, invoice.id, {"note": "secret note"}
            )

    async def dispute(self, invoice: objects.Invoice) -> None:
        """Open a dispute, with words that are nobody's business but the merchant's."""
        async with self.database.transaction() as connection:
            await open_dispute(
                connection,
                self.ctx,
                self.merchant_id,
                MERCHANT,
                invoice.id,
                reason="secret reason",
                note="secret note",
            )

    async def settle(self, invoice: objects.Invoice) -> None:
        """Take it into a batch, as the settlement work will."""
        async with self.database.transaction() as connection:
            await connection.execute(
                "UPDATE invoices SET settled_at = $2 WHERE id = $1", invoice.id, self.now
            )
        await self.judge(invoice)

    async def end(self, invoice: objects.Invoice) -> None:
        """Let its time pass, on our clock and on every chain it may be paid on."""
        await self.pass_time(901, "ethereum", "polygon")
        await self.judge(invoice)

    async def status(self, invoice: objects.Invoice) -> str:
        """The stored status."""
        async with self.database.connection() as connection:
            return str(await connection.fetchval("SELECT status FROM invoices WHERE id = $1", invoice.id))


def hash_of(text: str) -> str:
    return "0x" + hashlib.sha256(text.encode()).hexdigest()


@asynccontextmanager
async def open_shop(database_url: str, *, name: str = "Kiln & Clay Ceramics") -> AsyncIterator[Shop]:
    """A shop on a migrated database, its chains read up to a first block."""
    database = await Database.open(database_url, connections_max=8)
    try:
        shop = Shop(database)
        async with database.transaction() as connection:
            await sync_networks(connection, NETWORKS)
        shop.merchant_id = await shop.merchant(name)
        for network in NETWORKS:
            await shop.block(network)
        yield shop
    finally:
        await database.close()
