"""The simulated chain is a chain: whatever is mined, forked, adopted, dropped and submitted, in whatever order."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tallystick.chains.simulated.blocks import (
    NO_PARENT,
    SimulatedBlock,
    Transaction,
    build_block,
    content_digest,
    expected_hash,
    inner_digest,
)
from tallystick.chains.simulated.chain import Impossible, SimulatedChain
from tallystick.chains.simulated.transactions import (
    address_of,
    batch,
    contract_call,
    doing,
    failed,
    fee_on_transfer,
    instead_of,
    native,
    token,
)
from tests.chains.simulated.networks import START, TOKEN

SHOP = address_of("shop")
ADDRESSES = [SHOP, address_of("other shop"), address_of("a"), address_of("b")]
SENDERS = ADDRESSES[1:]


def later(block: SimulatedBlock, seconds: int = 12) -> datetime:
    return block.header.time + timedelta(seconds=seconds)


def extend(chain: SimulatedChain, *tx_hashes: str, blocks: int = 1) -> SimulatedBlock:
    """Mine these, then empty blocks, on the head."""
    block = chain.mine(later(chain.head), tx_hashes)
    for _ in range(blocks - 1):
        block = chain.mine(later(chain.head), ())
    return block


def fork(chain: SimulatedChain, parent: str, *contents: tuple[str, ...], salt: int = 1) -> SimulatedBlock:
    """Blocks with these transactions above `parent`, beside whatever is there."""
    block = chain.block(parent)
    for content in contents:
        block = chain.mine(later(block), content, parent=block.hash, salt=salt)
    return block


@pytest.fixture
def chain() -> SimulatedChain:
    return SimulatedChain("net", "1", START)


# -- what blocks commit to


def test_the_same_calls_give_the_same_hashes_everywhere() -> None:
    """Written down once: another machine, another Python, another day give the same."""
    chain = SimulatedChain("net", "1", START)
    chain.submit(token(SENDERS[0], 0, TOKEN, SHOP, 5))
    block = chain.mine(later(chain.head))
    assert SHOP == "0x03042efbe926c26aa975cd99442a41161742ceea"
    assert chain.genesis.hash == "0x572a0830bd2e57ad27e2a84c17c469b4d917abc39bf8975e85082001ef7c6cc2"
    assert block.hash == "0xec57c208800da11645eb48168094c3bf44c6b849c4bb3d89d7e01ab30c4c4700"


def test_chains_differ_in_name_id_and_time() -> None:
    chains = [
        SimulatedChain("net", "1", START),
        SimulatedChain("net", "2", START),
        SimulatedChain("net2", "1", START),
        SimulatedChain("net", "1", START + timedelta(seconds=1)),
    ]
    assert len({chain.genesis.hash for chain in chains}) == 4
    assert all(chain.genesis.header.parent_hash == NO_PARENT for chain in chains)


def test_a_hash_commits_to_everything_in_the_block(chain: SimulatedChain) -> None:
    """Bug planted: `succeeds`, a move's source or the rewards left out of the digest; two blocks are one."""
    parent = chain.head.header
    one = contract_call(SENDERS[0], 0, address_of("wallet"), [(SHOP, 5)])
    two = token(SENDERS[1], 3, TOKEN, SHOP, 7)
    other_moves = [
        replace(move, **change)
        for move in two.moves
        for change in (
            {"to": ADDRESSES[1]},
            {"contract": SHOP},
            {"amount": 8},
            {"ordinal": 1},
            {"source": SHOP},
        )
    ]
    contents = [
        (),
        (one,),
        (two,),
        (one, two),
        (two, one),
        (replace(one, moves=()), two),
        (one, replace(two, moves=two.moves * 2)),
        (one, failed(two)),
        (failed(one), two),
        (one, replace(two, nonce=4)),
        *[(one, doing(two, [move])) for move in other_moves],
        (doing(one, [replace(one.moves[0], amount=6)]), two),
        (doing(one, [replace(one.moves[0], source=SHOP)]), two),
    ]
    blocks = [build_block(parent, later(chain.head), content) for content in contents]
    content = (one, two)
    blocks += [
        build_block(parent, later(chain.head), content, salt=1),
        build_block(parent, later(chain.head), content, rewards=((SHOP, 1),)),
        build_block(parent, later(chain.head, 13), content),
        build_block(blocks[0].header, later(chain.head), content),
        build_block(None, later(chain.head), content),
    ]
    assert len({block.hash for block in blocks}) == len(blocks)
    assert len({block.hash for block in blocks if expected_hash(block) == block.hash}) == len(blocks)


def test_the_same_content_on_the_same_parent_is_the_same_block(chain: SimulatedChain) -> None:
    first = fork(chain, chain.genesis.hash, ())
    assert fork(chain, chain.genesis.hash, ()) is not None
    assert len(chain.blocks) == 2
    assert extend(chain).hash != first.hash  # another salt
    assert len(chain.blocks) == 3


# -- the mempool


def test_a_replaced_transaction_waits_no_more_and_can_still_be_mined(chain: SimulatedChain) -> None:
    first = native(SENDERS[0], 0, SHOP, 5)
    second = instead_of(first, SHOP, 1)
    chain.submit(first)
    chain.submit(second)
    assert list(chain.mempool) == [second.hash]
    extend(chain, first.hash)
    assert not chain.mempool
    assert chain.place(first.hash) is chain.head
    assert chain.place(second.hash) is None
    chain.submit(second)
    assert not chain.mempool  # there is no room for it in this branch


def test_dropped_is_not_forgotten(chain: SimulatedChain) -> None:
    payment = native(SENDERS[0], 0, SHOP, 5)
    chain.submit(payment)
    chain.drop(payment.hash)
    chain.drop(payment.hash)
    assert not chain.mempool
    assert chain.mine(later(chain.head)).transactions == ()
    assert extend(chain, payment.hash).transactions == (payment,)


def test_what_was_never_submitted_or_is_used_up_cannot_be_mined(chain: SimulatedChain) -> None:
    """Bug planted: the check of spend keys within one block only; a payment is mined twice."""
    payment = native(SENDERS[0], 0, SHOP, 5)
    with pytest.raises(Impossible):
        chain.mine(later(chain.head), [payment.hash])
    chain.submit(payment)
    other = instead_of(payment, SHOP, 1)
    chain.submit(other)
    with pytest.raises(Impossible):
        chain.mine(later(chain.head), [payment.hash, other.hash])
    extend(chain, payment.hash)
    for tx_hash in (payment.hash, other.hash):
        with pytest.raises(Impossible):
            chain.mine(later(chain.head), [tx_hash])
    assert chain.minable([payment.hash, other.hash]) == ()
    assert chain.minable([other.hash, payment.hash], parent=chain.genesis.hash) == (other.hash,)


def test_times_that_no_block_could_have_are_refused(chain: SimulatedChain) -> None:
    time = chain.head.header.time
    for wrong in (time - timedelta(seconds=1), time.replace(tzinfo=None), time + timedelta(microseconds=1)):
        with pytest.raises(Impossible):
            chain.mine(wrong)
    assert chain.mine(time).header.time == time


def test_a_hash_cannot_change_what_it_spends(chain: SimulatedChain) -> None:
    payment = native(SENDERS[0], 0, SHOP, 5)
    chain.submit(payment)
    with pytest.raises(Impossible):
        chain.submit(replace(payment, nonce=1))


def test_a_transaction_may_do_something_else_where_it_is_mined_again(chain: SimulatedChain) -> None:
    """Both blocks stay as they were: what was mined is never edited."""
    payment = token(SENDERS[0], 0, TOKEN, SHOP, 5)
    chain.submit(payment)
    first = extend(chain, payment.hash)
    chain.submit(failed(payment))
    second = fork(chain, chain.genesis.hash, (payment.hash,))
    assert first.transactions[0].done == payment.moves
    assert second.transactions[0].done == ()
    assert first.hash != second.hash


# -- forks


def test_what_a_lost_branch_held_waits_again(chain: SimulatedChain) -> None:
    kept, lost, beaten, dropped = (
        native(sender, n, SHOP, 5) for n, sender in enumerate([*SENDERS, SENDERS[0]])
    )
    waiting = native(SENDERS[1], 9, SHOP, 1)
    rival = instead_of(beaten, SHOP, 1)
    for transaction in (kept, lost, beaten, dropped, rival, waiting):
        chain.submit(transaction)
    extend(chain, kept.hash)
    extend(chain, lost.hash, beaten.hash, dropped.hash)
    assert list(chain.mempool) == [waiting.hash]
    shorter = fork(chain, chain.genesis.hash, (kept.hash, rival.hash))
    chain.adopt(shorter.hash, lose=[dropped.hash])
    assert chain.head is shorter
    assert chain.height == 1
    assert list(chain.mempool) == [lost.hash, waiting.hash]
    assert chain.place(rival.hash) is shorter
    assert chain.spender(beaten.spend_key) == rival.hash


def test_rivals_go_and_come_with_their_branches(chain: SimulatedChain) -> None:
    """What goes and comes back with branches: never two that spend the same. Bug planted: what a branch that comes
    back holds stays in the mempool."""
    payment = native(SENDERS[0], 0, SHOP, 5)
    rival = instead_of(payment, SHOP, 1)
    chain.submit(payment)
    lost = extend(chain, payment.hash)
    chain.adopt(chain.genesis.hash)
    chain.submit(rival)
    chain.adopt(lost.hash)
    assert not chain.mempool
    chain.adopt(fork(chain, chain.genesis.hash, ()).hash)
    assert list(chain.mempool) == [payment.hash]


def test_any_block_can_be_looked_up_in_any_branch(chain: SimulatedChain) -> None:
    best = [chain.genesis, *(extend(chain) for _ in range(6))]
    side = fork(chain, best[2].hash, (), (), ())
    assert [chain.at(n, side.hash) for n in range(3)] == best[:3]
    assert chain.at(5, side.hash) is side
    assert chain.at(6, side.hash) is None
    assert chain.at(6) is best[6]
    assert chain.at(7) is chain.at(-1) is None
    chain.adopt(side.hash)
    assert [chain.at(n, best[6].hash) for n in range(7)] == best
    assert [one.hash for one in chain.branch()][::-1] == [chain.at(n).hash for n in range(6)]  # type: ignore[union-attr]
    assert chain.is_below(best[2].hash, side.hash)
    assert not chain.is_below(best[3].hash, side.hash)


def test_balances_are_those_of_the_branch(chain: SimulatedChain) -> None:
    payment = native(SENDERS[0], 0, SHOP, 5)
    spent = native(SHOP, 0, SENDERS[1], 2)
    tokens = token(SENDERS[1], 0, TOKEN, SHOP, 100)
    inner = contract_call(SENDERS[2], 0, address_of("wallet"), [(SHOP, 3), (SHOP, 4)])
    for one in (payment, tokens, spent, inner):
        chain.submit(one)
    first = extend(chain, payment.hash, tokens.hash)
    second = chain.mine(later(first), [spent.hash, inner.hash], rewards=((SHOP, 10),))
    assert [chain.balance(SHOP, at) for at in (chain.genesis.hash, first.hash, second.hash)] == [0, 5, 20]
    assert [chain.nonce(SHOP, at) for at in (first.hash, second.hash)] == [0, 1]
    chain.submit(failed(payment))
    other = fork(chain, chain.genesis.hash, (payment.hash,))
    assert chain.balance(SHOP, other.hash) == 0
    assert chain.nonce(SENDERS[0], other.hash) == 1


# -- everything at once


class AnyHistory(RuleBasedStateMachine):
    """Any order of submitting, replacing, dropping, mining, forking and adopting.

    Bugs planted, each found: `mine` without the check of the branch's spend keys; `adopt` that leaves what the new
    branch spent in the mempool; `_kept` that counts failed moves; `at` that reads the best chain for any branch.
    """

    @initialize(seed=st.integers(0, 2**16))
    def start(self, seed: int) -> None:
        self.chain = SimulatedChain("net", "1", START)
        self.seen: dict[str, SimulatedBlock] = {}
        self.random = random.Random(seed)

    def tree(self, pick: int) -> SimulatedBlock:
        """Some block of the tree, the newer ones as likely as the head."""
        blocks = list(self.chain.blocks.values())[-6:]
        return blocks[pick % len(blocks)]

    @rule(
        sender=st.sampled_from(SENDERS),
        nonce=st.integers(0, 2),
        kind=st.integers(0, 4),
        amount=st.integers(0, 3),
    )
    def submit(self, sender: str, nonce: int, kind: int, amount: int) -> None:
        made: list[Transaction] = [
            native(sender, nonce, SHOP, amount),
            token(sender, nonce, TOKEN, SHOP, amount),
            contract_call(sender, nonce, ADDRESSES[3], [(SHOP, amount), (ADDRESSES[1], 1)]),
            batch(sender, nonce, [(SHOP, amount), (SHOP, 2)], contract=TOKEN),
            failed(native(sender, nonce, SHOP, amount)),
        ]
        self.chain.submit(made[kind])

    @rule(pick=st.integers(0, 50))
    def drop(self, pick: int) -> None:
        if self.chain.known:
            self.chain.drop(list(self.chain.known)[pick % len(self.chain.known)])

    @rule()
    def mine_all(self) -> None:
        before = self.chain.head
        block = self.chain.mine(later(before))
        assert block.header.parent_hash == before.hash
        assert self.chain.head is block
        assert not self.chain.mempool

    @rule(pick=st.integers(0, 50), salt=st.integers(0, 2))
    def mine_some(self, pick: int, salt: int) -> None:
        known = list(self.chain.known)
        self.random.shuffle(known)
        chosen = self.chain.minable(known[: pick % 4])
        self.chain.mine(later(self.chain.head), chosen, salt=salt)

    @rule(pick=st.integers(0, 50), salt=st.integers(0, 2), count=st.integers(0, 3))
    def mine_beside(self, pick: int, salt: int, count: int) -> None:
        parent = self.tree(pick)
        known = list(self.chain.known)
        self.random.shuffle(known)
        chosen = self.chain.minable(known[:count], parent=parent.hash)
        head = self.chain.head
        waiting = list(self.chain.mempool)
        self.chain.mine(later(parent), chosen, parent=parent.hash, salt=salt)
        assert self.chain.head is head
        assert list(self.chain.mempool) == waiting

    @rule(pick=st.integers(0, 50), lose=st.booleans())
    def adopt(self, pick: int, lose: bool) -> None:
        target = self.tree(pick)
        before = {one.hash: one for block in self.chain.branch() for one in block.transactions}
        waited = dict(self.chain.mempool)
        self.chain.adopt(target.hash, lose=list(before) if lose else ())
        assert self.chain.head is target
        after = {one.hash for block in self.chain.branch() for one in block.transactions}
        keys = {self.chain.known[tx_hash].spend_key for tx_hash in after}
        for tx_hash, one in waited.items():
            assert (tx_hash in self.chain.mempool) == (one.spend_key not in keys)
        for tx_hash, one in before.items():
            free = one.spend_key not in keys and all(
                other.spend_key != one.spend_key for other in waited.values()
            )
            if tx_hash not in waited:
                assert (tx_hash in self.chain.mempool) == (free and not lose)

    @invariant()
    def blocks_never_change_and_commit_to_what_they_hold(self) -> None:
        for block_hash, block in self.chain.blocks.items():
            assert self.seen.setdefault(block_hash, block) is block
            assert expected_hash(block) == block_hash == block.hash
            assert content_digest(block.transactions, block.rewards) == block.digest
            assert inner_digest(block.transactions) == block.inner

    @invariant()
    def along_every_branch_keys_are_used_once_and_balances_are_sums(self) -> None:
        for end in list(self.chain.blocks)[-4:]:
            branch = list(self.chain.branch(end))[::-1]
            keys: Counter[str] = Counter()
            balances: Counter[str] = Counter()
            for height, block in enumerate(branch):
                assert block.header.height == height
                assert self.chain.at(height, end) is block
                if height:
                    assert block.header.parent_hash == branch[height - 1].hash
                    assert block.header.time >= branch[height - 1].header.time
                for one in block.transactions:
                    keys[one.spend_key] += 1
                    assert self.chain.place(one.hash, end) is block
                    for move in one.moves if one.succeeds else ():
                        if move.contract is None:
                            balances[move.to] += move.amount
                            balances[move.source or one.sender] -= move.amount
            assert set(keys.values()) <= {1}
            assert sum(balances.values()) == 0
            for address in ADDRESSES:
                assert self.chain.balance(address, end) == balances[address]
                nonces = sum(key.startswith(f"{address}:") for key in keys)
                assert self.chain.nonce(address, end) == nonces
            assert self.chain.at(len(branch), end) is None

    @invariant()
    def nothing_waits_that_could_not_be_mined(self) -> None:
        waiting = list(self.chain.mempool.values())
        assert len({one.spend_key for one in waiting}) == len(waiting)
        assert self.chain.minable() == tuple(one.hash for one in waiting)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


def test_a_fee_is_kept_by_the_contract(chain: SimulatedChain) -> None:
    payment = fee_on_transfer(SENDERS[0], 0, TOKEN, SHOP, 100, 3)
    assert [(move.to, move.amount) for move in payment.announced] == [(SHOP, 100)]
    assert [(move.to, move.amount) for move in payment.done] == [(SHOP, 97), (TOKEN, 3)]
