"""The chain changes its mind: reorganisations of every depth, replacements, restarts in between, and finality.

Cites R-CHAIN 4, R-CHAIN 6, F-CHAIN 1-4, 6-7. Real anvil, real PostgreSQL; the followers are moved by hand except
where a network has to halt, which only the real loop does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tallystick.core.chain import Finality, Requirement
from tallystick.core.errors import NetworkUnavailable, ReorgTooDeep
from tallystick.demo.customer import Signed
from tallystick.services import objects
from tallystick.services.invoices import activate_option, record_fulfillment
from tallystick.services.networks import resume
from tests.support.evm import Chain, address_of, contract
from tests.support.stand import Clock, Stand, address_in, evm_network, open_stand, units

WEI = units("0.01")  # what 25.00 USD asks


@pytest.fixture
async def shallow(database_url: str, chain: Chain) -> AsyncIterator[Stand]:
    """A shop whose network halts beyond four blocks."""
    network = evm_network("local", chain.chain_id, safety_depth=4)
    async with open_stand(database_url, (network, chain.url)) as shop:
        await chain.mine(6)
        await shop.follow()
        yield shop


async def pay(stand: Stand, chain: Chain, *, blocks: int = 3) -> tuple[objects.Invoice, Signed]:
    """A new invoice and the transaction that pays it, `blocks` deep and read."""
    invoice = await stand.create("25.00")
    sent = await chain.send_native(address_in(invoice), WEI)
    await chain.mine(blocks)
    await stand.follow()
    return invoice, sent


async def test_mined_again_elsewhere_is_one_credit_whose_confirmations_restart(
    stand: Stand, chain: Chain, token: str
) -> None:
    """Another block, another log position: anchor and log index move; ordinal, payment and verdict stay (F-CHAIN 2).

    Bugs planted: the block-wide log index as ordinal (a second payment appears); confirmations counted from the first
    anchor (still paid after the reorganisation).
    """
    await chain.mint(token, address_of(1), 1000)
    invoice = await stand.create("25.00", ("DUSD", "local"))
    sent = await chain.send_token(token, address_in(invoice), units("25", 6))
    await chain.mine(3)
    await stand.follow()
    before = (await stand.get(invoice)).payments[0]
    assert (before.status, before.log_index) == ("confirmed", 0)
    other = await chain.sign(
        to=token, data=contract("DemoToken").call("transfer", address_of(5), 7), sender=1
    )
    await chain.reorg(3, [(other, 1), (sent, 1)])
    await stand.follow()
    seen = await stand.get(invoice)
    after = seen.payments[0]
    assert (seen.status, len(seen.payments), after.status) == ("confirming", 1, "confirming")
    assert (after.id, after.ordinal, after.on_time) == (before.id, before.ordinal, before.on_time)
    assert (after.log_index, after.confirmations) == (1, 2)
    assert after.block_height == await chain.height() - 1
    assert after.block_hash == await chain.block_hash(after.block_height) != before.block_hash
    assert (await stand.last(invoice)).reason == "reorganized"
    await chain.mine()
    await stand.follow()
    paid = await stand.get(invoice)
    assert (paid.status, paid.amount_paid) == ("paid", "25.00")
    assert await stand.event_types(before.id) == ["payment.detected", "payment.confirmed"] * 2


async def test_replaced_by_another_transaction_of_the_same_nonce(stand: Stand, chain: Chain) -> None:
    """The payment can never return: it is `replaced`, and evidence names what took its place (F-CHAIN 3).

    Bugs planted: conflicts not recorded; the payments they can replace looked up before the old branch is taken out.
    Both times the payment stays orphaned.
    """
    invoice, sent = await pay(stand, chain)
    thief = await chain.replacement(sent, to=address_of(7), value=1)
    await chain.reorg(3, [(thief, 0)])
    await stand.follow()
    seen = await stand.get(invoice)
    payment = seen.payments[0]
    assert (seen.status, seen.amount_paid) == ("awaiting_payment", "0.00")
    assert (payment.status, payment.replaced_by, payment.confirmations) == ("replaced", thief.tx_hash, 0)
    last = await stand.last(invoice)
    assert last.reason == "replaced"
    assert thief.tx_hash in [fact.get("replaced_by") for fact in last.evidence]
    assert (await stand.event_types(payment.id))[-1] == "payment.replaced"
    # Even this may be taken back: the chain returns to the branch that holds the payment.
    await chain.reorg(3, [(sent, 0)])
    await stand.follow()
    seen = await stand.get(invoice)
    assert (seen.status, seen.payments[0].status, seen.payments[0].replaced_by) == ("paid", "confirmed", None)


async def test_gone_first_and_replaced_later(stand: Stand, chain: Chain) -> None:
    """The conflicting transaction comes in a block of its own, after the payment had lost its place."""
    invoice, sent = await pay(stand, chain)
    await chain.reorg(3)
    await stand.follow()
    assert (await stand.get(invoice)).payments[0].status == "orphaned"
    await chain.submit(await chain.replacement(sent, to=address_of(7)))
    await chain.mine()
    await stand.follow()
    seen = await stand.get(invoice)
    assert (seen.status, seen.payments[0].status) == ("awaiting_payment", "replaced")
    # A second payment that is lost in a reorganisation is not blamed on the replacement of the first.
    await chain.send_native(address_in(invoice), WEI)
    await chain.mine(3)
    await stand.follow()
    assert await stand.status(invoice) == "paid"
    await chain.reorg(3)
    await stand.follow()
    assert (await stand.last(invoice)).reason == "reorganized"


async def test_mined_again_but_failing_this_time(stand: Stand, chain: Chain, token: str) -> None:
    """The same transaction in the new branch, where its sender never got the tokens: no credit."""
    await chain.mint(token, address_of(1), units("25", 6))
    invoice = await stand.create("25.00", ("DUSD", "local"))
    sent = await chain.send_token(token, address_in(invoice), units("25", 6), sender=1)
    await chain.mine(3)
    await stand.follow()
    assert await stand.status(invoice) == "paid"
    await chain.reorg(4, [(sent, 1)])
    assert (await chain.receipt(sent.tx_hash))["status"] == "0x0"
    await stand.follow()
    seen = await stand.get(invoice)
    assert (seen.status, seen.amount_paid, seen.payments[0].status) == ("awaiting_payment", "0.00", "failed")
    assert seen.payments[0].replaced_by is None


@pytest.mark.parametrize("depth", [1, 3])
async def test_a_payment_that_left_the_chain_is_taken_back(stand: Stand, chain: Chain, depth: int) -> None:
    """Confirming (one deep) and paid (three deep) step back with the reason (F-CHAIN 1).

    Bug planted: the disconnected blocks' transfers not touched; the invoice stays as it was.
    """
    invoice, _ = await pay(stand, chain, blocks=depth)
    assert await stand.status(invoice) == ("paid" if depth == 3 else "confirming")
    await chain.reorg(depth)
    await stand.follow()
    seen = await stand.get(invoice)
    assert (seen.status, seen.amount_paid, seen.payments[0].status) == (
        "awaiting_payment",
        "0.00",
        "orphaned",
    )
    last = await stand.last(invoice)
    assert (last.reason, last.actor.type) == ("reorganized", "system")
    assert any(fact["type"] == "reorg" for fact in last.evidence)
    assert (await stand.event_types(seen.payments[0].id))[-1] == "payment.orphaned"


async def test_a_reversal_after_delivery_needs_a_person(stand: Stand, chain: Chain) -> None:
    """The goods have left: review_required, and paid again if the payment returns (F-CHAIN 4).

    Bug planted: the assessment's rule for fulfilled invoices left out; the invoice awaits payment again.
    """
    invoice, sent = await pay(stand, chain)
    await stand.do(record_fulfillment, invoice.id, {"reference": "parcel 7"})
    await chain.reorg(3)
    await stand.follow()
    seen = await stand.get(invoice)
    assert (seen.status, seen.next_action.owner) == ("review_required", "support")
    assert (await stand.last(invoice)).reason == "reversed_after_fulfillment"
    await chain.submit(sent)
    await chain.mine(3)
    await stand.follow()
    assert await stand.status(invoice) == "paid"


async def test_a_mismatch_that_left_the_chain_is_forgiven_with_the_true_reason(
    stand: Stand, chain: Chain, token: str
) -> None:
    """Review was about a wrong asset only: without it the invoice awaits payment again."""
    invoice = await stand.create("25.00")
    await chain.send_token(token, address_in(invoice), units("25", 6))
    await chain.mine()
    await stand.follow()
    assert await stand.status(invoice) == "review_required"
    await chain.reorg(1)
    await stand.follow()
    assert await stand.status(invoice) == "awaiting_payment"
    assert (await stand.last(invoice)).reason == "reorganized"


async def test_mined_again_after_the_deadline_is_still_on_time(
    timed: Stand, chain: Chain, clock: Clock
) -> None:
    """First evidence decides, and is kept for good: the branch that first held it is gone (R-CHAIN 4)."""
    start = await chain.time()
    invoice = await timed.create("25.00", expires_in_seconds=60)
    sent = await chain.sign(to=address_in(invoice), value=WEI)
    snapshot = await chain.rpc("evm_snapshot")
    await chain.submit(sent)
    await chain.set_next_time(start + 30)
    await chain.mine()
    await timed.follow()
    assert await timed.status(invoice) == "paid"
    await chain.rpc("evm_revert", snapshot)
    await chain.set_next_time(start + 100)
    await chain.mine()
    await timed.follow()
    await timed.expire()
    assert await timed.status(invoice) == "expired"
    assert (await timed.history(invoice))[-1].reason == "reorganized"
    await chain.submit(sent)
    await chain.mine()
    await timed.follow()
    seen = await timed.get(invoice)
    assert (seen.status, seen.payments[0].on_time) == ("paid", True)


async def test_a_busy_shop_through_reorganisations_of_every_depth(stand: Stand, chain: Chain) -> None:
    """24 invoices, paid three a block, while the chain changes 1, 2, 3 and 5 blocks deep; one credit for each."""
    sent: list[Signed] = []
    asked = [await stand.create("25.00") for _ in range(24)]
    for number, depth in enumerate((1, 2, 3, 5, 1, 4, 2, 3)):
        three = asked[3 * number : 3 * number + 3]
        sent += [await chain.send_native(address_in(invoice), WEI) for invoice in three]
        await chain.mine(1 + number % 2)
        await stand.follow()
        height = await chain.height()
        held = [one for one in sent if await height_of(chain, one) > height - depth]
        await chain.reorg(depth, [(one, place * depth // len(held)) for place, one in enumerate(held)])
        await stand.follow()
    await chain.mine(3)
    await stand.follow()
    seen = [await stand.get(invoice) for invoice in asked]
    assert {invoice.status for invoice in seen} == {"paid"}
    assert {(len(invoice.payments), invoice.amount_paid) for invoice in seen} == {(1, "25.00")}
    # The last branch drops the newest six for good and keeps the others.
    height = await chain.height()
    depth = height - min([await height_of(chain, one) for one in sent[-6:]]) + 1
    kept = [one for one in sent[:-6] if await height_of(chain, one) > height - depth]
    await chain.reorg(depth, [(one, 0) for one in kept])
    await stand.follow()
    assert [await stand.status(invoice) for invoice in asked] == ["paid"] * 18 + ["awaiting_payment"] * 6


async def height_of(chain: Chain, sent: Signed) -> int:
    """Where a transaction stands."""
    return int((await chain.receipt(sent.tx_hash))["blockNumber"], 16)


@pytest.mark.parametrize("missed", [0, 6])
async def test_a_reorganisation_across_our_own_restart(stand: Stand, chain: Chain, missed: int) -> None:
    """Down while the chain changes, also with several blocks missed: nothing doubled, nothing lost (F-CHAIN 7)."""
    first, one = await pay(stand, chain)
    second, _ = await pay(stand, chain, blocks=1)
    lost, _ = await pay(stand, chain, blocks=1)
    third = await stand.create("25.00")
    two = await chain.sign(to=address_in(second), value=WEI, nonce=one.nonce + 1)
    await chain.reorg(5, [(one, 1), (two, 2)])
    await chain.send_native(address_in(third), WEI)
    await chain.mine(missed)
    await stand.restart()
    await stand.follow()
    await chain.mine(3)
    await stand.follow()
    assert [await stand.status(invoice) for invoice in (first, second, third)] == ["paid"] * 3
    assert await stand.status(lost) == "awaiting_payment"
    assert [len((await stand.get(invoice)).payments) for invoice in (first, second, third)] == [1, 1, 1]


async def test_a_reorganisation_to_a_shorter_chain(stand: Stand, chain: Chain) -> None:
    """Depth is lost with the height, and payments above the fork with their blocks.

    Bug planted: invoices that lose depth not touched; `deep` stays paid, which the replay notices.
    """
    deep, _ = await pay(stand, chain, blocks=1)
    snapshot = await chain.rpc("evm_snapshot")
    gone, _ = await pay(stand, chain, blocks=5)
    assert [await stand.status(invoice) for invoice in (deep, gone)] == ["paid", "paid"]
    await chain.rpc("evm_revert", snapshot)
    await stand.follow()  # a mere piece of what we know: the node is behind, nothing is taken back
    assert (await stand.network()).status == "degraded"
    assert [await stand.status(invoice) for invoice in (deep, gone)] == ["paid", "paid"]
    await chain.set_next_time(await chain.time() + 100)
    await chain.mine()
    await stand.follow()
    assert (await stand.network()).height == await chain.height()
    assert [await stand.status(invoice) for invoice in (deep, gone)] == ["confirming", "awaiting_payment"]
    assert [(await stand.last(invoice)).reason for invoice in (deep, gone)] == ["reorganized", "reorganized"]
    await chain.mine()
    await stand.follow()
    assert await stand.status(deep) == "paid"


async def test_deeper_than_is_safe_halts_until_a_person_decides(shallow: Stand, chain: Chain) -> None:
    """Nothing is guessed, credited or issued; after the decision all goes on exactly (F-CHAIN 6).

    Bug planted: the search for the ancestor without its limit; the network never halts.
    """
    paid, one = await pay(shallow, chain)
    waiting = await shallow.create("25.00")
    quoted = await shallow.create("25.00", activate=False)
    await chain.mine(3)
    await shallow.follow()
    await chain.reorg(6, [(one, 4)])
    two = await chain.send_native(address_in(waiting), WEI)
    await chain.mine(2)
    with pytest.raises(ReorgTooDeep):
        await shallow.follow()
    async with shallow.running():
        shown = await shallow.until_network("halted")
        assert shown.problem is not None
        assert "4 blocks" in shown.problem
        await chain.mine(5)
    await shallow.restart()  # a restart decides nothing
    await shallow.follow()
    assert (await shallow.network()).status == "halted"
    assert [await shallow.status(invoice) for invoice in (paid, waiting)] == ["paid", "awaiting_payment"]
    with pytest.raises(NetworkUnavailable):
        await shallow.create("25.00")
    with pytest.raises(NetworkUnavailable):
        await shallow.do(activate_option, quoted.id, quoted.payment_options[0].id)
    async with shallow.ctx.database.transaction() as connection:
        await resume(connection, shallow.ctx, "local")
    async with shallow.running():
        await shallow.until_status(waiting, "paid")
    assert (await shallow.network()).status == "following"
    seen = [await shallow.get(invoice) for invoice in (paid, waiting)]
    assert [(one.status, len(one.payments), one.amount_paid) for one in seen] == [("paid", 1, "25.00")] * 2
    assert seen[1].payments[0].tx_hash == two.tx_hash
    # The decision was for once: the next deep reorganisation halts again.
    await chain.reorg(6)
    with pytest.raises(ReorgTooDeep):
        await shallow.follow()


@pytest.mark.parametrize(("finality", "blocks"), [(Finality.SAFE, 32), (Finality.FINALIZED, 64)])
async def test_the_networks_own_finality_confirms(
    database_url: str, chain: Chain, finality: Finality, blocks: int
) -> None:
    """anvil calls the block 32 below its head safe and 64 below finalized; depth alone says nothing (R-CONF 3)."""
    network = evm_network("local", chain.chain_id, requirement=Requirement(finality))
    async with open_stand(database_url, (network, chain.url)) as stand:
        invoice, _ = await pay(stand, chain, blocks=blocks)
        assert await stand.status(invoice) == "confirming"
        await chain.mine()
        await stand.follow()
        assert await stand.status(invoice) == "paid"


async def test_a_node_that_says_nothing_of_finality_makes_nothing_final(
    database_url: str, chain: Chain
) -> None:
    """Unknown is not "all of it": the payment waits, and an ordinary reorganisation does not halt.

    This failed: LEAST(NULL, height) is the height, so that every block counted as safe and finalized at once.
    """
    network = evm_network("local", chain.chain_id, requirement=Requirement(Finality.FINALIZED))
    async with open_stand(database_url, (network, chain.url), finality_tags=False) as stand:
        invoice, _ = await pay(stand, chain, blocks=70)
        assert await stand.status(invoice) == "confirming"
        shown = await stand.network()
        assert (shown.safe_height, shown.finalized_height) == (None, None)
        await chain.reorg(2)
        await stand.follow()
        assert (await stand.network()).height == await chain.height()


async def test_below_finality_is_never_reorganised_without_a_decision(
    database_url: str, chain: Chain
) -> None:
    """What the network called final is gone: halt, whatever the safety depth. Afterwards its word counts anew.

    Bug planted: the marker kept over the reorganisation; a payment in the new branch is final at once.
    """
    requirement = Requirement(Finality.FINALIZED)
    network = evm_network("local", chain.chain_id, requirement=requirement, safety_depth=500)
    await chain.mine(10)
    async with open_stand(database_url, (network, chain.url)) as stand:
        invoice = await stand.create("25.00")
        snapshot = await chain.rpc("evm_snapshot")
        await chain.mine_many(80)
        await stand.follow()
        final = (await stand.network()).finalized_height
        assert final == await chain.height() - 64
        await chain.rpc("evm_revert", snapshot)
        await chain.set_next_time(await chain.time() + 200)
        await chain.mine()
        await chain.send_native(address_in(invoice), WEI)
        await chain.mine()
        assert await chain.height() <= final
        with pytest.raises(ReorgTooDeep):
            await stand.follow()
        async with stand.running():
            await stand.until_network("halted")
        async with stand.ctx.database.transaction() as connection:
            await resume(connection, stand.ctx, "local")
        await stand.follow()
        assert await stand.status(invoice) == "confirming"
        await chain.mine_many(64)
        await stand.follow()
        assert await stand.status(invoice) == "paid"
