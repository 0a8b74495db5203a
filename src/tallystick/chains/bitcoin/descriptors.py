"""Account keys of Bitcoin's family: extended public keys, and output descriptors (BIP380 to 386, 389).

For: registering a merchant's wallet and issuing addresses from it. Holds true: a key is read only if every address that
comes from it is determined and its owner's wallet finds it: BIP44, 49, 84 keys by their prefix, else what a descriptor
says. Private keys are refused wherever they stand, and messages repeat nothing of what was given.
Must not: hold private keys, remember which indices were used, or build transactions (`psbt` does, from `descriptor`).

The descriptors read are those whose addresses differ in their index only: pkh, wpkh, sh(wpkh), tr with a key alone, and
wsh(multi) and wsh(sortedmulti), each key extended, with or without its origin, ending in `/*`, `/0/*` or `/<0;1>/*`. So
few forms need no grammar but a pattern. Scripts are built by `embit`, keys derived by `bip32` (libsecp256k1).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from embit import script
from embit.descriptor.checksum import checksum
from embit.ec import PublicKey

from tallystick.chains.bitcoin.chains import FAMILY_TITLES
from tallystick.chains.bitcoin.keys import (
    HARDENED,
    PREFIXES,
    Branch,
    ExtendedKey,
    ScriptKind,
    read_extended_key,
)
from tallystick.chains.private_keys import refuse_private
from tallystick.core.errors import InvalidInput

ACCOUNT_KEY_LENGTH_MAX: Final = 4096
MULTISIG_KEYS_MAX: Final = 16
"""Keys that one opcode can count (OP_1 to OP_16)."""

_EXTERNAL: Final = 0
_ORIGIN: Final = r"\[(?P<origin>[0-9a-fA-F]{8}(?:/[0-9]{1,10}['hH]?){0,32})\]"
_PLAIN: Final = re.compile(rf"(?:{_ORIGIN})?(?P<key>[1-9A-HJ-NP-Za-km-z]+)", re.ASCII)
_KEY: Final = re.compile(
    rf"(?:{_ORIGIN})?(?P<key>[1-9A-HJ-NP-Za-km-z]+)(?P<steps>/\*|/0/\*|/<0;1>/\*|/[^,()]*)?", re.ASCII
)
_DESCRIPTOR: Final = re.compile(
    r"(?P<kind>pkh|wpkh|sh\(wpkh|tr|wsh\(multi|wsh\(sortedmulti)\((?P<inner>[ -'*-~]*)(?P<end>\){1,2})"
    r"(?:#(?P<checksum>[a-z0-9]{0,16}))?",
    re.ASCII,
)
_STEPS: Final = {"/*": (), "/0/*": (_EXTERNAL,), "/<0;1>/*": (_EXTERNAL,)}
_OTHER_PREFIXES: Final = ("Ypub", "Zpub", "Upub", "Vpub")
_SINGLE: Final[dict[ScriptKind, Callable[[Any], Any]]] = {
    ScriptKind.PKH: script.p2pkh,
    ScriptKind.WPKH: script.p2wpkh,
    ScriptKind.SH_WPKH: lambda key: script.p2sh(script.p2wpkh(key)),
    ScriptKind.TR: script.p2tr,
}


@dataclass(frozen=True, slots=True)
class BitcoinAccountKey:
    """What a merchant's addresses come from.

    `fingerprint` identifies the public keys that addresses are children of, in whatever form they were given, so that
    no address is issued twice: of a multisig, all of them. `descriptor` is the same wallet as a descriptor with xpubs
    and, where the form allows it, the branch for change (`<0;1>`). `worthless`: a key for test networks.
    """

    fingerprint: str
    descriptor: str
    kind: ScriptKind
    worthless: bool
    has_branches: bool
    _threshold: int
    _branches: tuple[Branch, ...] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, family: str, *, pointer: str = "/account_key") -> BitcoinAccountKey:
        """Read an extended public key or descriptor. Raises InvalidInput at `pointer`."""
        given = text.strip()
        if len(given) > ACCOUNT_KEY_LENGTH_MAX:
            raise InvalidInput.at(
                pointer, f"An account key has no more than {ACCOUNT_KEY_LENGTH_MAX} characters."
            )
        refuse_private(given, pointer)
        if "(" in given:
            return _read_descriptor(given, pointer)
        return _read_plain(given, family, pointer)

    def script(self, index: int) -> str:
        """The output script of external child `index` in hex: the normal form of its address. Raises InvalidInput."""
        keys = [PublicKey.parse(branch.public_key_at(index)) for branch in self._branches]
        if self.kind in _SINGLE:
            return str(_SINGLE[self.kind](keys[0]).data.hex())
        if self.kind is ScriptKind.SORTEDMULTI:
            keys.sort(key=lambda key: key.sec())  # BIP67
        return str(script.p2wsh(script.multisig(self._threshold, keys)).data.hex())

    def path(self, index: int) -> str:
        """Where that child is below the keys as registered."""
        return f"{_EXTERNAL}/{index}" if self.has_branches else str(index)


# Reading an account key costs more than deriving an address from it; a shop uses the same few keys all day.
@lru_cache(maxsize=1024)
def read_account_key(text: str, family: str) -> BitcoinAccountKey:
    """A registered account key. Raises InvalidInput."""
    return BitcoinAccountKey.parse(text, family)


def _read_plain(text: str, family: str, pointer: str) -> BitcoinAccountKey:
    """A key by itself, perhaps with its origin before it; its prefix says which scripts are paid to."""
    found = _PLAIN.fullmatch(text)
    key_text = found["key"] if found else ""
    if key_text.startswith(_OTHER_PREFIXES):
        raise InvalidInput.at(
            pointer,
            "This is one key of several that sign together. Give the wallet's output descriptor, wsh(…).",
        )
    if not key_text.startswith(tuple(PREFIXES)):
        raise InvalidInput.at(
            pointer,
            f"An account key of {FAMILY_TITLES[family]} is an extended public key (xpub, ypub, zpub) or an output "
            "descriptor. Not a single address: every invoice has its own.",
        )
    part = _KeyPart.read(key_text, found["origin"] if found else None, "/<0;1>/*", pointer)
    key = part.key
    if key.prefix.family not in (None, family):
        raise InvalidInput.at(pointer, f"This is a key for Litecoin, not for {FAMILY_TITLES[family]}.")
    if key.depth > 0 and key.child_number < HARDENED:
        raise InvalidInput.at(
            pointer,
            "This key belongs below an account (it ends in a step that is not hardened). Give the account's key, "
            "m/84'/0'/0' in most wallets, so that the addresses are those of the wallet; or a descriptor.",
        )
    return _account_key(key.prefix.kind, [part], 1, pointer)


@dataclass(frozen=True, slots=True)
class _KeyPart:
    key: ExtendedKey
    origin: str | None
    steps: str

    @classmethod
    def read(cls, key: str, origin: str | None, steps: str, pointer: str) -> _KeyPart:
        """Read the key. Raises InvalidInput."""
        numbers = [] if origin is None else origin.split("/")[1:]
        if any(int(number.rstrip("'hH")) >= HARDENED for number in numbers):
            raise InvalidInput.at(pointer, "The path of a key's origin has a number that is too large.")
        return cls(read_extended_key(key, pointer), origin, steps)

    @property
    def text(self) -> str:
        """The key as it stands in `descriptor`."""
        origin = "" if self.origin is None else f"[{self.origin.replace('H', 'h')}]"
        return f"{origin}{self.key.text}{self.steps}"


def _read_descriptor(text: str, pointer: str) -> BitcoinAccountKey:
    found = _DESCRIPTOR.fullmatch(text)
    if found is None or found["end"] != ")" * found["kind"].count("(") + ")":
        raise InvalidInput.at(
            pointer,
            "This is no descriptor that is understood here: pkh, wpkh, sh(wpkh), tr with a key alone, wsh(multi) or "
            "wsh(sortedmulti), with extended public keys.",
        )
    if found["checksum"] is not None and found["checksum"] != checksum(text.rpartition("#")[0]):
        raise InvalidInput.at(pointer, "The descriptor has a typing error: its checksum does not fit.")
    kind = ScriptKind(found["kind"])
    arguments = found["inner"].split(",")
    threshold = 1
    if kind in (ScriptKind.MULTI, ScriptKind.SORTEDMULTI):
        first, *arguments = arguments
        if not re.fullmatch("[1-9][0-9]?", first, re.ASCII) or not int(first) <= len(arguments):
            raise InvalidInput.at(
                pointer, "The number of signatures must lie between 1 and the number of keys."
            )
        threshold = int(first)
        if len(arguments) > MULTISIG_KEYS_MAX:
            raise InvalidInput.at(pointer, f"At most {MULTISIG_KEYS_MAX} keys can sign together.")
    elif len(arguments) != 1:
        raise InvalidInput.at(pointer, f"{kind}(…) takes one key and nothing else here.")
    return _account_key(kind, [_read_key(one, pointer) for one in arguments], threshold, pointer)


def _read_key(text: str, pointer: str) -> _KeyPart:
    found = _KEY.fullmatch(text)
    if found is None or not found["key"].startswith(("xpub", "tpub")):
        raise InvalidInput.at(
            pointer,
            "Every key in a descriptor must be an extended public key written as xpub (tpub for tests).",
        )
    if found["steps"] not in _STEPS:
        raise InvalidInput.at(
            pointer,
            "Every key in a descriptor must end in /<0;1>/*, /0/* or /*, so that every invoice has its own address "
            "and the wallet finds it.",
        )
    return _KeyPart.read(found["key"], found["origin"], found["steps"], pointer)


def _account_key(kind: ScriptKind, parts: list[_KeyPart], threshold: int, pointer: str) -> BitcoinAccountKey:
    if len({(part.steps, part.key.prefix.worthless) for part in parts}) > 1:
        raise InvalidInput.at(
            pointer, "The keys of a descriptor must all end alike, and be all for a test network or none."
        )
    branches = tuple(part.key.child(*_STEPS[part.steps]) for part in parts)
    identities = sorted(branch.chain_code + branch.public_key for branch in branches)
    if len({branch.public_key for branch in branches}) != len(branches):
        raise InvalidInput.at(pointer, "A key stands in the descriptor twice.")
    inner = ",".join(part.text for part in parts)
    if kind in (ScriptKind.MULTI, ScriptKind.SORTEDMULTI):
        inner = f"{threshold},{inner}"
    return BitcoinAccountKey(
        fingerprint=hashlib.sha256(b"".join(identities)).hexdigest(),
        descriptor=f"{kind}({inner}{')' * (kind.count('(') + 1)}",
        kind=kind,
        worthless=parts[0].key.prefix.worthless,
        has_branches=parts[0].steps != "/*",
        _threshold=threshold,
        _branches=branches,
    )
