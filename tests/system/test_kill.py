"""The whole server is killed while 100 invoices are being paid (F-HOOK 3, R-CHAIN 6 and 10).

Each kill comes at a random moment shortly after a block with payments was mined: while the block is read, judged,
committed, or its webhooks are on their way. Afterwards every invoice is paid, every transition and event exists exactly
once, every webhook arrived at least once and verified.
Planted: moving the cursor in a transaction of its own, a tenth of a second before the block's facts, loses
payments; this test then fails. (To hit a window of a few instructions takes more kills than a test can afford.)
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.evm import Chain
from tests.support.installation import Installation
from tests.support.receiver import Receiver, running_receiver

INVOICES = 100
PER_BLOCK = 7
BLOCKS_PER_KILL = 3
KILL_SECONDS_MAX = 0.4  # a poll and the intake of a block are over by then
SETTLE_SECONDS_MAX = 120


async def test_killed_at_random_moments_while_100_invoices_are_paid(shop: Installation, chain: Chain) -> None:
    """All paid, nothing twice, every webhook at least once."""
    chance = random.Random(20261121)
    async with running_receiver() as receiver:
        endpoint = await shop.post("/v1/webhook_endpoints", {"url": f"{receiver.url}/hook", "events": ["*"]})
        receiver.secrets.append(endpoint["secret"])
        invoices = await _create(shop)
        for number, batch in enumerate(_batches(invoices)):
            await _pay(chain, shop.networks[0].token, batch)
            if number % BLOCKS_PER_KILL == 0:
                await asyncio.sleep(chance.uniform(0, KILL_SECONDS_MAX))
                await shop.kill()
                await shop.start()
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


def _batches(invoices: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [invoices[start : start + PER_BLOCK] for start in range(0, len(invoices), PER_BLOCK)]


async def _pay(chain: Chain, token: str, invoices: list[dict[str, Any]]) -> None:
    """Pay some invoices in one block."""
    for invoice in invoices:
        option = invoice["payment_options"][0]
        if option["asset"] == "ETH":
            await chain.send_native(option["address"], 10**16)
        else:
            await chain.send_token(token, option["address"], 25 * 10**6)
    await chain.mine()


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
