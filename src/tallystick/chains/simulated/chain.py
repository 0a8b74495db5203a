"""The truth of a simulated network: a tree of blocks, which branch is the best, and what waits outside any block.

For: the simulation and tests, which mine, fork and pay here and look at it through `nodes`; `blocks` is what it is
made of.
Holds true: a block is a value that never changes and commits to its parent and to everything it holds, so equal hashes
mean equal histories. Along every branch the parents link, time never goes back (with `loose_times`: is later than the
median of the 11 blocks before, as Bitcoin asks), each spend key is used at most once, and no transaction spends an
output of one that is known here and stands neither below it nor before it. The same calls give the same hashes on
every machine.
Must not: read a clock, draw chance, wait, or know about invoices. Addresses are text in normal form; what senders own
is not asked: they can always pay, and an output of a transaction that nobody ever submitted is there to be spent.

Cost: blocks are shared and never copied. The best branch is indexed by height, so that asking for any block of it
takes constant time; asking on another branch takes time in its length since it left the best one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from tallystick.chains.simulated.blocks import (
    NO_PARENT,
    Reward,
    SimulatedBlock,
    Transaction,
    build_block,
    hashed,
)
from tallystick.core.chain import Channel, Trait, outpoint_of

MEDIAN_BLOCKS: Final = 11
"""So many blocks a loosely dated one is compared with: BIP113's median time past."""


class Impossible(ValueError):
    """A block or transaction was asked for that no chain could hold: a mistake of the caller."""


class SimulatedChain:
    """One network's blocks. `name` tells networks with the same chain id apart; `chain` is the id itself."""

    def __init__(self, name: str, chain: str, genesis_time: datetime, *, loose_times: bool = False) -> None:
        self.name = name
        self.chain = chain
        self.loose_times = loose_times
        first = build_block(None, genesis_time, salt=int(hashed(name, chain)[2:18], 16))
        self._blocks: dict[str, SimulatedBlock] = {first.hash: first}
        self._best: list[str] = [first.hash]
        self._known: dict[str, Transaction] = {}
        self._mempool: dict[str, Transaction] = {}
        self._waiting: dict[str, str] = {}  # spend key -> hash of the transaction in the mempool
        self._paid: dict[str, dict[str, int]] = {}  # address -> output ever made for it -> amount
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

    def unspent(self, address: str) -> dict[str, int]:
        """Outputs that came to an address, in the best chain or the mempool, and that nothing spends there: amounts.

        Without those that a block's miner made, which cannot be spent for a while.
        """
        return {
            outpoint: amount
            for outpoint, amount in self._paid.get(address, {}).items()
            if not self._known[_parent(outpoint)].is_made
            and (_parent(outpoint) in self._mempool or self.place(_parent(outpoint)) is not None)
            and outpoint not in self._waiting
            and self.spender(outpoint) is None
        }

    def earliest(self, parent: str | None = None) -> datetime:
        """The time that a block on `parent` (None: on the head) must at least have."""
        below = self.head if parent is None else self._blocks[parent]
        if not self.loose_times:
            return below.header.time
        times: list[datetime] = []
        for block in self.branch(below.hash):
            times.append(block.header.time)
            if len(times) == MEDIAN_BLOCKS:
                break
        return sorted(times)[len(times) // 2] + timedelta(seconds=1)

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
        """Put a transaction into the mempool; whatever needs one of its spend keys there is replaced, with what rests
        on it.

        One that the best chain has no room for any more (a spend key is used up, or an output that it spends is
        gone) is known from now on and waits nowhere; so is one that only miners make. Submitted again with other moves,
        it does those where it is mined next. Raises Impossible if other spend keys are named under the same hash.
        """
        before = self._known.get(transaction.hash)
        if before is not None and before.spend_keys != transaction.spend_keys:
            raise Impossible(
                f"Transaction {transaction.hash} spends {before.spend_keys}, which is in its hash."
            )
        self._know(transaction)
        if transaction.is_made or any(self.spender(key) is not None for key in transaction.spend_keys):
            return
        rivals = {self._waiting[key] for key in transaction.spend_keys if key in self._waiting}
        if any(_parent(key) in rivals for key in transaction.spend_keys):
            return  # it would replace what it rests on
        others = [one for one in self._mempool.values() if one.hash not in rivals - {transaction.hash}]
        if transaction.hash in self._mempool:
            others = [transaction if one.hash == transaction.hash else one for one in others]
        else:
            others.append(transaction)
        self._let_wait(others)

    def drop(self, tx_hash: str) -> None:
        """Take a transaction out of the mempool, if it is there, and what rests on it. It can still be mined or
        submitted again."""
        if tx_hash in self._mempool:
            self._let_wait([one for one in self._mempool.values() if one.hash != tx_hash])

    def _know(self, transaction: Transaction) -> None:
        self._known[transaction.hash] = transaction
        for move in transaction.moves:
            if move.channel is Channel.OUTPUT:
                outputs = self._paid.setdefault(move.to, {})
                outputs[f"{transaction.hash}:{move.ordinal}"] = move.amount

    def _let_wait(self, candidates: Iterable[Transaction]) -> None:
        """Make the mempool anew of these, in this order: each that the best chain and those before leave room for."""
        self._mempool, self._waiting = {}, {}
        for one in candidates:
            taken = any(key in self._waiting or self.spender(key) is not None for key in one.spend_keys)
            if taken or one.is_made or not self._has_parents(one, self._mempool, None):
                continue
            self._mempool[one.hash] = one
            self._waiting.update(dict.fromkeys(one.spend_keys, one.hash))

    def _has_parents(self, one: Transaction, before: Collection[str], head: str | None) -> bool:
        """Whether what it spends is there: in the branch, among those `before` it, or from where nobody looks."""
        parents = {_parent(key) for key in one.spends} & self._known.keys()
        return all(parent in before or self.place(parent, head) is not None for parent in parents)

    # -- blocks

    def minable(
        self, tx_hashes: Sequence[str] | None = None, *, parent: str | None = None
    ) -> tuple[str, ...]:
        """Of these known transactions (None: of the mempool) those that a block on `parent` can hold, in order."""
        used: set[str] = set()
        chosen: dict[str, None] = {}
        for tx_hash in self._mempool if tx_hashes is None else tx_hashes:
            one = self._known[tx_hash]
            free = all(key not in used and self.spender(key, parent) is None for key in one.spend_keys)
            if free and not one.is_made and self._has_parents(one, chosen, parent):
                used.update(one.spend_keys)
                chosen[tx_hash] = None
        return tuple(chosen)

    def mine(
        self,
        time: datetime,
        tx_hashes: Sequence[str] | None = None,
        *,
        parent: str | None = None,
        salt: int = 0,
        rewards: tuple[Reward, ...] = (),
        made: Sequence[Transaction] = (),
    ) -> SimulatedBlock:
        """Make a block. On the head (`parent` None) it is the new head; on a named parent it waits for `adopt`.

        `tx_hashes` None takes the mempool, leaving out what the branch has no room for; otherwise these transactions
        in this order, waiting or not. `made` are those that its miner makes: a coinbase stands before the others, what
        leaves an extension block behind them. `time` is aware, in whole seconds, not before `earliest`. The same
        content on the same parent is the same block; another `salt` makes it another one.
        Raises Impossible if a named transaction was never submitted, or its spend key is used up in that branch.
        """
        below = self.head if parent is None else self._blocks[parent]
        if time.tzinfo is None or time.microsecond or time < self.earliest(below.hash):
            raise Impossible(f"A block on {below.header.time} cannot be of {time}.")
        chosen = self.minable(tx_hashes, parent=below.hash) if tx_hashes is None else tuple(tx_hashes)
        if tx_hashes is not None and any(tx_hash not in self._known for tx_hash in chosen):
            raise Impossible("A transaction was never submitted.")
        if tx_hashes is not None and self.minable(chosen, parent=below.hash) != chosen:
            raise Impossible("A transaction's spend key is used up in this branch.")
        for one in made:
            if not one.is_made or any(self.spender(key, below.hash) is not None for key in one.spend_keys):
                raise Impossible(f"No miner can make {one.hash} here.")
            self._know(one)
        transactions = (
            *[one for one in made if Trait.COINBASE in one.traits],
            *[self._known[tx_hash] for tx_hash in chosen],
            *[one for one in made if Trait.COINBASE not in one.traits],
        )
        block = build_block(below.header, time, transactions, salt=salt, rewards=rewards)
        block = self._kept(block)
        if parent is None:
            self._best.append(block.hash)
            self._let_wait(list(self._mempool.values()))
        return block

    def adopt(self, block_hash: str, *, lose: Collection[str] = ()) -> None:
        """Make this block the head: how forks of any depth, shorter or longer, become the best chain.

        Transactions that only the lost branch held wait in the mempool again, oldest first, before those that waited
        already; but not those in `lose`, nor any whose spend key the new branch uses, nor what rests on such. Nothing
        that waits can spend the same: its place was taken when the lost branch held it. Raises KeyError.
        """
        block = self._blocks[block_hash]
        gained: list[SimulatedBlock] = []
        while not self.is_best(block.hash):
            gained.append(block)
            block = self._blocks[block.header.parent_hash]
        common = block.header.height
        lost = [self._blocks[lost_hash] for lost_hash in self._best[common + 1 :]]
        self._best[common + 1 :] = [one.hash for one in reversed(gained)]
        again = [
            self._known[transaction.hash]
            for one in lost
            for transaction in one.transactions
            if transaction.hash not in lose
        ]
        self._let_wait([*again, *self._mempool.values()])

    def _kept(self, block: SimulatedBlock) -> SimulatedBlock:
        """The block as the tree has it: one that was there already stays."""
        known = self._blocks.get(block.hash)
        if known is not None:
            return known
        self._blocks[block.hash] = block
        for transaction in block.transactions:
            for key in transaction.spend_keys:
                self._used.setdefault(key, {})[block.hash] = transaction.hash
            if transaction.spends:
                continue  # outputs have no accounts
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


def _parent(spend_key: str) -> str:
    """The transaction whose output a spend key names; empty for what is no output."""
    found = outpoint_of(spend_key)
    return "" if found is None else found[0]
