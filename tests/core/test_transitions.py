"""The table of legal edges, the ways through it, and its picture in the documentation."""

from __future__ import annotations

from itertools import product

import pytest

from tallystick.core.errors import IllegalTransition
from tallystick.core.invoice import Status
from tallystick.core.transitions import EDGES, MEANINGS, Owner, Reason, diagram, steps

S = Status
CLOSED = frozenset({S.EXPIRED, S.UNDERPAID, S.LATE_PAID, S.CANCELED})
OPEN = frozenset({S.CREATED, S.QUOTED, S.AWAITING_PAYMENT, S.PARTIALLY_PAID})


def test_every_status_has_edges_and_a_meaning() -> None:
    assert set(EDGES) == set(MEANINGS) == set(Status)


@pytest.mark.parametrize("status", Status)
def test_every_status_says_who_does_what_next(status: Status) -> None:
    meaning = MEANINGS[status]
    assert meaning.means
    assert meaning.action
    assert meaning.action_text.endswith(".")
    assert isinstance(meaning.owner, Owner)


@pytest.mark.parametrize("status", Status)
def test_no_status_leads_to_itself_and_every_one_leads_somewhere(status: Status) -> None:
    assert status not in EDGES[status]
    assert EDGES[status]


@pytest.mark.parametrize(("start", "target", "late"), list(product(Status, Status, [False, True])))
def test_from_every_state_to_every_target_there_is_a_legal_way_or_a_refusal(
    start: Status, target: Status, late: bool
) -> None:
    """Every state × every target. Planted bug seen to fail: the check of edges at the end of `steps` left out."""
    try:
        way = steps(start, target, late=late)
    except IllegalTransition:
        way = None
    if way is None:
        assert target not in EDGES[start]
        return
    if start is target:
        assert way == ()
        return
    assert way[-1] is target
    assert len(set(way)) == len(way)
    assert start not in way
    for one, next_ in zip((start, *way), way, strict=False):
        assert next_ in EDGES[one]


@pytest.mark.parametrize(
    ("start", "target"), [(start, stop) for start in EDGES for stop in sorted(EDGES[start])]
)
def test_every_edge_of_the_table_can_be_walked(start: Status, target: Status) -> None:
    assert steps(start, target) == (target,)


@pytest.mark.parametrize(
    ("start", "target", "late", "way"),
    [
        (S.CREATED, S.QUOTED, False, [S.QUOTED]),
        (S.CREATED, S.AWAITING_PAYMENT, False, [S.QUOTED, S.AWAITING_PAYMENT]),
        (S.CREATED, S.PAID, False, [S.QUOTED, S.AWAITING_PAYMENT, S.PAID]),
        (S.CREATED, S.EXPIRED, False, [S.EXPIRED]),
        (S.CREATED, S.CANCELED, False, [S.CANCELED]),
        (S.QUOTED, S.DETECTED, False, [S.AWAITING_PAYMENT, S.DETECTED]),
        (S.QUOTED, S.LATE_PAID, True, [S.AWAITING_PAYMENT, S.EXPIRED, S.LATE_PAID]),
        (S.AWAITING_PAYMENT, S.LATE_PAID, True, [S.EXPIRED, S.LATE_PAID]),
        (S.AWAITING_PAYMENT, S.PAID, True, [S.EXPIRED, S.LATE_PAID, S.PAID]),
        (S.AWAITING_PAYMENT, S.OVERPAID, True, [S.EXPIRED, S.LATE_PAID, S.OVERPAID]),
        (S.PARTIALLY_PAID, S.LATE_PAID, True, [S.UNDERPAID, S.LATE_PAID]),
        (S.PARTIALLY_PAID, S.PAID, True, [S.UNDERPAID, S.LATE_PAID, S.PAID]),
        (S.EXPIRED, S.PAID, True, [S.LATE_PAID, S.PAID]),
        (S.EXPIRED, S.PAID, False, [S.PAID]),
        (S.UNDERPAID, S.PAID, True, [S.LATE_PAID, S.PAID]),
        (S.LATE_PAID, S.PAID, True, [S.PAID]),
        (S.PAID, S.LATE_PAID, True, [S.LATE_PAID]),
        (S.CANCELED, S.LATE_PAID, True, [S.LATE_PAID]),
        (S.REVIEW_REQUIRED, S.PAID, True, [S.PAID]),
    ],
)
def test_ways_with_stops_read_as_it_happened(
    start: Status, target: Status, late: bool, way: list[Status]
) -> None:
    assert list(steps(start, target, late=late)) == way


def test_nothing_leads_back_to_the_beginning() -> None:
    assert {start for start in Status if S.CREATED in EDGES[start]} == set()
    assert {start for start in Status if S.QUOTED in EDGES[start]} == {S.CREATED}


@pytest.mark.parametrize("closed", sorted(CLOSED))
def test_a_closed_window_never_opens_again(closed: Status) -> None:
    """Not directly, and not through any of the others: only a payment, a dispute or a review leads on."""
    assert not EDGES[closed] & OPEN
    assert not {S.CREATED, S.QUOTED} & _reachable(closed)


@pytest.mark.parametrize(
    ("status", "named"),
    [
        (S.SETTLED, {S.REVIEW_REQUIRED, S.DISPUTED, S.REFUNDED}),
        # New money, or a reorganisation that takes the refund's own transaction: never back before any money.
        (S.REFUNDED, set(Status) - {S.CREATED, S.QUOTED, S.REFUNDED}),
        # Also straight to paid or refunded: a crumb leaves it canceled, and a person may accept it or give it back.
        (
            S.CANCELED,
            {S.LATE_PAID, S.UNDERPAID, S.REVIEW_REQUIRED, S.REFUNDED}
            | {S.DETECTED, S.CONFIRMING, S.PAID, S.OVERPAID},
        ),
    ],
)
def test_closed_books_are_left_by_the_named_edges_only(status: Status, named: set[Status]) -> None:
    assert EDGES[status] == named


def test_what_is_paid_is_never_canceled() -> None:
    """A defect once: the table allowed it, though canceled means withdrawn before payment."""
    assert not {S.PAID, S.OVERPAID, S.SETTLED, S.CONFIRMING} & {
        start for start in Status if S.CANCELED in EDGES[start]
    }


def test_every_status_can_be_reached_from_the_beginning() -> None:
    assert _reachable(S.CREATED) == set(Status) - {S.CREATED}


def test_reasons_are_words_receivers_can_rely_on() -> None:
    assert all(reason.value == reason.value.lower() and reason.value.isidentifier() for reason in Reason)


def test_the_diagram_shows_every_edge_once_and_nothing_else() -> None:
    lines = diagram().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> created"]
    drawn = [tuple(line.split(" --> ")) for line in (line.strip() for line in lines[2:])]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {(start.value, stop.value) for start in EDGES for stop in EDGES[start]}


def _reachable(start: Status) -> set[Status]:
    found: set[Status] = set()
    waiting = [start]
    while waiting:
        for stop in EDGES[waiting.pop()] - found:
            found.add(stop)
            waiting.append(stop)
    return found - {start} if start is S.CREATED else found
