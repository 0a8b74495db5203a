"""A made-up chain of Bitcoin's family behind the RPC of Bitcoin Core 28, for tests and measurements.

For: what the one real node here (an old litecoind) cannot show: the answers of new versions, taproot, full replacement,
mempools and blocks of any size, forks on demand.
Holds true: transactions and blocks are in the network's own form (BIP144), ids, Merkle roots, witness commitments and
proofs of work at regtest's difficulty are right; signatures are not. Amounts are JSON numbers with 8 places, as nodes
write them.
Must not: use the code under test to build what it reads.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any, Final, Self

from aiohttp import web

REGTEST_BITS: Final = 0x207FFFFF
GENESIS_TIME: Final = 1_790_000_000
BLOCK_SECONDS: Final = 600
SUBSIDY: Final = 50_0000_0000
WITNESS_COMMITMENT: Final = "6a24aa21a9ed"  # OP_RETURN, 36 bytes, the tag of BIP141
FINAL: Final = 0xFFFFFFFF
REPLACEABLE: Final = 0xFFFFFFFD

Outpoint = tuple[str, int]


def double_sha256(data: bytes) -> bytes:
    return sha256(sha256(data).digest()).digest()


def compact_size(number: int) -> bytes:
    """A count as the network writes it."""
    if number < 0xFD:
        return bytes([number])
    if number < 0x10000:
        return b"\xfd" + number.to_bytes(2, "little")
    return b"\xfe" + number.to_bytes(4, "little")


@cache
def digest(text: str) -> bytes:
    """32 bytes for a word."""
    return sha256(text.encode()).digest()


def p2wpkh(word: str) -> str:
    """The output script of a made-up key's address, in hex."""
    return "0014" + digest(word)[:20].hex()


def p2tr(word: str) -> str:
    """A taproot output script (BIP341)."""
    return "5120" + digest(word).hex()


def p2pkh(word: str) -> str:
    """An output script of the old kind."""
    return "76a914" + digest(word)[:20].hex() + "88ac"


def p2sh(word: str) -> str:
    """An output script that pays a script's hash."""
    return "a914" + digest(word)[:20].hex() + "87"


@dataclass(frozen=True, slots=True)
class StubTransaction:
    """A transaction with its id, its bytes, and what it spends and makes."""

    txid: str
    raw: bytes
    spent: tuple[Outpoint, ...]
    outputs: tuple[tuple[int, str], ...]
    wtxid_bytes: bytes


def make_transaction(
    spent: Sequence[Outpoint],
    outputs: Sequence[tuple[int, str]],
    *,
    sequence: int = FINAL,
    taproot: bool = False,
    coinbase: bytes | None = None,
    lock_time: int = 0,
) -> StubTransaction:
    """A version-2 transaction with witnesses of the usual sizes: a signature and a key, or a Schnorr signature."""
    body = compact_size(1 if coinbase is not None else len(spent))
    witnesses = b""
    if coinbase is not None:
        body += (
            bytes(32) + b"\xff" * 4 + compact_size(len(coinbase)) + coinbase + sequence.to_bytes(4, "little")
        )
        witnesses = b"\x01\x20" + bytes(32)
    for txid, index in spent:
        body += (
            bytes.fromhex(txid)[::-1] + index.to_bytes(4, "little") + b"\x00" + sequence.to_bytes(4, "little")
        )
        signature = digest(txid) * 3
        witnesses += (
            b"\x01\x40" + signature[:64]
            if taproot
            else b"\x02\x47" + signature[:71] + b"\x21\x02" + digest(txid)
        )
    made = [
        amount.to_bytes(8, "little") + compact_size(len(script) // 2) + bytes.fromhex(script)
        for amount, script in outputs
    ]
    body += compact_size(len(made)) + b"".join(made)
    version, lock = (2).to_bytes(4, "little"), lock_time.to_bytes(4, "little")
    raw = version + b"\x00\x01" + body + witnesses + lock
    txid = double_sha256(version + body + lock)[::-1].hex()
    return StubTransaction(txid, raw, tuple(spent), tuple(outputs), double_sha256(raw))


def filler(transactions: int, outputs: int, seed: int) -> list[StubTransaction]:
    """Payments between strangers, with this many outputs in all and one to four inputs each."""
    chance = random.Random(seed)
    made: list[StubTransaction] = []
    left = outputs
    for number in range(transactions):
        count = max(1, round(left / (transactions - number)))
        left -= count
        spent = [
            (digest(f"{seed} {number} {place}").hex(), chance.randrange(4))
            for place in range(chance.choice((1, 1, 2, 2, 4)))
        ]
        scripts = [
            chance.choice((p2wpkh, p2wpkh, p2tr, p2pkh, p2sh))(f"stranger {chance.randrange(100_000)}")
            for _ in range(count)
        ]
        made.append(
            make_transaction(
                spent,
                [(chance.randrange(1_000, 10**9), script) for script in scripts],
                sequence=chance.choice((FINAL, REPLACEABLE)),
                taproot=chance.random() < 0.3,
            )
        )
    return made


def merkle_root(ids: Sequence[bytes]) -> bytes:
    """The root over ids in the order of their bytes."""
    row = list(ids)
    while len(row) > 1:
        row += row[-1:] * (len(row) % 2)
        row = [double_sha256(row[at] + row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


@dataclass(slots=True)
class StubBlock:
    """A block: its place, its header's fields, and its transactions, the coinbase first."""

    hash: str
    height: int
    parent_hash: str
    root: str
    time: int
    nonce: int
    transactions: list[StubTransaction]
    raw_hex: str

    def header(self, confirmations: int) -> dict[str, Any]:
        """What `getblockheader` answers."""
        told = {
            "hash": self.hash,
            "confirmations": confirmations,
            "height": self.height,
            "version": 0x20000000,
            "versionHex": "20000000",
            "merkleroot": self.root,
            "time": self.time,
            "mediantime": self.time - 3_000,
            "nonce": self.nonce,
            "bits": f"{REGTEST_BITS:08x}",
            "target": "7fffff" + "00" * 29,
            "difficulty": 4.656542373906925e-10,
            "chainwork": f"{2 * self.height + 2:064x}",
            "nTx": len(self.transactions),
            "previousblockhash": self.parent_hash,
        }
        if self.height == 0:
            del told["previousblockhash"]
        return told


def make_block(
    height: int,
    parent_hash: str,
    transactions: Sequence[StubTransaction] = (),
    *,
    time: int | None = None,
    salt: str = "",
) -> StubBlock:
    """A block with these transactions after its coinbase. Another `salt` gives another block."""
    seconds = GENESIS_TIME + height * BLOCK_SECONDS if time is None else time
    commitment = double_sha256(
        merkle_root([bytes(32), *(one.wtxid_bytes for one in transactions)]) + bytes(32)
    )
    script = b"\x03" + height.to_bytes(3, "little") + salt.encode()[:80]
    outputs = [(SUBSIDY, p2tr(f"miner {salt}")), (0, WITNESS_COMMITMENT + commitment.hex())]
    whole = [make_transaction((), outputs, coinbase=script), *transactions]
    root = merkle_root([bytes.fromhex(one.txid)[::-1] for one in whole])
    start = (
        (0x20000000).to_bytes(4, "little")
        + bytes.fromhex(parent_hash)[::-1]
        + root
        + seconds.to_bytes(4, "little")
        + REGTEST_BITS.to_bytes(4, "little")
    )
    nonce = 0
    while (found := double_sha256(start + nonce.to_bytes(4, "little")))[31] >= 0x7F:
        nonce += 1
    raw = b"".join(
        (start, nonce.to_bytes(4, "little"), compact_size(len(whole)), *(one.raw for one in whole))
    )
    return StubBlock(
        found[::-1].hex(), height, parent_hash, root[::-1].hex(), seconds, nonce, whole, raw.hex()
    )


class StubRefusalError(Exception):
    """An error object of the node."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class StubCore:
    """A node: its chain, its mempool, and how it answers. `parents` of the mempool are worked out from it."""

    blocks: list[StubBlock] = field(default_factory=list)
    mempool: dict[str, StubTransaction] = field(default_factory=dict)
    name: str = "regtest"
    full_rbf: bool | None = None
    tells_bare_multisig: bool = False
    fee_rate: str | None = "0.00012345"
    entries_tell: bool = True
    by_hash: dict[str, StubBlock] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.blocks:
            self._add(make_block(0, "00" * 32, salt="genesis"))

    @property
    def height(self) -> int:
        return len(self.blocks) - 1

    @property
    def genesis_hash(self) -> str:
        return self.blocks[0].hash

    def extend(self, transactions: Sequence[StubTransaction] = (), *, salt: str = "") -> StubBlock:
        """A block on top of the newest one. What it holds leaves the mempool."""
        for one in transactions:
            self.mempool.pop(one.txid, None)
        newest = self.blocks[-1]
        return self._add(make_block(newest.height + 1, newest.hash, transactions, salt=salt))

    def submit(self, transactions: Iterable[StubTransaction]) -> None:
        """Put transactions into the mempool, as they are."""
        self.mempool.update({one.txid: one for one in transactions})

    def _add(self, block: StubBlock) -> StubBlock:
        self.blocks.append(block)
        self.by_hash[block.hash] = block
        return block

    def reply(self, body: bytes) -> bytes:
        """The answer to a request, single or a batch."""
        question = json.loads(body)
        if isinstance(question, list):
            return b"[" + b",".join(self._one(entry) for entry in question) + b"]"
        return self._one(question)

    def _one(self, question: dict[str, Any]) -> bytes:
        self.calls.append(question["method"])
        tail = b',"id":%s}' % json.dumps(question["id"]).encode()
        try:
            result = self._answer(question["method"], question["params"])
        except StubRefusalError as refused:
            error = json.dumps({"code": refused.code, "message": str(refused)}).encode()
            return b'{"jsonrpc":"2.0","error":' + error + tail
        return b'{"jsonrpc":"2.0","result":' + result + tail

    def _answer(self, method: str, params: list[Any]) -> bytes:
        match method:
            case "getblock" if params[1] == 0:
                return b'"' + self._block(params[0]).raw_hex.encode() + b'"'
            case "estimatesmartfee":
                if self.fee_rate is None:
                    return b'{"errors":["Insufficient data or no feerate found"],"blocks":2}'
                return b'{"feerate":%s,"blocks":6}' % self.fee_rate.encode()
            case _:
                return json.dumps(self._value(method, params), separators=(",", ":")).encode()

    def _value(self, method: str, params: list[Any]) -> Any:
        newest = self.blocks[-1]
        match method:
            case "getblockchaininfo":
                return self._info(newest)
            case "getbestblockhash":
                return newest.hash
            case "getblockhash":
                if not 0 <= params[0] <= self.height:
                    raise StubRefusalError(-8, "Block height out of range")
                return self.blocks[params[0]].hash
            case "getblockheader":
                return self._header(self._block(params[0]))
            case "getblock":
                block = self._block(params[0])
                listed: list[Any] = [one.txid for one in block.transactions]
                if params[1] == 2:  # tests change blocks by their transactions' bytes
                    listed = [{"txid": one.txid, "hex": one.raw.hex()} for one in block.transactions]
                return self._header(block) | {"tx": listed}
            case "getblockcount":
                return self.height
            case "getrawmempool":
                return list(self.mempool)
            case "getmempoolinfo":
                return self._mempool_info()
            case "getmempoolentry":
                return self._entry(self._waiting(params[0]))
            case "getrawtransaction":
                return self._waiting(params[0]).raw.hex()
            case _:
                raise StubRefusalError(-32601, "Method not found")

    def _info(self, newest: StubBlock) -> dict[str, Any]:
        return {
            "chain": self.name,
            "blocks": newest.height,
            "headers": newest.height,
            "bestblockhash": newest.hash,
            "bits": f"{REGTEST_BITS:08x}",
            "difficulty": 4.656542373906925e-10,
            "time": newest.time,
            "mediantime": newest.time - 3_000,
            "verificationprogress": 1,
            "initialblockdownload": False,
            "chainwork": f"{2 * newest.height + 2:064x}",
            "size_on_disk": 123_456,
            "pruned": False,
            "warnings": [],
        }

    def _header(self, block: StubBlock) -> dict[str, Any]:
        best = self.blocks[block.height] if block.height <= self.height else None
        return block.header(self.height - block.height + 1 if best is block else -1)

    def _block(self, block_hash: str) -> StubBlock:
        if block_hash not in self.by_hash:
            raise StubRefusalError(-5, "Block not found")
        return self.by_hash[block_hash]

    def _waiting(self, txid: str) -> StubTransaction:
        if txid not in self.mempool:
            raise StubRefusalError(
                -5, "No such mempool transaction. Use -txindex or provide a block hash to enable queries."
            )
        return self.mempool[txid]

    def _mempool_info(self) -> dict[str, Any]:
        info: dict[str, Any] = {
            "loaded": True,
            "size": len(self.mempool),
            "bytes": 200 * len(self.mempool),
            "usage": 1_000 * len(self.mempool),
            "total_fee": 0.00001,
            "maxmempool": 300_000_000,
            "mempoolminfee": 0.00001000,
            "minrelaytxfee": 0.00001000,
            "incrementalrelayfee": 0.00001000,
            "unbroadcastcount": 0,
        }
        if self.tells_bare_multisig:
            info |= {"permitbaremultisig": True, "maxdatacarriersize": 100_000}
        return info if self.full_rbf is None else info | {"fullrbf": self.full_rbf}

    def _entry(self, transaction: StubTransaction) -> dict[str, Any]:
        entry = {
            "vsize": 141,
            "weight": 561,
            "time": GENESIS_TIME,
            "height": self.height,
            "fees": {"base": 0.00000141, "modified": 0.00000141, "ancestor": 0.00000141},
            "depends": [txid for txid, _ in transaction.spent if txid in self.mempool],
            "spentby": [],
            "unbroadcast": False,
        }
        return entry | {"bip125-replaceable": self._replaceable(transaction)} if self.entries_tell else entry

    def _replaceable(self, transaction: StubTransaction) -> bool:
        own = REPLACEABLE.to_bytes(4, "little") in transaction.raw
        return own or any(
            self._replaceable(self.mempool[txid]) for txid, _ in transaction.spent if txid in self.mempool
        )


class CoreStubServer:
    """Serves a `StubCore` on a free port of the loopback interface. Use as an asynchronous context manager."""

    def __init__(self, node: StubCore, *, port: int = 0) -> None:
        self.node = node
        self._port = port
        self.url = ""
        self.requests = 0
        self.password: str | None = None
        self.status = 200

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.status != 200:
            return web.Response(status=self.status, text="Work queue depth exceeded")
        if self.password is not None and request.headers.get("Authorization") != self.password:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="jsonrpc"'})
        body = self.node.reply(await request.read())
        # Nodes before 28, and all that are asked in the old way, send a single call's error under 500 or 404.
        failed = body.startswith(b'{"jsonrpc":"2.0","error"')
        status = 404 if b"-32601" in body[:60] else 500
        return web.Response(body=body, status=status if failed else 200, content_type="application/json")
