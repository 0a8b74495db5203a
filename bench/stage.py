"""The stage of every benchmark: a durable embedded PostgreSQL, a shop, a made-up chain in a process of its own.

Holds true: the database waits for the disk as in production; the node stub does not share our process, so that its work
is not counted as ours. Must not: assert anything about speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection as Pipe

from tallystick.core.chain import Finality, Requirement
from tallystick.core.money import Asset
from tallystick.core.network import Network
from tallystick.db.embedded import EmbeddedPostgres, temporary_data_folder
from tallystick.db.migrate import migrate
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services.context import Context
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import sync_networks
from tallystick.services.wallets import NewWallet, register_wallet
from tests.support.rpc_stub import TOKENS, RpcStub, StubChain, StubPayment, filler, stub_address
from tests.support.stand import account_key

CHAIN_ID = 1
NETWORK = Network(
    name="stub",
    family="evm",
    chain=str(CHAIN_ID),
    native=Asset("stub", "ETH", 18),
    tokens=(Asset("stub", "DUSD", 6, TOKENS[0]),),
    requirement=Requirement(Finality.DEPTH, 3),
)


@dataclass(frozen=True, slots=True)
class Shop:
    """A merchant with a wallet on the stub network."""

    ctx: Context
    merchant_id: str
    api_key: str


@contextlib.asynccontextmanager
async def durable_database() -> AsyncIterator[str]:
    """The URL of a migrated database that waits for the disk at every commit."""
    with temporary_data_folder("tallystick-bench-") as folder:
        async with EmbeddedPostgres(folder).run() as url:
            await migrate(url)
            yield url


@contextlib.asynccontextmanager
async def open_shop(url: str, *, public_url: str = "http://127.0.0.1:8420") -> AsyncIterator[Shop]:
    """A shop on the stub network."""
    database = await Database.open(url, connections_max=20)
    rates = StaticRates({"ETH/USD": Fraction(2500), "DUSD/USD": Fraction(1)})
    ctx = Context(database, {NETWORK.name: NETWORK}, rates, public_url, allow_private_targets=True)
    try:
        async with database.transaction() as connection:
            await sync_networks(connection, ctx.networks)
            merchant_id, api_key = await create_merchant(connection, ctx, "Bench")
            await register_wallet(connection, ctx, merchant_id, NewWallet("evm", account_key(), ""))
        yield Shop(ctx, merchant_id, api_key)
    finally:
        await database.close()


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """A block to be served: transfers between strangers, and DUSD payments to some of our addresses."""

    strangers: int
    ours: tuple[tuple[str, int], ...] = ()

    def payments(self, seed: int) -> list[StubPayment]:
        """The block's payments, ours spread evenly among the strangers'."""
        payments = filler(self.strangers, seed)
        for number, (address, amount) in enumerate(self.ours):
            payer = stub_address(f"payer {seed} {number}")
            place = number * (len(payments) + 1) // max(1, len(self.ours))
            payments.insert(place, StubPayment(to=address, amount=amount, contract=TOKENS[0], sender=payer))
        return payments


class StubNode:
    """A node in a process of its own. `append` puts blocks on top of its chain."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.url = str(pipe.recv())
        self._height = 0

    async def append(self, plans: Sequence[BlockPlan], *, time: int | None = None) -> int:
        """Serve these blocks from now on; answer the new height."""
        self._pipe.send((list(plans), time))
        self._height = int(await asyncio.to_thread(self._pipe.recv))
        return self._height


def _node(pipe: Pipe, traced: bool) -> None:
    async def serve() -> None:
        chain = StubChain(CHAIN_ID, traced=traced)
        async with RpcStub(chain) as stub:
            pipe.send(stub.url)
            while True:
                order = await asyncio.to_thread(pipe.recv)
                if order is None:
                    return
                plans, time = order
                for plan in plans:
                    chain.extend(plan.payments(chain.height + 1), time=time)
                pipe.send(chain.height)

    asyncio.run(serve())


@contextlib.contextmanager
def stub_node(*, traced: bool = False) -> Iterator[StubNode]:
    """A stub node that lives as long as the context. `traced`: it tells what contract calls move."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_node, args=(theirs, traced), daemon=True)
    process.start()
    try:
        yield StubNode(ours)
    finally:
        ours.send(None)
        process.join(5)
        process.terminate()
