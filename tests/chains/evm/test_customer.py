"""The simulated customer pays, on chains that mine by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from tallystick.chains.evm.source import EvmOptions, EvmSource
from tallystick.demo.customer import Customer, demo_token, development_account
from tests.support.anvil import start_anvil, unique_chain_id
from tests.support.rpc_stub import stub_address

pytestmark = pytest.mark.chain


@pytest.mark.parametrize("mining", [{"automine": True}, {"block_time": 1}], ids=["at once", "every second"])
async def test_a_customer_pays_in_both_kinds(mining: dict[str, Any]) -> None:
    shop = stub_address("shop")
    async with (
        start_anvil(chain_id=unique_chain_id(), **mining) as anvil,
        Customer(anvil.url, anvil.chain_id, development_account(0)) as customer,
    ):
        token = await customer.deploy(demo_token(), "Demo Dollar", "DUSD", 6)
        await customer.mint(token, customer.address, 100)
        native, paid = await customer.pay_native(shop, 7), await customer.pay_token(token, shop, 9)
        receipts = [await customer.wait_mined(tx_hash) for tx_hash in (native, paid)]
        source = EvmSource(EvmOptions("local", anvil.chain_id, (anvil.url,)))
        try:
            heights = {int(receipt["blockNumber"], 16) for receipt in receipts}
            blocks = [await source.block_at(height) for height in sorted(heights)]
        finally:
            await source.close()
        seen = {
            (entry.tx_hash, entry.contract, entry.amount)
            for block in blocks
            for entry in block.transfers
            if entry.to == shop
        }
    assert seen == {(native, None, 7), (paid, token, 9)}
