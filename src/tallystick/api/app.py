"""Putting the application together.

For: whoever serves it (`up`, `api`, tests). Holds true: the application knows nothing of the server that runs it;
it opens and closes nothing that it was given. Every route under /v1 has the guard in front and names its scopes.
Must not: hold routes or rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from litestar import Litestar, Router, get
from litestar.config.response_cache import ResponseCacheConfig
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.types import ControllerRouterHandler

import tallystick
from tallystick.api import docs
from tallystick.api.auth import SCOPES, KeyRing, guard
from tallystick.api.edge import Application
from tallystick.api.limits import Limits
from tallystick.api.methods import options_handlers
from tallystick.api.problems import EXCEPTION_HANDLERS
from tallystick.api.request import ApiRequest
from tallystick.api.resources import (
    disputes,
    exceptions,
    health,
    invoices,
    ledger,
    networks,
    payments,
    policies,
    refunds,
    wallets,
    webhooks,
)
from tallystick.api.resources.common import BEARER
from tallystick.api.strict_json import BODY_BYTES_MAX
from tallystick.services.context import Context

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]

_V1_HANDLERS = (
    *invoices.HANDLERS,
    *payments.HANDLERS,
    *wallets.HANDLERS,
    *exceptions.HANDLERS,
    *disputes.HANDLERS,
    *networks.HANDLERS,
    *policies.HANDLERS,
    *refunds.HANDLERS,
    *ledger.HANDLERS,
    *webhooks.HANDLERS,
)
_TAGS = (
    "Invoices",
    "Payments",
    "Exceptions",
    "Disputes",
    "Wallets",
    "Networks",
    "Confirmation policies",
    "Refunds",
    "Ledger",
    "Webhooks",
    "Events",
    "Operation",
)


def create_app(
    ctx: Context,
    *,
    routes: Sequence[ControllerRouterHandler] = (),
    limits: Limits | None = None,
    lifespan: Sequence[Lifespan] = (),
) -> Application:
    """The ASGI application: the API, its documentation, health, and `routes` (pages) beside them.

    `lifespan` are context managers entered at the server's start and left at its end, in order.
    """
    limits = limits or Limits()
    for handler in _V1_HANDLERS:
        if SCOPES not in handler.opt:
            raise TypeError(f"{handler.handler_name} names no scopes")
    return Application(
        route_handlers=[
            Router(
                path="/v1",
                route_handlers=[*options_handlers(_V1_HANDLERS), *_V1_HANDLERS],
                guards=[guard],
                security=BEARER,
            ),
            *health.HANDLERS,
            openapi_json,
            docs.error_page,
            *routes,
        ],
        request_class=ApiRequest,
        request_max_body_size=BODY_BYTES_MAX,
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=_openapi_config(),
        state=State({"ctx": ctx, "limits": limits, "key_ring": KeyRing(ctx, limits)}),
        lifespan=list(lifespan),
        logging_config=None,
        debug=False,
        response_cache_config=ResponseCacheConfig(),
    )


def _openapi_config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Tallystick",
        version=tallystick.__version__,
        description=docs.DESCRIPTION,
        path="/docs",
        openapi_router=docs.router(),
        render_plugins=[docs.ReferencePage()],
        use_handler_docstrings=True,
        tags=[Tag(name=name) for name in _TAGS],
        components=Components(
            security_schemes={
                "secret_key": SecurityScheme(
                    type="http", scheme="bearer", description="A secret key of one merchant: ts_…"
                )
            }
        ),
    )


@get("/openapi.json", include_in_schema=False, media_type="application/json")
async def openapi_json(request: ApiRequest) -> bytes:
    """The description of the API in OpenAPI 3.1."""
    return docs.rendered_schema(request.app)


def v1_handlers() -> tuple[HTTPRouteHandler, ...]:
    """Every handler under /v1: for tests that go through all of them."""
    return _V1_HANDLERS
