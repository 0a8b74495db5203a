"""Wallets: the account public keys under which customers pay.

For: registering a key and showing it. Holds true: only public keys get in; whatever looks like a private key is
refused before anything else is judged, and never repeated. One public key has one counter of issued addresses,
whoever registered it and under whatever prefix, so no address is issued twice. The newest wallet of a family issues
a merchant's new addresses.
Must not: issue addresses (`services.issuing`), or tell a merchant that another one knows the same key.

`gap` is how many addresses in a row without money the owner's wallet software must be ready to look at (its "gap
limit") to find everything paid so far and whatever is still paid to an address issued so far: the widest step
between neighbouring children that hold money, counting the beginning and the next unused child as ends, and never
less than the customary 20.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tallystick.chains.families import FAMILIES, AccountKey
from tallystick.chains.private_keys import refuse_private
from tallystick.core.errors import AlreadyExists, InvalidInput, NotFound
from tallystick.core.ids import IdKind
from tallystick.db import wallets as rows
from tallystick.db.sql import Connection
from tallystick.db.wallets import WalletRow
from tallystick.services import objects
from tallystick.services.context import Context
from tallystick.services.paging import LIMIT_DEFAULT, Page, page_of

FIRST_ADDRESSES: Final = 3
GAP_LIMIT_CUSTOMARY: Final = 20
LABEL_LENGTH_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class NewWallet:
    """What a merchant registers."""

    family: str
    account_key: str
    label: str = ""


async def register_wallet(
    connection: Connection, ctx: Context, merchant_id: str, new: NewWallet
) -> objects.Wallet:
    """Register an account's public key.

    Raises InvalidInput at /account_key, /family or /label; AlreadyExists when this merchant has the key.
    """
    key = _parse(ctx, new)
    if len(new.label) > LABEL_LENGTH_MAX:
        raise InvalidInput.at("/label", f"must be at most {LABEL_LENGTH_MAX} characters")
    row = WalletRow(
        id=ctx.new_id(IdKind.WALLET),
        family=new.family,
        account_key=new.account_key.strip(),
        key_fingerprint=bytes.fromhex(key.fingerprint),
        label=new.label,
        created_at=ctx.now(),
        next_index=0,
    )
    if not await rows.insert_wallet(connection, merchant_id, row):
        raise AlreadyExists(
            "This account key is registered already, perhaps in another form or for another family of networks.",
            remedy="List the wallets to find it. For another family give another account's key.",
        )
    return await get_wallet(connection, ctx, merchant_id, row.id)


async def get_wallet(
    connection: Connection, ctx: Context, merchant_id: str, wallet_id: str
) -> objects.Wallet:
    """One wallet of this merchant. Raises NotFound."""
    row = await rows.get_wallet(connection, merchant_id, wallet_id)
    if row is None:
        raise NotFound("There is no such wallet.", object_id=wallet_id)
    return await _render(connection, ctx, row)


async def list_wallets(
    connection: Connection,
    ctx: Context,
    merchant_id: str,
    limit: int = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> Page[objects.Wallet]:
    """A merchant's wallets, newest first."""
    found = await rows.list_wallets(connection, merchant_id, cursor, limit + 1)
    kept, next_cursor = page_of(found, limit, lambda row: row.id)
    return Page(data=[await _render(connection, ctx, row) for row in kept], next_cursor=next_cursor)


def _parse(ctx: Context, new: NewWallet) -> AccountKey:
    refuse_private(new.account_key, "/account_key")  # under every family, also one that there is not
    family = FAMILIES.get(new.family)
    if family is None:
        raise InvalidInput.at("/family", f"must be one of {', '.join(FAMILIES)}")
    key = family.parse_account_key(new.account_key, pointer="/account_key")
    networks = [one for one in ctx.networks.values() if one.family == new.family]
    if networks and not any(family.suits(new.account_key.strip(), one) for one in networks):
        raise InvalidInput.at(
            "/account_key",
            "This key is for test networks, and here real money is received. Give the account's key for the main "
            "network.",
        )
    return key


@lru_cache(maxsize=1024)
def _first_addresses(family: str, account_key: str) -> tuple[str, ...]:
    """Showing a wallet again should not cost three point multiplications again. In normal form."""
    return tuple(FAMILIES[family].derive(account_key, index) for index in range(FIRST_ADDRESSES))


async def _render(connection: Connection, ctx: Context, row: WalletRow) -> objects.Wallet:
    family = FAMILIES[row.family]
    gap = GAP_LIMIT_CUSTOMARY
    if row.next_index >= GAP_LIMIT_CUSTOMARY:  # else no step can be wider
        gap = max(gap, await rows.paid_gap(connection, row.key_fingerprint))
    return objects.Wallet(
        id=row.id,
        family=row.family,
        label=row.label,
        account_key=row.account_key,
        first_addresses={
            network.name: [
                family.display(one, network) for one in _first_addresses(row.family, row.account_key)
            ]
            for network in ctx.networks.values()
            if network.family == row.family and family.suits(row.account_key, network)
        },
        next_index=row.next_index,
        gap=gap,
        created_at=row.created_at,
    )
