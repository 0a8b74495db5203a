"""Refunds as facts: which steps exist, what the chain makes of them, and how much there is to give back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tallystick.core.assess import Assessment, assess
from tallystick.core.chain import Finality, Requirement
from tallystick.core.invoice import Decisions, Facts, InvoiceTerms, LatePayment, Status
from tallystick.core.refund import (
    ALIVE,
    APPROVABLE,
    DECIDED,
    EDGES,
    GIVING_UP,
    PENDING,
    RefundFact,
    RefundStatus,
    diagram,
    given_back,
    judge_refund,
)
from tallystick.core.refundable import (
    credited_value,
    excess,
    holding,
    owed_by_rule,
    partly_allowed,
    standing,
    unfounded,
)
from tallystick.core.transitions import steps
from tests.core.samples import (
    COIN,
    NOW,
    OTHER_TOKEN,
    TOKEN,
    TWO_BLOCKS,
    anchor,
    at,
    facts,
    option,
    terms,
    transfer,
    view,
)

_R = RefundStatus
ALL = list(RefundStatus)


def refund(
    amount: int = 100,
    status: RefundStatus = _R.REQUESTED,
    *,
    id: str = "rfd_1",
    ids: tuple[str, ...] = (),
    withdraws: bool = False,
    anchors: tuple[int, ...] = (),
) -> RefundFact:
    """A refund of tokens; `anchors` are heights in the best chain, negative ones left it."""
    found = tuple(anchor(abs(height), best=height > 0) for height in anchors)
    return RefundFact(id, status, TOKEN, amount, TWO_BLOCKS, frozenset(ids), withdraws, found)


def with_refunds(known: Facts, *refunds: RefundFact) -> Facts:
    return replace(known, refunds=refunds)


def judged(asks: InvoiceTerms, known: Facts) -> Assessment:
    return assess(asks, known, NOW)


# What steps there are -------------------------------------------------------------------------------------------------


def test_every_status_is_in_the_table_and_can_be_reached() -> None:
    assert set(EDGES) == set(RefundStatus)
    reached, todo = {_R.REQUESTED}, [_R.REQUESTED]
    while todo:
        new = EDGES[todo.pop()] - reached
        reached |= new
        todo += new
    assert reached == set(RefundStatus)


def test_what_people_may_decide_is_in_the_table() -> None:
    for status in APPROVABLE:
        assert _R.APPROVED in EDGES[status]
    for status, end in GIVING_UP.items():
        assert end in EDGES[status]
    assert _R.BROADCAST not in GIVING_UP  # whether it was sent is for the chain to show


def test_nothing_leads_from_a_refusal_back_to_paying() -> None:
    assert EDGES[_R.REJECTED] == frozenset()
    assert EDGES[_R.FAILED] == {_R.CONFIRMING, _R.COMPLETED}  # only the chain


def test_the_sets_say_what_they_say() -> None:
    assert frozenset(ALL) - {_R.REJECTED, _R.FAILED} == ALIVE
    assert PENDING | {_R.COMPLETED} == ALIVE
    assert _R.REQUESTED not in DECIDED


def test_the_diagram_shows_every_edge() -> None:
    lines = diagram().splitlines()
    assert len(lines) == 2 + sum(len(stops) for stops in EDGES.values())


# What the chain makes of it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ALL)
def test_a_transfer_in_the_best_chain_decides_whatever_was_said(status: RefundStatus) -> None:
    assert judge_refund(refund(status=status, anchors=(10,)), view(10)).status is _R.CONFIRMING
    final = judge_refund(refund(status=status, anchors=(9,)), view(10))
    assert (final.status, final.confirmations, final.times_sent) == (_R.COMPLETED, 2, 1)


@pytest.mark.parametrize("status", ALL)
def test_without_it_nothing_is_completed(status: RefundStatus) -> None:
    on_chain = status in (_R.CONFIRMING, _R.COMPLETED)
    for anchors in ((), (-9,), (-9, -8)):
        verdict = judge_refund(refund(status=status, anchors=anchors), view(10))
        assert verdict.status is (_R.BROADCAST if on_chain else status)


@given(
    some.sampled_from(ALL),
    some.lists(some.integers(-12, 12).filter(bool), max_size=4, unique=True),
    some.integers(1, 12),
)
def test_every_verdict_is_a_step_of_the_table_or_none(
    status: RefundStatus, heights: list[int], tip: int
) -> None:
    """For refunds that can have been sent: those that are watched."""
    if status in (_R.REQUESTED, _R.APPROVED, _R.REJECTED):
        heights = []
    verdict = judge_refund(refund(status=status, anchors=tuple(heights)), view(tip))
    assert verdict.status is status or verdict.status in EDGES[status]


def test_sent_twice_is_counted() -> None:
    assert judge_refund(refund(anchors=(3, 5, -7)), view(10)).times_sent == 2


def test_an_unknown_network_says_nothing() -> None:
    assert judge_refund(refund(status=_R.BROADCAST, anchors=(5,)), None).status is _R.BROADCAST


@pytest.mark.parametrize(
    ("refunds", "returned"),
    [
        ([(100, {"a"})], {"a"}),
        ([(99, {"a"})], set()),
        ([(40, set()), (60, {"a"})], {"a"}),
        ([(60, {"a"})], set()),
        ([(100, {"a"}), (60, {"b"})], {"a"}),
        ([(100, {"a"}), (40, set()), (60, {"b"})], {"a", "b"}),
        ([(200, {"a", "b"})], {"a", "b"}),
        ([(100, {"gone"})], set()),
    ],
)
def test_transfers_are_returned_once_all_of_them_is(
    refunds: list[tuple[int, set[str]]], returned: set[str]
) -> None:
    known = [
        refund(amount, _R.COMPLETED, id=f"rfd_{number}", ids=tuple(ids))
        for number, (amount, ids) in enumerate(refunds)
    ]
    done = {one.id for one in known}
    assert given_back(known, done, {"a": 100, "b": 100}) == returned
    assert given_back(known, set(), {"a": 100, "b": 100}) == set()


# How much there is ----------------------------------------------------------------------------------------------------


def test_only_what_stands_for_good_can_be_given_back() -> None:
    """Final in the best chain, of a configured asset, not among one's own; a sighting never, whatever a rule counts."""
    quick = terms(option(requirement=Requirement(Finality.DEPTH, 2, zero_conf=True)))
    known = facts(
        transfer(1, anchor(9), id="final"),
        transfer(1, anchor(10), id="young"),
        transfer(1, anchor(5, best=False), id="gone"),
        transfer(1, id="seen", in_mempool=True),
        transfer(1, anchor(5), id="junk", asset=None),
        replace(transfer(1, anchor(5), id="own"), internal=True),
    )
    assert [fact.id for fact in standing(quick, known)] == ["final"]


def test_refunds_alive_leave_less() -> None:
    asks = terms(option())
    known = facts(transfer(100, anchor(5), id="a"), transfer(30, anchor(6), id="b"))
    assert holding(asks, known, TOKEN).left == 130
    for status in ALL:
        left = holding(asks, with_refunds(known, refund(50, status)), TOKEN).left
        assert left == (80 if status in ALIVE else 130), status
    assert holding(asks, known, COIN).left == 0


def test_the_transfers_in_question_only() -> None:
    asks = terms(option())
    known = facts(transfer(100, anchor(5), id="a"), transfer(30, anchor(6), id="b"))
    scoped = holding(asks, known, TOKEN, scope=frozenset({"b"}))
    assert (scoped.left, [fact.id for fact in scoped.transfers]) == (30, ["b"])
    taken = with_refunds(known, refund(110, _R.APPROVED))
    assert holding(asks, taken, TOKEN, scope=frozenset({"b"})).left == 20
    covered = with_refunds(known, refund(30, _R.APPROVED, ids=("b",)))
    assert holding(asks, covered, TOKEN, scope=frozenset({"b"})).left == 0
    assert [fact.id for fact in holding(asks, covered, TOKEN).transfers] == ["a"]


def test_a_rest_that_waits_does_not_hide_what_an_earlier_refusal_freed() -> None:
    """Bug planted: transfers named by any refund alive taken for returned (nothing left to ask for)."""
    asks = terms(option())
    known = facts(transfer(100, anchor(5), id="a"))
    first, rest = refund(60, _R.REJECTED, id="rfd_1"), refund(40, _R.APPROVED, id="rfd_2", ids=("a",))
    assert holding(asks, with_refunds(known, first, rest), TOKEN).left == 60


def test_the_excess_is_what_came_above_the_price() -> None:
    asks = terms(option())
    for amount, above in ((99, 0), (100, 0), (101, 1), (150, 50)):
        known = facts(transfer(amount, anchor(5)))
        assert excess(asks, known, judged(asks, known), TOKEN) == above
    known = with_refunds(facts(transfer(150, anchor(5))), refund(20, _R.APPROVED))
    assert excess(asks, known, judged(asks, known), TOKEN) == 30
    assert excess(asks, known, judged(asks, known), COIN) == 0


def test_the_excess_of_several_assets_is_a_share_of_the_price() -> None:
    """Half by one option, three quarters by the other: a quarter of the price too much, in either asset."""
    asks = terms(option(), option(OTHER_TOKEN, 1000, id="opt_2"))
    known = facts(
        transfer(50, anchor(5), id="a"),
        transfer(750, anchor(6), id="b", asset=OTHER_TOKEN, option_id="opt_2"),
    )
    look = judged(asks, known)
    assert (excess(asks, known, look, TOKEN), excess(asks, known, look, OTHER_TOKEN)) == (25, 250)


def test_the_value_that_an_asset_paid() -> None:
    asks = terms(option())
    known = facts(transfer(150, anchor(5)), transfer(70, anchor(5), id="b", asset=OTHER_TOKEN))
    assert credited_value(asks, known, TOKEN) * 2 == 3
    assert credited_value(asks, known, OTHER_TOKEN) == 0  # not asked for: it paid nothing


def test_a_part_only_where_no_more_money_can_make_it_paid() -> None:
    closed = (view(10, scanned=1),)
    part, whole = transfer(50, anchor(5)), transfer(100, anchor(5))
    for late, seen, allowed in (
        (LatePayment.REVIEW, facts(part), False),
        (LatePayment.REVIEW, facts(part, views=closed), True),
        (LatePayment.ACCEPT, facts(part, views=closed), False),
        (LatePayment.REVIEW, facts(whole), True),
    ):
        asks = terms(option(), late=late)
        assert partly_allowed(asks, judged(asks, seen)) is allowed


def test_a_refund_whose_ground_is_gone() -> None:
    asks = terms(option())
    there, gone = transfer(100, anchor(5), id="a"), transfer(20, anchor(5, best=False), id="b")
    asked = refund(20, _R.APPROVED)
    assert not unfounded(asks, with_refunds(facts(there), asked), asked, ["a"])
    assert unfounded(asks, with_refunds(facts(there, gone), asked), asked, ["a", "b"])
    other = refund(90, _R.COMPLETED, id="rfd_2")  # given up, and sent after all
    assert unfounded(asks, with_refunds(facts(there), asked, other), asked, ["a"])


def test_late_money_is_owed_back_by_rule_once_all_of_it_stands() -> None:
    closed = (view(10, scanned=100),)
    late = transfer(100, anchor(5, seconds=60), seconds=60)
    young = transfer(10, anchor(10, seconds=90), id="b", seconds=90)
    by_rule = terms(option(), late=LatePayment.REFUND)
    for asks, known, owed in (
        (by_rule, facts(late, views=closed), True),
        (by_rule, facts(late, young, views=closed), False),
        (by_rule, facts(late, views=(view(10, scanned=-5),)), False),
        (terms(option(), late=LatePayment.REVIEW), facts(late, views=closed), False),
        (by_rule, facts(late, views=closed, decided=Decisions(canceled_at=at(-90))), False),
    ):
        look = judged(asks, known)
        assert bool(owed_by_rule(asks, known, look)) is owed
        if owed:
            assert look.status is Status.LATE_PAID


def test_a_canceled_invoice_is_canceled_again_where_the_chain_takes_payment_and_refund() -> None:
    """A defect once: one reorganisation took both, no edge led there, and the network's follower stopped at it."""

    def known(sent: RefundFact, *, there: bool) -> Facts:
        late = transfer(100, anchor(5, best=there), seconds=60)
        past = (view(10, scanned=90),)
        return with_refunds(facts(late, views=past, decided=Decisions(canceled_at=NOW)), sent)

    sent = refund(100, _R.BROADCAST, ids=("trf_1",), withdraws=True, anchors=(8,))
    taken = refund(100, _R.COMPLETED, ids=("trf_1",), withdraws=True, anchors=(-8,))
    before = judged(terms(option()), known(sent, there=True))
    after = judged(terms(option()), known(taken, there=False))
    assert (before.status, after.status) == (Status.REFUNDED, Status.CANCELED)
    assert steps(before.status, after.status) == (Status.CANCELED,)


@pytest.mark.parametrize(
    ("amount", "status"),
    [(5 * 10**13, Status.REFUNDED), (10**14, Status.UNDERPAID), (10**18, Status.LATE_PAID)],
)
@pytest.mark.parametrize("height", [9, 10])
@pytest.mark.parametrize("fulfilled", [None, NOW])
def test_too_little_to_matter_changes_nothing_about_a_refunded_invoice(
    amount: int, status: Status, height: int, fulfilled: datetime | None
) -> None:
    """A defect once: anybody could make it `expired`, or `review_required`, with more than dust, but less than 1/10,000
    of what was asked."""
    paid = transfer(10**18, anchor(5), asset=COIN)
    more = transfer(amount, anchor(height), id="trf_2", asset=COIN, seconds=60)
    past, decided = (view(10, scanned=90),), Decisions(fulfilled_at=fulfilled)
    back = replace(refund(10**18, _R.COMPLETED, ids=("trf_1",), anchors=(8,)), asset=COIN)
    known = with_refunds(facts(paid, more, views=past, decided=decided), back)
    found = judged(terms(option(COIN, 10**18)), known).status
    if fulfilled is not None and height == 10 and status is not Status.REFUNDED:
        status = Status.REVIEW_REQUIRED  # not final, and the goods have left
    assert found is status
