-- Events and their deliveries, written in the transaction of what they tell.

-- name: insert_events!
-- New events. `body` is kept byte for byte: it is what gets signed.
INSERT INTO events (id, merchant_id, type, object_id, sequence, body, created_at)
SELECT g.id, g.merchant_id, g.type, g.object_id, g.sequence, g.body::json, :at
FROM unnest(:ids::text[], :merchant_ids::text[], :types::text[], :object_ids::text[], :sequences::int[], :bodies::text[])
    AS g(id, merchant_id, type, object_id, sequence, body);

-- name: enabled_endpoints
-- Where events of these merchants may have to go.
SELECT id, merchant_id, events FROM webhook_endpoints
WHERE merchant_id = ANY(:merchant_ids::text[]) AND deleted_at IS NULL AND status = 'enabled'
ORDER BY id;

-- name: insert_deliveries!
-- One delivery for each event and endpoint, due at once. Deliverers are told when it is committed.
INSERT INTO deliveries (id, event_id, endpoint_id, merchant_id, status, next_attempt_at, created_at, updated_at)
SELECT g.id, g.event_id, g.endpoint_id, g.merchant_id, 'pending', :at, :at, :at
FROM unnest(:ids::text[], :event_ids::text[], :endpoint_ids::text[], :merchant_ids::text[])
    AS g(id, event_id, endpoint_id, merchant_id)
ON CONFLICT (event_id, endpoint_id) DO NOTHING
RETURNING pg_notify(:channel, '');

-- name: notify
-- Tell listeners of this database, when the transaction commits. Equal messages of one transaction arrive once.
SELECT pg_notify(g.channel, g.payload) FROM unnest(:channels::text[], :payloads::text[]) AS g(channel, payload);
