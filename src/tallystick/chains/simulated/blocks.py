"""What a simulated network is made of, as values: moves, transactions, blocks, and what their hashes commit to.

For: the chain, its nodes, and everybody who builds or compares transactions. Holds true: a value never changes; a
block's hash commits to its parent and to everything it holds, a transaction's spend keys are part of what it is.
Must not: know a chain's state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tallystick.core.chain import BlockHeader, Channel, Trait

NO_PARENT: Final = "0x" + "00" * 32
"""What the first block names as its parent."""

MADE: Final = frozenset({Trait.COINBASE, Trait.PEGOUT})
"""Traits of what miners put into their blocks themselves."""

Reward = tuple[str, int]
"""Native coin that a block brings to an address without any transaction: a block's reward, a staking withdrawal."""


@dataclass(frozen=True, slots=True)
class Move:
    """Value that arrives at `to`: base units of the native coin, or of the token of `contract`.

    `ordinal` is the place within the transaction's channel, as in `ObservedTransfer`. `log_index` None: counted where
    the block is read, as real chains do. `source` is who it comes from; None: the transaction's sender.
    """

    to: str
    contract: str | None
    amount: int
    channel: Channel
    ordinal: int
    log_index: int | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Transaction:
    """A signed transaction and what it does where it is mined.

    `promises` is what its text says it will do, which is all that a mempool can show; None: what is plain in its text
    is what it does. `succeeds` off: it uses up its spend key and moves nothing. `spends` are the outputs that it uses
    up, as "<transaction>:<index>"; empty for an account's, which uses up its number. `traits`: REPLACEABLE if it
    signals so; COINBASE or PEGOUT if only a block's miner can make it, so that it never waits outside one.
    """

    hash: str
    sender: str
    nonce: int
    moves: tuple[Move, ...]
    succeeds: bool = True
    promises: tuple[Move, ...] | None = None
    spends: tuple[str, ...] = ()
    traits: frozenset[Trait] = frozenset()

    @property
    def spend_keys(self) -> tuple[str, ...]:
        """What it uses up: a transaction that needs any of them conflicts with it."""
        return self.spends or (f"{self.sender}:{self.nonce}",)

    @property
    def spend_key(self) -> str:
        """The first of its spend keys; an account's transaction has no other."""
        return self.spend_keys[0]

    @property
    def is_made(self) -> bool:
        """Whether a block's miner makes it."""
        return bool(self.traits & MADE)

    @property
    def done(self) -> tuple[Move, ...]:
        """What it moves in a block."""
        return self.moves if self.succeeds else ()

    @property
    def announced(self) -> tuple[Move, ...]:
        """What its text says: its own value, and the first event of a call straight to a token. No contract calls."""
        if self.promises is not None:
            return self.promises
        return tuple(move for move in self.moves if _is_in_text(move))

    @property
    def is_call(self) -> bool:
        """Whether it runs a contract, so that a node without traces does not tell all it did."""
        ours = (Channel.VALUE, Channel.OUTPUT)
        return any(move.channel not in ours for move in (*self.moves, *self.announced))


@dataclass(frozen=True, slots=True)
class SimulatedBlock:
    """A block. `digest` commits to all it holds but inner moves, `inner` to those, the header's hash to everything."""

    header: BlockHeader
    transactions: tuple[Transaction, ...]
    digest: str
    inner: str
    salt: int = 0
    rewards: tuple[Reward, ...] = ()

    @property
    def hash(self) -> str:
        """The header's hash."""
        return self.header.hash


def hashed(*content: Any) -> str:
    """A hash of texts, numbers, None and tuples of those: SHA-256 in the 0x form of EVM hashes (32 bytes).

    The text that Python gives for such values is different for different values and the same everywhere.
    """
    return "0x" + hashlib.sha256(repr(content).encode()).hexdigest()


def build_block(
    parent: BlockHeader | None,
    time: datetime,
    transactions: tuple[Transaction, ...] = (),
    *,
    salt: int = 0,
    rewards: tuple[Reward, ...] = (),
) -> SimulatedBlock:
    """The block with this content; it need not be part of any chain. No parent: a first block."""
    height = 0 if parent is None else parent.height + 1
    parent_hash = NO_PARENT if parent is None else parent.hash
    digest, inner = content_digest(transactions, rewards), inner_digest(transactions)
    header = BlockHeader(
        _block_hash(parent_hash, height, time, digest, inner, salt), parent_hash, height, time
    )
    return SimulatedBlock(header, transactions, digest, inner, salt, rewards)


def expected_hash(block: SimulatedBlock) -> str:
    """The hash that a block with this header, digests and salt must have."""
    header = block.header
    return _block_hash(header.parent_hash, header.height, header.time, block.digest, block.inner, block.salt)


def content_digest(transactions: Sequence[Transaction], rewards: tuple[Reward, ...]) -> str:
    """Commits to the transactions in their order, whether each succeeded, and all that a receipt would tell."""
    return hashed(tuple([_plain(transaction) for transaction in transactions]), rewards)


def inner_digest(transactions: Sequence[Transaction]) -> str:
    """Commits to what contract calls moved, which only traces tell."""
    return hashed(
        tuple(
            [
                (transaction.hash, _move(move))
                for transaction in transactions
                for move in transaction.done
                if move.channel is Channel.TRACE
            ]
        )
    )


def _is_in_text(move: Move) -> bool:
    return move.channel in (Channel.VALUE, Channel.OUTPUT) or (
        move.channel is Channel.LOG and move.ordinal == 0
    )


def _block_hash(parent: str, height: int, time: datetime, digest: str, inner: str, salt: int) -> str:
    return hashed("block", parent, height, int(time.timestamp()), digest, inner, salt)


def _plain(transaction: Transaction) -> tuple[Any, ...]:
    moves = [_move(move) for move in transaction.moves if move.channel is not Channel.TRACE]
    plain = (transaction.hash, transaction.sender, transaction.nonce, transaction.succeeds, tuple(moves))
    return (*plain, transaction.spends, tuple(sorted(transaction.traits))) if transaction.spends else plain


def _move(move: Move) -> tuple[Any, ...]:
    return (
        move.to,
        move.contract,
        move.amount,
        move.channel.value,
        move.ordinal,
        move.log_index,
        move.source,
    )
