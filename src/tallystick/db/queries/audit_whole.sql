-- What must hold about networks, their blocks and cursors, the accounts as a whole, what waits, and what guards the tables.
-- Each statement is one rule, as in audit_invoices.sql. `as_of` is the moment before which everything due should have been
-- done: our clock, less the patience of whoever asks.

-- name: chain_height
-- The best chain of a network has one block at a height.
SELECT b.network AS object_id, format('%s blocks at height %s', count(*), b.height) AS detail
FROM blocks AS b WHERE b.in_best_chain GROUP BY b.network, b.height HAVING count(*) > 1;

-- name: chain_parent
-- Every block of the best chain stands on the one below it.
SELECT b.network AS object_id, format('block %s at height %s does not stand on %s', b.hash, b.height, p.hash) AS detail
FROM blocks AS b JOIN blocks AS p ON p.network = b.network AND p.in_best_chain AND p.height = b.height - 1
WHERE b.in_best_chain AND p.hash <> b.parent_hash;

-- name: chain_gap
-- The best chain is whole from the cursor down as far as a reorganisation can reach, or to where it was first read.
SELECT n.name AS object_id, format('%s blocks of the %s below %s are there', f.blocks, f.wanted, n.cursor_height) AS detail
FROM networks AS n JOIN unnest(:names::text[], :depths::int[]) AS c(name, depth) ON c.name = n.name,
    LATERAL (SELECT count(b.hash) AS blocks, LEAST(c.depth, n.cursor_height + 1 - (
                 SELECT min(a.height) FROM blocks AS a WHERE a.network = n.name AND a.in_best_chain)) AS wanted
             FROM blocks AS b
             WHERE b.network = n.name AND b.in_best_chain AND b.height > n.cursor_height - c.depth AND b.height <= n.cursor_height) AS f
WHERE n.cursor_hash IS NOT NULL AND f.blocks < f.wanted;

-- name: chain_cursor
-- The cursor is the top of the best chain: its hash, height and the time that counts; and what was scanned is never
-- behind it.
SELECT n.name AS object_id, format('it is %s at %s, the best chain ends with %s at %s', n.cursor_hash, n.cursor_height, b.hash, b.height) AS detail
FROM networks AS n LEFT JOIN LATERAL (
    SELECT t.hash, t.height, coalesce(t.counted_time, t.time) AS time FROM blocks AS t WHERE t.network = n.name AND t.in_best_chain
    ORDER BY t.height DESC LIMIT 1) AS b ON true
WHERE (n.cursor_hash, n.cursor_height, n.cursor_time) IS DISTINCT FROM (b.hash, b.height, b.time)
   OR n.scanned_until < n.cursor_time OR (n.cursor_hash IS NOT NULL AND n.scanned_until IS NULL);

-- name: chain_finality
-- Nothing is called safe or final above the cursor.
SELECT n.name AS object_id, format('safe %s, finalized %s, cursor %s', n.safe_height, n.finalized_height, n.cursor_height) AS detail
FROM networks AS n WHERE n.safe_height > n.cursor_height OR n.finalized_height > n.cursor_height;

-- name: log_head
-- The log of a merchant ends where it is said to end: nothing was taken from its end, or put there.
SELECT m.id AS object_id, format('it is said to end with row %s, and ends with row %s', coalesce(h.length::text, 'none'),
    coalesce(l.position::text, 'none')) AS detail
FROM merchants AS m LEFT JOIN transition_log_heads AS h ON h.merchant_id = m.id
LEFT JOIN LATERAL (SELECT e.position, e.hash FROM transition_log AS e WHERE e.merchant_id = m.id ORDER BY e.position DESC LIMIT 1) AS l ON true
WHERE (h.length, h.hash) IS DISTINCT FROM (coalesce(l.position, 0), coalesce(l.hash, transition_log_start(m.id)));

-- name: log_gap
-- The log of a merchant is numbered 1, 2, … without gaps, and is about invoices that are there.
SELECT l.merchant_id AS object_id, format('%s rows, numbered %s to %s', count(*), min(l.position), max(l.position)) AS detail
FROM transition_log AS l GROUP BY l.merchant_id HAVING min(l.position) <> 1 OR max(l.position) <> count(*)
UNION ALL
SELECT l.merchant_id, format('row %s is about %s, which is not there', l.position, l.invoice_id)
FROM transition_log AS l WHERE NOT EXISTS (SELECT 1 FROM invoices AS i WHERE i.id = l.invoice_id);

-- name: wakeup_height
-- Nothing waits for a height that its network has reached.
SELECT w.invoice_id AS object_id, format('it waits for %s %s of %s, reached', w.marker, w.position, w.network) AS detail
FROM networks AS n JOIN wakeups AS w ON w.network = n.name AND w.marker <> 'time'
WHERE w.position <= CASE w.marker WHEN 'tip' THEN n.cursor_height WHEN 'safe' THEN n.safe_height ELSE n.finalized_height END;

-- name: wakeup_time
-- No window that has ended waits to be judged.
SELECT w.invoice_id AS object_id, format('its window on "%s" ended at %s', w.network, to_timestamp(w.position)) AS detail
FROM wakeups AS w LEFT JOIN networks AS n ON n.name = w.network
WHERE w.marker = 'time' AND w.position < floor(extract(epoch FROM LEAST(:as_of::timestamptz, n.scanned_until)))
  AND (w.network = '' OR n.scanned_until IS NOT NULL);

-- name: requote_overdue
-- No quote that was to be looked at waits.
SELECT r.option_id AS object_id, format('due at %s', r.due_at) AS detail FROM requotes AS r WHERE r.due_at < :as_of::timestamptz;

-- name: check_overdue
-- No address whose balance was to be looked at, on a network that is followed, waits.
SELECT c.address AS object_id, format('due at %s on %s', c.due_at, c.network) AS detail
FROM balance_checks AS c JOIN networks AS n ON n.name = c.network
WHERE c.due_at < :as_of::timestamptz AND n.name = ANY(:names::text[]) AND n.status = 'following';

-- name: refund_overdue
-- No refund that was to be seen by now waits without a person being told.
SELECT r.id AS object_id, format('%s, due at %s', r.status, r.attention_at) AS detail
FROM refunds AS r JOIN networks AS n ON n.name = r.network
WHERE r.status IN ('awaiting_signature', 'broadcast') AND r.attention_at < :as_of::timestamptz AND n.scanned_until >= r.attention_at;

-- name: delivery_overdue
-- No delivery that is due waits, unless its endpoint fails and is tried with others meanwhile, one at a time.
SELECT d.id AS object_id, format('due at %s, after %s attempts', d.next_attempt_at, d.attempts_made) AS detail
FROM deliveries AS d WHERE d.status = 'pending' AND d.next_attempt_at < :as_of::timestamptz
  AND d.endpoint_id NOT IN (
      SELECT o.endpoint_id FROM deliveries AS o JOIN webhook_endpoints AS e ON e.id = o.endpoint_id
      WHERE o.status = 'pending' AND o.updated_at >= :as_of::timestamptz AND o.attempts_made > 0 AND e.failing_since IS NOT NULL);

-- name: case_reason
-- An open exception about a network or an endpoint is about one that is in trouble, and has somebody who has it.
SELECT x.id AS object_id, format('%s about %s, owned by "%s"', x.kind, x.subject, x.owner) AS detail
FROM exceptions AS x
WHERE x.status = 'open' AND (
    x.kind = 'network_halted' AND NOT EXISTS (SELECT 1 FROM networks AS n WHERE n.name = x.subject AND n.halted_at IS NOT NULL)
    OR x.kind = 'webhook_failed' AND NOT EXISTS (
        SELECT 1 FROM webhook_endpoints AS e WHERE e.id = x.subject AND e.status = 'disabled' AND e.deleted_at IS NULL)
    OR (x.invoice_id IS NULL AND btrim(x.owner) = ''));

-- name: endpoint_owner
-- An endpoint that the system disabled has, or had, an exception of its merchant about it.
SELECT e.id AS object_id, 'it was disabled by itself, and nobody was told' AS detail
FROM webhook_endpoints AS e
WHERE e.status = 'disabled' AND e.deleted_at IS NULL AND e.disabled_reason <> 'Disabled by its owner.'
  AND NOT EXISTS (SELECT 1 FROM exceptions AS x WHERE x.kind = 'webhook_failed' AND x.subject = e.id AND x.merchant_id = e.merchant_id);

-- name: account_sum
-- The accounts of a merchant add up to nothing in each denomination.
SELECT p.merchant_id AS object_id, format('%s of %s are left', sum(p.amount), p.asset) AS detail
FROM postings AS p GROUP BY p.merchant_id, p.network, p.contract, p.asset HAVING sum(p.amount) <> 0;

-- name: account_onchain
-- The account `onchain` is what is confirmed less what was sent back, in every asset.
SELECT m.merchant_id AS object_id, format('%s of %s on %s are missing', sum(m.amount), m.contract, m.network) AS detail
FROM (SELECT p.merchant_id, t.network, coalesce(t.contract, 'native') AS contract, t.amount
      FROM payments AS p JOIN transfers AS t ON t.id = p.transfer_id
      WHERE p.status = 'confirmed' AND NOT t.internal
      UNION ALL
      SELECT r.merchant_id, o.network, coalesce(o.contract, 'native'), -o.amount
      FROM refunds AS r JOIN refund_transfers AS o ON o.refund_id = r.id
      WHERE r.status = 'completed' AND EXISTS (
          SELECT 1 FROM refund_anchors AS a JOIN blocks AS b ON b.network = a.network AND b.hash = a.block_hash
          WHERE a.transfer_id = o.id AND b.in_best_chain)
      UNION ALL
      SELECT merchant_id, network, contract, -amount FROM postings WHERE account = 'onchain') AS m
GROUP BY m.merchant_id, m.network, m.contract HAVING sum(m.amount) <> 0;

-- name: index_spent
-- Every issued address was derived by an index that its key will not give again, and no two by the same.
SELECT a.address AS object_id, format('derived by index %s, the next is %s', a.derivation_index, k.next_index) AS detail
FROM addresses AS a JOIN wallets AS w ON w.id = a.wallet_id JOIN key_counters AS k ON k.key_fingerprint = w.key_fingerprint
WHERE a.derivation_index >= k.next_index
UNION ALL
SELECT min(a.address), format('%s addresses were derived by index %s of one key', count(*), a.derivation_index)
FROM addresses AS a JOIN wallets AS w ON w.id = a.wallet_id
GROUP BY w.key_fingerprint, a.family, a.derivation_index HAVING count(*) > 1;

-- name: guard
-- What keeps facts as they are, the books in balance and history in its log is there and at work; so is every reference
-- from one table to another.
SELECT g.name AS object_id, 'it is missing, or switched off' AS detail
FROM unnest(:guards::text[]) AS g(name)
WHERE NOT EXISTS (SELECT 1 FROM pg_trigger AS t WHERE t.tgname = g.name AND t.tgenabled IN ('O', 'A') AND NOT t.tgisinternal)
  AND NOT EXISTS (SELECT 1 FROM pg_constraint AS c WHERE c.conname = g.name AND c.convalidated)
UNION ALL
SELECT c.relname, format('its trigger %s is switched off', t.tgname)
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'public'::regnamespace AND t.tgenabled NOT IN ('O', 'A');

-- name: orphan
-- What belongs to something belongs to something that is there.
SELECT t.invoice_id AS object_id, format('transition %s belongs to no invoice', t.sequence) AS detail
FROM transitions AS t WHERE NOT EXISTS (SELECT 1 FROM invoices AS i WHERE i.id = t.invoice_id)
UNION ALL
SELECT t.id, 'the transfer belongs to no invoice' FROM transfers AS t WHERE NOT EXISTS (SELECT 1 FROM invoices AS i WHERE i.id = t.invoice_id)
UNION ALL
SELECT p.id, 'the payment has no transfer' FROM payments AS p WHERE NOT EXISTS (SELECT 1 FROM transfers AS t WHERE t.id = p.transfer_id)
UNION ALL
SELECT n.transfer_id, format('block %s, said to hold it, is not known', n.block_hash)
FROM (SELECT transfer_id, network, block_hash FROM anchors UNION ALL SELECT transfer_id, network, block_hash FROM conflicts
      UNION ALL SELECT transfer_id, network, block_hash FROM refund_anchors) AS n
WHERE NOT EXISTS (SELECT 1 FROM blocks AS b WHERE b.network = n.network AND b.hash = n.block_hash)
UNION ALL
SELECT p.entry_id, 'the posting has no entry' FROM postings AS p WHERE NOT EXISTS (SELECT 1 FROM ledger_entries AS e WHERE e.id = p.entry_id)
UNION ALL
SELECT e.id, format('the entry about %s belongs to no invoice', e.subject)
FROM ledger_entries AS e WHERE e.kind IN ('receipt', 'position', 'refund_sent')
  AND NOT EXISTS (SELECT 1 FROM invoices AS i WHERE i.id = e.invoice_id)
UNION ALL
SELECT e.id, format('%s is about %s, which is not there', e.type, e.object_id)
FROM events AS e
WHERE (e.type LIKE 'invoice.%' AND NOT EXISTS (SELECT 1 FROM invoices AS i WHERE i.id = e.object_id))
   OR (e.type LIKE 'payment.%' AND NOT EXISTS (SELECT 1 FROM payments AS p WHERE p.id = e.object_id))
   OR (e.type LIKE 'refund.%' AND NOT EXISTS (SELECT 1 FROM refunds AS r WHERE r.id = e.object_id))
   OR (e.type LIKE 'exception.%' AND NOT EXISTS (SELECT 1 FROM exceptions AS x WHERE x.id = e.object_id));

-- name: event_other
-- Events about what belongs to no invoice (an endpoint, a network) are numbered without gaps, told to its own merchant, and
-- are what they say they are.
SELECT e.object_id, format('%s events, numbered %s to %s', count(*), min(e.sequence), max(e.sequence)) AS detail
FROM events AS e LEFT JOIN exceptions AS x ON x.id = e.object_id AND x.invoice_id IS NULL
WHERE e.type = 'webhook.ping' OR x.id IS NOT NULL
GROUP BY e.object_id, x.event_sequence
HAVING min(e.sequence) <> 1 OR max(e.sequence) <> count(*) OR x.event_sequence <> count(*)
UNION ALL
SELECT e.object_id, format('%s (%s) says otherwise of itself, or is told to another', e.id, e.type)
FROM events AS e LEFT JOIN exceptions AS x ON x.id = e.object_id AND x.invoice_id IS NULL
LEFT JOIN webhook_endpoints AS w ON w.id = e.object_id
WHERE (e.type = 'webhook.ping' OR x.id IS NOT NULL)
  AND ((e.body ->> 'id', e.body ->> 'type', e.body #>> '{data,sequence}') IS DISTINCT FROM (e.id, e.type, e.sequence::text)
       OR e.merchant_id IS DISTINCT FROM coalesce(x.merchant_id, w.merchant_id));
