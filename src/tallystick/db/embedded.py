"""A PostgreSQL of our own inside a data folder, for those who bring no server.

For: `up`, `demo`, the CLI and the tests, when no TALLYSTICK_DATABASE_URL is given.
Holds true: a commit survives the death of anything (fsync and synchronous commit stay on unless a caller says that
the data is worthless); the server listens on a Unix socket only; it ends when its starter does, however that one ends
(Linux). Two starters never start two servers on one folder: the second uses the first one's server, leaves it running
when it ends itself, and takes over when the first one ends before.
Must not: signal a process that it did not start, or hand TALLYSTICK_* or PG* variables to the server.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import structlog
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay, wait_fixed

from tallystick.db.child_process import Account, bound_to_us
from tallystick.db.embedded_binaries import Binaries, EmbeddedPostgresError, find_binaries, reachable_binaries
from tallystick.db.embedded_folder import (
    DataFolder,
    default_data_folder,
    server_environment,
    temporary_data_folder,
)

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "default_data_folder", "temporary_data_folder"]

START_TIMEOUT_SECONDS: Final = 60.0  # recovery after a crash replays at most max_wal_size
STOP_TIMEOUT_SECONDS: Final = 30.0
TELL_SECONDS: Final = 1.0
LOCK_TIMEOUT_SECONDS: Final = 180.0
PROBE_TIMEOUT_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.02
WATCH_SECONDS: Final = 0.25
POSTMASTER_LINES_MIN: Final = 5  # pid, folder, start, port, socket folder
PID_FILE_GRACE_SECONDS: Final = 3.0
_PROC: Final = Path("/proc/self")

log = structlog.get_logger(__name__)


class _NotYetError(Exception):
    """The server is starting, stopping, or held up by the remains of another: worth another look."""


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """What `postmaster.pid` says about a server that lives."""

    pid: int
    socket_folder: Path


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
        self._folder = DataFolder(data_dir, worthless_data=worthless_data)
        self._start_timeout_seconds = start_timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._attached: _Postmaster | None = None
        self._watch: asyncio.Task[None] | None = None
        self._in_use = False

    @property
    def data_dir(self) -> Path:
        """The data folder, as an absolute path."""
        return self._folder.path

    @property
    def log_file(self) -> Path:
        """The server's own log."""
        return self._folder.log_file

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
        """Makes sure that a server serves this folder and returns its DSN, which stays the same for good.

        Raises EmbeddedPostgresError (with the end of the server's log) when that fails or takes too long.
        """
        if self._watch is None:
            await self._ensure_server()
            self._in_use = True
            self._watch = asyncio.create_task(self._keep_serving(), name="embedded-postgres")
        return self._folder.dsn

    async def stop(self) -> None:
        """Stops the server if this object started it; a server of another process is left alone."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        self._attached, self._in_use = None, False
        await self._abandon()

    async def _keep_serving(self) -> None:
        """Starts the server again when it, or the process that owns it, is gone."""
        told = ""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._is_served():
                continue
            if not told:
                log.warning("embedded_postgres.lost", data_dir=str(self.data_dir))
            try:
                await self._ensure_server()
            except EmbeddedPostgresError as error:  # the next round tries again, and says only what is new
                if told != str(error):
                    told = str(error)
                    log.error("embedded_postgres.restart_failed", problem=told)  # noqa: TRY400  # no stack needed
            else:
                told = ""
                log.info("embedded_postgres.serving_again", data_dir=str(self.data_dir), pid=self.pid)

    def _is_served(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self._attached is not None and _is_server_of(self._attached.pid, self._folder.cluster)

    def _check_still_there(self) -> None:
        """What was in use is never made anew: an empty database would serve as if nothing had ever been paid.

        A folder that is gone may be a disk that was unmounted, and come back.
        """
        if self._in_use and not self._folder.holds_cluster():
            raise EmbeddedPostgresError(
                "The database's files are gone while they were in use.",
                object_id=str(self.data_dir),
                remedy="Bring the data folder back (is its disk mounted?), or restore a backup there.",
            )

    async def _ensure_server(self) -> None:
        self._process, self._attached = None, None
        self._check_still_there()
        try:
            binaries = await asyncio.to_thread(find_binaries)
            account = await asyncio.to_thread(self._folder.make)
            binaries = await asyncio.to_thread(reachable_binaries, binaries, account)
            async with self._locked():
                await asyncio.to_thread(self._folder.prepare, account)
                await asyncio.to_thread(self._folder.prepare_cluster, binaries, account)
                async for attempt in _until(self._start_timeout_seconds):
                    with attempt:
                        await self._attach_or_launch(binaries, account)
        except RetryError as error:
            await self._abandon()
            seconds = self._start_timeout_seconds
            raise self._folder.failure(f"PostgreSQL was not ready within {seconds:g} s.") from error
        except BaseException:  # also cancellation: nothing may be left running that nobody owns
            await self._abandon()
            raise

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """One process at a time decides about the server of this folder. The kernel frees the lock of the dead."""
        with self._folder.lock_file.open("w") as file:
            try:
                async for attempt in _until(LOCK_TIMEOUT_SECONDS):
                    with attempt:
                        try:
                            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        except BlockingIOError:
                            raise _NotYetError from None
            except RetryError as error:
                what = "Another process has been starting this database for too long."
                raise self._folder.failure(what) from error
            yield

    async def _attach_or_launch(self, binaries: Binaries, account: Account) -> None:
        """One try: uses the server that runs, else starts one. Raises _NotYetError while that is undecided."""
        if self._process is None:
            found = _read_postmaster(self._folder.cluster)
            if found is not None:
                await self._attach(found, binaries, account)
                return
            self._process = self._launch(binaries, account)
        if self._process.poll() is not None:
            code, self._process = self._process.returncode, None
            if "pre-existing shared memory block" in self._folder.log_tail()[-600:]:
                raise _NotYetError  # the last sessions of a killed server are still ending
            raise self._folder.failure(f"PostgreSQL ended right after its start (exit code {code}).")
        await self._probe(binaries, account)

    async def _attach(self, found: _Postmaster, binaries: Binaries, account: Account) -> None:
        if found.socket_folder != self._folder.socket_folder():
            raise EmbeddedPostgresError(
                "Another program serves this database folder, at another socket.",
                object_id=str(found.socket_folder),
                remedy=f"Stop process {found.pid}, or choose another data folder.",
            )
        await self._probe(binaries, account)
        self._attached = found

    def _launch(self, binaries: Binaries, account: Account) -> subprocess.Popen[bytes]:
        self._folder.turn_log_over()
        command = self._folder.server_command(binaries)
        with self._folder.log_file.open("ab") as output:
            return subprocess.Popen(
                # SIGINT is PostgreSQL's fast and clean stop.
                bound_to_us(command, account=account, when_parent_dies=signal.SIGINT),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=server_environment(),
                cwd="/",
                start_new_session=True,  # Ctrl-C in the terminal is for us; we stop the server in our own time
            )

    async def _probe(self, binaries: Binaries, account: Account) -> None:
        """Returns once a session can be opened; makes the database on the way, in a new cluster."""
        try:
            connection = await asyncpg.connect(self._folder.dsn, timeout=PROBE_TIMEOUT_SECONDS)
        except asyncpg.InvalidCatalogNameError:
            if self._in_use:
                raise self._folder.failure("The database was dropped while it was in use.") from None
            await asyncio.to_thread(self._folder.create_database, binaries, account)
            raise _NotYetError from None
        except asyncpg.TooManyConnectionsError:
            return  # it serves, and very busily so
        except (
            OSError,
            TimeoutError,
            asyncpg.CannotConnectNowError,
            asyncpg.PostgresConnectionError,
        ) as error:
            raise _NotYetError from error
        except asyncpg.PostgresError as error:
            raise self._folder.failure(f"PostgreSQL refuses us: {error}.") from error
        await connection.close(timeout=PROBE_TIMEOUT_SECONDS)

    async def _abandon(self) -> None:
        """Stops our own server: fast shutdown first, then the rougher ways. All of them keep what was committed."""
        process, self._process = self._process, None
        if process is None:
            return
        for how, seconds in (
            (signal.SIGINT, STOP_TIMEOUT_SECONDS),
            (signal.SIGQUIT, STOP_TIMEOUT_SECONDS / 3),
            (signal.SIGKILL, STOP_TIMEOUT_SECONDS / 3),
        ):
            if await _stops(process, how, seconds):
                return
            log.warning("embedded_postgres.slow_stop", pid=process.pid, signal=how.name)


async def _stops(process: subprocess.Popen[bytes], how: signal.Signals, seconds: float) -> bool:
    """Whether it ends within that time. It is told every second: a server that has hardly begun may not hear it."""
    for _ in range(max(1, round(seconds / TELL_SECONDS))):
        process.send_signal(how)
        try:
            await asyncio.to_thread(process.wait, TELL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return True
    return False


def _until(seconds: float) -> AsyncRetrying:
    """Tries again, every few milliseconds, what raises _NotYetError."""
    return AsyncRetrying(
        retry=retry_if_exception_type(_NotYetError),
        wait=wait_fixed(POLL_SECONDS),
        stop=stop_after_delay(seconds),
    )


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
