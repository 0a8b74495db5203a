"""The assessment: state as a pure function of evidence.

For: the one writer of statuses. `assess` takes an invoice's terms, the facts known about its transfers, its refunds and
people's decisions, the view of each chain and the time, and returns what is true now: status, amounts, each payment's
and refund's verdict, and what would have to happen for the answer to change (`wakeups`).
Holds true: the answer does not depend on the order in which facts were learned, on how often, or on earlier answers.
Evidence that fits always wins over evidence that does not: nobody can spoil a paid invoice by sending junk to its
address, and dust changes nothing. Nothing final is said before the confirmation requirement is met.
Must not: read a clock, know rows or JSON, or look at the stored status.

How the status is found, first match wins (in time = first evidenced within window and grace, or decided to be so):
1. a dispute is open                     -> disputed
2. everything received was given back    -> refunded
3. confirmed in time >= required (late   -> settled if a batch took it in, else paid, or overpaid if all that is
   money too where it is accepted)          confirmed exceeds the tolerance above
4. the goods, the batch or a refund left -> review_required (a reversal after something left the house);
   and what paid for it does not stand      a batch's invoice whose reversal was dealt with stays settled
5. in blocks in time >= required         -> confirming
6. seen in time >= required              -> detected
7. something that does not match         -> review_required
8. late money makes it enough            -> late_paid
9. something seen                        -> partially_paid while the window is open, underpaid after it
10. nothing                              -> expired or canceled, or awaiting_payment, quoted, created

Required is the asked amount less the tolerance below. Several options of one invoice add up as fractions of what each
one asked by the quote in force when the transfer was first evidenced; the fractions are exact. Each is measured by its
own option's tolerance, so that more money never makes an invoice less paid. Assets are never mixed: what counts is the
fraction of its own price that each brought (`core.shares`). Money can come late on one network while another, slower
one may still bring money in time. Until that one is scanned past the deadline too, late money shows as confirming,
detected or partially_paid: from a verdict over the window there is no way back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import Final

from tallystick.core.chain import (
    Anchor,
    Finality,
    NetworkView,
    Requirement,
    canonical_anchor,
    confirmations,
    counts_at_sight,
    final_at_height,
    is_final,
    mature_at_height,
)
from tallystick.core.invoice import (
    DecisionKind,
    Facts,
    InvoiceTerms,
    LatePayment,
    Match,
    OptionTerms,
    PaymentStatus,
    Status,
    TransferFact,
    match_transfer,
    required_for,
)
from tallystick.core.money import AMOUNT_MAX
from tallystick.core.refund import DECIDED, RefundStatus, RefundVerdict, given_back, judge_refund
from tallystick.core.shares import LIVE, NOTHING, Judged, Measure, Shares, Unit, Verdict, add_up, units_of


class Marker(StrEnum):
    """What of a network has to reach a position before an assessment can change by itself."""

    TIP = "tip"  # height of the processed tip
    SAFE = "safe"  # height the network calls safe
    FINALIZED = "finalized"  # height the network calls finalized
    TIME = "time"  # chain time scanned, in Unix seconds: due once scanned *past* it


OUR_CLOCK: Final = ""
"""Stands for a network in a wakeup that waits for our own clock: nobody can pay yet, so no chain time matters."""

MISMATCHES: Final = frozenset({Match.WRONG_ASSET, Match.WRONG_NETWORK, Match.UNATTRIBUTED_VALUE})
"""Value that arrived and was not asked for like this: a person decides what it is."""


@dataclass(frozen=True, slots=True)
class Wakeup:
    """Assess the invoice again when `marker` of `network` has reached `position` (TIME: has passed it)."""

    network: str
    marker: Marker
    position: int


@dataclass(frozen=True, slots=True)
class OptionAmounts:
    """Base units of the option's asset: seen at any depth, confirmed, and what is still to be paid."""

    option_id: str
    detected: int
    received: int
    due: int


@dataclass(frozen=True, slots=True)
class Assessment:
    """What is true about an invoice now.

    `amount_paid` is the confirmed value in units of the price, rounded down. `late` says that the window is closed
    and the status rests on money first evidenced after it. `window_closed` is monotone in the facts. `sufficient`:
    what was asked is confirmed, in time or accepted. `too_much`: and more than the tolerance above, which nobody
    decided to keep.
    """

    status: Status
    late: bool
    window_closed: bool
    sufficient: bool
    too_much: bool
    amount_paid: int
    options: tuple[OptionAmounts, ...]
    verdicts: tuple[Verdict, ...]
    refunds: tuple[RefundVerdict, ...]
    wakeups: tuple[Wakeup, ...]


@dataclass(frozen=True, slots=True)
class _Case:
    """Everything the questions about the status are asked of."""

    terms: InvoiceTerms
    facts: Facts
    judged: Judged
    closed: bool
    set_aside: frozenset[str]  # being given back: pays no more
    given_back: frozenset[str]  # was given back: not there any more
    dismissed: frozenset[str]  # dealt with by a person
    # Worked out once for each question.
    units: dict[frozenset[str], list[Unit]] = field(default_factory=dict)
    sums: dict[tuple[frozenset[str], Measure, bool], Shares] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether nothing can come in time any more: the window closed, or the merchant withdrew the invoice once."""
        return self.closed or self.facts.decisions.canceled_at is not None

    @property
    def withdrawn(self) -> bool:
        return self.facts.decisions.withdrawn

    def shares(self, measure: Measure, *, without: frozenset[str], late_too: bool = True) -> Shares:
        """What came, less the transfers named in `without`."""
        asked_for = (without, measure, late_too)
        known = self.sums.get(asked_for)
        if known is None:
            known = self.sums[asked_for] = add_up(self.counting(without), measure, late_too=late_too)
        return known

    def counting(self, without: frozenset[str]) -> list[Unit]:
        """What counts of what came, less the transfers named in `without`."""
        units = self.units.get(without)
        if units is None:
            counting = [(fact, verdict) for fact, verdict in self.judged if fact.id not in without]
            units = self.units[without] = units_of(self.terms, self.facts.decisions, counting)
        return units


def assess(terms: InvoiceTerms, facts: Facts, now: datetime) -> Assessment:
    """Judge the invoice. `now` is our clock (UTC); it matters only while no address has been issued."""
    transfers = sorted(_unique(facts.transfers), key=lambda fact: fact.key.tx_hash + fact.id)
    received = facts.decisions.named(DecisionKind.RECEIVE)
    judged = [(fact, _judge(terms, fact, facts, received)) for fact in transfers]
    refunds = tuple(
        judge_refund(refund, facts.networks.get(refund.asset.network))
        for refund in sorted(facts.refunds, key=lambda refund: refund.id)
    )
    closed = _window_closed(terms, facts, now)
    case = _Case(
        terms,
        facts,
        judged,
        closed,
        set_aside=being_given_back(facts, refunds),
        given_back=_given_back(facts, refunds),
        dismissed=facts.decisions.named(DecisionKind.DISMISS, DecisionKind.WRITE_OFF),
    )
    status, late, sufficient = _status(case)
    asked = case.shares(Measure.ASKED, without=case.set_aside)
    enough = case.shares(Measure.REQUIRED, without=case.set_aside).seen >= 1
    missing = Fraction(0) if enough else max(Fraction(0), 1 - asked.seen)
    return Assessment(
        status=status,
        late=late,
        window_closed=closed,
        sufficient=sufficient,
        too_much=sufficient and _too_much(case),
        amount_paid=_value(terms, case.shares(Measure.ASKED, without=frozenset()).confirmed),
        options=tuple(_amounts(option, judged, missing) for option in terms.options),
        verdicts=tuple(verdict for _, verdict in judged),
        refunds=refunds,
        wakeups=_wakeups(case, refunds),
    )


def _unique(transfers: tuple[TransferFact, ...]) -> list[TransferFact]:
    """One fact per credit key, so that a fact told twice counts once."""
    return list({fact.key: fact for fact in transfers}.values())


def _judge(terms: InvoiceTerms, fact: TransferFact, facts: Facts, received: frozenset[str]) -> Verdict:
    option = terms.option(fact.option_id)
    view = facts.networks.get(fact.key.network)
    requirement = required_for(option, fact, facts.networks)
    anchor = canonical_anchor(fact.anchors)
    conflict = next((other for other in fact.conflicts if other.anchor.in_best_chain), None)
    if view is not None and is_final(anchor, requirement, view):
        status = PaymentStatus.CONFIRMED
    elif anchor is not None:
        # What counted when it was merely seen is not worth less once a block holds it.
        status = PaymentStatus.CONFIRMED if requirement.zero_conf else PaymentStatus.CONFIRMING
    elif conflict is not None:
        # Its own transaction in its way: mined again, and this time it failed or took another path.
        own = conflict.tx_hash == fact.key.tx_hash
        status = PaymentStatus.FAILED if own else PaymentStatus.REPLACED
    elif fact.in_mempool:
        at_sight = counts_at_sight(requirement, fact.traits)
        status = PaymentStatus.CONFIRMED if at_sight else PaymentStatus.DETECTED
    else:
        status = PaymentStatus.ORPHANED
    return Verdict(
        transfer_id=fact.id,
        match=match_transfer(option, fact.key, fact.asset),
        status=status,
        requirement=requirement,
        anchor=anchor,
        confirmations=confirmations(anchor, view) if view is not None else 0,
        on_time=fact.first_evidence_at <= terms.deadline or fact.id in received,
        replaced_by=conflict.tx_hash if status is PaymentStatus.REPLACED and conflict is not None else None,
    )


def being_given_back(facts: Facts, refunds: tuple[RefundVerdict, ...]) -> frozenset[str]:
    """Transfers that no longer pay: returned, or on their way back by a refund that withdraws them."""
    status = {verdict.refund_id: verdict.status for verdict in refunds}
    withdrawn = (
        refund.transfer_ids for refund in facts.refunds if refund.withdraws and status[refund.id] in DECIDED
    )
    return _given_back(facts, refunds).union(*withdrawn)


def _given_back(facts: Facts, refunds: tuple[RefundVerdict, ...]) -> frozenset[str]:
    """Transfers that were returned: the refunds' own transfers are final, and bring all of it."""
    if not facts.refunds:
        return frozenset()
    done = {verdict.refund_id for verdict in refunds if verdict.status is RefundStatus.COMPLETED}
    return given_back(facts.refunds, done, {fact.id: fact.amount for fact in facts.transfers})


def _status(case: _Case) -> tuple[Status, bool, bool]:
    """The status, whether it rests on late money, and whether the invoice is sufficiently paid.

    The order of the questions is the module's docstring.
    """
    everything = case.shares(Measure.REQUIRED, without=case.set_aside)
    in_time = _in_time(case)
    accept = case.terms.late_payment is LatePayment.ACCEPT and not case.withdrawn
    on_time = in_time.confirmed >= 1
    sufficient = on_time or (accept and everything.confirmed >= 1)
    if case.facts.decisions.dispute_open:
        return Status.DISPUTED, False, sufficient
    if _everything_returned(case):
        return Status.REFUNDED, False, sufficient
    if sufficient:
        late = case.closed and not on_time
        if case.facts.decisions.settled_at is not None:
            return Status.SETTLED, late, True
        return (Status.OVERPAID if _too_much(case) else Status.PAID), late, True
    status, late = _status_of_too_little(case, in_time, everything)
    return status, late, False


def _in_time(case: _Case) -> Shares:
    """What counts as having come within the window. A withdrawn invoice asked for nothing."""
    if case.withdrawn:
        return Shares(NOTHING, NOTHING, NOTHING)
    return case.shares(Measure.REQUIRED, without=case.set_aside, late_too=False)


def _status_of_too_little(case: _Case, in_time: Shares, everything: Shares) -> tuple[Status, bool]:
    """The status while what was asked is not confirmed, and whether it rests on late money."""
    if _reversed_after_it_left(case):
        return Status.REVIEW_REQUIRED, False
    if case.facts.decisions.settled_at is not None:
        return (
            Status.SETTLED,
            False,
        )  # the books are closed: what is given back or written off later is booked later
    if in_time.in_blocks >= 1:
        return Status.CONFIRMING, False
    if in_time.seen >= 1:
        return Status.DETECTED, False
    if _needs_review(case):
        return Status.REVIEW_REQUIRED, False
    if case.over:
        # What is on its way back still tells how the invoice ended, until it has arrived.
        kept = case.shares(Measure.REQUIRED, without=case.given_back)
        if kept.seen >= 1:
            return Status.LATE_PAID, True
        if kept.significant:
            return Status.UNDERPAID, False
    elif everything.seen >= 1:
        return (Status.CONFIRMING if everything.in_blocks >= 1 else Status.DETECTED), False
    elif everything.significant:
        return Status.PARTIALLY_PAID, False
    if case.withdrawn:
        return Status.CANCELED, False
    return _status_without_money(case.terms, closed=case.over), False


def _status_without_money(terms: InvoiceTerms, *, closed: bool) -> Status:
    if closed:
        return Status.EXPIRED
    if any(option.active for option in terms.options):
        return Status.AWAITING_PAYMENT
    return Status.QUOTED if terms.options else Status.CREATED


def _too_much(case: _Case) -> bool:
    """Whether more is confirmed than the tolerance above allows, and nobody decided that it may be kept."""
    if case.shares(Measure.ALLOWED, without=case.set_aside).confirmed <= 1:
        return False
    there = {
        fact.id
        for fact, verdict in case.judged
        if verdict.match is Match.MATCHED and verdict.status is PaymentStatus.CONFIRMED
    }
    return not any(
        decision.kind is DecisionKind.KEEP and there <= decision.transfer_ids
        for decision in case.facts.decisions.recorded
    )


def _everything_returned(case: _Case) -> bool:
    """Whether all that is there was given back, and nothing of it was taken back by the chain since.

    In an open window a mismatch given back leaves the invoice payable. What is too little to change a state does not
    change this one either.
    """
    if _lost(case, case.given_back):
        return False
    there = [
        (fact, verdict)
        for fact, verdict in case.judged
        if _is_value(case, fact, verdict) and verdict.status in LIVE and fact.id not in case.dismissed
    ]
    rest = [verdict for fact, verdict in there if fact.id not in case.given_back]
    if len(rest) == len(there) or any(verdict.match is not Match.MATCHED for verdict in rest):
        return False
    if rest and case.shares(Measure.ASKED, without=case.given_back | case.dismissed).significant:
        return False
    return case.over or any(verdict.match is Match.MATCHED for _, verdict in there)


def _reversed_after_it_left(case: _Case) -> bool:
    """Whether goods, a batch or a refund left against money that does not stand, and nobody has dealt with that."""
    decisions = case.facts.decisions
    if decisions.fulfilled_at is not None or decisions.settled_at is not None:
        return _lost(case, frozenset(fact.id for fact, _ in case.judged))
    return _lost(case, case.given_back)


def _lost(case: _Case, among: frozenset[str]) -> bool:
    """Whether any of these transfers does not stand, and nobody has dealt with that."""
    return any(
        verdict.status is not PaymentStatus.CONFIRMED and _is_value(case, fact, verdict)
        for fact, verdict in case.judged
        if fact.id in among and fact.id not in case.dismissed
    )


def _is_value(case: _Case, fact: TransferFact, verdict: Verdict) -> bool:
    """Whether a transfer means anything: not junk, not dust, not moved among the merchant's own addresses."""
    return verdict.match is not Match.UNSUPPORTED_TOKEN and not (fact.internal or case.terms.is_dust(fact))


def _needs_review(case: _Case) -> bool:
    """Whether something is there that does not match, and no decision about it stands."""
    counted = frozenset[str]().union(*(unit.members for unit in case.counting(case.set_aside)))
    dealt_with = case.dismissed | case.set_aside | counted
    return any(
        verdict.match in MISMATCHES
        and verdict.status in LIVE
        and _is_value(case, fact, verdict)
        and fact.id not in dealt_with
        for fact, verdict in case.judged
    )


def _window_closed(terms: InvoiceTerms, facts: Facts, now: datetime) -> bool:
    """Whether no payment in time can turn up any more.

    Every network with an issued address must have been scanned past the deadline, so an outage never expires a
    paid invoice. Where no address was issued nobody can pay, and our own clock decides.
    """
    networks = _paying_networks(terms)
    if not networks:
        return now > terms.expires_at
    return all(_scanned_past(facts.networks.get(network), terms.deadline) for network in networks)


def _paying_networks(terms: InvoiceTerms) -> list[str]:
    return sorted({option.asset.network for option in terms.options if option.active})


def _scanned_past(view: NetworkView | None, moment: datetime) -> bool:
    return view is not None and view.scanned_until is not None and view.scanned_until > moment


def _amounts(option: OptionTerms, judged: Judged, missing: Fraction) -> OptionAmounts:
    """Amounts of one option; `missing` is the fraction of the whole invoice still to be paid."""
    detected = received = 0
    for fact, verdict in judged:
        if (
            fact.option_id == option.id
            and verdict.match is Match.MATCHED
            and verdict.status in LIVE
            and not fact.internal
        ):
            detected += fact.amount
            received += fact.amount if verdict.status is PaymentStatus.CONFIRMED else 0
    return OptionAmounts(option.id, detected, received, math.ceil(missing * option.amount_expected))


def _value(terms: InvoiceTerms, share: Fraction) -> int:
    """The value in units of the price. A token may carry more than any unit can express; it then stays at the most."""
    return min(AMOUNT_MAX, math.floor(share * terms.price.amount))


_MARKER: Final = {
    Finality.DEPTH: Marker.TIP,
    Finality.SAFE: Marker.SAFE,
    Finality.FINALIZED: Marker.FINALIZED,
}


def _wakeups(case: _Case, refunds: tuple[RefundVerdict, ...]) -> tuple[Wakeup, ...]:
    """When the answer can change without a new fact: a depth or finality reached, or the window's end."""
    terms, facts = case.terms, case.facts
    found: set[Wakeup] = set()
    for fact, verdict in case.judged:
        requirement = verdict.requirement
        # What counts at sight is confirmed before it is final: only then it can be given back.
        early = requirement.zero_conf and not _is_final(fact, verdict, facts)
        if verdict.anchor is not None and (verdict.status is PaymentStatus.CONFIRMING or early):
            found |= _when_final(fact.key.network, verdict.anchor, requirement)
    refund_facts = {refund.id: refund for refund in facts.refunds}
    for refund in refunds:
        if refund.status is RefundStatus.CONFIRMING and refund.anchor is not None:
            about = refund_facts[refund.refund_id]
            found |= _when_final(about.asset.network, refund.anchor, about.requirement)
    if not case.over:
        networks = _paying_networks(terms)
        waiting = [name for name in networks if not _scanned_past(facts.networks.get(name), terms.deadline)]
        found |= {Wakeup(name, Marker.TIME, int(terms.deadline.timestamp())) for name in waiting}
        if not networks:
            found.add(Wakeup(OUR_CLOCK, Marker.TIME, int(terms.expires_at.timestamp())))
    return tuple(sorted(found, key=lambda wakeup: (wakeup.network, wakeup.marker, wakeup.position)))


def _is_final(fact: TransferFact, verdict: Verdict, facts: Facts) -> bool:
    view = facts.networks.get(fact.key.network)
    return view is not None and is_final(verdict.anchor, verdict.requirement, view)


def _when_final(network: str, anchor: Anchor, requirement: Requirement) -> set[Wakeup]:
    found = {Wakeup(network, _MARKER[requirement.finality], final_at_height(anchor, requirement))}
    if requirement.maturity and requirement.finality is not Finality.DEPTH:
        found.add(Wakeup(network, Marker.TIP, mature_at_height(anchor, requirement)))
    return found
