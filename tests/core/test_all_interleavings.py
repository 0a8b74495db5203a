"""Small-scope exhaustive: every order of a fixed handful of payments, blocks, forks, expiries and decisions.

The orders are not tried one by one: worlds that look the same are walked once, and counted with the orders that lead to
them, so that nothing is left out. At every step the one writer's way from the stored status to the assessed one must
be legal; and for all facts status, cases and books must be the same whatever the order in which they are told, rest on
what plain counting says, and leave no confirmed money without somebody who is asked about it.

Planted bugs seen to fail: decisions taken in the order told (`_standing_groups`); a fact told twice counted twice
(`_unique`); the excess taken from what is told last, not from what arrived last (both sortings in `core.books`); PAID
without its edge to LATE_PAID; a withdrawn invoice's money, or a short one's after a decision, without a case; a refund
that takes a unit more from the chain than it sent, or more from an account than is there; an open dispute that gives
way to a refund; a window closed by the time of a transfer alone; SETTLED that yields to PAID; an accepted group that
counts on after one of it left the chain.
Found so, and mended: beside late money that a person kept or ignored, what had come in time was nobody's case.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from tallystick.core.assess import Assessment, assess, being_given_back
from tallystick.core.books import Books, books
from tallystick.core.cases import Case, counted_by_decision, wanted_cases
from tallystick.core.invoice import DecisionKind, Facts, LatePayment, Match, PaymentStatus, Status
from tallystick.core.ledger import Account, Denomination, balances
from tallystick.core.refund import PENDING, RefundStatus
from tallystick.core.shares import LIVE
from tallystick.core.transitions import EDGES, steps
from tests.core.interleavings import Known, Looked, Scope, World, events
from tests.core.samples import COIN, NOW, OTHER_TOKEN, TOKEN

S = Status
PARTS = {"a": 60, "b": 40}
TOO_MUCH = {"a": 100, "b": 60}
FOREIGN = {"a": 60, "w": 80}
SCOPES = {
    Scope("parts", PARTS): {
        S.UNDERPAID,
        S.PAID,
        S.LATE_PAID,
        S.EXPIRED,
        S.CANCELED,
        S.SETTLED,
        S.REVIEW_REQUIRED,
    },
    Scope("too much, late accepted", TOO_MUCH, LatePayment.ACCEPT): {
        S.OVERPAID,
        S.PAID,
        S.LATE_PAID,
        S.SETTLED,
    },
    Scope("two assets, too much", {"a": 100, "c": 60}, decisions=1): {S.OVERPAID, S.PAID, S.LATE_PAID},
    Scope("a refund", {"a": 130}, refunds=True): {
        S.REFUNDED,
        S.OVERPAID,
        S.PAID,
        S.LATE_PAID,
        S.REVIEW_REQUIRED,
    },
    Scope("a dispute", {"a": 100}, disputes=True): {S.DISPUTED, S.PAID, S.SETTLED, S.CANCELED},
}
"""Scopes, and statuses that some order must lead to, so that none can become empty unseen."""

DEEP = {
    Scope("another asset", FOREIGN): {S.REVIEW_REQUIRED, S.PAID, S.OVERPAID, S.UNDERPAID, S.LATE_PAID},
    Scope("parts, late accepted", PARTS, LatePayment.ACCEPT): {S.PAID, S.UNDERPAID},
    Scope("parts, late refunded", PARTS, LatePayment.REFUND): {S.LATE_PAID, S.UNDERPAID},
    Scope("too much", TOO_MUCH): {S.OVERPAID, S.LATE_PAID},
    Scope("refunds of parts", PARTS, LatePayment.ACCEPT, refunds=True): {S.REFUNDED, S.UNDERPAID},
    Scope("refunds of too much", TOO_MUCH, refunds=True): {S.REFUNDED, S.OVERPAID},
    Scope("parts, four blocks", PARTS, mines=3): {S.UNDERPAID, S.PAID},
    Scope("two forks", TOO_MUCH, LatePayment.ACCEPT, forks=2): {S.OVERPAID, S.LATE_PAID},
    Scope("three transfers", {"a": 40, "b": 40, "c": 40}, decisions=1): {S.OVERPAID, S.PAID, S.UNDERPAID},
    Scope("a disputed refund", {"a": 130}, refunds=True, disputes=True): {S.REFUNDED, S.DISPUTED},
}
"""What `make exhaustive` walks besides."""

CLOSED = {S.EXPIRED, S.UNDERPAID, S.LATE_PAID}
WINDOW_OPEN = {S.AWAITING_PAYMENT, S.PARTIALLY_PAID}


@dataclass
class Walk:
    """What was walked: worlds, orders that end in one (nothing left, or nothing possible), statuses and edges."""

    worlds: int = 0
    orders: int = 0
    facts: int = 0
    reached: set[Status] = field(default_factory=set)
    edges: set[tuple[Status, Status]] = field(default_factory=set)


def walk(scope: Scope) -> Walk:
    """Play everything. Layer by layer: all worlds after the same number of events, each with the orders to it."""
    found = Walk()
    looks: dict[Known, Looked] = {}
    start = World.start(scope)
    looks[start.known] = Looked.at(start.known, scope)
    layer: dict[World, int] = {start: 1}
    while layer:
        following: Counter[World] = Counter()
        for world, orders in layer.items():
            found.worlds += 1
            ended = True
            for name, known, left in events(world, scope, looks[world.known]):
                ended = False
                looked = looks.get(known)
                if looked is None:
                    looked = looks[known] = Looked.at(known, scope)
                    _check_facts(scope, looked, _Said(scope, world, name, looked.judged.status))
                _check_step(scope, world, name, known, looked, found)
                after = World(known, left, looked.judged.status, world.counted | looked.confirmed)
                following[after] += orders
            found.orders += orders if ended else 0
        layer = following
    found.facts = len(looks)
    return found


def _check_step(scope: Scope, before: World, name: str, known: Known, looked: Looked, found: Walk) -> None:
    """The one writer's way from the stored status to the new one."""
    judged = looked.judged
    if judged.status is before.status:
        return
    said = _Said(scope, before, name, judged.status)
    way = steps(before.status, judged.status, late=judged.late)
    for start, stop in pairwise((before.status, *way)):
        assert stop in EDGES[start], said
        found.edges.add((start, stop))
    found.reached.update(way)
    if before.known.scanned_late and not before.known.canceled:
        assert not WINDOW_OPEN & set(way), f"a closed window was opened: {said}"
    if not known.scanned_late and not known.canceled:
        assert not CLOSED & set(way), f"a verdict ahead of the deadline: {said}"


@dataclass(frozen=True, slots=True)
class _Said:
    """Names the step in a failure; written out only then."""

    scope: Scope
    before: World
    event: str
    status: Status

    def __str__(self) -> str:
        return f"{self.scope.name}: {self.before} -- {self.event} --> {self.status}"


def _check_facts(scope: Scope, looked: Looked, said: _Said) -> None:
    """What holds for these facts, however they came about."""
    facts, judged = looked.facts, looked.judged
    booked = books(scope.terms, facts, judged)
    told = Facts(
        (*reversed(facts.transfers), *facts.transfers[:1]),
        replace(facts.decisions, recorded=facts.decisions.recorded[::-1]),
        facts.networks,
        facts.refunds[::-1],
    )
    again = assess(scope.terms, told, NOW)
    assert again == judged, said
    assert wanted_cases(scope.terms, told, again) == looked.cases, said
    assert books(scope.terms, told, again) == booked, said
    _check_status(scope, facts, judged, said)
    _check_books(facts, judged, booked, said)
    _check_nothing_idles(scope, facts, judged, looked.cases, booked, said)


def _check_status(scope: Scope, facts: Facts, judged: Assessment, said: _Said) -> None:
    """What each status must rest on, by plain counting. 50 basis points less than the price are enough."""
    decisions, status = facts.decisions, judged.status
    verdicts = {one.transfer_id: one for one in judged.verdicts}
    confirmed = {name for name, one in verdicts.items() if one.status is PaymentStatus.CONFIRMED}
    there = confirmed - being_given_back(facts, judged.refunds)
    accepted = counted_by_decision(facts, judged)
    brought = {
        name: scope.amounts[name]
        for name, fact in ((one.id, one) for one in facts.transfers)
        if name in there and verdicts[name].match is Match.MATCHED
    }
    in_time = sum(amount for name, amount in brought.items() if verdicts[name].on_time)
    late_counts = scope.late is LatePayment.ACCEPT and not decisions.withdrawn
    if not accepted:
        enough = sum(brought.values()) if late_counts else in_time
        assert judged.sufficient == (enough * 1000 >= 995 * 100 and not decisions.withdrawn), said
    assert (status is S.DISPUTED) == decisions.dispute_open, said
    if status in (S.PAID, S.OVERPAID):
        assert judged.sufficient, said
    if status is S.SETTLED:
        assert decisions.settled_at is not None, said
    if status is S.CANCELED:
        assert decisions.canceled_at is not None, said
    if status is S.REFUNDED:
        assert any(one.status is RefundStatus.COMPLETED for one in judged.refunds), said
    if judged.sufficient and status not in (S.DISPUTED, S.REFUNDED):
        assert status in (S.PAID, S.OVERPAID, S.SETTLED), said
    if decisions.settled_at is not None:
        assert status in (S.SETTLED, S.REVIEW_REQUIRED, S.DISPUTED, S.REFUNDED), said


def _check_books(facts: Facts, judged: Assessment, booked: Books, said: _Said) -> None:
    """On chain is what is confirmed less what was sent back; every denomination adds up to nothing; nobody's money is
    less than none, and what is owed is owed for refunds."""
    kept = balances(booked.entries())
    verdicts = {one.transfer_id: one for one in judged.verdicts}
    sent = sum(
        fact.amount * max(1, verdict.times_sent)
        for fact, verdict in zip(facts.refunds, judged.refunds, strict=True)
        if verdict.status is RefundStatus.COMPLETED
    )
    for asset, back in ((TOKEN, sent), (OTHER_TOKEN, 0), (COIN, 0)):
        arrived = sum(
            fact.amount
            for fact in facts.transfers
            if fact.asset == asset and verdicts[fact.id].status is PaymentStatus.CONFIRMED
        )
        unit = Denomination.of_asset(asset)
        assert kept.get((unit, Account.ONCHAIN), 0) == arrived - back, said
        for account in (Account.SUSPENSE, Account.MERCHANT, Account.OVERPAYMENT, Account.REFUNDS_PAYABLE):
            assert kept.get((unit, account), 0) <= 0, said  # credits are negative
    for unit in {unit for unit, _ in kept}:
        assert sum(amount for (one, _), amount in kept.items() if one == unit) == 0, said


def _check_nothing_idles(
    scope: Scope, facts: Facts, judged: Assessment, cases: tuple[Case, ...], booked: Books, said: _Said
) -> None:
    """Money that is there for good and nobody's is a matter for somebody: a case, a dispute, a refund on its way, a
    decision that set it aside, the merchant's rule; or it waits for the chain, or for the rest within the window."""
    kept = balances(booked.entries())
    confirmed = {one.transfer_id for one in judged.verdicts if one.status is PaymentStatus.CONFIRMED}
    moving = any(one.status in LIVE and one.status is not PaymentStatus.CONFIRMED for one in judged.verdicts)
    under_way = any(one.status in PENDING for one in judged.refunds)
    dealt_with = facts.decisions.named(
        DecisionKind.DISMISS,
        DecisionKind.WRITE_OFF,
        DecisionKind.ACCEPT,
        DecisionKind.CREDIT,
        DecisionKind.KEEP,
    )
    by_rule = scope.late is LatePayment.REFUND and judged.status is S.LATE_PAID
    lost = judged.status is S.REVIEW_REQUIRED  # a reversal: its case is opened when it is seen to happen
    if not judged.window_closed or moving or under_way or by_rule or lost or facts.decisions.dispute_open:
        return
    asked = dealt_with.union(*(case.transfer_ids for case in cases))
    for asset in (TOKEN, OTHER_TOKEN, COIN):
        nobodys = -kept.get((Denomination.of_asset(asset), Account.SUSPENSE), 0)
        there = {
            fact.id: fact.amount for fact in facts.transfers if fact.asset == asset and fact.id in confirmed
        }
        if nobodys > 0:
            assert there.keys() & asked, f"money idles: {said}"
        if nobodys == sum(there.values()):
            assert there.keys() <= asked, f"some of it idles: {said}"


@pytest.mark.parametrize(
    "scope", [*SCOPES, *(DEEP if os.environ.get("TALLYSTICK_EXHAUSTIVE") else ())], ids=str
)
def test_every_order_of_a_handful_of_events(scope: Scope) -> None:
    """Two transfers (or one, and its refund), three blocks of which one is a fork, the window's end, two decisions."""
    found = walk(scope)
    assert found.orders > 5_000
    assert found.reached >= (SCOPES | DEEP)[scope]
