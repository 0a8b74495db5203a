-- What operators ask across merchants, from the machine that holds the data: the command line, doctor, metrics.

-- name: merchant_of_invoice$
-- Whose invoice this is.
SELECT merchant_id FROM invoices WHERE id = :id;

-- name: merchants_of_transaction
-- Whose invoices a transaction paid.
SELECT DISTINCT merchant_id FROM transfers WHERE tx_hash = :tx_hash ORDER BY merchant_id;

-- name: delivery_backlog^
-- Deliveries that are not done, and since when the most overdue one is due.
SELECT count(*) AS pending, min(next_attempt_at) AS oldest_due FROM deliveries WHERE status = 'pending';

-- name: database_state^
-- For doctor: the server's version, its clock, and whether our tables are there.
SELECT current_setting('server_version') AS version, clock_timestamp() AS clock,
       to_regclass('alembic_version') IS NOT NULL AS migrated;

-- name: schema_revision$
-- Which migration the database has.
SELECT version_num FROM alembic_version;
