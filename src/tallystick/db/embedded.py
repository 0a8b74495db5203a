"""A PostgreSQL of our own inside a data folder, for those who bring no server.

For: `up`, `demo`, the CLI and the tests, when no TALLYSTICK_DATABASE_URL is given.
Holds true: a commit survives the death of anything (fsync and synchronous commit stay on unless a caller says that
the data is worthless); the server listens on a Unix socket only, and only the account that started it, root and the
account that runs it get in (folder mode 0700, and `peer` authentication behind it, because a mode bit alone is lost by
one careless chmod); the server ends when its starter does, however that one ends (Linux); two starters never start two
servers on one folder: the second one uses the first one's, leaves it running when it ends, and takes over when the first
one ends before.
Must not: change modes or owners of folders it did not make, signal a process it has not made sure to be this folder's
server, or hand TALLYSTICK_* or PG* variables to the server.

Layout of a data folder: `postgres/` the cluster, `postgres.log`, `run/` the socket, `lock`, `pg_hba.conf`, `pg_ident.conf`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg
import structlog
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay, wait_fixed

from tallystick.db.embedded_binaries import (
    OWN_SERVER,
    Account,
    Binaries,
    EmbeddedPostgresError,
    account_of,
    choose_account,
    closed_folder,
    find_binaries,
    reachable_binaries,
)

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "default_data_folder", "temporary_data_folder"]

ROLE = "tallystick"
DATABASE = "tallystick"
PORT = 5432  # only a part of the socket's file name
SOCKET_PATH_BYTES_MAX = 107  # sun_path in unix(7), less the final NUL
START_TIMEOUT_SECONDS = 60.0  # recovery after a crash replays at most max_wal_size
STOP_TIMEOUT_SECONDS = 30.0
PROBE_TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.02
WATCH_SECONDS = 0.25
INITDB_TIMEOUT_SECONDS = 120
POSTMASTER_LINES_MIN = 5  # pid, folder, start, port, socket folder
PID_FILE_GRACE_SECONDS = 3
LOG_BYTES_MAX = 8 * 1024 * 1024
LOG_TAIL_BYTES = 4_000

# What our load wants: many short transactions. Given on the command line, so that a changed file cannot undo it.
SETTINGS: Mapping[str, str] = {
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
WORTHLESS_DATA_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}

# Runs between us and the server: gives up root, asks the kernel to stop the server when we die, then becomes it.
# A program of its own rather than preexec_fn, which is not safe in a process with threads. The signal must be asked for
# after the change of user, which clears it. SIGINT is PostgreSQL's fast and clean stop.
LAUNCHER = """
import ctypes, os, sys
uid, gid, parent, when_parent_dies = map(int, sys.argv[1:5])
if os.geteuid() != uid:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, when_parent_dies, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the starter has died")
os.execv(sys.argv[5], sys.argv[5:])
"""

_PROC = Path("/proc/self")

log = structlog.get_logger(__name__)


class _NotYetError(Exception):
    """The server is starting, stopping, or held up by the remains of another: worth another look."""


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """What `postmaster.pid` says about a server."""

    pid: int
    socket_folder: Path


def default_data_folder() -> Path:
    """Where data goes when nobody says: a place that the server's account can reach."""
    if os.geteuid() == 0:
        return Path("/var/lib/tallystick")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "tallystick"


@contextmanager
def temporary_data_folder(prefix: str = "tallystick-") -> Iterator[Path]:
    """A folder for a short life, removed at the end. Other users may pass through it (as root) but not look into it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        if os.geteuid() == 0:
            folder.chmod(0o711)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class EmbeddedPostgres:
    """Supervises the PostgreSQL server of one data folder.

    `start` makes the cluster if there is none, then starts a server or uses the one that runs, and keeps one running
    until `stop`. Start it from a thread that lives as long as the server shall (the main thread): Linux ties the
    server's life to the thread that started it.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        start_timeout_seconds: float = START_TIMEOUT_SECONDS,
        worthless_data: bool = False,
    ) -> None:
        self.data_dir = Path(os.path.abspath(data_dir))  # noqa: PTH100  # resolve() would follow the user's own links
        self._cluster = self.data_dir / "postgres"
        self._log_file = self.data_dir / "postgres.log"
        self._start_timeout_seconds = start_timeout_seconds
        self._settings = {**SETTINGS, **(WORTHLESS_DATA_SETTINGS if worthless_data else {})}
        self._worthless_data = worthless_data
        self._account: Account | None = None
        self._binaries: Binaries | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._attached: _Postmaster | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def dsn(self) -> str:
        """A libpq-style address for asyncpg; stays the same for the life of the data folder."""
        host = quote(str(self._socket_folder()), safe="/")
        return f"postgresql://{ROLE}@/{DATABASE}?host={host}&port={PORT}"

    @property
    def owns_server(self) -> bool:
        """True when this object started the server, false when it uses another process's."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """The process id of the server that is used, or None before `start` and after `stop`."""
        if self._process is not None:
            return self._process.pid
        return self._attached.pid if self._attached is not None else None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        """Starts, gives the DSN, and stops at the end."""
        dsn = await self.start()
        try:
            yield dsn
        finally:
            await self.stop()

    async def start(self) -> str:
        """Makes sure that a server serves this folder and gives its DSN.

        Raises EmbeddedPostgresError (with the end of the server's log) when that fails or takes too long.
        """
        if self._watch is not None:
            return self.dsn
        self._binaries = await asyncio.to_thread(find_binaries)
        await self._ensure_server()
        self._watch = asyncio.create_task(self._keep_serving(), name="embedded-postgres")
        return self.dsn

    async def stop(self) -> None:
        """Stops the server if this object started it; a server of another process is left alone."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        self._attached = None
        process, self._process = self._process, None
        if process is not None:
            await self._stop_process(process)

    async def _keep_serving(self) -> None:
        """Starts the server again when it, or the process that owns it, is gone."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._is_served():
                continue
            log.warning("embedded_postgres.lost", data_dir=str(self.data_dir))
            try:
                await self._ensure_server()
            except EmbeddedPostgresError as error:
                log.exception("embedded_postgres.restart_failed", problem=str(error))
            else:
                log.info("embedded_postgres.serving_again", data_dir=str(self.data_dir), pid=self.pid)

    def _is_served(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self._attached is not None and _is_server_of(self._attached.pid, self._cluster)

    async def _ensure_server(self) -> None:
        self._process, self._attached = None, None
        self._prepare_data_dir()
        try:
            async with self._locked():
                await self._prepare_cluster()
                async for attempt in _until(self._start_timeout_seconds):
                    with attempt:
                        await self._attach_or_launch()
        except RetryError as error:
            await self._abandon()
            raise self._failure(
                f"PostgreSQL was not ready within {self._start_timeout_seconds:g} s."
            ) from error
        except BaseException:  # also cancellation: nothing may be left running that nobody owns
            await self._abandon()
            raise

    async def _abandon(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await self._stop_process(process)

    # --- folders ---

    def _prepare_data_dir(self) -> None:
        """Makes the data folder and the socket's, and the files that say who may connect."""
        try:
            missing = not self.data_dir.exists()
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._account = account = choose_account(self._cluster)
            if account.uid != os.geteuid():
                self._let_through(account, made_by_us=missing)
            caller = account_of(os.geteuid())
            _write(self.data_dir / "pg_hba.conf", f"local all {ROLE} peer map={ROLE}\n")
            users = sorted({caller.name, account.name, account_of(0).name})
            _write(self.data_dir / "pg_ident.conf", "".join(f'{ROLE} "{user}" {ROLE}\n' for user in users))
            _private_folder(self._socket_folder(), account)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"The data folder cannot be used: {error.strerror}.",
                object_id=str(error.filename or self.data_dir),
                remedy="Choose another data folder, or give this user the right to write there.",
            ) from error

    def _let_through(self, account: Account, *, made_by_us: bool) -> None:
        """Lets the server's account pass through our own data folder; folders above it are not ours to open."""
        if made_by_us or (self._cluster.exists() and self.data_dir.stat().st_uid == os.geteuid()):
            self.data_dir.chmod(0o711)
        closed = closed_folder(account, self.data_dir)
        if closed is not None:
            raise EmbeddedPostgresError(
                f"PostgreSQL runs as user {account.name!r} here, and that user cannot enter {closed}.",
                object_id=str(self.data_dir),
                remedy=f"Use a data folder that is not inside a private folder, such as {default_data_folder()}; "
                f"or run Tallystick as an ordinary user; or {OWN_SERVER}.",
            )

    def _socket_folder(self) -> Path:
        """The folder of the socket: inside the data folder, or a short one where that path would be too long.

        The short one has a random name, which nobody can have made before us, and is remembered in the data folder.
        """
        folder = self.data_dir / "run"
        if len(os.fsencode(folder / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES_MAX:
            return folder
        note = self.data_dir / "socket-folder"
        with contextlib.suppress(FileNotFoundError):
            remembered = Path(note.read_text(encoding="utf-8"))
            if remembered.is_dir() and not remembered.is_symlink():
                return remembered
        short = Path(tempfile.mkdtemp(prefix="tallystick-", dir="/tmp"))  # $TMPDIR may be long, too
        _write(note, str(short))
        return short

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """One process at a time decides about the server of this folder. The kernel frees the lock of the dead."""
        with (self.data_dir / "lock").open("w") as file:
            try:
                async for attempt in _until(self._start_timeout_seconds + INITDB_TIMEOUT_SECONDS):
                    with attempt:
                        try:
                            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        except BlockingIOError:
                            raise _NotYetError from None
            except RetryError as error:
                raise self._failure(
                    "Another process has been starting this database for too long."
                ) from error
            yield

    # --- the cluster ---

    async def _prepare_cluster(self) -> None:
        """Makes the cluster if there is none, and checks that these programs can serve it."""
        binaries, account = self._known()
        version_file = self._cluster / "PG_VERSION"
        if not version_file.exists():
            if self._cluster.exists() and any(self._cluster.iterdir()):
                raise EmbeddedPostgresError(
                    "This folder holds files, but no PostgreSQL cluster.",
                    object_id=str(self._cluster),
                    remedy="Choose another data folder.",
                )
            await asyncio.to_thread(self._initdb, reachable_binaries(binaries, account), account)
            return
        major = version_file.read_text(encoding="ascii").strip()
        if major != str(binaries.major):
            raise EmbeddedPostgresError(
                f"The data was written by PostgreSQL {major}, but PostgreSQL {binaries.major} is installed.",
                object_id=str(self._cluster),
                remedy=f"Dump it with PostgreSQL {major} (pg_dump) and restore it into a new data folder.",
            )

    def _initdb(self, binaries: Binaries, account: Account) -> None:
        """Makes the cluster under another name and renames it, so that a half-made one is never served."""
        for remains in self.data_dir.glob("postgres.new-*"):
            shutil.rmtree(remains, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.data_dir))
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
        try:
            done = subprocess.run(
                _launch(command, account, when_parent_dies=signal.SIGKILL),
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_server_environment(),
                cwd="/",
                timeout=INITDB_TIMEOUT_SECONDS,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedPostgresError(
                "The database could not be set up: initdb did not run.", object_id=str(self._cluster)
            ) from error
        if done.returncode != 0:
            said = done.stdout[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
            raise EmbeddedPostgresError(
                f"The database could not be set up. initdb said:\n{said}\n",
                object_id=str(self._cluster),
                remedy="Correct that, or choose another data folder.",
            )
        with contextlib.suppress(FileNotFoundError):
            self._cluster.rmdir()  # an empty one that was there before
        fresh.rename(self._cluster)

    # --- the server ---

    async def _attach_or_launch(self) -> None:
        """One try: uses the server that runs, else starts one. Raises _NotYetError while that is undecided."""
        if self._process is not None:  # started by an earlier try
            await self._await_own(self._process)
            return
        found = _read_postmaster(self._cluster)
        if found is not None:
            if found.socket_folder != self._socket_folder():
                raise EmbeddedPostgresError(
                    "Another program serves this database folder, at another socket.",
                    object_id=str(found.socket_folder),
                    remedy=f"Stop process {found.pid}, or choose another data folder.",
                )
            await self._probe()
            self._attached = found
            return
        binaries, account = self._known()
        self._process = self._launch_server(
            await asyncio.to_thread(reachable_binaries, binaries, account), account
        )
        await self._await_own(self._process)

    def _launch_server(self, binaries: Binaries, account: Account) -> subprocess.Popen[bytes]:
        settings = {
            **self._settings,
            "unix_socket_directories": str(self._socket_folder()).replace(",", "\\,"),
            "hba_file": str(self.data_dir / "pg_hba.conf"),
            "ident_file": str(self.data_dir / "pg_ident.conf"),
            "port": str(PORT),
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with contextlib.suppress(FileNotFoundError):
            if self._log_file.stat().st_size > LOG_BYTES_MAX:
                self._log_file.replace(self._log_file.with_suffix(".log.1"))
        with self._log_file.open("ab") as output:
            return subprocess.Popen(
                _launch(
                    [binaries.program("postgres"), "-D", str(self._cluster), *arguments],
                    account,
                    when_parent_dies=signal.SIGINT,
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_server_environment(),
                cwd="/",
                start_new_session=True,  # Ctrl-C in the terminal is for us; we stop the server in our own time
            )

    async def _await_own(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            self._process = None
            tail = self._log_tail()
            if (
                "pre-existing shared memory block" in tail[-600:]
            ):  # the last sessions of a killed server are ending
                raise _NotYetError
            raise self._failure(f"PostgreSQL ended right after its start (exit code {process.returncode}).")
        await self._probe()

    async def _probe(self) -> None:
        """Returns once a session can be opened; makes the database on the way, in a new cluster."""
        try:
            connection = await asyncpg.connect(self.dsn, timeout=PROBE_TIMEOUT_SECONDS)
        except asyncpg.InvalidCatalogNameError:
            await asyncio.to_thread(self._createdb)
            raise _NotYetError from None
        except asyncpg.TooManyConnectionsError:
            return  # it serves, and very busily so
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError) as error:
            raise _NotYetError from error
        except asyncpg.PostgresError as error:
            raise self._failure(
                f"PostgreSQL refuses us: {error.args[0] if error.args else error!r}."
            ) from error
        await connection.close(timeout=PROBE_TIMEOUT_SECONDS)

    def _createdb(self) -> None:
        binaries, account = self._known()
        command = [reachable_binaries(binaries, account).program("createdb"), "-U", ROLE, "-h"]
        command += [str(self._socket_folder()), "-p", str(PORT), "--maintenance-db=postgres", DATABASE]
        subprocess.run(
            _launch(command, account, when_parent_dies=signal.SIGKILL),
            check=False,  # two may try at once; the next probe tells whether the database is there
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=_server_environment(),
            cwd="/",
            timeout=INITDB_TIMEOUT_SECONDS,
        )

    async def _stop_process(self, process: subprocess.Popen[bytes]) -> None:
        """Fast shutdown, then the rougher ways. All of them keep what was committed."""
        for how, seconds in (
            (signal.SIGINT, STOP_TIMEOUT_SECONDS),
            (signal.SIGQUIT, STOP_TIMEOUT_SECONDS / 3),
            (signal.SIGKILL, STOP_TIMEOUT_SECONDS / 3),
        ):
            process.send_signal(how)
            try:
                await asyncio.to_thread(process.wait, seconds)
            except subprocess.TimeoutExpired:
                log.warning("embedded_postgres.slow_stop", pid=process.pid, signal=how.name)
                continue
            return

    def _known(self) -> tuple[Binaries, Account]:
        if self._binaries is None or self._account is None:
            raise EmbeddedPostgresError(
                "The embedded PostgreSQL has not been started.", remedy="Call start() first."
            )
        return self._binaries, self._account

    def _log_tail(self) -> str:
        try:
            with self._log_file.open("rb") as file:
                file.seek(max(0, self._log_file.stat().st_size - LOG_TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""

    def _failure(self, what: str) -> EmbeddedPostgresError:
        tail = self._log_tail()
        return EmbeddedPostgresError(
            f"{what} The end of its log:\n{tail}\n" if tail else what,
            object_id=str(self._cluster),
            remedy=f"See {self._log_file}.",
        )


def _until(seconds: float) -> AsyncRetrying:
    """Tries again, every few milliseconds, what raises _NotYetError."""
    return AsyncRetrying(
        retry=retry_if_exception_type(_NotYetError),
        wait=wait_fixed(POLL_SECONDS),
        stop=stop_after_delay(seconds),
    )


def _launch(command: list[str], account: Account, *, when_parent_dies: signal.Signals) -> list[str]:
    who = [str(account.uid), str(account.gid), str(os.getpid()), str(int(when_parent_dies))]
    return [sys.executable, "-I", "-S", "-c", LAUNCHER, *who, *command]


def _server_environment() -> dict[str, str]:
    """What the server inherits: not our secrets (TALLYSTICK_*), and nothing that changes PostgreSQL (PG*)."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _write(path: Path, text: str) -> None:
    """Replaces a file at once, readable for everybody (the server runs under another account when we are root)."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    scratch.chmod(0o644)
    scratch.replace(path)


def _private_folder(folder: Path, account: Account) -> None:
    """Makes the folder 0700 and the account's. Refuses one that somebody else put there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    info = folder.lstat()
    if folder.is_symlink() or info.st_uid not in {account.uid, os.geteuid()}:
        raise EmbeddedPostgresError(
            "The socket's folder belongs to somebody else.", object_id=str(folder), remedy="Remove it."
        )
    if info.st_uid != account.uid:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    if info.st_mode & 0o777 != 0o700:
        folder.chmod(0o700)


def _read_postmaster(cluster: Path) -> _Postmaster | None:
    """The server that runs on this cluster, or None; removes what a dead one left behind.

    PostgreSQL itself would refuse to start when the number in the file by now belongs to another program.
    Raises _NotYetError while the file is being written.
    """
    file = cluster / "postmaster.pid"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        age_seconds = time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return None
    pid = int(lines[0]) if lines and lines[0].isdecimal() else None
    if pid is not None and _is_server_of(pid, cluster):
        if len(lines) < POSTMASTER_LINES_MIN or not lines[4]:
            raise _NotYetError
        return _Postmaster(pid, Path(lines[4]))
    if pid is None and age_seconds < PID_FILE_GRACE_SECONDS:
        raise _NotYetError
    file.unlink(missing_ok=True)
    return None


def _is_server_of(pid: int, cluster: Path) -> bool:
    """Whether this process is the living server of this cluster, and not another program under a reused number.

    A server's working folder is its cluster. Zombies have none. Without /proc, being alive must do.
    """
    if _PROC.exists():
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == cluster.resolve()
        except OSError:
            return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
