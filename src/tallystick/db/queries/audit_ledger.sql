-- What must hold about the books of invoices. Each statement is one rule, as in audit_invoices.sql.

-- name: entry_balance
-- The postings of a ledger entry sum to zero in each denomination.
SELECT e.id AS object_id, format('%s of %s are left', sum(p.amount), p.asset) AS detail
FROM ledger_entries AS e JOIN postings AS p ON p.entry_id = e.id
WHERE e.invoice_id = ANY(:ids::text[]) GROUP BY e.id, p.network, p.contract, p.asset HAVING sum(p.amount) <> 0;

-- name: entry_postings
-- A ledger entry has two postings or more, numbered without gaps.
SELECT e.id AS object_id, format('it has %s, numbered to %s', f.lines, f.last) AS detail
FROM ledger_entries AS e, LATERAL (
    SELECT count(*) AS lines, coalesce(max(p.position), 0) AS last FROM postings AS p WHERE p.entry_id = e.id) AS f
WHERE e.invoice_id = ANY(:ids::text[]) AND (f.lines < 2 OR f.lines <> f.last);

-- name: entry_once
-- One ledger entry of a subject is in force at a time.
SELECT e.subject AS object_id, format('%s entries of kind %s are in force', count(*), e.kind) AS detail
FROM ledger_entries AS s JOIN ledger_entries AS e ON e.subject = s.subject AND e.kind = s.kind
WHERE s.invoice_id = ANY(:ids::text[]) AND e.reverses IS NULL
  AND NOT EXISTS (SELECT 1 FROM ledger_entries AS r WHERE r.reverses = e.id)
GROUP BY e.subject, e.kind HAVING count(DISTINCT e.id) > 1;

-- name: entry_opposite
-- A reversing entry is the exact opposite of the one it takes back, which is not a reversing one itself.
SELECT r.id AS object_id, format('it is not the opposite of %s', e.id) AS detail
FROM ledger_entries AS r JOIN ledger_entries AS e ON e.id = r.reverses
WHERE r.invoice_id = ANY(:ids::text[]) AND (
    (r.kind, r.subject, r.merchant_id) IS DISTINCT FROM (e.kind, e.subject, e.merchant_id) OR e.reverses IS NOT NULL OR EXISTS (
        SELECT 1 FROM (SELECT account, network, contract, asset, decimals, amount FROM postings WHERE entry_id = r.id
                       UNION ALL
                       SELECT account, network, contract, asset, decimals, amount FROM postings WHERE entry_id = e.id) AS p
        GROUP BY account, network, contract, asset, decimals HAVING sum(amount) <> 0));

-- name: entry_account
-- Accounts that facts of a chain move are counted in assets; claims, and losses of them, in currencies.
SELECT e.id AS object_id, format('%s in %s', p.account, p.asset) AS detail
FROM ledger_entries AS e JOIN postings AS p ON p.entry_id = e.id
WHERE e.invoice_id = ANY(:ids::text[]) AND (p.network = '') <> (p.account IN ('receivable', 'expected')) AND p.account <> 'losses';

-- name: entry_subject
-- A ledger entry stands for what it names: a payment, an invoice or a refund of its own merchant and invoice.
SELECT e.id AS object_id, format('a %s of %s about %s', e.kind, e.merchant_id, e.subject) AS detail
FROM ledger_entries AS e JOIN invoices AS i ON i.id = e.invoice_id
LEFT JOIN payments AS p ON p.id = e.payment_id LEFT JOIN refunds AS r ON r.id = e.refund_id
WHERE e.invoice_id = ANY(:ids::text[]) AND (
    e.merchant_id <> i.merchant_id
    OR coalesce(p.merchant_id, i.merchant_id) <> i.merchant_id OR coalesce(r.invoice_id, i.id) <> i.id
    OR e.subject IS DISTINCT FROM CASE e.kind WHEN 'receipt' THEN e.payment_id WHEN 'position' THEN e.invoice_id
                                              WHEN 'refund_sent' THEN e.refund_id ELSE e.subject END
    OR EXISTS (SELECT 1 FROM postings AS l WHERE l.entry_id = e.id AND l.merchant_id <> e.merchant_id));
