-- Unspent outputs, and which of them refunds' PSBTs spend. Unspent: in the best chain, and spent by no block of it.

-- name: lock_wallets
-- A merchant's wallets of a family, newest first, kept until the transaction ends: one choice of outputs at a time.
SELECT id, account_key FROM wallets
WHERE merchant_id = :merchant_id AND family = :family
ORDER BY created_at DESC, id DESC
FOR NO KEY UPDATE;

-- name: unspent_outputs
-- The largest outputs of a wallet that no block of the best chain spends and no other refund holds, whatever their depth,
-- among the merchant's newest: of a million nearly all were spent, and refunds without a PSBT ask again every minute.
SELECT t.id, t.tx_hash, t.ordinal, t.amount, t.recipient, t.traits, a.derivation_index, b.hash, b.height, b.time
FROM (
    SELECT * FROM transfers AS f
    WHERE f.merchant_id = :merchant_id AND f.network = :network AND f.channel = 'output'
    ORDER BY f.first_seen_at DESC
    LIMIT :newest_count
) AS t
JOIN addresses AS a ON a.family = :family AND a.address = t.recipient AND a.wallet_id = :wallet_id
JOIN anchors AS k ON k.transfer_id = t.id
JOIN blocks AS b ON b.network = k.network AND b.hash = k.block_hash AND b.in_best_chain
WHERE t.contract IS NULL
  AND NOT EXISTS (SELECT 1 FROM refund_inputs AS i WHERE i.transfer_id = t.id AND i.refund_id <> :refund_id)
  AND NOT EXISTS (SELECT 1 FROM spendings AS s
                  JOIN blocks AS sb ON sb.network = s.network AND sb.hash = s.block_hash AND sb.in_best_chain
                  WHERE s.transfer_id = t.id)
ORDER BY t.amount DESC, t.id
LIMIT :row_count;

-- name: inputs_of
-- What a refund's PSBT spends: whether the output is in the best chain, and the block of it that spends the output, or what
-- the output's own transaction needs, if one does.
SELECT i.transfer_id, t.tx_hash, t.ordinal,
    EXISTS (SELECT 1 FROM anchors AS k JOIN blocks AS b ON b.network = k.network AND b.hash = k.block_hash
            WHERE k.transfer_id = i.transfer_id AND b.in_best_chain) AS stands,
    s.hash AS lost_hash, s.height AS lost_height, s.time AS lost_time
FROM refund_inputs AS i
JOIN transfers AS t ON t.id = i.transfer_id
LEFT JOIN LATERAL (
    SELECT b.hash, b.height, b.time
    FROM (SELECT network, block_hash FROM spendings WHERE transfer_id = i.transfer_id
          UNION ALL SELECT network, block_hash FROM conflicts WHERE transfer_id = i.transfer_id) AS p
    JOIN blocks AS b ON b.network = p.network AND b.hash = p.block_hash AND b.in_best_chain
    ORDER BY b.height
    LIMIT 1
) AS s ON true
WHERE i.refund_id = :refund_id
ORDER BY i.transfer_id;

-- name: hold_inputs!
-- These outputs are the refund's. The primary key refuses one that another refund holds.
INSERT INTO refund_inputs (transfer_id, refund_id)
SELECT g.id, :refund_id FROM unnest(:transfer_ids::text[]) AS g(id);

-- name: release_inputs!
-- The refund holds none of its outputs any more.
DELETE FROM refund_inputs WHERE refund_id = :refund_id;

-- name: release_unspent_inputs!
-- A refund that was paid otherwise holds its outputs no more. Those that a block spends stay: it can leave the best chain.
DELETE FROM refund_inputs AS i
WHERE i.refund_id = :refund_id
  AND NOT EXISTS (SELECT 1 FROM spendings AS s
                  JOIN blocks AS b ON b.network = s.network AND b.hash = s.block_hash AND b.in_best_chain
                  WHERE s.transfer_id = i.transfer_id);

-- name: fee_rate_of^
-- What the network's node says a transaction costs, and when it said so.
SELECT fee_rate, fee_rate_at FROM networks WHERE name = :network;

-- name: note_psbt_try!
-- Nothing came of the last try.
UPDATE refunds SET psbt_at = :at WHERE id = :refund_id;

-- name: due_psbts
-- Refunds to be signed whose PSBT is missing, or spends what is gone, and was not tried lately.
SELECT r.id FROM refunds AS r JOIN networks AS n ON n.name = r.network
WHERE r.status = 'awaiting_signature' AND r.psbt_at <= :tried_before AND n.halted_at IS NULL
  AND (r.psbt IS NULL OR EXISTS (
      SELECT 1 FROM refund_inputs AS i WHERE i.refund_id = r.id AND output_gone(i.transfer_id)))
ORDER BY r.psbt_at
LIMIT :row_count;
