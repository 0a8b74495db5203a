"""Limits on what one caller may ask for: how often, how much, how long.

For: the application's edge and its authentication. Holds true: counting costs no database and bounded memory; a
refused request is told when to come back. Limits are per process: with several API processes the effective limit is
their sum.
Must not: be the defence against a flood of connections (that is the reverse proxy's work).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tallystick.core.errors import RateLimited

CALLERS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What is configurable. The defaults are generous: they stop accidents and scans, not business.

    `anonymous_per_minute` counts, per IP address, every request that does not carry a key known to be good.
    `key_cache_seconds` is also how long a revoked key may still work.
    """

    key_per_minute: int = 600_000
    anonymous_per_minute: int = 12_000
    request_seconds: float = 30.0
    key_cache_seconds: float = 5.0


@dataclass(slots=True)
class MinuteCounter:
    """Counts per caller within the current minute; forgets everybody at the next one."""

    limit: int
    monotonic: Callable[[], float] = time.monotonic
    _minute: int = -1
    _counts: dict[str, int] = field(default_factory=dict)

    def count(self, caller: str) -> None:
        """Count one request. Raises RateLimited beyond the limit."""
        now = self.monotonic()
        minute = int(now // 60)
        if minute != self._minute:
            self._minute = minute
            self._counts.clear()
        number = self._counts.get(caller, 0) + 1
        if number > self.limit or (number == 1 and len(self._counts) >= CALLERS_MAX):
            wait = 60 - int(now % 60)
            raise RateLimited("Too many requests.", retry_after_seconds=max(1, wait))
        self._counts[caller] = number
