"""The clocks of a simulated world.

Holds true: true time only grows, by what the simulation says; our own clock is true time plus an error that may change
at any moment in either direction (F-MONEY 3); the monotonic clock has no such error, as the system's has none.
Must not: read a real clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class WorldClock:
    """True time, and what our clock makes of it."""

    def __init__(self) -> None:
        self._elapsed_ms = 0
        self.error_seconds = 0
        self.latest = START

    def restart(self) -> None:
        """Begin anew, without an error."""
        self._elapsed_ms = 0
        self.error_seconds = 0
        self.latest = START

    def advance(self, milliseconds: int) -> None:
        """Let time pass."""
        if milliseconds < 0:
            raise ValueError("true time only grows")
        self._elapsed_ms += milliseconds

    @property
    def true(self) -> datetime:
        """What time it is: what the chains' miners go by."""
        return START + timedelta(milliseconds=self._elapsed_ms)

    def now(self) -> datetime:
        """What our machine's clock shows. `latest` is the latest that it ever showed to anybody."""
        shown = self.true + timedelta(seconds=self.error_seconds)
        self.latest = max(self.latest, shown)
        return shown

    def monotonic(self) -> float:
        """Seconds since the start, for pauses."""
        return self._elapsed_ms / 1000
