"""Networks as configured and as followed, and rates."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final

import msgspec
from litestar import get
from litestar.params import QueryParameter

from tallystick.api.document import ALSO_ANSWERS
from tallystick.api.problems import bad_parameter
from tallystick.api.request import ApiRequest
from tallystick.api.resources.common import ANY_KEY, whole
from tallystick.core.money import format_rate
from tallystick.services import networks, objects, quoting
from tallystick.services.paging import Page
from tallystick.services.quoting import AnswerObject

_SYMBOL: Final = re.compile(r"[A-Za-z0-9._-]{1,20}", re.ASCII)
_SYMBOL_PATTERN: Final = f"^{_SYMBOL.pattern}$"


class RateObject(msgspec.Struct, frozen=True, kw_only=True):
    """Units of `quote` for one whole `base`; where it came from, and what every source that was asked said.

    `value` is a decimal string. `at` is when the sources were asked: a rate is used again for some seconds.
    """

    object: str = "rate"
    base: str
    quote: str
    value: str
    source: str
    at: datetime
    sources: list[AnswerObject]


@get("/networks", opt=ANY_KEY, tags=["Networks"], operation_id="list_networks")
async def list_networks(request: ApiRequest) -> Page[objects.NetworkObject]:
    """Every configured network: its assets, how far it has been read, and what is wrong with it."""
    async with request.ctx.database.snapshot() as connection:
        return whole(await networks.list_networks(connection, request.ctx))


@get("/rates", opt=ANY_KEY | {ALSO_ANSWERS: (409, 422)}, tags=["Networks"], operation_id="get_rate")
async def get_rate(
    request: ApiRequest,
    base: Annotated[
        str,
        QueryParameter(
            description="The symbol of a configured asset, or an ISO 4217 code.",
            schema_extra={"pattern": _SYMBOL_PATTERN, "examples": ["ETH"]},
        ),
    ],
    quote: Annotated[
        str,
        QueryParameter(
            description="An ISO 4217 code, or the symbol of a configured asset.",
            schema_extra={"pattern": _SYMBOL_PATTERN, "examples": ["USD"]},
        ),
    ],
) -> RateObject:
    """The rate at which an invoice would be quoted now, without the merchant's spread.

    Each source is listed with its own price and time, and with why it was not used. Where no rate can be trusted the
    answer is 409 `rate_unavailable`, never a guess; a symbol that nothing here is priced in is a 422.
    """
    for name, value in (("base", base), ("quote", quote)):
        if _SYMBOL.fullmatch(value) is None:
            raise bad_parameter(name, "is no asset symbol or currency code")
    rate = await quoting.rate_between(request.ctx, base, quote)
    return RateObject(
        base=rate.base,
        quote=rate.quote,
        value=format_rate(rate.value),
        source=rate.source,
        at=rate.at or request.ctx.now(),
        sources=quoting.answer_objects(rate.answers),
    )


HANDLERS = (list_networks, get_rate)
