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
