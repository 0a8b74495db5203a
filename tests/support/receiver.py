"""A webhook receiver that trusts nothing: real HTTP, and signatures checked with the standard library only.

For: every test that waits for webhooks. Holds true: it does not share a line with the code that signs. It records what
came, in order, and answers as it is told. Must not: retry or deduplicate; tests want to see what really came.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOLERANCE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Received:
    """One request. `signed_by` lists which of the receiver's secrets a signature of it fits (their positions)."""

    path: str
    id: str
    timestamp: int
    body: bytes
    headers: Mapping[str, str]
    signed_by: tuple[int, ...]
    at: float = field(default_factory=time.monotonic)

    @property
    def event(self) -> dict[str, Any]:
        parsed = json.loads(self.body)
        assert isinstance(parsed, dict)
        return parsed

    @property
    def type(self) -> str:
        return str(self.event["type"])


Answer = Callable[[web.Request, Received], Awaitable[web.StreamResponse]]


async def accept(_request: web.Request, _received: Received) -> web.StreamResponse:
    """The answer of a receiver that is well."""
    return web.Response(status=204)


def answering(status: int, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with this status."""

    async def answer(_request: web.Request, _received: Received) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    return answer


class Receiver:
    """Records requests to any path of `url`. Set `secrets` when they are known, `answer` to answer otherwise."""

    def __init__(self) -> None:
        self.url = ""
        self.port = 0
        self.secrets: list[str] = []
        self.answer: Answer = accept
        self.received: list[Received] = []
        self.connections: set[Any] = set()
        self.check_clock = True
        self._arrived = asyncio.Event()

    @property
    def ids(self) -> list[str]:
        """The event ids that came, in order, repeats included."""
        return [one.id for one in self.received]

    async def wait_for(self, count: int, *, seconds: float = 20) -> list[Received]:
        """Wait until `count` requests came; fails when they do not."""
        return await self.wait_until(lambda: len(self.received) >= count, seconds=seconds)

    async def wait_until(self, condition: Callable[[], bool], *, seconds: float = 20) -> list[Received]:
        """Wait until a condition on what came holds; fails when it does not in time."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"only {len(self.received)} requests came within {seconds} s") from None
        return self.received

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        timestamp = int(request.headers["webhook-timestamp"])
        if self.check_clock:
            assert abs(time.time() - timestamp) < TOLERANCE_SECONDS
        received = Received(
            path=request.path,
            id=request.headers["webhook-id"],
            timestamp=timestamp,
            body=body,
            headers=dict(request.headers),
            signed_by=self._signed_by(request, body),
        )
        self.connections.add(request.transport.get_extra_info("peername") if request.transport else None)
        self.received.append(received)
        self._arrived.set()
        return await self.answer(request, received)

    def _signed_by(self, request: web.Request, body: bytes) -> tuple[int, ...]:
        signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + body
        given = [word.removeprefix("v1,") for word in request.headers["webhook-signature"].split(" ")]
        found = []
        for position, secret in enumerate(self.secrets):
            key = base64.b64decode(secret.removeprefix("whsec_"))
            wanted = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
            if any(hmac.compare_digest(wanted, one) for one in given):
                found.append(position)
        return tuple(found)


@asynccontextmanager
async def running_receiver(host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    """A receiver on a free port of `host`, without waiting for open requests at its end."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    receiver.url = f"http://{host}:{receiver.port}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
