"""A real `tallystick up` on a real litecoind: from the wallet's key to a verified webhook, a power cut, an audit.

Cites R-CHAIN 6, F-CHAIN 7, F-HOOK 3. Nothing is moved by hand but the chain.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tallystick.db.embedded import temporary_data_folder
from tests.support.installation import Installation, LitecoindAt
from tests.support.lite_shop import ASKED, account_key, address_of, payment_of
from tests.support.litecoind import Litecoind
from tests.support.receiver import running_receiver
from tests.support.stand import until

pytestmark = [
    pytest.mark.chain,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(loop_scope="module")
async def installation(node: Litecoind) -> AsyncIterator[Installation]:
    """A running installation with a Litecoin network only, and a merchant."""
    with temporary_data_folder("tallystick-lite-") as folder:
        opened = Installation(folder, (), (LitecoindAt("litecoin", node.url, confirmations=2),))
        await opened.start()
        try:
            await opened.open_shop(family="litecoin", key=account_key())
            yield opened
        finally:
            if opened.process is not None:
                await opened.kill()


async def test_paid_across_a_power_cut_and_a_reorganisation(
    installation: Installation, node: Litecoind
) -> None:
    """Seen before the cut; mined and mined again elsewhere while the server is down; paid once when it is back."""
    async with running_receiver() as receiver:
        endpoint = await installation.post(
            "/v1/webhook_endpoints", {"url": f"{receiver.url}/hook", "events": ["*"]}
        )
        receiver.secrets.append(endpoint["secret"])
        body = {"amount": "25.00", "currency": "USD", "expires_in": 86_400}
        invoice = await installation.post("/v1/invoices", body)
        page = await shown(installation, invoice)
        assert f'href="litecoin:{address_of(invoice)}?amount=0.25' in page
        assert "Litecoin regtest (test network)" in page
        sent = await node.send(address_of(invoice), ASKED)

        async def has(status: str) -> dict[str, Any]:
            async def reached() -> bool:
                return bool((await installation.get(f"/v1/invoices/{invoice['id']}"))["status"] == status)

            await until(reached)
            return dict(await installation.get(f"/v1/invoices/{invoice['id']}"))

        await has("detected")
        await node.mine()
        await has("confirming")
        await installation.kill()
        await node.reorg(1, [[], [sent]])
        await installation.start()
        best = await node.best()
        await until(lambda: is_in(installation, invoice, best))
        await node.mine()
        paid = await has("paid")
        assert (paid["amount_paid"], payment_of(paid)["tx_hash"]) == ("25.00", sent.txid)

        async def told() -> bool:
            return "invoice.paid" in {one.type for one in receiver.received}

        await until(told)
        assert all(one.signed_by for one in receiver.received)
    await installation.stop()
    # Everything stored is in order, and so is the chain: every block that was read, compared with the node's.
    audit = await installation.command("audit", "--rpc", node.url, "--blocks", "all")
    assert audit["ok"], audit["problems"]


async def shown(installation: Installation, invoice: dict[str, Any]) -> str:
    """The checkout page."""
    async with installation.session() as session, session.get(f"/i/{invoice['id']}") as answer:
        assert answer.status == 200
        return await answer.text()


async def is_in(installation: Installation, invoice: dict[str, Any], block_hash: str) -> bool:
    """Whether the invoice's payment stands in this block."""
    seen = await installation.get(f"/v1/invoices/{invoice['id']}")
    return bool(payment_of(seen)["block_hash"] == block_hash)
