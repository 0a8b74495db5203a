"""A ZMQ publisher as nodes of Bitcoin Core's kind have one: the node that runs here was built without."""

from __future__ import annotations

import asyncio

import zmq
import zmq.asyncio

from tallystick.chains.bitcoin.hints import TOPICS

SECONDS_MAX = 20.0


class Publisher:
    """A node's publisher, at `url`. Close it with `aclose`."""

    def __init__(self) -> None:
        self._context = zmq.asyncio.Context()
        # XPUB, which is PUB that also tells who listens: a message before that would be lost.
        self._socket = self._context.socket(zmq.XPUB)
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.url = f"tcp://127.0.0.1:{port}"

    async def heard(self) -> None:
        """Wait until somebody listens to all topics."""
        wanted = {b"\x01" + topic for topic in TOPICS}
        while wanted:
            wanted.discard(await asyncio.wait_for(self._socket.recv(), SECONDS_MAX))

    async def publish(self, topic: bytes, body: bytes, number: int = 0) -> None:
        """As a node does: topic, body, and a number that counts the topic's messages."""
        await self._socket.send_multipart([topic, body, number.to_bytes(4, "little")])

    async def aclose(self) -> None:
        """Publish no more."""
        self._context.destroy(linger=0)
