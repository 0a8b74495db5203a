-- Chains of outputs (Bitcoin's family): a transaction uses up many things, its outputs are spent one by one, and what a
-- transfer can be relied on for depends on where it comes from.
--
-- The conventions of 0001 hold. New facts: transaction_spends and spendings only grow.

-- What a transaction uses up is its own, not that of each transfer it makes: a payout to a hundred invoices has its inputs
-- once. Found by the key, for every key that a block uses up; and by the transaction, for what is sighted.
CREATE TABLE transaction_spends (
    network   text NOT NULL,                            -- where
    spend_key text NOT NULL,                            -- what a conflicting transaction would use up too (EVM: sender:nonce; Bitcoin's family: txid:output index)
    tx_hash   text NOT NULL,                            -- the transaction of a stored transfer that uses it up
    PRIMARY KEY (network, spend_key, tx_hash)
);
CREATE INDEX transaction_spends_by_hash ON transaction_spends (network, tx_hash);
-- A balance that no transfer explains has no transaction, and so used up nothing.
INSERT INTO transaction_spends (network, spend_key, tx_hash)
SELECT network, spend_key, tx_hash FROM transfers WHERE channel <> 'balance'
UNION SELECT network, spend_key, tx_hash FROM refund_transfers;

DROP INDEX transfers_by_spend;
ALTER TABLE transfers
    DROP COLUMN spend_key,
    ADD COLUMN traits text[] NOT NULL DEFAULT '{}'
        CHECK (traits <@ '{replaceable,unconfirmed_parent,coinbase,pegout,dust}'); -- what says how far it can be relied on; `core.chain.Trait` says what each means
ALTER TABLE refund_transfers DROP COLUMN spend_key;

ALTER TABLE payment_options
    ADD COLUMN zero_conf_accepts text[] NOT NULL DEFAULT '{}'
        CHECK (zero_conf_accepts <@ '{replaceable,unconfirmed_parent}'); -- risks with which a sighting counts all the same, where zero_conf is true

ALTER TABLE blocks
    ADD COLUMN counted_time timestamptz; -- chain time as it counts here, where that is not `time`: our clock when the block came, on a network whose miners may date ahead

CREATE TABLE spendings (
    transfer_id text NOT NULL REFERENCES transfers (id), -- which output of ours
    network     text NOT NULL,                          -- where
    tx_hash     text NOT NULL,                          -- the transaction that spent it
    block_hash  text NOT NULL,                          -- held by which block; counts only while that is in the best chain
    PRIMARY KEY (transfer_id, block_hash),
    FOREIGN KEY (network, block_hash) REFERENCES blocks (network, hash)
);
CREATE INDEX spendings_by_block ON spendings (network, block_hash);

ALTER TABLE networks
    ADD COLUMN fee_rate numeric(78, 0) CHECK (fee_rate >= 0), -- base units per 1,000 virtual bytes for a payment made now, as a node says; NULL: no node has said
    ADD COLUMN fee_rate_at timestamptz; -- our clock when it said so

-- Payment requests that Bitcoin wallets sign, and the outputs that they spend.
ALTER TABLE refunds
    ADD COLUMN psbt         text,                       -- what the wallet signs (BIP 174, base64); NULL: none, or none yet
    ADD COLUMN psbt_fee     numeric(78, 0) CHECK (psbt_fee > 0), -- base units that it pays the network
    ADD COLUMN psbt_problem text,                       -- why there is none, in words
    ADD COLUMN psbt_at      timestamptz,                -- our clock when it was made, or tried last
    ADD CONSTRAINT refunds_psbt_fee CHECK ((psbt IS NULL) = (psbt_fee IS NULL)),
    ADD CONSTRAINT refunds_psbt_problem CHECK (psbt IS NULL OR psbt_problem IS NULL);

CREATE TABLE refund_inputs (
    transfer_id text PRIMARY KEY REFERENCES transfers (id), -- the output that the PSBT spends; one refund holds it at a time
    refund_id   text NOT NULL REFERENCES refunds (id)   -- which refund; the row goes when that ends
);
CREATE INDEX refund_inputs_by_refund ON refund_inputs (refund_id);
CREATE INDEX transfers_outputs ON transfers (merchant_id, network, first_seen_at DESC) WHERE channel = 'output';

-- Whether an output cannot be spent now: a block of the best chain spends it, or none holds it any more.
CREATE FUNCTION output_gone(output text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT 1 FROM spendings AS s
                   JOIN blocks AS b ON b.network = s.network AND b.hash = s.block_hash AND b.in_best_chain
                   WHERE s.transfer_id = output)
        OR NOT EXISTS (SELECT 1 FROM anchors AS k
                       JOIN blocks AS b ON b.network = k.network AND b.hash = k.block_hash AND b.in_best_chain
                       WHERE k.transfer_id = output)
$$;
