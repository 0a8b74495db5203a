"""The whole server is killed at random moments while 200 invoices are being paid (F-HOOK 3, R-CHAIN 6 and 10).

What must hold afterwards: every invoice is paid, every transition and event exists exactly once, every webhook
arrived at least once and verified. Planted: moving the cursor in a transaction of its own loses payments here,
publishing events after the commit loses webhooks; both made this test fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tallystick.db.embedded import temporary_data_folder
from tests.support.anvil import start_anvil, unique_chain_id
from tests.support.evm import Chain
from tests.support.installation import Installation, NodeAt
from tests.support.receiver import Receiver, running_receiver

INVOICES = 200
KILLS = 6
PER_BLOCK = 8
SETTLE_SECONDS_MAX = 120


@pytest.fixture
async def chain() -> AsyncIterator[Chain]:
    """A chain that mines on demand."""
    async with start_anvil(chain_id=unique_chain_id()) as anvil, Chain(anvil.url, anvil.chain_id) as helper:
        yield helper


@pytest.fixture
async def shop(chain: Chain) -> AsyncIterator[Installation]:
    """A running installation with a merchant."""
    token = await chain.deploy_token()
    with temporary_data_folder("tallystick-kill-") as folder:
        installation = Installation(folder, [NodeAt("local", chain.chain_id, chain.url, token)])
        await installation.start()
        try:
            await installation.open_shop()
            yield installation
        finally:
            if installation.process is not None:
                await installation.kill()


async def test_killed_at_random_moments_while_200_invoices_are_paid(shop: Installation, chain: Chain) -> None:
    """All paid, nothing twice, every webhook at least once."""
    chance = random.Random(20261121)
    async with running_receiver() as receiver:
        endpoint = await shop.post("/v1/webhook_endpoints", {"url": f"{receiver.url}/hook", "events": ["*"]})
        receiver.secrets.append(endpoint["secret"])
        invoices = await _create(shop)
        paying = asyncio.create_task(_pay(chain, shop.networks[0].token, invoices, chance))
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.05, 1.5))
            await shop.kill()
            await shop.start()
        await paying
        await chain.mine(shop.networks[0].confirmations)
        await _until_all_paid(shop)
        await _check(shop, invoices)
        await _check_webhooks(shop, receiver)


async def _create(shop: Installation) -> list[dict[str, Any]]:
    async with shop.session() as session:

        async def one(number: int) -> dict[str, Any]:
            asset = "ETH" if number % 2 else "DUSD"
            body = {
                "amount": "25.00",
                "currency": "USD",
                "order_id": f"order-{number}",
                "expires_in": 86_400,
                "accepted": [{"asset": asset, "network": "local"}],
            }
            invoice: dict[str, Any] = await shop.post("/v1/invoices", body, session=session)
            return invoice

        return list(await asyncio.gather(*(one(number) for number in range(INVOICES))))


async def _pay(chain: Chain, token: str, invoices: list[dict[str, Any]], chance: random.Random) -> None:
    """Pay everything, a few invoices in each block, blocks at irregular times."""
    for start in range(0, len(invoices), PER_BLOCK):
        for invoice in invoices[start : start + PER_BLOCK]:
            option = invoice["payment_options"][0]
            if option["asset"] == "ETH":
                await chain.send_native(option["address"], 10**16)
            else:
                await chain.send_token(token, option["address"], 25 * 10**6)
        await chain.mine()
        await asyncio.sleep(chance.uniform(0.0, 0.8))


async def _until_all_paid(shop: Installation) -> None:
    found: Counter[str] = Counter()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS_MAX):
            while found["paid"] != INVOICES:
                found = Counter(invoice["status"] for invoice in await shop.all("/v1/invoices"))
                await asyncio.sleep(0.2)
    assert found == {"paid": INVOICES}


async def _check(shop: Installation, invoices: list[dict[str, Any]]) -> None:
    """Every transition and every event exactly once; every transfer credited once."""
    payments = await shop.all("/v1/payments")
    assert len(payments) == INVOICES
    assert len({(payment["tx_hash"], payment["ordinal"]) for payment in payments}) == INVOICES
    events = await shop.all("/v1/events")
    assert len({event["id"] for event in events}) == len(events)
    numbered = Counter((event["data"]["object"]["id"], event["data"]["sequence"]) for event in events)
    assert set(numbered.values()) == {1}
    for invoice in invoices:
        history = (await shop.get(f"/v1/invoices/{invoice['id']}/transitions"))["data"]
        assert [step["sequence"] for step in history] == list(range(1, len(history) + 1))
        assert [step["from"] for step in history[1:]] == [step["to"] for step in history[:-1]]
        assert [step["to"] for step in history].count("paid") == 1
        assert all(step["evidence"] for step in history)
        told = [event for event in events if event["data"]["object"]["id"] == invoice["id"]]
        assert sorted(event["type"] for event in told) == sorted(f"invoice.{step['to']}" for step in history)


async def _check_webhooks(shop: Installation, receiver: Receiver) -> None:
    wanted = {event["id"] for event in await shop.all("/v1/events")}
    await receiver.wait_until(lambda: wanted <= set(receiver.ids), seconds=SETTLE_SECONDS_MAX)
    assert all(received.signed_by == (0,) for received in receiver.received)
    assert set(receiver.ids) <= wanted


async def test_a_killed_start_leaves_nothing_that_hinders_the_next(
    shop: Installation, tmp_path: Path
) -> None:
    """Killed while starting, again and again: the next start works (stale locks, sockets, half-made folders)."""
    del tmp_path
    chance = random.Random(7)
    for _ in range(3):
        await shop.kill()
        starting = asyncio.create_task(shop.start())
        await asyncio.sleep(chance.uniform(0.05, 0.9))
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, AssertionError):
            await starting
    if shop.process is not None:
        await shop.kill()
    await shop.start()
    assert (await shop.get("/v1/networks"))["data"][0]["status"] in {"following", "catching_up"}
