"""What all commands share: the configuration, the way to run and to print, the way to fail.

Holds true: what a command prints as its result goes to standard output, everything else (logs, hints, errors) to
standard error; with `--json` the result is exactly one JSON document. Must not: import what is slow to import; a
command does that itself, when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from tallystick.core.errors import InvalidInput, TallystickError

if TYPE_CHECKING:
    from rich.console import Console

    from tallystick.config import Config

JsonFlag: TypeAlias = Annotated[
    bool, Parameter(name="--json", negative="", help="Print only the object, as JSON.")
]


@dataclass(frozen=True, slots=True)
class Globals:
    """Options that every command takes."""

    config: Path | None = None
    debug: bool = False


GLOBALS: ContextVar[Globals] = ContextVar("tallystick_globals")


def load_config(*, serving: bool = False) -> Config:
    """The configuration, and logging set up by it. Commands that do not serve log warnings only."""
    from tallystick.config import load
    from tallystick.observability import configure_logging

    chosen = GLOBALS.get(Globals())
    config = load(chosen.config)
    level = "debug" if chosen.debug else config.log.level if serving else "warning"
    configure_logging(level, config.log.format)
    return config


def console() -> Console:
    """Where results for people go."""
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON document and nothing else."""
    import msgspec

    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.flush()


def print_object(value: Any, *, as_json: bool) -> None:
    """Print an object: as JSON, or as lines of names and values for people."""
    import msgspec

    if as_json:
        print_json(value)
        return
    from rich.text import Text

    out = console()
    for line in _lines(msgspec.to_builtins(value), 0):
        out.print(Text.assemble(*line))


def _lines(value: Any, depth: int) -> list[list[tuple[str, str]]]:
    pad = "  " * depth
    if isinstance(value, Mapping):
        found: list[list[tuple[str, str]]] = []
        for key, inner in value.items():
            if isinstance(inner, Mapping | list) and inner:
                found.append([(f"{pad}{key}:", "bold")])
                found.extend(_lines(inner, depth + 1))
            else:
                found.append([(f"{pad}{key}: ", "bold"), (_word(inner), "")])
        return found
    if isinstance(value, list):
        found = []
        for inner in value:
            lines = _lines(inner, depth + 1)
            lines[0][0] = (f"{pad}- {lines[0][0][0].lstrip()}", lines[0][0][1])
            found.extend(lines)
        return found
    return [[(f"{pad}{_word(value)}", "")]]


def _word(value: Any) -> str:
    if value is None or value in ([], {}):
        return "-"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def print_error(error: TallystickError) -> None:
    """One line on standard error: what, which, and what to do."""
    text = str(error)
    if isinstance(error, InvalidInput) and error.problems:
        text = "; ".join(
            f"{problem.pointer.lstrip('/') or 'input'}: {problem.detail}" for problem in error.problems
        )
    print(f"tallystick: {' '.join(text.split())}", file=sys.stderr)  # noqa: T201  # this is the command line


def parts_of(values: Sequence[str]) -> list[str]:
    """Words given apart, or together with commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]
