"""Invoices on networks of every family through the API: addresses, links, paths, searching, and the customer's view."""

from __future__ import annotations

from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any

import pytest

from tallystick.core.chain import Finality, Requirement
from tallystick.core.money import Asset
from tallystick.core.network import Network
from tallystick.services.checkout import customer_view
from tests.chains.bitcoin.key_samples import public
from tests.support.app import Api, Client, running_api
from tests.support.stand import account_key, evm_network

LITE = Network(
    "lite",
    "litecoin",
    "litecoin-regtest",
    Asset("lite", "LTC", 8),
    requirement=Requirement(Finality.DEPTH, 2),
    finality_tags=False,
    has_accounts=False,
    loose_times=True,
)
USDT = Asset("tron", "USDT", 6, "0xa614f803b6fd780986a42c78ec9c7f77e6ded13c")
TRON = Network(
    "tron",
    "tron",
    "728126428",
    Asset("tron", "TRX", 6),
    (USDT,),
    Requirement(Finality.DEPTH, 20),
    has_accounts=False,
)
RATES = {
    "LTC/USD": Fraction(100),
    "TRX/USD": Fraction(1, 4),
    "USDT/USD": Fraction(1),
    "ETH/USD": Fraction(2500),
}
CONTRACT = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with running_api(
        database_url, networks=(LITE, TRON, evm_network("ethereum", 1)), rates=RATES
    ) as found:
        yield found


@pytest.fixture
async def client(api: Api) -> Client:
    client = api.client((await api.merchant()).key)
    for family, key in (("litecoin", f"wpkh({public()}/*)"), ("tron", account_key(1))):
        answer = await client.post("/v1/wallets", {"family": family, "account_key": key})
        assert answer.status_code == 201, answer.text
    return client


async def _option(api: Api, client: Client, asset: str, network: str) -> tuple[dict[str, Any], Any]:
    """An invoice's only option as the merchant sees it, and as the customer does."""
    invoice = await client.invoice(accepted=[{"asset": asset, "network": network}])
    (option,) = invoice["payment_options"]
    found = (await client.get("/v1/invoices", address=option["address"])).json()["data"]
    assert [one["id"] for one in found] == [invoice["id"]]
    async with api.ctx.database.connection() as connection:
        view = await customer_view(connection, api.ctx, invoice["id"])
    return option, view.options[0]


async def test_litecoin(api: Api, client: Client) -> None:
    option, shown = await _option(api, client, "LTC", "lite")
    assert option["address"].startswith("rltc1q")
    assert option["uri"] == f"litecoin:{option['address']}?amount=0.25"
    assert (option["derivation"]["path"], option["derivation"]["index"]) == (
        "0",
        0,
    )  # the descriptor ends in /*
    assert option["token_contract"] is None
    assert (shown.network_name, shown.address, shown.qr_text) == (
        "Litecoin regtest (test network)",
        option["address"],
        option["uri"],
    )


async def test_tron(api: Api, client: Client) -> None:
    """The code holds the bare address, which every wallet reads; the link holds an amount for TRX only."""
    option, shown = await _option(api, client, "TRX", "tron")
    assert option["address"][0] == "T"
    assert option["uri"] == f"tron:{option['address']}?amount=100"
    assert option["derivation"]["path"] == "0/0"
    assert (shown.network_name, shown.qr_text, shown.uri) == ("TRON", option["address"], option["uri"])
    option, shown = await _option(api, client, "USDT", "tron")
    assert option["token_contract"] == CONTRACT
    assert option["uri"] == f"tron:{option['address']}"
    assert (shown.token_contract, shown.qr_text) == (CONTRACT, option["address"])


async def test_ethereum_is_as_it_was(api: Api, client: Client) -> None:
    option, shown = await _option(api, client, "ETH", "ethereum")
    assert option["uri"].startswith(f"ethereum:{option['address']}@1?value=")
    assert option["derivation"]["path"] == "0/0"
    assert (shown.network_name, shown.qr_text) == ("Ethereum", option["uri"])


async def test_networks_of_every_kind(client: Client) -> None:
    found = {one["name"]: one for one in (await client.get("/v1/networks")).json()["data"]}
    assert (found["lite"]["kind"], found["lite"]["chain"], found["lite"]["chain_id"]) == (
        "bitcoin",
        "litecoin-regtest",
        None,
    )
    assert (found["tron"]["kind"], found["tron"]["chain_id"]) == ("tron", 728126428)
    assert found["tron"]["assets"][1]["contract"] == CONTRACT
