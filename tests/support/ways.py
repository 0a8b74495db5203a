"""How an invoice gets into each status in which there is money, and how it then stands, in the words of the tables.

For: `tests/scenarios/test_endings.py` and `test_orders.py`. Holds true: each way leads there through real blocks and
the services alone, and answers the payments that the chain may take away next. Must not: say what is to be expected.
"""

from __future__ import annotations

from dataclasses import dataclass

from tallystick.core.cases import Resolution
from tallystick.core.invoice import LatePayment
from tallystick.core.refund import RefundRule
from tallystick.services import objects
from tallystick.services.invoices import cancel_invoice
from tests.support.endings import CONFIRMATIONS, Payment, World

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


async def at(world: World, invoice: objects.Invoice) -> At:
    """How it stands, as the table says it."""
    look = await world.look(invoice)
    refunds = ", ".join(status for status, _ in look.refunds)
    return At(look.status, (await world.stand.last(invoice)).reason, look.books, look.cases, refunds)


# Books that come again and again
HALF = "ETH onchain 0.005 suspense -0.005; USD receivable 12.5 expected -12.5"
WAITS = "ETH onchain 0.01 suspense -0.01"
EARNED = "ETH onchain 0.01 merchant -0.01"
OWED = "USD receivable 25 expected -25"
TOO_MUCH = "ETH onchain 0.02 merchant -0.01 overpayment -0.01"
RETURNING = "ETH onchain 0.01 refunds_payable -0.01"


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
