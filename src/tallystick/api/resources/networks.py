"""Networks as configured and as followed, and rates."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final

import msgspec
from litestar import get
from litestar.params import QueryParameter

from tallystick.api.problems import bad_parameter
from tallystick.api.request import ApiRequest
from tallystick.api.resources.common import ANY_KEY, whole
from tallystick.core.money import format_rate
from tallystick.services import networks, objects
from tallystick.services.paging import Page

_SYMBOL: Final = re.compile(r"[A-Za-z0-9._-]{1,20}", re.ASCII)


class RateObject(msgspec.Struct, frozen=True, kw_only=True):
    """Units of `quote` for one whole `base`, and which sources said so."""

    object: str = "rate"
    base: str
    quote: str
    value: str
    sources: list[str]
    at: datetime


@get("/networks", opt=ANY_KEY, tags=["Networks"], operation_id="list_networks")
async def list_networks(request: ApiRequest) -> Page[objects.NetworkObject]:
    """Every configured network: its assets, how far it has been read, and what is wrong with it."""
    async with request.ctx.database.snapshot() as connection:
        return whole(await networks.list_networks(connection, request.ctx))


@get("/rates", opt=ANY_KEY, tags=["Networks"], operation_id="get_rate")
async def get_rate(
    request: ApiRequest,
    base: Annotated[str, QueryParameter(description="The asset's symbol.")],
    quote: Annotated[str, QueryParameter(description="A currency, or another asset's symbol.")],
) -> RateObject:
    """The rate at which an invoice would be quoted now. No trusted rate is a 409, never a guess."""
    for name, value in (("base", base), ("quote", quote)):
        if _SYMBOL.fullmatch(value) is None:
            raise bad_parameter(name, "is no asset symbol or currency code")
    rate = await request.ctx.rates.rate(base, quote)
    return RateObject(
        base=rate.base,
        quote=rate.quote,
        value=format_rate(rate.value),
        sources=[rate.source],
        at=request.ctx.now(),
    )


HANDLERS = (list_networks, get_rate)
