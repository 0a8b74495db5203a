"""Merchants, their keys, and who is asking.

For: the API's authentication and the command line. Holds true: a key is 160 random bits; it is shown once, when it
is made, and only its SHA-256 is kept. That many bits need neither salt nor stretching. A key speaks for exactly one
merchant.
Must not: log, store or repeat a key.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b32encode
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tallystick.core.errors import InsufficientScope, InvalidInput, NotFound, Unauthenticated
from tallystick.core.ids import IdKind
from tallystick.db import merchants as rows
from tallystick.db.sql import Connection
from tallystick.services.context import Context

KEY_PREFIX: Final = "ts_"
KEY_RANDOM_BYTES: Final = 20
NAME_LENGTH_MAX: Final = 200

_KEY: Final = re.compile(r"ts_[a-z2-7]{32}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Scope(StrEnum):
    """Rights that a key can carry, as published."""

    INVOICES_READ = "invoices:read"
    INVOICES_WRITE = "invoices:write"
    REFUNDS_WRITE = "refunds:write"
    REFUNDS_APPROVE = "refunds:approve"
    SETTLEMENTS_READ = "settlements:read"
    SETTLEMENTS_WRITE = "settlements:write"
    WEBHOOKS_WRITE = "webhooks:write"
    EXCEPTIONS_WRITE = "exceptions:write"
    REPORTS_READ = "reports:read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a key of a merchant, and what it may do."""

    merchant_id: str
    key_id: str
    scopes: frozenset[str]

    def require(self, *any_of: Scope) -> None:
        """Raise InsufficientScope unless the key carries one of these rights. `admin` implies every right."""
        if Scope.ADMIN in self.scopes or not self.scopes.isdisjoint(any_of):
            return
        wanted = " or ".join(any_of)
        raise InsufficientScope(f"This key does not carry the scope {wanted}.", object_id=self.key_id)


async def create_merchant(connection: Connection, ctx: Context, name: str) -> tuple[str, str]:
    """Create a merchant with a first key that may do everything; answer the merchant's id and the key.

    The key is never shown again. Raises InvalidInput at /name.
    """
    merchant_id = ctx.new_id(IdKind.MERCHANT)
    _check_name(name)
    await rows.insert_merchant(connection, id=merchant_id, name=name, created_at=ctx.now())
    _, key = await create_key(connection, ctx, merchant_id, "first key", [Scope.ADMIN])
    return merchant_id, key


SPREAD_BPS_MAX: Final = 2_000
QUOTE_SECONDS_MIN: Final = 60
SECONDS_MAX: Final = 86_400


@dataclass(frozen=True, slots=True)
class NewSettings:
    """What a merchant wants from now on; None leaves a setting as it is. Open invoices keep what they began with."""

    spread_bps: int | None = None
    quote_seconds: int | None = None
    grace_seconds: int | None = None
    refund_second_person: bool | None = None


async def change_settings(
    connection: Connection, merchant_id: str, new: NewSettings
) -> rows.MerchantSettings:
    """Change a merchant's settings; answer all of them as they are now.

    The spread is in 1/10,000 of the amount asked. Raises InvalidInput naming the setting, and NotFound.
    """
    for pointer, value, at_least, at_most in (
        ("/spread_bps", new.spread_bps, 0, SPREAD_BPS_MAX),
        ("/quote_seconds", new.quote_seconds, QUOTE_SECONDS_MIN, SECONDS_MAX),
        ("/grace_seconds", new.grace_seconds, 0, SECONDS_MAX),
    ):
        if value is not None and not at_least <= value <= at_most:
            raise InvalidInput.at(pointer, f"must lie between {at_least} and {at_most}")
    known = await rows.set_merchant_settings(
        connection,
        merchant_id,
        spread_bps=new.spread_bps,
        quote_seconds=new.quote_seconds,
        grace_seconds=new.grace_seconds,
        refund_second_person=new.refund_second_person,
    )
    settings = await rows.merchant_settings(connection, merchant_id) if known else None
    if settings is None:
        raise NotFound("There is no such merchant.", object_id=merchant_id)
    return settings


async def create_key(
    connection: Connection, ctx: Context, merchant_id: str, name: str, scopes: Collection[str]
) -> tuple[str, str]:
    """Create a key of a merchant with these scopes; answer its id and the key, which is never shown again.

    Raises InvalidInput at /name or /scopes, NotFound for an unknown merchant.
    """
    _check_name(name)
    unknown = sorted(set(scopes) - set(Scope))
    if unknown or not scopes:
        known = ", ".join(Scope)
        detail = f"unknown scope {unknown[0]!r}" if unknown else "at least one scope is needed"
        raise InvalidInput.at("/scopes", f"{detail}; the scopes are {known}")
    if await rows.merchant_name(connection, merchant_id) is None:
        raise NotFound("There is no such merchant.", object_id=merchant_id)
    key = KEY_PREFIX + b32encode(ctx.entropy(KEY_RANDOM_BYTES)).decode().lower()
    key_id = ctx.new_id(IdKind.KEY)
    await rows.insert_key(
        connection,
        id=key_id,
        merchant_id=merchant_id,
        name=name,
        key_hash=hash_key(key),
        scopes=sorted(set(scopes)),
        created_at=ctx.now(),
    )
    return key_id, key


def hash_key(key: str) -> bytes:
    """What is stored of a key: its SHA-256."""
    return hashlib.sha256(key.encode()).digest()


def is_key(text: str) -> bool:
    """Whether the text has the shape of a key. Says nothing about whether it is one."""
    return _KEY.fullmatch(text) is not None


async def authenticate(connection: Connection, key: str) -> Principal:
    """Who this key speaks for. Raises Unauthenticated for any text that is not a key in force."""
    found = await rows.key_by_hash(connection, hash_key(key)) if is_key(key) else None
    if found is None:
        raise Unauthenticated("This key is not known or no longer in force.")
    return Principal(found.merchant_id, found.id, found.scopes)


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= NAME_LENGTH_MAX or _CONTROL.search(name):
        raise InvalidInput.at(
            "/name", f"must be 1 to {NAME_LENGTH_MAX} characters without control characters"
        )
