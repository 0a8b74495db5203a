"""(e) Steps of the deterministic simulation per second, on one process and one throw-away server, against the same
server's rates of single INSERTs and of empty round trips on one connection."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from tallystick.simulation.campaign import a_world
from tallystick.simulation.run import Options, Simulator
from tallystick.simulation.world import World

STEPS: Final = 300
RATES_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """The first or the second half of the seeds: a wiped database must not get slower. Rates are per second.

    `ratio` is steps over commits. `round_trips_per_step` says how many empty round trips would take as long as a step.
    """

    half: str
    seeds: int
    steps: int
    statements_per_step: float
    steps_per_second: float
    commits_per_second: float
    ratio: float
    round_trips_per_step: float


async def simulation(seeds: int) -> list[SimulationResult]:
    """Run seeds from 1 on, the same ones in both halves. Raises RuntimeError where a rule is broken."""
    async with a_world() as world:
        simulator = Simulator(world, Options(steps=STEPS))
        await simulator.run(0)  # warm: every statement is prepared
        return [await _half(world, simulator, half, max(1, seeds // 2)) for half in ("first", "second")]


async def _half(world: World, simulator: Simulator, half: str, seeds: int) -> SimulationResult:
    commits, round_trips = await _rates(world.database.url)
    steps = 0
    sent, began = world.breaker.sent, time.perf_counter()
    for seed in range(1, seeds + 1):
        outcome = await simulator.run(seed)
        if outcome.violations:
            raise RuntimeError(f"seed {seed} broke a rule: {outcome.violations[0]}")
        steps += outcome.steps
    rate = steps / (time.perf_counter() - began)
    return SimulationResult(
        half=half,
        seeds=seeds,
        steps=steps,
        statements_per_step=round((world.breaker.sent - sent) / steps, 1),
        steps_per_second=round(rate, 1),
        commits_per_second=round(commits, 1),
        ratio=round(rate / commits, 4),
        round_trips_per_step=round(round_trips / rate, 1),
    )


async def _rates(url: str) -> tuple[float, float]:
    """Single-row INSERTs, each its own commit, and empty statements, per second, on one connection."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(url)
    try:
        await connection.execute(
            "CREATE TEMPORARY TABLE bench_commits (n bigint GENERATED ALWAYS AS IDENTITY, t text)"
        )
        insert = await connection.prepare("INSERT INTO bench_commits (t) VALUES ($1)")
        nothing = await connection.prepare("SELECT 1")
        return await _rate(insert, "x"), await _rate(nothing)
    finally:
        await connection.close()


async def _rate(statement: Any, *arguments: str) -> float:
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < RATES_SECONDS:
        await statement.fetchval(*arguments)
        count += 1
    return count / took
