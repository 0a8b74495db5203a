"""A shop that receives webhooks, the way a merchant's server should.

For: `tallystick demo`, and as an example to read. Holds true: a request counts only if its signature is right; an event
is told once, however often it arrives. Events may come out of order: `sequence` tells which one of an object is newer.
Must not: trust anything in a request before its signature is checked, or do slow work before it answers.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

BODY_BYTES_MAX: Final = 1024 * 1024
REMEMBERED_MAX: Final = 10_000  # ids; more than arrive while anything is retried in a demonstration

Event = dict[str, Any]


class Shop:
    """Receives events at `url` and tells each new one to `on_event`. `secrets` may be set once they are known."""

    def __init__(self, on_event: Callable[[Event], None], *, secrets: Sequence[str] = ()) -> None:
        self.secrets = list(secrets)
        self.url = ""
        self.refused = 0
        self.repeated = 0
        self._on_event = on_event
        self._seen: OrderedDict[str, None] = OrderedDict()

    async def receive(self, request: web.Request) -> web.Response:
        """Check, remember, tell, and answer 204; 401 when the signature does not fit."""
        body = await request.read()
        if not self._genuine(body, dict(request.headers)):
            self.refused += 1
            return web.Response(status=401, text="The signature does not fit.\n")
        event_id = request.headers["webhook-id"]
        if event_id in self._seen:
            self.repeated += 1
            return web.Response(status=204)
        self._seen[event_id] = None
        while len(self._seen) > REMEMBERED_MAX:
            self._seen.popitem(last=False)
        self._on_event(json.loads(body))
        return web.Response(status=204)

    def _genuine(self, body: bytes, headers: dict[str, str]) -> bool:
        for secret in self.secrets:
            try:
                Webhook(secret).verify(body, headers, json_parse=False)
            except (
                WebhookVerificationError,
                ValueError,
            ):  # ValueError: what came is not even shaped like a signature
                continue
            return True
        return False


@asynccontextmanager
async def open_shop(
    on_event: Callable[[Event], None], *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Shop]:
    """A shop listening on `host`; port 0 is any free one. Its `url` is what to register as an endpoint."""
    shop = Shop(on_event)
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_post("/webhooks", shop.receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        shop.url = f"http://{host}:{runner.addresses[0][1]}/webhooks"
        yield shop
    finally:
        await runner.cleanup()
