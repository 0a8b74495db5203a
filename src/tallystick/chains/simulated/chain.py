"""The truth of a simulated network: a tree of blocks, which branch is the best, and what waits outside any block.

For: the simulation and tests, which mine, fork and pay here and look at it through `nodes`.
Holds true: a block is a value that never changes and commits to its parent and to everything it holds, so equal hashes
mean equal histories. Along every branch the parents link, time never goes back, and each spend key is used at most
once. The same calls give the same hashes on every machine.
Must not: read a clock, draw chance, wait, or know about invoices. Addresses are text in normal form; what senders own
is not asked: they can always pay.

Cost: blocks are shared and never copied. The best branch is indexed by height, so that asking for any block of it
takes constant time; asking on another branch takes time in its length since it left the best one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from tallystick.core.chain import BlockHeader, Channel

NO_PARENT: Final = "0x" + "00" * 32
"""What the first block names as its parent."""

Reward = tuple[str, int]
"""Native coin that a block brings to an address without any transaction: a block's reward, a staking withdrawal."""


class Impossible(ValueError):
    """A block or transaction was asked for that no chain could hold: a mistake of the caller."""


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
    is what it does. `succeeds` off: it uses up its spend key and moves nothing.
    """

    hash: str
    sender: str
    nonce: int
    moves: tuple[Move, ...]
    succeeds: bool = True
    promises: tuple[Move, ...] | None = None

    @property
    def spend_key(self) -> str:
        """What a conflicting transaction would have to use as well."""
        return f"{self.sender}:{self.nonce}"

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
        return any(move.channel is not Channel.VALUE for move in (*self.moves, *self.announced))


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


class SimulatedChain:
    """One network's blocks. `name` tells networks with the same chain id apart; `chain` is the id itself."""

    def __init__(self, name: str, chain: str, genesis_time: datetime) -> None:
        self.name = name
        self.chain = chain
        first = build_block(None, genesis_time, salt=int(hashed(name, chain)[2:18], 16))
        self._blocks: dict[str, SimulatedBlock] = {first.hash: first}
        self._best: list[str] = [first.hash]
        self._known: dict[str, Transaction] = {}
        self._mempool: dict[str, Transaction] = {}
        self._waiting: dict[str, str] = {}  # spend key -> hash of the transaction in the mempool
        self._used: dict[str, dict[str, str]] = {}  # spend key -> block hash -> transaction hash
        self._touching: dict[
            str, dict[str, tuple[int, int]]
        ] = {}  # address -> block -> change of balance, nonces

    # -- looking

    @property
    def genesis(self) -> SimulatedBlock:
        """The first block."""
        return self._blocks[self._best[0]]

    @property
    def head(self) -> SimulatedBlock:
        """The newest block of the best chain."""
        return self._blocks[self._best[-1]]

    @property
    def height(self) -> int:
        """The head's height."""
        return len(self._best) - 1

    @property
    def mempool(self) -> Mapping[str, Transaction]:
        """What waits outside any block, by hash, in the order it came."""
        return MappingProxyType(self._mempool)

    @property
    def known(self) -> Mapping[str, Transaction]:
        """Every transaction ever submitted, by hash, as it was submitted last."""
        return MappingProxyType(self._known)

    @property
    def blocks(self) -> Mapping[str, SimulatedBlock]:
        """Every block of the tree, by hash, in the order mined."""
        return MappingProxyType(self._blocks)

    def block(self, block_hash: str) -> SimulatedBlock:
        """A block of the tree. Raises KeyError."""
        return self._blocks[block_hash]

    def has(self, block_hash: str) -> bool:
        """Whether the tree has this block, in whatever branch."""
        return block_hash in self._blocks

    def at(self, height: int, head: str | None = None) -> SimulatedBlock | None:
        """The block at `height` of the branch that ends in `head` (None: of the best chain); None above it."""
        if head is None:
            return self._blocks[self._best[height]] if 0 <= height < len(self._best) else None
        block = self._blocks[head]
        if not 0 <= height <= block.header.height:
            return None
        while block.header.height > height:
            if self.is_best(block.hash):
                return self._blocks[self._best[height]]
            block = self._blocks[block.header.parent_hash]
        return block

    def is_best(self, block_hash: str) -> bool:
        """Whether the block is in the best chain."""
        height = self._blocks[block_hash].header.height
        return height < len(self._best) and self._best[height] == block_hash

    def is_below(self, block_hash: str, head: str) -> bool:
        """Whether the block is in the branch that ends in `head`."""
        found = self.at(self._blocks[block_hash].header.height, head)
        return found is not None and found.hash == block_hash

    def branch(self, head: str | None = None) -> Iterator[SimulatedBlock]:
        """The blocks of a branch, from its head down to the first block."""
        block = self.head if head is None else self._blocks[head]
        yield block
        while block.header.parent_hash != NO_PARENT:
            block = self._blocks[block.header.parent_hash]
            yield block

    def spender(self, spend_key: str, head: str | None = None) -> str | None:
        """The transaction that used a spend key up in a branch, if any."""
        end = self.head.hash if head is None else head
        for block_hash, tx_hash in self._used.get(spend_key, {}).items():
            if self.is_below(block_hash, end):
                return tx_hash
        return None

    def place(self, tx_hash: str, head: str | None = None) -> SimulatedBlock | None:
        """The block of a branch that holds a transaction, if any."""
        end = self.head.hash if head is None else head
        transaction = self._known.get(tx_hash)
        if transaction is None:
            return None
        for block_hash, user in self._used.get(transaction.spend_key, {}).items():
            if user == tx_hash and self.is_below(block_hash, end):
                return self._blocks[block_hash]
        return None

    def balance(self, address: str, head: str | None = None) -> int:
        """Native coin at an address after a branch's last block: what arrived less what it sent.

        Below zero for an address that spends what never reached it: customers come with money of their own.
        """
        return self._sum(address, head, 0)

    def nonce(self, address: str, head: str | None = None) -> int:
        """How many transactions an address has sent in a branch."""
        return self._sum(address, head, 1)

    def _sum(self, address: str, head: str | None, which: int) -> int:
        end = self.head.hash if head is None else head
        touching = self._touching.get(address, {})
        return sum(change[which] for block_hash, change in touching.items() if self.is_below(block_hash, end))

    # -- outside any block

    def submit(self, transaction: Transaction) -> None:
        """Put a transaction into the mempool; whatever has the same spend key there is replaced.

        One that the best chain has no room for any more (its spend key is used up) is known from now on and waits
        nowhere. Submitted again with other moves, it does those where it is mined next. Raises Impossible if another
        sender or nonce is named under the same hash.
        """
        before = self._known.get(transaction.hash)
        if before is not None and before.spend_key != transaction.spend_key:
            raise Impossible(
                f"Transaction {transaction.hash} spends {before.spend_key}, which is in its hash."
            )
        self._known[transaction.hash] = transaction
        if self.spender(transaction.spend_key) is not None:
            return
        replaced = self._waiting.get(transaction.spend_key)
        if replaced is not None and replaced != transaction.hash:
            del self._mempool[replaced]
        self._mempool[transaction.hash] = transaction
        self._waiting[transaction.spend_key] = transaction.hash

    def drop(self, tx_hash: str) -> None:
        """Take a transaction out of the mempool, if it is there. It can still be mined or submitted again."""
        dropped = self._mempool.pop(tx_hash, None)
        if dropped is not None:
            del self._waiting[dropped.spend_key]

    # -- blocks

    def minable(
        self, tx_hashes: Sequence[str] | None = None, *, parent: str | None = None
    ) -> tuple[str, ...]:
        """Of these known transactions (None: of the mempool) those that a block on `parent` can hold, in order."""
        used: set[str] = set()
        chosen: list[str] = []
        for tx_hash in self._mempool if tx_hashes is None else tx_hashes:
            spend_key = self._known[tx_hash].spend_key
            if spend_key not in used and self.spender(spend_key, parent) is None:
                used.add(spend_key)
                chosen.append(tx_hash)
        return tuple(chosen)

    def mine(
        self,
        time: datetime,
        tx_hashes: Sequence[str] | None = None,
        *,
        parent: str | None = None,
        salt: int = 0,
        rewards: tuple[Reward, ...] = (),
    ) -> SimulatedBlock:
        """Make a block. On the head (`parent` None) it is the new head; on a named parent it waits for `adopt`.

        `tx_hashes` None takes the mempool, leaving out what the branch has no room for; otherwise these transactions
        in this order, waiting or not. `time` is aware, in whole seconds, not before the parent's. The same content on
        the same parent is the same block; another `salt` makes it another one.
        Raises Impossible if a named transaction was never submitted, or its spend key is used up in that branch.
        """
        below = self.head if parent is None else self._blocks[parent]
        if time.tzinfo is None or time.microsecond or time < below.header.time:
            raise Impossible(f"A block on {below.header.time} cannot be of {time}.")
        chosen = self.minable(tx_hashes, parent=below.hash) if tx_hashes is None else tuple(tx_hashes)
        if tx_hashes is not None and any(tx_hash not in self._known for tx_hash in chosen):
            raise Impossible("A transaction was never submitted.")
        if tx_hashes is not None and self.minable(chosen, parent=below.hash) != chosen:
            raise Impossible("A transaction's spend key is used up in this branch.")
        transactions = tuple([self._known[tx_hash] for tx_hash in chosen])
        block = build_block(below.header, time, transactions, salt=salt, rewards=rewards)
        block = self._kept(block)
        if parent is None:
            self._best.append(block.hash)
            self._clear(transactions)
        return block

    def adopt(self, block_hash: str, *, lose: Collection[str] = ()) -> None:
        """Make this block the head: how forks of any depth, shorter or longer, become the best chain.

        Transactions that only the lost branch held wait in the mempool again, oldest first, before those that waited
        already; but not those in `lose`, nor any whose spend key the new branch uses. Nothing that waits can spend the
        same: its place was taken when the lost branch held it. Raises KeyError.
        """
        block = self._blocks[block_hash]
        gained: list[SimulatedBlock] = []
        while not self.is_best(block.hash):
            gained.append(block)
            block = self._blocks[block.header.parent_hash]
        common = block.header.height
        lost = [self._blocks[lost_hash] for lost_hash in self._best[common + 1 :]]
        self._best[common + 1 :] = [one.hash for one in reversed(gained)]
        for one in gained:
            self._clear(one.transactions)
        waiting = self._mempool
        self._mempool = {}
        for one in lost:
            for transaction in one.transactions:
                spend_key = transaction.spend_key
                if self.spender(spend_key) is None and transaction.hash not in lose:
                    self._mempool[transaction.hash] = self._known[transaction.hash]
                    self._waiting[spend_key] = transaction.hash
        self._mempool.update(waiting)

    def _kept(self, block: SimulatedBlock) -> SimulatedBlock:
        """The block as the tree has it: one that was there already stays."""
        known = self._blocks.get(block.hash)
        if known is not None:
            return known
        self._blocks[block.hash] = block
        for transaction in block.transactions:
            self._used.setdefault(transaction.spend_key, {})[block.hash] = transaction.hash
            self._count(transaction.sender, block.hash, 0, 1)
            for move in transaction.done:
                if move.contract is None:
                    self._count(move.to, block.hash, move.amount, 0)
                    self._count(move.source or transaction.sender, block.hash, -move.amount, 0)
        for address, amount in block.rewards:
            self._count(address, block.hash, amount, 0)
        return block

    def _count(self, address: str, block_hash: str, amount: int, nonces: int) -> None:
        touching = self._touching.setdefault(address, {})
        before = touching.get(block_hash, (0, 0))
        touching[block_hash] = (before[0] + amount, before[1] + nonces)

    def _clear(self, transactions: Sequence[Transaction]) -> None:
        """Take out of the mempool what a block of the best chain used up."""
        for transaction in transactions:
            waiting = self._waiting.pop(transaction.spend_key, None)
            if waiting is not None:
                del self._mempool[waiting]


def _is_in_text(move: Move) -> bool:
    return move.channel is Channel.VALUE or (move.channel is Channel.LOG and move.ordinal == 0)


def _block_hash(parent: str, height: int, time: datetime, digest: str, inner: str, salt: int) -> str:
    return hashed("block", parent, height, int(time.timestamp()), digest, inner, salt)


def _plain(transaction: Transaction) -> tuple[Any, ...]:
    moves = [_move(move) for move in transaction.moves if move.channel is not Channel.TRACE]
    return (transaction.hash, transaction.sender, transaction.nonce, transaction.succeeds, tuple(moves))


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
