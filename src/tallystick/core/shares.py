"""Adding up what came: exact fractions of what each option asked.

For: the assessment. Holds true: one transfer counts once; assets are never mixed, each is measured against its own
option's quote in force when it was first evidenced; people's decisions (accept, credit) count only while every transfer
they name stands. Must not: know statuses of invoices, or the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from fractions import Fraction
from typing import Final

from tallystick.core.chain import Anchor, Requirement
from tallystick.core.invoice import (
    DUST_PER_PRICE,
    Decision,
    DecisionKind,
    Decisions,
    InvoiceTerms,
    Match,
    PaymentStatus,
    Tolerance,
    TransferFact,
)

BPS: Final = 10_000

NOTHING: Final = Fraction(0)

SIGNIFICANT: Final = Fraction(1, DUST_PER_PRICE)
"""Less than this part of what was asked is dust: it changes no state (F-TOKEN-2)."""

LIVE: Final = frozenset({PaymentStatus.DETECTED, PaymentStatus.CONFIRMING, PaymentStatus.CONFIRMED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is true about one transfer now. `requirement` is what confirms it (`required_of`)."""

    transfer_id: str
    match: Match
    status: PaymentStatus
    requirement: Requirement
    anchor: Anchor | None
    confirmations: int
    on_time: bool
    replaced_by: str | None


Judged = Sequence[tuple[TransferFact, Verdict]]


class Measure(Enum):
    """In what a share of 1 is measured."""

    ASKED = auto()  # exactly what was asked
    REQUIRED = auto()  # the least that is paid in full
    ALLOWED = auto()  # the most that is not too much

    def of(self, tolerance: Tolerance) -> tuple[int, int]:
        """By what a share as asked is multiplied, and divided."""
        if self is Measure.REQUIRED:
            return BPS, BPS - tolerance.under_bps
        if self is Measure.ALLOWED:
            return BPS, BPS + tolerance.over_bps
        return 1, 1


@dataclass(frozen=True, slots=True)
class Shares:
    """Fractions of the invoice that are seen, in blocks and confirmed, in one measure."""

    seen: Fraction
    in_blocks: Fraction
    confirmed: Fraction

    @property
    def significant(self) -> bool:
        """Whether what was seen is more than dust."""
        return self.seen >= SIGNIFICANT


@dataclass(frozen=True, slots=True)
class Unit:
    """What counts together: one transfer, or those that one decision names. As far as the least advanced of them."""

    asked: Fraction
    required: Fraction
    allowed: Fraction
    in_blocks: bool
    confirmed: bool
    on_time: bool
    members: frozenset[str]

    def in_measure(self, measure: Measure) -> Fraction:
        """Its share in a measure."""
        if measure is Measure.ASKED:
            return self.asked
        return self.required if measure is Measure.REQUIRED else self.allowed


def units_of(terms: InvoiceTerms, decisions: Decisions, judged: Judged) -> list[Unit]:
    """What came, each transfer in one unit at most."""
    groups = _standing_groups(decisions, judged) if decisions.recorded else []
    grouped = frozenset[str]().union(*(members for _, members in groups))
    found = [
        _unit(terms, None, [(fact, verdict)], on_time=verdict.on_time)
        for fact, verdict in judged
        if fact.id not in grouped and _counts(fact, verdict)
    ]
    if groups:
        known = {fact.id: (fact, verdict) for fact, verdict in judged}
        found += [
            _unit(terms, decision, [known[one] for one in sorted(members)], on_time=True)
            for decision, members in groups
        ]
    return found


def add_up(units: Sequence[Unit], measure: Measure, *, late_too: bool = True) -> Shares:
    """The sum in a measure. Without `late_too` only what is in time, or was decided to count as such."""
    counting = [unit for unit in units if late_too or unit.on_time]
    seen = _sum(counting, measure)
    placed = [unit for unit in counting if unit.in_blocks]
    final = [unit for unit in counting if unit.confirmed]
    # Sums of exact fractions are what an assessment spends its time on; mostly all three are the same.
    in_blocks = seen if len(placed) == len(counting) else _sum(placed, measure)
    confirmed = in_blocks if len(final) == len(placed) else _sum(final, measure)
    return Shares(seen, in_blocks, confirmed)


def _sum(units: Sequence[Unit], measure: Measure) -> Fraction:
    if not units:
        return NOTHING
    total = units[0].in_measure(measure)
    for unit in units[1:]:
        total += unit.in_measure(measure)
    return total


def _unit(terms: InvoiceTerms, decision: Decision | None, named: Judged, *, on_time: bool) -> Unit:
    confirmed = all(verdict.status is PaymentStatus.CONFIRMED for _, verdict in named)
    in_blocks = all(
        verdict.anchor is not None or verdict.status is PaymentStatus.CONFIRMED for _, verdict in named
    )

    def share(measure: Measure) -> Fraction:
        if decision is not None:
            return _group_share(terms, decision, named, measure)
        return _worth(terms, named[0][0], measure)

    return Unit(
        asked=share(Measure.ASKED),
        required=share(Measure.REQUIRED),
        allowed=share(Measure.ALLOWED),
        in_blocks=in_blocks,
        confirmed=confirmed,
        on_time=on_time,
        members=frozenset(fact.id for fact, _ in named),
    )


def _worth(terms: InvoiceTerms, fact: TransferFact, measure: Measure) -> Fraction:
    """The fraction of what its option asked, by the quote in force when it was first evidenced, in a measure."""
    option = terms.option(fact.option_id)
    times, per = measure.of(option.tolerance)
    # One fraction made of whole numbers: reducing it is what takes the time.
    return Fraction(fact.amount * times, option.asked_at(fact.first_evidence_at) * per)


def _counts(fact: TransferFact, verdict: Verdict) -> bool:
    return verdict.match is Match.MATCHED and verdict.status in LIVE and not fact.internal


def _standing_groups(decisions: Decisions, judged: Judged) -> list[tuple[Decision, frozenset[str]]]:
    """Decisions to count transfers in another way, the last word about each transfer; only those that stand in full."""
    last: dict[str, Decision] = {}
    for decision in sorted(decisions.recorded, key=lambda one: one.number):
        if decision.kind in (DecisionKind.ACCEPT, DecisionKind.CREDIT):
            last.update(dict.fromkeys(decision.transfer_ids, decision))
    live = {fact.id for fact, verdict in judged if verdict.status in LIVE and not fact.internal}
    found: list[tuple[Decision, frozenset[str]]] = []
    for decision in {one.number: one for one in last.values()}.values():
        members = frozenset(one for one, by in last.items() if by is decision)
        if members and members <= live:
            found.append((decision, members))
    return found


def _group_share(terms: InvoiceTerms, decision: Decision, named: Judged, measure: Measure) -> Fraction:
    """What an accepted or credited group counts for.

    Accepted: exactly what was asked, so never too much; as value what its matching transfers brought, and what was
    asked where none matches. Credited: the value that was decided.
    """
    times, per = measure.of(terms.option(named[0][0].option_id).tolerance)
    if decision.value is not None:
        return Fraction(decision.value * times, terms.price.amount * per)
    brought = sum(
        (_worth(terms, fact, measure) for fact, verdict in named if verdict.match is Match.MATCHED), NOTHING
    )
    if measure is Measure.REQUIRED:
        return max(Fraction(1), brought)
    if brought == 0:
        return Fraction(times, per)
    return min(Fraction(1), brought) if measure is Measure.ALLOWED else brought
