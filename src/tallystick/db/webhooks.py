"""Webhook endpoints, the event stream, and deliveries as stored.

For: `services.webhooks` and `services.delivering`. Holds true: an outcome is written only where the delivery is still
as it was claimed, so an attempt is recorded once whoever is late; an event's body is passed through byte for byte.
Must not: decide what follows from an attempt, or show a secret to anyone but the deliverer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Final

from tallystick.core.webhook import DeliveryStatus, EndpointStatus
from tallystick.db.sql import Connection, Record, load

SQL: Final = load("webhooks")


@dataclass(frozen=True, slots=True)
class StoredEndpoint:
    """An endpoint without its secrets."""

    id: str
    url: str
    events: tuple[str, ...]
    description: str
    status: EndpointStatus
    disabled_reason: str | None
    failing_since: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event; `body` is the JSON text that is signed and sent."""

    id: str
    type: str
    body: str


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """One attempt at a delivery."""

    at: datetime
    status_code: int | None
    duration_ms: int
    error: str | None


@dataclass(frozen=True, slots=True)
class StoredDelivery:
    """A delivery with its latest attempts, oldest first."""

    id: str
    event_id: str
    endpoint_id: str
    status: DeliveryStatus
    next_attempt_at: datetime | None
    created_at: datetime
    attempts: tuple[StoredAttempt, ...]


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A delivery that is ours until `leased_until`, with all that is needed to send it.

    `attempts_made` counts since the schedule began.
    `previous_secret` is set while it still signs as well. The secrets stay out of `repr`, so that no log shows them.
    """

    id: str
    event_id: str
    endpoint_id: str
    attempts_made: int
    leased_until: datetime
    body: str
    url: str
    secret: str = field(repr=False)
    previous_secret: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be written about one attempt at a claimed delivery. `retry_at` is set while it stays pending."""

    delivery: ClaimedDelivery
    status: DeliveryStatus
    retry_at: datetime | None
    begun_at: datetime
    status_code: int | None
    duration_ms: int
    error: str | None


def _endpoint(row: Record) -> StoredEndpoint:
    return StoredEndpoint(
        id=row["id"],
        url=row["url"],
        events=tuple(row["events"]),
        description=row["description"],
        status=EndpointStatus(row["status"]),
        disabled_reason=row["disabled_reason"],
        failing_since=row["failing_since"],
        created_at=row["created_at"],
    )


async def lock_merchant(connection: Connection, merchant_id: str) -> None:
    """Hold off other creators of this merchant's endpoints until the transaction ends."""
    await SQL.lock_merchant.value(connection, merchant_id=merchant_id)


async def count_endpoints(connection: Connection, merchant_id: str) -> int:
    """How many endpoints the merchant has."""
    return int(await SQL.count_endpoints.value(connection, merchant_id=merchant_id))


async def insert_endpoint(
    connection: Connection,
    *,
    id: str,
    merchant_id: str,
    url: str,
    events: Sequence[str],
    description: str,
    secret: str,
    at: datetime,
) -> None:
    """Add an enabled endpoint."""
    await SQL.insert_endpoint.run(
        connection,
        id=id,
        merchant_id=merchant_id,
        url=url,
        events=list(events),
        description=description,
        secret=secret,
        at=at,
    )


async def list_endpoints(
    connection: Connection, merchant_id: str, *, before: str | None, limit: int
) -> list[StoredEndpoint]:
    """The merchant's endpoints with an id below `before`, newest first."""
    rows = await SQL.endpoints.all(connection, merchant_id=merchant_id, before=before, limit=limit)
    return [_endpoint(row) for row in rows]


async def find_endpoint(connection: Connection, merchant_id: str, endpoint_id: str) -> StoredEndpoint | None:
    """One endpoint of this merchant."""
    row = await SQL.endpoint.one(connection, id=endpoint_id, merchant_id=merchant_id)
    return _endpoint(row) if row else None


async def lock_endpoint(connection: Connection, merchant_id: str, endpoint_id: str) -> StoredEndpoint | None:
    """One endpoint of this merchant, locked until the transaction ends."""
    row = await SQL.lock_endpoint.one(connection, id=endpoint_id, merchant_id=merchant_id)
    return _endpoint(row) if row else None


async def update_endpoint(connection: Connection, endpoint: StoredEndpoint) -> None:
    """Write all that may change about a locked endpoint."""
    await SQL.update_endpoint.run(
        connection,
        id=endpoint.id,
        url=endpoint.url,
        events=list(endpoint.events),
        description=endpoint.description,
        status=endpoint.status.value,
        disabled_reason=endpoint.disabled_reason,
        failing_since=endpoint.failing_since,
    )


async def rotate_secret(connection: Connection, endpoint_id: str, secret: str, *, until: datetime) -> None:
    """Give a locked endpoint a new secret; the old one signs as well until `until`."""
    await SQL.rotate_secret.run(connection, id=endpoint_id, secret=secret, until=until)


async def delete_endpoint(connection: Connection, endpoint_id: str, *, at: datetime) -> None:
    """Mark a locked endpoint as deleted and forget its secrets."""
    await SQL.delete_endpoint.run(connection, id=endpoint_id, at=at)


async def last_sequence(connection: Connection, object_id: str) -> int:
    """The number of the last event about `object_id`; 0 if there is none."""
    return int(await SQL.last_sequence.value(connection, object_id=object_id))


def _event(row: Record) -> StoredEvent:
    return StoredEvent(id=row["id"], type=row["type"], body=row["body"])


async def find_event(connection: Connection, merchant_id: str, event_id: str) -> StoredEvent | None:
    """One event of this merchant."""
    row = await SQL.event.one(connection, id=event_id, merchant_id=merchant_id)
    return _event(row) if row else None


async def events_newest_first(
    connection: Connection,
    merchant_id: str,
    *,
    before: str | None,
    type: str | None,
    object_id: str | None,
    limit: int,
) -> list[StoredEvent]:
    """Events with an id below `before`, newest first."""
    rows = await SQL.events_newest_first.all(
        connection, merchant_id=merchant_id, before=before, type=type, object_id=object_id, limit=limit
    )
    return [_event(row) for row in rows]


async def events_after(
    connection: Connection,
    merchant_id: str,
    *,
    after: str,
    type: str | None,
    object_id: str | None,
    limit: int,
) -> list[StoredEvent]:
    """The stream after the event `after`, oldest first, up to the oldest open transaction."""
    rows = await SQL.events_after.all(
        connection, merchant_id=merchant_id, after=after, type=type, object_id=object_id, limit=limit
    )
    return [_event(row) for row in rows]


async def deliveries_of(
    connection: Connection, merchant_id: str, event_id: str, *, attempts_max: int
) -> list[StoredDelivery]:
    """Every delivery of an event, each with its latest `attempts_max` attempts."""
    rows = await SQL.deliveries_of.all(
        connection, merchant_id=merchant_id, event_id=event_id, attempts_max=attempts_max
    )
    return [_delivery(list(group)) for _, group in groupby(rows, key=lambda row: str(row["id"]))]


def _delivery(rows: Sequence[Record]) -> StoredDelivery:
    first = rows[0]
    return StoredDelivery(
        id=first["id"],
        event_id=first["event_id"],
        endpoint_id=first["endpoint_id"],
        status=DeliveryStatus(first["status"]),
        next_attempt_at=first["next_attempt_at"],
        created_at=first["created_at"],
        attempts=tuple(
            StoredAttempt(row["at"], row["status_code"], row["duration_ms"], row["error"])
            for row in rows
            if row["number"] is not None
        ),
    )


async def redelivery_targets(
    connection: Connection, merchant_id: str, event: StoredEvent, endpoint_id: str | None
) -> list[str]:
    """The ids of the endpoints that `event` can be sent to again."""
    rows = await SQL.redelivery_targets.all(
        connection, merchant_id=merchant_id, event_id=event.id, type=event.type, endpoint_id=endpoint_id
    )
    return [row["id"] for row in rows]


async def redeliver(
    connection: Connection,
    merchant_id: str,
    event_id: str,
    targets: Mapping[str, str],
    *,
    at: datetime,
    leased_until: datetime,
) -> int:
    """Make the event due at the endpoints `targets` (endpoint id to the id of a delivery that may have to be made).

    A pending delivery that is due before `leased_until` is left alone. Answers how many were changed.
    """
    return await SQL.redeliver.run(
        connection,
        merchant_id=merchant_id,
        event_id=event_id,
        endpoint_ids=list(targets),
        ids=list(targets.values()),
        at=at,
        leased_until=leased_until,
    )


async def claim(
    connection: Connection,
    *,
    after: str,
    rooms: Mapping[str, int],
    room: int,
    failing: bool,
    limit: int,
    now: datetime,
    leased_until: datetime,
) -> list[ClaimedDelivery]:
    """Take up to `limit` due deliveries, walking the endpoints from the one after `after` on.

    `rooms` says how many each busy endpoint may get, `room` how many any other; `failing` whether it is about endpoints
    whose last attempt failed, or about all others. In the order of endpoints.
    """
    rows = await SQL.claim.all(
        connection,
        after=after,
        busy=list(rooms),
        rooms=list(rooms.values()),
        room=room,
        failing=failing,
        limit=limit,
        now=now,
        leased_until=leased_until,
    )
    return [
        ClaimedDelivery(
            id=row["id"],
            event_id=row["event_id"],
            endpoint_id=row["endpoint_id"],
            attempts_made=row["attempts_made"],
            leased_until=leased_until,
            body=row["body"],
            url=row["url"],
            secret=row["secret"],
            previous_secret=row["previous_secret"],
        )
        for row in rows
    ]


async def lock_endpoints(connection: Connection, endpoint_ids: Sequence[str]) -> dict[str, datetime | None]:
    """Lock endpoints in the order of their ids; answer since when each has been failing."""
    rows = await SQL.lock_endpoints.all(connection, ids=sorted(set(endpoint_ids)))
    return {row["id"]: row["failing_since"] for row in rows}


async def record_outcomes(connection: Connection, outcomes: Sequence[Outcome], *, at: datetime) -> set[str]:
    """Write attempts and what follows from them. Answers the ids of the deliveries that were still ours."""
    rows = await SQL.record_outcomes.all(
        connection,
        ids=[outcome.delivery.id for outcome in outcomes],
        attempts_made=[outcome.delivery.attempts_made for outcome in outcomes],
        leases=[outcome.delivery.leased_until for outcome in outcomes],
        statuses=[outcome.status.value for outcome in outcomes],
        retries=[outcome.retry_at for outcome in outcomes],
        begun=[outcome.begun_at for outcome in outcomes],
        codes=[outcome.status_code for outcome in outcomes],
        durations=[outcome.duration_ms for outcome in outcomes],
        errors=[outcome.error for outcome in outcomes],
        at=at,
    )
    return {row["delivery_id"] for row in rows}


async def set_failing(connection: Connection, failing_since: Mapping[str, datetime | None]) -> None:
    """Note since when endpoints have been failing; None for those that work."""
    await SQL.set_failing.run(connection, ids=list(failing_since), failing_since=list(failing_since.values()))


async def disable_endpoint(connection: Connection, endpoint_id: str, reason: str) -> str | None:
    """Disable an enabled endpoint; answer whose it is, or None where this call did not do it."""
    merchant_id = await SQL.disable_endpoint.value(connection, id=endpoint_id, reason=reason)
    return None if merchant_id is None else str(merchant_id)


async def release(connection: Connection, deliveries: Sequence[ClaimedDelivery], *, at: datetime) -> None:
    """Make claimed deliveries due again, where they are still ours."""
    await SQL.release.run(
        connection,
        ids=[delivery.id for delivery in deliveries],
        leases=[delivery.leased_until for delivery in deliveries],
        at=at,
    )


async def fail_undeliverable(connection: Connection, *, now: datetime, limit: int) -> int:
    """Fail what is due for disabled or deleted endpoints, at most `limit`; answer how many."""
    return await SQL.fail_undeliverable.run(connection, now=now, limit=limit)


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many deliveries are pending, and the earliest due time among them."""

    pending: int
    oldest_due_at: datetime | None


async def backlog(connection: Connection, *, count_max: int) -> Backlog:
    """What waits to be delivered, counted up to `count_max`."""
    row = await SQL.backlog.one(connection, count_max=count_max)
    if row is None:
        return Backlog(0, None)
    return Backlog(row["pending"], row["oldest_due_at"])
