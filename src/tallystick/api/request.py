"""What a handler is given: the request with its key's owner, and the body read strictly.

For: every handler. Holds true: a body is read up to its limit, checked by `strict_json` and converted to the struct
that the handler declares as `data`; an empty body is `{}`, so an action without fields may have either. A query
parameter that the handler does not declare is refused.
Must not: decide rights (that is `auth`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, Final, TypeVar

from litestar import Request
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler

from tallystick.api.problems import bad_parameter
from tallystick.api.strict_json import convert, has_refused_characters, parse
from tallystick.core.errors import Malformed, NotFound
from tallystick.core.ids import IdKind, is_id
from tallystick.services.context import Actor, ActorType, Context
from tallystick.services.merchants import Principal

PATH_LENGTH_MAX: Final = 512
PARAMETER_LENGTH_MAX: Final = 500
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}", re.ASCII)
EMPTY_OBJECT: Final = b"{}"

E = TypeVar("E", bound=StrEnum)


class ApiRequest(Request[Principal, None, State]):
    """A request to the API. `user` is the key's owner once the guard has let it in."""

    @property
    def ctx(self) -> Context:
        """What services are given."""
        ctx: Context = self.app.state.ctx
        return ctx

    @property
    def principal(self) -> Principal:
        """Who asks."""
        return self.user

    @property
    def merchant_id(self) -> str:
        """For whom everything here is done."""
        return self.user.merchant_id

    @property
    def actor(self) -> Actor:
        """Who is recorded as the cause of a change."""
        return Actor(ActorType.MERCHANT, self.user.key_id)

    async def body(self) -> bytes:
        """The body; `{}` where there is none."""
        return await super().body() or EMPTY_OBJECT

    async def json(self) -> Any:
        """The body as the struct that the handler declares. Raises Malformed or InvalidInput."""
        body = await self.body()
        if body is not EMPTY_OBJECT:
            _check_content_type(self.headers.get("content-type", ""))
        field = self.route_handler.parsed_data_field
        value = parse(body)
        return value if field is None else convert(value, field.annotation)


def check_address(request: ApiRequest) -> None:
    """Refuse text in the path or query that no object can have, and query parameters that do not exist."""
    path: str = request.scope["path"]
    if len(path) > PATH_LENGTH_MAX or has_refused_characters(path):
        raise NotFound("There is nothing at this address.")
    if not request.scope["query_string"]:
        return
    known = _parameters_of(request.route_handler)
    seen: set[str] = set()
    for name, value in request.query_params.multi_items():
        if name not in known:
            offered = ", ".join(sorted(known)) or "none"
            raise bad_parameter(name, f"does not exist here (there are: {offered})", code="unknown_parameter")
        if name in seen:
            raise bad_parameter(name, "is given twice")
        if len(value) > PARAMETER_LENGTH_MAX or has_refused_characters(value):
            raise bad_parameter(name, "is too long or holds characters that are no text")
        if name in _numbers_of(request.route_handler) and _NUMBER.fullmatch(value) is None:
            raise bad_parameter(name, "must be a whole number")
        seen.add(name)


@cache
def _parameters_of(handler: HTTPRouteHandler) -> frozenset[str]:
    """Names of the query parameters that a handler declares: all that is neither path, body nor request."""
    declared = handler.parsed_fn_signature.parameters.keys() - {"request", "data"}
    in_path = {
        part[1:-1].split(":")[0] for path in handler.paths for part in path.split("/") if part[:1] == "{"
    }
    return frozenset(declared - in_path)


@cache
def _numbers_of(handler: HTTPRouteHandler) -> frozenset[str]:
    """Those that are whole numbers. The framework would also read `null`, `5.0` and `1e1`."""
    declared = handler.parsed_fn_signature.parameters
    return frozenset(
        name
        for name in _parameters_of(handler)
        if declared[name].annotation is int or declared[name].has_inner_subclass_of(int)
    )


def _check_content_type(header: str) -> None:
    kind, _, rest = header.partition(";")
    charset = rest.strip().lower().replace('"', "")
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise Malformed("A body must be sent as application/json in UTF-8.", code="unsupported_content_type")


def path_id(kind: IdKind, text: str) -> str:
    """An id from the path. Raises NotFound where no object can have it, before the database is asked."""
    if not is_id(kind, text):
        raise NotFound(f"There is no {kind.name.lower().replace('_', ' ')} of this id.")
    return text


def cursor_of(kind: IdKind, text: str | None) -> str | None:
    """The cursor of a list of such objects. Raises Malformed for anything that no page answered."""
    if text is not None and not is_id(kind, text):
        raise bad_parameter("cursor", "is not a cursor of this list")
    return text


def choice_of(name: str, enum: type[E], text: str | None) -> E | None:
    """A parameter that is one word of a published list."""
    if text is None:
        return None
    try:
        return enum(text)
    except ValueError:
        raise bad_parameter(name, f"must be one of {', '.join(enum)}") from None


def time_of(name: str, text: str | None) -> datetime | None:
    """A parameter that is a time (RFC 3339 with an offset), in UTC."""
    if text is None:
        return None
    try:
        text = text.upper()  # `t` and `z` are as good (RFC 3339 section 5.6)
        time = datetime.fromisoformat(text)
        if "T" not in text or time.utcoffset() is None:
            raise ValueError
        return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad_parameter(name, 'must be a time such as "2026-01-31T12:00:00Z"') from None
