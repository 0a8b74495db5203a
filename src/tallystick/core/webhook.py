"""What follows from one attempt to deliver a webhook, and which event types exist.

For: `services.delivering` (which records attempts) and `services.webhooks` (which validates endpoints).
Holds true: every attempt leads to exactly one decision; a delivery makes at most one attempt more than the
schedule has steps; jitter only lengthens a delay, so nothing is sent earlier than the published schedule; an
answer's wish to wait is obeyed within a limit.
Must not: read a clock, draw randomness, send or sign anything.

The schedule is the one Standard Webhooks recommends and the public contract repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from tallystick.core.invoice import PaymentStatus, Status
from tallystick.core.refund import RefundStatus

RETRY_DELAYS: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
JITTER_PERCENT: Final = 10  # of a delay, added at most
RETRY_AFTER_MAX: Final = timedelta(
    hours=24
)  # the longest step of the schedule; nobody can put a delivery off longer
FAILING_MAX: Final = timedelta(days=5)
SECRET_OVERLAP: Final = timedelta(hours=24)
GONE: Final = 410
BUSY: Final = frozenset({429, 503})  # the answers whose Retry-After is obeyed (RFC 9110 10.2.3, RFC 6585 4)

ALL_EVENTS: Final = "*"
PING: Final = "webhook.ping"
# The statuses of escrows as published. Their machine is not built yet; the names are already fixed.
ESCROW_STATUSES: Final = (
    "funded",
    "in_review",
    "released",
    "partially_released",
    "disputed",
    "refunded",
    "expired",
)
_PAYMENT_EVENTS: Final = (
    PaymentStatus.DETECTED,
    PaymentStatus.CONFIRMED,
    PaymentStatus.ORPHANED,
    PaymentStatus.REPLACED,
)
EVENT_TYPES: Final = frozenset(
    (
        *(f"invoice.{status}" for status in Status),
        *(f"payment.{status}" for status in _PAYMENT_EVENTS),
        *(f"refund.{status}" for status in RefundStatus),
        "settlement.closed",
        "exception.opened",
        "exception.resolved",
        *(f"escrow.{status}" for status in ESCROW_STATUSES),
        PING,
    )
)


class DeliveryStatus(StrEnum):
    """Every state of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class EndpointStatus(StrEnum):
    """Every state of an endpoint."""

    ENABLED = "enabled"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt. `status_code` is None when no answer came; then `error` says why, in words.

    `retry_after_seconds` is what the answer asked for, if it did.
    """

    status_code: int | None
    error: str | None = None
    retry_after_seconds: int | None = None

    @property
    def accepted(self) -> bool:
        """Whether the receiver took the event: a 2xx answer, in time."""
        return self.error is None and self.status_code is not None and 200 <= self.status_code <= 299


@dataclass(frozen=True, slots=True)
class Decision:
    """What is written after an attempt.

    `retry_at` is set exactly while the delivery stays pending. `failing_since` is the endpoint's new value.
    `disable_reason` is set when the endpoint is to be disabled, and says why in words for its owner.
    """

    status: DeliveryStatus
    retry_at: datetime | None
    failing_since: datetime | None
    disable_reason: str | None = None


def retry_delay(retry: int, jitter: float) -> timedelta | None:
    """The pause before retry number `retry` (1 is the first), or None when the schedule is used up.

    `jitter` is a random fraction in [0, 1) drawn by the caller; it spreads retries that would fall together.
    """
    if not 0 <= jitter < 1:
        raise ValueError("jitter is a fraction in [0, 1)")
    if retry > len(RETRY_DELAYS):
        return None
    return RETRY_DELAYS[retry - 1] * (1 + jitter * JITTER_PERCENT / 100)


def decide(
    answer: Answer, *, attempts_made: int, now: datetime, failing_since: datetime | None, jitter: float
) -> Decision:
    """Decide what follows from `answer`.

    `attempts_made` counts attempts since the schedule began, without this one. `failing_since` is when the endpoint
    began to fail, None if its last attempt succeeded. `now` is when the attempt ended.
    """
    if answer.accepted:
        return Decision(DeliveryStatus.DELIVERED, None, None)
    since = failing_since or now
    if answer.status_code == GONE:
        reason = "The endpoint answered 410 Gone, which asks for nothing more to be sent."
        return Decision(DeliveryStatus.FAILED, None, since, reason)
    if now - since >= FAILING_MAX:
        reason = f"Every attempt failed since {since.astimezone(UTC):%Y-%m-%d %H:%M} UTC, for 5 days."
        return Decision(DeliveryStatus.FAILED, None, since, reason)
    delay = retry_delay(attempts_made + 1, jitter)
    if delay is None:
        return Decision(DeliveryStatus.FAILED, None, since)
    if answer.status_code in BUSY and answer.retry_after_seconds is not None:
        delay = max(delay, min(timedelta(seconds=answer.retry_after_seconds), RETRY_AFTER_MAX))
    return Decision(DeliveryStatus.PENDING, now + delay, since)


def parse_retry_after(text: str | None, now: datetime) -> int | None:
    """Whole seconds asked for by a Retry-After header (RFC 9110 10.2.3: a number or a date), None if none usable.

    At most the seconds of RETRY_AFTER_MAX; a date in the past is 0.
    """
    if text is None:
        return None
    limit = int(RETRY_AFTER_MAX.total_seconds())
    word = text.strip()[:64]
    if word.isascii() and word.isdigit():
        return min(int(word), limit)
    try:
        at = parsedate_to_datetime(word)
        wait_seconds = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
    except (ValueError, OverflowError):
        return None
    return max(0, min(int(wait_seconds), limit))
