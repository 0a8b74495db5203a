"""Payments, and the trace from a transaction to what it paid."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.params import FromPath, FromQuery

from tallystick.api.request import ApiRequest, choice_of, cursor_of, path_id
from tallystick.api.resources.common import READ_INVOICES, Cursor, Limit, one_of
from tallystick.core.ids import IdKind
from tallystick.core.invoice import PaymentStatus
from tallystick.services import objects, payments
from tallystick.services.paging import LIMIT_DEFAULT, Page
from tallystick.services.payments import PaymentFilter


@get("/payments", opt=READ_INVOICES, tags=["Payments"], operation_id="list_payments")
async def list_payments(
    request: ApiRequest,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    invoice_id: FromQuery[str | None] = None,
    tx_hash: FromQuery[str | None] = None,
    status: Annotated[str | None, one_of(PaymentStatus)] = None,
) -> Page[objects.Payment]:
    """Transfers attributed to invoices, newest first."""
    wanted = PaymentFilter(
        invoice_id=invoice_id, tx_hash=tx_hash, status=choice_of("status", PaymentStatus, status)
    )
    below = cursor_of(IdKind.PAYMENT, cursor)
    async with request.ctx.database.snapshot() as connection:
        return await payments.list_payments(
            connection, request.ctx, request.merchant_id, wanted, limit, below
        )


@get("/payments/{payment_id:str}", opt=READ_INVOICES, tags=["Payments"], operation_id="get_payment")
async def get_payment(request: ApiRequest, payment_id: FromPath[str]) -> objects.Payment:
    """One payment as it stands."""
    own = path_id(IdKind.PAYMENT, payment_id)
    async with request.ctx.database.snapshot() as connection:
        return await payments.get_payment(connection, request.ctx, request.merchant_id, own)


@get("/trace/{tx_hash:str}", opt=READ_INVOICES, tags=["Payments"], operation_id="trace")
async def trace(request: ApiRequest, tx_hash: FromPath[str]) -> payments.Trace:
    """What a transaction paid: invoices, orders, payments, ledger entries, settlement."""
    async with request.ctx.database.snapshot() as connection:
        return await payments.trace(connection, request.ctx, request.merchant_id, tx_hash)


HANDLERS = (list_payments, get_payment, trace)
