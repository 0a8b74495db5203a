-- The log of transitions: every step of every invoice's history, chained by hashes in the books of its merchant, so that
-- whoever edits, removes, inserts or reorders one afterwards breaks the chain. See ADR 0018.

-- Whoever of the version before still writes history ends that first, and begins no more: what is not chained here could
-- not be checked below.
LOCK TABLE transitions IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE transition_log_heads (
    merchant_id text PRIMARY KEY REFERENCES merchants (id), -- whose log
    length      bigint NOT NULL DEFAULT 0 CHECK (length >= 0), -- how many transitions are in it
    hash        bytea NOT NULL CHECK (length(hash) = 32)   -- of the last of them; of an empty log: SHA-256 of the merchant's id
);

CREATE TABLE transition_log (
    merchant_id text NOT NULL,                          -- in whose log
    position    bigint NOT NULL CHECK (position >= 1),  -- 1, 2, … without gaps, in the order of committing
    invoice_id  text NOT NULL,                          -- which transition: of which invoice
    sequence    integer NOT NULL,                       -- and its number there
    hash        bytea NOT NULL CHECK (length(hash) = 32), -- SHA-256 of the hash before it and the transition's digest
    PRIMARY KEY (merchant_id, position),
    UNIQUE (invoice_id, sequence)                       -- each transition stands in the log once
);

-- What a transition says, as 32 bytes: all of it, so that no two different ones can have the same text (a JSON array names
-- where each value begins and ends), and the same on every machine (the time as microseconds since 1970).
CREATE FUNCTION transition_digest(t transitions) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(convert_to(jsonb_build_array(
        t.invoice_id, t.sequence, t.from_status, t.to_status, t.reason, t.actor_type, t.actor_id, t.evidence,
        (extract(epoch FROM t.at) * 1000000)::bigint)::text, 'UTF8'))
$$;

CREATE FUNCTION transition_log_start(merchant_id text) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT sha256(convert_to(merchant_id, 'UTF8'))
$$;

-- Every merchant has a log from the first moment, so that sealing only has to lock what is there.
CREATE FUNCTION merchant_gets_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO transition_log_heads (merchant_id, hash) VALUES (NEW.id, transition_log_start(NEW.id));
    RETURN NULL;
END $$;
CREATE TRIGGER merchants_get_logs AFTER INSERT ON merchants FOR EACH ROW EXECUTE FUNCTION merchant_gets_log();
INSERT INTO transition_log_heads (merchant_id, hash) SELECT id, transition_log_start(id) FROM merchants;

-- Put these transitions at the end of their merchants' logs, in the order given. The last thing that a transaction does
-- before it commits: it locks the ends of the logs in the order of the merchants, and nothing after them, so no two
-- transactions can wait for each other here.
CREATE FUNCTION seal_transitions(invoice_ids text[], sequences integer[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    one record;
    merchant text;
    filled bigint;
    last bytea;
BEGIN
    PERFORM 1 FROM transition_log_heads AS h
    WHERE h.merchant_id IN (SELECT i.merchant_id FROM invoices AS i WHERE i.id = ANY(invoice_ids))
    ORDER BY h.merchant_id FOR UPDATE;
    -- A statement of its own, so that it sees what the one that held the lock before has committed.
    FOR one IN
        SELECT i.merchant_id, t.invoice_id, t.sequence, transition_digest(t) AS digest, h.length, h.hash
        FROM unnest(invoice_ids, sequences) WITH ORDINALITY AS g(invoice_id, sequence, nth)
        JOIN invoices AS i ON i.id = g.invoice_id
        JOIN transitions AS t ON t.invoice_id = g.invoice_id AND t.sequence = g.sequence
        JOIN transition_log_heads AS h ON h.merchant_id = i.merchant_id
        ORDER BY i.merchant_id, g.nth
    LOOP
        IF one.merchant_id IS DISTINCT FROM merchant THEN
            IF merchant IS NOT NULL THEN
                UPDATE transition_log_heads AS h SET length = filled, hash = last WHERE h.merchant_id = merchant;
            END IF;
            merchant := one.merchant_id;
            filled := one.length;
            last := one.hash;
        END IF;
        filled := filled + 1;
        last := sha256(last || one.digest);
        INSERT INTO transition_log (merchant_id, position, invoice_id, sequence, hash)
        VALUES (merchant, filled, one.invoice_id, one.sequence, last);
    END LOOP;
    UPDATE transition_log_heads AS h SET length = filled, hash = last WHERE h.merchant_id = merchant;
END $$;

-- What happened before there was a log, in the order of time; of one invoice in the order of its history, whatever its
-- times say.
SELECT seal_transitions(array_agg(s.invoice_id ORDER BY s.moment, s.invoice_id, s.sequence),
                        array_agg(s.sequence ORDER BY s.moment, s.invoice_id, s.sequence))
FROM (SELECT t.invoice_id, t.sequence, i.merchant_id, max(t.at) OVER (PARTITION BY t.invoice_id ORDER BY t.sequence) AS moment
      FROM transitions AS t JOIN invoices AS i ON i.id = t.invoice_id) AS s
GROUP BY s.merchant_id;

-- No transition can be committed that is not in the log. Asked at the commit, because the log comes last.
ALTER TABLE transitions ADD CONSTRAINT transitions_logged
    FOREIGN KEY (invoice_id, sequence) REFERENCES transition_log (invoice_id, sequence) DEFERRABLE INITIALLY DEFERRED;

CREATE FUNCTION history_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% only grows: what happened stays', TG_TABLE_NAME USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER transitions_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON transitions
    FOR EACH STATEMENT EXECUTE FUNCTION history_only_grows();
CREATE TRIGGER transition_log_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON transition_log
    FOR EACH STATEMENT EXECUTE FUNCTION history_only_grows();
