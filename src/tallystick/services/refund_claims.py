"""The address of a refund: checked the same way whoever gives it, and claimed by the customer with a link.

For: `services.refunds` and the claim page. Holds true: a link carries 160 random bits, of which only the SHA-256 is
kept; it sets the address once and within its time, and shows the refund's state afterwards; the address of the sender
is never offered. Refused are addresses where the money would be lost or go in a circle.
Must not: contain markup, or tell anybody without the link whether a refund exists.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from dataclasses import replace
from datetime import timedelta
from typing import Final

from tallystick.chains.families import FAMILIES
from tallystick.core.errors import InvalidInput
from tallystick.core.network import Network
from tallystick.db import refunds as store
from tallystick.db.refunds import StoredRefund
from tallystick.db.sql import Connection
from tallystick.services.context import Context

TOKEN_RANDOM_BYTES: Final = 20
CLAIM_WITHIN: Final = timedelta(days=7)
TOKEN_LENGTH_MAX: Final = 64


def issue_claim(ctx: Context, refund: StoredRefund) -> tuple[StoredRefund, str]:
    """The refund with a new token's hash, and the link. The caller stores the one and shows the other once."""
    token = b32encode(ctx.entropy(TOKEN_RANDOM_BYTES)).decode().lower()
    changed = replace(refund, claim_token_hash=_hash(token), claim_expires_at=ctx.now() + CLAIM_WITHIN)
    return changed, f"{ctx.public_url}/r/{refund.id}?token={token}"


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def check_address(
    connection: Connection, ctx: Context, network: Network, text: str, *, pointer: str = "/address"
) -> str:
    """The address in normal form, if a refund may go there. Raises InvalidInput at `pointer`."""
    family = FAMILIES[network.family]
    try:
        address = family.check_destination(text.strip(), network)
    except InvalidInput as error:
        raise InvalidInput.at(pointer, error.what) from None
    tokens = {
        asset.contract
        for one in ctx.networks.values()
        if one.family == network.family
        for asset in one.tokens
    }
    if address in tokens:
        raise InvalidInput.at(pointer, "is the contract of a token: what is sent there is lost")
    if await store.SQL.is_issued.value(connection, family=network.family, address=address):
        raise InvalidInput.at(
            pointer, "is an address that was issued to receive payments here: a refund cannot go there"
        )
    return address
