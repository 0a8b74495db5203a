"""The answers of a TRON node's HTTP interface, as typed structs holding only the fields that are used.

For: fast decoding; msgspec fills these straight from the bytes and skips every other field.
Holds true: the interface prints protocol buffers, which leave out whatever has its default value: a block without
transactions has no list of them, the first block no number, a log without data no data. So nearly everything is
optional here; whether its absence matters is decided in `blocks`. Hashes and addresses are hex without 0x.
Must not: give meaning to what it holds.

The structs are not tracked by the garbage collector (`gc=False`): they hold no cycles, and a block has hundreds.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

Hash = Annotated[str, Meta(min_length=64, max_length=64)]
AddressText = Annotated[str, Meta(min_length=42, max_length=42)]
"""41 and 20 bytes in hex."""
ContractText = Annotated[str, Meta(min_length=40, max_length=42)]
"""The writer of a log: 20 bytes in hex, without the 41 that stands before them elsewhere."""
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A signed 64-bit number of the protocol that is never negative."""


class Refusal(Struct, rename={"error": "Error"}, gc=False):
    """What a node says in place of an answer, with HTTP status 200."""

    error: str | None = None


class RawHeader(Struct, rename={"parent": "parentHash", "root": "txTrieRoot"}, gc=False):
    """What a producer signed: `timestamp` in milliseconds, `txTrieRoot` over the block's transactions."""

    parent: Hash
    number: Count = 0
    timestamp: Count = 0
    root: str | None = None


class Header(Struct, gc=False):
    """A block's header."""

    raw_data: RawHeader


class Parameter(Struct, gc=False):
    """A contract's parameter. Its shape depends on the contract's type, so it is left as it is."""

    value: msgspec.Raw = msgspec.Raw(b"null")


class Contract(Struct, gc=False):
    """What a transaction does; "contract" is the protocol's word for the kind of transaction."""

    type: str
    parameter: Parameter = msgspec.field(default_factory=Parameter)


class Transfer(Struct, rename={"sender": "owner_address", "to": "to_address"}, gc=False):
    """The parameter of a TransferContract: TRX from one account to another, in sun."""

    sender: AddressText
    to: AddressText
    amount: Count = 0


class Trigger(Struct, rename={"sender": "owner_address", "to": "contract_address"}, gc=False):
    """The parameter of a TriggerSmartContract: a call, and the TRX that it brings along, in sun."""

    sender: AddressText
    to: AddressText
    call_value: Count = 0


class RawTransaction(Struct, gc=False):
    """What a sender signed. The protocol has a list of contracts and allows exactly one."""

    contract: list[Contract] = msgspec.field(default_factory=list)


class Outcome(Struct, rename={"result": "contractRet"}, gc=False):
    """What came of a transaction, as the block's producer wrote it into the block."""

    result: str | None = None


class Transaction(Struct, rename={"id": "txID", "raw_hex": "raw_data_hex"}, gc=False):
    """A transaction of a block. Its id is the SHA-256 of `raw_data_hex`, which `raw_data` tells in words."""

    id: Hash
    raw_data: RawTransaction
    raw_hex: str
    ret: list[Outcome] = msgspec.field(default_factory=list)


class BlockAnswer(Struct, rename={"id": "blockID", "header": "block_header", "error": "Error"}, gc=False):
    """A block, or its header alone; an empty object where the node has none; or a refusal."""

    id: Hash | None = None
    header: Header | None = None
    transactions: list[Transaction] = msgspec.field(default_factory=list)
    error: str | None = None


class Log(Struct, gc=False):
    """An event of a contract."""

    address: ContractText
    topics: list[str] = msgspec.field(default_factory=list)
    data: str = ""


class CallValue(Struct, rename={"amount": "callValue", "token": "tokenId"}, gc=False):
    """What an inner call brought along: sun, or units of a TRC-10 token if one is named."""

    amount: Count = 0
    token: str | None = None


class InnerTransaction(
    Struct,
    rename={"sender": "caller_address", "to": "transferTo_address", "values": "callValueInfo"},
    gc=False,
):
    """A step that a contract took. `note` is the kind of step, in hex; `rejected` one whose effect was undone."""

    sender: str = ""
    to: str = ""
    values: list[CallValue] = msgspec.field(default_factory=list)
    note: str = ""
    rejected: bool = False


class Receipt(Struct, gc=False):
    """What a transaction used. Only those run by the virtual machine have a result."""

    result: str | None = None


class Info(
    Struct,
    rename={
        "number": "blockNumber",
        "timestamp": "blockTimeStamp",
        "logs": "log",
        "inner": "internal_transactions",
    },
    gc=False,
):
    """What a transaction did, as the node found by carrying it out. `result` is "FAILED" or left out."""

    id: Hash
    number: Count = 0
    timestamp: Count = 0
    receipt: Receipt = msgspec.field(default_factory=Receipt)
    logs: list[Log] = msgspec.field(default_factory=list)
    inner: list[InnerTransaction] = msgspec.field(default_factory=list)
    result: str | None = None


class CallOutcome(Struct, gc=False):
    """Whether a call that changes nothing could be made; `code` names what was wrong with it."""

    code: str | None = None


class CallAnswer(
    Struct, rename={"outcome": "result", "results": "constant_result", "error": "Error"}, gc=False
):
    """What a call that changes nothing returned, in hex."""

    outcome: CallOutcome = msgspec.field(default_factory=CallOutcome)
    results: list[str] = msgspec.field(default_factory=list)
    error: str | None = None
