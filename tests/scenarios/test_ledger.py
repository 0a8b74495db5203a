"""The books on a real chain: what is booked, what is taken back, and that nothing is ever written over.

Cites R-LEDGER 1, F-CHAIN 1 and 4, F-TOKEN 2. What stands at the end of each scenario is found again from the facts by
the stand's invariants; here is said what it should be, and how it came to be so.
"""

from __future__ import annotations

import pytest

from tallystick.core.cases import Resolution
from tallystick.core.ledger import Account
from tallystick.services import ledger, objects, payments
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.exceptions import ExceptionFilter, Resolve, list_exceptions, resolve
from tallystick.services.invoices import record_fulfillment
from tallystick.services.ledger import EntryFilter, LedgerEntry
from tests.support.evm import Chain
from tests.support.stand import ACTOR, Clock, Stand, address_in, units

WEI = units("0.01")  # what 25.00 USD asks
CONFIRMED = 3


async def balances(stand: Stand) -> dict[str, str]:
    """Accounts that are not empty, as `name asset`."""
    async with stand.ctx.database.connection() as connection:
        found = await ledger.list_accounts(connection, stand.merchant_id)
    return {f"{one.name} {one.asset}": one.balance for one in found if one.balance.strip("0.") != ""}


async def entries(stand: Stand, invoice: objects.Invoice) -> list[LedgerEntry]:
    """Every entry about an invoice, oldest first."""
    async with stand.ctx.database.connection() as connection:
        wanted = EntryFilter(invoice_id=invoice.id)
        return (await ledger.list_entries(connection, stand.merchant_id, wanted, 200, None)).data[::-1]


def told(found: list[LedgerEntry]) -> list[str]:
    """Entries as `kind: account amount asset …`, with a mark for what takes another back."""
    return [
        f"{'-' if one.reverses else '+'} {one.kind}: "
        + ", ".join(f"{line.account} {line.amount} {line.asset}" for line in one.postings)
        for one in found
    ]


async def pay(stand: Stand, chain: Chain, amount: int = WEI, *, blocks: int = CONFIRMED) -> objects.Invoice:
    """A new invoice, and a payment to it, `blocks` deep and read."""
    invoice = await stand.create("25.00")
    await chain.send_native(address_in(invoice), amount)
    await chain.mine(blocks)
    await stand.follow()
    return invoice


async def test_from_a_block_to_paid(stand: Stand, chain: Chain) -> None:
    """Nothing is booked while it confirms; received and earned once it is."""
    invoice = await pay(stand, chain, blocks=1)
    assert await balances(stand) == {}
    await chain.mine(CONFIRMED - 1)
    await stand.follow()
    found = await entries(stand, invoice)
    assert told(found) == [
        "+ receipt: onchain 0.01 ETH, suspense -0.01 ETH",
        "+ position: merchant -0.01 ETH, suspense 0.01 ETH",
    ]
    assert await balances(stand) == {"onchain ETH": "0.01", "merchant ETH": "-0.01"}
    paid = await stand.last(invoice)
    assert {one.transition for one in found} == {paid.sequence}
    (payment,) = (await stand.get(invoice)).payments
    assert [one.payment_id for one in found] == [payment.id, None]


async def test_too_much(stand: Stand, chain: Chain) -> None:
    """The excess is the customer's until somebody decides."""
    invoice = await pay(stand, chain, WEI * 3 // 2)
    assert await stand.status(invoice) == "overpaid"
    assert await balances(stand) == {
        "onchain ETH": "0.015",
        "merchant ETH": "-0.01",
        "overpayment ETH": "-0.005",
    }


async def test_too_little_and_kept(timed: Stand, chain: Chain, clock: Clock) -> None:
    """The rest is owed until a person writes it off; then what came is the merchant's."""
    invoice = await timed.create("25.00", expires_in_seconds=60)
    await chain.send_native(address_in(invoice), WEI * 6 // 10)
    await chain.mine()
    await chain.set_next_time(int(clock().timestamp()) + 61)
    await chain.mine()
    await timed.follow()
    await timed.expire()
    assert await timed.status(invoice) == "underpaid"
    owed = {"receivable USD": "10.00", "expected USD": "-10.00"}
    assert await balances(timed) == owed | {"onchain ETH": "0.006", "suspense ETH": "-0.006"}
    async with timed.ctx.database.transaction() as connection:
        wanted = ExceptionFilter(invoice_id=invoice.id)
        (case,) = (await list_exceptions(connection, timed.ctx, timed.merchant_id, wanted, 9, None)).data
        kept = Resolve(Resolution.WRITE_OFF, "The customer does not answer.")
        await resolve(connection, timed.ctx, timed.merchant_id, ACTOR, case.id, kept)
    assert await timed.status(invoice) == "underpaid"
    assert await balances(timed) == {"onchain ETH": "0.006", "merchant ETH": "-0.006"}


@pytest.mark.parametrize("fulfilled", [False, True], ids=["before delivery", "after delivery"])
async def test_a_paid_invoice_whose_block_is_gone(stand: Stand, chain: Chain, fulfilled: bool) -> None:
    """Every entry of the payment is taken back by one that names it; what was delivered is owed (F-CHAIN 1, 4).

    Planted bugs seen to fail: the reversing entry left out; the postings of an entry changed in place (the database
    refuses); nothing owed after delivery.
    """
    invoice = await pay(stand, chain)
    if fulfilled:
        await stand.do(record_fulfillment, invoice.id, {"note": "sent"})
    before = await entries(stand, invoice)
    standing = [one for one in before if one.reverses is None and one.reversed_by is None]
    assert [one.kind for one in standing] == ["receipt", "position"]
    await chain.reorg(CONFIRMED)
    await stand.follow()
    assert await stand.status(invoice) == ("review_required" if fulfilled else "awaiting_payment")
    after = await entries(stand, invoice)
    taken_back = {one.reverses for one in after[len(before) :] if one.reverses is not None}
    assert taken_back == {one.id for one in standing}
    gone = await stand.last(invoice)
    assert {one.transition for one in after[len(before) :]} == {gone.sequence}
    owed = {"receivable USD": "25.00", "expected USD": "-25.00"}
    assert await balances(stand) == (owed if fulfilled else {})
    # What had been written before is still there, word for word.
    assert [(one.id, one.postings) for one in after[: len(before)]] == [
        (one.id, one.postings) for one in before
    ]


async def test_gone_and_mined_again_books_it_once_more(stand: Stand, chain: Chain) -> None:
    """Another block, the same payment: one receipt in force, the history shows both (F-CHAIN 2)."""
    invoice = await stand.create("25.00")
    sent = await chain.send_native(address_in(invoice), WEI)
    await chain.mine(CONFIRMED)
    await stand.follow()
    await chain.reorg(CONFIRMED, [(sent, 1)])
    await stand.follow()
    assert await balances(stand) == {}
    await chain.mine()
    await stand.follow()
    assert await balances(stand) == {"onchain ETH": "0.01", "merchant ETH": "-0.01"}
    receipts = [one for one in await entries(stand, invoice) if one.kind == "receipt"]
    assert [one.reverses is not None for one in receipts] == [False, True, False]


async def test_looking_again_books_nothing(stand: Stand, chain: Chain) -> None:
    """Planted bug seen to fail: what is in force is never found to be as wanted."""
    invoice = await pay(stand, chain, WEI * 3 // 2)
    before = await entries(stand, invoice)
    async with stand.ctx.database.transaction() as connection:
        cause = Cause(CauseKind.REQUEST, ACTOR, ({"type": "test"},))
        await assess_invoices(connection, stand.ctx, [invoice.id], cause)
    assert await entries(stand, invoice) == before


async def test_two_assets_and_junk_stay_apart(stand: Stand, chain: Chain, token: str) -> None:
    """A token nobody configured is not in the books; one that was not asked for waits in suspense (F-TOKEN 2)."""
    fake = await chain.deploy_token("Demo Dollar", "DUSD")
    invoice = await stand.create("25.00", ("ETH", "local"))
    await chain.send_native(address_in(invoice), WEI)
    await chain.send_token(token, address_in(invoice), units("5", 6))
    await chain.send_token(fake, address_in(invoice), units("500", 6))
    await chain.mine(CONFIRMED)
    await stand.follow()
    assert await stand.status(invoice) == "paid"
    assert await balances(stand) == {
        "onchain ETH": "0.01",
        "merchant ETH": "-0.01",
        "onchain DUSD": "5",
        "suspense DUSD": "-5",
    }


async def test_a_transaction_leads_to_its_entries(stand: Stand, chain: Chain) -> None:
    """The trace shows the payment's receipt and the position it led to; lists find the same."""
    invoice = await stand.create("25.00")
    sent = await chain.send_native(address_in(invoice), WEI)
    await chain.mine(CONFIRMED)
    await stand.follow()
    other = await pay(stand, chain)
    async with stand.ctx.database.connection() as connection:
        traced = await payments.trace(
            connection, stand.ctx, stand.merchant_id, sent.tx_hash.upper().replace("X", "x")
        )
        (transfer,) = traced.transfers
        assert transfer.payment is not None
        assert told(transfer.ledger_entries) == [
            "+ receipt: onchain 0.01 ETH, suspense -0.01 ETH",
            "+ position: merchant -0.01 ETH, suspense 0.01 ETH",
        ]
        by_payment = EntryFilter(payment_id=transfer.payment.id)
        found = await ledger.list_entries(connection, stand.merchant_id, by_payment, 200, None)
        assert [one.kind for one in found.data] == ["receipt"]
        by_account = EntryFilter(account=Account.MERCHANT)
        first = await ledger.list_entries(connection, stand.merchant_id, by_account, 1, None)
        then = await ledger.list_entries(connection, stand.merchant_id, by_account, 1, first.next_cursor)
        assert [one.invoice_id for one in (*first.data, *then.data)] == [other.id, invoice.id]
        assert then.next_cursor is None
        assert await ledger.list_accounts(connection, "mer_other") == []
