"""Invoices: create, list, read, choose a way to pay, history, cancel, fulfilment."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from tallystick.api.answers import changed, created
from tallystick.api.request import ApiRequest, choice_of, cursor_of, path_id, time_of
from tallystick.api.requests import CreateInvoice, NoFields, RecordFulfillment
from tallystick.api.resources.common import READ_INVOICES, WRITE_INVOICES, Cursor, Limit, Time, one_of, whole
from tallystick.core.ids import IdKind
from tallystick.core.invoice import Status
from tallystick.services import invoices, objects
from tallystick.services.invoices import InvoiceFilter
from tallystick.services.paging import LIMIT_DEFAULT, Page


@post("/invoices", opt=WRITE_INVOICES, tags=["Invoices"], operation_id="create_invoice")
async def create_invoice(request: ApiRequest, data: JSONBody[CreateInvoice]) -> Response[objects.Invoice]:
    """Ask a customer for an amount. The answer holds the ways to pay it and the address of the checkout page."""
    new = data.to_service()
    return await created(
        request,
        lambda connection: invoices.create_invoice(
            connection, request.ctx, request.merchant_id, request.actor, new
        ),
    )


@get("/invoices", opt=READ_INVOICES, tags=["Invoices"], operation_id="list_invoices")
async def list_invoices(
    request: ApiRequest,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    status: Annotated[str | None, one_of(Status)] = None,
    order_id: FromQuery[str | None] = None,
    tx_hash: FromQuery[str | None] = None,
    address: FromQuery[str | None] = None,
    created_after: Time = None,
    created_before: Time = None,
) -> Page[objects.Invoice]:
    """Invoices, newest first. A transaction hash or an address finds the invoice that it belongs to."""
    wanted = InvoiceFilter(
        status=choice_of("status", Status, status),
        order_id=order_id,
        tx_hash=tx_hash,
        address=address,
        created_after=time_of("created_after", created_after),
        created_before=time_of("created_before", created_before),
    )
    below = cursor_of(IdKind.INVOICE, cursor)
    async with request.ctx.database.snapshot() as connection:
        return await invoices.list_invoices(
            connection, request.ctx, request.merchant_id, wanted, limit, below
        )


@get("/invoices/{invoice_id:str}", opt=READ_INVOICES, tags=["Invoices"], operation_id="get_invoice")
async def get_invoice(request: ApiRequest, invoice_id: FromPath[str]) -> objects.Invoice:
    """One invoice as it stands."""
    own = path_id(IdKind.INVOICE, invoice_id)
    async with request.ctx.database.snapshot() as connection:
        return await invoices.get_invoice(connection, request.ctx, request.merchant_id, own)


@post(
    "/invoices/{invoice_id:str}/options/{option_id:str}/activate",
    opt=WRITE_INVOICES,
    tags=["Invoices"],
    operation_id="activate_option",
    status_code=200,
)
async def activate_option(
    request: ApiRequest,
    invoice_id: FromPath[str],
    option_id: FromPath[str],
    data: JSONBody[NoFields],  # noqa: ARG001  # read and checked: an unknown field is an error
) -> Response[objects.Invoice]:
    """Issue the address of a way to pay and lock its quote. A second time changes nothing."""
    own, option = path_id(IdKind.INVOICE, invoice_id), path_id(IdKind.OPTION, option_id)
    return await changed(
        request,
        lambda connection: invoices.activate_option(
            connection, request.ctx, request.merchant_id, request.actor, own, option
        ),
    )


@get(
    "/invoices/{invoice_id:str}/transitions",
    opt=READ_INVOICES,
    tags=["Invoices"],
    operation_id="list_transitions",
)
async def list_transitions(request: ApiRequest, invoice_id: FromPath[str]) -> Page[objects.Transition]:
    """Every status the invoice had, oldest first, with reason, actor and evidence."""
    own = path_id(IdKind.INVOICE, invoice_id)
    async with request.ctx.database.snapshot() as connection:
        return whole(await invoices.list_transitions(connection, request.merchant_id, own))


@post(
    "/invoices/{invoice_id:str}/cancel",
    opt=WRITE_INVOICES,
    tags=["Invoices"],
    operation_id="cancel_invoice",
    status_code=200,
)
async def cancel_invoice(
    request: ApiRequest,
    invoice_id: FromPath[str],
    data: JSONBody[NoFields],  # noqa: ARG001  # as above
) -> Response[objects.Invoice]:
    """Withdraw an invoice that nobody has paid."""
    own = path_id(IdKind.INVOICE, invoice_id)
    return await changed(
        request,
        lambda connection: invoices.cancel_invoice(
            connection, request.ctx, request.merchant_id, request.actor, own
        ),
    )


@post(
    "/invoices/{invoice_id:str}/fulfillment",
    opt=WRITE_INVOICES,
    tags=["Invoices"],
    operation_id="record_fulfillment",
    status_code=200,
)
async def record_fulfillment(
    request: ApiRequest, invoice_id: FromPath[str], data: JSONBody[RecordFulfillment]
) -> Response[objects.Invoice]:
    """Record, once, that the order was delivered. A second time changes nothing."""
    own = path_id(IdKind.INVOICE, invoice_id)
    note = data.to_service()
    return await changed(
        request,
        lambda connection: invoices.record_fulfillment(
            connection, request.ctx, request.merchant_id, request.actor, own, note
        ),
    )


HANDLERS = (
    create_invoice,
    list_invoices,
    get_invoice,
    activate_option,
    list_transitions,
    cancel_invoice,
    record_fulfillment,
)
