"""Extended public keys of Bitcoin's family (BIP32), with the prefixes that wallets write them with (SLIP-132).

For: descriptors and account keys. Holds true: only public keys get in; messages repeat nothing of what was given. A
prefix says which scripts are paid to, and whether the key is meant for a test network; the key itself is the same
whatever the prefix.
Must not: hold or derive private keys, or know which indices were used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from bip32 import BIP32
from embit import base58

from tallystick.core.errors import InvalidInput

HARDENED: Final = 2**31
"""Children from here on cannot be derived from a public key (BIP32)."""

_EXTENDED_KEY_LENGTH: Final = 111
_EXTENDED_KEY_BYTES: Final = 78
_XPUB: Final = bytes.fromhex("0488b21e")
_TPUB: Final = bytes.fromhex("043587cf")


class ScriptKind(StrEnum):
    """What an address of a key pays to, as the outer part of its descriptor (BIP380)."""

    PKH = "pkh"
    SH_WPKH = "sh(wpkh"
    WPKH = "wpkh"
    TR = "tr"
    MULTI = "wsh(multi"
    SORTEDMULTI = "wsh(sortedmulti"


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the first four bytes of an extended public key say. `family` None: every family of the kind."""

    kind: ScriptKind
    worthless: bool
    family: str | None = None


PREFIXES: Final[Mapping[str, tuple[bytes, Prefix]]] = MappingProxyType(
    {
        "xpub": (_XPUB, Prefix(ScriptKind.PKH, worthless=False)),
        "ypub": (bytes.fromhex("049d7cb2"), Prefix(ScriptKind.SH_WPKH, worthless=False)),
        "zpub": (bytes.fromhex("04b24746"), Prefix(ScriptKind.WPKH, worthless=False)),
        "Ltub": (bytes.fromhex("019da462"), Prefix(ScriptKind.PKH, worthless=False, family="litecoin")),
        "Mtub": (bytes.fromhex("01b26ef6"), Prefix(ScriptKind.SH_WPKH, worthless=False, family="litecoin")),
        "tpub": (_TPUB, Prefix(ScriptKind.PKH, worthless=True)),
        "upub": (bytes.fromhex("044a5262"), Prefix(ScriptKind.SH_WPKH, worthless=True)),
        "vpub": (bytes.fromhex("045f1cf6"), Prefix(ScriptKind.WPKH, worthless=True)),
        "ttub": (bytes.fromhex("0436f6e1"), Prefix(ScriptKind.PKH, worthless=True, family="litecoin")),
    }
)
"""What each prefix means for a key given by itself (SLIP-132, Electrum-LTC)."""


@dataclass(frozen=True, slots=True)
class ExtendedKey:
    """A public key and what derives its children. `text` is the key written as xpub or tpub."""

    text: str
    prefix: Prefix
    depth: int
    child_number: int
    _chain: BIP32 = field(repr=False, compare=False)

    def child(self, *path: int) -> Branch:
        """The key below, over steps that are not hardened: a branch whose children are addresses' keys."""
        chain_code, public_key = self._chain.get_extended_pubkey_from_path(list(path))
        return Branch(chain_code, public_key, BIP32(chain_code, pubkey=public_key))


@dataclass(frozen=True, slots=True)
class Branch:
    """A key whose children are those of addresses."""

    chain_code: bytes
    public_key: bytes
    _chain: BIP32 = field(repr=False, compare=False)

    def public_key_at(self, index: int) -> bytes:
        """The compressed public key of child `index`. Raises InvalidInput for one that is hardened or negative."""
        if not 0 <= index < HARDENED:
            raise InvalidInput(f"An address index must lie between 0 and {HARDENED - 1}.")
        found: bytes = self._chain.get_pubkey_from_path([index])
        return found


def read_extended_key(text: str, pointer: str) -> ExtendedKey:
    """Read an extended public key with a prefix of PREFIXES. Raises InvalidInput at `pointer`."""
    known = PREFIXES.get(text[:4])
    if known is None or len(text) != _EXTENDED_KEY_LENGTH or not text.isascii():
        raise _damaged(pointer)
    version, prefix = known
    plain = _TPUB if prefix.worthless else _XPUB
    try:
        data: bytes = base58.decode_check(text)
        if len(data) != _EXTENDED_KEY_BYTES or data[:4] != version:
            raise _damaged(pointer)
        written = base58.encode_check(plain + data[4:])
        chain = BIP32.from_xpub(written)
    except (ValueError, AssertionError, KeyError, IndexError):  # the packages' errors repeat parts of the key
        raise _damaged(pointer) from None
    return ExtendedKey(written, prefix, chain.depth, chain.index, chain)


def _damaged(pointer: str) -> InvalidInput:
    return InvalidInput.at(
        pointer, "This is not a valid extended public key: it is cut off or has a typing error."
    )
