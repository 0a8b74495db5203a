"""Events: recorded with what they tell, and put on their way in the same transaction.

For: the one writer of statuses and every other service that changes something a merchant is told about. Holds true: an
event exists if and only if its change was committed; each enabled endpoint that wants its type has exactly one delivery
for it; listeners are told when the transaction commits, not before.
Must not: send anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from tallystick.core.ids import IdKind
from tallystick.db.sql import Connection, load
from tallystick.services import objects
from tallystick.services.context import Context

SQL: Final = load("events")

DELIVERIES_CHANNEL: Final = "tallystick_deliveries"
INVOICES_CHANNEL: Final = "tallystick_invoices"
BLOCKS_CHANNEL: Final = "tallystick_blocks"

ALL_TYPES: Final = "*"

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event about to be recorded. `sequence` counts the events of `object_id` without gaps."""

    merchant_id: str
    type: str
    object_id: str
    sequence: int
    object: Any
    previous_status: str | None = None
    transition: objects.Transition | None = None


async def publish(
    connection: Connection,
    ctx: Context,
    events: Sequence[NewEvent],
    *,
    at: datetime,
    only_endpoint: str | None = None,
) -> list[str]:
    """Record events and a delivery for each endpoint that wants them; answer the events' ids in order.

    `only_endpoint` restricts deliveries to one endpoint (a ping).
    """
    if not events:
        return []
    ids = [ctx.new_id(IdKind.EVENT) for _ in events]
    await SQL.insert_events.run(
        connection,
        ids=ids,
        merchant_ids=[event.merchant_id for event in events],
        types=[event.type for event in events],
        object_ids=[event.object_id for event in events],
        sequences=[event.sequence for event in events],
        bodies=[_body(event_id, event, at) for event_id, event in zip(ids, events, strict=True)],
        at=at,
    )
    merchants = sorted({event.merchant_id for event in events})
    endpoints = await SQL.enabled_endpoints.all(connection, merchant_ids=merchants)
    wanted = [
        (event_id, endpoint["id"], event.merchant_id)
        for event_id, event in zip(ids, events, strict=True)
        for endpoint in endpoints
        if endpoint["merchant_id"] == event.merchant_id
        and (endpoint["id"] == only_endpoint or only_endpoint is None)
        and (only_endpoint is not None or ALL_TYPES in endpoint["events"] or event.type in endpoint["events"])
    ]
    if wanted:
        await SQL.insert_deliveries.run(
            connection,
            ids=[ctx.new_id(IdKind.DELIVERY) for _ in wanted],
            event_ids=[event_id for event_id, _, _ in wanted],
            endpoint_ids=[endpoint_id for _, endpoint_id, _ in wanted],
            merchant_ids=[merchant_id for _, _, merchant_id in wanted],
            at=at,
            channel=DELIVERIES_CHANNEL,
        )
    return ids


async def notify(connection: Connection, messages: Iterable[tuple[str, str]]) -> None:
    """Tell listeners (channel, payload) when this transaction commits."""
    pairs = list(messages)
    if pairs:
        await SQL.notify.all(
            connection, channels=[channel for channel, _ in pairs], payloads=[payload for _, payload in pairs]
        )


def _body(event_id: str, event: NewEvent, at: datetime) -> str:
    data = objects.EventData(
        object=event.object,
        sequence=event.sequence,
        previous_status=event.previous_status,
        transition=event.transition,
    )
    return _encode(objects.Event(id=event_id, type=event.type, created_at=at, data=data)).decode()
