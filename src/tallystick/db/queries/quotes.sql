-- Quotes after the first: which have ended, and what takes their place. Old quotes stay as they are.

-- name: due
-- Options whose quote was to be looked at by now, the longest overdue first.
SELECT r.option_id FROM requotes AS r WHERE r.due_at <= :now ORDER BY r.due_at, r.option_id LIMIT :row_count;

-- name: lock_invoices_of
-- The invoices of these options, locked in the order of their ids as every writer does. Those that another transaction
-- holds are left for the next time: whoever holds one may be quoting it anew.
SELECT i.id FROM invoices AS i
WHERE i.id IN (SELECT o.invoice_id FROM payment_options AS o WHERE o.id = ANY(:option_ids::text[]))
ORDER BY i.id
FOR NO KEY UPDATE OF i SKIP LOCKED;

-- name: read_quoted
-- These options with their quote in force, what their invoice asks, and what their merchant decided for new quotes.
SELECT o.id AS option_id, o.invoice_id, o.network, o.contract, o.asset_decimals, o.status AS option_status,
       o.quote_number, q.expires_at AS quote_ends_at, i.status, i.amount, i.currency, i.decimals,
       i.expires_at, m.spread_bps, m.quote_seconds
FROM payment_options AS o
JOIN quotes AS q ON q.option_id = o.id AND q.number = o.quote_number
JOIN invoices AS i ON i.id = o.invoice_id
JOIN merchants AS m ON m.id = i.merchant_id
WHERE o.id = ANY(:option_ids::text[])
ORDER BY o.invoice_id, o.position;

-- name: renew
-- New quotes in the place of the ones whose numbers come just before; answers the options that took them.
WITH given AS (
    SELECT * FROM unnest(:option_ids::text[], :numbers::int[], :amounts::numeric[], :rates::text[], :sources::text[],
        :ends::timestamptz[], :spreads_bps::int[], :answers::text[])
    AS g(option_id, number, amount, rate, source, ends_at, spread_bps, answers)
), moved AS (
    UPDATE payment_options AS o SET amount_expected = g.amount, quote_number = g.number
    FROM given AS g
    WHERE o.id = g.option_id AND o.quote_number = g.number - 1 AND o.status <> 'expired'
    RETURNING o.id, o.invoice_id
), added AS (
    INSERT INTO quotes (option_id, number, amount_expected, rate, source, quoted_at, expires_at, spread_bps, answers)
    SELECT g.option_id, g.number, g.amount, g.rate, g.source, :at, g.ends_at, g.spread_bps, g.answers::jsonb
    FROM given AS g JOIN moved AS m ON m.id = g.option_id
), touched AS (
    UPDATE invoices AS i SET updated_at = :at WHERE i.id IN (SELECT m.invoice_id FROM moved AS m)
)
SELECT m.id AS option_id, m.invoice_id FROM moved AS m;

-- name: reschedule!
-- Look at these options again at these times.
UPDATE requotes AS r SET due_at = g.due_at
FROM unnest(:option_ids::text[], :due_at::timestamptz[]) AS g(option_id, due_at)
WHERE r.option_id = g.option_id;

-- name: forget!
-- These options need no other quote: their window is over, or their quote lasts to its end.
DELETE FROM requotes WHERE option_id = ANY(:option_ids::text[]);
