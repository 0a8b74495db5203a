"""Native coin moved by contract calls, as nodes tell it (F-TOKEN 4, F-NODE 4): a real node, both forms of tracing."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from tallystick.chains.evm.blocks import checked_block
from tallystick.chains.evm.messages import BlockAnswer, FlatTrace, ReceiptAnswer, TracedTransaction
from tallystick.chains.evm.source import EvmOptions, EvmSource
from tallystick.chains.evm.trace_modes import TraceMode
from tallystick.chains.evm.traces import with_flat, with_frames
from tallystick.chains.json_rpc import RpcLimits
from tallystick.core.chain import Block, Channel, ObservedTransfer
from tallystick.core.errors import SourceError, SourceIncomplete, SourceUnavailable
from tests.support.evm import Chain, address_of
from tests.support.lying_proxy import Fault, LyingProxy
from tests.support.rpc_stub import stub_address

pytestmark = pytest.mark.chain

SHOP, OTHER, LOST = stub_address("shop"), stub_address("other shop"), stub_address("nobody")
PAYER = address_of(0)
LIMITS = RpcLimits(total_timeout_seconds=5.0, attempts_max=1)
MODES: tuple[TraceMode, ...] = ("trace_block", "debug")


@pytest.fixture(params=MODES)
async def source(request: pytest.FixtureRequest, chain: Chain) -> AsyncIterator[EvmSource]:
    source = EvmSource(EvmOptions("local", chain.chain_id, (chain.url,), traces=request.param, limits=LIMITS))
    yield source
    await source.close()


@pytest.fixture
async def moves(chain: Chain) -> str:
    """A contract that pays in every way, with money of its own."""
    address = await chain.deploy("NativeMoves")
    await chain.send_native(address, 10**9)
    await chain.mine()
    return address


async def traced(chain: Chain, source: EvmSource) -> list[ObservedTransfer]:
    """What contract calls moved in a block mined now."""
    block = await source.block_at(await chain.mine())
    assert block.untraced is None
    return [transfer for transfer in block.transfers if transfer.channel is Channel.TRACE]


def told(transfers: list[ObservedTransfer]) -> list[tuple[str, int, int]]:
    """Receiver, amount, ordinal."""
    return [(transfer.to, transfer.amount, transfer.ordinal) for transfer in transfers]


async def test_a_payment_to_several_in_one_transaction(chain: Chain, source: EvmSource) -> None:
    """As an exchange pays out: one transaction, each payment with a credit key of its own."""
    batch = await chain.deploy("Batch")
    before = await chain.send_native(OTHER, 1)
    signed = await chain.send_call(batch, "Batch", "payNative", [SHOP, OTHER, SHOP], [3, 4, 5], value=12)
    found = await traced(chain, source)
    assert found == [
        ObservedTransfer(
            signed.tx_hash, Channel.TRACE, ordinal, batch, to, None, amount, (f"{PAYER}:{signed.nonce}",)
        )
        for ordinal, (to, amount) in enumerate([(SHOP, 3), (OTHER, 4), (SHOP, 5)])
    ]
    assert before.tx_hash not in {transfer.tx_hash for transfer in found}


async def test_a_plain_transfer_that_is_passed_on(chain: Chain, source: EvmSource) -> None:
    """To a contract without any data, as to an exchange's deposit address."""
    forwarder = await chain.deploy("Forwarder", SHOP)
    await chain.send_native(forwarder, 7)
    assert told(await traced(chain, source)) == [(SHOP, 7, 0)]


async def test_a_failed_caller_undoes_what_succeeded_below_it(
    chain: Chain, source: EvmSource, moves: str
) -> None:
    """The failure is inherited from every call above, however far; the transaction itself succeeds.

    Bug planted: only the step's own error looked at, and only its parent's; what was undone is credited.
    """
    await chain.send_call(moves, "NativeMoves", "payUndone", LOST, 5)
    await chain.send_call(moves, "NativeMoves", "payDeepUndone", LOST, SHOP, 6)
    failed = await chain.send_call(moves, "NativeMoves", "payAndFail", LOST, 7)
    found = await traced(chain, source)
    assert told(found) == [(SHOP, 6, 0)]
    assert (await chain.receipt(failed.tx_hash))["status"] == "0x0"


async def test_creation_and_destruction_move_coin(chain: Chain, source: EvmSource, moves: str) -> None:
    """A contract made with a value pays from its constructor; another destroys itself in favour of the receiver."""
    await chain.send_call(moves, "NativeMoves", "payByCreation", SHOP, value=8)
    await chain.send_call(moves, "NativeMoves", "payByDestruction", OTHER, value=9)
    made, paid, bomb, left = await traced(chain, source)
    assert (made.sender, made.amount, made.ordinal) == (moves, 8, 0)
    assert (paid.sender, paid.to, paid.amount, paid.ordinal) == (made.to, SHOP, 8, 1)
    assert (bomb.sender, bomb.amount, bomb.ordinal) == (moves, 9, 0)
    assert (left.sender, left.to, left.amount, left.ordinal) == (bomb.to, OTHER, 9, 1)


async def test_foreign_code_on_ones_own_account_moves_nothing(
    chain: Chain, source: EvmSource, moves: str
) -> None:
    """A delegatecall shows its caller's whole value, a callcode one of its own: only the payments below them count.

    Bug planted: every step with a value taken for a move; the library is paid as well.
    """
    library = await chain.deploy("Library")
    await chain.send_call(moves, "NativeMoves", "payByLibrary", library, SHOP, 5, value=10)
    found = await traced(chain, source)
    assert told(found) == [(SHOP, 5, 0), (SHOP, 5, 1)]
    assert {transfer.sender for transfer in found} == {moves}


async def test_the_transaction_itself_is_not_told_again(chain: Chain, source: EvmSource) -> None:
    """Its own value is a transfer of its own channel; a creation by the transaction pays nobody, as without traces."""
    await chain.send_native(SHOP, 5)
    await chain.submit(await chain.sign(to=None, value=5, data=bytes.fromhex("60006000f3")))
    block = await source.block_at(await chain.mine())
    assert [(transfer.channel, transfer.to) for transfer in block.transfers] == [(Channel.VALUE, SHOP)]


async def test_the_same_transaction_mined_again_keeps_its_credit_keys(
    chain: Chain, source: EvmSource
) -> None:
    """In another block, at another position: the same keys and the same spend."""
    batch = await chain.deploy("Batch")
    signed = await chain.send_call(batch, "Batch", "payNative", [SHOP, OTHER], [3, 4], value=7)
    before = await traced(chain, source)
    await chain.reorg(1)
    await chain.send_native(OTHER, 1, sender=3)
    await chain.mine()
    await chain.send_native(OTHER, 2, sender=4)
    await chain.submit(signed)
    assert await traced(chain, source) == before


async def test_blocks_of_plain_transfers_are_not_traced(chain: Chain) -> None:
    """No transaction with gas to spare: nothing to ask, whatever the node would say."""
    async with LyingProxy(chain.url) as proxy:
        source = EvmSource(EvmOptions("local", chain.chain_id, (proxy.url,), traces="debug", limits=LIMITS))
        await chain.submit(await chain.sign(to=SHOP, value=5, gas_limit=21_000))
        plain = await chain.mine()
        await chain.submit(await chain.sign(to=SHOP, value=5, gas_limit=21_001))
        other = await chain.mine()
        proxy.lie(Fault.NO_TRACING)
        assert len((await source.block_at(plain)).transfers) == 1
        with pytest.raises(SourceError):
            await source.block_at(other)
        await source.close()


# -- what the node says against the block


@dataclass(frozen=True, slots=True)
class Recorded:
    """A real block of three transactions with inner calls, and what the node says of it in both forms."""

    answer: BlockAnswer
    receipts: list[ReceiptAnswer | None]
    block: Block
    flat: list[dict[str, Any]]
    frames: list[dict[str, Any]]

    def with_flat(self, flat: list[dict[str, Any]]) -> Block:
        """The block completed by these."""
        steps = msgspec.json.decode(json.dumps(flat), type=list[FlatTrace])
        return with_flat(self.block, self.answer, self.receipts, steps)

    def with_frames(self, frames: list[dict[str, Any]]) -> Block:
        """The block completed by these."""
        entries = msgspec.json.decode(json.dumps(frames), type=list[TracedTransaction])
        return with_frames(self.block, self.answer, self.receipts, entries)


@pytest.fixture
async def recorded(chain: Chain, moves: str) -> Recorded:
    batch = await chain.deploy("Batch")
    await chain.send_call(moves, "NativeMoves", "payDeepUndone", LOST, SHOP, 6)
    await chain.send_call(batch, "Batch", "payNative", [SHOP, OTHER], [3, 4], value=7)
    await chain.send_call(moves, "NativeMoves", "payAndFail", LOST, 7)
    height = hex(await chain.mine())
    text = json.dumps(await chain.rpc("eth_getBlockByNumber", height, True))
    answer = msgspec.json.decode(text, type=BlockAnswer)
    listed = json.dumps(await chain.rpc("eth_getBlockReceipts", height))
    receipts = msgspec.json.decode(listed, type=list[ReceiptAnswer | None])
    block = checked_block(answer, receipts)
    frames = await chain.rpc("debug_traceBlockByHash", answer.hash, {"tracer": "callTracer"})
    return Recorded(answer, receipts, block, await chain.rpc("trace_block", height), frames)


async def test_both_forms_tell_the_same(recorded: Recorded) -> None:
    flat, frames = recorded.with_flat(recorded.flat), recorded.with_frames(recorded.frames)
    assert flat == frames
    inner = [transfer for transfer in flat.transfers if transfer.channel is Channel.TRACE]
    assert told(inner) == [(SHOP, 6, 0), (SHOP, 3, 0), (OTHER, 4, 1)]


Flat = list[dict[str, Any]]
FLAT_LIES: dict[str, Callable[[Flat], Any]] = {
    "nothing at all": lambda flat: flat.clear(),
    "the last step is missing": lambda flat: flat.pop(),
    "the last transaction is missing": lambda flat: flat.__delitem__(slice(-2, None)),
    "a step in the middle is missing": lambda flat: flat.pop(2),
    "the step with the payment is missing": lambda flat: flat.pop(11),
    "a whole branch is missing": lambda flat: flat.__delitem__(slice(7, 12)),
    "a step comes twice": lambda flat: flat.insert(12, flat[11]),
    "a root comes twice": lambda flat: flat.insert(12, flat[0]),
    "two transactions change places": lambda flat: flat.extend([flat.pop(0) for _ in range(12)]),
    "another block": lambda flat: [step.update(blockHash="0x" + "ee" * 32) for step in flat],
    "one step of another block": lambda flat: flat[5].update(blockHash="0x" + "ee" * 32),
    "one step of another transaction": lambda flat: flat[5].update(transactionHash="0x" + "ee" * 32),
    "another transaction": lambda flat: [step.update(transactionHash="0x" + "ee" * 32) for step in flat],
    "a position beyond the block": lambda flat: flat[-2].update(transactionPosition=9),
    "another value": lambda flat: flat[0]["action"].update(value="0x1"),
    "another receiver": lambda flat: flat[0]["action"].update(to=SHOP),
    "another sender": lambda flat: flat[0]["action"].update({"from": SHOP}),
    "a failed transaction that succeeded": lambda flat: flat[-2].pop("error"),
    "a successful transaction that failed": lambda flat: flat[0].update(error="Reverted"),
    "a step of an unknown kind": lambda flat: flat[11].update(type="gift"),
    "a value that is no number": lambda flat: flat[11]["action"].update(value="0xno"),
}


@pytest.mark.parametrize("lie", FLAT_LIES)
async def test_a_list_that_does_not_fit_is_an_error(recorded: Recorded, lie: str) -> None:
    """Bug planted, one at a time: the tree, the roots, the count or the outcome not compared."""
    flat = copy.deepcopy(recorded.flat)
    assert len(flat) == 17
    FLAT_LIES[lie](flat)
    with pytest.raises(SourceIncomplete):
        recorded.with_flat(flat)


FRAME_LIES: dict[str, Callable[[Flat], Any]] = {
    "nothing at all": lambda frames: frames.clear(),
    "the last transaction is missing": lambda frames: frames.pop(),
    "a transaction too many": lambda frames: frames.append(frames[-1]),
    "two transactions change places": lambda frames: frames.append(frames.pop(0)),
    "places changed, hashes left out": lambda frames: frames.extend(
        [dict(frames.pop(0), txHash=None)] + [dict(frames.pop(0), txHash=None) for _ in range(1)]
    ),
    "a transaction was not traced": lambda frames: frames[1].update(result=None, error="timeout"),
    "another transaction": lambda frames: frames[1].update(txHash="0x" + "ee" * 32),
    "another value": lambda frames: frames[1]["result"].update(value="0x1"),
    "a failed transaction that succeeded": lambda frames: frames[2]["result"].pop("error"),
    "a successful transaction that failed": lambda frames: frames[1]["result"].update(error="reverted"),
    "a step of an unknown kind": lambda frames: frames[1]["result"]["calls"][0].update(type="GIFT"),
}


@pytest.mark.parametrize("lie", FRAME_LIES)
async def test_frames_that_do_not_fit_are_an_error(recorded: Recorded, lie: str) -> None:
    frames = copy.deepcopy(recorded.frames)
    FRAME_LIES[lie](frames)
    with pytest.raises(SourceIncomplete):
        recorded.with_frames(frames)


# -- asking


@dataclass(frozen=True, slots=True)
class World:
    """A block with an inner payment, behind a proxy that can lie about it."""

    chain: Chain
    proxy: LyingProxy
    source: EvmSource
    height: int
    block: Block


@pytest.fixture
async def world(chain: Chain) -> AsyncIterator[World]:
    batch = await chain.deploy("Batch")
    await chain.send_call(batch, "Batch", "payNative", [SHOP, OTHER], [3, 4], value=7)
    height = await chain.mine()
    async with LyingProxy(chain.url) as proxy:
        source = EvmSource(EvmOptions("local", chain.chain_id, (proxy.url,), limits=LIMITS))
        block = await source.block_at(height)
        assert len(block.transfers) == 3
        yield World(chain, proxy, source, height, block)
        await source.close()


@pytest.mark.parametrize("fault", [Fault.EMPTY_TRACES, Fault.SHORT_TRACES, Fault.NULL_TRACES])
async def test_a_lie_is_asked_again_for_ever(world: World, fault: Fault) -> None:
    """Bug planted: an empty list taken for "no inner calls"; the payments are gone without a word."""
    world.proxy.lie(fault)
    for _ in range(8):
        with pytest.raises(SourceIncomplete):
            await world.source.block_at(world.height)
    world.proxy.lie(None)
    assert await world.source.block_at(world.height) == world.block


@pytest.mark.parametrize("fault", [Fault.NO_TRACING, Fault.TRACES_REFUSED, Fault.TRACES_FORBIDDEN])
async def test_a_refusal_is_said_with_the_block(world: World, fault: Fault) -> None:
    """The block comes without its inner moves and says so; as soon as the node tells them, they are there again."""
    world.proxy.lie(fault)
    block = await world.source.block_at(world.height)
    assert block.untraced
    assert [transfer.channel for transfer in block.transfers] == [Channel.VALUE]
    assert world.source.nodes()[0].problem is None
    world.proxy.lie(None)
    again = [await world.source.block_at(world.height) for _ in range(2)]
    if fault is not Fault.NO_TRACING:  # found out again when the node is looked at anew
        assert again[1] == world.block


@pytest.mark.parametrize("mode", MODES)
async def test_where_a_way_is_named_a_refusal_is_an_error(world: World, mode: TraceMode) -> None:
    options = EvmOptions("local", world.chain.chain_id, (world.proxy.url,), traces=mode, limits=LIMITS)
    source = EvmSource(options)
    for fault in (Fault.NO_TRACING, Fault.TRACES_REFUSED, Fault.TRACES_FORBIDDEN):
        world.proxy.lie(fault)
        with pytest.raises(SourceUnavailable):
            await source.block_at(world.height)
    world.proxy.lie(None)
    assert await source.block_at(world.height) == world.block
    await source.close()


async def test_a_node_without_tracing_is_asked_once(chain: Chain) -> None:
    """What is found out at first contact is not asked with every block; each block says that it comes without."""
    async with LyingProxy(chain.url) as proxy:
        proxy.lie(Fault.NO_TRACING)
        source = EvmSource(EvmOptions("local", chain.chain_id, (proxy.url,), limits=LIMITS))
        await chain.send_native(SHOP, 5)
        first, second = await chain.mine(), await chain.mine()
        block = await source.block_at(first)
        assert block.untraced == "The node has no tracing."
        asked = proxy.requests
        await source.block_at(second)
        await source.block_at(first)
        assert proxy.requests - asked <= 4  # two blocks, two sets of receipts
        await source.close()


async def test_tracing_may_take_a_limited_time(world: World) -> None:
    """Some nodes trace in quadratic time: with `auto` the block is not held up for longer than the limit."""
    options = EvmOptions(
        "local", world.chain.chain_id, (world.proxy.url,), limits=LIMITS, trace_timeout_seconds=0.0
    )
    source = EvmSource(options)
    block = await source.block_at(world.height)
    assert "longer than 0 seconds" in (block.untraced or "")
    await source.close()


async def test_calls_nest_as_deep_as_the_chain_allows(chain: Chain) -> None:
    """Deeper than Python recurses: anybody can send such a transaction, and it must not stop a network. Deeper than the
    EVM calls is no answer, and does not overrun the stack.

    Bug planted: the plain decoder used, with Python's usual limit; such a block is asked for for ever.
    """
    await chain.send_native(SHOP, 5)
    height = await chain.mine()
    step = f'{{"type":"CALL","from":"{PAYER}","to":"{SHOP}","value":"0x5","calls":['
    before = sys.getrecursionlimit()
    async with LyingProxy(chain.url) as proxy:
        source = EvmSource(EvmOptions("local", chain.chain_id, (proxy.url,), traces="debug", limits=LIMITS))
        try:
            for depth in (1_024, 100_000):
                nested = step * depth + step.removesuffix(',"calls":[') + "}" + "]}" * depth
                proxy.instead["debug_traceBlockByHash"] = (
                    '{"jsonrpc":"2.0","id":%d,"result":[{"result":' + nested + "}]}"
                ).encode()
                sys.setrecursionlimit(1_000)
                if depth == 1_024:
                    assert len((await source.block_at(height)).transfers) == 1 + depth
                else:
                    with pytest.raises(SourceUnavailable):
                        await source.block_at(height)
        finally:
            sys.setrecursionlimit(before)
            await source.close()
