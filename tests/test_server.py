"""The HTTP server's own promises: a taken address is refused, a head has limits, what runs may finish at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest

from tallystick import server
from tallystick.core.errors import ConfigurationError

DEADLINE_SECONDS = 20


class App:
    """An ASGI application that answers when it is let."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        self.entered.set()
        await self.let_go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def running(app: App, *, stop_seconds_max: int = 10) -> AsyncIterator[tuple[int, asyncio.Event]]:
    address = server.take_address("127.0.0.1", 0)
    port = address.getsockname()[1]
    stop, ready, stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(
        server.serve(
            app,
            address,
            stop,
            trusted_proxies=(),
            stop_seconds_max=stop_seconds_max,
            on_ready=ready.set,
            before_stop=stopping.set,
        )
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        await ready.wait()
        yield port, stop
        stop.set()
        await serving
    assert stopping.is_set()


async def answer(port: int, request: bytes) -> bytes:
    """Everything the server says until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await reader.read()
    finally:
        writer.close()


async def test_it_answers() -> None:
    async with running(App()) as (port, _):
        assert (await answer(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).endswith(b"ok")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nX: " + b"a" * (server.HEAD_BYTES_MAX + 1),
        b"GET /" + b"a" * (server.HEAD_BYTES_MAX + 1),
        b"GET / HTTP/1.1\r\n"
        + b"".join(b"X%d: y\r\n" % number for number in range(server.HEAD_BYTES_MAX // 8)),
        b"nonsense\r\n\r\n",
    ],
    ids=["long header", "long address", "many headers", "not HTTP"],
)
async def test_a_head_that_is_too_long_or_none_is_refused(request_bytes: bytes) -> None:
    async with running(App()) as (port, _):
        assert (await answer(port, request_bytes)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("request_bytes", [b"", b"GET / HTTP/1.1\r\nHost:"], ids=["silent", "slow"])
async def test_a_head_that_never_ends_is_given_up(
    request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 0.05)
    async with running(App()) as (port, _):
        assert await answer(port, request_bytes) == b""


async def test_long_bodies_and_many_requests_on_one_connection_are_no_long_heads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "HEAD_BYTES_MAX", 2_000)
    body = b"b" * 10_000
    one = b"POST / HTTP/1.1\r\nHost: x\r\nX: %s\r\nContent-Length: %d\r\n\r\n%s" % (
        b"h" * 900,
        len(body),
        body,
    )
    async with running(App()) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _round in range(5):
            writer.write(one)
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_stopping_lets_a_running_request_finish_and_takes_no_new_one() -> None:
    app = App()
    async with running(app) as (port, stop), aiohttp.ClientSession() as http:
        app.let_go.clear()
        asking = asyncio.create_task(http.get(f"http://127.0.0.1:{port}/"))
        await app.entered.wait()
        stop.set()
        while True:  # until nobody listens any more
            try:
                _reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                break
            writer.close()
            await asyncio.sleep(0.01)
        app.let_go.set()
        assert (await asking).status == 200


async def test_stopping_does_not_wait_for_ever() -> None:
    app = App()
    async with running(app, stop_seconds_max=1) as (port, stop), aiohttp.ClientSession() as http:
        app.let_go.clear()
        asking = asyncio.create_task(http.get(f"http://127.0.0.1:{port}/"))
        await app.entered.wait()
        stop.set()
        status = None
        with suppress(aiohttp.ClientError):
            status = (await asking).status
        assert status in (None, 500)


def test_a_taken_address_is_refused_with_what_to_do() -> None:
    taken = server.take_address("127.0.0.1", 0)
    try:
        taken.listen()
        with pytest.raises(ConfigurationError, match="another program listens there") as raised:
            server.take_address("127.0.0.1", taken.getsockname()[1])
        assert "TALLYSTICK_LISTEN" in str(raised.value)
    finally:
        taken.close()
    with pytest.raises(ConfigurationError, match="does not have that address"):
        server.take_address("192.0.2.1", 0)
    with pytest.raises(ConfigurationError):
        server.take_address("no such host", 0)
