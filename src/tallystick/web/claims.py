"""The claim page: `/r/{refund_id}`, on which a customer says where a refund is to go.

For: customers who got the link from the merchant. Mounted beside the checkout through `claim_routes(ctx, count)`.

    GET  /r/{id}?token=…    the form, or how the refund stands
    POST /r/{id}/check      the address, looked at; the page asks whether it is the right one
    POST /r/{id}/confirm    the address is set, once; then 303 to the page

Holds true: the token is the right to look and to set the address; after that it only looks. It comes in the link, goes
back in forms, and is in no log. There is no cookie, no script and nothing from elsewhere; a form sent by another site
is refused. Requests are counted per address: guessing is hopeless, and now also slow.
Must not: decide anything about a refund, or show what is not in `services.claiming.ClaimView`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import structlog
from jinja2 import Template
from litestar import MediaType, Request, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.enums import RequestEncodingType
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect
from litestar.status_codes import (
    HTTP_200_OK,
    HTTP_303_SEE_OTHER,
    HTTP_403_FORBIDDEN,
    HTTP_404_NOT_FOUND,
    HTTP_422_UNPROCESSABLE_ENTITY,
    HTTP_429_TOO_MANY_REQUESTS,
    HTTP_500_INTERNAL_SERVER_ERROR,
    HTTP_503_SERVICE_UNAVAILABLE,
)

from tallystick.core.errors import Conflict, InvalidInput, NotFound, RateLimited, TallystickError
from tallystick.services import claim_texts as texts
from tallystick.services.checkout_words import Words
from tallystick.services.claiming import (
    Claimed,
    ClaimView,
    claim_view,
    confirm_address,
    consider_address,
)
from tallystick.services.context import Context
from tallystick.web.checkout import PAGE_HEADERS, CrossSite, is_same_site, origin_of
from tallystick.web.stream import DATABASE_TROUBLE
from tallystick.web.templating import page_environment

log = structlog.get_logger(__name__)

HEADERS: Final = PAGE_HEADERS | {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
}
ADDRESS_LENGTH_MAX: Final = 200
CLAIMS_PER_MINUTE: Final = 120
"""How often one address may ask for these pages."""

_RETRY_AFTER_SECONDS: Final = 5


class Desk:
    """What the handlers share: the context, the counter and the compiled pages."""

    def __init__(self, ctx: Context, count: Callable[[str], None]) -> None:
        self.ctx = ctx
        self._count = count
        self.origin = origin_of(ctx.public_url)
        environment = page_environment(texts.LABELS)
        self.page: Template = environment.get_template("claim.html")
        self.message: Template = environment.get_template("message.html")

    def count(self, request: Request[Any, Any, Any]) -> None:
        """Count a request. Raises RateLimited."""
        self._count(request.client.host if request.client is not None else "")

    def show(
        self,
        view: ClaimView,
        token: str,
        *,
        claimed: Claimed | None = None,
        given: str = "",
        problem: str | None = None,
    ) -> Response[str]:
        """The page; `claimed` asks for a confirmation, `problem` says what is wrong with what was `given`."""
        html = self.page.render(view=view, token=token, claimed=claimed, given=given, problem=problem)
        status = HTTP_200_OK if problem is None else HTTP_422_UNPROCESSABLE_ENTITY
        return Response(html, status_code=status, media_type=MediaType.HTML, headers=HEADERS)


DeskDependency: TypeAlias = NamedDependency[Desk]


def claim_routes(ctx: Context, count: Callable[[str], None]) -> Router:
    """Everything under `/r`, to be mounted in the application. `count` is told who asks, and may raise RateLimited."""
    desk = Desk(ctx, count)

    def message(words: Words, status: int, *, refresh_seconds: int | None = None) -> Response[str]:
        html = desk.message.render(words=words, refresh_seconds=refresh_seconds, merchant="the shop")
        headers = dict(HEADERS)
        if refresh_seconds is not None:
            headers["Retry-After"] = str(refresh_seconds)
        return Response(html, status_code=status, media_type=MediaType.HTML, headers=headers)

    def not_found(_request: Request[Any, Any, Any], _error: NotFound) -> Response[str]:
        return message(texts.NOT_FOUND, HTTP_404_NOT_FOUND)

    def refused(_request: Request[Any, Any, Any], _error: CrossSite) -> Response[str]:
        return message(texts.CROSS_SITE, HTTP_403_FORBIDDEN)

    def too_many(_request: Request[Any, Any, Any], error: RateLimited) -> Response[str]:
        return message(texts.TOO_MANY, HTTP_429_TOO_MANY_REQUESTS, refresh_seconds=error.retry_after_seconds)

    def broken(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
        passing = isinstance(error, DATABASE_TROUBLE)
        log.error("claim_page_failed", route=request.scope.get("path_template"), exc_info=error)
        status = HTTP_503_SERVICE_UNAVAILABLE if passing else HTTP_500_INTERNAL_SERVER_ERROR
        return message(texts.UNAVAILABLE, status, refresh_seconds=_RETRY_AFTER_SECONDS)

    return Router(
        path="/",
        route_handlers=[show_refund, check_claim, confirm_claim],
        dependencies={"desk": Provide(lambda: desk, sync_to_thread=False)},
        exception_handlers={
            NotFound: not_found,
            CrossSite: refused,
            RateLimited: too_many,
            TallystickError: broken,
            Exception: broken,
        },
        include_in_schema=False,
    )


@get("/r/{refund_id:str}", media_type=MediaType.HTML)
async def show_refund(
    request: Request[Any, Any, Any],
    refund_id: FromPath[str],
    desk: DeskDependency,
    token: FromQuery[str | None] = None,
) -> Response[str]:
    """The form while an address is asked for, afterwards how the refund stands."""
    desk.count(request)
    async with desk.ctx.database.snapshot() as connection:
        view = await claim_view(connection, desk.ctx, refund_id, token or "")
    return desk.show(view, token or "")


@post("/r/{refund_id:str}/check", status_code=HTTP_200_OK, media_type=MediaType.HTML)
async def check_claim(
    request: Request[Any, Any, Any], refund_id: FromPath[str], desk: DeskDependency
) -> Response[str]:
    """Look at the address and ask whether it is the right one. Nothing is stored."""
    token, address, _ = await _form(request, desk)
    return await _consider(desk, refund_id, token, address, problem=None)


@post("/r/{refund_id:str}/confirm", status_code=HTTP_200_OK, media_type=MediaType.HTML)
async def confirm_claim(
    request: Request[Any, Any, Any], refund_id: FromPath[str], desk: DeskDependency
) -> Response[str] | Redirect:
    """Set the address, once, and show how things stand."""
    token, address, sure = await _form(request, desk)
    if not sure:
        return await _consider(desk, refund_id, token, address, problem=texts.LABELS["sure_missing"])
    try:
        async with desk.ctx.database.transaction() as connection:
            await confirm_address(connection, desk.ctx, refund_id, token, address)
    except InvalidInput as error:
        return await _refuse(desk, refund_id, token, address, error)
    except Conflict:
        pass  # it was set meanwhile, or is not asked for any more: the page says so
    return _to_page(refund_id, token)


async def _consider(
    desk: Desk, refund_id: str, token: str, address: str, *, problem: str | None
) -> Response[str]:
    try:
        async with desk.ctx.database.snapshot() as connection:
            view, claimed = await consider_address(connection, desk.ctx, refund_id, token, address)
    except InvalidInput as error:
        return await _refuse(desk, refund_id, token, address, error)
    except Conflict:
        return _to_page(refund_id, token)
    return desk.show(view, token, claimed=claimed, given=address, problem=problem)


async def _refuse(desk: Desk, refund_id: str, token: str, address: str, error: InvalidInput) -> Response[str]:
    async with desk.ctx.database.snapshot() as connection:
        view = await claim_view(connection, desk.ctx, refund_id, token)
    what = error.what if error.what[:1].isupper() else f"This {error.what}."
    return desk.show(view, token, given=address, problem=what)


def _to_page(refund_id: str, token: str) -> Redirect:
    path = f"/r/{quote(refund_id)}?token={quote(token)}"
    return Redirect(path, status_code=HTTP_303_SEE_OTHER, headers=HEADERS)


async def _form(request: Request[Any, Any, Any], desk: Desk) -> tuple[str, str, bool]:
    """Token, address and whether the customer is sure. Raises RateLimited, CrossSite.

    A body in another encoding than our page sends (parts, files) is not read at all: it is a form without fields.
    """
    desk.count(request)
    if not is_same_site(request, desk.origin):
        raise CrossSite
    ours = request.content_type[0] == RequestEncodingType.URL_ENCODED
    form = await request.form() if ours else None

    def text(name: str) -> str:
        value = form.get(name) if form is not None else None
        return value[:ADDRESS_LENGTH_MAX] if isinstance(value, str) else ""

    return text("token"), text("address"), text("sure") == "yes"
