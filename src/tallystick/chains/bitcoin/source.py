"""The Bitcoin family's source of facts: several nodes of one network behind the `Source` protocol.

For: the follower of one network (Bitcoin, Litecoin, their test chains), and `doctor`.
Holds true: a node is used only after its chain and first block were compared with the configuration and with the other
nodes, again after every trouble (`failover`). A header is used only if it hashes to its own hash, a block only if its
bytes do and its transactions give the header's Merkle root (`blocks`). Nothing is imported into a node and no index of
it is used, so one node serves any number of merchants, and a pruned one does while it keeps the blocks that are asked
for.
Must not: treat a refusal or an empty answer as an empty block, or wait longer than the limits of its calls.

Blocks are asked for as bytes (`getblock` with verbosity 0): the cheapest answer that holds all we need, which any
version gives in the same form, and the only one in which amounts and scripts can be checked against the block's hash.

What nodes of Bitcoin Core's kind say when they cannot answer: -28 while they start, -5 for a block that they do not
know, -8 for a height above their head, -1 for a block that was pruned away, HTTP 401, and 503 when their queue is full.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

import aiohttp
import msgspec
from yarl import URL

from tallystick.chains.bitcoin.blocks import RULES, checked_block, header_of
from tallystick.chains.bitcoin.hints import Hints
from tallystick.chains.bitcoin.mempool import MempoolMemory, read_mempool
from tallystick.chains.bitcoin.messages import ChainInfo, FeeEstimate, Hash, HeaderAnswer
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
from tallystick.core.chain import Block, BlockHeader, BlockRef, Head, MempoolSnapshot
from tallystick.core.errors import ConfigurationError, SourceError, SourceIncomplete, SourceUnavailable

ResultT = TypeVar("ResultT")

GENESIS: Final = MappingProxyType(
    {
        "bitcoin": "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        "bitcoin-testnet4": "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
        "bitcoin-signet": "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
        "bitcoin-regtest": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
        "litecoin": "12a765e31ffd4059bada1e25190f6e98c99d9714d334efa41a195a7e7e04bfe2",
        "litecoin-testnet": "4966625a4b2851d9fdee139e56211a0d88575f59ed816ff5e6a63deb4e3e29a0",
        "litecoin-regtest": "530827f38f93b43ed12af0b3ad25a288dc02ed74d6d7857862df51fc56c416f9",
    }
)
"""The first block of every chain of the family: nodes name all chains "main", "test" or "regtest" alike."""

DOWNLOADING_BEHIND_MAX: Final = 144
"""A node that downloads the chain for the first time is no use while it knows of so many more blocks than it has."""

FEE_RATE_COINS_MAX: Final = Decimal("0.1")
"""More per 1,000 vbytes is no estimate but a mistake (Core's own limit for what it sends)."""

_WARMING_UP: Final = -28
_NOT_KNOWN: Final = frozenset({-5, -8})
_MISC_ERROR: Final = -1
_ERROR_STATUSES: Final = frozenset({400, 404, 500})  # those of JSON-RPC over HTTP, as Core sends them
_CORE_NAMES: Final = MappingProxyType({"main": "", "test": "-testnet"})
_BASE_UNITS: Final = 100_000_000
_COOKIE_LENGTH_MAX: Final = 1_024

# A result of null stands beside every error of such nodes.
_HASH: Final = msgspec.json.Decoder(Answer[Hash | None])
_HEADER: Final = msgspec.json.Decoder(Answer[HeaderAnswer | None])
_INFO: Final = msgspec.json.Decoder(Answer[ChainInfo | None])
_ESTIMATE: Final = msgspec.json.Decoder(Answer[FeeEstimate | None])
_MIXED_BATCH: Final[msgspec.json.Decoder[Batch[msgspec.Raw]]] = msgspec.json.Decoder(
    list[Answer[msgspec.Raw]] | Answer[msgspec.Raw]
)


@dataclass(frozen=True, slots=True)
class BitcoinOptions:
    """One network of the family. Times are seconds.

    `chain` is one of `GENESIS`. `cookie_file` is where a node on this machine writes its password of the day; it holds
    for those of the `http:` URLs that have none. Such nodes speak no TLS: `https:` is somebody else's service, which
    has no business with that password. `hint_urls` are the node's ZMQ publishers (`tcp://host:port`).
    `fee_target_blocks`: fees are estimated for a confirmation within so many.
    """

    network: str
    chain: str
    rpc_urls: tuple[str, ...]
    cookie_file: Path | None = None
    genesis_hash: str | None = None
    hint_urls: tuple[str, ...] = ()
    fee_target_blocks: int = 6
    aside_seconds: float = 10.0
    agreement_timeout_seconds: float = 3.0
    limits: RpcLimits = field(default_factory=lambda: RpcLimits(batch_size_max=500))


@dataclass(slots=True, kw_only=True, eq=False)
class _Node(Node):
    """A node, its health as last seen, its newest header, and what is remembered of its mempool."""

    rpc: RpcClient
    newest: BlockHeader | None = None
    memory: MempoolMemory = field(default_factory=MempoolMemory)


class BitcoinSource:
    """Facts of one network of Bitcoin's family. Safe to call concurrently within one event loop.

    Raises ConfigurationError for a chain that is not known, or if no usable URL is configured. Close it with `close`.
    """

    def __init__(self, options: BitcoinOptions) -> None:
        if options.chain not in GENESIS:
            raise ConfigurationError(
                f"There is no chain {options.chain!r} in Bitcoin's family.",
                object_id=options.network,
                remedy=f"Choose one of {', '.join(GENESIS)}.",
            )
        self._options = options
        self._family = options.chain.partition("-")[0]
        self._rules = RULES[self._family]
        self._session: aiohttp.ClientSession | None = None
        self._hints = Hints(options.hint_urls)
        genesis = (options.genesis_hash or GENESIS[options.chain]).lower()
        self._pool = NodePool[_Node](
            Expected(options.network, options.chain, genesis),
            [node_name(url) for url in options.rpc_urls],
            self._open,
            read_identity=self._read_identity,
            hash_at=self._hash_at,
            now=time.monotonic,
            patience=Patience(options.aside_seconds, options.agreement_timeout_seconds),
            on_trouble=_forget,
        )

    def _open(self) -> list[_Node]:
        limits, cookie = self._options.limits, self._options.cookie_file
        self._session = new_session(limits)
        nodes: list[_Node] = []
        for url in self._options.rpc_urls:
            read = None if cookie is None or not _takes_cookie(url) else _cookie_reader(cookie)
            client = RpcClient(
                url, self._session, limits, read_credentials=read, error_statuses=_ERROR_STATUSES
            )
            nodes.append(_Node(client.name, rpc=client))
        return nodes

    # -- the Source protocol

    async def identity(self) -> ChainIdentity:
        """The chain and its first block, in which all nodes that answer must agree.

        Raises WrongChain if one does not, naming it and both values; else a SourceError if none answers.
        """
        return await self._pool.identity()

    async def head(self) -> Head:
        """The best block of the first usable node. The family has no finality of its own."""
        return await self._pool.ask(self._head_of)

    async def header_at(self, height: int) -> BlockHeader:
        """The best chain's header at `height`. Raises BlockNotFound above the node's head."""

        async def ask(node: _Node) -> BlockHeader:
            block_hash = await self._hash_or_not_found(node, height)
            answer = await _call(node, Call("getblockheader", [block_hash]), _HEADER)
            return self._pool.note_block(node, _best_header(node, answer, block_hash), height)

        return await self._pool.ask(ask)

    async def block_at(self, height: int) -> Block:
        """The best chain's complete block at `height`, read from its bytes.

        Raises BlockNotFound, SourceIncomplete or SourceUnavailable; all mean: ask again later.
        """

        async def ask(node: _Node) -> Block:
            block_hash = await self._hash_or_not_found(node, height)
            calls = [Call("getblockheader", [block_hash]), Call("getblock", [block_hash, 0])]
            told, raw = await node.rpc.batch(calls, _MIXED_BATCH)
            header = _best_header(node, value_in(_answered(node, told), HeaderAnswer), block_hash)
            self._pool.note_block(node, header, height)
            if isinstance(raw, RpcRefused):
                raise _without_block(node, raw, height)
            text = value_in(raw, str)
            return await asyncio.to_thread(checked_block, text, block_hash, height, self._rules)

        return await self._pool.ask(ask)

    async def confirm_agreement(self, header: BlockHeader, below: Sequence[BlockRef] = ()) -> None:
        """See Source.confirm_agreement. Raises SourcesDisagree, or WrongChain."""
        await self._pool.confirm_agreement(header, below)

    async def mempool(self, asked: Sequence[str] = ()) -> MempoolSnapshot:
        """What the node in use shows outside any block, of what it did not show a minute ago already (`mempool`).

        Raises SourceError; no node is put aside for it.
        """
        node = self._pool.in_use()
        return await read_mempool(node.rpc, node.memory, asked, self._rules, time.monotonic)

    def nodes(self) -> tuple[NodeState, ...]:
        """The nodes as last seen, in configured order."""
        return self._pool.states()

    async def close(self) -> None:
        """Close the connections."""
        self._hints.close()
        if self._session is not None:
            await self._session.close()

    # -- what some families can say besides

    async def fee_rate(self) -> int | None:
        """What a transaction should pay now, in base units per 1,000 vbytes; None where the node cannot say.

        Nodes in use are asked in order; none is put aside for it, as many a provider answers everything but this.
        Raises SourceError.
        """
        in_use = [node for node in self._pool.in_order() if node.verified] or [self._pool.in_use()]
        problem: SourceError | None = None
        for node in in_use:
            try:
                return await self._estimate_of(node)
            except SourceError as error:
                problem = problem or error
        raise problem or SourceUnavailable("No node is in use.", object_id=self._options.network)

    async def hint(self, stop: asyncio.Event) -> None:
        """Return when a node's publisher says that something may be new, or at `stop`. Never an error."""
        await self._hints.wait(stop)

    # -- questions

    async def _head_of(self, node: _Node) -> Head:
        info = await _call(node, Call("getblockchaininfo"), _INFO)
        self._pool.expect_chain(node, self._chain_name(info.chain))
        if info.downloading and info.headers - info.blocks > DOWNLOADING_BEHIND_MAX:
            raise SourceUnavailable(
                f"The node is still downloading the chain: it has {info.blocks} of {info.headers} blocks.",
                object_id=node.name,
                remedy="Wait until it has them all, or name another node as well.",
            )
        if node.newest is None or node.newest.hash != info.best:
            answer = await _call(node, Call("getblockheader", [info.best]), _HEADER)
            node.newest = _best_header(node, answer, info.best)
        return Head(self._pool.note_head(node, node.newest))

    async def _estimate_of(self, node: _Node) -> int | None:
        call = Call("estimatesmartfee", [self._options.fee_target_blocks])
        rate = (await _call(node, call, _ESTIMATE)).feerate
        if rate is None or not 0 < rate <= FEE_RATE_COINS_MAX:
            return None
        return int(rate * _BASE_UNITS)

    async def _hash_or_not_found(self, node: _Node, height: int) -> str:
        found = await self._hash_at(node, height)
        if found is None:
            raise not_found(node, height)
        return found

    async def _hash_at(self, node: _Node, height: int) -> str | None:
        if height >= 2**31:  # the node reads it as such a number
            return None
        try:
            return (await _call(node, Call("getblockhash", [height]), _HASH)).lower()
        except RpcRefused as refused:
            if refused.rpc_code in _NOT_KNOWN:
                return None
            raise

    async def _read_identity(self, node: _Node) -> ChainIdentity:
        info, genesis = await node.rpc.batch(
            [Call("getblockchaininfo"), Call("getblockhash", [0])], _MIXED_BATCH
        )
        chain = self._chain_name(value_in(_answered(node, info), ChainInfo).chain)
        self._pool.expect_chain(node, chain)
        return ChainIdentity(chain, value_in(_answered(node, genesis), str).lower())

    def _chain_name(self, core_name: str) -> str:
        """Our name for what a node calls its chain. Which family's it is shows in the first block."""
        return self._family + _CORE_NAMES.get(core_name, f"-{core_name[:32]}")


def _forget(node: _Node) -> None:
    """After trouble a node may come back with another head."""
    node.newest = None


def _best_header(node: _Node, answer: HeaderAnswer, block_hash: str) -> BlockHeader:
    """The header that was asked for, of the best chain. Raises SourceIncomplete."""
    header = header_of(answer)
    if header.hash != block_hash:
        raise SourceIncomplete("The node sent another header than the one asked for.", object_id=node.name)
    if answer.confirmations < 0:
        raise SourceIncomplete(
            f"Block {header.height} left the node's best chain while it was read.", object_id=node.name
        )
    return header


async def _call(node: _Node, call: Call, decoder: msgspec.json.Decoder[Answer[ResultT | None]]) -> ResultT:
    try:
        result = await node.rpc.call(call, decoder)
    except RpcRefused as refused:
        raise _in_words(node, refused) from None
    if result is None:
        raise SourceIncomplete(
            f"The node answered nothing to {call.method}.", object_id=node.name, remedy="It is asked again."
        )
    return result


def _answered(node: _Node, answer: msgspec.Raw | RpcRefused) -> msgspec.Raw:
    """The answer of a batch, if it is none of a node that is still starting."""
    if isinstance(answer, RpcRefused):
        raise _in_words(node, answer)
    return answer


def _in_words(node: _Node, refused: RpcRefused) -> SourceUnavailable:
    if refused.rpc_code != _WARMING_UP:
        return refused
    return SourceUnavailable(
        f"The node is still starting. {refused.what}",
        object_id=node.name,
        remedy="It is asked again until it is ready.",
    )


def _without_block(node: _Node, refused: RpcRefused, height: int) -> SourceUnavailable:
    """Why a node that names a block does not give it."""
    if refused.rpc_code == _MISC_ERROR and "pruned" in refused.what:
        return SourceUnavailable(
            f"The node has pruned block {height} away.",
            object_id=node.name,
            remedy="Name a node that still has it, or download the chain again with more room (Core's -prune).",
        )
    return _in_words(node, refused)


def _takes_cookie(url: str) -> bool:
    """Whether the password of a node on this machine may be sent there."""
    parts = URL(url)
    return parts.scheme == "http" and parts.user is None and parts.password is None


def _cookie_reader(path: Path) -> Callable[[], str]:
    """Reads `name:password` from the file that a node writes at each start (Core's .cookie)."""

    def read() -> str:
        try:
            text = path.read_text(encoding="ascii")[:_COOKIE_LENGTH_MAX].strip()
        except (OSError, ValueError) as error:
            raise SourceUnavailable(
                f"The node's cookie file cannot be read ({type(error).__name__}).",
                object_id=str(path),
                remedy="Check that the node runs, and that we may read its file.",
            ) from None
        if ":" not in text:
            raise SourceUnavailable("The node's cookie file holds no name and password.", object_id=str(path))
        return text

    return read
