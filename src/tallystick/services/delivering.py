"""Claiming due deliveries and recording what came of them.

For: `workers.deliver`, which sends in between. Holds true: a claim is a lease: while it lasts no other deliverer takes
the delivery, after it anyone may, so a crash at any instruction loses nothing; an outcome is recorded only under the
lease it was claimed with, so it is recorded once; every attempt that is recorded leaves the delivery pending with
a due time, delivered, or failed.
Must not: send anything, or hold a transaction open while something is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tallystick.core.cases import CaseKind
from tallystick.core.webhook import Answer, Decision, DeliveryStatus, decide
from tallystick.db import webhooks as stored
from tallystick.db.sql import Connection
from tallystick.db.webhooks import ClaimedDelivery
from tallystick.services.cases import open_cases
from tallystick.services.context import Context

LEASE: Final = timedelta(seconds=60)  # longer than an attempt and its recording may take
UNDELIVERABLE_BATCH_MAX: Final = 1000
_JITTER_STEPS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Attempted:
    """One attempt that was made: what was sent, when it began on our clock, how long it took, what came of it."""

    delivery: ClaimedDelivery
    begun_at: datetime
    duration_ms: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Disabled:
    """An endpoint that was disabled while recording, and why, for whoever reports it."""

    endpoint_id: str
    reason: str


async def claim_deliveries(
    connection: Connection,
    ctx: Context,
    *,
    after: str,
    rooms: Mapping[str, int],
    room: int,
    failing: bool,
    limit: int,
    lease: timedelta = LEASE,
) -> list[ClaimedDelivery]:
    """Take up to `limit` due deliveries for `lease`, beginning with the endpoint after `after` ("" is the first).

    At most `room` for an endpoint, or its entry in `rooms`. `failing` chooses between endpoints whose last attempt
    failed and all others: the caller has places for either. The caller commits before it sends.
    """
    now = ctx.now()
    return await stored.claim(
        connection,
        after=after,
        rooms=rooms,
        room=room,
        failing=failing,
        limit=limit,
        now=now,
        leased_until=now + lease,
    )


async def record_attempts(
    connection: Connection, ctx: Context, attempts: Sequence[Attempted]
) -> list[Disabled]:
    """Record attempts, each once, and what follows for deliveries and endpoints. Answers which were disabled.

    Each of these opens an exception, of which the merchant's other endpoints are told.
    An attempt whose lease was lost to another deliverer is not recorded: that one records its own.
    """
    now = ctx.now()
    failing = await stored.lock_endpoints(connection, [attempt.delivery.endpoint_id for attempt in attempts])
    decisions: list[tuple[Attempted, Decision]] = []
    after: dict[str, datetime | None] = {}
    for attempt in sorted(
        attempts, key=lambda attempt: attempt.begun_at + timedelta(milliseconds=attempt.duration_ms)
    ):
        endpoint_id = attempt.delivery.endpoint_id
        decision = decide(
            attempt.answer,
            attempts_made=attempt.delivery.attempts_made,
            now=now,
            failing_since=after.get(endpoint_id, failing.get(endpoint_id)),
            jitter=int.from_bytes(ctx.entropy(2), "big") / _JITTER_STEPS,
        )
        after[endpoint_id] = decision.failing_since
        decisions.append((attempt, decision))
    recorded = await stored.record_outcomes(
        connection, [_outcome(attempt, decision) for attempt, decision in decisions], at=now
    )
    changed = {endpoint: since for endpoint, since in after.items() if since != failing.get(endpoint)}
    if changed:
        await stored.set_failing(connection, changed)
    disabled: list[Disabled] = []
    for attempt, decision in decisions:
        if decision.disable_reason is None or attempt.delivery.id not in recorded:
            continue
        merchant_id = await stored.disable_endpoint(
            connection, attempt.delivery.endpoint_id, decision.disable_reason
        )
        if merchant_id is None:
            continue
        disabled.append(Disabled(attempt.delivery.endpoint_id, decision.disable_reason))
        await open_cases(
            connection,
            ctx,
            merchant_ids=[merchant_id],
            kind=CaseKind.WEBHOOK_FAILED,
            subject=attempt.delivery.endpoint_id,
            detail={
                "endpoint_id": attempt.delivery.endpoint_id,
                "url": attempt.delivery.url,
                "reason": decision.disable_reason,
            },
            now=now,
        )
    return disabled


async def release_deliveries(
    connection: Connection, ctx: Context, deliveries: Sequence[ClaimedDelivery]
) -> None:
    """Give back claimed deliveries that were not attempted to the end."""
    await stored.release(connection, deliveries, at=ctx.now())


async def fail_undeliverable(connection: Connection, ctx: Context) -> int:
    """Fail what is due for disabled or deleted endpoints, a bounded number at a time; answer how many."""
    return await stored.fail_undeliverable(connection, now=ctx.now(), limit=UNDELIVERABLE_BATCH_MAX)


def _outcome(attempt: Attempted, decision: Decision) -> stored.Outcome:
    delivered = decision.status is DeliveryStatus.DELIVERED
    return stored.Outcome(
        delivery=attempt.delivery,
        status=decision.status,
        retry_at=decision.retry_at,
        begun_at=attempt.begun_at,
        status_code=attempt.answer.status_code,
        duration_ms=attempt.duration_ms,
        error=None
        if delivered
        else attempt.answer.error or f"The endpoint answered {attempt.answer.status_code}.",
    )
