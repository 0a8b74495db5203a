"""How one node is asked for the inner calls of its blocks, and what is done where it cannot tell.

For: the EVM source, one `Tracing` per node.
Holds true: what a node *answers* must fit the block (`traces`), or it is an error that is asked again, for ever. What
a node *refuses* to tell (no such method, history gone, too large, too slow) is not an answer: with `auto` the block is
handed out without its inner moves and says so (`Block.untraced`), and the balances of issued addresses, which are
compared in any case, bring the value to light; where a way of tracing is configured by name, it is an error like any
other. A short trouble (a dropped connection, 429, 503) is never taken for a refusal.
Must not: spend more than `timeout_seconds` on one block, or hold up the receipts.

Why a refusal may pass and a lie may not, and why nobody has to wait for a node to get its tracing back: ADR 0013.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import msgspec

from tallystick.chains.evm.messages import BlockAnswer, FlatTrace, ReceiptAnswer, TracedTransaction, quantity
from tallystick.chains.evm.trace_modes import TraceMode
from tallystick.chains.evm.traces import with_flat, with_frames
from tallystick.chains.json_rpc import Answer, Call, RpcBeyond, RpcClient, RpcRefused
from tallystick.core.chain import Block
from tallystick.core.errors import SourceError, SourceIncomplete, SourceUnavailable

_Method: TypeAlias = Literal["trace_block", "debug", "none"]

# A transaction without more gas than this can do nothing but move its own value (Yellow Paper, G_transaction).
_PLAIN_GAS: Final = 21_000
_NO_BLOCK: Final = "0x" + "00" * 32
# Calls nest 1,024 deep (Yellow Paper, 9.4), each as an object in a list; whoever calls us may stand 1,000 deep already.
# Takes less than 2 MB of the C stack, of which a thread has 8.
_RECURSION_LIMIT: Final = 3_200
_MISFITS_MAX: Final = 5
_NO_TRACING: Final = "The node has no tracing."
_TRACES_OFF: Final = "Traces are switched off."

_FLAT: Final = msgspec.json.Decoder(Answer[list[FlatTrace] | None])
_ANY: Final = msgspec.json.Decoder(Answer[msgspec.Raw])


class _FramesDecoder:
    """Decodes nested frames as deep as the EVM calls, and no deeper.

    Python's own limit stands below that, and anybody can send a transaction that nests deeper: it must not stop a
    network. Some libraries of our dependencies raise that limit so far that a node could overrun the C stack. Both are
    met by one limit for this one call, within which nothing else of this thread runs.
    """

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(Answer[list[TracedTransaction] | None])

    def decode(self, body: bytes, /) -> Answer[list[TracedTransaction] | None]:
        """The answer. Raises what msgspec raises; RecursionError beyond what the EVM allows."""
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(_RECURSION_LIMIT)
        try:
            return self._decoder.decode(body)
        finally:
            sys.setrecursionlimit(before)


_FRAMES: Final = _FramesDecoder()


@dataclass(frozen=True, slots=True)
class Untraced:
    """That a node does not tell the inner calls of a block, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Flat:
    """The steps of a block as `trace_block` lists them."""

    steps: list[FlatTrace]


@dataclass(frozen=True, slots=True)
class Frames:
    """The calls of a block as the `callTracer` nests them."""

    transactions: list[TracedTransaction]


Traces: TypeAlias = Untraced | Flat | Frames | None
"""What came of asking; None: there was nothing to ask."""


class Tracing:
    """One node's way of telling inner calls. `method` is what is known of it, None before it was asked."""

    def __init__(self, rpc: RpcClient, mode: TraceMode, timeout_seconds: float) -> None:
        self._rpc = rpc
        self._mode = mode
        self._timeout_seconds = timeout_seconds
        self._proven = False
        self._misfits = 0
        self._reason = _TRACES_OFF if mode == "off" else _NO_TRACING
        self.method: _Method | None = None
        if mode in ("trace_block", "debug"):
            self.method = mode
        elif mode == "off":
            self.method = "none"

    def reconsider(self) -> None:
        """After trouble: another node may answer there now."""
        if self._mode == "auto" and self._misfits < _MISFITS_MAX:
            self.method = None

    @property
    def wanted(self) -> bool:
        """Whether there is any point in asking; if not, `unasked` completes a block."""
        return self.method != "none"

    def unasked(self, block: Block, answer: BlockAnswer) -> Block:
        """The block as it comes from a node that need not be asked. Without any call there was nothing to miss."""
        return block if _has_no_call(answer) else replace(block, untraced=self._reason)

    async def way(self) -> str:
        """How the node tells inner calls: trace_block, debug or none. Raises SourceError for trouble that may pass."""
        if self.method is None:
            self.method = await self._probe()
        return self.method

    async def ask(self, block: BlockAnswer) -> Traces:
        """The node's account of this block. Raises SourceError for trouble that may pass."""
        if _has_no_call(block):
            return None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if await self.way() == "none":
                    return Untraced(_NO_TRACING)
                return await self._traces(block)
        except TimeoutError:
            what = f"The node took longer than {self._timeout_seconds:g} seconds to trace a block."
            return self._refused(SourceUnavailable(what, object_id=self._rpc.name))
        except RpcBeyond as beyond:
            return self._refused(beyond)
        except RpcRefused as refused:
            if refused.limited:
                raise
            if refused.method_missing and self._mode == "auto":
                self.method = None  # it had the method when it was asked: found out again with the next block
            return self._refused(refused)

    def complete(
        self, block: Block, answer: BlockAnswer, receipts: Sequence[ReceiptAnswer | None], traces: Traces
    ) -> Block:
        """The block with its inner moves, or saying why it comes without. Raises SourceIncomplete."""
        if traces is None:
            return block
        if isinstance(traces, Untraced):
            return replace(block, untraced=traces.reason)
        try:
            if isinstance(traces, Frames):
                complete = with_frames(block, answer, receipts, traces.transactions)
            else:
                complete = with_flat(block, answer, receipts, traces.steps)
        except SourceIncomplete as problem:
            self._misfits += 1
            if self._mode != "auto" or self._proven or self._misfits < _MISFITS_MAX:
                raise
            # Not one account of this node ever was as Ethereum's are: its chain traces in a way of its own.
            self.method = "none"
            self._reason = f"The node traces in a way that is not understood: {problem.what}"
            return replace(block, untraced=self._reason)
        self._proven = True
        return complete

    def _refused(self, error: SourceError) -> Untraced:
        """What a refusal means. Raises it where tracing is demanded."""
        if self._mode != "auto":
            raise error
        return Untraced(error.what)

    async def _traces(self, block: BlockAnswer) -> Traces:
        if self.method == "trace_block":
            steps = await self._rpc.call(Call("trace_block", [block.number]), _FLAT)
            if steps is not None:
                return Flat(steps)
        else:
            call = Call("debug_traceBlockByHash", [block.hash, self._tracer()])
            transactions = await self._rpc.call(call, _FRAMES)
            if transactions is not None:
                return Frames(transactions)
        raise SourceIncomplete(
            "The node has no traces of a block that it has.",
            object_id=self._rpc.name,
            remedy="It may be new to the node, or have left its best chain. It is asked again.",
        )

    def _tracer(self) -> dict[str, Any]:
        # geth's limit is for one transaction; ours is for the block.
        return {"tracer": "callTracer", "timeout": f"{max(1, int(self._timeout_seconds))}s"}

    async def _probe(self) -> _Method:
        """Which way this node has. Cheap questions: the first block, and a block that does not exist."""
        try:
            await self._rpc.call(Call("trace_block", ["0x0"]), _ANY)
        except (RpcRefused, RpcBeyond) as refused:
            if isinstance(refused, RpcRefused) and refused.limited:
                raise
        else:
            return "trace_block"
        try:
            await self._rpc.call(Call("debug_traceBlockByHash", [_NO_BLOCK, self._tracer()]), _ANY)
        except RpcBeyond:
            return "none"
        except RpcRefused as refused:
            if refused.limited:
                raise
            return "none" if refused.method_missing else "debug"
        return "debug"


def _has_no_call(block: BlockAnswer) -> bool:
    return all(_is_plain(transaction.gas) for transaction in block.transactions)


def _is_plain(gas: str | None) -> bool:
    return gas is not None and quantity(gas) <= _PLAIN_GAS
