"""Confirmation policies: the rules that say when a payment counts, and what they would choose."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, get, post, put
from litestar.params import JSONBody, QueryParameter

from tallystick.api.answers import changed
from tallystick.api.document import ALSO_ANSWERS
from tallystick.api.request import ApiRequest
from tallystick.api.requests import PreviewConfirmationPolicy, PutConfirmationPolicy
from tallystick.api.resources.common import ADMIN, READ_INVOICES
from tallystick.services import policies

VERSION_MAX = 2**31 - 1


@get(
    "/confirmation_policies",
    opt=READ_INVOICES | {ALSO_ANSWERS: (404,)},
    tags=["Confirmation policies"],
    operation_id="get_confirmation_policy",
)
async def get_policy(
    request: ApiRequest,
    version: Annotated[
        int | None,
        QueryParameter(ge=1, le=VERSION_MAX, description="An older version; left out: the one in force."),
    ] = None,
) -> policies.PolicyObject:
    """The rules in order, the first that matches applies, and each network's default, which closes the list."""
    async with request.ctx.database.snapshot() as connection:
        return await policies.get_policy(connection, request.ctx, request.merchant_id, version)


@put(
    "/confirmation_policies",
    opt=ADMIN,
    tags=["Confirmation policies"],
    operation_id="put_confirmation_policy",
)
async def put_policy(
    request: ApiRequest, data: JSONBody[PutConfirmationPolicy]
) -> Response[policies.PolicyObject]:
    """Put a list of rules in force, as the next version; the same list again is the same version. Invoices that exist
    keep what was applied to them."""
    return await changed(
        request,
        lambda connection: policies.put_policy(
            connection, request.ctx, request.merchant_id, request.actor, data.rules
        ),
    )


@post(
    "/confirmation_policies/preview",
    opt=READ_INVOICES,
    tags=["Confirmation policies"],
    operation_id="preview_confirmation_policy",
    status_code=200,
)
async def preview(
    request: ApiRequest, data: JSONBody[PreviewConfirmationPolicy]
) -> Response[policies.Preview]:
    """Which rule would apply to an invoice made now, why, and what it requires, for every way to pay it."""
    asked = data.to_service()
    return await changed(
        request,
        lambda connection: policies.preview(connection, request.ctx, request.merchant_id, asked),
    )


HANDLERS = (get_policy, put_policy, preview)
