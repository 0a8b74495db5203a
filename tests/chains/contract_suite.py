"""What every `Source` must do, whatever its family. One suite; each family brings a rig.

For: subclassing in a family's tests, with a `rig` fixture that gives a chain under control and a source that reads it.
Holds true: the tests here use only the protocol of `tallystick.chains.source` and the rig.
Must not: know what a family's hashes, addresses or spend keys look like.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC
from enum import StrEnum
from itertools import pairwise
from typing import Protocol

import pytest

from tallystick.chains.source import AccountSource, Source
from tallystick.core.chain import RISKS, Block, BlockRef, MempoolSnapshot, ObservedTransfer
from tallystick.core.errors import (
    BlockNotFound,
    SourceError,
    SourceIncomplete,
    SourcesDisagree,
    SourceUnavailable,
    WrongChain,
)

AMOUNT = 123_456_789


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment that a rig can put into a block: as often as it likes, it stays the same transaction.

    `contract` is its token's, None for the native coin.
    """

    tx_hash: str
    to: str
    amount: int
    contract: str | None = None


class Rig(Protocol):
    """A family's chain under a test's control. Nothing is mined but by these methods."""

    source: Source

    async def mine(self, blocks: int = 1) -> int:
        """Mine empty blocks. Returns the new height."""
        ...

    async def pay(self, amount: int) -> tuple[Payment, int]:
        """Mine a payment. Returns it and its block's height."""
        ...

    async def conflict(self, payment: Payment) -> Payment:
        """Replace the newest block, which holds `payment`, by one with a transaction that spends the same."""
        ...

    async def remine(self, payment: Payment) -> int:
        """Replace the newest block, which holds `payment`, by two; the second holds it. Returns its height."""
        ...

    async def reorganise(self, depth: int) -> int:
        """Replace the newest `depth` blocks by as many empty ones. Returns the height."""
        ...

    async def cut_off(self) -> None:
        """Make the node unreachable."""
        ...

    async def reconnect(self) -> None:
        """Make the node reachable again."""
        ...


class MempoolRig(Rig, Protocol):
    """A rig of a family whose networks have a mempool. A payment outside any block stays there until it is mined."""

    async def send(self, amount: int) -> Payment:
        """Put a payment into the mempool."""
        ...

    async def drop(self, payment: Payment) -> None:
        """Take a payment out of the mempool, as if it had never been sent."""
        ...

    async def outbid(self, payment: Payment) -> Payment:
        """Put a transaction that spends the same into the mempool, in the payment's place."""
        ...


class Trouble(StrEnum):
    """What can be wrong with a node of any family."""

    SILENT = "does not answer"
    PARTS_MISSING = "leaves out a part of a block"
    PARTS_FOREIGN = "tells a block whose parts are not of one block"
    NO_BLOCKS = "says that it has no block"
    OTHER_BLOCK = "sends another block than the one asked for"
    OTHER_HASH = "has blocks of another branch"
    OTHER_CHAIN = "serves another chain"
    LAGGING = "is ten blocks behind"


class TroubleRig(Rig, Protocol):
    """A rig whose node can be troubled. `pair` asks the same node first, and then an honest one."""

    pair: Source

    async def trouble(self, trouble: Trouble | None) -> None:
        """Trouble the node so and in no other way (None: it is honest again), from the present block on."""
        ...


class AccountRig(Rig, Protocol):
    """A rig of a family whose sources say what an address holds."""

    accounts: AccountSource
    payer: str
    """Who sends all the payments of the rig, in normal form."""


def transfers_of(block: Block | MempoolSnapshot, payment: Payment) -> list[ObservedTransfer]:
    """The transfers of a block, or outside any, that stem from a payment. Its payer's change is another transfer."""
    return [
        transfer
        for transfer in block.transfers
        if transfer.tx_hash == payment.tx_hash and transfer.to == payment.to
    ]


def holds(block: Block | MempoolSnapshot, payment: Payment) -> bool:
    """Whether anything in a block, or outside any, stems from a payment's transaction."""
    return any(transfer.tx_hash == payment.tx_hash for transfer in block.transfers)


class SourceContract:
    """The suite. Subclass it as `Test…` and give it a `rig` fixture."""

    async def test_identity_stays_the_same(self, rig: Rig) -> None:
        before = await rig.source.identity()
        await rig.mine(3)
        assert await rig.source.identity() == before
        assert before.chain
        assert before.genesis_hash == (await rig.source.header_at(0)).hash

    async def test_head_is_the_newest_block(self, rig: Rig) -> None:
        height = await rig.mine(2)
        head = await rig.source.head()
        assert head.header.height == height
        assert head.header == await rig.source.header_at(height)
        assert await rig.mine() == (await rig.source.head()).header.height == height + 1

    async def test_headers_are_linked_and_in_chain_time(self, rig: Rig) -> None:
        height = await rig.mine(4)
        headers = [await rig.source.header_at(number) for number in range(height + 1)]
        assert [header.height for header in headers] == list(range(height + 1))
        for parent, child in pairwise(headers):
            assert child.parent_hash == parent.hash
            assert child.time >= parent.time
            assert child.time.tzinfo is UTC
            assert child.time.microsecond == 0

    async def test_block_has_the_header_of_its_height(self, rig: Rig) -> None:
        height = await rig.mine()
        assert (await rig.source.block_at(height)).header == await rig.source.header_at(height)

    async def test_above_the_head_there_is_no_block(self, rig: Rig) -> None:
        height = await rig.mine()
        with pytest.raises(BlockNotFound):
            await rig.source.header_at(height + 1)
        with pytest.raises(BlockNotFound):
            await rig.source.block_at(height + 1)
        await rig.mine()
        assert (await rig.source.block_at(height + 1)).header.height == height + 1

    async def test_payment_is_in_its_block_once(self, rig: Rig) -> None:
        payment, height = await rig.pay(AMOUNT)
        block = await rig.source.block_at(height)
        (transfer,) = transfers_of(block, payment)
        assert (transfer.to, transfer.amount, transfer.contract) == (payment.to, AMOUNT, payment.contract)
        assert {block.spends[key] for key in transfer.spend_keys} == {payment.tx_hash}
        after = await rig.mine()
        assert not holds(await rig.source.block_at(after), payment)
        assert not holds(await rig.source.block_at(height - 1), payment)

    async def test_every_transfer_has_an_identity_and_a_spent_key(self, rig: Rig) -> None:
        """No two transfers share their credit key, and each one's transaction is told in what the block spent."""
        heights = [(await rig.pay(AMOUNT))[1] for _ in range(3)]
        seen: set[tuple[str, str, int]] = set()
        for height in heights:
            block = await rig.source.block_at(height)
            for transfer in block.transfers:
                identity = (transfer.tx_hash, transfer.channel, transfer.ordinal)
                assert identity not in seen
                assert {block.spends[key] for key in transfer.spend_keys} == {transfer.tx_hash}
                assert transfer.amount > 0
                seen.add(identity)
        assert len(seen) >= len(heights)

    async def test_reading_twice_gives_the_same(self, rig: Rig) -> None:
        _, height = await rig.pay(AMOUNT)
        assert await rig.source.block_at(height) == await rig.source.block_at(height)

    async def test_remined_payment_keeps_its_identity(self, rig: Rig) -> None:
        payment, height = await rig.pay(AMOUNT)
        before = await rig.source.block_at(height)
        height_after = await rig.remine(payment)
        after = await rig.source.block_at(height_after)
        assert height_after == height + 1
        assert (await rig.source.header_at(height)).hash != before.header.hash
        assert not holds(await rig.source.block_at(height), payment)
        (old,), (new,) = transfers_of(before, payment), transfers_of(after, payment)
        assert (old.tx_hash, old.channel, old.ordinal) == (new.tx_hash, new.channel, new.ordinal)
        assert (old.to, old.amount, old.spend_keys) == (new.to, new.amount, new.spend_keys)

    async def test_conflicting_payment_spends_the_same(self, rig: Rig) -> None:
        payment, height = await rig.pay(AMOUNT)
        (transfer,) = transfers_of(await rig.source.block_at(height), payment)
        other = await rig.conflict(payment)
        block = await rig.source.block_at(height)
        assert other.tx_hash != payment.tx_hash
        assert not holds(block, payment)
        assert other.tx_hash in {block.spends.get(key) for key in transfer.spend_keys}

    async def test_reorganisation_shows_in_hashes_only(self, rig: Rig) -> None:
        height = await rig.mine(6)
        before = [(await rig.source.header_at(number)).hash for number in range(height + 1)]
        assert await rig.reorganise(3) == height
        after = [(await rig.source.header_at(number)).hash for number in range(height + 1)]
        assert after[: height - 2] == before[: height - 2]
        assert all(old != new for old, new in zip(before[height - 2 :], after[height - 2 :], strict=True))

    async def test_concurrent_reading(self, rig: Rig) -> None:
        for _ in range(3):
            await rig.pay(AMOUNT)
        height = await rig.mine(9)
        alone = [await rig.source.block_at(number) for number in range(height + 1)]
        together = await asyncio.gather(*(rig.source.block_at(number) for number in range(height + 1)))
        assert together == alone

    async def test_outage_is_an_error_and_ends(self, rig: Rig) -> None:
        _, height = await rig.pay(AMOUNT)
        block = await rig.source.block_at(height)
        assert all(node.ok for node in rig.source.nodes())
        await rig.cut_off()
        for question in (
            rig.source.head(),
            rig.source.header_at(height),
            rig.source.block_at(height),
            rig.source.identity(),
        ):
            with pytest.raises(SourceUnavailable):
                await question
        (node,) = rig.source.nodes()
        assert not node.ok
        assert node.problem
        await rig.reconnect()
        assert await rig.source.block_at(height) == block
        assert all(node.ok and node.problem is None for node in rig.source.nodes())

    async def test_agrees_with_itself(self, rig: Rig) -> None:
        height = await rig.mine()
        await rig.source.confirm_agreement(await rig.source.header_at(height))

    async def test_nodes_tell_their_height_and_no_secrets(self, rig: Rig) -> None:
        height = await rig.mine(2)
        await rig.source.head()
        (node,) = rig.source.nodes()
        assert (node.ok, node.height, node.problem) == (True, height, None)
        assert "secret" not in node.name

    async def test_errors_are_of_one_tree(self, rig: Rig) -> None:
        await rig.mine()
        with pytest.raises(SourceError) as caught:
            await rig.source.block_at(10**9)
        assert caught.value.what
        assert "secret" not in str(caught.value)


BLOCK_TROUBLES = {
    Trouble.SILENT: SourceUnavailable,
    Trouble.PARTS_MISSING: SourceIncomplete,
    Trouble.PARTS_FOREIGN: SourceIncomplete,
    Trouble.NO_BLOCKS: BlockNotFound,
    Trouble.OTHER_BLOCK: SourceIncomplete,
}
"""What a source says when its only node is troubled so and a block is asked for. Never a block."""


class TroubleContract:
    """What every source must make of a troubled node (F-NODE). Subclass it beside `SourceContract`."""

    @pytest.mark.parametrize("trouble", BLOCK_TROUBLES)
    async def test_trouble_has_a_name_and_passes(self, rig: TroubleRig, trouble: Trouble) -> None:
        """Never an empty block; and as soon as the node is honest, all is as before.

        Bugs planted: the check of a block's parts left out; a null block taken for an empty one.
        """
        await rig.mine(12)
        payment, height = await rig.pay(AMOUNT)
        before = await rig.source.block_at(height)
        await rig.trouble(trouble)
        for _ in range(3):
            with pytest.raises(BLOCK_TROUBLES[trouble]):
                await rig.source.block_at(height)
        await rig.trouble(None)
        assert await rig.source.block_at(height) == before
        assert transfers_of(before, payment)

    @pytest.mark.parametrize("trouble", BLOCK_TROUBLES)
    async def test_the_other_node_steps_in(self, rig: TroubleRig, trouble: Trouble) -> None:
        await rig.mine(12)
        payment, height = await rig.pay(AMOUNT)
        await rig.pair.identity()
        await rig.trouble(trouble)
        assert transfers_of(await rig.pair.block_at(height), payment)
        assert (await rig.pair.header_at(height)).height == height
        assert rig.pair.nodes()[1].ok

    async def test_a_lagging_node_tells_its_head_as_it_is(self, rig: TroubleRig) -> None:
        height = await rig.mine(12)
        await rig.trouble(Trouble.LAGGING)
        head = await rig.source.head()
        assert head.header.height == height - 10
        assert await rig.source.header_at(height - 10) == head.header
        await rig.trouble(None)
        assert (await rig.source.head()).header.height == height

    async def test_another_chain_is_refused_and_not_covered_up(self, rig: TroubleRig) -> None:
        """Its blocks are not used, even where an honest node would have them: a person has to look."""
        height = await rig.mine(3)
        before = await rig.pair.identity()
        assert await rig.source.identity() == before
        await rig.trouble(Trouble.OTHER_CHAIN)
        for source in (rig.source, rig.pair):
            for _ in range(2):
                with pytest.raises(WrongChain):
                    await source.head()
                with pytest.raises(WrongChain):
                    await source.block_at(height)
            with pytest.raises(WrongChain):
                await source.identity()
        await rig.trouble(None)
        for source in (rig.source, rig.pair):
            assert await source.identity() == before
            assert (await source.block_at(height)).header.height == height

    async def test_a_node_on_another_branch_is_contradicted(self, rig: TroubleRig) -> None:
        """Each node's chain is consistent in itself, so only the other can tell. Silence contradicts nothing.

        Bug planted: the node that named the block is asked, not the others; nobody ever disagrees.
        """
        await rig.mine(3)
        await rig.pair.identity()
        await rig.trouble(Trouble.OTHER_HASH)
        height = await rig.mine(2)
        header = await rig.pair.header_at(height)
        with pytest.raises(SourcesDisagree):
            await rig.pair.confirm_agreement(header)
        await rig.trouble(None)
        after = await rig.pair.header_at(height)
        assert after.hash != header.hash
        await rig.pair.confirm_agreement(after)
        await rig.trouble(Trouble.SILENT)
        await rig.pair.confirm_agreement(after)


class AccountContract:
    """What every source must do that says what an address holds. Subclass it beside `SourceContract`."""

    async def ref(self, rig: AccountRig, height: int) -> BlockRef:
        return (await rig.source.header_at(height)).ref

    async def test_accounts_are_those_of_the_block_asked_for(self, rig: AccountRig) -> None:
        """Also after later blocks, in the order asked, as often as asked. Bug planted: the newest block's balances."""
        payment, first = await rig.pay(AMOUNT)
        _, second = await rig.pay(2 * AMOUNT)
        before = await self.ref(rig, first - 1)
        asked = [payment.to, rig.payer, payment.to]
        (none, _, _), (one, payer, again), (both, payer_after, _) = [
            await rig.accounts.accounts_at(block, asked)
            for block in (before, await self.ref(rig, first), await self.ref(rig, second))
        ]
        assert one == again
        assert (one.balance - none.balance, both.balance - none.balance) == (AMOUNT, 3 * AMOUNT)
        assert payer_after.nonce == payer.nonce + 1
        assert await rig.accounts.accounts_at(before, []) == []

    async def test_a_block_that_left_the_chain_is_an_error(self, rig: AccountRig) -> None:
        payment, height = await rig.pay(AMOUNT)
        gone = await self.ref(rig, height)
        await rig.reorganise(1)
        with pytest.raises(SourceError):
            await rig.accounts.accounts_at(gone, [payment.to])

    async def test_an_outage_is_not_a_balance_of_nothing(self, rig: AccountRig) -> None:
        payment, height = await rig.pay(AMOUNT)
        block = await self.ref(rig, height)
        before = await rig.accounts.accounts_at(block, [payment.to])
        await rig.cut_off()
        with pytest.raises(SourceUnavailable):
            await rig.accounts.accounts_at(block, [payment.to])
        await rig.reconnect()
        assert await rig.accounts.accounts_at(block, [payment.to]) == before


async def shown(rig: MempoolRig, *asked: Payment) -> MempoolSnapshot:
    """What the source shows outside any block, after it was asked for its head as the follower does."""
    await rig.source.head()
    snapshot = await rig.source.mempool([payment.tx_hash for payment in asked])
    assert snapshot is not None
    return snapshot


class MempoolContract:
    """What every source must do that shows a mempool. Subclass it beside `SourceContract`, with a rig for both."""

    async def test_an_empty_mempool_stands_on_the_head(self, rig: MempoolRig) -> None:
        await rig.mine(2)
        head = (await rig.source.head()).header
        snapshot = await shown(rig)
        assert (snapshot.head, snapshot.transfers) == (head.ref, ())

    async def test_a_payment_outside_any_block_is_shown_as_its_block_will(self, rig: MempoolRig) -> None:
        """Identity, amount and spend key are predicted exactly; once mined it is shown no more, and still known.

        What could still have happened to it (`RISKS`) is over then.

        Bug planted: the block's position as ordinal; a sighted payment is another one than the mined.
        """
        payment = await rig.send(AMOUNT)
        snapshot = await shown(rig, payment)
        (before,) = transfers_of(snapshot, payment)
        assert (before.to, before.amount, before.contract) == (payment.to, AMOUNT, None)
        assert {snapshot.spends[key] for key in before.spend_keys} == {payment.tx_hash}
        assert (set(snapshot.present), set(snapshot.missing)) == ({payment.tx_hash}, set())
        height = await rig.mine()
        (after,) = transfers_of(await rig.source.block_at(height), payment)
        assert after == replace(before, traits=before.traits - RISKS)
        snapshot = await shown(rig, payment)
        assert not holds(snapshot, payment)
        assert not snapshot.spends.keys() & set(before.spend_keys)
        assert (set(snapshot.present), set(snapshot.missing)) == ({payment.tx_hash}, set())

    async def test_what_was_dropped_is_missing(self, rig: MempoolRig) -> None:
        payment = await rig.send(AMOUNT)
        assert (await shown(rig, payment)).present == {payment.tx_hash}
        await rig.drop(payment)
        snapshot = await shown(rig, payment)
        assert not holds(snapshot, payment)
        assert (set(snapshot.present), set(snapshot.missing)) == (set(), {payment.tx_hash})

    async def test_an_outbid_payment_gives_its_spend_key_to_the_other(self, rig: MempoolRig) -> None:
        payment = await rig.send(AMOUNT)
        (transfer,) = transfers_of(await shown(rig, payment), payment)
        other = await rig.outbid(payment)
        snapshot = await shown(rig, payment, other)
        assert other.tx_hash != payment.tx_hash
        assert not holds(snapshot, payment)
        assert other.tx_hash in {snapshot.spends.get(key) for key in transfer.spend_keys}
        assert (set(snapshot.present), set(snapshot.missing)) == ({other.tx_hash}, {payment.tx_hash})

    async def test_a_mempool_that_cannot_be_read_is_an_error_and_no_fault_of_the_node(
        self, rig: MempoolRig
    ) -> None:
        payment = await rig.send(AMOUNT)
        await shown(rig, payment)
        await rig.cut_off()
        with pytest.raises(SourceUnavailable):
            await rig.source.mempool()
        assert all(node.ok and node.problem is None for node in rig.source.nodes())
        await rig.reconnect()
        assert transfers_of(await shown(rig), payment)
