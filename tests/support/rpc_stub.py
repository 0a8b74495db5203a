"""A local JSON-RPC server with a made-up EVM chain, for tests and measurements.

For: blocks of any size without a node, forks on demand, and answers in the shape of real nodes (all the
fields that geth sends, so that decoding costs what it costs in life).
Holds true: everything is deterministic: equal arguments give equal blocks, byte for byte. Receipts, blooms
and log positions are right; what is wrong on purpose belongs in `lying_proxy` or in the test that mutates a
block.
Must not: use Tallystick's own parsing or bloom code: a fault there must not cancel itself out.

`python -m tests.support.rpc_stub --blocks 50 --transfers 1000` serves a chain from a process of its own and
prints its URL as the first line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Self

from aiohttp import web

from tallystick.chains.evm.keccak import keccak256

TRANSFER_TOPIC = "0x" + keccak256(b"Transfer(address,address,uint256)").hex()
EMPTY_TRIE = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
GENESIS_TIME = 1_700_000_000
BLOCK_SECONDS = 12
TOKENS = tuple("0x" + sha256(b"token %d" % number).hexdigest()[:40] for number in range(8))


def stub_address(name: str) -> str:
    """An address made from a name."""
    return "0x" + sha256(name.encode()).hexdigest()[-40:]


@dataclass(frozen=True, slots=True)
class StubPayment:
    """A transaction that pays `amount` to `to`: of a token if `contract` is given, else of the native coin."""

    to: str
    amount: int
    contract: str | None = None
    sender: str = stub_address("customer")
    nonce: int = 0
    ok: bool = True


@dataclass(slots=True)
class StubBlock:
    """A block as a node would answer: with full transactions, with their hashes only, and its receipts."""

    full: dict[str, Any]
    receipts: list[dict[str, Any]]
    full_bytes: bytes = b""
    thin_bytes: bytes = b""
    receipts_bytes: bytes = b""
    traces_bytes: bytes = b"null"

    def __post_init__(self) -> None:
        self.encode()

    def encode(self) -> None:
        """Bring the bytes up to date after a change of the values."""
        thin = {**self.full, "transactions": [entry["hash"] for entry in self.full["transactions"]]}
        self.full_bytes = json.dumps(self.full, separators=(",", ":")).encode()
        self.thin_bytes = json.dumps(thin, separators=(",", ":")).encode()
        self.receipts_bytes = json.dumps(self.receipts, separators=(",", ":")).encode()

    @property
    def hash(self) -> str:
        return str(self.full["hash"])

    @property
    def height(self) -> int:
        return int(self.full["number"], 16)


def filler(count: int, seed: int, *, accounts: int = 100_000, native_share: float = 0.2) -> list[StubPayment]:
    """Payments between strangers: one in five native, the others in one of eight tokens, receivers among `accounts`."""
    chance = random.Random(seed)
    return [
        StubPayment(
            to=stub_address(f"stranger {chance.randrange(accounts)}"),
            amount=chance.randrange(1, 10 ** chance.randrange(1, 30)),
            contract=None if chance.random() < native_share else chance.choice(TOKENS),
            sender=stub_address(f"stranger {chance.randrange(accounts)}"),
            nonce=seed * 1_000_000 + number,
        )
        for number in range(count)
    ]


def make_block(
    height: int, parent_hash: str, payments: Sequence[StubPayment], *, salt: str = "", time: int | None = None
) -> StubBlock:
    """A block with one transaction per payment. Another `salt` gives another block with the same transactions."""
    block_hash = _hash(f"block {salt} {height} {parent_hash} {len(payments)}")
    seconds = GENESIS_TIME + height * BLOCK_SECONDS if time is None else time
    place = {"blockHash": block_hash, "blockNumber": hex(height)}
    transactions, receipts, bloom, next_log = [], [], 0, 0
    for position, payment in enumerate(payments):
        transaction = _transaction(payment, position, place)
        receipt, bits = _receipt(payment, transaction, position, next_log, seconds)
        next_log += len(receipt["logs"])
        bloom |= bits
        transactions.append(transaction)
        receipts.append(receipt)
    full = {
        "baseFeePerGas": "0x3b9aca00",
        "blobGasUsed": "0x0",
        "difficulty": "0x0",
        "excessBlobGas": "0x0",
        "extraData": "0x6265617665726275696c642e6f7267",
        "gasLimit": "0x2255100",
        "gasUsed": hex(21_000 * len(payments)),
        "hash": block_hash,
        "logsBloom": _bloom_text(bloom),
        "miner": stub_address("miner"),
        "mixHash": _hash(f"mix {height}"),
        "nonce": "0x0000000000000000",
        "number": hex(height),
        "parentBeaconBlockRoot": _hash(f"beacon {height}"),
        "parentHash": parent_hash,
        "receiptsRoot": _hash(f"receipts {height}"),
        "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
        "size": hex(500 + 120 * len(payments)),
        "stateRoot": _hash(f"state {height}"),
        "timestamp": hex(seconds),
        "transactions": transactions,
        "transactionsRoot": _hash(f"transactions {height}") if payments else EMPTY_TRIE,
        "uncles": [],
        "withdrawals": [],
        "withdrawalsRoot": _hash(f"withdrawals {height}"),
    }
    return StubBlock(full, receipts)


def _transaction(payment: StubPayment, position: int, place: dict[str, str]) -> dict[str, Any]:
    content = f"{payment.sender} {payment.nonce} {payment.to} {payment.amount} {payment.contract}"
    token = payment.contract is not None
    return {
        **place,
        "from": payment.sender,
        "gas": "0xfde8",
        "gasPrice": "0x4190ab00",
        "maxFeePerGas": "0x77359400",
        "maxPriorityFeePerGas": "0x5f5e100",
        "hash": _hash(f"transaction {content}"),
        "input": "0xa9059cbb" + _word(payment.to) + f"{payment.amount:064x}" if token else "0x",
        "nonce": hex(payment.nonce),
        "to": payment.contract or payment.to,
        "transactionIndex": hex(position),
        "value": "0x0" if token else hex(payment.amount),
        "type": "0x2",
        "accessList": [],
        "chainId": "0x1",
        "v": "0x1",
        "r": _hash(f"r {content}"),
        "s": _hash(f"s {content}"),
        "yParity": "0x1",
    }


def _receipt(
    payment: StubPayment, transaction: dict[str, Any], position: int, next_log: int, seconds: int
) -> tuple[dict[str, Any], int]:
    place = {
        "blockHash": transaction["blockHash"],
        "blockNumber": transaction["blockNumber"],
        "transactionHash": transaction["hash"],
        "transactionIndex": hex(position),
    }
    logs = []
    if payment.contract is not None and payment.ok:
        logs.append(
            {
                "address": payment.contract,
                "topics": [TRANSFER_TOPIC, "0x" + _word(payment.sender), "0x" + _word(payment.to)],
                "data": f"0x{payment.amount:064x}",
                **place,
                "blockTimestamp": hex(seconds),
                "logIndex": hex(next_log),
                "removed": False,
            }
        )
    bits = bloom_of_logs(logs)
    receipt = {
        **place,
        "contractAddress": None,
        "cumulativeGasUsed": hex(46_000 * (position + 1)),
        "effectiveGasPrice": "0x4190ab00",
        "from": payment.sender,
        "gasUsed": "0xb3b0",
        "logs": logs,
        "logsBloom": _bloom_text(bits),
        "status": "0x1" if payment.ok else "0x0",
        "to": transaction["to"],
        "type": "0x2",
    }
    return receipt, bits


def flat_traces(block: StubBlock) -> list[dict[str, Any]]:
    """What `trace_block` says of a block: payments of coin as they are, tokens behind a proxy, as most of them are."""
    found: list[dict[str, Any]] = []
    for position, transaction in enumerate(block.full["transactions"]):
        token = transaction["input"] != "0x"
        place = {
            "blockHash": block.hash,
            "blockNumber": block.height,
            "transactionHash": transaction["hash"],
            "transactionPosition": position,
            "type": "call",
        }
        action = {
            "from": transaction["from"],
            "callType": "call",
            "gas": transaction["gas"],
            "input": transaction["input"],
            "to": transaction["to"],
            "value": transaction["value"],
        }
        result = {"gasUsed": "0xb3b0", "output": f"0x{1:064x}" if token else "0x"}
        failed = {} if block.receipts[position]["status"] == "0x1" else {"error": "Reverted"}
        found.append(
            {
                **place,
                "action": action,
                "result": result,
                "subtraces": int(token),
                "traceAddress": [],
                **failed,
            }
        )
        if token:
            inner = {**action, "callType": "delegatecall", "from": transaction["to"], "to": TOKENS[0]}
            found.append({**place, "action": inner, "result": result, "subtraces": 0, "traceAddress": [0]})
    return found


def bloom_of_logs(logs: Sequence[dict[str, Any]]) -> int:
    """The bloom of logs (Yellow Paper 4.3.1), written as plainly as possible."""
    bits = 0
    for log in logs:
        for text in (log["address"], *log["topics"]):
            digest = keccak256(bytes.fromhex(text[2:]))
            for start in (0, 2, 4):
                bits |= 1 << (int.from_bytes(digest[start : start + 2], "big") % 2048)
    return bits


def _bloom_text(bits: int) -> str:
    return f"0x{bits:0512x}"


def _word(address: str) -> str:
    return "00" * 12 + address[2:]


def _hash(text: str) -> str:
    return "0x" + sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class StubChain:
    """A chain of made-up blocks from a genesis block on. Replaced blocks are kept: nodes know them by hash too."""

    chain_id: int = 1
    blocks: list[StubBlock] = field(default_factory=list)
    by_hash: dict[str, StubBlock] = field(default_factory=dict)
    by_transaction: dict[str, tuple[StubBlock, int]] = field(default_factory=dict)
    safe_height: int | None = None
    finalized_height: int | None = None
    traced: bool = False

    def __post_init__(self) -> None:
        if not self.blocks:
            self.add(make_block(0, "0x" + "00" * 32, (), salt=f"genesis {self.chain_id}"))

    @property
    def height(self) -> int:
        return len(self.blocks) - 1

    def add(self, block: StubBlock) -> StubBlock:
        """Put a block on top."""
        if self.traced:
            block.traces_bytes = json.dumps(flat_traces(block), separators=(",", ":")).encode()
        self.blocks.append(block)
        self.by_hash[block.hash] = block
        for position, receipt in enumerate(block.receipts):
            self.by_transaction[receipt["transactionHash"]] = (block, position)
        return block

    def extend(
        self, payments: Sequence[StubPayment] = (), *, salt: str = "", time: int | None = None
    ) -> StubBlock:
        """Make a block on top of the newest one."""
        parent = self.blocks[-1]
        return self.add(make_block(parent.height + 1, parent.hash, payments, salt=salt, time=time))

    def fork(self, depth: int, branches: Sequence[Sequence[StubPayment]], *, salt: str = "fork") -> None:
        """Drop the newest `depth` blocks and grow a block per entry of `branches` in their place."""
        for block in self.blocks[len(self.blocks) - depth :]:
            for receipt in block.receipts:
                self.by_transaction.pop(receipt["transactionHash"], None)
        del self.blocks[len(self.blocks) - depth :]
        for payments in branches:
            self.extend(payments, salt=salt)

    def answer(self, method: str, params: list[Any]) -> bytes:
        """The JSON text of a method's result. Raises LookupError for a method that is not there."""
        match method:
            case "eth_chainId":
                return json.dumps(hex(self.chain_id)).encode()
            case "eth_blockNumber":
                return json.dumps(hex(self.height)).encode()
            case "eth_getBlockByNumber":
                block = self._at(params[0])
                return b"null" if block is None else (block.full_bytes if params[1] else block.thin_bytes)
            case "eth_getBlockReceipts":
                block = self.by_hash.get(params[0]) or self._at(params[0])
                return b"null" if block is None else block.receipts_bytes
            case "eth_getTransactionReceipt":
                found = self.by_transaction.get(params[0])
                return b"null" if found is None else json.dumps(found[0].receipts[found[1]]).encode()
            case "trace_block" if self.traced:
                block = self._at(params[0])
                return b"[]" if block is None else block.traces_bytes
            case _:
                raise LookupError(method)

    def _at(self, tag: str) -> StubBlock | None:
        marks = {"latest": self.height, "safe": self.safe_height, "finalized": self.finalized_height}
        if tag in marks:
            height = marks[tag]
        elif tag.startswith("0x") and len(tag) < 20:
            height = int(tag, 16)
        else:
            height = None
        return self.blocks[height] if height is not None and height <= self.height else None


class RpcStub:
    """Serves a `StubChain` on a free port of the loopback interface. Use as an asynchronous context manager.

    `missing` names methods that answer -32601; `broken` makes every request fail with 503. `requests` counts
    the HTTP requests.
    """

    def __init__(self, chain: StubChain, *, missing: frozenset[str] = frozenset(), port: int = 0) -> None:
        self.chain = chain
        self.missing = missing
        self.broken = False
        self.requests = 0
        self.calls: list[str] = []
        self._port = port
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.broken:
            return web.Response(status=503)
        question = json.loads(await request.read())
        if isinstance(question, list):
            body = b"[" + b",".join(self._one(entry) for entry in question) + b"]"
        else:
            body = self._one(question)
        return web.Response(body=body, content_type="application/json")

    def _one(self, question: dict[str, Any]) -> bytes:
        self.calls.append(question["method"])
        head = b'{"jsonrpc":"2.0","id":%s,' % json.dumps(question["id"]).encode()
        try:
            if question["method"] in self.missing:
                raise LookupError(question["method"])
            return head + b'"result":' + self.chain.answer(question["method"], question["params"]) + b"}"
        except LookupError:
            return head + b'"error":{"code":-32601,"message":"the method is not available"}}'


async def _serve_forever(chain: StubChain, port: int) -> None:
    async with RpcStub(chain, port=port) as stub:
        print(stub.url, flush=True)  # noqa: T201  (this is the program's output)
        await asyncio.Event().wait()


def main() -> None:
    """Serve a chain of equal-sized blocks until killed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--blocks", type=int, default=50)
    parser.add_argument("--transfers", type=int, default=200)
    parser.add_argument("--chain-id", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    chain = StubChain(options.chain_id)
    for height in range(1, options.blocks + 1):
        chain.extend(filler(options.transfers, height))
    asyncio.run(_serve_forever(chain, options.port))


if __name__ == "__main__":
    main()
