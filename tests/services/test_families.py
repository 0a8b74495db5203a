"""Wallets and refund addresses of every family, through the services: what is shown, refused, and counted together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from tallystick.chains.families import FAMILIES
from tallystick.core.chain import Finality, Requirement
from tallystick.core.errors import AlreadyExists, Conflict, InvalidInput
from tallystick.core.invoice import OptionStatus, OptionTerms, Tolerance
from tallystick.core.money import Asset
from tallystick.core.network import Network
from tallystick.db.invoices import StoredOption, StoredQuote
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services import objects
from tallystick.services.context import Context
from tallystick.services.issuing import allocate, issuing_wallets
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import list_networks, sync_networks
from tallystick.services.refund_claims import check_address
from tallystick.services.wallets import NewWallet, register_wallet
from tests.chains.bitcoin.key_samples import public
from tests.support.stand import RATES, account_key, evm_network


def _network(chain: str, symbol: str, decimals: int = 8) -> Network:
    family = chain.partition("-")[0]
    asset = Asset(chain, symbol, decimals)
    if family == "tron":
        return Network("tron", "tron", "728126428", Asset("tron", symbol, decimals))
    return Network(
        chain, family, chain, asset, requirement=Requirement(Finality.DEPTH, 1), has_accounts=False
    )


REGTEST = _network("litecoin-regtest", "LTC")
LITECOIN = _network("litecoin", "LTC")
SIGNET = _network("bitcoin-signet", "BTC")
TRON = _network("tron", "TRX", 6)
ETHEREUM = evm_network("ethereum", 1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = await Database.open(database_url)
    yield found
    await found.close()


async def _shop(database: Database, *networks: Network) -> tuple[Context, str]:
    ctx = Context(database, {one.name: one for one in networks}, StaticRates(RATES), "http://x.example")
    async with database.transaction() as connection:
        await sync_networks(connection, ctx.networks)
        return ctx, (await create_merchant(connection, ctx, "Shop"))[0]


async def _register(ctx: Context, merchant_id: str, family: str, key: str) -> objects.Wallet:
    async with ctx.database.transaction() as connection:
        return await register_wallet(connection, ctx, merchant_id, NewWallet(family, key))


async def test_first_addresses_are_written_as_each_network_writes_them(database: Database) -> None:
    ctx, merchant_id = await _shop(database, REGTEST, LITECOIN, SIGNET, TRON, ETHEREUM)
    lite = await _register(ctx, merchant_id, "litecoin", public(form="zpub"))
    assert set(lite.first_addresses) == {"litecoin", "litecoin-regtest"}
    for name, beginning in (("litecoin", "ltc1q"), ("litecoin-regtest", "rltc1q")):
        shown = lite.first_addresses[name]
        assert len(set(shown)) == 3
        assert all(one.startswith(beginning) for one in shown)
    scripts = [FAMILIES["litecoin"].normalize(one, LITECOIN) for one in lite.first_addresses["litecoin"]]
    assert scripts == [FAMILIES["litecoin"].derive(public(form="zpub"), index) for index in range(3)]
    bitcoin = await _register(ctx, merchant_id, "bitcoin", f"tr({public(2, form='tpub')}/<0;1>/*)")
    assert [one[:4] for one in bitcoin.first_addresses["bitcoin-signet"]] == ["tb1p"] * 3
    tron = await _register(ctx, merchant_id, "tron", account_key(1))
    assert [one[0] for one in tron.first_addresses["tron"]] == ["T"] * 3
    evm = await _register(ctx, merchant_id, "evm", account_key(0))
    assert [one[:2] for one in evm.first_addresses["ethereum"]] == ["0x"] * 3


async def test_one_key_has_one_counter_whatever_its_form(database: Database) -> None:
    """Planted once, and seen to fail: a fingerprint that holds the prefix, so that an address was issued twice."""
    ctx, merchant_id = await _shop(database, REGTEST)
    await _register(ctx, merchant_id, "litecoin", public(form="zpub"))
    for again in (public(form="ypub"), public(form="Ltub"), f"wpkh([00000000/84h]{public()}/0/*)"):
        with pytest.raises(AlreadyExists):
            await _register(ctx, merchant_id, "litecoin", again)
    async with database.transaction() as connection:
        other = (await create_merchant(connection, ctx, "Other"))[0]
    await _register(ctx, other, "litecoin", f"wpkh({public()}/<0;1>/*)")
    issued = [await _issue(ctx, who, REGTEST) for who in (merchant_id, other, merchant_id, other)]
    assert len({option.address for option in issued}) == 4
    assert [option.derivation_index for option in issued] == [0, 1, 2, 3]


async def _issue(ctx: Context, merchant_id: str, network: Network) -> StoredOption:
    async with ctx.database.transaction() as connection:
        wallets = await issuing_wallets(connection, merchant_id)
    return await allocate(ctx, network, wallets, _option(network))


def _option(network: Network) -> StoredOption:
    now = datetime.now(UTC)
    return StoredOption(
        terms=OptionTerms(
            id="opt_1",
            asset=network.native,
            amount_expected=1,
            requirement=network.requirement,
            tolerance=Tolerance(0, 0),
            active=False,
        ),
        family=network.family,
        status=OptionStatus.QUOTED,
        address=None,
        wallet_id=None,
        derivation_index=None,
        quote=StoredQuote("1", "static", now, now, 0),
        policy_name="x",
        policy_version=0,
        policy_explanation="x",
    )


async def test_keys_of_test_networks_never_receive_real_money(database: Database) -> None:
    """Planted once, and seen to fail: no look at the key when an address is issued."""
    ctx, merchant_id = await _shop(database, LITECOIN)
    with pytest.raises(InvalidInput, match="for test networks"):
        await _register(ctx, merchant_id, "litecoin", public(form="vpub"))
    trial, other = await _shop(database, REGTEST)
    wallet = await _register(trial, other, "litecoin", public(form="vpub"))
    assert set(wallet.first_addresses) == {"litecoin-regtest"}
    with pytest.raises(Conflict, match="moves real money"):  # the configuration changed afterwards
        await _issue(ctx, other, LITECOIN)
    issued = await _issue(trial, other, REGTEST)
    assert issued.derivation_index == 0  # nothing was spent by the refusal
    assert issued.account_key == public(form="vpub")


@pytest.mark.parametrize(
    ("network", "address", "words"),
    [
        (REGTEST, "ltc1qw508d6qejxtdg4y5r3zarvary0c5xw7kgmn4n9", "an address of Litecoin, not of"),
        (REGTEST, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "an address of Bitcoin, not of"),
        (LITECOIN, "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "may as well be Bitcoin's"),
        (LITECOIN, "ltcmweb1" + "q" * 100, "MWEB address"),
        (SIGNET, "0x52908400098527886E0F7030069857D2E4169EE7", "not an address of"),
        (TRON, "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", ""),
        (ETHEREUM, "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", ""),
    ],
)
async def test_a_refund_goes_only_to_an_address_of_its_network(
    database: Database, network: Network, address: str, words: str
) -> None:
    ctx, _ = await _shop(database, network)
    async with database.connection() as connection:
        with pytest.raises(InvalidInput) as refused:
            await check_address(connection, ctx, network, address)
    (problem,) = refused.value.problems
    assert problem.pointer == "/address"
    assert words in problem.detail


async def test_networks_say_their_kind_and_chain(database: Database) -> None:
    ctx, _ = await _shop(database, REGTEST, SIGNET, TRON, ETHEREUM)
    async with database.connection() as connection:
        found = {
            one.name: (one.kind, one.chain_id, one.chain) for one in await list_networks(connection, ctx)
        }
    assert found == {
        "ethereum": ("evm", 1, "1"),
        "tron": ("tron", 728126428, "728126428"),
        "litecoin-regtest": ("bitcoin", None, "litecoin-regtest"),
        "bitcoin-signet": ("bitcoin", None, "bitcoin-signet"),
    }


def test_customers_see_names_they_know() -> None:
    shown = {one.name: FAMILIES[one.family].title(one) for one in (ETHEREUM, TRON, LITECOIN, REGTEST)}
    assert shown == {
        "ethereum": "Ethereum",
        "tron": "TRON",
        "litecoin": "Litecoin",
        "litecoin-regtest": "Litecoin regtest (test network)",
    }
    assert FAMILIES["evm"].title(evm_network("private", 31337)) is None


@pytest.mark.parametrize(
    ("network", "address", "has"),
    [
        (LITECOIN, "ltc1qw508d6qejxtdg4y5r3zarvary0c5xw7kgmn4n9", True),
        (LITECOIN, "LTC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KGMN4N9", True),
        (TRON, "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", True),
        (TRON, "0xa614f803b6fd780986a42c78ec9c7f77e6ded13c", False),
        (ETHEREUM, "0x52908400098527886E0F7030069857D2E4169EE7", True),
        (ETHEREUM, "0xd8da6bf26964af9d7eed9e03e53415d37aa96045", False),
    ],
)
def test_a_customer_is_warned_where_nothing_betrays_a_typing_error(
    network: Network, address: str, has: bool
) -> None:
    family = FAMILIES[network.family]
    assert family.normalize(address, network)
    assert family.has_checksum(address) is has
