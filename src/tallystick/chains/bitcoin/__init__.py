"""The Bitcoin families: Bitcoin and Litecoin, read from a node of Bitcoin Core's kind."""
