"""A node in memory, of which one answer goes wrong.

Holds true: nothing here is shared with the code that reads the answers; without a mutation every question is answered
as a node with tracing answers it. The block that is asked for holds coin, tokens, a failed transaction, a transaction
of a type of its own, and a contract that pays on inside calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tallystick.chains.evm.source import EvmOptions, EvmSource
from tallystick.chains.evm.trace_modes import TraceMode
from tallystick.chains.json_rpc import RpcLimits
from tests.fuzz.mutations import Mutated, mutate
from tests.support.rpc_stub import TOKENS, StubChain, StubPayment, flat_traces, make_block, stub_address

SHOP = stub_address("shop")
OTHER = stub_address("other")
SPLITTER = stub_address("splitter")
HEIGHT = 3
MUTABLE = ("eth_getBlockByNumber", "eth_getBlockReceipts", "trace_block", "debug_traceBlockByHash")


def _chain() -> StubChain:
    chain = StubChain(traced=True)
    chain.extend()
    chain.extend([StubPayment(OTHER, 1, nonce=1)])
    payments = [
        StubPayment(SHOP, 10**18, nonce=2),
        StubPayment(SHOP, 5 * 10**6, TOKENS[0], nonce=3),
        StubPayment(SPLITTER, 3 * 10**18, nonce=4),
        StubPayment(OTHER, 7, nonce=5, ok=False),
        StubPayment(SHOP, 9 * 10**6, TOKENS[1], stub_address("second"), nonce=1),
        StubPayment(OTHER, 12, None, stub_address("third"), nonce=8),
    ]
    block = make_block(HEIGHT, chain.blocks[-1].hash, payments)
    block.full["transactions"][2]["input"] = "0xdeadbeef"
    block.full["transactions"][5]["type"] = "0x7e"
    block.encode()
    chain.add(block)
    block.traces_bytes = json.dumps(_flat(block)).encode()
    chain.safe_height, chain.finalized_height = 2, 1
    return chain


def _flat(block: Any) -> list[dict[str, Any]]:
    """The stub's traces, with two payments inside the splitter's call: one of them in a call that failed."""
    steps = [one for one in flat_traces(block) if one["transactionPosition"] != 2 or not one["traceAddress"]]
    at = next(
        n for n, step in enumerate(steps) if step["transactionPosition"] == 2 and not step["traceAddress"]
    )
    root = steps[at]
    root["subtraces"] = 3
    inner = []
    for number, (to, value, more) in enumerate(
        ((SHOP, 10**18, {}), (SHOP, 10**17, {"error": "Reverted"}), (OTHER, 2 * 10**18, {}))
    ):
        action = {**root["action"], "from": SPLITTER, "to": to, "value": hex(value)}
        inner.append({**root, "action": action, "subtraces": 0, "traceAddress": [number], **more})
    return [*steps[: at + 1], *inner, *steps[at + 1 :]]


def _frames(block: Any) -> list[dict[str, Any]]:
    """The same as `debug_traceBlockByHash` nests it."""
    found: list[dict[str, Any]] = []
    for step in _flat(block):
        frame = {"type": "CALL", **{key: step["action"][key] for key in ("from", "to", "value")}}
        if "error" in step:
            frame["error"] = step["error"]
        if not step["traceAddress"]:
            found.append({"txHash": step["transactionHash"], "result": frame})
        else:
            if step["action"]["callType"] == "delegatecall":
                frame["type"] = "DELEGATECALL"
            found[-1]["result"].setdefault("calls", []).append(frame)
    return found


CHAIN = _chain()
BLOCK = CHAIN.blocks[HEIGHT]
PENDING = make_block(
    HEIGHT + 1, BLOCK.hash, [StubPayment(SHOP, 5, nonce=9), StubPayment(SHOP, 6, TOKENS[0], nonce=10)]
)
_SYMBOL = f"0x{32:064x}{4:064x}{b'USDC'.hex():0<64}"


def answer(method: str, params: list[Any]) -> Any:
    """The value of an honest answer. Raises LookupError for a method that is not there."""
    match method, params:
        case "eth_getBlockByNumber", ["pending", _]:
            return PENDING.full
        case "eth_getTransactionByHash", _:
            return BLOCK.full["transactions"][0]
        case "debug_traceBlockByHash", [block_hash, _]:
            return _frames(BLOCK) if block_hash == BLOCK.hash else []
        case (("eth_getBalance" | "eth_getTransactionCount"), _):
            return hex(12)
        case "eth_getCode", _:
            return "0x6001"
        case "eth_call", [{"data": "0x313ce567"}, _]:
            return f"0x{6:064x}"
        case "eth_call", _:
            return _SYMBOL
        case _:
            return json.loads(CHAIN.answer(method, params))


class Node:
    """Answers a client's requests; the answer number `wrong_answer` is mutated by `seed` (None: none is)."""

    def __init__(
        self, wrong_answer: int | None = None, seed: int = 0, only: Callable[[str], bool] | None = None
    ) -> None:
        self._wrong_answer = wrong_answer
        self._seed = seed
        self._only = only
        self._asked = 0
        self.mutated: Mutated | None = None
        self.method = ""

    async def post(self, body: bytes) -> bytes:
        """As `RpcClient.post`."""
        question = json.loads(body)
        questions = question if isinstance(question, list) else [question]
        answers = [self._one(one) for one in questions]
        document: Any = answers if isinstance(question, list) else answers[0]
        method = questions[-1]["method"]
        if self._only is not None and not self._only(method):
            return json.dumps(document).encode()
        self._asked += 1
        if self._wrong_answer is not None and self._asked == self._wrong_answer + 1:
            self.method = method
            self.mutated = mutate(document, self._seed)
            return self.mutated.text
        return json.dumps(document).encode()

    def _one(self, question: dict[str, Any]) -> dict[str, Any]:
        head = {"jsonrpc": "2.0", "id": question["id"]}
        try:
            return {**head, "result": answer(question["method"], question["params"])}
        except LookupError:
            return {**head, "error": {"code": -32601, "message": "the method is not available"}}
        except ValueError:  # a number that we named wrongly before, and are asked about now
            return {**head, "error": {"code": -32602, "message": "invalid argument"}}


def source_of(*nodes: Node, traces: TraceMode = "auto") -> EvmSource:
    """A source that asks these nodes, without a wire between. Needs a running loop."""
    urls = tuple(f"http://user:secretword@127.0.0.1:{number}/" for number in range(1, len(nodes) + 1))
    limits = RpcLimits(attempts_max=1)
    source = EvmSource(EvmOptions("net", CHAIN.chain_id, urls, traces=traces, limits=limits))
    for opened, node in zip(source._pool.nodes, nodes, strict=True):
        opened.rpc.post = node.post  # type: ignore[method-assign]
    return source
