"""Payments: transfers attributed to invoices, listed, read and traced. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from tallystick.core.errors import NotFound
from tallystick.core.invoice import PaymentStatus
from tallystick.db.invoices import SQL
from tallystick.db.sql import Connection
from tallystick.services import objects
from tallystick.services.context import Context
from tallystick.services.invoices import show_invoices
from tallystick.services.ledger import LedgerEntry, entries_of_invoices
from tallystick.services.paging import Page, page_of


@dataclass(frozen=True, slots=True)
class PaymentFilter:
    """Which payments a list shows; None does not restrict."""

    invoice_id: str | None = None
    tx_hash: str | None = None
    status: PaymentStatus | None = None


class TracedTransfer(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer of a traced transaction, with what it caused: a payment that came, or a refund that went out."""

    payment: objects.Payment | None
    refund_id: str | None
    invoice_id: str
    order_id: str | None
    ledger_entries: list[LedgerEntry]
    settlement_id: str | None


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one transaction paid at a merchant, or gave back."""

    transfers: list[TracedTransfer]


async def list_payments(
    connection: Connection,
    ctx: Context,
    merchant_id: str,
    wanted: PaymentFilter,
    limit: int,
    cursor: str | None,
) -> Page[objects.Payment]:
    """A page of the merchant's payments, newest first."""
    rows = await SQL.list_payment_ids.all(
        connection,
        merchant_id=merchant_id,
        before_id=cursor,
        invoice_id=wanted.invoice_id,
        status=wanted.status,
        tx_hash=wanted.tx_hash.lower() if wanted.tx_hash is not None else None,
        row_count=limit + 1,
    )
    kept, next_cursor = page_of(rows, limit, lambda row: str(row["id"]))
    invoices = await show_invoices(connection, ctx, sorted({row["invoice_id"] for row in kept}))
    payments = {payment.id: payment for invoice in invoices for payment in invoice.payments}
    return Page(data=[payments[row["id"]] for row in kept], next_cursor=next_cursor)


async def get_payment(
    connection: Connection, ctx: Context, merchant_id: str, payment_id: str
) -> objects.Payment:
    """One payment. Raises NotFound."""
    row = await SQL.payment_owner.one(connection, id=payment_id, merchant_id=merchant_id)
    if row is None:
        raise NotFound("There is no such payment.", object_id=payment_id)
    (invoice,) = await show_invoices(connection, ctx, [row["invoice_id"]])
    return next(payment for payment in invoice.payments if payment.id == payment_id)


async def trace(connection: Connection, ctx: Context, merchant_id: str, tx_hash: str) -> Trace:
    """What a transaction paid or gave back. Raises NotFound where it did nothing for this merchant.

    Of a payment the entries about it and those about its invoice's position are shown, of a refund its own.
    """
    known = tx_hash.lower()
    paid = await SQL.trace.all(connection, tx_hash=known, merchant_id=merchant_id)
    refunded = await SQL.trace_refunds.all(connection, tx_hash=known, merchant_id=merchant_id)
    ids = {row["invoice_id"] for row in (*paid, *refunded)}
    invoices = {one.id: one for one in await show_invoices(connection, ctx, sorted(ids))}
    entries = await entries_of_invoices(connection, ids)
    transfers = [
        TracedTransfer(
            payment=payment,
            refund_id=None,
            invoice_id=invoice.id,
            order_id=invoice.order_id,
            ledger_entries=[
                entry
                for entry in entries
                if entry.payment_id == payment.id
                or (entry.invoice_id == invoice.id and entry.payment_id is None and entry.refund_id is None)
            ],
            settlement_id=invoice.settlement_id,
        )
        for invoice in invoices.values()
        for payment in invoice.payments
        if payment.tx_hash == known
    ]
    transfers += [
        TracedTransfer(
            payment=None,
            refund_id=row["id"],
            invoice_id=row["invoice_id"],
            order_id=invoices[row["invoice_id"]].order_id,
            ledger_entries=[entry for entry in entries if entry.refund_id == row["id"]],
            settlement_id=invoices[row["invoice_id"]].settlement_id,
        )
        for row in refunded
    ]
    if not transfers:
        raise NotFound("No payment or refund of yours is in this transaction.", object_id=tx_hash)
    return Trace(transfers=transfers)
