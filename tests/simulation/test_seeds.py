"""Seeds that once showed a bug stay clean, and so do some others, or as many as there is time for.

Without settings the others are the same in every run and on every machine, so that a test run says something of the
change under test; new ways are for `make soak`. TALLYSTICK_SEED_SECONDS: go on with further ones for that long.
TALLYSTICK_SEED_FIRST: where the others begin.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tallystick.simulation.run import Options, Simulator
from tallystick.simulation.world import World

SEEDS = [
    line.split(maxsplit=2)
    for line in Path(__file__).with_name("seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
OTHER_SEEDS = 7  # some 25 seconds on one core
OTHER_SECONDS = float(os.environ.get("TALLYSTICK_SEED_SECONDS", "0"))
OTHER_STEPS = 300

on_the_worlds_loop = pytest.mark.asyncio(loop_scope="module")


def test_every_seed_says_what_it_showed() -> None:
    """A number alone tells nobody why it is run."""
    assert SEEDS
    assert all(len(line) == 3 and line[2].strip() for line in SEEDS)


@pytest.mark.parametrize(("seed", "steps"), [(int(seed), int(steps)) for seed, steps, _ in SEEDS])
@on_the_worlds_loop
async def test_a_seed_that_failed_once_is_clean(world: World, seed: int, steps: int) -> None:
    """See seeds.txt for what each showed."""
    outcome = await Simulator(world, Options(steps=steps)).run(seed)
    assert outcome.violations == []


@on_the_worlds_loop
async def test_a_seed_does_the_same_again(world: World) -> None:
    """The log's hash is the seed's: whatever ran before in this process."""
    simulator = Simulator(world, Options(steps=60))
    first = await simulator.run(4711)
    await simulator.run(4712)
    assert (await simulator.run(4711)).log_hash == first.log_hash


@on_the_worlds_loop
async def test_other_seeds_are_clean(world: World) -> None:
    """A failing one is named with its step: add it to seeds.txt with the fix."""
    first = int(os.environ.get("TALLYSTICK_SEED_FIRST", "1"))
    ends = time.monotonic() + OTHER_SECONDS
    seed = first
    while seed < first + OTHER_SEEDS or time.monotonic() < ends:
        outcome = await Simulator(world, Options(steps=OTHER_STEPS)).run(seed)
        assert outcome.violations == [], f"tallystick simulate --seed {seed} --steps {OTHER_STEPS}"
        seed += 1
