"""The simulated family's source of facts: several nodes of one simulated chain behind the `Source` protocol.

For: the follower of a simulated network, and all that asks nodes (balances, mempool).
Holds true: the same duties as for real families. A node is used only after its chain was compared with the
configuration and with the other nodes, again after every trouble; a block is handed out only if everything in it is
what its hash commits to. Nodes are tried in the configured order; one that failed is put aside for some questions, but
is asked before giving up. It knows of nodes only what they answer.
Must not: look at the chain past its nodes, wait, read a clock, or take a missing answer for an empty one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from tallystick.chains.simulated.chain import (
    SimulatedBlock,
    Transaction,
    content_digest,
    expected_hash,
    inner_digest,
)
from tallystick.chains.simulated.nodes import BlockAnswer, SimulatedNode
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
from tallystick.core.errors import (
    BlockNotFound,
    ConfigurationError,
    SourceError,
    SourceIncomplete,
    SourcesDisagree,
    SourceUnavailable,
    WrongChain,
)
from tallystick.core.network import Network

ResultT = TypeVar("ResultT")

ASIDE_QUESTIONS: Final = 8
"""For so many questions a node that failed is asked after the others. There is no clock here to count seconds with."""

_ORIGINS_REMEMBERED_MAX: Final = 1024
_NOT_ASKED: Final = "It has not been asked yet."
_TRY_AGAIN: Final = "It is asked again."


@dataclass(slots=True)
class _Node:
    """A node and its health as last seen, as the EVM source keeps it."""

    node: SimulatedNode
    verified: bool = False
    wrong_chain: bool = False
    aside_until: int = 0
    height: int | None = None
    problem: str | None = None


class SimulatedSource:
    """Facts of one simulated network. Never waits, so that concurrent calls are answered in the order made.

    Raises ConfigurationError if there is no node.
    """

    def __init__(self, network: Network, nodes: Sequence[SimulatedNode]) -> None:
        if not nodes:
            raise ConfigurationError(
                "A network needs at least one node.", object_id=network.name, remedy="Name one."
            )
        self._network = network
        self._nodes = tuple(_Node(node) for node in nodes)
        self._genesis: str | None = None
        self._origins: dict[str, _Node] = {}
        self._questions = 0

    # -- the Source protocol

    async def identity(self) -> ChainIdentity:
        """Chain id and first block, in which all nodes that answer must agree. Raises WrongChain, SourceError."""
        first_problem: SourceError | None = None
        failed = 0
        for node in self._nodes:
            try:
                self._verify(node)
            except SourceError as error:
                failed += 1
                if isinstance(error, WrongChain) and not isinstance(first_problem, WrongChain):
                    first_problem = error
                first_problem = first_problem or error
        if isinstance(first_problem, WrongChain) or (first_problem and failed == len(self._nodes)):
            raise first_problem
        assert self._genesis is not None  # noqa: S101  # one node at least was verified
        return ChainIdentity(self._network.chain, self._genesis)

    async def head(self) -> Head:
        """The best block of the first usable node, with its finality where it has any."""
        return self._with_a_node(self._head_of)

    async def header_at(self, height: int) -> BlockHeader:
        """The best chain's header at `height`. Raises BlockNotFound above the node's head."""

        def ask(node: _Node) -> BlockHeader:
            header = node.node.header_at(height)
            if header is None:
                raise _not_found(node, height)
            _expect_height(node, header, height)
            self._remember_origin(header.hash, node)
            return header

        return self._with_a_node(ask)

    async def block_at(self, height: int) -> Block:
        """The best chain's complete block at `height`, checked against what its hash commits to.

        Raises BlockNotFound, SourceIncomplete or SourceUnavailable; all mean: ask again later.
        """

        def ask(node: _Node) -> Block:
            answer = node.node.block_at(height)
            if answer is None:
                raise _not_found(node, height)
            _expect_height(node, answer.block.header, height)
            block = checked_block(answer)
            self._remember_origin(block.header.hash, node)
            return block

        return self._with_a_node(ask)

    async def confirm_agreement(self, header: BlockHeader) -> None:
        """Ask the other nodes for their block at this height. Raises SourcesDisagree, or WrongChain.

        A node that is behind or silent does not disagree. With one node there is nobody to ask.
        """
        origin = self._origins.get(header.hash) or self._in_order()[0]
        for node in self._nodes:
            if node is origin:
                continue
            answer = self._hash_at(node, header.height)
            if answer is not None and answer != header.hash:
                raise SourcesDisagree(
                    f"Node {node.node.name} has block {answer} where another node has {header.hash}.",
                    object_id=f"{self._network.name} block {header.height}",
                    remedy="Crediting waits until they agree; if it lasts, find out which node is wrong.",
                )

    async def mempool(self, asked: Sequence[str] = ()) -> MempoolSnapshot:
        """What the node in use shows outside any block. Raises SourceError; no node is put aside for it."""
        node = self._in_order()[0]
        if not node.verified:
            raise SourceUnavailable(
                "No node is in use whose mempool could be shown.", object_id=node.node.name
            )
        return node.node.pool(asked[:MEMPOOL_ASKED_MAX])

    async def accounts_at(self, block: BlockRef, addresses: Sequence[str]) -> list[AccountState]:
        """Balances (base units) and nonces right after `block`, in the order of `addresses`. Raises SourceError."""
        if len(addresses) > ACCOUNTS_ASKED_MAX:
            raise ValueError("More addresses than may be asked about at a time.")
        return self._with_a_node(lambda node: node.node.accounts(block, addresses)) if addresses else []

    def nodes(self) -> tuple[NodeState, ...]:
        """The nodes as last seen, in configured order."""
        return tuple(
            NodeState(
                node.node.name,
                node.verified,
                node.height,
                node.problem if node.verified else node.problem or _NOT_ASKED,
            )
            for node in self._nodes
        )

    async def close(self) -> None:
        """There is nothing to release."""

    # -- nodes

    def _in_order(self) -> list[_Node]:
        """Usable nodes in configured order, then those put aside; one on a wrong chain before all others: its refusal
        must not be covered up by them."""
        return sorted(
            self._nodes, key=lambda node: (not node.wrong_chain, max(0, node.aside_until - self._questions))
        )

    def _with_a_node(self, ask: Callable[[_Node], ResultT]) -> ResultT:
        """The first good answer. If none is good, the error of the node that was asked first."""
        self._questions += 1
        first_problem: SourceError | None = None
        for node in self._in_order():
            try:
                if not node.verified:
                    self._verify(node)
                result = ask(node)
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
        raise first_problem or SourceUnavailable("There is no node to ask.", object_id=self._network.name)

    def _put_aside(self, node: _Node, error: SourceError) -> None:
        """Prefer other nodes for a while; then check its chain anew."""
        node.aside_until = self._questions + ASIDE_QUESTIONS
        node.verified = False
        node.problem = error.what

    def _verify(self, node: _Node) -> None:
        """Compare the node's chain with ours. Raises WrongChain or another SourceError."""
        try:
            found = node.node.identity()
        except SourceError as error:
            self._put_aside(node, error)
            raise
        self._expect_chain(node, found.chain)
        if self._genesis is None:
            self._genesis = found.genesis_hash
        elif found.genesis_hash != self._genesis:
            raise self._wrong_chain(
                node, f"has the first block {found.genesis_hash}, but {self._genesis} is expected"
            )
        node.verified, node.wrong_chain, node.problem = True, False, None

    def _expect_chain(self, node: _Node, found: str) -> None:
        if found != self._network.chain:
            raise self._wrong_chain(node, f"serves chain {found}, but {self._network.chain} is configured")

    def _wrong_chain(self, node: _Node, what: str) -> WrongChain:
        """Note it on the node, which is asked for its chain again before anything else is taken from it."""
        problem = f"Node {node.node.name} {what}."
        node.verified, node.wrong_chain, node.problem = False, True, problem
        return WrongChain(
            problem,
            object_id=self._network.name,
            remedy="Correct the nodes or the chain; nothing is credited until then.",
        )

    def _remember_origin(self, block_hash: str, node: _Node) -> None:
        """Which node named a block, so that `confirm_agreement` asks the others. Bounded."""
        self._origins[block_hash] = node
        if len(self._origins) > _ORIGINS_REMEMBERED_MAX:
            del self._origins[next(iter(self._origins))]

    def _head_of(self, node: _Node) -> Head:
        chain, head = node.node.head()
        self._expect_chain(node, chain)
        node.height = head.header.height
        self._remember_origin(head.header.hash, node)
        if not self._network.finality_tags:
            return Head(head.header)
        return head

    def _hash_at(self, node: _Node, height: int) -> str | None:
        """The node's block at `height`, or None if it is silent or behind. Raises WrongChain."""
        try:
            if not node.verified:
                self._verify(node)
            header = node.node.header_at(height)
        except WrongChain:
            raise
        except SourceError as error:
            self._put_aside(node, error)
            return None
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
    spends = {one.spend_key: one.hash for one in block.transactions}
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
                        one.spend_key,
                        log_index,
                    )
                )
        first_log += last_log + 1
    return transfers


def _expect_height(node: _Node, header: BlockHeader, height: int) -> None:
    if header.height != height:
        raise SourceIncomplete(
            f"The node sent block {header.height} when asked for {height}.", object_id=node.node.name
        )


def _not_found(node: _Node, height: int) -> BlockNotFound:
    return BlockNotFound(
        f"The node has no block {height}.",
        object_id=node.node.name,
        remedy="It is behind, or the chain is shorter.",
    )


def _unfit(block: SimulatedBlock, what: str) -> SourceIncomplete:
    return SourceIncomplete(
        f"A node's answer does not fit together: {what}.",
        object_id=f"block {block.header.height} {block.hash}",
        remedy=_TRY_AGAIN,
    )
