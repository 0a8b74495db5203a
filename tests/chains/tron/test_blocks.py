"""What counts in a TRON block: every outcome, every kind of transfer, and what must fit together (F-TOKEN 5)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tallystick.chains.tron.blocks import checked_block, header_of, shows_inner
from tallystick.chains.tron.messages import BlockAnswer, Info
from tallystick.core.chain import Block, Channel, ObservedTransfer
from tallystick.core.errors import SourceIncomplete
from tests.support.tron_node import (
    GENESIS_ID,
    VM_RESULTS,
    TronNode,
    TronTransaction,
    asset_transfer,
    call,
    hex_address,
    step,
    token_payment,
    transfer,
    transfer_log,
)

SHOP, OTHER, PAYER = "0x" + "5b" * 20, "0x" + "5c" * 20, "0x" + "5e" * 20
USDT = "0xa614f803b6fd780986a42c78ec9c7f77e6ded13c"
VAULT = "0x" + "7e" * 20


def answers(*transactions: TronTransaction) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Block and infos, as a node shows them."""
    node = TronNode()
    node.mine(blocks=4)
    node.mine(*transactions)
    return json.loads(json.dumps([node.blocks[-1].shown(), node.blocks[-1].infos()]))  # type: ignore[no-any-return]


def read(block: Any, infos: Any, *, inner_told: bool = True) -> Block:
    """What the source makes of it."""
    return checked_block(
        msgspec.json.decode(json.dumps(block), type=BlockAnswer),
        msgspec.json.decode(json.dumps(infos), type=list[Info]),
        inner_told=inner_told,
    )


def found(*transactions: TronTransaction) -> tuple[ObservedTransfer, ...]:
    """The transfers of a block of these transactions."""
    return read(*answers(*transactions)).transfers


def test_header_and_spends_in_our_own_terms() -> None:
    payments = transfer(SHOP, 1), transfer(SHOP, 2)
    block, infos = answers(*payments)
    seen = read(block, infos)
    assert (seen.header.height, seen.header.hash) == (5, "0x" + block["blockID"])
    assert seen.header.parent_hash == "0x" + block["block_header"]["raw_data"]["parentHash"]
    milliseconds = block["block_header"]["raw_data"]["timestamp"]
    assert seen.header.time == datetime.fromtimestamp(milliseconds // 1000, UTC)
    assert seen.spends == {f"tx:{one.tx_hash}": one.tx_hash for one in payments}
    assert seen.untraced is None


def test_trx() -> None:
    paid = transfer(SHOP, 12_500_000)
    assert found(paid) == (
        ObservedTransfer(
            paid.tx_hash, Channel.VALUE, 0, PAYER, SHOP, None, 12_500_000, (f"tx:{paid.tx_hash}",)
        ),
    )


def test_token() -> None:
    """The log's index is its place in the block, its ordinal that among its transaction's own logs."""
    first, paid = token_payment(USDT, OTHER, 5), token_payment(USDT, SHOP, 25_000_000)
    assert found(first, paid)[1] == ObservedTransfer(
        paid.tx_hash, Channel.LOG, 0, PAYER, SHOP, USDT, 25_000_000, (f"tx:{paid.tx_hash}",), 1
    )


@pytest.mark.parametrize("result", VM_RESULTS)
def test_of_a_call_only_success_counts(result: str) -> None:
    """Every outcome that the protocol has; the log, the value and the inner transfer of a failed one are told and void.

    Bugs planted: the outcome not asked; only REVERT taken for a failure. Both credit fourteen kinds of failed payments.
    """
    paid = call(
        USDT,
        logs=[transfer_log(USDT, SHOP, 25)],
        inner=[step(VAULT, SHOP, 7)],
        call_value=3,
        result=result,
    )
    channels = {Channel.VALUE, Channel.LOG, Channel.TRACE} if result == "SUCCESS" else set()
    block = read(*answers(paid))
    assert {one.channel for one in block.transfers} == channels
    assert block.spends == {f"tx:{paid.tx_hash}": paid.tx_hash}


@pytest.mark.parametrize(
    "result", [*(one for one in VM_RESULTS if one != "SUCCESS"), "A_WORD_OF_LATER", "", None]
)
def test_of_a_transfer_of_trx_only_success_counts(result: str | None) -> None:
    assert found(transfer(SHOP, 5, result=result)) == ()


def test_an_outcome_that_is_missing_or_doubled_is_no_success() -> None:
    for ret in ([], [{"contractRet": "SUCCESS"}, {"contractRet": "SUCCESS"}]):
        block, infos = answers(transfer(SHOP, 5))
        block["transactions"][0]["ret"] = ret
        assert read(block, infos).transfers == ()


def test_a_success_by_the_block_and_a_failure_by_the_info_is_none() -> None:
    """TRX has no receipt result. Should a node say one, or FAILED, it must agree."""
    for change in ({"result": "FAILED"}, {"receipt": {"result": "REVERT"}}):
        block, infos = answers(transfer(SHOP, 5))
        infos[0] |= change
        assert read(block, infos).transfers == ()


@pytest.mark.parametrize("result", ["REVERT", "OUT_OF_ENERGY", "DEFAULT"])
def test_a_call_whose_block_and_receipt_contradict_each_other_is_incomplete(result: str) -> None:
    """The protocol compares the two. Bug planted: the block's word alone counts; a reverted payment is credited."""
    block, infos = answers(call(USDT, logs=[transfer_log(USDT, SHOP, 25)], result=result))
    block["transactions"][0]["ret"] = [{"contractRet": "SUCCESS"}]
    with pytest.raises(SourceIncomplete, match="by its receipt"):
        read(block, infos)


def test_a_trc10_token_is_not_trx() -> None:
    """It has `amount` and `to_address` too. Bug planted: these fields read whatever the kind; junk pays for goods."""
    assert found(asset_transfer(SHOP, 12_500_000)) == ()


def test_the_value_of_a_call_goes_to_the_contract() -> None:
    (moved,) = found(call(VAULT, call_value=9))
    assert (moved.channel, moved.to, moved.amount) == (Channel.VALUE, VAULT, 9)


def test_logs_that_are_no_transfers() -> None:
    """Another topic, ERC-721's four topics, two topics, no data, data of another size, no amount, an odd address."""
    good = transfer_log(USDT, SHOP, 5)
    four = good | {"topics": [*good["topics"], "00" * 32]}
    odd = good | {"topics": [good["topics"][0], good["topics"][1], "11" * 12 + SHOP[2:]]}
    bad = [
        transfer_log(USDT, SHOP, 5, topic="8c" * 32),
        four,
        good | {"topics": good["topics"][:2]},
        {key: value for key, value in good.items() if key != "data"},
        good | {"data": "05"},
        transfer_log(USDT, SHOP, 0),
        odd,
        {"address": USDT[2:]},
    ]
    (only,) = found(call(USDT, logs=[*bad, good]))
    assert (only.ordinal, only.log_index, only.amount) == (8, 8, 5)


def test_logs_of_nodes_that_write_the_prefix_or_capitals() -> None:
    log = transfer_log(USDT, SHOP, 5)
    (one,) = found(call(USDT, logs=[log | {"address": hex_address(USDT).upper()}]))
    assert (one.contract, one.to) == (USDT, SHOP)


def test_inner_transfers_count_unless_rejected() -> None:
    """Only TRX, only what was not undone, only steps whose value arrives; the ordinal counts all steps of those kinds.

    Bugs planted: `rejected` not asked; every kind of step read, so that delegated energy pays; the place in the whole
    list as ordinal, which differs between nodes that keep the other kinds and nodes that do not.
    """
    steps = [
        step(VAULT, SHOP, 100, note="delegateResourceOfEnergy"),
        step(VAULT, SHOP, 1, rejected=True),
        step(VAULT, OTHER, 0),
        step(VAULT, SHOP, 2),
        step(VAULT, SHOP, 100, token="1000001"),
        step(VAULT, SHOP, 100, note="freezeBalanceV2ForEnergy"),
        step(VAULT, SHOP, 3, note="suicide"),
        step(VAULT, SHOP, 4, note="create"),
        step(VAULT, SHOP, 100, note="voteWitness"),
    ]
    moved = found(call(VAULT, inner=steps))
    assert [(one.channel, one.ordinal, one.to, one.amount) for one in moved] == [
        (Channel.TRACE, 2, SHOP, 2),
        (Channel.TRACE, 4, SHOP, 3),
        (Channel.TRACE, 5, SHOP, 4),
    ]
    kept = [one for one in steps if bytes.fromhex(one["note"]).decode() in ("call", "create", "suicide")]
    again = found(call(VAULT, inner=kept))
    assert [(one.ordinal, one.amount) for one in again] == [(one.ordinal, one.amount) for one in moved]


def test_a_node_that_keeps_no_inner_transactions_says_so() -> None:
    """Only where a call succeeded: elsewhere nothing can be missing."""
    block, infos = answers(call(VAULT), transfer(SHOP, 1))
    assert read(block, infos, inner_told=False).untraced is not None
    assert read(block, infos, inner_told=True).untraced is None
    assert not shows_inner(msgspec.json.decode(json.dumps(infos), type=list[Info]))
    for quiet in (transfer(SHOP, 1), call(VAULT, result="REVERT")):
        assert read(*answers(quiet), inner_told=False).untraced is None
    _, infos = answers(call(VAULT, inner=[step(VAULT, SHOP, 1)]))
    assert shows_inner(msgspec.json.decode(json.dumps(infos), type=list[Info]))


def test_one_transaction_may_move_many_things() -> None:
    logs = [transfer_log(USDT, SHOP, 5), transfer_log(USDT, OTHER, 6)]
    moved = found(call(USDT, logs=logs, inner=[step(VAULT, SHOP, 7)], call_value=8))
    assert [(one.channel, one.ordinal, one.amount) for one in moved] == [
        (Channel.VALUE, 0, 8),
        (Channel.LOG, 0, 5),
        (Channel.LOG, 1, 6),
        (Channel.TRACE, 0, 7),
    ]


def test_the_largest_amounts_are_exact() -> None:
    trx, token = transfer(SHOP, 2**63 - 1), token_payment(USDT, SHOP, 2**256 - 1)
    assert [one.amount for one in found(trx, token)] == [2**63 - 1, 2**256 - 1]


def test_two_contracts_in_a_transaction_are_left_alone() -> None:
    """The protocol's list allows one; should it ever allow more, we do not know which of them an outcome is of."""
    block, infos = answers(transfer(SHOP, 5))
    contracts = block["transactions"][0]["raw_data"]["contract"]
    contracts.append(contracts[0])
    assert read(block, infos).transfers == ()


def test_kinds_of_transactions_of_later_versions_are_passed_over() -> None:
    block, infos = answers(transfer(SHOP, 5), transfer(SHOP, 6))
    block["transactions"][0]["raw_data"]["contract"] = [
        {"type": "TeleportContract", "parameter": {"value": [1]}}
    ]
    block["transactions"][0]["raw_data"]["contract"][0]["parameter"] = {}
    assert [one.amount for one in read(block, infos).transfers] == [6]


def test_the_first_block_pays_nobody() -> None:
    shown = TronNode().blocks[0].shown()
    block = checked_block(msgspec.json.decode(json.dumps(shown), type=BlockAnswer), [])
    assert (block.header.height, block.header.hash, block.transfers, block.spends) == (
        0,
        "0x" + GENESIS_ID,
        (),
        {},
    )


def test_an_empty_block_says_so_itself() -> None:
    block, infos = answers()
    assert (read(block, infos).spends, infos) == ({}, [])
    block["block_header"]["raw_data"]["txTrieRoot"] = "5a" * 32
    with pytest.raises(SourceIncomplete, match="without its transactions"):
        read(block, infos)


def drop_transaction(block: Any, infos: Any) -> None:
    del block["transactions"][-1]


def drop_both(block: Any, infos: Any) -> None:
    block["transactions"] = []
    infos.clear()


def double_transaction(block: Any, infos: Any) -> None:
    block["transactions"][1] = block["transactions"][0]


def double_info(block: Any, infos: Any) -> None:
    infos[1] = infos[0]


def other_info(block: Any, infos: Any) -> None:
    infos[1]["id"] = "ee" * 32


def other_block(block: Any, infos: Any) -> None:
    infos[1]["blockNumber"] += 1


def other_branch(block: Any, infos: Any) -> None:
    """A block of another branch at the same height has another time, nearly always."""
    infos[1]["blockTimeStamp"] += 3000


def changed_bytes(block: Any, infos: Any) -> None:
    block["transactions"][1]["raw_data_hex"] += "00"


def no_bytes(block: Any, infos: Any) -> None:
    block["transactions"][1]["raw_data_hex"] = "not hex"


def other_height(block: Any, infos: Any) -> None:
    block["block_header"]["raw_data"]["number"] += 1


def other_parent(block: Any, infos: Any) -> None:
    block["block_header"]["raw_data"]["parentHash"] = "00" * 32


def no_hash(block: Any, infos: Any) -> None:
    block["blockID"] = "0000000000000005" + "zz" * 24


def no_header(block: Any, infos: Any) -> None:
    del block["block_header"]


def no_id(block: Any, infos: Any) -> None:
    del block["blockID"]


def endless_time(block: Any, infos: Any) -> None:
    block["block_header"]["raw_data"]["timestamp"] = infos[0]["blockTimeStamp"] = 2**62
    infos[1]["blockTimeStamp"] = 2**62


def no_receiver(block: Any, infos: Any) -> None:
    block["transactions"][0]["raw_data"]["contract"][0]["parameter"]["value"]["to_address"] = "42" + "00" * 20


def base58_receiver(block: Any, infos: Any) -> None:
    """A node that was asked to show addresses in base58 (`visible`)."""
    block["transactions"][0]["raw_data"]["contract"][0]["parameter"]["value"]["to_address"] = (
        "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"
    )


def wrong_amount(block: Any, infos: Any) -> None:
    block["transactions"][0]["raw_data"]["contract"][0]["parameter"]["value"]["amount"] = -5


def odd_log(block: Any, infos: Any) -> None:
    infos[1]["log"][0]["data"] = "g" * 64


def odd_contract(block: Any, infos: Any) -> None:
    infos[1]["log"][0]["address"] = "z" * 40


@pytest.mark.parametrize(
    "change",
    [
        drop_transaction, drop_both, double_transaction, double_info, other_info, other_block, other_branch,
        changed_bytes, no_bytes, other_height, other_parent, no_hash, no_header, no_id, endless_time, no_receiver,
        base58_receiver, wrong_amount, odd_log, odd_contract,
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_no_block(change: Any) -> None:
    """Bugs planted, one for each check of `checked_block`: the changed answer makes a block."""
    block, infos = answers(transfer(SHOP, 5), token_payment(USDT, SHOP, 6))
    assert len(read(block, infos).transfers) == 2
    change(block, infos)
    with pytest.raises(SourceIncomplete):
        read(block, infos)


@pytest.mark.parametrize("block_id", ["0000000000000006" + "ab" * 24, "ab" * 32, "00" * 32])
def test_an_id_carries_its_height(block_id: str) -> None:
    """A block without transactions has no infos that would contradict its number. Bug planted: not compared."""
    block, _ = answers()
    block["blockID"] = block_id
    with pytest.raises(SourceIncomplete, match="another height"):
        read(block, [])


def test_a_transaction_of_the_main_net() -> None:
    """As its nodes showed it in 2023; its id is really the hash of these bytes."""
    block, infos = answers(transfer(SHOP, 1))
    tx_id = "a08fd7a3ad426a4dd9fa6654c36293d8dd8db3bf961bd9820696477f82b7572e"
    value: dict[str, Any] = {
        "amount": 100,
        "owner_address": "41f90a4115ca0859c0db8415d73b3a22626506cbbe",
        "to_address": "41be9cd66315067fd1c588b2cf7dd15969de15f556",
    }
    contract = {
        "parameter": {"value": value, "type_url": "type.googleapis.com/protocol.TransferContract"},
        "type": "TransferContract",
    }
    block["transactions"][0] |= {
        "txID": tx_id,
        "raw_data": {
            "contract": [contract],
            "ref_block_bytes": "7cea",
            "ref_block_hash": "cb7295aa4aa80650",
            "expiration": 1676983275000,
            "timestamp": 1676983215610,
        },
        "raw_data_hex": (
            "0a027cea2208cb7295aa4aa8065040f89bf89fe7305a65080112610a2d747970652e676f6f676c65617069732e636f6d2f7072"
            "6f746f636f6c2e5472616e73666572436f6e747261637412300a1541f90a4115ca0859c0db8415d73b3a22626506cbbe121541"
            "be9cd66315067fd1c588b2cf7dd15969de15f556186470facbf49fe730"
        ),
    }
    infos[0]["id"] = tx_id
    (moved,) = read(block, infos).transfers
    assert (moved.tx_hash, moved.amount) == ("0x" + tx_id, 100)
    assert (moved.sender, moved.to) == ("0x" + value["owner_address"][2:], "0x" + value["to_address"][2:])


def test_a_header_of_the_test_network() -> None:
    """Block 66987565 of Nile, as its nodes told it in 2026."""
    told = {
        "blockID": "0000000003fe262d52bfa4b2814f816fd2e57af5b98a33d60d8630a03a908e0e",
        "block_header": {
            "raw_data": {
                "number": 66987565,
                "txTrieRoot": "faf8fe3858339ead25cc892461c82a59b84dca4a51c45b026676bf3f45a352a2",
                "witness_address": "41b2f713d57dbcec679d93a8849fa0cd0e4db594ba",
                "parentHash": "0000000003fe262c85cd6b02033f4c3e5c1efa35de256a17bd906dc61fb1aeed",
                "version": 34,
                "timestamp": 1777445121000,
            }
        },
    }
    header = header_of(msgspec.json.decode(json.dumps(told), type=BlockAnswer))
    assert (header.height, header.time) == (66987565, datetime(2026, 4, 29, 6, 45, 21, tzinfo=UTC))
    assert header.parent_hash.startswith("0x0000000003fe262c")
