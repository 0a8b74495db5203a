-- Exceptions: opened and closed by the one writer, resolved by people.

-- name: of_invoices
-- Every exception of these invoices, the latest of each kind last, locked against people who resolve them meanwhile.
SELECT * FROM exceptions WHERE invoice_id = ANY(:ids::text[]) ORDER BY id FOR UPDATE;

-- name: open_subject
-- The open exception of a kind about something that is no invoice.
SELECT * FROM exceptions
WHERE merchant_id = :merchant_id AND kind = :kind AND invoice_id IS NULL AND subject = :subject AND status = 'open'
FOR UPDATE;

-- name: insert_exception!
-- A new case. One of a kind and subject is open at a time: a second opener changes nothing.
INSERT INTO exceptions (id, merchant_id, kind, invoice_id, subject, transfer_ids, owner, status, detail, event_sequence,
    opened_at)
VALUES (:id, :merchant_id, :kind, :invoice_id, :subject, :transfer_ids, :owner, 'open', :detail::text::jsonb, 1, :at)
ON CONFLICT DO NOTHING;

-- name: extend_exception!
-- More transfers belong to an open case.
UPDATE exceptions SET transfer_ids = :transfer_ids, detail = :detail::text::jsonb WHERE id = :id AND status = 'open';

-- name: resolve_exception!
-- Close an open case, once.
UPDATE exceptions
SET status = 'resolved', resolution = :resolution::text::jsonb, resolved_at = :at, event_sequence = event_sequence + 1
WHERE id = :id AND status = 'open';

-- name: assign_exception!
-- Give an open case to somebody.
UPDATE exceptions SET owner = :owner WHERE id = :id AND status = 'open';

-- name: read_exceptions
-- Exceptions by id, each with the payments of its transfers and the order of its invoice.
SELECT x.*, i.order_id,
    ARRAY(SELECT p.id FROM payments AS p WHERE p.transfer_id = ANY(x.transfer_ids) ORDER BY p.id) AS payment_ids
FROM exceptions AS x LEFT JOIN invoices AS i ON i.id = x.invoice_id
WHERE x.id = ANY(:ids::text[])
ORDER BY x.id;

-- name: list_ids
-- Ids of a merchant's exceptions, oldest first: who waits longest comes first.
SELECT x.id FROM exceptions AS x
WHERE x.merchant_id = :merchant_id
  AND (:after_id::text IS NULL OR x.id > :after_id)
  AND (:status::text IS NULL OR x.status = :status)
  AND (:kind::text IS NULL OR x.kind = :kind)
  AND (:invoice_id::text IS NULL OR x.invoice_id = :invoice_id)
ORDER BY x.id
LIMIT :row_count;
