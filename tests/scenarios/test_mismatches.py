"""Value that was not asked for like this: another asset, another network, no transfer at all, junk, dust.

Cites R-EXC 1-2, R-CHAIN 8, F-TOKEN 2-4. Each is a case for a person, and whatever is decided is not asked again.
"""

from __future__ import annotations

from typing import Any

import pytest

from tallystick.core.cases import Resolution
from tallystick.core.errors import InvalidInput
from tallystick.services import objects
from tallystick.services.balances import check_invoices
from tallystick.services.context import Actor, ActorType
from tallystick.services.exceptions import RefundWish
from tallystick.services.refund_decisions import approve_refund
from tallystick.services.refunds import get_refund
from tests.support.cases import (
    WEI,
    WINDOW,
    cases,
    close_window,
    decide,
    kinds,
    mine,
)
from tests.support.evm import Chain, address_of
from tests.support.stand import ACTOR, Clock, Stand, address_in, evm_network, open_stand, units

R = Resolution


# What was not asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "more", "status", "amount_paid"),
    [
        (R.ACCEPT, {}, "paid", "25.00"),
        (R.CREDIT, {"value": "25.00"}, "paid", "25.00"),
        (R.CREDIT, {"value": "5.00"}, "partially_paid", "5.00"),
        (R.WRITE_OFF, {}, "awaiting_payment", "0.00"),
        (R.IGNORE, {}, "awaiting_payment", "0.00"),
    ],
)
async def test_the_wrong_asset(
    timed: Stand,
    chain: Chain,
    token: str,
    action: Resolution,
    more: dict[str, Any],
    status: str,
    amount_paid: str,
) -> None:
    """25 DUSD came to an address for ETH: whatever is decided, it is not asked again."""
    invoice = await timed.create("25.00")
    await chain.send_token(token, address_in(invoice), units("25", 6))
    await mine(timed, chain)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("review_required", ["wrong_asset"])
    await decide(timed, invoice, action, **more)
    seen = await timed.get(invoice)
    assert (seen.status, seen.amount_paid) == (status, amount_paid)
    await mine(timed, chain)
    assert await kinds(timed, invoice) == []
    await chain.send_token(token, address_in(invoice), units("1", 6))
    await mine(timed, chain)
    assert await kinds(timed, invoice) == ["wrong_asset"]


async def test_the_wrong_asset_beside_the_right_one(timed: Stand, chain: Chain, token: str) -> None:
    """The right payment settles the invoice; the other stays a case. Accepted, it makes the invoice neither less paid
    while it confirms, nor overpaid. Both orders."""
    for first in ("coin", "token"):
        invoice = await timed.create("25.00")
        for what in (first, "token" if first == "coin" else "coin"):
            if what == "coin":
                await chain.send_native(address_in(invoice), WEI)
            else:
                await chain.send_token(token, address_in(invoice), units("25", 6))
            await mine(timed, chain)
        assert (await timed.status(invoice), await kinds(timed, invoice)) == ("paid", ["wrong_asset"])
        await decide(timed, invoice, R.ACCEPT)
        seen = await timed.get(invoice)
        assert (seen.status, seen.amount_paid) == ("paid", "25.00")
        assert await kinds(timed, invoice) == []


async def test_the_wrong_network_is_accepted(two: Stand, chain: Chain, other: Chain) -> None:
    """The wallet holds the key there too. The decision rests on the other chain from then on."""
    invoice = await two.create("25.00", ("ETH", "local"))
    sent = await other.send_native(address_in(invoice), WEI)
    await mine(two, other)
    assert (await two.status(invoice), await kinds(two, invoice)) == ("review_required", ["wrong_network"])
    await decide(two, invoice, R.ACCEPT)
    seen = await two.get(invoice)
    assert (seen.status, seen.amount_paid, seen.payments[0].network) == ("paid", "25.00", "other")
    await other.reorg(1)
    await two.follow()
    assert (await two.status(invoice), await kinds(two, invoice)) == ("awaiting_payment", ["reversed"])
    await other.submit(sent)
    await mine(two, other)
    assert (await two.status(invoice), await kinds(two, invoice)) == ("paid", [])


async def test_the_wrong_network_is_confirmed_by_its_own_requirement(
    database_url: str, chain: Chain, other: Chain, clock: Clock
) -> None:
    """One block suffices where it was asked for, three where it came: accepted, it pays with the third.

    Planted bug: one block of the other network suffices, because the option says one.
    """
    networks = (
        (evm_network("local", chain.chain_id, confirmations=1), chain.url),
        (evm_network("other", other.chain_id, confirmations=3), other.url),
    )
    async with open_stand(database_url, *networks, clock=clock) as shop:
        invoice = await shop.create("25.00", ("ETH", "local"))
        await other.send_native(address_in(invoice), WEI)
        await mine(shop, other)
        await decide(shop, invoice, R.ACCEPT)
        for blocks, payment, status in ((1, "confirming", "confirming"), (3, "confirmed", "paid")):
            seen = await shop.get(invoice)
            (shown,) = seen.payments
            assert (shown.confirmations, shown.confirmations_required) == (blocks, 3)
            assert (shown.status, seen.status) == (payment, status)
            await mine(shop, other, 2)


async def test_what_goes_back_on_the_wrong_network_is_confirmed_by_it_too(
    database_url: str, chain: Chain, other: Chain, clock: Clock
) -> None:
    """Three blocks of the network that it is paid on, not the one block that the option asked of another.

    Planted bug: the refund is judged by the option's requirement, and is completed with the first block.
    """
    networks = (
        (evm_network("local", chain.chain_id, confirmations=1), chain.url),
        (evm_network("other", other.chain_id, confirmations=3), other.url),
    )
    async with open_stand(database_url, *networks, clock=clock) as shop:
        invoice = await shop.create("25.00", ("ETH", "local"))
        await other.send_native(address_in(invoice), WEI)
        await mine(shop, other, 3)
        wish = RefundWish(address=address_of(7))
        made = (await decide(shop, invoice, R.REFUND, refund=wish)).refund
        assert isinstance(made, objects.Refund)
        assert (made.network, made.confirmations_required) == ("other", 3)
        async with shop.ctx.database.transaction() as connection:
            second = Actor(ActorType.MERCHANT, "key_second")
            await approve_refund(connection, shop.ctx, shop.merchant_id, second, made.id, "looks right")
        await other.send_native(address_of(7), WEI)
        for blocks, status in ((1, "confirming"), (2, "completed")):
            await mine(shop, other, blocks)
            async with shop.ctx.database.connection() as connection:
                seen = await get_refund(connection, shop.ctx, shop.merchant_id, made.id)
            assert (seen.status, seen.confirmations_required) == (status, 3)


@pytest.mark.parametrize("action", [R.ACCEPT, R.ATTACH])
async def test_value_that_no_transfer_explains(
    database_url: str, chain: Chain, clock: Clock, action: Resolution
) -> None:
    """A contract sent it and no node tells. Accepted or attached with a value, it is not found a second time."""
    batch = await chain.deploy("Batch")
    network = evm_network("local", chain.chain_id, confirmations=1)
    async with open_stand(database_url, (network, chain.url), clock=clock, traces="off") as shop:
        invoice, other = await shop.create("25.00"), await shop.create("25.00")
        await chain.send_call(batch, "Batch", "payNative", [address_in(invoice)], [WEI], value=WEI)
        await mine(shop, chain)
        await check_invoices(shop.ctx, shop.sources, [invoice.id], ACTOR)
        assert (await shop.status(invoice), await kinds(shop, invoice)) == (
            "review_required",
            ["unattributed_value"],
        )
        if action is R.ACCEPT:
            await decide(shop, invoice, action)
        else:
            with pytest.raises(InvalidInput):
                await decide(shop, invoice, action, invoice_id=other.id)
            await decide(shop, invoice, action, invoice_id=other.id, value="25.00")
        paid, left = (invoice, other) if action is R.ACCEPT else (other, invoice)
        for _ in range(2):
            assert (await shop.status(paid), (await shop.get(paid)).amount_paid) == ("paid", "25.00")
            assert (await shop.status(left), await kinds(shop, invoice)) == ("awaiting_payment", [])
            await mine(shop, chain)
            await check_invoices(shop.ctx, shop.sources, [invoice.id, other.id], ACTOR)
        assert len(await shop.rows("SELECT id FROM transfers")) == 1


async def test_unsupported_tokens_are_exactly_one_case_however_many_come(timed: Stand, chain: Chain) -> None:
    """Anybody can send them. The status does not change, and nobody is asked twice, also after ignoring it.

    The case outlives a reorganisation that takes them all: they may come back, and there is never a second case. Found
    by simulation: the case closed by itself, so that what came back was nobody's.
    """
    junk = await chain.deploy_token("Free Money", "FREE", 18)
    invoice = await timed.create("25.00")
    for number in range(3):
        await chain.send_token(junk, address_in(invoice), 1 + number)
        await mine(timed, chain)
    (case,) = await cases(timed, invoice)
    assert (case.kind, case.actions, await timed.status(invoice)) == (
        "unsupported_token",
        ["ignore"],
        "awaiting_payment",
    )
    await chain.reorg(3)
    await timed.follow()
    assert [one.status for one in await cases(timed, invoice)] == ["open"]
    await decide(timed, invoice, R.IGNORE)
    await chain.send_token(junk, address_in(invoice), 9)
    await mine(timed, chain)
    assert [one.status for one in await cases(timed, invoice)] == ["resolved"]


async def test_dust_opens_nothing(timed: Stand, chain: Chain, token: str, clock: Clock) -> None:
    """In time, late, in another asset, before and after it was paid, and when it leaves the chain again (F-TOKEN 2).

    Planted bug: dust that leaves a paid invoice called a reversal.
    """
    unpaid = await timed.create("25.00", expires_in_seconds=WINDOW)
    paid = await timed.create("25.00", expires_in_seconds=WINDOW)
    await chain.send_native(address_in(paid), WEI)
    for _ in range(2):
        for invoice in (unpaid, paid):
            await chain.send_native(address_in(invoice), 10**9)
            await chain.send_token(token, address_in(invoice), 9)
        await mine(timed, chain)
        await close_window(timed, chain, clock)
    assert (await timed.status(unpaid), await timed.status(paid)) == ("expired", "paid")
    await chain.reorg(2)
    await timed.follow()
    assert await cases(timed) == []
