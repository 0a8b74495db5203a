"""Sources of facts, a folder per network family. Must not know invoices, merchants or the database."""
