-- What an audit reads besides its rules.

-- name: plan_once
-- For the rest of this transaction a statement is planned once for any number of invoices. A rule's own plan is quick to
-- run, and all rules together are long to plan.
SELECT set_config('plan_cache_mode', 'force_generic_plan', true);

-- name: wakeups_of
-- What these invoices wait for.
SELECT invoice_id, network, marker, position FROM wakeups WHERE invoice_id = ANY(:ids::text[]);

-- name: exceptions_of
-- Every exception about these invoices, the latest of each kind last, without a lock.
SELECT id, invoice_id, kind, status, transfer_ids, resolution FROM exceptions WHERE invoice_id = ANY(:ids::text[]) ORDER BY id;

-- name: ids_after
-- A page of all invoices, by id.
SELECT id FROM invoices WHERE id > :after ORDER BY id LIMIT :row_count;

-- name: all_ids
-- Every invoice, for small databases.
SELECT id FROM invoices ORDER BY id;

-- name: marker
-- A marker of now: whatever is written later was written by this transaction or a later one.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS marker;

-- name: touched
-- Invoices of which any row was written since a marker, and the marker for the next time. Reads whole tables: for small
-- databases. Ages are compared, because the numbers of transactions wrap around. What was deleted shows by what was written
-- with it.
WITH since AS (SELECT age((:marker::bigint & 4294967295)::text::xid) AS age)
SELECT t.id, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS marker FROM (
    SELECT NULL::text AS id
    UNION SELECT id FROM invoices, since WHERE age(invoices.xmin) <= since.age
    UNION SELECT invoice_id FROM payment_options, since WHERE age(payment_options.xmin) <= since.age
    UNION SELECT o.invoice_id FROM since, quotes AS q JOIN payment_options AS o ON o.id = q.option_id WHERE age(q.xmin) <= since.age
    UNION SELECT invoice_id FROM requotes, since WHERE age(requotes.xmin) <= since.age
    UNION SELECT invoice_id FROM addresses, since WHERE age(addresses.xmin) <= since.age
    UNION SELECT invoice_id FROM transitions, since WHERE age(transitions.xmin) <= since.age
    UNION SELECT invoice_id FROM wakeups, since WHERE age(wakeups.xmin) <= since.age
    UNION SELECT invoice_id FROM payments, since WHERE age(payments.xmin) <= since.age
    UNION SELECT invoice_id FROM transfers, since WHERE age(transfers.xmin) <= since.age
    UNION SELECT invoice_id FROM exceptions, since WHERE age(exceptions.xmin) <= since.age AND invoice_id IS NOT NULL
    UNION SELECT invoice_id FROM decisions, since WHERE age(decisions.xmin) <= since.age
    UNION SELECT invoice_id FROM refunds, since WHERE age(refunds.xmin) <= since.age
    UNION SELECT r.invoice_id FROM since, refund_transitions AS h JOIN refunds AS r ON r.id = h.refund_id WHERE age(h.xmin) <= since.age
    UNION SELECT invoice_id FROM refund_transfers, since WHERE age(refund_transfers.xmin) <= since.age
    UNION SELECT invoice_id FROM ledger_entries, since WHERE age(ledger_entries.xmin) <= since.age AND invoice_id IS NOT NULL
    UNION SELECT invoice_id FROM balance_checks, since WHERE age(balance_checks.xmin) <= since.age
    UNION SELECT t.invoice_id FROM since, sightings AS s JOIN transfers AS t ON t.id = s.transfer_id WHERE age(s.xmin) <= since.age
    UNION SELECT t.invoice_id FROM since, (
            SELECT transfer_id, network, block_hash, xmin AS written FROM anchors
            UNION ALL SELECT transfer_id, network, block_hash, xmin FROM conflicts) AS p
        JOIN blocks AS b ON b.network = p.network AND b.hash = p.block_hash JOIN transfers AS t ON t.id = p.transfer_id
        WHERE LEAST(age(p.written), age(b.xmin)) <= since.age
    UNION SELECT t.invoice_id FROM since, refund_anchors AS p
        JOIN blocks AS b ON b.network = p.network AND b.hash = p.block_hash JOIN refund_transfers AS t ON t.id = p.transfer_id
        WHERE LEAST(age(p.xmin), age(b.xmin)) <= since.age
    UNION SELECT coalesce(i.id, p.invoice_id, r.invoice_id, x.invoice_id) FROM since, events AS e
        LEFT JOIN invoices AS i ON i.id = e.object_id LEFT JOIN payments AS p ON p.id = e.object_id
        LEFT JOIN refunds AS r ON r.id = e.object_id LEFT JOIN exceptions AS x ON x.id = e.object_id
        WHERE age(e.xmin) <= since.age
) AS t ORDER BY t.id;
