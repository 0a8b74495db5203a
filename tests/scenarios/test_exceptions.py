"""Every kind of exception on a real chain, and what people can do about it.

Cites R-EXC 1-2, R-STATE, F-ADDR 3, F-CHAIN 4, F-TOKEN 2. The queue is derived like the status: a case is open exactly
as long as its reason is there and nobody has decided about it. The shop's invariants check that after each of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tallystick.core.cases import CaseKind, Resolution
from tallystick.core.errors import Conflict, InvalidInput
from tallystick.core.invoice import LatePayment
from tallystick.core.refund import RefundRule
from tallystick.services import objects
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.balances import check_invoices
from tallystick.services.deciding import Decider, attach
from tallystick.services.disputes import DisputeOutcome, Exhibit, open_dispute, resolve_dispute
from tallystick.services.exceptions import (
    ExceptionFilter,
    RefundWish,
    Resolve,
    get_exception,
    list_exceptions,
    resolve,
)
from tallystick.services.invoices import cancel_invoice, record_fulfillment
from tallystick.services.locking import lock_invoices
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import resume
from tallystick.services.refund_decisions import approve_refund, reject_refund
from tallystick.services.refunds import NewRefund, create_refund
from tests.support.anvil import start_anvil, unique_chain_id
from tests.support.evm import Chain, address_of
from tests.support.stand import ACTOR, Clock, Stand, address_in, evm_network, open_stand, units

WEI = units("0.01")  # what 25.00 USD asks
WINDOW = 60
R = Resolution


@pytest.fixture
async def other() -> AsyncIterator[Chain]:
    """A second chain."""
    async with start_anvil(chain_id=unique_chain_id()) as node, Chain(node.url, node.chain_id) as helper:
        yield helper


@pytest.fixture
async def two(
    database_url: str, chain: Chain, other: Chain, token: str, clock: Clock
) -> AsyncIterator[Stand]:
    """A shop on two networks, one confirmation each, with a clock that stands."""
    networks = (
        (evm_network("local", chain.chain_id, token=token, confirmations=1), chain.url),
        (evm_network("other", other.chain_id, confirmations=1), other.url),
    )
    async with open_stand(database_url, *networks, clock=clock) as shop:
        yield shop


async def cases(stand: Stand, invoice: objects.Invoice | None = None) -> list[objects.ExceptionObject]:
    """The cases about an invoice, oldest first; of the whole shop without one."""
    wanted = ExceptionFilter(invoice_id=invoice.id if invoice is not None else None)
    async with stand.ctx.database.connection() as connection:
        found = await list_exceptions(connection, stand.ctx, stand.merchant_id, wanted, 200, None)
    return found.data


async def kinds(stand: Stand, invoice: objects.Invoice, status: str = "open") -> list[str]:
    """Kinds of an invoice's cases of a status."""
    return [case.kind for case in await cases(stand, invoice) if case.status == status]


async def the_case(stand: Stand, invoice: objects.Invoice) -> objects.ExceptionObject:
    """The one case that is open about an invoice."""
    (case,) = [case for case in await cases(stand, invoice) if case.status == "open"]
    return case


async def decide(
    stand: Stand, invoice: objects.Invoice, action: Resolution, **more: Any
) -> objects.ExceptionObject:
    """Resolve the one open case of an invoice."""
    case = await the_case(stand, invoice)
    asked = Resolve(action=action, note=f"{action} it", **more)
    done: objects.ExceptionObject = await stand.do(resolve, case.id, asked)
    return done


async def mine(stand: Stand, chain: Chain, blocks: int = 1) -> None:
    """Mine what is in the pool and read it."""
    await chain.mine(blocks)
    await stand.follow()


async def close_window(stand: Stand, chain: Chain, clock: Clock) -> None:
    """Let the windows of the invoices made so far end."""
    await chain.set_next_time(max(int(clock.at.timestamp()) + WINDOW, await chain.time()) + 1)
    await mine(stand, chain)
    await stand.expire()


async def underpaid(stand: Stand, chain: Chain, clock: Clock, part: int = WEI // 2) -> objects.Invoice:
    """An invoice of which a part came in time, and whose window has ended."""
    invoice = await stand.create("25.00", expires_in_seconds=WINDOW)
    await chain.send_native(address_in(invoice), part)
    await mine(stand, chain)
    assert await kinds(stand, invoice) == []  # while the window is open there is nothing to decide
    await close_window(stand, chain, clock)
    assert (await stand.status(invoice), await kinds(stand, invoice)) == ("underpaid", ["underpaid"])
    return invoice


async def late(stand: Stand, chain: Chain, clock: Clock, amount: int = WEI, **more: Any) -> objects.Invoice:
    """An invoice for which money came after its window."""
    invoice = await stand.create("25.00", expires_in_seconds=WINDOW, **more)
    await close_window(stand, chain, clock)
    await chain.send_native(address_in(invoice), amount)
    await mine(stand, chain)
    return invoice


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
    """Nobody gives it back, so somebody has to decide again."""
    invoice = await underpaid(timed, chain, clock)
    done = await decide(timed, invoice, R.REFUND, refund=RefundWish(address=address_of(7)))
    assert isinstance(done.refund, objects.Refund)
    await timed.do(reject_refund, done.refund.id, "the customer pays the rest")
    assert await kinds(timed, invoice) == ["underpaid"]
    assert (await the_case(timed, invoice)).id != done.id


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


async def settle(stand: Stand, invoice: objects.Invoice) -> None:
    """As a closed settlement batch will do it."""
    async with stand.ctx.database.transaction() as connection:
        await connection.execute(
            "UPDATE invoices SET settled_at = $2 WHERE id = $1", invoice.id, stand.ctx.now()
        )
        cause = Cause(CauseKind.REQUEST, ACTOR, ({"type": "settlement"},))
        await assess_invoices(connection, stand.ctx, [invoice.id], cause)


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
    """Anybody can send them. The status does not change, and nobody is asked twice, also after ignoring it."""
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
    await decide(timed, invoice, R.IGNORE)
    await chain.send_token(junk, address_in(invoice), 9)
    await mine(timed, chain)
    assert [one.status for one in await cases(timed, invoice)] == ["resolved"]


async def test_dust_opens_nothing(timed: Stand, chain: Chain, token: str, clock: Clock) -> None:
    """In time, late, in another asset, before and after it was paid, and when it leaves the chain again (F-TOKEN 2)."""
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
    """Afterwards the invoice is what the evidence says, still fulfilled once, and a second reversal is told again."""
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
    """One is carried out, the other learns that it was resolved already. Exactly one decision is recorded."""
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


async def test_fulfilment_is_recorded_once_under_concurrency(timed: Stand, chain: Chain) -> None:
    """Keyed by the transition by which it was paid: eight at once, one record."""
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


async def dispute(stand: Stand, invoice: objects.Invoice) -> objects.Invoice:
    """Open a dispute."""
    async with stand.ctx.database.transaction() as connection:
        return await open_dispute(
            connection,
            stand.ctx,
            stand.merchant_id,
            ACTOR,
            invoice.id,
            reason="not delivered",
            note="The customer says that nothing came.",
            evidence=(
                Exhibit("message", text="Where is it?"),
                Exhibit("photo", url="https://shop.example/1"),
            ),
        )


async def undispute(stand: Stand, invoice: objects.Invoice, outcome: str) -> objects.Invoice:
    """Resolve it."""
    async with stand.ctx.database.transaction() as connection:
        return await resolve_dispute(
            connection,
            stand.ctx,
            stand.merchant_id,
            ACTOR,
            invoice.id,
            outcome=DisputeOutcome(outcome),
            note="Talked to both.",
        )


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


def test_every_kind_that_an_invoice_can_have_is_tried_here() -> None:
    """`unmatched` is reconciliation's; refunds and endpoints have tests of their own."""
    text = Path(__file__).read_text()
    elsewhere = {
        CaseKind.UNMATCHED,
        CaseKind.REFUND_FAILED,
        CaseKind.WEBHOOK_FAILED,
    }
    assert [kind for kind in CaseKind if kind not in elsewhere and f'"{kind}"' not in text] == []
