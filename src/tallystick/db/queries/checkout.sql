-- What the checkout page needs beyond the invoice itself.

-- name: merchant_name_of
-- Who asks for the payment, as the customer knows them.
SELECT m.name FROM invoices AS i JOIN merchants AS m ON m.id = i.merchant_id WHERE i.id = :invoice_id;

-- name: ping
-- Whether a connection that only listens is still alive.
SELECT 1;
