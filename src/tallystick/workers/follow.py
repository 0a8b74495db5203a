"""The follower of one network: reads its blocks in order and hands them to intake.

Holds true: blocks are applied in order, each on its parent, none is ever skipped, and none before its chain is known
to lead to a block that no node contradicts (`batches`); only another hash at a known height is a reorganisation; a node
that is behind, silent or contradicted by another holds this network and nothing else. One follower is active per
network, by a lock in the database; standbys wait. Even two that both think they are active cannot do harm: the cursor
moves only from the block it was expected at.
Must not: decide anything about payments, or treat a failed answer as an empty one.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_when_event_set
from tenacity.wait import wait_exponential_jitter

from tallystick.chains.source import Source
from tallystick.core.chain import Block, BlockHeader, BlockRef, Head
from tallystick.core.errors import (
    ReorgTooDeep,
    SourceError,
    SourceUnavailable,
    StaleWrite,
    TallystickError,
    WrongChain,
)
from tallystick.core.network import Network
from tallystick.db.listening import GONE, give_up
from tallystick.db.networks import SQL
from tallystick.db.sql import Record
from tallystick.services import networks as network_service
from tallystick.services import sightings
from tallystick.services.context import Context
from tallystick.services.intake import Step, apply_step
from tallystick.workers.batches import PREFETCH_BLOCKS, BatchSize, changed_while_read, read_batch
from tallystick.workers.branches import KEEP_BLOCKS_MIN, KEEP_DEPTHS, Branch
from tallystick.workers.fees import FeeWatch
from tallystick.workers.news import wait_for_news
from tallystick.workers.waiting import wait_or_stop

log = structlog.get_logger(__name__)

STANDBY_SECONDS: Final = 2.0
REORG_BLOCKS_MAX: Final = 512
PRUNE_EVERY_BLOCKS: Final = 256
MEMPOOL_REST_SECONDS: Final = 30.0  # after trouble with the mempool, so that blocks are not read later for it
_LOCK_SPACE: Final = 0x7A11  # first half of the advisory lock's key; the second is the network's name


@dataclass(frozen=True, slots=True)
class FollowerOptions:
    """How a network is followed. `start_height` None begins at the node's head on the very first start.

    `batch_blocks` are read, and held in memory, before any of them is applied. `mempool`: look at what the node shows
    outside any block as well.
    """

    poll_interval_seconds: float = 1.0
    batch_blocks: int = 16
    stale_after_seconds: int = 300
    start_height: int | None = None
    retry_seconds_max: float = 30.0
    mempool: bool = True


class Follower:
    """Follows one network until told to stop."""

    def __init__(
        self,
        ctx: Context,
        network: Network,
        source: Source,
        options: FollowerOptions | None = None,
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._ctx = ctx
        self._network = network
        self.source = source
        self._options = options or FollowerOptions()
        self._on_progress = on_progress
        self._batch = BatchSize(self._options.batch_blocks)
        self._branch = Branch(ctx.database, network, source)
        self._checked_identity = False
        self._traced = True
        self._blocks_since_prune = 0
        self._mempool_rests_until = float("-inf")
        self._fees = FeeWatch(ctx, network, source)

    async def run(self, stop: asyncio.Event) -> None:
        """Follow while holding the network's lock; wait as a standby while another process holds it."""
        while not stop.is_set():
            async with self._lease() as held:
                if held:
                    await self._follow_visibly(stop)
            await wait_or_stop(stop, STANDBY_SECONDS)

    async def _follow_visibly(self, stop: asyncio.Event) -> None:
        """Follow; whatever ends it is shown where operators look before the supervisor starts the loop again."""
        try:
            await self._follow(stop)
        except Exception as error:  # the edge of the loop: it is raised again at once
            what = str(error) if isinstance(error, TallystickError) else type(error).__name__
            await self._show("degraded", f"A block could not be processed and is tried again: {what}")
            raise

    @asynccontextmanager
    async def _lease(self) -> AsyncIterator[bool]:
        name_key = zlib.crc32(self._network.name.encode()) - 2**31
        async with self._ctx.database.connection() as connection:
            held = bool(await SQL.try_lock.value(connection, space=_LOCK_SPACE, name_key=name_key))
            try:
                yield held
            finally:
                if held:
                    try:
                        await SQL.unlock.value(connection, space=_LOCK_SPACE, name_key=name_key)
                    except GONE:
                        # A lost connection has lost the lock as well. One that lives after all would keep it in the
                        # pool, and nobody could follow the network any more.
                        give_up(connection)

    async def _follow(self, stop: asyncio.Event) -> None:
        async def pause(seconds: float) -> None:
            await wait_or_stop(stop, seconds)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type((SourceError, StaleWrite)),
            wait=wait_exponential_jitter(multiplier=0.2, max=self._options.retry_seconds_max, jitter=0.2),
            stop=stop_when_event_set(stop),  # type: ignore[arg-type]  # asyncio's event answers is_set(), too
            sleep=pause,
            before_sleep=self._note_before_pause,
            retry_error_callback=lambda _state: False,
        )
        while not stop.is_set():
            more: bool = await retrying(self.poll)
            if not more:
                await wait_for_news(self.source, stop, self._options.poll_interval_seconds)

    async def poll(self) -> bool:
        """Look once and apply what is new; answer whether more is waiting. Raises SourceError, StaleWrite."""
        more = await self._poll_blocks()
        if not more:
            await self._look_at_mempool()
            await self._fees.look()
        return more

    async def _poll_blocks(self) -> bool:
        if not self._checked_identity:
            await self._check_identity()
        head = await self.source.head()
        row = await self._note_head(head.header)
        if row is None or row["halted_at"] is not None:
            return False
        cursor = None if row["cursor_hash"] is None else BlockRef(row["cursor_hash"], row["cursor_height"])
        if cursor is None:
            return await self._begin(head)
        if head.header.height > cursor.height:
            return await self._advance(cursor, head, row)
        await self._check_standing(cursor, head, row)
        return False

    async def _begin(self, head: Head) -> bool:
        """Apply the very first block: the head, or where the configuration says. It stands on nothing we know."""
        start = self._options.start_height
        height = head.header.height if start is None else min(start, head.header.height)
        header = await self._header(head, height)
        first = await self.source.block_at(height)
        if first.header != header:
            raise changed_while_read(self._network.name)
        await self.source.confirm_agreement(header)
        await self._apply(Step(None, (first,), None, head.safe_height, head.finalized_height))
        return height < head.header.height

    async def _note_head(self, head: BlockHeader) -> Record | None:
        """Where the network stands. Most looks find the head that is known, and write nothing."""
        async with self._ctx.database.connection() as connection:
            row = await SQL.read_network.one(connection, name=self._network.name)
        if row is None or (row["head_height"], row["head_time"]) == (head.height, head.time):
            return row
        async with self._ctx.database.transaction() as connection:
            return await network_service.record_head(connection, self._ctx, self._network.name, head)

    async def _look_at_mempool(self) -> None:
        """See what is outside any block, once all blocks are read. A hint: its trouble is nobody's but its own."""
        if self._ctx.monotonic() < self._mempool_rests_until:
            return
        try:
            async with self._ctx.database.connection() as connection:
                asked = await sightings.interest(connection, self._network)
            if asked is None:
                return
            snapshot = await self.source.mempool(asked) if self._options.mempool else None
            if snapshot is None:
                if asked:
                    await sightings.withdraw_sightings(self._ctx, self._network)
                self._rest_from_mempool()
                return
            if not asked and not snapshot.transfers:
                return  # nothing is shown, and nothing was
            result = await sightings.apply_sightings(self._ctx, self._network, snapshot)
        except (SourceError, StaleWrite) as error:
            log.info("mempool.trouble", network=self._network.name, problem=str(error))
            self._rest_from_mempool()
            return
        if result.seen or result.gone:
            log.info("mempool.changed", network=self._network.name, seen=result.seen, gone=result.gone)

    def _rest_from_mempool(self) -> None:
        self._mempool_rests_until = self._ctx.monotonic() + MEMPOOL_REST_SECONDS

    async def _check_identity(self) -> None:
        identity = await self.source.identity()
        async with self._ctx.database.transaction() as connection:
            await network_service.pin(connection, self._network.name, identity.chain, identity.genesis_hash)
        self._checked_identity = True

    async def _advance(self, cursor: BlockRef, head: Head, row: Record) -> bool:
        """Apply the next blocks above the cursor; a first one that does not stand on it is a reorganisation."""
        last = min(head.header.height, cursor.height + self._batch.blocks)
        behind = head.header.height - cursor.height > PREFETCH_BLOCKS
        shown = True  # what the row says
        blocks = await self._read(cursor, head, last)
        if not blocks:
            await self._reorganise(cursor, head, row)
            return True
        for block in blocks:
            await self._apply(self._step(cursor, (block,), head))
            cursor = block.header.ref
            if behind and shown:
                # Said once something was read: a node that only promises blocks stays shown as in trouble.
                await self._show("catching_up")
                shown = False
            if self._on_progress is not None:
                self._on_progress(cursor.height, head.header.height)
        if cursor.height >= head.header.height:
            await self._show_standing(row, shown=shown)
        return cursor.height < head.header.height

    async def _read(self, below: BlockRef, head: Head, last: int) -> tuple[Block, ...]:
        """The blocks above `below` up to the height `last`, once nodes agree on them. Empty: they stand on another.

        One block stands for the whole batch: each names its parent, so nodes that agree on the last agree on all.
        """
        try:
            newest = await self._header(head, last)
            blocks = await read_batch(self.source, below, newest)
            if blocks:
                chain = [*await self._branch.newest(below), *(one.header.ref for one in blocks[:-1])]
                await self.source.confirm_agreement(newest, chain)
        except SourceError:
            self._batch.failed(last - below.height)
            raise
        if blocks:
            self._batch.succeeded()
        return blocks

    async def _header(self, head: Head, height: int) -> BlockHeader:
        return head.header if height == head.header.height else await self.source.header_at(height)

    async def _check_standing(self, cursor: BlockRef, head: Head, row: Record) -> None:
        """The node has nothing above our cursor: it is level with us, behind, or on another branch."""
        known = await self._branch.hash_at(cursor, head.header.height)
        if known is not None and known != head.header.hash:
            await self._reorganise(cursor, head, row)
            return
        if head.header.height < cursor.height:
            behind = cursor.height - head.header.height
            problem = f"The node is {behind} blocks behind what was already processed."
            await self._show("degraded", problem, known=row)
            return
        await self._record_finality(cursor, head, row)
        await self._show_standing(row)

    async def _record_finality(self, cursor: BlockRef, head: Head, row: Record) -> None:
        """The network's markers may move without a new block: apply the cursor's block again, which changes nothing
        else."""
        moved = _beyond(head.safe_height, row["safe_height"]) or _beyond(
            head.finalized_height, row["finalized_height"]
        )
        if moved and head.header.ref == cursor:
            block = await self.source.block_at(cursor.height)
            if block.header.ref == cursor:
                await self._apply(self._step(cursor, (block,), head))

    async def _reorganise(self, cursor: BlockRef, head: Head, row: Record) -> None:
        """Find where the node's chain leaves ours and go over to it in one step. Raises ReorgTooDeep."""
        ancestor = await self._branch.ancestor(cursor, head, row)
        if ancestor == cursor:
            raise changed_while_read(self._network.name)
        last = min(
            head.header.height, max(cursor.height, ancestor.height + 1), ancestor.height + REORG_BLOCKS_MAX
        )
        if last <= ancestor.height:
            return  # the node's chain is a shorter part of ours: it is behind, nothing contradicts us
        blocks = await self._read(ancestor, head, last)
        if not blocks:
            raise changed_while_read(self._network.name)
        log.warning(
            "chain.reorganised",
            network=self._network.name,
            depth=cursor.height - ancestor.height,
            ancestor=ancestor.hash,
            tip=blocks[-1].header.hash,
        )
        await self._apply(self._step(cursor, blocks, head, ancestor))

    def _step(
        self, expected: BlockRef, blocks: tuple[Block, ...], head: Head, ancestor: BlockRef | None = None
    ) -> Step:
        return Step(expected, blocks, ancestor, head.safe_height, head.finalized_height)

    async def _apply(self, step: Step) -> None:
        result = await apply_step(self._ctx, self._network, step)
        if result.transfers_matched:
            log.info(
                "chain.block",
                network=self._network.name,
                height=step.blocks[-1].header.height,
                transfers=result.transfers_matched,
                invoices=result.invoices_assessed,
            )
        self._note_traces(step)
        self._blocks_since_prune += len(step.blocks)
        if self._blocks_since_prune >= PRUNE_EVERY_BLOCKS:
            await self._prune(step.blocks[-1].header.height)

    def _note_traces(self, step: Step) -> None:
        """Say once when contract calls are not told any more, or are told again: balances are all there is then."""
        for block in step.blocks:
            told = block.untraced is None
            if told is not self._traced:
                self._traced = told
                log.warning(
                    "network.traces",
                    network=self._network.name,
                    told=told,
                    height=block.header.height,
                    reason=block.untraced,
                )

    async def _prune(self, height: int) -> None:
        """Forget blocks that no reorganisation can reach and no payment rests on."""
        below = height - max(KEEP_DEPTHS * self._network.safety_depth, KEEP_BLOCKS_MIN)
        async with self._ctx.database.transaction() as connection:
            await SQL.prune_blocks.run(
                connection,
                network=self._network.name,
                height=below,
                from_height=below - 4 * self._blocks_since_prune,
            )
        self._blocks_since_prune = 0

    async def _show_standing(self, row: Record, *, shown: bool = True) -> None:
        """Level with the node: all is well unless the node itself stands still. `shown`: the row says what is shown."""
        changed_at = row["head_changed_at"]
        limit = timedelta(seconds=self._options.stale_after_seconds)
        known = row if shown else None
        if changed_at is not None and self._ctx.now() - changed_at > limit:
            minutes = int((self._ctx.now() - changed_at).total_seconds() // 60)
            await self._show("degraded", f"The node has had no new block for {minutes} minutes.", known=known)
        else:
            await self._show("following", known=known)

    async def _show(self, status: str, problem: str | None = None, *, known: Record | None = None) -> None:
        """Tell operators how it goes. `known`: the network's row, where it tells what they are shown already."""
        if known is not None and (known["status"], known["problem"]) == (status, problem):
            return
        async with self._ctx.database.transaction() as connection:
            await network_service.record_status(connection, self._network.name, status, problem)

    async def _note_before_pause(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        await self.note_trouble(error, state.attempt_number)

    async def note_trouble(self, error: BaseException | None, attempt: int) -> None:
        """After a failed `poll`: say what is wrong where operators look, and halt where only a person may decide.

        `attempt` counts failures in a row, from 1: a node that is silent once is not worth a word.
        """
        self._checked_identity = False  # a node that failed may come back as another chain
        log.warning("network.trouble", network=self._network.name, problem=str(error), attempt=attempt)
        async with self._ctx.database.transaction() as connection:
            row = await SQL.read_network.one(connection, name=self._network.name)
            started = row is not None and row["cursor_hash"] is not None
            if isinstance(error, ReorgTooDeep):
                await network_service.halt(connection, self._ctx, self._network.name, str(error))
            elif isinstance(error, WrongChain):
                await network_service.record_status(
                    connection, self._network.name, "misconfigured", str(error)
                )
            elif isinstance(error, SourceError) and (attempt > 1 or not isinstance(error, SourceUnavailable)):
                status = "degraded" if started else "unavailable"
                await network_service.record_status(connection, self._network.name, status, str(error))


def _beyond(reported: int | None, known: int | None) -> bool:
    return reported is not None and (known is None or reported > known)
