"""The simulated family's source of facts: several nodes of one simulated chain behind the `Source` protocol.

For: the follower of a simulated network, and all that asks nodes (balances, mempool).
Holds true: the same duties as for real families. A node is used only after its chain was compared with the
configuration and with the other nodes, again after every trouble, and one that failed is put aside for some questions
(`failover`); a block is handed out only if everything in it is what its hash commits to. It knows of nodes only what
they answer.
Must not: look at the chain past its nodes, wait, read a clock, or take a missing answer for an empty one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from tallystick.chains.failover import Expected, Node, NodePool, Patience, not_found
from tallystick.chains.simulated.blocks import (
    SimulatedBlock,
    Transaction,
    content_digest,
    expected_hash,
    inner_digest,
)
from tallystick.chains.simulated.nodes import BlockAnswer, SimulatedNode, traits_of
from tallystick.chains.source import ACCOUNTS_ASKED_MAX, MEMPOOL_ASKED_MAX, ChainIdentity, NodeState
from tallystick.core.balance import AccountState
from tallystick.core.chain import (
    Block,
    BlockHeader,
    BlockRef,
    Channel,
    Head,
    MempoolSnapshot,
    ObservedTransfer,
)
from tallystick.core.errors import SourceIncomplete
from tallystick.core.network import Network

ResultT = TypeVar("ResultT")

ASIDE_QUESTIONS: Final = 8
"""For so many questions a node that failed is asked after the others: there is no clock, a question is a second."""

_TRY_AGAIN: Final = "It is asked again."


@dataclass(slots=True, kw_only=True, eq=False)
class _Node(Node):
    """A node and its health as last seen."""

    node: SimulatedNode


class SimulatedSource:
    """Facts of one simulated network. Never waits, so that concurrent calls are answered in the order made.

    Raises ConfigurationError if there is no node.
    """

    def __init__(self, network: Network, nodes: Sequence[SimulatedNode]) -> None:
        self._network = network
        self._questions = 0
        records = tuple(_Node(node.name, node=node) for node in nodes)
        self._pool = NodePool[_Node](
            Expected(network.name, network.chain),
            [node.name for node in records],
            lambda: records,
            read_identity=self._read_identity,
            hash_at=self._hash_at,
            now=lambda: self._questions,
            patience=Patience(aside_seconds=ASIDE_QUESTIONS, agreement_timeout_seconds=None),
        )

    # -- the Source protocol

    async def identity(self) -> ChainIdentity:
        """Chain id and first block, in which all nodes that answer must agree. Raises WrongChain, SourceError."""
        self._questions += 1  # else no pause that a node asks for would ever end
        return await self._pool.identity()

    async def head(self) -> Head:
        """The best block of the first usable node, with its finality where it has any."""

        async def ask(node: _Node) -> Head:
            chain, head = node.node.head()
            self._pool.expect_chain(node, chain)
            header = self._pool.note_head(node, head.header)
            return head if self._network.finality_tags else Head(header)

        return await self._ask(ask)

    async def header_at(self, height: int) -> BlockHeader:
        """The best chain's header at `height`. Raises BlockNotFound above the node's head."""

        async def ask(node: _Node) -> BlockHeader:
            header = node.node.header_at(height)
            if header is None:
                raise not_found(node, height)
            return self._pool.note_block(node, header, height)

        return await self._ask(ask)

    async def block_at(self, height: int) -> Block:
        """The best chain's complete block at `height`, checked against what its hash commits to.

        Raises BlockNotFound, SourceIncomplete or SourceUnavailable; all mean: ask again later.
        """

        async def ask(node: _Node) -> Block:
            answer = node.node.block_at(height)
            if answer is None:
                raise not_found(node, height)
            block = checked_block(answer)
            self._pool.note_block(node, block.header, height)
            return block

        return await self._ask(ask)

    async def confirm_agreement(self, header: BlockHeader, below: Sequence[BlockRef] = ()) -> None:
        """See Source.confirm_agreement. Raises SourcesDisagree, or WrongChain."""
        await self._pool.confirm_agreement(header, below)

    async def mempool(self, asked: Sequence[str] = ()) -> MempoolSnapshot:
        """What the node in use shows outside any block. Raises SourceError; no node is put aside for it."""
        return self._pool.in_use().node.pool(asked[:MEMPOOL_ASKED_MAX])

    async def accounts_at(self, block: BlockRef, addresses: Sequence[str]) -> list[AccountState]:
        """Balances (base units) and nonces right after `block`, in the order of `addresses`. Raises SourceError."""
        if len(addresses) > ACCOUNTS_ASKED_MAX:
            raise ValueError("More addresses than may be asked about at a time.")

        async def ask(node: _Node) -> list[AccountState]:
            return node.node.accounts(block, addresses)

        return await self._ask(ask) if addresses else []

    def nodes(self) -> tuple[NodeState, ...]:
        """The nodes as last seen, in configured order."""
        return self._pool.states()

    async def close(self) -> None:
        """There is nothing to release."""

    # -- nodes

    async def _ask(self, question: Callable[[_Node], Awaitable[ResultT]]) -> ResultT:
        self._questions += 1
        return await self._pool.ask(question)

    async def _read_identity(self, node: _Node) -> ChainIdentity:
        return node.node.identity()

    async def _hash_at(self, node: _Node, height: int) -> str | None:
        header = node.node.header_at(height)
        return None if header is None else header.hash


def checked_block(answer: BlockAnswer) -> Block:
    """The block as core knows it, once it is shown to hold what its hash commits to. Raises SourceIncomplete."""
    block = answer.block
    if expected_hash(block) != block.hash:
        raise _unfit(block, "its header is not what its hash commits to")
    if content_digest(block.transactions, block.rewards) != block.digest:
        raise _unfit(block, "transactions or their moves are missing, foreign or out of order")
    if answer.untraced is None and inner_digest(block.transactions) != block.inner:
        raise _unfit(block, "what contract calls moved is missing or foreign")
    spends = {key: one.hash for one in block.transactions for key in one.spend_keys}
    return Block(block.header, tuple(_transfers(block.transactions)), spends, answer.untraced)


def _transfers(transactions: Sequence[Transaction]) -> list[ObservedTransfer]:
    """All moves of value in the order of the block, with each event's place in the whole block."""
    transfers: list[ObservedTransfer] = []
    first_log = 0
    for one in transactions:
        last_log = -1
        for move in one.done:
            log_index = move.log_index
            if move.channel is Channel.LOG:
                last_log = max(last_log, move.ordinal)
                log_index = first_log + move.ordinal if log_index is None else log_index
            if move.amount > 0:
                transfers.append(
                    ObservedTransfer(
                        one.hash,
                        move.channel,
                        move.ordinal,
                        move.source or one.sender,
                        move.to,
                        move.contract,
                        move.amount,
                        one.spend_keys,
                        log_index,
                        traits_of(one, move),
                    )
                )
        first_log += last_log + 1
    return transfers


def _unfit(block: SimulatedBlock, what: str) -> SourceIncomplete:
    return SourceIncomplete(
        f"A node's answer does not fit together: {what}.",
        object_id=f"block {block.header.height} {block.hash}",
        remedy=_TRY_AGAIN,
    )
