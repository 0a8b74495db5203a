"""A served shop in which something of everything has happened: what the fuzzing of the API has to work with.

Without it nearly every request would end at "there is no such object", which shows little.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tallystick.api.limits import Limits
from tests.support.app import Api, Client, Merchant, junk_to, mine_by_hand, running_api

WEI = 10**16  # what 25.00 USD asks
UNLIMITED = Limits(key_per_minute=10**9, anonymous_per_minute=10**9)
HERE = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"


@asynccontextmanager
async def busy_shop(database_url: str) -> AsyncIterator[tuple[Api, Merchant]]:
    """The API with a merchant who has invoices in many states, cases, refunds and an endpoint."""
    async with running_api(database_url, limits=UNLIMITED) as api:
        merchant = await api.merchant()
        client = api.client(merchant.key)
        await _happen(api, client)
        yield api, merchant


async def _happen(api: Api, client: Client) -> None:
    endpoint = await client.post("/v1/webhook_endpoints", {"url": "https://shop.example/hooks"})
    await client.post(f"/v1/webhook_endpoints/{endpoint.json()['id']}/ping")
    await client.invoice(activate=False)
    await client.invoice()
    for number, amount in enumerate((WEI, WEI, WEI, WEI // 2, 3 * WEI, 3 * WEI)):
        invoice = await client.invoice(order_id=f"order {number}")
        await api.pay(invoice, amount, nonce=number)
        await mine_by_hand(
            api.ctx, "ethereum", junk_to(invoice["payment_options"][0]["address"], nonce=1_000 + number)
        )
        await mine_by_hand(api.ctx, "ethereum")
        await mine_by_hand(api.ctx, "ethereum")
        if number in (1, 2, 4):
            body = {"invoice_id": invoice["id"], "reason": "returned", "amount": "0.001"}
            body |= {} if number == 1 else {"address": HERE}
            refund = await client.post("/v1/refunds", body, key=f"refund {number}")
            assert refund.status_code == 201, refund.text
            if number == 2:
                await client.post(f"/v1/refunds/{refund.json()['id']}/approve")
        if number == 5:
            await client.post(f"/v1/invoices/{invoice['id']}/dispute", {"reason": "lost", "note": "n"})
