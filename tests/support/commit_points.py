"""The list of all places where Tallystick commits, read from its source.

For: the tests that kill the server at each of them. Holds true: a place that commits is a call of a database's
`transaction()` or `aside()`; there is no other way to write (`crash_server` says so when something tries). What the API
commits is done in one place for all handlers, so there a handler is the point. A new place is in the list by itself.
The simulation is left out: it is no server, and crashes by itself at every statement.
Must not: import what it reads.

A point's name is its module below `tallystick` and its function: `workers.expire.Expirer._judge`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

import tallystick

SOURCE = Path(tallystick.__file__).parent
CARRIER = "api.answers._change.attempt"  # commits for every handler of the API that changes something
_OPENERS = {"transaction", "aside"}
_HOLDERS = {"database", "_database"}
_CHANGING = {"created", "changed"}
_ROUTES = {"post", "put", "patch", "delete"}


@cache
def commit_points() -> tuple[str, ...]:
    """Every point, sorted."""
    found: set[str] = set()
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        if module.startswith("simulation."):
            continue
        tree = ast.parse(path.read_text())
        for name in _places(tree, ""):
            found.add(f"{module}.{name}")
        found.update(f"{module}.{name}" for name in _handlers(tree))
    assert CARRIER in found
    return tuple(sorted(found - {CARRIER}))


def _places(node: ast.AST, inside: str) -> Iterator[str]:
    """The functions below a node that open a transaction, by their names inside the module; each opening once."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _places(child, f"{inside}.{child.name}".lstrip("."))
            continue
        if isinstance(child, ast.Call) and _opens(child):
            yield inside
        yield from _places(child, inside)


def _opens(call: ast.Call) -> bool:
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in _OPENERS:
        return False
    holder = function.value
    name = holder.attr if isinstance(holder, ast.Attribute) else getattr(holder, "id", "")
    return name in _HOLDERS


def _handlers(tree: ast.Module) -> Iterator[str]:
    """The handlers of a module that have their change carried out by `api.answers`."""
    for function in tree.body:
        if not isinstance(function, ast.AsyncFunctionDef):
            continue
        calls = {
            call.func.id
            for call in ast.walk(function)
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        }
        routed = any(
            isinstance(decorator, ast.Call)
            and isinstance(decorator.func, ast.Name)
            and decorator.func.id in _ROUTES
            for decorator in function.decorator_list
        )
        if routed and calls & _CHANGING:
            yield function.name


def point_of(frame: FrameType | None) -> str | None:
    """The point that a running call of `transaction()` or `aside()` belongs to, given its caller's frame."""
    points = set(commit_points())
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("tallystick."):
            name = f"{module.removeprefix('tallystick.')}.{_qualified(frame.f_code)}"
            if name in points:
                return name
            if name != CARRIER and not module.startswith("tallystick.api.answers"):
                return None
        frame = frame.f_back
    return None


def _qualified(code: CodeType) -> str:
    return code.co_qualname.replace("<locals>.", "")
