"""TRON: addresses, payment requests, and facts from the nodes' own HTTP interface. Its JSON-RPC is `evm.source`'s."""
