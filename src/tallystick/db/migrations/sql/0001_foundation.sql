-- The foundation: who is paid, what is asked, what the chains show, what follows from it, and who is told.
--
-- Conventions. Every column is explained on its own line. Ids are prefixed text that sorts by time. Amounts are whole base
-- units in NUMERIC(78, 0): 2^256 - 1 fits, nothing is rounded. Times are UTC. Enumerations are text with a CHECK that
-- repeats the enumeration of `tallystick.core`; a test compares them.
-- Two kinds of tables: *facts* (blocks, transfers, anchors, conflicts, transitions, events, attempts) only grow, except
-- blocks.in_best_chain, which is the current view, and the pruning of old empty blocks; *state* (invoices.status,
-- payments.status, wakeups) is what `core.assess` derives from facts, stored to be found by index.

CREATE TABLE merchants (
    id         text PRIMARY KEY,                        -- mer_…
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200), -- shown to customers on the checkout page
    created_at timestamptz NOT NULL                     -- our clock
);

CREATE TABLE api_keys (
    id          text PRIMARY KEY,                       -- key_…
    merchant_id text NOT NULL REFERENCES merchants (id), -- a key speaks for exactly one merchant
    name        text NOT NULL,                          -- what the owner calls it
    key_hash    bytea NOT NULL UNIQUE CHECK (length(key_hash) = 32), -- SHA-256 of the key; 160 random bits need no salt or stretching
    scopes      text[] NOT NULL,                        -- rights, as published; a CHECK would freeze the list, the service validates it
    created_at  timestamptz NOT NULL,                   -- our clock
    revoked_at  timestamptz                             -- set once; a revoked key is kept for the audit
);

CREATE TABLE key_counters (
    key_fingerprint bytea PRIMARY KEY,                  -- identity of the public key material, whatever prefix it was written with
    next_index      bigint NOT NULL DEFAULT 0 CHECK (next_index BETWEEN 0 AND 2147483648) -- next unused child; shared by all wallets of this key, so no address is issued twice
);

CREATE TABLE wallets (
    id              text PRIMARY KEY,                   -- wal_…
    merchant_id     text NOT NULL REFERENCES merchants (id), -- whose money arrives there
    family          text NOT NULL CHECK (family IN ('evm', 'tron', 'bitcoin', 'litecoin')), -- one wallet serves every network of its family
    account_key     text NOT NULL,                      -- the account's *public* key as given; a private key never gets here
    key_fingerprint bytea NOT NULL REFERENCES key_counters (key_fingerprint), -- which counter it draws from
    label           text NOT NULL,                      -- what the owner calls it
    created_at      timestamptz NOT NULL,               -- our clock; the newest wallet of a family issues new addresses
    UNIQUE (merchant_id, key_fingerprint)
);

CREATE TABLE networks (
    name             text PRIMARY KEY,                  -- the name in the configuration
    family           text NOT NULL,                     -- which source speaks to it
    chain            text,                              -- pinned at first contact: chain id, or the family's name of the chain
    genesis_hash     text,                              -- pinned at first contact: another genesis is another chain
    cursor_hash      text,                              -- the last block processed completely; everything up to it is accounted for
    cursor_height    bigint,                            -- its height; never used to find the block, only to order
    cursor_time      timestamptz,                       -- its chain time
    scanned_until    timestamptz,                       -- highest chain time ever processed; never goes back, so closed windows stay closed
    safe_height      bigint,                            -- height the network calls safe, as last reported, at most the cursor's
    finalized_height bigint,                            -- height the network calls finalized; never goes back
    head_height      bigint,                            -- the node's best block as last seen
    head_time        timestamptz,                       -- its chain time
    head_changed_at  timestamptz,                       -- our clock when the node's best block last changed: a stuck node shows here
    status           text NOT NULL DEFAULT 'unavailable' CHECK (status IN
        ('following', 'catching_up', 'degraded', 'halted', 'misconfigured', 'unavailable')), -- what operators are shown
    problem          text,                              -- in words, when status is not following
    halted_at        timestamptz,                       -- set when crediting stopped for a person's decision
    resume_decided_at timestamptz,                      -- set by `network resume`: the next deep reorganisation search may go below the safety depth
    CHECK ((cursor_hash IS NULL) = (cursor_height IS NULL)),
    CHECK ((status = 'halted') = (halted_at IS NOT NULL))
);

CREATE TABLE blocks (
    network       text NOT NULL REFERENCES networks (name), -- where
    hash          text NOT NULL,                        -- identity
    height        bigint NOT NULL,                      -- place
    parent_hash   text NOT NULL,                        -- link checked when it was connected
    time          timestamptz NOT NULL,                 -- chain time
    in_best_chain boolean NOT NULL,                     -- the one thing that a reorganisation flips
    PRIMARY KEY (network, hash)
);
CREATE UNIQUE INDEX blocks_best_height ON blocks (network, height) WHERE in_best_chain;

CREATE TABLE invoices (
    id             text PRIMARY KEY,                    -- inv_…
    merchant_id    text NOT NULL REFERENCES merchants (id), -- who asks
    order_id       text,                                -- the merchant's own reference
    status         text NOT NULL CHECK (status IN
        ('created', 'quoted', 'awaiting_payment', 'detected', 'partially_paid', 'confirming', 'paid', 'overpaid',
         'underpaid', 'expired', 'late_paid', 'review_required', 'disputed', 'settled', 'refunded', 'canceled')), -- derived by core.assess; written by one service only, always with the expected old value
    sequence       integer NOT NULL CHECK (sequence >= 1), -- number of the last transition; also the guard against lost updates
    event_sequence integer NOT NULL CHECK (event_sequence >= 0), -- number of the last event about this invoice
    amount         numeric(78, 0) NOT NULL CHECK (amount > 0), -- price in units of 10^-decimals of currency
    currency       text NOT NULL,                       -- ISO 4217 code, or an asset symbol for a price in crypto
    decimals       smallint NOT NULL CHECK (decimals BETWEEN 0 AND 36), -- of the price
    amount_paid    numeric(78, 0) NOT NULL DEFAULT 0,   -- confirmed value in the price's units, rounded down; derived
    late_payment   text NOT NULL CHECK (late_payment IN ('accept', 'review', 'refund')), -- what to do with money first evidenced after the window
    grace_seconds  integer NOT NULL DEFAULT 0 CHECK (grace_seconds >= 0), -- silent extension of the window
    product_type   text,                                -- for confirmation policies
    customer       jsonb NOT NULL DEFAULT '{}',         -- reference, email, name, as sent
    metadata       jsonb NOT NULL DEFAULT '{}',         -- the merchant's own pairs, as sent
    success_url    text,                                -- where checkout leads after payment
    cancel_url     text,                                -- where checkout leads when the customer gives up
    created_at     timestamptz NOT NULL,                -- our clock
    expires_at     timestamptz NOT NULL CHECK (expires_at > created_at), -- end of the window, judged in chain time
    updated_at     timestamptz NOT NULL,                -- our clock at the last change of state or amounts
    canceled_at    timestamptz,                         -- decision of the merchant, once
    fulfilled_at   timestamptz,                         -- decision of the merchant, once
    fulfillment    jsonb,                               -- what the merchant said about it: reference, note
    UNIQUE (merchant_id, id)
);
CREATE INDEX invoices_by_merchant_status ON invoices (merchant_id, status, id);
CREATE INDEX invoices_by_order ON invoices (merchant_id, order_id, id) WHERE order_id IS NOT NULL;

CREATE TABLE payment_options (
    id                     text PRIMARY KEY,            -- opt_…
    invoice_id             text NOT NULL REFERENCES invoices (id), -- whose
    merchant_id            text NOT NULL,               -- repeated so that strict separation needs no join
    position               smallint NOT NULL,           -- order in which the merchant named them
    network                text NOT NULL REFERENCES networks (name), -- where it can be paid
    asset_symbol           text NOT NULL,               -- shown; never identity
    asset_decimals         smallint NOT NULL CHECK (asset_decimals BETWEEN 0 AND 36), -- as configured when created
    contract               text,                        -- token contract in normal form, NULL for the native coin
    amount_expected        numeric(78, 0) NOT NULL CHECK (amount_expected > 0), -- base units asked by the quote in force
    quote_number           smallint NOT NULL DEFAULT 1, -- which row of quotes is in force
    finality               text NOT NULL CHECK (finality IN ('depth', 'safe', 'finalized')), -- requirement applied
    confirmations_required integer CHECK (confirmations_required >= 1), -- for depth
    zero_conf              boolean NOT NULL DEFAULT false, -- whether an unconfirmed sighting may count
    tolerance_under_bps    integer NOT NULL CHECK (tolerance_under_bps BETWEEN 0 AND 9999), -- below: still paid
    tolerance_over_bps     integer NOT NULL CHECK (tolerance_over_bps >= 0), -- above: not yet overpaid
    policy_name            text NOT NULL,               -- which rule chose the requirement
    policy_explanation     text NOT NULL,               -- why, in a sentence
    status                 text NOT NULL CHECK (status IN ('quoted', 'active', 'expired')), -- active once an address is issued
    address                text,                        -- in normal form, once issued
    activated_at           timestamptz,                 -- our clock
    UNIQUE (invoice_id, position),
    FOREIGN KEY (merchant_id, invoice_id) REFERENCES invoices (merchant_id, id),
    CHECK ((finality = 'depth') = (confirmations_required IS NOT NULL)),
    CHECK ((status = 'active') <= (address IS NOT NULL))
);
CREATE INDEX payment_options_by_invoice ON payment_options (invoice_id);

CREATE TABLE quotes (
    option_id       text NOT NULL REFERENCES payment_options (id), -- for which option
    number          smallint NOT NULL CHECK (number >= 1), -- 1, 2, …: re-quoting adds, nothing is overwritten
    amount_expected numeric(78, 0) NOT NULL CHECK (amount_expected > 0), -- base units asked
    rate            text NOT NULL,                      -- units of the price's currency for one whole asset, decimal
    source          text NOT NULL,                      -- where the rate came from: static, par, exact, or an exchange list
    quoted_at       timestamptz NOT NULL,               -- our clock
    expires_at      timestamptz NOT NULL,               -- until when the amount is promised
    PRIMARY KEY (option_id, number)
);

CREATE TABLE addresses (
    family           text NOT NULL,                     -- keyed by family, not network: a payment on the wrong network is recognised
    address          text NOT NULL,                     -- normal form (EVM: lower-case hex)
    merchant_id      text NOT NULL,                     -- whose
    wallet_id        text NOT NULL REFERENCES wallets (id), -- derived from which key
    derivation_index bigint NOT NULL,                   -- child of external chain 0
    invoice_id       text NOT NULL REFERENCES invoices (id), -- for ever: a payment years later still finds it
    option_id        text NOT NULL UNIQUE REFERENCES payment_options (id), -- one address for one option
    issued_at        timestamptz NOT NULL,              -- our clock
    PRIMARY KEY (family, address)
);
CREATE INDEX addresses_by_wallet ON addresses (wallet_id, derivation_index DESC);

CREATE TABLE transfers (
    id                text PRIMARY KEY,                 -- trf_…
    network           text NOT NULL,                    -- where it happened
    tx_hash           text NOT NULL,                    -- in which transaction
    channel           text NOT NULL CHECK (channel IN ('value', 'log', 'trace', 'output', 'invoice')), -- where inside it
    ordinal           integer NOT NULL CHECK (ordinal >= 0), -- which one there: own-log index, output index
    sender            text NOT NULL,                    -- evidence only; never a refund address
    recipient         text NOT NULL,                    -- the issued address, normal form
    contract          text,                             -- token contract, NULL for the native coin
    asset_symbol      text,                             -- as configured when seen; NULL: a token nobody configured
    asset_decimals    smallint,                         -- likewise
    amount            numeric(78, 0) NOT NULL CHECK (amount > 0), -- base units moved; zero-value transfers are not facts
    spend_key         text NOT NULL,                    -- what a conflicting transaction would use up too (EVM: sender:nonce)
    first_evidence_at timestamptz NOT NULL,             -- chain time of the first block that ever held it: decides late or not, for good
    first_seen_at     timestamptz NOT NULL,             -- our clock
    merchant_id       text NOT NULL,                    -- through the address
    invoice_id        text NOT NULL REFERENCES invoices (id), -- through the address
    option_id         text NOT NULL REFERENCES payment_options (id), -- through the address
    UNIQUE (network, tx_hash, channel, ordinal)         -- the credit key: credited exactly once
);
CREATE INDEX transfers_by_invoice ON transfers (invoice_id);
CREATE INDEX transfers_by_hash ON transfers (tx_hash);
CREATE INDEX transfers_by_spend ON transfers (network, spend_key);

CREATE TABLE anchors (
    transfer_id text NOT NULL REFERENCES transfers (id), -- what
    network     text NOT NULL,                          -- where
    block_hash  text NOT NULL,                          -- held by which block; never edited away
    log_index   integer,                                -- position in that block: evidence, not identity
    PRIMARY KEY (transfer_id, block_hash),
    FOREIGN KEY (network, block_hash) REFERENCES blocks (network, hash)
);
CREATE INDEX anchors_by_block ON anchors (network, block_hash);

CREATE TABLE conflicts (
    transfer_id text NOT NULL REFERENCES transfers (id), -- whose transaction can no longer be mined
    tx_hash     text NOT NULL,                          -- the transaction that used up its spend key
    network     text NOT NULL,                          -- where
    block_hash  text NOT NULL,                          -- held by which block; counts only while that is in the best chain
    PRIMARY KEY (transfer_id, block_hash),
    FOREIGN KEY (network, block_hash) REFERENCES blocks (network, hash)
);
CREATE INDEX conflicts_by_block ON conflicts (network, block_hash);

CREATE TABLE payments (
    id           text PRIMARY KEY,                      -- pay_…
    transfer_id  text NOT NULL UNIQUE REFERENCES transfers (id), -- the fact
    merchant_id  text NOT NULL,                         -- whose
    invoice_id   text NOT NULL REFERENCES invoices (id), -- attributed to
    option_id    text NOT NULL REFERENCES payment_options (id), -- and within it
    match        text NOT NULL CHECK (match IN ('matched', 'wrong_asset', 'wrong_network', 'unsupported_token')), -- how it fits what was asked
    status       text NOT NULL CHECK (status IN ('detected', 'confirming', 'confirmed', 'orphaned', 'replaced', 'failed')), -- derived by core.assess, written with its expected old value
    event_sequence integer NOT NULL CHECK (event_sequence >= 0), -- number of the last event about this payment
    confirmed_at timestamptz,                           -- our clock when it last became confirmed
    created_at   timestamptz NOT NULL,                  -- our clock
    updated_at   timestamptz NOT NULL                   -- our clock
);
CREATE INDEX payments_by_invoice ON payments (invoice_id);
CREATE INDEX payments_by_merchant ON payments (merchant_id, id);
CREATE INDEX payments_without_place ON payments (transfer_id) WHERE status IN ('orphaned', 'detected');

CREATE TABLE transitions (
    invoice_id  text NOT NULL REFERENCES invoices (id), -- whose history
    sequence    integer NOT NULL CHECK (sequence >= 1), -- 1, 2, … without gaps
    from_status text CHECK (from_status IN
        ('created', 'quoted', 'awaiting_payment', 'detected', 'partially_paid', 'confirming', 'paid', 'overpaid',
         'underpaid', 'expired', 'late_paid', 'review_required', 'disputed', 'settled', 'refunded', 'canceled')), -- NULL for the first
    to_status   text NOT NULL CHECK (to_status IN
        ('created', 'quoted', 'awaiting_payment', 'detected', 'partially_paid', 'confirming', 'paid', 'overpaid',
         'underpaid', 'expired', 'late_paid', 'review_required', 'disputed', 'settled', 'refunded', 'canceled')), -- the status written
    reason      text NOT NULL CHECK (reason IN
        ('invoice_created', 'rates_locked', 'option_activated', 'payment_seen', 'payment_in_block',
         'payment_partial', 'policy_met', 'amount_above_tolerance', 'window_closed', 'late_payment',
         'late_payment_accepted', 'mismatched_payment', 'reorganized', 'replaced',
         'reversed_after_fulfillment', 'canceled')), -- the published words
    actor_type  text NOT NULL CHECK (actor_type IN ('system', 'merchant', 'operator', 'customer')), -- who caused it
    actor_id    text,                                   -- key, user or worker
    evidence    jsonb NOT NULL CHECK (jsonb_typeof(evidence) = 'array' AND jsonb_array_length(evidence) > 0), -- what it rests on: never empty
    at          timestamptz NOT NULL,                   -- our clock
    PRIMARY KEY (invoice_id, sequence),
    CHECK ((sequence = 1) = (from_status IS NULL))
);

CREATE TABLE wakeups (
    network    text NOT NULL,                           -- which network has to move; empty for our own clock
    marker     text NOT NULL CHECK (marker IN ('tip', 'safe', 'finalized', 'time')), -- which of its positions
    position   bigint NOT NULL,                         -- height to reach, or Unix second to pass
    invoice_id text NOT NULL REFERENCES invoices (id),  -- to be assessed again then
    PRIMARY KEY (network, marker, position, invoice_id)
);
CREATE INDEX wakeups_by_invoice ON wakeups (invoice_id);

CREATE TABLE events (
    id          text PRIMARY KEY,                       -- evt_…; receivers deduplicate by it
    merchant_id text NOT NULL REFERENCES merchants (id), -- whose
    position    bigint GENERATED ALWAYS AS IDENTITY,    -- order of insertion
    written_by  xid8 NOT NULL DEFAULT pg_current_xact_id(), -- transaction: readers of the stream stop before those still open, so none is overtaken
    type        text NOT NULL,                          -- invoice.paid, payment.detected, …
    object_id   text NOT NULL,                          -- what it is about
    sequence    integer NOT NULL CHECK (sequence >= 1), -- per object, without gaps
    body        json NOT NULL,                          -- exactly what is signed and sent (json, not jsonb: bytes are kept)
    created_at  timestamptz NOT NULL,                   -- our clock
    UNIQUE (object_id, sequence)
);
CREATE INDEX events_stream ON events (merchant_id, written_by, position);
CREATE INDEX events_by_merchant ON events (merchant_id, position);

CREATE TABLE webhook_endpoints (
    id                    text PRIMARY KEY,             -- whe_…
    merchant_id           text NOT NULL REFERENCES merchants (id), -- whose
    url                   text NOT NULL,                -- target; checked again at every delivery
    events                text[] NOT NULL,              -- types wanted; {*} is all
    description           text NOT NULL DEFAULT '',     -- the merchant's words
    status                text NOT NULL CHECK (status IN ('enabled', 'disabled')), -- disabled endpoints get no new deliveries
    disabled_reason       text,                         -- in words: asked, gone (410), failing for five days
    secret                text NOT NULL,                -- whsec_…; needed in clear to sign, so it is guarded by access to the database
    previous_secret       text,                         -- signs as well for a day after rotation
    previous_secret_until timestamptz,                  -- end of that day
    failing_since         timestamptz,                  -- our clock at the first failure since the last success
    created_at            timestamptz NOT NULL,         -- our clock
    deleted_at            timestamptz                   -- kept for its delivery history
);
CREATE INDEX webhook_endpoints_live ON webhook_endpoints (merchant_id, id) WHERE deleted_at IS NULL;

CREATE TABLE deliveries (
    id              text PRIMARY KEY,                   -- dlv_…
    event_id        text NOT NULL REFERENCES events (id), -- what
    endpoint_id     text NOT NULL REFERENCES webhook_endpoints (id), -- to whom
    merchant_id     text NOT NULL,                      -- whose
    status          text NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')), -- state
    attempts_made   smallint NOT NULL DEFAULT 0,        -- position in the schedule
    next_attempt_at timestamptz,                        -- due time; pushed ahead as a lease while an attempt runs
    created_at      timestamptz NOT NULL,               -- our clock
    updated_at      timestamptz NOT NULL,               -- our clock
    UNIQUE (event_id, endpoint_id),
    CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL))
);
CREATE INDEX deliveries_due ON deliveries (endpoint_id, next_attempt_at) WHERE status = 'pending';

CREATE TABLE delivery_attempts (
    delivery_id text NOT NULL REFERENCES deliveries (id), -- of which delivery
    number      smallint NOT NULL CHECK (number >= 1),  -- 1, 2, …
    at          timestamptz NOT NULL,                   -- our clock when it began
    status_code smallint,                               -- answer, if one came
    duration_ms integer NOT NULL CHECK (duration_ms >= 0), -- how long it took
    error       text,                                   -- in words, if it was no success
    PRIMARY KEY (delivery_id, number)
);

CREATE TABLE idempotency_keys (
    merchant_id     text NOT NULL,                      -- keys of two merchants never meet
    key             text NOT NULL,                      -- as sent
    request_hash    bytea NOT NULL CHECK (length(request_hash) = 32), -- SHA-256 of method, path and body: another request under the same key is refused
    response_status smallint NOT NULL,                  -- the answer of the first time
    response_body   bytea NOT NULL,                     -- likewise, byte for byte
    created_at      timestamptz NOT NULL,               -- our clock; removed a day or more later
    PRIMARY KEY (merchant_id, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
