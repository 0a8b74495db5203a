"""What `tallystick doctor` reports: one check and its levels."""

from __future__ import annotations

from typing import Final

import msgspec

OK: Final = "ok"
WARNING: Final = "warning"
PROBLEM: Final = "problem"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `remedy` says what to do where `level` is not ok."""

    name: str
    level: str
    text: str
    remedy: str | None = None
