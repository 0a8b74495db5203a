"""A seed shows the same wherever and after whatever it runs: the hash of its log covers every step and the end.

Compared are: the first time in a fresh database; again there, after other seeds; after a run that was broken off in the
middle of a step; in another database with another history; and in another process with another server, where Python
orders sets of texts otherwise.

Planted bugs, each seen to fail here: nonces that are kept from the seed before; a customer's choice from a set,
which only the other process shows; a wipe that leaves one table as it is.
"""

from __future__ import annotations

from typing import Any

import pytest

from tallystick.simulation.campaign import run_apart
from tallystick.simulation.run import Options, Simulator
from tallystick.simulation.world import World
from tests.conftest import another_database

SEEDS = (11, 12, 13)
OPTIONS = Options(steps=50)
LONGER = Options(steps=120)  # until a set has members enough to be in another order almost surely

pytestmark = pytest.mark.asyncio(loop_scope="module")


class _BreakOff(BaseException):
    """Ends a run from outside. Not an Exception: nothing that is run may take it for trouble of its own."""


class _EndsAt:
    """A referee that breaks off at a statement of the run, whatever that is in the middle of."""

    def __init__(self, number: int) -> None:
        self._left = number

    async def before(self, _connection: Any, _query: str) -> None:
        """See Referee.before."""
        self._left -= 1
        if self._left == 0:
            raise _BreakOff

    async def after(self) -> None:
        """See Referee.after."""


async def _hashes(world: World, options: Options = OPTIONS) -> dict[int, str]:
    simulator = Simulator(world, options)
    return {seed: (await simulator.run(seed)).log_hash for seed in SEEDS}


async def _break_off(world: World, seed: int, statement: int) -> None:
    """Begin a seed, and leave everything as it is before that statement."""
    world.breaker.referee = _EndsAt(statement)
    try:
        with pytest.raises(_BreakOff):
            await Simulator(world, OPTIONS).run(seed)
    finally:
        world.breaker.referee = None


async def test_a_seed_is_the_same_again_and_elsewhere(
    world: World, postgres_url: str, migrated_template: str
) -> None:
    first = await _hashes(world)
    assert len(set(first.values())) == len(SEEDS)
    assert await _hashes(world) == first
    await _break_off(world, SEEDS[1], 300)
    assert await _hashes(world) == first
    async with another_database(postgres_url, template=migrated_template) as url:
        other = await World.open(url)
        try:
            await _break_off(other, 99, 200)
            assert await _hashes(other) == first
        finally:
            await other.database.close()


async def test_a_seed_is_the_same_in_another_process(world: World) -> None:
    apart = run_apart(SEEDS, LONGER, 1)
    assert apart.hashes == await _hashes(world, LONGER)
