-- Refunds: payments in the other direction, and the outgoing transfers that carry them out.

-- name: insert_refund!
-- A new refund. The table's trigger refuses more than was credited.
INSERT INTO refunds (id, merchant_id, invoice_id, option_id, exception_id, status, rule, network, asset_symbol,
    asset_decimals, contract, amount, fee, fee_amount, amount_sent, transfer_ids, basis_ids, withdraws, reason, detail,
    address, address_source, address_at, claim_token_hash, claim_expires_at, requested_by_type, requested_by,
    requested_at, event_sequence, updated_at)
VALUES (:id, :merchant_id, :invoice_id, :option_id, :exception_id, 'requested', :rule, :network, :asset_symbol,
    :asset_decimals, :contract, :amount, :fee, :fee_amount, :amount_sent, :transfer_ids, :basis_ids, :withdraws, :reason,
    :detail::text::jsonb, :address, :address_source, :address_at, :claim_token_hash, :claim_expires_at,
    :requested_by_type, :requested_by, :at, 1, :at);

-- name: update_refund!
-- The one statement that changes a refund: its status with the one it expects, and all that may change with it.
UPDATE refunds
SET status = :status, withdraws = :withdraws, address = :address, address_source = :address_source,
    address_at = :address_at, claim_token_hash = :claim_token_hash, claim_expires_at = :claim_expires_at,
    link_by_type = :link_by_type, link_by = :link_by, decided_by_type = :decided_by_type, decided_by = :decided_by, decided_at = :decided_at,
    decision_note = :decision_note, tx_hash = :tx_hash, broadcast_at = :broadcast_at, attention_at = :attention_at,
    problem = :problem, psbt = :psbt, psbt_fee = :psbt_fee, psbt_problem = :psbt_problem, psbt_at = :psbt_at,
    event_sequence = :event_sequence, updated_at = :at
WHERE id = :id AND status = :old_status AND event_sequence = :old_event_sequence;

-- name: insert_transition!
-- One step of a refund's history.
INSERT INTO refund_transitions (refund_id, sequence, from_status, to_status, actor_type, actor_id, note, at)
VALUES (:refund_id, :sequence, :from_status, :to_status, :actor_type, :actor_id, :note, :at);

-- name: transitions_of
-- The history of a refund, oldest first.
SELECT * FROM refund_transitions WHERE refund_id = :refund_id ORDER BY sequence;

-- name: read_refunds
-- Refunds by id, each with its option's requirement, whether its network is halted, the outgoing transfer that stands
-- in the best chain now, and whether its PSBT spends what is gone.
SELECT r.*, o.network AS option_network, o.finality, o.confirmations_required, n.family, n.halted_at IS NOT NULL AS halted,
    g.tx_hash AS chain_tx_hash,
    EXISTS (SELECT 1 FROM refund_inputs AS i WHERE i.refund_id = r.id AND output_gone(i.transfer_id)) AS psbt_dead,
    CASE WHEN g.height IS NULL THEN 0 ELSE greatest(0, n.cursor_height - g.height + 1) END AS confirmations
FROM refunds AS r
JOIN payment_options AS o ON o.id = r.option_id
JOIN networks AS n ON n.name = r.network
LEFT JOIN LATERAL (
    SELECT t.tx_hash, b.height
    FROM refund_transfers AS t
    JOIN refund_anchors AS a ON a.transfer_id = t.id
    JOIN blocks AS b ON b.network = a.network AND b.hash = a.block_hash AND b.in_best_chain
    WHERE t.refund_id = r.id
    ORDER BY b.height, t.id
    LIMIT 1
) AS g ON true
WHERE r.id = ANY(:ids::text[])
ORDER BY r.id;

-- name: ids_of_invoices
-- Ids of all refunds of these invoices.
SELECT id FROM refunds WHERE invoice_id = ANY(:ids::text[]) ORDER BY id;

-- name: list_ids
-- Ids of a merchant's refunds, newest first.
SELECT r.id FROM refunds AS r
WHERE r.merchant_id = :merchant_id
  AND (:before_id::text IS NULL OR r.id < :before_id)
  AND (:status::text IS NULL OR r.status = :status)
  AND (:invoice_id::text IS NULL OR r.invoice_id = :invoice_id)
ORDER BY r.id DESC
LIMIT :row_count;

-- name: list_all_ids
-- Ids of refunds of every merchant, newest first, for operators.
SELECT r.id FROM refunds AS r
WHERE (:merchant_id::text IS NULL OR r.merchant_id = :merchant_id)
  AND (:status::text IS NULL OR r.status = :status)
ORDER BY r.id DESC
LIMIT :row_count;

-- name: owner_of
-- Whose a refund is, and of which invoice: before anything is locked.
SELECT merchant_id, invoice_id, claim_token_hash FROM refunds WHERE id = :id;

-- name: networks_of
-- Every network that matters to giving back what an invoice received, sorted: lock these before the invoice.
SELECT network FROM payment_options WHERE invoice_id = :invoice_id
UNION SELECT network FROM transfers WHERE invoice_id = :invoice_id
UNION SELECT network FROM refunds WHERE invoice_id = :invoice_id
ORDER BY network;

-- name: exception_scope
-- What an exception is about.
SELECT invoice_id, kind, transfer_ids, status FROM exceptions WHERE id = :id AND merchant_id = :merchant_id;

-- name: is_issued
-- Whether an address was ever issued to anybody.
SELECT EXISTS (SELECT 1 FROM addresses WHERE family = :family AND address = :address) AS issued;

-- name: claim_page_of
-- What the claim page shows besides the refund: the merchant's name, the order, and who sent the money.
SELECT m.name, i.order_id,
    ARRAY(SELECT DISTINCT t.sender FROM transfers AS t WHERE t.invoice_id = i.id ORDER BY t.sender LIMIT 50) AS senders
FROM invoices AS i JOIN merchants AS m ON m.id = i.merchant_id
WHERE i.id = :invoice_id;

-- name: watched_refunds
-- Refunds that a transfer to one of these recipients could carry out. Those that were given up come last: only what no
-- other one expects is theirs.
SELECT r.id, r.invoice_id, r.address, r.contract, r.amount_sent, r.tx_hash, r.status, r.requested_at
FROM refunds AS r
WHERE r.network = :network AND r.address = ANY(:addresses::text[])
  AND r.status NOT IN ('requested', 'approved', 'rejected')
ORDER BY r.status = 'failed', r.id;

-- name: known_transfers
-- Outgoing transfers of these refunds, and whether each stands in the best chain now.
SELECT t.id, t.refund_id, t.tx_hash, t.channel, t.ordinal, t.recipient, t.contract, t.amount,
    EXISTS (SELECT 1 FROM refund_anchors AS a JOIN blocks AS b ON b.network = a.network AND b.hash = a.block_hash
            WHERE a.transfer_id = t.id AND b.in_best_chain) AS stands
FROM refund_transfers AS t
WHERE t.refund_id = ANY(:ids::text[]);

-- name: taken_places
-- What these transactions moved for refunds, on whatever branch: a key is never given twice.
SELECT tx_hash, channel, ordinal FROM refund_transfers WHERE network = :network AND tx_hash = ANY(:tx_hashes::text[]);

-- name: insert_refund_transfers!
-- Outgoing transfers seen for the first time. Each carries out one refund only: the credit key is unique.
INSERT INTO refund_transfers (id, refund_id, invoice_id, network, tx_hash, channel, ordinal, sender, recipient, contract,
    amount, first_evidence_at)
SELECT g.id, g.refund_id, g.invoice_id, :network, g.tx_hash, g.channel, g.ordinal, g.sender, g.recipient, g.contract,
    g.amount, :evidence_at
FROM unnest(:ids::text[], :refund_ids::text[], :invoice_ids::text[], :tx_hashes::text[], :channels::text[],
    :ordinals::int[], :senders::text[], :recipients::text[], :contracts::text[], :amounts::numeric[])
    AS g(id, refund_id, invoice_id, tx_hash, channel, ordinal, sender, recipient, contract, amount);

-- name: insert_refund_anchors!
-- This block holds these outgoing transfers.
INSERT INTO refund_anchors (transfer_id, network, block_hash)
SELECT g.id, :network, :block_hash FROM unnest(:transfer_ids::text[]) AS g(id)
ON CONFLICT (transfer_id, block_hash) DO NOTHING;

-- name: refunds_touched_by_blocks
-- Invoices with an outgoing transfer in one of these blocks.
SELECT DISTINCT t.invoice_id
FROM refund_anchors AS a JOIN refund_transfers AS t ON t.id = a.transfer_id
WHERE a.network = :network AND a.block_hash = ANY(:hashes::text[]);

-- name: refunds_anchored_between
-- Invoices with an outgoing transfer in the best chain between two heights: its depth changes when the tip goes back.
SELECT DISTINCT t.invoice_id
FROM blocks AS b
JOIN refund_anchors AS a ON a.network = b.network AND a.block_hash = b.hash
JOIN refund_transfers AS t ON t.id = a.transfer_id
WHERE b.network = :network AND b.in_best_chain AND b.height BETWEEN :from_height AND :to_height;

-- name: due_refunds
-- Refunds that should have been seen by now: by our clock, and by the time up to which their network was read. While a
-- network is not read nobody can say that nothing was sent.
SELECT r.id FROM refunds AS r JOIN networks AS n ON n.name = r.network
WHERE r.status IN ('awaiting_signature', 'broadcast') AND r.attention_at <= :now AND n.scanned_until >= r.attention_at
ORDER BY r.attention_at
LIMIT :row_count;

-- name: open_case_of
-- The open exception about a refund.
SELECT id FROM exceptions
WHERE invoice_id = :invoice_id AND kind = 'refund_failed' AND subject = :refund_id AND status = 'open'
FOR UPDATE;
