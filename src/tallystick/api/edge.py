"""The outermost layer: what holds for every request, also for those that no route takes.

For: the application. Holds true: every answer carries the security headers and a request id; every request is
bounded in time until its answer begins (a stream may then go on), and is counted. Nothing that goes wrong inside
leaves as anything but a problem document.
Must not: read bodies or decide rights.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any, Final, cast

import structlog
from litestar import Litestar
from litestar.types import HTTPScope, Message, Receive, Scope, Send

from tallystick.api.limits import Limits
from tallystick.api.metrics import observe
from tallystick.api.problems import MEDIA_TYPE, TIMEOUT_DETAIL, render_problem
from tallystick.services.context import Context

UNMATCHED: Final = "(none)"
REQUEST_ID_BYTES: Final = 9

_SECURITY: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
_log: Final = structlog.get_logger("tallystick.api")


class Application(Litestar):
    """The ASGI application. `state.ctx`, `state.limits` and `state.key_ring` are what handlers and guard use."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        ctx: Context = self.state.ctx
        exchange = _Exchange(cast("HTTPScope", scope), send, ctx, self.state.limits)
        scope["state"] = dict(scope.get("state") or {}, request_id=exchange.request_id)
        try:
            async with asyncio.timeout(exchange.limits.request_seconds) as deadline:
                exchange.deadline = deadline
                await super().__call__(cast("Scope", scope), cast("Receive", receive), exchange.send)
        except TimeoutError:
            await exchange.fail(503, "request_timeout", TIMEOUT_DETAIL)
        except Exception as error:  # noqa: BLE001  # the edge: whatever comes here was meant for nobody else
            _log.error("defect_at_edge", request_id=exchange.request_id, exc_info=error)
            await exchange.fail(500, "internal_error", "Something went wrong on our side.")


class _Exchange:
    """One request and its answer on the way out."""

    __slots__ = ("_began", "_scope", "_send", "ctx", "deadline", "limits", "request_id", "started")

    def __init__(self, scope: HTTPScope, send: Send, ctx: Context, limits: Limits) -> None:
        self._scope = scope
        self._send = send
        self._began = time.perf_counter()
        self.ctx = ctx
        self.limits = limits
        self.request_id = f"req_{ctx.entropy(REQUEST_ID_BYTES).hex()}"
        self.deadline: asyncio.Timeout | None = None
        self.started = False

    async def send(self, message: Message) -> None:
        """Pass a message on; complete the head of the answer."""
        if message["type"] == "http.response.start":
            self.started = True
            if self.deadline is not None:
                self.deadline.reschedule(None)
            raw = cast("MutableMapping[str, Any]", message)
            headers = list(raw.get("headers", ()))
            present = {name for name, _ in headers}
            headers.extend(pair for pair in _SECURITY if pair[0] not in present)
            if self.ctx.public_url.startswith("https://"):
                headers.append(_HSTS)
            headers.append((b"x-request-id", self.request_id.encode()))
            raw["headers"] = headers
            route = str(self._scope.get("path_template") or UNMATCHED)
            observe(self._scope["method"], route, raw["status"], time.perf_counter() - self._began)
        await self._send(message)

    async def fail(self, status: int, code: str, detail: str) -> None:
        """Answer a problem, unless an answer has begun: then the connection can only be dropped."""
        if self.started:
            raise ConnectionAbortedError("the answer broke off")
        self.deadline = None  # it is over, and must not be moved any more
        body = render_problem(self.ctx.public_url, self.request_id, status, code, detail)
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        start = {"type": "http.response.start", "status": status, "headers": headers}
        await self.send(cast("Message", start))
        await self.send(cast("Message", {"type": "http.response.body", "body": body, "more_body": False}))
