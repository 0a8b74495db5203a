-- How far each network has been processed, and which blocks are its best chain.

-- name: sync_network!
-- A configured network has a row before anything refers to it.
INSERT INTO networks (name, family) VALUES (:name, :family) ON CONFLICT (name) DO NOTHING;

-- name: all_networks
-- Every network's row.
SELECT * FROM networks ORDER BY name;

-- name: waiting_elsewhere
-- How many invoices wait for each network that is not among these.
SELECT network, count(DISTINCT invoice_id) AS invoices
FROM wakeups
WHERE network <> '' AND network <> ALL(:names::text[])
GROUP BY network ORDER BY network;

-- name: share_networks
-- These networks' rows, kept from moving until the transaction ends, so that what is judged stays true while written.
SELECT * FROM networks WHERE name = ANY(:names::text[]) ORDER BY name FOR SHARE;

-- name: lock_network^
-- One network's row, for the follower that moves it.
SELECT * FROM networks WHERE name = :name FOR NO KEY UPDATE;

-- name: read_network^
-- One network's row.
SELECT * FROM networks WHERE name = :name;

-- name: pin_network!
-- Remember which chain this is, once.
UPDATE networks SET chain = :chain, genesis_hash = :genesis_hash WHERE name = :name AND genesis_hash IS NULL;

-- name: record_head^
-- What the node says its best block is, and the row as it is then. head_changed_at moves only when that does.
UPDATE networks
SET head_changed_at = CASE WHEN head_height IS DISTINCT FROM :height OR head_time IS DISTINCT FROM :time
                           THEN :at ELSE head_changed_at END,
    head_height = :height, head_time = :time
WHERE name = :name
RETURNING *;

-- name: record_status!
-- What operators are shown. A halted network stays halted until a person decides.
UPDATE networks SET status = :status, problem = :problem
WHERE name = :name AND halted_at IS NULL AND (status, problem) IS DISTINCT FROM (:status, :problem);

-- name: halt_network!
-- Stop crediting on this network.
UPDATE networks SET status = 'halted', problem = :problem, halted_at = :at, resume_decided_at = NULL
WHERE name = :name AND halted_at IS NULL;

-- name: resume_network!
-- A person decided to follow the node's chain after all.
UPDATE networks SET status = 'catching_up', problem = NULL, halted_at = NULL, resume_decided_at = :at
WHERE name = :name AND halted_at IS NOT NULL;

-- name: record_fee_rate!
-- What the network's node says a transaction should pay, and when it said so.
UPDATE networks SET fee_rate = :fee_rate, fee_rate_at = :at WHERE name = :name;

-- name: move_cursor^
-- The cursor moves from the block that was expected to the new one, or not at all; with it the network's own markers, as
-- far as they are known. Whoever listens is told when it is committed.
UPDATE networks
SET cursor_hash = :hash, cursor_height = :height, cursor_time = :time,
    scanned_until = GREATEST(scanned_until, :time), resume_decided_at = NULL,
    safe_height = :safe_height, finalized_height = :finalized_height
WHERE name = :name AND cursor_hash IS NOT DISTINCT FROM :expected_hash AND halted_at IS NULL
RETURNING pg_notify(:channel, name);

-- name: connect_block$
-- A block joins the best chain, for the first time or again; the time that counts for it is that of the first time.
INSERT INTO blocks (network, hash, height, parent_hash, time, counted_time, in_best_chain)
VALUES (:network, :hash, :height, :parent_hash, :time, :counted_time, true)
ON CONFLICT (network, hash) DO UPDATE SET in_best_chain = true
RETURNING coalesce(counted_time, time) AS counted_time;

-- name: disconnect_above
-- Blocks above the common ancestor leave the best chain.
UPDATE blocks SET in_best_chain = false
WHERE network = :network AND in_best_chain AND height > :height
RETURNING hash, height;

-- name: best_blocks
-- Our best chain downwards from a height, as far as it is kept.
SELECT hash, height FROM blocks
WHERE network = :network AND in_best_chain AND height <= :height
ORDER BY height DESC
LIMIT :row_count;

-- name: prune_blocks!
-- Blocks too deep to be reorganised, and those that lost, are forgotten unless they are evidence.
DELETE FROM blocks AS b
WHERE b.network = :network AND b.height < :height AND b.height >= :from_height
  AND NOT EXISTS (SELECT 1 FROM anchors AS a WHERE a.network = b.network AND a.block_hash = b.hash)
  AND NOT EXISTS (SELECT 1 FROM conflicts AS c WHERE c.network = b.network AND c.block_hash = b.hash)
  AND NOT EXISTS (SELECT 1 FROM refund_anchors AS r WHERE r.network = b.network AND r.block_hash = b.hash)
  AND NOT EXISTS (SELECT 1 FROM spendings AS s WHERE s.network = b.network AND s.block_hash = b.hash);

-- name: try_lock$
-- Become the one follower of a network for as long as this connection lives.
SELECT pg_try_advisory_lock(:space::int, :name_key::int);

-- name: unlock$
-- Let another follower take over.
SELECT pg_advisory_unlock(:space::int, :name_key::int);
