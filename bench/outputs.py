"""(f) how fast full blocks of Bitcoin become facts and states, against only fetching and decoding the same bytes.

Blocks of 4,000 transactions with 10,000 outputs, five of them ours, with few and with 1,000,000 addresses issued and
open. What is compared with: fetching the block and reading the JSON around its bytes; and reading its transactions with
a library that is made for it (embit), which checks nothing. `checked` is our source alone, `intake` everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import multiprocessing
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final

import aiohttp
from embit.transaction import Transaction

from bench.intake import ACTOR, PRICE, issue
from bench.stage import Shop, durable_database
from tallystick.chains.bitcoin.source import BitcoinOptions, BitcoinSource
from tallystick.core.chain import Finality, Requirement
from tallystick.core.money import Asset
from tallystick.core.network import Network
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services.context import Context
from tallystick.services.invoices import NewInvoice, create_invoice
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import sync_networks
from tallystick.services.wallets import NewWallet, register_wallet
from tallystick.workers.follow import Follower, FollowerOptions
from tests.support.core_stub import CoreStubServer, StubCore, filler, make_transaction
from tests.support.lite_shop import account_key

NET: Final = Network(
    name="bitcoin",
    family="bitcoin",
    chain="bitcoin-regtest",
    native=Asset("bitcoin", "BTC", 8),
    tokens=(),
    requirement=Requirement(Finality.DEPTH, 2),
    loose_times=True,
)
TRANSACTIONS: Final = 4_000
OUTPUTS: Final = 10_000
OURS: Final = 5


@dataclass(frozen=True, slots=True)
class OutputsResult:
    """One case. Times are milliseconds per block; `ratio` is fetching and decoding alone over the whole intake."""

    case: str
    transactions: int
    outputs: int
    addresses_issued: int
    blocks: int
    block_bytes: int
    fetch_ms: float
    decode_ms: float
    checked_ms: float
    intake_ms: float
    ratio: float


async def outputs(blocks: int, sizes: Sequence[int]) -> list[OutputsResult]:
    """(f)"""
    return [await _case(f"{size:,} issued", size, blocks) for size in sizes]


async def _case(name: str, issued: int, blocks: int) -> OutputsResult:
    async with durable_database() as url, _open_shop(url) as shop:
        with _core() as node:
            source = BitcoinSource(
                BitcoinOptions(NET.name, NET.chain, (node.url,), genesis_hash=node.genesis_hash)
            )
            options = FollowerOptions(batch_blocks=blocks, mempool=False)
            follower = Follower(shop.ctx, NET, source, options)
            await node.append([[]])
            while await follower.poll():
                pass
            await issue(
                shop, issued, network=NET.name, family="bitcoin", symbol="BTC", decimals=8, prefix="0014"
            )
            scripts = await _invoices(shop, OURS * blocks)
            height = await node.append([scripts[at * OURS : (at + 1) * OURS] for at in range(blocks)])
            first = height - blocks + 1
            raws, fetch_seconds = await _only_fetch(node, first, height)
            begun = time.perf_counter()
            for raw in raws:
                _only_decode(bytes.fromhex(raw))
            decode_seconds = time.perf_counter() - begun
            begun = time.perf_counter()
            for number in range(first, height + 1):
                await source.block_at(number)
            checked_seconds = time.perf_counter() - begun
            begun = time.perf_counter()
            while await follower.poll():
                pass
            seconds = time.perf_counter() - begun
            await source.close()
    return OutputsResult(
        case=name,
        transactions=TRANSACTIONS,
        outputs=OUTPUTS,
        addresses_issued=issued + len(scripts),
        blocks=blocks,
        block_bytes=len(raws[0]) // 2,
        fetch_ms=_each_ms(fetch_seconds, blocks),
        decode_ms=_each_ms(decode_seconds, blocks),
        checked_ms=_each_ms(checked_seconds, blocks),
        intake_ms=_each_ms(seconds, blocks),
        ratio=round((fetch_seconds + decode_seconds) / seconds, 3),
    )


def _each_ms(seconds: float, blocks: int) -> float:
    return round(1_000 * seconds / blocks, 1)


@contextlib.asynccontextmanager
async def _open_shop(url: str) -> AsyncIterator[Shop]:
    database = await Database.open(url, connections_max=20)
    rates = StaticRates({"BTC/USD": Fraction(100_000)})
    ctx = Context(database, {NET.name: NET}, rates, "http://127.0.0.1:8420", allow_private_targets=True)
    try:
        async with database.transaction() as connection:
            await sync_networks(connection, ctx.networks)
            merchant_id, api_key = await create_merchant(connection, ctx, "Bench")
            await register_wallet(connection, ctx, merchant_id, NewWallet("bitcoin", account_key(), ""))
        yield Shop(ctx, merchant_id, api_key)
    finally:
        await database.close()


async def _invoices(shop: Shop, count: int) -> list[str]:
    """Open invoices; answer the scripts of their addresses."""
    async with shop.ctx.database.transaction() as connection:
        for _ in range(count):
            new = NewInvoice(PRICE, "USD", (("BTC", NET.name),))
            await create_invoice(connection, shop.ctx, shop.merchant_id, ACTOR, new)
    async with shop.ctx.database.connection() as connection:
        rows = await connection.fetch(
            "SELECT address FROM addresses WHERE option_id NOT LIKE 'opt_bulk%' ORDER BY derivation_index"
        )
    return [row["address"] for row in rows]


async def _only_fetch(node: _Core, first: int, last: int) -> tuple[list[str], float]:
    """The blocks' bytes in hex, and the seconds it took to get them."""

    async with aiohttp.ClientSession() as session:

        async def ask(method: str, *params: Any) -> Any:
            async with session.post(node.url, json={"id": 1, "method": method, "params": params}) as response:
                return (await response.json())["result"]

        await ask("getblockcount")
        begun = time.perf_counter()
        raws = [
            await ask("getblock", await ask("getblockhash", height), 0) for height in range(first, last + 1)
        ]
        return raws, time.perf_counter() - begun


def _only_decode(raw: bytes) -> None:
    stream = io.BytesIO(raw[80:])
    marker = stream.read(1)[0]
    count = marker if marker < 0xFD else int.from_bytes(stream.read(1 << (marker - 0xFC)), "little")
    for _ in range(count):
        Transaction.read_from(stream)


class _Core:
    """A made-up node in a process of its own. `append` puts full blocks on top of its chain."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.url, self.genesis_hash = pipe.recv()

    async def append(self, scripts: Sequence[Sequence[str]]) -> int:
        """One full block per entry, paying these scripts among all others; answer the new height."""
        self._pipe.send([list(one) for one in scripts])
        return int(await asyncio.to_thread(self._pipe.recv))


def _serve(pipe: Pipe) -> None:
    async def serve() -> None:
        node = StubCore()
        async with CoreStubServer(node) as server:
            pipe.send((server.url, node.genesis_hash))
            while (order := await asyncio.to_thread(pipe.recv)) is not None:
                for scripts in order:
                    seed = node.height + 1
                    payments = filler(TRANSACTIONS - len(scripts), OUTPUTS - len(scripts), seed)
                    for number, script in enumerate(scripts):
                        paid = make_transaction([(f"{seed:032x}{number:032x}", 0)], [(25_000, script)])
                        payments.insert(number * len(payments) // len(scripts), paid)
                    node.extend(payments)
                pipe.send(node.height)

    asyncio.run(serve())


@contextlib.contextmanager
def _core() -> Iterator[_Core]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield _Core(ours)
    finally:
        ours.send(None)
        process.join(5)
        process.terminate()


def rows(results: list[OutputsResult]) -> list[dict[str, Any]]:
    """Results as plain values."""
    return [asdict(result) for result in results]
