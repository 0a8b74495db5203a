"""From a block's header and its receipts to a complete, checked `Block`.

For: the EVM source; also fuzzed and measured on its own, since it does no I/O.
Holds true: a `Block` comes out only if header and receipts fit together in count, order, hashes, log
positions and blooms, and it is empty only if its header says so; anything else is `SourceIncomplete`. What
comes out is lower-case 0x-prefixed hex and integers of base units.
Must not: know which contracts or addresses matter to us. Every contract's transfers are reported, because a
transfer of an unknown token to one of our addresses has to be explained to its payer too.

What counts as a transfer
- Native coin: a successful transaction with a value above zero and a receiver. A contract creation (`to` is
  null) pays nobody. Coin moved inside contract calls is not visible in receipts and is not reported here.
- Token: a log in a successful transaction with the Transfer topic, exactly three topics and 32 bytes of data
  (EIP-20). ERC-721 uses the same topic with four topics. A topic that holds an address has twelve zero bytes
  in front; other logs are not transfers between accounts and are ignored.
- Zero amounts are not reported: they move nothing, and anybody can emit them in another's name (address
  poisoning).
- Self-transfers (sender = receiver) are reported. They are true facts of the chain; whether they are income
  is not a question about the chain.
- Rewards and withdrawals of the consensus layer are not transactions and are not reported.

What counts as a spend: a signed transaction uses up its sender's nonce, also when it fails. Chains add
transaction types of their own (deposits, system calls) whose nonce is missing, always zero, or counted
elsewhere. Treating those as spends would make unrelated transactions look like replacements of each other, so
such a transaction gets a spend key that only itself can have.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from tallystick.chains.evm.bloom import BITS_OF, EMPTY_BLOOM, bloom_number, bloom_text
from tallystick.chains.evm.messages import (
    BlockAnswer,
    HeaderAnswer,
    ReceiptAnswer,
    TransactionAnswer,
    quantity,
)
from tallystick.core.chain import Block, BlockHeader, Channel, ObservedTransfer
from tallystick.core.errors import SourceIncomplete

TRANSFER_TOPIC: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
"""keccak256("Transfer(address,address,uint256)"), EIP-20."""

ZERO_ADDRESS: Final = "0x" + "00" * 20
_ADDRESS_TOPIC_PREFIX: Final = "0x" + "00" * 12
_EMPTY_TRIE: Final = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
"""What a header commits to where a block has no transactions (Yellow Paper, appendix D)."""
_NO_ROOT: Final = "0x" + "00" * 32
"""What chains write that do not reckon with a root. What is no hash at all ("", "0x") says as little."""

_BLOCK: Final = msgspec.json.Decoder(BlockAnswer)
_RECEIPTS: Final = msgspec.json.Decoder(list[ReceiptAnswer | None])
_STATUSES: Final = frozenset({"0x1", "0x0"})  # EIP-658
_TRY_AGAIN: Final = "It is asked for again."
_NO_NUMBER: Final = "A node's answer holds something else where a hex number belongs."

# Types whose nonce is the sender's own counter: legacy, EIP-2930, EIP-1559, EIP-4844, EIP-7702; zkSync's
# EIP-712 transactions (0x71); Celo's with a fee currency (0x7b, 0x7c). `None` is a node that names no type:
# legacy.
TYPES_WITH_NONCE: Final = frozenset({None, "0x0", "0x1", "0x2", "0x3", "0x4", "0x71", "0x7b", "0x7c"})
NO_NONCE: Final = "0x" + "00" * 8
"""What TRON's nodes write for every transaction: its accounts have no nonce. A quantity is never padded (EIP-1474)."""


def header_of(answer: HeaderAnswer | BlockAnswer) -> BlockHeader:
    """The header's values. Raises SourceIncomplete if they are not what they should be."""
    _require_hex((answer.hash, answer.parent_hash), 64)
    try:
        time = datetime.fromtimestamp(quantity(answer.timestamp), UTC)
    except (OverflowError, ValueError, OSError):
        raise SourceIncomplete("A block's time lies outside the calendar.", remedy=_TRY_AGAIN) from None
    height = quantity(answer.number)
    if height >= 2**63:
        raise SourceIncomplete("A block's number is impossibly high.", remedy=_TRY_AGAIN)
    return BlockHeader(answer.hash.lower(), answer.parent_hash.lower(), height, time)


def block_from_json(block: bytes, receipts: bytes, *, blooms: bool = True) -> Block:
    """`checked_block` from the bare JSON texts of the two results. Raises SourceIncomplete.

    The source decodes whole answers in one go instead; this is for measuring and for checking recorded answers.
    """
    try:
        answer, listed = _BLOCK.decode(block), _RECEIPTS.decode(receipts)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise SourceIncomplete("A recorded answer is not a block with receipts.") from None
    return checked_block(answer, listed, blooms=blooms)


def checked_block(
    answer: BlockAnswer, receipts: Sequence[ReceiptAnswer | None], *, blooms: bool = True
) -> Block:
    """The block, once its receipts are shown to be all there and to fit. Raises SourceIncomplete otherwise.

    `blooms=False` leaves the bloom checks out, for chains whose nodes answer with empty blooms (zkSync,
    TRON); log positions and counts are still checked.
    """
    header = header_of(answer)
    try:
        _make_lower_case(answer)
        present = _check_receipts(answer, receipts)
        if not present:
            _check_empty(answer)
        _check_log_positions(present)
        if blooms:
            _check_blooms(answer, present)
        else:
            _check_log_texts(present)
        _require_numbers(answer.transactions, present)
        transfers, spends = _extract(answer.transactions, present)
        if len(spends) != len(present):
            raise SourceIncomplete("Two of the block's transactions use up the same nonce of one sender.")
    except SourceIncomplete as error:
        where = f"block {header.height} {header.hash}"
        raise SourceIncomplete(error.what, object_id=where, remedy=_TRY_AGAIN) from None
    except ValueError:
        where = f"block {header.height} {header.hash}"
        raise SourceIncomplete(_NO_NUMBER, object_id=where, remedy=_TRY_AGAIN) from None
    return Block(header, tuple(transfers), spends)


def _make_lower_case(answer: BlockAnswer) -> None:
    """Check that hashes and addresses of the transactions are hex, and write them in lower case."""
    transactions = answer.transactions
    _require_hex([transaction.hash for transaction in transactions], 64)
    addresses = [transaction.sender for transaction in transactions]
    addresses += [transaction.to for transaction in transactions if transaction.to is not None]
    _require_hex(addresses, 40)
    together = "".join(addresses)
    if together != together.lower():  # rare: a node that writes checksum addresses
        for transaction in transactions:
            transaction.sender = transaction.sender.lower()
            transaction.to = None if transaction.to is None else transaction.to.lower()


def _require_hex(texts: Sequence[str], digits: int) -> None:
    """Every text is 0x and hex digits. Decoding checked the lengths; joined, one pass checks them all."""
    try:
        # No hex digit is an `x`, so removing the prefixes leaves digits only, unless something is wrong.
        size = len(unhexlify("".join(texts).encode().replace(b"0x", b"")))
    except ValueError:
        size = -1
    if size * 2 != digits * len(texts):
        raise SourceIncomplete("A node's answer holds something else where a hash or an address belongs.")


def _require_numbers(transactions: Sequence[TransactionAnswer], receipts: Sequence[ReceiptAnswer]) -> None:
    """Everything that `_extract` reads as a number is one. Checked together: that is three times as fast."""
    texts = [transaction.value for transaction in transactions]
    texts += [transaction.nonce for transaction in transactions if transaction.nonce is not None]
    texts += [log.data for receipt in receipts for log in receipt.logs if len(log.data) == 66]
    together = "".join(texts).encode()
    digits = together.replace(b"0x", b"")
    # `int` refuses other letters. Left to itself it would also take signs, underscores, spaces, other scripts'
    # digits; bytes are alphanumeric only if they are ASCII letters and digits.
    fits = len(together) - len(digits) == 2 * len(texts) and (b"0" + digits).isalnum()
    if not fits:
        raise SourceIncomplete(_NO_NUMBER)


def _check_receipts(answer: BlockAnswer, receipts: Sequence[ReceiptAnswer | None]) -> list[ReceiptAnswer]:
    """One receipt per transaction, of this block, in order, each with a status."""
    transactions = answer.transactions
    if len(receipts) != len(transactions):
        raise SourceIncomplete(
            f"The block has {len(transactions)} transactions, but {len(receipts)} receipts came."
        )
    if len({transaction.hash for transaction in transactions}) != len(transactions):
        raise SourceIncomplete("The block names a transaction twice.")
    present: list[ReceiptAnswer] = []
    block_hash = answer.hash
    for position, (transaction, receipt) in enumerate(zip(transactions, receipts, strict=True)):
        if receipt is None:
            raise SourceIncomplete(f"The receipt of transaction {position} is null.")
        if receipt.transaction_hash != transaction.hash or receipt.block_hash != block_hash:
            if receipt.transaction_hash.lower() != transaction.hash.lower():
                raise SourceIncomplete(f"Receipt {position} belongs to another transaction.")
            if receipt.block_hash.lower() != block_hash.lower():
                raise SourceIncomplete(f"Receipt {position} belongs to another block.")
        if receipt.transaction_index != hex(position) and quantity(receipt.transaction_index) != position:
            raise SourceIncomplete(f"Receipt {position} says that it stands elsewhere in the block.")
        if receipt.status not in _STATUSES:
            raise SourceIncomplete(_status_problem(position, receipt.status))
        present.append(receipt)
    return present


def _check_empty(answer: BlockAnswer) -> None:
    """A block without transactions says so itself. Where only coins moved, no log and no bloom would miss them.

    The gas counts only where no root was said: chains that run two kinds of transactions (Cronos, Kava, other Cosmos
    chains) add the gas of those that are none of the EVM's.
    """
    root = None if answer.transactions_root is None else answer.transactions_root.lower()
    if root == _EMPTY_TRIE:
        return
    if root is not None and root != _NO_ROOT and len(root) == len(_NO_ROOT):
        raise SourceIncomplete("The block came without its transactions: its header commits to some.")
    if answer.gas_used is not None and quantity(answer.gas_used) != 0:
        raise SourceIncomplete("The block came without its transactions: they used gas.")


def _check_log_positions(receipts: Sequence[ReceiptAnswer]) -> None:
    """Logs are numbered through the block from 0, none missing, doubled or withdrawn."""
    position = 0
    for receipt in receipts:
        for log in receipt.logs:
            if log.removed:
                raise SourceIncomplete(f"Log {position} is marked as removed.")
            if log.log_index != hex(position) and quantity(log.log_index) != position:
                raise SourceIncomplete(
                    f"Where log {position} belongs another one stands: one is missing or doubled."
                )
            position += 1


def _status_problem(position: int, status: str | None) -> str:
    if status is None:
        return (
            f"Receipt {position} has no status. Blocks before Byzantium (EIP-658) do not say whether a "
            "transaction succeeded, and cannot be used for payments."
        )
    return f"Receipt {position} has an unknown status."


def _check_blooms(answer: BlockAnswer, receipts: Sequence[ReceiptAnswer]) -> None:
    """Each receipt's bloom is that of its logs, and together they are the header's.

    Transactions from the zero address cannot be signed; chains insert them (Polygon's state sync), and their
    logs may or may not be part of the header's bloom. Both are accepted.
    """
    bits_of = BITS_OF
    signed = unsigned = 0
    for position, (transaction, receipt) in enumerate(zip(answer.transactions, receipts, strict=True)):
        if not receipt.logs and receipt.logs_bloom == EMPTY_BLOOM:
            continue
        bits = 0
        for log in receipt.logs:
            bits |= bits_of[log.address]
            for topic in log.topics:
                bits |= bits_of[topic]
        if receipt.logs_bloom != bloom_text(bits) and bloom_number(receipt.logs_bloom) != bits:
            raise SourceIncomplete(
                f"The logs of receipt {position} do not fit its bloom: some are missing or foreign."
            )
        if transaction.sender == ZERO_ADDRESS:
            unsigned |= bits
        else:
            signed |= bits
    if bloom_number(answer.logs_bloom) not in (signed, signed | unsigned):
        raise SourceIncomplete("The logs do not fit the bloom of the block: some are missing or foreign.")


def _check_log_texts(receipts: Sequence[ReceiptAnswer]) -> None:
    """Addresses and topics are hex. With bloom checks this follows from computing the bloom."""
    logs = [log for receipt in receipts for log in receipt.logs]
    _require_hex([log.address for log in logs], 40)
    _require_hex([topic for log in logs for topic in log.topics], 64)


def _extract(
    transactions: Sequence[TransactionAnswer], receipts: Sequence[ReceiptAnswer]
) -> tuple[list[ObservedTransfer], dict[str, str]]:
    """All transfers in the order of the block, and what each transaction spent."""
    transfers: list[ObservedTransfer] = []
    add = transfers.append
    in_value, in_log = Channel.VALUE, Channel.LOG
    spends: dict[str, str] = {}
    first_log = 0
    for transaction, receipt in zip(transactions, receipts, strict=True):
        tx_hash, sender = transaction.hash.lower(), transaction.sender
        nonce = transaction.nonce
        counted = transaction.type in TYPES_WITH_NONCE and sender != ZERO_ADDRESS
        if counted and nonce is not None and nonce != NO_NONCE:
            spend_key = f"{sender}:{int(nonce, 16)}"
        else:
            spend_key = f"tx:{tx_hash}"
        spends[spend_key] = tx_hash
        spend_keys = (spend_key,)
        logs = receipt.logs
        if receipt.status == "0x1":
            if transaction.value != "0x0" and transaction.to is not None:
                value = int(transaction.value, 16)
                if value > 0:
                    add(
                        ObservedTransfer(
                            tx_hash, in_value, 0, sender, transaction.to, None, value, spend_keys
                        )
                    )
            for ordinal, log in enumerate(logs):
                topics = log.topics
                if len(topics) != 3 or len(log.data) != 66:
                    continue
                if topics[0] != TRANSFER_TOPIC and topics[0].lower() != TRANSFER_TOPIC:
                    continue
                if topics[1][:26] != _ADDRESS_TOPIC_PREFIX or topics[2][:26] != _ADDRESS_TOPIC_PREFIX:
                    continue
                amount = int(log.data, 16)
                if amount == 0:
                    continue
                source, to = ("0x" + topics[1][26:]).lower(), ("0x" + topics[2][26:]).lower()
                contract, log_index = log.address.lower(), first_log + ordinal
                add(
                    ObservedTransfer(
                        tx_hash, in_log, ordinal, source, to, contract, amount, spend_keys, log_index
                    )
                )
        first_log += len(logs)
    return transfers, spends
