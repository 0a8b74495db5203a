"""What nodes of Bitcoin's family show outside any block: on a real litecoind, and as new nodes answer.

F-CHAIN 8 and 9, as far as the source has to do with them: what is recorded of a sighting is `services.sightings`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from tallystick.chains.bitcoin import mempool as reading
from tallystick.chains.bitcoin.blocks import RULES
from tallystick.chains.bitcoin.mempool import MempoolMemory, read_mempool
from tallystick.chains.bitcoin.source import BitcoinOptions, BitcoinSource
from tallystick.chains.json_rpc import RpcClient, RpcLimits, new_session
from tallystick.core.chain import MempoolSnapshot, ObservedTransfer, Trait
from tallystick.core.errors import SourceUnavailable
from tests.support.core_stub import (
    FINAL,
    REPLACEABLE,
    CoreStubServer,
    StubCore,
    filler,
    make_transaction,
    p2tr,
    p2wpkh,
)
from tests.support.litecoind import COIN, FEE, UNREPLACEABLE, Coin, Litecoind
from tests.support.lying_core import CoreFault, LyingCore

LIMITS = RpcLimits(batch_size_max=500, attempts_max=1, total_timeout_seconds=10.0)


def of(snapshot: MempoolSnapshot, txid: str) -> list[ObservedTransfer]:
    """What a snapshot shows of a transaction."""
    return [one for one in snapshot.transfers if one.tx_hash == txid]


# -- on a real node, which has no index of transactions


@pytest.fixture
async def source(litecoind: Litecoind) -> AsyncIterator[BitcoinSource]:
    source = BitcoinSource(BitcoinOptions("local", "litecoin-regtest", (litecoind.url,), limits=LIMITS))
    await source.head()
    yield source
    await source.close()


@pytest.mark.chain
class TestRealNode:
    """litecoind's mempool."""

    async def test_whether_a_payment_can_be_replaced_is_told(
        self, litecoind: Litecoind, source: BitcoinSource
    ) -> None:
        """BIP125: the sender says so in a sequence number. Bug planted: every transaction called firm."""
        address = await litecoind.new_address()
        script = await litecoind.script_of(address)
        soft = await litecoind.send(address, COIN)
        firm = await litecoind.send(address, 2 * COIN, sequence=UNREPLACEABLE)
        snapshot = await source.mempool()
        for sent, traits in ((soft, {Trait.REPLACEABLE}), (firm, set())):
            (paid,) = [one for one in of(snapshot, sent.txid) if one.to == script]
            assert paid.traits == traits
            assert paid.spend_keys == tuple(f"{coin.txid}:{coin.vout}" for coin in sent.coins)

    async def test_what_rests_on_an_unconfirmed_payment_is_told(
        self, litecoind: Litecoind, source: BitcoinSource
    ) -> None:
        """It falls with its parent, and can be replaced through it, though it says nothing of the kind itself.

        Bug planted: only the transaction's own sequence numbers asked.
        """
        first, second = await litecoind.new_address(), await litecoind.new_address()
        script = await litecoind.script_of(first)
        for sequence, traits in (
            (REPLACEABLE, {Trait.UNCONFIRMED_PARENT, Trait.REPLACEABLE}),
            (UNREPLACEABLE, {Trait.UNCONFIRMED_PARENT}),
        ):
            parent = await litecoind.send(first, COIN, sequence=sequence)
            coin = Coin(parent.txid, 0, COIN, script)
            child = await litecoind.sign({second: COIN - FEE}, coins=[coin], sequence=UNREPLACEABLE)
            await litecoind.submit(child)
            (shown,) = of(await source.mempool(), child.txid)
            assert shown.traits == traits
            assert shown.spend_keys == (f"{parent.txid}:0",)
            await litecoind.mine()
            block = await source.block_at(await litecoind.height())
            assert [one.traits for one in block.transfers if one.tx_hash == child.txid] == [frozenset()]

    async def test_a_replacement_spends_what_the_replaced_did(
        self, litecoind: Litecoind, source: BitcoinSource
    ) -> None:
        """By fee, to another address and to a higher amount (F-CHAIN 8)."""
        ours, other = await litecoind.new_address(), await litecoind.new_address("legacy")
        for outputs in ({other: COIN}, {ours: 3 * COIN}):
            sent = await litecoind.send(ours, COIN)
            before = of(await source.mempool([sent.txid]), sent.txid)[0]
            replacement = await litecoind.replace(sent, outputs)
            snapshot = await source.mempool([sent.txid, replacement.txid])
            assert not of(snapshot, sent.txid)
            assert {snapshot.spends[key] for key in before.spend_keys} == {replacement.txid}
            assert (snapshot.missing, snapshot.present) == (
                frozenset({sent.txid}),
                frozenset({replacement.txid}),
            )
            await litecoind.mine()

    async def test_a_conflict_that_was_mined_takes_the_payment_away(
        self, litecoind: Litecoind, source: BitcoinSource
    ) -> None:
        sent = await litecoind.send(await litecoind.new_address(), COIN)
        before = of(await source.mempool(), sent.txid)[0]
        other = await litecoind.respend(sent, {await litecoind.new_address(): COIN})
        height = await litecoind.mine_only(other)
        snapshot = await source.mempool([sent.txid, other.txid])
        assert (snapshot.missing, snapshot.present) == (frozenset({sent.txid}), frozenset({other.txid}))
        block = await source.block_at(height)
        assert {block.spends[key] for key in before.spend_keys} == {other.txid}

    async def test_a_node_that_forgets_its_mempool(self, litecoind: Litecoind, source: BitcoinSource) -> None:
        """After a restart nothing is shown and all is missing; sent again, it is shown again as the same."""
        sent = await litecoind.send(await litecoind.new_address(), COIN)
        before = of(await source.mempool(), sent.txid)
        await litecoind.restart(forget_mempool=True)
        await source.head()
        snapshot = await source.mempool([sent.txid])
        assert (snapshot.transfers, snapshot.missing) == ((), frozenset({sent.txid}))
        await litecoind.submit(sent)
        snapshot = await source.mempool([sent.txid])
        assert (of(snapshot, sent.txid), snapshot.present) == (before, frozenset({sent.txid}))

    async def test_a_node_that_keeps_its_mempool(self, litecoind: Litecoind, source: BitcoinSource) -> None:
        sent = await litecoind.send(await litecoind.new_address(), COIN)
        before = of(await source.mempool(), sent.txid)
        await litecoind.restart()
        await source.head()
        snapshot = await source.mempool([sent.txid])
        assert (of(snapshot, sent.txid), snapshot.present) == (before, frozenset({sent.txid}))

    async def test_a_mined_transaction_is_known_without_an_index(
        self, litecoind: Litecoind, source: BitcoinSource
    ) -> None:
        """For as many blocks as the follower can be behind when it looks; then its block has long been read."""
        sent = await litecoind.send(await litecoind.new_address(), COIN)
        for _ in range(reading.RECENT_BLOCKS_MAX):
            await litecoind.mine()
            assert (await source.mempool([sent.txid, "no hash", "zz" * 32])).present == {sent.txid}
        await litecoind.mine()
        assert (await source.mempool([sent.txid])).missing == {sent.txid}

    async def test_what_a_reorganisation_brings_back(
        self, litecoind: Litecoind, source: BitcoinSource
    ) -> None:
        sent = await litecoind.send(await litecoind.new_address(), COIN)
        await litecoind.mine(3)
        await source.mempool()
        await litecoind.reorg(3)
        snapshot = await source.mempool([sent.txid])
        assert (len(of(snapshot, sent.txid)), snapshot.present) == (2, frozenset({sent.txid}))

    async def test_coins_out_of_an_extension_block_are_not_shown_before_their_block(
        self, litecoind: Litecoind, source: BitcoinSource
    ) -> None:
        """F-CHAIN 9: the transaction in the mempool has an id that is never mined; nothing is promised for it."""
        await litecoind.activate_mweb()
        await litecoind.rpc("createwallet", "hidden")
        await litecoind.send(await litecoind.rpc_in("hidden", "getnewaddress", "", "mweb"), 3 * COIN)
        inside = await source.mempool()
        assert inside.transfers == ()  # between MWEB addresses: no input and no output that we know
        await litecoind.mine()
        address = await litecoind.new_address()
        txid = await litecoind.rpc_in("hidden", "sendtoaddress", address, "1.0")
        await litecoind.submit((await litecoind.rpc_in("hidden", "gettransaction", txid))["hex"])
        ordinary = await litecoind.send(address, COIN)
        snapshot = await source.mempool([txid])
        assert {one.tx_hash for one in snapshot.transfers} == {ordinary.txid}
        assert snapshot.present == {txid}
        height = await litecoind.mine()
        block = await source.block_at(height)
        script = await litecoind.script_of(address)
        paid = {one.tx_hash: one.traits for one in block.transfers if one.to == script and one.amount == COIN}
        assert paid.pop(ordinary.txid) == frozenset()
        assert list(paid.values()) == [{Trait.PEGOUT}]
        assert txid not in paid
        assert (await source.mempool([txid])).missing == {txid}

    @pytest.mark.parametrize("fault", [CoreFault.MOVING_HEAD, CoreFault.MEMPOOL_NOT_LOADED])
    async def test_a_look_at_the_wrong_moment_says_nothing(
        self, litecoind: Litecoind, fault: CoreFault
    ) -> None:
        """Else all sightings would be missing while a restarted node loads its mempool. Bug planted: just that."""
        sent = await litecoind.send(await litecoind.new_address(), COIN)
        async with LyingCore(litecoind.url) as proxy:
            source = BitcoinSource(BitcoinOptions("local", "litecoin-regtest", (proxy.url,), limits=LIMITS))
            await source.head()
            await proxy.lie_so(fault)
            with pytest.raises(SourceUnavailable):
                await source.mempool([sent.txid])
            assert all(node.ok for node in source.nodes())
            await proxy.lie_so(None)
            assert of(await source.mempool([sent.txid]), sent.txid)
            await source.close()


# -- as new nodes answer


class Looks:
    """Looks at a made-up node's mempool, at moments of our choice."""

    def __init__(self, node: StubCore) -> None:
        self.node = node
        self.memory = MempoolMemory()
        self.at = 0.0

    async def look(self, asked: Sequence[str] = ()) -> MempoolSnapshot:
        """One look, without a wire between."""
        session = new_session(LIMITS)
        try:
            rpc = RpcClient("http://127.0.0.1:1/", session, LIMITS)
            rpc.post = self._post  # type: ignore[method-assign]
            return await read_mempool(rpc, self.memory, asked, RULES["bitcoin"], lambda: self.at)
        finally:
            await session.close()

    async def _post(self, body: bytes) -> bytes:
        return self.node.reply(body)

    def bodies(self) -> int:
        """How many bodies were asked for since the last time that this was asked."""
        asked = self.node.calls.count("getrawtransaction")
        self.node.calls.clear()
        return asked


async def test_bodies_are_read_once() -> None:
    """Bug planted: the ids that were read are not kept; every look read the whole mempool."""
    node = StubCore()
    looks = Looks(node)
    node.submit(filler(300, 700, 1))
    first = await looks.look()
    assert looks.bodies() == 300
    new = filler(3, 5, 2)
    node.submit(new)
    second = await looks.look()
    assert looks.bodies() == 3
    assert len(second.transfers) == len(first.transfers) + 5
    assert {one.txid for one in new} <= set(second.spends.values())


async def test_a_full_mempool_is_worked_off_with_new_payments_first() -> None:
    """After a start 5,000 transactions wait; a payment that comes then is seen at the next look, not after them."""
    node = StubCore()
    looks = Looks(node)
    waiting = filler(5_000, 5_000, 1)
    node.submit(waiting)
    await looks.look()
    assert looks.bodies() == reading.BODIES_PER_LOOK_MAX
    payment = make_transaction([("aa" * 32, 0)], [(COIN, p2tr("ours"))])
    node.submit([payment])
    assert of(await looks.look(), payment.txid)
    for _ in range(2):
        await looks.look()
    looks.bodies()
    await looks.look()
    assert looks.bodies() == 0
    assert looks.memory.known == set(node.mempool)


async def test_what_was_shown_for_a_minute_is_shown_no_more_and_still_known() -> None:
    node = StubCore()
    looks = Looks(node)
    payment = make_transaction([("aa" * 32, 0)], [(COIN, p2tr("ours"))])
    node.submit([payment])
    for at in (0.0, 30.0, reading.WINDOW_SECONDS):
        looks.at = at
        assert of(await looks.look(), payment.txid)
    looks.at = reading.WINDOW_SECONDS + 1
    snapshot = await looks.look([payment.txid])
    assert (snapshot.transfers, snapshot.spends, snapshot.present) == ((), {}, frozenset({payment.txid}))
    del node.mempool[payment.txid]
    assert (await looks.look([payment.txid])).missing == {payment.txid}
    node.submit([payment])
    assert of(await looks.look([payment.txid]), payment.txid)


async def test_the_window_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WINDOW_TRANSACTIONS_MAX", 100)
    monkeypatch.setattr(reading, "KNOWN_MAX", 400)
    node = StubCore()
    looks = Looks(node)
    node.submit(filler(500, 500, 1))
    snapshot = await looks.look()
    assert len(snapshot.transfers) == 100
    assert len(looks.memory.known) == 400


async def test_time_for_bodies_is_bounded() -> None:
    """What was read in time is shown; the rest comes at the next look."""
    node = StubCore()
    looks = Looks(node)
    node.submit(filler(1_200, 1_200, 1))
    post = looks._post

    async def slow(body: bytes) -> bytes:
        looks.at += reading.BODIES_SECONDS_MAX
        return await post(body)

    looks._post = slow  # type: ignore[method-assign]
    await looks.look()
    assert 0 < looks.bodies() <= 2 * reading.BODIES_PER_BATCH_MAX


async def test_large_transactions_hide_no_payment() -> None:
    """Whoever fills the mempool with them makes one batch larger than what we let in.

    Bug found: the look failed, and with it every later one, since it asked for the same again.
    """
    node = StubCore()
    node.submit([make_transaction([("ee" * 32, 0)], [(COIN, p2tr("x"))] * 300), *filler(100, 500, 1)])
    payment = make_transaction([("aa" * 32, 0)], [(COIN, p2tr("ours"))])
    node.submit([payment])
    limits = RpcLimits(response_bytes_max=20_000, batch_size_max=500, attempts_max=1)
    async with CoreStubServer(node) as server, new_session(limits) as session:
        memory, rpc = MempoolMemory(), RpcClient(server.url, session, limits)
        snapshot = await read_mempool(rpc, memory, (), RULES["bitcoin"], lambda: 0.0)
    assert of(snapshot, payment.txid)
    assert len(snapshot.transfers) == 501
    assert memory.known == set(node.mempool)


@pytest.mark.parametrize(
    ("full_rbf", "tells", "parent_sequence", "expected"),
    [
        (None, True, FINAL, {Trait.UNCONFIRMED_PARENT}),
        (False, True, FINAL, {Trait.UNCONFIRMED_PARENT}),
        (True, True, FINAL, {Trait.UNCONFIRMED_PARENT, Trait.REPLACEABLE}),
        (False, True, REPLACEABLE, {Trait.UNCONFIRMED_PARENT, Trait.REPLACEABLE}),
        (False, False, FINAL, {Trait.UNCONFIRMED_PARENT, Trait.REPLACEABLE}),
    ],
)
async def test_risks_as_nodes_of_different_versions_tell_them(
    full_rbf: bool | None, tells: bool, parent_sequence: int, expected: set[Trait]
) -> None:
    """`fullrbf` since 24; `bip125-replaceable` of an entry counts its ancestors. A node that does not say: replaceable.

    Bug planted: a parent's own word left out; a child whose parent can be replaced was called firm.
    """
    node = StubCore(full_rbf=full_rbf, entries_tell=tells)
    parent = make_transaction([("aa" * 32, 0)], [(COIN, p2wpkh("a"))], sequence=parent_sequence)
    child = make_transaction([(parent.txid, 0)], [(COIN - 200, p2tr("ours")), (100, p2tr("ours"))])
    alone = make_transaction([("bb" * 32, 0)], [(COIN, p2tr("ours"))])
    node.submit([parent, child, alone])
    snapshot = await Looks(node).look()
    paid, dust = of(snapshot, child.txid)
    assert [paid.traits, dust.traits] == [expected, expected | {Trait.DUST}]
    assert of(snapshot, alone.txid)[0].traits == (frozenset({Trait.REPLACEABLE}) if full_rbf else set())


@pytest.mark.parametrize(("full_rbf", "expected"), [(None, True), (True, True), (False, False)])
async def test_nodes_that_no_longer_tell_it_take_every_replacement(
    full_rbf: bool | None, expected: bool
) -> None:
    """Core of 2026 tells neither `fullrbf` nor `bip125-replaceable` any more, because both are always true of it.

    Bug found: silence was taken for no, so that a payment which anybody may replace could count at sight.
    """
    node = StubCore(full_rbf=full_rbf, tells_bare_multisig=True)
    payment = make_transaction([("aa" * 32, 0)], [(COIN, p2tr("ours"))], sequence=FINAL)
    node.submit([payment])
    (paid,) = of(await Looks(node).look(), payment.txid)
    assert (Trait.REPLACEABLE in paid.traits) is expected


async def test_a_body_that_is_another_transaction_is_left_out() -> None:
    """A hint that lies is no sighting; the others are read all the same."""
    node = StubCore()
    true, false = (make_transaction([(word * 32, 0)], [(COIN, p2tr("ours"))]) for word in ("aa", "bb"))
    node.submit([true])
    node.mempool["ee" * 32] = false
    node.mempool["dd" * 32] = make_transaction([("cc" * 32, 0)], [(COIN, p2tr("ours"))])
    snapshot = await Looks(node).look()
    assert {one.tx_hash for one in snapshot.transfers} == {true.txid}
