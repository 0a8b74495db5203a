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
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tallystick.core.errors import ConfigurationError, TallystickError

STARTED_POLL_SECONDS: Final = 0.005
HEAD_BYTES_MAX: Final = 64 * 1024
HEAD_SECONDS_MAX: Final = 20.0
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
    # Named as TCP: asyncio sets TCP_NODELAY on connections of such sockets only, and without it every answer waits some
    # 40 ms for the client's delayed acknowledgement.
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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


class _LimitedProtocol(HttpToolsProtocol):
    """One connection, with limits on a request's head: neither endless nor endlessly slow.

    The parser keeps what it is sent until the head is complete, and asks nobody how much that may be. A connection on
    which nothing is asked counts as one with an unfinished head. Bodies are the application's to limit.
    """

    _head_bytes = 0
    _head_open = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        """A new connection: its first request has to come within the time for a head."""
        super().connection_made(transport)
        self._wait_for_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._head_open = False
        self._forget_timer()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parse, and give up on a head that is too long."""
        super().data_received(data)
        if not self._head_open:
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._forget_timer()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._head_open, self._head_bytes = True, 0
        self._forget_timer()
        self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self._give_up)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


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
            http=_LimitedProtocol,
            ws="none",
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
