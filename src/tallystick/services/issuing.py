"""Issuing addresses: which wallet, which index, which address.

Holds true: an index of a key is spent exactly once, under a row lock that ends with the transaction; an address
belongs to one option for ever. Must not: issue anything on a network that has never been read or is halted: a
payment there would go unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tallystick.chains.families import FAMILIES
from tallystick.core.chain import NetworkView
from tallystick.core.errors import Conflict, NetworkUnavailable
from tallystick.core.invoice import OptionStatus
from tallystick.core.network import Network
from tallystick.db.invoices import SQL, StoredOption
from tallystick.db.sql import Connection
from tallystick.services.context import Context


@dataclass(frozen=True, slots=True)
class IssuingWallet:
    """The wallet that a merchant's new addresses of one family come from."""

    id: str
    family: str
    account_key: str
    key_fingerprint: bytes


async def issuing_wallets(connection: Connection, merchant_id: str) -> dict[str, IssuingWallet]:
    """A merchant's issuing wallets by family: the newest of each."""
    rows = await SQL.issuing_wallets.all(connection, merchant_id=merchant_id)
    return {
        row["family"]: IssuingWallet(row["id"], row["family"], row["account_key"], row["key_fingerprint"])
        for row in rows
    }


def require_available(views: Mapping[str, NetworkView], names: set[str]) -> None:
    """Raise NetworkUnavailable unless each of these networks has a first cursor and is not halted."""
    for name in sorted(names):
        view = views.get(name)
        if view is None or view.tip is None:
            raise NetworkUnavailable(
                f"The network {name} has not been reached yet.",
                object_id=name,
                remedy="Try again once GET /v1/networks shows it following, or choose another network.",
            )
        if view.halted:
            raise NetworkUnavailable(
                f"The network {name} is halted until an operator decides.",
                object_id=name,
                remedy="Choose another network, or resume it with `tallystick network resume`.",
            )


async def allocate(
    ctx: Context, network: Network, wallets: dict[str, IssuingWallet], option: StoredOption
) -> StoredOption:
    """Spend the next index of the issuing wallet for `option`; answer the option with its address.

    The index is spent at once, outside the caller's transaction: its row is the one that every invoice of a merchant
    needs, and held to the end of each transaction it would let one be created at a time. A transaction that fails
    afterwards leaves an unused index; nothing ever uses one twice.
    """
    wallet = wallets.get(network.family)
    if wallet is None:
        raise Conflict(
            f"No {network.family} wallet is registered.", remedy="Register one with POST /v1/wallets first."
        )
    family = FAMILIES[network.family]
    if not family.suits(wallet.account_key, network):
        raise Conflict(
            f"The {network.family} wallet's key is for test networks, and {network.name} moves real money.",
            object_id=wallet.id,
            remedy="Register the account's key for the main network with POST /v1/wallets.",
        )
    async with ctx.database.aside() as connection:
        index = await SQL.next_index.value(connection, key_fingerprint=wallet.key_fingerprint)
    address = family.derive(wallet.account_key, index)
    return replace(
        option,
        terms=replace(option.terms, active=True),
        status=OptionStatus.ACTIVE,
        address=address,
        wallet_id=wallet.id,
        derivation_index=index,
        account_key=wallet.account_key,
    )
