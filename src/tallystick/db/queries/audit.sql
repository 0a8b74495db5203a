-- What an audit reads besides its rules.

-- name: plan_once
-- For the rest of this transaction a statement is planned once for any number of invoices. A rule's own plan is quick to
-- run, and all rules together are long to plan.
SELECT set_config('plan_cache_mode', 'force_generic_plan', true);

-- name: wakeups_of
-- What these invoices wait for.
SELECT invoice_id, network, marker, position FROM wakeups WHERE invoice_id = ANY(:ids::text[]);

-- name: exceptions_of
-- Every exception about these invoices, the latest of each kind last, without a lock.
SELECT id, invoice_id, kind, status, transfer_ids, resolution FROM exceptions WHERE invoice_id = ANY(:ids::text[]) ORDER BY id;

-- name: ids_after
-- A page of all invoices, by id.
SELECT id FROM invoices WHERE id > :after ORDER BY id LIMIT :row_count;

-- name: all_ids
-- Every invoice, for small databases.
SELECT id FROM invoices ORDER BY id;

-- name: marker
-- A marker of now: whatever is written later was written by this transaction or a later one.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS marker;

-- name: touched
-- Invoices of which any row was written since a marker, and the marker for the next time. Reads whole tables: for small
-- databases. Ages are compared, because the numbers of transactions wrap around. What was deleted shows by what was written
-- with it.
WITH since AS (SELECT age((:marker::bigint & 4294967295)::text::xid) AS age)
SELECT t.id, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS marker FROM (
    SELECT NULL::text AS id
    UNION SELECT id FROM invoices, since WHERE age(invoices.xmin) <= since.age
    UNION SELECT invoice_id FROM payment_options, since WHERE age(payment_options.xmin) <= since.age
    UNION SELECT o.invoice_id FROM since, quotes AS q JOIN payment_options AS o ON o.id = q.option_id WHERE age(q.xmin) <= since.age
    UNION SELECT invoice_id FROM requotes, since WHERE age(requotes.xmin) <= since.age
    UNION SELECT invoice_id FROM addresses, since WHERE age(addresses.xmin) <= since.age
    UNION SELECT invoice_id FROM transitions, since WHERE age(transitions.xmin) <= since.age
    UNION SELECT invoice_id FROM wakeups, since WHERE age(wakeups.xmin) <= since.age
    UNION SELECT invoice_id FROM payments, since WHERE age(payments.xmin) <= since.age
    UNION SELECT invoice_id FROM transfers, since WHERE age(transfers.xmin) <= since.age
    UNION SELECT invoice_id FROM exceptions, since WHERE age(exceptions.xmin) <= since.age AND invoice_id IS NOT NULL
    UNION SELECT invoice_id FROM decisions, since WHERE age(decisions.xmin) <= since.age
    UNION SELECT invoice_id FROM refunds, since WHERE age(refunds.xmin) <= since.age
    UNION SELECT r.invoice_id FROM since, refund_transitions AS h JOIN refunds AS r ON r.id = h.refund_id WHERE age(h.xmin) <= since.age
    UNION SELECT invoice_id FROM refund_transfers, since WHERE age(refund_transfers.xmin) <= since.age
    UNION SELECT invoice_id FROM ledger_entries, since WHERE age(ledger_entries.xmin) <= since.age AND invoice_id IS NOT NULL
    UNION SELECT invoice_id FROM balance_checks, since WHERE age(balance_checks.xmin) <= since.age
    UNION SELECT t.invoice_id FROM since, sightings AS s JOIN transfers AS t ON t.id = s.transfer_id WHERE age(s.xmin) <= since.age
    UNION SELECT t.invoice_id FROM since, (
            SELECT transfer_id, network, block_hash, xmin AS written FROM anchors
            UNION ALL SELECT transfer_id, network, block_hash, xmin FROM conflicts
            UNION ALL SELECT transfer_id, network, block_hash, xmin FROM spendings) AS p
        JOIN blocks AS b ON b.network = p.network AND b.hash = p.block_hash JOIN transfers AS t ON t.id = p.transfer_id
        WHERE LEAST(age(p.written), age(b.xmin)) <= since.age
    UNION SELECT t.invoice_id FROM since, refund_anchors AS p
        JOIN blocks AS b ON b.network = p.network AND b.hash = p.block_hash JOIN refund_transfers AS t ON t.id = p.transfer_id
        WHERE LEAST(age(p.xmin), age(b.xmin)) <= since.age
    UNION SELECT coalesce(i.id, p.invoice_id, r.invoice_id, x.invoice_id) FROM since, events AS e
        LEFT JOIN invoices AS i ON i.id = e.object_id LEFT JOIN payments AS p ON p.id = e.object_id
        LEFT JOIN refunds AS r ON r.id = e.object_id LEFT JOIN exceptions AS x ON x.id = e.object_id
        WHERE age(e.xmin) <= since.age
) AS t ORDER BY t.id;

-- name: figures^
-- How much there is to look at.
SELECT (SELECT count(*) FROM invoices) AS invoices, (SELECT count(*) FROM transitions) AS transitions,
    (SELECT count(*) FROM transition_log) AS log_rows, (SELECT count(*) FROM events) AS events,
    (SELECT count(*) FROM deliveries) AS deliveries, (SELECT count(*) FROM transfers) AS transfers,
    (SELECT count(*) FROM payments) AS payments, (SELECT count(*) FROM refunds) AS refunds,
    (SELECT count(*) FROM exceptions) AS exceptions, (SELECT count(*) FROM ledger_entries) AS ledger_entries,
    (SELECT count(*) FROM postings) AS postings, (SELECT count(*) FROM addresses) AS addresses,
    (SELECT count(*) FROM blocks) AS blocks, (SELECT count(*) FROM networks) AS networks;

-- name: last_sign_of_life$
-- When a follower last saw a node's head move: while nothing runs, what is due waits for good reason.
SELECT max(head_changed_at) AS at FROM networks;

-- name: addresses_of
-- The addresses issued to these invoices, with the key and the index that they were derived by.
SELECT a.address, a.family, a.invoice_id, a.derivation_index, w.account_key
FROM addresses AS a JOIN wallets AS w ON w.id = a.wallet_id
WHERE a.invoice_id = ANY(:ids::text[]) ORDER BY a.address;

-- name: heads
-- Where the log of each merchant ends.
SELECT merchant_id, length, hash FROM transition_log_heads WHERE length > 0 ORDER BY merchant_id;

-- name: logged_at
-- What the logs of these merchants said at these rows.
SELECT g.merchant_id, l.hash
FROM unnest(:merchant_ids::text[], :positions::bigint[]) AS g(merchant_id, position)
LEFT JOIN transition_log AS l ON l.merchant_id = g.merchant_id AND l.position = g.position
ORDER BY g.merchant_id;

-- name: blocks_with_ours
-- Heights of the best chain whose block holds a transfer of ours, or rules one out, the newest first.
SELECT b.height FROM blocks AS b
WHERE b.network = :network AND b.in_best_chain AND (
    EXISTS (SELECT 1 FROM anchors AS n WHERE n.network = b.network AND n.block_hash = b.hash)
    OR EXISTS (SELECT 1 FROM conflicts AS c WHERE c.network = b.network AND c.block_hash = b.hash)
    OR EXISTS (SELECT 1 FROM spendings AS s WHERE s.network = b.network AND s.block_hash = b.hash)
    OR EXISTS (SELECT 1 FROM refund_anchors AS r WHERE r.network = b.network AND r.block_hash = b.hash))
ORDER BY b.height DESC;

-- name: best_heights
-- Every height of the best chain that is kept.
SELECT b.height FROM blocks AS b WHERE b.network = :network AND b.in_best_chain ORDER BY b.height;

-- name: best_block^
-- What is stored of the best chain at a height.
SELECT hash, height, parent_hash, time, coalesce(counted_time, time) AS counted_time FROM blocks WHERE network = :network AND in_best_chain AND height = :height;

-- name: held_by
-- What is stored of the transfers that a block holds: those coming in, and those that carry out refunds.
SELECT t.id, t.tx_hash, t.channel, t.ordinal, t.recipient, t.contract, t.amount, t.sender, false AS going_out,
    ARRAY(SELECT k.spend_key FROM transaction_spends AS k WHERE k.network = t.network AND k.tx_hash = t.tx_hash ORDER BY 1) AS spend_keys
FROM anchors AS n JOIN transfers AS t ON t.id = n.transfer_id
WHERE n.network = :network AND n.block_hash = :hash
UNION ALL
SELECT t.id, t.tx_hash, t.channel, t.ordinal, t.recipient, t.contract, t.amount, t.sender, true,
    ARRAY(SELECT k.spend_key FROM transaction_spends AS k WHERE k.network = t.network AND k.tx_hash = t.tx_hash ORDER BY 1)
FROM refund_anchors AS n JOIN refund_transfers AS t ON t.id = n.transfer_id
WHERE n.network = :network AND n.block_hash = :hash;

-- name: ruled_out_by
-- Transfers that a transaction of this block is said to have made impossible.
SELECT t.id, c.tx_hash,
    ARRAY(SELECT k.spend_key FROM transaction_spends AS k WHERE k.network = t.network AND k.tx_hash = t.tx_hash ORDER BY 1) AS spend_keys
FROM conflicts AS c JOIN transfers AS t ON t.id = c.transfer_id
WHERE c.network = :network AND c.block_hash = :hash;

-- name: spent_by
-- Outputs of ours that a transaction of this block is said to have spent.
SELECT s.transfer_id, s.tx_hash FROM spendings AS s WHERE s.network = :network AND s.block_hash = :hash;

-- name: issued_before
-- Which of these recipients were issued before a block's time, and what was asked for there.
SELECT a.address, a.invoice_id, o.network, o.contract, o.amount_expected,
    EXISTS (SELECT 1 FROM transfers AS t WHERE t.network = :network AND t.recipient = a.address AND t.channel = 'balance') AS balanced
FROM addresses AS a JOIN payment_options AS o ON o.id = a.option_id
WHERE a.family = :family AND a.address = ANY(:addresses::text[]) AND a.issued_at <= :at;
