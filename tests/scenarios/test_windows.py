"""Deadlines, in chain time: on time, late, expired, canceled, on one network and on several.

Cites R-INV 9, R-CHAIN 7-8, F-MONEY 3, F-ADDR 3, F-NODE 1 and design idea 6. Our clock stands still unless a test
moves it, so that only the chain's time can be the reason for anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from tallystick.core.errors import Conflict
from tallystick.core.invoice import LatePayment
from tallystick.services.invoices import activate_option, cancel_invoice
from tallystick.workers.expire import BATCH_INVOICES, Expirer
from tests.support.anvil import start_anvil, unique_chain_id
from tests.support.evm import Chain
from tests.support.stand import Clock, Stand, address_in, evm_network, open_stand, units

WEI = units("0.01")  # what 25.00 USD asks
WINDOW = 60


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


async def mine_at(chain: Chain, unix_seconds: int) -> None:
    """One block of exactly this time."""
    await chain.set_next_time(unix_seconds)
    await chain.mine()
    assert await chain.time() == unix_seconds


def deadline_of(clock: Clock) -> int:
    """The deadline of an invoice made now."""
    return int(clock.at.timestamp()) + WINDOW


@pytest.mark.parametrize(
    ("seconds_after", "status", "on_time"), [(-1, "paid", True), (0, "paid", True), (1, "late_paid", False)]
)
async def test_the_deadline_is_exact_to_the_second_of_chain_time(
    timed: Stand, chain: Chain, clock: Clock, seconds_after: int, status: str, on_time: bool
) -> None:
    """One second before and exactly at it is on time, one second after is late.

    Bug planted: `<` for `<=` in the verdict; the payment exactly at the deadline is late.
    """
    deadline = deadline_of(clock)
    invoice = await timed.create("25.00", expires_in_seconds=WINDOW)
    await chain.send_native(address_in(invoice), WEI)
    await mine_at(chain, deadline + seconds_after)
    await timed.follow()
    await timed.expire()
    seen = await timed.get(invoice)
    assert (seen.status, seen.payments[0].on_time) == (status, on_time)
    assert seen.payments[0].block_time == datetime.fromtimestamp(deadline + seconds_after, UTC)
    if status == "late_paid":
        assert (await timed.way(invoice))[-2:] == ["expired", "late_paid"]


async def test_a_window_ends_only_past_its_deadline(timed: Stand, chain: Chain, clock: Clock) -> None:
    """A block exactly at the deadline may have a sibling that pays; one second later nothing in time can come."""
    deadline = deadline_of(clock)
    invoice = await timed.create("25.00", expires_in_seconds=WINDOW)
    await mine_at(chain, deadline)
    await timed.follow()
    assert await timed.expire() == 0
    assert await timed.status(invoice) == "awaiting_payment"
    await mine_at(chain, deadline + 1)
    await timed.follow()
    assert await timed.expire() == 1
    assert await timed.status(invoice) == "expired"
    last = await timed.last(invoice)
    assert (last.reason, last.evidence[0]["type"]) == ("window_closed", "deadline")


async def test_our_own_clock_expires_nothing_that_can_be_paid(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """Hours pass here while the chain stands still: its next block may hold a payment in time.

    Bug planted: the window judged by our clock; half the money in time is called underpaid.
    """
    deadline = deadline_of(clock)
    invoice = await timed.create("25.00", expires_in_seconds=WINDOW)
    clock.advance(86_400)
    await timed.follow()
    await timed.expire()
    assert await timed.status(invoice) == "awaiting_payment"
    await chain.send_native(address_in(invoice), WEI // 2)
    await mine_at(chain, deadline - 5)
    await timed.follow()
    assert await timed.status(invoice) == "partially_paid"
    await chain.send_native(address_in(invoice), WEI // 2)
    await mine_at(chain, deadline)
    await timed.follow()
    assert await timed.status(invoice) == "paid"


async def test_without_an_address_our_clock_decides(timed: Stand, clock: Clock) -> None:
    """Nobody can pay an option that was never activated, so no chain has to be asked."""
    invoice = await timed.create("25.00", activate=False, expires_in_seconds=WINDOW)
    assert invoice.status == "quoted"
    clock.advance(WINDOW)
    assert await timed.expire() == 0
    clock.advance(1)
    with pytest.raises(Conflict):
        await timed.do(activate_option, invoice.id, invoice.payment_options[0].id)
    assert await timed.expire() == 1
    seen = await timed.get(invoice)
    assert (seen.status, seen.payment_options[0].status) == ("expired", "expired")


async def test_nothing_paid_in_time_expires_because_the_node_was_down(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """Payments and deadlines pass while nobody reads; days later everything is judged as it was (R-CHAIN 10).

    Bug planted: `first_seen_at` instead of the block's time; every payment is late.
    """
    deadline = deadline_of(clock)
    invoices = [await timed.create("25.00", expires_in_seconds=WINDOW) for _ in range(4)]
    in_time, late, _unpaid, partly = invoices
    await chain.send_native(address_in(in_time), WEI)
    await chain.send_native(address_in(partly), WEI // 2)
    await mine_at(chain, deadline - 1)
    await chain.send_native(address_in(late), WEI)
    await mine_at(chain, deadline + 10)
    await chain.mine_many(100, interval_seconds=60)
    clock.advance(3 * 86_400)
    assert await timed.expire() == 0
    assert {await timed.status(invoice) for invoice in invoices} == {"awaiting_payment"}
    await timed.restart()
    await timed.follow()
    await timed.expire()
    assert [await timed.status(one) for one in invoices] == ["paid", "late_paid", "expired", "underpaid"]
    seen = await timed.get(in_time)
    assert seen.payments[0].on_time
    assert "expired" not in await timed.way(in_time)


@pytest.mark.parametrize(
    ("rule", "status"),
    [(LatePayment.ACCEPT, "paid"), (LatePayment.REVIEW, "late_paid"), (LatePayment.REFUND, "late_paid")],
)
async def test_late_money_is_treated_by_the_merchants_rule(
    timed: Stand, chain: Chain, clock: Clock, rule: LatePayment, status: str
) -> None:
    """Accepted once confirmed, else left to a person; the history shows that the window had ended first."""
    invoice = await timed.create("25.00", expires_in_seconds=WINDOW, late_payment=rule)
    await mine_at(chain, deadline_of(clock) + 1)
    await timed.follow()
    await timed.expire()
    assert await timed.status(invoice) == "expired"
    await chain.send_native(address_in(invoice), WEI)
    await chain.mine()
    await timed.follow()
    seen = await timed.get(invoice)
    assert (seen.status, seen.late_payment, seen.payments[0].on_time) == (status, rule.value, False)
    way = await timed.way(invoice)
    assert way[3:] == (["expired", "late_paid", "paid"] if status == "paid" else ["expired", "late_paid"])
    assert (await timed.last(invoice)).reason == (
        "late_payment_accepted" if status == "paid" else "late_payment"
    )


async def test_accepted_late_money_waits_for_its_confirmations(stand: Stand, chain: Chain) -> None:
    """Late or not, detection is not confirmation."""
    invoice = await stand.create("25.00", expires_in_seconds=WINDOW, late_payment=LatePayment.ACCEPT)
    await mine_at(chain, await chain.time() + 2 * WINDOW)
    await chain.send_native(address_in(invoice), WEI)
    await chain.mine(2)
    await stand.follow()
    assert await stand.status(invoice) == "late_paid"
    await chain.mine()
    await stand.follow()
    assert await stand.status(invoice) == "paid"


async def test_an_option_on_a_slow_network_keeps_the_window_open(
    two: Stand, chain: Chain, other: Chain, clock: Clock
) -> None:
    """Expired only after both networks were scanned past the deadline.

    Bug planted: `any` for `all` in the window's end; the invoice expires early.
    """
    deadline = deadline_of(clock)
    invoice = await two.create(
        "25.00", ("ETH", "local"), ("ETH", "other"), activate=True, expires_in_seconds=WINDOW
    )
    await mine_at(chain, deadline + 1)
    await two.follow()
    await two.expire()
    assert await two.status(invoice) == "awaiting_payment"
    await mine_at(other, deadline + 1)
    await two.follow()
    await two.expire()
    assert await two.status(invoice) == "expired"


@pytest.mark.parametrize("late_part", [WEI, WEI // 2])
async def test_late_money_on_one_network_does_not_close_the_other(
    two: Stand, chain: Chain, other: Chain, clock: Clock, late_part: int
) -> None:
    """Money came late on the fast network; the slow one then brings money in time: paid, never expired.

    This failed: the invoice went to underpaid or late_paid, from where nothing led back, and the network stopped.
    """
    deadline = deadline_of(clock)
    invoice = await two.create(
        "25.00", ("ETH", "local"), ("ETH", "other"), activate=True, expires_in_seconds=WINDOW
    )
    await chain.send_native(address_in(invoice), late_part)
    await mine_at(chain, deadline + 1)
    await two.follow()
    await two.expire()
    assert not {"expired", "underpaid", "late_paid"} & set(await two.way(invoice))
    await other.send_native(address_in(invoice, 1), WEI // 4)
    await mine_at(other, deadline - 2)
    await two.follow()
    await other.send_native(address_in(invoice, 1), WEI - WEI // 4)
    await mine_at(other, deadline - 1)
    await two.follow()
    assert await two.status(invoice) == "overpaid"


async def test_late_money_on_one_network_that_leaves_the_chain(
    two: Stand, chain: Chain, other: Chain, clock: Clock
) -> None:
    """The window is still open on the slow network, so the invoice awaits payment again."""
    invoice = await two.create(
        "25.00", ("ETH", "local"), ("ETH", "other"), activate=True, expires_in_seconds=WINDOW
    )
    await chain.send_native(address_in(invoice), WEI)
    await mine_at(chain, deadline_of(clock) + 1)
    await two.follow()
    await chain.reorg(1)
    await two.follow()
    assert await two.status(invoice) == "awaiting_payment"
    await mine_at(other, deadline_of(clock) + 1)
    await two.follow()
    await two.expire()
    assert await two.status(invoice) == "expired"


async def test_a_payment_on_the_wrong_network_is_found_and_explained(
    two: Stand, chain: Chain, other: Chain
) -> None:
    """The address is known on every network of its family (R-CHAIN 8). The right payment still settles it."""
    invoice = await two.create("25.00", ("ETH", "local"))
    sent = await other.send_native(address_in(invoice), WEI)
    await other.mine()
    await two.follow()
    seen = await two.get(invoice)
    assert (seen.status, seen.amount_paid) == ("review_required", "0.00")
    assert (seen.payments[0].match, seen.payments[0].network) == ("wrong_network", "other")
    last = await two.last(invoice)
    assert last.reason == "mismatched_payment"
    assert sent.tx_hash in [fact.get("tx_hash") for fact in last.evidence]
    await chain.send_native(address_in(invoice), WEI)
    await chain.mine()
    await two.follow()
    assert await two.status(invoice) == "paid"


async def test_a_canceled_invoice_that_is_paid_nevertheless(timed: Stand, chain: Chain) -> None:
    """Nothing was asked any more: late, for a person, whatever the rule for late money says (F-ADDR 3)."""
    invoice = await timed.create("25.00", late_payment=LatePayment.ACCEPT)
    await timed.do(cancel_invoice, invoice.id)
    assert await timed.status(invoice) == "canceled"
    await chain.send_native(address_in(invoice), WEI)
    await chain.mine()
    await timed.follow()
    assert await timed.status(invoice) == "late_paid"
    await chain.reorg(1)
    await timed.follow()
    assert await timed.status(invoice) == "canceled"
    assert (await timed.last(invoice)).reason == "reorganized"


async def test_a_paid_invoice_cannot_be_canceled(timed: Stand, chain: Chain) -> None:
    """Not even while its money is only on the way."""
    invoice = await timed.create("25.00")
    await chain.send_native(address_in(invoice), WEI // 2)
    await chain.mine()
    await timed.follow()
    with pytest.raises(Conflict):
        await timed.do(cancel_invoice, invoice.id)
    assert await timed.status(invoice) == "partially_paid"


async def test_a_loss_after_the_window_names_the_reorganisation(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """The status becomes `expired` because the payment left the chain, not because time passed."""
    deadline = deadline_of(clock)
    invoice = await timed.create("25.00", expires_in_seconds=WINDOW)
    await chain.send_native(address_in(invoice), WEI)
    await mine_at(chain, deadline - 1)
    await mine_at(chain, deadline + 1)
    await timed.follow()
    await timed.expire()
    assert await timed.status(invoice) == "paid"
    await chain.reorg(2)
    await timed.follow()
    assert await timed.status(invoice) == "expired"
    assert (await timed.last(invoice)).reason == "reorganized"


async def test_many_windows_end_at_once_in_bounded_batches(timed: Stand, chain: Chain, clock: Clock) -> None:
    """500 invoices of one deadline, two of them paid: judged in three transactions, each outcome right (F-MONEY 3)."""
    deadline = deadline_of(clock)
    invoices = [await timed.create("25.00", expires_in_seconds=WINDOW) for _ in range(500)]
    await chain.send_native(address_in(invoices[0]), WEI)
    await chain.send_native(address_in(invoices[499]), WEI // 2)
    await mine_at(chain, deadline)
    await mine_at(chain, deadline + 1)
    await timed.follow()
    expirer = Expirer(timed.ctx)
    sizes = []
    while judged := await expirer.batch("local"):
        sizes.append(judged)
    # The paid one was judged with its block and waits for nothing; the batches share the others.
    assert max(sizes) <= BATCH_INVOICES
    assert sum(sizes) >= 499
    rows = await timed.rows("SELECT status, count(*) AS n FROM invoices GROUP BY status")
    assert {row["status"]: row["n"] for row in rows} == {"paid": 1, "underpaid": 1, "expired": 498}


async def test_an_invoice_that_cannot_be_judged_holds_up_no_other(stand: Stand, chain: Chain) -> None:
    """A defect in one invoice's stored state stays with it. Planted: without the second try all three stay."""
    broken, *others = [await stand.create(expires_in_seconds=60) for _ in range(3)]
    async with stand.ctx.database.transaction() as connection:
        # No way leads from settled to expired: as if a defect had written a state that the evidence contradicts.
        await connection.execute("UPDATE invoices SET status = 'settled' WHERE id = $1", broken.id)
    await chain.set_next_time(int(broken.expires_at.timestamp()) + 10)
    await chain.mine()
    await stand.follow()
    assert await stand.expire() == len(others)
    assert [await stand.status(invoice) for invoice in others] == ["expired", "expired"]
    assert await stand.status(broken) == "settled"
    async with stand.ctx.database.transaction() as connection:
        await connection.execute("UPDATE invoices SET status = 'awaiting_payment' WHERE id = $1", broken.id)
    assert await stand.expire() == 1
