"""Pauses that hints end: early where there is one, never later than configured, never a busy loop (F-NODE 6).

Planted bugs seen to fail: hints that are obeyed at once, so that a flood was a flood of looks; a failed channel that
ended every pause at once; a hint task that was left behind.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from tallystick.chains.source import Source
from tallystick.workers import news
from tallystick.workers.news import wait_for_news

REST = 0.2
LONG = 30.0


class Hinting:
    """A source with a channel of hints."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.told = asyncio.Event()
        self.error = error
        self.waiting = 0

    async def hint(self, stop: asyncio.Event) -> None:
        self.waiting += 1
        try:
            if self.error is not None:
                raise self.error
            stopped = asyncio.create_task(stop.wait())
            told = asyncio.create_task(self.told.wait())
            try:
                await asyncio.wait([stopped, told], return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopped.cancel()
                told.cancel()
        finally:
            self.waiting -= 1


class Quiet:
    """A source without one."""


@pytest.fixture(autouse=True)
def _short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "HINTED_SECONDS_MIN", REST)


async def seconds_of(source: Any, stop: asyncio.Event, seconds: float) -> float:
    begun = time.monotonic()
    await asyncio.wait_for(wait_for_news(cast("Source", source), stop, seconds), LONG)
    return time.monotonic() - begun


async def test_a_hint_ends_the_pause_but_not_its_first_part() -> None:
    source = Hinting()
    source.told.set()
    assert REST <= await seconds_of(source, asyncio.Event(), LONG) < LONG / 2
    assert source.waiting == 0


async def test_without_a_hint_the_pause_is_as_long_as_configured() -> None:
    for source in (Hinting(), Quiet()):
        assert await seconds_of(source, asyncio.Event(), 3 * REST) >= 3 * REST
        assert await seconds_of(source, asyncio.Event(), REST / 2) >= REST / 2
    assert source is not None


async def test_a_channel_that_fails_changes_nothing() -> None:
    source = Hinting(error=OSError("gone"))
    assert await seconds_of(source, asyncio.Event(), 3 * REST) >= 3 * REST
    assert source.waiting == 0


@pytest.mark.parametrize("after", [0.0, 2 * REST])
async def test_a_stop_ends_everything(after: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(after, stop.set)
    for source in (Hinting(), Quiet()):
        assert await seconds_of(source, stop, LONG) < LONG / 2


async def test_a_pause_that_is_cancelled_leaves_nothing_behind() -> None:
    source = Hinting()
    pause = asyncio.create_task(wait_for_news(cast("Source", source), asyncio.Event(), LONG))
    while not source.waiting:
        await asyncio.sleep(REST / 10)
    pause.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pause
    assert source.waiting == 0
