"""A network that exists only in memory, behind the same protocol as real ones: for proving, never for money."""
