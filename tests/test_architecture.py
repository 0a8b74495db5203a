"""The house rules that a machine can watch: who may import whom, purity of the core, SQL in its place, sizes.

Holds true: every rule is shown to catch a planted violation, so that none can quietly stop working.
Must not: import the code under test; it reads the sources, so that it works whatever state they are in.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "tallystick"
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500

INNER = frozenset({"core"})
PORTS = frozenset({"db", "chains", "rates"})
HELD_BY_ALL_OUTER = frozenset({"core", "db", "chains", "rates", "services", "config", "observability"})
# room -> the rooms it may import from, besides itself. Whatever is not listed here (a new room) is refused.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "db": INNER,
    "chains": INNER,
    "rates": INNER,
    "services": INNER | PORTS,
    "config": INNER | PORTS,
    "observability": INNER | PORTS | {"services"},
    "workers": HELD_BY_ALL_OUTER,
    "web": HELD_BY_ALL_OUTER,
    "api": HELD_BY_ALL_OUTER,
    "server": INNER | {"config", "observability"},
    "runtime": HELD_BY_ALL_OUTER | {"api", "web", "workers", "server"},
    "demo": HELD_BY_ALL_OUTER | {"api", "web", "workers", "server", "runtime", "cli"},
    "simulation": HELD_BY_ALL_OUTER | {"api", "workers", "runtime"},
    "cli": HELD_BY_ALL_OUTER | {"api", "web", "workers", "server", "runtime", "demo", "simulation"},
    "__main__": frozenset({"cli"}),
    "__init__": frozenset(),
}
# The one place that puts the API and the pages together into one application.
ASSEMBLY = ("api", "app.py")

# Modules of the standard library that bring a clock, chance, or the outside world.
IMPURE_MODULES = frozenset(
    {
        "asyncio",
        "http",
        "io",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "secrets",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "urllib.request",
    }
)
IMPURE_CALLS = frozenset(
    {"now", "utcnow", "today", "time", "time_ns", "urandom", "uuid1", "uuid4", "open", "print"}
)

SQL = re.compile(
    r"^\s*(SELECT\s|INSERT\s+INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+\s+AS\s*\(|"
    r"(CREATE|ALTER|DROP|TRUNCATE|LOCK|GRANT)\s+(TABLE|INDEX|UNIQUE|TYPE|DATABASE|SCHEMA|SEQUENCE|FUNCTION|ROLE)\b)"
)
# The webhooks' jitter is a fraction of time, drawn by the caller: no money is near.
FLOAT_IS_NOT_MONEY_IN = frozenset({"core/webhook.py"})
# Migrations are SQL by nature; migrate.py takes the advisory lock before any query file is of use.
SQL_MAY_LIVE_IN = ("db/migrations/", "db/migrate.py")


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its path below the package (posix), text and tree."""

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def of(cls, path: str, text: str) -> Source:
        """Parses a text as if it were at this path."""
        return cls(path, text, ast.parse(text, path))

    @property
    def room(self) -> str:
        """The room the file is in: its folder below the package, or its own name (config_reader counts as config)."""
        first, *rest = self.path.split("/")
        return first if rest else first.removesuffix(".py").split("_")[0] or first.removesuffix(".py")


Check = Callable[[Source], Iterator[str]]


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every imported module with its line, wherever the import stands. Relative imports are banned by the linter."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def inward_only(source: Source) -> Iterator[str]:
    """Dependencies point inward."""
    allowed = MAY_IMPORT.get(source.room)
    if allowed is None:
        yield f"1: the room {source.room!r} has no place in the architecture yet"
        return
    for line, name in imported(source.tree):
        if not name.startswith("tallystick."):
            continue
        target = Source(f"{name.split('.')[1]}.py", "", source.tree).room
        assembling = target == "web" and source.path == "/".join(ASSEMBLY)
        if target in MAY_IMPORT and target not in {source.room, *allowed} and not assembling:
            yield f"{line}: {source.room} must not import {name}"


def core_imports_the_standard_library_only(source: Source) -> Iterator[str]:
    """The core needs nothing installed and touches nothing outside."""
    if source.room != "core":
        return
    for line, name in imported(source.tree):
        root = name.split(".")[0]
        if root not in sys.stdlib_module_names | {"tallystick", "__future__"}:
            yield f"{line}: core imports {name}, which is not in the standard library"
        if root in IMPURE_MODULES or name in IMPURE_MODULES:
            yield f"{line}: core imports {name}, which brings a clock, chance or the outside world"


def core_has_no_clock_and_no_chance(source: Source) -> Iterator[str]:
    """The core's answers depend on its arguments alone."""
    if source.room != "core":
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in IMPURE_CALLS:
                yield f"{node.lineno}: core calls {name}()"


def core_has_no_float(source: Source) -> Iterator[str]:
    """Money is never a float: no literal, no annotation, no call."""
    if source.room != "core" or source.path in FLOAT_IS_NOT_MONEY_IN:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            yield f"{node.lineno}: a float literal in core"
        elif isinstance(node, ast.Name) and node.id == "float":
            yield f"{node.lineno}: float in core"


def docstrings(tree: ast.Module) -> set[int]:
    """The identities of the string nodes that are only prose: expressions whose value nobody uses."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def sql_lives_in_its_files(source: Source) -> Iterator[str]:
    """No SQL in Python, outside of the migrations."""
    if source.path.startswith(SQL_MAY_LIVE_IN):
        return
    prose = docstrings(source.tree)
    for node in ast.walk(source.tree):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if SQL.match(text) and id(node) not in prose:
            yield f"{getattr(node, 'lineno', 1)}: SQL in Python; it belongs to db/queries"


def functions_are_short(source: Source) -> Iterator[str]:
    """A function fits on a screen or two."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.lineno}: {node.name} has {lines} lines, more than {FUNCTION_LINES_MAX}"


def modules_are_short(source: Source) -> Iterator[str]:
    """A module has one subject."""
    lines = len(source.text.splitlines())
    if lines > MODULE_LINES_MAX:
        yield f"1: {lines} lines, more than {MODULE_LINES_MAX}"


def modules_say_what_they_are_for(source: Source) -> Iterator[str]:
    """Every module opens with its purpose."""
    if source.tree.body and not ast.get_docstring(source.tree):
        yield "1: the module does not say what it is for"


def broad_excepts_give_a_reason(source: Source) -> Iterator[str]:
    """Whoever catches everything says why, on the line or the next."""
    lines = source.text.splitlines()
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {getattr(kind, "id", None) for kind in kinds}
        if node.type is None or names & {"Exception", "BaseException"}:
            said = "".join(lines[node.lineno - 1 : node.lineno + 1])
            comment = re.sub(r"#\s*(noqa|type: ignore)[^#]*", "", said)
            if "#" not in comment:
                yield f"{node.lineno}: a broad except without a reason"


EVERYWHERE: tuple[Check, ...] = (functions_are_short, modules_are_short, broad_excepts_give_a_reason)
PACKAGE_ONLY: tuple[Check, ...] = (
    inward_only,
    core_imports_the_standard_library_only,
    core_has_no_clock_and_no_chance,
    core_has_no_float,
    sql_lives_in_its_files,
    modules_say_what_they_are_for,
)


def sources(folder: Path) -> list[Source]:
    """All Python files below a folder."""
    return [
        Source.of(path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
    ]


@pytest.mark.parametrize("check", [*PACKAGE_ONLY, *EVERYWHERE], ids=lambda check: check.__name__)
def test_the_package_keeps_the_rule(check: Check) -> None:
    found = [f"{source.path}:{problem}" for source in sources(PACKAGE) for problem in check(source)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("check", EVERYWHERE, ids=lambda check: check.__name__)
def test_the_tools_and_benchmarks_keep_the_rule(check: Check) -> None:
    folders = [folder for folder in (ROOT / "tools", ROOT / "bench") if folder.exists()]
    found = [
        f"{source.path}:{problem}"
        for folder in folders
        for source in sources(folder)
        for problem in check(source)
    ]
    assert not found, "\n" + "\n".join(found)


LONG_BODY = "\n".join(f"    x{number} = {number}" for number in range(FUNCTION_LINES_MAX))

PLANTED: list[tuple[Check, str, str]] = [
    (inward_only, "core/a.py", "from tallystick.db import pool"),
    (inward_only, "core/a.py", "import tallystick.services.invoices"),
    (inward_only, "core/a.py", "from tallystick import db"),
    (inward_only, "db/a.py", "from tallystick.services import invoices"),
    (inward_only, "db/a.py", "from tallystick.chains.source import Source"),
    (inward_only, "chains/evm/a.py", "def f() -> None:\n    from tallystick.db import pool"),
    (inward_only, "rates/a.py", "from tallystick.config import Config"),
    (inward_only, "services/a.py", "from tallystick.api.app import make"),
    (inward_only, "services/a.py", "from tallystick.config_reader import read"),
    (inward_only, "workers/a.py", "from tallystick.web import pages"),
    (inward_only, "web/a.py", "from tallystick.api import app"),
    (inward_only, "web/a.py", "from tallystick.cli import main"),
    (inward_only, "api/invoices.py", "from tallystick.web import pages"),
    (inward_only, "api/app.py", "from tallystick.workers import supervise"),
    (inward_only, "server.py", "from tallystick.services import invoices"),
    (inward_only, "runtime.py", "from tallystick.cli import main"),
    (inward_only, "attic/a.py", "X = 1"),
    (core_imports_the_standard_library_only, "core/a.py", "import msgspec"),
    (core_imports_the_standard_library_only, "core/a.py", "from eth_utils import keccak"),
    (core_imports_the_standard_library_only, "core/a.py", "import random"),
    (core_imports_the_standard_library_only, "core/a.py", "from os import urandom"),
    (core_imports_the_standard_library_only, "core/a.py", "from urllib import request"),
    (
        core_has_no_clock_and_no_chance,
        "core/a.py",
        "from datetime import datetime, UTC\nX = datetime.now(UTC)",
    ),
    (core_has_no_clock_and_no_chance, "core/a.py", "import uuid\nX = uuid.uuid4()"),
    (core_has_no_clock_and_no_chance, "core/a.py", "X = open('file')"),
    (core_has_no_float, "core/a.py", "X = 1.5"),
    (core_has_no_float, "core/a.py", "X = 1e18"),
    (core_has_no_float, "core/a.py", "def f(x: float) -> None: ..."),
    (core_has_no_float, "core/a.py", "X = float('1')"),
    (sql_lives_in_its_files, "db/pool.py", "X = 'SELECT 1'"),
    (sql_lives_in_its_files, "services/a.py", "X = '''\n  INSERT INTO invoices VALUES (1)'''"),
    (sql_lives_in_its_files, "services/a.py", "t = 'x'\nX = f'UPDATE invoices SET a = {t}'"),
    (sql_lives_in_its_files, "api/a.py", "X = 'DELETE FROM invoices'"),
    (sql_lives_in_its_files, "db/a.py", "X = 'CREATE UNIQUE INDEX a ON b (c)'"),
    (functions_are_short, "api/a.py", f"def f() -> None:\n{LONG_BODY}"),
    (functions_are_short, "api/a.py", f"async def f() -> None:\n{LONG_BODY}"),
    (modules_are_short, "api/a.py", "X = 1\n" * (MODULE_LINES_MAX + 1)),
    (modules_say_what_they_are_for, "api/a.py", "X = 1"),
    (broad_excepts_give_a_reason, "api/a.py", "try:\n    pass\nexcept Exception:\n    pass"),
    (broad_excepts_give_a_reason, "api/a.py", "try:\n    pass\nexcept:\n    pass"),
    (
        broad_excepts_give_a_reason,
        "api/a.py",
        "try:\n    pass\nexcept (ValueError, BaseException):\n    pass",
    ),
    (broad_excepts_give_a_reason, "api/a.py", "try:\n    pass\nexcept Exception:  # noqa: BLE001\n    pass"),
]

HARMLESS: list[tuple[Check, str, str]] = [
    (inward_only, "core/a.py", "from tallystick.core.errors import TallystickError\nimport decimal"),
    (inward_only, "api/app.py", "from tallystick.web import pages\nfrom tallystick.config import Config"),
    (inward_only, "cli/a.py", "from tallystick.api import app\nfrom tallystick.demo import run"),
    (
        inward_only,
        "config_reader.py",
        "from tallystick.config import Config\nfrom tallystick.core import errors",
    ),
    (inward_only, "services/a.py", "from tallystick import __version__"),
    (
        core_imports_the_standard_library_only,
        "core/a.py",
        "from datetime import datetime\nfrom fractions import Fraction",
    ),
    (core_imports_the_standard_library_only, "db/a.py", "import asyncpg\nimport os"),
    (core_has_no_clock_and_no_chance, "services/a.py", "import time\nX = time.time()"),
    (core_has_no_float, "core/a.py", "X = 3 // 2"),
    (core_has_no_float, "api/a.py", "X = 0.5"),
    (sql_lives_in_its_files, "db/a.py", '"""SELECT is what this runs."""\nX = "Select a network"'),
    (sql_lives_in_its_files, "db/migrations/versions/a.py", "X = 'SELECT 1'"),
    (functions_are_short, "api/a.py", "def f() -> None:\n    pass"),
    (
        broad_excepts_give_a_reason,
        "api/a.py",
        "try:\n    pass\nexcept Exception:  # one bad row stops nobody\n    pass",
    ),
    (broad_excepts_give_a_reason, "api/a.py", "try:\n    pass\nexcept ValueError:\n    pass"),
]


@pytest.mark.parametrize(("check", "path", "text"), PLANTED)
def test_a_planted_violation_is_found(check: Check, path: str, text: str) -> None:
    assert list(check(Source.of(path, text)))


@pytest.mark.parametrize(("check", "path", "text"), HARMLESS)
def test_harmless_code_passes(check: Check, path: str, text: str) -> None:
    assert not list(check(Source.of(path, text)))


def test_every_rule_is_proven_by_a_planted_violation() -> None:
    assert {check for check, _, _ in PLANTED} == {*PACKAGE_ONLY, *EVERYWHERE}
