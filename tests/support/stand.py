"""A whole shop on a local chain, moved by hand: real PostgreSQL, real anvil, real services, no loops.

For: scenario tests that need to say exactly what happens when. `follow` reads the chain until nothing is new, `expire`
judges the windows that ended; both are what the workers do, one turn at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from eth_account import Account

from tallystick.chains.evm.addresses import EvmAccountKey
from tallystick.chains.evm.rpc import RpcLimits
from tallystick.chains.evm.source import EvmOptions, EvmSource
from tallystick.core.chain import Finality, Requirement
from tallystick.core.money import Asset
from tallystick.core.network import Network
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services import invoices, objects
from tallystick.services.context import Actor, ActorType, Context
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import list_networks, sync_networks
from tallystick.services.wallets import NewWallet, register_wallet
from tallystick.workers.expire import Expirer
from tallystick.workers.follow import Follower, FollowerOptions
from tests.support.evm import Chain

Account.enable_unaudited_hdwallet_features()

RATES = {"ETH/USD": Fraction(2500), "DUSD/USD": Fraction(1), "ETH/EUR": Fraction(2300)}
ACTOR = Actor(ActorType.MERCHANT, "key_test")
LIMITS = RpcLimits()


def account_key(seed: int = 0) -> str:
    """A fresh account's public key: BIP44 m/44'/60'/seed' of the well-known test mnemonic, as an xpub."""
    from bip32 import BIP32
    from eth_account.hdaccount import seed_from_mnemonic

    mnemonic = "test test test test test test test test test test test junk"
    root = BIP32.from_seed(seed_from_mnemonic(mnemonic, ""))
    return str(root.get_xpub_from_path(f"m/44'/60'/{seed}'"))


def evm_network(
    name: str, chain_id: int, *, token: str | None = None, confirmations: int = 3, **changes: Any
) -> Network:
    """A network with ETH and, where a contract is given, DUSD with six decimals."""
    tokens = (Asset(name, "DUSD", 6, token),) if token is not None else ()
    network = Network(
        name=name,
        family="evm",
        chain=str(chain_id),
        native=Asset(name, "ETH", 18),
        tokens=tokens,
        requirement=Requirement(Finality.DEPTH, confirmations),
    )
    return replace(network, **changes)


@dataclass(slots=True)
class Stand:
    """One shop with one EVM wallet on any number of chains."""

    ctx: Context
    merchant_id: str
    api_key: str
    followers: dict[str, Follower] = field(default_factory=dict)

    async def follow(self, *names: str) -> None:
        """Read these networks (all by default) until nothing is new."""
        for name in names or tuple(self.followers):
            while await self.followers[name].poll():
                pass

    async def expire(self) -> int:
        """Judge every window that has ended; answer how many were judged."""
        expirer = Expirer(self.ctx)
        judged = 0
        for network in ("", *self.ctx.networks):
            while found := await expirer.batch(network):
                judged += found
        return judged

    async def create(self, amount: str = "25.00", *accepted: tuple[str, str], **more: Any) -> objects.Invoice:
        """A new invoice in USD, payable in ETH on the first network unless said otherwise."""
        names = accepted or (("ETH", next(iter(self.ctx.networks))),)
        new = invoices.NewInvoice(**({"amount": amount, "currency": "USD", "accepted": names} | more))
        async with self.ctx.database.transaction() as connection:
            return await invoices.create_invoice(connection, self.ctx, self.merchant_id, ACTOR, new)

    async def get(self, invoice: objects.Invoice | str) -> objects.Invoice:
        """The invoice as it stands."""
        invoice_id = invoice if isinstance(invoice, str) else invoice.id
        async with self.ctx.database.connection() as connection:
            return await invoices.get_invoice(connection, self.ctx, self.merchant_id, invoice_id)

    async def status(self, invoice: objects.Invoice) -> str:
        """The invoice's status."""
        return (await self.get(invoice)).status

    async def history(self, invoice: objects.Invoice) -> list[objects.Transition]:
        """Every transition."""
        async with self.ctx.database.connection() as connection:
            return await invoices.list_transitions(connection, self.merchant_id, invoice.id)

    async def way(self, invoice: objects.Invoice) -> list[str]:
        """The statuses the invoice went through."""
        return [transition.to for transition in await self.history(invoice)]

    async def event_types(self, object_id: str) -> list[str]:
        """Types of the events about an object, in order."""
        async with self.ctx.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT type FROM events WHERE object_id = $1 ORDER BY sequence", object_id
            )
        return [row["type"] for row in rows]

    async def network(self, name: str | None = None) -> objects.NetworkObject:
        """A network as operators see it."""
        wanted = name or next(iter(self.ctx.networks))
        async with self.ctx.database.connection() as connection:
            return next(one for one in await list_networks(connection, self.ctx) if one.name == wanted)

    async def do(self, use_case: Any, *arguments: Any) -> Any:
        """Run one of `services.invoices`' actions of the merchant in a transaction of its own."""
        async with self.ctx.database.transaction() as connection:
            return await use_case(connection, self.ctx, self.merchant_id, ACTOR, *arguments)

    def restart(self, name: str) -> None:
        """Forget the follower and begin with a new one, as after a restart: nothing is kept but the database."""
        old = self.followers[name]
        self.followers[name] = Follower(self.ctx, self.ctx.networks[name], old.source, FollowerOptions())


@contextlib.asynccontextmanager
async def open_stand(
    database_url: str, *networks: tuple[Network, str], **options: Any
) -> AsyncIterator[Stand]:
    """A shop on these networks, each with the URL of its node. The first blocks are read before it opens."""
    database = await Database.open(database_url, connections_max=20)
    ctx = Context(
        database=database,
        networks={network.name: network for network, _ in networks},
        rates=StaticRates(RATES),
        public_url="http://127.0.0.1:8420",
        allow_private_targets=True,
    )
    sources = {network.name: EvmSource(evm_options(network, url, **options)) for network, url in networks}
    try:
        async with database.transaction() as connection:
            await sync_networks(connection, ctx.networks)
            merchant_id, api_key = await create_merchant(connection, ctx, "Tally & Sons")
            await register_wallet(connection, ctx, merchant_id, NewWallet("evm", account_key(), "main"))
        stand = Stand(ctx, merchant_id, api_key)
        for network, _ in networks:
            stand.followers[network.name] = Follower(ctx, network, sources[network.name], FollowerOptions())
        await stand.follow()
        yield stand
    finally:
        for source in sources.values():
            await source.close()
        await database.close()


def evm_options(network: Network, url: str, **options: Any) -> EvmOptions:
    """Options of a source that gives up soon: tests do not wait for patience."""
    return EvmOptions(network=network.name, chain_id=int(network.chain), rpc_urls=(url,), **options)


def units(text: str, decimals: int = 18) -> int:
    """Base units of a decimal amount."""
    return int(Fraction(text) * 10**decimals)


def first_address(index: int) -> str:
    """What the stand's wallet derives at an index."""
    return EvmAccountKey.parse(account_key()).derive(index)


def chain_of(anvil: Any) -> Chain:
    """The helper that signs and mines on an anvil node."""
    return Chain(anvil.url, anvil.chain_id)
