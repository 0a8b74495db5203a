"""What an EVM node shows outside any block: its pending block, read as a snapshot of the mempool.

For: the EVM source; the follower turns snapshots into sightings. Holds true: nothing here is a fact of the chain. What
cannot be read is left out, transaction by transaction: a hint that is missing costs seconds, never money. Count, size
and time are bounded.
Must not: know which addresses are ours, or make a node look unhealthy.

`eth_getBlockByNumber("pending", true)` gives the transactions that the node would put on its head now. Not all of its
pool may fit, so a transaction seen before and not shown any more is asked about by its hash. Nodes without a mempool of
their own answer with their newest block (or an error): then there is nothing to see, which is no fault. A pending block
on another block than the newest was made at another moment; it is left out, and the next look sees it in its place.

What a transaction will do is predicted from its text, because it has no receipt yet:

- Native coin: `to` and `value`, channel VALUE, ordinal 0. Exactly what the block will say.
- Tokens: a call of `transfer(address,uint256)` (EIP-20) straight to the contract, channel LOG, ordinal 0. An ordinary
  token writes one event in such a call, its Transfer event, so that is the transfer's place among its own transaction's
  logs. A token that writes others before it, takes a fee, or a call that fails, makes another transfer or none: then
  the block that holds the transaction ends the sighting (its own transaction is its conflict), and what the block
  shows is a transfer of its own. Nothing is counted twice, because only one of the two is ever in a block.
- Everything else (calls of other contracts, batches, wallets that are contracts) is seen when a block holds it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from tallystick.chains.evm.blocks import NO_NONCE, TYPES_WITH_NONCE, ZERO_ADDRESS, header_of
from tallystick.chains.evm.messages import AddressText, Hash, HeaderAnswer, Quantity, quantity
from tallystick.chains.json_rpc import Answer, Batch, Call, RpcClient, RpcRefused, value_in
from tallystick.chains.source import MEMPOOL_ASKED_MAX
from tallystick.core.chain import BlockHeader, Channel, MempoolSnapshot, ObservedTransfer
from tallystick.core.errors import SourceIncomplete, SourceUnavailable

MEMPOOL_SECONDS_MAX: Final = 3.0
"""A look takes no longer: meanwhile no block is read."""

TRANSACTIONS_MAX: Final = 10_000
"""Of a longer pending block, the first are read: nodes put the best-paying in front."""

TRANSFER_SELECTOR: Final = "0xa9059cbb"
"""The first four bytes of keccak256("transfer(address,uint256)"), EIP-20."""

_ARGUMENTS: Final = re.compile(r"0{24}([0-9a-f]{40})([0-9a-f]{64})", re.ASCII)
_HASH: Final = re.compile(r"0x[0-9a-f]{64}", re.ASCII)
_ADDRESS: Final = re.compile(r"0x[0-9a-f]{40}", re.ASCII)
_MIXED_BATCH: Final[msgspec.json.Decoder[Batch[msgspec.Raw]]] = msgspec.json.Decoder(
    list[Answer[msgspec.Raw]] | Answer[msgspec.Raw]
)


class PendingTransaction(msgspec.Struct, rename={"sender": "from"}, gc=False):
    """A transaction of a pending block, with the call that it makes."""

    hash: Hash
    sender: AddressText
    to: AddressText | None = None
    value: Quantity = "0x0"
    nonce: Quantity | None = None
    type: str | None = None
    input: str = "0x"


class PendingBlock(msgspec.Struct, rename={"parent_hash": "parentHash"}, gc=False):
    """A pending block: it has no hash that means anything, and on some nodes no number."""

    parent_hash: Hash
    number: Quantity | None
    transactions: list[PendingTransaction]


async def read_mempool(rpc: RpcClient, asked: Sequence[str]) -> MempoolSnapshot:
    """One node's snapshot: one request, and another if something `asked` about is not shown. Raises SourceError."""
    try:
        async with asyncio.timeout(MEMPOOL_SECONDS_MAX):
            snapshot = await _shown(rpc)
            return await _with_answers(rpc, snapshot, asked[:MEMPOOL_ASKED_MAX]) if asked else snapshot
    except TimeoutError:
        raise SourceUnavailable(
            "The node did not show its mempool in time.", object_id=rpc.name, remedy="It is asked again."
        ) from None


async def _shown(rpc: RpcClient) -> MempoolSnapshot:
    calls = [
        Call("eth_getBlockByNumber", ["latest", False]),
        Call("eth_getBlockByNumber", ["pending", True]),
    ]
    latest, pending = await rpc.batch(calls, _MIXED_BATCH)
    newest = header_of(value_in(latest, HeaderAnswer))
    if isinstance(pending, RpcRefused):
        if pending.limited:
            raise pending
        return _nothing(newest)
    block = value_in(pending, PendingBlock | None)  # type: ignore[arg-type]  # a union is no class, but decodes as one
    return snapshot_of(newest, block)


async def _with_answers(rpc: RpcClient, snapshot: MempoolSnapshot, asked: Sequence[str]) -> MempoolSnapshot:
    """The snapshot, and whether the node knows what it was asked about."""
    shown = set(snapshot.spends.values())
    unsure = [tx_hash for tx_hash in asked if tx_hash not in shown]
    answers = await rpc.batch([Call("eth_getTransactionByHash", [one]) for one in unsure], _MIXED_BATCH)
    present = {one for one in asked if one in shown}
    missing = set()
    for tx_hash, answer in zip(unsure, answers, strict=True):
        if isinstance(answer, RpcRefused):
            if answer.limited:
                raise answer
        elif bytes(answer).strip() == b"null":
            missing.add(tx_hash)
        else:
            present.add(tx_hash)
    return replace(snapshot, present=frozenset(present), missing=frozenset(missing))


def _nothing(newest: BlockHeader) -> MempoolSnapshot:
    return MempoolSnapshot(newest.ref, (), {}, head_time=newest.time)


def snapshot_of(newest: BlockHeader, block: PendingBlock | None) -> MempoolSnapshot:
    """What a pending block shows, if it is one: its place is right above the node's newest block. Does no I/O."""
    if block is None or block.number is None:
        return _nothing(newest)
    if quantity(block.number) != newest.height + 1 or block.parent_hash.lower() != newest.hash:
        return _nothing(newest)
    transfers: list[ObservedTransfer] = []
    spends: dict[str, str] = {}
    for transaction in block.transactions[:TRANSACTIONS_MAX]:
        try:
            spend_key = _spend_key(transaction)
            found = tuple(_predicted(transaction, spend_key))
        except SourceIncomplete:
            continue
        spends[spend_key] = transaction.hash.lower()
        transfers.extend(found)
    return MempoolSnapshot(newest.ref, tuple(transfers), spends, head_time=newest.time)


def _spend_key(transaction: PendingTransaction) -> str:
    """As `blocks` builds it. Raises SourceIncomplete."""
    tx_hash, sender = transaction.hash.lower(), transaction.sender.lower()
    if not _HASH.fullmatch(tx_hash) or not _ADDRESS.fullmatch(sender):
        raise SourceIncomplete("A pending transaction has no hash or no sender.")
    nonce = transaction.nonce
    if nonce in (None, NO_NONCE) or transaction.type not in TYPES_WITH_NONCE or sender == ZERO_ADDRESS:
        return f"tx:{tx_hash}"
    return f"{sender}:{quantity(nonce)}"


def _predicted(transaction: PendingTransaction, spend_key: str) -> Iterator[ObservedTransfer]:
    """What a transaction will move if it does as it says. Raises SourceIncomplete."""
    if transaction.to is None:
        return
    tx_hash, sender, to = transaction.hash.lower(), transaction.sender.lower(), transaction.to.lower()
    if not _ADDRESS.fullmatch(to):
        raise SourceIncomplete("A pending transaction has no usable receiver.")
    value = quantity(transaction.value)
    if value > 0:
        yield ObservedTransfer(tx_hash, Channel.VALUE, 0, sender, to, None, value, (spend_key,))
    # Bytes after the arguments are ignored by contracts; some wallets add a note of their own there.
    call = transaction.input[: len(TRANSFER_SELECTOR) + 128].lower()
    if not call.startswith(TRANSFER_SELECTOR):
        return
    arguments = _ARGUMENTS.fullmatch(call[len(TRANSFER_SELECTOR) :])
    if arguments is not None and (amount := int(arguments[2], 16)) > 0:
        receiver = "0x" + arguments[1]
        yield ObservedTransfer(tx_hash, Channel.LOG, 0, sender, receiver, to, amount, (spend_key,))
