-- For connections that listen.

-- name: ping
-- Whether a connection that only listens is still alive.
SELECT 1;
