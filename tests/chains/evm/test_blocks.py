"""From bytes to a checked block: made-up blocks, chains' own transaction types, and mutated answers."""

from __future__ import annotations

import copy
import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.chains.evm.blocks import ZERO_ADDRESS, block_from_json
from tallystick.chains.evm.bloom import (
    BITS_OF,
    EMPTY_BLOOM,
    REMEMBERED_MAX,
    BloomBits,
    bloom_number,
    bloom_text,
)
from tallystick.chains.evm.messages import quantity
from tallystick.core.chain import Block, Channel
from tallystick.core.errors import SourceIncomplete
from tests.support.rpc_stub import (
    TOKENS,
    StubBlock,
    StubPayment,
    bloom_of_logs,
    filler,
    make_block,
    stub_address,
)

PARENT = "0x" + "aa" * 32
SHOP = stub_address("shop")


def read(block: StubBlock, *, blooms: bool = True) -> Block:
    """What our code makes of a made-up block."""
    return block_from_json(block.full_bytes, block.receipts_bytes, blooms=blooms)


def changed(block: StubBlock, **fields: Any) -> StubBlock:
    """The block with its first transaction changed. A value of `...` takes the field away."""
    other = copy.deepcopy(block)
    for name, value in fields.items():
        other.full["transactions"][0].pop(name, None)
        if value is not ...:
            other.full["transactions"][0][name] = value
    other.encode()
    return other


@pytest.mark.parametrize("count", [0, 1, 2, 200])
def test_every_payment_comes_out(count: int) -> None:
    payments = filler(count, seed=count)
    block = read(make_block(7, PARENT, payments))
    assert block.header.height == 7
    assert block.header.parent_hash == PARENT
    assert block.header.time == datetime.fromtimestamp(1_700_000_000 + 7 * 12, UTC)
    assert [(entry.to, entry.amount, entry.contract, entry.sender) for entry in block.transfers] == [
        (payment.to, payment.amount, payment.contract, payment.sender) for payment in payments
    ]
    assert len(block.spends) == count
    for transfer, payment in zip(block.transfers, payments, strict=True):
        assert transfer.spend_keys == (f"{payment.sender}:{payment.nonce}",)
        assert block.spends[transfer.spend_keys[0]] == transfer.tx_hash
        assert transfer.channel is (Channel.VALUE if payment.contract is None else Channel.LOG)
        assert (transfer.log_index is None) == (payment.contract is None)
    logs = [entry.log_index for entry in block.transfers if entry.log_index is not None]
    assert logs == list(range(len(logs)))


@pytest.mark.parametrize("kept", ["transactionsRoot", "gasUsed"])
def test_a_block_without_its_transactions_is_not_an_empty_one(kept: str) -> None:
    """Only coins moved, so no log is missed: header and receipts are as of an empty block, but for what it commits to.

    Found by `tests/scenarios/test_nodes.py`: such an answer was taken for an empty block, and its payments were lost.
    """
    whole = make_block(7, PARENT, [StubPayment(sender=stub_address("payer"), nonce=0, to=SHOP, amount=5)])
    empty = make_block(7, PARENT, [])
    assert read(empty).transfers == ()
    for name in ("transactionsRoot", "gasUsed"):
        if name == kept:
            empty.full[name] = whole.full[name]
        else:
            del empty.full[name]
    empty.encode()
    with pytest.raises(SourceIncomplete, match="without its transactions"):
        read(empty)
    del empty.full[kept]
    empty.encode()
    assert read(empty).transfers == ()  # a chain whose headers say neither


def test_gas_of_transactions_that_are_none_of_the_evm_does_not_stop_a_chain() -> None:
    """Cronos, Kava: an empty block of the EVM, in which other transactions used gas. Its root says that it is empty.

    Believed otherwise, the network would wait at such a block for ever.
    """
    empty = make_block(7, PARENT, [])
    empty.full["gasUsed"] = "0x1e8480"
    empty.encode()
    assert read(empty).transfers == ()
    empty.full["transactionsRoot"] = (
        "0x" + "00" * 32
    )  # no root at all: then the gas says that something is missing
    empty.encode()
    with pytest.raises(SourceIncomplete, match="used gas"):
        read(empty)


def test_accounts_without_nonces_may_send_twice_in_a_block() -> None:
    """TRON: every transaction has the same nonce, eight zero bytes. None of them takes another's place."""
    block = make_block(1, PARENT, [StubPayment(SHOP, 5), StubPayment(SHOP, 7, nonce=1)])
    for transaction in block.full["transactions"]:
        transaction["nonce"] = "0x0000000000000000"
    block.encode()
    spends = read(block).spends
    assert spends == {f"tx:{tx_hash}": tx_hash for tx_hash in spends.values()}
    assert len(spends) == 2


def test_failed_payments_spend_only() -> None:
    block = read(
        make_block(
            1, PARENT, [StubPayment(SHOP, 5, ok=False), StubPayment(SHOP, 6, TOKENS[0], ok=False, nonce=1)]
        )
    )
    assert block.transfers == ()
    assert len(block.spends) == 2


def test_upper_case_answers_are_read_in_lower_case() -> None:
    plain = make_block(1, PARENT, [StubPayment(SHOP, 5), StubPayment(SHOP, 6, TOKENS[0], nonce=1)])
    shouted = copy.deepcopy(plain)
    shouted.full = _shout(shouted.full)
    shouted.receipts = _shout(shouted.receipts)
    shouted.encode()
    assert shouted.full_bytes != plain.full_bytes
    assert read(shouted) == read(plain)


def _shout(value: Any) -> Any:
    """Every hex text with upper-case digits."""
    if isinstance(value, dict):
        return {key: _shout(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_shout(entry) for entry in value]
    return "0x" + value[2:].upper() if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("fields", "own_key"),
    [
        ({"type": "0x0"}, False),
        ({"type": "0x4"}, False),
        ({"type": ...}, False),
        ({"type": "0x71"}, False),  # zkSync
        ({"type": "0x7b"}, False),  # Celo
        ({"type": "0x7e", "nonce": ...}, True),  # OP stack deposit
        ({"type": "0x7e", "nonce": "0x0"}, True),
        ({"type": "0x6a", "nonce": "0x0"}, True),  # Arbitrum internal
        (
            {"type": "0x64", "nonce": "0x0"},
            True,
        ),  # Arbitrum deposit: its sender may have a real nonce 0 as well
        ({"type": "0xff", "nonce": "0x5"}, True),  # zkSync priority: the nonce counts something else
        ({"type": "0x7f", "from": ZERO_ADDRESS}, True),  # Polygon state sync
        ({"type": "0x0", "from": ZERO_ADDRESS, "nonce": "0x0"}, True),
        ({"nonce": ...}, True),
        ({"nonce": None}, True),
        ({"type": "what is this", "nonce": "0x1"}, True),
        ({"type": None, "nonce": "0x0"}, False),
        ({"to": ..., "value": "0x0"}, False),
        ({"value": ...}, False),
        ({"unknown": {"deep": [1, 2.5, None, {}]}}, False),
    ],
)
def test_transactions_of_chains_own_types(fields: dict[str, Any], own_key: bool) -> None:
    block = changed(make_block(1, PARENT, [StubPayment(SHOP, 5), StubPayment(SHOP, 7, nonce=1)]), **fields)
    read_block = read(block)
    tx_hash = block.full["transactions"][0]["hash"]
    (key,) = [key for key, value in read_block.spends.items() if value == tx_hash]
    assert (key == f"tx:{tx_hash}") == own_key
    assert read_block.transfers[-1].amount == 7


def test_unsigned_logs_may_or_may_not_be_in_the_header() -> None:
    """Polygon's state sync: its receipt has logs, which older blocks' headers do not know."""
    payments = [
        StubPayment(SHOP, 5, TOKENS[0]),
        StubPayment(SHOP, 6, TOKENS[1], sender=ZERO_ADDRESS, nonce=0),
    ]
    block = make_block(1, PARENT, payments)
    assert len(read(block).transfers) == 2
    block.full["logsBloom"] = block.receipts[0]["logsBloom"]
    block.encode()
    assert len(read(block).transfers) == 2
    block.full["logsBloom"] = block.receipts[1]["logsBloom"]
    block.encode()
    with pytest.raises(SourceIncomplete):
        read(block)


def test_chains_without_blooms() -> None:
    block = make_block(1, PARENT, [StubPayment(SHOP, 5, TOKENS[0])])
    expected = read(block)
    block.full["logsBloom"] = block.receipts[0]["logsBloom"] = EMPTY_BLOOM
    block.encode()
    with pytest.raises(SourceIncomplete):
        read(block)
    assert read(block, blooms=False) == expected
    del block.full["logsBloom"], block.receipts[0]["logsBloom"]
    block.encode()
    assert read(block, blooms=False) == expected
    block.receipts[0]["logs"][0]["address"] = "0x" + "zz" * 20
    block.encode()
    with pytest.raises(SourceIncomplete):
        read(block, blooms=False)


def test_before_byzantium_the_message_says_why() -> None:
    block = make_block(1, PARENT, [StubPayment(SHOP, 5)])
    del block.receipts[0]["status"]
    block.receipts[0]["root"] = "0x" + "ab" * 32
    block.encode()
    with pytest.raises(SourceIncomplete, match="Byzantium"):
        read(block)


def test_errors_name_the_block() -> None:
    block = make_block(12, PARENT, [StubPayment(SHOP, 5)])
    block.receipts.clear()
    block.encode()
    with pytest.raises(SourceIncomplete, match=f"block 12 {block.hash}"):
        read(block)


@pytest.mark.parametrize(
    "text", ["", "0x", "5", "0x-1", "-0x1", "0x1_0", "0x 1", "0x１", "0xg", "0x+1", "0x\n1"]
)
def test_quantities_are_strict(text: str) -> None:
    with pytest.raises(SourceIncomplete):
        quantity(text)
    block = changed(make_block(1, PARENT, [StubPayment(SHOP, 5)]), value=text)
    with pytest.raises(SourceIncomplete):
        read(block)
    block = changed(make_block(1, PARENT, [StubPayment(SHOP, 5)]), nonce=text)
    with pytest.raises(SourceIncomplete):
        read(block)


def test_blooms_agree_with_a_plain_reckoning() -> None:
    block = make_block(1, PARENT, filler(50, seed=3, native_share=0))
    for receipt in block.receipts:
        for log in receipt["logs"]:
            bits = BITS_OF[log["address"]]
            for topic in log["topics"]:
                bits |= BITS_OF[topic]
            assert bits == bloom_of_logs([log]) == bloom_number(bloom_text(bits))


def test_bloom_of_a_real_transfer() -> None:
    """The bits of the Transfer topic, as they stand in every block of main net that holds a token transfer."""
    topic = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
    assert sorted(bit for bit in range(2048) if BITS_OF[topic] >> bit & 1) == _bits_by_eth_utils(topic)


def _bits_by_eth_utils(text: str) -> list[int]:
    from eth_utils.crypto import keccak

    digest = keccak(hexstr=text)
    return sorted({int.from_bytes(digest[start : start + 2], "big") & 2047 for start in (0, 2, 4)})


def test_remembered_bits_are_bounded() -> None:
    bits = BloomBits()
    for number in range(REMEMBERED_MAX + 10):
        assert bits[f"0x{number:040x}"]
    assert len(bits) <= REMEMBERED_MAX


# -- mutated answers

SPECIMEN = make_block(5, PARENT, filler(6, seed=11))
ODD_VALUES: list[Any] = [
    None, True, 0, -1, 1.5, "", "0x", "0x0", "0x1", "0x_1", "-0x1", [], {}, [None], "0x" + "0" * 64,
    "0x" + "z" * 64, "0x" + "F" * 40, "0x" + "f" * 64, "0x" + "00" * 256, "0x" + " " * 40, "\ud7ff", "é" * 66,
    10**30, "0x" + "f" * 10_000, [["0x1"]], {"a": {"b": []}},
]  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, (dict, list)):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in entries:
            found.append((value, key))
            found += places(entry)
    return found


@settings(max_examples=600, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_mutated_answers_never_raise_anything_else(seed: int) -> None:
    """One to three values of an answer replaced, removed, doubled or swapped."""
    chance = random.Random(seed)
    full, receipts = copy.deepcopy(SPECIMEN.full), copy.deepcopy(SPECIMEN.receipts)
    for _ in range(chance.randint(1, 3)):
        container, key = chance.choice(places([full, receipts]))
        match chance.randrange(4):
            case 0:
                container[key] = chance.choice(ODD_VALUES)
            case 1:
                del container[key]
            case 2 if isinstance(container, list):
                container.insert(key, copy.deepcopy(container[key]))
            case _:
                _, other_key = other = chance.choice(places([full, receipts]))
                container[key] = copy.deepcopy(other[0][other_key])
    try:
        block = block_from_json(json.dumps(full).encode(), json.dumps(receipts).encode())
    except SourceIncomplete:
        return
    for transfer in block.transfers:
        assert 0 < transfer.amount < 2**256
        assert transfer.to == transfer.to.lower()
        assert bytes.fromhex(transfer.to[2:] + transfer.sender[2:] + (transfer.contract or "0x")[2:])
        assert len(transfer.to) == len(transfer.sender) == 42


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_damaged_bytes_never_raise_anything_else(seed: int) -> None:
    chance = random.Random(seed)
    full, receipts = bytearray(SPECIMEN.full_bytes), bytearray(SPECIMEN.receipts_bytes)
    for _ in range(chance.randint(1, 4)):
        text = chance.choice((full, receipts))
        start = chance.randrange(len(text))
        text[start : start + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    try:
        block_from_json(bytes(full), bytes(receipts))
    except SourceIncomplete:
        return


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_lost_or_changed_log_never_passes(seed: int) -> None:
    """Whatever is done to one log that touches what we read, the block is refused or unchanged."""
    chance = random.Random(seed)
    receipts = copy.deepcopy(SPECIMEN.receipts)
    receipt = chance.choice([entry for entry in receipts if entry["logs"]])
    log = receipt["logs"][0]
    match chance.randrange(5):
        case 0:
            receipt["logs"] = []
        case 1:
            receipt["logs"].append(log)
        case 2:
            log["topics"][2] = "0x" + "00" * 12 + chance.randbytes(20).hex()
        case 3:
            log["address"] = "0x" + chance.randbytes(20).hex()
        case _:
            log["topics"].pop()
    with pytest.raises(SourceIncomplete):
        block_from_json(SPECIMEN.full_bytes, json.dumps(receipts).encode())
