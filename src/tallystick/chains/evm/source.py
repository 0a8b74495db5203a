"""The EVM family's source of facts: several nodes of one network behind the `Source` protocol.

For: the follower of one EVM network, and `doctor`.
Holds true: a node is used only after its chain id and genesis block were compared with the configuration and
with the other nodes, again after every trouble, and one that fails is put aside for a while (`failover`); header and
receipts of a block come from one node; every block is checked for completeness (`blocks`) before it is handed out.
Must not: treat a refusal or an empty answer as an empty block, or wait longer than the limits of its calls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from aiolimiter import AsyncLimiter

from tallystick.chains.evm.accounts import read_accounts
from tallystick.chains.evm.blocks import checked_block, header_of
from tallystick.chains.evm.messages import BlockAnswer, HeaderAnswer, ReceiptAnswer, quantity
from tallystick.chains.evm.pending import read_mempool
from tallystick.chains.evm.token_info import TokenInfo, token_calls, token_info_in
from tallystick.chains.evm.trace_modes import TraceMode
from tallystick.chains.evm.tracing import Tracing
from tallystick.chains.failover import Expected, Node, NodePool, Patience, not_found
from tallystick.chains.json_rpc import (
    Answer,
    Batch,
    Call,
    RpcClient,
    RpcLimits,
    RpcRefused,
    new_session,
    value_in,
)
from tallystick.chains.node_urls import node_name
from tallystick.chains.source import ChainIdentity, NodeState
from tallystick.core.balance import AccountState
from tallystick.core.chain import Block, BlockHeader, BlockRef, Channel, Head, MempoolSnapshot
from tallystick.core.errors import SourceError, SourceIncomplete

ResultT = TypeVar("ResultT")
TracesT = TypeVar("TracesT")
StructT = TypeVar("StructT", bound=msgspec.Struct)

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
    usable `safe` and `finalized`; `tags` are those that it has. `blooms` off: its nodes answer with empty log blooms,
    so that logs cannot be checked against them. `native_values` off: what its nodes call a transaction's value need
    not be native coin (TRON), so no native coin is told at all. `key_header` is the header in which its nodes expect
    an access key, given as a name without a password in the URL. `requests_per_second` is a limit for each node.
    """

    network: str
    chain_id: int
    rpc_urls: tuple[str, ...]
    genesis_hash: str | None = None
    finality_tags: bool = True
    tags: tuple[str, ...] = ("safe", "finalized")
    blooms: bool = True
    native_values: bool = True
    key_header: str | None = None
    requests_per_second: float | None = None
    traces: TraceMode = "auto"
    trace_timeout_seconds: float = 20.0
    aside_seconds: float = 10.0
    agreement_timeout_seconds: float = 3.0
    limits: RpcLimits = field(default_factory=RpcLimits)


@dataclass(slots=True, kw_only=True, eq=False)
class _Node(Node):
    """A node, its health as last seen, and what it is known not to have."""

    rpc: RpcClient
    tracing: Tracing
    receipts_by_block: bool = True
    finality_tags: bool = True


class EvmSource:
    """Facts of one EVM network. Safe to call concurrently within one event loop.

    Raises ConfigurationError if no usable URL is configured. Close it with `close`.
    """

    def __init__(self, options: EvmOptions) -> None:
        self._options = options
        self._session: aiohttp.ClientSession | None = None
        genesis = options.genesis_hash.lower() if options.genesis_hash else None
        self._pool = NodePool[_Node](
            Expected(options.network, str(options.chain_id), genesis),
            [node_name(url) for url in options.rpc_urls],
            self._open,
            read_identity=self._read_identity,
            hash_at=self._hash_at,
            now=time.monotonic,
            patience=Patience(options.aside_seconds, options.agreement_timeout_seconds),
            on_trouble=lambda node: node.tracing.reconsider(),
        )

    def _open(self) -> list[_Node]:
        limits = self._options.limits
        self._session = new_session(limits)
        timeout = min(self._options.trace_timeout_seconds, 0.9 * limits.total_timeout_seconds)
        rate = self._options.requests_per_second
        clients = [
            RpcClient(
                url,
                self._session,
                limits,
                key_header=self._options.key_header,
                pace=None if rate is None else AsyncLimiter(1, 1 / rate),
            )
            for url in self._options.rpc_urls
        ]
        return [
            _Node(client.name, rpc=client, tracing=Tracing(client, self._options.traces, timeout))
            for client in clients
        ]

    # -- the Source protocol

    async def identity(self) -> ChainIdentity:
        """Chain id and genesis hash, in which all nodes that answer must agree.

        Raises WrongChain if one does not, naming it and both values; else a SourceError if none answers.
        """
        return await self._pool.identity()

    async def head(self) -> Head:
        """The best block of the first usable node, with its finality where it has any."""
        return await self._pool.ask(self._head_of)

    async def header_at(self, height: int) -> BlockHeader:
        """The best chain's header at `height`. Raises BlockNotFound above the node's head."""
        call = Call("eth_getBlockByNumber", [hex(height), False])

        async def ask(node: _Node) -> BlockHeader:
            answer = await _found(node, call, _HEADER, height)
            return self._pool.note_block(node, header_of(answer), height)

        return await self._pool.ask(ask)

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
            self._pool.note_block(node, block.header, height)
            return block if self._options.native_values else _tokens_only(block)

        return await self._pool.ask(ask)

    async def confirm_agreement(self, header: BlockHeader, below: Sequence[BlockRef] = ()) -> None:
        """See Source.confirm_agreement. Raises SourcesDisagree, or WrongChain."""
        await self._pool.confirm_agreement(header, below)

    async def mempool(self, asked: Sequence[str] = ()) -> MempoolSnapshot:
        """What the node in use shows outside any block. Raises SourceError; no node is put aside for it."""
        return await read_mempool(self._pool.in_use().rpc, asked)

    async def accounts_at(self, block: BlockRef, addresses: Sequence[str]) -> list[AccountState]:
        """Balances (wei) and nonces right after `block`, in the order of `addresses`. Raises SourceError."""

        async def ask(node: _Node) -> list[AccountState]:
            return await read_accounts(node.rpc, block, addresses)

        return await self._pool.ask(ask) if addresses else []

    def nodes(self) -> tuple[NodeState, ...]:
        """The nodes as last seen, in configured order."""
        return self._pool.states()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    # -- for `doctor`, and when a token is enabled

    async def tracing(self) -> dict[str, str]:
        """How each node that can be reached tells what contract calls move: trace_block, debug, or none. By node."""
        found: dict[str, str] = {}
        for node in self._pool.nodes:
            try:
                found[node.name] = await node.tracing.way()
            except SourceError as error:
                self._pool.put_aside(node, error)
        return found

    async def token_info(self, contract: str) -> TokenInfo:
        """Ask a contract (lower-case address) for decimals and symbol, now. Raises SourceError."""

        async def ask(node: _Node) -> TokenInfo:
            answers = await node.rpc.batch(token_calls(contract), _MIXED_BATCH)
            return token_info_in(answers)

        return await self._pool.ask(ask)

    # -- questions

    async def _head_of(self, node: _Node) -> Head:
        """Newest block, finality and (again) chain id in one request."""
        tags = ["latest"]
        if self._options.finality_tags and node.finality_tags:
            tags += self._options.tags
        calls = [Call("eth_chainId")] + [Call("eth_getBlockByNumber", [tag, False]) for tag in tags]
        chain_id, latest, *marks = await node.rpc.batch(calls, _MIXED_BATCH)
        self._pool.expect_chain(node, str(quantity(value_in(chain_id, str))))
        header = self._pool.note_head(node, header_of(value_in(latest, HeaderAnswer)))
        heights = {tag: _height_or_none(mark) for tag, mark in zip(tags[1:], marks, strict=True)}
        if any(isinstance(mark, RpcRefused) and mark.rpc_code == _INVALID_PARAMS for mark in marks):
            node.finality_tags = False
        final = heights.get("finalized")
        return Head(header, heights.get("safe", final), final)  # where there is no weaker word, final is safe

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
                        object_id=node.name,
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

    async def _read_identity(self, node: _Node) -> ChainIdentity:
        chain_id, genesis = await node.rpc.batch(
            [Call("eth_chainId"), Call("eth_getBlockByNumber", ["0x0", False])], _MIXED_BATCH
        )
        chain = str(quantity(value_in(chain_id, str)))
        self._pool.expect_chain(node, chain)
        return ChainIdentity(chain, header_of(value_in(genesis, HeaderAnswer)).hash)

    async def _hash_at(self, node: _Node, height: int) -> str | None:
        answer = await node.rpc.call(Call("eth_getBlockByNumber", [hex(height), False]), _HEADER)
        return None if answer is None else header_of(answer).hash


def _tokens_only(block: Block) -> Block:
    """The block without what its nodes call values, and saying so."""
    transfers = tuple(one for one in block.transfers if one.channel is Channel.LOG)
    return replace(
        block, transfers=transfers, untraced="This interface does not tell native coin from other values."
    )


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
        raise not_found(node, height)
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
