"""What a customer sees of a refund, and how they say where it is to go.

For: the claim page. Holds true: only who has the newest link sees anything, and nobody can tell a wrong link from a
refund that does not exist; the address is set once, by a confirmation that names it; the view names everything it
shows, so nothing of the merchant's (reason, notes, keys) reaches a customer by accident; the sender's address is never
offered, only warned of.
Must not: contain markup, or know HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final

import msgspec

from tallystick.chains.families import FAMILIES
from tallystick.core.errors import Conflict, NetworkUnavailable, NotFound
from tallystick.core.ids import IdKind, is_id
from tallystick.core.money import format_units
from tallystick.core.network import Network
from tallystick.core.refund import AddressSource, RefundStatus
from tallystick.db.refunds import SQL, StoredRefund, read_refunds
from tallystick.db.sql import Connection
from tallystick.services import claim_texts as texts
from tallystick.services.checkout import name_in_sentence, network_name
from tallystick.services.checkout_words import Words
from tallystick.services.context import CUSTOMER, Context
from tallystick.services.refund_claims import TOKEN_LENGTH_MAX, check_address
from tallystick.services.refund_writing import amend, let_sign
from tallystick.services.refunds import lock_refund

ASKABLE: Final = frozenset({RefundStatus.REQUESTED, RefundStatus.APPROVED})
"""Statuses in which an address can be given."""


class ClaimView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on the page. `asks`: an address can be given now. `words` are filled with names and amounts."""

    id: str
    merchant_name: str
    merchant: str
    order_id: str | None
    status: str
    phase: str
    headline: str
    text: str
    next_step: str
    asks: bool
    amount: str
    asset: str
    network: str
    fee_text: str | None
    address: str | None
    address_parts: tuple[str, str, str] | None
    tx_hash: str | None
    progress: str | None


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """An address as the customer is asked to confirm it."""

    address: str
    parts: tuple[str, str, str]
    is_sender: bool
    has_checksum: bool


async def claim_view(connection: Connection, ctx: Context, refund_id: str, token: str) -> ClaimView:
    """The page as it stands. Raises NotFound for anything but the newest link."""
    refund = await _by_link(connection, refund_id, token)
    return await _view(connection, ctx, refund)


async def consider_address(
    connection: Connection, ctx: Context, refund_id: str, token: str, text: str
) -> tuple[ClaimView, Claimed]:
    """Look at an address before it is confirmed; nothing is stored.

    Raises NotFound; Conflict where none is asked for any more; InvalidInput at /address.
    """
    refund = await _by_link(connection, refund_id, token)
    view = await _view(connection, ctx, refund)
    if not view.asks:
        raise Conflict("This refund asks for no address.", object_id=refund_id)
    address = await check_address(connection, ctx, _network(ctx, refund), text)
    row = await SQL.claim_page_of.one(connection, invoice_id=refund.invoice_id)
    shown = FAMILIES[refund.family].display(address, ctx.networks.get(refund.asset.network))
    claimed = Claimed(
        address=shown,
        parts=_parts(shown),
        is_sender=row is not None and address in row["senders"],
        has_checksum=FAMILIES[refund.family].has_checksum(text.strip()),
    )
    words = _filled(texts.SURE, refund, view.merchant, view.network)
    return msgspec.structs.replace(view, **words), claimed


async def confirm_address(
    connection: Connection, ctx: Context, refund_id: str, token: str, text: str
) -> None:
    """Set the address, once; from now on the link only shows how things stand.

    The same address again changes nothing. Raises NotFound; Conflict where none is asked for; InvalidInput at /address.
    """
    await _by_link(connection, refund_id, token)
    _, refund = await lock_refund(connection, ctx, None, refund_id)
    _check_token(refund.claim_token_hash, token)  # once more under lock: a newer link may have been made
    address = await check_address(connection, ctx, _network(ctx, refund), text)
    if refund.address == address and refund.address_source is AddressSource.CUSTOMER:
        return
    if not _asks(ctx, refund):
        raise Conflict("This refund asks for no address.", object_id=refund_id)
    changed = await amend(
        connection,
        ctx,
        refund,
        address=address,
        address_source=AddressSource.CUSTOMER,
        address_at=ctx.now(),
    )
    await let_sign(connection, ctx, changed, CUSTOMER)


async def _by_link(connection: Connection, refund_id: str, token: str) -> StoredRefund:
    if not is_id(IdKind.REFUND, refund_id):
        raise NotFound("There is no such refund.")
    found = await read_refunds(connection, [refund_id])
    _check_token(found[0].claim_token_hash if found else None, token)
    return found[0]


def _check_token(known: bytes | None, token: str) -> None:
    """Whether the token is the newest one of the refund. Raises NotFound, whatever is wrong with it."""
    given = hashlib.sha256(token[:TOKEN_LENGTH_MAX].encode("utf-8", "replace")).digest()
    if known is None or not hmac.compare_digest(known, given):
        raise NotFound("There is no such refund.")


def _asks(ctx: Context, refund: StoredRefund) -> bool:
    in_time = refund.claim_expires_at is not None and ctx.now() < refund.claim_expires_at
    return refund.address is None and refund.status in ASKABLE and in_time


def _network(ctx: Context, refund: StoredRefund) -> Network:
    network = ctx.networks.get(refund.asset.network)
    if network is None:
        raise NetworkUnavailable("The network is no longer configured.", object_id=refund.asset.network)
    return network


async def _view(connection: Connection, ctx: Context, refund: StoredRefund) -> ClaimView:
    row = await SQL.claim_page_of.one(connection, invoice_id=refund.invoice_id)
    if row is None:
        raise NotFound("There is no such refund.")
    asks = _asks(ctx, refund)
    waits = refund.address is None and refund.status in ASKABLE
    words = texts.ASK if asks else texts.EXPIRED if waits else texts.STATUS_WORDS[refund.status]
    merchant = name_in_sentence(row["name"])
    network = network_name(refund.asset.network, ctx.networks)
    address = None
    if refund.address is not None:
        address = FAMILIES[refund.family].display(refund.address, ctx.networks.get(refund.asset.network))
    return ClaimView(
        id=refund.id,
        merchant_name=row["name"],
        merchant=merchant,
        order_id=row["order_id"],
        status=refund.status.value,
        asks=asks,
        amount=_amount(refund, refund.amount_sent),
        asset=refund.asset.symbol,
        network=network,
        fee_text=_fee_text(refund),
        address=address,
        address_parts=_parts(address) if address is not None else None,
        tx_hash=refund.chain_tx_hash,
        progress=_progress(refund),
        **_filled(words, refund, merchant, network),
    )


def _filled(words: Words, refund: StoredRefund, merchant: str, network: str) -> dict[str, Any]:
    """The sentences of a state with names and amounts filled in."""
    names = {
        "merchant": merchant,
        "amount": _amount(refund, refund.amount_sent),
        "asset": refund.asset.symbol,
        "network": network,
    }
    return {
        "phase": words.phase.value,
        "headline": words.headline,
        "text": words.text.format(**names),
        "next_step": words.next_step.format(**names),
    }


def _amount(refund: StoredRefund, units: int) -> str:
    return format_units(units, refund.asset.decimals)


def _fee_text(refund: StoredRefund) -> str | None:
    if refund.fee_amount == 0:
        return None
    fee, whole = _amount(refund, refund.fee_amount), _amount(refund, refund.amount)
    return texts.LABELS["fee_kept"].format(fee=fee, whole=whole, asset=refund.asset.symbol)


def _progress(refund: StoredRefund) -> str | None:
    if refund.status is not RefundStatus.CONFIRMING or refund.confirmations_required is None:
        return None
    have = min(refund.confirmations, refund.confirmations_required)
    return texts.LABELS["confirmations"].format(have=have, need=refund.confirmations_required)


def _parts(address: str) -> tuple[str, str, str]:
    """Beginning, middle and end of an address: what people compare."""
    return address[:6], address[6:-6], address[-6:]
