"""Migrations: once, by one process, never against a database that is newer than the code."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tallystick.core.errors import DatabaseError
from tallystick.db.migrate import LOCK_KEY, migrate
from tests.conftest import database_url_for

EVERYTHING = """
SELECT c.relname, c.relkind::text, a.attname, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE n.nspname = 'public' ORDER BY 1, 2, 3
"""


async def schema_of(url: str) -> list[tuple[str, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row.values()) for row in await connection.fetch(EVERYTHING)]
    finally:
        await connection.close()


async def revisions_of(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [
            row["version_num"] for row in await connection.fetch("SELECT version_num FROM alembic_version")
        ]
    finally:
        await connection.close()


async def test_an_empty_database_gets_every_table_and_a_second_run_changes_nothing(
    empty_database_url: str,
) -> None:
    revision = await migrate(empty_database_url)
    first = await schema_of(empty_database_url)
    assert {"invoices", "transfers", "events", "wakeups"} <= {row[0] for row in first}
    assert await migrate(empty_database_url) == revision
    assert await schema_of(empty_database_url) == first
    assert await revisions_of(empty_database_url) == [revision]


async def test_two_starters_at_once_migrate_once(empty_database_url: str) -> None:
    """Planted bug seen to fail: the advisory lock left out (the second one meets tables that exist)."""
    revisions = await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))
    assert len(set(revisions)) == 1
    assert await revisions_of(empty_database_url) == [revisions[0]]


async def test_a_starter_waits_for_the_one_who_migrates(empty_database_url: str) -> None:
    first = await asyncpg.connect(empty_database_url)
    try:
        await first.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
        second = asyncio.create_task(migrate(empty_database_url))
        await _until_somebody_waits(first)
        assert await schema_of(empty_database_url) == []
        await first.execute("SELECT pg_advisory_unlock($1)", LOCK_KEY)
        assert await second
    finally:
        await first.close()


async def _until_somebody_waits(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
    async with asyncio.timeout(30):
        while not await connection.fetchval(waiting):
            await asyncio.sleep(0.01)


async def test_a_database_newer_than_the_code_is_refused_and_left_alone(database_url: str) -> None:
    """Planted bug seen to fail: the comparison with the known revisions left out."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
        await connection.execute("ALTER TABLE invoices ADD COLUMN from_the_future text")
    finally:
        await connection.close()
    before = await schema_of(database_url)
    with pytest.raises(DatabaseError) as refused:
        await migrate(database_url)
    assert "9999" in refused.value.what
    assert "newer version" in str(refused.value)
    assert await schema_of(database_url) == before
    assert await revisions_of(database_url) == ["9999"]


async def test_a_failed_start_leaves_the_lock_free(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(DatabaseError):
            await migrate(database_url)
        async with asyncio.timeout(30):
            await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
    finally:
        await connection.close()


async def test_a_database_that_does_not_exist_is_named_as_such(postgres_url: str) -> None:
    with pytest.raises(DatabaseError) as refused:
        await migrate(database_url_for(postgres_url, "no_such_database"))
    assert "TALLYSTICK_DATABASE_URL" in str(refused.value)


async def test_a_server_that_is_not_there_is_named_as_such() -> None:
    with pytest.raises(DatabaseError) as refused:
        await migrate("postgresql://nobody@127.0.0.1:1/none")
    assert "TALLYSTICK_DATABASE_URL" in str(refused.value)
