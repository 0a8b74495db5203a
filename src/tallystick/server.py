"""The HTTP server as a part of our process: uvicorn without its own hold on signals and logs.

For: `up`, `api`, `demo`. Holds true: the address is taken before anything else starts, so a taken port is a clear error
and nothing half-started; told to stop, it takes no new request, lets the running ones finish within the deadline, then
ends. Must not: know what it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import uvicorn

from tallystick.core.errors import ConfigurationError, TallystickError

STARTED_POLL_SECONDS: Final = 0.005
HEADER_BYTES_MAX: Final = 64 * 1024
BACKLOG: Final = 2048
_REASONS: Final = {
    errno.EADDRINUSE: "another program listens there",
    errno.EACCES: "this user may not listen on that port",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
}


class ServerFailed(TallystickError):
    """The HTTP server did not start, or ended without being asked."""

    code = "server_failed"


def take_address(host: str, port: int) -> socket.socket:
    """A socket bound to the address; connections are refused until the server listens on it.

    Raises ConfigurationError when the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        reason = _REASONS.get(error.errno or 0, error.strerror or "unknown host")
        raise ConfigurationError(
            f"The server cannot listen on {host}:{port}: {reason}.",
            remedy="Choose another address with TALLYSTICK_LISTEN, or `listen` in the configuration.",
        ) from error
    return taken


class _Server(uvicorn.Server):
    """Signals are the caller's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal."""
        yield


async def serve(
    app: Any,
    address: socket.socket,
    stop: asyncio.Event,
    *,
    trusted_proxies: Sequence[str],
    stop_seconds_max: int,
    on_ready: Callable[[], None],
    before_stop: Callable[[], None],
) -> None:
    """Serve the ASGI application until `stop`. Raises ServerFailed when the server ends by itself.

    `on_ready` is called once requests are answered, `before_stop` when `stop` is set, so that open streams can end.
    """
    server = _Server(
        uvicorn.Config(
            app,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
            timeout_graceful_shutdown=stop_seconds_max,
            backlog=BACKLOG,
            h11_max_incomplete_event_size=HEADER_BYTES_MAX,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[address]), name="http-server")
    asked = asyncio.create_task(stop.wait(), name="http-server-stop")
    try:
        while not server.started and not serving.done():
            await asyncio.wait(
                {serving}, timeout=STARTED_POLL_SECONDS
            )  # uvicorn tells nobody when it is ready
        if not serving.done():
            on_ready()
        await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
        before_stop()
        server.should_exit = True
        await serving
        if not stop.is_set():
            raise ServerFailed("The HTTP server ended by itself.", remedy="The log says why.")
    finally:
        asked.cancel()
        if not serving.done():
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        address.close()
