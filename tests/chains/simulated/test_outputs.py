"""A simulated network whose coins are outputs: what excludes what, what rests on what, when blocks may be dated.

Planted bugs, each seen to fail here: conflicts by the first input only; a dropped parent whose child stays; an output
that is spent before it is made; a child mined before its parent; a miner's own transaction that comes back into the
mempool after a reorganisation.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from tallystick.chains.simulated.blocks import Transaction
from tallystick.chains.simulated.chain import Impossible, SimulatedChain
from tallystick.chains.simulated.nodes import SimulatedNode
from tallystick.chains.simulated.outputs import coin, coinbase, outbidding, paying, pegout, script_of
from tallystick.chains.simulated.source import SimulatedSource
from tallystick.core.chain import Channel, Trait
from tests.chains.contract_suite import MempoolContract, Payment, SourceContract, TroubleContract
from tests.chains.simulated.networks import START, output_network
from tests.chains.simulated.test_contract import SimulatedRig

SHOP = script_of("shop")
CUSTOMER = script_of("customer")
MINUTE = timedelta(minutes=1)


class OutputRig(SimulatedRig):
    """The rig of the simulated family, with payments that spend and make outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = SimulatedChain("local", "bitcoin-regtest", START, loose_times=True)
        self.node = SimulatedNode("node-1", self.chain)
        network = output_network("local")
        self.source = SimulatedSource(network, [self.node])
        self.pair = SimulatedSource(network, [self.node, SimulatedNode("node-2", self.chain)])

    async def send(self, amount: int) -> Payment:
        number = 2 * len(self._sent)
        sent = paying([coin("payer", number), coin("payer", number + 1)], [(CUSTOMER, 7), (SHOP, amount)])
        self._sent[sent.hash] = sent
        self.chain.submit(sent)
        return Payment(sent.hash, SHOP, amount)

    def _other(self, payment: Payment) -> Transaction:
        return outbidding(self._sent[payment.tx_hash], [(SHOP, 1)], place=1)

    def _forge(self, transactions: tuple[Transaction, ...]) -> tuple[Transaction, ...]:
        return (*transactions, paying([coin("forger", 1)], [(SHOP, 5)]))


class TestOutputSource(SourceContract, MempoolContract, TroubleContract):
    """All suites that a family without accounts has. An outbidding shares the second input only."""

    @pytest.fixture
    def rig(self) -> OutputRig:
        return OutputRig()


class World:
    """A chain of outputs, and its one node."""

    def __init__(self) -> None:
        self.chain = SimulatedChain("local", "bitcoin-regtest", START, loose_times=True)
        self.node = SimulatedNode("node", self.chain)
        self.source = SimulatedSource(output_network("local"), [self.node])

    def mine(self, **given: object) -> str:
        """A block a minute after the head. Answers its hash."""
        return self.chain.mine(self.chain.head.header.time + MINUTE, **given).hash  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_any_shared_input_excludes(world: World, place: int) -> None:
    coins = [coin("payer", number) for number in range(3)]
    first = paying(coins, [(SHOP, 10)])
    world.chain.submit(first)
    rival = paying([coin("other", 1), coins[place]], [(CUSTOMER, 1)])
    world.chain.submit(rival)
    assert list(world.chain.mempool) == [rival.hash]
    world.mine()
    world.chain.submit(first)
    assert not world.chain.mempool
    assert world.chain.minable([first.hash]) == ()
    with pytest.raises(Impossible):
        world.mine(tx_hashes=[first.hash])
    assert {world.chain.spender(key) for key in coins} == {rival.hash, None}
    assert world.chain.place(first.hash) is None


def test_what_rests_on_a_transaction_goes_with_it(world: World) -> None:
    parent = paying([coin("payer", 1)], [(CUSTOMER, 10), (SHOP, 5)])
    child = paying([f"{parent.hash}:0"], [(SHOP, 9)])
    for one in (parent, child):
        world.chain.submit(one)
    assert list(world.chain.mempool) == [parent.hash, child.hash]
    assert world.chain.unspent(CUSTOMER) == {}
    assert world.chain.unspent(SHOP) == {f"{parent.hash}:1": 5, f"{child.hash}:0": 9}
    world.chain.drop(parent.hash)
    assert not world.chain.mempool
    world.chain.submit(child)
    assert not world.chain.mempool
    assert world.chain.minable([child.hash, parent.hash]) == (parent.hash,)
    for one in (parent, child):
        world.chain.submit(one)
    world.chain.submit(outbidding(parent, [(SHOP, 1)]))
    assert child.hash not in world.chain.mempool


def test_a_replacement_cannot_rest_on_what_it_replaces(world: World) -> None:
    parent = paying([coin("payer", 1)], [(CUSTOMER, 10)])
    world.chain.submit(parent)
    world.chain.submit(paying([coin("payer", 1), f"{parent.hash}:0"], [(SHOP, 1)]))
    assert list(world.chain.mempool) == [parent.hash]


def test_a_fork_brings_back_what_still_can_be(world: World) -> None:
    parent = paying([coin("payer", 1)], [(CUSTOMER, 10)])
    child = paying([f"{parent.hash}:0"], [(SHOP, 9)])
    made = coinbase(world.chain.head.hash, [(SHOP, 50)])
    for one in (parent, child):
        world.chain.submit(one)
    world.mine(made=[made])
    assert [one.hash for one in world.chain.head.transactions] == [made.hash, parent.hash, child.hash]
    genesis = world.chain.genesis
    empty = world.chain.mine(START + MINUTE, [], parent=genesis.hash, salt=1)
    world.chain.adopt(empty.hash)
    assert list(world.chain.mempool) == [parent.hash, child.hash]
    rival = outbidding(parent, [(SHOP, 1)])
    world.chain.submit(rival)
    taken = world.chain.mine(START + MINUTE, [rival.hash], parent=genesis.hash, salt=2)
    world.chain.adopt(taken.hash)
    assert not world.chain.mempool
    assert made.hash in world.chain.known
    world.chain.submit(made)
    assert not world.chain.mempool


async def test_traits_say_who_made_an_output_and_what_it_is_worth(world: World) -> None:
    head = world.chain.head.hash
    plain = paying([coin("payer", 1)], [(SHOP, 545), (SHOP, 546)], replaceable=True)
    world.chain.submit(plain)
    made = [pegout(head, [(SHOP, 10_000)]), coinbase(head, [(SHOP, 10)])]
    world.mine(made=made)
    block = await world.source.block_at(1)
    assert [transfer.traits for transfer in block.transfers] == [
        {Trait.COINBASE, Trait.DUST},
        {Trait.DUST},
        frozenset(),
        {Trait.PEGOUT},
    ]
    assert {(one.channel, one.sender) for one in block.transfers} == {(Channel.OUTPUT, "")}
    assert block.transfers[0].spend_keys == (f"coinbase:{made[1].hash}",)
    assert [one.ordinal for one in block.transfers] == [0, 0, 1, 0]
    assert world.chain.unspent(SHOP).keys() == {f"{plain.hash}:0", f"{plain.hash}:1"}


async def test_a_child_has_the_risks_of_what_it_rests_on(world: World) -> None:
    parent = paying([coin("payer", 1)], [(CUSTOMER, 10_000)], replaceable=True)
    child = paying([f"{parent.hash}:0"], [(CUSTOMER, 9_000)])
    grandchild = paying([f"{child.hash}:0", coin("payer", 2)], [(SHOP, 8_000)])
    for one in (parent, child, grandchild):
        world.chain.submit(one)

    async def traits() -> dict[str, frozenset[Trait]]:
        await world.source.head()
        return {one.tx_hash: one.traits for one in (await world.source.mempool()).transfers}

    both = {Trait.REPLACEABLE, Trait.UNCONFIRMED_PARENT}
    assert await traits() == {parent.hash: {Trait.REPLACEABLE}, child.hash: both, grandchild.hash: both}
    world.mine(tx_hashes=[parent.hash])
    assert await traits() == {child.hash: frozenset(), grandchild.hash: {Trait.UNCONFIRMED_PARENT}}


async def test_a_restarted_node_shows_only_what_comes_later(world: World) -> None:
    before = paying([coin("payer", 1)], [(SHOP, 10_000)])
    world.chain.submit(before)
    world.node.restart()
    after = paying([coin("payer", 2)], [(SHOP, 10_000)])
    world.chain.submit(after)
    await world.source.head()
    snapshot = await world.source.mempool([before.hash, after.hash])
    assert snapshot.present == {after.hash}
    assert snapshot.missing == {before.hash}
    world.node.equalize()
    assert (await world.source.mempool([before.hash])).present == {before.hash}


def test_a_block_is_later_than_the_median_of_eleven(world: World) -> None:
    """BIP113: one that is dated two hours ahead binds nobody; six of eleven do."""
    chain = world.chain
    ahead = START + timedelta(hours=2)
    for number in range(1, 6):
        chain.mine(START + number * MINUTE, [])
    chain.mine(ahead, [])
    back = chain.mine(START + 4 * MINUTE, [])
    assert back.header.time < ahead
    with pytest.raises(Impossible):
        chain.mine(START, [])
    for number in range(11):
        chain.mine(ahead + number * MINUTE, [], salt=number)
    assert chain.earliest() == ahead + 5 * MINUTE + timedelta(seconds=1)
    with pytest.raises(Impossible):
        chain.mine(ahead + 5 * MINUTE, [])
    strict = SimulatedChain("strict", "1", START)
    strict.mine(ahead)
    with pytest.raises(Impossible):
        strict.mine(START + MINUTE)


def test_blocks_on_one_parent_cannot_both_leave_the_extension_block(world: World) -> None:
    head = world.chain.head.hash
    first, second = pegout(head, [(SHOP, 1)]), pegout(head, [(CUSTOMER, 2)])
    assert first.spend_keys == second.spend_keys
    assert first.hash != second.hash
    world.mine(made=[first])
    with pytest.raises(Impossible):
        world.mine(made=[second])
