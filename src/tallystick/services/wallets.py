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

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tallystick.chains.evm.addresses import EvmAccountKey
from tallystick.core.errors import AlreadyExists, InvalidInput, NotFound
from tallystick.core.ids import IdKind
from tallystick.db import wallets as rows
from tallystick.db.sql import Connection
from tallystick.db.wallets import WalletRow
from tallystick.services import objects
from tallystick.services.context import Context
from tallystick.services.paging import LIMIT_DEFAULT, Page, page_of

FAMILIES: Final = ("evm", "tron", "bitcoin", "litecoin")
SUPPORTED: Final = ("evm",)
FIRST_ADDRESSES: Final = 3
GAP_LIMIT_CUSTOMARY: Final = 20
LABEL_LENGTH_MAX: Final = 200

# Private keys are refused under every family, also those that this version does not speak.
_PRIVATE_EXTENDED: Final = re.compile(r"(?:[xyztuvYZUV]prv|[LMt]tpv|dgpv)[1-9A-HJ-NP-Za-km-z]{8}", re.ASCII)


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
    key = _parse(new)
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
        raise AlreadyExists("This account key is registered already.", remedy="List the wallets to find it.")
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


def _parse(new: NewWallet) -> EvmAccountKey:
    if _PRIVATE_EXTENDED.search(new.account_key):
        raise InvalidInput.at(
            "/account_key",
            "This looks like a private key. Tallystick never needs one: give the account's public key. "
            "If this was a real key, regard it as disclosed and move its funds.",
        )
    if new.family not in SUPPORTED:
        known = new.family in FAMILIES
        detail = "this version supports evm only" if known else f"must be one of {', '.join(FAMILIES)}"
        raise InvalidInput.at("/family", detail)
    return EvmAccountKey.parse(new.account_key, pointer="/account_key")


@lru_cache(maxsize=1024)
def _first_addresses(account_key: str) -> tuple[str, ...]:
    """Showing a wallet again should not cost three point multiplications again."""
    key = EvmAccountKey.parse(account_key)
    return tuple(key.derive(index) for index in range(FIRST_ADDRESSES))


async def _render(connection: Connection, ctx: Context, row: WalletRow) -> objects.Wallet:
    first = _first_addresses(row.account_key)
    gap = GAP_LIMIT_CUSTOMARY
    if row.next_index >= GAP_LIMIT_CUSTOMARY:  # else no step can be wider
        gap = max(gap, await rows.paid_gap(connection, row.key_fingerprint))
    return objects.Wallet(
        id=row.id,
        family=row.family,
        label=row.label,
        account_key=row.account_key,
        first_addresses={
            network.name: list(first) for network in ctx.networks.values() if network.family == row.family
        },
        next_index=row.next_index,
        gap=gap,
        created_at=row.created_at,
    )
