"""How much is tried: the same cases in every run, or others for longer (`make fuzz`).

Each test names about as many examples as take a second; `TALLYSTICK_FUZZ_SECONDS` multiplies them and draws them anew.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

from hypothesis import HealthCheck, settings

SECONDS = int(os.environ.get("TALLYSTICK_FUZZ_SECONDS", "") or 0)


def effort(examples: int) -> settings:
    """Settings for a test of which this many examples take about a second."""
    return settings(
        max_examples=examples * max(1, SECONDS),
        derandomize=not SECONDS,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def seeds(count: int) -> Iterator[int]:
    """Numbers for a loop, where starting anew for each would cost too much: this many, or for as long as is said."""
    if not SECONDS:
        yield from range(count)
        return
    end = time.monotonic() + SECONDS
    number = random.SystemRandom().randrange(2**48)
    while time.monotonic() < end:
        yield number
        number += 1
