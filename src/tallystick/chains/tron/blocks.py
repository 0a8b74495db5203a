"""From a block of the HTTP interface and the infos of its transactions to a complete, checked `Block`.

For: the TRON source; also fuzzed on its own, since it does no I/O.
Holds true: a `Block` comes out only if block and infos fit together: the ids carry the heights, every transaction's id
is the hash of its bytes, and the infos are of exactly these transactions in this block; it is empty only if its header
says so. Anything else is `SourceIncomplete`. What comes out is 0x-prefixed lower-case hex, addresses as 20 bytes.
Must not: know which contracts or addresses matter to us.

What counts as a transfer (failures.md, F-TOKEN 5)

- Only what a successful transaction moved. The producer writes the outcome into the block (`contractRet`): DEFAULT,
  SUCCESS, REVERT, OUT_OF_ENERGY and a dozen more. SUCCESS alone counts; a word that we do not know does not.
  A transaction that the virtual machine ran has a receipt with a result besides, which the protocol compares with the
  producer's word: if the two contradict each other, the answer is no good. A plain transfer has no result there.
- TRX: a TransferContract, or what a call brings along (`call_value`): channel VALUE, ordinal 0. A TransferAssetContract
  looks the same and moves a TRC-10 token, which anybody can issue: it is no transfer here.
- TRC-20: a log with the Transfer topic, exactly three topics and 32 bytes of data, as on EVM networks.
- TRX that contracts send: the inner transactions of kind call, create and suicide that were not rejected. Contracts
  also freeze, delegate and vote; these steps name an amount too, but nothing reaches the account that they name.
  The ordinal is the place among the steps of those three kinds, also those that moved nothing, because nodes differ in
  whether they keep the other kinds.
- Zero amounts are not reported: they move nothing.

What counts as a spend: TRON's accounts have no nonce, so that no transaction takes another one's place. Every one has a
spend key that only itself can have.
"""

from __future__ import annotations

import hashlib
from binascii import unhexlify
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec

from tallystick.chains.evm.blocks import TRANSFER_TOPIC
from tallystick.chains.tron.messages import (
    BlockAnswer,
    Contract,
    Info,
    InnerTransaction,
    RawHeader,
    Transaction,
    Transfer,
    Trigger,
)
from tallystick.core.chain import Block, BlockHeader, Channel, ObservedTransfer
from tallystick.core.errors import SourceIncomplete

StructT = TypeVar("StructT", bound=msgspec.Struct)

SUCCESS: Final = "SUCCESS"
TRANSFER: Final = "TransferContract"
TRIGGER: Final = "TriggerSmartContract"
RUN_BY_THE_MACHINE: Final = frozenset({TRIGGER, "CreateSmartContract"})
"""The kinds of transactions whose receipts have a result."""

MOVING_NOTES: Final = frozenset(note.encode().hex() for note in ("call", "create", "suicide"))
"""Kinds of inner transactions whose value reaches the account that they name."""

INNER_UNTOLD: Final = (
    "The node has shown no inner transactions so far: it may not keep them (java-tron: vm.saveInternalTx)."
)

_TOPIC: Final = TRANSFER_TOPIC[2:]
_NO_TRANSACTIONS: Final = "00" * 32
_ADDRESS_PADDING: Final = "00" * 12
_PREFIX: Final = "41"
_AMOUNT_DIGITS: Final = 64
_TRY_AGAIN: Final = "It is asked for again."
_TRANSFER: Final = msgspec.json.Decoder(Transfer)
_TRIGGER: Final = msgspec.json.Decoder(Trigger)


def header_of(answer: BlockAnswer) -> BlockHeader:
    """The header's values. Raises SourceIncomplete if they are not what they should be, or missing.

    A block's id begins with its height, in eight bytes; so does its parent's.
    """
    if answer.id is None:
        raise SourceIncomplete("The node's answer is not a block.", remedy=_TRY_AGAIN)
    raw = _raw_of(answer)
    block_id, parent = answer.id.lower(), raw.parent.lower()
    _require_hex((block_id, parent), 64)
    if int(block_id[:16], 16) != raw.number:
        raise SourceIncomplete(f"Block {raw.number} has an id of another height.", remedy=_TRY_AGAIN)
    if raw.number > 0 and int(parent[:16], 16) != raw.number - 1:
        raise SourceIncomplete(
            f"Block {raw.number} stands on a block that is not below it.", remedy=_TRY_AGAIN
        )
    try:
        time = datetime.fromtimestamp(raw.timestamp // 1000, UTC)
    except (OverflowError, ValueError, OSError):
        raise SourceIncomplete("A block's time lies outside the calendar.", remedy=_TRY_AGAIN) from None
    return BlockHeader("0x" + block_id, "0x" + parent, raw.number, time)


def _raw_of(answer: BlockAnswer) -> RawHeader:
    if answer.header is None:
        raise SourceIncomplete("The node's answer is not a block.", remedy=_TRY_AGAIN)
    return answer.header.raw_data


def checked_block(answer: BlockAnswer, infos: Sequence[Info], *, inner_told: bool = True) -> Block:
    """The block, once its infos are shown to be all there and to fit. Raises SourceIncomplete otherwise.

    `inner_told` false: the node is not known to keep inner transactions, so that a block with successful calls says
    that it does not tell what they moved. The first block of a chain gives coins to accounts before anybody could ask
    for any, and has no infos: it is taken as empty.
    """
    header = header_of(answer)
    if header.height == 0:
        return Block(header, (), {})
    try:
        found = _matched(answer, _raw_of(answer), infos)
        transfers: list[ObservedTransfer] = []
        called = False
        first_log = 0
        for transaction in answer.transactions:
            info = found[transaction.id]
            if _succeeded(transaction, info):
                transfers.extend(_moved(transaction, info, first_log))
                called = called or transaction.raw_data.contract[0].type in RUN_BY_THE_MACHINE
            first_log += len(info.logs)
    except SourceIncomplete as error:
        where = f"block {header.height} {header.hash}"
        raise SourceIncomplete(error.what, object_id=where, remedy=_TRY_AGAIN) from None
    hashes = ["0x" + transaction.id.lower() for transaction in answer.transactions]
    spends = {spend_key(tx_hash): tx_hash for tx_hash in hashes}
    untold = called and not inner_told
    return Block(header, tuple(transfers), spends, INNER_UNTOLD if untold else None)


def shows_inner(infos: Sequence[Info]) -> bool:
    """Whether these infos prove that the node keeps inner transactions."""
    return any(info.inner for info in infos)


def spend_key(tx_hash: str) -> str:
    """What only this transaction can use up. The same that a source of the JSON-RPC interface says."""
    return f"tx:{tx_hash}"


def _matched(answer: BlockAnswer, header: RawHeader, infos: Sequence[Info]) -> dict[str, Info]:
    """The info of every transaction, by its id, once each is shown to belong there."""
    transactions = answer.transactions
    if not transactions and (header.root or _NO_TRANSACTIONS) != _NO_TRANSACTIONS:
        raise SourceIncomplete("The block came without its transactions: its header commits to some.")
    if len(infos) != len(transactions):
        raise SourceIncomplete(
            f"The block has {len(transactions)} transactions, but {len(infos)} infos came."
        )
    found = {info.id: info for info in infos}
    if len({transaction.id for transaction in transactions}) != len(transactions):
        raise SourceIncomplete("The block names a transaction twice.")
    for position, transaction in enumerate(transactions):
        try:
            digest = hashlib.sha256(unhexlify(transaction.raw_hex)).hexdigest()
        except ValueError:
            digest = ""
        if digest != transaction.id.lower():
            raise SourceIncomplete(f"The id of transaction {position} is not the hash of its bytes.")
        info = found.get(transaction.id)
        if info is None:
            raise SourceIncomplete(f"The info of transaction {position} is missing.")
        if (info.number, info.timestamp) != (header.number, header.timestamp):
            raise SourceIncomplete(f"The info of transaction {position} belongs to another block.")
    return found


def _succeeded(transaction: Transaction, info: Info) -> bool:
    """Whether the transaction did what it says. Raises SourceIncomplete where its parts contradict each other."""
    if len(transaction.raw_data.contract) != 1 or len(transaction.ret) != 1:
        return False
    written = transaction.ret[0].result
    if transaction.raw_data.contract[0].type in RUN_BY_THE_MACHINE and written != info.receipt.result:
        raise SourceIncomplete(
            f"Transaction {transaction.id} ended as {_word(written)} by the block, {_word(info.receipt.result)} by its "
            "receipt."
        )
    return written == SUCCESS and info.receipt.result in (SUCCESS, None) and info.result in (None, "SUCESS")


def _word(result: str | None) -> str:
    """A result as a message may show it: it comes from outside."""
    if result is None:
        return "nothing"
    return result[:40] if result[:40].isidentifier() else "something unreadable"


def _moved(transaction: Transaction, info: Info, first_log: int) -> Iterator[ObservedTransfer]:
    """All transfers of a successful transaction. Raises SourceIncomplete for what cannot be read."""
    tx_hash = "0x" + transaction.id.lower()
    keys = (spend_key(tx_hash),)
    contract = transaction.raw_data.contract[0]
    value = _value(contract)
    if value is not None and value[2] > 0:
        sender, to, amount = value
        yield ObservedTransfer(tx_hash, Channel.VALUE, 0, _address(sender), _address(to), None, amount, keys)
    for ordinal, log in enumerate(info.logs):
        topics = [topic.lower() for topic in log.topics]
        if len(topics) != 3 or topics[0] != _TOPIC or len(log.data) != _AMOUNT_DIGITS:
            continue
        _require_hex((*topics[1:], log.data), 64)
        if not topics[1].startswith(_ADDRESS_PADDING) or not topics[2].startswith(_ADDRESS_PADDING):
            continue
        amount = int(log.data, 16)
        if amount == 0:
            continue
        source, to = "0x" + topics[1][24:], "0x" + topics[2][24:]
        yield ObservedTransfer(
            tx_hash, Channel.LOG, ordinal, source, to, _writer(log.address), amount, keys, first_log + ordinal
        )
    steps = (step for step in info.inner if step.note.lower() in MOVING_NOTES)
    for ordinal, step in enumerate(steps):
        amount = _sun(step)
        if amount > 0 and not step.rejected:
            yield ObservedTransfer(
                tx_hash, Channel.TRACE, ordinal, _address(step.sender), _address(step.to), None, amount, keys
            )


def _value(contract: Contract) -> tuple[str, str, int] | None:
    """Sender, receiver and sun that the transaction itself moves. None for the kinds that move none."""
    if contract.type == TRANSFER:
        transfer = _decoded(contract, _TRANSFER)
        return transfer.sender, transfer.to, transfer.amount
    if contract.type == TRIGGER:
        trigger = _decoded(contract, _TRIGGER)
        return trigger.sender, trigger.to, trigger.call_value
    return None


def _decoded(contract: Contract, decoder: msgspec.json.Decoder[StructT]) -> StructT:
    try:
        return decoder.decode(contract.parameter.value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise SourceIncomplete(f"A {contract.type} does not have its usual shape.") from None


def _sun(step: InnerTransaction) -> int:
    """The TRX of a step. TRC-10 tokens are named; TRX is what has no name."""
    return sum(value.amount for value in step.values if not value.token)


def _address(text: str) -> str:
    """The normal form of 41 and 20 bytes in hex."""
    lower = text.lower()
    if len(lower) != 42 or not lower.startswith(_PREFIX):
        raise SourceIncomplete("A node's answer holds something else where an address belongs.")
    _require_hex((lower,), 42)
    return "0x" + lower[2:]


def _writer(text: str) -> str:
    """The normal form of the contract that wrote a log: 20 bytes, on some nodes with the 41 before them."""
    return _address(text if len(text) == 42 else _PREFIX + text)


def _require_hex(texts: Sequence[str], digits: int) -> None:
    try:
        size = len(unhexlify("".join(texts)))
    except ValueError:
        size = -1
    if size * 2 != digits * len(texts) or any(len(text) != digits for text in texts):
        raise SourceIncomplete("A node's answer holds something else where a hash or an address belongs.")
