"""Comparing stored blocks with another node of the same network.

For: `tallystick audit --rpc`. Holds true: a block of our best chain has the hash that the node names at its height, and
holds exactly the transfers to issued addresses that are stored for it: nothing is missing, nothing is invented; what
could not be read is counted, never taken for agreement. What differs is read a second time, from both, before it is
told: a block may leave the best chain meanwhile.
Must not: write anything, or take the node's word for more than the comparison.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from tallystick.chains.source import Source
from tallystick.core.chain import Block, Channel, ObservedTransfer
from tallystick.core.errors import BlockNotFound, SourceError
from tallystick.core.invoice import DUST_PER_PRICE
from tallystick.core.network import Network
from tallystick.db import audit as stored
from tallystick.db.spends import own_outputs
from tallystick.db.sql import Record
from tallystick.services.auditing import Problem, Rule
from tallystick.services.context import Context
from tallystick.services.credit_keys import identity_of, stored_identity
from tallystick.services.intake import SQL as INTAKE
from tallystick.services.intake import UNASKED_MAX, unasked

SAMPLE_BLOCKS: Final = 100
TIP_BLOCKS: Final = 64
AT_ONCE: Final = 8
SECOND_LOOK_SECONDS: Final = 3.0
PROBLEMS_MAX: Final = 1_000
CLOCKS_APART: Final = timedelta(minutes=10)
"""By how much a chain's clock may be behind ours. What came to an address before it was issued is not ours to know."""

LOOSE_CLOCKS_APART: Final = timedelta(hours=2)
"""The same where miners may date a block back (`Network.loose_times`): by an hour, more while blocks are slow."""

CHAIN_RULES: Final = (
    Rule(
        "block-hash", "A block of the best chain is the one that another node names at its height.", "whole"
    ),
    Rule("block-link", "It stands on the block, and has the time, that the other node says.", "whole"),
    Rule("transfer-missing", "Every transfer to an issued address in such a block is stored.", "whole"),
    Rule(
        "transfer-invented",
        "Every transfer that is stored for such a block is in it, as it is stored.",
        "whole",
    ),
    Rule(
        "conflict-invented",
        "What is said to have replaced a transfer is in the block, and used up its key.",
        "whole",
    ),
    Rule(
        "spending-differs",
        "The outputs of ours that such a block spends are stored as spent by just these transactions.",
        "whole",
    ),
)
"""What is compared with another node."""


@dataclass(slots=True)
class Compared:
    """What was compared, by name, what could not be read, and what differs."""

    blocks: int = 0
    transfers: int = 0
    blocks_unread: int = 0
    traces_unread: int = 0
    balances_not_compared: int = 0
    problems: list[Problem] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def checked(self) -> dict[str, int]:
        """The figures for a report."""
        return {
            "blocks_compared": self.blocks,
            "blocks_unread": self.blocks_unread,
            "transfers_compared": self.transfers,
            "traces_unread": self.traces_unread,
            "balances_not_compared": self.balances_not_compared,
        }


def chosen_heights(everything: Sequence[int], ours: Sequence[int]) -> list[int]:
    """What is compared unless said otherwise: blocks that hold something of ours, the newest, and some of the rest.

    `everything` is sorted upwards. The sample is spread evenly over all that is stored.
    """
    step = max(1, len(everything) // SAMPLE_BLOCKS)
    return sorted({*ours, *everything[-TIP_BLOCKS:], *everything[::step]})


async def heights_to_compare(
    ctx: Context, network: str, wanted: str | int | tuple[int, int]
) -> tuple[list[int], int]:
    """The heights to compare, and how many are stored. `wanted`: "ours", "all", the newest so many, or from and to."""
    async with ctx.database.snapshot() as connection:
        everything = await stored.heights(connection, network, ours=False)
        if wanted == "ours":
            ours = await stored.heights(connection, network, ours=True)
            return chosen_heights(everything, ours), len(everything)
    if isinstance(wanted, tuple):
        return [one for one in everything if wanted[0] <= one <= wanted[1]], len(everything)
    return (everything[-wanted:] if isinstance(wanted, int) else everything), len(everything)


async def compare(
    ctx: Context,
    network: Network,
    source: Source,
    heights: Sequence[int],
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
    second_look_seconds: float = SECOND_LOOK_SECONDS,
) -> Compared:
    """Compare what is stored at these heights with what the source says. Raises WrongChain where it serves another."""
    await source.identity()
    found = Compared()
    for start in range(0, len(heights), AT_ONCE):
        part = heights[start : start + AT_ONCE]
        looks = await asyncio.gather(*(_look(ctx, network, source, height) for height in part))
        for height, look in zip(part, looks, strict=True):
            if look.problems:
                await asyncio.sleep(second_look_seconds)
                look = _both(look, await _look(ctx, network, source, height))  # noqa: PLW2901  # the later look counts
            _add(found, look)
        on_progress(min(start + AT_ONCE, len(heights)), len(heights))
    return found


def _both(first: Compared, second: Compared) -> Compared:
    """The second look, with only the problems that both have."""
    known = {(problem.rule, problem.object_id) for problem in first.problems}
    second.problems = [one for one in second.problems if (one.rule, one.object_id) in known]
    return second


def _add(found: Compared, look: Compared) -> None:
    found.blocks += look.blocks
    found.transfers += look.transfers
    found.blocks_unread += look.blocks_unread
    found.traces_unread += look.traces_unread
    found.balances_not_compared += look.balances_not_compared
    found.problems.extend(look.problems[: PROBLEMS_MAX - len(found.problems)])
    found.unread.extend(look.unread[: PROBLEMS_MAX - len(found.unread)])


async def _look(ctx: Context, network: Network, source: Source, height: int) -> Compared:
    """One block, as both say it is."""
    look = Compared()
    try:
        block = await source.block_at(height)
    except SourceError as error:
        look.blocks_unread = 1
        why = "the node does not have it" if isinstance(error, BlockNotFound) else str(error)
        look.unread.append(f"{network.name} {height}: {why}")
        return look
    async with ctx.database.snapshot() as connection:
        known = await stored.stored_block(connection, network.name, height)
        if known is None:
            return look  # pruned, or it left the best chain meanwhile
        look.blocks = 1
        header = block.header
        if header.hash != known.hash:
            detail = f"at height {height} of {network.name} the node names {header.hash}"
            look.problems.append(Problem("block-hash", known.hash, detail))
            return look
        if (header.parent_hash, header.time) != (known.parent_hash, known.time):
            said = f"{header.parent_hash} at {header.time}"
            detail = f"stored on {known.parent_hash} at {known.time}, the node says {said}"
            look.problems.append(Problem("block-link", known.hash, detail))
        recipients = sorted({transfer.to for transfer in block.transfers})
        latest = known.counted_time + (LOOSE_CLOCKS_APART if network.loose_times else CLOCKS_APART)
        issued = await stored.issued_before(connection, network.name, network.family, recipients, latest)
        ids = sorted({row["invoice_id"] for row in issued.values()})
        spent = await own_outputs(connection, network.name, block.spends)
        counts = await INTAKE.unasked_counts.all(connection, ids=ids, crumbs_per_price=DUST_PER_PRICE)
    full = {
        (row["invoice_id"], name) for row in counts for name in UNASKED_MAX if row[name] >= UNASKED_MAX[name]
    }
    look.problems += _transfers(network, block, known, issued, full, look)
    look.problems += _conflicts(block, known)
    look.problems += _spendings(block, known, spent)
    return look


def _transfers(
    network: Network,
    block: Block,
    known: stored.StoredBlock,
    issued: dict[str, Record],
    full: set[tuple[str, str]],
    look: Compared,
) -> Iterator[Problem]:
    there = {identity_of(transfer): transfer for transfer in block.transfers}
    held = {stored_identity(row): row for row in known.held}
    for identity, row in held.items():
        if row["channel"] == Channel.BALANCE:
            look.balances_not_compared += 1  # no transaction shows it: only the state at that block did
        elif row["channel"] == Channel.TRACE and block.untraced is not None:
            look.traces_unread += 1
        elif identity not in there:
            detail = f"stored as {_told(identity)} in block {known.hash}, which the node does not show"
            yield Problem("transfer-invented", row["id"], detail)
        elif _differs(there[identity], row):
            detail = f"stored as sent by {row['sender']}, the node says {there[identity].sender}"
            yield Problem("transfer-invented", row["id"], detail)
        else:
            look.transfers += 1
    for identity, transfer in there.items():
        if identity not in held and transfer.to in issued and not _left_out(network, transfer, issued, full):
            detail = f"{_told(identity)} in block {known.hash} is not stored"
            yield Problem("transfer-missing", transfer.to, detail)


def _differs(transfer: ObservedTransfer, row: Record) -> bool:
    return transfer.sender != row["sender"] or sorted(transfer.spend_keys) != sorted(row["spend_keys"])


def _left_out(
    network: Network, transfer: ObservedTransfer, issued: dict[str, Record], full: set[tuple[str, str]]
) -> bool:
    """Whether it is not kept for a reason: one more of what nobody asked for, or value that its balance told."""
    asked = issued[transfer.to]
    kind = unasked(network, transfer, issued)
    if kind is not None and (asked["invoice_id"], kind) in full:
        return True
    return transfer.channel is Channel.TRACE and asked["balanced"]


def _conflicts(block: Block, known: stored.StoredBlock) -> Iterator[Problem]:
    for row in known.ruled_out:
        if row["tx_hash"] not in {block.spends.get(key) for key in row["spend_keys"]}:
            detail = f"said to be ruled out by {row['tx_hash']} in block {known.hash}, which the node does not show"
            yield Problem("conflict-invented", row["id"], detail)


def _spendings(block: Block, known: stored.StoredBlock, spent: dict[str, Record]) -> Iterator[Problem]:
    told = {(row["id"], block.spends[key]) for key, row in spent.items()}
    kept = {(row["transfer_id"], row["tx_hash"]) for row in known.spent}
    for transfer_id, tx_hash in sorted(told ^ kept):
        said = "the node shows that" if (transfer_id, tx_hash) in told else "it is stored only that"
        yield Problem("spending-differs", transfer_id, f"{said} {tx_hash} spends it in block {known.hash}")


def _told(identity: tuple[str, str, int, str, str | None, int]) -> str:
    tx_hash, channel, place, to, contract, amount = identity
    return f"{amount} of {contract or 'the native coin'} to {to} by {tx_hash} ({channel} {place})"
