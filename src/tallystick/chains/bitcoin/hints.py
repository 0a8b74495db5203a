"""Hints by ZMQ: a node of Bitcoin Core's kind says that it has a new block or transaction.

For: the source, so that a payment is seen in a moment and not at the next regular look. Holds true: a hint is never a
fact (F-NODE 6). Nothing of a message is read but that it came: publishers are neither authenticated nor reliable, and
messages are lost, doubled, or come from anybody who has the port. One that floods us cannot make us look more often
than the follower wants to; one that is silent, gone or wrong changes nothing.
Must not: raise for a publisher's trouble, or keep messages.

Start the node with `-zmqpubhashblock=tcp://…` and `-zmqpubrawtx=tcp://…` (or `-zmqpubhashtx`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tallystick.core.errors import ConfigurationError

if TYPE_CHECKING:
    import zmq.asyncio

TOPICS: Final = (b"hashblock", b"hashtx", b"rawtx")
_ADDRESS: Final = re.compile(r"(tcp://[^\s/@]+:\d{1,5}|ipc://\S+)", re.ASCII)
_KEPT_MESSAGES_MAX: Final = 10
_MESSAGE_BYTES_MAX: Final = 8 * 1024 * 1024
SILENCE_SECONDS_MAX: Final = 600.0
"""After so long without a word we connect anew: ZMQ gives a publisher up for good whose message was too large."""

_RECONNECT_MILLISECONDS: Final = 500
_RECONNECT_MILLISECONDS_MAX: Final = 30_000


class Hints:
    """Listens to publishers. Raises ConfigurationError for an address that is none."""

    def __init__(self, urls: Sequence[str]) -> None:
        for url in urls:
            if not _ADDRESS.fullmatch(url):
                raise ConfigurationError(
                    "A ZMQ publisher's address must be tcp://host:port or ipc://path.",
                    remedy="Correct the network's hint addresses.",
                )
        self._urls = tuple(urls)
        self._socket: zmq.asyncio.Socket | None = None
        self._context: zmq.asyncio.Context | None = None
        self._heard_at = 0.0

    async def wait(self, stop: asyncio.Event) -> None:
        """Return after a message, or at `stop`. What else has come by then is thrown away with it."""
        if not self._urls:
            await stop.wait()
            return
        now = asyncio.get_running_loop().time()
        if self._socket is not None and now - self._heard_at > SILENCE_SECONDS_MAX:
            self.close()
        if self._socket is None:
            self._socket, self._heard_at = self._listen(), now
        message = asyncio.ensure_future(self._message(self._socket))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((message, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            message.cancel()
            stopped.cancel()
            await asyncio.gather(message, stopped, return_exceptions=True)

    def close(self) -> None:
        """Stop listening."""
        if self._context is not None:
            self._context.destroy(linger=0)
        self._socket = self._context = None

    async def _message(self, socket: zmq.asyncio.Socket) -> None:
        import zmq

        await socket.recv_multipart()
        self._heard_at = asyncio.get_running_loop().time()
        try:
            while True:
                await socket.recv_multipart(flags=zmq.NOBLOCK)
        except zmq.Again:
            return

    def _listen(self) -> zmq.asyncio.Socket:
        # Not needed where no publisher is configured, and 50 ms to load.
        import zmq
        import zmq.asyncio

        self._context = zmq.asyncio.Context()
        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, _KEPT_MESSAGES_MAX)
        socket.setsockopt(zmq.MAXMSGSIZE, _MESSAGE_BYTES_MAX)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MILLISECONDS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MILLISECONDS_MAX)
        socket.setsockopt(zmq.LINGER, 0)
        for topic in TOPICS:
            socket.subscribe(topic)
        for url in self._urls:
            socket.connect(url)
        return socket
