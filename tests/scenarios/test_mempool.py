"""What is seen outside any block: detected, replaced, dropped; never credited early, unless a rule counts it at sight.

Cites R-CHAIN 3-4, R-CONF 3, F-CHAIN 8, F-NODE 3, design idea 6. Real anvil that mines on demand, real PostgreSQL; our
clock stands still unless a test moves it, because what a node no longer knows is gone only after a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tallystick.core.chain import BlockRef, Finality, MempoolSnapshot, Requirement
from tallystick.core.errors import SourceError, SourceUnavailable
from tallystick.demo.customer import Signed
from tallystick.services import sightings
from tallystick.services.invoices import record_fulfillment
from tallystick.services.sightings import GONE_AFTER, UNANCHORED_PER_INVOICE_MAX, apply_sightings
from tallystick.workers.follow import Follower
from tests.support.evm import Chain, address_of, contract
from tests.support.invariants import check_invariants
from tests.support.stand import LOOPS, Clock, Stand, address_in, evm_network, open_stand, units

WEI = units("0.01")  # what 25.00 USD asks
DUSD = units("25", 6)
GONE_SECONDS = int(GONE_AFTER.total_seconds())
TRANSFER_TOPIC = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
# A token by hand: an event without topics, then Transfer(caller, to, amount) with what was called.
CHATTY_TOKEN = "0x60006000a060243560005260043533" + "7f" + TRANSFER_TOPIC + "60206000a300"
# The same without the other event, and one base unit less arrives than was called for.
TAXED_TOKEN = "0x60016024350360005260043533" + "7f" + TRANSFER_TOPIC + "60206000a300"
FROZEN_TOKEN = "0x60006000fd"  # code that refuses every call, no secret


@pytest.fixture
async def shop(database_url: str, chain: Chain, token: str, clock: Clock) -> AsyncIterator[Stand]:
    """A shop that wants two confirmations, with a clock that stands at the time of the newest block."""
    network = evm_network("local", chain.chain_id, token=token, confirmations=2)
    async with open_stand(database_url, (network, chain.url), clock=clock) as stand:
        yield stand


@pytest.fixture
async def trusting(database_url: str, chain: Chain, token: str, clock: Clock) -> AsyncIterator[Stand]:
    """A shop whose rule counts a payment as soon as it is seen."""
    requirement = Requirement(Finality.DEPTH, 2, zero_conf=True)
    network = evm_network("local", chain.chain_id, token=token, requirement=requirement)
    async with open_stand(database_url, (network, chain.url), clock=clock) as stand:
        yield stand


async def sightings_of(stand: Stand) -> dict[str, bool]:
    """Every sighting: its transaction, and whether it counts."""
    rows = await stand.rows(
        "SELECT t.tx_hash, s.gone_at IS NULL AS counts FROM sightings AS s JOIN transfers AS t ON t.id = s.transfer_id"
    )
    return {row["tx_hash"]: row["counts"] for row in rows}


async def seen_by(stand: Stand) -> MempoolSnapshot:
    """What the node shows now, without the follower."""
    return await stand.sources["local"].mempool()


async def apply(stand: Stand, snapshot: MempoolSnapshot) -> sightings.SightingsResult:
    """Tell the shop what some node showed."""
    return await apply_sightings(stand.ctx, stand.ctx.networks["local"], snapshot)


# -- the ordinary way


@pytest.mark.parametrize("symbol", ["ETH", "DUSD"])
async def test_detected_then_confirming_then_paid(shop: Stand, chain: Chain, token: str, symbol: str) -> None:
    """Seen, in a block, paid: one payment, told once each, and nothing credited before its block is deep enough.

    Bugs planted: a sighting counted as confirmed (paid at once); the token's predicted ordinal 1 (two payments, the
    first one failed).
    """
    invoice = await shop.create("25.00", (symbol, "local"))
    if symbol == "ETH":
        sent = await chain.send_native(address_in(invoice), WEI)
    else:
        sent = await chain.send_token(token, address_in(invoice), DUSD)
    for _ in range(3):
        await shop.follow()
    seen = await shop.get(invoice)
    payment = seen.payments[0]
    assert (seen.status, seen.amount_paid, seen.next_action.owner) == ("detected", "0.00", "network")
    assert (payment.status, payment.confirmations, payment.block_hash) == ("detected", 0, None)
    assert (payment.tx_hash, payment.on_time) == (sent.tx_hash, True)
    last = await shop.last(invoice)
    assert (last.reason, last.actor.type) == ("payment_seen", "system")
    (shown,) = [fact for fact in last.evidence if fact["type"] == "mempool"]
    assert (shown["seen"], shown["gone"], shown["head_height"]) == ([sent.tx_hash], [], await chain.height())
    await chain.mine()
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.amount_paid, len(seen.payments)) == ("confirming", "0.00", 1)
    assert (seen.payments[0].id, seen.payments[0].confirmations) == (payment.id, 1)
    assert await sightings_of(shop) == {sent.tx_hash: False}
    await chain.mine()
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.amount_paid, len(seen.payments)) == ("paid", "25.00", 1)
    assert (await shop.way(invoice))[2:] == ["awaiting_payment", "detected", "confirming", "paid"]
    assert await shop.event_types(payment.id) == ["payment.detected", "payment.confirmed"]


async def test_a_part_that_is_seen_asks_for_the_rest(shop: Stand, chain: Chain) -> None:
    """Partially paid at sight; the second half in the mempool makes it detected."""
    invoice = await shop.create("25.00")
    await chain.send_native(address_in(invoice), WEI // 2)
    await shop.follow()
    assert await shop.status(invoice) == "partially_paid"
    await chain.send_native(address_in(invoice), WEI // 2)
    await shop.follow()
    assert await shop.status(invoice) == "detected"
    await chain.mine(2)
    await shop.follow()
    assert await shop.status(invoice) == "paid"


async def test_the_real_loop_shows_a_payment_before_its_block(shop: Stand, chain: Chain) -> None:
    """The follower looks by itself, block or no block."""
    invoice = await shop.create("25.00")
    async with shop.running():
        await chain.send_native(address_in(invoice), WEI)
        await shop.until_status(invoice, "detected")
        await chain.mine(2)
        await shop.until_status(invoice, "paid")


# -- vanished


async def test_a_dropped_payment_vanishes_after_a_while_and_may_come_back(
    shop: Stand, chain: Chain, clock: Clock
) -> None:
    """No invoice stays in `detected` for a transaction that no node knows (F-CHAIN 8).

    Bug planted: sightings never taken back; the invoice stays detected.
    """
    invoice = await shop.create("25.00")
    sent = await chain.send_native(address_in(invoice), WEI)
    await shop.follow()
    first = (await shop.rows("SELECT first_evidence_at FROM transfers"))[0]["first_evidence_at"]
    await chain.drop(sent.tx_hash)
    await shop.follow()
    clock.advance(GONE_SECONDS - 1)
    await shop.follow()
    assert await shop.status(invoice) == "detected"
    clock.advance(1)
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.payments[0].status) == ("awaiting_payment", "orphaned")
    last = await shop.last(invoice)
    assert (last.reason, last.actor.type) == ("vanished", "system")
    assert [fact["gone"] for fact in last.evidence if fact["type"] == "mempool"] == [[sent.tx_hash]]
    # Sent again, it rests for a while, then it is the same payment with the same first evidence.
    await chain.submit(sent)
    await shop.follow()
    assert await shop.status(invoice) == "awaiting_payment"
    clock.advance(GONE_SECONDS)
    await shop.follow()
    assert await shop.status(invoice) == "detected"
    await chain.mine(2)
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.amount_paid, len(seen.payments)) == ("paid", "25.00", 1)
    assert (await shop.rows("SELECT first_evidence_at FROM transfers"))[0]["first_evidence_at"] == first
    assert await shop.event_types(seen.payments[0].id) == [
        "payment.detected",
        "payment.orphaned",
        "payment.detected",
        "payment.confirmed",
    ]


async def test_a_node_that_forgets_for_a_moment_changes_nothing(
    shop: Stand, chain: Chain, clock: Clock
) -> None:
    """One of several nodes behind a name does not know the transaction yet: the time starts anew when another does.

    Bug planted: `missing_since` kept when the transaction is known again; the second absence ends the sighting.
    """
    invoice = await shop.create("25.00")
    sent = await chain.send_native(address_in(invoice), WEI)
    await shop.follow()
    for _ in range(3):
        await chain.drop(sent.tx_hash)
        await shop.follow()
        clock.advance(GONE_SECONDS - 1)
        await shop.follow()
        await chain.submit(sent)
        await shop.follow()
        clock.advance(1)
    assert (await shop.way(invoice))[2:] == ["awaiting_payment", "detected"]
    # The node's next block has no room for it, but the node knows it: that is enough.
    snapshot = await seen_by(shop)
    full = MempoolSnapshot(snapshot.head, (), {}, present=frozenset({sent.tx_hash}))
    clock.advance(10 * GONE_SECONDS)
    assert (await apply(shop, full)).gone == 0
    # A node that answers neither way says nothing.
    assert (await apply(shop, replace(full, present=frozenset()))).gone == 0
    assert await shop.status(invoice) == "detected"


async def test_a_node_that_lags_says_nothing(shop: Stand, chain: Chain, clock: Clock) -> None:
    """A snapshot of an older head, or of another block at our height, neither adds nor takes away.

    Bug planted: the head not compared with the cursor; the lagging node's word counts.
    """
    await chain.mine(2)
    await shop.follow()
    invoice = await shop.create("25.00")
    sent = await chain.send_native(address_in(invoice), WEI)
    snapshot = await seen_by(shop)
    older = BlockRef(await chain.block_hash(snapshot.head.height - 1), snapshot.head.height - 1)
    foreign = BlockRef("0x" + "ab" * 32, snapshot.head.height)
    for head in (older, foreign):
        assert await apply(shop, replace(snapshot, head=head)) == sightings.SightingsResult()
    await shop.follow()
    assert await shop.status(invoice) == "detected"
    for head in (older, foreign):
        missing = MempoolSnapshot(head, (), {}, missing=frozenset({sent.tx_hash}))
        await apply(shop, missing)
        clock.advance(2 * GONE_SECONDS)
        await apply(shop, missing)
    assert await shop.status(invoice) == "detected"


async def test_expired_while_seen_and_then_vanished(shop: Stand, chain: Chain, clock: Clock) -> None:
    """On time by its sighting, the invoice waits beyond its window; when the payment vanishes it has expired."""
    invoice = await shop.create("25.00", expires_in_seconds=60)
    sent = await chain.send_native(address_in(invoice), WEI)
    await shop.follow()
    await chain.drop(sent.tx_hash)
    clock.advance(100)
    await chain.set_next_time(int(clock.at.timestamp()))
    await chain.mine()
    await shop.follow()
    await shop.expire()
    assert await shop.status(invoice) == "detected"
    clock.advance(GONE_SECONDS)
    await shop.follow()
    last = await shop.last(invoice)
    assert (last.to, last.reason) == ("expired", "vanished")


async def test_the_watch_is_switched_off(shop: Stand, chain: Chain) -> None:
    """With `mempool = false` nobody would ever say that a payment is gone: what was only seen is taken back.

    Bug planted: nothing withdrawn; the invoice stays detected for ever.
    """
    invoice = await shop.create("25.00")
    await chain.send_native(address_in(invoice), WEI)
    await shop.follow()
    assert await shop.status(invoice) == "detected"
    network = shop.ctx.networks["local"]
    shop.followers["local"] = Follower(
        shop.ctx, network, shop.sources["local"], replace(LOOPS, mempool=False)
    )
    await shop.follow()
    assert await shop.status(invoice) == "awaiting_payment"
    assert (await shop.last(invoice)).reason == "vanished"
    await chain.mine(2)
    await shop.follow()
    assert await shop.status(invoice) == "paid"


async def test_a_mempool_in_trouble_holds_nothing_up(
    shop: Stand, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node serves blocks but not its mempool: the network is followed as before, what was seen stays.

    Bug planted: the error let through; the network is shown as degraded and the payment is never confirmed.
    """
    invoice = await shop.create("25.00")
    await chain.send_native(address_in(invoice), WEI)
    await shop.follow()
    calls = 0

    async def broken(_asked: Any = ()) -> MempoolSnapshot:
        nonlocal calls
        calls += 1
        raise SourceUnavailable("The node did not show its mempool in time.")

    monkeypatch.setattr(shop.sources["local"], "mempool", broken)
    for _ in range(3):
        await shop.follow()
    assert calls == 1  # it rests, so that blocks are not read later for it
    assert await shop.status(invoice) == "detected"
    await chain.mine(2)
    await shop.follow()
    assert await shop.status(invoice) == "paid"
    network = await shop.network()
    assert (network.status, network.problem) == ("following", None)


async def test_nobody_is_asked_while_nobody_can_pay(
    shop: Stand, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look costs a call: none without an open invoice on the network."""

    async def unasked(_asked: Any = ()) -> MempoolSnapshot:
        raise AssertionError("the mempool was looked at")

    with monkeypatch.context() as patched:
        patched.setattr(shop.sources["local"], "mempool", unasked)
        await chain.mine()
        await shop.follow()
        await shop.create("25.00")
        with pytest.raises(AssertionError, match="looked at"):
            await shop.follow()


# -- replaced


async def test_replaced_by_another_transaction_of_the_same_nonce(shop: Stand, chain: Chain) -> None:
    """To another address: taken back at sight of the replacement, `replaced` once that is mined (F-CHAIN 8).

    Bug planted: spend keys of the snapshot not compared; the invoice stays detected until the block.
    """
    invoice = await shop.create("25.00")
    sent = await chain.send_native(address_in(invoice), WEI)
    await shop.follow()
    assert await shop.status(invoice) == "detected"
    thief = await chain.replacement(sent, to=address_of(7), value=1)
    await chain.submit(thief)
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.payments[0].status) == ("awaiting_payment", "orphaned")
    await chain.mine()
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.payments[0].status) == ("awaiting_payment", "replaced")
    assert seen.payments[0].replaced_by == thief.tx_hash


async def test_replaced_in_a_block_before_anybody_looked(shop: Stand, chain: Chain) -> None:
    """The replacement shows first in its block: no reorganisation, and still the reason is `replaced`."""
    invoice = await shop.create("25.00")
    sent = await chain.send_native(address_in(invoice), WEI)
    await shop.follow()
    thief = await chain.replacement(sent, to=address_of(7), value=1)
    await chain.submit(thief)
    await chain.mine()
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.payments[0].status) == ("awaiting_payment", "replaced")
    last = await shop.last(invoice)
    assert last.reason == "replaced"
    assert thief.tx_hash in [fact.get("replaced_by") for fact in last.evidence]


@pytest.mark.parametrize("looked_between", [True, False])
async def test_a_higher_fee_to_the_same_address_counts_once(
    shop: Stand, chain: Chain, looked_between: bool
) -> None:
    """A new hash is a new transfer: the old one is replaced, the new one counts, never both (F-CHAIN 8).

    Bug planted: as above; for a moment both are seen, and the detected amount is twice what was sent.
    """
    invoice = await shop.create("25.00")
    first = await chain.send_native(address_in(invoice), WEI)
    await shop.follow()
    second = await chain.replacement(first, to=address_in(invoice), value=WEI)
    await chain.submit(second)
    if looked_between:
        await shop.follow()
        seen = await shop.get(invoice)
        assert (seen.status, seen.payment_options[0].amount_detected) == ("detected", "0.01")
        assert await sightings_of(shop) == {first.tx_hash: False, second.tx_hash: True}
    await chain.mine(2)
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.amount_paid) == ("paid", "25.00")
    assert {payment.tx_hash: payment.status for payment in seen.payments} == {
        first.tx_hash: "replaced",
        second.tx_hash: "confirmed",
    }


async def test_two_nodes_that_show_either_of_two_do_not_make_it_flicker(shop: Stand, chain: Chain) -> None:
    """A lagging node still shows the replaced transaction: the newer one stands.

    Bug planted: what went a moment ago is listened to; the statuses alternate.
    """
    invoice = await shop.create("25.00")
    first = await chain.send_native(address_in(invoice), WEI)
    old = await seen_by(shop)
    second = await chain.replacement(first, to=address_in(invoice), value=WEI)
    await chain.submit(second)
    new = await seen_by(shop)
    for snapshot in (old, new, old, new, old, old):
        await apply(shop, snapshot)
    assert (await shop.way(invoice))[2:] == ["awaiting_payment", "detected"]
    assert await sightings_of(shop) == {first.tx_hash: False, second.tx_hash: True}


# -- predictions that do not come true


async def test_a_token_that_says_more_than_its_transfer(shop: Stand, chain: Chain, token: str) -> None:
    """Its Transfer event is not the first of its transaction: the sighting fails, the mined transfer is its own."""
    invoice = await shop.create("25.00", ("DUSD", "local"))
    await chain.send_token(token, address_in(invoice), DUSD)
    await shop.follow()
    assert await shop.status(invoice) == "detected"
    await chain.rpc("anvil_setCode", token, CHATTY_TOKEN)
    await chain.mine(2)
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.amount_paid) == ("paid", "25.00")
    assert sorted((payment.ordinal, payment.status) for payment in seen.payments) == [
        (0, "failed"),
        (1, "confirmed"),
    ]


async def test_a_token_that_takes_a_fee(shop: Stand, chain: Chain, token: str) -> None:
    """At the predicted place another amount arrives: what was seen fails, what arrived counts (F-TOKEN 7).

    Bug planted: the stored transfer taken for the mined one because the keys are equal; the amount called for counts.
    """
    invoice = await shop.create("25.00", ("DUSD", "local"))
    await chain.send_token(token, address_in(invoice), DUSD)
    await shop.follow()
    assert await shop.status(invoice) == "detected"
    await chain.rpc("anvil_setCode", token, TAXED_TOKEN)
    await chain.mine(2)
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.amount_paid) == ("paid", "24.99")
    assert sorted((payment.amount, payment.status) for payment in seen.payments) == [
        ("24.999999", "confirmed"),
        ("25", "failed"),
    ]


async def test_coins_moved_among_ones_own_are_no_sighting(shop: Stand, chain: Chain, clock: Clock) -> None:
    """They would count as income if they were first seen without their mark (F-TOKEN 8).

    Bug planted: senders not compared with issued addresses; an internal transfer is detected.
    """
    first, second = await shop.create("25.00"), await shop.create("25.00")
    sender = address_in(first)
    await chain.rpc("anvil_setBalance", sender, hex(units("1")))
    await chain.rpc("anvil_impersonateAccount", sender)
    await chain.rpc("eth_sendTransaction", {"from": sender, "to": address_in(second), "value": hex(WEI)})
    assert len((await seen_by(shop)).transfers) == 1
    await shop.follow()
    assert await sightings_of(shop) == {}
    assert await shop.status(second) == "awaiting_payment"


async def test_a_call_that_fails_in_its_block(shop: Stand, chain: Chain, token: str) -> None:
    """Seen, mined, refused by the contract: nothing arrived, and the history says so."""
    invoice = await shop.create("25.00", ("DUSD", "local"))
    await chain.send_token(token, address_in(invoice), DUSD)
    await shop.follow()
    assert await shop.status(invoice) == "detected"
    await chain.rpc("anvil_setCode", token, FROZEN_TOKEN)
    await chain.mine()
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.payments[0].status) == ("awaiting_payment", "failed")
    assert (await shop.last(invoice)).reason == "vanished"


# -- what is not told before its block


async def test_what_was_not_asked_for_waits_for_its_block(shop: Stand, chain: Chain, token: str) -> None:
    """A wrong asset, an unknown token, money after the end: anybody can send those for nothing.

    Bug planted: every transfer to an issued address recorded; a person is called for what may never happen.
    """
    junk = await chain.deploy_token(symbol="JUNK")
    await shop.follow()
    invoice = await shop.create("25.00")
    await chain.send_token(token, address_in(invoice), DUSD)
    await chain.send_token(junk, address_in(invoice), 1)
    await shop.follow()
    assert await sightings_of(shop) == {}
    assert await shop.status(invoice) == "awaiting_payment"
    await chain.mine()
    await shop.follow()
    assert await shop.status(invoice) == "review_required"


async def test_money_after_the_end_waits_for_its_block(shop: Stand, chain: Chain, clock: Clock) -> None:
    """An expired invoice stays expired for a transaction that nobody mined."""
    invoice = await shop.create("25.00", expires_in_seconds=60)
    clock.advance(61)
    await chain.set_next_time(int(clock.at.timestamp()))
    await chain.mine()
    await shop.follow()
    await shop.expire()
    other = await shop.create("25.00")  # so that somebody looks
    await chain.send_native(address_in(invoice), WEI)
    await shop.follow()
    assert (await shop.status(invoice), await shop.status(other)) == ("expired", "awaiting_payment")
    await chain.mine(2)
    await shop.follow()
    assert await shop.status(invoice) == "late_paid"


async def test_spam_is_bounded(shop: Stand, chain: Chain, clock: Clock) -> None:
    """Transactions that are never mined cost their sender nothing: so many are kept of an invoice, and no more.

    Bug planted: gone ones not counted; replacing one transaction again and again fills the table.
    """
    invoice = await shop.create("25.00")
    sent = [await chain.send_native(address_in(invoice), units("0.001")) for _ in range(15)]
    await shop.follow()
    assert len(await sightings_of(shop)) == 15
    for one in sent:
        await chain.submit(await chain.replacement(one, to=address_in(invoice), value=units("0.001") + 1))
    await shop.follow()
    assert len(await sightings_of(shop)) == UNANCHORED_PER_INVOICE_MAX
    clock.advance(GONE_SECONDS)
    await shop.follow()
    assert len(await sightings_of(shop)) == UNANCHORED_PER_INVOICE_MAX
    # What a block holds is never left out.
    await chain.mine(2)
    await shop.follow()
    seen = await shop.get(invoice)
    confirmed = [payment for payment in seen.payments if payment.status == "confirmed"]
    assert (len(confirmed), seen.status) == (15, "overpaid")


async def test_dust_takes_no_place_from_a_payment(trusting: Stand, chain: Chain) -> None:
    """Dust that is never mined is free: it must not keep a payment from being seen, and from counting at sight.

    Found by attack: twenty pending transfers of one wei, and the payment showed with its block only. Bug planted: the
    amount not looked at.
    """
    invoice = await trusting.create("25.00")
    for _ in range(UNANCHORED_PER_INVOICE_MAX + 1):
        await chain.send_native(address_in(invoice), WEI // 10_001, sender=2)
    await trusting.follow()
    assert await sightings_of(trusting) == {}
    await chain.send_native(address_in(invoice), WEI)
    await trusting.follow()
    assert await trusting.status(invoice) == "paid"


async def test_a_spammed_network_is_bounded(
    shop: Stand, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond so many sightings at a time others are told with their blocks, and places become free again."""
    monkeypatch.setattr(sightings, "LIVE_PER_NETWORK_MAX", 2)
    invoices = [await shop.create("25.00") for _ in range(3)]
    for invoice in invoices:
        await chain.send_native(address_in(invoice), WEI)
    await shop.follow()
    await shop.follow()
    assert sorted([await shop.status(invoice) for invoice in invoices]) == [
        "awaiting_payment",
        "detected",
        "detected",
    ]
    await chain.mine(2)
    await shop.follow()
    assert {await shop.status(invoice) for invoice in invoices} == {"paid"}
    again = await shop.create("25.00")
    await chain.send_native(address_in(again), WEI)
    await shop.follow()
    assert await shop.status(again) == "detected"


# -- in time


@pytest.mark.parametrize(
    ("seconds_after", "status", "on_time"), [(-1, "paid", True), (0, "paid", True), (1, "late_paid", False)]
)
async def test_on_time_by_its_sighting(
    shop: Stand, chain: Chain, clock: Clock, seconds_after: int, status: str, on_time: bool
) -> None:
    """Seen a second before the deadline, mined long after it: on time, for good (design idea 6).

    Bug planted: the block's time for first evidence; every payment here is late.
    """
    invoice = await shop.create("25.00", expires_in_seconds=60)
    deadline = clock.at + timedelta(seconds=60)
    await chain.send_native(address_in(invoice), WEI)
    clock.at = deadline + timedelta(seconds=seconds_after, milliseconds=900)
    await shop.follow()
    await chain.set_next_time(int(deadline.timestamp()) + 1000)
    await chain.mine(2)
    await shop.follow()
    await shop.expire()
    seen = await shop.get(invoice)
    assert (seen.status, seen.payments[0].on_time) == (status, on_time)


async def test_a_clock_that_is_ahead_makes_nothing_late(shop: Stand, chain: Chain, clock: Clock) -> None:
    """By our clock the window was over when it was seen; its block says otherwise, and the earlier one counts.

    Bug planted: the sighting's time kept in any case; the payment is late.
    """
    invoice = await shop.create("25.00", expires_in_seconds=60)
    start = int(clock.at.timestamp())
    await chain.send_native(address_in(invoice), WEI)
    clock.advance(3600)
    await shop.follow()
    assert (await shop.get(invoice)).payments[0].on_time is False
    await chain.set_next_time(start + 30)
    await chain.mine(2)
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.payments[0].on_time) == ("paid", True)


async def test_a_clock_that_is_behind_makes_nothing_earlier(shop: Stand, chain: Chain, clock: Clock) -> None:
    """Our clock says that the window is open; the chain's time at the cursor is past it."""
    invoice = await shop.create("25.00", expires_in_seconds=60)
    await chain.set_next_time(int(clock.at.timestamp()) + 100)
    await chain.mine()
    await shop.follow()
    await chain.send_native(address_in(invoice), WEI)
    await shop.follow()  # nobody has judged the window yet
    evidence = (await shop.rows("SELECT first_evidence_at FROM transfers"))[0]["first_evidence_at"]
    assert evidence == datetime.fromtimestamp(await chain.time(), UTC)
    assert (await shop.get(invoice)).payments[0].on_time is False


async def test_seen_on_a_block_that_was_not_read_yet(shop: Stand, chain: Chain, clock: Clock) -> None:
    """The node shows it on a block past the window; we have not read that block, and our clock is behind: still late.

    Found by `test_kill_endings` under load: a sighting was dated by our clock and the cursor alone, so that it depended
    on which was read first, the block or the mempool, whether a late payment was on time.
    """
    invoice = await shop.create("25.00", expires_in_seconds=60)
    await chain.set_next_time(int(clock.at.timestamp()) + 100)
    await chain.mine()
    await chain.send_native(address_in(invoice), WEI)
    assert (await apply(shop, await seen_by(shop))).seen == 1
    evidence = (await shop.rows("SELECT first_evidence_at FROM transfers"))[0]["first_evidence_at"]
    assert evidence == datetime.fromtimestamp(await chain.time(), UTC)
    await chain.mine(2)
    await shop.follow()
    await shop.expire()
    seen = await shop.get(invoice)
    assert (seen.status, seen.payments[0].on_time) == ("late_paid", False)


# -- rules that count a sighting


async def test_paid_at_sight_and_mined_later_is_one_credit(trusting: Stand, chain: Chain) -> None:
    """Paid when seen; blocks change nothing any more, and nothing is told twice.

    Bug planted: intake making a new payment for a mined transfer that is known; two payments, twice the amount.
    """
    invoice = await trusting.create("25.00")
    await chain.send_native(address_in(invoice), WEI)
    await trusting.follow()
    seen = await trusting.get(invoice)
    assert (seen.status, seen.amount_paid, seen.payments[0].confirmations) == ("paid", "25.00", 0)
    told = await trusting.event_types(invoice.id)
    for _ in range(4):
        await chain.mine()
        await trusting.follow()
    seen = await trusting.get(invoice)
    assert (seen.status, seen.amount_paid, len(seen.payments)) == ("paid", "25.00", 1)
    assert await trusting.event_types(invoice.id) == told
    assert await trusting.event_types(seen.payments[0].id) == ["payment.detected", "payment.confirmed"]


@pytest.mark.parametrize("fulfilled", [False, True])
@pytest.mark.parametrize("how", ["dropped", "outbid", "outbid in a block"])
async def test_paid_at_sight_and_taken_away(
    trusting: Stand, chain: Chain, clock: Clock, how: str, fulfilled: bool
) -> None:
    """The risk that the rule took: the credit goes; after delivery a person has to decide (F-CHAIN 4, 8).

    Bug planted: conflicts looked for among orphaned and detected payments only; a payment that was counted at sight
    and then replaced in a block stays confirmed.
    """
    invoice = await trusting.create("25.00")
    sent = await chain.send_native(address_in(invoice), WEI)
    await trusting.follow()
    assert await trusting.status(invoice) == "paid"
    if fulfilled:
        await trusting.do(record_fulfillment, invoice.id, {"reference": "parcel 7"})
    if how == "dropped":
        await chain.drop(sent.tx_hash)
        await trusting.follow()
        clock.advance(GONE_SECONDS)
    else:
        await chain.submit(await chain.replacement(sent, to=address_of(7), value=1))
        if how == "outbid in a block":
            await chain.mine()
    await trusting.follow()
    seen = await trusting.get(invoice)
    assert (seen.status, seen.amount_paid) == (
        "review_required" if fulfilled else "awaiting_payment",
        "0.00",
    )
    in_block = how == "outbid in a block"
    assert seen.payments[0].status == ("replaced" if in_block else "orphaned")
    expected = "replaced" if in_block else "vanished"
    assert (await trusting.last(invoice)).reason == ("reversed_after_fulfillment" if fulfilled else expected)
    kinds = [row["kind"] for row in await trusting.rows("SELECT kind FROM exceptions WHERE status = 'open'")]
    assert kinds == ["reversed"]
    assert (await trusting.event_types(seen.payments[0].id))[-1] == (
        "payment.replaced" if in_block else "payment.orphaned"
    )


async def test_a_token_is_not_counted_at_sight(trusting: Stand, chain: Chain, token: str) -> None:
    """Its call may fail in the block: whoever sends tokens he does not have would be paid for. Its first block counts.

    Bug planted: tokens recorded at sight like coins; an empty-handed sender is paid.
    """
    invoice = await trusting.create("25.00", ("DUSD", "local"))
    bluff = await chain.sign(
        to=token, data=contract("DemoToken").call("transfer", address_in(invoice), DUSD), sender=3
    )
    await chain.submit(bluff)
    await trusting.follow()
    assert await trusting.status(invoice) == "awaiting_payment"
    await chain.mine()
    assert (await chain.receipt(bluff.tx_hash))["status"] == "0x0"
    await chain.send_token(token, address_in(invoice), DUSD)
    await trusting.follow()
    assert await trusting.status(invoice) == "awaiting_payment"
    await chain.mine()
    await trusting.follow()
    assert await trusting.status(invoice) == "paid"


# -- around reorganisations and crashes


async def test_back_in_the_mempool_after_a_reorganisation(shop: Stand, chain: Chain) -> None:
    """Its block is gone, a node shows it again: detected, by the same payment. What is not shown again is orphaned.

    Bug planted: a sighting not ended by its block; after the reorganisation the payment counts as seen without a look.
    """
    invoice = await shop.create("25.00")
    sent = await chain.send_native(address_in(invoice), WEI)
    await shop.follow()
    await chain.mine(2)
    await shop.follow()
    assert await shop.status(invoice) == "paid"
    await chain.reorg(2)
    await shop.follow()
    assert (await shop.get(invoice)).payments[0].status == "orphaned"
    await chain.submit(sent)
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, seen.payments[0].status) == ("detected", "detected")
    await chain.mine(2)
    await shop.follow()
    seen = await shop.get(invoice)
    assert (seen.status, len(seen.payments)) == ("paid", 1)


@pytest.mark.parametrize("canceled", [False, True])
async def test_a_crash_between_seeing_and_writing_keeps_nothing(
    shop: Stand, chain: Chain, monkeypatch: pytest.MonkeyPatch, canceled: bool
) -> None:
    """The process ends after the rows are written and before they are committed: the next one sees it all anew.

    Bug planted: the sighting written in a transaction of its own; the invoice is never judged.
    """
    invoice = await shop.create("25.00")
    await chain.send_native(address_in(invoice), WEI)
    reached = asyncio.Event()

    async def interrupted(*_: Any) -> None:
        reached.set()
        if not canceled:
            raise RuntimeError("power cut")
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(sightings, "assess_invoices", interrupted)
        task = asyncio.create_task(shop.follow())
        await reached.wait()
        task.cancel()
        with pytest.raises((asyncio.CancelledError, RuntimeError)):
            await task
    assert await sightings_of(shop) == {}
    assert await shop.rows("SELECT 1 FROM transfers") == []
    await shop.restart()
    await shop.follow()
    assert await shop.status(invoice) == "detected"
    assert (await shop.way(invoice))[2:] == ["awaiting_payment", "detected"]


async def test_a_halted_network_takes_no_hints(shop: Stand, chain: Chain) -> None:
    """Crediting waits for a person: so do sightings."""
    invoice = await shop.create("25.00")
    await chain.send_native(address_in(invoice), WEI)
    snapshot = await seen_by(shop)
    await shop.rows(
        "UPDATE networks SET status = 'halted', halted_at = now(), problem = 'a test halted it' RETURNING name"
    )
    assert await apply(shop, snapshot) == sightings.SightingsResult()
    assert await shop.status(invoice) == "awaiting_payment"


# -- anything, in any order


@pytest.mark.parametrize("seed", range(4))
async def test_a_random_walk_ends_with_what_the_chain_holds(
    shop: Stand, chain: Chain, clock: Clock, seed: int
) -> None:
    """Sent, outbid, dropped, mined, reorganised away, looked at or not, in any order.

    Bugs planted: sightings not ended by their block; missing ones never taken back.
    """
    await walk(shop, chain, clock, seed)


@pytest.mark.parametrize("seed", range(4, 7))
async def test_a_random_walk_where_a_rule_counts_what_is_seen(
    trusting: Stand, chain: Chain, clock: Clock, seed: int
) -> None:
    """The same, with payments that are credited before any block and taken back."""
    await walk(trusting, chain, clock, seed)


async def walk(shop: Stand, chain: Chain, clock: Clock, seed: int) -> None:
    """Forty steps. In the end the chain's own balances say what each invoice got, and nothing is left in `detected`.

    Everything stored is in order all the way.
    """
    chance = random.Random(seed)
    await chain.mine(4)
    await shop.follow()
    invoices = [await shop.create("25.00", expires_in_seconds=86_400) for _ in range(4)]
    pool: list[Signed] = []
    for _ in range(40):
        match chance.choice(["send", "send", "outbid", "drop", "mine", "reorg", "wait", "look", "look"]):
            case "send":
                to = address_in(chance.choice(invoices))
                pool.append(await chain.send_native(to, WEI // 2, sender=chance.randrange(3)))
            case "outbid" if pool:
                await outbid(chain, chance, pool, [*map(address_in, invoices), address_of(9)])
            case "drop" if pool:
                await chain.drop(chance.choice(pool).tx_hash)
            case "mine":
                await chain.mine()
            case "reorg":
                await chain.reorg(chance.randint(1, 3))
            case "wait":
                clock.advance(chance.randint(1, GONE_SECONDS))
            case "look":
                await shop.follow()
                await check_invariants(shop.ctx)
    await shop.follow()
    for one in pool:
        await chain.drop(one.tx_hash)
    for _ in range(3):
        clock.advance(GONE_SECONDS)
        await chain.mine()
        await shop.follow()
    for invoice in invoices:
        seen = await shop.get(invoice)
        held = int(await chain.rpc("eth_getBalance", address_in(invoice), "latest"), 16)
        assert sum(units(one.amount) for one in seen.payments if one.status == "confirmed") == held
        assert seen.status in ("awaiting_payment", "partially_paid", "paid", "overpaid")
        assert not {one.status for one in seen.payments} & {"detected", "confirming"}


async def outbid(chain: Chain, chance: random.Random, pool: list[Signed], targets: list[str]) -> None:
    """Put another transaction in the place of one that may still be outside any block."""
    old = chance.choice(pool)
    sender = next(number for number in range(3) if address_of(number) == old.sender.lower())
    other = await chain.replacement(old, to=chance.choice(targets), value=WEI // 2, sender=sender)
    with contextlib.suppress(SourceError):  # mined already, or the fee does not beat the one before
        await chain.submit(other)
        pool.append(other)
