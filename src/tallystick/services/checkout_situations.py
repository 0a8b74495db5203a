"""Which of the situations that a customer can be in applies: finer than the status, and in the customer's terms.

For: `services.checkout` (which shows it), `services.checkout_words` (which has words for each) and the table of endings
in the README. Holds true: a pure function of the public invoice and of what is known beside it; every status leads to
at least one situation; where a refund decides how a payment ends, it is what the customer hears about; a cause is named
only where it is the only one.
Must not: contain sentences, or decide a state (that is `core.assess`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from tallystick.core.assess import Assessment
from tallystick.core.cases import CaseKind, wanted_cases
from tallystick.core.invoice import LatePayment, Match, PaymentStatus, Status
from tallystick.core.refund import PENDING, RefundStatus
from tallystick.db.invoices import StoredInvoice
from tallystick.services import objects


class Situation(StrEnum):
    """Where a customer can stand. Clients may rely on these words: more may come, none changes its meaning."""

    CREATED = "created"
    QUOTED = "quoted"
    AWAITING_PAYMENT = "awaiting_payment"
    REQUOTING = "requoting"  # the quote ended, the next one is not there yet
    NOT_WATCHED = "not_watched"  # the network left the configuration
    DROPPED = "dropped"  # a reorganisation took a payment, the window is open
    DETECTED = "detected"
    PARTIALLY_PAID = "partially_paid"
    PARTIALLY_PAID_IN_SEVERAL = "partially_paid_in_several"
    CONFIRMING = "confirming"
    PAID = "paid"
    PAID_AT_SIGHT = "paid_at_sight"  # counted before any block holds it, as the rule allows
    OVERPAID = "overpaid"
    OVERPAID_RETURNING = "overpaid_returning"
    OVERPAID_RETURNED = "overpaid_returned"
    SETTLED = "settled"
    TIME_UP = "time_up"  # our clock passed the end, the networks were not read that far yet
    TIME_UP_PARTIAL = "time_up_partial"
    UNDERPAID = "underpaid"
    UNDERPAID_WITHDRAWN = "underpaid_withdrawn"
    EXPIRED = "expired"
    EXPIRED_DROPPED = "expired_dropped"
    CANCELED = "canceled"
    LATE_ACCEPTED = "late_accepted"
    LATE_REVIEWED = "late_reviewed"
    LATE_REFUNDED = "late_refunded"
    LATE_WITHDRAWN = "late_withdrawn"
    REVIEW = "review"  # for several causes at once
    REVIEW_WRONG_ASSET = "review_wrong_asset"
    REVIEW_WRONG_NETWORK = "review_wrong_network"
    REVIEW_VALUE = "review_value"
    REVIEW_REVERSED = "review_reversed"
    DISPUTED = "disputed"
    REFUND_ADDRESS = "refund_address"  # it waits for an address
    REFUND_PREPARED = "refund_prepared"
    REFUND_SENT = "refund_sent"
    REFUND_CONFIRMING = "refund_confirming"
    REFUND_ATTENTION = "refund_attention"
    REFUNDED = "refunded"


_S = Situation
_RETURNING: Final = frozenset(
    {_S.REFUND_ADDRESS, _S.REFUND_PREPARED, _S.REFUND_SENT, _S.REFUND_CONFIRMING, _S.REFUND_ATTENTION}
)
_TIME_UP: Final = frozenset({_S.TIME_UP})

OF_STATUS: Final[Mapping[Status, frozenset[Situation]]] = MappingProxyType(
    {
        Status.CREATED: frozenset({_S.CREATED}) | _TIME_UP,
        Status.QUOTED: frozenset({_S.QUOTED}) | _TIME_UP,
        Status.AWAITING_PAYMENT: frozenset({_S.AWAITING_PAYMENT, _S.REQUOTING, _S.NOT_WATCHED, _S.DROPPED})
        | _TIME_UP,
        Status.DETECTED: frozenset({_S.DETECTED}),
        Status.PARTIALLY_PAID: frozenset(
            {
                _S.PARTIALLY_PAID,
                _S.PARTIALLY_PAID_IN_SEVERAL,
                _S.REQUOTING,
                _S.NOT_WATCHED,
                _S.DROPPED,
                _S.TIME_UP_PARTIAL,
            }
        ),
        Status.CONFIRMING: frozenset({_S.CONFIRMING}),
        Status.PAID: frozenset({_S.PAID, _S.PAID_AT_SIGHT}),
        Status.OVERPAID: frozenset({_S.OVERPAID, _S.OVERPAID_RETURNING, _S.OVERPAID_RETURNED}),
        Status.UNDERPAID: frozenset({_S.UNDERPAID, _S.UNDERPAID_WITHDRAWN}) | _RETURNING,
        Status.EXPIRED: frozenset({_S.EXPIRED, _S.EXPIRED_DROPPED}) | _RETURNING,
        Status.LATE_PAID: frozenset({_S.LATE_ACCEPTED, _S.LATE_REVIEWED, _S.LATE_REFUNDED, _S.LATE_WITHDRAWN})
        | _RETURNING,
        Status.REVIEW_REQUIRED: frozenset(
            {
                _S.REVIEW,
                _S.REVIEW_WRONG_ASSET,
                _S.REVIEW_WRONG_NETWORK,
                _S.REVIEW_VALUE,
                _S.REVIEW_REVERSED,
            }
        )
        | _RETURNING,
        Status.DISPUTED: frozenset({_S.DISPUTED}),
        Status.SETTLED: frozenset({_S.SETTLED}),
        Status.REFUNDED: frozenset({_S.REFUNDED}),
        Status.CANCELED: frozenset({_S.CANCELED}) | _RETURNING,
    }
)
"""The situations that a status can be, for the documentation. A test holds `situation` to it."""

REFUND_SITUATIONS: Final[Mapping[RefundStatus, Situation]] = MappingProxyType(
    {
        RefundStatus.REQUESTED: _S.REFUND_PREPARED,
        RefundStatus.APPROVED: _S.REFUND_PREPARED,
        RefundStatus.AWAITING_SIGNATURE: _S.REFUND_PREPARED,
        RefundStatus.BROADCAST: _S.REFUND_SENT,
        RefundStatus.CONFIRMING: _S.REFUND_CONFIRMING,
        RefundStatus.NEEDS_ATTENTION: _S.REFUND_ATTENTION,
        RefundStatus.COMPLETED: _S.REFUNDED,
    }
)
"""What a refund that nobody refused or gave up is to the customer, once its address is known."""

_LATE: Final = MappingProxyType(
    {
        LatePayment.ACCEPT: _S.LATE_ACCEPTED,
        LatePayment.REVIEW: _S.LATE_REVIEWED,
        LatePayment.REFUND: _S.LATE_REFUNDED,
    }
)
_REVIEWS: Final = MappingProxyType(
    {
        CaseKind.WRONG_ASSET: _S.REVIEW_WRONG_ASSET,
        CaseKind.WRONG_NETWORK: _S.REVIEW_WRONG_NETWORK,
        CaseKind.UNATTRIBUTED_VALUE: _S.REVIEW_VALUE,
    }
)
_PAYABLE: Final = frozenset({Status.AWAITING_PAYMENT, Status.PARTIALLY_PAID})
_BEFORE_MONEY: Final = frozenset({Status.CREATED, Status.QUOTED})
_LED_BY_REFUND: Final = frozenset(
    {Status.UNDERPAID, Status.EXPIRED, Status.LATE_PAID, Status.REVIEW_REQUIRED, Status.CANCELED}
)
_GONE: Final = frozenset({PaymentStatus.ORPHANED, PaymentStatus.REPLACED, PaymentStatus.FAILED})


@dataclass(frozen=True, slots=True)
class RefundSeen:
    """A refund as far as its customer may see it. `amount` is what is sent, a decimal string in `asset`; `tx_hash` is
    the transaction that stands in the best chain, never one that somebody only told."""

    status: RefundStatus
    has_address: bool
    amount: str
    asset: str
    network: str
    tx_hash: str | None = None

    @property
    def situation(self) -> Situation | None:
        """What it is to the customer; None where it was refused or given up."""
        if self.status in (RefundStatus.REQUESTED, RefundStatus.APPROVED) and not self.has_address:
            return Situation.REFUND_ADDRESS
        return REFUND_SITUATIONS.get(self.status)


@dataclass(frozen=True, slots=True)
class Known:
    """What the words depend on beside the public invoice.

    `withdrawn`: canceled, and nobody decided since that a payment counts. `mismatches`: what needs a person because it
    is not what was asked. `left`: goods, a batch or a refund left the house. `refunds`: oldest first.
    """

    withdrawn: bool = False
    mismatches: frozenset[CaseKind] = frozenset()
    left: bool = False
    refunds: tuple[RefundSeen, ...] = ()

    @property
    def pending(self) -> RefundSeen | None:
        """The newest refund under way."""
        return next((refund for refund in reversed(self.refunds) if refund.status in PENDING), None)

    @property
    def returned(self) -> bool:
        """Whether any refund arrived."""
        return any(refund.status is RefundStatus.COMPLETED for refund in self.refunds)


def known_of(stored: StoredInvoice, judged: Assessment, refunds: tuple[RefundSeen, ...] = ()) -> Known:
    """What is known beside the public invoice, from the same facts as the assessment."""
    wanted = {case.kind for case in wanted_cases(stored.terms, stored.facts({}), judged)}
    decisions = stored.decisions
    done = any(refund.status is RefundStatus.COMPLETED for refund in judged.refunds)
    return Known(
        withdrawn=decisions.withdrawn,
        mismatches=frozenset(wanted & _REVIEWS.keys()),
        left=decisions.fulfilled_at is not None or decisions.settled_at is not None or done,
        refunds=refunds,
    )


@dataclass(frozen=True, slots=True)
class Moment:
    """What the time and the configuration add: whether the window is over by our clock, whether anything can be paid
    now, and whether that is so only because new amounts are being worked out."""

    time_up: bool = False
    payable: bool = True
    requoting: bool = False


def situation(invoice: objects.Invoice, known: Known, moment: Moment) -> Situation:
    """The situation that applies."""
    status = Status(invoice.status)
    if status in _PAYABLE | _BEFORE_MONEY:
        return _while_open(status, invoice, moment)
    if status in _LED_BY_REFUND and not known.mismatches and not _reversed(invoice, known):
        led = known.pending.situation if known.pending is not None else None
        if led is not None:
            return led
    return _ending(status, invoice, known)


def _while_open(status: Status, invoice: objects.Invoice, moment: Moment) -> Situation:
    if moment.time_up:
        return _S.TIME_UP_PARTIAL if status is Status.PARTIALLY_PAID else _S.TIME_UP
    if status in _BEFORE_MONEY:
        return Situation(status.value)
    if not moment.payable:
        return _S.REQUOTING if moment.requoting else _S.NOT_WATCHED
    if any(payment.status == PaymentStatus.ORPHANED.value for payment in invoice.payments):
        return _S.DROPPED
    several = sum(option.amount_detected != "0" for option in invoice.payment_options) > 1
    if status is Status.PARTIALLY_PAID and several:
        return _S.PARTIALLY_PAID_IN_SEVERAL
    return Situation(status.value)


def _ending(status: Status, invoice: objects.Invoice, known: Known) -> Situation:
    match status:
        case Status.PAID:
            at_sight = any(_counts_unmined(payment) for payment in invoice.payments)
            return _S.PAID_AT_SIGHT if at_sight else _S.PAID
        case Status.OVERPAID if known.pending is not None:
            return _S.OVERPAID_RETURNING
        case Status.OVERPAID if known.returned:
            return _S.OVERPAID_RETURNED
        case Status.UNDERPAID if known.withdrawn:
            return _S.UNDERPAID_WITHDRAWN
        case Status.EXPIRED:
            gone = any(_is_gone(payment) for payment in invoice.payments)
            return _S.EXPIRED_DROPPED if gone else _S.EXPIRED
        case Status.LATE_PAID:
            return _S.LATE_WITHDRAWN if known.withdrawn else _LATE[LatePayment(invoice.late_payment)]
        case Status.REVIEW_REQUIRED:
            return _review(invoice, known)
        case _:
            return Situation(status.value)


def _review(invoice: objects.Invoice, known: Known) -> Situation:
    """The cause of a review where there is exactly one."""
    causes = [_REVIEWS[kind] for kind in sorted(known.mismatches)]
    if _reversed(invoice, known):
        causes.append(_S.REVIEW_REVERSED)
    return causes[0] if len(causes) == 1 else _S.REVIEW


def _reversed(invoice: objects.Invoice, known: Known) -> bool:
    """Whether something left the house against a payment that does not stand. A review only: elsewhere it is dealt
    with, or the status says what the rest is worth."""
    if Status(invoice.status) is not Status.REVIEW_REQUIRED or not known.left:
        return False
    matched = [payment for payment in invoice.payments if payment.match == Match.MATCHED.value]
    unsettled = any(payment.status != PaymentStatus.CONFIRMED.value for payment in matched)
    return unsettled if known.mismatches else True


def _is_gone(payment: objects.Payment) -> bool:
    return PaymentStatus(payment.status) in _GONE and payment.match == Match.MATCHED.value


def _counts_unmined(payment: objects.Payment) -> bool:
    return payment.status == PaymentStatus.CONFIRMED.value and payment.block_height is None
