"""A whole shop on a local chain, moved by hand: real PostgreSQL, real anvil, real services, no loops.

For: scenario tests that need to say exactly what happens when. `follow` reads the chain until nothing is new, `expire`
judges the windows that ended; both are what the workers do, one turn at a time. `running` runs the real loops instead.
Holds true: whatever a scenario did, `open_stand` checks the invariants of the whole database before it closes.
Must not: write to the database except through the services.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from eth_account import Account

from tallystick.chains.evm.addresses import EvmAccountKey
from tallystick.chains.evm.source import EvmOptions, EvmSource
from tallystick.chains.json_rpc import RpcLimits
from tallystick.core.chain import Finality, Requirement
from tallystick.core.money import Asset
from tallystick.core.network import Network
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services import invoices, objects
from tallystick.services.context import Actor, ActorType, Context, system_clock
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import list_networks, sync_networks
from tallystick.services.wallets import NewWallet, register_wallet
from tallystick.workers.expire import Expirer
from tallystick.workers.follow import Follower, FollowerOptions
from tallystick.workers.supervise import Backoff, Loop, Supervisor
from tests.support.evm import Chain
from tests.support.invariants import check_invariants

Account.enable_unaudited_hdwallet_features()

RATES = {"ETH/USD": Fraction(2500), "DUSD/USD": Fraction(1), "ETH/EUR": Fraction(2300)}
ACTOR = Actor(ActorType.MERCHANT, "key_test")
# One attempt a call: the follower asks again by itself, and a test that breaks the node should not wait for patience.
LIMITS = RpcLimits(attempts_max=1, total_timeout_seconds=5.0, connect_timeout_seconds=2.0)
LOOPS = FollowerOptions(poll_interval_seconds=0.02, retry_seconds_max=0.1)
WAIT_SECONDS_MAX = 60.0
LOOPS_BACKOFF = Backoff(first_seconds=0.05, longest_seconds=0.2)


@dataclass(slots=True)
class Clock:
    """A clock that stands until it is moved. Whole seconds, so that it can be compared with chain time."""

    at: datetime

    def __call__(self) -> datetime:
        return self.at

    @classmethod
    def of(cls, unix_seconds: int) -> Clock:
        """A clock standing at this Unix second."""
        return cls(datetime.fromtimestamp(unix_seconds, UTC))

    def advance(self, seconds: float) -> None:
        """Move on."""
        self.at += timedelta(seconds=seconds)


def account_key(seed: int = 1) -> str:
    """A fresh account's public key: BIP44 m/44'/60'/seed' of the well-known test mnemonic, as an xpub.

    Account 0 holds anvil's funded addresses: with it, customers would pay from the addresses that they pay to.
    """
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
    sources: dict[str, EvmSource] = field(default_factory=dict)
    urls: dict[str, tuple[str, ...]] = field(default_factory=dict)

    async def follow(self, *names: str) -> None:
        """Read these networks (all by default) until nothing is new."""
        for name in names or tuple(self.followers):
            while await self.followers[name].poll():
                pass

    @contextlib.asynccontextmanager
    async def running(self, *names: str) -> AsyncIterator[Supervisor]:
        """Run the real loops meanwhile: the followers of these networks (all by default) and the expirer."""
        loops = [Loop(f"follow {name}", self.followers[name].run) for name in names or tuple(self.followers)]
        stop = asyncio.Event()
        supervisor = Supervisor([*loops, Loop("expire", Expirer(self.ctx).run)], backoff=LOOPS_BACKOFF)
        task = asyncio.create_task(supervisor.run(stop))
        try:
            yield supervisor
        finally:
            stop.set()
            await task

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

    async def until_network(self, status: str, name: str | None = None) -> objects.NetworkObject:
        """Wait until operators are shown this status; answer what they were shown then."""
        seen: list[objects.NetworkObject] = []

        async def shown() -> bool:
            seen.append(await self.network(name))
            return seen[-1].status == status

        await until(shown)
        return seen[-1]

    async def until_status(self, invoice: objects.Invoice, *statuses: str) -> objects.Invoice:
        """Wait until the invoice has one of these statuses."""
        await until(lambda: self._status_in(invoice, statuses))
        return await self.get(invoice)

    async def _status_in(self, invoice: objects.Invoice, statuses: tuple[str, ...]) -> bool:
        return await self.status(invoice) in statuses

    async def last(self, invoice: objects.Invoice) -> objects.Transition:
        """The newest transition."""
        return (await self.history(invoice))[-1]

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

    async def rows(self, statement: str, *arguments: Any) -> list[Any]:
        """Whatever a test wants to see of the database."""
        async with self.ctx.database.connection() as connection:
            return list(await connection.fetch(statement, *arguments))

    async def restart(self, name: str | None = None, *, url: str | None = None) -> None:
        """Forget the follower and its source and begin anew, as after a restart: only the database is kept.

        `url` is another node than before.
        """
        name = name or next(iter(self.followers))
        old = self.sources[name]
        await old.close()
        network = self.ctx.networks[name]
        urls = (url,) if url is not None else self.urls[name]
        self.urls[name] = urls
        self.sources[name] = EvmSource(evm_options(network, *urls))
        self.followers[name] = Follower(self.ctx, network, self.sources[name], LOOPS)


async def until(condition: Callable[[], Awaitable[bool]], seconds_max: float = WAIT_SECONDS_MAX) -> None:
    """Wait until the condition holds. Raises TimeoutError at the deadline."""
    async with asyncio.timeout(seconds_max):
        while not await condition():
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def open_stand(
    database_url: str,
    *networks: tuple[Network, str | tuple[str, ...]],
    clock: Callable[[], datetime] = system_clock,
    follow: bool = True,
    **options: Any,
) -> AsyncIterator[Stand]:
    """A shop on these networks, each with the URLs of its nodes. The first blocks are read before it opens.

    At its end the invariants of everything stored are checked, unless the test has failed already.
    """
    database = await Database.open(database_url, connections_max=20)
    ctx = Context(
        database=database,
        networks={network.name: network for network, _ in networks},
        rates=StaticRates(RATES),
        public_url="http://127.0.0.1:8420",
        allow_private_targets=True,
        clock=clock,
    )
    urls = {network.name: (url,) if isinstance(url, str) else url for network, url in networks}
    sources = {
        network.name: EvmSource(evm_options(network, *urls[network.name], **options))
        for network, _ in networks
    }
    try:
        async with database.transaction() as connection:
            await sync_networks(connection, ctx.networks)
            merchant_id, api_key = await create_merchant(connection, ctx, "Tally & Sons")
            await register_wallet(connection, ctx, merchant_id, NewWallet("evm", account_key(), "main"))
        stand = Stand(ctx, merchant_id, api_key, sources=sources, urls=urls)
        for network, _ in networks:
            stand.followers[network.name] = Follower(ctx, network, sources[network.name], LOOPS)
        if follow:
            await stand.follow()
        yield stand
        await stand.expire()
        await check_invariants(ctx)
    finally:
        for source in sources.values():
            await source.close()
        await database.close()


def evm_options(network: Network, *urls: str, **options: Any) -> EvmOptions:
    """Options of a source that gives up soon: tests do not wait for patience."""
    chosen: dict[str, Any] = {
        "limits": LIMITS,
        "aside_seconds": 0.1,
        "agreement_timeout_seconds": 1.0,
    } | options
    return EvmOptions(network=network.name, chain_id=int(network.chain), rpc_urls=urls, **chosen)


def units(text: str, decimals: int = 18) -> int:
    """Base units of a decimal amount."""
    return int(Fraction(text) * 10**decimals)


def first_address(index: int) -> str:
    """What the stand's wallet derives at an index."""
    return EvmAccountKey.parse(account_key()).derive(index)


def chain_of(anvil: Any) -> Chain:
    """The helper that signs and mines on an anvil node."""
    return Chain(anvil.url, anvil.chain_id)


def address_in(invoice: objects.Invoice, position: int = 0) -> str:
    """The address of an option that has one."""
    address = invoice.payment_options[position].address
    assert address is not None
    return address
