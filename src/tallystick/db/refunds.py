"""Refunds as stored: rows to values and back.

For: `services.refunds` and its neighbours. Holds true: whoever changes a refund holds its invoice's lock; a change
names the status and the event number it expects, so nobody overwrites what they have not seen.
Must not: decide a status, or render anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from tallystick.core.errors import StaleWrite
from tallystick.core.money import Asset
from tallystick.core.refund import AddressSource, FeePayer, RefundRule, RefundStatus
from tallystick.db.sql import Connection, Record, load

SQL: Final = load("refunds")


@dataclass(frozen=True, slots=True)
class StoredRefund:
    """One refund. Amounts are base units of `asset`; `address` is in normal form.

    `basis_ids` are the incoming transfers that stood when it was asked for. `chain_tx_hash` and `confirmations` are of
    the outgoing transfer that stands in the best chain now; `tx_hash` is what somebody told. `halted`: its network
    waits for an operator, so that nobody can say what stands there. `psbt` is what a Bitcoin wallet signs, with the
    `psbt_fee` that it pays, or `psbt_problem` says why there is none; `psbt_dead`: one of the outputs that it spends
    was spent elsewhere, or is not in the best chain.
    """

    id: str
    merchant_id: str
    invoice_id: str
    option_id: str
    exception_id: str | None
    status: RefundStatus
    rule: RefundRule
    asset: Asset
    family: str
    amount: int
    fee: FeePayer
    fee_amount: int
    transfer_ids: tuple[str, ...]
    basis_ids: tuple[str, ...]
    withdraws: bool
    reason: str
    detail: dict[str, Any]
    requested_by_type: str
    requested_by: str | None
    requested_at: datetime
    updated_at: datetime
    event_sequence: int = 1
    address: str | None = None
    address_source: AddressSource | None = None
    address_at: datetime | None = None
    claim_token_hash: bytes | None = None
    claim_expires_at: datetime | None = None
    link_by_type: str | None = None
    link_by: str | None = None
    decided_by_type: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    decision_note: str | None = None
    tx_hash: str | None = None
    broadcast_at: datetime | None = None
    attention_at: datetime | None = None
    problem: str | None = None
    chain_tx_hash: str | None = None
    confirmations: int = 0
    confirmations_required: int | None = None  # by the option that the money came to
    option_network: str | None = None  # that option's network
    halted: bool = False
    psbt: str | None = None
    psbt_fee: int | None = None
    psbt_problem: str | None = None
    psbt_at: datetime | None = None  # our clock when it was made, or tried last
    psbt_dead: bool = False

    @property
    def amount_sent(self) -> int:
        """Base units that leave the wallet for the address."""
        return self.amount - self.fee_amount


async def read_refunds(connection: Connection, ids: Sequence[str]) -> list[StoredRefund]:
    """The refunds of these ids that exist, sorted by id. For a change the caller holds the invoice's lock."""
    if not ids:
        return []
    return [_refund(row) for row in await SQL.read_refunds.all(connection, ids=sorted(set(ids)))]


async def read_of_invoices(connection: Connection, invoice_ids: Sequence[str]) -> list[StoredRefund]:
    """All refunds of these invoices, sorted by id."""
    rows = await SQL.ids_of_invoices.all(connection, ids=list(invoice_ids))
    return await read_refunds(connection, [row["id"] for row in rows])


def _refund(row: Record) -> StoredRefund:
    source = row["address_source"]
    return StoredRefund(
        id=row["id"],
        merchant_id=row["merchant_id"],
        invoice_id=row["invoice_id"],
        option_id=row["option_id"],
        exception_id=row["exception_id"],
        status=RefundStatus(row["status"]),
        rule=RefundRule(row["rule"]),
        asset=Asset(row["network"], row["asset_symbol"], row["asset_decimals"], row["contract"]),
        family=row["family"],
        amount=row["amount"],
        fee=FeePayer(row["fee"]),
        fee_amount=row["fee_amount"],
        transfer_ids=tuple(row["transfer_ids"]),
        basis_ids=tuple(row["basis_ids"]),
        withdraws=row["withdraws"],
        reason=row["reason"],
        detail=row["detail"],
        requested_by_type=row["requested_by_type"],
        requested_by=row["requested_by"],
        requested_at=row["requested_at"],
        updated_at=row["updated_at"],
        event_sequence=row["event_sequence"],
        address=row["address"],
        address_source=AddressSource(source) if source is not None else None,
        address_at=row["address_at"],
        claim_token_hash=row["claim_token_hash"],
        claim_expires_at=row["claim_expires_at"],
        link_by_type=row["link_by_type"],
        link_by=row["link_by"],
        decided_by_type=row["decided_by_type"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        decision_note=row["decision_note"],
        tx_hash=row["tx_hash"],
        broadcast_at=row["broadcast_at"],
        attention_at=row["attention_at"],
        problem=row["problem"],
        chain_tx_hash=row["chain_tx_hash"],
        confirmations=row["confirmations"],
        confirmations_required=row["confirmations_required"] if row["finality"] == "depth" else None,
        option_network=row["option_network"],
        halted=row["halted"],
        psbt=row["psbt"],
        psbt_fee=None if row["psbt_fee"] is None else int(row["psbt_fee"]),
        psbt_problem=row["psbt_problem"],
        psbt_at=row["psbt_at"],
        psbt_dead=row["psbt_dead"],
    )


async def insert_refund(connection: Connection, refund: StoredRefund) -> None:
    """Insert a new refund, as requested. The database refuses one that takes more than is left."""
    asset = refund.asset
    await SQL.insert_refund.run(
        connection,
        id=refund.id,
        merchant_id=refund.merchant_id,
        invoice_id=refund.invoice_id,
        option_id=refund.option_id,
        exception_id=refund.exception_id,
        rule=refund.rule,
        network=asset.network,
        asset_symbol=asset.symbol,
        asset_decimals=asset.decimals,
        contract=asset.contract,
        amount=refund.amount,
        fee=refund.fee,
        fee_amount=refund.fee_amount,
        amount_sent=refund.amount_sent,
        transfer_ids=sorted(refund.transfer_ids),
        basis_ids=sorted(refund.basis_ids),
        withdraws=refund.withdraws,
        reason=refund.reason,
        detail=json.dumps(refund.detail),
        address=refund.address,
        address_source=refund.address_source,
        address_at=refund.address_at,
        claim_token_hash=refund.claim_token_hash,
        claim_expires_at=refund.claim_expires_at,
        requested_by_type=refund.requested_by_type,
        requested_by=refund.requested_by,
        at=refund.requested_at,
    )


async def update_refund(
    connection: Connection, old: StoredRefund, new: StoredRefund, at: datetime
) -> StoredRefund:
    """Write what may change, if the refund still is as `old`; as it is afterwards. Raises StaleWrite."""
    count = await SQL.update_refund.run(
        connection,
        id=old.id,
        old_status=old.status,
        old_event_sequence=old.event_sequence,
        status=new.status,
        withdraws=new.withdraws,
        address=new.address,
        address_source=new.address_source,
        address_at=new.address_at,
        claim_token_hash=new.claim_token_hash,
        claim_expires_at=new.claim_expires_at,
        link_by_type=new.link_by_type,
        link_by=new.link_by,
        decided_by_type=new.decided_by_type,
        decided_by=new.decided_by,
        decided_at=new.decided_at,
        decision_note=new.decision_note,
        tx_hash=new.tx_hash,
        broadcast_at=new.broadcast_at,
        attention_at=new.attention_at,
        problem=new.problem,
        psbt=new.psbt,
        psbt_fee=new.psbt_fee,
        psbt_problem=new.psbt_problem,
        psbt_at=new.psbt_at,
        event_sequence=new.event_sequence,
        at=at,
    )
    if count != 1:
        raise StaleWrite("The refund had changed meanwhile.", object_id=old.id)
    return replace(new, updated_at=at)
