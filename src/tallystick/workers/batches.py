"""Reading blocks in batches: side by side, and whole or not at all.

For: the follower. Holds true: a batch is handed out only if each of its blocks stands on the one before and the last
is the very block that was asked for, whichever nodes sent them. So a batch whose last block is agreed on is agreed on
as a whole: no block in it can be another than the nodes agree on without breaking the chain of hashes.
Must not: ask for agreement, apply anything, or hold more blocks in memory than the batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from tallystick.chains.source import Source
from tallystick.core.chain import Block, BlockHeader, BlockRef, Connected, connect
from tallystick.core.errors import SourceIncomplete

PREFETCH_BLOCKS: Final = 8
"""Blocks that are asked for at once."""


class BatchSize:
    """How many blocks are read before any of them is applied. Starts at `blocks_max`.

    A failure costs the whole batch, so that a node that often fails is asked for fewer at a time.
    """

    def __init__(self, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self.blocks = blocks_max

    def failed(self, tried: int) -> None:
        """A batch of so many blocks could not be read: try half of that, one at least."""
        self.blocks = max(1, min(self.blocks, tried // 2))

    def succeeded(self) -> None:
        """Try twice as many."""
        self.blocks = min(self._blocks_max, 2 * self.blocks)


async def read_batch(source: Source, below: BlockRef, newest: BlockHeader) -> tuple[Block, ...]:
    """The blocks above `below` up to `newest`, in order. Empty: the first does not stand on `below`.

    Raises SourceIncomplete where the others do not fit together, and whatever the source raises.
    """
    blocks: list[Block] = []
    tip = below
    async with aclosing(_fetch(source, below.height + 1, newest.height)) as fetched:
        async for block in fetched:
            if not isinstance(connect(tip, block.header), Connected):
                if not blocks:
                    return ()
                raise changed_while_read(f"block {block.header.height}")
            blocks.append(block)
            tip = block.header.ref
    if tip != newest.ref:
        raise changed_while_read(f"block {newest.height}")
    return tuple(blocks)


def changed_while_read(object_id: str) -> SourceIncomplete:
    """What to raise where answers are of different chains: one node's that changed, or two nodes'."""
    return SourceIncomplete(
        "The node's chain changed while it was read.", object_id=object_id, remedy="It is read again."
    )


async def _fetch(source: Source, first: int, last: int) -> AsyncGenerator[Block, None]:
    """Blocks in order; up to PREFETCH_BLOCKS are asked for at once. Close it: what was asked ahead is called off."""
    tasks: list[asyncio.Task[Block]] = []
    following = first
    try:
        while following <= last or tasks:
            while following <= last and len(tasks) < PREFETCH_BLOCKS:
                tasks.append(asyncio.create_task(source.block_at(following)))
                following += 1
            yield await tasks.pop(0)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
