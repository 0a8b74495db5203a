"""An ASGI application on a port of the loopback interface, in the test's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

START_SECONDS_MAX = 10.0


class _Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """Signals belong to the test runner."""


@asynccontextmanager
async def serve(app: Any, *, before_stop: Callable[[], None] = lambda: None) -> AsyncIterator[str]:
    """Serve `app`; gives its URL. `before_stop` is called first at the end (to close open streams)."""
    # Named as TCP: only then does asyncio switch off Nagle's algorithm on accepted connections.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none", access_log=False)
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            while not server.started:
                if task.done():
                    task.result()
                await asyncio.sleep(0.005)  # uvicorn offers a flag, not an event
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        before_stop()
        server.should_exit = True
        async with asyncio.timeout(START_SECONDS_MAX):
            await task
        listener.close()
