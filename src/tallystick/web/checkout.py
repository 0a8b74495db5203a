"""The customer's pages: `/i/{invoice_id}` and what belongs to it.

For: customers. Mounted by `api.create_app` through `checkout_routes(ctx, hub)`; `hub.run()` must be running beside it.

    GET  /i/{id}                              the page; `?option=` chooses among options that have an address
    POST /i/{id}/options/{option_id}          the customer chooses how to pay; then 303 to the page
    GET  /i/{id}/events                       server-sent events: `event: invoice`, data = the customer's view as JSON
    GET  /i/{id}/options/{option_id}/qr.svg   the QR code of the option's payment request
    GET  /static/checkout/{name}              style, script and sign, cacheable for good

Holds true: knowing an invoice's id (80 random bits) is the right to look at it and to choose; there is no cookie and no
session, so a foreign page has no authority to borrow. A choice sent by another site is refused all the same
(`is_same_site`), so that nobody can make a customer's browser spend an address. Choosing twice is choosing once. Every
page carries a policy that allows this origin only: no inline script or style, no frame, no third party.
Must not: show anything that is not in `services.checkout_view.CustomerView`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlsplit

import structlog
from jinja2 import Template
from litestar import MediaType, Request, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect, ServerSentEvent
from litestar.status_codes import (
    HTTP_200_OK,
    HTTP_303_SEE_OTHER,
    HTTP_403_FORBIDDEN,
    HTTP_404_NOT_FOUND,
    HTTP_500_INTERNAL_SERVER_ERROR,
    HTTP_503_SERVICE_UNAVAILABLE,
)

from tallystick.core.errors import Conflict, NotFound, TallystickError
from tallystick.core.ids import IdKind, is_id
from tallystick.services import checkout_texts as texts
from tallystick.services import checkout_words as words_of
from tallystick.services.checkout import customer_view
from tallystick.services.checkout_situations import Situation
from tallystick.services.checkout_view import CheckoutOption, CheckoutProgress, CustomerView
from tallystick.services.context import CUSTOMER, Context
from tallystick.services.invoices import activate_option
from tallystick.web import assets
from tallystick.web.qr import qr_svg
from tallystick.web.stream import DATABASE_TROUBLE, InvoiceHub
from tallystick.web.templating import page_environment

log = structlog.get_logger(__name__)

PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # same-origin, not no-referrer: with the latter browsers send `Origin: null` with our own form.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), clipboard-write=(self)",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
NOTCHES_MAX: Final = 60
_RETRY_AFTER_SECONDS: Final = 5
_CACHE_FOR_GOOD: Final = "public, max-age=31536000, immutable"


class Site:
    """What the handlers share: the context, the hub and the compiled pages."""

    def __init__(self, ctx: Context, hub: InvoiceHub) -> None:
        self.ctx = ctx
        self.hub = hub
        self.origin = origin_of(ctx.public_url)
        environment = page_environment(texts.LABELS)
        self.page: Template = environment.get_template("checkout.html")
        self.message: Template = environment.get_template("message.html")

    async def view(self, invoice_id: str) -> CustomerView:
        """The customer's view now. Raises NotFound, also for what cannot be an id."""
        if not is_id(IdKind.INVOICE, invoice_id):
            raise NotFound("There is no such invoice.")
        async with self.ctx.database.snapshot() as connection:
            return await customer_view(connection, self.ctx, invoice_id)


SiteDependency: TypeAlias = NamedDependency[Site]


def checkout_routes(ctx: Context, hub: InvoiceHub) -> Router:
    """Everything under `/i` and `/static/checkout`, to be mounted in the application."""
    site = Site(ctx, hub)

    def message(words: words_of.Words, status: int, *, refresh_seconds: int | None = None) -> Response[str]:
        html = site.message.render(words=words, refresh_seconds=refresh_seconds, merchant="the shop")
        headers = dict(PAGE_HEADERS)
        if refresh_seconds is not None:
            headers["Retry-After"] = str(refresh_seconds)
        return Response(html, status_code=status, media_type=MediaType.HTML, headers=headers)

    def not_found(_request: Request[Any, Any, Any], _error: NotFound) -> Response[str]:
        return message(words_of.NOT_FOUND, HTTP_404_NOT_FOUND)

    def refused(_request: Request[Any, Any, Any], _error: CrossSite) -> Response[str]:
        return message(words_of.CROSS_SITE, HTTP_403_FORBIDDEN)

    def broken(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
        passing = isinstance(error, DATABASE_TROUBLE)
        log.error("checkout_page_failed", path=request.url.path, exc_info=error)
        status = HTTP_503_SERVICE_UNAVAILABLE if passing else HTTP_500_INTERNAL_SERVER_ERROR
        return message(words_of.UNAVAILABLE, status, refresh_seconds=_RETRY_AFTER_SECONDS)

    return Router(
        path="/",
        route_handlers=[show_invoice, choose_option, stream_invoice, show_qr, show_asset],
        dependencies={"site": Provide(lambda: site, sync_to_thread=False)},
        exception_handlers={
            NotFound: not_found,
            CrossSite: refused,
            TallystickError: broken,
            Exception: broken,
        },
        include_in_schema=False,
    )


class CrossSite(HTTPException):
    """A form was sent by another site's page."""

    status_code = HTTP_403_FORBIDDEN


@get("/i/{invoice_id:str}", media_type=MediaType.HTML)
async def show_invoice(
    invoice_id: FromPath[str],
    site: SiteDependency,
    option: FromQuery[str | None] = None,
    notice: FromQuery[str | None] = None,
) -> Response[str]:
    """The page. Unknown query values are ignored: they come from links that people edit and forward."""
    view = await site.view(invoice_id)
    chosen = selected_option(view, option)
    payable = chosen if chosen is not None and chosen.address is not None else None
    html = site.page.render(
        view=view,
        option=payable,
        # Where nothing can be paid before there are new amounts, the headline says it.
        stale=None if payable is not None or view.situation == Situation.REQUOTING else chosen,
        shows=view.shows,
        qr_path=qr_path(view, payable),
        notice=texts.NOTICES.get(notice or ""),
        clock=clock_text(view.seconds_left),
        amount_clock=clock_text(payable.quote_seconds_left or 0 if payable is not None else 0),
        amounts_clock=clock_text(view.quote_seconds_left or 0),
        tally=tally_paths(view.progress),
    )
    return Response(html, media_type=MediaType.HTML, headers=PAGE_HEADERS)


@post("/i/{invoice_id:str}/options/{option_id:str}", status_code=HTTP_303_SEE_OTHER)
async def choose_option(
    request: Request[Any, Any, Any], invoice_id: FromPath[str], option_id: FromPath[str], site: SiteDependency
) -> Redirect:
    """Issue the option's address, or do nothing if it has one; then show the page."""
    if not is_same_site(request, site.origin):
        raise CrossSite
    if not (is_id(IdKind.INVOICE, invoice_id) and is_id(IdKind.OPTION, option_id)):
        raise NotFound("There is no such invoice.")
    query = f"option={quote(option_id)}"
    try:
        async with site.ctx.database.transaction() as connection:
            await activate_option(connection, site.ctx, None, CUSTOMER, invoice_id, option_id)
    except Conflict as conflict:
        code = conflict.code if conflict.code in texts.NOTICES else Conflict.code
        query = f"notice={code}"
    return Redirect(f"/i/{invoice_id}?{query}", status_code=HTTP_303_SEE_OTHER, headers=PAGE_HEADERS)


@get("/i/{invoice_id:str}/events")
async def stream_invoice(
    request: Request[Any, Any, Any], invoice_id: FromPath[str], site: SiteDependency
) -> ServerSentEvent:
    """The stream. An unknown invoice is a 404 before anything is streamed, so a browser stops asking."""
    await site.view(invoice_id)
    address = request.client.host if request.client is not None else ""
    messages: AsyncIterator[Any] = site.hub.events(invoice_id, address)
    return ServerSentEvent(
        messages, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    )


@get("/i/{invoice_id:str}/options/{option_id:str}/qr.svg")
async def show_qr(
    invoice_id: FromPath[str], option_id: FromPath[str], site: SiteDependency, v: FromQuery[str | None] = None
) -> Response[bytes]:
    """The QR code of what is to be paid by this option now; 404 when nothing is."""
    view = await site.view(invoice_id)
    option = next((option for option in view.options if option.id == option_id), None)
    if option is None or option.qr_text is None:
        raise NotFound("There is nothing to pay here.")
    headers = PAGE_HEADERS | {"Cache-Control": "private, max-age=3600" if v == option.amount else "no-store"}
    return Response(qr_svg(option.qr_text), media_type="image/svg+xml", headers=headers)


@get(f"{assets.PREFIX}/{{name:str}}")
async def show_asset(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """A file of the page, from memory."""
    asset = assets.by_path().get(name)
    if asset is None:
        raise NotFound("There is no such file.")
    headers = {
        "Cache-Control": _CACHE_FOR_GOOD,
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Vary": "Accept-Encoding",
    }
    zipped = "gzip" in request.headers.get("accept-encoding", "")
    if zipped:
        headers["Content-Encoding"] = "gzip"
    content = asset.compressed if zipped else asset.content
    return Response(content, status_code=HTTP_200_OK, media_type=asset.media_type, headers=headers)


def selected_option(view: CustomerView, wanted: str | None) -> CheckoutOption | None:
    """The option the page is about: the wanted one if it can be paid, else the view's own choice.

    One whose amount is being worked out anew stays the chosen one: the page says so instead of changing the coin.
    """
    open_ = {one.id: one for one in view.options if one.address is not None or one.requoting_text is not None}
    return open_.get(wanted or "") or open_.get(view.selected or "") or next(iter(open_.values()), None)


def qr_path(view: CustomerView, option: CheckoutOption | None) -> str | None:
    """Where the QR code of an option is. Its address never changes, so the amount alone tells versions apart."""
    if option is None or option.uri is None:
        return None
    return f"/i/{view.id}/options/{option.id}/qr.svg?v={quote(option.amount)}"


def clock_text(seconds: int) -> str:
    """Time left as people read it: `14:05`, `1:02:09`, or days and hours."""
    hours, rest = divmod(seconds, 3600)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def tally_paths(progress: CheckoutProgress | None) -> tuple[str, str]:
    """The notches of the tally stick as SVG paths: those cut and those to come, one for each confirmation.

    In a box of 320 by 28. The script draws the same; above NOTCHES_MAX confirmations a notch stands for several.
    """
    need = progress.need or 0 if progress is not None else 0
    shown = min(need, NOTCHES_MAX)
    cut = progress.have * shown // need if progress is not None and need else 0
    middles = [(place + 0.5) * 320 / shown for place in range(shown)]
    half = min(9.0, 320 / shown / 2.6) if shown else 0.0
    done = "".join(f"M{x - half:.1f} 0L{x:.1f} 15L{x + half:.1f} 0Z" for x in middles[:cut])
    todo = "".join(f"M{x:.1f} 3V13" for x in middles[cut:])
    return done, todo


def is_same_site(request: Request[Any, Any, Any], origin: str) -> bool:
    """Whether a form was sent by our own page, or by something that is no browser.

    Browsers say where a request comes from: `Sec-Fetch-Site` (all since 2023), before that `Origin`. One of them is on
    every POST of a browser, and no page can forge them (W3C Fetch Metadata; RFC 6454 section 7).
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    sender = request.headers.get("origin")
    if sender is None:
        return True
    return sender in (origin, origin_of(str(request.base_url)))


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL (RFC 6454)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
