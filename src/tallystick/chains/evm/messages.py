"""The answers of an EVM node, as typed structs holding only the fields that are used.

For: fast decoding; msgspec fills these straight from the bytes and skips every other field.
Holds true: sizes of fixed-width fields are checked while decoding (EIP-1474: 32-byte hashes, 20-byte
addresses, 256-byte blooms, as 0x-prefixed hex text). Fields that some chains leave out are optional here;
whether their absence matters is decided in `blocks`.
Must not: give meaning to what it holds.

The structs are not tracked by the garbage collector (`gc=False`): they hold no cycles, and a block has
thousands of them.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from tallystick.core.errors import SourceIncomplete

Hash = Annotated[str, Meta(min_length=66, max_length=66)]
AddressText = Annotated[str, Meta(min_length=42, max_length=42)]
_QUANTITY_LENGTH_MAX: Final = 66
Quantity = Annotated[str, Meta(min_length=3, max_length=_QUANTITY_LENGTH_MAX)]
Bloom = Annotated[str, Meta(min_length=514, max_length=514)]


class HeaderAnswer(Struct, rename={"parent_hash": "parentHash"}, gc=False):
    """A block as `eth_getBlockByNumber` gives it, without its transactions."""

    hash: Hash
    parent_hash: Hash
    number: Quantity
    timestamp: Quantity


class TransactionAnswer(Struct, rename={"sender": "from"}, gc=False):
    """A transaction of a block. `nonce` and `type` may be missing on chains' own types."""

    hash: Hash
    sender: AddressText
    to: AddressText | None = None
    value: Quantity = "0x0"
    nonce: Quantity | None = None
    type: str | None = None
    gas: Quantity | None = None


class BlockAnswer(
    Struct,
    rename={
        "parent_hash": "parentHash",
        "logs_bloom": "logsBloom",
        "transactions_root": "transactionsRoot",
        "gas_used": "gasUsed",
    },
    gc=False,
):
    """A block as `eth_getBlockByNumber` gives it with full transactions."""

    hash: Hash
    parent_hash: Hash
    number: Quantity
    timestamp: Quantity
    transactions: list[TransactionAnswer]
    logs_bloom: str | None = None
    transactions_root: str | None = None
    gas_used: str | None = None


class LogAnswer(Struct, rename={"log_index": "logIndex"}, gc=False):
    """An event of a contract."""

    address: AddressText
    topics: list[Hash]
    data: str
    log_index: Quantity
    removed: bool = False


class ReceiptAnswer(
    Struct,
    rename={
        "transaction_hash": "transactionHash",
        "transaction_index": "transactionIndex",
        "block_hash": "blockHash",
        "logs_bloom": "logsBloom",
    },
    gc=False,
):
    """What a transaction did. Receipts before Byzantium (EIP-658) carry a state root in place of `status`."""

    transaction_hash: Hash
    transaction_index: Quantity
    block_hash: Hash
    logs: list[LogAnswer]
    status: str | None = None
    logs_bloom: str | None = None


class FlatAction(
    Struct,
    rename={"sender": "from", "call_type": "callType", "heir": "refundAddress"},
    gc=False,
):
    """What one step of `trace_block` does: a call or creation (`from`, `to`, `value`), or a self-destruction
    (`address`, `refundAddress`, `balance`)."""

    sender: AddressText | None = None
    to: AddressText | None = None
    value: Quantity | None = None
    call_type: str | None = None
    address: AddressText | None = None
    heir: AddressText | None = None
    balance: Quantity | None = None


class FlatResult(Struct, gc=False):
    """What came of a step: of a creation, the new contract's address."""

    address: AddressText | None = None


class FlatTrace(
    Struct,
    rename={
        "trace_address": "traceAddress",
        "block_hash": "blockHash",
        "transaction_hash": "transactionHash",
        "transaction_position": "transactionPosition",
    },
    gc=False,
):
    """One step of a transaction as `trace_block` lists it: depth first, each with its path from the root.

    Rewards of old proof-of-work blocks are listed as well, without a transaction.
    """

    type: str
    action: FlatAction
    trace_address: list[int]
    subtraces: int
    block_hash: Hash | None = None
    transaction_hash: Hash | None = None
    transaction_position: int | None = None
    result: FlatResult | None = None
    error: str | None = None


class CallFrame(Struct, rename={"sender": "from"}, gc=False):
    """One call of a transaction as the `callTracer` tells it, with the calls that it made in their order."""

    type: str
    sender: AddressText
    to: AddressText | None = None
    value: Quantity | None = None
    error: str | None = None
    calls: list[CallFrame] | None = None


class TracedTransaction(Struct, rename={"tx_hash": "txHash"}, gc=False):
    """One entry of `debug_traceBlockByHash`; older nodes leave the hash out."""

    result: CallFrame | None = None
    tx_hash: Hash | None = None
    error: str | None = None


def quantity(text: str) -> int:
    """The number in a hex quantity of at most 32 bytes (EIP-1474), leading zeros tolerated. Raises SourceIncomplete."""
    digits = text[2:]
    # `int` alone would also take signs, underscores, spaces and digits of other scripts.
    if text[:2] == "0x" and len(text) <= _QUANTITY_LENGTH_MAX and digits.isalnum() and digits.isascii():
        try:
            return int(digits, 16)
        except ValueError:
            pass
    raise SourceIncomplete("A node's answer holds something else where a hex number belongs.")
