"""The checker itself: every rule is broken once, by hand, and has to be named.

A checker that finds nothing proves nothing until it was seen to find something.
"""

from __future__ import annotations

import pytest

from tests.support.evm import Chain
from tests.support.invariants import check_invariants, find_problems
from tests.support.stand import Stand, address_in, units

_BREAKS: dict[str, str] = {
    "a transition's number is missing": "UPDATE transitions SET sequence = 9 WHERE sequence = 5",
    "does not start where the one before ended": "UPDATE transitions SET from_status = 'quoted' WHERE sequence = 4",
    "an edge is not in the table": "UPDATE transitions SET to_status = 'settled' WHERE sequence = 3",
    "a reason is not in the published list": """ALTER TABLE transitions DROP CONSTRAINT IF EXISTS
        transitions_reason_check; UPDATE transitions SET reason = 'luck' WHERE sequence = 3""",
    "the last transition is not": "UPDATE invoices SET status = 'overpaid' WHERE status = 'paid'",
    "but its facts say": "UPDATE invoices SET status = 'confirming' WHERE status = 'paid'",
    "an object's events have a gap": "DELETE FROM events WHERE type = 'invoice.quoted'",
    "an object does not know its last event": "UPDATE payments SET event_sequence = 7",
    "a transition has not exactly one event": "DELETE FROM events WHERE type = 'invoice.paid'",
    "an invoice's event belongs to no transition": """UPDATE events SET type = 'invoice.expired'
        WHERE type = 'invoice.paid'""",
    "a transfer has no address": "UPDATE addresses SET address = '0x00' || left(address, 38)",
    "not at its first evidence": "UPDATE transfers SET first_evidence_at = first_evidence_at - interval '1 hour'",
    "has no payment, or one of an unknown token has": "UPDATE transfers SET asset_symbol = NULL, asset_decimals = NULL",
    "is no payment": "DELETE FROM payments",
    "does not stand on the one below": """UPDATE blocks SET parent_hash = '0x00'
        WHERE height = (SELECT max(height) FROM blocks)""",
    "the cursor is not the top": "UPDATE networks SET cursor_hash = '0x00'",
    "confirmed outside the best chain": """UPDATE blocks SET in_best_chain = false
        WHERE hash IN (SELECT block_hash FROM anchors)""",
    "paid without enough confirmed money": "UPDATE transfers SET amount = amount / 2",
    "credits other than what is confirmed": "UPDATE invoices SET amount_paid = 2499 WHERE status = 'paid'",
    "stored as paid": "UPDATE invoices SET amount_paid = 1 WHERE status = 'awaiting_payment'",
    "waits for": "DELETE FROM wakeups",
}


@pytest.fixture
async def settled(stand: Stand, chain: Chain) -> Stand:
    """A shop with one paid invoice and one that waits, in order."""
    paid = await stand.create("25.00")
    await stand.create("25.00")
    await chain.send_native(address_in(paid), units("0.01"))
    await chain.mine()
    await stand.follow()
    await chain.mine(2)
    await stand.follow()
    await check_invariants(stand.ctx)
    return stand


async def test_every_broken_rule_is_named(settled: Stand) -> None:
    """Each break is undone before the next."""
    missed = []
    for problem, statement in _BREAKS.items():
        async with settled.ctx.database.connection() as connection:
            undo = connection.transaction()
            await undo.start()
            try:
                await connection.execute(statement)
                found = "\n".join(await find_problems(connection, settled.ctx))
            finally:
                await undo.rollback()
        if problem not in found:
            missed.append((problem, found))
    assert not missed
