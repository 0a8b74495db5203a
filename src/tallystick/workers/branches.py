"""Our best chain as it is stored, and where the nodes' chain leaves it.

For: the follower. Holds true: the common ancestor is searched as deep as is safe and no deeper, unless a person decided
so; what halts a network is no single node's word. Must not: write anything, or change what is followed.
"""

from __future__ import annotations

from typing import Final

from tallystick.chains.source import Source
from tallystick.core.chain import BlockHeader, BlockRef, Head, common_ancestor
from tallystick.core.errors import ReorgTooDeep
from tallystick.core.network import Network
from tallystick.db.networks import SQL
from tallystick.db.pool import Database
from tallystick.db.sql import Record

KEEP_DEPTHS: Final = 10
KEEP_BLOCKS_MIN: Final = 1000
"""Blocks are kept for so many safety depths, and never fewer than these."""

AGREED_BLOCKS_MAX: Final = 128
"""How many blocks a node may be behind and still be asked whether it is on our chain."""


class Branch:
    """The best chain of one network, as it was processed."""

    def __init__(self, database: Database, network: Network, source: Source) -> None:
        self._database = database
        self._network = network
        self._source = source

    async def newest(self, until: BlockRef) -> list[BlockRef]:
        """Our newest blocks up to this one, oldest first, to ask nodes about that are behind. Empty with one node."""
        if len(self._source.nodes()) == 1:
            return []
        rows = await self._down_from(until.height, min(self._network.safety_depth, AGREED_BLOCKS_MAX))
        return rows[::-1]

    async def hash_at(self, cursor: BlockRef, height: int) -> str | None:
        """The hash of our block at a height, which is not above the cursor; None where it is not kept."""
        if height == cursor.height:
            return cursor.hash
        ours = await self._down_from(height, 1)
        return ours[0].hash if ours and ours[0].height == height else None

    async def ancestor(self, cursor: BlockRef, head: Head, row: Record) -> BlockRef:
        """The highest block that the nodes' chain shares with ours. `row` is the network's. Raises ReorgTooDeep."""
        decided = row["resume_decided_at"] is not None
        depth_max = self._network.safety_depth
        theirs: BlockHeader | None = None
        for block in await self._down_from(
            cursor.height, KEEP_DEPTHS * depth_max + KEEP_BLOCKS_MIN if decided else depth_max + 1
        ):
            if block.height > head.header.height:
                continue
            header = await self._source.header_at(block.height)
            ancestor = common_ancestor((block,), {header.height: header.hash})
            if ancestor is None:
                theirs = header
                continue
            finalized = row["finalized_height"]
            if decided or finalized is None or ancestor.height >= finalized:
                return ancestor
            raise await self._too_deep(
                theirs, f"Block {finalized} was called final by the network and is no longer in its chain."
            )
        raise await self._too_deep(
            theirs, f"The best chain changed deeper than {depth_max} blocks below height {cursor.height}."
        )

    async def _too_deep(self, theirs: BlockHeader | None, what: str) -> ReorgTooDeep:
        """What halts the network until a person decides. One node's word must not: raises SourcesDisagree.

        `theirs` is the lowest block that took the place of one of ours.
        """
        if theirs is not None:
            await self._source.confirm_agreement(theirs)
        return ReorgTooDeep(
            what,
            object_id=self._network.name,
            remedy="Find out what happened to the chain; then `tallystick network resume` follows the node again.",
        )

    async def _down_from(self, height: int, count_max: int) -> list[BlockRef]:
        async with self._database.connection() as connection:
            rows = await SQL.best_blocks.all(
                connection, network=self._network.name, height=height, row_count=count_max
            )
        return [BlockRef(row["hash"], row["height"]) for row in rows]
