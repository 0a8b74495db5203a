"""Several nodes of one network as one: whom to ask, whom to leave aside, and whether they agree.

For: the families' sources. A family says how one node is asked; which node is, is decided here.
Holds true: a node is used only after its chain and first block were compared with the configuration and with the other
nodes, again after every trouble. Nodes are tried in the configured order; one that failed is put aside for a while, but
is asked before giving up, unless it said for how long it does not want to be asked: then it is left in peace so long
(at most `REST_SECONDS_MAX`), for whoever goes on asking is refused for longer. One on a wrong chain stops the network
until it is put right: no other covers it up. Who named a block is remembered, so that the others are asked whether they
have it.
Must not: know how a family asks, retry by itself, read a clock of its own, or take silence for an answer.

How a family uses it: it subclasses `Node` by what it needs to ask one, and gives two hooks. `read_identity(node)`
answers which chain the node serves; it may call `expect_chain` before it reads the rest. `hash_at(node, height)`
answers the hash of the node's best chain at a height, None (or BlockNotFound) where the node has no such block. Both
raise SourceError. Everything else is asked with `await pool.ask(question)`, where `question(node)` calls `note_block`
for each header that it takes from the node, and `note_head` for its newest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import ceil
from typing import Final, Generic, TypeVar

from tallystick.chains.source import ChainIdentity, NodeState
from tallystick.core.chain import BlockHeader, BlockRef
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

REST_SECONDS_MAX: Final = 600
"""No node is left in peace for longer, whatever it says: it may be wrong, or be put right meanwhile."""

_ORIGINS_REMEMBERED_MAX: Final = 1024
_NOT_ASKED: Final = "It has not been asked yet."


@dataclass(slots=True, eq=False)
class Node:
    """A node and its health as last seen. Subclass it (`kw_only`) by what a family needs to ask it.

    `name` is safe to show. `verified`: it was asked for its chain since its last trouble. `wrong_chain`: what it
    answered last was wrong. `aside_until` and `rest_until` are moments of the pool's clock; until the latter it does
    not want to be asked at all. `height` is that of its newest block.
    """

    name: str
    verified: bool = False
    wrong_chain: bool = False
    aside_until: float = 0.0
    rest_until: float = 0.0
    height: int | None = None
    problem: str | None = None


NodeT = TypeVar("NodeT", bound=Node)


class _Resting(SourceUnavailable):
    """The node was not asked: it does not want to be for a while."""

    code = "source_unavailable"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the nodes have to serve. `chain` is in the family's own terms; `genesis_hash` None: what the first says."""

    network: str
    chain: str
    genesis_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a node that failed is asked after the others, and how long one may take to say whether it agrees.

    Seconds of the pool's clock, and of the real one. `agreement_timeout_seconds` None is for nodes that never make
    anybody wait: they are asked one after the other, without a real clock.
    """

    aside_seconds: float = 10.0
    agreement_timeout_seconds: float | None = 3.0


@dataclass(frozen=True, slots=True)
class _Compared:
    """What the node `name` has at the height of a block of ours."""

    name: str
    ours: BlockRef
    theirs: str


class NodePool(Generic[NodeT]):
    """See the module. Safe to use concurrently within one event loop.

    `open_nodes` makes the nodes named by `names`, in that order; it is called once, on first use, because connections
    belong to the running event loop. `now` is a clock that never goes back, in seconds. `on_trouble` is told of every
    node that was put aside. Raises ConfigurationError if there is no node.
    """

    def __init__(
        self,
        expected: Expected,
        names: Sequence[str],
        open_nodes: Callable[[], Sequence[NodeT]],
        *,
        read_identity: Callable[[NodeT], Awaitable[ChainIdentity]],
        hash_at: Callable[[NodeT, int], Awaitable[str | None]],
        now: Callable[[], float],
        patience: Patience | None = None,
        on_trouble: Callable[[NodeT], None] | None = None,
    ) -> None:
        if not names:
            raise ConfigurationError(
                "A network needs at least one node.", object_id=expected.network, remedy="Name one."
            )
        self._expected = expected
        self._genesis = expected.genesis_hash
        self._names = tuple(names)
        self._open_nodes = open_nodes
        self._read_identity = read_identity
        self._hash_at = hash_at
        self._now = now
        self._patience = patience or Patience()
        self._on_trouble = on_trouble
        self._nodes: tuple[NodeT, ...] = ()
        self._origins: dict[str, NodeT] = {}

    # -- asking

    @property
    def nodes(self) -> tuple[NodeT, ...]:
        """All nodes in configured order. They are opened on first use."""
        if not self._nodes:
            self._nodes = tuple(self._open_nodes())
        return self._nodes

    def in_order(self) -> list[NodeT]:
        """All nodes: the usable ones in configured order, then those put aside, the next one due first.

        A node on a wrong chain comes before all others: its refusal must not be covered up by them.
        """
        now = self._now()
        return sorted(self.nodes, key=lambda node: (not node.wrong_chain, max(0.0, node.aside_until - now)))

    def in_use(self) -> NodeT:
        """The node that is asked first, for questions whose trouble is nobody's. Raises SourceUnavailable."""
        node = self.in_order()[0]
        if not node.verified:
            raise SourceUnavailable(
                "No node is in use.", object_id=node.name, remedy="Ask again once one has answered."
            )
        return node

    async def ask(self, question: Callable[[NodeT], Awaitable[ResultT]]) -> ResultT:
        """The first good answer. If none is good, the error of the node that was asked first."""
        first_problem: SourceError | None = None
        for node in self.in_order():
            try:
                if not node.verified:
                    await self._verify(node)
                result = await question(node)
            except WrongChain:
                raise
            except (BlockNotFound, _Resting) as error:  # lagging and resting are no trouble
                first_problem = first_problem or error
            except SourceError as error:
                self.put_aside(node, error)
                first_problem = first_problem or error
            else:
                node.problem = None
                return result
        raise first_problem or SourceUnavailable("There is no node to ask.", object_id=self._expected.network)

    def put_aside(self, node: NodeT, error: SourceError) -> None:
        """Prefer other nodes for a while, no less than the node asks for; then check its chain anew."""
        asked = error.retry_after_seconds if isinstance(error, SourceUnavailable) else None
        now = self._now()
        node.aside_until = now + max(self._patience.aside_seconds, asked or 0)
        node.rest_until = now + min(asked or 0, REST_SECONDS_MAX)
        node.verified = False
        node.problem = error.what
        if self._on_trouble is not None:
            self._on_trouble(node)

    def states(self) -> tuple[NodeState, ...]:
        """The nodes as last seen, in configured order. Opens none."""
        if not self._nodes:
            return tuple(NodeState(name, False, None, _NOT_ASKED) for name in self._names)
        return tuple(
            NodeState(
                node.name,
                node.verified,
                node.height,
                node.problem if node.verified else node.problem or _NOT_ASKED,
            )
            for node in self._nodes
        )

    # -- what nodes said

    def note_head(self, node: NodeT, header: BlockHeader) -> BlockHeader:
        """Note that this is the node's newest block."""
        node.height = header.height
        return self._remember(node, header)

    def note_block(self, node: NodeT, header: BlockHeader, height: int) -> BlockHeader:
        """Note that the node named this block when asked for `height`. Raises SourceIncomplete if that is another's."""
        if header.height != height:
            raise SourceIncomplete(
                f"The node sent block {header.height} when asked for {height}.", object_id=node.name
            )
        return self._remember(node, header)

    def _remember(self, node: NodeT, header: BlockHeader) -> BlockHeader:
        self._origins[header.hash] = node
        if len(self._origins) > _ORIGINS_REMEMBERED_MAX:
            del self._origins[next(iter(self._origins))]
        return header

    # -- whether they serve the same

    async def identity(self) -> ChainIdentity:
        """Chain and first block, in which all nodes that answer must agree.

        Raises WrongChain if one does not, naming it and both values; else a SourceError if none answers.
        """
        outcomes = await self._of_each(self.nodes, self._verify)
        problems = [outcome for outcome in outcomes if isinstance(outcome, SourceError)]
        for problem in problems:
            if isinstance(problem, WrongChain):
                raise problem
        if len(problems) == len(self.nodes) or self._genesis is None:
            raise problems[0]
        return ChainIdentity(self._expected.chain, self._genesis)

    async def confirm_agreement(self, header: BlockHeader, below: Sequence[BlockRef] = ()) -> None:
        """Ask the other nodes for their block at this height. Raises SourcesDisagree, or WrongChain.

        `below`: blocks that it stands on, oldest first. A node that has no block so high is asked for the newest of
        them that it has: else one node could be a block ahead of all others for ever, on a chain of its own. One that
        is behind all of them or silent does not disagree. With one node there is nobody to ask. Where it is forgotten
        who named the header, it was the node that is asked first.
        """
        origin = self._origins.get(header.hash) or self.in_order()[0]
        others = [node for node in self.nodes if node is not origin]
        chain = [*below, header.ref]
        answers = await self._of_each(others, lambda node: self._newest_of(node, chain))
        for answer in answers:
            if isinstance(answer, SourceError):
                raise answer
            if answer is not None and answer.theirs != answer.ours.hash:
                raise SourcesDisagree(
                    f"Node {answer.name} has block {answer.theirs} where another node has {answer.ours.hash}.",
                    object_id=f"{self._expected.network} block {answer.ours.height}",
                    remedy="Crediting waits until they agree; if it lasts, find out which node is wrong.",
                )

    def expect_chain(self, node: NodeT, found: str) -> None:
        """Compare what the node says its chain is with ours. Raises WrongChain."""
        if found != self._expected.chain:
            raise self._refuse(node, f"serves chain {found}, but {self._expected.chain} is configured")

    async def _verify(self, node: NodeT) -> None:
        """Compare the node's chain and first block with ours. Raises WrongChain or another SourceError.

        Every node that failed is asked through here first; so here it is seen whether it wants to be.
        """
        rest = ceil(node.rest_until - self._now())
        if rest > 0:
            raise _Resting(
                node.problem or "The node does not want to be asked for a while.",
                object_id=node.name,
                remedy=f"It is asked again in {rest} s, which is what it wants.",
                retry_after_seconds=rest,
            )
        try:
            found = await self._read_identity(node)
        except WrongChain:
            raise
        except SourceError as error:
            self.put_aside(node, error)
            raise
        self.expect_chain(node, found.chain)
        if self._genesis is None:
            self._genesis = found.genesis_hash
        elif found.genesis_hash != self._genesis:
            raise self._refuse(
                node, f"has the first block {found.genesis_hash}, but {self._genesis} is expected"
            )
        node.verified, node.wrong_chain, node.problem = True, False, None

    def _refuse(self, node: NodeT, what: str) -> WrongChain:
        """Note it on the node, which is asked for its chain again before anything else is taken from it."""
        problem = f"Node {node.name} {what}."
        node.verified, node.wrong_chain, node.problem = False, True, problem
        return WrongChain(
            problem,
            object_id=self._expected.network,
            remedy="Correct the network's nodes or its chain; nothing is credited until then.",
        )

    async def _newest_of(self, node: NodeT, chain: Sequence[BlockRef]) -> _Compared | None:
        """The newest of these blocks at whose height the node has one. None: silent, or behind. Raises WrongChain."""
        seconds = self._patience.agreement_timeout_seconds
        try:
            async with nullcontext() if seconds is None else asyncio.timeout(seconds):
                if not node.verified:
                    await self._verify(node)
                return await self._search(node, chain)
        except WrongChain:
            raise
        except _Resting:
            return None
        except SourceError as error:
            self.put_aside(node, error)
        except TimeoutError:
            self.put_aside(node, SourceUnavailable("The node did not answer in time."))
        return None

    async def _search(self, node: NodeT, chain: Sequence[BlockRef]) -> _Compared | None:
        """Nearly always the node has the last. Else halve: one that has a block has all below it."""
        found = await self._compared(node, chain[-1])
        if found is not None or len(chain) == 1:
            return found
        found = await self._compared(node, chain[0])
        if found is None:
            return None
        there, missing = 0, len(chain) - 1
        while missing - there > 1:
            middle = (there + missing) // 2
            answer = await self._compared(node, chain[middle])
            if answer is None:
                missing = middle
            else:
                there, found = middle, answer
        return found

    async def _compared(self, node: NodeT, ours: BlockRef) -> _Compared | None:
        try:
            theirs = await self._hash_at(node, ours.height)
        except BlockNotFound:
            return None
        return None if theirs is None else _Compared(node.name, ours, theirs)

    async def _of_each(
        self, nodes: Sequence[NodeT], question: Callable[[NodeT], Awaitable[ResultT]]
    ) -> list[ResultT | SourceError]:
        """What each of these nodes answers, or its error: side by side, or one by one where nobody ever waits."""

        async def outcome(node: NodeT) -> ResultT | SourceError:
            try:
                return await question(node)
            except SourceError as error:
                return error

        if self._patience.agreement_timeout_seconds is None:
            return [await outcome(node) for node in nodes]
        return await asyncio.gather(*(outcome(node) for node in nodes))


def not_found(node: Node, height: int) -> BlockNotFound:
    """What to raise where the node says that it has no block at a height."""
    return BlockNotFound(
        f"The node has no block {height}.",
        object_id=node.name,
        remedy="It is behind, or the chain is shorter.",
    )
