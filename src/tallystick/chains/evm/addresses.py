"""Account keys and addresses of the EVM family.

For: registering a merchant's wallet, issuing addresses, and reading or showing any address.
Holds true: only public keys are kept. Whatever looks like a private key or a recovery phrase is refused with
a message that repeats nothing of it. Addresses are compared in lower case and shown with their checksum
(EIP-55).
Must not: hold or derive private keys, or remember which indices were used.

Derivation is BIP32's public child derivation by the `bip32` package, at path 0/index below the account key
(BIP44: m/44'/60'/account'/0/index). It takes 0.06 ms an address, 0.01 ms more than coincurve used directly,
which is not worth a derivation of our own. The checksum is computed here: eth-utils takes another 0.04 ms and
0.25 s at start.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import coincurve
from bip32 import BIP32

from tallystick.chains.evm.keccak import keccak256
from tallystick.chains.private_keys import refuse_private
from tallystick.core.errors import InvalidInput

ACCOUNT_KEY_LENGTH_MAX: Final = 512
INDEX_LIMIT: Final = 2**31
"""Indices from here on are hardened (BIP32) and cannot be derived from a public key."""

ETHEREUM_ACCOUNT: Final = "an Ethereum account (m/44'/60'/0' in most wallets)"

_EXTENDED_KEY_LENGTH: Final = 111
_EXTERNAL_CHAIN: Final = 0
_HARDENED: Final = 2**31

_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_TX_HASH: Final = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)
_NOBODYS_MAX: Final = 0xFFFF
_OTHER_FAMILY_PREFIXES: Final = (
    "ypub", "zpub", "Ypub", "Zpub", "upub", "vpub", "Upub", "Vpub", "Ltub", "Mtub", "ttub", "dgub",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EvmAccountKey:
    """An account's extended public key. `fingerprint` is its identity, whatever prefix it is written with."""

    fingerprint: str
    _chain: BIP32 = field(repr=False, compare=False)

    @classmethod
    def parse(
        cls, text: str, *, pointer: str = "/account_key", wanted: str = ETHEREUM_ACCOUNT
    ) -> EvmAccountKey:
        """Read an account xpub, or tpub: the prefix says nothing here. Raises InvalidInput at `pointer`.

        `wanted` is how the refusals name what they ask for: TRON's keys are read here as well.
        """
        key = text.strip()
        if len(key) <= ACCOUNT_KEY_LENGTH_MAX:
            refuse_private(key, pointer)
        problem = _refusal(key, wanted)
        account = None if problem else _account(key)
        if account is None:
            detail = (
                problem or "This is not a valid extended public key: it is cut off or has a typing error."
            )
            raise InvalidInput.at(pointer, detail)
        if account.depth > 0 and account.index < _HARDENED:
            raise InvalidInput.at(
                pointer,
                "This key belongs below an account (it ends in a step that is not hardened). Give the key of "
                f"{wanted}, so that the addresses are those of the wallet.",
            )
        chaincode, public_key = account.get_extended_pubkey_from_path([_EXTERNAL_CHAIN])
        fingerprint = hashlib.sha256(account.chaincode + account.pubkey).hexdigest()
        return cls(fingerprint, BIP32(chaincode, pubkey=public_key))

    def derive(self, index: int) -> str:
        """The address at 0/`index` (0 <= index < 2**31) with its EIP-55 checksum. Raises InvalidInput."""
        if not 0 <= index < INDEX_LIMIT:
            raise InvalidInput(f"An address index must lie between 0 and {INDEX_LIMIT - 1}.")
        compressed: bytes = self._chain.get_pubkey_from_path([index])
        point: bytes = coincurve.PublicKey(compressed).format(compressed=False)[1:]
        return _with_checksum(keccak256(point)[-20:].hex())


def normalize(address: str) -> str:
    """The address in lower case, our form for comparing. Raises InvalidInput.

    A mixed-case address carries a checksum (EIP-55) and must fit it; one in a single case has none to check.
    """
    if len(address) != 42 or not _ADDRESS.fullmatch(address):
        raise InvalidInput("An address is 0x and 40 hexadecimal digits.")
    digits = address[2:]
    if digits not in (digits.lower(), digits.upper()) and address != _with_checksum(digits.lower()):
        raise InvalidInput("The address has a typing error: its upper and lower case do not fit (EIP-55).")
    return address.lower()


def check_destination(address: str) -> str:
    """The normal form of an address that money may be sent to. Raises InvalidInput.

    Refused besides what is no address: the zero address, those of precompiled contracts, the customary burn address,
    and one digit forty times (0xEeee… stands for the native coin in many programs). Nobody holds a key of theirs, and
    wallets show the zero address where one is missing.
    """
    normal = normalize(address)
    if int(normal, 16) <= _NOBODYS_MAX or len(set(normal[2:])) == 1:
        raise InvalidInput("Nobody can spend from this address: money sent there is lost.")
    return normal


def normalize_tx_hash(text: str) -> str:
    """A transaction's hash in lower case. Raises InvalidInput."""
    if not _TX_HASH.fullmatch(text):
        raise InvalidInput("A transaction hash is 0x and 64 hexadecimal digits.")
    return text.lower()


def display(address: str) -> str:
    """The address with its EIP-55 checksum, for people and wallets. Raises InvalidInput like `normalize`."""
    return _with_checksum(normalize(address)[2:])


# The same addresses are shown again in every event of an invoice; hashing them anew was two fifths of intake's time.
@lru_cache(maxsize=65536)
def _with_checksum(digits: str) -> str:
    """EIP-55: a letter is upper case where the hash of the lower-case digits has a nibble of 8 or more."""
    nibbles = keccak256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if nibble >= "8" else digit for digit, nibble in zip(digits, nibbles, strict=False)
    )


def _refusal(key: str, wanted: str) -> str | None:
    """Why the text cannot be an account key, or None if it may be one. Never holds a part of the text."""
    if len(key) > ACCOUNT_KEY_LENGTH_MAX:
        return f"An account key has no more than {ACCOUNT_KEY_LENGTH_MAX} characters."
    if key.startswith(_OTHER_FAMILY_PREFIXES):
        return f"This is a key for a network of the Bitcoin family. Give the xpub of {wanted}."
    if "(" in key or "[" in key:
        return f"Output descriptors belong to the Bitcoin family. Give the xpub of {wanted}."
    if _ADDRESS.fullmatch(key):
        return "This is a single address. Give the account's xpub, so that every invoice has its own address."
    if not key.startswith(("xpub", "tpub")):
        return "An account key begins with xpub."
    return None


def _account(key: str) -> BIP32 | None:
    """The key, or None if it is damaged. The package's errors repeat parts of it, so they end here."""
    if len(key) != _EXTENDED_KEY_LENGTH or not key.isascii():
        return None
    try:
        return BIP32.from_xpub(key)
    except (ValueError, AssertionError, KeyError, IndexError):
        return None
