"""Times: late money, money seen in time, and blocks that are dated ahead.

Cites R-CHAIN 4, F-CHAIN 2, F-MONEY 3, F-NODE 1. The node's clock and ours stand still and are moved together, except
where a miner's clock differs: consensus lets a block be dated two hours ahead of the network, and an hour back.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.support.lite_shop import ASKED, LiteShop, address_of, open_lite_shop, payment_of
from tests.support.litecoind import Litecoind, Sent
from tests.support.stand import Clock

pytestmark = [
    pytest.mark.chain,
    pytest.mark.asyncio(loop_scope="module"),
]

AHEAD_SECONDS = 5_400  # 1.5 hours


@dataclass(slots=True)
class Times:
    """Our clock and the node's."""

    clock: Clock
    node: Litecoind

    @property
    def seconds(self) -> int:
        """What our clock shows, as Unix time."""
        return int(self.clock.at.timestamp())

    async def advance(self, seconds: int) -> None:
        """Let time pass, for us and for the node."""
        self.clock.advance(seconds)
        await self.node.set_time(self.seconds)

    async def mine_dated(self, seconds: int, *transactions: Sent) -> None:
        """One block with these transactions, dated by a miner whose clock differs from ours by so much."""
        await self.node.set_time(self.seconds + seconds)
        await self.node.mine_only(*transactions)
        await self.node.set_time(self.seconds)


@pytest_asyncio.fixture(loop_scope="module")
async def times(node: Litecoind) -> AsyncIterator[Times]:
    """Clocks that stand an hour or more after every block that there is, and eleven blocks of that time."""
    newest = await node.rpc("getblockheader", await node.best())
    at = max(int(newest["time"]), int(time.time())) + 7_300
    await node.set_time(at - 60)
    await node.mine(12)
    await node.set_time(at)
    yield Times(Clock.of(at), node)


@pytest_asyncio.fixture(loop_scope="module")
async def shop(database_url: str, node: Litecoind, times: Times) -> AsyncIterator[LiteShop]:
    """A shop whose clock stands until it is moved. One confirmation is enough."""
    async with open_lite_shop(database_url, node, clock=times.clock, confirmations=1) as opened:
        yield opened


async def test_nothing_came_and_then_it_came_late(shop: LiteShop, times: Times) -> None:
    """Expired at a block after the deadline; what comes then is late, with an exception for a person."""
    invoice = await shop.create(expires_in=600)
    await times.advance(600)
    await shop.mine()
    await shop.expire()
    assert await shop.status(invoice) == "awaiting_payment"  # the deadline itself is in time
    await times.advance(1)
    await shop.mine()
    await shop.expire()
    assert await shop.status(invoice) == "expired"
    await times.advance(60)
    await shop.node.send(address_of(invoice), ASKED)
    await shop.mine()
    seen = await shop.get(invoice)
    assert (seen["status"], payment_of(seen)["on_time"], await shop.exceptions(invoice)) == (
        "late_paid",
        False,
        ["late"],
    )


async def test_seen_in_time_and_mined_after_the_deadline(shop: LiteShop, times: Times) -> None:
    """The sighting is the first evidence; the window waits for it."""
    invoice = await shop.create(expires_in=600)
    await times.advance(590)
    await shop.node.send(address_of(invoice), ASKED)
    await shop.follow()
    await times.advance(60)
    await shop.node.mine_only()
    await shop.follow()
    await shop.expire()
    assert await shop.status(invoice) == "detected"
    await shop.mine()
    seen = await shop.get(invoice)
    assert (seen["status"], payment_of(seen)["on_time"]) == ("paid", True)


async def test_a_block_dated_ahead_expires_nobody(shop: LiteShop, times: Times) -> None:
    """A miner's clock is 1.5 hours fast: consensus takes the block, and our invoices have their full time.

    Bugs planted: the header's time taken for the chain's (the invoice expires 85 minutes early), and for the earliest
    time of what the mempool shows on top of that block (the payment is late).
    """
    invoice = await shop.create(expires_in=600)
    await times.mine_dated(AHEAD_SECONDS)
    await shop.follow()
    await shop.expire()
    assert await shop.status(invoice) == "awaiting_payment"
    network = await shop.network()
    assert (network["status"], network["lag_blocks"], network["lag_seconds"]) == ("following", 0, 0)
    await times.advance(300)
    await shop.node.send(address_of(invoice), ASKED)
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen["status"], payment_of(seen)["on_time"]) == ("detected", True)
    await shop.mine()
    await shop.expire()
    seen = await shop.get(invoice)
    assert (seen["status"], payment_of(seen)["on_time"]) == ("paid", True)


async def test_a_payment_in_a_block_dated_ahead_is_in_time(shop: LiteShop, times: Times) -> None:
    """Mined without having been seen, by that miner: it was there when we read it, whatever its block says."""
    invoice = await shop.create(expires_in=600)
    sent = await shop.node.sign({address_of(invoice): ASKED})
    await times.mine_dated(AHEAD_SECONDS, sent)
    await shop.follow()
    await shop.expire()
    seen = await shop.get(invoice)
    payment = payment_of(seen)
    assert (seen["status"], payment["on_time"]) == ("paid", True)
    # What the block says is kept as evidence.
    assert when(payment["block_time"]) == times.clock.at + timedelta(seconds=AHEAD_SECONDS)
    assert when(payment["first_seen_at"]) <= times.clock.at


async def test_after_a_block_dated_ahead_windows_still_close(shop: LiteShop, times: Times) -> None:
    """Its time is not held against later ones: an unpaid invoice expires when its own time is over."""
    invoice = await shop.create(expires_in=600)
    await times.mine_dated(AHEAD_SECONDS)
    await shop.follow()
    await times.advance(601)
    await shop.mine()
    await shop.expire()
    assert await shop.status(invoice) == "expired"


async def test_a_block_dated_back_reopens_nothing(shop: LiteShop, times: Times) -> None:
    """A slow clock: chain time never goes back, and the invoice that has expired stays so."""
    invoice = await shop.create(expires_in=600)
    await times.advance(601)
    await shop.mine()
    await shop.expire()
    assert await shop.status(invoice) == "expired"
    await times.mine_dated(-300)
    await shop.follow()
    await shop.expire()
    assert await shop.status(invoice) == "expired"
    other = await shop.create(expires_in=600)
    await times.mine_dated(-500, await shop.node.sign({address_of(other): ASKED}))
    await shop.follow()
    seen = await shop.get(other)
    assert (seen["status"], payment_of(seen)["on_time"]) == ("paid", True)


async def test_no_blocks_no_expiry(shop: LiteShop, times: Times) -> None:
    """While no block comes nobody knows what is on its way: the window waits, and a payment in time still counts."""
    invoice = await shop.create(expires_in=600)
    sent = await shop.node.sign({address_of(invoice): ASKED})
    await times.advance(3_000)
    await shop.follow()
    await shop.expire()
    assert await shop.status(invoice) == "awaiting_payment"
    await times.mine_dated(-2_500, sent)
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen["status"], payment_of(seen)["on_time"]) == ("paid", True)


def when(text: Any) -> datetime:
    """A time of the API."""
    return datetime.fromisoformat(text)
