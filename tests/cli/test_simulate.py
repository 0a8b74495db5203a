"""`tallystick simulate`: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tallystick.simulation.campaign import run_here
from tallystick.simulation.run import Options
from tests.cli.processes import run


async def test_it_prints_one_object_and_the_same_for_the_same_seed() -> None:
    first, second = await asyncio.gather(
        run("simulate", "--seed", "7", "--steps", "12", "--json"),
        run("simulate", "--seed", "7", "--steps", "12", "--jobs", "2", "--json"),
    )
    assert (first.code, second.code) == (0, 0), first.err + second.err
    found = first.object
    assert {"seed", "steps", "steps_per_second", "log_hash", "violations"} <= found.keys()
    assert (found["seed"], found["steps"], found["violations"]) == (7, 12, [])
    assert found["steps_per_second"] > 0
    assert found["log_hash"] == second.object["log_hash"]


async def test_a_fault_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = await run("simulate", "--faults", "forks,gremlins", "--failures", str(tmp_path / "failing.txt"))
    assert (done.code, done.out) == (1, "")
    assert "gremlins" in done.err
    assert "receivers" in done.err


async def test_asked_to_stop_it_answers_with_the_seeds_before() -> None:
    """As after the first Ctrl-C: the seed under way is forgotten, its database goes with it."""
    stop = asyncio.Event()
    done: list[int] = []

    def step_done(step: int) -> None:
        if done and step == 2:
            stop.set()

    result = await run_here(
        range(1, 100),
        Options(steps=4),
        stop,
        on_step=step_done,
        on_seed=lambda outcome: done.append(outcome.seed),
    )
    assert (result.seeds, result.steps, list(result.hashes)) == (1, 4, [1])
