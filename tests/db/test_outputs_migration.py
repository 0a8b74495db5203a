"""Migration 0004: what a database of the version before holds is moved, and nothing of it is lost."""

from __future__ import annotations

from importlib import resources

import asyncpg

from tallystick.db.migrate import migrate

# Two payments of one transaction, one of another network with the same key, a finding without a transaction, and the
# outgoing transfer of a refund. Rows of one table at a time: what they refer to does not matter here.
BEFORE = """
SET session_replication_role = replica;
INSERT INTO transfers (id, network, tx_hash, channel, ordinal, sender, recipient, amount, spend_key, first_evidence_at,
    first_seen_at, merchant_id, invoice_id, option_id)
VALUES ('trf_1', 'eth', '0xaa', 'log', 0, '0x1', '0x2', 5, '0x1:7', now(), now(), 'mer', 'inv', 'opt'),
       ('trf_2', 'eth', '0xaa', 'log', 1, '0x1', '0x3', 6, '0x1:7', now(), now(), 'mer', 'inv', 'opt'),
       ('trf_3', 'eth', '0xbb', 'value', 0, '0x1', '0x2', 7, '0x1:7', now(), now(), 'mer', 'inv', 'opt'),
       ('trf_4', 'bsc', '0xcc', 'value', 0, '0x1', '0x2', 8, '0x1:7', now(), now(), 'mer', 'inv', 'opt'),
       ('trf_5', 'eth', 'balance:0x2', 'balance', 0, '', '0x2', 9, 'balance:0x2', now(), now(), 'mer', 'inv', 'opt');
INSERT INTO refund_transfers (id, refund_id, invoice_id, network, tx_hash, channel, ordinal, sender, recipient, amount,
    spend_key, first_evidence_at)
VALUES ('trf_6', 'rfd', 'inv', 'eth', '0xdd', 'value', 0, '0x9', '0x8', 1, '0x9:0', now());
INSERT INTO blocks (network, hash, height, parent_hash, time, in_best_chain)
VALUES ('eth', '0x1', 1, '0x0', now(), true);
"""


async def test_what_transactions_used_up_is_moved(empty_database_url: str) -> None:
    """Planted bugs seen to fail: keys of refunds' transactions left behind; a key for each transfer."""
    connection = await asyncpg.connect(empty_database_url)
    try:
        folder = resources.files("tallystick.db").joinpath("migrations", "sql")
        for name in ("0001_foundation.sql", "0002_endings.sql", "0003_transition_log.sql"):
            await connection.execute(folder.joinpath(name).read_text(encoding="utf-8"))
        await connection.execute(
            """CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
            INSERT INTO alembic_version VALUES ('0003')"""
        )
        await connection.execute(BEFORE)
        await migrate(empty_database_url)
        rows = await connection.fetch(
            "SELECT network, tx_hash, spend_key FROM transaction_spends ORDER BY 1, 2, 3"
        )
        assert [tuple(row) for row in rows] == [
            ("bsc", "0xcc", "0x1:7"),
            ("eth", "0xaa", "0x1:7"),
            ("eth", "0xbb", "0x1:7"),
            ("eth", "0xdd", "0x9:0"),
        ]
        assert await connection.fetchval("SELECT count(*) FROM transfers WHERE traits = '{}'") == 5
        assert await connection.fetchval("SELECT count(*) FROM blocks WHERE counted_time IS NULL") == 1
    finally:
        await connection.close()
