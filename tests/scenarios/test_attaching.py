"""Money that belongs to another invoice: attached by a person, explained by both histories, through reorganisations.

Cites R-EXC 2, F-ADDR 3.
"""

from __future__ import annotations

import asyncio

import pytest

from tallystick.core.cases import Resolution
from tallystick.core.errors import Conflict, InvalidInput
from tallystick.services import objects
from tallystick.services.deciding import Decider, attach
from tallystick.services.invoices import cancel_invoice
from tallystick.services.locking import lock_invoices
from tallystick.services.refunds import NewRefund, create_refund
from tests.support.cases import (
    WEI,
    WINDOW,
    close_window,
    decide,
    kinds,
    late,
    mine,
    settle,
)
from tests.support.evm import Chain, address_of
from tests.support.stand import ACTOR, Clock, Stand, address_in, units

R = Resolution


# Attach ---------------------------------------------------------------------------------------------------------------


async def test_late_money_is_attached_to_the_customers_newer_invoice(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """It pays the newer invoice in time, leaves the older one expired, and both histories say so (F-ADDR 3).

    Planted bugs: the payment left at the old invoice; the old invoice not judged.
    """
    old = await late(timed, chain, clock)
    assert (await timed.status(old), await kinds(timed, old)) == ("late_paid", ["late"])
    new = await timed.create("25.00")
    payment = (await timed.get(old)).payments[0]
    done = await decide(timed, old, R.ATTACH, invoice_id=new.id)
    assert done.resolution is not None
    assert done.resolution["invoice_id"] == new.id
    left, paid = await timed.get(old), await timed.get(new)
    assert (left.status, left.payments, left.amount_paid) == ("expired", [], "0.00")
    assert (paid.status, paid.amount_paid) == ("paid", "25.00")
    (moved,) = paid.payments
    assert (moved.id, moved.invoice_id, moved.match, moved.on_time) == (payment.id, new.id, "matched", True)
    assert moved.option_id == new.payment_options[0].id
    assert moved.to == old.payment_options[0].address
    for invoice in (old, new):
        last = await timed.last(invoice)
        assert last.reason == "decided"
        (said,) = [fact for fact in last.evidence if fact["type"] == "decision"]
        assert (said["from_invoice_id"], said["to_invoice_id"]) == (old.id, new.id)
    assert await kinds(timed, new) == []


async def test_what_was_attached_stays_attached_through_a_reorganisation(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """Mined again later, in a step of its own, it pays the new invoice again. The old one never sees it.

    Planted bug: whoever records a block judges the address's invoice only; the new one stays unpaid.
    """
    old = await timed.create("25.00", expires_in_seconds=WINDOW)
    new = await timed.create("25.00", expires_in_seconds=10 * WINDOW)
    await close_window(timed, chain, clock)
    sent = await chain.send_native(address_in(old), WEI)
    await mine(timed, chain)
    await decide(timed, old, R.ATTACH, invoice_id=new.id)
    assert await timed.status(new) == "paid"
    await chain.reorg(1)
    await timed.follow()
    assert (await timed.status(new), await kinds(timed, new)) == ("awaiting_payment", ["reversed"])
    await chain.submit(sent)
    await mine(timed, chain)
    assert (await timed.status(new), await kinds(timed, new)) == ("paid", [])
    assert (await timed.status(old), (await timed.get(old)).payments) == ("expired", [])


async def test_attached_money_that_does_not_suffice_is_a_case_there(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """And it can be attached onwards: the chain of decisions explains where it counts."""
    first = await late(timed, chain, clock, WEI // 2)
    second = await timed.create("25.00", expires_in_seconds=WINDOW)
    third = await timed.create("12.50", expires_in_seconds=100 * WINDOW)
    await decide(timed, first, R.ATTACH, invoice_id=second.id)
    clock.advance(5 * WINDOW)
    await close_window(timed, chain, clock)
    assert (await timed.status(second), await kinds(timed, second)) == ("underpaid", ["underpaid"])
    await decide(timed, second, R.ATTACH, invoice_id=third.id)
    assert [await timed.status(one) for one in (first, second, third)] == ["expired", "expired", "paid"]


async def test_what_the_other_invoice_did_not_ask_for_needs_a_value(
    timed: Stand, chain: Chain, token: str
) -> None:
    """25 DUSD for an invoice in ETH."""
    old, new = await timed.create("25.00"), await timed.create("30.00")
    await chain.send_token(token, address_in(old), units("25", 6))
    await mine(timed, chain)
    assert (await timed.status(old), await kinds(timed, old)) == ("review_required", ["wrong_asset"])
    with pytest.raises(InvalidInput) as raised:
        await decide(timed, old, R.ATTACH, invoice_id=new.id)
    assert [problem.pointer for problem in raised.value.problems] == ["/value"]
    await decide(timed, old, R.ATTACH, invoice_id=new.id, value="30.00")
    seen = await timed.get(new)
    assert (seen.status, seen.amount_paid, seen.payments[0].match) == ("paid", "30.00", "wrong_asset")
    assert await timed.status(old) == "awaiting_payment"


async def test_attached_to_an_option_that_asks_for_more_depth_is_no_reversal(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """What was confirmed where it came confirms again where it counts; a person takes nothing off the chain.

    Planted bug: a payment that a decision takes back from confirmed called a reversal.
    """
    old = await timed.create("25.00", expires_in_seconds=WINDOW)
    paid = await timed.create("25.00", expires_in_seconds=100 * WINDOW)
    async with timed.ctx.database.transaction() as connection:
        await connection.execute(
            "UPDATE payment_options SET confirmations_required = 4 WHERE invoice_id = $1", paid.id
        )
    await chain.send_native(address_in(paid), WEI)
    await mine(timed, chain, 4)
    await close_window(timed, chain, clock)
    await chain.send_native(address_in(old), WEI)
    await mine(timed, chain)
    await decide(timed, old, R.ATTACH, invoice_id=paid.id)
    assert (await timed.status(paid), await kinds(timed, paid)) == ("paid", [])
    assert sorted(payment.status for payment in (await timed.get(paid)).payments) == [
        "confirmed",
        "confirming",
    ]
    await mine(timed, chain, 3)
    assert (await timed.status(paid), await kinds(timed, paid)) == ("overpaid", ["overpaid"])


async def test_where_nothing_can_be_attached(timed: Stand, chain: Chain, clock: Clock) -> None:
    """Itself, nobody's, without an address, canceled, settled, or while a refund speaks for the money."""
    old = await late(timed, chain, clock)
    quoted = await timed.create("25.00", activate=False)
    canceled, settled = await timed.create("25.00"), await timed.create("25.00")
    await timed.do(cancel_invoice, canceled.id)
    await chain.send_native(address_in(settled), WEI)
    await mine(timed, chain)
    await settle(timed, settled)
    for target, error in [
        (old.id, InvalidInput),
        ("inv_nobody", InvalidInput),
        (quoted.id, Conflict),
        (canceled.id, Conflict),
        (settled.id, Conflict),
    ]:
        with pytest.raises(error):
            await decide(timed, old, R.ATTACH, invoice_id=target)
    other = await timed.create("25.00")
    with pytest.raises(InvalidInput) as raised:
        await decide(timed, old, R.ATTACH, invoice_id=other.id, payment_option_id=old.payment_options[0].id)
    assert [problem.pointer for problem in raised.value.problems] == ["/payment_option_id"]
    asked = await timed.do(
        create_refund, NewRefund(reason="back", invoice_id=old.id, amount="0.01", address=address_of(7))
    )
    assert await kinds(timed, old) == []
    async with timed.ctx.database.transaction() as connection:
        found = await lock_invoices(connection, timed.merchant_id, [old.id, other.id])
        ids = frozenset(transfer.fact.id for transfer in found[old.id].transfers)
        decider = Decider(timed.ctx, ACTOR, "note", None, timed.ctx.now())
        with pytest.raises(Conflict) as refused:
            await attach(connection, decider, ids, found[old.id], found[other.id], option_id=None, value=None)
    assert refused.value.object_id == asked.id


async def test_attaching_to_each_other_at_once(timed: Stand, chain: Chain, clock: Clock) -> None:
    """Two invoices, each with money that should go to the other: nobody waits in a circle. Whoever is first makes the
    other invoice overpaid, so that the second case is not there any more."""
    pairs = [[await timed.create("25.00", expires_in_seconds=WINDOW) for _ in range(2)] for _ in range(4)]
    await close_window(timed, chain, clock)
    for invoice in (one for pair in pairs for one in pair):
        await chain.send_native(address_in(invoice), WEI)
    await mine(timed, chain)
    results = await asyncio.gather(
        *(
            decide(timed, source, R.ATTACH, invoice_id=target.id)
            for one, two in pairs
            for source, target in ((one, two), (two, one))
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(one, objects.ExceptionObject) for one in results) == 4, results
    for pair in pairs:
        assert sorted([await timed.status(one) for one in pair]) == ["expired", "overpaid"]
