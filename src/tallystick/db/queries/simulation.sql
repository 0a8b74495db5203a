-- For `tallystick.simulation` alone: its database is its own, and it uses it for one seed after the other.

-- name: wipe
-- Empty every table but the schema's own version. Rows that only grow are protected by triggers, which stand aside for
-- this one statement; the role needs to own the database.
DO $$
BEGIN
    SET LOCAL session_replication_role = replica;
    EXECUTE (
        SELECT string_agg(format('DELETE FROM %I.%I', schemaname, tablename), ';') FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'alembic_version');
END $$;

-- name: issued_addresses
-- Every address that anybody was ever told to pay to.
SELECT family, address FROM addresses;

-- name: standing_transfers
-- Transfers that stand in the best chain of a network, as stored, each with the block that holds it.
SELECT t.tx_hash, t.channel, t.ordinal, t.contract, t.recipient, t.amount, b.hash AS block_hash
FROM transfers AS t
JOIN anchors AS n ON n.transfer_id = t.id
JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
WHERE t.network = :network AND b.in_best_chain;

-- name: best_chain
-- The blocks of a network that count as processed.
SELECT hash FROM blocks WHERE network = :network AND in_best_chain;

-- name: not_there
-- Which of these invoices do not exist.
SELECT g.id FROM unnest(:ids::text[]) AS g(id) WHERE NOT EXISTS (SELECT 1 FROM invoices AS i WHERE i.id = g.id);

-- name: unplaced
-- Transfers that stand nowhere, with what became of them.
SELECT t.id, t.network, t.tx_hash, t.channel, p.status,
    EXISTS (SELECT 1 FROM sightings AS s WHERE s.transfer_id = t.id AND s.gone_at IS NULL) AS sighted
FROM transfers AS t JOIN payments AS p ON p.transfer_id = t.id
WHERE NOT EXISTS (SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
                  WHERE n.transfer_id = t.id AND b.in_best_chain);

-- name: outputs
-- Outputs that came to issued addresses and stand in a network's best chain, with what counts because of them.
SELECT t.id, t.tx_hash, t.ordinal, t.recipient, t.merchant_id, t.internal, p.status, b.hash AS block_hash,
    w.cursor_height - b.height + 1 AS depth
FROM transfers AS t
JOIN anchors AS n ON n.transfer_id = t.id
JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
JOIN networks AS w ON w.name = t.network
LEFT JOIN payments AS p ON p.transfer_id = t.id
WHERE t.network = :network AND t.channel = 'output' AND b.in_best_chain;

-- name: spent_outputs
-- Which outputs the best chain of a network spends, as stored.
SELECT t.tx_hash, t.ordinal, s.tx_hash AS spent_by, s.block_hash
FROM spendings AS s JOIN transfers AS t ON t.id = s.transfer_id
JOIN blocks AS b ON b.network = s.network AND b.hash = s.block_hash
WHERE s.network = :network AND b.in_best_chain;

-- name: counted_at_sight
-- Payments of a network that count as confirmed and stand in no block of the best chain.
SELECT p.id, t.tx_hash, o.zero_conf_accepts
FROM payments AS p JOIN transfers AS t ON t.id = p.transfer_id JOIN payment_options AS o ON o.id = p.option_id
WHERE t.network = :network AND p.status = 'confirmed' AND NOT EXISTS (
    SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
    WHERE n.transfer_id = t.id AND b.in_best_chain);

-- name: above_limit
-- Options of a network that would count at sight, by a rule without an amount, and ask more than the network's limit.
SELECT id, amount_expected FROM payment_options
WHERE network = :network AND zero_conf AND policy_name = :rule AND amount_expected > :limit;

-- name: read_until
-- The chain time up to which a network counts as read.
SELECT scanned_until FROM networks WHERE name = :network;

-- name: done_twice
-- What one call of the API must do once. Each call names itself in a text that only it uses.
SELECT order_id AS what, count(*) AS times FROM invoices WHERE order_id IS NOT NULL GROUP BY order_id HAVING count(*) > 1
UNION ALL
SELECT reason, count(*) FROM refunds WHERE reason LIKE 'asked in call %' GROUP BY reason HAVING count(*) > 1
UNION ALL
SELECT resolution ->> 'note', count(*) FROM exceptions WHERE resolution ->> 'note' LIKE 'decided in call %'
GROUP BY 1 HAVING count(*) > 1;

-- name: not_delivered
-- Deliveries that still wait although nothing stands in their way, or were given up before the schedule was used up.
SELECT d.id AS delivery_id, e.url, d.status, d.attempts_made
FROM deliveries AS d JOIN webhook_endpoints AS e ON e.id = d.endpoint_id
WHERE e.status = 'enabled' AND e.deleted_at IS NULL
  AND (d.status = 'pending' OR (d.status = 'failed' AND d.attempts_made < :attempts_max));

-- name: waits_for
-- Whether one connection waits for a lock that another one holds.
SELECT :holder::int = ANY(pg_blocking_pids(:pid::int));

-- name: due_endpoints
-- Endpoints that take events and have something due.
SELECT e.id, e.url FROM webhook_endpoints AS e
WHERE e.status = 'enabled' AND e.deleted_at IS NULL AND EXISTS (
    SELECT 1 FROM deliveries AS d WHERE d.endpoint_id = e.id AND d.status = 'pending' AND d.next_attempt_at <= :now);

-- name: endpoint_states
-- Which endpoints take events now, and the last event there is.
SELECT e.id, e.status = 'enabled' AND e.deleted_at IS NULL AS takes, coalesce((SELECT max(v.position) FROM events AS v), 0) AS last
FROM webhook_endpoints AS e;

-- name: not_sent
-- Events of a merchant after the given one of each of its endpoints that have no delivery there. Nobody wants pings of others.
SELECT v.id AS event_id, w.id AS endpoint_id
FROM unnest(:ids::text[], :positions::bigint[]) AS g(id, position)
JOIN webhook_endpoints AS w ON w.id = g.id
JOIN events AS v ON v.merchant_id = w.merchant_id AND v.position > g.position AND v.type <> 'webhook.ping'
WHERE NOT EXISTS (SELECT 1 FROM deliveries AS d WHERE d.event_id = v.id AND d.endpoint_id = w.id);

-- name: sent_after_success
-- Deliveries that were attempted again after one attempt had succeeded. Nobody asks for that here.
SELECT DISTINCT a.delivery_id FROM delivery_attempts AS a JOIN delivery_attempts AS b
    ON b.delivery_id = a.delivery_id AND b.number > a.number
WHERE a.status_code BETWEEN 200 AND 299;

-- name: delivered
-- What was called delivered, and where to.
SELECT d.event_id, e.url, v.body::text AS body FROM deliveries AS d
JOIN webhook_endpoints AS e ON e.id = d.endpoint_id JOIN events AS v ON v.id = d.event_id
WHERE d.status = 'delivered' AND e.deleted_at IS NULL;

-- name: earliest_delivery
-- When the next delivery is due for an endpoint that takes any.
SELECT min(d.next_attempt_at) FROM deliveries AS d JOIN webhook_endpoints AS e ON e.id = d.endpoint_id
WHERE d.status = 'pending' AND e.status = 'enabled';

-- name: digest
-- How everything stands, in an order that depends on nothing but the content: for the log's hash.
SELECT string_agg(line, E'\n' ORDER BY line) FROM (
    SELECT id || ' ' || status || ' ' || sequence || ' ' || amount_paid AS line FROM invoices
    UNION ALL SELECT id || ' ' || status FROM payments
    UNION ALL SELECT id || ' ' || status FROM refunds
    UNION ALL SELECT id || ' ' || status || ' ' || kind FROM exceptions
    UNION ALL SELECT name || ' ' || status || ' ' || coalesce(cursor_hash, '') FROM networks
) AS everything;
