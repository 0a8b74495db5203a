"""Every sentence that a customer reads on the checkout page, in one place.

For: `services.checkout` (words that depend on an invoice's state) and the page's template (labels). Holds true: every
status has words; each says what is, and what the customer does next, without terms of the trade where a plain word
exists; no sentence promises what the system cannot know. `{name}` marks are filled by `str.format` with plain text,
which the page escapes.
Must not: contain markup, or decide which words apply.

English only today. Translation will wrap these sentences with gettext (Babel extracts them from here).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from tallystick.core.invoice import PaymentStatus, Status

LOCALE: Final = "en"


class Phase(StrEnum):
    """What the page shows at a glance: one sign and one colour each."""

    PREPARING = "preparing"
    CHOOSE = "choose"
    WAITING = "waiting"
    PARTIAL = "partial"
    SEEN = "seen"
    CONFIRMING = "confirming"
    COMPLETE = "complete"
    REVIEW = "review"
    PROBLEM = "problem"
    REFUNDED = "refunded"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Words:
    """One state in words: the sign, what is, why, and what to do next."""

    phase: Phase
    headline: str
    text: str
    next_step: str


_COMPLETE: Final = Words(
    Phase.COMPLETE,
    "Payment complete",
    "{merchant} has been told that your payment arrived.",
    "You need not do anything more. Thank you.",
)
_REVIEW: Final = Words(
    Phase.REVIEW,
    "Being reviewed",
    "{merchant} is looking at your payment. What arrived is on record and nothing is lost.",
    "Please do not send anything more. If you hear nothing, contact {merchant}.",
)

STATUS_WORDS: Final = MappingProxyType(
    {
        Status.CREATED: Words(
            Phase.PREPARING,
            "Preparing your payment",
            "The price is being worked out.",
            "One moment please. This page goes on by itself.",
        ),
        Status.QUOTED: Words(
            Phase.CHOOSE,
            "Choose how to pay",
            "Pick a coin, and a network that your wallet can send it on.",
            "The amounts are held for you until the time is over.",
        ),
        Status.AWAITING_PAYMENT: Words(
            Phase.WAITING,
            "Waiting for your payment",
            "Send exactly this amount to this address.",
            "We notice it by ourselves.",
        ),
        Status.DETECTED: Words(
            Phase.SEEN,
            "Payment seen",
            "Your payment is on its way. The network has yet to write it into a block.",
            "You need not do anything. Please do not send it again.",
        ),
        Status.PARTIALLY_PAID: Words(
            Phase.PARTIAL,
            "Part received, send the rest",
            "Send the missing amount to the same address.",
            "We notice it by ourselves.",
        ),
        Status.CONFIRMING: Words(
            Phase.CONFIRMING,
            "Confirming",
            "Your payment arrived and the network is confirming it.",
            "You need not do anything. You may close this page: {merchant} will be told.",
        ),
        Status.PAID: _COMPLETE,
        Status.OVERPAID: Words(
            Phase.COMPLETE,
            "Payment complete",
            "More arrived than was asked. {merchant} has been told and sees the difference.",
            "Contact {merchant} about the amount above the price.",
        ),
        Status.UNDERPAID: Words(
            Phase.PROBLEM,
            "Part received, contact us",
            "The time ended before the full amount arrived. What you sent is on record and nothing is lost.",
            "Please do not send more. Contact {merchant}: they can accept it, ask for the rest or return it.",
        ),
        Status.EXPIRED: Words(
            Phase.CLOSED,
            "Expired",
            "The time to pay ended and nothing arrived in it.",
            "Please do not pay now. Start again at {merchant}. If you did pay, contact them: it is not lost.",
        ),
        Status.LATE_PAID: Words(
            Phase.REVIEW,
            "Received late, being reviewed",
            "Your payment arrived after the time ended. It is on record and nothing is lost.",
            "Please do not send anything more. {merchant} decides what happens next and will contact you.",
        ),
        Status.REVIEW_REQUIRED: _REVIEW,
        Status.DISPUTED: _REVIEW,
        Status.SETTLED: _COMPLETE,
        Status.REFUNDED: Words(
            Phase.REFUNDED,
            "Refunded",
            "Everything that arrived was returned.",
            "You need not do anything. Contact {merchant} with any question.",
        ),
        Status.CANCELED: Words(
            Phase.CLOSED,
            "Canceled",
            "{merchant} has withdrawn this payment request.",
            "Please do not pay. If you did, contact {merchant}: it is on record.",
        ),
    }
)

# The clock has passed the end of the window, but the networks have not been read that far yet (or nobody could pay).
NOT_WATCHED: Final = Words(
    Phase.PROBLEM,
    "This payment cannot be made just now",
    "The network it was asked on is not being watched at the moment.",
    "Please do not send anything. If you already did, it is not lost: tell {merchant}.",
)
TIME_UP: Final = Words(
    Phase.WAITING,
    "The time to pay is over",
    "A payment sent in time still counts. We are checking the network for it.",
    "Please do not pay now. If you already did, stay on this page.",
)
TIME_UP_PARTIAL: Final = Words(
    Phase.PARTIAL,
    "The time to pay is over",
    "Part of the amount arrived. We are checking the network for the rest.",
    "Please do not send more now. If you already did, stay on this page.",
)

# Paying again at once may be paying twice: what a reorganisation dropped is usually mined again.
DROPPED_HEADLINE: Final = "The network dropped a payment"
DROPPED_TEXT: Final = "It mostly comes back by itself within minutes."
DROPPED_NEXT_STEP: Final = "Look in your wallet before you send it again. We notice either by ourselves."

CONFIRMING_COUNT: Final = "Confirming {have} of {need}"
PROGRESS_COUNT: Final = "{have} of {need} confirmations"
PROGRESS_FINALITY: Final = MappingProxyType(
    {
        "safe": "Waiting until the network calls the block safe",
        "finalized": "Waiting until the network calls the block final",
    }
)

WARNING: Final = "Send only {asset} on the {network} network. Another coin or network may not arrive."
RECEIVED: Final = "{amount} {asset} of {expected} {asset} received"

PAYMENT_WORDS: Final = MappingProxyType(
    {
        PaymentStatus.DETECTED: "seen",
        PaymentStatus.CONFIRMING: "confirming",
        PaymentStatus.CONFIRMED: "confirmed",
        PaymentStatus.ORPHANED: "dropped for now",
        PaymentStatus.REPLACED: "replaced by another transaction",
        PaymentStatus.FAILED: "failed",
    }
)
PAYMENT_MISMATCH: Final = "not what was asked"

LABELS: Final = MappingProxyType(
    {
        "title_suffix": "payment",
        "order": "Order",
        "amount_to_pay": "Amount to send",
        "amount_missing": "Missing amount to send",
        "address": "To this address",
        "copy_amount": "Copy amount",
        "copy_address": "Copy address",
        "copy": "Copy",
        "copied": "Copied",
        "copy_failed": "Select and copy",
        "open_wallet": "Open in wallet",
        "qr": "QR code with the address, the network and the amount",
        "on_network": "on",
        "time_left": "left to pay",
        "after_time": "After that, please do not pay: ask the shop for a new request.",
        "pay_with": "Pay with {asset} on {network}",
        "other_way": "Pay another way",
        "token_contract": "Token contract",
        "your_payments": "Your payments",
        "to_shop": "Return to {merchant}",
        "cancel": "Cancel and return to {merchant}",
        "offline": "The connection to this page was lost. It is being restored. Your payment is not affected.",
        "no_script": "This page refreshes itself every few seconds.",
        "footer": "Payments go straight to the shop. Tallystick holds no money.",
        "progress": "Confirmations",
    }
)

NOTICES: Final = MappingProxyType(
    {
        "network_unavailable": "This network cannot be used just now. Please choose another way, or try again soon.",
        "rate_unavailable": "There is no trustworthy price for this coin just now. Please choose another way to pay.",
        "invalid_state": "This way of paying can no longer be chosen. The page shows how things stand now.",
    }
)

NOT_FOUND: Final = Words(
    Phase.CLOSED,
    "No such payment",
    "There is no payment request at this address. The link may be incomplete.",
    "Open the link from the shop again, or ask the shop for a new one. Please do not send anything.",
)
CROSS_SITE: Final = Words(
    Phase.PROBLEM,
    "Please open the payment page itself",
    "The choice was sent from another site, so it was not carried out.",
    "Open the payment link from the shop and choose there.",
)
UNAVAILABLE: Final = Words(
    Phase.PROBLEM,
    "This page is unavailable for a moment",
    "Something is wrong on our side. A payment that you sent is not affected.",
    "This page tries again by itself in a few seconds.",
)
