-- Invoices with their options, quotes, transfers and history. Every list is read for many invoices at once.

-- name: lock_invoices
-- The invoices of these ids, locked in the order of their ids so that two writers cannot wait for each other.
SELECT i.* FROM invoices AS i
WHERE i.id = ANY(:ids::text[])
ORDER BY i.id
FOR NO KEY UPDATE OF i;

-- name: read_invoices
-- The same without a lock, for answers.
SELECT i.* FROM invoices AS i
WHERE i.id = ANY(:ids::text[])
ORDER BY i.id;

-- name: options_of
-- Options in the merchant's order, each with its quote in force, those before it that value a transfer (an invoice open for
-- a month can have tens of thousands), and where its address comes from.
SELECT o.*, q.rate, q.source AS rate_source, q.quoted_at, q.expires_at AS quote_expires_at, q.spread_bps,
       a.wallet_id, a.derivation_index, w.account_key, n.family,
       CASE WHEN o.quote_number > 1 THEN (
           SELECT json_agg(json_build_object('amount', e.amount_expected, 'ended_at', f.quoted_at) ORDER BY e.number)
           FROM (
               SELECT DISTINCT coalesce((
                   SELECT g.number FROM quotes AS g
                   WHERE g.option_id = o.id AND g.quoted_at <= t.first_evidence_at
                   ORDER BY g.number DESC LIMIT 1), 1) AS number
               FROM transfers AS t WHERE t.invoice_id = o.invoice_id AND t.option_id = o.id
           ) AS used
           JOIN quotes AS e ON e.option_id = o.id AND e.number = used.number
           JOIN quotes AS f ON f.option_id = o.id AND f.number = used.number + 1
       ) END AS earlier
FROM payment_options AS o
JOIN networks AS n ON n.name = o.network
JOIN quotes AS q ON q.option_id = o.id AND q.number = o.quote_number
LEFT JOIN addresses AS a ON a.option_id = o.id
LEFT JOIN wallets AS w ON w.id = a.wallet_id
WHERE o.invoice_id = ANY(:ids::text[])
ORDER BY o.invoice_id, o.position;

-- name: networks_of
-- Which networks matter to these invoices: those of their options, of what came for them, and of their refunds.
SELECT network FROM payment_options WHERE invoice_id = ANY(:ids::text[])
UNION
SELECT network FROM transfers WHERE invoice_id = ANY(:ids::text[])
UNION
SELECT network FROM refunds WHERE invoice_id = ANY(:ids::text[])
ORDER BY network;

-- name: transfers_of
-- Transfers to addresses of these invoices, each with its payment where it has one.
SELECT t.*, n.family,
       EXISTS (SELECT 1 FROM sightings AS s WHERE s.transfer_id = t.id AND s.gone_at IS NULL) AS in_mempool, p.id AS payment_id, p.match, p.status AS payment_status, p.event_sequence, p.confirmed_at
FROM transfers AS t JOIN networks AS n ON n.name = t.network LEFT JOIN payments AS p ON p.transfer_id = t.id
WHERE t.invoice_id = ANY(:ids::text[])
ORDER BY t.id;

-- name: recorded_of
-- What people decided about these invoices, and their refunds with the blocks that held the outgoing transfers. Only
-- invoices that have either: most have neither.
SELECT i.id,
    (SELECT json_agg(json_build_object('number', d.id, 'kind', d.kind, 'transfer_ids', d.transfer_ids, 'value', d.value)
                     ORDER BY d.id)
     FROM decisions AS d WHERE d.invoice_id = i.id) AS decisions,
    (SELECT json_agg(json_build_object(
        'id', r.id, 'status', r.status, 'network', r.network, 'symbol', r.asset_symbol, 'decimals', r.asset_decimals,
        'contract', r.contract, 'amount', r.amount, 'fee_amount', r.fee_amount, 'transfer_ids', r.transfer_ids, 'withdraws', r.withdraws,
        'option_id', r.option_id, 'finality', o.finality, 'confirmations', o.confirmations_required,
        'anchors', (
            SELECT json_agg(json_build_object('hash', b.hash, 'height', b.height, 'time', b.time,
                                              'in_best_chain', b.in_best_chain) ORDER BY b.height, b.hash)
            FROM refund_transfers AS t
            JOIN refund_anchors AS a ON a.transfer_id = t.id
            JOIN blocks AS b ON b.network = a.network AND b.hash = a.block_hash
            WHERE t.refund_id = r.id)) ORDER BY r.id)
     FROM refunds AS r JOIN payment_options AS o ON o.id = r.option_id WHERE r.invoice_id = i.id) AS refunds
FROM invoices AS i
WHERE i.id = ANY(:ids::text[])
  AND (EXISTS (SELECT 1 FROM decisions AS d WHERE d.invoice_id = i.id)
       OR EXISTS (SELECT 1 FROM refunds AS r WHERE r.invoice_id = i.id));

-- name: places_of
-- Every block that ever held a transfer to these invoices, and every transaction that ever stood in the way of one
-- (`in_the_way`), with its block; and whether that counts now.
SELECT p.transfer_id, p.log_index, p.in_the_way, b.hash, b.height, b.time, b.in_best_chain
FROM transfers AS t
CROSS JOIN LATERAL (
    SELECT n.transfer_id, n.log_index, NULL AS in_the_way, n.network, n.block_hash FROM anchors AS n WHERE n.transfer_id = t.id
    UNION ALL
    SELECT c.transfer_id, NULL, c.tx_hash, c.network, c.block_hash FROM conflicts AS c WHERE c.transfer_id = t.id
) AS p
JOIN blocks AS b ON b.network = p.network AND b.hash = p.block_hash
WHERE t.invoice_id = ANY(:ids::text[])
ORDER BY p.transfer_id, b.height, b.hash;

-- name: insert_invoice!
-- A new invoice with its options, first quotes, issued addresses, history so far and what it waits for: one statement,
-- because the number of round trips is what bounds how many invoices a second can be created.
WITH invoice AS (
    INSERT INTO invoices (id, merchant_id, order_id, status, sequence, event_sequence, amount, currency, decimals,
        late_payment, grace_seconds, product_type, customer, metadata, success_url, cancel_url, created_at, expires_at,
        updated_at)
    VALUES (:id, :merchant_id, :order_id, :status, :sequence, :event_sequence, :amount, :currency, :decimals,
        :late_payment, :grace_seconds, :product_type, :customer, :metadata, :success_url, :cancel_url, :created_at,
        :expires_at, :created_at)
), given AS (
    SELECT * FROM unnest(:option_ids::text[], :positions::smallint[], :networks::text[], :symbols::text[],
        :asset_decimals::smallint[], :contracts::text[], :amounts::numeric[], :finalities::text[], :confirmations::int[],
        :under_bps::int[], :over_bps::int[], :zero_confs::boolean[], :accepted::text[], :policy_names::text[], :policy_versions::int[],
        :policy_explanations::text[], :rates::text[], :sources::text[], :quote_ends::timestamptz[], :spreads_bps::int[],
        :answers::text[], :option_statuses::text[], :families::text[], :addresses::text[], :wallet_ids::text[],
        :derivation_indexes::bigint[])
    AS g(id, position, network, symbol, decimals, contract, amount, finality, confirmations, under_bps, over_bps,
         zero_conf, accepted, policy_name, policy_version, policy_explanation, rate, source, quote_ends_at, spread_bps, answers,
         status, family, address, wallet_id, derivation_index)
), options AS (
    INSERT INTO payment_options (id, invoice_id, merchant_id, position, network, asset_symbol, asset_decimals, contract,
        amount_expected, finality, confirmations_required, tolerance_under_bps, tolerance_over_bps, zero_conf, zero_conf_accepts,
        policy_name, policy_version, policy_explanation, status, address, activated_at)
    SELECT id, :id, :merchant_id, position, network, symbol, decimals, contract, amount, finality, confirmations,
        under_bps, over_bps, zero_conf, string_to_array(accepted, ' '), policy_name, policy_version, policy_explanation, status, address,
        CASE WHEN address IS NOT NULL THEN :created_at END
    FROM given
), first_quotes AS (
    INSERT INTO quotes (option_id, number, amount_expected, rate, source, quoted_at, expires_at, spread_bps, answers)
    SELECT id, 1, amount, rate, source, :created_at, quote_ends_at, spread_bps, answers::jsonb FROM given
), first_requotes AS (
    INSERT INTO requotes (option_id, invoice_id, due_at)
    SELECT id, :id, quote_ends_at FROM given WHERE quote_ends_at < :expires_at
), issued AS (
    INSERT INTO addresses (family, address, merchant_id, wallet_id, derivation_index, invoice_id, option_id, issued_at)
    SELECT family, address, :merchant_id, wallet_id, derivation_index, :id, id, :created_at
    FROM given WHERE address IS NOT NULL
), history AS (
    INSERT INTO transitions (invoice_id, sequence, from_status, to_status, reason, actor_type, actor_id, evidence, at)
    SELECT :id, g.sequence, g.from_status, g.to_status, g.reason, g.actor_type, g.actor_id, g.evidence::jsonb, :created_at
    FROM unnest(:step_sequences::int[], :from_statuses::text[], :to_statuses::text[], :reasons::text[],
        :actor_types::text[], :actor_ids::text[], :evidence::text[])
        AS g(sequence, from_status, to_status, reason, actor_type, actor_id, evidence)
)
INSERT INTO wakeups (network, marker, position, invoice_id)
SELECT g.network, g.marker, g.position, :id
FROM unnest(:wakeup_networks::text[], :wakeup_markers::text[], :wakeup_positions::bigint[])
    AS g(network, marker, position);

-- name: activate_option!
-- Issue an address to an option that has none: the address for ever, and the option's own copy.
WITH activated AS (
    UPDATE payment_options SET status = 'active', address = :address, activated_at = :at
    WHERE id = :option_id AND status = 'quoted' AND address IS NULL
    RETURNING id, invoice_id, merchant_id
)
INSERT INTO addresses (family, address, merchant_id, wallet_id, derivation_index, invoice_id, option_id, issued_at)
SELECT :family, :address, merchant_id, :wallet_id, :derivation_index, invoice_id, id, :at FROM activated;

-- name: expire_options!
-- Options never chosen end with their invoice's window, or when it is canceled.
UPDATE payment_options SET status = 'expired' WHERE invoice_id = ANY(:ids::text[]) AND status = 'quoted';

-- name: update_invoices!
-- The one statement that writes statuses. Expects the old status and sequence of each; the caller checks the count. Whoever
-- shows an invoice is told when it is committed.
UPDATE invoices AS i
SET status = g.status, sequence = g.sequence, event_sequence = g.event_sequence, amount_paid = g.amount_paid,
    updated_at = :at
FROM unnest(:ids::text[], :old_statuses::text[], :old_sequences::int[], :statuses::text[], :sequences::int[],
    :event_sequences::int[], :amounts_paid::numeric[])
    AS g(id, old_status, old_sequence, status, sequence, event_sequence, amount_paid)
WHERE i.id = g.id AND i.status = g.old_status AND i.sequence = g.old_sequence
RETURNING pg_notify(:channel, i.id);

-- name: insert_transitions!
-- History, one row a step.
INSERT INTO transitions (invoice_id, sequence, from_status, to_status, reason, actor_type, actor_id, evidence, at)
SELECT g.invoice_id, g.sequence, g.from_status, g.to_status, g.reason, g.actor_type, g.actor_id, g.evidence::jsonb, :at
FROM unnest(:invoice_ids::text[], :sequences::int[], :from_statuses::text[], :to_statuses::text[], :reasons::text[],
    :actor_types::text[], :actor_ids::text[], :evidence::text[])
    AS g(invoice_id, sequence, from_status, to_status, reason, actor_type, actor_id, evidence);

-- name: transitions_of
-- The history of one invoice.
SELECT t.* FROM transitions AS t WHERE t.invoice_id = :invoice_id ORDER BY t.sequence;

-- name: insert_payments!
-- Transfers attributed to invoices for the first time.
INSERT INTO payments (id, transfer_id, merchant_id, invoice_id, option_id, match, status, event_sequence, confirmed_at,
    created_at, updated_at)
SELECT g.id, g.transfer_id, g.merchant_id, g.invoice_id, g.option_id, g.match, g.status, g.event_sequence,
    CASE WHEN g.status = 'confirmed' THEN :at::timestamptz END, :at, :at
FROM unnest(:ids::text[], :transfer_ids::text[], :merchant_ids::text[], :invoice_ids::text[], :option_ids::text[],
    :matches::text[], :statuses::text[], :event_sequences::int[])
    AS g(id, transfer_id, merchant_id, invoice_id, option_id, match, status, event_sequence);

-- name: update_payments!
-- Payment statuses, each with the status it expects; the caller checks the count.
UPDATE payments AS p
SET status = g.status, event_sequence = g.event_sequence, updated_at = :at,
    confirmed_at = CASE WHEN g.status = 'confirmed' THEN :at::timestamptz ELSE p.confirmed_at END
FROM unnest(:ids::text[], :old_statuses::text[], :statuses::text[], :event_sequences::int[])
    AS g(id, old_status, status, event_sequence)
WHERE p.id = g.id AND p.status = g.old_status;

-- name: replace_wakeups!
-- What these invoices wait for, instead of what they waited for before. Rows that stay are not touched.
WITH wanted AS (
    SELECT * FROM unnest(:networks::text[], :markers::text[], :positions::bigint[], :invoice_ids::text[])
        AS g(network, marker, position, invoice_id)
), gone AS (
    DELETE FROM wakeups AS w
    WHERE w.invoice_id = ANY(:ids::text[])
      AND NOT EXISTS (SELECT 1 FROM wanted AS g WHERE (g.network, g.marker, g.position, g.invoice_id)
                                                      = (w.network, w.marker, w.position, w.invoice_id))
)
INSERT INTO wakeups (network, marker, position, invoice_id)
SELECT network, marker, position, invoice_id FROM wanted
ON CONFLICT DO NOTHING;

-- name: record_cancel!
-- The merchant withdraws an invoice nobody has paid; only from the statuses given.
UPDATE invoices SET canceled_at = :at WHERE id = :id AND canceled_at IS NULL AND status = ANY(:allowed::text[]);

-- name: record_fulfillment!
-- The merchant delivered, once; only from the statuses given.
UPDATE invoices SET fulfilled_at = :at, fulfillment = :fulfillment, updated_at = :at
WHERE id = :id AND fulfilled_at IS NULL AND status = ANY(:allowed::text[]);

-- name: list_ids
-- Ids of a merchant's invoices, newest first, by any of the published filters.
SELECT i.id
FROM invoices AS i
WHERE i.merchant_id = :merchant_id
  AND (:before_id::text IS NULL OR i.id < :before_id)
  AND (:status::text IS NULL OR i.status = :status)
  AND (:order_id::text IS NULL OR i.order_id = :order_id)
  AND (:created_after::timestamptz IS NULL OR i.created_at > :created_after)
  AND (:created_before::timestamptz IS NULL OR i.created_at < :created_before)
  AND (:tx_hash::text IS NULL OR i.id IN (SELECT t.invoice_id FROM transfers AS t WHERE t.tx_hash = :tx_hash))
  AND (:address::text IS NULL OR i.id IN (SELECT a.invoice_id FROM addresses AS a WHERE a.address = :address))
ORDER BY i.id DESC
LIMIT :row_count;

-- name: invoice_owner^
-- Whose invoice this is.
SELECT merchant_id FROM invoices WHERE id = :id;

-- name: merchant_name_of$
-- Who asks, as customers know them.
SELECT m.name FROM invoices AS i JOIN merchants AS m ON m.id = i.merchant_id WHERE i.id = :id;

-- name: list_payment_ids
-- Payments of a merchant, newest first, by any of the published filters, with the invoice of each.
SELECT p.id, p.invoice_id
FROM payments AS p
WHERE p.merchant_id = :merchant_id
  AND (:before_id::text IS NULL OR p.id < :before_id)
  AND (:invoice_id::text IS NULL OR p.invoice_id = :invoice_id)
  AND (:status::text IS NULL OR p.status = :status)
  AND (:tx_hash::text IS NULL OR p.transfer_id IN (SELECT t.id FROM transfers AS t WHERE t.tx_hash = :tx_hash))
ORDER BY p.id DESC
LIMIT :row_count;

-- name: payment_owner^
-- The invoice of a merchant's payment.
SELECT invoice_id FROM payments WHERE id = :id AND merchant_id = :merchant_id;

-- name: trace
-- Which invoices of a merchant a transaction paid, on any network.
SELECT DISTINCT t.invoice_id FROM transfers AS t WHERE t.tx_hash = :tx_hash AND t.merchant_id = :merchant_id ORDER BY 1;

-- name: trace_refunds
-- Which refunds of a merchant a transaction paid, on any network.
SELECT r.id, r.invoice_id FROM refund_transfers AS t JOIN refunds AS r ON r.id = t.refund_id
WHERE t.tx_hash = :tx_hash AND r.merchant_id = :merchant_id
ORDER BY r.id, t.id;

-- name: issuing_wallets
-- The wallet of each family that issues new addresses: the newest.
SELECT DISTINCT ON (w.family) w.id, w.family, w.account_key, w.key_fingerprint
FROM wallets AS w WHERE w.merchant_id = :merchant_id
ORDER BY w.family, w.created_at DESC, w.id DESC;

-- name: next_index$
-- Spend one index of a key, in a transaction of its own. It need not wait for the disk: the address is told to nobody
-- before the invoice's own commit has, and that writes this record, which lies before it in the log, as well.
UPDATE key_counters SET next_index = next_index + 1
WHERE key_fingerprint = :key_fingerprint
RETURNING next_index - 1, set_config('synchronous_commit', 'off', true);
