-- What the customer's page shows beside the invoice itself.

-- name: refunds_of
-- The refunds of an invoice, oldest first, as far as its customer may see them: never the address, the reason or who
-- decided. The transaction is the one that stands in the best chain, not one that was only told.
SELECT r.id, r.network, r.asset_symbol, r.asset_decimals, r.amount_sent, r.address IS NOT NULL AS has_address, (
           SELECT t.tx_hash
           FROM refund_transfers AS t
           JOIN refund_anchors AS a ON a.transfer_id = t.id
           JOIN blocks AS b ON b.network = a.network AND b.hash = a.block_hash
           WHERE t.refund_id = r.id AND b.in_best_chain
           ORDER BY b.height, t.id
           LIMIT 1
       ) AS tx_hash
FROM refunds AS r
WHERE r.invoice_id = :invoice_id
ORDER BY r.id;
