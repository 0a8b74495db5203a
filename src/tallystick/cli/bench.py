"""`tallystick bench`: the benchmarks of a checkout, which are not part of the installed package."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tallystick.core.errors import TallystickError


class NoBenchmarks(TallystickError):
    """The benchmarks are not here."""

    code = "no_benchmarks"


def bench(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
    """Run the benchmarks of this checkout; arguments are passed on."""
    root = Path(__file__).resolve().parents[3]
    if not (root / "bench" / "__main__.py").exists() and find_spec("bench") is None:
        raise NoBenchmarks(
            "The benchmarks are not installed with Tallystick.",
            remedy="Run `make bench` in a checkout of the sources.",
        )
    folder = root if (root / "bench").exists() else Path.cwd()
    return subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=folder, check=False).returncode
