"""Which exceptions there should be: derived from an assessment, like the status.

For: the one writer, which opens, extends and closes the stored exceptions accordingly. Holds true: every mismatch
between what was asked and what arrived has exactly one open case of its kind and an owner; junk and dust cannot fill
the queue. The kinds that no assessment of an invoice shows (a reversal, a refund or webhook in trouble, a halted
network) are opened by the services that see them.
`unmatched` is reconciliation's: nothing opens it yet, because every transfer that intake records went to an address
that belongs to an invoice. Deposits that belong to none are only found by comparing the wallets with the chain.
Must not: know rows, or what a person decided about a case (`Decisions` carry that in).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

from tallystick.core.assess import Assessment, being_given_back
from tallystick.core.invoice import (
    DecisionKind,
    Facts,
    InvoiceTerms,
    LatePayment,
    Match,
    PaymentStatus,
    Status,
)
from tallystick.core.refund import DECIDED, PENDING, given_back
from tallystick.core.shares import LIVE, Measure, add_up, units_of
from tallystick.core.transitions import Owner


class CaseKind(StrEnum):
    """What can be the matter."""

    UNDERPAID = "underpaid"
    OVERPAID = "overpaid"
    LATE = "late"
    WRONG_ASSET = "wrong_asset"
    WRONG_NETWORK = "wrong_network"
    UNSUPPORTED_TOKEN = "unsupported_token"  # noqa: S105  # a kind of exception, no secret
    UNMATCHED = "unmatched"
    UNATTRIBUTED_VALUE = "unattributed_value"
    REVERSED = "reversed"
    REFUND_FAILED = "refund_failed"
    WEBHOOK_FAILED = "webhook_failed"
    NETWORK_HALTED = "network_halted"


class CaseStatus(StrEnum):
    """Every state of a case."""

    OPEN = "open"
    RESOLVED = "resolved"


class Resolution(StrEnum):
    """What a person can do about a case."""

    ACCEPT = "accept"  # take what came as it is
    CREDIT = "credit"  # count it for a value
    REFUND = "refund"  # give it back
    ATTACH = "attach"  # it belongs to another invoice
    WRITE_OFF = "write_off"  # stop owing it, or bear the loss
    IGNORE = "ignore"  # nothing is to be done


@dataclass(frozen=True, slots=True)
class Guide:
    """How a kind of case is handled: what it says, who has it first, what they do next, and what they can decide."""

    means: str
    owner: Owner
    action: str
    action_text: str
    resolutions: tuple[Resolution, ...]


_R = Resolution
_MONEY: Final = (_R.ACCEPT, _R.CREDIT, _R.REFUND, _R.ATTACH, _R.WRITE_OFF, _R.IGNORE)

GUIDES: Final[dict[CaseKind, Guide]] = {
    CaseKind.UNDERPAID: Guide(
        "the window closed and less than required came",
        Owner.SUPPORT,
        "decide",
        "Accept what came, give it back, attach it to another invoice, or keep it without delivering (write off).",
        _MONEY,
    ),
    CaseKind.OVERPAID: Guide(
        "more than the tolerance above came",
        Owner.SUPPORT,
        "decide",
        "Give the excess back, or keep it if the customer agrees (accept).",
        (_R.ACCEPT, _R.REFUND, _R.IGNORE),
    ),
    CaseKind.LATE: Guide(
        "money came after the window",
        Owner.SUPPORT,
        "decide",
        "Accept it, give it back, or attach it to the customer's newer invoice.",
        _MONEY,
    ),
    CaseKind.WRONG_ASSET: Guide(
        "another asset came than the address was issued for",
        Owner.SUPPORT,
        "decide",
        "Accept it as paid, credit it at a value, give it back, or attach it to another invoice.",
        _MONEY,
    ),
    CaseKind.WRONG_NETWORK: Guide(
        "the money came on another network than the address was issued for",
        Owner.SUPPORT,
        "decide",
        "Your wallet holds the key on that network too: accept it, credit it at a value, or give it back.",
        _MONEY,
    ),
    CaseKind.UNSUPPORTED_TOKEN: Guide(
        "tokens that nobody configured were sent to the address",
        Owner.SUPPORT,
        "look",
        "Ignore it, unless the customer says it was meant as payment; then agree with them outside the books.",
        (_R.IGNORE,),
    ),
    CaseKind.UNMATCHED: Guide(
        "a deposit that belongs to no invoice",
        Owner.SUPPORT,
        "decide",
        "Attach it to the invoice it was meant for, or give it back.",
        (_R.ATTACH, _R.REFUND, _R.WRITE_OFF, _R.IGNORE),
    ),
    CaseKind.UNATTRIBUTED_VALUE: Guide(
        "the address holds coins that no transfer explains, as when a contract sent them",
        Owner.SUPPORT,
        "decide",
        "Accept it as the payment, or credit it at a value.",
        _MONEY,
    ),
    CaseKind.REVERSED: Guide(
        "a payment that had counted left the chain",
        Owner.SUPPORT,
        "decide",
        "Ask the customer to pay again, or bear the loss (write off).",
        (_R.ACCEPT, _R.WRITE_OFF, _R.IGNORE),
    ),
    CaseKind.REFUND_FAILED: Guide(
        "a refund needs a person",
        Owner.FINANCE,
        "look",
        "Look at the refund: nothing is sent again by itself.",
        (_R.WRITE_OFF, _R.IGNORE),
    ),
    CaseKind.WEBHOOK_FAILED: Guide(
        "an endpoint does not take events any more",
        Owner.MERCHANT,
        "repair",
        "Repair the receiver, enable the endpoint again, and redeliver what it missed.",
        (_R.IGNORE,),
    ),
    CaseKind.NETWORK_HALTED: Guide(
        "crediting on a network stopped",
        Owner.SUPPORT,
        "wait",
        "The operator looks at the chain and resumes the network; payments there wait meanwhile.",
        (_R.IGNORE,),
    ),
}


MISMATCHED: Final = frozenset({CaseKind.WRONG_ASSET, CaseKind.WRONG_NETWORK, CaseKind.UNATTRIBUTED_VALUE})
"""Kinds about value that does not pay the invoice unless a person says so."""


@dataclass(frozen=True, slots=True)
class Case:
    """A case that should be open, and the transfers in question."""

    kind: CaseKind
    transfer_ids: frozenset[str]


DERIVED: Final = frozenset(
    {
        CaseKind.UNDERPAID,
        CaseKind.OVERPAID,
        CaseKind.LATE,
        CaseKind.WRONG_ASSET,
        CaseKind.WRONG_NETWORK,
        CaseKind.UNSUPPORTED_TOKEN,
        CaseKind.UNATTRIBUTED_VALUE,
    }
)
"""Kinds that follow from an assessment, so that they also close by themselves when it no longer shows them."""

_BY_MATCH: Final = {
    Match.WRONG_ASSET: CaseKind.WRONG_ASSET,
    Match.WRONG_NETWORK: CaseKind.WRONG_NETWORK,
    Match.UNATTRIBUTED_VALUE: CaseKind.UNATTRIBUTED_VALUE,
}


def wanted_cases(terms: InvoiceTerms, facts: Facts, judged: Assessment) -> tuple[Case, ...]:
    """The cases that follow from what is true about an invoice, in the order of their kinds."""
    found: dict[CaseKind, set[str]] = {}
    verdicts = {verdict.transfer_id: verdict for verdict in judged.verdicts}
    done, counted = _done(facts, judged), counted_by_decision(facts, judged)
    late_matters = _late_matters(terms, facts, judged)
    for fact in facts.transfers:
        verdict = verdicts.get(fact.id)
        if verdict is None or fact.internal or terms.is_dust(fact) or verdict.status not in LIVE:
            continue
        if verdict.match is Match.UNSUPPORTED_TOKEN:
            found.setdefault(CaseKind.UNSUPPORTED_TOKEN, set()).add(fact.id)
        elif fact.id in done:
            continue
        elif verdict.match is not Match.MATCHED and fact.id not in counted:
            found.setdefault(_BY_MATCH[verdict.match], set()).add(fact.id)
        elif fact.id not in counted and (not verdict.on_time or facts.decisions.withdrawn):
            if late_matters:
                found.setdefault(CaseKind.LATE, set()).add(fact.id)
        elif judged.status is Status.UNDERPAID:
            found.setdefault(CaseKind.UNDERPAID, set()).add(fact.id)
        elif judged.status is Status.LATE_PAID and late_matters and fact.id not in counted:
            # What came in time waits for the same decision: kept, ignored or given back with what came late.
            found.setdefault(CaseKind.LATE, set()).add(fact.id)
    if judged.too_much and not _excess_goes_back(terms, facts, judged):
        found[CaseKind.OVERPAID] = {
            fact.id
            for fact in facts.transfers
            if fact.id in verdicts
            and verdicts[fact.id].match is Match.MATCHED
            and verdicts[fact.id].status is PaymentStatus.CONFIRMED
        }
    return tuple(Case(kind, frozenset(found[kind])) for kind in CaseKind if kind in found)


def _done(facts: Facts, judged: Assessment) -> frozenset[str]:
    """Transfers about which everything is said: dismissed by a person, or being given back in full.

    A refund that nobody refused may name transfers of which another took a part: both together give them back.
    """
    alive = {verdict.refund_id for verdict in judged.refunds if verdict.status in PENDING | DECIDED}
    returning = given_back(facts.refunds, alive, {fact.id: fact.amount for fact in facts.transfers})
    return facts.decisions.named(DecisionKind.DISMISS, DecisionKind.WRITE_OFF) | returning


def _excess_goes_back(terms: InvoiceTerms, facts: Facts, judged: Assessment) -> bool:
    """Whether refunds that nobody refused take all that came above what was asked, however they were asked for.

    Less than one base unit of an asset is not owed.
    """
    verdicts = {verdict.transfer_id: verdict for verdict in judged.verdicts}
    aside = being_given_back(facts, judged.refunds)
    told = {fact.id: fact for fact in facts.transfers if fact.id in verdicts}  # once each
    there = [(fact, verdicts[fact.id]) for fact in told.values() if fact.id not in aside]
    over = add_up(units_of(terms, facts.decisions, there), Measure.ASKED).confirmed - 1
    status = {verdict.refund_id: verdict.status for verdict in judged.refunds}
    smallest = Fraction(0)
    for refund in facts.refunds:
        alive = status[refund.id] in PENDING | DECIDED
        asked = [
            terms.option(fact.option_id).asked_at(fact.first_evidence_at)
            for fact, verdict in there
            if verdict.match is Match.MATCHED and fact.asset == refund.asset
        ]
        # What is set aside does not count any more: its refund takes nothing from the rest.
        if alive and asked and not (refund.transfer_ids and refund.transfer_ids <= aside):
            over -= Fraction(refund.amount, min(asked))
            smallest = max(smallest, Fraction(1, min(asked)))
    return over < smallest


def counted_by_decision(facts: Facts, judged: Assessment) -> frozenset[str]:
    """Transfers that a decision counts in another way than as they came, as long as all that it names are there.

    Where one of them left the chain or goes back, the others are again what they were, and a case again.
    """
    standing = _live(judged) - being_given_back(facts, judged.refunds)
    return frozenset[str]().union(
        *(
            decision.transfer_ids
            for decision in facts.decisions.recorded
            if decision.kind in (DecisionKind.ACCEPT, DecisionKind.CREDIT)
            and decision.transfer_ids <= standing
        )
    )


def _live(judged: Assessment) -> frozenset[str]:
    return frozenset(verdict.transfer_id for verdict in judged.verdicts if verdict.status in LIVE)


def _late_matters(terms: InvoiceTerms, facts: Facts, judged: Assessment) -> bool:
    """Whether late money is a matter for a person.

    Not while the window may still be open; not where the merchant accepts it and it suffices; not where it makes an
    overpayment, which is the one case then; not where it will be given back by rule once it is confirmed, unless
    somebody refused that.
    """
    withdrawn = facts.decisions.withdrawn
    if not (judged.window_closed or withdrawn) or judged.too_much:
        return False
    if withdrawn:
        return True
    enough = judged.sufficient or judged.status in (Status.LATE_PAID, Status.CONFIRMING, Status.DETECTED)
    if terms.late_payment is LatePayment.ACCEPT:
        return not enough
    refused = any(verdict.status not in PENDING | DECIDED for verdict in judged.refunds)
    return terms.late_payment is LatePayment.REVIEW or judged.status is not Status.LATE_PAID or refused


def decision_on(
    case: Case, action: Resolution, facts: Facts, judged: Assessment
) -> tuple[DecisionKind, frozenset[str]] | None:
    """The fact that a resolution records about the invoice, and the transfers it names; None where it changes nothing.

    Accepting takes everything that is there as the payment, so that the rest of it is no case either; never what is
    being given back: a decision counts while all that it names is there, and that will not be. An invoice that
    is paid without the case's transfers needs them for nothing: they are kept without counting, and so they never make
    it less paid, or too much. A reversal that is accepted was made good in another way, or will be paid again: only
    writing it off books a loss. Refunding and attaching record more; that is `services.exceptions`'.
    """
    there = _live(judged) - being_given_back(facts, judged.refunds)
    named = case.transfer_ids & there
    if case.kind is CaseKind.REVERSED:
        lost = action is Resolution.WRITE_OFF
        return (DecisionKind.WRITE_OFF if lost else DecisionKind.DISMISS), case.transfer_ids
    if case.kind is CaseKind.OVERPAID:
        confirmed = _matched(judged, frozenset({PaymentStatus.CONFIRMED}))
        return (DecisionKind.KEEP, confirmed) if action is Resolution.ACCEPT else None
    if action is Resolution.CREDIT:
        return DecisionKind.CREDIT, named
    if action is Resolution.WRITE_OFF or (action is Resolution.ACCEPT and judged.sufficient):
        return (DecisionKind.WRITE_OFF, named) if case.kind in DERIVED else None
    if action is Resolution.ACCEPT:
        own = {fact.id for fact in facts.transfers if fact.internal}
        return DecisionKind.ACCEPT, (named | (_matched(judged, LIVE) & there)) - own
    if action is Resolution.IGNORE and case.kind in MISMATCHED:
        return DecisionKind.DISMISS, named
    return None


def _matched(judged: Assessment, statuses: frozenset[PaymentStatus]) -> frozenset[str]:
    return frozenset(
        verdict.transfer_id
        for verdict in judged.verdicts
        if verdict.match is Match.MATCHED and verdict.status in statuses
    )
