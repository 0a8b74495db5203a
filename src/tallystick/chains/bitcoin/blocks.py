"""From a block's bytes to a complete, checked `Block`.

For: the source of Bitcoin's family; also fuzzed and measured on its own, since it does no I/O.
Holds true: a `Block` comes out only if its header's hash is the one asked for and its transactions give the header's
Merkle root, so that a node can leave nothing out, add nothing, and change no amount or script. That the first of them
is a coinbase also shows that no inner nodes of the tree were passed off as transactions. What comes out is lower-case
hex and integers of base units.
Must not: know which scripts are ours, check proof of work (which blocks are the best chain is the node's word, and
other nodes'), or interpret what is inside Litecoin's extension block.

What counts as a transfer: an output above zero whose script an address can stand for, in channel OUTPUT under its
index. Those scripts have at most 42 bytes (BIP141); longer ones, and data carriers (OP_RETURN), are nobody's address
and are left out. There is no sender: inputs name outputs, not people, and whose those are is not a fact of the block.

What counts as a spend: every output that a transaction of the block spends. Of a coinbase, only itself.

Traits. COINBASE: outputs of the first transaction. PEGOUT: outputs of Litecoin's HogEx, the last transaction of a block
with an extension block, whose first output (the extension's balance, a script of version 8) is nobody's. DUST: below
what Bitcoin Core relays (`GetDustThreshold`). REPLACEABLE and UNCONFIRMED_PARENT say nothing about what a block holds.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tallystick.chains.bitcoin.messages import HeaderAnswer
from tallystick.chains.bitcoin.transactions import (
    RawTransaction,
    double_sha256,
    hash_text,
    read_transaction,
)
from tallystick.core.chain import Block, BlockHeader, Channel, ObservedTransfer, Trait
from tallystick.core.errors import SourceIncomplete

HEADER_BYTES: Final = 80
SCRIPT_BYTES_MAX: Final = 42
"""The longest script that an address stands for: a witness program of 40 bytes (BIP141)."""

_HEADER: Final = struct.Struct("<i32s32sIII")
_TRANSACTION_BYTES_MIN: Final = 60
_HOGEX_SCRIPT_START: Final = "5820"  # witness version 8, 32 bytes (LIP-0002)
_DATA_CARRIER: Final = "6a"  # OP_RETURN
_HEIGHT_MAX: Final = 2**31
_TRY_AGAIN: Final = "It is asked for again."
_NOTHING: Final[frozenset[Trait]] = frozenset()


@dataclass(frozen=True, slots=True)
class Rules:
    """What differs between the chains of the family.

    `extension_blocks`: blocks may end with a HogEx, and bytes of an extension block follow them. `dust_rate` is the
    price of relay by which dust is told, in base units per 1,000 vbytes.
    """

    extension_blocks: bool
    dust_rate: int


RULES: Final = {"bitcoin": Rules(False, 3_000), "litecoin": Rules(True, 30_000)}
"""By family. The rates are `DUST_RELAY_TX_FEE` of Bitcoin Core and of Litecoin Core."""


def header_of(answer: HeaderAnswer) -> BlockHeader:
    """The header's values, once they are shown to give its hash. Raises SourceIncomplete."""
    try:
        packed = _HEADER.pack(
            answer.version,
            bytes.fromhex(answer.previous or "00" * 32)[::-1],
            bytes.fromhex(answer.merkle_root)[::-1],
            answer.time,
            int(answer.bits, 16),
            answer.nonce,
        )
    except (ValueError, struct.error):
        raise SourceIncomplete(
            "A block's header holds something else where a number belongs.", remedy=_TRY_AGAIN
        ) from None
    if not 0 <= answer.height < _HEIGHT_MAX:
        raise SourceIncomplete("A block's height is impossible.", remedy=_TRY_AGAIN)
    return _header(packed, answer.hash.lower(), answer.height)


def checked_block(raw: str, block_hash: str, height: int, rules: Rules) -> Block:
    """The block of this hash from its bytes in hex (`getblock` with verbosity 0). Raises SourceIncomplete.

    The bytes do not tell the height (old blocks' coinbases do not hold it): it is the caller's, who knows the hash by
    it.
    """
    try:
        try:
            data = bytes.fromhex(raw)
        except ValueError:
            raise SourceIncomplete("The block's bytes are not hex.") from None
        header = _header(data[:HEADER_BYTES], block_hash, height)
        transactions = _transactions(data, rules)
        _check_root(transactions, data[36:68])
        return Block(header, tuple(_transfers(transactions, rules)), _spends(transactions))
    except SourceIncomplete as error:
        where = f"block {height} {block_hash}"
        raise SourceIncomplete(error.what, object_id=where, remedy=_TRY_AGAIN) from None


def _header(data: bytes, block_hash: str, height: int) -> BlockHeader:
    if len(data) != HEADER_BYTES or hash_text(double_sha256(data)) != block_hash:
        raise SourceIncomplete("A block's header does not have the hash that it is said to have.")
    _, parent, _, seconds, _, _ = _HEADER.unpack(data)
    return BlockHeader(block_hash, hash_text(parent), height, datetime.fromtimestamp(seconds, UTC))


def _transactions(data: bytes, rules: Rules) -> list[RawTransaction]:
    if len(data) <= HEADER_BYTES:
        raise SourceIncomplete("The block's bytes end after its header.")
    count, place = data[HEADER_BYTES], HEADER_BYTES + 1
    if count >= 0xFD:
        width = 1 << (count - 0xFC)
        count, place = int.from_bytes(data[place : place + width], "little"), place + width
    if not 0 < count <= len(data) // _TRANSACTION_BYTES_MIN:
        raise SourceIncomplete("The block's number of transactions is impossible.")
    transactions: list[RawTransaction] = []
    for _ in range(count):
        transaction, place = read_transaction(data, place)
        transactions.append(transaction)
    if place != len(data) and not rules.extension_blocks:
        raise SourceIncomplete("The block's bytes go on after its last transaction.")
    return transactions


def _check_root(transactions: Sequence[RawTransaction], root: bytes) -> None:
    """All transactions, none twice (a doubled tail has the same root: CVE-2012-2459), the first a coinbase."""
    ids = [transaction.id_bytes for transaction in transactions]
    if len(set(ids)) != len(ids):
        raise SourceIncomplete("The block holds a transaction twice.")
    if merkle_root(ids) != root:
        raise SourceIncomplete("The block's transactions are not those that its header commits to.")
    if [transaction.coinbase for transaction in transactions].count(True) != 1 or not transactions[
        0
    ].coinbase:
        raise SourceIncomplete("The block's first transaction, and no other, should be its coinbase.")


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root of Bitcoin's Merkle tree over these hashes (at least one): of an odd row, the last counts twice."""
    row = list(leaves)
    while len(row) > 1:
        if len(row) % 2:
            row.append(row[-1])
        row = [double_sha256(row[place] + row[place + 1]) for place in range(0, len(row), 2)]
    return row[0]


def _spends(transactions: Sequence[RawTransaction]) -> dict[str, str]:
    spends: dict[str, str] = {}
    count = 0
    for transaction in transactions:
        tx_hash = transaction.tx_hash
        for key in transaction.spend_keys:
            spends[key] = tx_hash
        count += len(transaction.spend_keys)
    if len(spends) != count:
        raise SourceIncomplete("Two inputs of the block spend the same output.")
    return spends


def _transfers(transactions: Sequence[RawTransaction], rules: Rules) -> list[ObservedTransfer]:
    transfers: list[ObservedTransfer] = []
    last = len(transactions) - 1
    for position, transaction in enumerate(transactions):
        traits = _NOTHING
        if position == 0:
            traits = frozenset({Trait.COINBASE})
        elif position == last and rules.extension_blocks and is_hogex(transaction):
            traits = frozenset({Trait.PEGOUT})
        transfers.extend(transfers_of(transaction, rules, traits))
    return transfers


def is_hogex(transaction: RawTransaction) -> bool:
    """Whether the last transaction of a block settles with the extension block: its first output is the extension's."""
    outputs = transaction.outputs
    return bool(outputs) and outputs[0][1].startswith(_HOGEX_SCRIPT_START) and len(outputs[0][1]) == 68


def transfers_of(
    transaction: RawTransaction, rules: Rules, traits: frozenset[Trait] = _NOTHING
) -> list[ObservedTransfer]:
    """The transfers that a transaction makes, each with these traits, and DUST where it is."""
    found: list[ObservedTransfer] = []
    tx_hash, keys = transaction.tx_hash, transaction.spend_keys
    for ordinal, (amount, script) in enumerate(transaction.outputs):
        if (
            amount == 0
            or len(script) > 2 * SCRIPT_BYTES_MAX
            or script.startswith(_DATA_CARRIER)
            or not script
        ):
            continue
        own = traits
        if amount < _DUST_BYTES_MAX * rules.dust_rate // 1_000 and amount < dust_limit(
            script, rules.dust_rate
        ):
            own = traits | {Trait.DUST}
        found.append(
            ObservedTransfer(tx_hash, Channel.OUTPUT, ordinal, "", script, None, amount, keys, traits=own)
        )
    return found


# An output: its amount (8), the length of its script (1). The input that spends it, as `GetDustThreshold` reckons.
_OUTPUT_HEAD_BYTES: Final = 9
_SPENT_BYTES: Final = 148
_SPENT_BYTES_WITNESS: Final = 67
_DUST_BYTES_MAX: Final = _OUTPUT_HEAD_BYTES + SCRIPT_BYTES_MAX + _SPENT_BYTES


def dust_limit(script: str, rate: int) -> int:
    """The least amount that an output with this script (hex) needs to be relayed, in base units."""
    size = len(script) // 2
    first = int(script[:2], 16)
    witness = 4 <= size <= SCRIPT_BYTES_MAX and (first == 0 or 0x51 <= first <= 0x60)
    witness = witness and int(script[2:4], 16) == size - 2
    return (_OUTPUT_HEAD_BYTES + size + (_SPENT_BYTES_WITNESS if witness else _SPENT_BYTES)) * rate // 1_000
