"""PostgreSQL is stopped, crashes, and has its connections cut again and again while a shop is busy (F-HOOK 3, F-API 1).

On a real `tallystick up` with its own PostgreSQL. Customers' requests are repeated under their idempotency keys until
they are accepted, blocks with payments come all the while, webhooks are on their way. Afterwards every accepted request
had its effect once, every invoice is paid, every webhook arrived, and every invariant of the database holds. Nobody was
ever told of a defect: an outage is 503.
Found here: a deliverer that waited for ever. Its listener's connection was gone when it was cancelled, and letting go
of that connection raised an error which took the cancellation's place (`tests/db/test_listening.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import uuid
from collections import Counter
from typing import Any

import aiohttp
import asyncpg
import pytest

from tallystick.db.embedded import EmbeddedPostgres
from tallystick.db.embedded_folder import DataFolder
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services.context import Context
from tests.support.evm import Chain
from tests.support.installation import Installation
from tests.support.invariants import check_invariants
from tests.support.receiver import running_receiver
from tests.support.stand import RATES, evm_network, until

pytestmark = [pytest.mark.chain, pytest.mark.slow]

CUSTOMERS = 4
PAUSE_SECONDS = 0.2  # of a customer, between two orders
PRICE = 10**16
CONFIRMATIONS = 2
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
# What happens to the database, and how long it is left alone before that.
OUTAGES = ("cut", "cut", "stop", "cut", "cut", "crash", "cut", "cut", "stop", "cut")
QUIET_SECONDS_MAX = 0.8


class Load:
    """Customers who order, and pay what they ordered, whatever the server answers."""

    def __init__(self, shop: Installation, chain: Chain) -> None:
        self.shop, self.chain = shop, chain
        self.accepted: list[dict[str, Any]] = []
        self.answers: Counter[int] = Counter()
        self.closing = asyncio.Event()
        self._ordered: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def run(self) -> None:
        """Order and pay until closing time, and then what was ordered."""
        paying = asyncio.create_task(self._pay())
        await asyncio.gather(*(self._order(customer) for customer in range(CUSTOMERS)))
        self._ordered.put_nowait(None)
        await paying

    async def _order(self, customer: int) -> None:
        """One customer's orders, one after the other; each repeated until it is accepted."""
        async with self.shop.session() as session:
            for number in itertools.count():
                order_id = f"order-{customer}-{number}"
                body: dict[str, Any] = {"amount": "25.00", "currency": "USD", "order_id": order_id}
                body["accepted"] = [{"asset": "ETH", "network": "local"}]
                made = await self._until_accepted(session, body)
                self.accepted.append(made)
                self._ordered.put_nowait(made)
                if self.closing.is_set():
                    return
                await asyncio.sleep(PAUSE_SECONDS)

    async def _until_accepted(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> dict[str, Any]:
        key = str(uuid.uuid4())
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.post(
                    "/v1/invoices", json=body, headers={"Idempotency-Key": key}
                ) as answer:
                    self.answers[answer.status] += 1
                    if answer.status == 201:
                        made: dict[str, Any] = await answer.json()
                        return made
            await asyncio.sleep(0.05)

    async def _pay(self) -> None:
        """Pay what was ordered, a block at a time."""
        ordered: dict[str, Any] | None = None
        while (ordered := await self._ordered.get()) is not None:
            await self.chain.send_native(ordered["payment_options"][0]["address"], PRICE)
            if self._ordered.empty():
                await self.chain.mine()
        await self.chain.mine(CONFIRMATIONS)


async def disturb(folder: DataFolder) -> None:
    """Every outage in turn, at random moments."""
    chance = random.Random(20261121)
    for outage in OUTAGES:
        await asyncio.sleep(chance.uniform(0.1, QUIET_SECONDS_MAX))
        if outage == "cut":
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                connection = await asyncpg.connect(folder.dsn, timeout=5)
                await connection.fetch(CUT)
                await connection.close()
        else:
            pid = int((folder.cluster / "postmaster.pid").read_text().split()[0])
            # PostgreSQL's own words: SIGINT is a fast stop, SIGQUIT one that has to be recovered from.
            os.kill(pid, signal.SIGINT if outage == "stop" else signal.SIGQUIT)
            await until(lambda: _serves(folder))


async def _serves(folder: DataFolder) -> bool:
    try:
        connection = await asyncpg.connect(folder.dsn, timeout=5)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True


async def test_nothing_is_lost_or_doubled_while_the_database_comes_and_goes(
    shop: Installation, chain: Chain
) -> None:
    """Each order once, paid once, told."""
    async with running_receiver() as receiver:
        endpoint = await shop.post("/v1/webhook_endpoints", {"url": f"{receiver.url}/hook", "events": ["*"]})
        receiver.secrets.append(endpoint["secret"])
        load = Load(shop, chain)
        running = asyncio.create_task(load.run())
        await disturb(DataFolder(shop.folder / "data", worthless_data=False))
        load.closing.set()
        async with asyncio.timeout(60):
            await running
        await until(lambda: _all_paid(shop, len(load.accepted)))
        events = await shop.all("/v1/events")
        await receiver.wait_until(lambda: {event["id"] for event in events} <= set(receiver.ids), seconds=90)
        assert all(one.signed_by == (0,) for one in receiver.received)
    invoices = await shop.all("/v1/invoices")
    assert Counter(one["order_id"] for one in invoices) == Counter(one["order_id"] for one in load.accepted)
    assert {one["id"] for one in invoices} == {one["id"] for one in load.accepted}
    assert len(await shop.all("/v1/payments")) == len(load.accepted)
    assert set(load.answers) <= {201, 503, 409}, load.answers
    assert process_of(shop).returncode is None, "the server did not live through it"
    await shop.stop()
    await _check(shop, chain)


async def _all_paid(shop: Installation, orders: int) -> bool:
    found = Counter(one["status"] for one in await shop.all("/v1/invoices"))
    return found == {"paid": orders}


def process_of(shop: Installation) -> asyncio.subprocess.Process:
    """The server, which was started once."""
    assert shop.process is not None
    assert shop.starts == 1
    return shop.process


async def _check(shop: Installation, chain: Chain) -> None:
    """The database at rest: every invariant."""
    async with EmbeddedPostgres(shop.folder / "data").run() as url:
        database = await Database.open(url, connections_max=4)
        try:
            network = evm_network("local", chain.chain_id, confirmations=CONFIRMATIONS)
            await check_invariants(
                Context(database, {"local": network}, StaticRates(RATES), "http://127.0.0.1")
            )
        finally:
            await database.close()
