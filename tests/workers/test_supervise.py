"""Loops side by side: a failure restarts only the one that failed, pauses grow and shrink, stopping is prompt."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.errors import SourceUnavailable
from tallystick.observability import REGISTRY, configure_logging
from tallystick.workers.supervise import Backoff, Loop, Supervisor


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[io.StringIO]:
    """What the supervisor logs, as JSON lines, configured as in a real process."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    written = io.StringIO()
    configure_logging("info", "json", written)
    try:
        yield written
    finally:
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()


QUICK = Backoff(first_seconds=0.001, longest_seconds=0.004, healthy_seconds=60)
DEADLINE_SECONDS = 10.0
_names = itertools.count()


def unique(name: str) -> str:
    """Metrics outlive a test, so each loop has a name of its own."""
    return f"{name} {next(_names)}"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


async def run_until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(supervisor.run(stop))
    try:
        await until(condition)
    finally:
        stop.set()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await running


class Ticker:
    """A healthy loop: counts how often it came round and how often it was started."""

    def __init__(self) -> None:
        self.rounds = 0
        self.starts = 0
        self.ended = False

    async def run(self, stop: asyncio.Event) -> None:
        self.starts += 1
        while not stop.is_set():
            self.rounds += 1
            await asyncio.sleep(0.001)
        self.ended = True


def failing(
    error: type[Exception] | Exception, counter: list[float]
) -> Callable[[asyncio.Event], Awaitable[None]]:
    async def run(_stop: asyncio.Event) -> None:
        counter.append(time.monotonic())
        raise error

    return run


async def test_a_failing_loop_is_restarted_and_never_stops_the_others() -> None:
    healthy, crashes = Ticker(), list[float]()
    supervisor = Supervisor(
        [Loop(unique("good"), healthy.run), Loop(unique("bad"), failing(ValueError, crashes))],
        backoff=QUICK,
    )
    await run_until(supervisor, lambda: len(crashes) >= 20 and healthy.rounds >= 20)
    assert healthy.starts == 1
    assert healthy.ended
    good, bad = supervisor.states
    assert (good.crashes, good.problem) == (0, None)
    assert bad.crashes == len(crashes)
    assert bad.problem == "ValueError"


async def test_a_loop_that_returns_early_is_started_again() -> None:
    starts = 0

    async def early(_stop: asyncio.Event) -> None:
        nonlocal starts
        starts += 1

    supervisor = Supervisor([Loop(unique("early"), early)], backoff=QUICK)
    await run_until(supervisor, lambda: starts >= 3)
    assert supervisor.states[0].problem is not None
    assert "without being asked" in supervisor.states[0].problem


async def test_a_known_failure_is_kept_in_its_own_words_and_counted(log_lines: io.StringIO) -> None:
    name, crashes = unique("node"), list[float]()
    error = SourceUnavailable("The node refused.", object_id="anvil")
    supervisor = Supervisor([Loop(name, failing(error, crashes))], backoff=QUICK)
    await run_until(supervisor, lambda: len(crashes) >= 2)
    assert supervisor.states[0].problem == "The node refused. (anvil)"
    assert REGISTRY.get_sample_value("tallystick_worker_crashes_total", {"worker": name}) == len(crashes)
    assert REGISTRY.get_sample_value("tallystick_worker_up", {"worker": name}) == 0
    line = json.loads(log_lines.getvalue().splitlines()[0])
    assert (line["worker"], line["problem"]) == (name, "The node refused. (anvil)")
    assert "exception" not in line  # an error of our own says all there is to say


async def test_an_unknown_failure_is_logged_with_its_place_in_the_code(log_lines: io.StringIO) -> None:
    crashes = list[float]()
    supervisor = Supervisor([Loop(unique("bad"), failing(ValueError, crashes))], backoff=QUICK)
    await run_until(supervisor, lambda: len(crashes) >= 1)
    assert "test_supervise" in json.loads(log_lines.getvalue().splitlines()[0])["exception"]


async def test_pauses_grow_while_it_keeps_failing() -> None:
    crashes = list[float]()
    backoff = Backoff(first_seconds=0.02, longest_seconds=10, healthy_seconds=60)
    supervisor = Supervisor([Loop(unique("bad"), failing(ValueError, crashes))], backoff=backoff)
    await run_until(supervisor, lambda: len(crashes) >= 5)
    pauses = [after - before for before, after in itertools.pairwise(crashes)]
    for number, pause in enumerate(pauses[:4]):
        assert pause >= 0.01 * 2**number, pauses  # half of it may be cut off at random


async def test_the_pause_is_short_again_after_a_healthy_run() -> None:
    runs = 0
    in_a_row: list[int] = []
    supervisor: Supervisor

    async def sick_then_healthy(_stop: asyncio.Event) -> None:
        nonlocal runs
        runs += 1
        in_a_row.append(supervisor.states[0].in_a_row)
        if runs == 4:
            await asyncio.sleep(0.06)  # longer than `healthy_seconds`: that length is what is tested
        raise ValueError

    backoff = Backoff(first_seconds=0.001, longest_seconds=0.002, healthy_seconds=0.05)
    supervisor = Supervisor([Loop(unique("bad"), sick_then_healthy)], backoff=backoff)
    await run_until(supervisor, lambda: runs >= 5)
    assert in_a_row[:5] == [0, 1, 2, 3, 1]


async def test_stopping_is_prompt_even_during_a_long_pause() -> None:
    crashes = list[float]()
    backoff = Backoff(first_seconds=1000, longest_seconds=1000, healthy_seconds=2000)
    supervisor = Supervisor([Loop(unique("bad"), failing(ValueError, crashes))], backoff=backoff)
    before = time.monotonic()
    await run_until(supervisor, lambda: supervisor.states[0].pause_seconds > 0)
    assert time.monotonic() - before < 5
    assert len(crashes) == 1


async def test_a_loop_that_does_not_stop_is_cancelled_after_the_deadline() -> None:
    cancelled, started = asyncio.Event(), asyncio.Event()

    async def deaf(_stop: asyncio.Event) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    healthy = Ticker()
    loops = [Loop(unique("deaf"), deaf), Loop(unique("good"), healthy.run)]
    await run_until(Supervisor(loops, stop_seconds_max=0.05), started.is_set)
    assert cancelled.is_set()
    assert healthy.ended


async def test_cancelling_the_supervisor_cancels_every_loop() -> None:
    healthy = Ticker()
    supervisor = Supervisor([Loop(unique("good"), healthy.run)])
    running = asyncio.create_task(supervisor.run(asyncio.Event()))
    await until(lambda: healthy.rounds > 0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    rounds = healthy.rounds
    await asyncio.sleep(0.01)
    assert healthy.rounds == rounds


def test_two_loops_may_not_share_a_name() -> None:
    with pytest.raises(ValueError, match="one name"):
        Supervisor([Loop("a", Ticker().run), Loop("a", Ticker().run)])


@given(failures=st.integers(1, 10_000), chance=st.floats(0, 0.999_999))
def test_a_pause_is_never_longer_than_the_longest_nor_shorter_than_half_the_first(
    failures: int, chance: float
) -> None:
    backoff = Backoff()
    pause = backoff.pause_seconds(failures, chance)
    assert backoff.first_seconds / 2 <= pause <= backoff.longest_seconds
    assert backoff.pause_seconds(failures + 1, chance) >= pause
