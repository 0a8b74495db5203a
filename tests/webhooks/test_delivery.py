"""A delivery's way: signed, sent, recorded; retried, given up, sent again."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tallystick.core.webhook import RETRY_DELAYS
from tallystick.services import webhooks
from tests.support.receiver import Receiver, answering
from tests.support.webhooks import Bench, attempted, delivering


async def test_an_event_arrives_signed_and_byte_for_byte(bench: Bench, receiver: Receiver) -> None:
    endpoint = await bench.endpoint(f"{receiver.url}/hooks?shop=1")
    assert isinstance(endpoint.secret, str)
    receiver.secrets = [endpoint.secret]
    async with delivering(bench):
        (event_id,) = await bench.publish()
        (received,) = await receiver.wait_for(1)
        delivery = await bench.settled(attempted(1), event_id)
    async with bench.ctx.database.connection() as connection:
        stored = await connection.fetchval("SELECT body::text FROM events WHERE id = $1", event_id)
    assert received.signed_by == (0,)
    assert received.body == stored.encode()
    assert received.id == event_id == received.event["id"]
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["User-Agent"].startswith("Tallystick/")
    assert "Cookie" not in received.headers
    assert delivery.status == "delivered"
    assert delivery.next_attempt_at is None
    assert [(attempt.status_code, attempt.error) for attempt in delivery.attempts] == [(204, None)]
