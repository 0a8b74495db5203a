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

from tallystick.core.chain import Anchor
from tallystick.core.invoice import (
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

SIGNIFICANT: Final = Fraction(1, 10_000)
"""Less than this part of what was asked is dust: it changes no state (F-TOKEN-2)."""

LIVE: Final = frozenset({PaymentStatus.DETECTED, PaymentStatus.CONFIRMING, PaymentStatus.CONFIRMED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is true about one transfer now."""

    transfer_id: str
    match: Match
    status: PaymentStatus
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

    def of(self, tolerance: Tolerance) -> Fraction:
        """By what a share as asked is multiplied."""
        if self is Measure.REQUIRED:
            return Fraction(BPS, BPS - tolerance.under_bps)
        if self is Measure.ALLOWED:
            return Fraction(BPS, BPS + tolerance.over_bps)
        return Fraction(1)


@dataclass(frozen=True, slots=True)
class Shares:
    """Fractions of the invoice that are seen, in blocks and confirmed, in one measure."""

    seen: Fraction = Fraction(0)
    in_blocks: Fraction = Fraction(0)
    confirmed: Fraction = Fraction(0)

    @property
    def significant(self) -> bool:
        """Whether what was seen is more than dust."""
        return self.seen >= SIGNIFICANT


def add_up(
    terms: InvoiceTerms, decisions: Decisions, judged: Judged, measure: Measure, *, late_too: bool
) -> Shares:
    """What came, in the given measure. Without `late_too` only what is in time, or was decided to count as such."""
    groups = _standing_groups(decisions, judged)
    grouped = frozenset[str]().union(*(members for _, members in groups))
    total = Shares()
    for fact, verdict in judged:
        if fact.id not in grouped and _counts(fact, verdict) and (late_too or verdict.on_time):
            total = _plus(total, _share(terms, fact, measure), [verdict])
    known = {fact.id: (fact, verdict) for fact, verdict in judged}
    for decision, members in groups:
        named = [known[one] for one in sorted(members)]
        share = _group_share(terms, decision, named, measure)
        total = _plus(total, share, [verdict for _, verdict in named])
    return total


def _counts(fact: TransferFact, verdict: Verdict) -> bool:
    return verdict.match is Match.MATCHED and verdict.status in LIVE and not fact.internal


def _share(terms: InvoiceTerms, fact: TransferFact, measure: Measure) -> Fraction:
    option = terms.option(fact.option_id)
    return Fraction(fact.amount, option.asked_at(fact.first_evidence_at)) * measure.of(option.tolerance)


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
    tolerance = terms.option(named[0][0].option_id).tolerance
    if decision.value is not None:
        return Fraction(decision.value, terms.price.amount) * measure.of(tolerance)
    brought = sum(
        (_share(terms, fact, measure) for fact, verdict in named if verdict.match is Match.MATCHED),
        Fraction(0),
    )
    if measure is Measure.REQUIRED:
        return max(Fraction(1), brought)
    if brought == 0:
        return measure.of(tolerance)
    return min(Fraction(1), brought) if measure is Measure.ALLOWED else brought


def _plus(total: Shares, share: Fraction, verdicts: Sequence[Verdict]) -> Shares:
    """Add a share that is as far as its least advanced transfer."""
    confirmed = all(verdict.status is PaymentStatus.CONFIRMED for verdict in verdicts)
    in_blocks = confirmed or all(
        verdict.anchor is not None or verdict.status is PaymentStatus.CONFIRMED for verdict in verdicts
    )
    return Shares(
        total.seen + share,
        total.in_blocks + (share if in_blocks else 0),
        total.confirmed + (share if confirmed else 0),
    )
