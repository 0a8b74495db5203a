"""Every kind of exception on a real chain, and what people can do about it.

Cites R-EXC 1-2, R-STATE, F-ADDR 3, F-CHAIN 4, F-TOKEN 2. The queue is derived like the status: a case is open exactly
as long as its reason is there and nobody has decided about it. The shop's invariants check that after each of these.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.core.cases import CaseKind, Resolution
from tallystick.core.errors import InvalidInput
from tallystick.core.invoice import LatePayment
from tallystick.services import objects
from tallystick.services.exceptions import (
    RefundWish,
    Resolve,
    get_exception,
    resolve,
)
from tallystick.services.invoices import cancel_invoice, record_fulfillment
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import resume
from tallystick.services.refund_decisions import reject_refund
from tallystick.services.refunds import NewRefund, create_refund
from tests.support.cases import (
    WEI,
    WINDOW,
    cases,
    close_window,
    decide,
    kinds,
    late,
    mine,
    settle,
    the_case,
    underpaid,
)
from tests.support.evm import Chain, address_of
from tests.support.stand import ACTOR, Clock, Stand, address_in, evm_network, open_stand

R = Resolution


# Underpaid ------------------------------------------------------------------------------------------------------------


async def test_an_underpaid_invoice_is_owned_explained_and_accepted(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """The case says what came, who has it and what they can do; accepted, the invoice is paid and says by whom."""
    invoice = await underpaid(timed, chain, clock)
    case = await the_case(timed, invoice)
    payment = (await timed.get(invoice)).payments[0]
    assert (case.owner, case.next_action.owner, case.next_action.action) == ("support", "support", "decide")
    assert case.actions == ["accept", "credit", "refund", "attach", "write_off", "ignore"]
    assert case.payment_ids == [payment.id]
    assert (case.detail["amount"], case.detail["amount_paid"]) == ("25.00", "12.50")
    assert [one["tx_hash"] for one in case.detail["transfers"]] == [payment.tx_hash]

    done = await decide(timed, invoice, R.ACCEPT)
    assert (done.status, done.next_action.owner, done.actions) == ("resolved", "none", [])
    assert done.resolution is not None
    assert (done.resolution["action"], done.resolution["note"]) == ("accept", "accept it")
    assert done.resolution["actor"] == {"type": "merchant", "id": ACTOR.id}
    seen, last = await timed.get(invoice), await timed.last(invoice)
    assert (seen.status, seen.amount_paid) == ("paid", "12.50")
    assert (last.reason, last.actor.id) == ("decided", ACTOR.id)
    (said,) = [fact for fact in last.evidence if fact["type"] == "decision"]
    assert (said["kind"], said["note"], said["exception_id"]) == ("accept", "accept it", case.id)
    assert await timed.event_types(case.id) == ["exception.opened", "exception.resolved"]
    assert await cases(timed, invoice) == [done]


async def test_what_was_accepted_and_leaves_the_chain_is_no_longer_accepted(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """The decision stands, its money does not: a reversal for a person, and paid again once it is mined again."""
    invoice = await timed.create("25.00", expires_in_seconds=WINDOW)
    await chain.set_next_time(int(clock.at.timestamp()) + WINDOW)
    sent = await chain.send_native(address_in(invoice), WEI // 2)
    await mine(timed, chain)
    await close_window(timed, chain, clock)
    await decide(timed, invoice, R.ACCEPT)
    await chain.reorg(2)
    await timed.follow()
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("expired", ["reversed"])
    await chain.submit(sent)
    await mine(timed, chain)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("paid", [])
    ended = {case.kind: case.resolution["action"] for case in await cases(timed, invoice) if case.resolution}
    assert ended == {"underpaid": "accept", "reversed": None}


async def test_an_accepted_payment_waits_for_its_confirmations(stand: Stand, chain: Chain) -> None:
    """Three are required. Accepted after one, the invoice confirms first."""
    invoice = await stand.create("25.00", expires_in_seconds=WINDOW)
    await chain.send_native(address_in(invoice), WEI // 2)
    await mine(stand, chain)
    await chain.set_next_time(int(invoice.expires_at.timestamp()) + 1)
    await mine(stand, chain)
    await stand.expire()
    await decide(stand, invoice, R.ACCEPT)
    assert await stand.status(invoice) == "confirming"
    await mine(stand, chain)
    assert await stand.status(invoice) == "paid"


@pytest.mark.parametrize(
    ("value", "status"), [("25.00", "paid"), ("20.00", "underpaid"), ("30.00", "overpaid")]
)
async def test_an_underpaid_invoice_is_credited(
    timed: Stand, chain: Chain, clock: Clock, value: str, status: str
) -> None:
    """It counts for the value that was decided. Too little is not asked again; too much is a case of its own."""
    invoice = await underpaid(timed, chain, clock)
    done = await decide(timed, invoice, R.CREDIT, value=value)
    seen = await timed.get(invoice)
    assert (seen.status, seen.amount_paid) == (status, value)
    assert done.resolution is not None
    assert done.resolution["value"] == value
    assert await kinds(timed, invoice) == (["overpaid"] if status == "overpaid" else [])


@pytest.mark.parametrize("action", [R.WRITE_OFF, R.IGNORE])
async def test_an_underpaid_invoice_is_left_as_it_is(
    timed: Stand, chain: Chain, clock: Clock, action: Resolution
) -> None:
    """It stays underpaid and is not asked again about the same money; about more money it is."""
    invoice = await underpaid(timed, chain, clock)
    await decide(timed, invoice, action)
    await mine(timed, chain, 2)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("underpaid", [])
    await chain.send_native(address_in(invoice), WEI // 4)
    await mine(timed, chain)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("underpaid", ["late"])


async def test_an_underpaid_invoice_is_given_back(timed: Stand, chain: Chain, clock: Clock) -> None:
    """The case closes with the refund it asked for; nothing is paid before somebody approves that."""
    invoice = await underpaid(timed, chain, clock)
    wish = RefundWish(address=address_of(7))
    done = await decide(timed, invoice, R.REFUND, refund=wish)
    assert done.resolution is not None
    assert isinstance(done.refund, objects.Refund)
    assert done.resolution["refund_id"] == done.refund.id
    assert (done.refund.status, done.refund.amount, done.refund.exception_id) == (
        "requested",
        "0.005",
        done.id,
    )
    await mine(timed, chain)
    assert await kinds(timed, invoice) == []


async def test_a_refund_that_is_rejected_opens_the_case_again(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """Nobody gives it back, so somebody has to decide again. Planted bug: a refund answers its case for ever."""
    invoice = await underpaid(timed, chain, clock)
    done = await decide(timed, invoice, R.REFUND, refund=RefundWish(address=address_of(7)))
    assert isinstance(done.refund, objects.Refund)
    await timed.do(reject_refund, done.refund.id, "the customer pays the rest")
    assert await kinds(timed, invoice) == ["underpaid"]
    assert (await the_case(timed, invoice)).id != done.id


@pytest.mark.parametrize("through", ["case", "refund"])
async def test_a_refund_of_a_part_leaves_a_case_about_the_rest(
    timed: Stand, chain: Chain, clock: Clock, through: str
) -> None:
    """A tenth of what came late goes back: the rest is a case again at once, until that goes back too.

    Planted bug: a refund answers the whole case, and nine tenths stay in suspense without anybody's knowing.
    """
    invoice = await late(timed, chain, clock)
    first = await the_case(timed, invoice)
    if through == "case":
        await decide(timed, invoice, R.REFUND, refund=RefundWish(amount="0.001", address=address_of(7)))
    else:
        wanted = NewRefund(reason="a tenth", exception_id=first.id, amount="0.001", address=address_of(7))
        await timed.do(create_refund, wanted)
    assert (await kinds(timed, invoice, "resolved"), await kinds(timed, invoice)) == (["late"], ["late"])
    rest = await decide(timed, invoice, R.REFUND, refund=RefundWish(address=address_of(8)))
    assert rest.id != first.id
    assert isinstance(rest.refund, objects.Refund)
    assert rest.refund.amount == "0.009"
    await mine(timed, chain)
    assert await kinds(timed, invoice) == []
    await timed.do(reject_refund, rest.refund.id, "the customer pays again")
    assert await kinds(timed, invoice) == ["late"]


async def test_what_a_refund_asks_wrongly_is_named_inside_the_refund(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """And the case stays open: a resolution is carried out whole or not at all."""
    invoice = await underpaid(timed, chain, clock)
    with pytest.raises(InvalidInput) as raised:
        await decide(timed, invoice, R.REFUND, refund=RefundWish(amount="1"))
    assert [problem.pointer for problem in raised.value.problems] == ["/refund/amount"]
    assert await kinds(timed, invoice) == ["underpaid"]
    assert await timed.rows("SELECT id FROM refunds") == []


# Late -----------------------------------------------------------------------------------------------------------------


async def test_late_money_is_accepted(timed: Stand, chain: Chain, clock: Clock) -> None:
    """Then it is paid, and can be fulfilled."""
    invoice = await late(timed, chain, clock)
    await decide(timed, invoice, R.ACCEPT)
    assert await timed.status(invoice) == "paid"
    await timed.do(record_fulfillment, invoice.id, {})


async def test_a_late_rest_completes_what_came_in_time(timed: Stand, chain: Chain, clock: Clock) -> None:
    """Half in time, half late: two cases, and accepting the late one takes all of it."""
    invoice = await underpaid(timed, chain, clock)
    await chain.send_native(address_in(invoice), WEI // 2)
    await mine(timed, chain)
    assert await timed.status(invoice) == "late_paid"
    assert await kinds(timed, invoice) == [
        "late"
    ]  # the other closed by itself: it is not too little any more
    await decide(timed, invoice, R.ACCEPT)
    seen = await timed.get(invoice)
    assert (seen.status, seen.amount_paid) == ("paid", "25.00")


async def test_money_for_a_canceled_invoice(timed: Stand, chain: Chain) -> None:
    """A case whatever the rule for late money says; accepted, the invoice is paid after all."""
    invoice = await timed.create("25.00", late_payment=LatePayment.ACCEPT)
    await timed.do(cancel_invoice, invoice.id)
    sent = await chain.send_native(address_in(invoice), WEI)
    await mine(timed, chain)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("late_paid", ["late"])
    await decide(timed, invoice, R.ACCEPT)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("paid", [])
    await chain.reorg(1)
    await timed.follow()
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("expired", ["reversed"])
    await chain.submit(sent)
    await mine(timed, chain)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("paid", [])


async def test_a_crumb_for_a_canceled_invoice(timed: Stand, chain: Chain) -> None:
    """It stays canceled, and is a case. Found by simulation: accepted before it was final, or given back in full, there
    was no legal step, so the call was a 500 and the block that brought the refund would have held its network.
    """
    invoice = await timed.create("10000.00")
    await timed.do(cancel_invoice, invoice.id)
    await chain.send_native(
        address_in(invoice), 400 * WEI // 50_000
    )  # less than a ten-thousandth, more than dust
    await mine(timed, chain)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("canceled", ["late"])
    await decide(timed, invoice, R.ACCEPT)
    await mine(timed, chain, 3)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("paid", [])


async def test_late_money_where_the_merchant_accepts_it_is_no_case(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """Unless it is too little."""
    paid = await late(timed, chain, clock, late_payment=LatePayment.ACCEPT)
    assert (await timed.status(paid), await cases(timed, paid)) == ("paid", [])
    clock.advance(5 * WINDOW)
    short = await late(timed, chain, clock, WEI // 2, late_payment=LatePayment.ACCEPT)
    assert (await timed.status(short), await kinds(timed, short)) == ("underpaid", ["late"])


async def test_late_money_for_a_settled_invoice_is_a_case(timed: Stand, chain: Chain, clock: Clock) -> None:
    """Never silently another invoice's, and the settled one stays settled (F-ADDR 3)."""
    invoice = await timed.create("25.00", expires_in_seconds=WINDOW)
    await chain.send_native(address_in(invoice), WEI)
    await mine(timed, chain)
    await close_window(timed, chain, clock)
    await settle(timed, invoice)
    await chain.send_native(address_in(invoice), WEI // 20)
    await mine(timed, chain)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("settled", ["late"])
    await decide(timed, invoice, R.ACCEPT)  # kept: it is paid without it
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("settled", [])


# Overpaid -------------------------------------------------------------------------------------------------------------


async def test_an_overpayment_is_kept(timed: Stand, chain: Chain) -> None:
    """Then it is paid, until more comes."""
    invoice = await timed.create("25.00")
    await chain.send_native(address_in(invoice), 2 * WEI)
    await mine(timed, chain)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("overpaid", ["overpaid"])
    assert (await the_case(timed, invoice)).actions == ["accept", "refund", "ignore"]
    await decide(timed, invoice, R.ACCEPT)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("paid", [])
    await chain.send_native(address_in(invoice), WEI)
    await mine(timed, chain)
    assert (await timed.status(invoice), await kinds(timed, invoice)) == ("overpaid", ["overpaid"])


async def test_the_excess_is_given_back(timed: Stand, chain: Chain) -> None:
    """From the case nothing more has to be said than that."""
    invoice = await timed.create("25.00")
    await chain.send_native(address_in(invoice), 3 * WEI)
    await mine(timed, chain)
    done = await decide(timed, invoice, R.REFUND)
    assert isinstance(done.refund, objects.Refund)
    assert (done.refund.rule, done.refund.amount) == ("excess", "0.02")
    assert isinstance(done.refund.claim_url, str)
    assert "claim_url" not in (done.resolution or {})
    await mine(timed, chain)
    assert await kinds(timed, invoice) == []


# Networks and endpoints -----------------------------------------------------------------------------------------------


async def test_a_halted_network_is_a_case_with_every_merchant_it_matters_to(
    database_url: str, chain: Chain, clock: Clock
) -> None:
    """Opened when the follower halts it, closed when the operator resumes it. A merchant without a wallet has none."""
    network = evm_network("local", chain.chain_id, confirmations=1, safety_depth=2)
    async with open_stand(database_url, (network, chain.url), clock=clock) as shop:
        async with shop.ctx.database.transaction() as connection:
            await create_merchant(connection, shop.ctx, "Without a wallet")
        await chain.mine(6)
        await shop.follow()
        await chain.reorg(5)
        async with shop.running():
            await shop.until_network("halted")
        (case,) = await cases(shop)
        assert (case.kind, case.subject, case.invoice_id) == ("network_halted", "local", None)
        assert "deeper" in case.detail["problem"]
        assert len(await shop.rows("SELECT id FROM exceptions")) == 1
        with pytest.raises(InvalidInput):
            await shop.do(resolve, case.id, Resolve(R.ACCEPT, "no"))
        async with shop.ctx.database.transaction() as connection:
            await resume(connection, shop.ctx, "local")
        async with shop.ctx.database.connection() as connection:
            closed = await get_exception(connection, shop.ctx, shop.merchant_id, case.id)
        assert closed.status == "resolved"
        assert await shop.event_types(case.id) == ["exception.opened", "exception.resolved"]
        await shop.follow()


def test_every_kind_that_an_invoice_can_have_is_tried_on_a_chain() -> None:
    """`unmatched` is reconciliation's; refunds and endpoints have tests of their own."""
    text = "".join(page.read_text() for page in sorted(Path(__file__).parent.glob("test_*.py")))
    elsewhere = {
        CaseKind.UNMATCHED,
        CaseKind.REFUND_FAILED,
        CaseKind.WEBHOOK_FAILED,
    }
    assert [kind for kind in CaseKind if kind not in elsewhere and f'"{kind}"' not in text] == []
