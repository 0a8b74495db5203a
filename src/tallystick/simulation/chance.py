"""Chance from a seed.

Holds true: the same seed gives the same draws on every machine and in every supported Python (only whole numbers are
drawn; the generator's float methods are not used). Must not: be used for secrets.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """A stream of draws. `label` makes independent streams of one seed."""

    def __init__(self, seed: int, label: str = "") -> None:
        digest = hashlib.sha256(f"{seed}:{label}".encode()).digest()
        self._random = random.Random(int.from_bytes(digest, "big"))  # noqa: S311  # repeatable on purpose

    def below(self, count: int) -> int:
        """A whole number from 0 to `count` - 1."""
        return self._random.getrandbits(64) % count

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both possible."""
        return low + self.below(high - low + 1)

    def one_in(self, count: int) -> bool:
        """True once in `count` draws."""
        return self.below(count) == 0

    def pick(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self.below(len(choices))]

    def weighted(self, choices: Sequence[tuple[T, int]]) -> T:
        """One of them, by its weight."""
        draw = self.below(sum(weight for _, weight in choices))
        for choice, weight in choices:
            draw -= weight
            if draw < 0:
                return choice
        raise ValueError("weights are positive")

    def sample(self, choices: Sequence[T]) -> list[T]:
        """Some of them, in their order, each with an even chance."""
        return [choice for choice in choices if self.below(2)]

    def shuffled(self, choices: Sequence[T]) -> list[T]:
        """All of them, in any order."""
        rest = list(choices)
        return [rest.pop(self.below(len(rest))) for _ in range(len(rest))]

    def bytes(self, count: int) -> bytes:
        """That many bytes: where production takes them from the system."""
        return self._random.getrandbits(8 * count).to_bytes(count, "big")
