"""The assessment: state as a pure function of evidence.

For: the one writer of statuses. `assess` takes an invoice's terms, the facts known about its transfers, the view of
each chain and the time, and returns what is true now: status, amounts, each payment's verdict, and what would have to
happen for the answer to change (`wakeups`).
Holds true: the answer does not depend on the order in which facts were learned, on how often, or on earlier answers.
Evidence that fits always wins over evidence that does not: nobody can spoil a paid invoice by sending junk to its
address. Nothing final is said before the confirmation requirement is met.
Must not: read a clock, know rows or JSON, or look at the stored status.

How the status is found, first match wins (in time = first evidenced within window and grace):
1. confirmed in time >= required (late   -> paid, or overpaid if all that is confirmed exceeds the tolerance above
   money too where it is accepted)
2. fulfilled, and 1 does not hold        -> review_required (a reversal after the goods left)
3. in blocks in time >= required         -> confirming
4. seen in time >= required              -> detected
5. something that does not match         -> review_required
6. late money makes it enough            -> late_paid
7. something seen                        -> partially_paid while the window is open, underpaid after it
8. nothing                               -> expired or canceled, or awaiting_payment, quoted, created

Required is the asked amount less the tolerance below. Several options of one invoice add up as fractions of what each
one asked; the fractions are exact. Each is measured by its own option's tolerance, so that more money never makes an
invoice less paid. Money can come late on one network while another, slower one may still bring money in time. Until
that one is scanned past the deadline too, late money shows as confirming, detected or partially_paid: from a verdict
over the window there is no way back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import Final

from tallystick.core.chain import (
    Anchor,
    Finality,
    NetworkView,
    canonical_anchor,
    confirmations,
    final_at_height,
    is_final,
)
from tallystick.core.invoice import (
    Facts,
    InvoiceTerms,
    LatePayment,
    Match,
    OptionTerms,
    PaymentStatus,
    Status,
    Tolerance,
    TransferFact,
    match_transfer,
)
from tallystick.core.money import AMOUNT_MAX

BPS: Final = 10_000


class Marker(StrEnum):
    """What of a network has to reach a position before an assessment can change by itself."""

    TIP = "tip"  # height of the processed tip
    SAFE = "safe"  # height the network calls safe
    FINALIZED = "finalized"  # height the network calls finalized
    TIME = "time"  # chain time scanned, in Unix seconds: due once scanned *past* it


OUR_CLOCK: Final = ""
"""Stands for a network in a wakeup that waits for our own clock: nobody can pay yet, so no chain time matters."""


@dataclass(frozen=True, slots=True)
class Wakeup:
    """Assess the invoice again when `marker` of `network` has reached `position` (TIME: has passed it)."""

    network: str
    marker: Marker
    position: int


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
    and the status rests on money first evidenced after it. `window_closed` is monotone in the facts.
    """

    status: Status
    late: bool
    window_closed: bool
    amount_paid: int
    options: tuple[OptionAmounts, ...]
    verdicts: tuple[Verdict, ...]
    wakeups: tuple[Wakeup, ...]


@dataclass(frozen=True, slots=True)
class _Shares:
    """Fractions of the invoice that are seen, in blocks and confirmed, in one measure."""

    seen: Fraction
    in_blocks: Fraction
    confirmed: Fraction


_NOTHING: Final = _Shares(Fraction(0), Fraction(0), Fraction(0))


def assess(terms: InvoiceTerms, facts: Facts, now: datetime) -> Assessment:
    """Judge the invoice. `now` is our clock (UTC); it matters only while no address has been issued."""
    transfers = sorted(_unique(facts.transfers), key=lambda fact: fact.key.tx_hash + fact.id)
    judged = [(fact, _judge(terms, fact, facts)) for fact in transfers]
    closed = _window_closed(terms, facts, now)
    status, late = _status(terms, facts, judged, closed=closed)
    asked = _shares(terms, judged, _as_asked)
    enough = _shares(terms, judged, _as_required).seen >= 1
    missing = Fraction(0) if enough else max(Fraction(0), 1 - asked.seen)
    return Assessment(
        status=status,
        late=late,
        window_closed=closed,
        amount_paid=_value(terms, asked.confirmed),
        options=tuple(_amounts(option, judged, missing) for option in terms.options),
        verdicts=tuple(verdict for _, verdict in judged),
        wakeups=_wakeups(terms, facts, judged, closed=closed),
    )


def _unique(transfers: tuple[TransferFact, ...]) -> list[TransferFact]:
    """One fact per credit key, so that a fact told twice counts once."""
    return list({fact.key: fact for fact in transfers}.values())


def _judge(terms: InvoiceTerms, fact: TransferFact, facts: Facts) -> Verdict:
    option = terms.option(fact.option_id)
    view = facts.networks.get(fact.key.network)
    anchor = canonical_anchor(fact.anchors)
    conflict = next((other for other in fact.conflicts if other.anchor.in_best_chain), None)
    if view is not None and is_final(anchor, option.requirement, view):
        status = PaymentStatus.CONFIRMED
    elif anchor is not None:
        # What counted when it was merely seen is not worth less once a block holds it.
        status = PaymentStatus.CONFIRMED if option.requirement.zero_conf else PaymentStatus.CONFIRMING
    elif conflict is not None:
        # Its own transaction in its way: mined again, and this time it failed or took another path.
        own = conflict.tx_hash == fact.key.tx_hash
        status = PaymentStatus.FAILED if own else PaymentStatus.REPLACED
    elif fact.in_mempool:
        zero_conf = option.requirement.zero_conf
        status = PaymentStatus.CONFIRMED if zero_conf else PaymentStatus.DETECTED
    else:
        status = PaymentStatus.ORPHANED
    return Verdict(
        transfer_id=fact.id,
        match=match_transfer(option, fact.key.network, fact.asset),
        status=status,
        anchor=anchor,
        confirmations=confirmations(anchor, view) if view is not None else 0,
        on_time=fact.first_evidence_at <= terms.deadline,
        replaced_by=conflict.tx_hash if status is PaymentStatus.REPLACED and conflict is not None else None,
    )


_LIVE: Final = frozenset({PaymentStatus.DETECTED, PaymentStatus.CONFIRMING, PaymentStatus.CONFIRMED})

_Judged = list[tuple[TransferFact, Verdict]]
_Measure = Callable[[Tolerance], Fraction]


def _as_asked(_tolerance: Tolerance) -> Fraction:
    """1 is exactly what was asked."""
    return Fraction(1)


def _as_required(tolerance: Tolerance) -> Fraction:
    """1 is the least that is paid in full."""
    return Fraction(BPS, BPS - tolerance.under_bps)


def _as_allowed(tolerance: Tolerance) -> Fraction:
    """1 is the most that is not too much."""
    return Fraction(BPS, BPS + tolerance.over_bps)


def _shares(terms: InvoiceTerms, judged: _Judged, measure: _Measure, *, late_too: bool = True) -> _Shares:
    """What came, as fractions of what each option asked, in the given measure of its tolerance."""
    seen = in_blocks = confirmed = Fraction(0)
    for fact, verdict in judged:
        if (
            verdict.match is not Match.MATCHED
            or verdict.status not in _LIVE
            or not (late_too or verdict.on_time)
        ):
            continue
        option = terms.option(fact.option_id)
        share = Fraction(fact.amount, option.amount_expected) * measure(option.tolerance)
        seen += share
        if verdict.anchor is not None or verdict.status is PaymentStatus.CONFIRMED:
            in_blocks += share
        if verdict.status is PaymentStatus.CONFIRMED:
            confirmed += share
    return _Shares(seen, in_blocks, confirmed)


def _status(terms: InvoiceTerms, facts: Facts, judged: _Judged, *, closed: bool) -> tuple[Status, bool]:
    """The status, and whether it rests on late money. The order of the questions is the module's docstring."""
    decisions = facts.decisions
    canceled = decisions.canceled_at is not None
    everything = _shares(terms, judged, _as_required)
    # A canceled invoice asked for nothing: whatever comes is treated as late, and reviewed.
    in_time = _NOTHING if canceled else _shares(terms, judged, _as_required, late_too=False)
    too_much = _shares(terms, judged, _as_allowed).confirmed > 1
    paid = Status.OVERPAID if too_much else Status.PAID
    if in_time.confirmed >= 1:
        return paid, False
    accept = terms.late_payment is LatePayment.ACCEPT and not canceled
    if accept and everything.confirmed >= 1:
        return paid, closed
    if decisions.fulfilled_at is not None:
        return Status.REVIEW_REQUIRED, False
    if in_time.in_blocks >= 1:
        return Status.CONFIRMING, False
    if in_time.seen >= 1:
        return Status.DETECTED, False
    if any(_is_mismatch(verdict) for _, verdict in judged):
        return Status.REVIEW_REQUIRED, False
    over = closed or canceled
    if everything.seen >= 1 and over:
        return Status.LATE_PAID, True
    if everything.seen >= 1:
        return (Status.CONFIRMING if everything.in_blocks >= 1 else Status.DETECTED), False
    if everything.seen > 0:
        return (Status.UNDERPAID if over else Status.PARTIALLY_PAID), False
    if canceled:
        return Status.CANCELED, False
    return _status_without_money(terms, closed=closed), False


def _status_without_money(terms: InvoiceTerms, *, closed: bool) -> Status:
    if closed:
        return Status.EXPIRED
    if any(option.active for option in terms.options):
        return Status.AWAITING_PAYMENT
    return Status.QUOTED if terms.options else Status.CREATED


def _is_mismatch(verdict: Verdict) -> bool:
    return verdict.match in (Match.WRONG_ASSET, Match.WRONG_NETWORK) and verdict.status in _LIVE


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


def _amounts(option: OptionTerms, judged: _Judged, missing: Fraction) -> OptionAmounts:
    """Amounts of one option; `missing` is the fraction of the whole invoice still to be paid."""
    detected = received = 0
    for fact, verdict in judged:
        if fact.option_id == option.id and verdict.match is Match.MATCHED and verdict.status in _LIVE:
            detected += fact.amount
            received += fact.amount if verdict.status is PaymentStatus.CONFIRMED else 0
    return OptionAmounts(option.id, detected, received, math.ceil(missing * option.amount_expected))


def _value(terms: InvoiceTerms, share: Fraction) -> int:
    """The value in units of the price. A token may carry more than any unit can express; it then stays at the most."""
    return min(AMOUNT_MAX, math.floor(share * terms.price.amount))


def _wakeups(terms: InvoiceTerms, facts: Facts, judged: _Judged, *, closed: bool) -> tuple[Wakeup, ...]:
    """When the answer can change without a new fact: a depth or finality reached, or the window's end."""
    found: set[Wakeup] = set()
    for fact, verdict in judged:
        if verdict.status is PaymentStatus.CONFIRMING and verdict.anchor is not None:
            requirement = terms.option(fact.option_id).requirement
            marker = {
                Finality.DEPTH: Marker.TIP,
                Finality.SAFE: Marker.SAFE,
                Finality.FINALIZED: Marker.FINALIZED,
            }
            height = final_at_height(verdict.anchor, requirement)
            found.add(Wakeup(fact.key.network, marker[requirement.finality], height))
    if not closed and facts.decisions.canceled_at is None:
        networks = _paying_networks(terms)
        waiting = [name for name in networks if not _scanned_past(facts.networks.get(name), terms.deadline)]
        found |= {Wakeup(name, Marker.TIME, int(terms.deadline.timestamp())) for name in waiting}
        if not networks:
            found.add(Wakeup(OUR_CLOCK, Marker.TIME, int(terms.expires_at.timestamp())))
    return tuple(sorted(found, key=lambda wakeup: (wakeup.network, wakeup.marker, wakeup.position)))
