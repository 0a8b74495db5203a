"""The deterministic simulation of the whole system: real services on a real PostgreSQL, everything else injected.

For: `tallystick simulate` and the tests. Holds true: time, chance, networks, chains, receivers and failures come from
the seed and from nowhere else, so that a seed shows the same on every machine. Must not: be imported by anything that
serves.
"""
