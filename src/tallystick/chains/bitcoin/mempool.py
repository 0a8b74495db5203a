"""What a node of Bitcoin's family shows outside any block.

For: the source; the follower turns snapshots into sightings. Holds true: nothing here is a fact of the chain. What
cannot be read is left out, transaction by transaction: a hint that is missing costs seconds, never money. Count, size
and time are bounded. No wallet and no index of the node is needed.
Must not: know which scripts are ours, or make a node look unhealthy.

One look asks for the list of ids between two questions for the best block, which must agree: else the list belongs to
neither. Bodies are read for ids that are new only, those that came since the look before first, then what is left of
the others. So a snapshot's `transfers` and `spends` are those of transactions first read within the last `WINDOW`, not
all that is in the mempool: whoever records sightings at each look has recorded the older ones, and asks about them by
their ids. What left the mempool leaves the window.

A transaction asked about is `present` if it is in the list, or in one of the newest blocks (a node without an index
does not find it there by its id). One that was mined long ago counts as missing; its block has been read by then.

Traits of a sighting. REPLACEABLE: an input says so (BIP125), or the node takes any replacement that pays more (Core
from 24 on tells whether it does, from 29 on always does), or a transaction that it rests on can be replaced.
UNCONFIRMED_PARENT: it spends an output of a transaction in the list. DUST: as in blocks. Litecoin's MWEB transactions:
their ids may never be mined, and what they pay out is an output of a later block's HogEx, so only their ordinary
outputs are shown, which keep their id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from tallystick.chains.bitcoin.blocks import Rules, header_of, transfers_of
from tallystick.chains.bitcoin.messages import (
    Hash,
    HeaderAnswer,
    ListedBlock,
    MempoolEntry,
    MempoolInfo,
)
from tallystick.chains.bitcoin.transactions import RawTransaction, transaction_alone
from tallystick.chains.json_rpc import (
    Answer,
    Batch,
    Call,
    RpcClient,
    RpcRefused,
    RpcTooLarge,
    value_in,
)
from tallystick.chains.source import MEMPOOL_ASKED_MAX
from tallystick.core.chain import BlockHeader, MempoolSnapshot, ObservedTransfer, Trait
from tallystick.core.errors import SourceIncomplete, SourceUnavailable

LOOK_SECONDS_MAX: Final = 5.0
"""A look takes no longer: meanwhile no block is read."""

BODIES_SECONDS_MAX: Final = 2.0
BODIES_PER_LOOK_MAX: Final = 2_000
BODIES_PER_BATCH_MAX: Final = 500

WINDOW_SECONDS: Final = 60.0
WINDOW_TRANSACTIONS_MAX: Final = 5_000
"""So long, and so many at most, transactions are shown after they were read."""

KNOWN_MAX: Final = 500_000
"""Ids that are looked at; of a longer list, the rest is not seen."""

RECENT_BLOCKS_MAX: Final = 3

_MIXED_BATCH: Final[msgspec.json.Decoder[Batch[msgspec.Raw]]] = msgspec.json.Decoder(
    list[Answer[msgspec.Raw]] | Answer[msgspec.Raw]
)
_HEADER: Final = msgspec.json.Decoder(Answer[HeaderAnswer | None])
_LISTED_BLOCK: Final = msgspec.json.Decoder(Answer[ListedBlock | None])
_HEX_DIGITS: Final = frozenset("0123456789abcdef")


@dataclass(slots=True)
class _Shown:
    """A transaction of the window: when it was read (seconds of the clock), and what it does."""

    at: float
    transfers: tuple[ObservedTransfer, ...]
    spend_keys: tuple[str, ...]


@dataclass(slots=True)
class MempoolMemory:
    """What is remembered of one node's mempool between looks. `backlog`: ids that were there at the first look."""

    known: set[str] = field(default_factory=set)
    backlog: set[str] | None = None
    window: dict[str, _Shown] = field(default_factory=dict)
    blocks: dict[str, ListedBlock] = field(default_factory=dict)
    head: BlockHeader | None = None


@dataclass(frozen=True, slots=True)
class _List:
    """What the list of ids said: the block that it stands on, and the ids in the node's order."""

    head: BlockHeader
    listed: dict[str, None]
    full_rbf: bool


async def read_mempool(
    rpc: RpcClient, memory: MempoolMemory, asked: Sequence[str], rules: Rules, now: Callable[[], float]
) -> MempoolSnapshot:
    """One node's snapshot. `now`: a clock that never goes back, in seconds. Raises SourceError."""
    try:
        async with asyncio.timeout(LOOK_SECONDS_MAX):
            shown = await _list(rpc, memory)
            await _read_new(rpc, memory, shown, rules, now)
            present, missing = await _answers(rpc, memory, shown, asked[:MEMPOOL_ASKED_MAX])
    except TimeoutError:
        raise SourceUnavailable(
            "The node did not show its mempool in time.", object_id=rpc.name, remedy="It is asked again."
        ) from None
    transfers: list[ObservedTransfer] = []
    spends: dict[str, str] = {}
    for tx_hash, one in memory.window.items():
        transfers.extend(one.transfers)
        spends.update(dict.fromkeys(one.spend_keys, tx_hash))
    return MempoolSnapshot(
        shown.head.ref, tuple(transfers), spends, present, missing, head_time=shown.head.time
    )


async def _list(rpc: RpcClient, memory: MempoolMemory) -> _List:
    """The ids outside any block, and the block that they are outside of."""
    calls = [
        Call("getbestblockhash"),
        Call("getrawmempool"),
        Call("getbestblockhash"),
        Call("getmempoolinfo"),
    ]
    before, listed, after, info = await rpc.batch(calls, _MIXED_BATCH)
    best = value_in(before, str)
    if value_in(after, str) != best:
        raise SourceUnavailable("A block came while the mempool was read.", object_id=rpc.name)
    about = value_in(info, MempoolInfo)
    if not about.loaded:
        raise SourceUnavailable(
            "The node has not loaded its saved mempool yet.", object_id=rpc.name, remedy="It is asked again."
        )
    ids: list[str] = value_in(listed, list[Hash])
    if memory.head is None or memory.head.hash != best:
        header = await rpc.call(Call("getblockheader", [best]), _HEADER)
        if header is None or header.hash != best:
            raise SourceIncomplete("The node sent another header than the one asked for.", object_id=rpc.name)
        memory.head = header_of(header)
    return _List(memory.head, dict.fromkeys(ids[:KNOWN_MAX]), about.takes_any_replacement)


async def _read_new(
    rpc: RpcClient, memory: MempoolMemory, shown: _List, rules: Rules, now: Callable[[], float]
) -> None:
    """Forget what is gone or has been shown long enough; read the bodies of what is new, as far as time allows."""
    listed = shown.listed
    memory.known.intersection_update(listed)
    if memory.backlog is None:
        memory.backlog = set(listed)
    else:
        memory.backlog.intersection_update(listed)
    begun = now()
    for tx_hash in [
        one for one, held in memory.window.items() if one not in listed or begun - held.at > WINDOW_SECONDS
    ]:
        del memory.window[tx_hash]
    unread = [one for one in listed if one not in memory.known]
    fresh = [one for one in unread if one not in memory.backlog]
    rest = [one for one in unread if one in memory.backlog]
    for batch in _parts((fresh + rest)[:BODIES_PER_LOOK_MAX]):
        if now() - begun > BODIES_SECONDS_MAX:
            return
        await _read_bodies(rpc, memory, shown, batch, rules, now())


def _parts(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(ids), BODIES_PER_BATCH_MAX):
        yield ids[start : start + BODIES_PER_BATCH_MAX]


async def _read_bodies(
    rpc: RpcClient, memory: MempoolMemory, shown: _List, ids: Sequence[str], rules: Rules, at: float
) -> None:
    """Read the bodies of these ids. One that alone is too large for us is left out for good."""
    try:
        answers = await rpc.batch([Call("getrawtransaction", [one]) for one in ids], _MIXED_BATCH)
    except RpcTooLarge:
        # Anybody can fill a mempool with large transactions: they must not hide those behind them.
        if len(ids) == 1:
            memory.known.add(ids[0])
            return
        half = len(ids) // 2
        for part in (ids[:half], ids[half:]):
            await _read_bodies(rpc, memory, shown, part, rules, at)
        return
    read: list[RawTransaction] = []
    for tx_hash, answer in zip(ids, answers, strict=True):
        if isinstance(answer, RpcRefused):
            if answer.limited:
                raise answer
            continue  # it left meanwhile; if it comes back it is in the next list
        memory.known.add(tx_hash)
        try:
            transaction = transaction_alone(value_in(answer, str))
        except SourceIncomplete:
            continue
        if transaction.tx_hash == tx_hash and transaction.outputs:
            read.append(transaction)
    parents = await _replaceable_parents(rpc, shown, read)
    for transaction in read:
        traits = parents.get(transaction.tx_hash, frozenset())
        if transaction.replaceable or shown.full_rbf:
            traits |= {Trait.REPLACEABLE}
        moved = tuple(transfers_of(transaction, rules, traits))
        memory.window[transaction.tx_hash] = _Shown(at, moved, transaction.spend_keys)
    while len(memory.window) > WINDOW_TRANSACTIONS_MAX:
        del memory.window[next(iter(memory.window))]


async def _replaceable_parents(
    rpc: RpcClient, shown: _List, read: Sequence[RawTransaction]
) -> dict[str, frozenset[Trait]]:
    """The traits that transactions have because of others that they rest on."""
    resting = [one for one in read if any(key[:64] in shown.listed for key in one.spend_keys)]
    traits = {one.tx_hash: frozenset({Trait.UNCONFIRMED_PARENT}) for one in resting}
    unsure = [one.tx_hash for one in resting if not one.replaceable] if not shown.full_rbf else []
    if unsure:
        answers = await rpc.batch([Call("getmempoolentry", [one]) for one in unsure], _MIXED_BATCH)
        for tx_hash, answer in zip(unsure, answers, strict=True):
            # A node that does not say so is one that would take a replacement, for all that we know.
            if isinstance(answer, RpcRefused) or value_in(answer, MempoolEntry).replaceable:
                traits[tx_hash] |= {Trait.REPLACEABLE}
    return traits


async def _answers(
    rpc: RpcClient, memory: MempoolMemory, shown: _List, asked: Sequence[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Which of the transactions asked about the node knows, and which not."""
    present = {one for one in asked if one in shown.listed}
    missing = {one for one in asked if one not in present and len(one) == 64 and _HEX_DIGITS.issuperset(one)}
    block_hash: str | None = shown.head.hash
    recent: dict[str, ListedBlock] = {}
    while missing and block_hash is not None and len(recent) < RECENT_BLOCKS_MAX:
        block = memory.blocks.get(block_hash)
        if block is None:
            block = await rpc.call(Call("getblock", [block_hash, 1]), _LISTED_BLOCK)
            if block is None:
                raise SourceIncomplete("The node answered nothing to getblock.", object_id=rpc.name)
        recent[block_hash] = block
        found = missing.intersection(block.tx)
        present |= found
        missing -= found
        block_hash = block.previous
    if recent:
        memory.blocks = recent
    return frozenset(present), frozenset(missing)
