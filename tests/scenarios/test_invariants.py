"""The checker itself: every rule is broken once, by hand, and has to be named.

A checker that finds nothing proves nothing until it was seen to find something.
"""

from __future__ import annotations

import pytest

from tallystick.services.auditing import RULES, check_invoices, touched_since
from tallystick.services.refund_decisions import approve_refund
from tallystick.services.refunds import NewRefund, create_refund
from tallystick.services.webhooks import NewEndpoint, create_endpoint, ping
from tests.support.evm import Chain
from tests.support.invariants import check_invariants, find_problems
from tests.support.stand import Stand, address_in, units

# Without triggers and foreign keys: the database itself refuses to break some of the rules.
UNGUARDED = "SET LOCAL session_replication_role = replica;"

_OTHER = "(SELECT id FROM invoices WHERE status = 'awaiting_payment')"
_PAID = "(SELECT id FROM invoices WHERE status = 'paid')"
_CASE = """INSERT INTO exceptions (id, merchant_id, kind, invoice_id, subject, transfer_ids, owner, status,
    event_sequence, opened_at) SELECT 'exc_1', id, 'late'"""
_SECOND_TRANSFER = """CREATE TEMP TABLE again ON COMMIT DROP AS SELECT * FROM transfers LIMIT 1;
    ALTER TABLE transfers DROP CONSTRAINT transfers_network_tx_hash_channel_ordinal_key;
    UPDATE again SET id = 'trf_0'; INSERT INTO transfers SELECT * FROM again;
    INSERT INTO anchors SELECT 'trf_0', a.network, a.block_hash, 7 FROM anchors AS a LIMIT 1"""
# It is of another transaction, which uses up the same.
_OTHER_TRANSACTION = """UPDATE transfers SET tx_hash = '0x00' WHERE id = 'trf_0';
    INSERT INTO transaction_spends SELECT network, spend_key, '0x00' FROM transaction_spends"""
# The refund's own transfer, in a block of the best chain; {more} base units are more than were asked for.
_SENT = """INSERT INTO refund_transfers SELECT 'trf_{name}', r.id, r.invoice_id, r.network, '0x{name}', 'value', 0,
        '0xaa', r.address, r.contract, {more} + r.amount_sent, now() FROM refunds AS r;
    INSERT INTO refund_anchors SELECT 'trf_{name}', network, hash FROM blocks WHERE in_best_chain LIMIT 1;"""

# Rule and what to do to break it. One that can be broken in several ways stands several times.
_BREAKS: tuple[tuple[str, str], ...] = (
    ("transition-gap", f"{UNGUARDED} UPDATE transitions SET sequence = 9 WHERE sequence = 5"),
    ("transition-chain", f"{UNGUARDED} UPDATE transitions SET from_status = 'quoted' WHERE sequence = 4"),
    ("transition-edge", f"{UNGUARDED} UPDATE transitions SET to_status = 'settled' WHERE sequence = 3"),
    (
        "transition-edge",
        f"""ALTER TABLE transitions DROP CONSTRAINT transitions_reason_check;
        {UNGUARDED} UPDATE transitions SET reason = 'luck' WHERE sequence = 3""",
    ),
    (
        "transition-evidence",
        f"""ALTER TABLE transitions DROP CONSTRAINT transitions_evidence_check;
        {UNGUARDED} UPDATE transitions SET evidence = '[]' WHERE sequence = 3""",
    ),
    ("log-hash", f"{UNGUARDED} UPDATE transitions SET actor_id = 'me' WHERE sequence = 2"),
    ("log-head", f"{UNGUARDED} UPDATE transition_log_heads SET length = length - 1"),
    ("log-gap", f"{UNGUARDED} DELETE FROM transition_log WHERE position = 2"),
    ("transition-last", "UPDATE invoices SET status = 'overpaid' WHERE status = 'paid'"),
    ("transition-event", f"{UNGUARDED} DELETE FROM events WHERE type = 'invoice.paid'"),
    (
        "transition-event",
        f"{UNGUARDED} UPDATE transitions SET evidence = evidence || evidence WHERE sequence = 4",
    ),
    ("event-transition", "UPDATE events SET type = 'invoice.expired' WHERE type = 'invoice.paid'"),
    ("event-gap", f"{UNGUARDED} DELETE FROM events WHERE type = 'invoice.quoted'"),
    ("event-count", "UPDATE payments SET event_sequence = 7"),
    ("event-body", f"{UNGUARDED} UPDATE events SET id = 'evt_0' WHERE type = 'refund.requested'"),
    ("event-status", "UPDATE events SET type = 'payment.orphaned' WHERE type = 'payment.confirmed'"),
    ("event-other", "UPDATE events SET sequence = 2 WHERE type = 'webhook.ping'"),
    ("delivery-history", "UPDATE deliveries SET status = 'delivered', next_attempt_at = NULL"),
    ("delivery-overdue", "UPDATE deliveries SET next_attempt_at = '1980-01-01'"),
    (
        "delivery-overdue",
        """UPDATE webhook_endpoints SET failing_since = '1980-01-01';
        UPDATE deliveries SET next_attempt_at = '1980-01-01', attempts_made = 1, updated_at = '1980-01-01'""",
    ),
    (
        "transfer-key",
        """INSERT INTO anchors SELECT t.id, b.network, b.hash, 1 FROM transfers AS t, blocks AS b
        WHERE b.in_best_chain ON CONFLICT DO NOTHING""",
    ),
    ("transfer-key", _SECOND_TRANSFER),
    (
        "transfer-key",
        """ALTER TABLE payments DROP CONSTRAINT payments_transfer_id_key;
        UPDATE payments SET transfer_id = (SELECT min(id) FROM transfers)""",
    ),
    ("transfer-spend", f"{_SECOND_TRANSFER}; {_OTHER_TRANSACTION}"),
    (
        "output-spent",
        """INSERT INTO spendings SELECT t.id, b.network, '0x00', b.hash FROM transfers AS t, blocks AS b
        WHERE b.in_best_chain""",
    ),
    (
        "output-spent",
        """INSERT INTO spendings SELECT transfer_id, network, '0x00', block_hash FROM anchors;
        DELETE FROM anchors""",
    ),
    ("transfer-attribution", f"{UNGUARDED} UPDATE addresses SET address = '0x00' || left(address, 38)"),
    ("transfer-evidence", "UPDATE transfers SET first_evidence_at = first_evidence_at - interval '1 hour'"),
    ("transfer-evidence", "UPDATE transfers SET network = 'elsewhere'"),
    ("transfer-payment", "UPDATE transfers SET asset_symbol = NULL, asset_decimals = NULL"),
    ("payment-attribution", f"UPDATE payments SET invoice_id = {_OTHER}"),
    (
        "payment-confirmed",
        "UPDATE blocks SET in_best_chain = false WHERE hash IN (SELECT block_hash FROM anchors)",
    ),
    (
        "payment-confirmed",
        """UPDATE networks SET cursor_height = cursor_height + 50;
        UPDATE transfers SET traits = '{coinbase}'""",
    ),
    ("sighting-settled", "INSERT INTO sightings SELECT id, network, now() FROM transfers"),
    (
        "sighting-exclusive",
        f"""{_SECOND_TRANSFER}; {_OTHER_TRANSACTION};
        INSERT INTO sightings SELECT id, network, now() FROM transfers""",
    ),
    ("amount-paid", "UPDATE invoices SET amount_paid = 2499 WHERE status = 'paid'"),
    ("paid-short", "UPDATE transfers SET amount = amount / 2"),
    ("quote-number", "UPDATE payment_options SET amount_expected = amount_expected + 1"),
    ("quote-window", "UPDATE quotes SET expires_at = expires_at + interval '1 hour'"),
    ("quote-price", "UPDATE quotes SET amount_expected = amount_expected - 1"),
    ("quote-price", "UPDATE quotes SET amount_expected = amount_expected + 10000000000"),
    ("quote-price", "UPDATE quotes SET rate = 'many'"),
    ("quote-due", "UPDATE quotes SET expires_at = expires_at - interval '1 minute'"),
    ("option-policy", "UPDATE payment_options SET policy_name = 'small'"),
    ("option-closed", "UPDATE invoices SET status = 'expired'; UPDATE payment_options SET status = 'quoted'"),
    ("option-address", "UPDATE payment_options SET address = '0x00'"),
    ("invoice-idle", "DELETE FROM wakeups"),
    ("case-owner", f"{_CASE}, {_OTHER}, '', '{{}}', ' ', 'open', 1, now() FROM merchants"),
    (
        "case-transfer",
        f"{_CASE}, {_OTHER}, '', ARRAY(SELECT id FROM transfers), 'support', 'open', 1, now() FROM merchants",
    ),
    (
        "case-reason",
        f"""{_CASE.replace("late", "network_halted")}, NULL, 'local', '{{}}', 'support', 'open', 1, now()
        FROM merchants""",
    ),
    ("refund-history", "UPDATE refunds SET status = 'rejected'"),
    ("refund-history", "DELETE FROM refund_transitions WHERE sequence = 1"),
    (
        "refund-inputs",
        "UPDATE refunds SET status = 'awaiting_signature', psbt = 'cHNidP8=', psbt_fee = 1",
    ),
    (
        "refund-inputs",
        "INSERT INTO refund_inputs SELECT t.id, r.id FROM transfers AS t, refunds AS r LIMIT 1",
    ),
    ("refund-edge", "UPDATE refund_transitions SET to_status = 'failed' WHERE to_status = 'approved'"),
    ("refund-credit", "UPDATE refunds SET amount = amount * 99, amount_sent = amount_sent * 99"),
    ("refund-basis", "UPDATE refunds SET basis_ids = ARRAY['trf_none']"),
    ("refund-transfer", _SENT.format(name="1", more=1)),
    (
        "refund-transfer",
        f"""ALTER TABLE refund_transfers DROP CONSTRAINT refund_transfers_network_tx_hash_channel_ordinal_key;
        {_SENT.format(name="1", more=0)} {_SENT.format(name="2", more=0)} UPDATE refund_transfers SET tx_hash = '0x'""",
    ),
    ("refund-once", f"{_SENT.format(name='1', more=0)} {_SENT.format(name='2', more=0)}"),
    ("refund-due", "UPDATE refunds SET attention_at = NULL"),
    ("refund-overdue", "UPDATE refunds SET attention_at = '1980-01-01'"),
    ("owner-options", f"{UNGUARDED} UPDATE payment_options SET merchant_id = 'mer_x'"),
    ("owner-options", f"{UNGUARDED} UPDATE wallets SET merchant_id = 'mer_x'"),
    ("owner-money", "UPDATE payments SET merchant_id = 'mer_x'"),
    ("owner-money", "UPDATE transfers SET merchant_id = 'mer_x'"),
    ("owner-money", f"{UNGUARDED} UPDATE refunds SET merchant_id = 'mer_x'"),
    (
        "owner-people",
        f"""{UNGUARDED} {_CASE}, {_PAID}, '', '{{}}', 'me', 'open', 1, now() FROM merchants;
        UPDATE exceptions SET merchant_id = 'mer_x'""",
    ),
    ("owner-events", f"{UNGUARDED} UPDATE events SET merchant_id = 'mer_x'"),
    ("owner-events", f"{UNGUARDED} UPDATE webhook_endpoints SET merchant_id = 'mer_x'"),
    ("endpoint-owner", "UPDATE webhook_endpoints SET status = 'disabled', disabled_reason = 'It is gone.'"),
    ("entry-balance", f"{UNGUARDED} UPDATE postings SET amount = 1 WHERE account = 'merchant'"),
    ("entry-postings", f"{UNGUARDED} DELETE FROM postings WHERE account = 'merchant'"),
    ("entry-once", f"{UNGUARDED} UPDATE ledger_entries SET reverses = NULL"),
    (
        "entry-opposite",
        f"""{UNGUARDED} UPDATE postings SET amount = -amount
        WHERE entry_id IN (SELECT id FROM ledger_entries WHERE reverses IS NOT NULL)""",
    ),
    ("entry-account", f"{UNGUARDED} UPDATE postings SET network = '' WHERE account = 'onchain'"),
    ("entry-subject", f"{UNGUARDED} UPDATE postings SET merchant_id = 'mer_x' WHERE account = 'merchant'"),
    ("entry-subject", f"{UNGUARDED} UPDATE ledger_entries SET subject = 'pay_x' WHERE kind = 'receipt'"),
    ("account-sum", f"{UNGUARDED} UPDATE postings SET amount = amount * 2 WHERE account = 'onchain'"),
    (
        "account-onchain",
        f"""{UNGUARDED} UPDATE postings SET amount = amount / 2
        WHERE entry_id IN (SELECT id FROM ledger_entries WHERE kind = 'receipt')""",
    ),
    ("guard", "ALTER TABLE postings DISABLE TRIGGER postings_only_grow"),
    ("guard", "DROP TRIGGER refunds_within_credit ON refunds"),
    ("index-spent", "UPDATE key_counters SET next_index = 0"),
    ("index-spent", "UPDATE addresses SET derivation_index = 0"),
    ("chain-height", "DROP INDEX blocks_best_height; UPDATE blocks SET height = 1"),
    (
        "chain-parent",
        "UPDATE blocks SET parent_hash = '0x00' WHERE height = (SELECT max(height) FROM blocks)",
    ),
    ("chain-gap", f"{UNGUARDED} DELETE FROM blocks WHERE height = (SELECT max(height) - 1 FROM blocks)"),
    ("chain-cursor", "UPDATE networks SET cursor_hash = '0x00'"),
    ("chain-cursor", "UPDATE networks SET scanned_until = scanned_until - interval '1 day'"),
    ("chain-finality", "UPDATE networks SET finalized_height = cursor_height + 1"),
    ("wakeup-height", f"INSERT INTO wakeups SELECT name, 'tip', 1, {_OTHER} FROM networks"),
    ("wakeup-time", "UPDATE wakeups SET position = 1 WHERE marker = 'time'"),
    (
        "requote-overdue",
        "INSERT INTO requotes SELECT id, invoice_id, '1980-01-01' FROM payment_options LIMIT 1",
    ),
    (
        "check-overdue",
        """UPDATE networks SET status = 'following'; INSERT INTO balance_checks
            (network, address, family, invoice_id, due_at)
        SELECT n.name, a.address, a.family, a.invoice_id, '1980-01-01' FROM networks AS n, addresses AS a""",
    ),
    ("orphan", f"{UNGUARDED} DELETE FROM payments"),
    ("orphan", f"{UNGUARDED} DELETE FROM transfers"),
    ("orphan", f"{UNGUARDED} DELETE FROM blocks"),
    ("orphan", f"{UNGUARDED} DELETE FROM ledger_entries"),
    ("orphan", f"{UNGUARDED} DELETE FROM invoices WHERE status = 'awaiting_payment'"),
    ("replay-status", "UPDATE invoices SET status = 'confirming' WHERE status = 'paid'"),
    ("replay-amount", "UPDATE invoices SET amount_paid = 1 WHERE status = 'awaiting_payment'"),
    ("replay-payment", f"{UNGUARDED} DELETE FROM payments"),
    ("replay-payment", "UPDATE payments SET match = 'wrong_asset'"),
    ("replay-refund", "UPDATE refunds SET status = 'confirming'"),
    ("replay-wakeups", "DELETE FROM wakeups"),
    (
        "replay-case",
        f"""{_CASE}, {_PAID}, '', ARRAY(SELECT id FROM transfers), 'support', 'open', 1, now() FROM merchants""",
    ),
    ("replay-case", "UPDATE transfers SET contract = '0xba', asset_symbol = NULL, asset_decimals = NULL"),
    ("replay-books", f"{UNGUARDED} DELETE FROM postings; DELETE FROM ledger_entries"),
    (
        "unreadable",
        "ALTER TABLE invoices DROP CONSTRAINT invoices_status_check; UPDATE invoices SET status = 'well'",
    ),
)


@pytest.fixture
async def settled(stand: Stand, chain: Chain) -> Stand:
    """A shop with one paid invoice, of which a part is being given back, one that waits, and a receiver; in order.

    The paid one was topped up, so its books took something back.
    """
    async with stand.ctx.database.transaction() as connection:
        new = NewEndpoint("http://127.0.0.1:9/hook")
        endpoint = await create_endpoint(connection, stand.ctx, stand.merchant_id, new)
        await ping(connection, stand.ctx, stand.merchant_id, endpoint.id)
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
    part = NewRefund("a part", invoice_id=paid.id, amount="0.001", address=f"0x{'c0ffee' * 6}0001")
    asked = await stand.do(create_refund, part)
    await stand.do(approve_refund, asked.id, "looks right")
    await check_invariants(stand.ctx)
    return stand


async def test_every_broken_rule_is_named(settled: Stand) -> None:
    """Each break is undone before the next."""
    missed = []
    for rule, statement in _BREAKS:
        async with settled.ctx.database.connection() as connection:
            undo = connection.transaction()
            await undo.start()
            try:
                await connection.execute(statement)
                found = await find_problems(connection, settled.ctx)
            finally:
                await undo.rollback()
        if not any(line.startswith(f"{rule}: ") for line in found):
            missed.append((rule, statement, found))
    assert not missed


async def test_what_waits_for_its_turn_at_an_endpoint_that_fails_is_not_forgotten(settled: Stand) -> None:
    """A receiver that was down over night leaves thousands due, tried one at a time.

    Seen to fail where none may wait.
    """
    async with settled.ctx.database.connection() as connection:
        undo = connection.transaction()
        await undo.start()
        try:
            await connection.execute(
                """UPDATE webhook_endpoints SET failing_since = '1980-01-01';
                UPDATE deliveries SET next_attempt_at = '1980-01-01', updated_at = '1980-01-01';
                UPDATE deliveries SET attempts_made = 1, updated_at = now()
                WHERE id = (SELECT min(id) FROM deliveries)"""
            )
            found = await find_problems(connection, settled.ctx)
        finally:
            await undo.rollback()
    assert not [line for line in found if line.startswith("delivery-overdue: ")]


def test_every_rule_is_broken_by_a_test() -> None:
    """A rule that is added and not seen to fail proves nothing. `replay-order` is a property of core, not of rows."""
    assert {rule.id for rule in RULES} - {rule for rule, _ in _BREAKS} == {"replay-order"}


async def test_what_was_written_is_found_by_its_marker(settled: Stand, chain: Chain) -> None:
    """Whatever is written about an invoice names it once more; what was not written is not named for ever."""
    ctx = settled.ctx
    async with ctx.database.connection() as connection:
        marker, everything = await touched_since(connection, None)
        assert len(everything) == 2
        again, ids = await touched_since(connection, marker)
        assert ids == []
    new = await settled.create("25.00")
    async with ctx.database.connection() as connection:
        marker, ids = await touched_since(connection, again)
        assert ids == [new.id]
        assert await check_invoices(connection, ctx, ids) == []
    await chain.send_native(address_in(new), units("0.01"))
    await chain.mine()
    await settled.follow()
    async with ctx.database.connection() as connection:
        _, ids = await touched_since(connection, marker)
        assert ids == [new.id]
