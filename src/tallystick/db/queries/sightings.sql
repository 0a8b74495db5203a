-- What nodes show outside any block. Every look-up is by index on what is shown or live, never on what is open.

-- name: interest^
-- Whether a window is open on this network, so that somebody may pay; and some of the transactions that are sighted now,
-- others each time, to be asked about. The window that ends first, in the index's order: without an order, a plan made for
-- any network reads windows of all networks until it meets one of this.
SELECT (SELECT w.position FROM wakeups AS w WHERE w.network = :network AND w.marker = 'time'
        ORDER BY w.position LIMIT 1) IS NOT NULL AS awaited,
       ARRAY(SELECT t.tx_hash
             FROM sightings AS s JOIN transfers AS t ON t.id = s.transfer_id
             WHERE s.network = :network AND s.gone_at IS NULL
             GROUP BY t.tx_hash ORDER BY random() LIMIT :row_count) AS tx_hashes;

-- name: live
-- The sightings that count now.
SELECT s.transfer_id, s.missing_since, t.tx_hash, t.invoice_id,
       ARRAY(SELECT k.spend_key FROM transaction_spends AS k WHERE k.network = t.network AND k.tx_hash = t.tx_hash) AS spend_keys
FROM sightings AS s JOIN transfers AS t ON t.id = s.transfer_id
WHERE s.network = :network AND s.gone_at IS NULL
ORDER BY s.transfer_id;

-- name: waiting_recipients
-- Which of these recipients are addresses issued on this network, for what, and whether their invoices wait for money.
SELECT a.address, a.merchant_id, a.invoice_id, a.option_id, o.asset_symbol, o.asset_decimals, o.contract, o.zero_conf,
       o.amount_expected, i.status
FROM addresses AS a
JOIN payment_options AS o ON o.id = a.option_id
JOIN invoices AS i ON i.id = a.invoice_id
WHERE a.family = :family AND a.address = ANY(:addresses::text[]) AND o.network = :network;

-- name: known
-- Which of these transfers are known, whether they are sighted, and where they stood. Each is looked up by its credit key.
SELECT t.id, t.tx_hash, t.channel, t.ordinal, t.invoice_id, s.gone_at, s.transfer_id IS NOT NULL AS sighted,
       EXISTS (SELECT 1 FROM anchors AS n WHERE n.transfer_id = t.id) AS anchored,
       EXISTS (SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
               WHERE n.transfer_id = t.id AND b.in_best_chain)
       OR EXISTS (SELECT 1 FROM conflicts AS c JOIN blocks AS b ON b.network = c.network AND b.hash = c.block_hash
                  WHERE c.transfer_id = t.id AND b.in_best_chain) AS placed
FROM unnest(:tx_hashes::text[], :channels::text[], :ordinals::int[]) AS g(tx_hash, channel, ordinal)
CROSS JOIN LATERAL (
    SELECT * FROM transfers AS f
    WHERE f.network = :network AND f.tx_hash = g.tx_hash AND f.channel = g.channel AND f.ordinal = g.ordinal
    OFFSET 0
) AS t
LEFT JOIN sightings AS s ON s.transfer_id = t.id;

-- name: unanchored_counts
-- How many transfers to these invoices were sighted and never stood in a block, to keep what anybody can send bounded.
SELECT t.invoice_id, count(*) AS transfers
FROM transfers AS t JOIN sightings AS s ON s.transfer_id = t.id
WHERE t.invoice_id = ANY(:ids::text[]) AND NOT EXISTS (SELECT 1 FROM anchors AS n WHERE n.transfer_id = t.id)
GROUP BY t.invoice_id;

-- name: insert_sighted!
-- Transfers seen for the first time, outside any block. A block that came first has made them already.
WITH new AS (
    INSERT INTO transfers (id, network, tx_hash, channel, ordinal, sender, recipient, contract, asset_symbol,
        asset_decimals, amount, traits, first_evidence_at, first_seen_at, merchant_id, invoice_id, option_id)
    SELECT g.id, :network, g.tx_hash, g.channel, g.ordinal, g.sender, g.recipient, g.contract, g.symbol, g.decimals,
        g.amount, string_to_array(g.traits, ' '), :evidence_at, :at, g.merchant_id, g.invoice_id, g.option_id
    FROM unnest(:ids::text[], :tx_hashes::text[], :channels::text[], :ordinals::int[], :senders::text[],
        :recipients::text[], :contracts::text[], :symbols::text[], :decimals::smallint[], :amounts::numeric[],
        :traits::text[], :merchant_ids::text[], :invoice_ids::text[], :option_ids::text[])
        AS g(id, tx_hash, channel, ordinal, sender, recipient, contract, symbol, decimals, amount, traits,
             merchant_id, invoice_id, option_id)
    ON CONFLICT (network, tx_hash, channel, ordinal) DO NOTHING
    RETURNING id
)
INSERT INTO sightings (transfer_id, network, first_at) SELECT id, :network, :at FROM new;

-- name: sight_again!
-- Known transfers that a node shows outside any block: for the first time, or again.
INSERT INTO sightings (transfer_id, network, first_at)
SELECT g.transfer_id, :network, :at FROM unnest(:ids::text[]) AS g(transfer_id)
ON CONFLICT (transfer_id) DO UPDATE SET gone_at = NULL, missing_since = NULL;

-- name: add_traits!
-- What makes known transfers riskier than they were when they were recorded: a block does not show all that a mempool does.
UPDATE transfers AS t SET traits = ARRAY(SELECT DISTINCT one FROM unnest(t.traits || string_to_array(g.traits, ' ')) AS one ORDER BY one)
FROM unnest(:ids::text[], :traits::text[]) AS g(id, traits)
WHERE t.id = g.id AND NOT t.traits @> string_to_array(g.traits, ' ');

-- name: mark_missing!
-- The node does not know these any more. Whether they are gone, time tells.
UPDATE sightings SET missing_since = :at
WHERE transfer_id = ANY(:ids::text[]) AND missing_since IS NULL AND gone_at IS NULL;

-- name: mark_present!
-- The node knows these after all.
UPDATE sightings SET missing_since = NULL WHERE transfer_id = ANY(:ids::text[]) AND missing_since IS NOT NULL;

-- name: mark_gone!
-- These count no longer as seen.
UPDATE sightings SET gone_at = :at, missing_since = NULL WHERE transfer_id = ANY(:ids::text[]) AND gone_at IS NULL;

-- name: close_placed!
-- What the best chain holds, or can no longer hold, is judged by that. Whoever shows it outside a block again says so.
UPDATE sightings AS s SET gone_at = :at, missing_since = NULL
WHERE s.network = :network AND s.gone_at IS NULL
  AND (EXISTS (SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
               WHERE n.transfer_id = s.transfer_id AND b.in_best_chain)
       OR EXISTS (SELECT 1 FROM conflicts AS c JOIN blocks AS b ON b.network = c.network AND b.hash = c.block_hash
                  WHERE c.transfer_id = s.transfer_id AND b.in_best_chain));
