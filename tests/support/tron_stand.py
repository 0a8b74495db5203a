"""A shop on a TRON network, moved by hand: real PostgreSQL, real services; the node is a stand-in.

For: TRON's scenarios. `Stand` is the same as on EVM networks; what is opened here is its wallet, network and source.
Holds true: whatever a scenario did, the invariants of the whole database are checked before it closes.
Must not: write to the database except through the services.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from fractions import Fraction
from typing import Any

from bip32 import BIP32
from eth_account.hdaccount import seed_from_mnemonic

from tallystick.chains.source import Source
from tallystick.core.chain import Finality, Requirement
from tallystick.core.money import Asset
from tallystick.core.network import Network
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services.context import Context, system_clock
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import sync_networks
from tallystick.services.wallets import NewWallet, register_wallet
from tallystick.workers.follow import Follower
from tests.support.invariants import check_invariants
from tests.support.stand import LOOPS, Stand

RATES = {"TRX/USD": Fraction(1, 4), "USDT/USD": Fraction(1)}
FINALIZED = Requirement(Finality.FINALIZED)


def account_key(account: int = 1) -> str:
    """The xpub at m/44'/195'/account' of the well-known test mnemonic."""
    root = BIP32.from_seed(
        seed_from_mnemonic("test test test test test test test test test test test junk", "")
    )
    return str(root.get_xpub_from_path(f"m/44'/195'/{account}'"))


def tron_network(
    chain_id: int, usdt: str, *, requirement: Requirement = FINALIZED, **changes: Any
) -> Network:
    """A network with TRX and USDT, which waits for solidified blocks unless said otherwise."""
    return Network(
        name="tron",
        family="tron",
        chain=str(chain_id),
        native=Asset("tron", "TRX", 6),
        tokens=(Asset("tron", "USDT", 6, usdt),),
        requirement=requirement,
        has_accounts=False,
        **changes,
    )


@contextlib.asynccontextmanager
async def open_tron_stand(
    database_url: str, network: Network, source: Source, *, clock: Callable[[], datetime] = system_clock
) -> AsyncIterator[Stand]:
    """A shop on this network. The first blocks are read before it opens; the source is closed at its end."""
    database = await Database.open(database_url, connections_max=20)
    ctx = Context(
        database=database,
        networks={network.name: network},
        rates=StaticRates(RATES),
        public_url="http://127.0.0.1:8420",
        allow_private_targets=True,
        clock=clock,
    )
    try:
        async with database.transaction() as connection:
            await sync_networks(connection, ctx.networks)
            merchant_id, api_key = await create_merchant(connection, ctx, "Tally & Sons")
            await register_wallet(connection, ctx, merchant_id, NewWallet("tron", account_key(), "main"))
        stand = Stand(ctx, merchant_id, api_key)
        stand.followers[network.name] = Follower(ctx, network, source, LOOPS)
        await stand.follow()
        yield stand
        await stand.expire()
        await check_invariants(ctx)
    finally:
        await source.close()
        await database.close()
