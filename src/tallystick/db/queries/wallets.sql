-- Wallets: account public keys, and the counters of issued children.

-- name: ensure_counter!
-- The counter of a key, shared by every wallet of that key; silently there already.
INSERT INTO key_counters (key_fingerprint) VALUES (:key_fingerprint) ON CONFLICT DO NOTHING;

-- name: insert_wallet!
-- A wallet; no row when this merchant registered the key before.
INSERT INTO wallets (id, merchant_id, family, account_key, key_fingerprint, label, created_at)
VALUES (:id, :merchant_id, :family, :account_key, :key_fingerprint, :label, :created_at)
ON CONFLICT (merchant_id, key_fingerprint) DO NOTHING;

-- name: get_wallet^
-- One wallet of a merchant, with its counter.
SELECT w.id, w.family, w.account_key, w.key_fingerprint, w.label, w.created_at, c.next_index
FROM wallets w JOIN key_counters c USING (key_fingerprint)
WHERE w.merchant_id = :merchant_id AND w.id = :id;

-- name: list_wallets
-- A merchant's wallets, newest first, below the cursor.
SELECT w.id, w.family, w.account_key, w.key_fingerprint, w.label, w.created_at, c.next_index
FROM wallets w JOIN key_counters c USING (key_fingerprint)
WHERE w.merchant_id = :merchant_id AND (:below::text IS NULL OR w.id < :below)
ORDER BY w.id DESC
LIMIT :count_max;

-- name: paid_gap$
-- The widest step between neighbouring children of a key that hold money, counting the beginning and the next child as if
-- they did. All wallets of the key count: the owner's software scans the key, not the merchant.
WITH marks AS (
    SELECT DISTINCT a.derivation_index AS position
    FROM wallets w
    JOIN addresses a ON a.wallet_id = w.id
    JOIN payments p ON p.invoice_id = a.invoice_id AND p.option_id = a.option_id
    WHERE w.key_fingerprint = :key_fingerprint AND p.status IN ('confirming', 'confirmed')
    UNION SELECT -1
    UNION SELECT next_index FROM key_counters WHERE key_fingerprint = :key_fingerprint
),
steps AS (SELECT position - lag(position) OVER (ORDER BY position) AS width FROM marks)
SELECT max(width) FROM steps;
