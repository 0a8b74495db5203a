"""The protocol every network family speaks.

For: the follower, which asks for heads and blocks and never learns which family answers.
Holds true: an answer is complete and checked, or an error of `core.errors.SourceError`'s tree is raised;
"nothing" is never the meaning of a failed, truncated, empty or lagging answer. Every call is bounded in
time and size.
Must not: decide anything about payments, or remember facts between calls (caches of immutable blocks aside).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from tallystick.core.balance import AccountState
from tallystick.core.chain import Block, BlockHeader, BlockRef, Head, MempoolSnapshot

MEMPOOL_ASKED_MAX: Final = 200
"""Transactions that a node is asked about in one look at its mempool."""

ACCOUNTS_ASKED_MAX: Final = 200
"""Addresses whose balances are asked for at a time."""


@dataclass(frozen=True, slots=True)
class ChainIdentity:
    """What pins a chain: its id in the family's own terms and the hash of its first block."""

    chain: str
    genesis_hash: str


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node as last seen. `name` is safe to show: host and port, no credentials."""

    name: str
    ok: bool
    height: int | None
    problem: str | None


@runtime_checkable
class AccountSource(Protocol):
    """What some families can say besides: what an address holds. A source of such a family is both."""

    async def accounts_at(self, block: BlockRef, addresses: Sequence[str]) -> list[AccountState]:
        """These addresses (normal form, at most `ACCOUNTS_ASKED_MAX`) right after `block`, in the given order.

        Raises SourceError; a node that no longer has that block's state is one that does not answer.
        """
        ...


@runtime_checkable
class FeeSource(Protocol):
    """What some families can say besides: what a transaction should pay now. A source of such a family is both."""

    async def fee_rate(self) -> int | None:
        """Base units per 1,000 vbytes; None where the node has seen too little to say. Raises SourceError."""
        ...


@runtime_checkable
class HintSource(Protocol):
    """A source that may be told by its nodes when there is something to look at. Looking regularly stays the truth."""

    async def hint(self, stop: asyncio.Event) -> None:
        """Return when something may be new, or at `stop`; without a channel of that kind only then. Never an error.

        May be cancelled at any time. What is missed, doubled or made up costs a look, never more.
        """
        ...


class Source(Protocol):
    """Where one network's facts come from. One instance per network, used by one follower at a time."""

    async def identity(self) -> ChainIdentity:
        """The chain that the nodes serve. Raises WrongChain when one of them serves another than configured."""
        ...

    async def head(self) -> Head:
        """The best block of the node in use, with the network's finality markers where it has them."""
        ...

    async def header_at(self, height: int) -> BlockHeader:
        """The best chain's header at `height`. Raises BlockNotFound above the node's head."""
        ...

    async def block_at(self, height: int) -> Block:
        """The best chain's complete block at `height`, fetched by its hash and checked against itself.

        Raises BlockNotFound, SourceIncomplete or SourceUnavailable; all mean: ask again later.
        """
        ...

    async def confirm_agreement(self, header: BlockHeader, below: Sequence[BlockRef] = ()) -> None:
        """Ask every other node for its block at this height; SourcesDisagree if one names another hash.

        `below`: blocks that it stands on, oldest first. A node that has no block so high is asked for the newest of
        them that it has. One that is behind all of them or silent does not disagree; it is shown in `nodes`.
        """
        ...

    async def mempool(self, asked: Sequence[str] = ()) -> MempoolSnapshot | None:
        """What the node in use shows outside any block, and whether it still knows the transactions `asked` about.

        `asked` are transaction hashes; at most `MEMPOOL_ASKED_MAX` of them are asked about. Where a mempool is too
        large to be read at each look, a transaction is shown for a minute after it was first read, not for ever: record
        it then, and ask about it. None: networks of this family have no mempool. Raises SourceError, after which
        nothing is known; no node is thought worse of for it.
        """
        ...

    def nodes(self) -> tuple[NodeState, ...]:
        """The nodes as last seen, in configured order."""
        ...

    async def close(self) -> None:
        """Release connections. The source must not be used afterwards."""
        ...
