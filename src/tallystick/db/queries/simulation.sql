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
SELECT address FROM addresses;

-- name: best_transfers
-- Transfers that stand in the best chain of a network, as stored.
SELECT t.tx_hash, t.channel, t.ordinal, t.contract, t.recipient, t.amount
FROM transfers AS t
JOIN anchors AS n ON n.transfer_id = t.id
JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
WHERE t.network = :network AND b.in_best_chain;

-- name: done_twice
-- What one call of the API must do once. Each call names itself in a text that only it uses.
SELECT order_id AS what, count(*) AS times FROM invoices WHERE order_id IS NOT NULL GROUP BY order_id HAVING count(*) > 1
UNION ALL
SELECT reason, count(*) FROM refunds WHERE reason LIKE 'asked in call %' GROUP BY reason HAVING count(*) > 1
UNION ALL
SELECT resolution ->> 'note', count(*) FROM exceptions WHERE resolution ->> 'note' LIKE 'decided in call %'
GROUP BY 1 HAVING count(*) > 1;

-- name: not_delivered
-- Deliveries that still wait although nothing stands in their way.
SELECT d.id AS delivery_id FROM deliveries AS d JOIN webhook_endpoints AS e ON e.id = d.endpoint_id
WHERE d.status = 'pending' AND e.status = 'enabled' AND e.deleted_at IS NULL;

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
