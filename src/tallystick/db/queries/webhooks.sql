-- Webhook endpoints, the event stream, and deliveries with their attempts.

-- name: lock_merchant
-- Serialises the creation of endpoints of one merchant, so that the limit holds.
SELECT id FROM merchants WHERE id = :merchant_id FOR NO KEY UPDATE;

-- name: count_endpoints
-- How many endpoints the merchant has, enabled or not.
SELECT count(*) AS count FROM webhook_endpoints WHERE merchant_id = :merchant_id AND deleted_at IS NULL;

-- name: insert_endpoint!
-- A new endpoint, enabled.
INSERT INTO webhook_endpoints (id, merchant_id, url, events, description, status, secret, created_at)
VALUES (:id, :merchant_id, :url, :events::text[], :description, 'enabled', :secret, :at);

-- name: endpoints
-- The merchant's endpoints, newest first, below a cursor if one is given.
SELECT id, merchant_id, url, events, description, status, disabled_reason, failing_since, created_at
FROM webhook_endpoints
WHERE merchant_id = :merchant_id AND deleted_at IS NULL AND (:before::text IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit;

-- name: endpoint
-- One endpoint.
SELECT id, merchant_id, url, events, description, status, disabled_reason, failing_since, created_at
FROM webhook_endpoints
WHERE id = :id AND merchant_id = :merchant_id AND deleted_at IS NULL;

-- name: lock_endpoint
-- The same, locked: changes to one endpoint follow one another.
SELECT id, merchant_id, url, events, description, status, disabled_reason, failing_since, created_at, secret
FROM webhook_endpoints
WHERE id = :id AND merchant_id = :merchant_id AND deleted_at IS NULL
FOR NO KEY UPDATE;

-- name: update_endpoint!
-- Everything its owner can change, and what follows from enabling or disabling it.
UPDATE webhook_endpoints
SET url = :url, events = :events::text[], description = :description, status = :status,
    disabled_reason = :disabled_reason, failing_since = :failing_since
WHERE id = :id;

-- name: rotate_secret!
-- A new secret; the one it replaces signs as well until the given time.
UPDATE webhook_endpoints
SET previous_secret = secret, previous_secret_until = :until, secret = :secret
WHERE id = :id;

-- name: delete_endpoint!
-- Kept for its delivery history, without its secrets.
UPDATE webhook_endpoints
SET deleted_at = :at, status = 'disabled', disabled_reason = 'Deleted by its owner.',
    secret = '', previous_secret = NULL, previous_secret_until = NULL
WHERE id = :id;

-- name: last_sequence
-- The number of the last event about an object, 0 if there is none.
SELECT coalesce(max(sequence), 0) AS sequence FROM events WHERE object_id = :object_id;

-- name: event
-- One event.
SELECT id, type, body::text AS body FROM events WHERE id = :id AND merchant_id = :merchant_id;

-- name: events_newest_first
-- The merchant's events in the order they were written, newest first. Ids of one millisecond have no order.
SELECT id, type, body::text AS body FROM events
WHERE merchant_id = :merchant_id
  AND (:before::text IS NULL
       OR position < (SELECT b.position FROM events AS b WHERE b.id = :before AND b.merchant_id = :merchant_id))
  AND (:type::text IS NULL OR type = :type)
  AND (:object_id::text IS NULL OR object_id = :object_id)
ORDER BY position DESC LIMIT :limit;

-- name: events_after
-- The stream after one event, oldest first. Only events of transactions older than every open one: an event that
-- commits later can then never stand before one that was already read. The position is read by two scalar
-- sub-queries so that the comparison can use the index.
SELECT id, type, body::text AS body FROM events
WHERE merchant_id = :merchant_id
  AND (written_by, position) > ((SELECT a.written_by FROM events AS a WHERE a.id = :after AND a.merchant_id = :merchant_id),
                                (SELECT a.position FROM events AS a WHERE a.id = :after AND a.merchant_id = :merchant_id))
  AND written_by < pg_snapshot_xmin(pg_current_snapshot())
  AND (:type::text IS NULL OR type = :type)
  AND (:object_id::text IS NULL OR object_id = :object_id)
ORDER BY written_by, position LIMIT :limit;

-- name: deliveries_of
-- Every delivery of one event with its latest attempts, oldest first; a delivery without attempts is one row without
-- one. A delivery sent again and again has a long history. One statement, so that both parts are of one moment.
SELECT d.id, d.event_id, d.endpoint_id, d.status, d.next_attempt_at, d.created_at,
       t.number, t.at, t.status_code, t.duration_ms, t.error
FROM deliveries AS d
LEFT JOIN LATERAL (
    SELECT * FROM delivery_attempts AS a WHERE a.delivery_id = d.id ORDER BY a.number DESC LIMIT :attempts_max
) AS t ON true
WHERE d.event_id = :event_id AND d.merchant_id = :merchant_id
ORDER BY d.id, t.number;

-- name: redelivery_targets
-- Endpoints that an event can be sent to again: enabled ones that want its type or were sent it before. A ping
-- concerns only the endpoint it was made for. With `endpoint_id` that one only, wanted or not.
SELECT e.id FROM webhook_endpoints AS e
LEFT JOIN deliveries AS d ON d.endpoint_id = e.id AND d.event_id = :event_id
WHERE e.merchant_id = :merchant_id AND e.deleted_at IS NULL AND e.status = 'enabled'
  AND CASE WHEN :endpoint_id::text IS NOT NULL THEN e.id = :endpoint_id
           WHEN d.id IS NOT NULL THEN true
           ELSE :type::text <> 'webhook.ping' AND e.events && ARRAY['*', :type::text] END
ORDER BY e.id;

-- name: redeliver!
-- A finished delivery becomes due at once and its schedule starts again. One that waits for a later retry is brought
-- forward; one that is due within the lease is left alone, because it may be on its way right now.
INSERT INTO deliveries AS d (id, event_id, endpoint_id, merchant_id, status, next_attempt_at, created_at, updated_at)
SELECT g.id, :event_id, g.endpoint_id, :merchant_id, 'pending', :at, :at, :at
FROM unnest(:ids::text[], :endpoint_ids::text[]) AS g(id, endpoint_id)
ORDER BY g.endpoint_id
ON CONFLICT (event_id, endpoint_id) DO UPDATE
SET status = 'pending', next_attempt_at = excluded.next_attempt_at, attempts_made = 0, updated_at = excluded.updated_at
WHERE d.status <> 'pending' OR d.next_attempt_at > :leased_until;

-- name: claim
-- Take due deliveries for one deliverer: at most `room` for an endpoint, `limit` altogether, rows locked by another
-- deliverer skipped. `next_attempt_at` becomes the end of the lease. The walk goes from endpoint to endpoint through
-- the index of what is due, beginning after the endpoint `after`, and stops when `limit` rows are found: neither a large
-- backlog of one endpoint nor the number of endpoints without work costs anything. `rooms` overrides the room of the
-- endpoints that are busy with this deliverer. Endpoints whose last attempt failed are claimed for apart (`failing`).
WITH RECURSIVE waiting (endpoint_id) AS (
    (SELECT d.endpoint_id FROM deliveries AS d
     WHERE d.status = 'pending' AND d.endpoint_id > :after ORDER BY d.endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.endpoint_id FROM deliveries AS d
            WHERE d.status = 'pending' AND d.endpoint_id > w.endpoint_id ORDER BY d.endpoint_id LIMIT 1)
    FROM waiting AS w WHERE w.endpoint_id IS NOT NULL
),
due AS (
    SELECT one.id
    FROM waiting AS w
    CROSS JOIN LATERAL (
        SELECT e.id, coalesce(
            (SELECT b.room FROM unnest(:busy::text[], :rooms::int[]) AS b(endpoint_id, room) WHERE b.endpoint_id = e.id),
            :room::int) AS room
        FROM webhook_endpoints AS e
        WHERE e.id = w.endpoint_id AND e.status = 'enabled' AND e.deleted_at IS NULL
          AND (e.failing_since IS NOT NULL) = :failing::boolean
        OFFSET 0
    ) AS target
    CROSS JOIN LATERAL (
        SELECT d.id FROM deliveries AS d
        WHERE d.endpoint_id = target.id AND d.status = 'pending' AND d.next_attempt_at <= :now
        ORDER BY d.next_attempt_at LIMIT target.room
        FOR UPDATE OF d SKIP LOCKED
    ) AS one
    LIMIT :limit
),
taken AS (
    UPDATE deliveries AS d SET next_attempt_at = :leased_until, updated_at = :now
    WHERE d.id = ANY(ARRAY(SELECT id FROM due))
    RETURNING d.id, d.event_id, d.endpoint_id, d.attempts_made
)
SELECT t.id, t.event_id, t.endpoint_id, t.attempts_made, v.body::text AS body,
       e.url, e.secret,
       CASE WHEN e.previous_secret_until > :now THEN e.previous_secret END AS previous_secret
FROM taken AS t
JOIN events AS v ON v.id = t.event_id
JOIN webhook_endpoints AS e ON e.id = t.endpoint_id
ORDER BY t.endpoint_id, t.id;

-- name: lock_endpoints
-- The endpoints that a batch of outcomes is about, locked in the order of their ids.
SELECT id, failing_since FROM webhook_endpoints WHERE id = ANY(:ids::text[]) ORDER BY id FOR NO KEY UPDATE;

-- name: record_outcomes
-- Write what came of the attempts, where the delivery is still as it was claimed: pending, at the same place of its
-- schedule, under the same lease. Whoever claimed it later has another lease, so nobody records twice, also where both
-- outcomes are told at once.
WITH outcome AS (
    SELECT * FROM unnest(:ids::text[], :attempts_made::int[], :leases::timestamptz[], :statuses::text[],
                         :retries::timestamptz[], :begun::timestamptz[], :codes::int[], :durations::int[], :errors::text[])
        AS o(id, attempts_made, lease, status, retry_at, begun_at, code, duration_ms, error)
),
changed AS (
    UPDATE deliveries AS d
    SET status = o.status, attempts_made = d.attempts_made + 1, next_attempt_at = o.retry_at, updated_at = :at
    FROM outcome AS o
    WHERE d.id = o.id AND d.status = 'pending' AND d.attempts_made = o.attempts_made AND d.next_attempt_at = o.lease
    RETURNING d.id, o.begun_at, o.code, o.duration_ms, o.error
)
INSERT INTO delivery_attempts (delivery_id, number, at, status_code, duration_ms, error)
SELECT c.id, 1 + coalesce((SELECT max(a.number) FROM delivery_attempts AS a WHERE a.delivery_id = c.id), 0),
       c.begun_at, c.code, c.duration_ms, c.error
FROM changed AS c
RETURNING delivery_id;

-- name: set_failing!
-- When an endpoint began to fail, or that it works again.
UPDATE webhook_endpoints AS e SET failing_since = g.failing_since
FROM unnest(:ids::text[], :failing_since::timestamptz[]) AS g(id, failing_since)
WHERE e.id = g.id AND e.failing_since IS DISTINCT FROM g.failing_since;

-- name: disable_endpoint$
-- By the system: gone, or failing for too long. Answers whose it is.
UPDATE webhook_endpoints SET status = 'disabled', disabled_reason = :reason
WHERE id = :id AND status = 'enabled' AND deleted_at IS NULL
RETURNING merchant_id;

-- name: release!
-- Give claimed deliveries back that were not attempted to the end, so that nobody waits for the lease.
UPDATE deliveries AS d SET next_attempt_at = :at, updated_at = :at
FROM unnest(:ids::text[], :leases::timestamptz[]) AS g(id, lease)
WHERE d.id = g.id AND d.status = 'pending' AND d.next_attempt_at = g.lease;

-- name: fail_undeliverable!
-- What is due for an endpoint that is disabled or deleted will not be sent: it fails, and can be sent again by hand.
UPDATE deliveries AS d SET status = 'failed', next_attempt_at = NULL, updated_at = :now
WHERE d.id = ANY(ARRAY(
    SELECT one.id
    FROM webhook_endpoints AS e
    CROSS JOIN LATERAL (
        SELECT p.id FROM deliveries AS p
        WHERE p.endpoint_id = e.id AND p.status = 'pending' AND p.next_attempt_at <= :now
        ORDER BY p.next_attempt_at LIMIT :limit
        FOR UPDATE OF p SKIP LOCKED
    ) AS one
    WHERE e.status = 'disabled' OR e.deleted_at IS NOT NULL
    LIMIT :limit
));

-- name: backlog
-- How many deliveries are pending (counted up to `count_max`) and when the most overdue one was due.
WITH RECURSIVE waiting (endpoint_id) AS (
    (SELECT d.endpoint_id FROM deliveries AS d WHERE d.status = 'pending' ORDER BY d.endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.endpoint_id FROM deliveries AS d
            WHERE d.status = 'pending' AND d.endpoint_id > w.endpoint_id ORDER BY d.endpoint_id LIMIT 1)
    FROM waiting AS w WHERE w.endpoint_id IS NOT NULL
)
SELECT (SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE status = 'pending' LIMIT :count_max) AS counted) AS pending,
       (SELECT min((SELECT min(d.next_attempt_at) FROM deliveries AS d
                    WHERE d.endpoint_id = w.endpoint_id AND d.status = 'pending'))
        FROM waiting AS w WHERE w.endpoint_id IS NOT NULL) AS oldest_due_at;
