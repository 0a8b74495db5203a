"""What is believed of several nodes, one of which makes blocks up: nothing that another one contradicts, ever.

Cites F-NODE 3, R-CHAIN 6. The nodes are simulated, so that one can fail between two blocks of one batch; the database
and the follower are real. The forger's blocks pay an invoice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction

import pytest

from tallystick.chains.simulated.blocks import Transaction
from tallystick.chains.simulated.chain import SimulatedChain
from tallystick.chains.simulated.nodes import BlockAnswer, NodeFault, SimulatedNode
from tallystick.chains.simulated.source import SimulatedSource
from tallystick.chains.simulated.transactions import address_of, native
from tallystick.core.errors import ReorgTooDeep, SourceError, SourceIncomplete, SourcesDisagree
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services import objects
from tallystick.services.context import Context
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import sync_networks
from tallystick.services.wallets import NewWallet, register_wallet
from tallystick.workers.follow import Follower, FollowerOptions
from tests.chains.simulated.networks import START, simulated_network
from tests.support.invariants import check_invariants
from tests.support.stand import Clock, Stand, account_key, address_in, units

CUSTOMER = address_of("customer")
NETWORK = replace(simulated_network("local", "7001"), safety_depth=8)
OPTIONS = FollowerOptions(start_height=0, batch_blocks=16)


class Fickle(SimulatedNode):
    """A node to which something happens when it is asked for the block at a height, once."""

    def __init__(self, name: str, chain: SimulatedChain) -> None:
        super().__init__(name, chain)
        self.when: dict[int, Callable[[], None]] = {}
        self.fails_each = 0
        self.blocks_asked = 0

    def block_at(self, height: int) -> BlockAnswer | None:
        """See SimulatedNode.block_at. Each `fails_each`-th question is not answered."""
        self.blocks_asked += 1
        if self.fails_each and self.blocks_asked % self.fails_each == 0:
            self.inject(NodeFault.TIMEOUT, answers=1)
        self.when.pop(height, lambda: None)()
        return super().block_at(height)


@dataclass
class World:
    """A shop on one chain, an honest node that fails, and another that makes blocks up."""

    stand: Stand
    chain: SimulatedChain
    honest: Fickle
    forger: Fickle
    invoice: objects.Invoice
    replaced: frozenset[str] = (
        frozenset()
    )  # blocks that were rightly processed, and are not in the best chain any more

    def mine(self, blocks: int = 1, *, parent: str | None = None, salt: int = 0, paid: bool = False) -> str:
        """Blocks on the head or on `parent`, empty but for the payment; answer the last one's hash."""
        for number in range(blocks):
            below = self.chain.head if parent is None else self.chain.block(parent)
            time = below.header.time + timedelta(seconds=12)
            inside: list[str] = []
            if paid and number == 0:
                payment = self.payment()
                self.chain.submit(payment)
                inside = [payment.hash]
            block = self.chain.mine(time, inside, parent=parent, salt=salt)
            for tx_hash in inside:
                self.chain.drop(tx_hash)
            parent = block.hash if parent is not None else None
        return self.chain.head.hash if parent is None else parent

    def payment(self) -> Transaction:
        """What the forger would have us believe."""
        return native(CUSTOMER, 0, address_in(self.invoice).lower(), units("0.01"))

    def forge(self, transactions: tuple[Transaction, ...]) -> tuple[Transaction, ...]:
        """A block as the forger tells it."""
        return transactions or (self.payment(),)

    def forger_steps_in_at(self, height: int) -> None:
        """Until the honest node is asked for this block the forger is silent; from then on the honest one is."""
        self.forger.inject(NodeFault.FORGED, height=height, forgery=self.forge)
        self.forger.inject(NodeFault.UNAVAILABLE)
        self.honest.when[height] = self.change_over

    def change_over(self) -> None:
        """The honest node fails, the other one is back."""
        self.honest.inject(NodeFault.UNAVAILABLE)
        self.forger.clear(NodeFault.UNAVAILABLE)

    def follower(self, *nodes: SimulatedNode, options: FollowerOptions = OPTIONS) -> Follower:
        """A follower that asks these nodes in this order."""
        self.stand.followers["local"] = Follower(
            self.stand.ctx, NETWORK, SimulatedSource(NETWORK, nodes), options
        )
        return self.stand.followers["local"]

    async def poll(self) -> bool:
        """One look at the network, as the loop takes it: what is wrong is noted where operators look."""
        follower = self.stand.followers["local"]
        try:
            return await follower.poll()
        except SourceError as error:
            await follower.note_trouble(error, 1)
            raise

    async def recover(self) -> None:
        """All nodes are honest again: everything is read, and nobody paid."""
        self.honest.clear()
        self.forger.clear()
        for _ in range(3):  # nodes that were put aside come back
            await self.stand.follow()
        await self.assert_honest()
        assert (await self.stand.network()).height == self.chain.height
        assert (await self.stand.network()).status == "following"

    async def assert_honest(self) -> None:
        """No block that was made up was ever processed, and the invoice is as it was."""
        rows = await self.stand.rows("SELECT hash, in_best_chain FROM blocks")
        assert {row["hash"] for row in rows} <= {block.hash for block in self.chain.branch()} | self.replaced
        assert (await self.stand.way(self.invoice))[-1] == "awaiting_payment"
        assert not (await self.stand.get(self.invoice)).payments


@asynccontextmanager
async def opened(database_url: str) -> AsyncIterator[World]:
    """A world whose follower has read three blocks from two honest nodes. Its invariants hold at the end."""
    chain = SimulatedChain("local", "7001", START)
    honest, forger = Fickle("honest", chain), Fickle("forger", chain)
    database = await Database.open(database_url, connections_max=5)
    ctx = Context(
        database=database,
        networks={"local": NETWORK},
        rates=StaticRates({"ETH/USD": Fraction(2500)}),
        public_url="http://127.0.0.1:8420",
        allow_private_targets=True,
        clock=Clock(START),
    )
    try:
        async with database.transaction() as connection:
            await sync_networks(connection, ctx.networks)
            merchant_id, api_key = await create_merchant(connection, ctx, "Tally & Sons")
            await register_wallet(connection, ctx, merchant_id, NewWallet("evm", account_key(), "main"))
        stand = Stand(ctx, merchant_id, api_key)
        stand.followers["local"] = Follower(ctx, NETWORK, SimulatedSource(NETWORK, [honest]), OPTIONS)
        await stand.follow()
        invoice = await stand.create("25.00", activate=True)
        world = World(stand, chain, honest, forger, invoice)
        yield world
        await check_invariants(ctx)
    finally:
        await database.close()


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A shop that has read three blocks of a chain that both nodes serve honestly."""
    async with opened(database_url) as made:
        made.mine(3)
        made.follower(made.honest, made.forger)
        await made.stand.follow()
        yield made


@pytest.mark.parametrize("height", [4, 6, 9])
async def test_a_forger_that_steps_in_while_a_batch_is_read(world: World, height: int) -> None:
    """The honest node names the head and fails; its place is taken by one whose blocks do not lead to that head.

    Bug planted: the batch's last block not compared with the header that was agreed on. It was so once: each block was
    applied as soon as it stood on the cursor (seed 1099 of the simulation).
    """
    world.mine(6)
    world.forger_steps_in_at(height)
    with pytest.raises(SourceIncomplete, match="changed while it was read"):
        await world.poll()
    await world.assert_honest()
    assert (await world.stand.network()).height == 3
    await world.recover()


@pytest.mark.parametrize("height", [2, 3])
@pytest.mark.parametrize("length", [2, 3])
async def test_a_forger_that_steps_in_while_a_reorganisation_is_read(
    world: World, height: int, length: int
) -> None:
    """The same where the honest node went over to another branch: ours is kept until theirs is known to be agreed on.

    Bug planted: the newest block of the branch is whichever came, and the node that is silent by now is asked about it.
    """
    world.replaced = frozenset(world.chain.blocks)
    fork = world.chain.at(1)
    assert fork is not None
    world.chain.adopt(world.mine(length, parent=fork.hash, salt=1))
    before = (await world.stand.network()).height
    world.forger_steps_in_at(height)
    with pytest.raises(SourceIncomplete, match="changed while it was read"):
        await world.poll()
    await world.assert_honest()
    assert (await world.stand.network()).height == before
    await world.recover()


async def test_a_forger_that_steps_in_at_the_very_first_block(database_url: str) -> None:
    """There is nothing yet that the first block could stand on. Bug planted: it is taken from whoever answers."""
    async with opened(database_url) as world:
        await world.stand.rows("UPDATE networks SET cursor_hash = NULL, cursor_height = NULL")
        await world.stand.rows("DELETE FROM blocks")
        world.mine(5)
        follower = world.follower(world.honest, world.forger, options=replace(OPTIONS, start_height=4))
        world.forger_steps_in_at(4)
        with pytest.raises(SourceIncomplete, match="changed while it was read"):
            await follower.poll()
        assert await world.stand.rows("SELECT hash FROM blocks") == []
        await world.recover()


@pytest.mark.parametrize("behind", [1, 2, 5])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_forger_that_is_ahead_of_everybody(world: World, behind: int, *, at_once: bool) -> None:
    """The other node has no block as high as the forger's: what it has lower down contradicts the forger all the same.

    Bug planted: only the newest block is asked about; the forger's whole chain is believed while it stays ahead.
    """
    fork = world.chain.head.hash
    forged = world.mine(behind + 1, parent=fork, salt=9, paid=True)
    world.mine(1)
    world.forger.inject(NodeFault.BRANCH, block=forged)
    world.follower(world.forger, world.honest, options=replace(OPTIONS, batch_blocks=16 if at_once else 1))
    with pytest.raises(SourcesDisagree):
        await world.poll()
    await world.assert_honest()
    assert (await world.stand.network()).status == "degraded"
    await world.recover()


async def test_a_branch_that_a_slower_node_is_not_on_is_left_again(world: World) -> None:
    """While nobody contradicts it the faster node is believed; as soon as the other comes to the fork, crediting holds.

    Bug planted: only blocks above the cursor are asked about; a node two blocks slower is never heard.
    """
    fork = world.chain.head.hash
    forged = world.mine(3, parent=fork, salt=9)
    world.replaced = frozenset(world.chain.blocks)
    world.forger.inject(NodeFault.BRANCH, block=forged)
    world.follower(world.forger, world.honest)
    await world.poll()
    assert (await world.stand.network()).height == 6
    world.mine(1)
    world.forger.inject(NodeFault.BRANCH, block=world.mine(1, parent=forged, salt=9, paid=True))
    with pytest.raises(SourcesDisagree):
        await world.poll()
    assert (await world.stand.network()).height == 6
    await world.recover()


@pytest.mark.parametrize("finalized", [None, 9])
async def test_one_node_cannot_halt_a_network(world: World, finalized: int | None) -> None:
    """Only what nobody contradicts makes a person decide: a fork deeper than is safe, or below a final block.

    Bug planted: the halt follows from the first node's word.
    """
    world.mine(9)
    await world.stand.follow()
    await world.stand.rows("UPDATE networks SET finalized_height = $1", finalized)
    depth = 10 if finalized is None else 5
    fork = world.chain.at(world.chain.height - depth)
    assert fork is not None
    world.forger.inject(NodeFault.BRANCH, block=world.mine(depth, parent=fork.hash, salt=9))
    world.follower(world.forger, world.honest)
    for _ in range(2):
        with pytest.raises(SourcesDisagree):
            await world.poll()
    assert (await world.stand.network()).status == "degraded"
    await world.recover()
    forged = world.mine(depth, parent=fork.hash, salt=9)
    for node in (world.forger, world.honest):
        node.inject(NodeFault.BRANCH, block=forged)
    with pytest.raises(ReorgTooDeep):
        await world.poll()
    assert (await world.stand.network()).status == "halted"


async def test_a_node_that_often_fails_is_caught_up_with(world: World) -> None:
    """Every third block is not answered: batches become as small as what can be read, and grow again after.

    Bug planted: batches never become smaller; not a single block is ever read.
    """
    world.follower(world.honest)
    await world.poll()
    world.mine(40)
    world.honest.fails_each = 3
    troubles = 0
    while (await world.stand.network()).height != world.chain.height:
        try:
            await world.poll()
        except SourceError:
            troubles += 1
        assert troubles < 60
    assert troubles > 3
    world.honest.fails_each = 0
    world.mine(40)
    asked = 0
    while await world.poll():
        asked += 1
    assert asked < 8
    await world.recover()
