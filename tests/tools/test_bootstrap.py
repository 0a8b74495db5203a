"""The installer and its lock files: pinned, hashed, in step with pyproject.toml, and done once only.

Holds true: nothing is installed or downloaded here; programs are stand-ins.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tools import bootstrap

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def canonical(name: str) -> str:
    """A package name in the one spelling of PEP 503."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", name.strip())[0]).lower()


def locked(path: Path) -> dict[str, str]:
    """The requirements of a lock file: canonical name to the whole entry, continuation lines joined."""
    entries = path.read_text().replace("\\\n", " ").splitlines()
    return {canonical(entry): entry for entry in entries if entry and not entry.startswith("#")}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_locked_package_is_pinned_and_hashed_and_no_address_is_named(path: Path) -> None:
    entries = locked(path)
    assert entries
    for entry in entries.values():
        assert re.match(r"^[A-Za-z0-9._-]+(\[[a-z,]+\])?==", entry), entry
        assert "--hash=sha256:" in entry, entry
    assert "://" not in path.read_text()
    assert "index-url" not in path.read_text()


def test_the_locks_are_in_step_with_the_project() -> None:
    metadata = project()
    runtime = {canonical(name) for name in metadata["project"]["dependencies"]}
    demo = {canonical(name) for name in metadata["project"]["optional-dependencies"]["demo"]}
    groups = metadata["dependency-groups"]
    build = {canonical(name) for name in groups["build"]}
    dev = {canonical(name) for name in groups["dev"] if isinstance(name, str)}
    assert runtime <= locked(ROOT / "requirements" / "runtime.txt").keys()
    assert runtime | demo | build <= locked(ROOT / "requirements" / "demo.txt").keys()
    assert runtime | demo | build | dev <= locked(ROOT / "requirements" / "dev.txt").keys()
    assert build == locked(ROOT / "requirements" / "build.txt").keys()
    assert not {"pytest", "mypy", "playwright"} & locked(ROOT / "requirements" / "demo.txt").keys()


def test_the_npm_lock_pins_everything_and_names_no_registry() -> None:
    lock = json.loads((ROOT / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert "node_modules/@foundry-rs/anvil-linux-amd64" in packages
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not any("resolved" in package for package in packages.values())


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """An empty checkout in which commands are written down instead of run."""
    seen: list[list[str]] = []

    def write_down(command: Sequence[str | Path], **_: object) -> None:
        seen.append([str(part) for part in command])

    (tmp_path / "requirements").mkdir()
    for name in (
        "pyproject.toml",
        "package.json",
        "package-lock.json",
        "requirements/demo.txt",
        "requirements/dev.txt",
    ):
        (tmp_path / name).write_text(name)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").touch()
    (tmp_path / "node_modules").mkdir()
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "STAMPS", tmp_path / "stamps")
    monkeypatch.setattr(bootstrap, "VENV_PYTHON", tmp_path / "venv" / "bin" / "python")
    monkeypatch.setattr(bootstrap, "make_venv", lambda: None)
    monkeypatch.setattr(bootstrap, "pip_command", lambda: ["pip"])
    monkeypatch.setattr(bootstrap, "npm_commands", lambda: iter([(["npm"], {})]))
    monkeypatch.setattr(bootstrap, "run", write_down)
    monkeypatch.delenv("TALLYSTICK_ANVIL", raising=False)
    return seen


def test_what_is_installed_is_left_alone_until_a_lock_changes(
    tmp_path: Path, commands: list[list[str]]
) -> None:
    for _ in range(2):
        bootstrap.install_python_packages("demo")
        bootstrap.install_npm_packages("demo")
    assert [command[0] for command in commands] == ["pip", "pip", "npm"]
    assert "--require-hashes" in commands[0]
    (tmp_path / "requirements" / "demo.txt").write_text("changed")
    bootstrap.install_python_packages("demo")
    assert [command[0] for command in commands] == ["pip", "pip", "npm", "pip", "pip"]


def test_the_environment_of_the_tests_serves_the_demo_too(commands: list[list[str]]) -> None:
    bootstrap.install_python_packages("dev")
    bootstrap.install_npm_packages("dev")
    count = len(commands)
    bootstrap.install_python_packages("demo")
    bootstrap.install_npm_packages("demo")
    assert len(commands) == count
    assert any(part.endswith("dev.txt") for part in commands[0])


def test_a_failed_step_is_done_again(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: Sequence[str | Path], **_: object) -> None:
        raise bootstrap.CannotInstallError("no network")

    write_down = bootstrap.run
    monkeypatch.setattr(bootstrap, "run", fail)
    with pytest.raises(bootstrap.CannotInstallError):
        bootstrap.install_python_packages("demo")
    with pytest.raises(bootstrap.CannotInstallError, match=r"package-lock\.json"):
        bootstrap.install_npm_packages("demo")
    monkeypatch.setattr(bootstrap, "run", write_down)
    bootstrap.install_python_packages("demo")
    assert commands


def test_an_unsuitable_python_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "version_of", lambda name: (3, 9))
    with pytest.raises(bootstrap.CannotInstallError, match=r"apt-get install python3 python3-venv"):
        bootstrap.choose_python()


def test_without_any_way_to_a_browser_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bootstrap, "find_chromium", lambda: None)
    monkeypatch.setattr(bootstrap, "apt_install", lambda *packages: False)
    monkeypatch.setattr(bootstrap, "apt_fetch", lambda *packages: None)
    with pytest.raises(bootstrap.CannotInstallError, match="TALLYSTICK_CHROMIUM"):
        bootstrap.install_chromium()


def test_without_any_way_to_a_litecoind_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bootstrap, "find_litecoind", lambda: None)
    monkeypatch.setattr(bootstrap, "apt_install", lambda *packages: False)
    monkeypatch.setattr(bootstrap, "apt_fetch", lambda *packages: None)
    with pytest.raises(bootstrap.CannotInstallError, match="TALLYSTICK_LITECOIND"):
        bootstrap.install_litecoind()


def test_a_program_unpacked_without_root_starts_with_its_own_libraries(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "debian"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "lib" / "x86_64-linux-gnu").mkdir(parents=True)
    program = root / "usr" / "bin" / "litecoind"
    program.write_text('#!/bin/sh\necho "$LD_LIBRARY_PATH $1"\n')
    program.chmod(0o755)
    (tmp_path / "stamps").mkdir()
    monkeypatch.setattr(bootstrap, "OWN_LITECOIND", tmp_path / "stamps" / "litecoind")
    monkeypatch.setattr(bootstrap, "apt_install", lambda *packages: False)
    monkeypatch.setattr(bootstrap, "apt_fetch", lambda *packages: root)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.delenv("TALLYSTICK_LITECOIND", raising=False)
    found = bootstrap.install_litecoind()
    assert found == {"TALLYSTICK_LITECOIND": str(tmp_path / "stamps" / "litecoind")}
    bootstrap.write_environment(found)
    noted = (tmp_path / "stamps" / "environment").read_text()
    assert noted == f"export TALLYSTICK_LITECOIND={tmp_path}/stamps/litecoind\n"
    done = subprocess.run([found["TALLYSTICK_LITECOIND"], "-x"], check=True, capture_output=True, text=True)
    libraries, argument = done.stdout.split()
    assert str(root / "usr" / "lib" / "x86_64-linux-gnu") in libraries.split(":")
    assert argument == "-x"
    assert commands == []
