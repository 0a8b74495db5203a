"""Keep a set of loops running side by side.

For: `up`, `demo`, and every worker process.
Holds true: a loop that fails is started again on its own, after a pause that grows while it keeps failing and is short
again once it has been healthy for a while; the others never notice. Asked to stop, every loop gets time to finish its
work, then is cancelled.
Must not: know what a loop does, or hide a failure: each is logged with its reason and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_when_event_set
from tenacity.wait import wait_base

from tallystick.core.errors import TallystickError
from tallystick.observability import WORKER_CRASHES, WORKER_UP

log = structlog.get_logger(__name__)

STOP_SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class Loop:
    """Work without an end: `run` returns when the event is set, and should never return before."""

    name: str
    run: Callable[[asyncio.Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses before a restart, in seconds: doubled from `first` up to `longest`, each cut by up to half at random.

    The jitter keeps loops that failed together from coming back together. A run of `healthy` seconds starts anew.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    healthy_seconds: float = 60.0

    def pause_seconds(self, failures_in_a_row: int, chance: float) -> float:
        """The pause after that many failures (>= 1); `chance` lies in [0, 1)."""
        doublings = min(failures_in_a_row - 1, 32)
        whole = min(self.longest_seconds, self.first_seconds * float(2**doublings))
        return whole * (1 - chance / 2)


@dataclass(slots=True)
class LoopState:
    """What is known of one loop. `crashes` counts for the life of the process, `in_a_row` since it was last healthy."""

    name: str
    running: bool = False
    crashes: int = 0
    in_a_row: int = 0
    pause_seconds: float = 0.0
    problem: str | None = None
    started_at: float = field(default=0.0, repr=False)


class EndedEarly(TallystickError):
    """A loop returned although nobody asked it to: a defect, treated like a failure."""

    code = "worker_ended"


class _GrowingPause(wait_base):
    """Tenacity's wait strategy for one loop: counts failures since it was last healthy, not since the start."""

    def __init__(self, state: LoopState) -> None:
        self._state = state

    def __call__(self, retry_state: RetryCallState) -> float:  # noqa: ARG002  # its count never starts anew
        return self._state.pause_seconds


class Supervisor:
    """Runs loops until it is told to stop. One object runs once."""

    def __init__(
        self,
        loops: Sequence[Loop],
        *,
        backoff: Backoff | None = None,
        stop_seconds_max: float = STOP_SECONDS_MAX,
    ) -> None:
        names = [loop.name for loop in loops]
        if len(set(names)) != len(names):
            raise ValueError("two loops have one name")
        self._loops = tuple(loops)
        self._backoff = backoff or Backoff()
        self._stop_seconds_max = stop_seconds_max
        self._states = {name: LoopState(name) for name in names}

    @property
    def states(self) -> tuple[LoopState, ...]:
        """How the loops are doing, in the given order."""
        return tuple(self._states.values())

    async def run(self, stop: asyncio.Event) -> None:
        """Run every loop until `stop` is set, then wait for them as long as the deadline allows."""
        tasks = {
            asyncio.create_task(self._keep_running(loop, stop), name=f"loop {loop.name}"): loop.name
            for loop in self._loops
        }
        try:
            await stop.wait()
            if tasks:
                _, late = await asyncio.wait(tasks, timeout=self._stop_seconds_max)
                for task in late:
                    log.warning("worker.cancelled", worker=tasks[task], after_seconds=self._stop_seconds_max)
        finally:
            for task in tasks:
                task.cancel()
            for task, outcome in zip(
                tasks, await asyncio.gather(*tasks, return_exceptions=True), strict=True
            ):
                if isinstance(outcome, Exception):  # only a defect of this module leads here
                    log.error("supervisor.defect", worker=tasks[task], exc_info=outcome)

    async def _keep_running(self, loop: Loop, stop: asyncio.Event) -> None:
        state = self._states[loop.name]
        retrying = AsyncRetrying(
            sleep=lambda seconds: _wait_for(stop, seconds),
            wait=_GrowingPause(state),
            stop=stop_when_event_set(stop),  # type: ignore[arg-type]  # asyncio's event answers is_set(), too
            retry=retry_if_exception_type(Exception),
            retry_error_callback=lambda _state: None,  # stopping: the failure was logged when it happened
        )
        await retrying(self._run_once, loop, stop, state)

    async def _run_once(self, loop: Loop, stop: asyncio.Event, state: LoopState) -> None:
        if stop.is_set():  # it was set during the pause
            return
        state.running, state.started_at = True, time.monotonic()
        WORKER_UP.labels(loop.name).set(1)
        try:
            await loop.run(stop)
            if not stop.is_set():
                raise EndedEarly("The worker ended without being asked to.", object_id=loop.name)
        except Exception as error:  # whatever it is, only this loop may suffer from it
            self._note_crash(state, error)
            raise
        finally:
            state.running = False
            WORKER_UP.labels(loop.name).set(0)

    def _note_crash(self, state: LoopState, error: Exception) -> None:
        healthy = time.monotonic() - state.started_at >= self._backoff.healthy_seconds
        state.crashes += 1
        state.in_a_row = 1 if healthy else state.in_a_row + 1
        state.problem = str(error) if isinstance(error, TallystickError) else type(error).__name__
        chance = random.random()  # noqa: S311  # spreads restarts; nothing secret
        state.pause_seconds = self._backoff.pause_seconds(state.in_a_row, chance)
        WORKER_CRASHES.labels(state.name).inc()
        log.error(
            "worker.crashed",
            worker=state.name,
            problem=state.problem,
            in_a_row=state.in_a_row,
            again_in_seconds=round(state.pause_seconds, 2),
            # An error of our own tree says all there is to say; anything else needs its place in the code.
            exc_info=None if isinstance(error, TallystickError) else error,
        )


async def _wait_for(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but no longer than until `stop` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
