"""Pending blocks of every shape: what cannot be read is left out, and nothing else. Only a made-up node is asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tallystick.chains.evm.pending import TRANSACTIONS_MAX, PendingBlock, read_mempool, snapshot_of
from tallystick.chains.evm.source import EvmOptions, EvmSource
from tallystick.chains.json_rpc import RpcClient, RpcLimits, new_session
from tallystick.chains.source import MEMPOOL_ASKED_MAX
from tallystick.core.chain import BlockHeader, Channel, MempoolSnapshot
from tallystick.core.errors import SourceError, SourceIncomplete, SourceUnavailable
from tests.support.evm import Chain
from tests.support.lying_proxy import Fault, LyingProxy

HEAD = BlockHeader("0x" + "aa" * 32, "0x" + "99" * 32, 7, datetime.fromtimestamp(1, UTC))
NOTHING = MempoolSnapshot(HEAD.ref, (), {}, head_time=HEAD.time)
SENDER, SHOP, TOKEN = "0x" + "11" * 20, "0x" + "22" * 20, "0x" + "33" * 20


def transaction(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A native payment of five as a node would show it."""
    return {
        "hash": f"0x{number:064x}",
        "from": SENDER,
        "to": SHOP,
        "value": "0x5",
        "nonce": hex(number),
        "type": "0x2",
        "input": "0x",
        "blockHash": None,
    } | changes


def call(to: str = SHOP, amount: int = 9, *, selector: str = "a9059cbb", more: str = "") -> str:
    """The data of a token's transfer."""
    return f"0x{selector}{'00' * 12}{to[2:]}{amount:064x}{more}"


def pending(*transactions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A pending block above HEAD."""
    return {
        "hash": None,
        "parentHash": HEAD.hash,
        "number": "0x8",
        "transactions": list(transactions),
    } | changes


def read(block: dict[str, Any]) -> MempoolSnapshot:
    """What it shows."""
    return snapshot_of(HEAD, msgspec.convert(block, PendingBlock))


def test_a_coin_and_a_token() -> None:
    shown = read(pending(transaction(1), transaction(2, to=TOKEN, value="0x0", input=call())))
    assert (shown.head, shown.head_time) == (HEAD.ref, HEAD.time)
    assert shown.spends == {f"{SENDER}:1": f"0x{1:064x}", f"{SENDER}:2": f"0x{2:064x}"}
    coin, token = shown.transfers
    assert (coin.channel, coin.ordinal, coin.to, coin.contract, coin.amount) == (
        Channel.VALUE,
        0,
        SHOP,
        None,
        5,
    )
    assert (token.channel, token.ordinal, token.to, token.contract, token.amount) == (
        Channel.LOG,
        0,
        SHOP,
        TOKEN,
        9,
    )
    assert (token.sender, token.spend_keys, token.log_index) == (SENDER, (f"{SENDER}:2",), None)


def test_texts_are_brought_into_one_form() -> None:
    upper = "0x" + "AB" * 20
    shown = read(pending(transaction(1, to=upper, hash="0x" + "CD" * 32, **{"from": upper})))
    (coin,) = shown.transfers
    assert (coin.to, coin.sender, coin.tx_hash) == (upper.lower(), upper.lower(), "0x" + "cd" * 32)
    assert shown.spends == {f"{upper.lower()}:1": "0x" + "cd" * 32}


@pytest.mark.parametrize(
    ("data", "paid"),
    [
        (call(), 9),
        (call().upper().replace("0X", "0x"), 9),
        (call(more="00" * 32), 9),  # a note behind the arguments changes nothing
        (call(amount=0), None),
        (call(selector="23b872dd"), None),  # transferFrom
        (call()[:-2], None),
        ("0xa9059cbb" + "00" * 11 + "01" + SHOP[2:] + "00" * 31 + "09", None),  # no address in front
        ("0xa9059cbb" + "zz" * 64, None),
        ("0xa9059cbb", None),
        ("0x", None),
        ("", None),
    ],
)
def test_only_a_plain_transfer_is_predicted(data: str, paid: int | None) -> None:
    shown = read(pending(transaction(1, to=TOKEN, value="0x0", input=data)))
    assert [transfer.amount for transfer in shown.transfers] == ([] if paid is None else [paid])
    assert len(shown.spends) == 1


def test_a_contract_creation_pays_nobody() -> None:
    assert read(pending(transaction(1, to=None))).transfers == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"hash": "0x" + "zz" * 32},
        {"from": "0x" + "zz" * 20},
        {"to": "0x" + "zz" * 20},
        {"value": "0x-5"},
        {"value": "five"},
        {"nonce": "0x_1"},
    ],
)
def test_what_cannot_be_read_is_left_out_alone(changes: dict[str, Any]) -> None:
    shown = read(pending(transaction(1, **changes), transaction(2)))
    assert [transfer.tx_hash for transfer in shown.transfers] == [f"0x{2:064x}"]
    assert list(shown.spends.values()) == [f"0x{2:064x}"]


def test_chains_own_types_exclude_nobody() -> None:
    """A nonce that is no counter must not make two transactions look like replacements of each other."""
    shown = read(pending(transaction(1, type="0x7e", nonce="0x0"), transaction(2, nonce=None)))
    assert set(shown.spends) == {f"tx:0x{1:064x}", f"tx:0x{2:064x}"}


def test_accounts_without_nonces_replace_nothing() -> None:
    """TRON writes eight zero bytes into every transaction."""
    shown = read(pending(*(transaction(number, nonce="0x0000000000000000") for number in (1, 2))))
    assert set(shown.spends) == {f"tx:0x{1:064x}", f"tx:0x{2:064x}"}


@pytest.mark.parametrize(
    "changes",
    [
        {"number": "0x7"},  # the newest block in place of a pending one
        {"number": "0x6"},
        {"number": "0x9"},  # another moment than the newest block's
        {"number": None},
        {"parentHash": "0x" + "bb" * 32},
        {"parentHash": "0x" + "zz" * 32},
    ],
)
def test_a_node_without_a_mempool_shows_nothing(changes: dict[str, Any]) -> None:
    """Bug planted: the number not compared; every mined payment is seen again outside any block."""
    assert read(pending(transaction(1), **changes)) == NOTHING
    assert snapshot_of(HEAD, None) == NOTHING


def test_more_than_can_be_read_is_cut_off() -> None:
    shown = read(pending(*(transaction(number) for number in range(1, TRANSACTIONS_MAX + 5))))
    assert len(shown.transfers) == len(shown.spends) == TRANSACTIONS_MAX


class Node:
    """Answers what it is told to, and remembers the methods asked for."""

    def __init__(self) -> None:
        self.pending: Any = pending(transaction(1))
        self.pending_error: dict[str, Any] | None = None
        self.by_hash: dict[str, Any] = {}
        self.asked: list[str] = []

    async def serve(self, request: web.Request) -> web.Response:
        """One batch."""
        return web.json_response([self._one(one) for one in json.loads(await request.read())])

    def _one(self, question: dict[str, Any]) -> dict[str, Any]:
        head = {"jsonrpc": "2.0", "id": question["id"]}
        match question["method"], question["params"]:
            case "eth_getBlockByNumber", ["latest", False]:
                newest = {
                    "hash": HEAD.hash,
                    "parentHash": "0x" + "bb" * 32,
                    "number": "0x7",
                    "timestamp": "0x1",
                }
                return head | {"result": newest}
            case "eth_getBlockByNumber", ["pending", True] if self.pending_error is not None:
                return head | {"error": self.pending_error}
            case "eth_getBlockByNumber", ["pending", True]:
                return head | {"result": self.pending}
            case "eth_getTransactionByHash", [tx_hash]:
                self.asked.append(tx_hash)
                answer = self.by_hash.get(tx_hash)
                refused = {"error": {"code": -32000, "message": "not now"}}
                return head | (refused if answer == "refused" else {"result": answer})
        raise AssertionError(question)


@pytest.fixture
async def node() -> AsyncIterator[tuple[Node, RpcClient]]:
    """A node and its client."""
    made_up = Node()
    app = web.Application()
    app.router.add_post("/", made_up.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    limits = RpcLimits(attempts_max=1)
    session = new_session(limits)
    yield made_up, RpcClient(f"http://127.0.0.1:{runner.addresses[0][1]}/", session, limits)
    await session.close()
    await runner.cleanup()


async def test_asked_about_are_only_those_not_shown(node: tuple[Node, RpcClient]) -> None:
    """Present: shown, or known by its hash. Missing: the node says so. A refusal is neither."""
    made_up, client = node
    known, gone, refused = ("0x" + letter * 64 for letter in "def")
    made_up.by_hash = {known: {"hash": known, "blockHash": None}, refused: "refused"}
    shown = f"0x{1:064x}"
    snapshot = await read_mempool(client, [shown, known, gone, refused])
    assert made_up.asked == [known, gone, refused]
    assert snapshot.present == {shown, known}
    assert snapshot.missing == {gone}


async def test_no_more_is_asked_about_than_the_limit(node: tuple[Node, RpcClient]) -> None:
    made_up, client = node
    snapshot = await read_mempool(client, [f"0x{number:064x}" for number in range(100, 100 + 300)])
    assert len(made_up.asked) == len(snapshot.missing) == MEMPOOL_ASKED_MAX


async def test_a_refused_pending_block_is_no_mempool(node: tuple[Node, RpcClient]) -> None:
    """What was sighted before can still be asked about."""
    made_up, client = node
    made_up.pending_error = {"code": -32602, "message": "unknown tag"}
    snapshot = await read_mempool(client, ["0x" + "dd" * 32])
    assert snapshot == replace(NOTHING, missing=frozenset({"0x" + "dd" * 32}))
    made_up.pending_error, made_up.pending = None, None
    assert await read_mempool(client, []) == NOTHING


async def test_a_limit_is_trouble_and_not_an_empty_mempool(node: tuple[Node, RpcClient]) -> None:
    made_up, client = node
    made_up.pending_error = {"code": -32005, "message": "limit exceeded"}
    with pytest.raises(SourceUnavailable):
        await read_mempool(client, [])


async def test_another_shape_is_an_error_of_the_tree(node: tuple[Node, RpcClient]) -> None:
    made_up, client = node
    made_up.pending = pending(transaction(1, hash=7))
    with pytest.raises(SourceIncomplete) as caught:
        await read_mempool(client, [])
    assert isinstance(caught.value, SourceError)


async def test_a_slow_mempool_ends(node: tuple[Node, RpcClient], monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes no longer than its limit, whatever a call may take: meanwhile no block is read."""
    made_up, client = node
    monkeypatch.setattr("tallystick.chains.evm.pending.MEMPOOL_SECONDS_MAX", 0.0)
    assert made_up.asked == []
    with pytest.raises(SourceUnavailable, match="in time"):
        await read_mempool(client, [])


@pytest.mark.chain
@pytest.mark.parametrize("fault", Fault)
async def test_whatever_a_node_answers_ends_in_a_snapshot_or_an_error_of_the_tree(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """No answer gets past the follower's guard, none takes longer than a look may, and none makes a node look bad."""
    monkeypatch.setattr("tallystick.chains.evm.pending.MEMPOOL_SECONDS_MAX", 0.5)
    limits = RpcLimits(response_bytes_max=1 << 20, total_timeout_seconds=5.0, attempts_max=1)
    await chain.mine(11)  # one of the faults answers with a block of ten blocks ago
    sent = await chain.send_native(SHOP, 5)
    async with LyingProxy(chain.url) as proxy:
        source = EvmSource(EvmOptions("local", chain.chain_id, (proxy.url,), limits=limits))
        head = await source.head()
        honest = await source.mempool([sent.tx_hash])
        assert honest.transfers
        assert honest.present == {sent.tx_hash}
        proxy.lie(fault)
        try:
            shown = await source.mempool([sent.tx_hash])
        except SourceError:
            pass
        else:
            assert not shown.missing
            assert not shown.transfers or shown.transfers == honest.transfers
        proxy.lie(None)
        assert all(node.ok for node in source.nodes())
        assert (await source.head(), await source.mempool([sent.tx_hash])) == (head, honest)
        await source.close()
