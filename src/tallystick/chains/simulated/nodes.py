"""What one node shows of a simulated chain, with faults that the caller switches on.

For: `SimulatedSource`, which asks nodes and has to find out by itself what is wrong with their answers.
Holds true: without a fault a node shows the chain as it is. A fault changes answers and nothing else: never the chain,
never another node. Whatever a fault does, it does the same way every time.
Must not: tell the source that it lies, wait, or raise what a client of a real node would not have found by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from tallystick.chains.simulated.blocks import MADE, Move, SimulatedBlock, Transaction, build_block, hashed
from tallystick.chains.simulated.chain import SimulatedChain
from tallystick.chains.source import ChainIdentity
from tallystick.core.balance import AccountState
from tallystick.core.chain import (
    RISKS,
    BlockHeader,
    BlockRef,
    Channel,
    Head,
    MempoolSnapshot,
    ObservedTransfer,
    Trait,
)
from tallystick.core.errors import SourceUnavailable


class NodeFault(StrEnum):
    """What can be wrong with a node. Any number of them at once; those that say nothing win over those that lie."""

    TIMEOUT = "timeout"  # no answer in time
    UNAVAILABLE = "unavailable"  # refuses, is down, or answers what is no answer
    LIMITED = "limited"  # 429; `retry_after_seconds` says when to come back
    TRUNCATED = "truncated"  # a block's last move is missing, or its last transaction where nothing moved
    EMPTIED = "emptied"  # a block without its transactions
    DOUBLED = "doubled"  # a block with its last move twice, or its last transaction where nothing moved
    SWAPPED = "swapped"  # two transactions of a block in each other's place
    RELINKED = "relinked"  # a block that names another parent than its hash commits to
    OTHER_HEIGHT = "other_height"  # the block below the one asked for
    NOT_FOUND = "not_found"  # null for every block
    STUCK = "stuck"  # the head does not move from where it was when the fault began
    REWOUND = "rewound"  # the head is `depth` blocks below the true one
    BRANCH = "branch"  # shows the branch that ends in `block`
    FORGED = "forged"  # from `height` on other content, hashed anew consistently: only another node can contradict it
    WRONG_CHAIN = "wrong_chain"  # serves another chain: `chain`, or one of its own making
    NO_STATE = "no_state"  # has no balances
    UNTRACED = "untraced"  # tells nothing of what contract calls move, and says so
    NO_MEMPOOL = "no_mempool"  # shows nothing outside blocks, but knows transactions by their hashes
    FORGETFUL = "forgetful"  # shows nothing outside blocks, and says that it does not know what is there
    SPEECHLESS = "speechless"  # shows its mempool, but says nothing about transactions asked about
    DEAF_MEMPOOL = "deaf_mempool"  # does not answer about its mempool at all


Forgery = Callable[[tuple[Transaction, ...]], tuple[Transaction, ...]]
"""What a lying node makes of a block's transactions."""

DUST_BELOW: Final = 546
"""Outputs of less are dust: what Bitcoin Core relays for the oldest kind of address. One limit for all kinds here."""

_TELL_NOTHING: Final = (NodeFault.TIMEOUT, NodeFault.UNAVAILABLE, NodeFault.LIMITED)


def leave_out(_transactions: tuple[Transaction, ...]) -> tuple[Transaction, ...]:
    """The lie that nothing happened."""
    return ()


def inflate(transactions: tuple[Transaction, ...]) -> tuple[Transaction, ...]:
    """The lie that ten times as much was moved. What pays outputs has them in its hash, so it gets another one."""
    return tuple(
        replace(
            one,
            hash=hashed("inflated", one.hash)[2:] if one.spends else one.hash,
            moves=tuple([replace(move, amount=10 * move.amount) for move in one.moves]),
        )
        for one in transactions
    )


@dataclass(frozen=True, slots=True)
class BlockAnswer:
    """A block as a node tells it, to be checked by whoever asked; `untraced` says why inner moves are not told."""

    block: SimulatedBlock
    untraced: str | None = None


@dataclass(slots=True)
class _Fault:
    """A fault that is switched on. `left`: how many more answers it spoils; None: all until it is cleared."""

    left: int | None
    depth: int
    height: int
    retry_after_seconds: int | None
    block: str
    chain: SimulatedChain
    forgery: Forgery
    forged: dict[str, SimulatedBlock] = field(default_factory=dict)


class SimulatedNode:
    """One node of `chain`. `safe_lag` and `finalized_lag`: how far the network's markers stay below its head, in
    blocks; None: it says nothing of them. Both may be changed at any time."""

    def __init__(
        self,
        name: str,
        chain: SimulatedChain,
        *,
        safe_lag: int | None = None,
        finalized_lag: int | None = None,
    ) -> None:
        self.name = name
        self.chain = chain
        self.safe_lag = safe_lag
        self.finalized_lag = finalized_lag
        self.hidden: set[str] = set()
        self.extra: dict[str, Transaction] = {}
        self._faults: dict[NodeFault, _Fault] = {}

    # -- the caller's switches

    @property
    def faults(self) -> Mapping[NodeFault, object]:
        """The faults that are on."""
        return MappingProxyType(self._faults)

    def inject(
        self,
        fault: NodeFault,
        *,
        answers: int | None = None,
        depth: int = 1,
        height: int | None = None,
        block: str | None = None,
        chain: SimulatedChain | None = None,
        forgery: Forgery = leave_out,
        retry_after_seconds: int | None = None,
    ) -> None:
        """Switch a fault on, for so many answers that it spoils (None: until cleared). Only what it needs is read.

        FORGED begins at `height` (None: with the next block). BRANCH and STUCK show `block`'s branch (None: the
        branch of the present head). A fault that is on already begins anew.
        """
        other = chain
        if other is None:
            own = self.chain
            other = SimulatedChain(f"not {own.name}", f"{own.chain}0", own.genesis.header.time)
        self._faults[fault] = _Fault(
            left=answers,
            depth=depth,
            height=self.chain.height + 1 if height is None else height,
            retry_after_seconds=retry_after_seconds,
            block=self.chain.head.hash if block is None else self.chain.block(block).hash,
            chain=other,
            forgery=forgery,
        )

    def clear(self, fault: NodeFault | None = None) -> None:
        """Switch a fault off; None: all of them."""
        if fault is None:
            self._faults.clear()
        else:
            self._faults.pop(fault, None)

    def withhold(self, *tx_hashes: str) -> None:
        """Let these transactions be missing from this node's mempool only."""
        self.hidden.update(tx_hashes)

    def whisper(self, transaction: Transaction) -> None:
        """Let this transaction be in this node's mempool only, instead of any that spends the same."""
        self.extra[transaction.hash] = transaction

    def restart(self) -> None:
        """Let it forget what waits now: it shows only what is sent from now on, until `equalize`."""
        self.hidden.update(self.chain.mempool)
        self.extra.clear()

    def equalize(self) -> None:
        """Let the node's mempool be everybody's again."""
        self.hidden.clear()
        self.extra.clear()

    # -- answers. All raise SourceUnavailable where the node says nothing; None is its null.

    def identity(self) -> ChainIdentity:
        """The chain it serves."""
        self._answer()
        chain, _ = self._view()
        return ChainIdentity(chain.chain, chain.genesis.hash)

    def head(self) -> tuple[str, Head]:
        """The chain's id and its best block, with finality where the network has it."""
        self._answer()
        chain, head = self._view()
        header = self._shown(chain.block(head)).header
        return chain.chain, Head(
            header, _below(header.height, self.safe_lag), _below(header.height, self.finalized_lag)
        )

    def header_at(self, height: int) -> BlockHeader | None:
        """The header at a height of the branch it shows."""
        block = self._block_at(height)
        return None if block is None else block.header

    def block_at(self, height: int) -> BlockAnswer | None:
        """The whole block at a height of the branch it shows, as badly as its faults make it."""
        block = self._block_at(height)
        if block is None:
            return None
        untraced = None
        if self._uses(NodeFault.UNTRACED):
            untraced = "The node has no tracing." if any(one.is_call for one in block.transactions) else None
            block = replace(block, transactions=_without_traces(block.transactions))
        for fault, spoil in _SPOILS.items():
            spoiled = spoil(block)
            if spoiled != block and self._uses(fault):
                block = spoiled
        return BlockAnswer(block, untraced)

    def accounts(self, at: BlockRef, addresses: Sequence[str]) -> list[AccountState]:
        """Balances and nonces right after a block, which has to be in the branch that it shows."""
        self._answer()
        chain, head = self._view()
        block = chain.at(at.height, head)
        if block is None or self._shown(block).hash != at.hash or self._uses(NodeFault.NO_STATE):
            raise SourceUnavailable(f"The node has no state of block {at.hash}.", object_id=self.name)
        return [
            AccountState(max(0, chain.balance(address, block.hash)), chain.nonce(address, block.hash))
            for address in addresses
        ]

    def pool(self, asked: Sequence[str]) -> MempoolSnapshot:
        """What it shows outside any block, and whether it knows what it is asked about."""
        self._answer()
        if self._uses(NodeFault.DEAF_MEMPOOL):
            raise SourceUnavailable("The node did not show its mempool in time.", object_id=self.name)
        chain, head = self._view()
        waiting = {} if self._uses(NodeFault.FORGETFUL) else self._waiting(chain, head)
        present = frozenset(one for one in asked if one in waiting or chain.place(one, head) is not None)
        missing = frozenset(asked) - present
        if self._uses(NodeFault.NO_MEMPOOL):
            waiting = {}
        if self._uses(NodeFault.SPEECHLESS):
            present, missing = present & waiting.keys(), frozenset()
        transfers = [
            ObservedTransfer(
                one.hash,
                move.channel,
                move.ordinal,
                move.source or one.sender,
                move.to,
                move.contract,
                move.amount,
                one.spend_keys,
                traits=traits_of(one, move) | _risks(one, waiting),
            )
            for one in waiting.values()
            for move in one.announced
            if move.amount > 0
        ]
        ref = self._shown(chain.block(head)).header.ref
        spends = {key: one.hash for one in waiting.values() for key in one.spend_keys}
        return MempoolSnapshot(ref, tuple(transfers), spends, present, missing)

    # -- how faults work

    def _uses(self, fault: NodeFault) -> _Fault | None:
        """The fault, if it is on; one more answer is spoiled by it."""
        found = self._faults.get(fault)
        if found is None or found.left is None:
            return found
        found.left -= 1
        if found.left <= 0:
            del self._faults[fault]
        return found

    def _answer(self) -> None:
        """Raise what a client makes of a node that says nothing."""
        for fault in _TELL_NOTHING:
            found = self._uses(fault)
            if found is not None:
                raise SourceUnavailable(
                    f"The node does not answer ({fault}).",
                    object_id=self.name,
                    remedy="It is asked again.",
                    retry_after_seconds=found.retry_after_seconds,
                )

    def _view(self) -> tuple[SimulatedChain, str]:
        """The chain that it serves, and the block that it calls the head."""
        wrong = self._uses(NodeFault.WRONG_CHAIN)
        if wrong is not None:
            return wrong.chain, wrong.chain.head.hash
        shown = self._uses(NodeFault.BRANCH) or self._uses(NodeFault.STUCK)
        head = self.chain.head if shown is None else self.chain.block(shown.block)
        rewound = self._uses(NodeFault.REWOUND)
        if rewound is not None:
            head = self.chain.at(max(0, head.header.height - rewound.depth), head.hash) or head
        return self.chain, head.hash

    def _block_at(self, height: int) -> SimulatedBlock | None:
        self._answer()
        chain, head = self._view()
        if height > 0 and self._uses(NodeFault.OTHER_HEIGHT):
            height -= 1
        block = chain.at(height, head)
        if block is None or self._uses(NodeFault.NOT_FOUND):
            return None
        return self._shown(block)

    def _shown(self, block: SimulatedBlock) -> SimulatedBlock:
        """The block, or what a forger makes of it: other content, and hashes that fit it all the way up."""
        forged = self._faults.get(NodeFault.FORGED)
        if forged is None or block.header.height < forged.height or not self.chain.has(block.hash):
            return block
        self._uses(NodeFault.FORGED)
        above: list[SimulatedBlock] = []
        while block.header.height >= max(1, forged.height) and block.hash not in forged.forged:
            above.append(block)
            block = self.chain.block(block.header.parent_hash)
        result = forged.forged.get(block.hash, block)
        for one in reversed(above):
            result = build_block(
                result.header,
                one.header.time,
                forged.forgery(one.transactions),
                salt=one.salt,
                rewards=one.rewards,
            )
            forged.forged[one.hash] = result
        return result

    def _waiting(self, chain: SimulatedChain, head: str) -> dict[str, Transaction]:
        """The mempool as this node has it: nothing that its own branch used up."""
        if chain is not self.chain:
            return dict(chain.mempool)
        own = {key for one in self.extra.values() for key in one.spend_keys}
        waiting = {
            tx_hash: one
            for tx_hash, one in chain.mempool.items()
            if tx_hash not in self.hidden and own.isdisjoint(one.spend_keys)
        } | self.extra
        return {
            tx_hash: one
            for tx_hash, one in waiting.items()
            if all(chain.spender(key, head) is None for key in one.spend_keys)
        }


def traits_of(transaction: Transaction, move: Move) -> frozenset[Trait]:
    """What is true of an output wherever it stands: who made it, and whether it is worth spending."""
    traits = transaction.traits & MADE
    if move.channel is Channel.OUTPUT and move.amount < DUST_BELOW:
        traits |= {Trait.DUST}
    return traits


def _risks(transaction: Transaction, waiting: Mapping[str, Transaction]) -> frozenset[Trait]:
    """What can still happen to a transaction outside any block, also because of those that it rests on (BIP125)."""
    risks, rests_on, seen = transaction.traits & RISKS, [transaction], {transaction.hash}
    while rests_on:
        for parent in {key.rpartition(":")[0] for key in rests_on.pop().spends} & waiting.keys() - seen:
            risks |= {Trait.UNCONFIRMED_PARENT} | (waiting[parent].traits & RISKS)
            rests_on.append(waiting[parent])
            seen.add(parent)
    return risks


def _below(height: int, lag: int | None) -> int | None:
    return None if lag is None else max(0, height - lag)


def _without_traces(transactions: tuple[Transaction, ...]) -> tuple[Transaction, ...]:
    return tuple(
        replace(one, moves=tuple([move for move in one.moves if move.channel is not Channel.TRACE]))
        for one in transactions
    )


def _truncated(block: SimulatedBlock) -> SimulatedBlock:
    place = _last_moving(block.transactions)
    if place is None:
        return replace(block, transactions=block.transactions[:-1])
    one = block.transactions[place]
    return _with(block, place, replace(one, moves=one.moves[:-1]))


def _doubled(block: SimulatedBlock) -> SimulatedBlock:
    place = _last_moving(block.transactions)
    if place is None:
        return replace(block, transactions=block.transactions + block.transactions[-1:])
    one = block.transactions[place]
    return _with(block, place, replace(one, moves=one.moves + one.moves[-1:]))


def _last_moving(transactions: tuple[Transaction, ...]) -> int | None:
    return next((place for place in reversed(range(len(transactions))) if transactions[place].done), None)


def _with(block: SimulatedBlock, place: int, transaction: Transaction) -> SimulatedBlock:
    transactions = block.transactions
    return replace(block, transactions=(*transactions[:place], transaction, *transactions[place + 1 :]))


def _emptied(block: SimulatedBlock) -> SimulatedBlock:
    return replace(block, transactions=())


def _swapped(block: SimulatedBlock) -> SimulatedBlock:
    if len(block.transactions) < 2:
        return block
    first, second, *others = block.transactions
    return replace(block, transactions=(second, first, *others))


def _relinked(block: SimulatedBlock) -> SimulatedBlock:
    header = block.header
    return replace(
        block, header=replace(header, parent_hash=header.parent_hash[:2] + header.parent_hash[:1:-1])
    )


_SPOILS: Final[dict[NodeFault, Callable[[SimulatedBlock], SimulatedBlock]]] = {
    NodeFault.TRUNCATED: _truncated,
    NodeFault.EMPTIED: _emptied,
    NodeFault.DOUBLED: _doubled,
    NodeFault.SWAPPED: _swapped,
    NodeFault.RELINKED: _relinked,
}
