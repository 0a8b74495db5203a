"""Which asset an amount belongs to: by contract when judging, by symbol only when asked."""

from __future__ import annotations

from tallystick.core.network import Network
from tests.core.samples import COIN, OTHER_TOKEN, TOKEN

NETWORK = Network("alpha", "evm", "1", COIN, (TOKEN, OTHER_TOKEN))


def test_assets_begin_with_the_native_coin() -> None:
    assert NETWORK.assets == (COIN, TOKEN, OTHER_TOKEN)


def test_a_symbol_finds_what_was_configured_and_nothing_else() -> None:
    assert NETWORK.asset_by_symbol("ETH") is COIN
    assert NETWORK.asset_by_symbol("USDC") is OTHER_TOKEN
    assert NETWORK.asset_by_symbol("usdc") is None
    assert NETWORK.asset_by_symbol("USDT ") is None


def test_a_contract_finds_its_token_and_an_unknown_one_finds_nothing() -> None:
    assert NETWORK.asset_by_contract(None) is COIN
    assert NETWORK.asset_by_contract(TOKEN.contract) is TOKEN
    assert NETWORK.asset_by_contract("0x" + "ee" * 20) is None
    assert NETWORK.asset_by_contract("native") is None
    assert NETWORK.asset_by_contract("") is None
