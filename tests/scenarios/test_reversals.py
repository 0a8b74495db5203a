"""Reversals after something left the house, people at once with blocks and each other, disputes.

Cites R-EXC 1, R-ESC 2, F-CHAIN 4.
"""

from __future__ import annotations

import asyncio

import pytest

from tallystick.core.cases import Resolution
from tallystick.core.errors import Conflict
from tallystick.core.refund import RefundRule
from tallystick.services import objects
from tallystick.services.invoices import record_fulfillment
from tallystick.services.refund_decisions import approve_refund
from tallystick.services.refunds import NewRefund, create_refund
from tests.support.cases import (
    WEI,
    WINDOW,
    cases,
    close_window,
    decide,
    dispute,
    kinds,
    mine,
    settle,
    the_case,
    underpaid,
    undispute,
)
from tests.support.evm import Chain, address_of
from tests.support.stand import Clock, Stand, address_in, units

R = Resolution


# Reversed -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["paid", "overpaid", "fulfilled", "settled", "disputed"])
async def test_a_reversal_opens_a_case_and_closes_by_itself_when_it_is_mined_again(
    timed: Stand, chain: Chain, before: str
) -> None:
    """The status is what the remaining evidence says, but a person looks where something left the house (F-CHAIN 4)."""
    invoice = await timed.create("25.00")
    sent = await chain.send_native(address_in(invoice), 2 * WEI if before == "overpaid" else WEI)
    await mine(timed, chain)
    if before == "overpaid":
        await decide(timed, invoice, R.ACCEPT)
    if before == "fulfilled":
        await timed.do(record_fulfillment, invoice.id, {"reference": "parcel"})
    if before == "settled":
        await settle(timed, invoice)
    if before == "disputed":
        await dispute(timed, invoice)
    stood = await timed.status(invoice)
    await chain.reorg(1)
    await timed.follow()
    after = {"fulfilled": "review_required", "settled": "review_required", "disputed": "disputed"}
    assert await timed.status(invoice) == after.get(before, "awaiting_payment")
    case = await the_case(timed, invoice)
    assert (case.kind, case.actions) == ("reversed", ["accept", "write_off", "ignore"])
    await chain.submit(sent)
    await mine(timed, chain)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == (stood, [])
    (closed,) = [one for one in await cases(timed, invoice) if one.kind == "reversed"]
    assert closed.resolution is not None
    assert (closed.resolution["action"], closed.resolution["actor"]["type"]) == (None, "system")
    await chain.reorg(1)
    await timed.follow()
    assert await kinds(timed, invoice) == ["reversed"]  # a reversal is told anew each time


@pytest.mark.parametrize("action", [R.ACCEPT, R.WRITE_OFF, R.IGNORE])
async def test_a_reversal_after_delivery_is_decided(timed: Stand, chain: Chain, action: Resolution) -> None:
    """Afterwards the invoice is what the evidence says, still fulfilled once, and a second reversal is told again.

    Planted bug: what was decided about the first reversal silences the second.
    """
    invoice = await timed.create("25.00")
    sent = await chain.send_native(address_in(invoice), WEI)
    await mine(timed, chain)
    delivered = await timed.do(record_fulfillment, invoice.id, {"reference": "parcel"})
    await chain.reorg(1)
    await timed.follow()
    assert await timed.status(invoice) == "review_required"
    await decide(timed, invoice, action)
    seen = await timed.get(invoice)
    assert (seen.status, seen.fulfillment) == ("awaiting_payment", delivered.fulfillment)
    assert await kinds(timed, invoice) == []
    again = await timed.do(record_fulfillment, invoice.id, {"reference": "another"})
    assert again.fulfillment == delivered.fulfillment
    await chain.submit(sent)
    await mine(timed, chain)
    assert await timed.status(invoice) == "paid"
    await chain.reorg(1)
    await timed.follow()
    assert await kinds(timed, invoice) == ["reversed"]


async def test_a_reversal_after_everything_was_given_back(timed: Stand, chain: Chain) -> None:
    """The refund stands in the new branch, what it gave back does not: a person looks, and it closes by itself."""
    invoice = await timed.create("25.00")
    sent = await chain.send_native(address_in(invoice), WEI)
    await mine(timed, chain)
    new = NewRefund(reason="back", invoice_id=invoice.id, rule=RefundRule.RECEIVED, address=address_of(7))
    refund = await timed.do(create_refund, new)
    await timed.do(approve_refund, refund.id, "agreed")
    back = await chain.send_native(address_of(7), WEI, sender=1)
    await mine(timed, chain)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("refunded", [])
    await chain.reorg(2, [(back, 0)])
    await timed.follow()
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("review_required", ["reversed"])
    assert (await timed.last(invoice)).reason == "reversed_after_refund"
    await chain.submit(sent)
    await mine(timed, chain)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("refunded", [])


async def test_what_never_counted_is_no_reversal(timed: Stand, chain: Chain, token: str) -> None:
    """The wrong asset beside a paid invoice leaves the chain: its case closes, no other opens.

    Planted bug: every confirmed payment that leaves a paid invoice called a reversal.
    """
    invoice = await timed.create("25.00")
    await chain.send_native(address_in(invoice), WEI)
    await mine(timed, chain)
    await chain.send_token(token, address_in(invoice), units("25", 6))
    await mine(timed, chain)
    assert await kinds(timed, invoice) == ["wrong_asset"]
    await chain.reorg(1)
    await timed.follow()
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("paid", [])


# Races ----------------------------------------------------------------------------------------------------------------


async def test_two_people_resolve_at_once(timed: Stand, chain: Chain, clock: Clock) -> None:
    """One is carried out, the other learns that it was resolved already. Exactly one decision is recorded.

    Planted bug: the case not looked at again under its lock.
    """
    invoice = await underpaid(timed, chain, clock)
    results = await asyncio.gather(
        *(decide(timed, invoice, action) for action in (R.ACCEPT, R.WRITE_OFF) * 4), return_exceptions=True
    )
    done = [one for one in results if isinstance(one, objects.ExceptionObject)]
    refused = [one for one in results if isinstance(one, Conflict | ValueError)]
    assert (len(done), len(refused)) == (1, 7), results
    rows = await timed.rows("SELECT kind FROM decisions WHERE invoice_id = $1", invoice.id)
    assert done[0].resolution is not None
    assert [row["kind"] for row in rows] == [done[0].resolution["action"]]


async def test_people_and_blocks_at_once(timed: Stand, chain: Chain, clock: Clock) -> None:
    """While support accepts what came for ten invoices, the blocks with the rest are read: every invoice ends paid or
    overpaid, whoever was first, and nobody waits in a circle."""
    invoices = [await timed.create("25.00", expires_in_seconds=WINDOW) for _ in range(10)]
    for invoice in invoices:
        await chain.send_native(address_in(invoice), WEI // 2)
    await mine(timed, chain)
    await close_window(timed, chain, clock)
    async with timed.running():
        decided = [asyncio.create_task(decide(timed, invoice, R.ACCEPT)) for invoice in invoices]
        for invoice in invoices:
            await chain.send_native(address_in(invoice), WEI // 2)
            await chain.mine()
        results = await asyncio.gather(*decided, return_exceptions=True)
        for invoice in invoices:
            await timed.until_status(invoice, "paid", "overpaid", "late_paid")
    await timed.follow()
    for invoice, result in zip(invoices, results, strict=True):
        won = isinstance(result, objects.ExceptionObject)
        assert (await timed.status(invoice)) in (("paid", "overpaid") if won else ("late_paid",)), result


async def test_fulfilment_is_recorded_once_under_concurrency(timed: Stand, chain: Chain) -> None:
    """Keyed by the transition by which it was paid: eight at once, one record. Planted bug: another one named."""
    invoice = await timed.create("25.00")
    await chain.send_native(address_in(invoice), WEI)
    await mine(timed, chain)
    told = await asyncio.gather(
        *(timed.do(record_fulfillment, invoice.id, {"reference": str(number)}) for number in range(8))
    )
    paid = await timed.last(invoice)
    assert len({one.fulfillment["reference"] for one in told}) == 1
    assert {one.fulfillment["transition_sequence"] for one in told} == {paid.sequence}
    assert paid.to == "paid"


# Disputes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["merchant", "customer", "withdrawn"])
async def test_a_dispute_is_opened_and_resolved(timed: Stand, chain: Chain, outcome: str) -> None:
    """Disputed wins over whatever the chain shows; then the invoice is what the evidence says. No money moves."""
    invoice = await timed.create("25.00")
    with pytest.raises(Conflict):
        await dispute(timed, invoice)
    await chain.send_native(address_in(invoice), WEI)
    await mine(timed, chain)
    assert (await dispute(timed, invoice)).status == "disputed"
    opened = await timed.last(invoice)
    assert opened.reason == "dispute_opened"
    said = {fact["type"]: fact for fact in opened.evidence}
    assert said["decision"]["reason"] == "not delivered"
    assert (said["message"]["text"], said["photo"]["url"]) == ("Where is it?", "https://shop.example/1")
    with pytest.raises(Conflict):
        await dispute(timed, invoice)
    await chain.send_native(address_in(invoice), 2 * WEI)
    await mine(timed, chain)
    assert await timed.status(invoice) == "disputed"
    assert (await undispute(timed, invoice, outcome)).status == "overpaid"
    resolved = await timed.last(invoice)
    assert resolved.reason == "dispute_resolved"
    assert [fact["outcome"] for fact in resolved.evidence if fact["type"] == "decision"] == [outcome]
    with pytest.raises(Conflict):
        await undispute(timed, invoice, outcome)
    assert await timed.rows("SELECT id FROM refunds") == []
