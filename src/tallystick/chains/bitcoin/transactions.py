"""Transactions of Bitcoin's family, read from the bytes that the network itself passes on.

For: `blocks` and `mempool`. Holds true: what comes out was read from bytes whose double SHA-256 is the transaction's
id, so that nobody can change an amount, a script or an input without changing the id, and with it the block's Merkle
root. Bytes do not depend on the node's version, as its JSON does, and a full block's cost the node a tenth. What is
unknown in them (witnesses, extension blocks) is stepped over, never interpreted. Nothing is read beyond the end,
whatever lengths the bytes claim.
Must not: validate scripts or signatures, or know which outputs are ours.

Layout: version (4), [marker 00, flags (1)], inputs, outputs, [witnesses where flags & 1 (BIP144)], [a Litecoin
extension where flags & 8 (LIP-0002, LIP-0003)], lock time (4). The id covers version, inputs, outputs and lock time.
The extension is one zero byte in the last transaction of a block (the HogEx); in a mempool it may be a whole MWEB
transaction, of which we can tell neither length nor meaning. A transaction that is nothing but that has neither inputs
nor outputs here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from tallystick.core.errors import SourceIncomplete

WITNESS_FLAG: Final = 1
MWEB_FLAG: Final = 8
SEQUENCE_REPLACEABLE_MAX: Final = 0xFFFFFFFD
"""An input with a sequence number up to this one says that its transaction may be replaced (BIP125)."""

_NO_PARENT: Final = bytes(32)
_NO_INDEX: Final = 0xFFFFFFFF
_INPUT_BYTES_MIN: Final = 41
_OUTPUT_BYTES_MIN: Final = 9
_INPUT_HEAD: Final = struct.Struct("<32sIB")  # the output that it spends, and the length of its script
_OUTPUT_HEAD: Final = struct.Struct("<QB")
_NUMBER: Final = struct.Struct("<I")


@dataclass(slots=True)
class RawTransaction:
    """What matters of one transaction.

    `tx_hash` is its id as people write it (bytes reversed, hex). `spend_keys` name the outputs that it spends,
    `"<txid>:<index>"`, in order; a coinbase has `"coinbase:<txid>"` alone: it spends nothing that another could.
    `outputs` are amounts in base units with their scripts in hex. `replaceable`: it says so itself. `opaque`: the bytes
    hold an MWEB transaction, so that an id without inputs and outputs cannot be checked.
    """

    tx_hash: str
    id_bytes: bytes
    spend_keys: tuple[str, ...]
    outputs: list[tuple[int, str]]
    coinbase: bool = False
    replaceable: bool = False
    opaque: bool = False


def double_sha256(data: bytes) -> bytes:
    """Bitcoin's hash of blocks and transactions, in the order of its bytes (people write it reversed)."""
    return sha256(sha256(data).digest()).digest()


def hash_text(hash_bytes: bytes) -> str:
    """A hash as people write it."""
    return hash_bytes[::-1].hex()


def transaction_alone(raw: str) -> RawTransaction:
    """A transaction from its bytes in hex, as `getrawtransaction` gives it. Raises SourceIncomplete."""
    try:
        data = bytes.fromhex(raw)
    except ValueError:
        raise SourceIncomplete("A transaction's bytes are not hex.") from None
    transaction, end = read_transaction(data, 0, alone=True)
    if end != len(data):
        raise SourceIncomplete("A transaction's bytes go on after its end.")
    return transaction


def read_transaction(data: bytes, at: int, *, alone: bool = False) -> tuple[RawTransaction, int]:
    """The transaction that begins at `at`, and where the next begins. Raises SourceIncomplete.

    `alone`: the transaction ends where the bytes end, so that an extension of unknown length can be stepped over.
    """
    try:
        return _read(data, at, alone=alone)
    except (IndexError, struct.error):
        raise _cut_off() from None


def _read(data: bytes, at: int, *, alone: bool) -> tuple[RawTransaction, int]:
    size = len(data)
    place = at + 4
    flags = 0
    if data[place] == 0 and data[place + 1] != 0:
        flags = data[place + 1]
        place += 2
        if flags & ~(WITNESS_FLAG | MWEB_FLAG):
            raise SourceIncomplete("A transaction has parts of an unknown kind.")
    body = place
    place, keys, coinbase, sequence_min = _inputs(data, place)
    place, outputs = _outputs(data, place)
    body_end = place
    if flags & WITNESS_FLAG:
        # A coinbase counts as one input here as well.
        place = _past_witnesses(data, place, max(len(keys), int(coinbase)))
    opaque = False
    if flags & MWEB_FLAG:
        opaque = data[place] != 0
        if opaque and not alone:
            raise SourceIncomplete("A transaction of a block holds an extension that blocks do not have.")
        place = size - 4 if opaque else place + 1
    end = place + 4
    if end > size or place < body_end:
        raise _cut_off()
    id_bytes = double_sha256(b"".join((data[at : at + 4], data[body:body_end], data[place:end])))
    tx_hash = hash_text(id_bytes)
    return (
        RawTransaction(
            tx_hash,
            id_bytes,
            (f"coinbase:{tx_hash}",) if coinbase else tuple(keys),
            outputs,
            coinbase,
            sequence_min <= SEQUENCE_REPLACEABLE_MAX,
            opaque,
        ),
        end,
    )


def _inputs(data: bytes, place: int) -> tuple[int, list[str], bool, int]:
    """Where the inputs end, what they spend, whether they are a coinbase's, and their lowest sequence number."""
    count = data[place]
    place += 1
    if count >= 0xFD:
        count, place = _long_count(data, place, count)
    if count * _INPUT_BYTES_MIN > len(data) - place:
        raise _cut_off()
    keys: list[str] = []
    sequence_min = _NO_INDEX
    coinbase = False
    for _ in range(count):
        parent, index, length = _INPUT_HEAD.unpack_from(data, place)
        place += 37
        if length >= 0xFD:
            length, place = _long_count(data, place, length)
        place += length
        sequence = _NUMBER.unpack_from(data, place)[0]
        place += 4
        if sequence < sequence_min:  # noqa: PLR1730  (twice as fast as min)
            sequence_min = sequence
        if index == _NO_INDEX and parent == _NO_PARENT:
            coinbase = True
        else:
            keys.append(f"{parent[::-1].hex()}:{index}")
    if coinbase and count != 1:
        raise SourceIncomplete("A coinbase has more than one input.")
    return place, keys, coinbase, sequence_min


def _outputs(data: bytes, place: int) -> tuple[int, list[tuple[int, str]]]:
    count = data[place]
    place += 1
    if count >= 0xFD:
        count, place = _long_count(data, place, count)
    if count * _OUTPUT_BYTES_MIN > len(data) - place:
        raise _cut_off()
    outputs: list[tuple[int, str]] = []
    for _ in range(count):
        amount, length = _OUTPUT_HEAD.unpack_from(data, place)
        place += 9
        if length >= 0xFD:
            length, place = _long_count(data, place, length)
        start, place = place, place + length
        outputs.append((amount, data[start:place].hex()))
    if place > len(data):
        raise _cut_off()
    return place, outputs


def _past_witnesses(data: bytes, place: int, inputs: int) -> int:
    for _ in range(inputs):
        items = data[place]
        place += 1
        if items >= 0xFD:
            items, place = _long_count(data, place, items)
        for _ in range(items):
            length = data[place]
            place += 1
            if length >= 0xFD:
                length, place = _long_count(data, place, length)
            place += length
    if place > len(data):
        raise _cut_off()
    return place


def _long_count(data: bytes, place: int, first: int) -> tuple[int, int]:
    """A count above 252: its length is told by its first byte, and it follows. Limited by what there is to count."""
    width = 1 << (first - 0xFC)
    end = place + width
    number = int.from_bytes(data[place:end], "little")
    if end > len(data) or number > len(data):
        raise _cut_off()
    return number, end


def _cut_off() -> SourceIncomplete:
    return SourceIncomplete("A transaction's bytes end before the transaction does.")
