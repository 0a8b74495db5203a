"""Disputes about an invoice's payment: open, resolve."""

from __future__ import annotations

from litestar import Response, post
from litestar.params import FromPath, JSONBody

from tallystick.api.answers import changed
from tallystick.api.request import ApiRequest, path_id
from tallystick.api.requests import OpenDispute, ResolveDispute
from tallystick.api.resources.common import WRITE_EXCEPTIONS
from tallystick.core.ids import IdKind
from tallystick.services import disputes, objects


@post(
    "/invoices/{invoice_id:str}/dispute",
    opt=WRITE_EXCEPTIONS,
    tags=["Disputes"],
    operation_id="open_dispute",
    status_code=200,
)
async def open_dispute(
    request: ApiRequest, invoice_id: FromPath[str], data: JSONBody[OpenDispute]
) -> Response[objects.Invoice]:
    """Say that a payment is disputed. Until it is resolved the invoice is `disputed`, whatever the chain shows."""
    own = path_id(IdKind.INVOICE, invoice_id)
    exhibits = data.exhibits()
    return await changed(
        request,
        lambda connection: disputes.open_dispute(
            connection,
            request.ctx,
            request.merchant_id,
            request.actor,
            own,
            reason=data.reason,
            note=data.note,
            evidence=exhibits,
        ),
    )


@post(
    "/invoices/{invoice_id:str}/dispute/resolve",
    opt=WRITE_EXCEPTIONS,
    tags=["Disputes"],
    operation_id="resolve_dispute",
    status_code=200,
)
async def resolve_dispute(
    request: ApiRequest, invoice_id: FromPath[str], data: JSONBody[ResolveDispute]
) -> Response[objects.Invoice]:
    """Say how a dispute ended. The invoice is again what the evidence says. No money moves: where the customer is
    right, ask for a refund."""
    own = path_id(IdKind.INVOICE, invoice_id)
    exhibits = data.exhibits()
    return await changed(
        request,
        lambda connection: disputes.resolve_dispute(
            connection,
            request.ctx,
            request.merchant_id,
            request.actor,
            own,
            outcome=data.outcome,
            note=data.note,
            evidence=exhibits,
        ),
    )


HANDLERS = (open_dispute, resolve_dispute)
