"""Waiting for the next look at a network, or until a node says that there is something new to look at.

For: the follower. Holds true: a hint is no fact of the chain; it only ends a pause early, and looking regularly stays
the truth (F-NODE 6). A channel that fails, floods or is silent makes nobody look less often than configured.
Must not: look by itself, or make a flood of hints a flood of looks.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from tallystick.chains.source import HintSource, Source
from tallystick.workers.waiting import wait_or_stop

log = structlog.get_logger(__name__)

HINTED_SECONDS_MIN: Final = 1.0
"""Between two looks, whatever is hinted: main net has several new transactions a second."""


async def wait_for_news(source: Source, stop: asyncio.Event, seconds: float) -> None:
    """Wait `seconds` until the next look; less if the node says that there is something new, or at `stop`."""
    rest = min(seconds, HINTED_SECONDS_MIN)
    if not isinstance(source, HintSource) or seconds <= rest:
        await wait_or_stop(stop, seconds)
        return
    if await wait_or_stop(stop, rest):
        return
    hinted = asyncio.create_task(source.hint(stop))
    try:
        await asyncio.wait([hinted], timeout=seconds - rest)
        failed = hinted.exception() if hinted.done() else None
        if failed is not None:
            log.warning("hints.trouble", problem=type(failed).__name__)
            await wait_or_stop(stop, seconds - rest)
    finally:
        hinted.cancel()
        await asyncio.gather(hinted, return_exceptions=True)
