"""Quotes as they are read for an assessment: those that value something, however often was quoted.

Holds true: a transfer is worth the same as with the whole history. Planted bug seen to fail: `<` for `<=` in the
look-up of the quote in force (a transfer of the very moment of a new quote takes the old one).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tallystick.core.invoice import EarlierQuote
from tallystick.db.invoices import SQL, _option
from tallystick.db.pool import _prepare

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
QUOTES = 300
MOMENTS = [START + timedelta(minutes=minutes) for minutes in (-5, 0.5, 1, 1.5, 2, 149, 299, 299.5, 300, 400)]
ROWS = """
SET session_replication_role = replica; -- rows of a few tables: what they refer to does not matter here
INSERT INTO networks (name, family) VALUES ('alpha', 'evm');
INSERT INTO payment_options (id, invoice_id, merchant_id, position, network, asset_symbol, asset_decimals,
    amount_expected, quote_number, finality, confirmations_required, tolerance_under_bps, tolerance_over_bps,
    policy_name, policy_explanation, status)
SELECT 'opt-' || n, 'inv-1', 'mer', n, 'alpha', 'ETH', 18, {quotes}, {quotes}, 'depth', 2, 0, 0, 'p', 'e', 'quoted'
FROM generate_series(1, 2) AS n;
INSERT INTO quotes (option_id, number, amount_expected, rate, source, quoted_at, expires_at)
SELECT 'opt-' || o, n, n, '1', 'static', '{start}'::timestamptz + n * interval '1 minute',
    '{start}'::timestamptz + (n + 1) * interval '1 minute'
FROM generate_series(1, 2) AS o, generate_series(1, {quotes}) AS n;
"""


@pytest.fixture
async def connection(database_url: str) -> Any:
    opened = await asyncpg.connect(database_url)
    await _prepare(opened)
    await opened.execute(ROWS.format(quotes=QUOTES, start=START.isoformat()))
    yield opened
    await opened.close()


async def test_what_is_read_values_every_transfer_as_the_whole_history_does(connection: Any) -> None:
    """A defect once: every look at an invoice read all its quotes, a second and more after a month by the minute."""
    for number, moment in enumerate(MOMENTS):
        await connection.execute(
            """
            INSERT INTO transfers (id, network, tx_hash, channel, ordinal, sender, recipient, amount,
                first_evidence_at, first_seen_at, merchant_id, invoice_id, option_id)
            VALUES ('trf-' || $1, 'alpha', 'tx-' || $1, 'log', 0, 's', 'r', 1, $2, $2, 'mer', 'inv-1', 'opt-1')
            """,
            str(number),
            moment,
        )
    paid, idle = [_option(row).terms for row in await SQL.options_of.all(connection, ids=["inv-1"])]
    history = tuple(
        EarlierQuote(number, START + timedelta(minutes=number + 1)) for number in range(1, QUOTES)
    )
    whole = replace(paid, earlier=history)
    assert [paid.asked_at(moment) for moment in MOMENTS] == [whole.asked_at(moment) for moment in MOMENTS]
    assert len(paid.earlier) < len(MOMENTS)
    assert idle.earlier == ()
