"""The API over real HTTP on a database of its own, for tests of every part that speaks to it.

`running_api(database_url)` serves `create_app` with uvicorn on a free port, with two networks that look followed (a
cursor is written by hand; no node is asked), static rates, and makes merchants. `Api.client(key)` is an httpx
client for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Self

import httpx
import uvicorn
from litestar.types import ControllerRouterHandler

from tallystick.api.app import create_app
from tallystick.api.edge import Application
from tallystick.api.limits import Limits
from tallystick.core.chain import Block, BlockHeader, BlockRef, Channel, ObservedTransfer
from tallystick.core.network import Network
from tallystick.db.pool import Database
from tallystick.rates.source import RateSource, StaticRates
from tallystick.services import merchants, wallets
from tallystick.services.context import Context, system_clock
from tallystick.services.intake import Step, apply_step
from tallystick.services.merchants import Scope
from tallystick.services.networks import record_head, record_status, sync_networks
from tallystick.services.wallets import NewWallet
from tests.support.stand import RATES, account_key, evm_network

NETWORKS = (
    evm_network("ethereum", 1, token="0x" + "a1" * 20),
    evm_network("polygon", 137),
)
FIRST_HEIGHT = 100
START_SECONDS_MAX = 20


@dataclass(frozen=True, slots=True)
class Merchant:
    """A merchant and its first key."""

    id: str
    key: str


class Client:
    """Speaks to the API with one key. Methods answer httpx responses."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def get(self, path: str, **parameters: Any) -> httpx.Response:
        """GET with query parameters."""
        return await self.http.get(path, params=parameters or None)

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
        """POST with a JSON body, where one is given, and an idempotency key."""
        headers = {"Idempotency-Key": key} if key is not None else {}
        if body is None:
            return await self.http.post(path, headers=headers)
        return await self.http.post(path, json=body, headers=headers)

    async def raw(self, path: str, body: bytes, method: str = "POST", **headers: str) -> httpx.Response:
        """Any bytes as a body."""
        headers = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return await self.http.request(method, path, content=body, headers=headers)

    async def invoice(self, **changes: Any) -> dict[str, Any]:
        """A new invoice over 25 USD in ETH on the first network, unless said otherwise."""
        body = {"amount": "25.00", "currency": "USD", "accepted": [{"asset": "ETH", "network": "ethereum"}]}
        answer = await self.post("/v1/invoices", body | changes)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found


@dataclass(slots=True)
class Api:
    """A served application."""

    url: str
    ctx: Context
    app: Application
    _clients: list[httpx.AsyncClient] = field(default_factory=list)

    def client(self, key: str | None = None) -> Client:
        """A client with this key, or with none."""
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
        http = httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=30, limits=limits, trust_env=False
        )
        self._clients.append(http)
        return Client(http)

    async def merchant(self, name: str = "Shop", *, account: int | None = 0) -> Merchant:
        """A new merchant with an EVM wallet (account of the test mnemonic; None: no wallet)."""
        async with self.ctx.database.transaction() as connection:
            merchant_id, key = await merchants.create_merchant(connection, self.ctx, name)
            if account is not None:
                new = NewWallet("evm", account_key(account), "main")
                await wallets.register_wallet(connection, self.ctx, merchant_id, new)
        return Merchant(merchant_id, key)

    async def key(self, merchant: Merchant, *scopes: Scope) -> str:
        """Another key of the merchant, with these scopes."""
        async with self.ctx.database.transaction() as connection:
            _, key = await merchants.create_key(connection, self.ctx, merchant.id, "test", scopes)
        return key

    async def pay(self, invoice: dict[str, Any], amount: int, *, blocks_more: int = 0, nonce: int = 0) -> str:
        """Pay an invoice's first option in its coin, `amount` in base units; answer the transaction's hash."""
        option = invoice["payment_options"][0]
        transfer = transfer_to(option["address"], amount, nonce=nonce)
        await mine_by_hand(self.ctx, option["network"], transfer)
        for _ in range(blocks_more):
            await mine_by_hand(self.ctx, option["network"])
        return transfer.tx_hash

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            await client.aclose()


async def follow_by_hand(ctx: Context) -> None:
    """Make every configured network look followed: its first block is read, and the node has no other."""
    async with ctx.database.transaction() as connection:
        await sync_networks(connection, ctx.networks)
    for name in ctx.networks:
        await mine_by_hand(ctx, name)


async def mine_by_hand(ctx: Context, network: str, *transfers: ObservedTransfer) -> Block:
    """Take in one more block of a network, with these transfers, as its follower would."""
    async with ctx.database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT cursor_hash, cursor_height FROM networks WHERE name = $1", network
        )
    assert row is not None
    last = None if row["cursor_hash"] is None else BlockRef(row["cursor_hash"], row["cursor_height"])
    height = FIRST_HEIGHT if last is None else last.height + 1
    header = BlockHeader(
        hash=f"0x{height:064x}",
        parent_hash=f"0x{height - 1:064x}",
        height=height,
        time=datetime.now(UTC).replace(microsecond=0),
    )
    spends = {key: transfer.tx_hash for transfer in transfers for key in transfer.spend_keys}
    block = Block(header, transfers, spends)
    await apply_step(ctx, ctx.networks[network], Step(expected=last, blocks=(block,)))
    async with ctx.database.transaction() as connection:
        await record_head(connection, ctx, network, header)
        await record_status(connection, network, "following", None)
    return block


def transfer_to(address: str, amount: int, *, nonce: int = 0) -> ObservedTransfer:
    """Coins sent to an address, in base units. Every nonce is another transaction."""
    return ObservedTransfer(
        tx_hash=f"0x{nonce + 0xBEEF:064x}",
        channel=Channel.VALUE,
        ordinal=0,
        sender="0x" + "5e" * 20,
        to=address.lower(),
        contract=None,
        amount=amount,
        spend_keys=(f"sender:{nonce}",),
    )


def junk_to(address: str, *, nonce: int = 0) -> ObservedTransfer:
    """A token that nobody configured, sent to an address."""
    sent = transfer_to(address, 10**18, nonce=nonce)
    return replace(
        sent, tx_hash=f"0x{nonce + 0xDEAD:064x}", channel=Channel.LOG, contract="0x" + "ba" * 20, log_index=0
    )


@contextlib.asynccontextmanager
async def running_api(
    database_url: str,
    *,
    networks: Sequence[Network] = NETWORKS,
    followed: bool = True,
    rates: RateSource | Mapping[str, Fraction] = RATES,
    routes: Sequence[ControllerRouterHandler] = (),
    limits: Limits | None = None,
    connections_max: int = 20,
    clock: Callable[[], datetime] = system_clock,
) -> AsyncIterator[Api]:
    """The API on a free port, until the block ends."""
    database = await Database.open(database_url, connections_max=connections_max)
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    # Inherited by every connection. asyncio would not set it: it only does for sockets made with IPPROTO_TCP. Without
    # it every answer waits some 40 ms for the client's delayed acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    ctx = Context(
        database=database,
        networks={network.name: network for network in networks},
        rates=StaticRates(rates) if isinstance(rates, Mapping) else rates,
        public_url=url,
        allow_private_targets=True,
        clock=clock,
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(listening)
        stack.push_async_callback(database.close)
        app = create_app(ctx, routes=routes, limits=limits)
        api = Api(url, ctx, app)
        stack.push_async_callback(api.close)
        if followed:
            await follow_by_hand(ctx)
        await stack.enter_async_context(_Served(app, listening))
        yield api


class _Served:
    """uvicorn in this loop."""

    def __init__(self, app: Application, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=2
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # pytest has its own
        self._listening = listening
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._server._serve(sockets=[self._listening]))
        async with asyncio.timeout(START_SECONDS_MAX):
            while not self._server.started:
                if self._task.done():
                    self._task.result()
                    raise RuntimeError("the server ended by itself")
                await asyncio.sleep(0.005)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
