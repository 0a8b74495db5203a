"""Log blooms: which addresses and topics the logs of a receipt must hold.

For: noticing logs that a node left out or added.
Holds true: the bits are those of the Yellow Paper (section 4.3.1, M3:2048): of each address and topic, the
low 11 bits of the first three 16-bit pairs of its Keccak-256.
Must not: be taken as proof that a log exists; a bloom has false positives. Together with the contiguous log
indices it shows omissions, which is what it is used for.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from tallystick.chains.evm.keccak import keccak_256
from tallystick.core.errors import SourceIncomplete

BLOOM_BITS: Final = 2048
REMEMBERED_MAX: Final = 40_000

EMPTY_BLOOM: Final = "0x" + "00" * (BLOOM_BITS // 8)

_BIT: Final = tuple(1 << position for position in range(BLOOM_BITS))
_pairs_of: Final = Struct(">HHH").unpack_from


class BloomBits(dict[str, int]):
    """Hex text of an address or topic -> its bits as a 2048-bit number. Computed on first access.

    Contracts, their event topics and busy accounts come back in every block, so hashing them once pays. The
    memory is bounded: when `REMEMBERED_MAX` entries (about 20 MB) are held it starts anew.
    """

    def __missing__(self, text: str) -> int:
        try:
            raw = bytes.fromhex(text[2:])
        except ValueError:
            raw = b""
        if len(raw) * 2 + 2 != len(text) or text[:2] != "0x":
            raise SourceIncomplete("A log holds something else where an address or topic belongs.")
        first, second, third = _pairs_of(keccak_256(raw).digest())
        bits: int = _BIT[first & 2047] | _BIT[second & 2047] | _BIT[third & 2047]
        if len(self) >= REMEMBERED_MAX:
            self.clear()
        self[text] = bits
        return bits


BITS_OF: Final = BloomBits()
"""Shared by all EVM networks of a process: an address has the same bits everywhere."""


def bloom_text(bits: int) -> str:
    """The 0x-prefixed hex text of a bloom, as nodes write it."""
    return "0x" + bits.to_bytes(BLOOM_BITS // 8, "big").hex()


def bloom_number(text: str | None) -> int | None:
    """The bits in a bloom's hex text of any letter case; None if it is not one."""
    if text is None or len(text) != len(EMPTY_BLOOM) or text[:2] != "0x":
        return None
    try:
        raw = bytes.fromhex(text[2:])
    except ValueError:
        return None
    return int.from_bytes(raw, "big") if len(raw) == BLOOM_BITS // 8 else None
