"""A customer pays: every way in which money can arrive on an EVM chain, on real anvil and real PostgreSQL.

Cites R-STATE 1-5, R-CHAIN 3-8, F-CHAIN 1-3, F-TOKEN 1-3.
"""

from __future__ import annotations

from typing import Any

import pytest

from tallystick.core.chain import BlockRef
from tallystick.core.errors import StaleWrite
from tallystick.services.intake import Step, apply_step
from tallystick.services.invoices import record_fulfillment
from tests.support.evm import Chain
from tests.support.stand import Stand, address_in, units


async def test_an_exact_payment_in_the_native_coin_walks_to_paid(stand: Stand, chain: Chain) -> None:
    """created -> quoted -> awaiting_payment -> confirming -> paid, each with evidence (R-STATE 3)."""
    invoice = await stand.create("25.00")
    assert invoice.status == "awaiting_payment"
    option = invoice.payment_options[0]
    assert option.amount_expected == "0.01"
    assert option.address is not None
    sent = await chain.send_native(option.address, units("0.01"))
    await chain.mine()
    await stand.follow()
    seen = await stand.get(invoice)
    assert (seen.status, seen.amount_paid) == ("confirming", "0.00")
    assert seen.payment_options[0].amount_detected == "0.01"
    assert seen.payments[0].tx_hash == sent.tx_hash
    assert seen.payments[0].confirmations == 1
    await chain.mine(2)
    await stand.follow()
    paid = await stand.get(invoice)
    assert (paid.status, paid.amount_paid) == ("paid", "25.00")
    assert await stand.way(invoice) == ["created", "quoted", "awaiting_payment", "confirming", "paid"]
    assert all(transition.evidence for transition in await stand.history(invoice))
    assert await stand.event_types(invoice.id) == [
        "invoice.created",
        "invoice.quoted",
        "invoice.awaiting_payment",
        "invoice.confirming",
        "invoice.paid",
    ]
    assert await stand.event_types(paid.payments[0].id) == ["payment.detected", "payment.confirmed"]


async def test_an_exact_payment_in_a_token_is_credited_by_its_contract(
    stand: Stand, chain: Chain, token: str
) -> None:
    """The ordinal is the place among the transaction's own logs, the log index the place in the block."""
    invoice = await stand.create("25.00", ("DUSD", "local"))
    option = invoice.payment_options[0]
    assert (option.amount_expected, option.token_contract is not None) == ("25", True)
    await chain.send_token(token, str(option.address), units("25", 6))
    await chain.mine(3)
    await stand.follow()
    paid = await stand.get(invoice)
    assert paid.status == "paid"
    assert (paid.payments[0].asset, paid.payments[0].amount, paid.payments[0].ordinal) == ("DUSD", "25", 0)


async def test_two_transfers_of_one_transaction_pay_two_invoices(
    stand: Stand, chain: Chain, token: str
) -> None:
    """Each is its own payment, told apart by its place among the transaction's logs (F-TOKEN 3)."""
    batch = await chain.deploy("Batch")
    await chain.approve(token, batch)
    first, second = [await stand.create("25.00", ("DUSD", "local")) for _ in range(2)]
    to = [address_in(first), address_in(second)]
    sent = await chain.send_call(batch, "Batch", "payTokens", token, to, [units("25", 6)] * 2)
    await chain.mine(3)
    await stand.follow()
    paid = [await stand.get(invoice) for invoice in (first, second)]
    assert [invoice.status for invoice in paid] == ["paid", "paid"]
    assert [invoice.payments[0].tx_hash for invoice in paid] == [sent.tx_hash] * 2
    ordinals = [invoice.payments[0].ordinal for invoice in paid]
    assert ordinals == sorted(set(ordinals))


async def test_several_transfers_pay_one_invoice(stand: Stand, chain: Chain, token: str) -> None:
    """Two in one transaction and one in a later block: each counts, each once.

    Bug planted: one ordinal for all logs of a transaction; the second transfer is taken for the first.
    """
    batch = await chain.deploy("Batch")
    await chain.approve(token, batch)
    invoice = await stand.create("25.00", ("DUSD", "local"))
    to = address_in(invoice)
    await chain.send_call(batch, "Batch", "payTokens", token, [to, to], [units("10", 6), units("5", 6)])
    await chain.mine()
    await stand.follow()
    seen = await stand.get(invoice)
    assert (seen.status, seen.payment_options[0].amount_due) == ("partially_paid", "10")
    await chain.send_token(token, to, units("10", 6))
    await chain.mine(3)
    await stand.follow()
    paid = await stand.get(invoice)
    assert (paid.status, paid.amount_paid) == ("paid", "25.00")
    assert sorted(payment.amount for payment in paid.payments) == ["10", "10", "5"]
    assert len({payment.id for payment in paid.payments}) == 3


async def test_one_block_pays_one_invoice_by_several_transactions(stand: Stand, chain: Chain) -> None:
    """The same amount to the same address twice in one block is two payments, not one."""
    invoice = await stand.create("25.00")
    for _ in range(2):
        await chain.send_native(address_in(invoice), units("0.005"))
    await chain.mine(3)
    await stand.follow()
    paid = await stand.get(invoice)
    assert (paid.status, len(paid.payments)) == ("paid", 2)


async def test_a_payment_split_in_three_tops_up(stand: Stand, chain: Chain) -> None:
    """What is still due is right after each part; the third makes it enough (R-STATE 3)."""
    invoice = await stand.create("25.00")
    dues = []
    for part in ("0.003", "0.003", "0.004"):
        await chain.send_native(address_in(invoice), units(part))
        await chain.mine()
        await stand.follow()
        dues.append((await stand.get(invoice)).payment_options[0].amount_due)
    assert dues == ["0.007", "0.004", "0"]
    assert await stand.status(invoice) == "confirming"
    await chain.mine(2)
    await stand.follow()
    paid = await stand.get(invoice)
    assert (paid.status, paid.amount_paid) == ("paid", "25.00")
    way = ["created", "quoted", "awaiting_payment", "partially_paid", "confirming", "paid"]
    assert await stand.way(invoice) == way


async def test_amounts_are_shown_as_confirmed_only_when_they_are(stand: Stand, chain: Chain) -> None:
    """Detected is not received, and the confirmed part alone has a value."""
    invoice = await stand.create("25.00")
    await chain.send_native(address_in(invoice), units("0.004"))
    await chain.mine(2)
    await stand.follow()
    await chain.send_native(address_in(invoice), units("0.002"))
    await chain.mine()
    await stand.follow()
    seen = await stand.get(invoice)
    option = seen.payment_options[0]
    assert (option.amount_detected, option.amount_received, option.amount_due) == ("0.006", "0.004", "0.004")
    assert (seen.status, seen.amount_paid) == ("partially_paid", "10.00")


# 0.01 ETH is asked. 0.5 % below is still paid, 10 % above is not yet too much; one wei further is another matter.
@pytest.mark.parametrize(
    ("amount_wei", "status"),
    [
        (10**16 - 5 * 10**13, "paid"),
        (10**16 - 5 * 10**13 - 1, "partially_paid"),
        (10**16 + 10**15, "paid"),
        (10**16 + 10**15 + 1, "overpaid"),
    ],
    ids=["exactly at the lower edge", "one unit below", "exactly at the upper edge", "one unit above"],
)
async def test_the_tolerance_is_exact_to_the_unit(
    stand: Stand, chain: Chain, amount_wei: int, status: str
) -> None:
    """R-CHAIN 5. Bug planted: `> 1` for `>= 1` in the assessment; the lower edge fails."""
    invoice = await stand.create("25.00")
    await chain.send_native(address_in(invoice), amount_wei)
    await chain.mine(3)
    await stand.follow()
    seen = await stand.get(invoice)
    assert seen.status == status
    assert (seen.payment_options[0].amount_due == "0") is (status != "partially_paid")


async def test_more_money_after_paid_is_still_seen(stand: Stand, chain: Chain) -> None:
    """A second payment to a used address belongs to its invoice for ever (F-ADDR 3)."""
    invoice = await stand.create("25.00")
    await chain.send_native(address_in(invoice), units("0.01"))
    await chain.mine(3)
    await stand.follow()
    await stand.do(record_fulfillment, invoice.id, {"reference": "parcel 7"})
    await chain.mine_many(200)
    await stand.follow()
    await chain.send_native(address_in(invoice), units("0.01"))
    await chain.mine()
    await stand.follow()
    assert await stand.status(invoice) == "paid"  # not final yet
    await chain.mine(2)
    await stand.follow()
    seen = await stand.get(invoice)
    assert (seen.status, seen.amount_paid) == ("overpaid", "50.00")
    assert (await stand.last(invoice)).reason == "amount_above_tolerance"


async def test_one_invoice_may_be_paid_by_two_of_its_options(stand: Stand, chain: Chain, token: str) -> None:
    """Fractions of different assets add up exactly."""
    invoice = await stand.create("25.00", ("ETH", "local"), ("DUSD", "local"), activate=True)
    ether, dollars = invoice.payment_options
    await chain.send_native(str(ether.address), units("0.004"))
    await chain.send_token(token, str(dollars.address), units("10", 6))
    await chain.mine(3)
    await stand.follow()
    seen = await stand.get(invoice)
    assert (seen.status, seen.amount_paid) == ("partially_paid", "20.00")
    assert [option.amount_due for option in seen.payment_options] == ["0.002", "5"]
    await chain.send_token(token, str(dollars.address), units("5", 6))
    await chain.mine(3)
    await stand.follow()
    assert await stand.status(invoice) == "paid"


async def test_applying_a_block_again_changes_nothing(stand: Stand, chain: Chain) -> None:
    """Idempotence: the same block twice, and a step from an old cursor (R-CHAIN 6).

    Bug planted: the cursor's guard left out; the step from the old cursor is carried out.
    """
    invoice = await stand.create("25.00")
    await chain.send_native(address_in(invoice), units("0.01"))
    old = await cursor_of(stand)
    await chain.mine()
    await stand.follow()
    before = await everything(stand)
    source, network = stand.sources["local"], stand.ctx.networks["local"]
    block = await source.block_at(await chain.height())
    await apply_step(stand.ctx, network, Step(block.header.ref, (block,)))
    assert await everything(stand) == before
    with pytest.raises(StaleWrite):
        await apply_step(stand.ctx, network, Step(old, (block,)))
    assert await everything(stand) == before
    await chain.mine(2)
    await stand.follow()
    assert await stand.status(invoice) == "paid"


async def cursor_of(stand: Stand) -> BlockRef:
    """The last processed block."""
    row = (await stand.rows("SELECT cursor_hash, cursor_height FROM networks"))[0]
    return BlockRef(row["cursor_hash"], row["cursor_height"])


async def everything(stand: Stand) -> list[Any]:
    """All that one block may change."""
    tables = (
        "blocks",
        "transfers",
        "anchors",
        "conflicts",
        "payments",
        "invoices",
        "transitions",
        "wakeups",
        "events",
    )
    return [sorted(map(repr, await stand.rows(f"SELECT * FROM {table}"))) for table in tables]
