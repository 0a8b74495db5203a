-- Exceptions: opened and closed by the one writer, resolved by people.

-- name: of_invoices
-- Every exception of these invoices, the latest of each kind last, locked against people who resolve them meanwhile.
SELECT * FROM exceptions WHERE invoice_id = ANY(:ids::text[]) ORDER BY id FOR UPDATE;

-- name: open_subject
-- The open exceptions of a kind about something that is no invoice: a network has one with each merchant it matters to.
SELECT id FROM exceptions
WHERE kind = :kind AND invoice_id IS NULL AND subject = :subject AND status = 'open'
  AND (:merchant_id::text IS NULL OR merchant_id = :merchant_id)
ORDER BY id
FOR UPDATE;

-- name: merchants_on_network
-- Merchants to whom a network matters: those with a wallet of its family. Whoever issued an address there has one.
SELECT DISTINCT w.merchant_id
FROM wallets AS w JOIN networks AS n ON n.family = w.family
WHERE n.name = :network
ORDER BY w.merchant_id
LIMIT :row_count;

-- name: lock_exception
-- One exception of a merchant, locked against the one writer and other people.
SELECT * FROM exceptions WHERE id = :id AND merchant_id = :merchant_id FOR UPDATE;

-- name: read_exception
-- The same without a lock: what it is about never changes.
SELECT * FROM exceptions WHERE id = :id AND merchant_id = :merchant_id;

-- name: insert_exceptions
-- New cases that differ in the merchant only. One of a kind and subject is open at a time: a second opener gets none.
INSERT INTO exceptions (id, merchant_id, kind, invoice_id, subject, transfer_ids, owner, status, detail, event_sequence,
    opened_at)
SELECT g.id, g.merchant_id, :kind, :invoice_id, :subject, :transfer_ids, :owner, 'open', :detail::text::jsonb, 1, :at
FROM unnest(:ids::text[], :merchant_ids::text[]) AS g(id, merchant_id)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: extend_exception!
-- More transfers belong to an open case.
UPDATE exceptions SET transfer_ids = :transfer_ids, detail = :detail::text::jsonb WHERE id = :id AND status = 'open';

-- name: resolve_exception!
-- Close an open case, once.
UPDATE exceptions
SET status = 'resolved', resolution = :resolution::text::jsonb, resolved_at = :at, event_sequence = event_sequence + 1
WHERE id = :id AND status = 'open';

-- name: add_outcome!
-- What came of a resolution, once it is known, in the same transaction.
UPDATE exceptions SET resolution = resolution || :outcome::text::jsonb WHERE id = :id AND status = 'resolved';

-- name: assign_exception!
-- Give an open case to somebody. Of the history only the latest hundred are kept.
UPDATE exceptions
SET owner = :owner,
    assignments = CASE WHEN jsonb_array_length(assignments) >= 100 THEN assignments - 0 ELSE assignments END
        || jsonb_build_array(:assignment::text::jsonb)
WHERE id = :id AND status = 'open';

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
