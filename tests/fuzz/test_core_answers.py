"""Whatever a node of Bitcoin Core's kind answers: what comes of it is right, or a SourceError.

F-NODE 1-4, R-CHAIN 4. One answer of an honest node is mutated at one place (`mutations`), or one byte of a block or of
a transaction is changed, dropped or doubled. Of a block, nothing may come out but the honest block: its hash commits to
all of it. Of a header, nothing but `height` goes uncontradicted (other nodes protect). Of the mempool, no transfer may
come out that is in none of its transactions: an id commits to the bytes under it.

Planted in a copy of the sources, and found: the Merkle root's check left out; the comparison of a body with the id that
it was asked by left out; a header's hash believed.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.chains.bitcoin.blocks import RULES, checked_block
from tallystick.chains.bitcoin.source import BitcoinOptions, BitcoinSource
from tallystick.chains.bitcoin.transactions import transaction_alone
from tallystick.chains.json_rpc import RpcLimits
from tallystick.core.chain import MempoolSnapshot
from tallystick.core.errors import SourceError, SourceIncomplete
from tests.fuzz.effort import effort
from tests.fuzz.mutations import Mutated, mutate
from tests.support.core_stub import StubCore, filler, make_transaction, p2tr, p2wpkh

SEEDS = st.integers(0, 2**48)
SCRIPT = re.compile(r"([0-9a-f]{2}){1,42}", re.ASCII)
KEY = re.compile(r"[0-9a-f]{64}:\d{1,10}|coinbase:[0-9a-f]{64}", re.ASCII)
HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
BYTES = re.compile(rb"[0-9a-f]+")
HEIGHT = 3
EXTENDED_BLOCKS = ("bitcoin", "litecoin")


def _node() -> StubCore:
    node = StubCore()
    node.extend()
    node.extend(filler(2, 5, 1))
    node.extend([*filler(3, 6, 2), make_transaction([("aa" * 32, 0)], [(70_000, p2tr("ours"))])])
    parent, *others = filler(3, 7, 3)
    child = make_transaction([(parent.txid, 0)], [(50_000, p2wpkh("ours")), (100, p2tr("ours"))])
    node.submit([parent, *others, child])
    return node


NODE = _node()
ASKED = [*NODE.mempool, NODE.blocks[-1].transactions[-1].txid]


class Wire:
    """The honest node, of which one answer is mutated."""

    def __init__(self, wrong_answer: int | None = None, seed: int = 0) -> None:
        self._wrong_answer = wrong_answer
        self._seed = seed
        self._asked = 0
        self.mutated: Mutated | None = None

    async def post(self, body: bytes) -> bytes:
        """As `RpcClient.post`."""
        answer = NODE.reply(body)
        self._asked += 1
        if self._asked - 1 != self._wrong_answer:
            return answer
        self.mutated = mutate(json.loads(answer), self._seed)
        return self.mutated.text


async def asked(question: Callable[[BitcoinSource], Awaitable[Any]], wire: Wire) -> Any:
    """The answer, or None for a SourceError. Whatever else is raised is what this test is there to find."""
    options = BitcoinOptions(
        "net",
        "bitcoin-regtest",
        ("http://user:secretword@127.0.0.1:1/",),
        genesis_hash=NODE.genesis_hash,
        limits=RpcLimits(attempts_max=1, batch_size_max=500),
    )
    source = BitcoinSource(options)
    source._pool.nodes[0].rpc.post = wire.post  # type: ignore[method-assign]
    try:
        return await question(source)
    except SourceError as error:
        said = f"{error} {error.remedy} {error!r}"
        assert "secretword" not in said
        assert len(said) < 2_000
        return None
    finally:
        await source.close()


async def look(source: BitcoinSource) -> Any:
    """The mempool, after the head as the follower asks for it."""
    await source.head()
    return await source.mempool(ASKED)


class OneDigit(Wire):
    """The honest node, of which one digit of the bytes that it sends is another."""

    async def post(self, body: bytes) -> bytes:
        """As `RpcClient.post`."""
        answer = NODE.reply(body)
        raws = [found for found in BYTES.finditer(answer) if len(found[0]) > 200]
        if not raws:
            return answer
        chance = random.Random(self._seed)
        raw = chance.choice(raws)
        place = chance.randrange(raw.start(), raw.end())
        digit = (int(chr(answer[place]), 16) + chance.randrange(1, 16)) % 16
        return answer[:place] + b"%x" % digit + answer[place + 1 :]


HONEST_BLOCK = asyncio.run(asked(lambda source: source.block_at(HEIGHT), Wire()))
HONEST_LOOK = asyncio.run(asked(look, Wire()))
HONEST_HEAD = asyncio.run(asked(lambda source: source.head(), Wire()))


def test_the_honest_answers_hold_what_they_should() -> None:
    """Otherwise the tests below would compare nothing with nothing."""
    assert len(HONEST_BLOCK.transfers) == 8
    assert len(HONEST_LOOK.transfers) == 9
    assert HONEST_LOOK.present == set(ASKED)
    assert HONEST_HEAD.header == HONEST_BLOCK.header


@given(seed=SEEDS, which=st.integers(0, 3))
@effort(500)
def test_a_block_is_the_honest_one_or_none(seed: int, which: int) -> None:
    block = asyncio.run(asked(lambda source: source.block_at(HEIGHT), Wire(which, seed)))
    assert block is None or block == HONEST_BLOCK


@given(seed=SEEDS)
@effort(500)
def test_a_block_of_which_a_digit_is_another_is_the_honest_one_or_none(seed: int) -> None:
    """The honest one where it was a digit of a witness, of which nothing is read."""
    block = asyncio.run(asked(lambda source: source.block_at(HEIGHT), OneDigit(None, seed)))
    assert block is None or block == HONEST_BLOCK


@given(seed=SEEDS)
@effort(300)
def test_a_mempool_of_which_a_digit_is_another_shows_nothing_that_is_not_there(seed: int) -> None:
    check_look(asyncio.run(asked(look, OneDigit(None, seed))))


@given(seed=SEEDS, which=st.integers(0, 2))
@effort(500)
def test_a_head_is_a_block_of_the_chain_or_none(seed: int, which: int) -> None:
    """Another block of the chain may be named: a node that lags is no liar. Its height may be, for one question."""
    head = asyncio.run(asked(lambda source: source.head(), Wire(which, seed)))
    if head is not None:
        known = NODE.by_hash[head.header.hash]
        assert head.header.parent_hash == known.parent_hash
        assert head.header.time.timestamp() == known.time
        assert 0 <= head.header.height < 2**31


@given(seed=SEEDS, which=st.integers(0, 6))
@effort(700)
def test_a_mempool_shows_nothing_that_is_not_there(seed: int, which: int) -> None:
    """What is left out is a hint less. What is shown is in a transaction with that id, to the last base unit."""
    check_look(asyncio.run(asked(look, Wire(which, seed))))


def check_look(snapshot: MempoolSnapshot | None) -> None:
    """What must hold of a snapshot that comes out although something about it was wrong."""
    if snapshot is None:
        return
    honest = {(one.tx_hash, one.ordinal): one for one in HONEST_LOOK.transfers}
    for one in snapshot.transfers:
        true = honest[one.tx_hash, one.ordinal]
        assert (one.to, one.amount, one.spend_keys) == (true.to, true.amount, true.spend_keys)
        assert SCRIPT.fullmatch(one.to)
    for key, tx_hash in snapshot.spends.items():
        assert HONEST_LOOK.spends[key] == tx_hash
        assert KEY.fullmatch(key)
    assert snapshot.present | snapshot.missing <= set(ASKED)
    assert not snapshot.present & snapshot.missing
    assert HASH.fullmatch(snapshot.head.hash)


@given(seed=SEEDS)
@effort(200)
def test_a_fee_rate_is_a_sane_number_or_none(seed: int) -> None:
    async def of_a_node_in_use(source: BitcoinSource) -> int | None:
        source._pool.nodes[0].verified = True  # no other is asked for it
        return await source.fee_rate()

    rate = asyncio.run(asked(of_a_node_in_use, Wire(0, seed)))
    assert rate is None or 0 <= rate <= 10_000_000


@pytest.mark.parametrize("family", EXTENDED_BLOCKS)
@given(data=st.binary(max_size=600), keep=st.integers(0, 500))
@effort(400)
def test_any_bytes_are_a_block_or_an_error(family: str, data: bytes, keep: int) -> None:
    """Also behind the beginning of a real block, so that the header and some transactions are right."""
    block = NODE.blocks[HEIGHT]
    raw = bytes.fromhex(block.raw_hex)[:keep] + data
    try:
        checked_block(raw.hex(), block.hash, HEIGHT, RULES[family])
    except SourceIncomplete:
        return
    assert raw.startswith(bytes.fromhex(block.raw_hex)[:80])


@given(
    data=st.binary(max_size=400),
    keep=st.integers(0, 300),
    flag=st.sampled_from([b"", b"\x00\x08", b"\x00\x09"]),
)
@effort(400)
def test_any_bytes_are_a_transaction_or_an_error(data: bytes, keep: int, flag: bytes) -> None:
    """Counts and lengths that promise more than there is cost neither time nor memory."""
    own = next(iter(NODE.mempool.values())).raw
    raw = own[:4] + flag + data if flag else own[:keep] + data
    tracemalloc.start()
    try:
        found = transaction_alone(raw.hex())
    except SourceIncomplete:
        return
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2_000_000
    assert len(found.outputs) <= len(raw)
    assert all(0 <= amount < 2**64 for amount, _ in found.outputs)
