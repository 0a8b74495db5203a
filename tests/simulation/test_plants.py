"""Each planted bug is found by its seed, within its steps, by a rule that it is said to break.

A test that says so cannot itself be right by luck: the same seeds are clean without the bugs.
"""

from __future__ import annotations

import pytest

from tallystick.services.auditing import RULES
from tallystick.simulation.checks import RULES as TRUTHS
from tallystick.simulation.run import Options, Simulator
from tallystick.simulation.world import World
from tests.simulation.found import NETWORKS, Found, read
from tests.simulation.planting import planted
from tests.simulation.plants import INVARIANTS, PLANTS

FOUND = read()
STEPS_MAX = 250
"""How long a seed may take to find a bug: the tests have little time."""

on_the_worlds_loop = pytest.mark.asyncio(loop_scope="module")


def test_every_plant_has_its_seed_and_every_invariant_its_plant() -> None:
    """Nothing planted goes unfound, and nothing stands here that was taken out."""
    assert list(FOUND) == list(PLANTS)
    assert {plant.invariant for plant in PLANTS.values()} == set(INVARIANTS)
    known = {rule.id for rule in RULES} | set(TRUTHS)
    assert {rule for plant in PLANTS.values() for rule in plant.rules} <= known
    for found in FOUND.values():
        assert found.rule in PLANTS[found.plant].rules
        assert found.steps <= STEPS_MAX


@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND)
@on_the_worlds_loop
async def test_the_bug_is_found(world: World, found: Found) -> None:
    """With the bug, the rule is broken at or before the recorded step."""
    async with planted(world, PLANTS[found.plant]):
        outcome = await Simulator(world, Options(steps=found.steps, networks=NETWORKS)).run(found.seed)
    assert found.rule in {violation.rule for violation in outcome.violations}


_STEPS = {
    one.seed: max(other.steps for other in FOUND.values() if other.seed == one.seed) for one in FOUND.values()
}


@pytest.mark.parametrize("seed", sorted(_STEPS))
@on_the_worlds_loop
async def test_without_the_bug_the_seed_is_clean(world: World, seed: int) -> None:
    """Also after bugs were planted in this very process: nothing of them is left."""
    outcome = await Simulator(world, Options(steps=_STEPS[seed], networks=NETWORKS)).run(seed)
    assert outcome.violations == []
