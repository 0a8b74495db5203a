"""A TRON node's HTTP interface over a chain in memory, under a test's full control.

For: tests of the TRON source. No TRON node can run where the tests run, so this answers in the shapes that nodes
answer in (java-tron 4.8), with real transactions: protocol buffers built by `tronpy`, whose ids are the SHA-256 of
their bytes.
Holds true: blocks come only from `mine` and `reorganise`. What a field's default value is, is left out, as protocol
buffers do when they are printed. Everything asked is written down (`requests`).
Must not: run contracts: what a call did is what the test says it did.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

from aiohttp import web
from eth_abi.abi import encode
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from tronpy.proto import tron_pb2

GENESIS_ID: Final = "0000000000000000" + "1e" * 20 + "7a11571c"
CHAIN_ID: Final = 0x7A11571C
FIRST_TIME_MS: Final = 1_790_000_000_000
SOLIDIFIED_BEHIND: Final = 19

VM_RESULTS: Final = (
    "DEFAULT", "SUCCESS", "REVERT", "BAD_JUMP_DESTINATION", "OUT_OF_MEMORY", "PRECOMPILED_CONTRACT",
    "STACK_TOO_SMALL", "STACK_TOO_LARGE", "ILLEGAL_OPERATION", "STACK_OVERFLOW", "OUT_OF_ENERGY", "OUT_OF_TIME",
    "JVM_STACK_OVER_FLOW", "UNKNOWN", "TRANSFER_FAILED", "INVALID_CODE",
)  # fmt: skip
"""Every value of the protocol's `contractResult`."""

_TOPIC: Final = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


class Fault(StrEnum):
    """What the node does wrong."""

    DROPPED_CONNECTION = "the connection breaks"
    SILENCE = "no answer"
    MISSING_INFO = "the last info is missing"
    NO_INFOS = "infos are an empty list"
    INFOS_EMPTY_OBJECT = "infos are an empty object"
    FOREIGN_INFOS = "infos belong to another block"
    OTHER_INFO_ID = "an info is of another transaction"
    DOUBLED_INFO = "an info comes twice"
    EMPTY_BLOCK = "blocks come without their transactions"
    MISSING_TRANSACTION = "the last transaction and its info are missing"
    CHANGED_BYTES = "a transaction's bytes were changed"
    CONTRADICTION = "block and receipt tell different outcomes"
    NO_BLOCK = "blocks are empty objects"
    OTHER_HEIGHT = "another block than the one asked for"
    FOREIGN_ID = "a block's id carries another height"
    FOREIGN_PARENT = "a block's parent is not the height below"
    OTHER_HASH = "blocks of another branch"
    OTHER_CHAIN = "another first block"
    OLDER_HEAD = "the newest block is one of ten blocks ago"
    NO_BARE_HEADERS = "404 for headers alone"
    SUSPENDED = "403 with a sentence"
    FORBIDDEN = "403 without a word"
    TOO_MANY_REQUESTS = "429 with Retry-After"
    UNAVAILABLE = "503"
    LIMIT_SENTENCE = "200 with a sentence about the rate"
    ERROR_SENTENCE = "200 with an error"
    SERVER_ERROR = "500"
    HTML = "an HTML page"
    REDIRECT = "a redirect"
    HUGE_BODY = "an endless answer"
    TRUNCATED_JSON = "half an answer"
    DEEP_JSON = "nested without end"
    NOT_UTF8 = "bytes that are no text"
    OTHER_SHAPE = "a list where an object belongs, an object where a list belongs"


_PLAIN: Final[dict[Fault | None, tuple[int, dict[str, str], bytes]]] = {
    Fault.SUSPENDED: (403, {}, b'{"Error":"%SENTENCE"}'),
    Fault.FORBIDDEN: (403, {}, b""),
    Fault.TOO_MANY_REQUESTS: (429, {"Retry-After": "9"}, b"slow down"),
    Fault.UNAVAILABLE: (503, {"Retry-After": "4"}, b""),
    Fault.LIMIT_SENTENCE: (200, {}, b'{"Error":"%SENTENCE"}'),
    Fault.ERROR_SENTENCE: (
        200,
        {},
        b'{"Error":"class java.lang.NullPointerException : null\\nsecret-access-key"}',
    ),
    Fault.SERVER_ERROR: (500, {}, b"internal error"),
    Fault.HTML: (200, {"Content-Type": "text/html"}, b"<html><body>Please wait</body></html>"),
    Fault.REDIRECT: (302, {"Location": "/wallet/getnowblock"}, b""),
    Fault.DEEP_JSON: (200, {}, b'{"other":' + b'{"a":' * 200_000),
    Fault.NOT_UTF8: (200, {}, b'{"blockID":"\xff\xfe"}'),
}


def hex_address(address: str) -> str:
    """0x form to the interface's form."""
    return "41" + address[2:]


@dataclass(frozen=True, slots=True)
class TronTransaction:
    """A transaction and what it did. `infos` is what the node found; it stays the same wherever it is mined."""

    id: str
    shown: dict[str, Any]
    info: dict[str, Any]

    @property
    def tx_hash(self) -> str:
        return "0x" + self.id


class _Builder:
    """Makes every transaction another one."""

    def __init__(self) -> None:
        self._count = 0

    def build(
        self,
        kind: str,
        message: Message,
        value: dict[str, Any],
        *,
        result: str | None,
        receipt: str | None = None,
        fee_limit: int = 0,
        info: dict[str, Any] | None = None,
    ) -> TronTransaction:
        self._count += 1
        type_url = f"type.googleapis.com/protocol.{kind}"
        now = FIRST_TIME_MS + self._count
        raw = tron_pb2.Transaction.raw(
            ref_block_bytes=b"\x1c\x00",
            ref_block_hash=b"\x46\x2b\x49\x8d\xda\xe6\x77\x17",
            expiration=now + 60_000,
            timestamp=now,
            contract=[
                tron_pb2.Transaction.Contract(
                    type=getattr(tron_pb2.Transaction.Contract.ContractType, kind),
                    parameter=AnyMessage(type_url=type_url, value=message.SerializeToString()),
                )
            ],
        )
        told: dict[str, Any] = {
            "contract": [{"parameter": {"value": value, "type_url": type_url}, "type": kind}],
            "ref_block_bytes": "1c00",
            "ref_block_hash": "462b498ddae67717",
            "expiration": now + 60_000,
            "timestamp": now,
        }
        if fee_limit:
            raw.fee_limit = told["fee_limit"] = fee_limit
        body = raw.SerializeToString()
        tx_id = hashlib.sha256(body).hexdigest()
        shown = {
            "ret": [{} if result is None else {"contractRet": result}],
            "signature": ["ab" * 65],
            "txID": tx_id,
            "raw_data": told,
            "raw_data_hex": body.hex(),
        }
        used = {"net_usage": 268} | (
            {} if receipt is None else {"energy_usage_total": 14631, "result": receipt}
        )
        return TronTransaction(
            tx_id, shown, {"id": tx_id, "contractResult": [""], "receipt": used} | (info or {})
        )


_BUILDER = _Builder()


def transfer(
    to: str, amount: int, *, sender: str = "0x" + "5e" * 20, result: str | None = "SUCCESS"
) -> TronTransaction:
    """TRX from one account to another."""
    message = tron_pb2.TransferContract(
        owner_address=bytes.fromhex(hex_address(sender)),
        to_address=bytes.fromhex(hex_address(to)),
        amount=amount,
    )
    value = {"amount": amount, "owner_address": hex_address(sender), "to_address": hex_address(to)}
    return _BUILDER.build("TransferContract", message, value, result=result)


def asset_transfer(to: str, amount: int, *, sender: str = "0x" + "5e" * 20) -> TronTransaction:
    """A TRC-10 token, which anybody can issue, from one account to another. It looks like TRX but for its type."""
    message = tron_pb2.TransferAssetContract(
        asset_name=b"1000001",
        owner_address=bytes.fromhex(hex_address(sender)),
        to_address=bytes.fromhex(hex_address(to)),
        amount=amount,
    )
    value = {
        "amount": amount,
        "asset_name": b"1000001".hex(),
        "owner_address": hex_address(sender),
        "to_address": hex_address(to),
    }
    return _BUILDER.build("TransferAssetContract", message, value, result="SUCCESS")


def call(
    contract: str,
    *,
    data: str = "a9059cbb",
    logs: Sequence[dict[str, Any]] = (),
    inner: Sequence[dict[str, Any]] = (),
    call_value: int = 0,
    sender: str = "0x" + "5e" * 20,
    result: str = "SUCCESS",
) -> TronTransaction:
    """A call of a contract. Logs and steps are kept also where it failed, as a careless node might."""
    message = tron_pb2.TriggerSmartContract(
        owner_address=bytes.fromhex(hex_address(sender)),
        contract_address=bytes.fromhex(hex_address(contract)),
        data=bytes.fromhex(data),
        call_value=call_value,
    )
    value: dict[str, Any] = {
        "data": data,
        "owner_address": hex_address(sender),
        "contract_address": hex_address(contract),
    }
    if call_value:
        value["call_value"] = call_value
    extra: dict[str, Any] = {"contract_address": hex_address(contract)}
    if logs:
        extra["log"] = list(logs)
    if inner:
        extra["internal_transactions"] = list(inner)
    if result != "SUCCESS":
        extra["result"] = "FAILED"
    told = None if result == "DEFAULT" else result  # the default of an enumeration is left out
    return _BUILDER.build(
        "TriggerSmartContract",
        message,
        value,
        result=told,
        receipt=told,
        fee_limit=100_000_000,
        info=extra,
    )


def transfer_log(
    contract: str, to: str, amount: int, *, sender: str = "0x" + "5e" * 20, topic: str = _TOPIC
) -> dict[str, Any]:
    """The Transfer event of a token, as the interface writes it."""
    return {
        "address": contract[2:],
        "topics": [topic, "00" * 12 + sender[2:], "00" * 12 + to[2:]],
        "data": f"{amount:064x}",
    }


def step(
    sender: str, to: str, amount: int, *, note: str = "call", rejected: bool = False, token: str | None = None
) -> dict[str, Any]:
    """An inner transaction, as the interface writes it."""
    value: dict[str, Any] = {"callValue": amount} if amount else {}
    if token is not None:
        value["tokenId"] = token
    told: dict[str, Any] = {
        "hash": hashlib.sha256(f"{sender}{to}{amount}{note}".encode()).hexdigest(),
        "caller_address": hex_address(sender),
        "transferTo_address": hex_address(to),
        "callValueInfo": [value],
        "note": note.encode().hex(),
    }
    return told | ({"rejected": True} if rejected else {})


def token_payment(token: str, to: str, amount: int, **more: Any) -> TronTransaction:
    """A call of a token's `transfer`, with its event."""
    data = "a9059cbb" + "00" * 12 + to[2:] + f"{amount:064x}"
    return call(token, data=data, logs=[transfer_log(token, to, amount)], **more)


@dataclass(frozen=True, slots=True)
class TronBlock:
    """A block in memory."""

    id: str
    parent: str
    height: int
    time_ms: int
    transactions: tuple[TronTransaction, ...]

    def header(self) -> dict[str, Any]:
        """The header as it is shown: default values are left out."""
        tops = "".join(one.id for one in self.transactions)
        raw: dict[str, Any] = {
            "txTrieRoot": hashlib.sha256(tops.encode()).hexdigest() if tops else "00" * 32,
            "witness_address": hex_address("0x" + "a2" * 20),
            "parentHash": self.parent,
            "version": 34,
        }
        if self.height:
            raw |= {"number": self.height, "timestamp": self.time_ms}
        return {"raw_data": raw, "witness_signature": "cd" * 65}

    def shown(self, *, detail: bool = True) -> dict[str, Any]:
        """The block as it is shown."""
        told: dict[str, Any] = {"blockID": self.id, "block_header": self.header()}
        if detail and self.transactions:
            told["transactions"] = [one.shown for one in self.transactions]
        return told

    def infos(self) -> list[dict[str, Any]]:
        """The infos as they are shown."""
        place = {"blockNumber": self.height, "blockTimeStamp": self.time_ms}
        return [one.info | place for one in self.transactions]


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: the method, its parameters, the headers, and when (the loop's clock)."""

    method: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


@dataclass(slots=True)
class TronNode:
    """Serves a chain under `url`. Use as an asynchronous context manager."""

    url: str = ""
    fault: Fault | None = None
    times: int | None = None
    requests: list[Request] = field(default_factory=list)
    blocks: list[TronBlock] = field(default_factory=list)
    since: int = 0
    start_ms: int = FIRST_TIME_MS
    solidified: int | None = None
    tokens: dict[str, tuple[int, str]] = field(default_factory=dict)
    sentence: str = "request rate exceeded the allowed_rps(15), and the query server is suspended for 7 s"
    _branch: int = 0
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    def __post_init__(self) -> None:
        first = transfer("0x" + "77" * 20, 10**15, result=None)
        self.blocks.append(TronBlock(GENESIS_ID, "e5" * 32, 0, self.start_ms, (first,)))

    # -- the chain

    @property
    def height(self) -> int:
        return len(self.blocks) - 1

    def mine(self, *transactions: TronTransaction, blocks: int = 1) -> int:
        """Mine blocks; the first takes the transactions. Returns the new height."""
        for _ in range(blocks):
            parent = self.blocks[-1]
            height = parent.height + 1
            ids = "".join(one.id for one in transactions)
            tail = hashlib.sha256(f"{parent.id}{self._branch}{ids}".encode()).hexdigest()[16:]
            self.blocks.append(
                TronBlock(
                    f"{height:016x}{tail}", parent.id, height, self.start_ms + 3000 * height, transactions
                )
            )
            transactions = ()
        return self.height

    def reorganise(self, depth: int, *transactions: TronTransaction) -> int:
        """Replace the newest blocks by as many others; the first of them takes the transactions."""
        del self.blocks[-depth:]
        self._branch += 1
        return self.mine(*transactions, blocks=depth)

    def lie(self, fault: Fault | None, *, times: int | None = None) -> None:
        """Do this wrong from now on, for `times` requests (None: until told otherwise)."""
        self.fault, self.times, self.since = fault, times, self.height

    # -- the server

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{prefix:.*?}{interface:wallet|walletsolidity}/{method}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._released.set()
        assert self._runner is not None
        await self._runner.cleanup()

    def asked(self, method: str) -> int:
        """How often a method was asked."""
        return sum(request.method == method for request in self.requests)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        method = f"{request.match_info['interface']}/{request.match_info['method']}"
        body = json.loads(await request.read() or b"{}")
        now = asyncio.get_running_loop().time()
        self.requests.append(Request(method, body, dict(request.headers), now))
        fault = self._current()
        broken = await self._broken(fault, method, request)
        if broken is not None:
            return broken
        answer = self._answer(method, body, fault)
        if answer is None:
            return web.Response(status=404, text="<h1>404</h1>", content_type="text/html")
        if fault is Fault.OTHER_SHAPE:
            answer = {"list": answer} if isinstance(answer, list) else [answer]
        text = json.dumps(answer)
        return web.Response(
            text=text[: len(text) // 2] if fault is Fault.TRUNCATED_JSON else text,
            content_type="application/json",
        )

    def _current(self) -> Fault | None:
        fault = self.fault
        if fault is not None and self.times is not None:
            self.times -= 1
            if self.times <= 0:
                self.fault, self.times = None, None
        return fault

    async def _broken(
        self, fault: Fault | None, method: str, request: web.Request
    ) -> web.StreamResponse | None:
        """The answer to a fault that needs no chain, or None."""
        if fault in _PLAIN:
            status, headers, text = _PLAIN[fault]
            return web.Response(
                status=status, headers=headers, body=text.replace(b"%SENTENCE", self.sentence.encode())
            )
        match fault:
            case Fault.DROPPED_CONNECTION:
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
            case Fault.SILENCE:
                await self._released.wait()
                return web.Response(status=503)
            case Fault.HUGE_BODY:
                return await self._endless(request)
            case Fault.NO_BARE_HEADERS if method.endswith("/getblock"):
                return web.Response(status=404)
            case _:
                return None

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while not self._released.is_set():
                await response.write(b"[" + b" " * 65_535)
        except ConnectionError:
            pass
        return response

    # -- answers

    def _answer(self, method: str, body: dict[str, Any], fault: Fault | None) -> Any:
        newest = self.height - 10 if fault is Fault.OLDER_HEAD else self.height
        solid = self.solidified
        solid = max(0, newest - SOLIDIFIED_BEHIND) if solid is None else solid
        interface, _, name = method.partition("/")
        top = solid if interface == "walletsolidity" else newest
        match name:
            case "getnowblock":
                return self._block(top, fault)
            case "getblock":
                wanted = body.get("id_or_num")
                height = top if wanted is None else int(wanted)
                return self._block(height, fault, detail=body.get("detail", False), asked=wanted is not None)
            case "getblockbynum":
                return self._block(body["num"], fault, asked=True)
            case "gettransactioninfobyblocknum":
                return self._infos(body["num"], fault)
            case "triggerconstantcontract":
                return self._call(body["contract_address"], body["function_selector"])
            case _:
                return None

    def _block(self, height: int, fault: Fault | None, *, detail: bool = True, asked: bool = False) -> Any:
        if not 0 <= height <= self.height or (fault is Fault.NO_BLOCK and asked):
            return {}
        if fault is Fault.OTHER_HEIGHT and asked and height > 0:
            height -= 1
        told = json.loads(json.dumps(self.blocks[height].shown(detail=detail)))
        raw = told["block_header"]["raw_data"]
        match fault:
            case Fault.OTHER_CHAIN if height == 0:
                told["blockID"] = "00" * 8 + "de" * 24
            case Fault.OTHER_HASH if height > self.since:
                told["blockID"] = f"{height:016x}" + "ee" * 24
                if height > self.since + 1:
                    raw["parentHash"] = f"{height - 1:016x}" + "ee" * 24
            case Fault.FOREIGN_ID if height > 0:
                told["blockID"] = f"{height + 1:016x}" + told["blockID"][16:]
            case Fault.FOREIGN_PARENT if height > 0:
                raw["parentHash"] = f"{height + 1:016x}" + raw["parentHash"][16:]
            case Fault.EMPTY_BLOCK:
                told.pop("transactions", None)
            case Fault.MISSING_TRANSACTION if height > 0 and "transactions" in told:
                told["transactions"] = told["transactions"][:-1]
            case Fault.CHANGED_BYTES if "transactions" in told:
                told["transactions"][-1]["raw_data_hex"] += "00"
            case Fault.CONTRADICTION if "transactions" in told:
                told["transactions"][-1]["ret"] = [{"contractRet": "SUCCESS"}]
        return told

    def _call(self, contract: str, function: str) -> Any:
        """What a token says of itself: `tokens` are decimals and symbol by 0x address."""
        if "0x" + contract[2:] not in self.tokens:
            message = b"Smart contract is not exist.".hex()
            return {"result": {"code": "CONTRACT_VALIDATE_ERROR", "message": message}}
        decimals, symbol = self.tokens["0x" + contract[2:]]
        said = {"decimals()": f"{decimals:064x}", "symbol()": encode(["string"], [symbol]).hex()}
        return {"result": {"result": True}, "energy_used": 500, "constant_result": [said.get(function, "")]}

    def _infos(self, height: int, fault: Fault | None) -> Any:
        if not 0 < height <= self.height:
            return {}
        infos = json.loads(json.dumps(self.blocks[height].infos()))
        match fault:
            case Fault.MISSING_INFO:
                return infos[:-1]
            case Fault.NO_INFOS:
                return []
            case Fault.INFOS_EMPTY_OBJECT:
                return {}
            case Fault.FOREIGN_INFOS:
                return [info | {"blockNumber": height + 1} for info in infos]
            case Fault.OTHER_INFO_ID:
                return [*infos[:-1], infos[-1] | {"id": "ee" * 32}]
            case Fault.DOUBLED_INFO:
                return [*infos[:-1], infos[0]] if len(infos) > 1 else [*infos, *infos]
            case _:
                return infos
