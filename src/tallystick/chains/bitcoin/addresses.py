"""Addresses of Bitcoin's family: base58check, bech32 (BIP173) and bech32m (BIP350), and the output scripts they mean.

For: showing where to pay, and reading where a refund goes. Holds true: the normal form of an address is its output
script in lower-case hex, the same on every chain of the family; nothing is encoded while a block is read. An address is
read only with a right checksum, and only for a chain that writes it so.
Must not: derive anything from keys, or know networks' names in the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import coincurve
from embit import base58, bech32
from embit.script import Script

from tallystick.chains.bitcoin.chains import CHAINS, FAMILY_TITLES, ChainForms
from tallystick.core.errors import InvalidInput

ADDRESS_LENGTH_MAX: Final = 128
"""MWEB addresses are the longest, with about 120 characters."""

_OP_1: Final = 0x51
_BECH32: Final = re.compile(r"[0-9A-Za-z]+1[02-9AC-HJ-NP-Zac-hj-np-z]{6,}", re.ASCII)
_BASE58: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{25,36}", re.ASCII)
_SCRIPT: Final = re.compile(r"[0-9a-f]{4,20000}", re.ASCII)
_TX_HASH: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_HASH_BYTES: Final = 20

_TYPING_ERROR: Final = "The address has a typing error: its checksum does not fit."


@dataclass(frozen=True, slots=True)
class _Read:
    """What an address says: its script, the chains that write it so, and whether in a form no longer written."""

    script: bytes
    chains: tuple[ChainForms, ...]
    is_old_form: bool = False


def normalize(text: str, family: str, chain: str | None) -> str:
    """The output script of an address in hex, for one chain or (None) any of the family. Raises InvalidInput."""
    return _read_for(text, family, chain).script.hex()


def check_destination(text: str, family: str, chain: str) -> str:
    """The normal form of an address that money may be sent to. Raises InvalidInput.

    Refused besides what is no address of that chain: scripts that anybody or nobody can spend (witness versions without
    rules, a taproot key that is no point, hashes of one repeated byte), and Litecoin's old form of script addresses,
    which is Bitcoin's present one: whoever gives it may mean Bitcoin.
    """
    found = _read_for(text, family, chain)
    if found.is_old_form:
        raise InvalidInput(
            f"This address may as well be Bitcoin's. Give it in {CHAINS[chain].title}'s present form, which wallets "
            "show under newer versions (on the main network it begins with M)."
        )
    version, program = witness_of(found.script)
    if version is not None and (version > 1 or (version == 1 and len(program) != 32)):
        raise InvalidInput(
            "There are no rules yet for spending from this kind of address: money is lost there."
        )
    if (version == 1 and not _is_point(program)) or len(set(program)) == 1:
        raise InvalidInput("Nobody can spend from this address: money sent there is lost.")
    return found.script.hex()


@lru_cache(maxsize=65536)  # the same addresses are shown again in every event of an invoice
def display(script: str, chain: str | None) -> str:
    """How people write an output script (hex) on a chain.

    The script itself where it has no address, or where the chain is not known. Raises InvalidInput for what is no
    script.
    """
    if not _SCRIPT.fullmatch(script) or len(script) % 2:
        raise InvalidInput("An output script is an even number of hexadecimal digits.")
    forms = CHAINS.get(chain or "")
    if forms is None:
        return script
    data = bytes.fromhex(script)
    version, program = witness_of(data)
    if version is not None:
        written = bech32.encode(forms.hrp, version, program)
        return script if written is None else str(written)
    kind = Script(data).script_type()
    if kind == "p2pkh":
        return str(base58.encode_check(bytes([forms.p2pkh]) + program))
    if kind == "p2sh":
        return str(base58.encode_check(bytes([forms.p2sh]) + program))
    return script


def normalize_tx_hash(text: str) -> str:
    """A transaction's id in lower case. Raises InvalidInput."""
    if not _TX_HASH.fullmatch(text):
        raise InvalidInput("A transaction's id is 64 hexadecimal digits.")
    return text.lower()


def witness_of(script: bytes) -> tuple[int | None, bytes]:
    """The witness version of a script and its program (BIP141); else None and the hash that it pays to, if any."""
    if 4 <= len(script) <= 42 and script[1] == len(script) - 2:
        if script[0] == 0:
            return 0, script[2:]
        if _OP_1 <= script[0] <= _OP_1 + 15:
            return script[0] - _OP_1 + 1, script[2:]
    kind = Script(script).script_type()
    if kind == "p2pkh":
        return None, script[3 : 3 + _HASH_BYTES]
    if kind == "p2sh":
        return None, script[2 : 2 + _HASH_BYTES]
    return None, b""


def _read_for(text: str, family: str, chain: str | None) -> _Read:
    if not text or len(text) > ADDRESS_LENGTH_MAX or not text.isascii() or not text.isalnum():
        raise InvalidInput(f"This is not an address of {_title(family, chain)}.")
    readings = list(_readings(text))
    for found in readings:
        for one in found.chains:
            if one.family == family and chain in (None, one.name):
                return found
    others = [one.title for found in readings for one in found.chains]
    if others:
        raise InvalidInput(f"This is an address of {others[0]}, not of {_title(family, chain)}.")
    raise InvalidInput(f"This is not an address of {_title(family, chain)}.")


def _title(family: str, chain: str | None) -> str:
    return FAMILY_TITLES[family] if chain is None else CHAINS[chain].title


def _readings(text: str) -> Iterator[_Read]:
    """Everything that the text can mean. Raises InvalidInput where it is an address with a mistake, or an MWEB one."""
    hrp = text.lower().rpartition("1")[0]
    if any(hrp == one.mweb_hrp for one in CHAINS.values()):
        raise InvalidInput(
            "This is an MWEB address. What is sent there is hidden on the chain, so that nobody could see the payment "
            "arrive: give an ordinary address."
        )
    segwit = tuple(one for one in CHAINS.values() if one.hrp == hrp)
    if segwit:
        yield _Read(_segwit_script(text, hrp), segwit)
    elif _BASE58.fullmatch(text):
        yield from _base58_readings(text)


def _segwit_script(text: str, hrp: str) -> bytes:
    version, program = bech32.decode(hrp, text) if _BECH32.fullmatch(text) else (None, None)
    if version is None or program is None:
        raise InvalidInput(_TYPING_ERROR)
    return bytes([_OP_1 + version - 1 if version else 0, len(program), *program])


def _base58_readings(text: str) -> Iterator[_Read]:
    try:
        data: bytes = base58.decode_check(text)
    except ValueError:
        raise InvalidInput(_TYPING_ERROR) from None
    if len(data) != 1 + _HASH_BYTES:
        return
    version, digest = data[0], data[1:]
    p2pkh = tuple(one for one in CHAINS.values() if one.p2pkh == version)
    p2sh = tuple(one for one in CHAINS.values() if one.p2sh == version)
    p2sh_old = tuple(one for one in CHAINS.values() if one.p2sh_old == version)
    if p2pkh:
        yield _Read(b"\x76\xa9\x14" + digest + b"\x88\xac", p2pkh)
    if p2sh:
        yield _Read(b"\xa9\x14" + digest + b"\x87", p2sh)
    if p2sh_old:
        yield _Read(b"\xa9\x14" + digest + b"\x87", p2sh_old, is_old_form=True)


def _is_point(x_only: bytes) -> bool:
    """Whether a taproot output's key is the x coordinate of a point (BIP340): if not, nobody can ever sign for it."""
    try:
        coincurve.PublicKeyXOnly(x_only)
    except ValueError:
        return False
    return True
