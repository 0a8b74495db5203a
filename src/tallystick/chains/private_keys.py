"""Recognising private keys in texts that should hold public ones.

For: every family's reading of account keys, and registering wallets. Holds true: it judges the looks of a text only, so
that a damaged or unknown private key is recognised as well; better one text too many than one too few.
Must not: decode, keep or repeat anything.
"""

from __future__ import annotations

import re
from typing import Final

from tallystick.core.errors import InvalidInput

# Extended private keys of Bitcoin and Litecoin, wherever in the text they stand (SLIP-132 and the coins' own).
_EXTENDED: Final = re.compile(r"(?:[xyztuvYZUV]prv|[LMt]tpv|dgpv)[1-9A-HJ-NP-Za-km-z]{8}", re.ASCII)
_WHOLE_TEXTS: Final = (
    re.compile(r"\{.*", re.DOTALL),  # a key file
    # A recovery phrase (BIP39) in any language, its words perhaps numbered.
    re.compile(r"(?:(?:\d{1,2}[.):]?\s*)?[^\W\d_]+[\s,;]+){11,}(?:\d{1,2}[.):]?\s*)?[^\W\d_]+"),
)
_TOKENS: Final = (
    re.compile(r"(?:0[xX])?[0-9a-fA-F]{64}", re.ASCII),  # a raw key
    re.compile(r"(?:0[xX])?[0-9a-fA-F]{128}", re.ASCII),  # a seed
    re.compile(r"[5KL9cTQ6][1-9A-HJ-NP-Za-km-z]{50,51}", re.ASCII),  # wallet import format
    re.compile(r"6P[1-9A-HJ-NP-Za-km-z]{56}", re.ASCII),  # an encrypted key (BIP38)
)
_BETWEEN_TOKENS: Final = re.compile(r"[^0-9A-Za-z]+", re.ASCII)


def looks_private(text: str) -> bool:
    """Whether the text looks like a private key or recovery phrase, or holds such a key: in a descriptor, say."""
    if _EXTENDED.search(text) or any(form.fullmatch(text) for form in _WHOLE_TEXTS):
        return True
    return any(form.fullmatch(token) for token in _BETWEEN_TOKENS.split(text) for form in _TOKENS)


def refuse_private(text: str, pointer: str) -> None:
    """Raise InvalidInput at `pointer` for a text that looks private. The message repeats nothing of it."""
    if looks_private(text):
        raise InvalidInput.at(
            pointer,
            "This looks like a private key or a recovery phrase. Tallystick never needs one: give the account's "
            "public key. If this was a real key, regard it as disclosed and move its funds.",
        )
