-- The ledger: entries and their postings only grow. An entry is in force as long as no other one reverses it.

-- name: in_force
-- The entries in force of these kinds that stand for these subjects, one row a posting.
SELECT e.id, e.kind, e.subject, e.merchant_id, e.invoice_id, e.payment_id, e.refund_id, e.note,
    p.account, p.asset, p.network, p.contract, p.decimals, p.amount
FROM ledger_entries AS e JOIN postings AS p ON p.entry_id = e.id
WHERE e.subject = ANY(:subjects::text[]) AND e.kind = ANY(:kinds::text[]) AND e.reverses IS NULL
  AND NOT EXISTS (SELECT 1 FROM ledger_entries AS r WHERE r.reverses = e.id)
ORDER BY e.id, p.position;

-- name: insert_entries!
-- New entries with their postings, in one statement, so that neither is ever there without the other.
WITH booked AS (
    INSERT INTO ledger_entries (id, merchant_id, kind, subject, invoice_id, payment_id, refund_id, settlement_id, sequence,
        reverses, note, at)
    SELECT g.id, g.merchant_id, g.kind, g.subject, g.invoice_id, g.payment_id, g.refund_id, g.settlement_id, g.sequence,
        g.reverses, g.note, :at
    FROM unnest(:ids::text[], :merchant_ids::text[], :kinds::text[], :subjects::text[], :invoice_ids::text[],
        :payment_ids::text[], :refund_ids::text[], :settlement_ids::text[], :sequences::int[], :reversed_ids::text[],
        :notes::text[])
        AS g(id, merchant_id, kind, subject, invoice_id, payment_id, refund_id, settlement_id, sequence, reverses, note)
)
INSERT INTO postings (entry_id, position, merchant_id, account, asset, network, contract, decimals, amount)
SELECT g.entry_id, g.position, g.merchant_id, g.account, g.asset, g.network, g.contract, g.decimals, g.amount
FROM unnest(:entry_ids::text[], :positions::smallint[], :posting_merchants::text[], :accounts::text[], :assets::text[],
    :networks::text[], :contracts::text[], :decimals::smallint[], :amounts::numeric[])
    AS g(entry_id, position, merchant_id, account, asset, network, contract, decimals, amount);

-- name: balances
-- The sum of a merchant's postings by account and denomination.
SELECT p.account, p.asset, p.network, p.contract, p.decimals, sum(p.amount)::numeric AS balance
FROM postings AS p
WHERE p.merchant_id = :merchant_id
  AND (:asset::text IS NULL OR p.asset = :asset)
  AND (:network::text IS NULL OR p.network = :network)
GROUP BY p.account, p.asset, p.network, p.contract, p.decimals
ORDER BY p.network, p.contract, p.asset, p.account;

-- name: list_entry_ids
-- Ids of a merchant's entries, newest first, by any of the published filters.
SELECT e.id FROM ledger_entries AS e
WHERE e.merchant_id = :merchant_id
  AND (:before_id::text IS NULL OR e.id < :before_id)
  AND (:invoice_id::text IS NULL OR e.invoice_id = :invoice_id)
  AND (:payment_id::text IS NULL OR e.payment_id = :payment_id)
  AND (:refund_id::text IS NULL OR e.refund_id = :refund_id)
  AND (:account::text IS NULL OR EXISTS (
      SELECT 1 FROM postings AS p WHERE p.entry_id = e.id AND p.account = :account))
ORDER BY e.id DESC
LIMIT :row_count;

-- name: read_entries
-- Entries by id, newest first, one row a posting, each with the entry that takes it back.
SELECT e.*, r.id AS reversed_by, p.account, p.asset, p.network, p.contract, p.decimals, p.amount
FROM ledger_entries AS e JOIN postings AS p ON p.entry_id = e.id
LEFT JOIN ledger_entries AS r ON r.reverses = e.id
WHERE e.id = ANY(:ids::text[])
ORDER BY e.id DESC, p.position;

-- name: ids_of_invoices
-- Ids of every entry about these invoices, oldest first.
SELECT e.id FROM ledger_entries AS e WHERE e.invoice_id = ANY(:invoice_ids::text[]) ORDER BY e.id;
