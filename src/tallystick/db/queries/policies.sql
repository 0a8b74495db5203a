-- Confirmation policies, version by version, and the operator's raises of what a network requires.

-- name: current_policy^
-- A merchant's rules in force: the newest version; no row where there never were any.
SELECT version, rules, actor_type, actor_id, created_at FROM confirmation_policies
WHERE merchant_id = :merchant_id
ORDER BY version DESC
LIMIT 1;

-- name: policy_of_version^
-- A merchant's rules as they were in a version.
SELECT version, rules, actor_type, actor_id, created_at FROM confirmation_policies
WHERE merchant_id = :merchant_id AND version = :version;

-- name: add_version!
-- The next version of a merchant's rules; no row when another writer has made that version.
INSERT INTO confirmation_policies (merchant_id, version, rules, actor_type, actor_id, created_at)
VALUES (:merchant_id, :version, :rules, :actor_type, :actor_id, :at)
ON CONFLICT DO NOTHING;

-- name: keep_raises_away
-- No operator's raise until the transaction ends; waits for one that is under way. Fair: whoever wants to raise is let in
-- before those who come later, which a lock on the network's row would not promise.
SELECT pg_advisory_xact_lock_shared(:space::int, 0);

-- name: begin_raise
-- One raise at a time, and no new invoice until the transaction ends; waits for those that are being made.
SELECT pg_advisory_xact_lock(:space::int, 0);

-- name: standing_raises
-- What operators require at present, by network.
SELECT network, confirmations, note FROM requirement_raises
WHERE lifted_at IS NULL AND network = ANY(:names::text[])
ORDER BY network;

-- name: network_names
-- Every network with a row, by name.
SELECT name FROM networks ORDER BY name;

-- name: lift_raise!
-- The raise that stands on a network ends, if one does.
UPDATE requirement_raises SET lifted_at = :at WHERE network = :network AND lifted_at IS NULL;

-- name: insert_raise!
-- A raise, with what it did when it was decided.
INSERT INTO requirement_raises (network, confirmations, note, actor_type, actor_id, options_raised, at)
VALUES (:network, :confirmations, :note, :actor_type, :actor_id, :options_raised, :at);

-- name: lock_open_below
-- The next open invoices with an option on the network that requires less, locked in the order of their ids.
SELECT i.id FROM invoices AS i
WHERE i.id > :after_id AND i.status = ANY(:statuses::text[])
  AND EXISTS (SELECT 1 FROM payment_options AS o
              WHERE o.invoice_id = i.id AND o.network = :network AND o.status <> 'expired'
                AND (o.zero_conf OR o.finality = 'depth' AND o.confirmations_required < :confirmations))
ORDER BY i.id
LIMIT :row_count
FOR NO KEY UPDATE OF i;

-- name: raise_options
-- Raise the options of these invoices that require less and of which nothing is confirmed yet. Never lowers. Answers
-- each, and whether a payment of it waits in a block: what its invoice waits for is then another height.
UPDATE payment_options AS o
SET confirmations_required = CASE WHEN o.finality = 'depth' THEN GREATEST(o.confirmations_required, :confirmations) END,
    zero_conf = false, zero_conf_accepts = '{}',
    policy_explanation = o.policy_explanation || ' ' || :words
WHERE o.invoice_id = ANY(:ids::text[]) AND o.network = :network AND o.status <> 'expired'
  AND (o.zero_conf OR o.finality = 'depth' AND o.confirmations_required < :confirmations)
  AND NOT EXISTS (SELECT 1 FROM payments AS p
                  WHERE p.invoice_id = o.invoice_id AND p.option_id = o.id AND p.status = 'confirmed')
RETURNING o.invoice_id,
    EXISTS (SELECT 1 FROM payments AS p
            WHERE p.invoice_id = o.invoice_id AND p.option_id = o.id AND p.status = 'confirming') AS is_waiting;
