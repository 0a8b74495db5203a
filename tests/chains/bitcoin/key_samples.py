"""Keys of Bitcoin's family for tests, in every form that wallets write them in. Worth nothing."""

from __future__ import annotations

from bip32 import BIP32
from bip32.base58 import b58decode_check, b58encode_check

VERSIONS = {
    "xpub": "0488b21e",
    "ypub": "049d7cb2",
    "zpub": "04b24746",
    "tpub": "043587cf",
    "upub": "044a5262",
    "vpub": "045f1cf6",
    "Ltub": "019da462",
    "Mtub": "01b26ef6",
    "ttub": "0436f6e1",
    "Ypub": "0295b43f",
    "Zpub": "02aa7ed3",
    "Upub": "024289ef",
    "Vpub": "02575483",
    "xprv": "0488ade4",
    "yprv": "049d7878",
    "zprv": "04b2430c",
    "tprv": "04358394",
    "uprv": "044a4e28",
    "vprv": "045f18bc",
    "Ltpv": "019d9cfe",
    "Mtpv": "01b26792",
    "ttpv": "0436ef7d",
}
"""Version bytes by what the text then begins with (BIP32, SLIP-132, Litecoin Core)."""


def seed(number: int) -> BIP32:
    """A wallet."""
    return BIP32.from_seed(bytes([number]) * 32)


def as_form(extended_key: str, form: str) -> str:
    """The same key with other version bytes."""
    return str(b58encode_check(bytes.fromhex(VERSIONS[form]) + b58decode_check(extended_key)[4:]), "ascii")


def public(number: int = 1, path: str = "m/84'/2'/0'", form: str = "xpub") -> str:
    """A wallet's extended public key at a path."""
    return as_form(seed(number).get_xpub_from_path(path), form)


def private(number: int = 1, path: str = "m/84'/2'/0'", form: str = "xprv") -> str:
    """The extended private key there."""
    return as_form(seed(number).get_xpriv_from_path(path), form)


def wif(number: int = 1, version: int = 0x80) -> str:
    """A private key in wallet import format."""
    secret: bytes = seed(number).get_privkey_from_path("m/0")
    return str(b58encode_check(bytes([version]) + secret + b"\x01"), "ascii")
