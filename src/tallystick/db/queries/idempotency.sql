-- Answers kept so that a repeated request has one effect.

-- name: try_lock$
-- Take the lock of one key until the end of the transaction, or answer false at once.
SELECT pg_try_advisory_xact_lock(:lock);

-- name: find^
-- The answer stored under a key.
SELECT request_hash, response_status, response_body
FROM idempotency_keys
WHERE merchant_id = :merchant_id AND key = :key;

-- name: store!
-- Keep the answer, in the transaction of the effect.
INSERT INTO idempotency_keys (merchant_id, key, request_hash, response_status, response_body, created_at)
VALUES (:merchant_id, :key, :request_hash, :response_status, :response_body, :created_at);

-- name: remove_old!
-- Forget a bounded number of answers from before a time.
DELETE FROM idempotency_keys
WHERE (merchant_id, key) IN
    (SELECT merchant_id, key FROM idempotency_keys WHERE created_at < :before ORDER BY created_at LIMIT :count_max);
