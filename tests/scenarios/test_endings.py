"""Every status with money on a real chain, when the chain takes the money away, gives it back, or gives it to another.

Cites R-STATE, R-EXC 1, R-CHAIN 4, R-LEDGER, F-CHAIN 1-5. `ROWS` reads like a ledger: how a status is reached, how the
invoice stands then, and how when the block with the payment left the best chain, and when a conflicting transaction
took its place. In between the same transaction is mined in another block, at another place in it: everything has to be
as before. The books are part of how an invoice stands, and the shop checks the invariants of the whole database after
each row. Value without a transaction has its reorganisations in `test_native`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from tallystick.core.invoice import Status
from tallystick.services import objects
from tallystick.services.invoices import cancel_invoice
from tallystick.services.sightings import GONE_AFTER
from tests.support import ways
from tests.support.endings import CONFIRMATIONS, WINDOW, Look, Payment, World, open_world
from tests.support.ways import EARNED, HALF, OWED, RETURNING, TOO_MUCH, WAITS, At, Reached, at


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


UNPAID = At("awaiting_payment", "reorganized")
REVERSED = At("awaiting_payment", "reorganized", cases="reversed")
EXPIRED = At("expired", "reorganized")
EXPIRED_REVERSED = At("expired", "reorganized", cases="reversed")

ROWS = (
    # money on its way
    Row(
        "detected",
        ways.detected,
        At("detected", "payment_seen", ""),
        At("awaiting_payment", "vanished"),
        blocks=0,
    ),
    Row("partially paid", ways.partially_paid, At("partially_paid", "payment_partial", HALF), UNPAID),
    Row("confirming", ways.confirming, At("confirming", "payment_in_block", ""), UNPAID, blocks=1),
    # paid
    Row("paid", ways.paid, At("paid", "policy_met", EARNED), REVERSED),
    Row(
        "paid in two, one goes",
        ways.half_of_two,
        At("paid", "policy_met", EARNED),
        At(
            "partially_paid",
            "reorganized",
            "ETH onchain 0.004 suspense -0.004; USD receivable 15 expected -15",
            "reversed",
        ),
    ),
    Row("overpaid", ways.overpaid, At("overpaid", "amount_above_tolerance", TOO_MUCH, "overpaid"), REVERSED),
    Row(
        "overpaid, the excess goes",
        ways.excess_of_two,
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
        ways.overpayment_kept,
        At("paid", "decided", "ETH onchain 0.02 merchant -0.02"),
        REVERSED,
    ),
    # too little, and what people made of it
    Row("underpaid", ways.underpaid, At("underpaid", "window_closed", HALF, "underpaid"), EXPIRED),
    Row(
        "underpaid and accepted",
        ways.underpaid_accepted,
        At("paid", "decided", "ETH onchain 0.005 merchant -0.005; USD expected -12.5 losses 12.5"),
        EXPIRED_REVERSED,
    ),
    Row(
        "underpaid and credited",
        ways.underpaid_credited,
        At("paid", "decided", "ETH onchain 0.005 merchant -0.005"),
        EXPIRED_REVERSED,
    ),
    Row(
        "underpaid and written off",
        ways.underpaid_written_off,
        At("underpaid", "window_closed", "ETH onchain 0.005 merchant -0.005"),
        EXPIRED,
    ),
    # late, by each rule
    Row("late, review", ways.late_for_review, At("late_paid", "late_payment", WAITS, "late"), EXPIRED),
    Row(
        "late, refund",
        ways.late_to_be_refunded,
        At("late_paid", "late_payment", WAITS, refunds="requested"),
        At("expired", "reorganized", refunds="requested"),
    ),
    Row(
        "late, accept", ways.late_but_accepted, At("paid", "late_payment_accepted", EARNED), EXPIRED_REVERSED
    ),
    Row("late and accepted", ways.late_accepted_by_a_person, At("paid", "decided", EARNED), EXPIRED_REVERSED),
    Row(
        "late rest",
        ways.late_rest,
        At("late_paid", "late_payment", WAITS, "late"),
        At("underpaid", "reorganized", HALF, "underpaid"),
    ),
    Row(
        "canceled and paid",
        ways.canceled_and_paid,
        At("late_paid", "late_payment", WAITS, "late"),
        At("canceled", "reorganized"),
    ),
    Row("canceled and accepted", ways.canceled_and_accepted, At("paid", "decided", EARNED), EXPIRED_REVERSED),
    # what was not asked for
    Row(
        "wrong asset",
        ways.wrong_asset,
        At("review_required", "mismatched_payment", "DUSD onchain 25 suspense -25", "wrong_asset"),
        UNPAID,
    ),
    Row(
        "wrong asset beside the right one",
        ways.wrong_asset_beside,
        At("paid", "policy_met", f"DUSD onchain 25 suspense -25; {EARNED}", "wrong_asset"),
        At("review_required", "reorganized", "DUSD onchain 25 suspense -25", "reversed, wrong_asset"),
    ),
    Row(
        "wrong asset, credited",
        ways.wrong_asset_credited,
        At("paid", "decided", "DUSD onchain 25 merchant -25"),
        REVERSED,
    ),
    Row(
        "wrong network",
        ways.wrong_network,
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
        ways.wrong_network_accepted,
        At("paid", "decided", "ETH on other onchain 0.01 merchant -0.01"),
        REVERSED,
        second=True,
    ),
    # something left the house
    Row(
        "fulfilled",
        ways.fulfilled,
        At("paid", "policy_met", EARNED),
        At("review_required", "reversed_after_fulfillment", OWED, "reversed"),
        replaced="reversed_after_fulfillment",
    ),
    Row(
        "reversed after delivery, the rest goes, too",
        ways.reversed_after_delivery,
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
        ways.settled,
        At("settled", "settled", EARNED),
        At("review_required", "reversed_after_settlement", cases="reversed"),
        replaced="reversed_after_settlement",
    ),
    Row(
        "disputed",
        ways.disputed,
        At("disputed", "dispute_opened", WAITS),
        At("disputed", "dispute_opened", cases="reversed"),
        replaced="dispute_opened",
    ),
    Row(
        "refunded",
        ways.refunded,
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
        ways.refunded_and_the_refund_goes,
        At("refunded", "refund_completed", refunds="completed"),
        At("paid", "refund_reorganized", RETURNING, refunds="broadcast"),
        replaced="refund_reorganized",
    ),
    Row(
        "refund approved",
        ways.approved_refund,
        At("paid", "policy_met", RETURNING, refunds="awaiting_signature"),
        At("awaiting_payment", "reorganized", "", "refund_failed, reversed", "needs_attention"),
        back=At("paid", "policy_met", RETURNING, "refund_failed", "needs_attention"),
    ),
    Row(
        "refund of a wrong asset approved",
        ways.wrong_asset_going_back,
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
    """They are sent again, and mined behind another transaction; long after the deadline, where that has passed."""
    world.clock.advance(0 if row.blocks else GONE_AFTER.total_seconds())
    for one in lost:
        await world.submit_again(one)
    if row.gone.status in ("expired", "underpaid"):
        chain = world.chains[lost[0].network]
        await chain.set_next_time(await chain.time() + 10 * WINDOW)
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
    """Reached, lost, mined again elsewhere (twice: after a while, and at once), replaced: as its row says.

    Planted: a reversal's case that does not close by itself (every row with one); what left the house not asked about
    (fulfilled, settled, refunded); the newest evidence kept for the first (underpaid: it returns after the deadline);
    conflicts not recorded (replaced payments stay orphaned); a case that closed by itself not opened again.
    """
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


async def test_without_money_there_is_nothing_to_lose(database_url: str) -> None:
    """Quoted, awaiting payment, expired and canceled stay as they are: a window that closed does not open again."""
    async with open_world(database_url) as world:
        expired = await world.invoice()
        await world.mine()
        await world.close(expired)
        quoted = await world.stand.create("25.00", activate=False)
        waiting, canceled = await world.invoice(), await world.invoice()
        await world.stand.do(cancel_invoice, canceled.id)
        await world.mine()
        everybody = (expired, quoted, waiting, canceled)
        before = [await world.stand.history(one) for one in everybody]
        await world.chains["local"].reorg(4)
        await world.stand.follow()
        await world.stand.expire()
        assert [await world.stand.history(one) for one in everybody] == before
        assert [history[-1].to for history in before] == ["expired", "quoted", "awaiting_payment", "canceled"]
