"""A customer pays: every way in which money can arrive on an EVM chain, on real anvil and real PostgreSQL.

Cites R-STATE 1-5, R-CHAIN 3-8, F-CHAIN 1-3, F-TOKEN 1-3.
"""

from __future__ import annotations

from tests.support.evm import Chain
from tests.support.stand import Stand, units


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


async def test_an_exact_payment_in_a_token_is_credited_by_its_contract(stand: Stand, chain: Chain, token: str) -> None:
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
