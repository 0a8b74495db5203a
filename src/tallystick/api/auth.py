"""Who asks, and whether they may: one guard in front of every route under /v1.

For: the router of the API. Holds true: nothing under /v1 is reached without a key in force that carries a right
which the route names in its options; a route that names none cannot be registered. A key that was good is believed
for `Limits.key_cache_seconds` without asking the database again: a revoked key may work that much longer.
Must not: keep keys (only their hashes), or answer differently for "unknown" and "revoked".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from tallystick.api.limits import Limits, MinuteCounter
from tallystick.api.request import ApiRequest, check_address
from tallystick.core.errors import Unauthenticated
from tallystick.services import merchants
from tallystick.services.context import Context
from tallystick.services.merchants import Principal, Scope

SCOPES: Final = "scopes"
"""The route option that holds the scopes of which one is needed. Empty: any key will do."""

CACHED_KEYS_MAX: Final = 10_000
_BEARER: Final = "bearer "


@dataclass(slots=True)
class KeyRing:
    """Keys lately found good, by hash, and how often each is used."""

    ctx: Context
    limits: Limits
    _known: dict[bytes, tuple[float, Principal]] = field(default_factory=dict)
    _by_key: MinuteCounter = field(init=False)
    anonymous: MinuteCounter = field(init=False)

    def __post_init__(self) -> None:
        self._by_key = MinuteCounter(self.limits.key_per_minute)
        self.anonymous = MinuteCounter(self.limits.anonymous_per_minute)

    async def principal(self, header: str | None, client: str) -> Principal:
        """Who this Authorization header speaks for. Raises Unauthenticated or RateLimited."""
        if header is None:
            self.anonymous.count(client)
            raise Unauthenticated("Give a secret key: Authorization: Bearer ts_…")
        key = header[len(_BEARER) :].strip() if header[: len(_BEARER)].lower() == _BEARER else ""
        if not merchants.is_key(key):
            self.anonymous.count(client)
            raise Unauthenticated("The Authorization header does not hold a key of the form ts_….")
        digest = merchants.hash_key(key)
        now = self.ctx.monotonic()
        known = self._known.get(digest)
        if known is None or known[0] < now:
            self.anonymous.count(client)
            known = (now + self.limits.key_cache_seconds, await self._ask(key))
            if len(self._known) >= CACHED_KEYS_MAX:
                self._known.clear()
            self._known[digest] = known
        self._by_key.count(known[1].key_id)
        return known[1]

    async def _ask(self, key: str) -> Principal:
        async with self.ctx.database.connection() as connection:
            return await merchants.authenticate(connection, key)


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let a request in, or raise Unauthenticated, InsufficientScope, RateLimited, or what is wrong with its address."""
    ring: KeyRing = connection.app.state.key_ring
    client = connection.client.host if connection.client else ""
    principal = await ring.principal(connection.headers.get("authorization"), client)
    scopes: tuple[Scope, ...] = handler.opt.get(SCOPES, ())
    if scopes:
        principal.require(*scopes)
    connection.scope["user"] = principal
    if isinstance(connection, ApiRequest):
        check_address(connection)
