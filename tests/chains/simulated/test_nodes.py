"""F-NODE on simulated nodes: every fault is an error with a name, or told as it is; never "no payments"."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.chains.simulated.blocks import SimulatedBlock, Transaction, expected_hash
from tallystick.chains.simulated.chain import SimulatedChain
from tallystick.chains.simulated.nodes import NodeFault, SimulatedNode, inflate, leave_out
from tallystick.chains.simulated.source import ASIDE_QUESTIONS, SimulatedSource
from tallystick.chains.simulated.transactions import (
    UINT256_MAX,
    address_of,
    batch,
    contract_call,
    doing,
    failed,
    fee_on_transfer,
    instead_of,
    late_event,
    native,
    nothing_moved,
    token,
)
from tallystick.chains.source import ACCOUNTS_ASKED_MAX
from tallystick.core.balance import AccountState
from tallystick.core.chain import Block, BlockRef, Channel, Head, MempoolSnapshot, ObservedTransfer
from tallystick.core.errors import (
    BlockNotFound,
    ConfigurationError,
    SourceError,
    SourceIncomplete,
    SourcesDisagree,
    SourceUnavailable,
    WrongChain,
)
from tests.chains.simulated.networks import START, TOKEN, simulated_network

SHOP = address_of("shop")
OTHER_SHOP = address_of("other shop")
PAYER = address_of("payer")
WALLET = address_of("wallet contract")


@dataclass
class World:
    """Twelve blocks, then one with payments of every channel, and two nodes; `one` asks the first only."""

    chain: SimulatedChain
    first: SimulatedNode
    second: SimulatedNode
    one: SimulatedSource
    both: SimulatedSource
    nonces: int = 0
    payments: list[Transaction] = field(default_factory=list)

    def mine(self, *transactions: Transaction) -> SimulatedBlock:
        for transaction in transactions:
            self.chain.submit(transaction)
        time = self.chain.head.header.time + timedelta(seconds=12)
        return self.chain.mine(time, [one.hash for one in transactions])

    async def transfers(self, height: int | None = None) -> tuple[ObservedTransfer, ...]:
        return (await self.one.block_at(self.chain.height if height is None else height)).transfers


@pytest.fixture
def world() -> World:
    chain = SimulatedChain("net", "7001", START)
    first, second = (SimulatedNode(name, chain, safe_lag=2, finalized_lag=4) for name in ("node-1", "node-2"))
    network = simulated_network("net", "7001")
    world = World(
        chain, first, second, SimulatedSource(network, [first]), SimulatedSource(network, [first, second])
    )
    for _ in range(12):
        world.mine()
    world.payments = [
        native(PAYER, 0, SHOP, 5),
        batch(PAYER, 1, [(SHOP, 6), (OTHER_SHOP, 7)], contract=TOKEN),
        contract_call(PAYER, 2, WALLET, [(SHOP, 8)]),
    ]
    world.mine(*world.payments)
    return world


async def everything(source: SimulatedSource, height: int) -> tuple[object, ...]:
    """All that a follower could learn. Raises SourceError."""
    return (
        await source.identity(),
        await source.head(),
        await source.header_at(height),
        await source.block_at(height),
    )


# -- faults of whoever answers

BLOCK_FAULTS: dict[NodeFault, type[SourceError]] = {
    NodeFault.TIMEOUT: SourceUnavailable,
    NodeFault.UNAVAILABLE: SourceUnavailable,
    NodeFault.LIMITED: SourceUnavailable,
    NodeFault.TRUNCATED: SourceIncomplete,
    NodeFault.EMPTIED: SourceIncomplete,
    NodeFault.DOUBLED: SourceIncomplete,
    NodeFault.SWAPPED: SourceIncomplete,
    NodeFault.RELINKED: SourceIncomplete,
    NodeFault.OTHER_HEIGHT: SourceIncomplete,
    NodeFault.NOT_FOUND: BlockNotFound,
    NodeFault.REWOUND: BlockNotFound,
}
CONTRADICTED = (NodeFault.FORGED, NodeFault.BRANCH)
NO_FAULT_OF_BLOCKS = (
    NodeFault.UNTRACED,
    NodeFault.NO_STATE,
    NodeFault.STUCK,
    NodeFault.WRONG_CHAIN,
    NodeFault.NO_MEMPOOL,
    NodeFault.FORGETFUL,
    NodeFault.SPEECHLESS,
    NodeFault.DEAF_MEMPOOL,
)


def test_every_fault_is_looked_at_here() -> None:
    assert {*BLOCK_FAULTS, *CONTRADICTED, *NO_FAULT_OF_BLOCKS} == set(NodeFault)


@pytest.mark.parametrize("fault", BLOCK_FAULTS)
async def test_a_fault_of_blocks_is_an_error_and_passes(world: World, fault: NodeFault) -> None:
    """Bugs planted: `checked_block` without one of its three comparisons; null taken for an empty block."""
    height = world.chain.height
    before = await world.one.block_at(height)
    assert len(before.transfers) == 4
    world.first.inject(fault)
    for _ in range(2):
        with pytest.raises(BLOCK_FAULTS[fault]):
            await world.one.block_at(height)
    world.first.clear()
    assert await world.one.block_at(height) == before
    world.first.inject(fault, answers=1)
    with pytest.raises(BLOCK_FAULTS[fault]):
        await world.one.block_at(height)
    assert not world.first.faults
    assert await world.one.block_at(height) == before


@pytest.mark.parametrize("fault", BLOCK_FAULTS)
async def test_the_other_node_steps_in(world: World, fault: NodeFault) -> None:
    height = world.chain.height
    before = await world.both.block_at(height)
    world.first.inject(fault)
    assert await world.both.block_at(height) == before
    first, second = world.both.nodes()
    assert second.ok
    assert first.ok == (BLOCK_FAULTS[fault] is BlockNotFound)  # a node that lags is not a broken one


async def test_empty_blocks_have_nothing_to_truncate(world: World) -> None:
    world.mine()
    before = await world.one.block_at(world.chain.height)
    for fault in (NodeFault.TRUNCATED, NodeFault.EMPTIED, NodeFault.DOUBLED, NodeFault.SWAPPED):
        world.first.inject(fault, answers=1)
    assert await world.one.block_at(world.chain.height) == before
    assert len(world.first.faults) == 4  # no answer was spoiled


@pytest.mark.parametrize("fault", [NodeFault.TRUNCATED, NodeFault.DOUBLED])
@pytest.mark.parametrize("payment", range(3))
async def test_each_kind_of_move_is_missed(world: World, fault: NodeFault, payment: int) -> None:
    """Also where the last transaction failed or moved nothing, and where an inner move is missing."""
    one = world.payments[payment]
    moved = doing(native(PAYER, 9, SHOP, 1), one.moves)
    world.mine(moved, failed(native(PAYER, 10, SHOP, 1)))
    world.first.inject(fault)
    with pytest.raises(SourceIncomplete):
        await world.one.block_at(world.chain.height)
    world.mine(failed(native(PAYER, 11, SHOP, 1)))
    with pytest.raises(SourceIncomplete):
        await world.one.block_at(world.chain.height)


async def test_limits_say_when_to_come_back(world: World) -> None:
    world.first.inject(NodeFault.LIMITED, retry_after_seconds=30)
    with pytest.raises(SourceUnavailable) as caught:
        await world.one.head()
    assert caught.value.retry_after_seconds == 30


async def test_a_failed_node_is_put_aside_and_comes_back(world: World) -> None:
    """Another node is asked first for a while, then the configured order holds again."""
    await world.both.identity()
    world.first.inject(NodeFault.TIMEOUT, answers=1)
    world.second.inject(NodeFault.REWOUND, depth=3)
    heads = [(await world.both.head()).header.height for _ in range(ASIDE_QUESTIONS + 2)]
    assert heads == [10] * ASIDE_QUESTIONS + [13, 13]


# -- faults of the view


async def test_a_stuck_node_shows_what_it_had(world: World) -> None:
    before = await everything(world.one, 13)
    world.first.inject(NodeFault.STUCK)
    lost = world.mine()
    assert await everything(world.one, 13) == before
    with pytest.raises(BlockNotFound):
        await world.one.block_at(lost.header.height)
    assert (await world.both.block_at(14)).header == lost.header
    world.chain.adopt(world.chain.genesis.hash)
    assert (
        await world.one.header_at(13)
    ).hash == lost.header.parent_hash  # stuck also on the branch that was lost


async def test_a_rewound_head_is_told_as_it_is(world: World) -> None:
    world.first.inject(NodeFault.REWOUND, depth=5)
    head = await world.one.head()
    at = world.chain.at(8)
    assert at is not None
    assert head == Head(at.header, 6, 4)
    world.first.inject(NodeFault.REWOUND, depth=500)
    assert await world.one.head() == Head(world.chain.genesis.header, 0, 0)


async def test_markers_follow_the_head_or_say_nothing(world: World) -> None:
    assert await world.one.head() == Head(world.chain.head.header, 11, 9)
    world.first.safe_lag = None
    assert await world.one.head() == Head(world.chain.head.header, None, 9)
    untagged = SimulatedSource(simulated_network("net", "7001", finality_tags=False), [world.first])
    assert await untagged.head() == Head(world.chain.head.header)


@pytest.mark.parametrize("forgery", [leave_out, inflate])
async def test_a_forgery_is_consistent_and_only_contradicted(
    world: World, forgery: Callable[[tuple[Transaction, ...]], tuple[Transaction, ...]]
) -> None:
    """One node alone cannot be caught at it; with two, nothing is agreed upon until one of them yields.

    Bug planted: `confirm_agreement` compares heights, not hashes.
    """
    before = await world.both.block_at(13)
    world.first.inject(NodeFault.FORGED, height=13, forgery=forgery)
    for _ in range(3):
        world.mine()
    forged = [await world.one.block_at(height) for height in range(17)]
    for parent, child in pairwise(forged):
        assert child.header.parent_hash == parent.header.hash
    assert forged[13].transfers != before.transfers
    assert (await world.one.head()).header == forged[16].header
    for height in range(13, 17):
        with pytest.raises(SourcesDisagree):
            await world.both.confirm_agreement(await world.both.header_at(height))
    await world.both.confirm_agreement(await world.both.header_at(12))
    world.first.clear()
    assert await world.both.block_at(13) == before
    await world.both.confirm_agreement(before.header)
    assert all(expected_hash(block) == block.hash for block in world.chain.blocks.values())


async def test_a_node_on_another_branch_is_contradicted_and_told_in_full(world: World) -> None:
    parent = world.chain.at(12)
    assert parent is not None
    side = world.chain.mine(parent.header.time, [], parent=parent.hash, salt=7)
    world.first.inject(NodeFault.BRANCH, block=side.hash)
    assert (await world.both.head()).header == side.header
    assert (await world.both.block_at(13)).transfers == ()
    with pytest.raises(SourcesDisagree):
        await world.both.confirm_agreement(side.header)
    world.second.inject(NodeFault.BRANCH, block=side.hash)
    await world.both.confirm_agreement(side.header)


@pytest.mark.parametrize("fault", [NodeFault.TIMEOUT, NodeFault.NOT_FOUND, NodeFault.REWOUND])
async def test_silence_and_lag_are_no_disagreement(world: World, fault: NodeFault) -> None:
    await world.both.identity()
    header = await world.both.header_at(13)
    world.second.inject(fault)
    await world.both.confirm_agreement(header)


async def test_another_chain_is_refused_until_it_is_put_right(world: World) -> None:
    """Neither its blocks nor another node's: a person has to look. Its first block tells, if its id does not."""
    await everything(world.both, 13)
    twin = SimulatedChain("twin", "7001", START)
    for other in (None, twin):
        world.first.inject(NodeFault.WRONG_CHAIN, chain=other)
        with pytest.raises(WrongChain):
            await world.both.identity()
        for _ in range(2):
            with pytest.raises(WrongChain):
                await world.both.block_at(13)
            with pytest.raises(WrongChain):
                await world.both.head()
        assert not world.both.nodes()[0].ok
        world.first.clear()
        assert (await world.both.block_at(13)).header == world.chain.head.header
        assert world.both.nodes()[0].ok


async def test_a_node_back_on_another_chain_is_refused(world: World) -> None:
    await world.one.identity()
    world.first.inject(NodeFault.TIMEOUT, answers=1)
    with pytest.raises(SourceUnavailable):
        await world.one.head()
    world.first.inject(NodeFault.WRONG_CHAIN)
    with pytest.raises(WrongChain):
        await world.one.block_at(0)


async def test_identity_needs_one_node_that_answers(world: World) -> None:
    world.first.inject(NodeFault.UNAVAILABLE)
    assert (await world.both.identity()).genesis_hash == world.chain.genesis.hash
    world.second.inject(NodeFault.TIMEOUT)
    with pytest.raises(SourceUnavailable):
        await world.both.identity()
    with pytest.raises(ConfigurationError):
        SimulatedSource(simulated_network("net", "1"), [])


async def test_nodes_are_shown_with_their_trouble(world: World) -> None:
    assert all(not node.ok and node.problem for node in world.both.nodes())
    await world.both.head()
    assert [(node.name, node.ok, node.height) for node in world.both.nodes()] == [
        ("node-1", True, 13),
        ("node-2", False, None),
    ]


# -- what transactions do


def amounts(transfers: tuple[ObservedTransfer, ...], to: str = SHOP) -> list[tuple[str, int, int]]:
    return [(one.channel.value, one.ordinal, one.amount) for one in transfers if one.to == to]


async def test_moves_are_told_with_channel_ordinal_and_place_in_the_block(world: World) -> None:
    world.mine(
        token(PAYER, 20, TOKEN, SHOP, 1),
        late_event(PAYER, 21, TOKEN, SHOP, 2),
        token(PAYER, 22, TOKEN, SHOP, 3),
    )
    transfers = await world.transfers()
    assert amounts(transfers) == [("log", 0, 1), ("log", 1, 2), ("log", 0, 3)]
    assert [one.log_index for one in transfers] == [0, 2, 3]
    inner = (await world.transfers(13))[-1]
    assert (inner.channel, inner.sender, inner.spend_keys) == (Channel.TRACE, WALLET, (f"{PAYER}:2",))


@pytest.mark.parametrize(
    ("transaction", "announced", "arrived"),
    [
        (native(PAYER, 9, SHOP, 5), [("value", 0, 5)], [("value", 0, 5)]),
        (native(PAYER, 9, SHOP, 0), [], []),
        (token(PAYER, 9, TOKEN, SHOP, UINT256_MAX), [("log", 0, UINT256_MAX)], [("log", 0, UINT256_MAX)]),
        (token(PAYER, 9, address_of("impostor"), SHOP, 5), [("log", 0, 5)], [("log", 0, 5)]),
        (fee_on_transfer(PAYER, 9, TOKEN, SHOP, 100, 3), [("log", 0, 100)], [("log", 0, 97)]),
        (late_event(PAYER, 9, TOKEN, SHOP, 5), [("log", 0, 5)], [("log", 1, 5)]),
        (nothing_moved(PAYER, 9, TOKEN, SHOP, 5), [("log", 0, 5)], []),
        (failed(native(PAYER, 9, SHOP, 5)), [("value", 0, 5)], []),
        (failed(token(PAYER, 9, TOKEN, SHOP, 5)), [("log", 0, 5)], []),
        (batch(PAYER, 9, [(SHOP, 1), (SHOP, 2)], contract=TOKEN), [], [("log", 0, 1), ("log", 1, 2)]),
        (contract_call(PAYER, 9, WALLET, [(SHOP, 1), (SHOP, 2)]), [], [("trace", 0, 1), ("trace", 1, 2)]),
    ],
)
async def test_what_is_announced_and_what_arrives(
    world: World,
    transaction: Transaction,
    announced: list[tuple[str, int, int]],
    arrived: list[tuple[str, int, int]],
) -> None:
    """Whatever it does, it uses up its spend key, and of nothing moved there is no transfer."""
    await world.one.head()
    world.chain.submit(transaction)
    snapshot = await world.one.mempool()
    assert amounts(snapshot.transfers) == announced
    assert snapshot.spends == {transaction.spend_key: transaction.hash}
    world.mine(transaction)
    block = await world.one.block_at(world.chain.height)
    assert amounts(block.transfers) == arrived
    assert block.spends == {transaction.spend_key: transaction.hash}


def test_transactions_of_other_parts_are_others() -> None:
    same = {native(PAYER, 9, SHOP, 5).hash, native(PAYER, 9, SHOP, 5).hash}
    others = {
        native(PAYER, 9, SHOP, 5, salt=1).hash,
        native(PAYER, 8, SHOP, 5).hash,
        native(SHOP, 9, SHOP, 5).hash,
        native(PAYER, 9, SHOP, 6).hash,
        nothing_moved(PAYER, 9, TOKEN, SHOP, 5).hash,
        nothing_moved(PAYER, 9, TOKEN, SHOP, 6).hash,
        contract_call(PAYER, 9, WALLET, [(SHOP, 5)]).hash,
        contract_call(PAYER, 9, SHOP, [(SHOP, 5)]).hash,
    }
    assert len(same | others) == 9
    assert failed(native(PAYER, 9, SHOP, 5)).hash in same


# -- balances


async def test_untraced_value_shows_in_the_balance_only(world: World) -> None:
    """And a block's own reward shows nowhere else on any node. A plain block of an untraced node lacks nothing."""
    ref = world.chain.head.header.ref
    world.first.inject(NodeFault.UNTRACED)
    block = await world.one.block_at(13)
    assert amounts(block.transfers) == [("value", 0, 5), ("log", 0, 6)]
    assert block.untraced
    assert await world.one.accounts_at(ref, [SHOP, PAYER]) == [AccountState(13, 0), AccountState(0, 3)]
    time = world.chain.head.header.time
    world.chain.mine(time, [], rewards=((SHOP, 100),))
    world.mine(native(PAYER, 5, SHOP, 1))
    for height in (14, 15):
        assert (await world.one.block_at(height)).untraced is None
    states = await world.one.accounts_at(world.chain.head.header.ref, [SHOP])
    assert states == [AccountState(114, 0)]


async def test_an_untraced_node_cannot_slip_something_else_out(world: World) -> None:
    world.first.inject(NodeFault.UNTRACED)
    world.first.inject(NodeFault.TRUNCATED)
    with pytest.raises(SourceIncomplete):
        await world.one.block_at(13)


async def test_balances_come_from_a_node_that_has_the_block(world: World) -> None:
    ref = world.chain.head.header.ref
    for fault in (NodeFault.NO_STATE, NodeFault.REWOUND, NodeFault.TIMEOUT):
        world.first.inject(fault)
        with pytest.raises(SourceUnavailable):
            await world.one.accounts_at(ref, [SHOP])
        assert await world.both.accounts_at(ref, [SHOP]) == [AccountState(13, 0)]
        world.first.clear()
    with pytest.raises(SourceUnavailable):
        await world.one.accounts_at(BlockRef("0x" + "ee" * 32, 13), [SHOP])
    with pytest.raises(ValueError, match="More addresses"):
        await world.one.accounts_at(ref, [SHOP] * (ACCOUNTS_ASKED_MAX + 1))


# -- mempools


async def snapshot_of(source: SimulatedSource, *asked: Transaction) -> MempoolSnapshot:
    await source.head()
    return await source.mempool([one.hash for one in asked])


async def test_mempools_of_nodes_differ(world: World) -> None:
    common, rival = native(PAYER, 30, SHOP, 1), native(PAYER, 30, SHOP, 2)
    hidden, mined = native(PAYER, 31, SHOP, 3), world.payments[0]
    for one in (common, hidden):
        world.chain.submit(one)
    world.first.withhold(hidden.hash)
    world.first.whisper(rival)
    snapshot = await snapshot_of(world.one, common, rival, hidden, mined)
    assert snapshot.spends == {rival.spend_key: rival.hash}
    assert snapshot.present == {rival.hash, mined.hash}
    assert snapshot.missing == {common.hash, hidden.hash}
    other = await snapshot_of(
        SimulatedSource(simulated_network("net", "7001"), [world.second]), common, rival
    )
    assert other.present == {common.hash}
    assert other.missing == {rival.hash}
    world.first.equalize()
    assert (await snapshot_of(world.one)).spends.keys() == {common.spend_key, hidden.spend_key}
    world.first.whisper(rival)
    world.mine(instead_of(rival, SHOP, 4))
    assert rival.hash not in (await snapshot_of(world.one)).spends.values()


@pytest.mark.parametrize(
    ("fault", "shown", "present", "missing"),
    [
        (None, True, True, False),
        (NodeFault.NO_MEMPOOL, False, True, False),
        (NodeFault.FORGETFUL, False, False, True),
        (NodeFault.SPEECHLESS, True, True, False),
    ],
)
async def test_mempool_faults(
    world: World, fault: NodeFault | None, shown: bool, present: bool, missing: bool
) -> None:
    """Every combination of shown, known and not known that a real node may give. Unknown is not the same as gone."""
    waiting, gone = native(PAYER, 30, SHOP, 1), native(PAYER, 31, SHOP, 1)
    for one in (waiting, gone):
        world.chain.submit(one)
    world.chain.drop(gone.hash)
    if fault is not None:
        world.first.inject(fault)
    snapshot = await snapshot_of(world.one, waiting, gone)
    assert (waiting.hash in snapshot.spends.values()) is shown
    assert (waiting.hash in snapshot.present) is present
    assert (waiting.hash in snapshot.missing) is missing
    assert (gone.hash in snapshot.missing) is (fault is not NodeFault.SPEECHLESS)
    assert snapshot.head == world.chain.head.header.ref


async def test_a_mempool_that_does_not_answer_is_no_reason_to_leave_the_node(world: World) -> None:
    with pytest.raises(SourceUnavailable):
        await world.one.mempool()  # no node is in use yet
    await world.one.head()
    world.first.inject(NodeFault.DEAF_MEMPOOL)
    with pytest.raises(SourceUnavailable):
        await world.one.mempool()
    assert world.one.nodes()[0].ok


async def test_a_lagging_node_shows_its_mempool_on_its_own_head(world: World) -> None:
    world.first.inject(NodeFault.STUCK)
    head = world.chain.head
    world.mine()
    assert (await snapshot_of(world.one)).head == head.header.ref


# -- everything at once


@settings(max_examples=150, deadline=None)
@given(
    faults=st.lists(
        st.tuples(st.sampled_from(list(NodeFault)), st.integers(0, 1), st.integers(1, 3)), max_size=6
    ),
    height=st.integers(0, 14),
)
def test_any_faults_together_give_the_truth_or_an_error(
    faults: list[tuple[NodeFault, int, int]], height: int
) -> None:
    """What was agreed upon is the true block, with inner moves or saying that they are untold. Only two liars,
    or one whose contradictor is in trouble itself, may pass. Once all faults are over, everything is as it was.

    Bugs planted: `checked_block` that believes the digest it is given; `_hash_at` that answers what it is asked about.
    """
    world = _world()
    truth = [_read(world.both, number) for number in range(world.chain.height + 1)]
    liars = {place for fault, place, _ in faults if fault in CONTRADICTED}
    troubled = {place for _, place, _ in faults}
    side = list(world.chain.blocks)[-1]
    for fault, place, answers in faults:
        node = (world.first, world.second)[place]
        node.inject(fault, answers=answers * 7, depth=answers, height=10, block=side)
    for _ in range(4):
        try:
            found = asyncio.run(_agreed(world.both, height))
        except SourceError:
            continue
        if not liars or len(troubled) == 1:
            assert found == _as_told(truth[height], found.untraced)
    world.first.clear()
    world.second.clear()
    assert [_read(world.both, number) for number in range(world.chain.height + 1)] == truth


def _as_told(truth: Block, untraced: str | None) -> Block:
    """The true block, as a node without traces may tell it."""
    if untraced is None:
        return truth
    told = tuple(one for one in truth.transfers if one.channel is not Channel.TRACE)
    return replace(truth, transfers=told, untraced=untraced)


def _world() -> World:
    chain = SimulatedChain("net", "7001", START)
    first, second = (SimulatedNode(name, chain) for name in ("node-1", "node-2"))
    network = simulated_network("net", "7001")
    world = World(
        chain, first, second, SimulatedSource(network, [first]), SimulatedSource(network, [first, second])
    )
    for number in range(14):
        world.mine(
            native(PAYER, 3 * number, SHOP, 5), contract_call(PAYER, 3 * number + 1, WALLET, [(SHOP, 8)])
        )
    return world


def _read(source: SimulatedSource, height: int) -> Block:
    return asyncio.run(source.block_at(height))


async def _agreed(source: SimulatedSource, height: int) -> Block:
    await source.identity()
    await source.head()
    block = await source.block_at(height)
    await source.confirm_agreement(block.header)
    return block
