-- What transactions use up, and which of our outputs were spent. Every look-up is by index on what is asked about.

-- name: insert_spends!
-- What the transactions of stored transfers use up, once for each transaction.
INSERT INTO transaction_spends (network, tx_hash, spend_key)
SELECT :network, g.tx_hash, g.spend_key FROM unnest(:tx_hashes::text[], :spend_keys::text[]) AS g(tx_hash, spend_key)
ON CONFLICT DO NOTHING;

-- name: open_spends
-- Transfers that need what these blocks used up and stand nowhere in the best chain now: the only ones a
-- conflict can replace. What lost its place for good stays stored for ever and costs nothing here: one index
-- look-up for each key used. Written so that no plan reads all transfers, or all their places, at once.
SELECT t.id, t.invoice_id, t.tx_hash, t.channel, t.ordinal, s.spend_key, t.recipient, t.contract, t.amount
FROM unnest(:spend_keys::text[]) AS g(spend_key)
CROSS JOIN LATERAL (
    SELECT * FROM transaction_spends AS f WHERE f.network = :network AND f.spend_key = g.spend_key OFFSET 0
) AS s
CROSS JOIN LATERAL (
    SELECT * FROM transfers AS f WHERE f.network = :network AND f.tx_hash = s.tx_hash OFFSET 0
) AS t
WHERE NOT EXISTS (SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
                  WHERE n.transfer_id = t.id AND b.in_best_chain OFFSET 0)
  AND NOT EXISTS (SELECT 1 FROM conflicts AS c JOIN blocks AS b ON b.network = c.network AND b.hash = c.block_hash
                  WHERE c.transfer_id = t.id AND b.in_best_chain OFFSET 0);

-- name: own_outputs
-- Which of these outputs came to addresses ever issued, and whose.
SELECT t.id, t.tx_hash, t.ordinal, t.merchant_id
FROM unnest(:tx_hashes::text[], :ordinals::int[]) AS g(tx_hash, ordinal)
CROSS JOIN LATERAL (
    SELECT * FROM transfers AS f
    WHERE f.network = :network AND f.tx_hash = g.tx_hash AND f.channel = 'output' AND f.ordinal = g.ordinal
    OFFSET 0
) AS t;

-- name: insert_spendings!
-- Transactions of this block that spent those outputs.
INSERT INTO spendings (transfer_id, network, tx_hash, block_hash)
SELECT g.transfer_id, :network, g.tx_hash, :block_hash
FROM unnest(:transfer_ids::text[], :tx_hashes::text[]) AS g(transfer_id, tx_hash)
ON CONFLICT (transfer_id, block_hash) DO NOTHING;
