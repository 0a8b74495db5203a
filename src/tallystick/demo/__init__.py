"""A complete local set-up to look at and to test with: a chain, a token, a customer, a shop."""
