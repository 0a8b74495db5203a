"""The data folder of an embedded PostgreSQL: its layout, who may enter, and making the cluster in it.

Holds true: only the account that started the server, root, and the account that runs it can connect: the socket's
folder is 0700, and behind it PostgreSQL asks the kernel who is calling (`peer`), because a mode bit alone is lost by
one careless chmod. Nothing half-made is ever served. Folders that we did not make keep their modes and owners.
Must not: start the server, or decide whether one runs.

Layout: `postgres/` the cluster · `run/` the socket · `postgres.log` · `lock` · `pg_hba.conf` · `pg_ident.conf` ·
`socket-folder` (where the socket is, when the path of `run/` would be too long).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tallystick.db.child_process import Account, bound_to_us
from tallystick.db.embedded_binaries import (
    OWN_SERVER,
    Binaries,
    EmbeddedPostgresError,
    account_of,
    choose_account,
    closed_folder,
)

OWN_NAMES: Final = frozenset(
    {
        "postgres",
        "run",
        "postgres.log",
        "postgres.log.1",
        "lock",
        "pg_hba.conf",
        "pg_ident.conf",
        "socket-folder",
    }
)
ROLE: Final = "tallystick"
DATABASE: Final = "tallystick"
PORT: Final = 5432  # only a part of the socket's file name
SOCKET_PATH_BYTES_MAX: Final = 107  # sun_path in unix(7), less the final NUL
PROGRAM_TIMEOUT_SECONDS: Final = 120
LOG_BYTES_MAX: Final = 8 * 1024 * 1024
LOG_TAIL_BYTES: Final = 4_000

# What our load wants: many short transactions. Given on the command line, so that a changed file cannot undo it.
SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "random_page_cost": "1.1",  # flash, not turning disks
    "jit": "off",  # it costs more than our short statements take
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_error_verbosity": "terse",  # DETAIL would repeat rows' values, and those may be secret
    "log_min_error_statement": "panic",  # as would statements
    "logging_collector": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
# For data that nobody will miss (tests). The write-ahead log is still written, just not waited for.
WORTHLESS_DATA_SETTINGS: Final[Mapping[str, str]] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
}


def default_data_folder() -> Path:
    """Where data goes when nobody says: a place that the server's account can reach."""
    if os.geteuid() == 0:
        return Path("/var/lib/tallystick")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "tallystick"


@contextmanager
def temporary_data_folder(prefix: str = "tallystick-") -> Iterator[Path]:
    """A folder for a short life, removed at the end. Others may pass through it (for root), not look into it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        if os.geteuid() == 0:
            folder.chmod(0o711)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class DataFolder:
    """The paths of one data folder, and the steps that make them. Everything here blocks."""

    def __init__(self, path: Path, *, worthless_data: bool) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow the user's own links
        self.cluster = self.path / "postgres"
        self.log_file = self.path / "postgres.log"
        self.lock_file = self.path / "lock"
        self._worthless_data = worthless_data

    @property
    def dsn(self) -> str:
        """A libpq-style address for asyncpg; the same for the life of the data folder."""
        host = quote(str(self.socket_folder()), safe="/")
        return f"postgresql://{ROLE}@/{DATABASE}?host={host}&port={PORT}"

    def make(self) -> Account:
        """Makes the folder itself, open for the account that runs the server. Returns that account."""
        with self._explained():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            account = choose_account(self.cluster)
            if account.uid != os.geteuid():
                self._let_through(account)
        return account

    def prepare(self, account: Account) -> None:
        """Makes the socket's folder and the files that say who may connect. One caller at a time: hold the lock."""
        with self._explained():
            _write(self.path / "pg_hba.conf", f"local all {ROLE} peer map={ROLE}\n")
            users = sorted({account_of(os.geteuid()).name, account.name, account_of(0).name})
            _write(self.path / "pg_ident.conf", "".join(f'{ROLE} "{user}" {ROLE}\n' for user in users))
            _make_private(self.socket_folder(), account)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EmbeddedPostgresError(
                f"The data folder cannot be used: {error.strerror}.",
                object_id=str(error.filename or self.path),
                remedy="Choose another data folder, or give this user the right to write there.",
            ) from error

    def _let_through(self, account: Account) -> None:
        """Lets the server's account pass through our own data folder; any other folder is not ours to open."""
        names = {path.name.split(".new-")[0] for path in self.path.iterdir()}
        if self.path.stat().st_uid == os.geteuid() and names <= OWN_NAMES:
            self.path.chmod(0o711)
        closed = closed_folder(account, self.path)
        if closed is not None:
            raise EmbeddedPostgresError(
                f"PostgreSQL runs as user {account.name!r} here, and that user cannot enter {closed}.",
                object_id=str(self.path),
                remedy=f"Use a data folder that is not inside a private folder, such as {default_data_folder()}; "
                f"or run Tallystick as an ordinary user; or {OWN_SERVER}.",
            )

    def socket_folder(self) -> Path:
        """The folder of the socket: inside the data folder where that path is usable, else a short one.

        A path may be too long for the kernel, or have a comma, at which clients take it for several hosts. The
        short folder has a random name, which nobody can have made before us; the data folder remembers it.
        """
        folder = self.path / "run"
        fits = len(os.fsencode(folder / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES_MAX
        if fits and "," not in str(folder):
            return folder
        note = self.path / "socket-folder"
        with contextlib.suppress(FileNotFoundError):
            remembered = Path(note.read_text(encoding="utf-8"))
            if remembered.is_dir() and not remembered.is_symlink():
                return remembered
        short = Path(tempfile.mkdtemp(prefix="tallystick-", dir="/tmp"))  # $TMPDIR may be long, too
        _write(note, str(short))
        return short

    def holds_cluster(self) -> bool:
        """Whether a cluster was ever made here."""
        return (self.cluster / "PG_VERSION").exists()

    def prepare_cluster(self, binaries: Binaries, account: Account) -> None:
        """Makes the cluster if there is none (0.5 s), and checks that these programs can serve it."""
        version_file = self.cluster / "PG_VERSION"
        if not version_file.exists():
            if self.cluster.exists() and any(self.cluster.iterdir()):
                raise EmbeddedPostgresError(
                    "This folder holds files, but no PostgreSQL cluster.",
                    object_id=str(self.cluster),
                    remedy="Choose another data folder.",
                )
            self._initdb(binaries, account)
            return
        major = version_file.read_text(encoding="ascii").strip()
        if major != str(binaries.major):
            raise EmbeddedPostgresError(
                f"The data was written by PostgreSQL {major}, but PostgreSQL {binaries.major} is installed.",
                object_id=str(self.cluster),
                remedy=f"Dump it with PostgreSQL {major} (pg_dump) and restore it into a new data folder.",
            )

    def _initdb(self, binaries: Binaries, account: Account) -> None:
        """Makes the cluster under another name and renames it, so that a half-made one is never served."""
        for remains in self.path.glob("postgres.new-*"):
            shutil.rmtree(remains, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.path))
        os.chown(fresh, account.uid, account.gid)
        command = [
            *(
                binaries.program("initdb"),
                "-D",
                str(fresh),
                "-U",
                ROLE,
                "--encoding=UTF8",
                "--no-instructions",
            ),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            *("--auth-local=peer", "--auth-host=reject", "--data-checksums"),
            *(("--no-sync",) if self._worthless_data else ()),
        ]
        said = _run(command, account)
        if said is not None:
            raise EmbeddedPostgresError(
                f"The database could not be set up. initdb said:\n{said}\n",
                object_id=str(self.cluster),
                remedy="Correct that, or choose another data folder.",
            )
        with contextlib.suppress(FileNotFoundError):
            self.cluster.rmdir()  # an empty one that was there before
        fresh.rename(self.cluster)

    def create_database(self, binaries: Binaries, account: Account) -> None:
        """Makes our database in a new cluster. Two may try at once: whoever asks next sees whether it is there."""
        where = ("-h", str(self.socket_folder()), "-p", str(PORT), "-U", ROLE)
        _run([binaries.program("createdb"), *where, "--maintenance-db=postgres", DATABASE], account)

    def server_command(self, binaries: Binaries) -> list[str]:
        """The argument list that serves this cluster."""
        settings = {
            **SETTINGS,
            **(WORTHLESS_DATA_SETTINGS if self._worthless_data else {}),
            "unix_socket_directories": '"' + str(self.socket_folder()).replace('"', '""') + '"',
            "hba_file": str(self.path / "pg_hba.conf"),
            "ident_file": str(self.path / "pg_ident.conf"),
            "port": str(PORT),
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [binaries.program("postgres"), "-D", str(self.cluster), *arguments]

    def turn_log_over(self) -> None:
        """Keeps the log small: at a start, one older than its limit makes room."""
        with contextlib.suppress(FileNotFoundError):
            if self.log_file.stat().st_size > LOG_BYTES_MAX:
                self.log_file.replace(self.log_file.with_suffix(".log.1"))

    def log_tail(self) -> str:
        """The end of the server's log, for error messages."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, self.log_file.stat().st_size - LOG_TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""

    def failure(self, what: str) -> EmbeddedPostgresError:
        """An error about this folder's server, with the end of its log."""
        tail = self.log_tail()
        return EmbeddedPostgresError(
            f"{what} The end of its log:\n{tail}\n" if tail else what,
            object_id=str(self.cluster),
            remedy=f"See {self.log_file}.",
        )


def server_environment() -> dict[str, str]:
    """What PostgreSQL's programs inherit: not our secrets (TALLYSTICK_*), and nothing that changes them (PG*)."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _run(command: list[str], account: Account) -> str | None:
    """Runs a short program as the account. Returns None when it succeeded, else what it said."""
    try:
        done = subprocess.run(
            bound_to_us(command, account=account, when_parent_dies=signal.SIGKILL),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=server_environment(),
            cwd="/",
            timeout=PROGRAM_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return done.stdout[-LOG_TAIL_BYTES:].decode(errors="replace").strip() or f"exit code {done.returncode}"


def _write(path: Path, text: str) -> None:
    """Replaces a file at once, readable for everybody (another account runs the server when we are root)."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    scratch.chmod(0o644)
    scratch.replace(path)


def _make_private(folder: Path, account: Account) -> None:
    """Makes the folder 0700 and the account's. Refuses one that somebody else put there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    info = folder.lstat()
    if folder.is_symlink() or info.st_uid not in {account.uid, os.geteuid()}:
        raise EmbeddedPostgresError(
            "The socket's folder belongs to somebody else.", object_id=str(folder), remedy="Remove it."
        )
    if info.st_mode & 0o777 != 0o700:
        folder.chmod(0o700)
    if info.st_uid != account.uid:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
