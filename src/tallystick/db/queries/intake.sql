-- From a block's contents to facts. Every look-up is by index on what the block holds, never on what is open.

-- name: match_recipients
-- Which of these recipients are addresses ever issued, for what, and the asset that was asked for there.
SELECT a.address, a.merchant_id, a.invoice_id, a.option_id, o.network, o.asset_symbol, o.asset_decimals, o.contract,
    o.amount_expected
FROM addresses AS a JOIN payment_options AS o ON o.id = a.option_id
WHERE a.family = :family AND a.address = ANY(:addresses::text[]);

-- name: known_transfers
-- What is stored already of these transactions.
SELECT tx_hash, channel, ordinal, recipient, contract, amount FROM transfers
WHERE network = :network AND tx_hash = ANY(:tx_hashes::text[]);

-- name: own_senders
-- Which of these senders are addresses ever issued, and whose.
SELECT address, merchant_id FROM addresses WHERE family = :family AND address = ANY(:addresses::text[]);

-- name: insert_transfers!
-- New transfers. One that a block held before keeps its first evidence: the credit key is unique. One that was only
-- sighted outside any block keeps the earlier of the two: our clock, which dates sightings, may be ahead of the chain's.
-- Not where miners may date blocks back (`sightings_stand`): it was in no block when it was sighted, whatever its block says.
INSERT INTO transfers (id, network, tx_hash, channel, ordinal, sender, recipient, contract, asset_symbol, asset_decimals,
    amount, traits, internal, first_evidence_at, first_seen_at, merchant_id, invoice_id, option_id)
SELECT g.id, :network, g.tx_hash, g.channel, g.ordinal, g.sender, g.recipient, g.contract, g.symbol, g.decimals,
    g.amount, string_to_array(g.traits, ' '), g.internal, :evidence_at, :at, g.merchant_id, g.invoice_id, g.option_id
FROM unnest(:ids::text[], :tx_hashes::text[], :channels::text[], :ordinals::int[], :senders::text[], :recipients::text[],
    :contracts::text[], :symbols::text[], :decimals::smallint[], :amounts::numeric[], :traits::text[],
    :internals::boolean[], :merchant_ids::text[], :invoice_ids::text[], :option_ids::text[])
    AS g(id, tx_hash, channel, ordinal, sender, recipient, contract, symbol, decimals, amount, traits, internal,
         merchant_id, invoice_id, option_id)
ON CONFLICT (network, tx_hash, channel, ordinal) DO UPDATE SET first_evidence_at = EXCLUDED.first_evidence_at
WHERE transfers.first_evidence_at > EXCLUDED.first_evidence_at AND NOT :sightings_stand::boolean
  AND NOT EXISTS (SELECT 1 FROM anchors AS n WHERE n.transfer_id = transfers.id);

-- name: insert_anchors!
-- This block holds these transfers. Each is looked up by its credit key, whatever the planner thinks of the table.
INSERT INTO anchors (transfer_id, network, block_hash, log_index)
SELECT t.id, :network, :block_hash, g.log_index
FROM unnest(:tx_hashes::text[], :channels::text[], :ordinals::int[], :log_indexes::int[])
    AS g(tx_hash, channel, ordinal, log_index)
CROSS JOIN LATERAL (
    SELECT f.id FROM transfers AS f
    WHERE f.network = :network AND f.tx_hash = g.tx_hash AND f.channel = g.channel AND f.ordinal = g.ordinal
    OFFSET 0
) AS t
ON CONFLICT (transfer_id, block_hash) DO NOTHING;

-- name: insert_conflicts!
-- Transactions of this block that used up what those transfers needed.
INSERT INTO conflicts (transfer_id, tx_hash, network, block_hash)
SELECT g.transfer_id, g.tx_hash, :network, :block_hash
FROM unnest(:transfer_ids::text[], :tx_hashes::text[]) AS g(transfer_id, tx_hash)
ON CONFLICT (transfer_id, block_hash) DO NOTHING;

-- name: held_by_block
-- To which invoices the transfers in a block count, once for each transfer.
SELECT t.invoice_id
FROM anchors AS n JOIN transfers AS t ON t.id = n.transfer_id
WHERE n.network = :network AND n.block_hash = :hash;

-- name: touched_by_blocks
-- Invoices with a transfer whose place or conflict is in one of these blocks.
SELECT t.invoice_id
FROM anchors AS n JOIN transfers AS t ON t.id = n.transfer_id
WHERE n.network = :network AND n.block_hash = ANY(:hashes::text[])
UNION
SELECT t.invoice_id
FROM conflicts AS c JOIN transfers AS t ON t.id = c.transfer_id
WHERE c.network = :network AND c.block_hash = ANY(:hashes::text[]);

-- name: anchored_between
-- Invoices with a transfer in the best chain between two heights: their depth changes when the tip goes back. Below that,
-- down to the lowest height that any rule can reach, those whose option requires more than is left of their depth.
SELECT DISTINCT t.invoice_id
FROM blocks AS b
JOIN anchors AS n ON n.network = b.network AND n.block_hash = b.hash
JOIN transfers AS t ON t.id = n.transfer_id
JOIN payment_options AS o ON o.id = t.option_id
WHERE b.network = :network AND b.in_best_chain AND b.height BETWEEN LEAST(:lowest::bigint, :from_height::bigint) AND :to_height
  AND (b.height >= :from_height OR o.confirmations_required > :tip::bigint - b.height + 1);

-- name: due_by_height
-- Invoices waiting for a height that this network has reached. Three range scans, so that what waits for later costs nothing.
SELECT invoice_id FROM wakeups WHERE network = :network AND marker = 'tip' AND position <= :tip::bigint
UNION
SELECT invoice_id FROM wakeups WHERE network = :network AND marker = 'safe' AND position <= :safe::bigint
UNION
SELECT invoice_id FROM wakeups WHERE network = :network AND marker = 'finalized' AND position <= :finalized::bigint;

-- name: due_by_time
-- Invoices whose window ends by the chain time scanned, or by our clock where no address was issued.
SELECT w.invoice_id
FROM wakeups AS w LEFT JOIN networks AS n ON n.name = w.network
WHERE w.marker = 'time'
  AND w.network = :network
  AND w.position < floor(extract(epoch FROM CASE WHEN w.network = '' THEN :now::timestamptz ELSE n.scanned_until END))
ORDER BY w.position, w.invoice_id
LIMIT :row_count;

-- name: unasked_counts
-- How much these invoices have collected that was not asked for, to keep it bounded: transfers of unknown tokens, of
-- other assets, and crumbs of the asset asked for.
SELECT t.invoice_id,
    count(*) FILTER (WHERE t.asset_symbol IS NULL) AS unknown,
    count(*) FILTER (WHERE t.asset_symbol IS NOT NULL
        AND (t.network <> o.network OR t.contract IS DISTINCT FROM o.contract)) AS other,
    count(*) FILTER (WHERE t.network = o.network AND t.contract IS NOT DISTINCT FROM o.contract
        AND t.amount * :crumbs_per_price < o.amount_expected) AS crumb
FROM transfers AS t JOIN payment_options AS o ON o.id = t.option_id
WHERE t.invoice_id = ANY(:ids::text[])
GROUP BY t.invoice_id;
