-- Merchants and the keys that speak for them.

-- name: insert_merchant!
-- A new merchant.
INSERT INTO merchants (id, name, created_at) VALUES (:id, :name, :created_at);

-- name: merchant_name$
-- What a merchant is called.
SELECT name FROM merchants WHERE id = :id;

-- name: merchant_settings^
-- What a merchant decided for all new invoices.
SELECT name, spread_bps, quote_seconds, grace_seconds, refund_second_person FROM merchants WHERE id = :id;

-- name: set_merchant_settings!
-- Change those that are given; NULL leaves one as it is.
UPDATE merchants
SET spread_bps = coalesce(:spread_bps, spread_bps), quote_seconds = coalesce(:quote_seconds, quote_seconds),
    grace_seconds = coalesce(:grace_seconds, grace_seconds),
    refund_second_person = coalesce(:refund_second_person, refund_second_person)
WHERE id = :id;

-- name: insert_key!
-- A new key: only its hash is kept.
INSERT INTO api_keys (id, merchant_id, name, key_hash, scopes, created_at)
VALUES (:id, :merchant_id, :name, :key_hash, :scopes, :created_at);

-- name: key_by_hash^
-- The key in force that has this hash.
SELECT id, merchant_id, scopes FROM api_keys WHERE key_hash = :key_hash AND revoked_at IS NULL;
