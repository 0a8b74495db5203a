"""TRON's source of facts: several nodes of one network, by their HTTP interface, behind the `Source` protocol.

For: the follower of one TRON network, and `doctor`.
Holds true: a node is used only after its first block was compared with the configuration and with the other nodes,
again after every trouble, and one that fails is put aside for a while (`failover`); a block and the infos of its
transactions come from one node and are checked against each other (`blocks`) before they are handed out.
`finalized_height` is the solidified block: more than two thirds of the producers built on it, and nodes never leave it.
TRON has no weaker word, so that it is `safe_height` as well: who asks for that gets more, not nothing.
Must not: treat a refusal or an empty answer as an empty block, or ask more often than it has to.

Requests, with one node and a poll every 3 s: a header each poll; the solidified height every third block; the first
block every thirtieth; block and infos for each block. That is about 97,000 a day, just below the 100,000 that TronGrid
gives away. Headers are asked for
without their transactions (`wallet/getblock`), from nodes that are too old for that as whole blocks
(`wallet/getnowblock`).

There is no mempool here: a block comes every three seconds, public nodes do not show theirs, and an unconfirmed TRON
transaction says nothing about whether it will succeed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from tallystick.chains.evm.token_info import TokenInfo
from tallystick.chains.failover import Expected, Node, NodePool, Patience, not_found
from tallystick.chains.json_rpc import RpcLimits, new_session
from tallystick.chains.node_urls import node_name
from tallystick.chains.source import ChainIdentity, NodeState
from tallystick.chains.tron.blocks import checked_block, header_of, shows_inner
from tallystick.chains.tron.chains import chain_id_of
from tallystick.chains.tron.http import MethodMissing, Refused, TronClient
from tallystick.chains.tron.messages import BlockAnswer, Info, Refusal
from tallystick.chains.tron.token_info import read_token_info
from tallystick.core.chain import Block, BlockHeader, BlockRef, Head, MempoolSnapshot
from tallystick.core.errors import BlockNotFound, ConfigurationError, SourceIncomplete

ResultT = TypeVar("ResultT")

SOLIDIFIED_EVERY_BLOCKS: Final = 3
"""How far the head moves until the solidified height, which trails it by 19 blocks, is asked for again."""

CHAIN_EVERY_BLOCKS: Final = 30
"""How far the head moves until the node's first block is looked at again: another chain may be behind a balancer."""

_BLOCK: Final = msgspec.json.Decoder(BlockAnswer)
_INFOS: Final[msgspec.json.Decoder[list[Info] | Refusal]] = msgspec.json.Decoder(list[Info] | Refusal)
_NEWEST: Final[Mapping[str, Any]] = {"detail": False}


@dataclass(frozen=True, slots=True)
class TronOptions:
    """One TRON network. Times are seconds. `chain_id` is that of `chains.chain_id_of`.

    `urls` are those of the nodes' HTTP interface, without "/wallet"; credentials stand in them (`http`). `genesis_hash`
    pins the first block if it is known beforehand. `requests_per_second` is a limit for each node.
    """

    network: str
    chain_id: int
    urls: tuple[str, ...]
    genesis_hash: str | None = None
    requests_per_second: float = 10.0
    aside_seconds: float = 10.0
    agreement_timeout_seconds: float = 3.0
    limits: RpcLimits = field(default_factory=RpcLimits)


@dataclass(slots=True, kw_only=True, eq=False)
class _Node(Node):
    """A node, its health as last seen, and what is known about it.

    `bare_headers`: it gives headers without their blocks. `inner_told`: it was seen to keep inner transactions.
    `solidified` is its solidified height, and the height of its head when that was asked for; `chain_seen_at` that of
    its head when its first block was looked at.
    """

    client: TronClient
    bare_headers: bool = True
    inner_told: bool = False
    solidified: tuple[int, int] | None = None
    chain_seen_at: int | None = None


class TronSource:
    """Facts of one TRON network. Safe to call concurrently within one event loop.

    Raises ConfigurationError if no usable URL is configured, or no rate. Close it with `close`.
    """

    def __init__(self, options: TronOptions) -> None:
        if options.requests_per_second <= 0:
            raise ConfigurationError(
                "The rate of requests must be above zero.",
                object_id=options.network,
                remedy="Correct the network's requests_per_second.",
            )
        self._options = options
        self._session: aiohttp.ClientSession | None = None
        genesis = options.genesis_hash.lower() if options.genesis_hash else None
        self._pool = NodePool[_Node](
            Expected(options.network, str(options.chain_id), genesis),
            [node_name(url) for url in options.urls],
            self._open,
            read_identity=self._read_identity,
            hash_at=self._hash_at,
            now=time.monotonic,
            patience=Patience(options.aside_seconds, options.agreement_timeout_seconds),
            on_trouble=_reconsider,
        )

    def _open(self) -> list[_Node]:
        limits = self._options.limits
        session = self._session = new_session(limits)
        rate = self._options.requests_per_second
        clients = [TronClient(url, session, limits, requests_per_second=rate) for url in self._options.urls]
        return [_Node(client.name, client=client) for client in clients]

    # -- the Source protocol

    async def identity(self) -> ChainIdentity:
        """Chain id and first block, in which all nodes that answer must agree.

        Raises WrongChain if one does not, naming it and both values; else a SourceError if none answers.
        """
        return await self._pool.identity()

    async def head(self) -> Head:
        """The best block of the first usable node, and how far that node's chain is solidified."""
        return await self._pool.ask(self._head_of)

    async def header_at(self, height: int) -> BlockHeader:
        """The best chain's header at `height`. Raises BlockNotFound above the node's head."""

        async def ask(node: _Node) -> BlockHeader:
            header = await _header_at(node, height)
            return self._pool.note_block(node, header, height)

        return await self._pool.ask(ask)

    async def block_at(self, height: int) -> Block:
        """The best chain's complete block at `height`, with the infos of its transactions from the same node.

        Raises BlockNotFound, SourceIncomplete or SourceUnavailable; all mean: ask again later.
        """

        async def ask(node: _Node) -> Block:
            answer = await _found(node, "wallet/getblockbynum", {"num": height}, height)
            infos = await _infos(node, height) if answer.transactions and height > 0 else []
            node.inner_told = node.inner_told or shows_inner(infos)
            block = checked_block(answer, infos, inner_told=node.inner_told)
            self._pool.note_block(node, block.header, height)
            return block

        return await self._pool.ask(ask)

    async def confirm_agreement(self, header: BlockHeader, below: Sequence[BlockRef] = ()) -> None:
        """See Source.confirm_agreement. Raises SourcesDisagree, or WrongChain."""
        await self._pool.confirm_agreement(header, below)

    async def mempool(self, asked: Sequence[str] = ()) -> MempoolSnapshot | None:  # noqa: ARG002
        """None: see the module."""
        return None

    def nodes(self) -> tuple[NodeState, ...]:
        """The nodes as last seen, in configured order."""
        return self._pool.states()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    # -- for `doctor`

    async def token_info(self, contract: str) -> TokenInfo:
        """Ask a contract (normal form) for decimals and symbol, now. Raises SourceError."""

        async def ask(node: _Node) -> TokenInfo:
            return await read_token_info(node.client, contract)

        return await self._pool.ask(ask)

    # -- questions

    async def _head_of(self, node: _Node) -> Head:
        """The newest header; the solidified height only as often as it can matter.

        Asked for after the head, it may be above it by a block: then the head is what is told.
        """
        header = self._pool.note_head(node, await _newest(node, "wallet"))
        if not _recent(node.chain_seen_at, header.height, CHAIN_EVERY_BLOCKS):
            self._pool.expect_chain(node, (await self._read_identity(node)).chain)
            node.chain_seen_at = header.height
        last = node.solidified
        if last is None or not _recent(last[1], header.height, SOLIDIFIED_EVERY_BLOCKS):
            solidified = (await _newest(node, "walletsolidity")).height
            node.solidified = last = solidified, header.height
        final = min(last[0], header.height)
        return Head(header, final, final)

    async def _read_identity(self, node: _Node) -> ChainIdentity:
        first = await _header_at(node, 0)
        if first.height != 0:
            raise SourceIncomplete(
                f"The node sent block {first.height} when asked for the first.", object_id=node.name
            )
        return ChainIdentity(str(chain_id_of(first.hash)), first.hash)

    async def _hash_at(self, node: _Node, height: int) -> str | None:
        return (await _header_at(node, height)).hash


def _reconsider(node: _Node) -> None:
    """After trouble it may be another node behind the same name."""
    node.bare_headers, node.inner_told = True, False
    node.solidified = node.chain_seen_at = None


def _recent(last: int | None, height: int, blocks: int) -> bool:
    """Whether what was asked at the height `last` need not be asked again at `height`, which may have gone back."""
    return last is not None and 0 <= height - last < blocks


async def _newest(node: _Node, interface: str) -> BlockHeader:
    """The newest header of "wallet", the whole chain, or of "walletsolidity", its solidified part."""

    async def bare() -> BlockAnswer:
        return await _asked(node, f"{interface}/getblock", _NEWEST)

    async def whole() -> BlockAnswer:
        return await _asked(node, f"{interface}/getnowblock", {})

    return header_of(await _either(node, bare, whole))


async def _header_at(node: _Node, height: int) -> BlockHeader:
    """The node's header at a height. Raises BlockNotFound."""

    async def bare() -> BlockAnswer:
        body = {"id_or_num": str(height), "detail": False}
        return await _found(node, "wallet/getblock", body, height)

    async def whole() -> BlockAnswer:
        return await _found(node, "wallet/getblockbynum", {"num": height}, height)

    return header_of(await _either(node, bare, whole))


async def _either(
    node: _Node, bare: Callable[[], Awaitable[ResultT]], whole: Callable[[], Awaitable[ResultT]]
) -> ResultT:
    """Ask for a header alone; where the node cannot do that, for its block, from then on.

    A node that refuses in words may not know the question either, or have another trouble: the block tells.
    """
    if node.bare_headers:
        try:
            return await bare()
        except MethodMissing:
            node.bare_headers = False
        except Refused:
            pass
    return await whole()


async def _found(node: _Node, path: str, body: Mapping[str, Any], height: int) -> BlockAnswer:
    """The block that is asked for. A node that has none answers with an empty object. Raises BlockNotFound."""
    answer = await _asked(node, path, body)
    if answer.id is None and answer.header is None:
        raise not_found(node, height)
    return answer


async def _asked(node: _Node, path: str, body: Mapping[str, Any]) -> BlockAnswer:
    answer = await node.client.ask(path, body, _BLOCK)
    if answer.error is not None:
        raise node.client.refused(path, answer.error)
    return answer


async def _infos(node: _Node, height: int) -> list[Info]:
    """The infos of a block's transactions, of which there are some. Raises BlockNotFound where there are none yet.

    A node answers with an empty list or object then. That is the usual case behind a balancer, where another node than
    the one that has the block is asked for its infos; it is behind, and not to be left aside for it.
    """
    path = "wallet/gettransactioninfobyblocknum"
    answer = await node.client.ask(path, {"num": height}, _INFOS)
    if isinstance(answer, Refusal) and answer.error is not None:
        raise node.client.refused(path, answer.error)
    if isinstance(answer, Refusal) or not answer:
        raise BlockNotFound(
            f"The node does not say what the transactions of block {height} did.",
            object_id=node.name,
            remedy="It may not have carried them out yet; one that keeps no history of transactions never says it.",
        )
    return answer
