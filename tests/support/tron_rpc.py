"""anvil behind a proxy that answers as a TRON node's JSON-RPC does: what stands in for a TRON node here.

For: tests of the JSON-RPC way of reading TRON, and of whole payments with it.
Holds true: it serves `/jsonrpc` only, has the tags `latest`, `earliest` and `finalized`, blooms of zeros, no nonces, no
receipts by block unless told so, balances of the newest block only, no tracing, no pending block. `finalized` is 19
blocks behind, or where the test puts it. Must not: change hashes, so that what the test sends is found again.
"""

from __future__ import annotations

import json
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

SOLIDIFIED_BEHIND: Final = 19
_METHODS: Final = frozenset(
    {"eth_chainId", "eth_getBlockByNumber", "eth_getBlockByHash", "eth_getTransactionReceipt", "eth_call",
     "eth_getTransactionByHash", "eth_blockNumber", "eth_getBalance", "net_version"}
)  # fmt: skip
_ZERO_BLOOM: Final = "0x" + "00" * 256


class TronRpc:
    """Serves an anvil under `url`, as TRON would. Use as an asynchronous context manager."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""
        self.finalized: int | None = None
        self.receipts_by_block = False
        self.reachable = True
        self.keys: set[str | None] = set()
        self.methods: set[str] = set()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/jsonrpc", self._serve)
        self._session = aiohttp.ClientSession()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if not self.reachable:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        self.keys.add(request.headers.get("TRON-PRO-API-KEY"))
        asked = json.loads(await request.read())
        if isinstance(asked, dict):
            return web.json_response(await self._answer(asked))
        return web.json_response([await self._answer(call) for call in asked])

    async def _answer(self, call: dict[str, Any]) -> dict[str, Any]:
        method, params = call["method"], call.get("params", [])
        self.methods.add(method)
        allowed = method in _METHODS or (method == "eth_getBlockReceipts" and self.receipts_by_block)
        if not allowed:
            return _error(call, -32601, f"the method {method} does not exist/is not available")
        if method == "eth_getBlockByNumber":
            tag = params[0]
            if tag in ("safe", "pending"):
                return _error(call, -32602, f"TAG {tag} not supported")
            if tag == "finalized":
                params = [hex(await self._solidified()), params[1]]
        elif method == "eth_getBalance" and params[1] != "latest":
            return _error(call, -32602, "QUANTITY not supported, just support TAG as latest")
        answer = await self._ask(method, params)
        if "error" in answer:  # anvil names an unknown block an error; TRON answers null
            return {"jsonrpc": "2.0", "id": call["id"], "result": None}
        return {"jsonrpc": "2.0", "id": call["id"], "result": _as_tron(method, answer["result"])}

    async def _solidified(self) -> int:
        if self.finalized is not None:
            return self.finalized
        newest = int((await self._ask("eth_blockNumber", []))["result"], 16)
        return max(0, newest - SOLIDIFIED_BEHIND)

    async def _ask(self, method: str, params: list[Any]) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        async with self._session.post(self.upstream, json=body) as answer:
            told: dict[str, Any] = await answer.json()
            return told


def _as_tron(method: str, result: Any) -> Any:
    """The answer as TRON words it."""
    if result is None:
        return None
    match method:
        case "eth_getBlockByNumber" | "eth_getBlockByHash":
            empty = not result["transactions"]
            transactions = [
                one if isinstance(one, str) else _transaction(one) for one in result["transactions"]
            ]
            return result | {
                "transactions": transactions,
                "logsBloom": _ZERO_BLOOM,
                "transactionsRoot": "0x" + "00" * 32 if empty else "0x" + "5a" * 32,
                "receiptsRoot": "0x" + "00" * 32,
                "stateRoot": "0x",
                "nonce": "0x0000000000000000",
            }
        case "eth_getTransactionByHash":
            return _transaction(result)
        case "eth_getTransactionReceipt":
            return _receipt(result)
        case "eth_getBlockReceipts":
            return [_receipt(one) for one in result]
        case _:
            return result


def _transaction(transaction: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in transaction.items() if key not in ("type", "chainId", "accessList")}
    return kept | {"nonce": "0x0000000000000000"}


def _receipt(receipt: dict[str, Any]) -> dict[str, Any]:
    return receipt | {"logsBloom": _ZERO_BLOOM, "type": "0x0"}


def _error(call: dict[str, Any], code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call["id"], "error": {"code": code, "message": message}}
