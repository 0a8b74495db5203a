"""From a node's account of a block's inner calls to the native coin they moved, checked against the block.

For: `tracing`, which asks; does no I/O itself. Two forms are read: the flat list of `trace_block` (OpenEthereum's, also
Erigon, Nethermind, Besu, Reth, anvil) and the nested frames of the `callTracer` behind `debug_traceBlockByHash` (geth).
Holds true: moves come out only if the account fits the block: each transaction once, in order, of this block, with the
root that the transaction names and the outcome that its receipt states, and no step missing from the tree; anything
else is `SourceIncomplete`, never "nothing moved". Both forms of one block give the same moves.
Must not: report what the transaction itself moves (that is `Channel.VALUE`), or know which addresses are ours.

What counts as a move
- A call, a creation or a self-destruction below the root, with a value above zero.
- Not if it failed, and not if any call above it failed: a failed call takes back everything that was done below it. A
  failed transaction moves nothing at all.
- A delegatecall or a callcode runs foreign code on one's own account, and a staticcall carries no value: all three move
  nothing to anybody, although the first two may show a value.

The ordinal of a move is its place among the moves of its transaction, depth first. Steps that move nothing are not
counted: tracers list different ones (calls of precompiled contracts, most of all), and the credit key of a payment
must not depend on which node was asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from tallystick.chains.evm.messages import (
    BlockAnswer,
    CallFrame,
    FlatTrace,
    ReceiptAnswer,
    TracedTransaction,
    TransactionAnswer,
    quantity,
)
from tallystick.core.chain import Block, Channel, ObservedTransfer
from tallystick.core.errors import SourceIncomplete

FRAMES_MAX: Final = 1_000_000
"""Steps of one block that are looked at. A block's gas pays for far fewer."""

_ADDRESS: Final = re.compile(r"0x[0-9a-f]{40}", re.ASCII)
_ZERO_ADDRESS: Final = "0x" + "00" * 20
# Ethereum's own types. Others are given a root of their own kind by their chains, which says nothing against it.
_ROOT_IS_THE_TRANSACTION: Final = frozenset({None, "0x0", "0x1", "0x2", "0x3", "0x4"})
_CREATIONS: Final = frozenset({"create", "create2"})
_MOVING: Final = frozenset({"call", "create", "create2", "selfdestruct", "extcall", "eofcreate"})
_STILL: Final = frozenset({"delegatecall", "callcode", "staticcall", "extdelegatecall", "extstaticcall"})

Move: TypeAlias = tuple[str, str, int]
"""Sender, receiver, base units."""


def with_flat(
    block: Block, answer: BlockAnswer, receipts: Sequence[ReceiptAnswer | None], traces: Sequence[FlatTrace]
) -> Block:
    """The block with the moves that `trace_block` tells of. Raises SourceIncomplete."""
    moves: list[list[Move]] = [[] for _ in answer.transactions]
    told: list[int] = []
    first, end = 0, len(traces)
    while first < end:
        root = traces[first]
        if root.transaction_hash is None:  # a reward
            first += 1
            continue
        last = first + 1
        while last < end and traces[last].trace_address:
            step = traces[last]
            if step.transaction_hash != root.transaction_hash or step.block_hash != root.block_hash:
                raise _unfit(block, "the steps of a transaction belong to another one")
            last += 1
        position = _position(block, answer, root)
        if told and position <= told[-1]:
            raise _unfit(block, f"transaction {position} is traced twice or out of order")
        told.append(position)
        _check_root(block, position, answer.transactions[position], receipts[position], root)
        if last > first + 1 or root.subtraces:
            tree = traces[first:last]
            _check_tree(block, position, tree)
            moves[position] = list(_flat_moves(tree))
        first = last
    _check_all_told(block, answer, set(told))
    return _with_moves(block, answer, moves)


def with_frames(
    block: Block,
    answer: BlockAnswer,
    receipts: Sequence[ReceiptAnswer | None],
    traced: Sequence[TracedTransaction],
) -> Block:
    """The block with the moves that the `callTracer` tells of. Raises SourceIncomplete."""
    if len(traced) != len(answer.transactions):
        raise _unfit(block, f"{len(answer.transactions)} transactions, but {len(traced)} are traced")
    moves: list[list[Move]] = []
    for position, (transaction, entry) in enumerate(zip(answer.transactions, traced, strict=True)):
        if entry.tx_hash is not None and entry.tx_hash.lower() != transaction.hash.lower():
            raise _unfit(block, f"trace {position} belongs to another transaction")
        frame = entry.result
        if frame is None:
            raise _unfit(block, f"transaction {position} is not traced")
        _check_root(block, position, transaction, receipts[position], frame)
        moves.append(list(_frame_moves(frame)))
    return _with_moves(block, answer, moves)


def _unfit(block: Block, what: str) -> SourceIncomplete:
    return SourceIncomplete(
        f"The node's traces do not fit the block: {what}.",
        object_id=f"block {block.header.height} {block.header.hash}",
        remedy='It is asked again. If this goes on, set the network\'s traces = "off", or use another node.',
    )


def _position(block: Block, answer: BlockAnswer, root: FlatTrace) -> int:
    """Which transaction of the block a root stands for. Raises SourceIncomplete."""
    position = root.transaction_position
    if root.block_hash is None or root.block_hash.lower() != block.header.hash:
        raise _unfit(block, "they are of another block")
    if root.trace_address:
        raise _unfit(block, "they begin inside a transaction")
    if position is None or not 0 <= position < len(answer.transactions):
        raise _unfit(block, "a transaction is traced that it does not have")
    if str(root.transaction_hash).lower() != answer.transactions[position].hash.lower():
        raise _unfit(block, f"trace {position} belongs to another transaction")
    return position


def _check_tree(block: Block, position: int, tree: Sequence[FlatTrace]) -> None:
    """Every step stands below its parent, in order, and every parent has as many as it says."""
    path: list[int] = []  # of the step before
    missing = [tree[0].subtraces]  # steps still to come below each step of the path, the root's first
    for step in tree[1:]:
        address = step.trace_address
        depth = len(address) - 1
        if depth > len(path) or address[:depth] != path[:depth]:
            raise _unfit(block, f"the steps of transaction {position} are not one tree")
        following = path[depth] + 1 if depth < len(path) else 0
        if address[depth] != following or any(missing[depth + 1 :]) or missing[depth] <= 0:
            raise _unfit(block, f"steps of transaction {position} are missing or doubled")
        del missing[depth + 1 :]
        missing[depth] -= 1
        missing.append(step.subtraces)
        path = address
    if any(missing):
        raise _unfit(block, f"steps of transaction {position} are missing")


def _check_root(
    block: Block,
    position: int,
    transaction: TransactionAnswer,
    receipt: ReceiptAnswer | None,
    root: FlatTrace | CallFrame,
) -> None:
    """The root says what the transaction and its receipt say."""
    if transaction.type not in _ROOT_IS_THE_TRANSACTION or transaction.sender == _ZERO_ADDRESS:
        return
    told = root.action if isinstance(root, FlatTrace) else root
    same = told.sender == transaction.sender or (told.sender or "").lower() == transaction.sender
    if transaction.to is None:
        same = same and root.type.lower() in _CREATIONS
    elif told.to != transaction.to:
        same = same and (told.to or "").lower() == transaction.to
    if told.value != transaction.value:
        same = same and quantity(told.value or "0x0") == quantity(transaction.value)
    if not same:
        raise _unfit(block, f"trace {position} is of another transaction")
    if receipt is None or (root.error is not None) != (receipt.status != "0x1"):
        raise _unfit(block, f"transaction {position} ended otherwise than its receipt says")


def _check_all_told(block: Block, answer: BlockAnswer, told: set[int]) -> None:
    """No transaction is left out, but for those that nobody signed: chains insert them, tracers may pass over them."""
    for position, transaction in enumerate(answer.transactions):
        if position not in told and transaction.sender != _ZERO_ADDRESS:
            raise _unfit(block, f"transaction {position} is not traced")


def _flat_moves(tree: Sequence[FlatTrace]) -> Iterator[Move]:
    failed_depth: int | None = None  # below a failed step nothing counts
    for step in tree:
        depth = len(step.trace_address)
        if failed_depth is not None and depth > failed_depth:
            continue
        failed_depth = depth if step.error is not None else None
        if failed_depth is not None or depth == 0:
            continue
        action = step.action
        if step.type == "suicide":
            yield from _move("selfdestruct", action.address, action.heir, action.balance)
        elif step.type == "create":
            made = step.result.address if step.result is not None else None
            yield from _move("create", action.sender, made, action.value)
        else:
            kind = action.call_type if step.type == "call" and action.call_type is not None else step.type
            yield from _move(kind, action.sender, action.to, action.value)


def _frame_moves(root: CallFrame) -> Iterator[Move]:
    waiting = [root]
    seen = 0
    while waiting:
        frame = waiting.pop()
        seen += 1
        if seen > FRAMES_MAX:
            raise SourceIncomplete("A node's trace of one transaction has no end.")
        if frame.error is not None:
            continue
        if frame is not root:
            yield from _move(frame.type, frame.sender, frame.to, frame.value)
        waiting.extend(reversed(frame.calls or ()))


def _move(kind: str, sender: str | None, to: str | None, value: str | None) -> Iterator[Move]:
    """The move that a step which did not fail makes, if any. Raises SourceIncomplete."""
    if value is None or value == "0x0":
        return
    amount = quantity(value)
    name = kind.lower()
    if amount == 0 or name in _STILL:
        return
    if name not in _MOVING or sender is None or to is None:
        raise SourceIncomplete(f"A node's trace moves coin by a step of an unknown kind ({name[:40]!a}).")
    source, target = sender.lower(), to.lower()
    if _ADDRESS.fullmatch(source) is None or _ADDRESS.fullmatch(target) is None:
        raise SourceIncomplete("A node's trace holds something else where an address belongs.")
    yield source, target, amount


def _with_moves(block: Block, answer: BlockAnswer, moves: Sequence[Sequence[Move]]) -> Block:
    if not any(moves):
        return block
    spend_keys = {tx_hash: (spend_key,) for spend_key, tx_hash in block.spends.items()}
    found: list[ObservedTransfer] = []
    for transaction, moved in zip(answer.transactions, moves, strict=True):
        tx_hash = transaction.hash.lower()
        found.extend(
            ObservedTransfer(tx_hash, Channel.TRACE, ordinal, sender, to, None, amount, spend_keys[tx_hash])
            for ordinal, (sender, to, amount) in enumerate(moved)
        )
    return replace(block, transfers=(*block.transfers, *found))
