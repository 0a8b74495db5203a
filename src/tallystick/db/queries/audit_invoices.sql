-- What must hold about invoices and everything that hangs on them, whatever happened. Each statement is one rule: its name
-- (with dashes) is the rule's id, its comment says what must hold, its rows (object_id, detail) are what breaks it.
-- All of them look at the invoices `ids` only, and run together as one statement (`db.audit`).

-- name: transition_gap
-- The transitions of an invoice are numbered 1, 2, … without gaps.
SELECT t.invoice_id AS object_id, format('%s transitions, numbered %s to %s', count(*), min(t.sequence), max(t.sequence)) AS detail
FROM transitions AS t WHERE t.invoice_id = ANY(:ids::text[])
GROUP BY t.invoice_id HAVING min(t.sequence) <> 1 OR max(t.sequence) <> count(*);

-- name: transition_chain
-- Each transition starts where the one before it ended.
SELECT t.invoice_id AS object_id, format('transition %s starts at %s, the one before ended at %s', t.sequence, t.from_status, b.to_status) AS detail
FROM transitions AS t JOIN transitions AS b ON b.invoice_id = t.invoice_id AND b.sequence = t.sequence - 1
WHERE t.invoice_id = ANY(:ids::text[]) AND t.from_status IS DISTINCT FROM b.to_status;

-- name: transition_edge
-- Every transition is a legal edge of the table, so that final states are left by the named exceptional edges only, for a
-- published reason.
SELECT t.invoice_id AS object_id, format('transition %s from %s to %s because of %s', t.sequence, t.from_status, t.to_status, t.reason) AS detail
FROM transitions AS t
WHERE t.invoice_id = ANY(:ids::text[])
  AND NOT (:edges::jsonb ? (coalesce(t.from_status, '') || '>' || t.to_status) AND :reasons::jsonb ? t.reason);

-- name: transition_evidence
-- Every transition rests on evidence.
SELECT t.invoice_id AS object_id, format('transition %s has none', t.sequence) AS detail
FROM transitions AS t WHERE t.invoice_id = ANY(:ids::text[]) AND (jsonb_typeof(t.evidence) <> 'array' OR t.evidence = '[]');

-- name: log_hash
-- Every transition stands in its merchant's log, after those before it, and the log's hash covers all of it: no transition
-- and no row of the log was changed, removed, inserted or moved.
SELECT t.invoice_id AS object_id, format('transition %s is not in the log', t.sequence) AS detail
FROM transitions AS t
WHERE t.invoice_id = ANY(:ids::text[])
  AND NOT EXISTS (SELECT 1 FROM transition_log AS l WHERE l.invoice_id = t.invoice_id AND l.sequence = t.sequence)
UNION ALL
SELECT l.invoice_id, format('transition %s, row %s of the log of %s, %s', l.sequence, l.position, l.merchant_id, CASE
    WHEN t.sequence IS NULL THEN 'is not there' WHEN b.position IS NULL AND l.position > 1 THEN 'follows a row that is not there'
    ELSE 'is not what was sealed' END)
FROM transition_log AS l JOIN invoices AS i ON i.id = l.invoice_id
LEFT JOIN transitions AS t ON t.invoice_id = l.invoice_id AND t.sequence = l.sequence
LEFT JOIN transition_log AS b ON b.merchant_id = l.merchant_id AND b.position = l.position - 1
WHERE l.invoice_id = ANY(:ids::text[])
  AND (l.merchant_id <> i.merchant_id OR l.hash IS DISTINCT FROM sha256(
      CASE l.position WHEN 1 THEN transition_log_start(l.merchant_id) ELSE b.hash END || transition_digest(t)))
UNION ALL
SELECT l.invoice_id, format('transition %s stands in the log before the one before it', l.sequence)
FROM transition_log AS l JOIN transition_log AS b
    ON b.invoice_id = l.invoice_id AND b.sequence = l.sequence - 1 AND (b.merchant_id <> l.merchant_id OR b.position > l.position)
WHERE l.invoice_id = ANY(:ids::text[]);

-- name: transition_last
-- The last transition is the invoice's status and number.
SELECT i.id AS object_id, format('%s at %s, its last transition leads to %s at %s', i.status, i.sequence, t.to_status, t.sequence) AS detail
FROM invoices AS i LEFT JOIN LATERAL (
    SELECT h.to_status, h.sequence FROM transitions AS h WHERE h.invoice_id = i.id ORDER BY h.sequence DESC LIMIT 1) AS t ON true
WHERE i.id = ANY(:ids::text[]) AND (t.to_status, t.sequence) IS DISTINCT FROM (i.status, i.sequence);

-- name: transition_event
-- Every transition has exactly one event, of the same number, which says of itself what it is and what the transition says.
SELECT t.invoice_id AS object_id, format('transition %s to %s is told by %s', t.sequence, t.to_status, coalesce(v.id, 'nothing')) AS detail
FROM transitions AS t
LEFT JOIN events AS v ON v.object_id = t.invoice_id AND v.sequence = t.sequence
LEFT JOIN LATERAL jsonb_extract_path(v.body::jsonb, VARIADIC '{}') AS told(body) ON true -- read once
WHERE t.invoice_id = ANY(:ids::text[]) AND (
    (v.type, told.body ->> 'id', told.body ->> 'type', told.body #>> '{data,object,id}', told.body #>> '{data,sequence}',
     told.body #>> '{data,object,status}', told.body #>> '{data,transition,sequence}', told.body #>> '{data,transition,from}',
     told.body #>> '{data,transition,to}', told.body #>> '{data,transition,reason}', told.body #> '{data,transition,evidence}')
    IS DISTINCT FROM
    ('invoice.' || t.to_status, v.id, v.type, t.invoice_id, t.sequence::text, t.to_status, t.sequence::text, t.from_status,
     t.to_status, t.reason, t.evidence));

-- name: event_transition
-- Every event of an invoice belongs to the transition of its number.
SELECT e.object_id, format('%s (%s) belongs to none', e.id, e.type) AS detail
FROM events AS e
WHERE e.object_id = ANY(:ids::text[]) AND NOT EXISTS (
    SELECT 1 FROM transitions AS t
    WHERE t.invoice_id = e.object_id AND t.sequence = e.sequence AND 'invoice.' || t.to_status = e.type);

-- name: event_gap
-- The events of an object are numbered 1, 2, … without gaps.
SELECT o.id AS object_id, format('%s events, numbered %s to %s', e.events, e.first, e.last) AS detail
FROM (SELECT id FROM invoices WHERE id = ANY(:ids::text[])
      UNION ALL SELECT id FROM payments WHERE invoice_id = ANY(:ids::text[])
      UNION ALL SELECT id FROM exceptions WHERE invoice_id = ANY(:ids::text[])
      UNION ALL SELECT id FROM refunds WHERE invoice_id = ANY(:ids::text[])) AS o,
    LATERAL (SELECT count(*) AS events, min(v.sequence) AS first, max(v.sequence) AS last
             FROM events AS v WHERE v.object_id = o.id) AS e
WHERE e.first <> 1 OR e.last <> e.events;

-- name: event_count
-- Every object knows the number of its last event.
SELECT o.id AS object_id, format('it says %s, there are %s', o.event_sequence, e.events) AS detail
FROM (SELECT id, event_sequence FROM invoices WHERE id = ANY(:ids::text[])
      UNION ALL SELECT id, event_sequence FROM payments WHERE invoice_id = ANY(:ids::text[])
      UNION ALL SELECT id, event_sequence FROM exceptions WHERE invoice_id = ANY(:ids::text[])
      UNION ALL SELECT id, event_sequence FROM refunds WHERE invoice_id = ANY(:ids::text[])) AS o,
    LATERAL (SELECT count(*) AS events FROM events AS v WHERE v.object_id = o.id) AS e
WHERE e.events <> o.event_sequence;

-- name: event_body
-- An event of a payment, an exception or a refund says of itself what it is: its id, type, object and number.
SELECT e.object_id, format('%s (%s, number %s) says otherwise of itself', e.id, e.type, e.sequence) AS detail
FROM (SELECT id FROM payments WHERE invoice_id = ANY(:ids::text[])
      UNION ALL SELECT id FROM exceptions WHERE invoice_id = ANY(:ids::text[])
      UNION ALL SELECT id FROM refunds WHERE invoice_id = ANY(:ids::text[])) AS o
JOIN events AS e ON e.object_id = o.id
CROSS JOIN LATERAL jsonb_extract_path(e.body::jsonb, VARIADIC '{}') AS told(body) -- read once
WHERE (told.body ->> 'id', told.body ->> 'type', told.body #>> '{data,object,id}', told.body #>> '{data,sequence}')
    IS DISTINCT FROM (e.id, e.type, e.object_id, e.sequence::text);

-- name: event_status
-- The last event of a payment tells the status it has; so do those of an exception.
SELECT p.id AS object_id, format('it is %s, its last event says %s', p.status, coalesce(e.type, 'nothing')) AS detail
FROM payments AS p
LEFT JOIN LATERAL (SELECT v.type FROM events AS v WHERE v.object_id = p.id ORDER BY v.sequence DESC LIMIT 1) AS e ON true
WHERE p.invoice_id = ANY(:ids::text[]) AND e.type IS DISTINCT FROM CASE p.status
    WHEN 'detected' THEN 'payment.detected' WHEN 'confirming' THEN 'payment.detected'
    WHEN 'confirmed' THEN 'payment.confirmed' WHEN 'replaced' THEN 'payment.replaced' ELSE 'payment.orphaned' END
UNION ALL
SELECT x.id, format('it is %s, its events are %s', x.status, e.types)
FROM exceptions AS x, LATERAL (
    SELECT string_agg(v.type, ', ' ORDER BY v.sequence) AS types FROM events AS v WHERE v.object_id = x.id) AS e
WHERE x.invoice_id = ANY(:ids::text[]) AND e.types IS DISTINCT FROM
    'exception.opened' || CASE x.status WHEN 'open' THEN '' ELSE ', exception.resolved' END;

-- name: delivery_history
-- The attempts of a delivery are numbered without gaps, and one that counts as delivered ends with a success.
SELECT d.id AS object_id, format('%s at %s, with %s attempts numbered to %s, the last answered %s', d.status, d.attempts_made,
    a.attempts, a.last, a.answer) AS detail
FROM (SELECT id FROM invoices WHERE id = ANY(:ids::text[])
      UNION ALL SELECT id FROM payments WHERE invoice_id = ANY(:ids::text[])
      UNION ALL SELECT id FROM exceptions WHERE invoice_id = ANY(:ids::text[])
      UNION ALL SELECT id FROM refunds WHERE invoice_id = ANY(:ids::text[])) AS o
JOIN events AS e ON e.object_id = o.id
JOIN deliveries AS d ON d.event_id = e.id
CROSS JOIN LATERAL (
    SELECT count(*) AS attempts, coalesce(max(t.number), 0) AS last,
        (array_agg(t.status_code ORDER BY t.number DESC))[1] AS answer
    FROM delivery_attempts AS t WHERE t.delivery_id = d.id) AS a
WHERE a.attempts <> a.last OR d.attempts_made > a.attempts
   OR (d.status = 'delivered' AND (a.answer BETWEEN 200 AND 299) IS NOT TRUE);

-- name: transfer_key
-- A credit key is live at most once: one transfer has it, which stands in one block of the best chain at most.
SELECT t.id AS object_id, format('it stands in %s blocks of the best chain', count(*)) AS detail
FROM transfers AS t JOIN anchors AS n ON n.transfer_id = t.id
JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash AND b.in_best_chain
WHERE t.invoice_id = ANY(:ids::text[]) GROUP BY t.id HAVING count(*) > 1
UNION ALL
SELECT t.id, format('%s has the same credit key', other.id)
FROM transfers AS t JOIN transfers AS other
    ON (other.network, other.tx_hash, other.channel, other.ordinal) = (t.network, t.tx_hash, t.channel, t.ordinal) AND other.id <> t.id
WHERE t.invoice_id = ANY(:ids::text[])
UNION ALL
SELECT t.id, format('%s payments are made of it', count(*))
FROM transfers AS t JOIN payments AS p ON p.transfer_id = t.id
WHERE t.invoice_id = ANY(:ids::text[]) GROUP BY t.id HAVING count(*) > 1;

-- name: transfer_spend
-- Of transactions that exclude each other one stands in the best chain at most.
SELECT t.id AS object_id, format('%s and %s stand in the best chain', t.tx_hash, o.tx_hash) AS detail
FROM transfers AS t JOIN transaction_spends AS k ON k.network = t.network AND k.tx_hash = t.tx_hash
JOIN transaction_spends AS x ON x.network = k.network AND x.spend_key = k.spend_key AND x.tx_hash <> k.tx_hash
JOIN transfers AS o ON o.network = x.network AND o.tx_hash = x.tx_hash
WHERE t.invoice_id = ANY(:ids::text[])
  AND EXISTS (SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash AND b.in_best_chain
              WHERE n.transfer_id = t.id)
  AND EXISTS (SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash AND b.in_best_chain
              WHERE n.transfer_id = o.id);

-- name: output_spent
-- An output is spent by one transaction of the best chain at most, and only where it stands there itself.
SELECT t.id AS object_id, format('%s transactions of the best chain spend it', count(*)) AS detail
FROM transfers AS t JOIN spendings AS s ON s.transfer_id = t.id
JOIN blocks AS b ON b.network = s.network AND b.hash = s.block_hash AND b.in_best_chain
WHERE t.invoice_id = ANY(:ids::text[]) GROUP BY t.id HAVING count(*) > 1
UNION ALL
SELECT t.id, format('%s spends it in the best chain, where it does not stand', s.tx_hash)
FROM transfers AS t JOIN spendings AS s ON s.transfer_id = t.id
JOIN blocks AS b ON b.network = s.network AND b.hash = s.block_hash AND b.in_best_chain
WHERE t.invoice_id = ANY(:ids::text[]) AND NOT EXISTS (
    SELECT 1 FROM anchors AS n JOIN blocks AS h ON h.network = n.network AND h.hash = n.block_hash AND h.in_best_chain
    WHERE n.transfer_id = t.id);

-- name: transfer_attribution
-- A transfer counts where its address says, or where a person said so.
SELECT t.id AS object_id, format('to %s, for which nobody was asked to pay %s', t.recipient, t.invoice_id) AS detail
FROM transfers AS t JOIN networks AS n ON n.name = t.network
WHERE t.invoice_id = ANY(:ids::text[]) AND NOT EXISTS (
    SELECT 1 FROM addresses AS a
    WHERE a.family = n.family AND a.address = t.recipient AND a.merchant_id = t.merchant_id
      AND (a.invoice_id = t.invoice_id AND a.option_id = t.option_id OR (
          EXISTS (SELECT 1 FROM decisions AS d
                  WHERE d.invoice_id = t.invoice_id AND d.kind = 'receive' AND t.id = ANY(d.transfer_ids))
          AND EXISTS (SELECT 1 FROM decisions AS d
                      WHERE d.invoice_id = a.invoice_id AND d.kind = 'send' AND t.id = ANY(d.transfer_ids)))));

-- name: transfer_evidence
-- A transfer was in a block or was sighted, and is dated by its first evidence; its blocks are of its own network.
SELECT t.id AS object_id, format('dated %s, which no evidence says', t.first_evidence_at) AS detail
FROM transfers AS t, LATERAL (
    SELECT max(coalesce(b.counted_time, b.time)) AS last,
        coalesce(bool_or(coalesce(b.counted_time, b.time) = t.first_evidence_at), false) AS dated
    FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash WHERE n.transfer_id = t.id) AS held
WHERE t.invoice_id = ANY(:ids::text[])
  AND CASE WHEN EXISTS (SELECT 1 FROM sightings AS s WHERE s.transfer_id = t.id)
      THEN t.first_evidence_at > held.last AND t.network <> ALL(:loose::text[]) ELSE NOT held.dated END
UNION ALL
SELECT t.id, format('it is on %s, the block that holds it on %s', t.network, p.network)
FROM transfers AS t JOIN (SELECT transfer_id, network FROM anchors
                          UNION ALL SELECT transfer_id, network FROM conflicts
                          UNION ALL SELECT transfer_id, network FROM sightings) AS p ON p.transfer_id = t.id
WHERE t.invoice_id = ANY(:ids::text[]) AND p.network <> t.network;

-- name: transfer_payment
-- A transfer of a known asset is a payment; one of an unknown token, or among a merchant's own addresses, is none.
SELECT t.id AS object_id, format('%s of %s is %s', CASE WHEN t.internal THEN 'internal' ELSE 'coming in' END,
    coalesce(t.asset_symbol, 'an unknown token'), coalesce(p.id, 'no payment')) AS detail
FROM transfers AS t LEFT JOIN payments AS p ON p.transfer_id = t.id
WHERE t.invoice_id = ANY(:ids::text[]) AND (p.id IS NULL) <> (t.asset_symbol IS NULL OR t.internal);

-- name: payment_attribution
-- A payment belongs to the invoice and option of its transfer.
SELECT p.id AS object_id, format('it is of %s, %s of %s', p.invoice_id, t.id, t.invoice_id) AS detail
FROM payments AS p JOIN transfers AS t ON t.id = p.transfer_id
WHERE p.invoice_id = ANY(:ids::text[])
  AND (p.merchant_id, p.invoice_id, p.option_id) IS DISTINCT FROM (t.merchant_id, t.invoice_id, t.option_id)
UNION ALL
SELECT p.id, format('it is of %s, %s of %s', p.invoice_id, t.id, t.invoice_id)
FROM transfers AS t JOIN payments AS p ON p.transfer_id = t.id
WHERE t.invoice_id = ANY(:ids::text[]) AND p.invoice_id <> t.invoice_id;

-- name: payment_confirmed
-- A confirmed payment stands in the best chain as deep as its option asks (a payment on another network: as deep as that
-- network asks, which replaying its facts tells), and as its traits ask, or counts at sight.
SELECT p.id AS object_id, format('confirmed, but %s does not stand as %s asks', t.tx_hash, o.id) AS detail
FROM payments AS p JOIN transfers AS t ON t.id = p.transfer_id
JOIN payment_options AS o ON o.id = p.option_id JOIN networks AS w ON w.name = t.network
WHERE p.invoice_id = ANY(:ids::text[]) AND p.status = 'confirmed' AND p.match <> 'wrong_network' AND NOT EXISTS (
    SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
    WHERE n.transfer_id = t.id AND b.in_best_chain AND CASE o.finality
        WHEN 'depth' THEN w.cursor_height - b.height + 1 >= o.confirmations_required
        WHEN 'safe' THEN b.height <= w.safe_height
        ELSE b.height <= w.finalized_height END
    AND w.cursor_height - b.height + 1 >= CASE WHEN 'coinbase' = ANY(t.traits) THEN 100 WHEN 'pegout' = ANY(t.traits) THEN 6 ELSE 0 END)
  AND NOT (o.zero_conf AND NOT t.traits && '{coinbase,pegout}' AND (
      EXISTS (SELECT 1 FROM sightings AS s WHERE s.transfer_id = t.id AND s.gone_at IS NULL
              AND NOT EXISTS (SELECT 1 FROM unnest(t.traits) AS risk
                              WHERE risk IN ('replaceable', 'unconfirmed_parent') AND risk <> ALL(o.zero_conf_accepts)))
      OR EXISTS (SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
                 WHERE n.transfer_id = t.id AND b.in_best_chain)));

-- name: sighting_settled
-- What a block of the best chain holds or excludes does not count as sighted outside any block.
SELECT s.transfer_id AS object_id, 'it is sighted, and a block settles it' AS detail
FROM transfers AS t JOIN sightings AS s ON s.transfer_id = t.id
WHERE t.invoice_id = ANY(:ids::text[]) AND s.gone_at IS NULL
  AND (EXISTS (SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
               WHERE n.transfer_id = t.id AND b.in_best_chain)
       OR EXISTS (SELECT 1 FROM conflicts AS c JOIN blocks AS b ON b.network = c.network AND b.hash = c.block_hash
                  WHERE c.transfer_id = t.id AND b.in_best_chain));

-- name: sighting_exclusive
-- Of transactions that exclude each other one is sighted at most.
SELECT t.id AS object_id, format('%s and %s are sighted', t.tx_hash, o.tx_hash) AS detail
FROM transfers AS t JOIN sightings AS s ON s.transfer_id = t.id AND s.gone_at IS NULL
JOIN transaction_spends AS k ON k.network = t.network AND k.tx_hash = t.tx_hash
JOIN transaction_spends AS x ON x.network = k.network AND x.spend_key = k.spend_key AND x.tx_hash <> k.tx_hash
JOIN transfers AS o ON o.network = x.network AND o.tx_hash = x.tx_hash
JOIN sightings AS u ON u.transfer_id = o.id AND u.gone_at IS NULL
WHERE t.invoice_id = ANY(:ids::text[]);

-- name: amount_paid
-- An invoice credits exactly what is confirmed of what it asked for, valued by the quote of its time.
SELECT i.id AS object_id, format('%s is stored, %s is confirmed', i.amount_paid, found.paid) AS detail
FROM invoices AS i, LATERAL (
    SELECT LEAST(2::numeric ^ 256 - 1, -- the most that is counted
        floor(COALESCE(sum((t.amount * i.amount)::numeric(300, 60) / q.amount_expected), 0) + 1e-50)) AS paid
    FROM payments AS p JOIN transfers AS t ON t.id = p.transfer_id
    JOIN quotes AS q ON q.option_id = p.option_id AND q.number = (
        SELECT max(e.number) FROM quotes AS e
        WHERE e.option_id = p.option_id AND (e.number = 1 OR e.quoted_at <= t.first_evidence_at))
    WHERE p.invoice_id = i.id AND p.status = 'confirmed' AND p.match = 'matched') AS found
WHERE i.id = ANY(:ids::text[]) AND i.amount_paid <> found.paid
  AND NOT EXISTS (SELECT 1 FROM decisions AS d WHERE d.invoice_id = i.id AND d.kind IN ('accept', 'credit'));

-- name: paid_short
-- An invoice that counts as paid has enough confirmed money, or somebody decided so.
SELECT i.id AS object_id, format('%s with %s of what is needed', i.status, round(found.share, 6)) AS detail
FROM invoices AS i, LATERAL (
    SELECT COALESCE(sum(t.amount::numeric(300, 60) * 10000 / (q.amount_expected * (10000 - o.tolerance_under_bps))), 0) AS share
    FROM payments AS p JOIN transfers AS t ON t.id = p.transfer_id
    JOIN payment_options AS o ON o.id = p.option_id
    JOIN quotes AS q ON q.option_id = o.id AND q.number = (
        SELECT max(e.number) FROM quotes AS e
        WHERE e.option_id = o.id AND (e.number = 1 OR e.quoted_at <= t.first_evidence_at))
    WHERE p.invoice_id = i.id AND p.status = 'confirmed' AND p.match = 'matched') AS found
WHERE i.id = ANY(:ids::text[]) AND i.status IN ('paid', 'overpaid') AND 1 > found.share + 1e-50
  AND NOT EXISTS (SELECT 1 FROM decisions AS d WHERE d.invoice_id = i.id AND d.kind IN ('accept', 'credit'));

-- name: quote_number
-- The quotes of an option are numbered without gaps, and the last one is in force.
SELECT o.id AS object_id, format('%s quotes up to number %s, number %s is in force', f.quotes, f.last, o.quote_number) AS detail
FROM payment_options AS o, LATERAL (
    SELECT count(*) AS quotes, max(q.number) AS last, max(q.amount_expected) FILTER (WHERE q.number = o.quote_number) AS amount
    FROM quotes AS q WHERE q.option_id = o.id) AS f
WHERE o.invoice_id = ANY(:ids::text[])
  AND (f.quotes <> o.quote_number OR f.last <> o.quote_number OR f.amount IS DISTINCT FROM o.amount_expected);

-- name: quote_window
-- A quote is promised no longer than its invoice's window, and ends before the next one begins.
SELECT q.option_id AS object_id, format('quote %s is promised until %s', q.number, q.expires_at) AS detail
FROM payment_options AS o JOIN invoices AS i ON i.id = o.invoice_id JOIN quotes AS q ON q.option_id = o.id
LEFT JOIN quotes AS n ON n.option_id = q.option_id AND n.number = q.number + 1
WHERE o.invoice_id = ANY(:ids::text[]) AND (q.expires_at > i.expires_at OR q.expires_at > n.quoted_at);

-- name: quote_price
-- A quote never asks less than the price, nor as much as one asked unit more, by its own rate and spread. A stored rate has
-- 18 places: the true one may lie up to the next of them. `units` are the asked decimals of `assets` (network, contract).
SELECT q.option_id AS object_id, format('quote %s asks %s for %s %s at %s, spread %s', q.number, q.amount_expected, i.amount, i.currency,
    q.rate, q.spread_bps) AS detail
FROM payment_options AS o JOIN invoices AS i ON i.id = o.invoice_id JOIN quotes AS q ON q.option_id = o.id
LEFT JOIN unnest(:assets::text[], :units::int[]) AS c(asset, places) ON c.asset = o.network || ' ' || coalesce(o.contract, 'native')
CROSS JOIN LATERAL (
    SELECT CASE WHEN q.rate ~ '^[0-9]{1,60}([.][0-9]{1,18})?$' THEN q.rate::numeric * 1e18 END AS rate,
        i.amount * (10000 + q.spread_bps) * ('1e' || o.asset_decimals + 18)::numeric AS worth,
        ('1e' || i.decimals + 4)::numeric AS price_unit,
        ('1e' || o.asset_decimals - coalesce(c.places, LEAST(o.asset_decimals, 8)))::numeric AS step,
        CASE WHEN q.source IN ('exact', 'par') THEN 0 ELSE 1 END AS more) AS x
WHERE o.invoice_id = ANY(:ids::text[]) AND (
    x.rate IS NULL
    -- less than the price at any rate that is stored like this
    OR q.amount_expected * x.price_unit * (x.rate + x.more) < x.worth
    -- a price in the asset itself is asked to the last base unit; any other may exceed it by less than one asked unit
    OR CASE WHEN q.source = 'exact' THEN q.amount_expected * x.price_unit * x.rate <> x.worth
            ELSE x.rate > 0 AND (q.amount_expected - x.step) * x.price_unit * x.rate >= x.worth END);

-- name: quote_due
-- While an invoice is open, a quote that ends before its window is going to be looked at.
SELECT o.id AS object_id, format('its quote ends at %s, the window at %s, and nobody looks', q.expires_at, i.expires_at) AS detail
FROM invoices AS i JOIN payment_options AS o ON o.invoice_id = i.id
JOIN quotes AS q ON q.option_id = o.id AND q.number = o.quote_number
WHERE i.id = ANY(:ids::text[]) AND i.status IN ('quoted', 'awaiting_payment', 'partially_paid') AND i.expires_at > :now::timestamptz
  AND o.status <> 'expired' AND q.expires_at < i.expires_at
  AND NOT EXISTS (SELECT 1 FROM requotes AS r WHERE r.option_id = o.id);

-- name: option_policy
-- The rule that an option names stands in the version of the rules that it names.
SELECT o.id AS object_id, format('"%s" is not in version %s', o.policy_name, o.policy_version) AS detail
FROM payment_options AS o
WHERE o.invoice_id = ANY(:ids::text[]) AND o.policy_name <> 'network default' AND NOT EXISTS (
    SELECT 1 FROM confirmation_policies AS c,
        jsonb_array_elements(CASE jsonb_typeof(c.rules) WHEN 'array' THEN c.rules ELSE '[]' END) AS r
    WHERE c.merchant_id = o.merchant_id AND c.version = o.policy_version AND r ->> 'name' = o.policy_name);

-- name: option_closed
-- A closed invoice offers no option that was never chosen.
SELECT o.id AS object_id, format('offered, and the invoice is %s', i.status) AS detail
FROM invoices AS i JOIN payment_options AS o ON o.invoice_id = i.id
WHERE i.id = ANY(:ids::text[]) AND i.status IN ('expired', 'underpaid', 'late_paid', 'canceled') AND o.status = 'quoted';

-- name: option_address
-- The address shown for an option is the one that was issued for it.
SELECT o.id AS object_id, format('it shows %s, issued was %s', coalesce(o.address, 'none'), coalesce(a.address, 'none')) AS detail
FROM payment_options AS o LEFT JOIN addresses AS a ON a.option_id = o.id
WHERE o.invoice_id = ANY(:ids::text[]) AND o.address IS DISTINCT FROM a.address;

-- name: invoice_idle
-- An invoice that waits for its window, or for confirmations, is going to be judged again. (What came after the window
-- can be confirmed before every network was read up to the window's end: then only that is waited for.)
SELECT i.id AS object_id, format('%s, and waits for nothing', i.status) AS detail
FROM invoices AS i
WHERE i.id = ANY(:ids::text[])
  AND (i.status IN ('created', 'quoted', 'awaiting_payment', 'partially_paid')
       AND NOT EXISTS (SELECT 1 FROM wakeups AS w WHERE w.invoice_id = i.id AND w.marker = 'time')
    OR i.status = 'confirming'
       AND NOT EXISTS (SELECT 1 FROM wakeups AS w WHERE w.invoice_id = i.id)
       AND NOT EXISTS (SELECT 1 FROM transfers AS t JOIN sightings AS s ON s.transfer_id = t.id
                       WHERE t.invoice_id = i.id AND s.gone_at IS NULL));

-- name: case_owner
-- An open exception has somebody who has it.
SELECT x.id AS object_id, format('%s, opened at %s, has no owner', x.kind, x.opened_at) AS detail
FROM exceptions AS x WHERE x.invoice_id = ANY(:ids::text[]) AND x.status = 'open' AND btrim(x.owner) = '';

-- name: case_transfer
-- An open exception is about transfers of its own invoice. (What left the chain may come back, and be attached elsewhere.)
SELECT x.id AS object_id, format('%s about %s, which is of %s', x.kind, t.id, t.invoice_id) AS detail
FROM exceptions AS x JOIN transfers AS t ON t.id = ANY(x.transfer_ids)
WHERE x.invoice_id = ANY(:ids::text[]) AND x.status = 'open' AND t.invoice_id IS DISTINCT FROM x.invoice_id AND x.kind <> 'reversed';

-- name: refund_history
-- A refund's history has no gap, each step starts where the one before ended, the last is its status, and each has its event.
SELECT r.id AS object_id, format('it is %s at %s, and its history says otherwise', r.status, r.event_sequence) AS detail
FROM refunds AS r
WHERE r.invoice_id = ANY(:ids::text[]) AND (
    r.event_sequence <> (SELECT count(*) FROM refund_transitions AS t WHERE t.refund_id = r.id)
    OR NOT EXISTS (SELECT 1 FROM refund_transitions AS t
                   WHERE t.refund_id = r.id AND t.sequence = r.event_sequence AND t.to_status = r.status)
    OR EXISTS (SELECT 1 FROM refund_transitions AS t
               LEFT JOIN refund_transitions AS b ON b.refund_id = t.refund_id AND b.sequence = t.sequence - 1
               WHERE t.refund_id = r.id AND t.from_status IS DISTINCT FROM b.to_status)
    OR EXISTS (SELECT 1 FROM refund_transitions AS t WHERE t.refund_id = r.id AND NOT EXISTS (
                   SELECT 1 FROM events AS e
                   WHERE e.object_id = r.id AND e.sequence = t.sequence AND e.type = 'refund.' || t.to_status
                     AND e.body #>> '{data,object,status}' = t.to_status)));

-- name: refund_inputs
-- What a refund's PSBT spends is held for it: outputs of its own merchant on its own network. A refund without one, or one
-- that was given up, holds nothing.
SELECT r.id AS object_id, 'nothing is held for its PSBT' AS detail
FROM refunds AS r
WHERE r.invoice_id = ANY(:ids::text[]) AND r.status = 'awaiting_signature' AND r.psbt IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM refund_inputs AS i WHERE i.refund_id = r.id)
UNION ALL
SELECT r.id, format('it is %s and holds %s, a %s of %s on %s', r.status, t.id, t.channel, t.merchant_id, t.network)
FROM refunds AS r JOIN refund_inputs AS i ON i.refund_id = r.id JOIN transfers AS t ON t.id = i.transfer_id
WHERE r.invoice_id = ANY(:ids::text[])
  AND (r.psbt IS NULL OR r.status IN ('requested', 'rejected', 'failed')
       OR (t.merchant_id, t.network, t.channel) IS DISTINCT FROM (r.merchant_id, r.network, 'output'));

-- name: refund_edge
-- Every step of a refund is a legal edge.
SELECT t.refund_id AS object_id, format('step %s from %s to %s', t.sequence, t.from_status, t.to_status) AS detail
FROM refunds AS r JOIN refund_transitions AS t ON t.refund_id = r.id
WHERE r.invoice_id = ANY(:ids::text[]) AND NOT :refund_edges::jsonb ? (coalesce(t.from_status, '') || '>' || t.to_status);

-- name: refund_credit
-- Refunds of an invoice never exceed what was confirmed for it in their asset. One that was given up, and turned out to be
-- sent after all, is a loss: it took nothing from the others.
SELECT r.invoice_id AS object_id, format('%s of %s is given back, %s was confirmed', r.taken, r.contract, found.credited) AS detail
FROM (SELECT f.invoice_id, f.network, coalesce(f.contract, 'native') AS contract, sum(f.amount) AS taken
      FROM refunds AS f
      WHERE f.invoice_id = ANY(:ids::text[]) AND f.status NOT IN ('rejected', 'failed')
        AND NOT EXISTS (SELECT 1 FROM refund_transitions AS h WHERE h.refund_id = f.id AND h.to_status = 'failed')
      GROUP BY 1, 2, 3) AS r,
    LATERAL (SELECT coalesce(sum(t.amount), 0) AS credited FROM transfers AS t JOIN payments AS p ON p.transfer_id = t.id
             WHERE t.invoice_id = r.invoice_id AND t.network = r.network AND coalesce(t.contract, 'native') = r.contract
               AND p.confirmed_at IS NOT NULL AND NOT t.internal) AS found
WHERE r.taken > found.credited;

-- name: refund_basis
-- A refund waits to be sent only while everything that it gives back stands.
SELECT r.id AS object_id, format('%s, and part of what it gives back does not stand', r.status) AS detail
FROM refunds AS r
WHERE r.invoice_id = ANY(:ids::text[]) AND r.status IN ('approved', 'awaiting_signature') AND EXISTS (
    SELECT 1 FROM unnest(r.basis_ids) AS b(id) WHERE NOT EXISTS (
        SELECT 1 FROM payments AS p WHERE p.transfer_id = b.id AND p.invoice_id = r.invoice_id AND p.status = 'confirmed'));

-- name: refund_transfer
-- A transfer that carries out a refund is what the refund asked for, and carries out no other.
SELECT t.id AS object_id, format('it is not what %s asked for', r.id) AS detail
FROM refunds AS r JOIN refund_transfers AS t ON t.refund_id = r.id
WHERE r.invoice_id = ANY(:ids::text[])
  AND (t.network, t.recipient, t.amount, coalesce(t.contract, ''), t.invoice_id)
      IS DISTINCT FROM (r.network, r.address, r.amount_sent, coalesce(r.contract, ''), r.invoice_id)
UNION ALL
SELECT t.id, format('%s has the same place', o.id)
FROM refund_transfers AS t JOIN refund_transfers AS o
    ON (o.network, o.tx_hash, o.channel, o.ordinal) = (t.network, t.tx_hash, t.channel, t.ordinal) AND o.id <> t.id
WHERE t.invoice_id = ANY(:ids::text[]);

-- name: refund_once
-- One refund has at most one transaction in the best chain; where its owner sent it twice, there is an exception about it.
SELECT r.id AS object_id, format('%s transfers of it stand in the best chain, and nobody was told', f.live) AS detail
FROM refunds AS r, LATERAL (
    SELECT count(*) AS live FROM refund_transfers AS t JOIN refund_anchors AS a ON a.transfer_id = t.id
    JOIN blocks AS b ON b.network = a.network AND b.hash = a.block_hash AND b.in_best_chain
    WHERE t.refund_id = r.id) AS f
WHERE r.invoice_id = ANY(:ids::text[]) AND f.live > 1
  AND NOT EXISTS (SELECT 1 FROM exceptions AS x
                  WHERE x.invoice_id = r.invoice_id AND x.kind = 'refund_failed' AND x.subject = r.id);

-- name: refund_due
-- A refund on its way has a time by which somebody looks; one that needs a person has, or had, its exception.
SELECT r.id AS object_id, format('%s, and nobody is going to look', r.status) AS detail
FROM refunds AS r
WHERE r.invoice_id = ANY(:ids::text[])
  AND (r.status IN ('awaiting_signature', 'broadcast') AND r.attention_at IS NULL
       OR r.status = 'needs_attention' AND NOT EXISTS (
           SELECT 1 FROM exceptions AS x
           WHERE x.invoice_id = r.invoice_id AND x.kind = 'refund_failed' AND x.subject = r.id));

-- name: owner_options
-- What an invoice offers is its own merchant's: options, addresses, wallets, and when they are looked at.
SELECT o.id AS object_id, format('of %s, its invoice is of %s', o.merchant_id, i.merchant_id) AS detail
FROM invoices AS i JOIN payment_options AS o ON o.invoice_id = i.id
WHERE i.id = ANY(:ids::text[]) AND o.merchant_id <> i.merchant_id
UNION ALL
SELECT o.id, format('%s is of %s for %s, from a wallet of %s', a.address, a.merchant_id, a.invoice_id, w.merchant_id)
FROM payment_options AS o JOIN addresses AS a ON a.option_id = o.id JOIN wallets AS w ON w.id = a.wallet_id
WHERE o.invoice_id = ANY(:ids::text[]) AND (a.merchant_id, a.invoice_id, w.merchant_id) <> (o.merchant_id, o.invoice_id, o.merchant_id)
UNION ALL
SELECT o.id, format('looked at for %s', r.invoice_id)
FROM payment_options AS o JOIN requotes AS r ON r.option_id = o.id
WHERE o.invoice_id = ANY(:ids::text[]) AND r.invoice_id <> o.invoice_id
UNION ALL
SELECT c.address, format('its balance is looked at for %s, it was issued for %s', c.invoice_id, a.invoice_id)
FROM balance_checks AS c JOIN addresses AS a ON a.family = c.family AND a.address = c.address
WHERE c.invoice_id = ANY(:ids::text[]) AND c.invoice_id <> a.invoice_id;

-- name: owner_money
-- What arrived for an invoice, and what is given back of it, is its own merchant's and counts to an option of its own.
SELECT t.id AS object_id, format('of %s for %s, the invoice is of %s', t.merchant_id, t.option_id, i.merchant_id) AS detail
FROM invoices AS i JOIN transfers AS t ON t.invoice_id = i.id
LEFT JOIN payment_options AS o ON o.id = t.option_id AND o.invoice_id = i.id
WHERE i.id = ANY(:ids::text[]) AND (o.id IS NULL OR t.merchant_id <> i.merchant_id)
UNION ALL
SELECT p.id, format('of %s, the invoice is of %s', p.merchant_id, i.merchant_id)
FROM invoices AS i JOIN payments AS p ON p.invoice_id = i.id
WHERE i.id = ANY(:ids::text[]) AND p.merchant_id <> i.merchant_id
UNION ALL
SELECT r.id, format('of %s for %s, the invoice is of %s', r.merchant_id, r.option_id, i.merchant_id)
FROM invoices AS i JOIN refunds AS r ON r.invoice_id = i.id
LEFT JOIN payment_options AS o ON o.id = r.option_id AND o.invoice_id = i.id
LEFT JOIN exceptions AS x ON x.id = r.exception_id
WHERE i.id = ANY(:ids::text[])
  AND (o.id IS NULL OR r.merchant_id <> i.merchant_id OR coalesce(x.merchant_id, i.merchant_id) <> i.merchant_id)
UNION ALL
SELECT r.id, format('it speaks of %s, which is of %s', t.id, t.merchant_id)
FROM refunds AS r JOIN transfers AS t ON t.id = ANY(r.transfer_ids || r.basis_ids)
WHERE r.invoice_id = ANY(:ids::text[]) AND t.merchant_id <> r.merchant_id;

-- name: owner_people
-- What people are asked and decide about an invoice is its own merchant's, and about this merchant's transfers.
SELECT x.id AS object_id, format('of %s, the invoice is of %s', x.merchant_id, i.merchant_id) AS detail
FROM invoices AS i JOIN exceptions AS x ON x.invoice_id = i.id
WHERE i.id = ANY(:ids::text[]) AND x.merchant_id <> i.merchant_id
UNION ALL
SELECT x.id, format('about %s, which is of %s', t.id, t.merchant_id)
FROM exceptions AS x JOIN transfers AS t ON t.id = ANY(x.transfer_ids)
WHERE x.invoice_id = ANY(:ids::text[]) AND t.merchant_id <> x.merchant_id
UNION ALL
SELECT i.id, format('decision %s is of %s', d.id, d.merchant_id)
FROM invoices AS i JOIN decisions AS d ON d.invoice_id = i.id LEFT JOIN exceptions AS x ON x.id = d.exception_id
WHERE i.id = ANY(:ids::text[]) AND (d.merchant_id <> i.merchant_id OR coalesce(x.merchant_id, i.merchant_id) <> i.merchant_id)
UNION ALL
SELECT d.invoice_id, format('decision %s is about %s, which is of %s', d.id, t.id, t.merchant_id)
FROM decisions AS d JOIN transfers AS t ON t.id = ANY(d.transfer_ids)
WHERE d.invoice_id = ANY(:ids::text[]) AND t.merchant_id <> d.merchant_id;

-- name: owner_events
-- What is told about an object is told to its own merchant only.
SELECT e.id AS object_id, format('about %s of %s, told to %s by %s', o.id, o.merchant_id, e.merchant_id, coalesce(w.merchant_id, 'nobody')) AS detail
FROM (SELECT id, merchant_id FROM invoices WHERE id = ANY(:ids::text[])
      UNION ALL SELECT id, merchant_id FROM payments WHERE invoice_id = ANY(:ids::text[])
      UNION ALL SELECT id, merchant_id FROM exceptions WHERE invoice_id = ANY(:ids::text[])
      UNION ALL SELECT id, merchant_id FROM refunds WHERE invoice_id = ANY(:ids::text[])) AS o
JOIN events AS e ON e.object_id = o.id
LEFT JOIN deliveries AS d ON d.event_id = e.id
LEFT JOIN webhook_endpoints AS w ON w.id = d.endpoint_id
WHERE e.merchant_id <> o.merchant_id OR (d.id IS NOT NULL AND (d.merchant_id, w.merchant_id) IS DISTINCT FROM (o.merchant_id, o.merchant_id));
