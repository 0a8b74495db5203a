"""The life of an invoice: one table of legal edges, and what each status means.

Theory of operation
-------------------
An invoice's status is not moved by events. It is *computed* by `core.assess` from terms, facts, the view of the
chain and the time. This module says which differences between the stored and the computed status may be written,
and through which statuses in between. The one writer (`services.assessing`) asks `steps` for the way and writes one
transition for each step, with its evidence.

Four groups, by what may still change them:

* *Before money*: created, quoted, awaiting_payment. They only move on. Nothing leads back to created or quoted.
* *Money on its way*: detected, partially_paid, confirming. They move among each other as evidence comes and goes,
  and step back to awaiting_payment when a reorganisation takes all of it.
* *Outcomes*: paid, overpaid, underpaid, expired, late_paid, canceled, review_required, disputed. An outcome stands as
  long as its evidence does. A reorganisation may take it back; late evidence may improve it; time never does. Because
  chain time is remembered as a high-water mark, a closed window stays closed: from expired, underpaid, late_paid and
  canceled nothing leads back to awaiting_payment or partially_paid.
* *Books closed*: settled, refunded. They are left by the named exceptional edges only: a reversal (to review_required),
  a dispute, and a refund after settlement. From refunded also new money leads on, and a reorganisation that takes the
  refund's own transaction: then what had arrived is there again, and the status is what the evidence says.

Two ways have stops in between, so that the history reads as it happened. An invoice that was just created walks through
quoted and awaiting_payment. Money that came late walks through expired (underpaid where a part came in time) and
late_paid, even when one block brings both the end of the window and the money, and even when the merchant accepts late
money at once. What a person decided leads straight to where it leads.

Holds true: every status of the public contract is in the table; an edge not in the table is never written.
Must not: read facts. The documentation's diagram is generated from this table (`diagram`), and a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tallystick.core.errors import IllegalTransition
from tallystick.core.invoice import Status

S = Status


class Owner(StrEnum):
    """Who has the next move."""

    SYSTEM = "system"
    CUSTOMER = "customer"
    NETWORK = "network"
    MERCHANT = "merchant"
    SUPPORT = "support"
    FINANCE = "finance"
    NONE = "none"


class Reason(StrEnum):
    """Why a transition happened. The published list: receivers may rely on these words."""

    INVOICE_CREATED = "invoice_created"
    RATES_LOCKED = "rates_locked"
    OPTION_ACTIVATED = "option_activated"
    PAYMENT_SEEN = "payment_seen"
    PAYMENT_IN_BLOCK = "payment_in_block"
    PAYMENT_PARTIAL = "payment_partial"
    POLICY_MET = "policy_met"
    AMOUNT_ABOVE_TOLERANCE = "amount_above_tolerance"
    WINDOW_CLOSED = "window_closed"
    LATE_PAYMENT = "late_payment"
    LATE_PAYMENT_ACCEPTED = "late_payment_accepted"
    MISMATCHED_PAYMENT = "mismatched_payment"
    REORGANIZED = "reorganized"
    REPLACED = "replaced"
    REVERSED_AFTER_FULFILLMENT = "reversed_after_fulfillment"
    REVERSED_AFTER_SETTLEMENT = "reversed_after_settlement"
    REVERSED_AFTER_REFUND = "reversed_after_refund"
    VANISHED = "vanished"
    CANCELED = "canceled"
    DECIDED = "decided"
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_RESOLVED = "dispute_resolved"
    REFUND_COMPLETED = "refund_completed"
    REFUND_REORGANIZED = "refund_reorganized"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class Meaning:
    """One status in words: what it says, who has the next move, and what that move is."""

    means: str
    owner: Owner
    action: str
    action_text: str


MEANINGS: Final[dict[Status, Meaning]] = {
    S.CREATED: Meaning("invoice exists, nothing quoted yet", Owner.SYSTEM, "quote", "Lock the rates."),
    S.QUOTED: Meaning("rates locked, no destination issued", Owner.CUSTOMER, "choose", "Choose how to pay."),
    S.AWAITING_PAYMENT: Meaning(
        "a destination is issued, nothing seen", Owner.CUSTOMER, "pay", "Pay the asked amount."
    ),
    S.DETECTED: Meaning(
        "enough seen, not yet in a block", Owner.NETWORK, "wait", "Wait for the network to include it."
    ),
    S.PARTIALLY_PAID: Meaning(
        "something seen, less than required, window open", Owner.CUSTOMER, "top_up", "Pay the missing part."
    ),
    S.CONFIRMING: Meaning(
        "enough in blocks, policy not yet met", Owner.NETWORK, "wait", "Wait for the confirmations."
    ),
    S.PAID: Meaning("amount, asset, network and policy met", Owner.MERCHANT, "fulfill", "Deliver the order."),
    S.OVERPAID: Meaning(
        "paid, and more than the tolerance above",
        Owner.MERCHANT,
        "fulfill",
        "Deliver the order and decide on the excess.",
    ),
    S.UNDERPAID: Meaning(
        "window closed, less than required",
        Owner.SUPPORT,
        "resolve",
        "Accept what came, ask for the rest, or refund.",
    ),
    S.EXPIRED: Meaning(
        "window closed, nothing acceptable evidenced in it",
        Owner.NONE,
        "none",
        "Create a new invoice to try again.",
    ),
    S.LATE_PAID: Meaning(
        "enough arrived, first evidenced after the window",
        Owner.SUPPORT,
        "resolve",
        "Apply the late-payment rule.",
    ),
    S.REVIEW_REQUIRED: Meaning(
        "evidence that does not match cleanly", Owner.SUPPORT, "resolve", "Look at the evidence and decide."
    ),
    S.DISPUTED: Meaning("a dispute is open", Owner.SUPPORT, "resolve", "Resolve the dispute."),
    S.SETTLED: Meaning("included in a closed settlement batch", Owner.FINANCE, "none", "Nothing to do."),
    S.REFUNDED: Meaning("everything received was returned", Owner.NONE, "none", "Nothing to do."),
    S.CANCELED: Meaning("withdrawn before payment", Owner.NONE, "none", "Nothing to do."),
}

_MONEY_COMING: Final = frozenset({S.DETECTED, S.PARTIALLY_PAID, S.CONFIRMING})
_PAID: Final = frozenset({S.PAID, S.OVERPAID})
_SHORT: Final = frozenset({S.UNDERPAID, S.EXPIRED})
_DECIDED_BY_PEOPLE: Final = frozenset({S.REVIEW_REQUIRED, S.DISPUTED})
_FROM_MONEY_COMING: Final = (
    _MONEY_COMING | _PAID | _SHORT | _DECIDED_BY_PEOPLE | {S.AWAITING_PAYMENT, S.REFUNDED}
)
_WITH_MONEY: Final = _FROM_MONEY_COMING | {S.LATE_PAID, S.SETTLED}

EDGES: Final[dict[Status, frozenset[Status]]] = {
    S.CREATED: frozenset({S.QUOTED, S.EXPIRED, S.CANCELED}),
    S.QUOTED: frozenset({S.AWAITING_PAYMENT, S.EXPIRED, S.CANCELED}),
    S.AWAITING_PAYMENT: _MONEY_COMING | _PAID | _SHORT | {S.CANCELED, S.REVIEW_REQUIRED, S.REFUNDED},
    S.DETECTED: _FROM_MONEY_COMING - {S.DETECTED},
    S.PARTIALLY_PAID: _FROM_MONEY_COMING - {S.PARTIALLY_PAID},
    S.CONFIRMING: _FROM_MONEY_COMING - {S.CONFIRMING} | {S.LATE_PAID},
    # A reversal leads back to what the remaining evidence says.
    S.PAID: _WITH_MONEY - {S.PAID},
    S.OVERPAID: _WITH_MONEY - {S.OVERPAID},
    # Closed windows: improved by evidence that turns out to be on time, by late money or by a person, never reopened.
    S.UNDERPAID: (
        _PAID
        | _DECIDED_BY_PEOPLE
        | {S.DETECTED, S.CONFIRMING, S.EXPIRED, S.LATE_PAID, S.REFUNDED, S.CANCELED}
    ),
    S.EXPIRED: _PAID | {S.DETECTED, S.CONFIRMING, S.UNDERPAID, S.LATE_PAID, S.REVIEW_REQUIRED, S.REFUNDED},
    S.LATE_PAID: (_PAID | _SHORT | _DECIDED_BY_PEOPLE | {S.DETECTED, S.CONFIRMING, S.REFUNDED, S.CANCELED}),
    # A crumb leaves it canceled, and is a case all the same: accepted it is the payment, given back it was returned.
    S.CANCELED: _PAID | {S.DETECTED, S.CONFIRMING, S.LATE_PAID, S.UNDERPAID, S.REVIEW_REQUIRED, S.REFUNDED},
    S.REVIEW_REQUIRED: _WITH_MONEY - {S.REVIEW_REQUIRED} | {S.CANCELED},
    S.DISPUTED: _WITH_MONEY - {S.DISPUTED} | {S.CANCELED},
    # Exceptional edges: books are closed, only a reversal, a dispute or a refund leads on.
    S.SETTLED: frozenset({S.REVIEW_REQUIRED, S.DISPUTED, S.REFUNDED}),
    # A canceled invoice whose late payment was given back is canceled again where the chain takes both.
    S.REFUNDED: _WITH_MONEY - {S.REFUNDED} | {S.CANCELED},
}

_FIRST_STEPS: Final = (S.CREATED, S.QUOTED, S.AWAITING_PAYMENT)
_BEFORE_LATE: Final = _MONEY_COMING | {S.AWAITING_PAYMENT}


def steps(current: Status, target: Status, *, late: bool = False) -> tuple[Status, ...]:
    """The statuses to write, in order, to go from `current` to `target`; empty when they are the same.

    `late` says that the target rests on money first evidenced after the window. Raises IllegalTransition when
    the table has no such way: a defect in the assessment or in the stored state, to be stopped at, not written.
    """
    if current is target:
        return ()
    way: list[Status] = []
    here = current
    if here in _FIRST_STEPS and target not in EDGES[here]:
        onward = _FIRST_STEPS[_FIRST_STEPS.index(here) + 1 :]
        for stop in onward:
            if stop is target:
                break
            way.append(stop)
            here = stop
            if target in EDGES[stop] and target not in _FIRST_STEPS:
                break
    if late and here in _BEFORE_LATE and target in (S.LATE_PAID, *_PAID):
        # A part that came in time makes the closed window an underpayment, nothing at all an expiry.
        here = S.UNDERPAID if here in _MONEY_COMING else S.EXPIRED
        way.append(here)
    if late and here in (S.EXPIRED, S.UNDERPAID) and target in _PAID:
        here = S.LATE_PAID
        way.append(here)
    way.append(target)
    for start, stop in zip((current, *way), way, strict=False):
        if stop not in EDGES[start]:
            raise IllegalTransition(
                f"An invoice cannot go from {start} to {stop}.",
                remedy="This is a defect in Tallystick: nothing was written; please report the invoice's history.",
            )
    return tuple(way)


def diagram() -> str:
    """The table as a Mermaid state diagram, for the documentation. A pure function of EDGES."""
    lines = ["stateDiagram-v2", f"    [*] --> {S.CREATED}"]
    lines += [f"    {start} --> {stop}" for start in Status for stop in Status if stop in EDGES[start]]
    return "\n".join(lines) + "\n"
