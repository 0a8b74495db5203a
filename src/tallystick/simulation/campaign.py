"""Many seeds, on as many processes as asked for, each with a database of its own.

For: `tallystick simulate` and the soak. Holds true: what a seed shows does not depend on which process ran it, on what
that process ran before, or on how many there are; results are told as they come and collected in the order of seeds.
Must not: print.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from queue import Empty
from typing import Final

from tallystick.core.errors import TallystickError
from tallystick.observability import configure_logging
from tallystick.runtime import run
from tallystick.simulation.run import Options, Outcome, Simulator, Violation
from tallystick.simulation.world import World

LOOK_SECONDS: Final = 5.0


@dataclass(slots=True)
class Result:
    """What a campaign showed. `log_hash` covers the hashes of all seeds, in their order."""

    seeds: int = 0
    steps: int = 0
    seconds: float = 0.0
    hashes: dict[int, str] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    happened: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    @property
    def log_hash(self) -> str:
        """The hash of a single seed's log, or of the hashes of many."""
        if len(self.hashes) == 1:
            return next(iter(self.hashes.values()))
        lines = "".join(f"{seed} {self.hashes[seed]}\n" for seed in sorted(self.hashes))
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def steps_per_second(self) -> float:
        """Steps over the time they took, the checks and the settling of the dust included."""
        return round(self.steps / self.seconds, 1) if self.seconds else 0.0

    def add(self, outcome: Outcome) -> None:
        """One more seed."""
        self.seeds += 1
        self.steps += outcome.steps
        self.hashes[outcome.seed] = outcome.log_hash
        self.violations += outcome.violations
        self.log += outcome.log
        for name, times in outcome.happened.items():
            self.happened[name] = self.happened.get(name, 0) + times


@asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    """A world on a throw-away server of its own."""
    from tallystick.db.embedded import EmbeddedPostgres, temporary_data_folder
    from tallystick.db.migrate import migrate

    with temporary_data_folder("tallystick-simulation-") as folder:
        async with EmbeddedPostgres(folder, worthless_data=True).run() as url:
            await migrate(url)
            world = await World.open(url)
            try:
                yield world
            finally:
                await world.database.close()


class Stopped(Exception):  # no error: somebody asked for it
    """The seed under way is not wanted any more."""


async def run_here(
    seeds: Iterable[int],
    options: Options,
    stop: asyncio.Event,
    *,
    seconds_max: float | None = None,
    keep_log: bool = False,
    on_step: Callable[[int], None] | None = None,
    on_seed: Callable[[Outcome], None] | None = None,
) -> Result:
    """Run these seeds one after the other in this process, until `seconds_max` have passed.

    Asked to stop, it forgets the seed under way and answers with those before it.
    """
    result = Result()

    def step_done(step: int) -> None:
        if stop.is_set():
            raise Stopped
        if on_step is not None:
            on_step(step)

    async with a_world() as world:
        simulator = Simulator(world, options, keep_log=keep_log)
        began = time.perf_counter()
        for seed in seeds:
            try:
                outcome = await simulator.run(seed, on_step=step_done)
            except Stopped:
                break
            result.add(outcome)
            result.seconds = time.perf_counter() - began
            if on_seed is not None:
                on_seed(outcome)
            if seconds_max is not None and result.seconds >= seconds_max:
                break
    return result


def run_apart(
    seeds: Sequence[int],
    options: Options,
    jobs: int,
    *,
    seconds_max: float | None = None,
    on_seed: Callable[[Outcome], None] | None = None,
) -> Result:
    """Run these seeds in `jobs` processes, until `seconds_max` have passed. Raises WorkerFailed if one breaks off."""
    result, began = Result(), time.perf_counter()
    context = multiprocessing.get_context("spawn")
    told: Queue[Outcome | None] = context.Queue()
    shares = [seeds[number::jobs] for number in range(jobs)]
    processes = [
        context.Process(target=_run_share, args=(share, options, seconds_max, told))
        for share in shares
        if share
    ]
    for process in processes:
        process.start()
    try:
        left = len(processes)
        while left:
            try:
                outcome = told.get(timeout=LOOK_SECONDS)
            except Empty:
                if any(process.exitcode for process in processes):
                    raise WorkerFailed("A process of the simulation broke off.") from None
                continue
            result.seconds = time.perf_counter() - began
            if outcome is None:
                left -= 1
                continue
            result.add(outcome)
            if on_seed is not None:
                on_seed(outcome)
    finally:
        for process in processes:
            process.terminate() if left else None
            process.join()
    result.violations.sort(key=lambda one: one.seed)
    return result


class WorkerFailed(TallystickError):
    """A process that ran seeds ended without having run them all."""

    code = "simulation_failed"


def _run_share(
    seeds: Sequence[int], options: Options, seconds_max: float | None, told: Queue[Outcome | None]
) -> None:
    """What a process does: its share of the seeds, each told when it is done, and None at the end."""
    configure_logging("critical", "json")

    parent = multiprocessing.parent_process()
    # Whoever asked may be gone without a word: then nobody wants the rest.
    wanted = itertools.takewhile(lambda _seed: parent is None or parent.is_alive(), seeds)

    async def main(stop: asyncio.Event) -> None:
        await run_here(wanted, options, stop, seconds_max=seconds_max, on_seed=told.put)

    run(main)
    told.put(None)
