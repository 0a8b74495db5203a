"""A real `tallystick up` on a TRON node's stand-in: from the wallet's key to a verified webhook, across a power cut.

Cites F-TOKEN 5, F-CHAIN 7, F-HOOK 3, F-API 3. Nothing is moved by hand but the chain.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tallystick.chains.tron.addresses import normalize
from tallystick.db.embedded import temporary_data_folder
from tests.support.installation import Installation, TronAt
from tests.support.receiver import running_receiver
from tests.support.stand import until
from tests.support.tron_node import CHAIN_ID, SOLIDIFIED_BEHIND, TronNode, call, token_payment, transfer_log
from tests.support.tron_stand import account_key

pytestmark = pytest.mark.slow

USDT = "0xa614f803b6fd780986a42c78ec9c7f77e6ded13c"
KEY = "secret-access-key"


@pytest.fixture
async def node() -> AsyncIterator[TronNode]:
    """A chain whose blocks, those to come as well, are of the last minutes: none is ahead of our clock."""
    async with TronNode(start_ms=(int(time.time()) - 3 * 60) * 1000) as node:
        node.tokens[USDT] = (6, "USDT")
        node.mine(blocks=SOLIDIFIED_BEHIND + 1)
        yield node


async def test_usdt_is_paid_across_a_power_cut(node: TronNode) -> None:
    """A failed payment counts for nothing, one in a block that is not solidified is waited for, also across the cut."""
    url = node.url.replace("http://", f"http://{KEY}@")
    with temporary_data_folder("tallystick-tron-") as folder:
        shop = Installation(
            folder, (), (TronAt("tron", CHAIN_ID, url, "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"),)
        )
        await shop.start()
        try:
            await shop.open_shop(family="tron", key=account_key())
            async with running_receiver() as receiver:
                await pay(shop, node, receiver)
            await shop.stop()
            checks = await shop.command("doctor")
            assert ("tron USDT", "ok") in {(check["name"], check["level"]) for check in checks["checks"]}
            audit = await shop.command("audit", "--rpc", url, "--blocks", "all")
            assert audit["ok"], audit["problems"]
            for log in folder.glob("*.log"):
                assert KEY not in log.read_text()
        finally:
            if shop.process is not None:
                await shop.kill()


async def pay(shop: Installation, node: TronNode, receiver: Any) -> None:
    endpoint = await shop.post("/v1/webhook_endpoints", {"url": f"{receiver.url}/hook", "events": ["*"]})
    receiver.secrets.append(endpoint["secret"])
    accept = [{"asset": "USDT", "network": "tron"}]
    invoice = await shop.post(
        "/v1/invoices", {"amount": "25.00", "currency": "USD", "expires_in": 86_400, "accepted": accept}
    )
    option = invoice["payment_options"][0]
    assert (option["address"][0], option["amount_expected"], option["finality"]) == ("T", "25", "finalized")
    assert option["uri"] == f"tron:{option['address']}"
    page = await shown(shop, invoice)
    assert option["address"] in page
    to = normalize(option["address"])
    node.mine(call(USDT, logs=[transfer_log(USDT, to, 25_000_000)], result="OUT_OF_ENERGY"))
    sent = token_payment(USDT, to, 25_000_000)
    node.mine(sent)

    async def has(status: str) -> dict[str, Any]:
        async def reached() -> bool:
            return bool((await shop.get(f"/v1/invoices/{invoice['id']}"))["status"] == status)

        await until(reached)
        return dict(await shop.get(f"/v1/invoices/{invoice['id']}"))

    waiting = await has("confirming")
    assert [one["tx_hash"] for one in waiting["payments"]] == [sent.tx_hash]
    await shop.kill()
    node.mine(blocks=SOLIDIFIED_BEHIND)
    await shop.start()
    node.mine(blocks=3)
    paid = await has("paid")
    assert (paid["amount_paid"], paid["payments"][0]["amount"]) == ("25.00", "25")
    assert paid["payments"][0]["from"].startswith("T")

    async def told() -> bool:
        return "invoice.paid" in {one.type for one in receiver.received}

    await until(told)
    assert all(one.signed_by for one in receiver.received)


async def shown(shop: Installation, invoice: dict[str, Any]) -> str:
    """The checkout page."""
    async with shop.session() as session, session.get(f"/i/{invoice['id']}") as answer:
        assert answer.status == 200
        return await answer.text()
