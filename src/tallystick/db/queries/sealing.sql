-- The log of transitions: chained by hashes, one log a merchant, so that later editing shows.

-- name: seal
-- Put these transitions at the end of their merchants' logs. The last statement of a transaction: it takes the last locks.
SELECT seal_transitions(:invoice_ids::text[], :sequences::int[]);
