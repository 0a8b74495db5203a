"""PostgreSQL: schema, hand-written queries, and modules that turn rows into core types. Must not decide anything."""
