"""Value that is not value: what looks like a payment and is none.

Cites F-TOKEN 1-3, R-CHAIN 8. Each of these is sent to the address of a waiting invoice on a real chain; none may move a
status or a credit, and what is kept of it is bounded.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tallystick.services import objects
from tallystick.services.intake import UNASKED_MAX
from tests.support.evm import Chain, address_of, contract
from tests.support.stand import Stand, address_in, units

FIRST_STATUSES = ["created", "quoted", "awaiting_payment"]


async def assert_untouched(stand: Stand, invoice: objects.Invoice, *, transfers: int = 0) -> None:
    """Nothing was credited, nothing moved; so many transfers are kept as evidence."""
    seen = await stand.get(invoice)
    assert (seen.status, seen.amount_paid, seen.payments) == ("awaiting_payment", "0.00", [])
    assert {option.amount_detected for option in seen.payment_options} == {"0"}
    assert await stand.way(invoice) == FIRST_STATUSES
    assert await stand.event_types(invoice.id) == [f"invoice.{status}" for status in FIRST_STATUSES]
    rows = await stand.rows("SELECT id FROM transfers WHERE invoice_id = $1", invoice.id)
    assert len(rows) == transfers


async def settle(stand: Stand, chain: Chain) -> None:
    """Mine what is in the pool, deep enough to be confirmed, and read it."""
    await chain.mine(4)
    await stand.follow()


async def test_a_fake_token_with_the_right_name_is_no_payment(stand: Stand, chain: Chain) -> None:
    """Same name, symbol and decimals, another contract: kept as evidence, never credited.

    Bug planted: an unknown contract taken for the first token; the invoice goes to review.
    """
    fake = await chain.deploy_token()
    invoice = await stand.create("25.00", ("DUSD", "local"))
    await chain.send_token(fake, address_in(invoice), units("25", 6))
    await settle(stand, chain)
    await assert_untouched(stand, invoice, transfers=1)


async def test_a_failed_transaction_is_no_payment(stand: Stand, chain: Chain, token: str) -> None:
    """Of every kind: a token call without the balance, a batch that changes its mind, a receiver that refuses.

    Bug planted: the receipt's status not looked at; the refused value is credited.
    """
    batch = await chain.deploy("Batch")
    await chain.approve(token, batch)
    invoice = await stand.create("25.00", ("DUSD", "local"))
    poor = await chain.send_token(token, address_in(invoice), units("25", 6), sender=3)
    regret = await chain.send_call(
        batch, "Batch", "payTokensAndFail", token, [address_in(invoice)], [units("25", 6)]
    )
    ether = await stand.create("25.00")
    # A contract that takes no money refuses the value; its inner payments are undone with it.
    inner = await chain.send_call(
        batch, "Batch", "payNative", [address_in(ether)], [units("0.01")], value=units("0.001")
    )
    # An address with code of its own (EIP-7702) may refuse: the value stands in the transaction and never moved.
    refusing = await stand.create("25.00")
    await chain.rpc("anvil_setCode", address_in(refusing), "0x60006000fd")
    refused = await chain.send_native(address_in(refusing), units("0.01"))
    await chain.mine()
    for sent in (poor, regret, inner, refused):
        assert (await chain.receipt(sent.tx_hash))["status"] == "0x0"
    await settle(stand, chain)
    for one in (invoice, ether, refusing):
        await assert_untouched(stand, one)


async def test_an_erc721_transfer_with_the_same_topic_is_no_payment(stand: Stand, chain: Chain) -> None:
    """Four topics: the third is a number of a collectible, not an amount."""
    collectible = await chain.deploy("Collectible")
    invoice = await stand.create("25.00", ("DUSD", "local"))
    await chain.send_call(collectible, "Collectible", "transfer", address_in(invoice), units("25", 6))
    await settle(stand, chain)
    await assert_untouched(stand, invoice)


async def test_malformed_logs_stop_nobody_and_pay_nobody(stand: Stand, chain: Chain, token: str) -> None:
    """Logs that only look like transfers, in one block with a true payment, which is credited."""
    emitter = await chain.deploy("MalformedEmitter")
    invoice = await stand.create("25.00", ("DUSD", "local"))
    honest = await stand.create("25.00", ("DUSD", "local"))
    to = address_in(invoice)
    for function in ("shortData", "extraData", "noData"):
        await chain.send_call(emitter, "MalformedEmitter", function, to)
    for function in ("allInData", "dirtyTopic"):
        await chain.send_call(emitter, "MalformedEmitter", function, to, units("25", 6))
    await chain.send_token(token, address_in(honest), units("25", 6))
    await settle(stand, chain)
    await assert_untouched(stand, invoice)
    assert await stand.status(honest) == "paid"


async def test_tokens_that_do_not_move_are_no_payment(stand: Stand, chain: Chain) -> None:
    """One answers false, one reverts: neither says that anything moved."""
    invoice = await stand.create("25.00", ("DUSD", "local"))
    for name in ("FalseToken", "RevertingToken"):
        address = await chain.deploy(name)
        await chain.send_call(address, name, "transfer", address_in(invoice), units("25", 6))
    await settle(stand, chain)
    await assert_untouched(stand, invoice)


async def test_zero_values_are_no_payment(stand: Stand, chain: Chain, token: str) -> None:
    """Anybody can move nothing in another's name (address poisoning): coin, token, and a stranger's token.

    Bug planted: zero amounts reported; the database refuses the block and the network stands still.
    """
    invoice = await stand.create("25.00", ("ETH", "local"), ("DUSD", "local"), activate=True)
    await chain.send_native(address_in(invoice, 0), 0)
    await chain.send_token(token, address_in(invoice, 0), 0)
    await chain.send_token(token, address_in(invoice, 1), 0)
    data = contract("DemoToken").call("transferFrom", address_of(4), address_in(invoice, 1), 0)
    await chain.submit(await chain.sign(to=token, data=data, sender=5))
    await settle(stand, chain)
    await assert_untouched(stand, invoice)


@pytest.mark.parametrize("accepted", ["DUSD", "ETH"])
async def test_a_flood_of_crumbs_is_bounded_and_harmless(
    stand: Stand, chain: Chain, token: str, accepted: str
) -> None:
    """Hundreds of transfers of one base unit, asked for or not: bounded; what is stored survives being mined again; the
    true payment is credited.

    Found in an attack: 6,000 of them made each block that touches the invoice take eight seconds. Bugs planted: the
    crumbs of the asked asset not counted; a stored transfer left out when it is mined again.
    """
    batch = await chain.deploy("Batch")
    await chain.approve(token, batch)
    invoice = await stand.create("25.00", (accepted, "local"))
    to = address_in(invoice)
    sent = [await chain.send_call(batch, "Batch", "payTokens", token, [to] * 70, [1] * 70) for _ in range(3)]
    await settle(stand, chain)
    bound = UNASKED_MAX["crumb" if accepted == "DUSD" else "other"]
    assert bound < 210
    rows = await stand.rows("SELECT id FROM transfers WHERE invoice_id = $1", invoice.id)
    assert len(rows) == bound
    assert await stand.status(invoice) == "awaiting_payment"
    await chain.reorg(4, [(one, 1) for one in sent])
    await stand.follow()
    standing = await stand.rows(
        "SELECT status FROM payments WHERE invoice_id = $1 AND status <> 'orphaned'", invoice.id
    )
    assert len(standing) == bound
    if accepted == "DUSD":
        await chain.send_token(token, to, units("25", 6))
    else:
        await chain.send_native(to, units("0.01"))
    await settle(stand, chain)
    assert await stand.status(invoice) == "paid"


async def test_dust_of_unknown_tokens_is_bounded_and_harmless(stand: Stand, chain: Chain, token: str) -> None:
    """50 pieces of junk in several blocks: at most 20 are kept, and the true payment among them is credited.

    Bug planted: the bound counted per block; more is kept.
    """
    junk = await chain.deploy_token("Free Money", "FREE", 18)
    invoice = await stand.create("25.00", ("DUSD", "local"))
    to = address_in(invoice)
    for number in range(50):
        await chain.send_token(junk, to, 1 + number)
        if number % 12 == 11:
            await chain.mine()
    await settle(stand, chain)
    await assert_untouched(stand, invoice, transfers=UNASKED_MAX["unknown"])
    await chain.send_token(junk, to, 1)
    await chain.send_token(token, to, units("25", 6))
    await chain.send_token(junk, to, 1)
    await settle(stand, chain)
    paid = await stand.get(invoice)
    assert (paid.status, paid.amount_paid, len(paid.payments)) == ("paid", "25.00", 1)
    transitions = await stand.history(invoice)
    assert max(len(transition.evidence) for transition in transitions) <= 3


async def test_junk_never_spoils_a_paid_invoice(stand: Stand, chain: Chain, token: str) -> None:
    """A wrong asset to the address of a paid invoice is evidence, not a reason for review."""
    invoice = await stand.create("25.00")
    await chain.send_native(address_in(invoice), units("0.01"))
    await settle(stand, chain)
    await chain.send_token(token, address_in(invoice), 1)
    await settle(stand, chain)
    seen = await stand.get(invoice)
    assert (seen.status, seen.amount_paid) == ("paid", "25.00")
    assert sorted(payment.match for payment in seen.payments) == ["matched", "wrong_asset"]


@pytest.mark.parametrize("asked", ["ETH", "DUSD"])
async def test_the_wrong_asset_goes_to_review_and_the_right_one_still_pays(
    stand: Stand, chain: Chain, token: str, asked: str
) -> None:
    """Supported here, but not what this address was issued for (R-CHAIN 8)."""
    invoice = await stand.create("25.00", (asked, "local"))
    to = address_in(invoice)
    if asked == "ETH":
        await chain.send_token(token, to, units("25", 6))
    else:
        await chain.send_native(to, units("0.01"))
    await settle(stand, chain)
    seen = await stand.get(invoice)
    assert (seen.status, seen.amount_paid) == ("review_required", "0.00")
    assert (seen.payments[0].match, seen.payments[0].status) == ("wrong_asset", "confirmed")
    assert (await stand.last(invoice)).reason == "mismatched_payment"
    if asked == "ETH":
        await chain.send_native(to, units("0.01"))
    else:
        await chain.send_token(token, to, units("25", 6))
    await settle(stand, chain)
    seen = await stand.get(invoice)
    assert (seen.status, seen.amount_paid) == ("paid", "25.00")


async def test_more_value_than_can_be_counted_stops_nobody(stand: Stand, chain: Chain, token: str) -> None:
    """2^255 whole dollars in one transfer: that invoice is overpaid, and the network goes on (F-TOKEN 6).

    Bug planted: the value not bounded; the database refuses the block, and no invoice of the network is paid again.
    """
    network = stand.ctx.networks["local"]
    whole = replace(network, tokens=(replace(network.tokens[0], decimals=0),), pegs={token: "USD"})
    stand.ctx = replace(stand.ctx, networks={"local": whole})
    await stand.restart()
    huge, other = await stand.create("1.00", ("DUSD", "local")), await stand.create("25.00")
    await chain.mint(token, address_in(huge), 2**255)
    await chain.send_native(address_in(other), units("0.01"))
    await settle(stand, chain)
    assert (await stand.status(huge), await stand.status(other)) == ("overpaid", "paid")
