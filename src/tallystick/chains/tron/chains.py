"""TRON's networks by name.

For: the configuration. Holds true: a chain's id is the last four bytes of its first block's id, which is what nodes
answer to `eth_chainId`; so both interfaces of a node name its chain alike, and a network can change from one to the
other. Must not: import anything slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CHAIN_IDS: Final[Mapping[str, int]] = {
    "tron": 0x2B6653DC,
    "tron-nile": 0xCD8690DC,
    "tron-shasta": 0x94A9059E,
}
"""Main net and the two public test networks."""

API_KEY_HEADER: Final = "TRON-PRO-API-KEY"
"""The header in which TronGrid expects an access key."""


def chain_id_of(genesis_id: str) -> int:
    """The chain id in the id of a first block: hex digits, with or without 0x."""
    return int(genesis_id[-8:], 16)
