-- Merchants and the keys that speak for them.

-- name: insert_merchant!
-- A new merchant.
INSERT INTO merchants (id, name, created_at) VALUES (:id, :name, :created_at);

-- name: merchant_name$
-- What a merchant is called.
SELECT name FROM merchants WHERE id = :id;

-- name: insert_key!
-- A new key: only its hash is kept.
INSERT INTO api_keys (id, merchant_id, name, key_hash, scopes, created_at)
VALUES (:id, :merchant_id, :name, :key_hash, :scopes, :created_at);

-- name: key_by_hash^
-- The key in force that has this hash, and whose it is.
SELECT k.id, k.merchant_id, m.name AS merchant_name, k.scopes
FROM api_keys k JOIN merchants m ON m.id = k.merchant_id
WHERE k.key_hash = :key_hash AND k.revoked_at IS NULL;
