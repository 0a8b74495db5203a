-- Looking at the balances of issued addresses. Cost follows the addresses that are due, by index.

-- name: schedule_checks!
-- The windows of these invoices have ended without enough money: each of their addresses is looked at on every network of
-- its family that is configured, now and later. What was scheduled before stays as it is.
INSERT INTO balance_checks (network, address, family, invoice_id, started_at, due_at)
SELECT n.name, a.address, a.family, a.invoice_id, :at, :at
FROM payment_options AS o JOIN addresses AS a ON a.option_id = o.id JOIN networks AS n ON n.family = a.family
WHERE o.invoice_id = ANY(:invoice_ids::text[]) AND n.name = ANY(:networks::text[])
ON CONFLICT (network, address) DO UPDATE SET started_at = :at, due_at = :at WHERE balance_checks.started_at IS NULL;

-- name: recheck!
-- A block that a finding rests on left the best chain: look again.
UPDATE balance_checks AS c SET due_at = :at
FROM anchors AS n JOIN transfers AS t ON t.id = n.transfer_id
WHERE n.network = :network AND n.block_hash = ANY(:hashes::text[]) AND t.channel = 'balance'
  AND c.network = t.network AND c.address = t.recipient;

-- name: claim_due
-- Due addresses of one network, lent to one worker: whoever else looks finds them again after the lease.
UPDATE balance_checks AS c SET due_at = :lease_until
FROM (
    SELECT d.network, d.address FROM balance_checks AS d
    WHERE d.network = :network AND d.due_at <= :now
    ORDER BY d.due_at, d.address
    LIMIT :row_count
    FOR UPDATE SKIP LOCKED
) AS due
WHERE c.network = due.network AND c.address = due.address
RETURNING c.address;

-- name: addresses_of
-- Every address issued to these invoices, with its family and where it is to be paid.
SELECT a.address, a.family, a.invoice_id, o.network, o.contract
FROM payment_options AS o JOIN addresses AS a ON a.option_id = o.id
WHERE o.invoice_id = ANY(:invoice_ids::text[])
ORDER BY a.address;

-- name: read_subjects
-- These addresses with what they were issued for, what is known of them on one network, and what was seen to arrive there
-- up to a height of the best chain. The baseline counts only while its block is in the best chain, not above that height.
WITH wanted AS MATERIALIZED (
    SELECT a.address, a.family, a.merchant_id, a.invoice_id, a.option_id, c.started_at, c.balance, c.nonce, b.height
    FROM addresses AS a
    LEFT JOIN balance_checks AS c ON c.network = :network AND c.address = a.address
    LEFT JOIN blocks AS b ON b.network = c.network AND b.hash = c.block_hash AND b.in_best_chain AND b.height <= :height
    WHERE a.family = :family AND a.address = ANY(:addresses::text[])
)
SELECT w.*, seen.received, seen.received_since
FROM wanted AS w
CROSS JOIN LATERAL (
    SELECT COALESCE(sum(t.amount), 0) AS received,
           COALESCE(sum(t.amount) FILTER (WHERE b.height > w.height), 0) AS received_since
    FROM transfers AS t
    JOIN anchors AS n ON n.transfer_id = t.id
    JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash AND b.in_best_chain AND b.height <= :height
    WHERE t.network = :network AND t.recipient = w.address AND t.contract IS NULL
) AS seen
ORDER BY w.address;

-- name: findings_of
-- What was found at these addresses before, whether its block is in the best chain, oldest first.
SELECT t.id, t.recipient, t.invoice_id, t.tx_hash, t.amount, EXISTS (
    SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash AND b.in_best_chain
    WHERE n.transfer_id = t.id) AS stands
FROM transfers AS t
WHERE t.network = :network AND t.recipient = ANY(:addresses::text[]) AND t.contract IS NULL AND t.channel = 'balance'
ORDER BY t.id;

-- name: insert_finding!
-- Value that nothing explains, as a transfer without a transaction: its hash names the address and the block.
INSERT INTO transfers (id, network, tx_hash, channel, ordinal, sender, recipient, contract, asset_symbol, asset_decimals,
    amount, first_evidence_at, first_seen_at, merchant_id, invoice_id, option_id)
VALUES (:id, :network, :tx_hash, 'balance', :ordinal, '', :recipient, NULL, :symbol, :decimals, :amount,
    :evidence_at, :at, :merchant_id, :invoice_id, :option_id);

-- name: anchor_finding!
-- This block of the best chain shows it.
INSERT INTO anchors (transfer_id, network, block_hash, log_index)
VALUES (:transfer_id, :network, :block_hash, NULL)
ON CONFLICT (transfer_id, block_hash) DO NOTHING;

-- name: record_check!
-- What was seen at an address, for the next look and for people.
INSERT INTO balance_checks (network, address, family, invoice_id, due_at, checked_at, block_hash, block_height, balance,
    nonce, outcome)
VALUES (:network, :address, :family, :invoice_id, :due_at, :at, :block_hash, :block_height, :balance, :nonce, :outcome)
ON CONFLICT (network, address) DO UPDATE
SET due_at = EXCLUDED.due_at, checked_at = EXCLUDED.checked_at, block_hash = EXCLUDED.block_hash,
    block_height = EXCLUDED.block_height, balance = EXCLUDED.balance, nonce = EXCLUDED.nonce, outcome = EXCLUDED.outcome;

-- name: pinned_block^
-- A block of our best chain: where, and when.
SELECT hash, height, time FROM blocks WHERE network = :network AND hash = :hash AND in_best_chain;

-- name: unpaid_before_end
-- Native addresses of these invoices on a network, whose window is about to be judged without enough money. Few statuses
-- lead from there to an end that a customer who has paid would not understand.
SELECT a.address
FROM payment_options AS o
JOIN addresses AS a ON a.option_id = o.id
JOIN invoices AS i ON i.id = o.invoice_id
WHERE o.invoice_id = ANY(:invoice_ids::text[]) AND o.network = :network AND o.contract IS NULL
  AND i.status IN ('awaiting_payment', 'partially_paid')
ORDER BY a.address;
