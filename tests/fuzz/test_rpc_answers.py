"""Whatever a node answers: what comes of it is right, or a SourceError; and never a payment that is not in the block.

F-NODE 1-4, R-CHAIN 4. One answer of an honest node is mutated at one place (`mutations`): a value of another type, a
text that is nearly hex, a field dropped, doubled, nested deeply, taken from elsewhere, a digit changed, bytes damaged.

What one node can say that nothing contradicts, and so passes (other nodes, and finality, are what protect): the head of
a block (`hash` of a block without transactions, `parentHash`, `number`, `timestamp`), and of a transaction, where the
node does not tell traces: `from`, `to`, `value`, `nonce`, `type`, `status`; always: the amount in a log's `data`,
because a bloom covers address and topics only; whether a call inside another failed, and what it moved; and how many
there are inside a frame of the `callTracer`, which, unlike `trace_block`, does not say so.

Planted in a copy of the sources, and found: the bloom's check left out; traces whose root is not compared; addresses
inside traces that are not looked at (that one was ours: 0x and forty NULs as the sender of an inner call came out as a
transfer, which PostgreSQL refuses to keep, so that the follower could not go on); two transactions that use up one
nonce (ours as well: a KeyError where traces are read); numbers of more than 32 bytes (ours: cut short, and taken for
others).
"""

from __future__ import annotations

import asyncio
import json
import re
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.chains.evm.source import EvmSource
from tallystick.chains.evm.trace_modes import TraceMode
from tallystick.core.chain import Block, BlockRef, Channel, ObservedTransfer
from tallystick.core.errors import SourceError
from tests.fuzz.effort import effort
from tests.fuzz.mutations import Mutated
from tests.fuzz.node import BLOCK, HEIGHT, SHOP, SPLITTER, Node, source_of
from tests.support.rpc_stub import TOKENS

SEEDS = st.integers(0, 2**48)
ADDRESS = re.compile(r"0x[0-9a-f]{40}", re.ASCII)
HASH = re.compile(r"0x[0-9a-f]{64}", re.ASCII)
HEAD_FIELDS = {"hash", "parentHash", "number", "timestamp", "id"}
UNCONTRADICTED = {"from", "to", "value", "nonce", "type", "status", "data", "calls", "action", "error"}


async def asked(
    question: Callable[[EvmSource], Awaitable[Any]], node: Node, traces: TraceMode = "auto"
) -> Any:
    """The answer, or None for a SourceError. Whatever else is raised is what this test is there to find."""
    source = source_of(node, traces=traces)
    try:
        return await question(source)
    except SourceError as error:
        said = f"{error} {error.remedy} {error!r}"
        assert "secretword" not in said
        assert len(said) < 2_000
        return None
    finally:
        await source.close()


def honest(traces: TraceMode) -> Block:
    block: Block = asyncio.run(asked(lambda source: source.block_at(HEIGHT), Node(), traces))
    return block


HONEST = {mode: honest(mode) for mode in ("off", "trace_block", "debug")}


def test_the_unmutated_block_holds_what_it_should() -> None:
    """Otherwise the tests below would compare nothing with nothing."""
    moved = [(transfer.channel, transfer.to == SHOP) for transfer in HONEST["trace_block"].transfers]
    assert moved.count((Channel.VALUE, True)) == 1
    assert moved.count((Channel.LOG, True)) == 2
    assert moved.count((Channel.TRACE, True)) == 1
    assert HONEST["debug"].transfers == HONEST["trace_block"].transfers
    assert [one.channel for one in HONEST["off"].transfers].count(Channel.TRACE) == 0
    assert HONEST["off"].untraced


@pytest.mark.parametrize("traces", ["off", "trace_block", "debug"])
@given(seed=SEEDS, which=st.integers(0, 4))
@effort(350)
def test_a_block(traces: TraceMode, seed: int, which: int) -> None:
    node = Node(which, seed)
    block = asyncio.run(asked(lambda source: source.block_at(HEIGHT), node, traces))
    if block is not None and node.mutated is not None:
        check_block(block, node.mutated, traces)


@pytest.mark.parametrize("traces", ["trace_block", "debug"])
@given(seed=SEEDS)
@effort(350)
def test_the_traces_of_a_block(traces: TraceMode, seed: int) -> None:
    node = Node(0, seed, only=lambda method: "trace" in method)
    block = asyncio.run(asked(lambda source: source.block_at(HEIGHT), node, traces))
    if block is not None and node.mutated is not None:
        check_block(block, node.mutated, traces)


def check_block(block: Block, mutated: Mutated, traces: TraceMode) -> None:
    """What must hold of a block that comes out although something about it was wrong."""
    for transfer in block.transfers:
        check_transfer(transfer)
    for spend_key, tx_hash in block.spends.items():
        assert spend_key.isascii()
        assert spend_key.isprintable()
        assert HASH.fullmatch(tx_hash)
    assert block.header.height == HEIGHT
    keys = {key(transfer): transfer for transfer in HONEST[traces].transfers}
    changed = mutated.path[-1] if mutated.path else None
    # Where the place is not one of those above, nothing but the head of the block may differ.
    if changed not in UNCONTRADICTED and mutated.how != "damaged" and not _field_of(mutated.path):
        assert block.transfers == HONEST[traces].transfers or block.untraced, mutated
    for transfer in block.transfers:
        # An uncontradicted `to` or `value` alters a payment that is there. None is there that was not.
        inside = "calls" in mutated.path
        assert key(transfer) in keys or inside or changed in {"status", "error", "value", "to"}, mutated
        known = keys.get(key(transfer))
        if known is not None and transfer.channel is Channel.LOG:
            assert (transfer.to, transfer.contract) == (known.to, known.contract), mutated


@pytest.mark.parametrize("sender", ["0x" + "\0" * 40, "0x" + "zz" * 20, "0x" + "\u0661" * 40])
def test_an_inner_call_by_nobody_is_no_transfer(sender: str) -> None:
    class Lying(Node):
        async def post(self, body: bytes) -> bytes:
            honest = f'"from": "{SPLITTER}"'.encode()
            return (await super().post(body)).replace(honest, b'"from": ' + json.dumps(sender).encode())

    assert asyncio.run(asked(lambda source: source.block_at(HEIGHT), Lying(), "trace_block")) is None


@pytest.mark.parametrize("number", ["0xc" + "0" * 64, "0x" + "0" * 64 + "c", "0xc" + "f" * 5_000])
def test_a_number_of_more_than_32_bytes_is_none(number: str) -> None:
    """It was cut to what fits: a balance of 0xc with 64 noughts behind it would have been one that nobody has."""

    class Lying(Node):
        async def post(self, body: bytes) -> bytes:
            return (await super().post(body)).replace(b'"0xc"', json.dumps(number).encode())

    where = BlockRef(BLOCK.hash, HEIGHT)
    assert asyncio.run(asked(lambda source: source.accounts_at(where, [SHOP]), Lying())) is None


@pytest.mark.parametrize("traces", ["off", "trace_block", "debug"])
def test_two_transactions_with_one_nonce_are_no_block(traces: TraceMode) -> None:
    class Lying(Node):
        async def post(self, body: bytes) -> bytes:
            return (await super().post(body)).replace(b'"nonce": "0x3"', b'"nonce": "0x2"')

    assert asyncio.run(asked(lambda source: source.block_at(HEIGHT), Lying(), traces)) is None


def _field_of(path: tuple[str | int, ...]) -> bool:
    """Whether a mutation lies inside, or replaces, something that holds an uncontradicted field."""
    return any(step in UNCONTRADICTED for step in path) or (bool(path) and isinstance(path[-1], int))


def key(transfer: ObservedTransfer) -> tuple[str, Channel, int]:
    """What makes a transfer that one."""
    return transfer.tx_hash, transfer.channel, transfer.ordinal


def check_transfer(transfer: ObservedTransfer) -> None:
    """What everything behind the source relies on, the columns of the database too."""
    assert HASH.fullmatch(transfer.tx_hash)
    assert ADDRESS.fullmatch(transfer.to)
    assert ADDRESS.fullmatch(transfer.sender)
    assert transfer.contract is None or ADDRESS.fullmatch(transfer.contract)
    assert 0 < transfer.amount < 2**256


@given(seed=SEEDS, which=st.integers(0, 1))
@effort(300)
def test_head_and_identity(seed: int, which: int) -> None:
    head = asyncio.run(asked(lambda source: source.head(), Node(which, seed)))
    if head is not None:
        assert HASH.fullmatch(head.header.hash)
        assert 0 <= head.header.height < 2**63
        assert all(mark is None or 0 <= mark < 2**63 for mark in (head.safe_height, head.finalized_height))
    identity = asyncio.run(asked(lambda source: source.identity(), Node(0, seed)))
    assert identity is None or (identity.chain == "1" and HASH.fullmatch(identity.genesis_hash))


@given(seed=SEEDS, which=st.integers(1, 2))
@effort(200)
def test_what_the_mempool_shows(seed: int, which: int) -> None:
    async def look(source: EvmSource) -> Any:
        await source.head()
        return await source.mempool(("0x" + "ab" * 32,))

    shown = asyncio.run(asked(look, Node(which + 1, seed)))
    if shown is not None:
        for transfer in shown.transfers:
            check_transfer(transfer)
        assert all(HASH.fullmatch(tx_hash) for tx_hash in shown.spends.values())


@given(seed=SEEDS)
@effort(300)
def test_balances_and_nonces(seed: int) -> None:
    where = BlockRef(BLOCK.hash, HEIGHT)
    states = asyncio.run(asked(lambda source: source.accounts_at(where, [SHOP]), Node(1, seed)))
    for state in states or ():
        assert 0 <= state.balance < 2**256
        assert 0 <= state.nonce < 2**256
    assert states is None or len(states) == 1


@given(seed=SEEDS)
@effort(300)
def test_what_a_token_says_of_itself(seed: int) -> None:
    info = asyncio.run(asked(lambda source: source.token_info(TOKENS[0]), Node(1, seed)))
    if info is not None:
        assert info.decimals is None or 0 <= info.decimals < 256
        assert info.symbol is None or (info.symbol.isprintable() and 0 < len(info.symbol) <= 64)


@given(seed=SEEDS)
@effort(150)
def test_a_second_node_that_talks_nonsense_never_agrees(seed: int) -> None:
    """Agreement is given by silence only where the other node cannot be understood; that is put aside, and shown."""

    async def example() -> None:
        wrong = Node(1, seed)
        source = source_of(Node(), wrong)
        try:
            header = await source.header_at(HEIGHT)
            await source.confirm_agreement(header)
        except SourceError:
            return
        finally:
            await source.close()
        if wrong.mutated is not None and "hash" in wrong.mutated.path[-1:]:
            assert source.nodes()[1].problem is not None or wrong.mutated.how in ("swap", "digit")

    asyncio.run(example())


def test_an_answer_of_any_depth_and_width_is_bounded() -> None:
    """Nesting, repetition and length cost neither the stack nor more memory than a few times the answer."""
    bodies = [
        b"[" * 2_000_000,
        b'{"a":' * 400_000,
        b'{"jsonrpc":"2.0","id":1,"result":' + b'{"calls":[' * 200_000,
        b'{"jsonrpc":"2.0","id":1,"result":[' + b"null," * 400_000 + b"null]}",
        b'{"jsonrpc":"2.0","id":1,"result":"0x' + b"f" * 4_000_000 + b'"}',
        b'{"jsonrpc":"2.0","id":' + b"9" * 2_000_000 + b',"result":null}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"' + b"\\u0000" * 500_000 + b'"}}',
    ]

    class Fixed(Node):
        def __init__(self, body: bytes) -> None:
            super().__init__()
            self._body = body

        async def post(self, body: bytes) -> bytes:
            return self._body

    async def ask(body: bytes) -> None:
        for traces in ("debug", "trace_block"):
            source = source_of(Fixed(body), traces=traces)
            for question in (
                source.identity(),
                source.header_at(1),
                source.block_at(1),
                source.token_info(TOKENS[0]),
            ):
                with pytest.raises(SourceError):
                    await question
            await source.close()

    for body in bodies:
        tracemalloc.start()
        try:
            asyncio.run(ask(body))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 20 * len(body) + 20_000_000
