"""The chain changes its mind: 1, 6 and 13 blocks, with the payment and without, halted and followed, across restarts.

Cites R-CHAIN 4, F-CHAIN 1-4, 6-7. Real litecoind, real PostgreSQL. What a block held that left the chain waits in the
node's mempool again, as on every node of Bitcoin's family, unless something conflicts with it.
"""

from __future__ import annotations

from typing import Any

import pytest

from tallystick.core.errors import ReorgTooDeep
from tests.support.lite_shop import (
    ASKED,
    LiteShop,
    address_of,
    open_lite_shop,
    payment_of,
    payments_by_tx,
)
from tests.support.litecoind import Litecoind, Sent

pytestmark = [
    pytest.mark.chain,
    pytest.mark.asyncio(loop_scope="module"),
]

Invoice = dict[str, Any]

depths = pytest.mark.parametrize(("depth", "restart"), [(1, False), (6, True), (13, False)])
"""How deep the chain changes, and whether our follower starts anew meanwhile."""

REMEMBERED_BLOCKS = 10
"""So many undone blocks' transactions the node puts back into its mempool when it is told to go back."""


async def pay(shop: LiteShop, *, blocks: int) -> tuple[Invoice, Sent]:
    """A new invoice and the transaction that pays it, `blocks` deep and read."""
    invoice = await shop.create()
    sent = await shop.node.send(address_of(invoice), ASKED)
    await shop.mine(blocks)
    return invoice, sent


@depths
async def test_the_payment_is_mined_again_elsewhere(
    shop: LiteShop, node: Litecoind, depth: int, *, restart: bool
) -> None:
    """One credit; the anchor moves; confirmations restart; first evidence stays (F-CHAIN 2, 7).

    Bug planted: a block that left the chain still taken for the payment's place.
    """
    invoice, sent = await pay(shop, blocks=depth)
    before = payment_of(await shop.get(invoice))
    assert before["confirmations"] == depth
    later = min(1, depth - 1)
    await node.reorg(depth, [[]] * later + [[sent]] + [[]] * (depth - 1 - later))
    if restart:
        await shop.restart()
    await shop.follow()
    seen = await shop.get(invoice)
    after = payment_of(seen)
    assert (after["id"], after["first_seen_at"], after["ordinal"]) == (
        before["id"],
        before["first_seen_at"],
        before["ordinal"],
    )
    assert after["confirmations"] == depth - later
    assert after["block_hash"] == await node.hash_at(after["block_height"]) != before["block_hash"]
    assert seen["status"] == ("paid" if depth - later >= 3 else "confirming")
    await shop.mine(3)
    seen = await shop.get(invoice)
    assert (seen["status"], seen["amount_paid"], len(seen["payments"])) == ("paid", "25.00", 1)
    assert payment_of(seen)["on_time"]


@depths
async def test_the_payment_goes_back_to_the_mempool(
    shop: LiteShop, node: Litecoind, depth: int, *, restart: bool
) -> None:
    """The new blocks do not hold it: the credit is reversed, it is seen again, and mined again it is one credit.

    Told to go back more than ten blocks, the node forgets what they held; then the customer's wallet has to send it
    again.
    Bug planted: transfers of the disconnected blocks not touched; the invoice stays paid (F-CHAIN 1).
    """
    invoice, sent = await pay(shop, blocks=depth)
    assert await shop.status(invoice) == ("confirming" if depth == 1 else "paid")
    await node.reorg(depth)
    assert await node.mempool() == ([sent.txid] if depth <= REMEMBERED_BLOCKS else [])
    if restart:
        await shop.restart()
    await shop.follow()
    if depth > REMEMBERED_BLOCKS:
        seen = await shop.get(invoice)
        assert (seen["status"], payment_of(seen)["status"]) == ("awaiting_payment", "orphaned")
        await node.submit(sent)
        await shop.follow()
    seen = await shop.get(invoice)
    assert (seen["status"], seen["amount_paid"]) == ("detected", "0.00")
    assert payment_of(seen)["confirmations"] == 0
    reasons = [one["reason"] for one in await shop.history(invoice)]
    assert "reorganized" in reasons
    if depth > 1:
        assert "reversed" in await shop.exceptions(invoice)
    await shop.mine(3)
    seen = await shop.get(invoice)
    assert (seen["status"], seen["amount_paid"], len(seen["payments"])) == ("paid", "25.00", 1)


@depths
async def test_a_conflicting_spend_is_mined_instead(
    shop: LiteShop, node: Litecoind, depth: int, *, restart: bool
) -> None:
    """The payment can never return: `replaced`, and evidence names what took its place (F-CHAIN 3).

    Bug planted: of a transaction's inputs only the first is compared; the payment is orphaned for ever (the conflict
    shares its second coin only).
    """
    invoice = await shop.create()
    first, second = (await node.coins())[:2]
    sent = await node.sign({address_of(invoice): ASKED}, coins=[first, second])
    await node.submit(sent)
    await shop.mine(depth)
    thief = await node.sign(
        {await node.new_address(): second.amount - 10_000_000}, coins=[second], fee=100_000
    )
    await node.reorg(depth, [[thief], *[[]] * (depth - 1)])
    if restart:
        await shop.restart()
    await shop.follow()
    seen = await shop.get(invoice)
    payment = payment_of(seen)
    assert (seen["status"], seen["amount_paid"]) == ("awaiting_payment", "0.00")
    assert (payment["status"], payment["replaced_by"], payment["confirmations"]) == (
        "replaced",
        thief.txid,
        0,
    )
    last = await shop.last(invoice)
    assert last["reason"] == "replaced"
    assert thief.txid in [fact.get("replaced_by") for fact in last["evidence"]]
    assert (await shop.event_types(payment["id"]))[-1] == "payment.replaced"
    again = await node.send(address_of(invoice), ASKED)
    await shop.mine(3)
    assert await shop.status(invoice) == "paid"
    assert payments_by_tx(await shop.get(invoice)) == {sent.txid: "replaced", again.txid: "confirmed"}


async def test_even_a_replacement_can_be_taken_back(shop: LiteShop, node: Litecoind) -> None:
    """The chain returns to a branch that holds the payment, not its conflict."""
    invoice, sent = await pay(shop, blocks=3)
    thief = await node.respend(sent, {await node.new_address(): ASKED})
    await node.reorg(3, [[thief]])
    await shop.follow()
    assert payment_of(await shop.get(invoice))["replaced_by"] == thief.txid
    await node.reorg(1, [[sent], [], []])
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen["status"], payment_of(seen)["status"], payment_of(seen)["replaced_by"]) == (
        "paid",
        "confirmed",
        None,
    )


async def test_after_delivery_a_reversal_needs_a_person(shop: LiteShop, node: Litecoind) -> None:
    """The goods have left and the money was spent elsewhere: for review, with an exception (F-CHAIN 4)."""
    invoice, sent = await pay(shop, blocks=4)
    await shop.told(f"/v1/invoices/{invoice['id']}/fulfillment", {"reference": "parcel 7"})
    thief = await node.respend(sent, {await node.new_address(): ASKED})
    await node.reorg(4, [[thief], [], [], []])
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen["status"], seen["next_action"]["owner"]) == ("review_required", "support")
    assert "reversed" in await shop.exceptions(invoice)


async def test_deeper_than_is_safe_the_network_halts(database_url: str, node: Litecoind) -> None:
    """Thirteen blocks where twelve are safe: nothing is guessed; after a decision it is followed (F-CHAIN 6)."""
    async with open_lite_shop(database_url, node, safety_depth=12) as shop:
        await shop.mine(13)  # so that the common block is one that the shop knows
        invoice, sent = await pay(shop, blocks=13)
        waiting = await shop.create()
        thief = await node.respend(sent, {await node.new_address(): ASKED})
        await node.reorg(13, [[thief], *[[]] * 13])
        with pytest.raises(ReorgTooDeep):
            await shop.follow()
        async with shop.running():
            halted = await shop.until_network("halted")
        assert "12 blocks" in halted["problem"]
        assert "network_halted" in await shop.exceptions()
        await node.send(address_of(waiting), ASKED)
        await node.mine(3)
        await shop.follow()
        assert [await shop.status(one) for one in (invoice, waiting)] == ["paid", "awaiting_payment"]
        await shop.resume()
        await shop.follow()
        seen = await shop.get(invoice)
        assert (seen["status"], payment_of(seen)["replaced_by"]) == ("awaiting_payment", thief.txid)
        assert await shop.status(waiting) == "paid"
        assert (await shop.network())["status"] == "following"


async def test_a_busy_shop_through_many_changes(shop: LiteShop, node: Litecoind) -> None:
    """Twelve invoices in ever changing blocks, restarts in between: one credit for each that the last branch holds."""
    invoices = [await shop.create(expires_in=86_400) for _ in range(12)]
    sent: list[Sent] = []
    for number, depth in enumerate((1, 2, 3, 1, 4, 2)):
        two = invoices[2 * number : 2 * number + 2]
        sent.append(await node.pay({address_of(invoice): ASKED for invoice in two}))
        await shop.mine(1 + number % 2)
        await node.undo(min(depth, 1 + number))
        await node.mine(depth)  # what was undone, in other blocks
        if number % 2:
            await shop.restart()
        await shop.follow()
    await shop.mine(3)
    seen = [await shop.get(invoice) for invoice in invoices]
    assert {one["status"] for one in seen} == {"paid"}
    assert {(len(one["payments"]), one["amount_paid"]) for one in seen} == {(1, "25.00")}
    # The last branch leaves the newest two out for good.
    thief = await node.respend(sent[-1], {await node.new_address(): ASKED})
    undone = await node.height() - 6
    places = {one["tx_hash"]: one["block_height"] for invoice in seen for one in invoice["payments"]}
    again = [one for one in sent[:-1] if places[one.txid] > undone]
    await node.reorg(6, [[*again, thief], [], [], [], [], []])
    await shop.follow()
    assert [await shop.status(invoice) for invoice in invoices] == ["paid"] * 10 + ["awaiting_payment"] * 2
