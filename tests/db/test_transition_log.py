"""The log of transitions: nothing gets into history past it, nothing waits for ever at it, and no edit stays unseen.

Planted bugs that were seen to fail: the heads locked in the order in which transitions were written (the crossing
transactions die of a deadlock); `seal` left out of `Database.transaction` (nothing can be committed); a digest without
the evidence, and one whose values are joined without saying where each begins (the tampering and the digests' tests).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib import resources

import asyncpg
import pytest

from tallystick.core.invoice import Status
from tallystick.core.transitions import Reason
from tallystick.db.invoice_writes import TransitionWrite, write_transitions
from tallystick.db.migrate import migrate
from tallystick.db.pool import Database
from tallystick.db.sql import Connection
from tallystick.rates.source import StaticRates
from tallystick.services.auditing import check_invoices, check_whole, touched_since
from tallystick.services.context import Context

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
WAY = (Status.CREATED, Status.QUOTED, Status.AWAITING_PAYMENT, Status.EXPIRED)
UNGUARDED = "SET LOCAL session_replication_role = replica;"
INVOICE = """INSERT INTO invoices (id, merchant_id, status, sequence, event_sequence, amount, currency, decimals,
    late_payment, created_at, expires_at, updated_at)
    VALUES ($1, $2, 'created', 1, 1, 100, 'USD', 2, 'review', $3::timestamptz, $3::timestamptz + interval '1 hour',
    $3::timestamptz)"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Two merchants with two invoices each, without any history."""
    opened = await Database.open(database_url, connections_max=10)
    async with opened.transaction() as connection:
        await _two_merchants(connection)
    yield opened
    await opened.close()


async def _two_merchants(connection: Connection | asyncpg.Connection[asyncpg.Record]) -> None:
    for name in ("a", "b"):
        await connection.execute("INSERT INTO merchants VALUES ($1, $1, $2)", f"mer_{name}", AT)
        for number in (1, 2):
            await connection.execute(INVOICE, f"inv_{name}{number}", f"mer_{name}", AT)


def step(invoice_id: str, sequence: int) -> TransitionWrite:
    """A step of a history that leads through WAY."""
    return TransitionWrite(
        invoice_id=invoice_id,
        sequence=sequence,
        from_status=None if sequence == 1 else WAY[sequence - 2],
        to_status=WAY[sequence - 1],
        reason=Reason.INVOICE_CREATED.value,
        actor_type="system",
        actor_id=None,
        evidence='[{"type": "clock", "at": "2026-01-02T03:04:05Z"}]',
    )


async def write(database: Database, *steps: tuple[str, int]) -> None:
    """Write these steps in one transaction."""
    async with database.transaction() as connection:
        await write_transitions(connection, [step(*one) for one in steps], AT)


async def log_of(database: Database, merchant_id: str) -> list[asyncpg.Record]:
    """The log of a merchant, each row with the digest of its transition."""
    async with database.connection() as connection:
        return await connection.fetch(
            """SELECT l.*, transition_digest(t) AS digest FROM transition_log AS l
            LEFT JOIN transitions AS t USING (invoice_id, sequence) WHERE merchant_id = $1 ORDER BY position""",
            merchant_id,
        )


async def broken(database: Database, connection: Connection) -> set[str]:
    """Which rules about the log are broken, as this connection sees it."""
    ctx = Context(database, {}, StaticRates({}), "http://localhost")
    _, ids = await touched_since(connection, None)
    found = await check_invoices(connection, ctx, ids) + await check_whole(connection, ctx)
    return {problem.rule for problem in found if problem.rule.startswith("log-")}


async def test_every_row_is_the_hash_of_the_one_before_and_of_what_it_logs(database: Database) -> None:
    await write(database, ("inv_a1", 1), ("inv_a1", 2), ("inv_b1", 1), ("inv_a2", 1))
    await write(database, ("inv_a1", 3))
    log = await log_of(database, "mer_a")
    assert [(row["invoice_id"], row["sequence"]) for row in log] == [
        ("inv_a1", 1),
        ("inv_a1", 2),
        ("inv_a2", 1),
        ("inv_a1", 3),
    ]
    last = hashlib.sha256(b"mer_a").digest()
    for position, row in enumerate(log, start=1):
        last = hashlib.sha256(last + row["digest"]).digest()
        assert (row["position"], row["hash"]) == (position, last)
    async with database.connection() as connection:
        heads = await connection.fetch(
            "SELECT merchant_id, length, hash FROM transition_log_heads ORDER BY 1"
        )
        assert [tuple(head.values())[:2] for head in heads] == [("mer_a", 4), ("mer_b", 1)]
        assert heads[0]["hash"] == last
        assert await broken(database, connection) == set()


async def test_a_digest_is_of_everything_a_transition_says_and_the_same_everywhere(
    database: Database,
) -> None:
    await write(database, ("inv_a1", 1), ("inv_a1", 2))
    async with database.connection() as connection:
        digest = "SELECT transition_digest(t) FROM transitions AS t WHERE sequence = 2"
        before = await connection.fetchval(digest)
        columns = [
            row["column_name"]
            for row in await connection.fetch(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'transitions'"
            )
        ]
        changes = {
            "invoice_id": "'inv_x'",
            "sequence": "2 + 1",
            "from_status": "'expired'",
            "to_status": "'expired'",
            "reason": "'canceled'",
            "actor_type": "'merchant'",
            "actor_id": "''",
            "evidence": "'[1]'",
            "at": "at + interval '1 microsecond'",
        }
        assert set(columns) == set(changes)
        for column, value in changes.items():
            changed = await connection.fetchval(
                f"""SELECT transition_digest(jsonb_populate_record(t, jsonb_build_object('{column}', {value})))
                FROM transitions AS t WHERE sequence = 2"""
            )
            assert changed != before, column
        for setting in ("timezone = 'Asia/Kathmandu'", "datestyle = 'SQL, DMY'", "extra_float_digits = 0"):
            await connection.execute(f"SET {setting}")
            assert await connection.fetchval(digest) == before


async def test_what_is_not_in_the_log_cannot_be_committed(database: Database) -> None:
    async with database.connection() as connection:
        with pytest.raises(asyncpg.ForeignKeyViolationError, match="transitions_logged"):
            async with connection.transaction():
                await write_transitions(connection, [step("inv_a1", 1)], AT)
    assert await log_of(database, "mer_a") == []


async def test_history_and_its_log_only_grow(database: Database) -> None:
    await write(database, ("inv_a1", 1))
    async with database.connection() as connection:
        for table in ("transitions", "transition_log"):
            for statement in (
                f"UPDATE {table} SET sequence = 1",
                f"DELETE FROM {table}",
                f"TRUNCATE {table} CASCADE",
            ):
                with pytest.raises(asyncpg.CheckViolationError, match="only grows"):
                    await connection.execute(statement)


async def test_what_is_rolled_back_was_never_logged(database: Database) -> None:
    """The whole transaction, or a part of it that another way was found around."""

    async def fail(connection: Connection) -> None:
        await write_transitions(connection, [step("inv_a1", 1)], AT)
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        async with database.transaction() as connection:
            await fail(connection)
    async with database.transaction() as connection:
        await write_transitions(connection, [step("inv_a2", 1)], AT)
        with suppress(ZeroDivisionError):
            async with connection.transaction():
                await fail(connection)
    assert [row["invoice_id"] for row in await log_of(database, "mer_a")] == ["inv_a2"]


async def test_transactions_that_cross_between_two_merchants_wait_for_each_other_once(
    database: Database,
) -> None:
    """One wrote for a then b, the other for b then a. A third holds the end of a's log until both stand in line."""
    async with asyncio.timeout(30), database.connection() as holder:
        held = holder.transaction()
        await held.start()
        await holder.execute("SELECT 1 FROM transition_log_heads WHERE merchant_id = 'mer_a' FOR UPDATE")
        crossing = [
            asyncio.create_task(write(database, ("inv_a1", 1), ("inv_b1", 1))),
            asyncio.create_task(write(database, ("inv_b2", 1), ("inv_a2", 1))),
        ]
        async with database.aside() as watcher:
            while await watcher.fetchval(
                """SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'"""
            ) < len(crossing):
                await asyncio.sleep(0.01)
        await held.rollback()
        await asyncio.gather(*crossing)
    for merchant in ("mer_a", "mer_b"):
        assert [row["position"] for row in await log_of(database, merchant)] == [1, 2]
    async with database.connection() as connection:
        assert await broken(database, connection) == set()


async def test_many_at_once_leave_no_gap(database: Database) -> None:
    async with database.transaction() as connection:
        for number in range(40):
            await connection.execute(INVOICE, f"inv_c{number}", "mer_a", AT)
    await asyncio.gather(
        *(write(database, (f"inv_c{number}", 1), (f"inv_c{number}", 2)) for number in range(40))
    )
    async with database.connection() as connection:
        assert (
            await connection.fetchval("SELECT length FROM transition_log_heads WHERE merchant_id = 'mer_a'")
            == 80
        )
        assert await broken(database, connection) == set()


# What is done to the database behind our back, and the rules of which at least one has to tell.
TAMPERING: dict[str, tuple[str, set[str]]] = {
    "a transition edited": ("UPDATE transitions SET actor_id = 'somebody' WHERE sequence = 2", {"log-hash"}),
    "its time edited": (
        "UPDATE transitions SET at = at + interval '1 microsecond' WHERE sequence = 2",
        {"log-hash"},
    ),
    "its evidence edited": ("UPDATE transitions SET evidence = '[2]' WHERE sequence = 2", {"log-hash"}),
    "a transition removed": ("DELETE FROM transitions WHERE sequence = 2", {"log-hash"}),
    "a transition inserted": (
        """INSERT INTO transitions SELECT invoice_id, 4, 'created', 'canceled', reason, actor_type, actor_id, evidence,
        at FROM transitions WHERE sequence = 1""",
        {"log-hash"},
    ),
    "a row of the log edited": (
        "UPDATE transition_log SET hash = sha256(hash) WHERE position = 2",
        {"log-hash"},
    ),
    "a row of the log removed": ("DELETE FROM transition_log WHERE position = 2", {"log-hash", "log-gap"}),
    "a transition removed with its row": (
        "DELETE FROM transitions WHERE sequence = 2; DELETE FROM transition_log WHERE sequence = 2",
        {"log-hash", "log-gap"},
    ),
    "and the rows after it moved up": (
        """DELETE FROM transitions WHERE sequence = 2; DELETE FROM transition_log WHERE sequence = 2;
        UPDATE transition_log SET position = position - 1 WHERE position > 2;
        UPDATE transition_log_heads SET length = length - 1 WHERE length > 0""",
        {"log-hash"},
    ),
    "two rows exchanged": (
        """UPDATE transition_log SET position = 9 WHERE position = 2; UPDATE transition_log SET position = 2
        WHERE position = 3; UPDATE transition_log SET position = 3 WHERE position = 9""",
        {"log-hash"},
    ),
    "what two rows log exchanged": (
        """ALTER TABLE transition_log DROP CONSTRAINT transition_log_invoice_id_sequence_key CASCADE;
        UPDATE transition_log SET sequence = 5 - sequence WHERE sequence IN (2, 3)""",
        {"log-hash"},
    ),
    "a row put at the end": (
        """INSERT INTO transition_log SELECT merchant_id, 5, invoice_id, 4, sha256(hash) FROM transition_log
        WHERE position = 4""",
        {"log-hash", "log-head"},
    ),
    "a row given to another merchant": (
        "UPDATE transition_log SET merchant_id = 'mer_b' WHERE position = 1",
        {"log-hash", "log-gap"},
    ),
    "the newest removed": (
        "DELETE FROM transitions WHERE sequence = 3; DELETE FROM transition_log WHERE position = 4",
        {"log-head"},
    ),
    "all removed": ("DELETE FROM transitions; DELETE FROM transition_log", {"log-head"}),
    "the end of the log edited": ("UPDATE transition_log_heads SET hash = sha256(hash)", {"log-head"}),
    "the end of the log removed": ("DELETE FROM transition_log_heads", {"log-head"}),
    "an invoice removed with its history": (
        "DELETE FROM invoices WHERE id = 'inv_a1'; DELETE FROM transitions WHERE invoice_id = 'inv_a1'",
        {"log-gap"},
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
async def test_tampering_is_found_and_named(database: Database, what: str) -> None:
    """Done as the owner of the database, with the guards switched off."""
    await write(database, ("inv_a2", 1), ("inv_a1", 1), ("inv_a1", 2), ("inv_a1", 3))
    statement, expected = TAMPERING[what]
    async with database.connection() as connection:
        assert await broken(database, connection) == set()
        undo = connection.transaction()
        await undo.start()
        await connection.execute(f"{UNGUARDED} {statement}")
        found = await broken(database, connection)
        await undo.rollback()
    assert found >= expected


async def _before_the_log(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """The schema as it was, with two merchants."""
    folder = resources.files("tallystick.db").joinpath("migrations", "sql")
    for name in ("0001_foundation.sql", "0002_endings.sql"):
        await connection.execute(folder.joinpath(name).read_text())
    await connection.execute(
        """CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
        INSERT INTO alembic_version VALUES ('0002')"""
    )
    await _two_merchants(connection)


async def test_a_straggler_of_the_version_before_is_waited_for(empty_database_url: str) -> None:
    """What it was about to commit is chained as well. Seen to fail without the lock: the migration breaks off."""
    old, watch = (
        await asyncpg.connect(empty_database_url),
        await asyncpg.connect(empty_database_url),
    )
    try:
        await _before_the_log(old)
        writing = old.transaction()
        await writing.start()
        await old.execute(
            """INSERT INTO transitions
            VALUES ('inv_a1', 1, NULL, 'created', 'invoice_created', 'system', NULL, '[1]', $1)""",
            AT,
        )
        migration = asyncio.create_task(migrate(empty_database_url))
        async with asyncio.timeout(20):
            while not await watch.fetchval(
                "SELECT count(*) FROM pg_locks WHERE relation = 'transitions'::regclass AND NOT granted"
            ):
                await asyncio.sleep(0.02)
        await writing.commit()
        await migration
        assert await watch.fetchval("SELECT count(*) FROM transition_log WHERE invoice_id = 'inv_a1'") == 1
    finally:
        await old.close()
        await watch.close()


async def test_history_from_before_the_log_is_chained_by_the_migration(empty_database_url: str) -> None:
    """In the order of time; of one invoice in the order of its numbers, although its clock went back."""
    connection = await asyncpg.connect(empty_database_url)
    try:
        await _before_the_log(connection)
        for invoice_id, sequence, minute in (
            ("inv_a1", 1, 5),
            ("inv_a1", 2, 3),
            ("inv_a2", 1, 4),
            ("inv_b1", 1, 1),
        ):
            await connection.execute(
                """INSERT INTO transitions VALUES ($1, $2, $3, 'quoted', 'rates_locked', 'system', NULL, '[1]', $4)""",
                invoice_id,
                sequence,
                None if sequence == 1 else "created",
                AT.replace(minute=minute),
            )
    finally:
        await connection.close()
    await migrate(empty_database_url)
    database = await Database.open(empty_database_url)
    try:
        log = await log_of(database, "mer_a")
        assert [(row["invoice_id"], row["sequence"]) for row in log] == [
            ("inv_a2", 1),
            ("inv_a1", 1),
            ("inv_a1", 2),
        ]
        assert len(await log_of(database, "mer_b")) == 1
        async with database.connection() as connection_after:
            assert await broken(database, connection_after) == set()
        await write(database, ("inv_a2", 2))
        assert len(await log_of(database, "mer_a")) == 4
    finally:
        await database.close()
