"""Every status with money on a real chain, when the chain takes the money away, gives it back, or gives it to another.

Cites R-STATE, R-EXC 1, R-CHAIN 4, R-LEDGER, F-CHAIN 1-5. `ROWS` reads like a ledger: how a status is reached, how the
invoice stands then, and how when the block with the payment left the best chain, and when a conflicting transaction
took its place. In between the same transaction is mined in another block, at another place in it: everything has to be
as before. The books are part of how an invoice stands, and the shop checks the invariants of the whole database after
each row. Planted bugs, and the rows that then fail, are told at the tests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from tallystick.core.cases import Resolution
from tallystick.core.invoice import LatePayment, Status
from tallystick.core.refund import RefundRule
from tallystick.services import objects
from tallystick.services.invoices import cancel_invoice
from tallystick.services.sightings import GONE_AFTER
from tests.support.endings import CONFIRMATIONS, Look, Payment, World, open_world

R = Resolution
Reached = tuple[objects.Invoice, tuple[Payment, ...]]
"""An invoice, and the payments that its chain is about to lose."""


@dataclass(frozen=True, slots=True)
class At:
    """How an invoice stands: status, reason of its last step, books, open cases, statuses of its refunds."""

    status: str
    reason: str
    books: str = ""
    cases: str = ""
    refunds: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One status: `reach` it, and it `stands`; with its money off the chain it is `gone`.

    The same holds when a conflicting transaction `replaced` the payment, which is then the reason. `back` is only said
    where the payment's return does not make everything as it was. `blocks` are mined on the payment each time;
    without any it is never in a block, and lost by being dropped.
    """

    name: str
    reach: Callable[[World], Awaitable[Reached]]
    stands: At
    gone: At
    replaced: str = "replaced"
    back: At | None = None
    blocks: int = CONFIRMATIONS
    second: bool = False


# How each status is reached -------------------------------------------------------------------------------------------


async def paying(world: World, *amounts: str, blocks: int = CONFIRMATIONS) -> Reached:
    """Payments in one block."""
    invoice = await world.invoice()
    sent = [await world.send(invoice, amount) for amount in amounts]
    await world.mine(blocks)
    return invoice, tuple(sent)


async def detected(world: World) -> Reached:
    return await paying(world, "0.01", blocks=0)


async def partially_paid(world: World) -> Reached:
    return await paying(world, "0.005")


async def confirming(world: World) -> Reached:
    return await paying(world, "0.01", blocks=1)


async def paid(world: World) -> Reached:
    return await paying(world, "0.01")


async def half_of_two(world: World) -> Reached:
    invoice, sent = await paying(world, "0.004", "0.006")
    return invoice, sent[1:]


async def overpaid(world: World) -> Reached:
    return await paying(world, "0.02")


async def excess_of_two(world: World) -> Reached:
    invoice, sent = await paying(world, "0.01", "0.005")
    return invoice, sent[1:]


async def overpayment_kept(world: World) -> Reached:
    invoice, sent = await overpaid(world)
    await world.decide(invoice, R.ACCEPT)
    return invoice, sent


async def underpaid(world: World) -> Reached:
    invoice, sent = await partially_paid(world)
    await world.close(invoice)
    return invoice, sent


async def underpaid_accepted(world: World) -> Reached:
    invoice, sent = await underpaid(world)
    await world.decide(invoice, R.ACCEPT)
    return invoice, sent


async def underpaid_credited(world: World) -> Reached:
    invoice, sent = await underpaid(world)
    await world.decide(invoice, R.CREDIT, value="25.00")
    return invoice, sent


async def underpaid_written_off(world: World) -> Reached:
    invoice, sent = await underpaid(world)
    await world.decide(invoice, R.WRITE_OFF)
    return invoice, sent


async def _late(world: World, rule: LatePayment) -> Reached:
    invoice = await world.invoice(late_payment=rule)
    await world.close(invoice)
    sent = await world.send(invoice)
    await world.mine()
    return invoice, (sent,)


async def late_for_review(world: World) -> Reached:
    return await _late(world, LatePayment.REVIEW)


async def late_to_be_refunded(world: World) -> Reached:
    return await _late(world, LatePayment.REFUND)


async def late_but_accepted(world: World) -> Reached:
    return await _late(world, LatePayment.ACCEPT)


async def late_accepted_by_a_person(world: World) -> Reached:
    invoice, sent = await late_for_review(world)
    await world.decide(invoice, R.ACCEPT)
    return invoice, sent


async def late_rest(world: World) -> Reached:
    invoice, _ = await underpaid(world)
    rest = await world.send(invoice, "0.005")
    await world.mine()
    return invoice, (rest,)


async def wrong_asset(world: World) -> Reached:
    invoice = await world.invoice()
    sent = await world.send_token(invoice)
    await world.mine()
    return invoice, (sent,)


async def wrong_asset_beside(world: World) -> Reached:
    """The right payment goes; what was not asked for stays."""
    invoice, _ = await wrong_asset(world)
    sent = await world.send(invoice)
    await world.mine()
    return invoice, (sent,)


async def wrong_asset_credited(world: World) -> Reached:
    invoice, sent = await wrong_asset(world)
    await world.decide(invoice, R.CREDIT, value="25.00")
    return invoice, sent


async def wrong_asset_going_back(world: World) -> Reached:
    invoice, sent = await wrong_asset(world)
    await world.approve_refund(invoice, rule=RefundRule.RECEIVED)
    return invoice, sent


async def wrong_network(world: World) -> Reached:
    invoice = await world.invoice(("ETH", "local"))
    sent = await world.send(invoice, network="other")
    await world.mine(network="other")
    return invoice, (sent,)


async def wrong_network_accepted(world: World) -> Reached:
    invoice, sent = await wrong_network(world)
    await world.decide(invoice, R.ACCEPT)
    return invoice, sent


async def reversed_after_delivery(world: World) -> Reached:
    """Two payments, of which one is gone for good; now the other goes, too."""
    invoice, sent = await paying(world, "0.004", "0.006")
    await world.fulfill(invoice)
    await world.rewind(sent[0])
    await world.mine()
    return invoice, sent[1:]


async def disputed(world: World) -> Reached:
    invoice, sent = await paid(world)
    await world.dispute(invoice)
    return invoice, sent


async def settled(world: World) -> Reached:
    invoice, sent = await paid(world)
    await world.settle(invoice)
    return invoice, sent


async def fulfilled(world: World) -> Reached:
    invoice, sent = await paid(world)
    await world.fulfill(invoice)
    return invoice, sent


async def approved_refund(world: World) -> Reached:
    invoice, sent = await paid(world)
    await world.approve_refund(invoice, rule=RefundRule.RECEIVED)
    return invoice, sent


async def refunded(world: World) -> Reached:
    invoice, sent = await paid(world)
    await world.pay_refund(await world.approve_refund(invoice, rule=RefundRule.RECEIVED))
    await world.mine()
    return invoice, sent


async def refunded_and_the_refund_goes(world: World) -> Reached:
    invoice, _ = await paid(world)
    refund = await world.pay_refund(await world.approve_refund(invoice, rule=RefundRule.RECEIVED))
    await world.mine()
    return invoice, (refund,)


async def canceled_and_paid(world: World) -> Reached:
    invoice = await world.invoice()
    await world.stand.do(cancel_invoice, invoice.id)
    sent = await world.send(invoice)
    await world.mine()
    return invoice, (sent,)


async def canceled_and_accepted(world: World) -> Reached:
    invoice, sent = await canceled_and_paid(world)
    await world.decide(invoice, R.ACCEPT)
    return invoice, sent


# The table ------------------------------------------------------------------------------------------------------------

HALF = "ETH onchain 0.005 suspense -0.005; USD receivable 12.5 expected -12.5"
WAITS = "ETH onchain 0.01 suspense -0.01"
EARNED = "ETH onchain 0.01 merchant -0.01"
OWED = "USD receivable 25 expected -25"
TOO_MUCH = "ETH onchain 0.02 merchant -0.01 overpayment -0.01"
RETURNING = "ETH onchain 0.01 refunds_payable -0.01"
UNPAID = At("awaiting_payment", "reorganized")
REVERSED = At("awaiting_payment", "reorganized", cases="reversed")
EXPIRED = At("expired", "reorganized")
EXPIRED_REVERSED = At("expired", "reorganized", cases="reversed")

ROWS = (
    # money on its way
    Row(
        "detected",
        detected,
        At("detected", "payment_seen", OWED),
        At("awaiting_payment", "vanished"),
        blocks=0,
    ),
    Row("partially paid", partially_paid, At("partially_paid", "payment_partial", HALF), UNPAID),
    Row("confirming", confirming, At("confirming", "payment_in_block", OWED), UNPAID, blocks=1),
    # paid
    Row("paid", paid, At("paid", "policy_met", EARNED), REVERSED),
    Row(
        "paid in two, one goes",
        half_of_two,
        At("paid", "policy_met", EARNED),
        At(
            "partially_paid",
            "reorganized",
            "ETH onchain 0.004 suspense -0.004; USD receivable 15 expected -15",
            "reversed",
        ),
    ),
    Row("overpaid", overpaid, At("overpaid", "amount_above_tolerance", TOO_MUCH, "overpaid"), REVERSED),
    Row(
        "overpaid, the excess goes",
        excess_of_two,
        At(
            "overpaid",
            "amount_above_tolerance",
            "ETH onchain 0.015 merchant -0.01 overpayment -0.005",
            "overpaid",
        ),
        At("paid", "reorganized", EARNED, "reversed"),
    ),
    Row(
        "overpaid and kept",
        overpayment_kept,
        At("paid", "decided", "ETH onchain 0.02 merchant -0.02"),
        REVERSED,
    ),
    # too little, and what people made of it
    Row("underpaid", underpaid, At("underpaid", "window_closed", HALF, "underpaid"), EXPIRED),
    Row(
        "underpaid and accepted",
        underpaid_accepted,
        At("paid", "decided", "ETH onchain 0.005 merchant -0.005; USD expected -12.5 losses 12.5"),
        EXPIRED_REVERSED,
    ),
    Row(
        "underpaid and credited",
        underpaid_credited,
        At("paid", "decided", "ETH onchain 0.005 merchant -0.005"),
        EXPIRED_REVERSED,
    ),
    Row(
        "underpaid and written off",
        underpaid_written_off,
        At("underpaid", "window_closed", "ETH onchain 0.005 merchant -0.005"),
        EXPIRED,
    ),
    # late, by each rule
    Row("late, review", late_for_review, At("late_paid", "late_payment", WAITS, "late"), EXPIRED),
    Row(
        "late, refund",
        late_to_be_refunded,
        At("late_paid", "late_payment", WAITS, refunds="requested"),
        At("expired", "reorganized", refunds="requested"),
    ),
    Row("late, accept", late_but_accepted, At("paid", "late_payment_accepted", EARNED), EXPIRED_REVERSED),
    Row("late and accepted", late_accepted_by_a_person, At("paid", "decided", EARNED), EXPIRED_REVERSED),
    Row(
        "late rest",
        late_rest,
        At("late_paid", "late_payment", WAITS, "late"),
        At("underpaid", "reorganized", HALF, "underpaid"),
    ),
    Row(
        "canceled and paid",
        canceled_and_paid,
        At("late_paid", "late_payment", WAITS, "late"),
        At("canceled", "reorganized"),
    ),
    Row("canceled and accepted", canceled_and_accepted, At("paid", "decided", EARNED), EXPIRED_REVERSED),
    # what was not asked for
    Row(
        "wrong asset",
        wrong_asset,
        At("review_required", "mismatched_payment", "DUSD onchain 25 suspense -25", "wrong_asset"),
        UNPAID,
    ),
    Row(
        "wrong asset beside the right one",
        wrong_asset_beside,
        At("paid", "policy_met", f"DUSD onchain 25 suspense -25; {EARNED}", "wrong_asset"),
        At("review_required", "reorganized", "DUSD onchain 25 suspense -25", "reversed, wrong_asset"),
    ),
    Row(
        "wrong asset, credited",
        wrong_asset_credited,
        At("paid", "decided", "DUSD onchain 25 merchant -25"),
        REVERSED,
    ),
    Row(
        "wrong network",
        wrong_network,
        At(
            "review_required",
            "mismatched_payment",
            "ETH on other onchain 0.01 suspense -0.01",
            "wrong_network",
        ),
        UNPAID,
        second=True,
    ),
    Row(
        "wrong network, accepted",
        wrong_network_accepted,
        At("paid", "decided", "ETH on other onchain 0.01 merchant -0.01"),
        REVERSED,
        second=True,
    ),
    # something left the house
    Row(
        "fulfilled",
        fulfilled,
        At("paid", "policy_met", EARNED),
        At("review_required", "reversed_after_fulfillment", OWED, "reversed"),
        replaced="reversed_after_fulfillment",
    ),
    Row(
        "reversed after delivery, the rest goes, too",
        reversed_after_delivery,
        At(
            "review_required",
            "reversed_after_fulfillment",
            "ETH onchain 0.006 suspense -0.006; USD receivable 10 expected -10",
            "reversed",
        ),
        At("review_required", "reversed_after_fulfillment", OWED, "reversed"),
        replaced="reversed_after_fulfillment",
    ),
    Row(
        "settled",
        settled,
        At("settled", "settled", EARNED),
        At("review_required", "reversed_after_settlement", cases="reversed"),
        replaced="reversed_after_settlement",
    ),
    Row(
        "disputed",
        disputed,
        At("disputed", "dispute_opened", WAITS),
        At("disputed", "dispute_opened", cases="reversed"),
        replaced="dispute_opened",
    ),
    Row(
        "refunded",
        refunded,
        At("refunded", "refund_completed", refunds="completed"),
        At(
            "review_required",
            "reversed_after_refund",
            "ETH onchain -0.01 losses 0.01",
            "reversed",
            "completed",
        ),
        replaced="reversed_after_refund",
    ),
    # on its way back
    Row(
        "refunded, the refund goes",
        refunded_and_the_refund_goes,
        At("refunded", "refund_completed", refunds="completed"),
        At("paid", "refund_reorganized", RETURNING, refunds="broadcast"),
        replaced="refund_reorganized",
    ),
    Row(
        "refund approved",
        approved_refund,
        At("paid", "policy_met", RETURNING, refunds="awaiting_signature"),
        At("awaiting_payment", "reorganized", "", "refund_failed, reversed", "needs_attention"),
        back=At("paid", "policy_met", RETURNING, "refund_failed", "needs_attention"),
    ),
    Row(
        "refund of a wrong asset approved",
        wrong_asset_going_back,
        At(
            "awaiting_payment", "decided", "DUSD onchain 25 refunds_payable -25", refunds="awaiting_signature"
        ),
        At("awaiting_payment", "decided", "", "refund_failed", "needs_attention"),
        replaced="decided",
        back=At(
            "awaiting_payment",
            "decided",
            "DUSD onchain 25 refunds_payable -25",
            "refund_failed",
            "needs_attention",
        ),
    ),
)


async def at(world: World, invoice: objects.Invoice) -> At:
    """How it stands, as the table says it."""
    look = await world.look(invoice)
    refunds = ", ".join(status for status, _ in look.refunds)
    return At(look.status, (await world.stand.last(invoice)).reason, look.books, look.cases, refunds)


async def lose(world: World, row: Row, lost: tuple[Payment, ...]) -> None:
    """The blocks with these payments leave the best chain, or the node forgets them."""
    if row.blocks:
        await world.rewind(*lost)
    else:
        for one in lost:
            await world.chains[one.network].drop(one.signed.tx_hash)
        await world.stand.follow()
        world.clock.advance(GONE_AFTER.total_seconds())
    await world.stand.follow()


async def return_again(world: World, row: Row, lost: tuple[Payment, ...]) -> None:
    """They are sent again, and mined behind another transaction."""
    world.clock.advance(0 if row.blocks else GONE_AFTER.total_seconds())
    for one in lost:
        await world.submit_again(one)
    await world.mine(row.blocks, lost[0].network)


async def replace_by_conflict(world: World, row: Row, lost: tuple[Payment, ...]) -> None:
    """A transaction of the same account and number stands in their place."""
    conflicts = tuple([await world.conflicting(one) for one in lost])
    if row.blocks:
        await world.rewind(*lost, instead=conflicts)
    else:
        for conflict in conflicts:
            await world.chains["local"].submit(conflict)
        await world.chains["local"].mine()
    await world.stand.follow()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_status_through_reorganisations(database_url: str, row: Row) -> None:
    """Reached, lost, mined again elsewhere (twice: after a while, and at once), replaced: as its row says."""
    async with open_world(database_url, second=row.second) as world:
        invoice, lost = await row.reach(world)
        stood = await world.look(invoice)
        assert await at(world, invoice) == row.stands

        await lose(world, row, lost)
        assert await at(world, invoice) == row.gone

        await return_again(world, row, lost)
        await check_as_before(world, row, invoice, stood)
        if row.blocks:
            first = {await world.place(one) for one in lost}
            await world.move(*lost)
            then = {await world.place(one) for one in lost}
            assert not first & then
            assert all(index > 0 for _, index in first | then)
            await check_as_before(world, row, invoice, stood)

        await replace_by_conflict(world, row, lost)
        assert await at(world, invoice) == replace(row.gone, reason=row.replaced)
        gone = {payment.tx_hash: payment.status for payment in (await world.stand.get(invoice)).payments}
        assert {gone.get(one.signed.tx_hash, "replaced") for one in lost} == {"replaced"}


async def check_as_before(world: World, row: Row, invoice: objects.Invoice, stood: Look) -> None:
    """One credit each, in time or late as first evidenced; what was opened for the loss closed by itself."""
    look = await world.look(invoice)
    if row.back is None:
        assert look == stood
    else:
        seen = await at(world, invoice)
        assert replace(seen, reason=row.back.reason) == row.back
        assert (look.payments, look.amount_paid) == (stood.payments, stood.amount_paid)
    if "reversed" in row.gone.cases and "reversed" not in row.stands.cases:
        closed = await world.stand.rows(
            "SELECT resolution FROM exceptions WHERE invoice_id = $1 AND kind = 'reversed' ORDER BY id",
            invoice.id,
        )
        last = closed[-1]["resolution"]
        assert (last["action"], last["actor"]["type"]) == (None, "system")


def test_every_status_is_tried() -> None:
    """Also those that are only reached by a loss. Before money there is nothing to lose: that is the next test."""
    tried = {one.status for row in ROWS for one in (row.stands, row.gone)}
    assert {status.value for status in Status} - tried == {"created", "quoted"}
