"""The JSON-RPC client and the source's way with nodes that lack a method, on made-up chains."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tallystick.chains.evm.source import EvmOptions, EvmSource
from tallystick.chains.json_rpc import Answer, Call, RpcClient, RpcLimits, RpcRefused, new_session
from tallystick.chains.pauses import RETRY_AFTER_SECONDS_MAX, retry_after_seconds
from tallystick.core.errors import (
    BlockNotFound,
    ConfigurationError,
    SourceError,
    SourceIncomplete,
    SourceUnavailable,
)
from tests.chains.contract_suite import Payment, SourceContract
from tests.support.rpc_stub import RpcStub, StubChain, StubPayment, filler, stub_address

ANY = msgspec.json.Decoder(Answer[Any])
ANY_BATCH: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[Answer[Any]] | Answer[Any])
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


class Server:
    """Answers every request with what `reply` makes of it, and remembers headers and bodies."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self.reply: Callable[[Any], Any] = lambda call: {"id": call["id"], "result": None}

    async def serve(self, request: web.Request) -> web.Response:
        question = msgspec.json.decode(await request.read())
        self.headers.append(dict(request.headers))
        self.bodies.append(question)
        return web.Response(body=msgspec.json.encode(self.reply(question)), content_type="application/json")


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, int]]:
    server = Server()
    app = web.Application()
    app.router.add_post("/{path:.*}", server.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield server, runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
async def client(server: tuple[Server, int]) -> AsyncIterator[RpcClient]:
    limits = RpcLimits(
        total_timeout_seconds=5.0, batch_size_max=3, attempts_max=2, retry_wait_seconds_max=0.01
    )
    async with new_session(limits) as session:
        url = f"http://us%20er:pa%3Ass%40word@127.0.0.1:{server[1]}/v3/0123456789abcdef?key=fedcba9876543210"
        yield RpcClient(url, session, limits)


async def test_credentials_are_sent_and_not_shown(
    server: tuple[Server, int], client: RpcClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = ["pa:ss@word", "pa%3Ass%40word", "0123456789abcdef", "fedcba9876543210"]
    server[0].reply = lambda call: {
        "id": call["id"],
        "error": {"code": -1, "message": f"bad key {' '.join(secrets)}"},
    }
    with pytest.raises(RpcRefused) as caught:
        await client.call(Call("x"), ANY)
    sent = server[0].headers[0]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == "us er:pa:ss@word"
    shown = f"{caught.value} {caught.value!r} {client.name} {caplog.text}"
    assert "bad key" in shown
    for secret in secrets:
        assert secret not in shown
    assert client.name == f"127.0.0.1:{server[1]}"


async def test_unreachable_node_is_named_without_secrets() -> None:
    limits = RpcLimits(attempts_max=1, total_timeout_seconds=2.0)
    async with new_session(limits) as session:
        client = RpcClient("http://user:password1@127.0.0.1:9/secret-access-key", session, limits)
        with pytest.raises(SourceUnavailable) as caught:
            await client.call(Call("x"), ANY)
    shown = f"{caught.value} {caught.value!r} {caught.value.__cause__}"
    assert "127.0.0.1:9" in shown
    assert "password1" not in shown
    assert "secret-access-key" not in shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8545",
        "ws://127.0.0.1",
        "file:///etc/passwd",
        "http://",
        "http://host:99999",
        "http://[",
        "https:x",
    ],
)
def test_unusable_urls_are_refused_without_an_echo(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        EvmSource(EvmOptions("local", 1, (url,)))
    if len(url) > 8:
        assert url not in str(caught.value)


def test_a_network_needs_a_node() -> None:
    with pytest.raises(ConfigurationError):
        EvmSource(EvmOptions("local", 1, ()))


async def test_batches_are_cut_and_matched_by_id(server: tuple[Server, int], client: RpcClient) -> None:
    server[0].reply = lambda calls: [
        {"id": call["id"], "result": call["params"][0]} for call in reversed(calls)
    ]
    results = await client.batch([Call("x", [number]) for number in range(8)], ANY_BATCH)
    assert results == list(range(8))
    assert [len(body) for body in server[0].bodies] == [3, 3, 2]


@pytest.mark.parametrize(
    "reply",
    [
        lambda calls: [],
        lambda calls: [{"id": call["id"], "result": 1} for call in calls[:-1]],
        lambda calls: [{"id": calls[0]["id"], "result": 1} for _ in calls],
        lambda calls: [{"id": str(call["id"]), "result": 1} for call in calls],
        lambda calls: [{"id": None, "result": 1} for call in calls],
        lambda calls: [{"id": call["id"], "result": 1} for call in [*calls, calls[0]]],
        lambda calls: [1, 2],
        lambda calls: {"id": None, "result": 1},
        lambda calls: [{"id": call["id"]} for call in calls],
        lambda calls: "hello",
        lambda calls: None,
    ],
)
async def test_odd_batches_are_typed_errors(
    server: tuple[Server, int], client: RpcClient, reply: Callable[[Any], Any]
) -> None:
    server[0].reply = reply
    with pytest.raises((SourceIncomplete, SourceUnavailable)):
        await client.batch([Call("x", [1]), Call("x", [2])], ANY_BATCH)


async def test_nodes_without_batches_are_asked_one_by_one(
    server: tuple[Server, int], client: RpcClient
) -> None:
    def reply(question: Any) -> Any:
        if isinstance(question, list):
            return {"id": None, "error": {"code": -32600, "message": "no batches"}}
        if question["params"][0] == 3:
            return {"id": question["id"], "error": {"code": -32000, "message": "not that"}}
        return {"id": question["id"], "result": question["params"][0]}

    server[0].reply = reply
    results = await client.batch([Call("x", [number]) for number in range(5)], ANY_BATCH)
    assert [entry if isinstance(entry, int) else "refused" for entry in results] == [0, 1, 2, "refused", 4]
    assert [isinstance(body, list) for body in server[0].bodies] == [True] + [False] * 5  # remembered


async def test_a_batch_refused_for_its_rate_is_not_split(
    server: tuple[Server, int], client: RpcClient
) -> None:
    server[0].reply = lambda calls: {"id": None, "error": {"code": -32005, "message": "slow down"}}
    with pytest.raises(RpcRefused):
        await client.batch([Call("x"), Call("x")], ANY_BATCH)
    assert len(server[0].bodies) == 1


async def test_resource_not_found_is_a_missing_block(server: tuple[Server, int]) -> None:
    """Some nodes answer an error (EIP-1474, -32001) where others answer null."""
    chain = StubChain(chain_id=77)

    def reply(question: Any) -> Any:
        if isinstance(question, list):
            return [reply(entry) for entry in question]
        result = chain.answer(question["method"], question["params"])
        if result == b"null":
            return {"id": question["id"], "error": {"code": -32001, "message": "Resource not found"}}
        return {"id": question["id"], "result": msgspec.Raw(result)}

    server[0].reply = reply
    source = EvmSource(EvmOptions("local", 77, (f"http://127.0.0.1:{server[1]}",)))
    try:
        assert (await source.head()).header.height == 0
        with pytest.raises(BlockNotFound):
            await source.block_at(1)
        with pytest.raises(BlockNotFound):
            await source.header_at(1)
    finally:
        await source.close()


async def test_one_refusal_in_a_batch_leaves_the_others(
    server: tuple[Server, int], client: RpcClient
) -> None:
    server[0].reply = lambda calls: [
        {"id": calls[0]["id"], "result": 5, "error": None},
        {"id": calls[1]["id"], "result": None, "error": {"code": -32601, "message": "no", "data": {"x": 1}}},
    ]
    good, refused = await client.batch([Call("a"), Call("b")], ANY_BATCH)
    assert good == 5
    assert isinstance(refused, RpcRefused)
    assert refused.method_missing


@pytest.mark.parametrize(
    "error",
    [
        "text",
        5,
        [],
        {"code": "x"},
        {"code": 1e300},
        {"message": 7},
        {"code": 2**70},
        {},
        {"message": "\x1b[31m\n" * 999},
    ],
)
async def test_odd_error_objects_are_typed_errors(
    server: tuple[Server, int], client: RpcClient, error: Any
) -> None:
    server[0].reply = lambda call: {"id": call["id"], "error": error}
    with pytest.raises(SourceError) as caught:
        await client.call(Call("x"), ANY)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("17", 17),
        (" 17 ", 17),
        ("999999999", RETRY_AFTER_SECONDS_MAX),
        ("9" * 5000, None),
        ("-1", None),
        ("1.5", None),
        ("١٧", None),
        ("soon", None),
        ("", None),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", RETRY_AFTER_SECONDS_MAX),
        ("Thu, 01 Jan 2026 12:00:30", None),
        ("Thu, 99 Jan 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: int | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds


# -- the source on made-up chains


def two_hundred() -> StubChain:
    chain = StubChain(chain_id=77)
    for height in range(1, 4):
        chain.extend(filler(200, height))
    return chain


async def test_nodes_without_block_receipts_are_asked_one_by_one() -> None:
    async with (
        RpcStub(two_hundred()) as full,
        RpcStub(two_hundred(), missing=frozenset({"eth_getBlockReceipts"})) as poor,
    ):
        rich_source = EvmSource(EvmOptions("local", 77, (full.url,)))
        poor_source = EvmSource(EvmOptions("local", 77, (poor.url,)))
        try:
            for height in range(4):
                assert await poor_source.block_at(height) == await rich_source.block_at(height)
        finally:
            await rich_source.close()
            await poor_source.close()
        assert poor.calls.count("eth_getBlockReceipts") == 1  # remembered
        assert poor.calls.count("eth_getTransactionReceipt") == 600
        assert "eth_getTransactionReceipt" not in full.calls


async def test_blocks_without_transactions_need_no_receipts() -> None:
    chain = StubChain(chain_id=77)
    chain.extend()
    async with RpcStub(chain) as stub:
        source = EvmSource(EvmOptions("local", 77, (stub.url,)))
        try:
            block = await source.block_at(1)
        finally:
            await source.close()
        assert (block.transfers, block.spends) == ((), {})
        assert "eth_getBlockReceipts" not in stub.calls


async def test_many_blocks_at_once() -> None:
    async with RpcStub(two_hundred()) as stub:
        source = EvmSource(EvmOptions("local", 77, (stub.url,)))
        try:
            blocks = await asyncio.gather(*(source.block_at(height % 4) for height in range(40)))
        finally:
            await source.close()
    assert all(block == blocks[number % 4] for number, block in enumerate(blocks))
    assert [len(block.transfers) for block in blocks[:4]] == [0, 200, 200, 200]


async def test_a_source_can_be_closed_unused() -> None:
    source = EvmSource(EvmOptions("local", 77, ("http://127.0.0.1:9",)))
    (node,) = source.nodes()
    assert (node.name, node.ok, node.height) == ("127.0.0.1:9", False, None)
    await source.close()


class StubRig:
    """The contract suite's rig on a made-up chain."""

    def __init__(self, stub: RpcStub) -> None:
        self._stub = stub
        self._nonce = 0
        self._payments: dict[str, StubPayment] = {}
        self._salt = 0
        limits = RpcLimits(attempts_max=1, total_timeout_seconds=5.0)
        self.source = EvmSource(EvmOptions("stub", stub.chain.chain_id, (stub.url,), limits=limits))

    async def mine(self, blocks: int = 1) -> int:
        for _ in range(blocks):
            self._stub.chain.extend()
        return self._stub.chain.height

    async def pay(self, amount: int) -> tuple[Payment, int]:
        self._nonce += 1
        return self._put(StubPayment(stub_address("shop"), amount, nonce=self._nonce))

    def _put(self, payment: StubPayment) -> tuple[Payment, int]:
        block = self._stub.chain.extend([payment], salt=f"fork {self._salt}")
        tx_hash = block.receipts[0]["transactionHash"]
        self._payments[tx_hash] = payment
        return Payment(tx_hash, payment.to, payment.amount), block.height

    def _fork(self, depth: int, blocks: int) -> None:
        self._salt += 1
        self._stub.chain.fork(depth, [()] * blocks, salt=f"fork {self._salt}")

    async def conflict(self, payment: Payment) -> Payment:
        nonce = self._payments[payment.tx_hash].nonce
        self._fork(1, 0)
        return self._put(StubPayment(stub_address("elsewhere"), 1, nonce=nonce))[0]

    async def remine(self, payment: Payment) -> int:
        self._fork(1, 1)
        return self._put(self._payments[payment.tx_hash])[1]

    async def reorganise(self, depth: int) -> int:
        self._fork(depth, depth)
        return self._stub.chain.height

    async def cut_off(self) -> None:
        self._stub.broken = True

    async def reconnect(self) -> None:
        self._stub.broken = False


class TestStubSource(SourceContract):
    """The suite on a made-up chain: it shows that the stub behaves like a node."""

    @pytest.fixture
    async def rig(self) -> AsyncIterator[StubRig]:
        async with RpcStub(StubChain(chain_id=5)) as stub:
            rig = StubRig(stub)
            yield rig
            await rig.source.close()
