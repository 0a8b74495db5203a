"""Use cases. Each one is a transaction: load, let `core` decide, save. Must not know HTTP, HTML or a command line."""
