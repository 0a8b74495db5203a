"""The queue of exceptions: list, read, assign, resolve."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from tallystick.api.answers import changed
from tallystick.api.request import ApiRequest, choice_of, cursor_of, path_id
from tallystick.api.requests import AssignException, ResolveException
from tallystick.api.resources.common import READ_EXCEPTIONS, WRITE_EXCEPTIONS, Cursor, Limit, one_of
from tallystick.core.cases import CaseKind, CaseStatus, Resolution
from tallystick.core.ids import IdKind
from tallystick.services import exceptions, objects
from tallystick.services.exceptions import ExceptionFilter
from tallystick.services.merchants import Scope
from tallystick.services.paging import LIMIT_DEFAULT, Page


@get("/exceptions", opt=READ_EXCEPTIONS, tags=["Exceptions"], operation_id="list_exceptions")
async def list_exceptions(
    request: ApiRequest,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    status: Annotated[str | None, one_of(CaseStatus)] = None,
    kind: Annotated[str | None, one_of(CaseKind)] = None,
    invoice_id: FromQuery[str | None] = None,
) -> Page[objects.ExceptionObject]:
    """Exceptions, oldest first: who waits longest comes first."""
    wanted = ExceptionFilter(
        status=choice_of("status", CaseStatus, status),
        kind=choice_of("kind", CaseKind, kind),
        invoice_id=invoice_id,
    )
    after = cursor_of(IdKind.EXCEPTION, cursor)
    async with request.ctx.database.snapshot() as connection:
        return await exceptions.list_exceptions(
            connection, request.ctx, request.merchant_id, wanted, limit, after
        )


@get("/exceptions/{exception_id:str}", opt=READ_EXCEPTIONS, tags=["Exceptions"], operation_id="get_exception")
async def get_exception(request: ApiRequest, exception_id: FromPath[str]) -> objects.ExceptionObject:
    """One exception: what is the matter, who has it, what they can do, and what was decided."""
    own = path_id(IdKind.EXCEPTION, exception_id)
    async with request.ctx.database.snapshot() as connection:
        return await exceptions.get_exception(connection, request.ctx, request.merchant_id, own)


@post(
    "/exceptions/{exception_id:str}/resolve",
    opt=WRITE_EXCEPTIONS,
    tags=["Exceptions"],
    operation_id="resolve_exception",
    status_code=200,
)
async def resolve_exception(
    request: ApiRequest, exception_id: FromPath[str], data: JSONBody[ResolveException]
) -> Response[objects.ExceptionObject]:
    """Decide, and close the case. The exception lists the actions that it has.

    `accept` takes what came as the payment, or keeps the excess. `credit` counts it for `value`. `refund` asks for a
    refund (needs `refunds:write` as well). `attach` moves it to another invoice of yours. `write_off` keeps it without
    delivering, or bears the loss. `ignore` leaves things as they are.
    """
    own = path_id(IdKind.EXCEPTION, exception_id)
    if data.action is Resolution.REFUND:
        request.principal.require(Scope.REFUNDS_WRITE)
    asked = data.to_service()
    return await changed(
        request,
        lambda connection: exceptions.resolve(
            connection, request.ctx, request.merchant_id, request.actor, own, asked
        ),
    )


@post(
    "/exceptions/{exception_id:str}/assign",
    opt=WRITE_EXCEPTIONS,
    tags=["Exceptions"],
    operation_id="assign_exception",
    status_code=200,
)
async def assign_exception(
    request: ApiRequest, exception_id: FromPath[str], data: JSONBody[AssignException]
) -> Response[objects.ExceptionObject]:
    """Give an open case to a person or a team."""
    own = path_id(IdKind.EXCEPTION, exception_id)
    return await changed(
        request,
        lambda connection: exceptions.assign(
            connection, request.ctx, request.merchant_id, request.actor, own, data.owner, data.note
        ),
    )


HANDLERS = (list_exceptions, get_exception, resolve_exception, assign_exception)
