"""Litecoin's extension blocks (MWEB): a coin that comes out of them to an ordinary address.

Cites F-CHAIN 9. Real litecoind on a chain where MWEB is active. The payment shows in the mempool under an id that is
never mined, and the coin arrives as an output of the block's last transaction (HogEx), which matures after six blocks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.support.lite_shop import ASKED, LiteShop, address_of, open_lite_shop, payment_of, payments_by_tx
from tests.support.litecoind import COIN, Litecoind, coins_text, start_litecoind

pytestmark = [
    pytest.mark.chain,
    pytest.mark.asyncio(loop_scope="module"),
]

PRIVATE = "private"
MATURITY = 6


@dataclass(frozen=True, slots=True)
class Pegout:
    """A payment out of MWEB: the id under which wallets and the mempool know it, and its bytes."""

    txid: str
    raw: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[Litecoind]:
    """A node on which MWEB is active, with a second wallet that holds MWEB coins only."""
    async with start_litecoind() as litecoind:
        await litecoind.activate_mweb()
        await litecoind.rpc("createwallet", PRIVATE)
        await litecoind.send(await litecoind.rpc_in(PRIVATE, "getnewaddress", "", "mweb"), 4 * COIN)
        await litecoind.mine(2)
        yield litecoind


@pytest_asyncio.fixture(loop_scope="module")
async def shop(database_url: str, node: Litecoind) -> AsyncIterator[LiteShop]:
    """A shop that wants two confirmations."""
    async with open_lite_shop(database_url, node, confirmations=2) as opened:
        yield opened


async def pay_out_of_mweb(node: Litecoind, address: str) -> Pegout:
    """Pay from MWEB to an ordinary address, into the mempool."""
    txid = await node.rpc_in(PRIVATE, "sendtoaddress", address, coins_text(ASKED))
    found = await node.rpc_in(PRIVATE, "gettransaction", txid)
    await node.submit(found["hex"])
    assert txid in await node.mempool()
    return Pegout(txid, found["hex"])


async def test_a_payment_out_of_mweb_arrives_in_a_block_and_matures(shop: LiteShop, node: Litecoind) -> None:
    """Nothing before its block; then an output of the HogEx, paid after six blocks whatever fewer the rules ask.

    Bugs planted: the maturity left out (paid after two blocks); the HogEx taken for any other transaction.
    """
    invoice = await shop.create()
    pegout = await pay_out_of_mweb(node, address_of(invoice))
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen["status"], seen["payments"]) == ("awaiting_payment", [])
    await shop.mine()
    seen = await shop.get(invoice)
    payment = payment_of(seen)
    block = await node.rpc("getblock", await node.best(), 1)
    assert payment["tx_hash"] == block["tx"][-1] != pegout.txid
    assert (payment["traits"], payment["ordinal"]) == (["pegout"], 1)
    assert (seen["status"], payment["confirmations"], payment["confirmations_required"]) == (
        "confirming",
        1,
        MATURITY,
    )
    await shop.mine(MATURITY - 2)
    assert await shop.status(invoice) == "confirming"
    await shop.mine()
    seen = await shop.get(invoice)
    assert (seen["status"], seen["amount_paid"]) == ("paid", "25.00")


async def test_what_counts_at_sight_does_not_count_out_of_mweb(shop: LiteShop, node: Litecoind) -> None:
    """A rule of zero confirmations cannot make an unripe coin spendable."""
    rule = {
        "name": "at sight",
        "match": {},
        "require": {"finality": "depth", "confirmations": 1},
        "zero_conf": True,
    }
    await shop.rules(rule)
    invoice = await shop.create()
    await pay_out_of_mweb(node, address_of(invoice))
    await shop.mine(MATURITY - 1)
    assert await shop.status(invoice) == "confirming"
    await shop.mine()
    assert await shop.status(invoice) == "paid"


async def test_ordinary_payments_go_on_beside_mweb(shop: LiteShop, node: Litecoind) -> None:
    """Coins that go into MWEB and ordinary payments in one block: nothing of unknown shape disturbs anything."""
    invoice = await shop.create()
    await node.send(address_of(invoice), ASKED)
    await node.send(await node.rpc_in(PRIVATE, "getnewaddress", "", "mweb"), COIN)
    inside = await node.rpc_in(PRIVATE, "sendtoaddress", await node.new_address("mweb"), coins_text(ASKED))
    await node.submit((await node.rpc_in(PRIVATE, "gettransaction", inside))["hex"])
    await shop.follow()
    assert await shop.status(invoice) == "detected"
    await shop.mine(2)
    seen = await shop.get(invoice)
    assert (seen["status"], payment_of(seen)["traits"]) == ("paid", ["replaceable"])
    assert (await shop.network())["status"] == "following"


async def test_mined_again_after_a_reorganisation_it_is_another_transaction(
    shop: LiteShop, node: Litecoind
) -> None:
    """Another block has another HogEx: the first payment can never return, the second is the one that counts.

    The same coins went into both, so it is one credit, and the evidence names the other HogEx.
    """
    invoice = await shop.create(expires_in=86_400)
    pegout = await pay_out_of_mweb(node, address_of(invoice))
    await shop.mine()
    first = payment_of(await shop.get(invoice))
    await node.undo(1)
    await node.restart(
        f"-wallet={PRIVATE}", forget_mempool=True
    )  # this old node mines no block while it remembers the undone one
    await node.mine()
    await shop.follow()
    assert await shop.status(invoice) == "awaiting_payment"
    await node.submit(pegout.raw)
    await shop.mine(MATURITY)
    seen = await shop.get(invoice)
    assert (seen["status"], seen["amount_paid"]) == ("paid", "25.00")
    second = next(one for one in seen["payments"] if one["id"] != first["id"])
    assert payments_by_tx(seen) == {first["tx_hash"]: "replaced", second["tx_hash"]: "confirmed"}
