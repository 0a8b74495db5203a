"""Which seed finds which planted bug, after how many steps: read and written.

For: `test_plants`, `tools.plants`. Holds true: one line a plant, `name rule seed steps`, in their order. What a
seed does changes whenever the simulation draws otherwise: then search anew (`python -m tools.plants --search`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PATH: Final = Path(__file__).with_name("found.txt")
_HEAD: Final = (
    "# Which seed finds which planted bug: name, rule, seed, steps. Written by `python -m tools.plants`."
)


NETWORKS: Final = 1
"""Planted bugs are looked for with one network, where more happens to each payment in as many steps."""


@dataclass(frozen=True, slots=True)
class Found:
    """`rule` is broken in `seed` when it is run for `steps` steps."""

    plant: str
    rule: str
    seed: int
    steps: int


def read(path: Path = PATH) -> dict[str, Found]:
    """What was found, by the plant's name."""
    lines = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: Found(name, rule, int(seed), int(steps)) for name, rule, seed, steps in lines}


def write(found: Iterable[Found], path: Path = PATH) -> None:
    """Store it."""
    lines = [f"{one.plant} {one.rule} {one.seed} {one.steps}" for one in found]
    path.write_text("\n".join([_HEAD, *lines]) + "\n")
