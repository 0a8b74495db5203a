-- Every way a payment can end: decisions, exceptions, refunds, the ledger, confirmation policies, rates with their sources.
--
-- The conventions of 0001 hold. New facts (decisions, sightings, ledger entries, postings, policies) only grow; exceptions
-- and refunds are state with a history in their events.

ALTER TABLE merchants
    ADD COLUMN spread_bps integer NOT NULL DEFAULT 0 CHECK (spread_bps BETWEEN 0 AND 2000), -- added to every quote's amount, in 1/10,000: the merchant's margin against rate moves
    ADD COLUMN quote_seconds integer NOT NULL DEFAULT 900 CHECK (quote_seconds BETWEEN 60 AND 86400), -- how long a rate is promised; an invoice open for longer is quoted again
    ADD COLUMN grace_seconds integer NOT NULL DEFAULT 0 CHECK (grace_seconds BETWEEN 0 AND 86400), -- silent extension of the window of new invoices
    ADD COLUMN refund_second_person boolean NOT NULL DEFAULT false; -- whether a refund needs the approval of another key or person than the requester

ALTER TABLE quotes
    ADD COLUMN spread_bps integer NOT NULL DEFAULT 0 CHECK (spread_bps >= 0), -- the merchant's spread that the amount contains
    ADD COLUMN answers jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(answers) = 'array'), -- what every rate source answered: source, pair, rate, its time, whether it was used, why not
    ALTER COLUMN number TYPE integer; -- 30 days by the minute are more than a smallint counts
ALTER TABLE payment_options ALTER COLUMN quote_number TYPE integer;

CREATE TABLE requotes (
    option_id  text PRIMARY KEY REFERENCES payment_options (id), -- whose quote ends before its invoice's window
    invoice_id text NOT NULL REFERENCES invoices (id), -- of which invoice, whose lock is taken first
    due_at     timestamptz NOT NULL -- when to ask for the rate again; the row goes once the window is over
);
CREATE INDEX requotes_due ON requotes (due_at);

ALTER TABLE payment_options
    ADD COLUMN policy_version integer NOT NULL DEFAULT 0 CHECK (policy_version >= 0); -- version of the merchant's rules that chose the requirement; 0: it had none

ALTER TABLE invoices
    ADD COLUMN settled_at timestamptz, -- when a closed settlement batch took the invoice in; a decision, once
    ADD COLUMN settlement_id text; -- which batch

ALTER TABLE transfers
    ADD COLUMN internal boolean NOT NULL DEFAULT false, -- the sender is another address of the same merchant's: coins moved among one's own are not income
    DROP CONSTRAINT transfers_channel_check,
    ADD CONSTRAINT transfers_channel_check CHECK (channel IN ('value', 'log', 'trace', 'balance', 'output', 'invoice'));

ALTER TABLE payments
    DROP CONSTRAINT payments_match_check,
    ADD CONSTRAINT payments_match_check CHECK (match IN ('matched', 'wrong_asset', 'wrong_network', 'unattributed_value', 'unsupported_token'));

-- What a block replaces is found by the keys it used up (transfers_by_spend). Without an index on the status, writing a
-- status writes no index.
DROP INDEX payments_without_place;

CREATE INDEX transfers_native ON transfers (network, recipient) WHERE contract IS NULL;

CREATE TABLE balance_checks (
    network      text NOT NULL REFERENCES networks (name), -- where the balance is looked at
    address      text NOT NULL,                         -- whose, in normal form
    family       text NOT NULL,                         -- of the address
    invoice_id   text NOT NULL REFERENCES invoices (id), -- what the address was issued for
    started_at   timestamptz,                           -- our clock when the window had ended without enough money: the timed looks count from there; NULL: only asked by a person
    due_at       timestamptz,                           -- next look; pushed ahead as a lease while one runs; NULL when no more are planned
    checked_at   timestamptz,                           -- our clock at the last look
    block_hash   text,                                  -- at which block
    block_height bigint,                                -- its height
    balance      numeric(78, 0) CHECK (balance >= 0),   -- base units of the native coin there then
    nonce        bigint CHECK (nonce >= 0),             -- how many transactions the address had sent by then
    outcome      text CHECK (outcome IN ('explained', 'unattributed', 'dust', 'missing', 'spent')), -- what came of it
    PRIMARY KEY (network, address),
    FOREIGN KEY (family, address) REFERENCES addresses (family, address)
);
CREATE INDEX balance_checks_due ON balance_checks (network, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX balance_checks_by_invoice ON balance_checks (invoice_id);

CREATE TABLE sightings (
    transfer_id text PRIMARY KEY REFERENCES transfers (id), -- what was seen outside any block
    network     text NOT NULL REFERENCES networks (name), -- whose node showed it
    first_at    timestamptz NOT NULL,                  -- our clock at the first sighting
    missing_since timestamptz,                         -- our clock when a node first did not know it any more; NULL while one does, and once it is gone
    gone_at     timestamptz                            -- our clock when the sighting ended: no longer known, replaced, or settled by a block; NULL while it counts
);
CREATE INDEX sightings_live ON sightings (network) WHERE gone_at IS NULL;

CREATE TABLE confirmation_policies (
    merchant_id text NOT NULL REFERENCES merchants (id), -- whose rules
    version     integer NOT NULL CHECK (version >= 1),  -- 1, 2, …: changing adds, nothing is overwritten
    rules       jsonb NOT NULL CHECK (jsonb_typeof(rules) = 'array'), -- the rules in order, first match wins; as published
    actor_type  text NOT NULL CHECK (actor_type IN ('system', 'merchant', 'operator', 'customer')), -- who changed them
    actor_id    text,                                   -- key or user
    created_at  timestamptz NOT NULL,                   -- our clock
    PRIMARY KEY (merchant_id, version)
);

CREATE TABLE requirement_raises (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- order of decisions
    network       text NOT NULL REFERENCES networks (name), -- on which network
    confirmations integer NOT NULL CHECK (confirmations >= 1), -- no requirement by depth is lower than this while it stands
    note          text NOT NULL,                        -- why, in the operator's words
    actor_type    text NOT NULL CHECK (actor_type IN ('system', 'merchant', 'operator', 'customer')), -- who decided
    actor_id      text,                                 -- user
    options_raised integer NOT NULL CHECK (options_raised >= 0), -- how many open options were raised when it was decided
    at            timestamptz NOT NULL,                 -- our clock
    lifted_at     timestamptz                           -- when it stopped holding for new invoices; NULL while it stands
);
CREATE UNIQUE INDEX requirement_raises_standing ON requirement_raises (network) WHERE lifted_at IS NULL;

CREATE TABLE exceptions (
    id             text PRIMARY KEY,                    -- exc_…
    merchant_id    text NOT NULL REFERENCES merchants (id), -- whose
    kind           text NOT NULL CHECK (kind IN
        ('underpaid', 'overpaid', 'late', 'wrong_asset', 'wrong_network', 'unsupported_token', 'unmatched',
         'unattributed_value', 'reversed', 'refund_failed', 'webhook_failed', 'network_halted')), -- what is the matter
    invoice_id     text REFERENCES invoices (id),       -- about which invoice, if about one
    subject        text NOT NULL DEFAULT '',            -- about what else: a refund, an endpoint, a network
    transfer_ids   text[] NOT NULL DEFAULT '{}',        -- the transfers in question
    owner          text NOT NULL CHECK (length(owner) BETWEEN 1 AND 200), -- who has it: a role at first, a person once assigned
    assignments    jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(assignments) = 'array'), -- to whom it was given, by whom, when and why; the latest hundred
    status         text NOT NULL CHECK (status IN ('open', 'resolved')), -- written with its expected old value
    detail         jsonb NOT NULL DEFAULT '{}',         -- what was the matter when it opened: amounts, hashes
    resolution     jsonb,                               -- action, note, actor, time, and what came of it
    event_sequence integer NOT NULL CHECK (event_sequence >= 0), -- number of the last event about it
    opened_at      timestamptz NOT NULL,                -- our clock
    resolved_at    timestamptz,                         -- our clock
    FOREIGN KEY (merchant_id, invoice_id) REFERENCES invoices (merchant_id, id),
    CHECK ((status = 'resolved') = (resolved_at IS NOT NULL)),
    CHECK ((status = 'resolved') = (resolution IS NOT NULL))
);
CREATE UNIQUE INDEX exceptions_one_open ON exceptions (merchant_id, kind, coalesce(invoice_id, ''), subject)
    WHERE status = 'open';
CREATE INDEX exceptions_by_merchant ON exceptions (merchant_id, status, id);
CREATE INDEX exceptions_by_invoice ON exceptions (invoice_id) WHERE invoice_id IS NOT NULL;

CREATE TABLE decisions (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- order of decisions
    invoice_id   text NOT NULL REFERENCES invoices (id), -- about which invoice
    merchant_id  text NOT NULL,                         -- whose
    kind         text NOT NULL CHECK (kind IN
        ('accept', 'credit', 'dismiss', 'write_off', 'keep', 'receive', 'send', 'open_dispute', 'resolve_dispute')), -- what was decided; `core.invoice` says what each does
    transfer_ids text[] NOT NULL DEFAULT '{}',          -- about which transfers
    value        numeric(78, 0) CHECK (value > 0),      -- what they count for, in units of the price
    note         text NOT NULL,                         -- why, in the words of who decided
    evidence     jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(evidence) = 'array'), -- what it rests on: documents, messages, other invoices
    exception_id text REFERENCES exceptions (id),       -- the case it resolved
    actor_type   text NOT NULL CHECK (actor_type IN ('system', 'merchant', 'operator', 'customer')), -- who decided
    actor_id     text,                                  -- key or user
    at           timestamptz NOT NULL,                  -- our clock
    FOREIGN KEY (merchant_id, invoice_id) REFERENCES invoices (merchant_id, id),
    CHECK ((kind = 'credit') = (value IS NOT NULL)),
    CHECK ((kind IN ('open_dispute', 'resolve_dispute')) = (cardinality(transfer_ids) = 0))
);
CREATE INDEX decisions_by_invoice ON decisions (invoice_id, id);

CREATE TABLE refunds (
    id                text PRIMARY KEY,                 -- rfd_…
    merchant_id       text NOT NULL REFERENCES merchants (id), -- who pays
    invoice_id        text NOT NULL REFERENCES invoices (id), -- what is given back
    option_id         text NOT NULL REFERENCES payment_options (id), -- where it had been paid
    exception_id      text REFERENCES exceptions (id),  -- the case it came from
    status            text NOT NULL CHECK (status IN
        ('requested', 'approved', 'awaiting_signature', 'broadcast', 'confirming', 'completed', 'rejected', 'failed',
         'needs_attention')),                           -- written with its expected old value
    rule              text NOT NULL CHECK (rule IN ('amount', 'received', 'excess', 'fiat_value')), -- how the amount was found
    network           text NOT NULL REFERENCES networks (name), -- where it is paid
    asset_symbol      text NOT NULL,                    -- shown; never identity
    asset_decimals    smallint NOT NULL CHECK (asset_decimals BETWEEN 0 AND 36), -- as configured when requested
    contract          text,                             -- token contract in normal form, NULL for the native coin
    amount            numeric(78, 0) NOT NULL CHECK (amount > 0), -- base units taken from what was credited
    fee               text NOT NULL CHECK (fee IN ('merchant', 'customer')), -- who bears the network's fee
    fee_amount        numeric(78, 0) NOT NULL DEFAULT 0 CHECK (fee_amount >= 0), -- base units kept back for the fee where the customer bears it
    amount_sent       numeric(78, 0) NOT NULL,          -- base units to be sent: amount less fee_amount
    transfer_ids      text[] NOT NULL DEFAULT '{}',     -- the incoming transfers it gives back
    basis_ids         text[] NOT NULL DEFAULT '{}',     -- the incoming transfers that stood when it was asked for: one of them gone, nothing is sent without a person
    withdraws         boolean NOT NULL DEFAULT false,   -- whether those stop paying the invoice once this is approved, not only once it is paid
    reason            text NOT NULL,                    -- why, in the requester's words
    detail            jsonb NOT NULL DEFAULT '{}',      -- how the amount was found: the rate of a fiat value, with its source
    address           text,                             -- destination in normal form; never taken from the sender
    address_source    text CHECK (address_source IN ('merchant', 'customer')), -- who gave and confirmed it
    address_at        timestamptz,                      -- our clock when it was confirmed
    claim_token_hash  bytea CHECK (length(claim_token_hash) = 32), -- SHA-256 of the newest token of the claim page: it sets the address once, and shows the state afterwards
    claim_expires_at  timestamptz,                      -- when that token stops being able to set the address
    link_by_type      text CHECK (link_by_type IN ('system', 'merchant', 'operator', 'customer')), -- who was given a later link to the claim page, last
    link_by           text,                             -- key or user
    requested_by_type text NOT NULL CHECK (requested_by_type IN ('system', 'merchant', 'operator', 'customer')), -- who asked
    requested_by      text,                             -- key or user
    requested_at      timestamptz NOT NULL,             -- our clock
    decided_by_type   text CHECK (decided_by_type IN ('system', 'merchant', 'operator', 'customer')), -- who approved or rejected
    decided_by        text,                             -- key or user
    decided_at        timestamptz,                      -- our clock
    decision_note     text,                             -- why, in their words
    tx_hash           text,                             -- the transaction told by `broadcast`, a hint; the chain's own is in transfers
    broadcast_at      timestamptz,                      -- our clock when it was told or first seen
    attention_at      timestamptz,                      -- due time: still not seen then means needs_attention
    problem           text,                             -- in words, when it needs attention or failed
    event_sequence    integer NOT NULL CHECK (event_sequence >= 0), -- number of the last event about it
    updated_at        timestamptz NOT NULL,             -- our clock
    FOREIGN KEY (merchant_id, invoice_id) REFERENCES invoices (merchant_id, id),
    CHECK (amount_sent = amount - fee_amount AND amount_sent > 0),
    CHECK ((address IS NULL) = (address_source IS NULL)),
    CHECK (status IN ('requested', 'approved', 'rejected', 'failed', 'needs_attention') OR address IS NOT NULL),
    CHECK (status IN ('requested', 'rejected', 'failed') OR decided_at IS NOT NULL)
);
CREATE INDEX refunds_by_merchant ON refunds (merchant_id, status, id);
CREATE INDEX refunds_by_invoice ON refunds (invoice_id);
CREATE INDEX refunds_due ON refunds (attention_at) WHERE status IN ('awaiting_signature', 'broadcast');
CREATE INDEX refunds_watched ON refunds (address, network) WHERE address IS NOT NULL;

CREATE TABLE refund_transitions (
    refund_id   text NOT NULL REFERENCES refunds (id),  -- whose history
    sequence    integer NOT NULL CHECK (sequence >= 1), -- 1, 2, …: the event's number too
    from_status text CHECK (from_status IN
        ('requested', 'approved', 'awaiting_signature', 'broadcast', 'confirming', 'completed', 'rejected', 'failed',
         'needs_attention')),                           -- NULL for the request
    to_status   text NOT NULL CHECK (to_status IN
        ('requested', 'approved', 'awaiting_signature', 'broadcast', 'confirming', 'completed', 'rejected', 'failed',
         'needs_attention')),                           -- what it became
    actor_type  text NOT NULL CHECK (actor_type IN ('system', 'merchant', 'operator', 'customer')), -- who caused it
    actor_id    text,                                   -- key or user
    note        text NOT NULL,                          -- why, in words
    at          timestamptz NOT NULL,                   -- our clock
    PRIMARY KEY (refund_id, sequence)
);

-- More than was credited is never given back, whatever the code in front forgot. One request of an invoice at a time: the
-- next one sees what this one takes.
CREATE FUNCTION refund_within_credit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    credited numeric;
    taken numeric;
BEGIN
    PERFORM 1 FROM invoices WHERE id = NEW.invoice_id FOR NO KEY UPDATE;
    SELECT coalesce(sum(t.amount), 0) INTO credited
    FROM transfers AS t JOIN payments AS p ON p.transfer_id = t.id
    WHERE t.invoice_id = NEW.invoice_id AND t.network = NEW.network AND t.contract IS NOT DISTINCT FROM NEW.contract
      AND p.status = 'confirmed' AND NOT t.internal;
    SELECT coalesce(sum(r.amount), 0) INTO taken
    FROM refunds AS r
    WHERE r.invoice_id = NEW.invoice_id AND r.network = NEW.network AND r.contract IS NOT DISTINCT FROM NEW.contract
      AND r.status NOT IN ('rejected', 'failed');
    IF taken + NEW.amount > credited THEN
        RAISE EXCEPTION 'refund % takes % where % of % are left', NEW.id, NEW.amount, credited - taken, credited
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refunds_within_credit BEFORE INSERT ON refunds FOR EACH ROW EXECUTE FUNCTION refund_within_credit();

CREATE TABLE refund_transfers (
    id                text PRIMARY KEY,                 -- trf_…: an outgoing transfer found on chain
    refund_id         text NOT NULL REFERENCES refunds (id), -- which refund it carries out
    invoice_id        text NOT NULL REFERENCES invoices (id), -- of which invoice: whoever touches it assesses that
    network           text NOT NULL REFERENCES networks (name), -- where it happened
    tx_hash           text NOT NULL,                    -- in which transaction
    channel           text NOT NULL CHECK (channel IN ('value', 'log', 'trace', 'balance', 'output', 'invoice')), -- where inside it
    ordinal           integer NOT NULL CHECK (ordinal >= 0), -- which one there
    sender            text NOT NULL,                    -- evidence
    recipient         text NOT NULL,                    -- the refund's address
    contract          text,                             -- token contract, NULL for the native coin
    amount            numeric(78, 0) NOT NULL CHECK (amount > 0), -- base units moved
    spend_key         text NOT NULL,                    -- what a conflicting transaction would use up too
    first_evidence_at timestamptz NOT NULL,             -- chain time of the first block that held it
    UNIQUE (network, tx_hash, channel, ordinal)         -- carries out one refund only
);
CREATE INDEX refund_transfers_by_refund ON refund_transfers (refund_id);
CREATE INDEX refund_transfers_by_invoice ON refund_transfers (invoice_id);

CREATE TABLE refund_anchors (
    transfer_id text NOT NULL REFERENCES refund_transfers (id), -- what
    network     text NOT NULL,                          -- where
    block_hash  text NOT NULL,                          -- held by which block; never edited away
    PRIMARY KEY (transfer_id, block_hash),
    FOREIGN KEY (network, block_hash) REFERENCES blocks (network, hash)
);
CREATE INDEX refund_anchors_by_block ON refund_anchors (network, block_hash);

CREATE TABLE ledger_entries (
    id            text PRIMARY KEY,                     -- ent_…
    merchant_id   text NOT NULL REFERENCES merchants (id), -- whose books
    kind          text NOT NULL CHECK (kind IN
        ('receipt', 'position', 'refund_sent', 'fee', 'adjustment', 'settlement')), -- what it books; `core.ledger` says which accounts
    subject       text NOT NULL,                        -- what it stands for: a payment, an invoice, a refund, a batch; one entry of a subject is in force at a time
    invoice_id    text REFERENCES invoices (id),        -- about which invoice
    payment_id    text REFERENCES payments (id),        -- about which payment
    refund_id     text REFERENCES refunds (id),         -- about which refund
    settlement_id text,                                 -- about which batch
    sequence      integer,                              -- the invoice's transition in whose transaction it was booked: why
    reverses      text UNIQUE REFERENCES ledger_entries (id), -- the entry it takes back, once
    note          text NOT NULL,                        -- why, in words
    at            timestamptz NOT NULL                  -- our clock
);
CREATE INDEX ledger_entries_by_merchant ON ledger_entries (merchant_id, id);
CREATE INDEX ledger_entries_by_invoice ON ledger_entries (invoice_id) WHERE invoice_id IS NOT NULL;
CREATE INDEX ledger_entries_by_subject ON ledger_entries (subject);

CREATE TABLE postings (
    entry_id    text NOT NULL REFERENCES ledger_entries (id), -- of which entry
    position    smallint NOT NULL CHECK (position >= 1), -- order inside it
    merchant_id text NOT NULL,                          -- whose books
    account     text NOT NULL CHECK (account IN
        ('receivable', 'expected', 'onchain', 'merchant', 'overpayment', 'refunds_payable', 'suspense', 'losses', 'fees',
         'settled')),                                   -- `core.ledger` says what each holds
    asset       text NOT NULL,                          -- symbol or currency, shown
    network     text NOT NULL,                          -- where the asset lives; empty for a currency
    contract    text NOT NULL,                          -- the asset's identity there: contract, `native`, or empty for a currency
    decimals    smallint NOT NULL CHECK (decimals BETWEEN 0 AND 36), -- of the amount
    amount      numeric(78, 0) NOT NULL CHECK (amount <> 0), -- signed: debits are positive, credits negative
    PRIMARY KEY (entry_id, position)
);
CREATE INDEX postings_by_account ON postings (merchant_id, account, network, contract) INCLUDE (amount);

-- A sum of amounts up to 2^256 - 1 stays exact in numeric. Checked once for each entry, at commit, so that an entry and
-- its postings may be written in any order; nothing unbalanced is ever visible.
CREATE FUNCTION ledger_entry_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    lines integer;
    unequal boolean;
BEGIN
    SELECT coalesce(sum(d.lines), 0), bool_or(d.total <> 0) INTO lines, unequal
    FROM (SELECT count(*) AS lines, sum(amount) AS total FROM postings WHERE entry_id = NEW.id
          GROUP BY network, contract, asset) AS d;
    IF lines < 2 THEN
        RAISE EXCEPTION 'ledger entry % has % posting(s): it takes two', NEW.id, lines USING ERRCODE = 'check_violation';
    END IF;
    IF unequal THEN
        RAISE EXCEPTION 'ledger entry % does not balance', NEW.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER ledger_entries_balance AFTER INSERT ON ledger_entries
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_entry_balances();

-- What was balanced stays so: an entry gets all its postings in one statement, and none later. Asked once a statement,
-- because a block can bring thousands of postings.
CREATE FUNCTION postings_come_at_once() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    late text;
BEGIN
    SELECT a.entry_id INTO late FROM (SELECT entry_id, count(*) AS lines FROM added GROUP BY entry_id) AS a
    WHERE a.lines <> (SELECT count(*) FROM postings AS p WHERE p.entry_id = a.entry_id) LIMIT 1;
    IF late IS NOT NULL THEN
        RAISE EXCEPTION 'ledger entry % has its postings already', late USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER postings_once AFTER INSERT ON postings
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION postings_come_at_once();

CREATE FUNCTION ledger_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% only grows: take an entry back with a reversing one', TG_TABLE_NAME USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER ledger_entries_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_only_grows();
CREATE TRIGGER postings_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON postings
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_only_grows();

ALTER TABLE transitions
    DROP CONSTRAINT transitions_reason_check,
    ADD CONSTRAINT transitions_reason_check CHECK (reason IN
        ('invoice_created', 'rates_locked', 'option_activated', 'payment_seen', 'payment_in_block',
         'payment_partial', 'policy_met', 'amount_above_tolerance', 'window_closed', 'late_payment',
         'late_payment_accepted', 'mismatched_payment', 'reorganized', 'replaced',
         'reversed_after_fulfillment', 'reversed_after_settlement', 'reversed_after_refund', 'canceled',
         'decided', 'dispute_opened', 'dispute_resolved', 'refund_completed', 'refund_reorganized', 'settled',
         'vanished')); -- the published words
