"""Where rates come from. Must not know invoices; a missing or doubtful rate is an error, never 0 or 1."""
