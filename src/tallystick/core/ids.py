"""Identifiers: a prefix that names the kind, then 26 characters that sort by time.

For: every object that the API names. Holds true: an id is made from a Unix time in milliseconds (48 bits) and
80 random bits, both given by the caller, laid out as RFC 9562 lays out UUIDv7's time and written in base32hex
(RFC 4648 section 7), whose order is the order of the bytes. So ids of one kind sort by creation time as text.
Must not: draw randomness or read a clock.
"""

from __future__ import annotations

import re
from base64 import b32hexencode
from enum import StrEnum
from typing import Final

RANDOM_BYTES: Final = 10


class IdKind(StrEnum):
    """Prefixes of the public contract. The value is the prefix without its underscore."""

    INVOICE = "inv"
    OPTION = "opt"
    PAYMENT = "pay"
    TRANSFER = "trf"
    EVENT = "evt"
    WEBHOOK_ENDPOINT = "whe"
    DELIVERY = "dlv"
    REFUND = "rfd"
    SETTLEMENT = "stl"
    ESCROW = "esc"
    EXCEPTION = "exc"
    WALLET = "wal"
    MERCHANT = "mer"
    KEY = "key"
    TRANSITION = "trn"
    LEDGER_ENTRY = "ent"


_BODY: Final = re.compile(r"[0-9a-v]{26}", re.ASCII)


def make_id(kind: IdKind, unix_ms: int, randomness: bytes) -> str:
    """Build an id from a time and exactly RANDOM_BYTES random bytes."""
    if len(randomness) != RANDOM_BYTES:
        raise ValueError(f"an id takes {RANDOM_BYTES} random bytes")
    raw = unix_ms.to_bytes(6, "big") + randomness
    return f"{kind}_{b32hexencode(raw).decode().rstrip('=').lower()}"


def is_id(kind: IdKind, text: str) -> bool:
    """Whether `text` has the shape of an id of this kind. Says nothing about whether the object exists."""
    prefix, _, body = text.partition("_")
    return prefix == kind.value and _BODY.fullmatch(body) is not None


def id_pattern(kind: IdKind) -> str:
    """The shape of an id of this kind as a regular expression that JSON Schema understands (ECMA 262)."""
    return f"^{kind.value}_[0-9a-v]{{26}}$"
