"""What blocks and mempools of a chain of outputs mean: inputs, spent outputs, risks, maturity, times dated ahead.

Blocks are written by hand (`tests.support.outputs`); on a real node the same is shown in `tests/scenarios/litecoin`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast

import pytest

from tallystick.chains.source import ChainIdentity, Source
from tallystick.core.chain import Block, ObservedTransfer, Trait
from tallystick.services import objects
from tallystick.services.audit_chain import compare, heights_to_compare
from tests.support.outputs import ASKED, OUTPUTS, START, Till, coin, hash_of, open_till

SPENT_NOW = """SELECT s.tx_hash FROM spendings AS s JOIN blocks AS b ON b.network = s.network AND b.hash = s.block_hash
    WHERE b.in_best_chain"""


@pytest.fixture
async def till(database_url: str) -> AsyncIterator[Till]:
    async with open_till(database_url) as shop:
        yield shop


def outpoint(transfer: ObservedTransfer) -> str:
    """The spend key of whoever spends what a transfer made."""
    return f"{transfer.tx_hash}:{transfer.ordinal}"


def payment(invoice: objects.Invoice) -> objects.Payment:
    """The invoice's only payment."""
    (found,) = invoice.payments
    return found


# Inputs and conflicts ------------------------------------------------------------------------------------------------


async def test_one_transaction_pays_several_invoices_and_one_several_times(till: Till) -> None:
    """Each output is a payment of its own; what the transaction uses up is stored once."""
    one, two = await till.create(), await till.create()
    paid = till.pay(one, two, two, amount=ASKED, inputs=[coin("a"), coin("b")])
    await till.mine(*paid, blocks=2)
    assert (await till.status(one), await till.status(two)) == ("paid", "overpaid")
    assert [one.sender for one in (await till.get(two)).payments] == [None, None]
    assert len(await till.rows("SELECT * FROM transaction_spends")) == 2


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_any_input_spent_otherwise_rules_a_payment_out(till: Till, which: int) -> None:
    """Of a payment with three inputs one is enough: the block that spends it replaces the payment.

    Bug planted: only the first input of a transaction stored; seen to fail for the others.
    """
    invoice = await till.create()
    inputs = [coin("a"), coin("b"), coin("c")]
    (seen,) = till.pay(invoice, inputs=inputs)
    await till.show(seen)
    assert await till.status(invoice) == "detected"
    other = hash_of("another transaction")
    await till.mine(spends={inputs[which]: other})
    found = payment(await till.get(invoice))
    assert (found.status, found.replaced_by) == ("replaced", other)
    await till.reorganise(1, [seen], [])
    assert await till.status(invoice) == "paid"


@pytest.mark.parametrize("which", [0, 1])
async def test_a_mempool_that_spends_any_input_otherwise_takes_the_sighting_back(
    till: Till, which: int
) -> None:
    """Bug planted: only the first spend key of a sighting compared; seen to fail for the second."""
    invoice = await till.create()
    inputs = [coin("a"), coin("b")]
    await till.show(*till.pay(invoice, inputs=inputs))
    assert await till.status(invoice) == "detected"
    await till.show(spends={inputs[which]: hash_of("another transaction")})
    assert await till.status(invoice) == "awaiting_payment"


# Spent outputs -------------------------------------------------------------------------------------------------------


async def test_spent_outputs_are_known_for_as_long_as_the_block_stands(till: Till) -> None:
    """Bug planted: an output that was spent once not recorded as spent again; it looked unspent for good."""
    invoice = await till.create()
    (paid,) = till.pay(invoice)
    await till.mine(paid, blocks=2)
    sweep = hash_of("sweep")
    await till.mine(spends={outpoint(paid): sweep, coin("elsewhere"): sweep})
    assert [row["tx_hash"] for row in await till.rows(SPENT_NOW)] == [sweep]
    await till.reorganise(1, [], [])
    assert await till.rows(SPENT_NOW) == []
    again = hash_of("sweep again")
    await till.mine(spends={outpoint(paid): again})
    assert [row["tx_hash"] for row in await till.rows(SPENT_NOW)] == [again]
    assert await till.status(invoice) == "paid"


async def test_an_output_spent_in_its_own_block_is_spent(till: Till) -> None:
    """Bug planted: spendings recorded before the block's own transfers; nothing was spent."""
    invoice = await till.create()
    (paid,) = till.pay(invoice)
    await till.mine(paid, spends={outpoint(paid): hash_of("sweep")})
    assert [row["tx_hash"] for row in await till.rows(SPENT_NOW)] == [hash_of("sweep")]


@pytest.mark.parametrize("together", [False, True], ids=["a later block", "the same block"])
@pytest.mark.parametrize("sighted", [False, True])
async def test_coins_moved_among_ones_own_addresses_are_not_income(
    till: Till, *, together: bool, sighted: bool
) -> None:
    """What spends an output of the same merchant is his own money, though no sender says so (F-TOKEN 8).

    Bug planted: internal told by the sender alone; the second invoice was paid with the first one's money.
    """
    first, second = await till.create(), await till.create()
    (paid,) = till.pay(first)
    (moved,) = till.pay(second, inputs=[coin("more"), outpoint(paid)])
    if not together:
        await till.mine(paid)
    if sighted:
        await till.show(*([paid] if together else []), moved)
        assert await till.status(second) == "awaiting_payment"
    await till.mine(*([paid] if together else []), moved)
    await till.mine(blocks=2)
    assert (await till.status(first), await till.status(second)) == ("paid", "awaiting_payment")
    (stored,) = await till.rows("SELECT internal FROM transfers WHERE tx_hash = $1", moved.tx_hash)
    assert stored["internal"]


async def test_what_another_merchant_received_and_pays_with_is_income(till: Till) -> None:
    """Bug planted: any output of ours taken for the same merchant's; the payment was lost."""
    other = await till.another_merchant()
    theirs, ours = await till.create(merchant_id=other), await till.create()
    (paid,) = till.pay(theirs)
    await till.mine(paid, blocks=2)
    await till.mine(*till.pay(ours, inputs=[outpoint(paid)]), blocks=2)
    assert await till.status(ours) == "paid"


# Risks and maturity --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("risk", [Trait.REPLACEABLE, Trait.UNCONFIRMED_PARENT])
async def test_a_risk_counts_at_sight_only_where_the_rule_accepts_it(till: Till, risk: Trait) -> None:
    """Bug planted: traits not compared with what the rule accepts; paid at sight."""
    await till.rules(zero_conf=True)
    careful = await till.create()
    assert careful.payment_options[0].zero_conf
    explained = careful.payment_options[0].policy.explanation
    assert "unless its sender can still replace it or it spends what no block holds yet" in explained
    (seen,) = till.pay(careful, traits=[risk])
    await till.show(seen)
    shown = await till.get(careful)
    assert (shown.status, payment(shown).traits) == ("detected", [risk.value])
    await till.rules(zero_conf=True, zero_conf_accepts=[risk.value])
    trusting = await till.create()
    await till.show(*till.pay(trusting, traits=[risk]))
    assert await till.status(trusting) == "paid"
    both = await till.create()
    await till.show(*till.pay(both, traits=[Trait.REPLACEABLE, Trait.UNCONFIRMED_PARENT]))
    assert await till.status(both) == "detected"
    await till.mine(seen)
    assert (
        await till.status(careful) == "paid"
    )  # in a block nobody can replace it, nor does it wait for a parent


async def test_a_risk_that_only_a_mempool_shows_is_added_when_it_shows(till: Till) -> None:
    """A block does not show what nodes replace. Back in the mempool it is a risk again.

    Bug planted: traits of known transfers left as they are; a replaceable payment stayed paid.
    """
    await till.rules(zero_conf=True)
    invoice = await till.create()
    (paid,) = till.pay(invoice)
    await till.mine(paid)
    assert await till.status(invoice) == "paid"
    await till.reorganise(1, [], [])
    await till.show(replace(paid, traits=frozenset({Trait.REPLACEABLE})))
    shown = await till.get(invoice)
    assert (shown.status, payment(shown).status, payment(shown).traits) == (
        "detected",
        "detected",
        ["replaceable"],
    )


@pytest.mark.parametrize(("trait", "blocks"), [(Trait.COINBASE, 100), (Trait.PEGOUT, 6)])
@pytest.mark.parametrize("zero_conf", [False, True])
async def test_what_cannot_be_spent_yet_is_not_confirmed(
    till: Till, trait: Trait, blocks: int, *, zero_conf: bool
) -> None:
    """Newly made coin and what came out of an extension block mature, whatever a rule says.

    Bug planted: no wakeup at the height of maturity; never paid. Another: maturity asked of depth alone, not of a rule
    that counts sightings; paid in the first block.
    """
    await till.rules(zero_conf=zero_conf)
    invoice = await till.create(expires_in_seconds=86_400)
    await till.mine(*till.pay(invoice, traits=[trait]))
    shown = await till.get(invoice)
    assert (shown.status, payment(shown).confirmations, payment(shown).confirmations_required) == (
        "confirming",
        1,
        blocks,
    )
    option = shown.payment_options[0]
    assert (option.confirmations, option.confirmations_required) == (1, blocks)
    await till.mine(blocks=blocks - 2)
    assert await till.status(invoice) == "confirming"
    await till.mine()
    assert await till.status(invoice) == "paid"
    await till.reorganise(2, [])  # a shorter branch with more work: less than mature again
    assert await till.status(invoice) == "confirming"
    await till.mine()
    assert await till.status(invoice) == "paid"


@pytest.mark.parametrize(
    ("amount", "rule", "counts"),
    [
        ("1000.00", {}, True),
        ("1000.01", {}, False),
        ("1000.01", {"match": {"amount_lt": "2000"}}, True),
    ],
)
async def test_at_sight_up_to_the_networks_limit(
    till: Till, amount: str, rule: dict[str, object], *, counts: bool
) -> None:
    """Bug planted: the limit left out; 1,000.01 USD counted at sight."""
    from tallystick.services.policies import RuleMatch

    match = rule.get("match")
    given = RuleMatch(**match) if isinstance(match, dict) else RuleMatch()
    await till.rules(zero_conf=True, match=given)
    invoice = await till.create(amount)
    option = invoice.payment_options[0]
    assert option.zero_conf is counts
    assert ("the limit of bitcoin for that, 0.01 BTC" in option.policy.explanation) is not counts


# Audit ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OtherNode:
    """Another node of the same chain, as far as an audit asks it, whose blocks `change` may make lie."""

    till: Till
    change: Callable[[Block], Block]

    async def identity(self) -> ChainIdentity:
        return ChainIdentity("bitcoin-regtest", hash_of("genesis"))

    async def block_at(self, height: int) -> Block:
        return self.change(next(one for one in self.till.chain if one.header.height == height))


@pytest.mark.parametrize(
    ("stored", "change", "broken"),
    [
        ("", lambda block: block, set()),
        ("", lambda block: replace(block, spends={}), {"spending-differs"}),
        ("DELETE FROM spendings", lambda block: block, {"spending-differs"}),
        ("UPDATE spendings SET tx_hash = 'another'", lambda block: block, {"spending-differs"}),
        ("DELETE FROM transaction_spends", lambda block: block, {"transfer-invented"}),
    ],
    ids=["nothing", "the node shows none", "one is not stored", "another transaction", "other inputs"],
)
async def test_spendings_are_compared_with_another_node(
    database_url: str, stored: str, change: Callable[[Block], Block], broken: set[str]
) -> None:
    """Bug planted: stored spendings compared with themselves; nothing was found."""
    async with open_till(database_url) as till:
        invoice = await till.create()
        (paid,) = till.pay(invoice, inputs=[coin("a"), coin("b")])
        await till.mine(paid)
        await till.mine(spends={outpoint(paid): hash_of("sweep"), coin("c"): hash_of("sweep")})
        await till.rows(stored or "SELECT 1")
        heights, _ = await heights_to_compare(till.ctx, till.network.name, "all")
        node = cast(Source, OtherNode(till, change))
        found = await compare(till.ctx, till.network, node, heights, second_look_seconds=0)
    assert {problem.rule for problem in found.problems} == broken


async def test_what_is_missing_of_a_block_dated_back_is_noticed(till: Till) -> None:
    """The address is younger than the block says to be. Bug planted: an allowance of minutes; nothing was found."""
    invoice = await till.create()
    block = await till.mine(time=START - timedelta(hours=1))
    (hidden,) = till.pay(invoice)

    def with_it(shown: Block) -> Block:
        spends = shown.spends | dict.fromkeys(hidden.spend_keys, hidden.tx_hash)
        return replace(shown, transfers=(hidden,), spends=spends)

    node = cast(Source, OtherNode(till, with_it))
    found = await compare(till.ctx, till.network, node, [block.header.height], second_look_seconds=0)
    assert [problem.rule for problem in found.problems] == ["transfer-missing"]


# Times ---------------------------------------------------------------------------------------------------------------


async def test_a_block_dated_ahead_ends_no_window_and_dates_nothing_late(till: Till) -> None:
    """A miner may date a block two hours ahead; what counts of that is no more than our clock.

    Bugs planted: the header's time taken as it is, and the paid invoice was late; the head's time taken for a sighting.
    """
    open_, paid = await till.create(expires_in_seconds=900), await till.create(expires_in_seconds=900)
    await till.mine(*till.pay(paid), time=START + timedelta(hours=2))
    await till.mine(time=START + timedelta(hours=2))
    assert (await till.status(open_), await till.status(paid)) == ("awaiting_payment", "paid")
    shown = payment(await till.get(paid))
    assert (shown.on_time, shown.block_time) == (True, START + timedelta(hours=2))
    (network,) = await till.rows("SELECT scanned_until, cursor_time FROM networks")
    assert (network["scanned_until"], network["cursor_time"]) == (START, START)
    # Sightings are dated by our clock as well, not by the head's time.
    await till.show(*till.pay(open_))
    seen = await till.get(open_)
    assert (seen.status, payment(seen).on_time) == ("detected", True)


async def test_a_block_dated_back_makes_no_late_payment_early(till: Till) -> None:
    """A miner may date a block back by an hour. What was sighted before it is no older for that.

    Nor is it judged by a quote that had ended. Bug planted: the earlier time taken, and it was on time.
    """
    invoice = await till.create(expires_in_seconds=900)
    till.clock.advance(1000)
    sent = till.pay(invoice)
    await till.show(*sent)
    await till.mine(*sent, time=START + timedelta(seconds=100))
    assert payment(await till.get(invoice)).on_time is False
    await till.mine(blocks=3, time=START + timedelta(seconds=1000))
    assert await till.status(invoice) == "late_paid"
    # What no mempool showed is as old as its block says: there is no better evidence.
    unseen = await till.create(expires_in_seconds=900)
    await till.mine(*till.pay(unseen), time=START + timedelta(seconds=200))
    assert payment(await till.get(unseen)).on_time is True


async def test_a_block_that_returns_keeps_the_time_that_counted_first(till: Till) -> None:
    """Bug planted: the time taken anew whenever a block is connected; what it holds was dated by no evidence."""
    invoice = await till.create(expires_in_seconds=900)
    ahead = START + timedelta(hours=1)
    before = len(till.chain)
    block = await till.mine(*till.pay(invoice), time=ahead)
    await till.reorganise(1, [], [])
    till.clock.advance(1800)
    other = await till.create(expires_in_seconds=86_400)
    from tallystick.services.intake import Step, apply_step

    top = till.block(on=block.header.ref)
    over = till.block(on=top.header.ref)
    step = Step(till.tip, (block, top, over), ancestor=till.chain[before - 1].header.ref)
    await apply_step(till.ctx, till.network, step)
    till.chain = [*till.chain[:before], block, top, over]
    assert await till.status(other) == "awaiting_payment"
    (stored,) = await till.rows("SELECT counted_time, time FROM blocks WHERE hash = $1", block.header.hash)
    assert (stored["counted_time"], stored["time"]) == (START, ahead)
    assert (await till.status(invoice), payment(await till.get(invoice)).on_time) == ("paid", True)


async def test_elsewhere_a_blocks_time_counts_as_it_is(database_url: str) -> None:
    """Where the rules of the chain keep times honest, the chain's time is the time (ADR 0004)."""
    async with open_till(database_url, replace(OUTPUTS, loose_times=False)) as till:
        invoice = await till.create(expires_in_seconds=900)
        await till.mine(time=START + timedelta(hours=1))
        assert await till.rows("SELECT 1 FROM wakeups WHERE invoice_id = $1 AND marker = 'time'", invoice.id)
        (network,) = await till.rows("SELECT scanned_until FROM networks")
        assert network["scanned_until"] == START + timedelta(hours=1)
