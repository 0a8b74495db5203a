"""The checker itself: every rule is broken once, by hand, and has to be named.

A checker that finds nothing proves nothing until it was seen to find something.
"""

from __future__ import annotations

import pytest

from tests.support.evm import Chain
from tests.support.invariants import check_invariants, find_problems
from tests.support.stand import Stand, address_in, units

# Without triggers and foreign keys: the database itself refuses to break some of the rules.
UNGUARDED = "SET LOCAL session_replication_role = replica;"

_CASE = """INSERT INTO exceptions (id, merchant_id, kind, invoice_id, subject, transfer_ids, owner, status,
    event_sequence, opened_at) SELECT 'exc_1', id, 'late'"""

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
    "neither its address nor a person says so": "UPDATE addresses SET address = '0x00' || left(address, 38)",
    "not at its first evidence": "UPDATE transfers SET first_evidence_at = first_evidence_at - interval '1 hour'",
    "has no payment, or one of an unknown token": "UPDATE transfers SET asset_symbol = NULL, asset_decimals = NULL",
    "is no payment": f"{UNGUARDED} DELETE FROM payments",
    "does not stand on the one below": """UPDATE blocks SET parent_hash = '0x00'
        WHERE height = (SELECT max(height) FROM blocks)""",
    "the cursor is not the top": "UPDATE networks SET cursor_hash = '0x00'",
    "confirmed outside the best chain": """UPDATE blocks SET in_best_chain = false
        WHERE hash IN (SELECT block_hash FROM anchors)""",
    "paid without enough confirmed money": "UPDATE transfers SET amount = amount / 2",
    "credits other than what is confirmed": "UPDATE invoices SET amount_paid = 2499 WHERE status = 'paid'",
    "stored as paid": "UPDATE invoices SET amount_paid = 1 WHERE status = 'awaiting_payment'",
    "waits for": "DELETE FROM wakeups",
    "the last one is not in force": "UPDATE payment_options SET amount_expected = amount_expected + 1",
    "promised beyond its invoice's window": "UPDATE quotes SET expires_at = expires_at + interval '1 second'",
    "names a rule that its version does not have": "UPDATE payment_options SET policy_name = 'small'",
    "belongs to another invoice than its transfer": """UPDATE payments
        SET invoice_id = (SELECT id FROM invoices WHERE status = 'awaiting_payment')""",
    "about a transfer of another invoice": f"""{_CASE}, (SELECT id FROM invoices WHERE status = 'awaiting_payment'),
        '', ARRAY(SELECT id FROM transfers), 'support', 'open', 1, now() FROM merchants""",
    "about something that is in order": f"""{_CASE.replace("late", "network_halted")}, NULL, 'local', '{{}}', 'support',
        'open', 1, now() FROM merchants""",
    "is open, but nothing is late": f"""{_CASE}, (SELECT id FROM invoices WHERE status = 'paid'), '',
        ARRAY(SELECT id FROM transfers), 'support', 'open', 1, now() FROM merchants""",
    "nobody has to do with it": """UPDATE transfers
        SET contract = '0xba', asset_symbol = NULL, asset_decimals = NULL""",
    "a ledger entry does not balance": f"{UNGUARDED} UPDATE postings SET amount = 1 WHERE account = 'merchant'",
    "a ledger entry has fewer than two postings": f"{UNGUARDED} DELETE FROM postings WHERE account = 'merchant'",
    "in another merchant's books": f"{UNGUARDED} UPDATE postings SET merchant_id = 'mer_x' WHERE account = 'merchant'",
    "more than one entry of a subject is in force": f"{UNGUARDED} UPDATE ledger_entries SET reverses = NULL",
    "is not the opposite of what it takes back": f"""{UNGUARDED} UPDATE postings SET amount = -amount
        WHERE entry_id IN (SELECT id FROM ledger_entries WHERE reverses IS NOT NULL)""",
    "do not add up to nothing": f"{UNGUARDED} UPDATE postings SET amount = amount * 2 WHERE account = 'onchain'",
    "is not what is confirmed less what was sent back": f"""{UNGUARDED} UPDATE postings SET amount = amount / 2
        WHERE entry_id IN (SELECT id FROM ledger_entries WHERE kind = 'receipt')""",
    "only facts of a chain can move": f"{UNGUARDED} UPDATE postings SET network = '' WHERE account = 'onchain'",
    "booked None, but its facts say": f"{UNGUARDED} DELETE FROM postings; DELETE FROM ledger_entries",
}


@pytest.fixture
async def settled(stand: Stand, chain: Chain) -> Stand:
    """A shop with one paid invoice and one that waits, in order. It was topped up, so its books took something back."""
    paid = await stand.create("25.00")
    await stand.create("25.00")
    await chain.send_native(address_in(paid), units("0.004"))
    await chain.mine(3)
    await stand.follow()
    await chain.send_native(address_in(paid), units("0.006"))
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
