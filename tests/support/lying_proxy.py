"""A proxy before a node that lies, lags or breaks in one chosen way (failures.md, F-NODE).

For: showing that each fault is noticed, and that the next honest answer works again.
Holds true: without a fault every answer passes unchanged. A fault stays on until it is changed, or for `times`
requests. Nothing waits longer than the proxy lives: requests held by `Fault.SILENCE` are let go at the end.
Must not: know what the source does about it.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Self

import aiohttp
from aiohttp import web

Answers = list[dict[str, Any]]


class Fault(StrEnum):
    """What the proxy does wrong."""

    NULL_RECEIPTS = "receipts are null"
    ONE_NULL_RECEIPT = "one receipt is null"
    MISSING_RECEIPT = "the last receipt is missing"
    FOREIGN_BLOCK = "receipts name another block"
    SWAPPED_RECEIPTS = "two receipts change places"
    NO_STATUS = "receipts have no status"
    EMPTY_LOGS = "logs are empty, blooms stay"
    EMPTY_LOGS_AND_BLOOMS = "logs and the receipts' blooms are empty, the block's stays"
    DROPPED_LAST_LOG = "the last log is missing"
    DOUBLED_LOG = "a log comes twice"
    REMOVED_LOG = "a log is marked as removed"
    CHANGED_RECEIVER = "a log names another receiver"
    NULL_BLOCK = "blocks are null"
    EMPTY_BLOCK = "blocks come without their transactions"
    OTHER_HEIGHT = "another block than the one asked for"
    OTHER_HASH = "blocks have another hash"
    OLDER_HEAD = "the newest block is one of ten blocks ago"
    FROZEN_HEAD = "the newest block stays the newest"
    OTHER_CHAIN = "another chain id"
    OTHER_GENESIS = "another first block"
    NO_TAGS = "finality tags are refused"
    NULL_TAGS = "finality tags have no block"
    EMPTY_TRACES = "a block's traces are empty"
    SHORT_TRACES = "the last trace is missing"
    NULL_TRACES = "a block's traces are null"
    NO_TRACING = "methods of tracing do not exist"
    TRACES_REFUSED = "a block's history is gone"
    TRACES_FORBIDDEN = "403 for anything about tracing"
    TOO_MANY_REQUESTS = "429 with Retry-After"
    LIMIT_ERROR = "200 with a limit error"
    SERVER_ERROR = "500"
    ERROR_OBJECT = "200 with an error"
    HTML = "an HTML page"
    SILENCE = "no answer"
    DROPPED_CONNECTION = "the connection breaks"
    REDIRECT = "a redirect"
    WRONG_ID = "answers have a wrong id"
    SHUFFLED_BATCH = "a batch in another order"
    SHORT_BATCH = "a batch lacks an answer"
    NO_RESULT = "neither result nor error"
    HUGE_BODY = "an endless answer"
    TRUNCATED_JSON = "half an answer"
    DEEP_JSON = "nested without end"
    NOT_UTF8 = "bytes that are no text"


class LyingProxy:
    """Serves `upstream` under `url` with the fault in `fault`. Use as an asynchronous context manager."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""
        self.fault: Fault | None = None
        self.times: int | None = None
        self.share = 1.0
        self.methods: set[str] = set()
        self.retry_after = "1"
        self.instead: dict[
            str, bytes
        ] = {}  # the whole answer to a single call of a method; %d stands for its id
        self.requests = 0
        self.sent_bytes = 0
        self._released = asyncio.Event()
        self._frozen: str | None = None
        self._chance = random.Random(0)

    def lie(self, fault: Fault | None, *, times: int | None = None, share: float = 1.0) -> None:
        """Do this wrong from now on, for `times` requests (None: until told otherwise).

        `share` is the part of all requests that it happens to, drawn anew for each but always the same way: what a load
        balancer's bad node answers.
        """
        self.fault, self.times, self.share, self._frozen = fault, times, share, None
        self._chance = random.Random(20261121)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/{path:.*}", self._serve)
        self._session = aiohttp.ClientSession()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._released.set()
        await self._runner.cleanup()
        await self._session.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        fault = self._current()
        question = await request.read()
        asked = json.loads(question)
        self.methods.update(call["method"] for call in ([asked] if isinstance(asked, dict) else asked))
        if fault in (Fault.OLDER_HEAD, Fault.FROZEN_HEAD):
            question = await self._older(asked, fault)
        if fault is not None:
            broken = await self._broken(fault, request)
            if fault is Fault.TRACES_FORBIDDEN and b"trace" in question.lower():
                broken = web.Response(status=403, text="not in your plan")
            if broken is not None:
                return broken
        if self.instead:
            call = json.loads(question)
            if isinstance(call, dict) and call["method"] in self.instead:
                return web.Response(
                    body=self.instead[call["method"]] % call["id"], content_type="application/json"
                )
        async with self._session.post(
            self.upstream, data=question, headers={"Content-Type": "application/json"}
        ) as answer:
            body = await answer.read()
        if fault is not None:
            body = self._changed(fault, json.loads(question), body)
        body = await self.twisted(json.loads(question), body)
        return web.Response(body=body, content_type="application/json")

    async def twisted(self, question: Any, body: bytes) -> bytes:
        """For proxies before nodes of other families: what else is wrong with an answer."""
        return body

    def _current(self) -> Fault | None:
        fault = self.fault
        if self.share < 1 and self._chance.random() >= self.share:
            return None
        if fault is not None and self.times is not None:
            self.times -= 1
            if self.times <= 0:
                self.fault, self.times = None, None
        return fault

    async def _broken(self, fault: Fault, request: web.Request) -> web.StreamResponse | None:
        """The answer to a fault that needs no node, or None."""
        match fault:
            case Fault.TOO_MANY_REQUESTS:
                return web.Response(status=429, headers={"Retry-After": self.retry_after}, text="slow down")
            case Fault.SERVER_ERROR:
                return web.Response(status=500, text="internal error")
            case Fault.REDIRECT:
                return web.Response(status=302, headers={"Location": self.upstream})
            case Fault.HTML:
                return web.Response(text="<html><body>Please wait</body></html>", content_type="text/html")
            case Fault.NOT_UTF8:
                return web.Response(body=b'{"jsonrpc":"2.0","id":1,"result":"\xff\xfe"}')
            case Fault.DEEP_JSON:
                return web.Response(body=b'{"jsonrpc":"2.0","id":1,"result":' + b'{"a":' * 200_000)
            case Fault.SILENCE:
                await self._released.wait()
                return web.Response(status=503)
            case Fault.DROPPED_CONNECTION:
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
            case Fault.HUGE_BODY:
                return await self._endless(request)
            case _:
                return None

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        chunk = b"[" + b" " * 65_535
        try:
            while not self._released.is_set():
                await response.write(chunk)
                self.sent_bytes += len(chunk)
        except ConnectionError:
            pass
        return response

    def _changed(self, fault: Fault, question: Any, body: bytes) -> bytes:
        if fault is Fault.TRUNCATED_JSON:
            return body[: len(body) // 2]
        answers = json.loads(body)
        single = isinstance(answers, dict)
        listed: Answers = [answers] if single else answers
        calls = {call["id"]: call for call in ([question] if single else question)}
        listed = self._envelopes(fault, listed)
        for answer in listed:
            call = calls.get(answer.get("id"))
            if call is not None and fault in _TRACE_REFUSALS and call["method"] in _TRACING:
                answer.pop("result", None)
                answer["error"] = _TRACE_REFUSALS[fault]
            elif call is not None and "result" in answer:
                self._result(fault, call, answer)
        return json.dumps(listed[0] if single else listed).encode()

    async def _older(self, question: Any, fault: Fault) -> bytes:
        """Ask for the block of ten blocks ago in place of the newest, or for the one that was the newest at first."""
        height = {"jsonrpc": "2.0", "id": 0, "method": "eth_blockNumber", "params": []}
        async with self._session.post(self.upstream, json=height) as answer:
            newest = int((await answer.json())["result"], 16)
        self._frozen = self._frozen or hex(newest)
        old = self._frozen if fault is Fault.FROZEN_HEAD else hex(newest - 10)
        calls = [question] if isinstance(question, dict) else question
        for call in calls:
            if call["params"][:1] == ["latest"]:
                call["params"][0] = old
        return json.dumps(question).encode()

    def _envelopes(self, fault: Fault, answers: Answers) -> Answers:
        match fault:
            case Fault.WRONG_ID:
                return [{**answer, "id": 10**9 + answer["id"]} for answer in answers]
            case Fault.SHUFFLED_BATCH:
                return answers[::-1]
            case Fault.SHORT_BATCH:
                return answers[:-1] if len(answers) > 1 else answers
            case Fault.NO_RESULT:
                return [{"jsonrpc": "2.0", "id": answer["id"]} for answer in answers]
            case Fault.ERROR_OBJECT | Fault.LIMIT_ERROR:
                code = -32005 if fault is Fault.LIMIT_ERROR else -32000
                error = {"code": code, "message": "something\nis wrong"}
                return [{"jsonrpc": "2.0", "id": answer["id"], "error": error} for answer in answers]
            case _:
                return answers

    def _result(self, fault: Fault, call: dict[str, Any], answer: dict[str, Any]) -> None:
        method, params = call["method"], call["params"]
        if method in _CHANGES.get(fault, {}):
            answer["result"] = _CHANGES[fault][method](answer["result"])
        elif method == "eth_getBlockByNumber":
            tag = params[0]
            if fault is Fault.OTHER_HASH and tag != "0x0" and answer["result"]:
                answer["result"]["hash"] = "0x" + "ee" * 32
            elif fault is Fault.NO_TAGS and tag in ("safe", "finalized"):
                del answer["result"]
                answer["error"] = {"code": -32602, "message": "unknown tag"}
            elif fault is Fault.NULL_TAGS and tag in ("safe", "finalized"):
                answer["result"] = None
            elif fault is Fault.OTHER_GENESIS and tag == "0x0":
                answer["result"]["hash"] = "0x" + "ee" * 32
            elif fault is Fault.OTHER_HEIGHT and tag not in ("0x0", "latest") and answer["result"]:
                answer["result"]["number"] = hex(int(tag, 16) + 1) if tag.startswith("0x") else tag


Change = Callable[[Any], Any]


def _on_logs(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Change:
    """Change the logs of the last receipt that has any."""

    def apply(receipts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for receipt in reversed(receipts):
            if receipt["logs"]:
                receipt["logs"] = change(receipt["logs"])
                break
        return receipts

    return apply


def _each(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    return lambda entries: [change(entry) for entry in entries]


def _renumbered(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number the logs on from the first one, so that only their content shows the change."""
    first = int(logs[0]["logIndex"], 16)
    return [{**log, "logIndex": hex(first + position)} for position, log in enumerate(logs)]


def _other_receiver(log: dict[str, Any]) -> dict[str, Any]:
    return {**log, "topics": [*log["topics"][:2], "0x" + "00" * 12 + "ee" * 20]}


_EMPTY_BLOOM = "0x" + "00" * 256
_RECEIPTS = "eth_getBlockReceipts"
_TRACING = ("trace_block", "debug_traceBlockByHash")
_TRACE_REFUSALS = {
    Fault.NO_TRACING: {"code": -32601, "message": "the method does not exist"},
    Fault.TRACES_REFUSED: {"code": -32000, "message": "required historical state unavailable"},
}
_CHANGES: dict[Fault, dict[str, Change]] = {
    Fault.NULL_RECEIPTS: {_RECEIPTS: lambda _: None},
    Fault.ONE_NULL_RECEIPT: {_RECEIPTS: lambda receipts: [*receipts[:-1], None]},
    Fault.MISSING_RECEIPT: {_RECEIPTS: lambda receipts: receipts[:-1]},
    Fault.FOREIGN_BLOCK: {_RECEIPTS: _each(lambda receipt: {**receipt, "blockHash": "0x" + "ee" * 32})},
    Fault.SWAPPED_RECEIPTS: {_RECEIPTS: lambda receipts: [*receipts[:-2], receipts[-1], receipts[-2]]},
    Fault.NO_STATUS: {
        _RECEIPTS: _each(lambda receipt: {key: value for key, value in receipt.items() if key != "status"})
    },
    Fault.EMPTY_LOGS: {_RECEIPTS: _each(lambda receipt: {**receipt, "logs": []})},
    Fault.EMPTY_LOGS_AND_BLOOMS: {
        _RECEIPTS: _each(lambda receipt: {**receipt, "logs": [], "logsBloom": _EMPTY_BLOOM})
    },
    Fault.DROPPED_LAST_LOG: {_RECEIPTS: _on_logs(lambda logs: logs[:-1])},
    Fault.DOUBLED_LOG: {_RECEIPTS: _on_logs(lambda logs: [*logs, logs[-1]])},
    Fault.REMOVED_LOG: {_RECEIPTS: _on_logs(lambda logs: [*logs[:-1], {**logs[-1], "removed": True}])},
    Fault.CHANGED_RECEIVER: {
        _RECEIPTS: _on_logs(lambda logs: _renumbered([*logs[:-1], _other_receiver(logs[-1])]))
    },
    Fault.EMPTY_TRACES: {"trace_block": lambda _: []},
    Fault.SHORT_TRACES: {"trace_block": lambda traces: traces[:-1]},
    Fault.NULL_TRACES: {"trace_block": lambda _: None},
    Fault.NULL_BLOCK: {"eth_getBlockByNumber": lambda _: None},
    Fault.EMPTY_BLOCK: {"eth_getBlockByNumber": lambda block: block and block | {"transactions": []}},
    Fault.OTHER_CHAIN: {"eth_chainId": lambda _: "0xdead"},
}
