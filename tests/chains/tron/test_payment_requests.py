"""Links and unsigned transactions for TRON wallets."""

from __future__ import annotations

import hashlib

import pytest
from eth_abi.abi import decode
from google.protobuf.any_pb2 import Any as AnyMessage
from tronpy.keys import to_raw_address
from tronpy.proto import tron_pb2

from tallystick.chains.families import FAMILIES
from tallystick.chains.tron.payment_uri import FEE_LIMIT_SUN, SUN_MAX, payment_uri, unsigned_transaction
from tallystick.core.errors import InvalidInput
from tallystick.core.money import Asset
from tallystick.core.network import Network

TRON = FAMILIES["tron"]
SHOP = "0x" + "5b" * 19 + "01"
USDT = "0xa614f803b6fd780986a42c78ec9c7f77e6ded13c"
TRX_ASSET, USDT_ASSET = Asset("tron", "TRX", 6), Asset("tron", "USDT", 6, USDT)
NETWORK = Network("tron", "tron", "728126428", TRX_ASSET, (USDT_ASSET,))


@pytest.fixture(scope="module")
def shown() -> str:
    return TRON.display(SHOP, NETWORK)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(1, "0.000001"), (12_500_000, "12.5"), (10**6, "1"), (SUN_MAX, "9223372036854.775807")],
)
def test_a_link_for_trx_names_the_amount_in_whole_coins(shown: str, amount: int, text: str) -> None:
    assert TRON.payment_uri(NETWORK, TRX_ASSET, SHOP, amount) == f"tron:{shown}?amount={text}"


def test_a_link_for_a_token_names_no_amount(shown: str) -> None:
    """A wallet that knows `amount` and not the parameter of a contract would offer so many TRX.

    Bug planted: the amount in the link; 25 USDT are asked for as 25 TRX.
    """
    assert TRON.payment_uri(NETWORK, USDT_ASSET, SHOP, 25_000_000) == f"tron:{shown}"


def test_a_transaction_of_trx_makes_what_wallets_sign(shown: str) -> None:
    """With a block to refer to and a sender it is the protocol's message, byte for byte what tronpy builds."""
    told = TRON.unsigned_transaction(NETWORK, TRX_ASSET, SHOP, 12_500_000)
    assert told == {
        "chain_id": 728126428,
        "visible": True,
        "owner_address": None,
        "type": "TransferContract",
        "to_address": shown,
        "amount": "12500000",
    }
    message = tron_pb2.TransferContract(
        owner_address=to_raw_address("0x" + "5e" * 20),
        to_address=to_raw_address(told["to_address"]),
        amount=int(told["amount"]),
    )
    packed = AnyMessage(
        type_url=f"type.googleapis.com/protocol.{told['type']}", value=message.SerializeToString()
    )
    contract = tron_pb2.Transaction.Contract(
        type=getattr(tron_pb2.Transaction.Contract.ContractType, told["type"]), parameter=packed
    )
    raw = tron_pb2.Transaction.raw(contract=[contract]).SerializeToString()
    assert bytes.fromhex("41" + SHOP[2:]) in raw
    assert len(hashlib.sha256(raw).hexdigest()) == 64


def test_a_transaction_of_a_token_is_its_call() -> None:
    told = TRON.unsigned_transaction(NETWORK, USDT_ASSET, SHOP, 2**256 - 1)
    assert told is not None
    assert told["type"] == "TriggerSmartContract"
    assert told["contract_address"] == "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"
    assert told["function_selector"] == "transfer(address,uint256)"
    assert told["data"] == "a9059cbb" + told["parameter"]
    assert decode(["address", "uint256"], bytes.fromhex(told["parameter"])) == (SHOP, 2**256 - 1)
    assert (told["call_value"], told["owner_address"]) == ("0", None)
    assert int(told["fee_limit"]) == FEE_LIMIT_SUN == 100 * 10**6


def test_a_known_call() -> None:
    """The call of USDT's transfer as it stands in transactions of the main net."""
    told = unsigned_transaction(
        chain_id=1, to="0x9bbce520d984c3b95ad10cb4e32a9294e6338da3", amount=1_000_000, contract=USDT
    )
    assert told["data"] == (
        "a9059cbb0000000000000000000000009bbce520d984c3b95ad10cb4e32a9294e6338da3"
        "00000000000000000000000000000000000000000000000000000000000f4240"
    )


@pytest.mark.parametrize(
    ("to", "amount", "contract"),
    [
        (SHOP, 0, None), (SHOP, -1, None), (SHOP, SUN_MAX + 1, None), (SHOP, 2**256, USDT), (SHOP, 0, USDT),
        ("TR7", 1, None), ("0x5b", 1, None), (SHOP, 1, "0x12"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for(to: str, amount: int, contract: str | None) -> None:
    with pytest.raises(InvalidInput):
        unsigned_transaction(chain_id=1, to=to, amount=amount, contract=contract)
    if contract != "0x12":
        with pytest.raises(InvalidInput):
            payment_uri(to=to, amount=amount, contract=contract)
