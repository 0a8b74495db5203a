"""The answer to OPTIONS: which methods an address has.

For: the application, which registers these handlers before all others. Holds true: `Allow` names every method of the
address (RFC 9110 section 9.3.7). The framework's own answer is made when an address gets its first handler, and never
hears of those that follow. Must not: say anything about other origins; there is no CORS here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from litestar import Response
from litestar.enums import HttpMethod, MediaType
from litestar.handlers import HTTPRouteHandler

from tallystick.api.auth import SCOPES


def options_handlers(handlers: Iterable[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """One handler for every address of these handlers. Any key may ask; methods are no secret."""
    methods: dict[str, set[str]] = {}
    for handler in handlers:
        for path in handler.paths:
            methods.setdefault(path, {"OPTIONS"}).update(handler.http_methods)
    return [
        HTTPRouteHandler(
            path,
            http_method=HttpMethod.OPTIONS,
            opt={SCOPES: ()},
            include_in_schema=False,
            status_code=204,
            sync_to_thread=False,
        )(_saying(", ".join(sorted(names))))
        for path, names in methods.items()
    ]


def _saying(allow: str) -> Callable[[], Response[None]]:
    def options() -> Response[None]:
        """Which methods there are here."""
        return Response(None, status_code=204, headers={"allow": allow}, media_type=MediaType.TEXT)

    return options
