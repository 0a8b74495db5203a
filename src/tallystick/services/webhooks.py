"""A merchant's webhook endpoints and the events they can read and have sent again.

For: the API and the command line. Holds true: an endpoint is shown with its secret only when that was just made; an
object of another merchant does not exist; the event stream (`after`) never shows an event before one that commits
later.
Every function takes the connection of an open transaction, the context and the merchant, whether it needs all or not.
Must not: send anything (`workers.deliver` does), resolve host names, or open transactions.
"""
# ruff: noqa: ARG001  # one signature for all use cases

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import msgspec

from tallystick.core.cases import CaseKind
from tallystick.core.errors import Conflict, InvalidInput, NotFound
from tallystick.core.ids import IdKind
from tallystick.core.webhook import ALL_EVENTS, EVENT_TYPES, PING, SECRET_OVERLAP, EndpointStatus
from tallystick.core.webhook_target import url_problem
from tallystick.db import webhooks as stored
from tallystick.db.sql import Connection
from tallystick.services import objects
from tallystick.services.cases import close_subject
from tallystick.services.context import Context
from tallystick.services.delivering import LEASE
from tallystick.services.events import DELIVERIES_CHANNEL, NewEvent, notify, publish
from tallystick.services.paging import Page, page_of

ENDPOINTS_MAX: Final = 16
DESCRIPTION_LENGTH_MAX: Final = 500
ATTEMPTS_SHOWN_MAX: Final = 100
SECRET_BYTES: Final = 32  # Standard Webhooks asks for 24 to 64
_REDELIVERY_LEASE: Final = LEASE + timedelta(seconds=1)

_decode_event: Final = msgspec.json.Decoder(objects.Event).decode


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """A request for an endpoint. `events` holds `"*"` alone or published types."""

    url: str
    events: tuple[str, ...] = (ALL_EVENTS,)
    description: str = ""


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """What to change about an endpoint; None leaves a field as it is."""

    url: str | None = None
    events: tuple[str, ...] | None = None
    description: str | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to list. With `after` (an event's id) the stream after it is read, oldest first."""

    type: str | None = None
    object_id: str | None = None
    after: str | None = None


async def create_endpoint(
    connection: Connection, ctx: Context, merchant_id: str, new: NewEndpoint
) -> objects.WebhookEndpoint:
    """Register an endpoint. The answer holds its secret, this one time.

    Raises InvalidInput for a refused URL or an unknown type, Conflict when the merchant has ENDPOINTS_MAX already.
    """
    _check_url(ctx, new.url)
    events = _checked_events(new.events)
    _check_description(new.description)
    await stored.lock_merchant(connection, merchant_id)
    if await stored.count_endpoints(connection, merchant_id) >= ENDPOINTS_MAX:
        raise Conflict(
            f"A merchant can have at most {ENDPOINTS_MAX} webhook endpoints.",
            remedy="Delete one that is not needed.",
        )
    endpoint_id, secret, at = ctx.new_id(IdKind.WEBHOOK_ENDPOINT), _new_secret(ctx), ctx.now()
    await stored.insert_endpoint(
        connection,
        id=endpoint_id,
        merchant_id=merchant_id,
        url=new.url,
        events=events,
        description=new.description,
        secret=secret,
        at=at,
    )
    return await _shown(connection, merchant_id, endpoint_id, secret=secret)


async def list_endpoints(
    connection: Connection, ctx: Context, merchant_id: str, limit: int, cursor: str | None
) -> Page[objects.WebhookEndpoint]:
    """The merchant's endpoints, newest first."""
    found = await stored.list_endpoints(connection, merchant_id, before=cursor, limit=limit + 1)
    rows, next_cursor = page_of(found, limit, lambda endpoint: endpoint.id)
    return Page(data=[_endpoint_object(endpoint) for endpoint in rows], next_cursor=next_cursor)


async def get_endpoint(
    connection: Connection, ctx: Context, merchant_id: str, endpoint_id: str
) -> objects.WebhookEndpoint:
    """One endpoint. Raises NotFound."""
    return await _shown(connection, merchant_id, endpoint_id)


async def update_endpoint(
    connection: Connection, ctx: Context, merchant_id: str, endpoint_id: str, change: EndpointChange
) -> objects.WebhookEndpoint:
    """Change an endpoint. Enabling it again forgets since when it had been failing.

    Raises NotFound, or InvalidInput as creation does.
    """
    endpoint = await _locked(connection, merchant_id, endpoint_id)
    if change.url is not None:
        _check_url(ctx, change.url)
        endpoint = replace(endpoint, url=change.url)
    if change.events is not None:
        endpoint = replace(endpoint, events=_checked_events(change.events))
    if change.description is not None:
        _check_description(change.description)
        endpoint = replace(endpoint, description=change.description)
    if change.status is not None:
        endpoint = _with_status(endpoint, change.status)
    await stored.update_endpoint(connection, endpoint)
    if endpoint.status is EndpointStatus.ENABLED:
        await _close_case(connection, ctx, merchant_id, endpoint_id, "The endpoint was enabled again.")
    return _endpoint_object(endpoint)


async def delete_endpoint(connection: Connection, ctx: Context, merchant_id: str, endpoint_id: str) -> None:
    """Delete an endpoint. What is still due for it fails; its delivery history stays. Raises NotFound."""
    await _locked(connection, merchant_id, endpoint_id)
    await stored.delete_endpoint(connection, endpoint_id, at=ctx.now())
    await _close_case(connection, ctx, merchant_id, endpoint_id, "The endpoint was deleted.")


async def rotate_secret(
    connection: Connection, ctx: Context, merchant_id: str, endpoint_id: str
) -> objects.WebhookEndpoint:
    """Give an endpoint a new secret, shown this one time. The old one signs as well for a day. Raises NotFound.

    After a second rotation within that day only the two newest secrets sign.
    """
    await _locked(connection, merchant_id, endpoint_id)
    secret = _new_secret(ctx)
    await stored.rotate_secret(connection, endpoint_id, secret, until=ctx.now() + SECRET_OVERLAP)
    return await _shown(connection, merchant_id, endpoint_id, secret=secret)


async def ping(connection: Connection, ctx: Context, merchant_id: str, endpoint_id: str) -> objects.Event:
    """Send `webhook.ping` to this endpoint only, whatever types it wants. Raises NotFound, Conflict if disabled."""
    endpoint = await _locked(connection, merchant_id, endpoint_id)
    if endpoint.status is EndpointStatus.DISABLED:
        raise Conflict(
            "A disabled endpoint is not sent anything.", object_id=endpoint_id, remedy="Enable it first."
        )
    event = NewEvent(
        merchant_id=merchant_id,
        type=PING,
        object_id=endpoint_id,
        sequence=await stored.last_sequence(connection, endpoint_id) + 1,
        object=_endpoint_object(endpoint),
    )
    (event_id,) = await publish(connection, ctx, [event], at=ctx.now(), only_endpoint=endpoint_id)
    return await get_event(connection, ctx, merchant_id, event_id)


async def list_events(
    connection: Connection,
    ctx: Context,
    merchant_id: str,
    filter: EventFilter,
    limit: int,
    cursor: str | None,
) -> Page[objects.Event]:
    """Events: newest first, or with `filter.after` the stream after that event, oldest first.

    The stream ends before the oldest transaction that is still open, so a reader that keeps the last id it read and
    asks again with it never misses an event. Raises InvalidInput when the event `after` (or the cursor, which is an
    event's id too) does not exist.
    """
    if filter.after is not None:
        start = cursor or filter.after
        if await stored.find_event(connection, merchant_id, start) is None:
            raise InvalidInput.at("/after", "There is no event with this id.")
        found = await stored.events_after(
            connection,
            merchant_id,
            after=start,
            type=filter.type,
            object_id=filter.object_id,
            limit=limit + 1,
        )
    else:
        found = await stored.events_newest_first(
            connection,
            merchant_id,
            before=cursor,
            type=filter.type,
            object_id=filter.object_id,
            limit=limit + 1,
        )
    rows, next_cursor = page_of(found, limit, lambda event: event.id)
    return Page(data=[_decode_event(event.body) for event in rows], next_cursor=next_cursor)


async def get_event(connection: Connection, ctx: Context, merchant_id: str, event_id: str) -> objects.Event:
    """One event. Raises NotFound."""
    return _decode_event((await _event(connection, merchant_id, event_id)).body)


async def list_deliveries(
    connection: Connection, ctx: Context, merchant_id: str, event_id: str
) -> list[objects.Delivery]:
    """Every delivery of an event, with at most its ATTEMPTS_SHOWN_MAX latest attempts. Raises NotFound."""
    await _event(connection, merchant_id, event_id)
    found = await stored.deliveries_of(connection, merchant_id, event_id, attempts_max=ATTEMPTS_SHOWN_MAX)
    return [_delivery_object(delivery) for delivery in found]


async def redeliver(
    connection: Connection, ctx: Context, merchant_id: str, event_id: str, endpoint_id: str | None = None
) -> list[objects.Delivery]:
    """Send an event again: to every enabled endpoint that wants it or had it, or to one of the merchant's choice.

    The history of attempts is kept, the schedule starts again. An endpoint made after the event gets it too. A delivery
    that is due or on its way is left as it is. Answers all deliveries of the event. Raises NotFound for the event,
    InvalidInput for an unknown endpoint, Conflict when no enabled endpoint is left to send it to.
    """
    event = await _event(connection, merchant_id, event_id)
    if endpoint_id is not None and await stored.find_endpoint(connection, merchant_id, endpoint_id) is None:
        raise InvalidInput.at("/endpoint_id", "There is no webhook endpoint with this id.")
    targets = await stored.redelivery_targets(connection, merchant_id, event, endpoint_id)
    if not targets:
        raise Conflict(
            "No enabled endpoint wants this event.",
            object_id=event_id,
            remedy="Enable an endpoint for its type.",
        )
    now = ctx.now()
    await stored.redeliver(
        connection,
        merchant_id,
        event_id,
        {target: ctx.new_id(IdKind.DELIVERY) for target in targets},
        at=now,
        leased_until=now + _REDELIVERY_LEASE,
    )
    await notify(connection, [(DELIVERIES_CHANNEL, "")])
    return await list_deliveries(connection, ctx, merchant_id, event_id)


async def _close_case(
    connection: Connection, ctx: Context, merchant_id: str, endpoint_id: str, note: str
) -> None:
    """What was wrong with an endpoint is over. Events about it go to the endpoints that are enabled now."""
    await close_subject(
        connection, ctx, CaseKind.WEBHOOK_FAILED, endpoint_id, note, ctx.now(), merchant_id=merchant_id
    )


def _check_url(ctx: Context, url: str) -> None:
    problem = url_problem(url, allow_private=ctx.allow_private_targets)
    if problem is not None:
        raise InvalidInput.at("/url", problem)


def _checked_events(events: tuple[str, ...]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(events[: len(EVENT_TYPES) + 2]))
    if not wanted:
        raise InvalidInput.at("/events", 'Name at least one event type, or "*" for all.')
    if ALL_EVENTS in wanted:
        if len(wanted) > 1:
            raise InvalidInput.at("/events", '"*" stands alone: it includes every type.')
        return wanted
    for position, type_ in enumerate(wanted):
        if type_ not in EVENT_TYPES:
            raise InvalidInput.at(f"/events/{position}", "This is not a published event type.")
    return wanted


def _check_description(description: str) -> None:
    if len(description) > DESCRIPTION_LENGTH_MAX:
        raise InvalidInput.at("/description", f"At most {DESCRIPTION_LENGTH_MAX} characters.")
    if any(ord(character) < 0x20 or 0xD800 <= ord(character) <= 0xDFFF for character in description):
        raise InvalidInput.at("/description", "Control characters and lone surrogates are not text.")


def _with_status(endpoint: stored.StoredEndpoint, status: str) -> stored.StoredEndpoint:
    if status not in tuple(EndpointStatus):
        raise InvalidInput.at("/status", "Either enabled or disabled.")
    if endpoint.status == status:
        return endpoint
    if status == EndpointStatus.ENABLED:
        return replace(endpoint, status=EndpointStatus.ENABLED, disabled_reason=None, failing_since=None)
    return replace(endpoint, status=EndpointStatus.DISABLED, disabled_reason="Disabled by its owner.")


def _new_secret(ctx: Context) -> str:
    return "whsec_" + base64.b64encode(ctx.entropy(SECRET_BYTES)).decode()


async def _event(connection: Connection, merchant_id: str, event_id: str) -> stored.StoredEvent:
    event = await stored.find_event(connection, merchant_id, event_id)
    if event is None:
        raise NotFound("There is no such event.", object_id=event_id)
    return event


async def _locked(connection: Connection, merchant_id: str, endpoint_id: str) -> stored.StoredEndpoint:
    endpoint = await stored.lock_endpoint(connection, merchant_id, endpoint_id)
    if endpoint is None:
        raise NotFound("There is no such webhook endpoint.", object_id=endpoint_id)
    return endpoint


async def _shown(
    connection: Connection, merchant_id: str, endpoint_id: str, *, secret: str | None = None
) -> objects.WebhookEndpoint:
    endpoint = await stored.find_endpoint(connection, merchant_id, endpoint_id)
    if endpoint is None:
        raise NotFound("There is no such webhook endpoint.", object_id=endpoint_id)
    return _endpoint_object(endpoint, secret=secret)


def _endpoint_object(
    endpoint: stored.StoredEndpoint, *, secret: str | None = None
) -> objects.WebhookEndpoint:
    return objects.WebhookEndpoint(
        id=endpoint.id,
        url=endpoint.url,
        events=list(endpoint.events),
        description=endpoint.description,
        status=endpoint.status.value,
        disabled_reason=endpoint.disabled_reason,
        failing_since=endpoint.failing_since,
        created_at=endpoint.created_at,
        secret=msgspec.UNSET if secret is None else secret,
    )


def _delivery_object(delivery: stored.StoredDelivery) -> objects.Delivery:
    return objects.Delivery(
        id=delivery.id,
        event_id=delivery.event_id,
        endpoint_id=delivery.endpoint_id,
        status=delivery.status.value,
        next_attempt_at=delivery.next_attempt_at,
        attempts=[
            objects.Attempt(
                at=attempt.at,
                status_code=attempt.status_code,
                duration_ms=attempt.duration_ms,
                error=attempt.error,
            )
            for attempt in delivery.attempts
        ],
        created_at=delivery.created_at,
    )
