-- What people decided about invoices, and the one thing a decision may change about a fact: to which invoice it counts.

-- name: insert_decision$
-- A decision, its number in the order they came. Never changed, never removed.
INSERT INTO decisions (invoice_id, merchant_id, kind, transfer_ids, value, note, evidence, exception_id, actor_type,
    actor_id, at)
VALUES (:invoice_id, :merchant_id, :kind, :transfer_ids, :value, :note, :evidence::text::jsonb, :exception_id,
    :actor_type, :actor_id, :at)
RETURNING id;

-- name: decisions_of
-- Everything that was decided about an invoice, in order.
SELECT * FROM decisions WHERE invoice_id = :invoice_id ORDER BY id;

-- name: move_transfers!
-- Transfers that came for one invoice count to another of the same merchant from now on. Where they came stays to be
-- seen: the address they went to is the old invoice's, and both invoices have a decision that names them.
UPDATE transfers AS t SET invoice_id = :to_invoice_id, option_id = g.option_id
FROM unnest(:transfer_ids::text[], :option_ids::text[]) AS g(transfer_id, option_id)
WHERE t.id = g.transfer_id AND t.invoice_id = :from_invoice_id AND t.merchant_id = :merchant_id;

-- name: move_payments!
-- Their payments with them; how each fits what the other invoice asked may differ.
UPDATE payments AS p SET invoice_id = :to_invoice_id, option_id = g.option_id, match = g.match, updated_at = :at
FROM unnest(:transfer_ids::text[], :option_ids::text[], :matches::text[]) AS g(transfer_id, option_id, match)
WHERE p.transfer_id = g.transfer_id AND p.invoice_id = :from_invoice_id AND p.merchant_id = :merchant_id;
