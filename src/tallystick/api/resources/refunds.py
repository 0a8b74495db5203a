"""Refunds: request, list, read, approve, reject, tell that one was sent, make a new claim link."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from tallystick.api.answers import changed, created
from tallystick.api.document import KEY_REQUIRED
from tallystick.api.refund_requests import BroadcastRefund, CreateRefund, DecideRefund
from tallystick.api.request import ApiRequest, choice_of, cursor_of, path_id
from tallystick.api.requests import NoFields
from tallystick.api.resources.common import (
    APPROVE_REFUNDS,
    READ_REFUNDS,
    WRITE_REFUNDS,
    Cursor,
    Limit,
    one_of,
)
from tallystick.core.ids import IdKind
from tallystick.core.refund import RefundStatus
from tallystick.services import objects, refund_decisions, refunds
from tallystick.services.paging import LIMIT_DEFAULT, Page
from tallystick.services.refunds import RefundFilter


@post("/refunds", opt=WRITE_REFUNDS | {KEY_REQUIRED: True}, tags=["Refunds"], operation_id="create_refund")
async def create_refund(request: ApiRequest, data: JSONBody[CreateRefund]) -> Response[objects.Refund]:
    """Ask for a refund of confirmed money. `Idempotency-Key` is required. Nothing is paid before it is approved and
    signed in your wallet. Without an address the answer holds, this one time, the link of the claim page."""
    new = data.to_service()
    return await created(
        request,
        lambda connection: refunds.create_refund(
            connection, request.ctx, request.merchant_id, request.actor, new
        ),
        key_required=True,
    )


@get("/refunds", opt=READ_REFUNDS, tags=["Refunds"], operation_id="list_refunds")
async def list_refunds(
    request: ApiRequest,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    status: Annotated[str | None, one_of(RefundStatus)] = None,
    invoice_id: FromQuery[str | None] = None,
) -> Page[objects.Refund]:
    """Refunds, newest first."""
    wanted = RefundFilter(status=choice_of("status", RefundStatus, status), invoice_id=invoice_id)
    below = cursor_of(IdKind.REFUND, cursor)
    async with request.ctx.database.snapshot() as connection:
        return await refunds.list_refunds(connection, request.ctx, request.merchant_id, wanted, limit, below)


@get("/refunds/{refund_id:str}", opt=READ_REFUNDS, tags=["Refunds"], operation_id="get_refund")
async def get_refund(request: ApiRequest, refund_id: FromPath[str]) -> objects.Refund:
    """One refund as it stands. While it waits for a signature it holds the payment request."""
    own = path_id(IdKind.REFUND, refund_id)
    async with request.ctx.database.snapshot() as connection:
        return await refunds.get_refund(connection, request.ctx, request.merchant_id, own)


@post(
    "/refunds/{refund_id:str}/approve",
    opt=APPROVE_REFUNDS,
    tags=["Refunds"],
    operation_id="approve_refund",
    status_code=200,
)
async def approve_refund(
    request: ApiRequest, refund_id: FromPath[str], data: JSONBody[DecideRefund]
) -> Response[objects.Refund]:
    """Let a refund be paid; from `needs_attention`: let it go on. Where the merchant requires a second person, that is
    another key than the one that asked for it."""
    own = path_id(IdKind.REFUND, refund_id)
    return await changed(
        request,
        lambda connection: refund_decisions.approve_refund(
            connection, request.ctx, request.merchant_id, request.actor, own, data.note
        ),
    )


@post(
    "/refunds/{refund_id:str}/reject",
    opt=APPROVE_REFUNDS,
    tags=["Refunds"],
    operation_id="reject_refund",
    status_code=200,
)
async def reject_refund(
    request: ApiRequest, refund_id: FromPath[str], data: JSONBody[DecideRefund]
) -> Response[objects.Refund]:
    """Refuse a refund (`rejected`), or give up one that waits to be sent or needs attention (`failed`)."""
    own = path_id(IdKind.REFUND, refund_id)
    return await changed(
        request,
        lambda connection: refund_decisions.reject_refund(
            connection, request.ctx, request.merchant_id, request.actor, own, data.note
        ),
    )


@post(
    "/refunds/{refund_id:str}/broadcast",
    opt=WRITE_REFUNDS,
    tags=["Refunds"],
    operation_id="broadcast_refund",
    status_code=200,
)
async def broadcast_refund(
    request: ApiRequest, refund_id: FromPath[str], data: JSONBody[BroadcastRefund]
) -> Response[objects.Refund]:
    """Tell in which transaction it was sent. The same again changes nothing; only the chain completes a refund."""
    own = path_id(IdKind.REFUND, refund_id)
    return await changed(
        request,
        lambda connection: refund_decisions.broadcast_refund(
            connection, request.ctx, request.merchant_id, request.actor, own, data.tx_hash
        ),
    )


@post(
    "/refunds/{refund_id:str}/claim_link",
    opt=WRITE_REFUNDS,
    tags=["Refunds"],
    operation_id="create_claim_link",
    status_code=200,
)
async def create_claim_link(
    request: ApiRequest,
    refund_id: FromPath[str],
    data: JSONBody[NoFields],  # noqa: ARG001  # read and checked: an unknown field is an error
) -> Response[objects.Refund]:
    """Make a new link to the claim page, for a refund that has no address yet. The link before it stops working."""
    own = path_id(IdKind.REFUND, refund_id)
    return await changed(
        request,
        lambda connection: refund_decisions.new_claim_link(
            connection, request.ctx, request.merchant_id, request.actor, own
        ),
    )


HANDLERS = (
    create_refund,
    list_refunds,
    get_refund,
    approve_refund,
    reject_refund,
    broadcast_refund,
    create_claim_link,
)
