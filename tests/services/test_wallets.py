"""Wallets: what is refused, what is shared, and the gap that an owner's software must scan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tallystick.core.errors import AlreadyExists, InvalidInput, NotFound
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services.context import Context
from tallystick.services.merchants import create_merchant
from tallystick.services.wallets import NewWallet, get_wallet, list_wallets, register_wallet
from tests.support.app import NETWORKS, running_api
from tests.support.stand import RATES, account_key

PRIVATE = (
    "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi",
    "zprvAWgYBBk7JR8Gjrh4UJQ2uJdG1r3WNRRfURiABBE3RvMXYSrRJL62XuezvGdPvG6GFBZduosCc1YP5wixPox7zhZLfiUm8aunE96BBa4Kei5",
    "tprv8ZgxMBicQKsPeDgjzdC36fs6bMjGApWDNLR9erAXMs5skhMv36j9MV5ecvfavji5khqjWaWSFhN3YcCUUdiKH6isR4Pwy3U5y5egddBr16m",
    "0x" + "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
    "test test test test test test test test test test test junk",
)


@pytest.fixture
async def ctx(database_url: str) -> AsyncIterator[Context]:
    database = await Database.open(database_url)
    yield Context(
        database, {network.name: network for network in NETWORKS}, StaticRates(RATES), "http://x.example"
    )
    await database.close()


async def _merchant(ctx: Context) -> str:
    async with ctx.database.transaction() as connection:
        return (await create_merchant(connection, ctx, "Shop"))[0]


async def _register(ctx: Context, merchant_id: str, key: str, family: str = "evm") -> str:
    async with ctx.database.transaction() as connection:
        return (await register_wallet(connection, ctx, merchant_id, NewWallet(family, key))).id


@pytest.mark.parametrize("family", ["evm", "bitcoin", "litecoin", "tron", "unheard-of"])
@pytest.mark.parametrize("private", PRIVATE)
async def test_private_keys_are_refused_under_every_family_and_never_repeated(
    ctx: Context, family: str, private: str
) -> None:
    merchant_id = await _merchant(ctx)
    with pytest.raises(InvalidInput) as refused:
        await _register(ctx, merchant_id, private, family)
    said = f"{refused.value} {refused.value.problems}"
    assert private not in said
    assert private[:12] not in said
    async with ctx.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM wallets") == 0
        assert await connection.fetchval("SELECT count(*) FROM key_counters") == 0


async def test_main_net_and_test_net_forms_of_a_key_are_one_key(ctx: Context) -> None:
    from bip32 import BIP32

    main = account_key(0)
    parsed = BIP32.from_xpub(main)
    test = BIP32(
        parsed.chaincode,
        pubkey=parsed.pubkey,
        fingerprint=parsed.parent_fingerprint,
        depth=parsed.depth,
        index=parsed.index,
        network="test",
    ).get_xpub()
    assert test.startswith("tpub")
    merchant_id = await _merchant(ctx)
    await _register(ctx, merchant_id, main)
    with pytest.raises(AlreadyExists):
        await _register(ctx, merchant_id, test)


async def test_two_registrations_at_once_make_one_wallet(ctx: Context) -> None:
    merchant_id = await _merchant(ctx)
    results = await asyncio.gather(
        *(_register(ctx, merchant_id, account_key(0)) for _ in range(8)), return_exceptions=True
    )
    made = [result for result in results if isinstance(result, str)]
    assert len(made) == 1
    assert all(isinstance(result, AlreadyExists) for result in results if not isinstance(result, str))


async def test_wallets_are_listed_newest_first_in_pages(ctx: Context) -> None:
    merchant_id, other = await _merchant(ctx), await _merchant(ctx)
    made = [await _register(ctx, merchant_id, account_key(number)) for number in range(3)]
    await _register(ctx, other, account_key(0))
    async with ctx.database.connection() as connection:
        first = await list_wallets(connection, ctx, merchant_id, 2)
        second = await list_wallets(connection, ctx, merchant_id, 2, first.next_cursor)
        assert [wallet.id for wallet in (*first.data, *second.data)] == made[::-1]
        assert second.next_cursor is None
        with pytest.raises(NotFound):
            await get_wallet(connection, ctx, other, made[0])


async def test_the_gap_is_the_widest_step_between_paid_addresses(database_url: str) -> None:
    async with running_api(database_url) as api:
        merchant = await api.merchant()
        client = api.client(merchant.key)

        async def wallet() -> tuple[int, int]:
            found = (await client.get("/v1/wallets")).json()["data"][0]
            return found["next_index"], found["gap"]

        made = [await client.invoice() for _ in range(20)]
        assert await wallet() == (
            20,
            21,
        )  # nothing is paid: the 20th may be, and a scan of 20 just misses the 21st
        await api.pay(made[5], 10**16, nonce=1)
        assert await wallet() == (20, 20)  # 0 to 5, and 5 to the end: never less than the customary 20
        made += [await client.invoice() for _ in range(15)]
        assert await wallet() == (35, 30)  # from 5 to 35
        await api.pay(made[34], 10**16, nonce=2)
        assert await wallet() == (35, 29)  # from 5 to 34: a wallet must look at 29 to find the last
        await api.pay(made[20], 10**16, nonce=3)
        assert await wallet() == (35, 20)
