"""Retry schedule, decisions after an attempt, and the published event types."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.webhook import (
    EVENT_TYPES,
    RETRY_DELAYS,
    Answer,
    Decision,
    DeliveryStatus,
    decide,
    parse_retry_after,
    retry_delay,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ALMOST_ONE = 0.999999


def after(
    answer: Answer, *, attempts_made: int = 0, failing_for: timedelta | None = None, jitter: float = 0.0
) -> Decision:
    since = None if failing_for is None else NOW - failing_for
    return decide(answer, attempts_made=attempts_made, now=NOW, failing_since=since, jitter=jitter)


def test_the_schedule_is_the_published_one() -> None:
    minutes = [5 / 60, 5, 30, 120, 300, 600, 840, 1200, 1440]
    assert [delay.total_seconds() / 60 for delay in RETRY_DELAYS] == pytest.approx(minutes)


@pytest.mark.parametrize("retry", range(1, 10))
def test_jitter_only_lengthens_and_by_a_tenth_at_most(retry: int) -> None:
    exact, longest = retry_delay(retry, 0.0), retry_delay(retry, ALMOST_ONE)
    assert exact == RETRY_DELAYS[retry - 1]
    assert longest is not None
    assert exact < longest <= exact * 1.1


def test_the_schedule_ends() -> None:
    assert retry_delay(10, 0.5) is None
    assert after(Answer(500), attempts_made=9).status is DeliveryStatus.FAILED
    assert after(Answer(500), attempts_made=8).status is DeliveryStatus.PENDING


@pytest.mark.parametrize("jitter", [-0.01, 1.0, 2.0])
def test_jitter_is_a_fraction(jitter: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        retry_delay(1, jitter)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_delivered_and_heals_the_endpoint(status: int) -> None:
    assert after(Answer(status), failing_for=timedelta(days=9)) == Decision(
        DeliveryStatus.DELIVERED, None, None
    )


@pytest.mark.parametrize(
    "answer", [Answer(None, "No connection."), Answer(199), Answer(301), Answer(400), Answer(500)]
)
def test_everything_else_is_tried_again(answer: Answer) -> None:
    assert after(answer) == Decision(DeliveryStatus.PENDING, NOW + timedelta(seconds=5), NOW)


def test_a_2xx_with_an_error_is_no_success() -> None:
    assert not Answer(200, "The body was cut off.").accepted


def test_410_disables_at_once() -> None:
    decision = after(Answer(410), attempts_made=0)
    assert decision.status is DeliveryStatus.FAILED
    assert decision.disable_reason is not None
    assert "410" in decision.disable_reason


def test_five_days_of_failure_disable() -> None:
    almost = after(Answer(500), failing_for=timedelta(days=5) - timedelta(seconds=1))
    assert almost.status is DeliveryStatus.PENDING
    assert almost.disable_reason is None
    assert almost.failing_since == NOW - timedelta(days=5) + timedelta(seconds=1)
    full = after(Answer(None, "No connection."), failing_for=timedelta(days=5))
    assert full.status is DeliveryStatus.FAILED
    assert full.disable_reason is not None
    assert "2026-02-24 12:00 UTC" in full.disable_reason


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_lengthens_but_never_shortens(status: int) -> None:
    assert after(Answer(status, None, 3600)).retry_at == NOW + timedelta(hours=1)
    assert after(Answer(status, None, 1)).retry_at == NOW + timedelta(seconds=5)
    assert after(Answer(status, None, 10**9)).retry_at == NOW + timedelta(hours=24)
    assert after(Answer(500, None, 3600)).retry_at == NOW + timedelta(seconds=5)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120),
        (" 120 ", 120),
        ("0", 0),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("9" * 60, 86400),
        ("9" * 5000, 86400),
        ("Sun, 01 Mar 2026 12:02:00 GMT", 120),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Sun, 01 Mar 2226 11:00:00 GMT", 86400),
        ("Sun, 01 Mar 2026 12:02:00", 120),
        ("soon", None),
        ("Sun, 99 Mar 2026 12:02:00 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str | None, seconds: int | None) -> None:
    assert parse_retry_after(text, NOW) == seconds


@given(st.text(max_size=200))
def test_retry_after_never_fails(text: str) -> None:
    found = parse_retry_after(text, NOW)
    assert found is None or 0 <= found <= 86400


@given(
    status=st.one_of(st.none(), st.integers(100, 599)),
    attempts_made=st.integers(0, 12),
    failing_hours=st.one_of(st.none(), st.integers(0, 300)),
    wait=st.one_of(st.none(), st.integers(0, 10**7)),
    jitter=st.floats(0, 0.999),
)
def test_every_decision_is_complete(
    status: int | None, attempts_made: int, failing_hours: int | None, wait: int | None, jitter: float
) -> None:
    failing_for = None if failing_hours is None else timedelta(hours=failing_hours)
    decision = after(
        Answer(status, None if status else "No answer.", wait),
        attempts_made=attempts_made,
        failing_for=failing_for,
        jitter=jitter,
    )
    assert (decision.status is DeliveryStatus.PENDING) == (decision.retry_at is not None)
    assert (decision.status is DeliveryStatus.DELIVERED) == (decision.failing_since is None)
    if decision.retry_at is not None:
        assert timedelta(seconds=5) <= decision.retry_at - NOW <= timedelta(hours=24) * 1.1


def test_event_types_are_the_published_ones() -> None:
    assert {
        "invoice.created",
        "invoice.paid",
        "invoice.canceled",
        "payment.detected",
        "payment.replaced",
    } <= EVENT_TYPES
    assert {
        "refund.completed",
        "settlement.closed",
        "exception.opened",
        "escrow.released",
        "webhook.ping",
    } <= EVENT_TYPES
    assert "payment.confirming" not in EVENT_TYPES
    assert "*" not in EVENT_TYPES
    assert len([type_ for type_ in EVENT_TYPES if type_.startswith("invoice.")]) == 16
