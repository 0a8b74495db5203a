"""The ledger's own guards: the database refuses what does not balance and what would change a row, whoever asks.

Each guard was seen to be needed with a planted bug: the trigger in question left out of the migration.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import asyncpg
import pytest

from tallystick.core.ledger import Account, Denomination, Entry, EntryKind, Lines
from tallystick.core.money import AMOUNT_MAX
from tallystick.db import ledger
from tallystick.db.pool import Database
from tallystick.db.sql import Connection

AT = datetime(2026, 5, 1, tzinfo=UTC)
ETH = Denomination("local", "native", "ETH", 18)
ENTRY = """INSERT INTO ledger_entries (id, merchant_id, kind, subject, note, at)
    VALUES ($1, 'mer_1', 'adjustment', 'sub', 'because', now())"""
POSTINGS = """INSERT INTO postings
        (entry_id, position, merchant_id, account, asset, network, contract, decimals, amount)
    SELECT $1, g.position, 'mer_1', 'onchain', g.asset, 'local', g.asset, 18, g.amount
    FROM unnest($2::int[], $3::text[], $4::numeric[]) AS g(position, asset, amount)"""


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    """A connection as the services have it, to a database with one merchant."""
    database = await Database.open(database_url, connections_max=2)
    try:
        async with database.connection() as opened:
            await opened.execute(
                "INSERT INTO merchants (id, name, created_at) VALUES ('mer_1', 'Tally & Sons', now())"
            )
            yield opened
    finally:
        await database.close()


@contextlib.contextmanager
def refused(words: str) -> Iterator[None]:
    """What the database says no to."""
    with pytest.raises(asyncpg.CheckViolationError, match=words):
        yield


async def write(connection: Connection, entry_id: str, *lines: tuple[str, int], first: int = 1) -> None:
    """Postings of (asset, amount), numbered from `first`."""
    await connection.execute(
        POSTINGS,
        entry_id,
        list(range(first, first + len(lines))),
        [asset for asset, _ in lines],
        [amount for _, amount in lines],
    )


async def test_a_balanced_entry_is_kept(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute(ENTRY, "ent_1")
        await write(connection, "ent_1", ("A", 5), ("A", -5), ("B", AMOUNT_MAX), ("B", -AMOUNT_MAX))
    assert await connection.fetchval("SELECT count(*) FROM postings") == 4


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((("A", 5), ("A", -4)), "does not balance"),
        ((("A", 5), ("B", -5)), "does not balance"),
        ((("A", AMOUNT_MAX), ("A", -AMOUNT_MAX + 1)), "does not balance"),
        ((), "it takes two"),
    ],
    ids=["unequal", "two assets", "off by one in 2^256", "no postings"],
)
async def test_what_does_not_balance_fails_at_commit(
    connection: Connection, lines: tuple[tuple[str, int], ...], words: str
) -> None:
    """Not before: the statements themselves may come in any order."""
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(ENTRY, "ent_1")
    if lines:
        await write(connection, "ent_1", *lines)
    with refused(words):
        await transaction.commit()
    assert await connection.fetchval("SELECT count(*) FROM ledger_entries") == 0


async def test_one_posting_is_no_entry(connection: Connection) -> None:
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(ENTRY, "ent_1")
    await write(connection, "ent_1", ("A", 5))
    with refused("it takes two"):
        await transaction.commit()


@pytest.mark.parametrize("later", [(("A", 7),), (("A", 7), ("A", -7))], ids=["unbalanced", "balanced"])
async def test_no_posting_joins_an_entry_later(
    connection: Connection, later: tuple[tuple[str, int], ...]
) -> None:
    async with connection.transaction():
        await connection.execute(ENTRY, "ent_1")
        await write(connection, "ent_1", ("A", 5), ("A", -5))
    with refused("has its postings already"):
        await write(connection, "ent_1", *later, first=3)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_entries SET note = 'otherwise'",
        "DELETE FROM ledger_entries",
        "TRUNCATE ledger_entries CASCADE",
        "UPDATE postings SET amount = amount * 2",
        "DELETE FROM postings",
        "TRUNCATE postings",
    ],
)
async def test_nothing_is_changed_or_removed(connection: Connection, statement: str) -> None:
    async with connection.transaction():
        await connection.execute(ENTRY, "ent_1")
        await write(connection, "ent_1", ("A", 5), ("A", -5))
    with refused("only grows"):
        await connection.execute(statement)


async def test_an_entry_is_taken_back_once(connection: Connection) -> None:
    async with connection.transaction():
        await ledger.insert_entries(connection, [write_of("ent_1")], AT)
    (known,) = await ledger.in_force(connection, ["sub"])
    back = known.entry.opposite("not any more")
    async with connection.transaction():
        reversing = ledger.EntryWrite("ent_2", known.about, back, None, known.id)
        await ledger.insert_entries(connection, [reversing], AT)
    assert await ledger.in_force(connection, ["sub"]) == []
    again = ledger.EntryWrite("ent_3", known.about, back, None, known.id)
    with pytest.raises(asyncpg.UniqueViolationError):
        await ledger.insert_entries(connection, [again], AT)


async def test_an_entry_is_read_as_it_was_written(connection: Connection) -> None:
    """With several denominations, and an amount too large for one line."""
    async with connection.transaction():
        await ledger.insert_entries(connection, [write_of("ent_1", 2 * AMOUNT_MAX + 1)], AT)
    (known,) = await ledger.in_force(connection, ["sub", "elsewhere"])
    assert (known.id, known.entry) == ("ent_1", write_of("ent_1", 2 * AMOUNT_MAX + 1).entry)


def write_of(entry_id: str, amount: int = 5) -> ledger.EntryWrite:
    lines = Lines()
    lines.move(ETH, Account.ONCHAIN, Account.SUSPENSE, amount)
    lines.move(Denomination("", "", "USD", 2), Account.RECEIVABLE, Account.EXPECTED, 7)
    entry: Entry | None = lines.entry(EntryKind.RECEIPT, "because")
    assert entry is not None
    return ledger.EntryWrite(entry_id, ledger.About("mer_1", "sub"), entry, None)
