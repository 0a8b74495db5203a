"""TRON's account keys and addresses.

For: registering a merchant's wallet, issuing addresses, and reading or showing any address.
Holds true: an account is the same 20 bytes as an Ethereum account of the same key; TRON puts 0x41 in front and writes
them in base58 with a checksum, "T" and 33 more characters. Our normal form is 0x and the 20 bytes in lower-case hex,
which is also what its JSON-RPC says. Keys are read and refused by the EVM family's rules.
Must not: hold or derive private keys, or take an address for money to go to that was written for another family.

Base58 is the `embit` package's; derivation is `evm.addresses`, at path 0/index below the account key
(BIP44, SLIP-44 coin 195: m/44'/195'/account'/0/index).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from embit import base58

from tallystick.chains.evm import addresses as evm
from tallystick.core.errors import InvalidInput

_PREFIX: Final = b"\x41"
_BASE58: Final = re.compile(r"T[1-9A-HJ-NP-Za-km-z]{33}", re.ASCII)
_WITH_PREFIX: Final = re.compile(r"(?:0x)?(41[0-9a-fA-F]{40})", re.ASCII)
_TX_HASH: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{64})", re.ASCII)
# The zero address, to which wallets send "black hole" payments, and the virtual machine's built-in contracts.
_NOBODYS_MAX: Final = 0x0100_FFFF
_SHAPE: Final = "A TRON address is T and 33 more letters and digits, or 41 and 40 hexadecimal digits."


def parse_account_key(text: str, *, pointer: str = "/account_key") -> evm.EvmAccountKey:
    """Read an account xpub at m/44'/195'/account'. Raises InvalidInput at `pointer`, which repeats nothing of it."""
    return evm.EvmAccountKey.parse(text, pointer=pointer, wanted="a TRON account (m/44'/195'/0')")


def normalize(address: str) -> str:
    """The address as 0x and 40 lower-case hex digits. Raises InvalidInput.

    Taken are base58check (T…), hex with TRON's prefix (41…, perhaps with 0x before it), and 0x with 20 bytes.
    """
    if address.startswith("T"):
        return _decoded(address)
    prefixed = _WITH_PREFIX.fullmatch(address)
    if prefixed is not None:
        return "0x" + prefixed[1][2:].lower()
    if address.startswith("0x") and len(address) == 42:
        return evm.normalize(address)
    raise InvalidInput(_SHAPE)


def check_destination(address: str) -> str:
    """The normal form of an address that money may be sent to. Raises InvalidInput.

    0x forms are refused here: who types one has an Ethereum address in mind, which at an exchange is another account.
    So are addresses of nobody, the zero address and those of built-in contracts, and one byte twenty times.
    """
    if address.startswith("0x"):
        raise InvalidInput("This is an address of Ethereum's kind. A TRON address begins with T.")
    normal = normalize(address)
    if int(normal, 16) <= _NOBODYS_MAX or len(set(normal[2:])) == 1:
        raise InvalidInput("Nobody can spend from this address: money sent there is lost.")
    return normal


def normalize_tx_hash(text: str) -> str:
    """A transaction's id as 0x and 64 lower-case hex digits; people write it without 0x. Raises InvalidInput."""
    match = _TX_HASH.fullmatch(text)
    if match is None:
        raise InvalidInput("A TRON transaction's id is 64 hexadecimal digits.")
    return "0x" + match[1].lower()


# Shown again in every event of an invoice, as on EVM networks; base58 and its checksum take 10 µs.
@lru_cache(maxsize=65536)
def display(address: str) -> str:
    """The address in base58check, as people and wallets write it. Raises InvalidInput like `normalize`."""
    return str(base58.encode_check(_PREFIX + bytes.fromhex(normalize(address)[2:])))


def with_prefix(address: str) -> str:
    """The address as the HTTP interface writes it: 41 and 40 hex digits. Raises InvalidInput like `normalize`."""
    return _PREFIX.hex() + normalize(address)[2:]


def _decoded(address: str) -> str:
    """The normal form of base58check text. Its shape is checked first: the package takes any length and any text."""
    if not _BASE58.fullmatch(address):
        raise InvalidInput(_SHAPE)
    try:
        raw: bytes = base58.decode_check(address)
    except ValueError:
        raise InvalidInput("The address has a typing error: its checksum does not fit.") from None
    if len(raw) != 21 or raw[:1] != _PREFIX:
        raise InvalidInput(_SHAPE)
    return "0x" + raw[1:].hex()
