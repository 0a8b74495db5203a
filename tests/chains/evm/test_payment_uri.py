"""EIP-681 payment requests, taken apart again by a reader written from the EIP's grammar."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.chains.evm.addresses import display
from tallystick.chains.evm.payment_uri import payment_uri
from tallystick.core.errors import InvalidInput

SHOP = "0x52908400098527886e0f7030069857d2e4169ee7"
TOKEN = "0xde709f2102306220921060314715629080e2fb77"
GRAMMAR = re.compile(
    r"ethereum:(?P<target>0x[0-9a-fA-F]{40})@(?P<chain>[0-9]+)(?:/(?P<function>[a-z]+))?\?(?P<query>[^?#]*)"
)


def test_native() -> None:
    uri = payment_uri(chain_id=1, to=SHOP, amount=10**18)
    assert uri == f"ethereum:{display(SHOP)}@1?value=1000000000000000000"


def test_token() -> None:
    uri = payment_uri(chain_id=137, to=SHOP, amount=49_900_000, contract=TOKEN)
    assert uri == f"ethereum:{display(TOKEN)}@137/transfer?address={display(SHOP)}&uint256=49900000"


@given(
    chain_id=st.integers(1, 2**63),
    amount=st.integers(1, 2**256 - 1),
    to=st.binary(min_size=20, max_size=20),
    contract=st.none() | st.binary(min_size=20, max_size=20),
)
def test_round_trip(chain_id: int, amount: int, to: bytes, contract: bytes | None) -> None:
    receiver, token = "0x" + to.hex(), None if contract is None else "0x" + contract.hex()
    parts = GRAMMAR.fullmatch(payment_uri(chain_id=chain_id, to=receiver, amount=amount, contract=token))
    assert parts is not None
    query = dict(pair.split("=") for pair in parts["query"].split("&"))
    assert int(parts["chain"]) == chain_id
    if token is None:
        assert (parts["function"], parts["target"].lower(), query) == (None, receiver, {"value": str(amount)})
    else:
        assert (parts["function"], parts["target"].lower()) == ("transfer", token)
        assert query["address"].lower() == receiver
        assert query["uint256"] == str(amount)


@pytest.mark.parametrize(
    ("chain_id", "to", "amount", "contract"),
    [
        (0, SHOP, 1, None),
        (-1, SHOP, 1, None),
        (1, SHOP, 0, None),
        (1, SHOP, -1, None),
        (1, SHOP, 2**256, None),
        (1, "0x1", 1, None),
        (1, SHOP, 1, "0x1"),
        (1, SHOP + "&value=1", 1, None),
    ],
)
def test_nonsense_is_refused(chain_id: int, to: str, amount: int, contract: str | None) -> None:
    with pytest.raises(InvalidInput):
        payment_uri(chain_id=chain_id, to=to, amount=amount, contract=contract)
