"""The EVM family's source of facts: several nodes of one network behind the `Source` protocol.

For: the follower of one EVM network, and `doctor`.
Holds true: a node is used only after its chain id and genesis block were compared with the configuration and
with the other nodes, again after every trouble; header and receipts of a block come from one node; every
block is checked for completeness (`blocks`) before it is handed out. Nodes are tried in the configured order;
one that fails is put aside for a while, but is tried again before giving up.
Must not: treat a refusal or an empty answer as an empty block, or wait longer than the limits of its calls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from tallystick.chains.evm.accounts import read_accounts
from tallystick.chains.evm.blocks import checked_block, header_of
from tallystick.chains.evm.messages import Answer, BlockAnswer, HeaderAnswer, ReceiptAnswer, quantity
from tallystick.chains.evm.pending import read_mempool
from tallystick.chains.evm.rpc import (
    Batch,
    Call,
    RpcClient,
    RpcLimits,
    RpcRefused,
    new_session,
    node_name,
    value_in,
)
from tallystick.chains.evm.token_info import TokenInfo, token_calls, token_info_in
from tallystick.chains.evm.trace_modes import TraceMode
from tallystick.chains.evm.tracing import Tracing
from tallystick.chains.source import ChainIdentity, NodeState
from tallystick.core.balance import AccountState
from tallystick.core.chain import Block, BlockHeader, BlockRef, Head, MempoolSnapshot
from tallystick.core.errors import (
    BlockNotFound,
    ConfigurationError,
    SourceError,
    SourceIncomplete,
    SourcesDisagree,
    SourceUnavailable,
    WrongChain,
)

ResultT = TypeVar("ResultT")
TracesT = TypeVar("TracesT")
StructT = TypeVar("StructT", bound=msgspec.Struct)

_ORIGINS_REMEMBERED_MAX: Final = 1024
_NOT_ASKED: Final = "It has not been asked yet."
# EIP-1474.
_INVALID_PARAMS: Final = -32602
_RESOURCE_NOT_FOUND: Final = -32001

_HEADER: Final = msgspec.json.Decoder(Answer[HeaderAnswer | None])
_BLOCK: Final = msgspec.json.Decoder(Answer[BlockAnswer | None])
_RECEIPTS: Final = msgspec.json.Decoder(Answer[list[ReceiptAnswer | None] | None])
_RECEIPT_BATCH: Final[msgspec.json.Decoder[Batch[ReceiptAnswer | None]]] = msgspec.json.Decoder(
    list[Answer[ReceiptAnswer | None]] | Answer[ReceiptAnswer | None]
)
_MIXED_BATCH: Final[msgspec.json.Decoder[Batch[msgspec.Raw]]] = msgspec.json.Decoder(
    list[Answer[msgspec.Raw]] | Answer[msgspec.Raw]
)


@dataclass(frozen=True, slots=True)
class EvmOptions:
    """One EVM network. Times are seconds.

    `genesis_hash` pins the first block if it is known beforehand. `traces` says how inner calls are asked for
    (`tracing`), and `trace_timeout_seconds` how long one block may take. `finality_tags` off: the chain has no
    usable `safe` and `finalized`. `blooms` off: its nodes answer with empty log blooms, so that logs cannot
    be checked against them.
    """

    network: str
    chain_id: int
    rpc_urls: tuple[str, ...]
    genesis_hash: str | None = None
    finality_tags: bool = True
    blooms: bool = True
    traces: TraceMode = "auto"
    trace_timeout_seconds: float = 20.0
    aside_seconds: float = 10.0
    agreement_timeout_seconds: float = 3.0
    limits: RpcLimits = field(default_factory=RpcLimits)


@dataclass(slots=True)
class _Node:
    """A node and its health as last seen.

    `verified`: it was asked for its chain since its last trouble. `wrong_chain`: its last answer to that was wrong.
    """

    rpc: RpcClient
    tracing: Tracing
    verified: bool = False
    wrong_chain: bool = False
    aside_until: float = 0.0
    height: int | None = None
    problem: str | None = None
    receipts_by_block: bool = True
    finality_tags: bool = True


class EvmSource:
    """Facts of one EVM network. Safe to call concurrently within one event loop.

    Raises ConfigurationError if no usable URL is configured. Close it with `close`.
    """

    def __init__(self, options: EvmOptions) -> None:
        if not options.rpc_urls:
            raise ConfigurationError(
                "A network needs at least one node.", object_id=options.network, remedy="Add its rpc_urls."
            )
        self._options = options
        self._genesis = options.genesis_hash.lower() if options.genesis_hash else None
        self._session: aiohttp.ClientSession | None = None
        self._nodes: tuple[_Node, ...] = ()
        self._origins: dict[str, _Node] = {}
        self._names = tuple(node_name(url) for url in options.rpc_urls)

    # -- the Source protocol

    async def identity(self) -> ChainIdentity:
        """Chain id and genesis hash, in which all nodes that answer must agree.

        Raises WrongChain if one does not, naming it and both values; else a SourceError if none answers.
        """
        nodes = self._open()
        outcomes = await asyncio.gather(*(self._verify(node) for node in nodes), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, SourceError):
                raise outcome
        problems = [outcome for outcome in outcomes if isinstance(outcome, SourceError)]
        for problem in problems:
            if isinstance(problem, WrongChain):
                raise problem
        if len(problems) == len(nodes) or self._genesis is None:
            raise problems[0]
        return ChainIdentity(str(self._options.chain_id), self._genesis)

    async def head(self) -> Head:
        """The best block of the first usable node, with its finality where it has any."""
        return await self._with_a_node(self._head_of)

    async def header_at(self, height: int) -> BlockHeader:
        """The best chain's header at `height`. Raises BlockNotFound above the node's head."""
        call = Call("eth_getBlockByNumber", [hex(height), False])

        async def ask(node: _Node) -> BlockHeader:
            answer = await _found(node, call, _HEADER, height)
            header = header_of(answer)
            self._expect_height(header, height, node)
            self._remember_origin(header.hash, node)
            return header

        return await self._with_a_node(ask)

    async def block_at(self, height: int) -> Block:
        """The best chain's complete block at `height`; receipts and traces come side by side, from the same node.

        Raises BlockNotFound, SourceIncomplete or SourceUnavailable; all mean: ask again later.
        """
        call = Call("eth_getBlockByNumber", [hex(height), True])

        async def ask(node: _Node) -> Block:
            answer = await _found(node, call, _BLOCK, height)
            if node.tracing.wanted:
                receipts, traces = await _both(self._receipts(node, answer), node.tracing.ask(answer))
                block = checked_block(answer, receipts, blooms=self._options.blooms)
                block = node.tracing.complete(block, answer, receipts, traces)
            else:
                receipts = await self._receipts(node, answer)
                block = checked_block(answer, receipts, blooms=self._options.blooms)
                block = node.tracing.unasked(block, answer)
            self._expect_height(block.header, height, node)
            self._remember_origin(block.header.hash, node)
            return block

        return await self._with_a_node(ask)

    async def confirm_agreement(self, header: BlockHeader) -> None:
        """Ask the other nodes for their block at this height. Raises SourcesDisagree, or WrongChain.

        A node that is behind or silent does not disagree. With one node there is nobody to ask.
        """
        origin = self._origins.get(header.hash)
        others = [node for node in self._open() if node is not origin]
        if len(others) == len(self._nodes):  # unknown origin: the node in use is the first usable one
            others.remove(self._in_order()[0])
        answers = await asyncio.gather(*(self._hash_at(node, header.height) for node in others))
        for node, answer in zip(others, answers, strict=True):
            if answer is not None and answer != header.hash:
                raise SourcesDisagree(
                    f"Node {node.rpc.name} has block {answer} where another node has {header.hash}.",
                    object_id=f"{self._options.network} block {header.height}",
                    remedy="Crediting waits until they agree; if it lasts, find out which node is wrong.",
                )

    async def mempool(self, asked: Sequence[str] = ()) -> MempoolSnapshot:
        """What the node in use shows outside any block. Raises SourceError; no node is put aside for it."""
        node = self._in_order()[0]
        if not node.verified:
            raise SourceUnavailable(
                "No node is in use whose mempool could be shown.", object_id=node.rpc.name
            )
        return await read_mempool(node.rpc, asked)

    async def accounts_at(self, block: BlockRef, addresses: Sequence[str]) -> list[AccountState]:
        """Balances (wei) and nonces right after `block`, in the order of `addresses`. Raises SourceError."""

        async def ask(node: _Node) -> list[AccountState]:
            return await read_accounts(node.rpc, block, addresses)

        return await self._with_a_node(ask) if addresses else []

    def nodes(self) -> tuple[NodeState, ...]:
        """The nodes as last seen, in configured order."""
        if not self._nodes:
            return tuple(NodeState(name, False, None, _NOT_ASKED) for name in self._names)
        return tuple(
            NodeState(
                node.rpc.name,
                node.verified,
                node.height,
                node.problem if node.verified else node.problem or _NOT_ASKED,
            )
            for node in self._nodes
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    # -- for `doctor`, and when a token is enabled

    async def tracing(self) -> dict[str, str]:
        """How each node that can be reached tells what contract calls move: trace_block, debug, or none. By node."""
        found: dict[str, str] = {}
        for node in self._open():
            try:
                found[node.rpc.name] = await node.tracing.way()
            except SourceError as error:
                self._put_aside(node, error)
        return found

    async def token_info(self, contract: str) -> TokenInfo:
        """Ask a contract (lower-case address) for decimals and symbol, now. Raises SourceError."""

        async def ask(node: _Node) -> TokenInfo:
            answers = await node.rpc.batch(token_calls(contract), _MIXED_BATCH)
            return token_info_in(answers)

        return await self._with_a_node(ask)

    # -- nodes

    def _open(self) -> tuple[_Node, ...]:
        """The nodes. The session is made on first use, because it belongs to the running event loop."""
        if self._session is None:
            limits = self._options.limits
            self._session = new_session(limits)
            clients = [RpcClient(url, self._session, limits) for url in self._options.rpc_urls]
            timeout = min(self._options.trace_timeout_seconds, 0.9 * limits.total_timeout_seconds)
            self._nodes = tuple(
                _Node(client, Tracing(client, self._options.traces, timeout)) for client in clients
            )
        return self._nodes

    def _in_order(self) -> list[_Node]:
        """All nodes: the usable ones in configured order, then those put aside, the next one due first.

        A node on a wrong chain comes before all others: its refusal must not be covered up by them.
        """
        now = time.monotonic()
        return sorted(self._open(), key=lambda node: (not node.wrong_chain, max(0.0, node.aside_until - now)))

    async def _with_a_node(self, ask: Callable[[_Node], Awaitable[ResultT]]) -> ResultT:
        """The first good answer. If none is good, the error of the node that was asked first."""
        first_problem: SourceError | None = None
        for node in self._in_order():
            try:
                if not node.verified:
                    await self._verify(node)
                result = await ask(node)
            except WrongChain:
                raise
            except BlockNotFound as error:  # it lags, which is no reason to leave it aside
                first_problem = first_problem or error
            except SourceError as error:
                self._put_aside(node, error)
                first_problem = first_problem or error
            else:
                node.problem = None
                return result
        raise first_problem or SourceUnavailable("There is no node to ask.", object_id=self._options.network)

    def _put_aside(self, node: _Node, error: SourceError) -> None:
        """Prefer other nodes for a while, no less than the node asks for; then check its chain anew."""
        asked = error.retry_after_seconds if isinstance(error, SourceUnavailable) else None
        node.aside_until = time.monotonic() + max(self._options.aside_seconds, asked or 0)
        node.verified = False
        node.problem = error.what
        node.tracing.reconsider()

    async def _verify(self, node: _Node) -> None:
        """Compare the node's chain id and genesis with ours. Raises WrongChain or another SourceError."""
        try:
            chain_id, genesis = await node.rpc.batch(
                [Call("eth_chainId"), Call("eth_getBlockByNumber", ["0x0", False])], _MIXED_BATCH
            )
            self._expect_chain_id(node, value_in(chain_id, str))
            self._expect_genesis(node, header_of(value_in(genesis, HeaderAnswer)).hash)
        except SourceError as error:
            if not isinstance(error, WrongChain):
                self._put_aside(node, error)
            raise
        node.verified, node.wrong_chain, node.problem = True, False, None

    def _expect_chain_id(self, node: _Node, text: str) -> None:
        found, wanted = quantity(text), self._options.chain_id
        if found != wanted:
            raise self._wrong_chain(node, f"serves chain id {found}, but {wanted} is configured")

    def _expect_genesis(self, node: _Node, found: str) -> None:
        if self._genesis is None:
            self._genesis = found
        elif found != self._genesis:
            raise self._wrong_chain(node, f"has the first block {found}, but {self._genesis} is expected")

    def _wrong_chain(self, node: _Node, what: str) -> WrongChain:
        """Note it on the node, which is asked for its chain again before anything else is taken from it."""
        problem = f"Node {node.rpc.name} {what}."
        node.verified, node.wrong_chain, node.problem = False, True, problem
        return WrongChain(
            problem,
            object_id=self._options.network,
            remedy="Correct rpc_urls or chain_id; nothing is credited until then.",
        )

    def _expect_height(self, header: BlockHeader, height: int, node: _Node) -> None:
        if header.height != height:
            raise SourceIncomplete(
                f"The node sent block {header.height} when asked for {height}.", object_id=node.rpc.name
            )

    def _remember_origin(self, block_hash: str, node: _Node) -> None:
        """Which node named a block, so that `confirm_agreement` asks the others. Bounded."""
        self._origins[block_hash] = node
        if len(self._origins) > _ORIGINS_REMEMBERED_MAX:
            del self._origins[next(iter(self._origins))]

    # -- questions

    async def _head_of(self, node: _Node) -> Head:
        """Newest block, finality and (again) chain id in one request."""
        tags = ["latest"]
        if self._options.finality_tags and node.finality_tags:
            tags += ["safe", "finalized"]
        calls = [Call("eth_chainId")] + [Call("eth_getBlockByNumber", [tag, False]) for tag in tags]
        chain_id, latest, *marks = await node.rpc.batch(calls, _MIXED_BATCH)
        self._expect_chain_id(node, value_in(chain_id, str))
        header = header_of(value_in(latest, HeaderAnswer))
        heights = [_height_or_none(mark) for mark in marks] or [None, None]
        if any(isinstance(mark, RpcRefused) and mark.rpc_code == _INVALID_PARAMS for mark in marks):
            node.finality_tags = False
        node.height = header.height
        self._remember_origin(header.hash, node)
        return Head(header, *heights)

    async def _receipts(self, node: _Node, block: BlockAnswer) -> list[ReceiptAnswer | None]:
        """All receipts of the block, by its hash; one by one (in batches) where a node lacks that method."""
        if not block.transactions:
            return []
        if node.receipts_by_block:
            try:
                receipts = await node.rpc.call(Call("eth_getBlockReceipts", [block.hash]), _RECEIPTS)
            except RpcRefused as refused:
                if refused.limited:
                    raise
                # Any other refusal: try it one by one. Only a clear "no such method" is remembered.
                node.receipts_by_block = not refused.method_missing
            else:
                if receipts is None:
                    raise SourceIncomplete(
                        f"The node has no receipts for block {block.hash}.",
                        object_id=node.rpc.name,
                        remedy="It may be new to the node, or have left its best chain. It is asked again.",
                    )
                return receipts
        calls = [Call("eth_getTransactionReceipt", [transaction.hash]) for transaction in block.transactions]
        answers = await node.rpc.batch(calls, _RECEIPT_BATCH)
        found: list[ReceiptAnswer | None] = []
        for answer in answers:
            if isinstance(answer, RpcRefused):
                raise answer
            found.append(answer)
        return found

    async def _hash_at(self, node: _Node, height: int) -> str | None:
        """The node's block at `height`, or None if it is silent or behind. Raises WrongChain."""
        call = Call("eth_getBlockByNumber", [hex(height), False])
        try:
            async with asyncio.timeout(self._options.agreement_timeout_seconds):
                if not node.verified:
                    await self._verify(node)
                answer = await node.rpc.call(call, _HEADER)
            return None if answer is None else header_of(answer).hash
        except WrongChain:
            raise
        except SourceError as error:
            self._put_aside(node, error)
        except TimeoutError:
            self._put_aside(node, SourceUnavailable("The node did not answer in time."))
        return None


async def _both(
    receipts: Awaitable[ResultT], traces: Coroutine[Any, Any, TracesT]
) -> tuple[ResultT, TracesT]:
    """Both answers, asked for at once; the traces are called off if the receipts do not come."""
    asked = asyncio.create_task(traces)
    try:
        return await receipts, await asked
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def _found(
    node: _Node, call: Call, decoder: msgspec.json.Decoder[Answer[StructT | None]], height: int
) -> StructT:
    """The block that the call asks for. Nodes say in two ways that they do not have it: null, or an error."""
    try:
        answer = await node.rpc.call(call, decoder)
    except RpcRefused as refused:
        if refused.rpc_code != _RESOURCE_NOT_FOUND:
            raise
        answer = None
    if answer is None:
        raise BlockNotFound(
            f"The node has no block {height}.",
            object_id=node.rpc.name,
            remedy="It is behind, or the chain is shorter.",
        )
    return answer


def _height_or_none(answer: msgspec.Raw | RpcRefused) -> int | None:
    """How far a finality tag has come. A node that refuses the tag or has no such block yet says nothing."""
    if isinstance(answer, RpcRefused):
        if answer.limited:
            raise answer
        return None
    if bytes(answer).strip() == b"null":
        return None
    return header_of(value_in(answer, HeaderAnswer)).height
