"""Webhook endpoints, the events they are told of, and each event's deliveries."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from tallystick.api.answers import changed, created
from tallystick.api.document import ALSO_ANSWERS
from tallystick.api.problems import bad_parameter
from tallystick.api.request import ApiRequest, cursor_of, path_id
from tallystick.api.requests import ChangeEndpoint, CreateEndpoint, NoFields, Redeliver
from tallystick.api.resources.common import READ_EVENTS, WEBHOOKS, Cursor, Limit, whole
from tallystick.core.ids import IdKind, is_id
from tallystick.db.sql import Connection
from tallystick.services import objects, webhooks
from tallystick.services.paging import LIMIT_DEFAULT, Page
from tallystick.services.webhooks import EventFilter


@post("/webhook_endpoints", opt=WEBHOOKS, tags=["Webhooks"], operation_id="create_webhook_endpoint")
async def create_endpoint(
    request: ApiRequest, data: JSONBody[CreateEndpoint]
) -> Response[objects.WebhookEndpoint]:
    """Register an address for events. The answer holds the signing secret, this one time."""
    new = data.to_service()
    return await created(
        request,
        lambda connection: webhooks.create_endpoint(connection, request.ctx, request.merchant_id, new),
    )


@get("/webhook_endpoints", opt=WEBHOOKS, tags=["Webhooks"], operation_id="list_webhook_endpoints")
async def list_endpoints(
    request: ApiRequest, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
) -> Page[objects.WebhookEndpoint]:
    """Endpoints, newest first, without their secrets."""
    below = cursor_of(IdKind.WEBHOOK_ENDPOINT, cursor)
    async with request.ctx.database.snapshot() as connection:
        return await webhooks.list_endpoints(connection, request.ctx, request.merchant_id, limit, below)


@get(
    "/webhook_endpoints/{endpoint_id:str}",
    opt=WEBHOOKS,
    tags=["Webhooks"],
    operation_id="get_webhook_endpoint",
)
async def get_endpoint(request: ApiRequest, endpoint_id: FromPath[str]) -> objects.WebhookEndpoint:
    """One endpoint, without its secret."""
    own = path_id(IdKind.WEBHOOK_ENDPOINT, endpoint_id)
    async with request.ctx.database.snapshot() as connection:
        return await webhooks.get_endpoint(connection, request.ctx, request.merchant_id, own)


@patch(
    "/webhook_endpoints/{endpoint_id:str}",
    opt=WEBHOOKS,
    tags=["Webhooks"],
    operation_id="update_webhook_endpoint",
)
async def update_endpoint(
    request: ApiRequest, endpoint_id: FromPath[str], data: JSONBody[ChangeEndpoint]
) -> Response[objects.WebhookEndpoint]:
    """Change what is given and leave the rest."""
    own = path_id(IdKind.WEBHOOK_ENDPOINT, endpoint_id)
    change = data.to_service()
    return await changed(
        request,
        lambda connection: webhooks.update_endpoint(
            connection, request.ctx, request.merchant_id, own, change
        ),
    )


@delete(
    "/webhook_endpoints/{endpoint_id:str}",
    opt=WEBHOOKS,
    tags=["Webhooks"],
    operation_id="delete_webhook_endpoint",
)
async def delete_endpoint(request: ApiRequest, endpoint_id: FromPath[str]) -> None:
    """Delete an endpoint. Nothing more is sent to it; the history of its deliveries stays."""
    own = path_id(IdKind.WEBHOOK_ENDPOINT, endpoint_id)
    async with request.ctx.database.transaction() as connection:
        await webhooks.delete_endpoint(connection, request.ctx, request.merchant_id, own)


@post(
    "/webhook_endpoints/{endpoint_id:str}/rotate_secret",
    opt=WEBHOOKS,
    tags=["Webhooks"],
    operation_id="rotate_webhook_secret",
    status_code=200,
)
async def rotate_secret(
    request: ApiRequest,
    endpoint_id: FromPath[str],
    data: JSONBody[NoFields],  # noqa: ARG001  # read and checked: an unknown field is an error
) -> Response[objects.WebhookEndpoint]:
    """Give the endpoint a new secret, shown this one time. The old one signs as well for a day."""
    own = path_id(IdKind.WEBHOOK_ENDPOINT, endpoint_id)
    return await changed(
        request,
        lambda connection: webhooks.rotate_secret(connection, request.ctx, request.merchant_id, own),
    )


@post(
    "/webhook_endpoints/{endpoint_id:str}/ping",
    opt=WEBHOOKS,
    tags=["Webhooks"],
    operation_id="ping_webhook_endpoint",
    status_code=200,
)
async def ping(
    request: ApiRequest,
    endpoint_id: FromPath[str],
    data: JSONBody[NoFields],  # noqa: ARG001  # as above
) -> Response[objects.Event]:
    """Send a `webhook.ping` event to this endpoint, and to no other."""
    own = path_id(IdKind.WEBHOOK_ENDPOINT, endpoint_id)
    return await changed(
        request, lambda connection: webhooks.ping(connection, request.ctx, request.merchant_id, own)
    )


@get("/events", opt=READ_EVENTS | {ALSO_ANSWERS: (422,)}, tags=["Events"], operation_id="list_events")
async def list_events(
    request: ApiRequest,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    type: FromQuery[str | None] = None,
    object_id: FromQuery[str | None] = None,
    after: Annotated[
        str | None, QueryParameter(description="An event's id: answers the events after it, oldest first.")
    ] = None,
) -> Page[objects.Event]:
    """Events, newest first; or, with `after`, the stream of events from there on."""
    if after is not None and not is_id(IdKind.EVENT, after):
        raise bad_parameter("after", "is not the id of an event")
    below = cursor_of(IdKind.EVENT, cursor)
    wanted = EventFilter(type=type, object_id=object_id, after=after)
    async with request.ctx.database.snapshot() as connection:
        return await webhooks.list_events(connection, request.ctx, request.merchant_id, wanted, limit, below)


@get("/events/{event_id:str}", opt=READ_EVENTS, tags=["Events"], operation_id="get_event")
async def get_event(request: ApiRequest, event_id: FromPath[str]) -> objects.Event:
    """One event, exactly as it is sent."""
    own = path_id(IdKind.EVENT, event_id)
    async with request.ctx.database.snapshot() as connection:
        return await webhooks.get_event(connection, request.ctx, request.merchant_id, own)


@get(
    "/events/{event_id:str}/deliveries",
    opt=READ_EVENTS,
    tags=["Events"],
    operation_id="list_deliveries",
)
async def list_deliveries(request: ApiRequest, event_id: FromPath[str]) -> Page[objects.Delivery]:
    """Where the event was sent, and how every attempt went."""
    own = path_id(IdKind.EVENT, event_id)
    async with request.ctx.database.snapshot() as connection:
        return whole(await webhooks.list_deliveries(connection, request.ctx, request.merchant_id, own))


@post(
    "/events/{event_id:str}/redeliver",
    opt=WEBHOOKS,
    tags=["Events"],
    operation_id="redeliver_event",
    status_code=200,
)
async def redeliver(
    request: ApiRequest, event_id: FromPath[str], data: JSONBody[Redeliver]
) -> Response[Page[objects.Delivery]]:
    """Send an event again. Answers all its deliveries."""
    own = path_id(IdKind.EVENT, event_id)

    async def work(connection: Connection) -> Page[objects.Delivery]:
        merchant_id = request.merchant_id
        return whole(await webhooks.redeliver(connection, request.ctx, merchant_id, own, data.endpoint_id))

    return await changed(request, work)


HANDLERS = (
    create_endpoint,
    list_endpoints,
    get_endpoint,
    update_endpoint,
    delete_endpoint,
    rotate_secret,
    ping,
    list_events,
    get_event,
    list_deliveries,
    redeliver,
)
