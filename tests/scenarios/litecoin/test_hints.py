"""What a node publishes makes the follower look at once; that what it sees is true comes from looking (F-NODE 6).

Planted bug seen to fail: a follower that does not ask its source for hints. It would look again in an hour.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from tallystick.workers import news
from tallystick.workers.follow import Follower, FollowerOptions
from tests.support.lite_shop import ASKED, NETWORK, address_of, open_lite_shop
from tests.support.litecoind import Litecoind
from tests.support.publisher import Publisher

pytestmark = [
    pytest.mark.chain,
    pytest.mark.asyncio(loop_scope="module"),
]

HOUR = 3600.0


async def test_a_payment_and_its_block_are_seen_when_they_are_hinted(
    database_url: str, node: Litecoind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "HINTED_SECONDS_MIN", 0.05)
    async with (
        aclosing(Publisher()) as publisher,
        open_lite_shop(database_url, node, zmq=[publisher.url]) as shop,
    ):
        network = shop.config.networks[NETWORK].network
        follower = Follower(shop.ctx, network, shop.source, FollowerOptions(poll_interval_seconds=HOUR))
        stop = asyncio.Event()
        running = asyncio.create_task(follower.run(stop))
        try:
            await publisher.heard()
            invoice = await shop.create()
            sent = await node.send(address_of(invoice), ASKED)
            await publisher.publish(b"hashtx", bytes.fromhex(sent.txid))
            await shop.until_status(invoice, "detected")
            await node.mine(3)
            await publisher.publish(b"hashblock", bytes.fromhex(await node.best()))
            await shop.until_status(invoice, "paid")
            await publisher.publish(b"hashblock", b"\xee" * 32)  # a block that there is not
            await node.mine()
            await publisher.publish(b"rawtx", b"")
        finally:
            stop.set()
            await running
