-- What operators ask across merchants, from the machine that holds the data: the command line, doctor.

-- name: merchant_of_invoice$
-- Whose invoice this is.
SELECT merchant_id FROM invoices WHERE id = :id;

-- name: merchants_of_transaction
-- Whose invoices or refunds a transaction paid.
SELECT merchant_id FROM transfers WHERE tx_hash = :tx_hash
UNION
SELECT r.merchant_id FROM refund_transfers AS t JOIN refunds AS r ON r.id = t.refund_id WHERE t.tx_hash = :tx_hash
ORDER BY merchant_id;

-- name: merchant_of_exception$
-- Whose exception this is.
SELECT merchant_id FROM exceptions WHERE id = :id;

-- name: exception_ids
-- Exceptions of every merchant or of one, oldest first: who waits longest comes first.
SELECT x.id FROM exceptions AS x
WHERE (:merchant_id::text IS NULL OR x.merchant_id = :merchant_id)
  AND (:status::text IS NULL OR x.status = :status)
  AND (:kind::text IS NULL OR x.kind = :kind)
  AND (:invoice_id::text IS NULL OR x.invoice_id = :invoice_id)
ORDER BY x.id
LIMIT :row_count;

-- name: database_state^
-- For doctor: the server's version, its clock, and whether our tables are there.
SELECT current_setting('server_version') AS version, clock_timestamp() AS clock,
       to_regclass('alembic_version') IS NOT NULL AS migrated;

-- name: schema_revision$
-- Which migration the database has.
SELECT version_num FROM alembic_version;

-- name: network_state^
-- Which chain a network was at first contact, and how far it is.
SELECT chain, genesis_hash, cursor_height, status, problem FROM networks WHERE name = :name;
