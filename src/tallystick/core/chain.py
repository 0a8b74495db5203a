"""What a chain says, as values: blocks, observed transfers, and the view of which blocks are the best chain.

For: the vocabulary between a network's source, the intake of blocks and the assessment of invoices.
Holds true: facts only grow. A transfer is observed in blocks (its anchors); which anchor counts is computed
from the best chain, never stored as a counter. `connect` accepts a block only on top of the block it names
as its parent; anything else is answered with what to do next (`NeedsOlderBlock`).
Must not: know how a family encodes its blocks, or fetch anything.

Shapes: heights are block numbers, times are aware UTC datetimes with whole seconds (chain time), amounts are
integers of base units, hashes are the family's usual text form (0x-prefixed lower-case hex on EVM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Channel(StrEnum):
    """Where inside its transaction a transfer stands. Part of a transfer's identity, with the ordinal."""

    VALUE = "value"  # native coin moved by the transaction itself (EVM: tx.to and tx.value); ordinal 0
    LOG = "log"  # an event of a token contract; ordinal is the position among its transaction's own logs
    TRACE = "trace"  # native coin moved by a contract call; ordinal is the position among its inner moves
    BALANCE = "balance"  # native coin found on an address at a block, and explained by no transfer
    OUTPUT = "output"  # a transaction output; ordinal is the output index
    INVOICE = "invoice"  # a payment request settled off chain (Lightning); ordinal 0


class Trait(StrEnum):
    """What is true of a transfer besides its value, and says how far it can be relied on."""

    REPLACEABLE = "replaceable"  # its sender can replace it still: it says so (BIP125), or all can
    UNCONFIRMED_PARENT = "unconfirmed_parent"  # it spends what no block holds yet: it falls with its parent
    COINBASE = "coinbase"  # newly made coin: cannot be spent for 100 blocks, and is gone with its block
    PEGOUT = "pegout"  # came out of Litecoin's extension block: cannot be spent for 6 blocks
    DUST = "dust"  # less than it costs to spend: below the network's dust relay limit


RISKS: Final = frozenset({Trait.REPLACEABLE, Trait.UNCONFIRMED_PARENT})
"""Traits that matter while no block holds the transfer. A rule that lets sightings count may accept them by name."""

MATURITY: Final[Mapping[Trait, int]] = MappingProxyType({Trait.COINBASE: 100, Trait.PEGOUT: 6})
"""Blocks that must hold or follow a transfer before it can be spent, by the rules of the chain."""


@dataclass(frozen=True, slots=True)
class CreditKey:
    """Identity of one transfer: stays the same wherever and however often the transaction is mined."""

    network: str
    tx_hash: str
    channel: Channel
    ordinal: int


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block's place: its hash and height."""

    hash: str
    height: int


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """What links a block to its parent. `time` is the chain's own time of the block."""

    hash: str
    parent_hash: str
    height: int
    time: datetime

    @property
    def ref(self) -> BlockRef:
        """The block's place."""
        return BlockRef(self.hash, self.height)


@dataclass(frozen=True, slots=True)
class ObservedTransfer:
    """Value that a successful transaction of a block moved to `to`.

    `contract` is None for the native coin. `sender` is "" where the family names none (Bitcoin's: an output has no
    sender). `spend_keys` name what its transaction uses up (EVM: sender and nonce; Bitcoin's family: every output that
    it spends, as "<txid>:<vout>"); two transactions that share one of them can never both be in the best chain.
    `log_index` is the position in the whole block: evidence only, it changes when the block changes.
    """

    tx_hash: str
    channel: Channel
    ordinal: int
    sender: str
    to: str
    contract: str | None
    amount: int
    spend_keys: tuple[str, ...]
    log_index: int | None = None
    traits: frozenset[Trait] = frozenset()


@dataclass(frozen=True, slots=True)
class Block:
    """A complete, checked block: its header, all transfers in it, and what its transactions spent.

    `spends` maps spend key to transaction hash for every transaction of the block, also for failed ones: a
    failed transaction uses up its nonce and so replaces others. `untraced` says why native coin moved by contract
    calls is not among the transfers; None where it is, and where a network has no such thing.
    """

    header: BlockHeader
    transfers: tuple[ObservedTransfer, ...]
    spends: dict[str, str]
    untraced: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """A node's best block, and how far its network's own finality has come (None where it says nothing)."""

    header: BlockHeader
    safe_height: int | None = None
    finalized_height: int | None = None


@dataclass(frozen=True, slots=True)
class MempoolSnapshot:
    """What one node shows outside any block at one moment. A hint: another node may show something else.

    `head` is the block it would stand on; a snapshot of an older head than ours says nothing. `transfers` are what the
    transactions will move if they do as they say, under the credit keys that they will then have. `spends` is as in
    `Block`, for every transaction shown. Of the transactions that the node was asked about by their hashes, `present`
    are known to it (outside or inside a block), `missing` are not; one of which it said neither is in neither set.
    `head_time` is the chain time of `head`, in whose block none of them was; None where the family cannot tell it.
    """

    head: BlockRef
    transfers: tuple[ObservedTransfer, ...]
    spends: dict[str, str]
    present: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    head_time: datetime | None = None


def outpoint_of(spend_key: str) -> tuple[str, int] | None:
    """The output that a spend key names, as transaction and output index; None for a key of another kind."""
    tx_hash, _, index = spend_key.rpartition(":")
    # An EVM key ends in a number too, after an address: no hash of 32 bytes is that short.
    if len(tx_hash) < 64 or not (index.isascii() and index.isdecimal()):
        return None
    return tx_hash, int(index)


class Finality(StrEnum):
    """What makes a transfer confirmed: a number of blocks, or the network's own word."""

    DEPTH = "depth"
    SAFE = "safe"
    FINALIZED = "finalized"


@dataclass(frozen=True, slots=True)
class Requirement:
    """When a transfer counts as confirmed. `confirmations` matters for `Finality.DEPTH` only (>= 1).

    `zero_conf` lets a sighting outside any block count as confirmed; only a merchant's rule sets it. A sighting with
    one of `RISKS` counts only if that is among `accepted_risks`. `maturity`: so many blocks must hold or follow it
    besides, whatever the finality; it comes from a transfer's traits (`required_with`), never from a rule.
    """

    finality: Finality
    confirmations: int = 1
    zero_conf: bool = False
    accepted_risks: frozenset[Trait] = frozenset()
    maturity: int = 0


@dataclass(frozen=True, slots=True)
class Anchor:
    """That a certain block holds (or held) a transfer. Never edited; `in_best_chain` is the current view."""

    block: BlockRef
    time: datetime
    in_best_chain: bool


@dataclass(frozen=True, slots=True)
class NetworkView:
    """How far one network has been processed by us.

    `scanned_until` is the highest chain time of any block ever processed: it never goes back, so that a
    window once closed does not open again because of a reorganisation.
    `halted` means that crediting waits for a person's decision. `requirement` is the network's own, for what came
    there without being asked for there; None where the network is not configured (any more).
    """

    network: str
    tip: BlockRef | None
    scanned_until: datetime | None
    safe_height: int | None = None
    finalized_height: int | None = None
    halted: bool = False
    requirement: Requirement | None = None


def canonical_anchor(anchors: tuple[Anchor, ...]) -> Anchor | None:
    """The anchor in the best chain, if any. A transfer can stand in at most one block of one chain."""
    for anchor in anchors:
        if anchor.in_best_chain:
            return anchor
    return None


def confirmations(anchor: Anchor | None, view: NetworkView) -> int:
    """Blocks that hold or follow the transfer: `tip - anchor + 1`, or 0 outside the best chain."""
    if anchor is None or not anchor.in_best_chain or view.tip is None:
        return 0
    return max(0, view.tip.height - anchor.block.height + 1)


def required_with(requirement: Requirement, traits: frozenset[Trait]) -> Requirement:
    """What is required of a transfer with these traits: what cannot be spent yet is not confirmed, by no rule."""
    maturity = max((MATURITY[trait] for trait in traits if trait in MATURITY), default=0)
    if not maturity:
        return requirement
    needed = requirement.confirmations
    if requirement.finality is Finality.DEPTH:
        needed = max(needed, maturity)
    return replace(requirement, confirmations=needed, zero_conf=False, maturity=maturity)


def counts_at_sight(requirement: Requirement, traits: frozenset[Trait]) -> bool:
    """Whether a sighting of a transfer with these traits counts as confirmed, before any block holds it."""
    return requirement.zero_conf and traits & RISKS <= requirement.accepted_risks


def is_final(anchor: Anchor | None, requirement: Requirement, view: NetworkView) -> bool:
    """Whether a transfer at `anchor` meets the depth or finality, and the maturity, of `requirement`; never outside the
    best chain.

    `zero_conf` is not asked here: it is about sightings, which have no anchor.
    """
    if anchor is None or not anchor.in_best_chain or confirmations(anchor, view) < requirement.maturity:
        return False
    match requirement.finality:
        case Finality.DEPTH:
            return confirmations(anchor, view) >= max(1, requirement.confirmations)
        case Finality.SAFE:
            return view.safe_height is not None and anchor.block.height <= view.safe_height
        case Finality.FINALIZED:
            return view.finalized_height is not None and anchor.block.height <= view.finalized_height


def final_at_height(anchor: Anchor, requirement: Requirement) -> int:
    """The height that the tip (depth) or the finality marker (safe, finalized) must reach for `is_final`.

    With a maturity the tip must have reached `mature_at_height` besides.
    """
    if requirement.finality is Finality.DEPTH:
        return anchor.block.height + max(1, requirement.confirmations) - 1
    return anchor.block.height


def mature_at_height(anchor: Anchor, requirement: Requirement) -> int:
    """The height that the tip must reach for the maturity of `requirement`."""
    return anchor.block.height + max(1, requirement.maturity) - 1


@dataclass(frozen=True, slots=True)
class Connected:
    """The block stands on the cursor: process it and move the cursor to it."""

    block: BlockRef


@dataclass(frozen=True, slots=True)
class AlreadyConnected:
    """The block is the cursor itself: nothing to do."""

    block: BlockRef


@dataclass(frozen=True, slots=True)
class NeedsOlderBlock:
    """The block does not stand on the cursor: fetch `height` next and look for the common ancestor there."""

    height: int


def connect(cursor: BlockRef | None, header: BlockHeader) -> Connected | AlreadyConnected | NeedsOlderBlock:
    """Say what to do with `header` when our best chain ends at `cursor`.

    With no cursor yet the first block is accepted as it is. A block above the next height asks for the next
    height (a gap is never jumped). A block at or below the cursor, or one whose parent is another block than
    the cursor, asks for the block at the cursor's height: if that is still ours nothing happened, else the
    search for the common ancestor (`common_ancestor`) begins there.
    """
    if cursor is None:
        return Connected(header.ref)
    if header.ref == cursor:
        return AlreadyConnected(cursor)
    if header.height > cursor.height + 1:
        return NeedsOlderBlock(cursor.height + 1)
    if header.height == cursor.height + 1 and header.parent_hash == cursor.hash:
        return Connected(header.ref)
    return NeedsOlderBlock(min(cursor.height, header.height))


def common_ancestor(ours: tuple[BlockRef, ...], theirs: dict[int, str]) -> BlockRef | None:
    """The highest block of `ours` that `theirs` (height to hash) also has, or None if none is known to be shared."""
    for block in sorted(ours, key=lambda ref: ref.height, reverse=True):
        if theirs.get(block.height) == block.hash:
            return block
    return None
