"""What a customer reads about each situation: what is, why, and what to do next.

For: `services.checkout` (the page and its stream), messages without an invoice, and the table of endings in the README.
Holds true: every situation has words of its own; at most two sentences say what is, then comes the next step; no word
of the trade where a plain one exists, no blame, and no promise of what the system cannot know. `{merchant}`,
`{arrived}`, `{missing}` and `{coins}` are filled by `str.format` with plain text, which the page escapes. "The
reference below" is on the page wherever the words send a customer to the merchant.
Must not: contain markup, or decide which words apply (`services.checkout_situations` does).

English only today. Translation will wrap these sentences with gettext (Babel extracts them from here).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from tallystick.services.checkout_situations import Situation

S = Situation


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
    RETURNING = "returning"
    REFUNDED = "refunded"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Words:
    """One situation in words: the sign, what is, why, and what to do next."""

    phase: Phase
    headline: str
    text: str
    next_step: str


_OPEN: Final = {
    S.CREATED: Words(
        Phase.PREPARING,
        "Preparing your payment",
        "The price is being worked out.",
        "One moment please. This page goes on by itself.",
    ),
    S.QUOTED: Words(
        Phase.CHOOSE,
        "Choose how to pay",
        "Pick a coin, and a network that your wallet can send it on.",
        "The amounts are held for you until the time shown is over.",
    ),
    S.AWAITING_PAYMENT: Words(
        Phase.WAITING,
        "Waiting for your payment",
        "Send exactly the amount shown here.",
        "We notice it by ourselves.",
    ),
    S.REQUOTING: Words(
        Phase.WAITING,
        "A new amount is on its way",
        "The amount was held for its time and is now being worked out anew. A payment that was already seen "
        "counts at the amount that was shown then.",
        "Please wait for the new amount before you pay. It appears here by itself.",
    ),
    # Paying again at once may be paying twice: what a reorganisation dropped is usually mined again.
    S.DROPPED: Words(
        Phase.WAITING,
        "The network dropped a payment",
        "It mostly comes back by itself within minutes.",
        "Look in your wallet before you send it again. We notice either by ourselves.",
    ),
    S.NOT_WATCHED: Words(
        Phase.PROBLEM,
        "This payment cannot be made just now",
        "The network it was asked on is not being watched at the moment.",
        "Please do not send anything. If you already did, contact {merchant} and give the reference below.",
    ),
    S.PARTIALLY_PAID: Words(
        Phase.PARTIAL,
        "Part received, send the rest",
        "What you sent counts. Send the missing amount to the same address.",
        "We notice it by ourselves.",
    ),
    S.PARTIALLY_PAID_IN_SEVERAL: Words(
        Phase.PARTIAL,
        "Parts received, send the rest",
        "You paid part in {coins}, and each counts towards the price.",
        "Send what is missing in any one of them. The amount shown is all that is left to pay.",
    ),
    S.TIME_UP: Words(
        Phase.WAITING,
        "The time to pay is over",
        "A payment sent in time still counts. We are checking the network for it.",
        "Please do not pay now. If you already did, stay on this page.",
    ),
    S.TIME_UP_PARTIAL: Words(
        Phase.PARTIAL,
        "The time to pay is over",
        "Part of the amount arrived. We are checking the network for the rest.",
        "Please do not send more now. If you already did, stay on this page.",
    ),
}

_PAID: Final = {
    S.DETECTED: Words(
        Phase.SEEN,
        "Payment seen",
        "Your payment is on its way. The network has yet to record it.",
        "You need not do anything. Please do not send it again.",
    ),
    S.CONFIRMING: Words(
        Phase.CONFIRMING,
        "Confirming",
        "Your payment arrived and the network is confirming it.",
        "You need not do anything. You may close this page: {merchant} will be told.",
    ),
    S.PAID: Words(
        Phase.COMPLETE,
        "Payment complete",
        "{merchant} has been told that your payment arrived.",
        "You need not do anything more. Thank you.",
    ),
    S.PAID_AT_SIGHT: Words(
        Phase.COMPLETE,
        "Payment complete",
        "Your payment was seen, and {merchant} accepts it without waiting for the network.",
        "You need not do anything more. Please do not send it again.",
    ),
    S.OVERPAID: Words(
        Phase.COMPLETE,
        "Payment complete",
        "More arrived than was asked. {merchant} has been told and looks after the difference.",
        "You need not do anything now. To ask about the difference, give {merchant} the reference below.",
    ),
    S.OVERPAID_RETURNING: Words(
        Phase.COMPLETE,
        "Payment complete",
        "More arrived than was asked, and {merchant} is returning the difference.",
        "Your order is paid. How far the refund is stands below.",
    ),
    S.OVERPAID_RETURNED: Words(
        Phase.COMPLETE,
        "Payment complete",
        "More arrived than was asked. What was returned of it stands below.",
        "You need not do anything more. To ask about it, give {merchant} the reference below.",
    ),
    S.SETTLED: Words(
        Phase.COMPLETE,
        "Payment complete",
        "Your payment arrived, and {merchant} has closed its account of it.",
        "Nothing is left to do. Thank you.",
    ),
}

_UNPAID: Final = {
    S.UNDERPAID: Words(
        Phase.PROBLEM,
        "Part received, contact us",
        "The time ended before all of it arrived: {arrived} came, {missing} was missing. What came is on record.",
        "Please do not send more. Contact {merchant} with the reference below: they can accept it, "
        "ask for the rest or return it.",
    ),
    S.UNDERPAID_WITHDRAWN: Words(
        Phase.PROBLEM,
        "Received after it was withdrawn, contact us",
        "{merchant} had withdrawn this request when {arrived} arrived. It is on record.",
        "Please do not send more. Contact {merchant} with the reference below: they can accept or return it.",
    ),
    S.EXPIRED: Words(
        Phase.CLOSED,
        "Expired",
        "The time to pay is over, and no payment was found in it.",
        "Please do not pay now: start again at {merchant}. If you have already paid, keep this page open: "
        "it will be found.",
    ),
    S.EXPIRED_DROPPED: Words(
        Phase.CLOSED,
        "Expired, your payment was dropped",
        "The network dropped your payment, and the time to pay is over. It can still come back by itself.",
        "Please do not send it again: keep this page open, or contact {merchant} with the reference below.",
    ),
    S.CANCELED: Words(
        Phase.CLOSED,
        "Canceled",
        "{merchant} has withdrawn this payment request.",
        "Please do not pay. If you have already paid, keep this page open: it will be found and looked at.",
    ),
}

_LATE: Final = {
    S.LATE_ACCEPTED: Words(
        Phase.CONFIRMING,
        "Received late, will be completed",
        "Your payment arrived after the time ended, and {merchant} takes it all the same. "
        "It is complete once the network has confirmed it.",
        "You need not do anything. Please do not send it again.",
    ),
    S.LATE_REVIEWED: Words(
        Phase.REVIEW,
        "Received late, being reviewed",
        "Your payment arrived after the time ended. It is on record, and {merchant} decides what happens next.",
        "Please do not send anything more. If you hear nothing, give {merchant} the reference below.",
    ),
    S.LATE_REFUNDED: Words(
        Phase.RETURNING,
        "Received late, will be returned",
        "Your payment arrived after the time ended. {merchant} returns late payments.",
        "You will get a link from {merchant} to name the address for the refund. "
        "To ask for it, give them the reference below.",
    ),
    S.LATE_WITHDRAWN: Words(
        Phase.REVIEW,
        "Received after it was withdrawn, being reviewed",
        "Your payment arrived after {merchant} had withdrawn this request. It is on record.",
        "Please do not send anything more. {merchant} can accept or return it: give them the reference below.",
    ),
}

_REVIEW: Final = {
    S.REVIEW: Words(
        Phase.REVIEW,
        "Being reviewed",
        "{merchant} is looking at your payment. What arrived is on record.",
        "Please do not send anything more. If you hear nothing, give {merchant} the reference below.",
    ),
    S.REVIEW_WRONG_ASSET: Words(
        Phase.REVIEW,
        "Another coin arrived, being reviewed",
        "The coin that arrived is not the one that was asked for. It is on record, and {merchant} is looking at it.",
        "Please do not send anything more. {merchant} can accept or return it: give them the reference below.",
    ),
    S.REVIEW_WRONG_NETWORK: Words(
        Phase.REVIEW,
        "Arrived on another network, being reviewed",
        "Your payment came on a network that was not asked for. It was found, and {merchant} is looking at it.",
        "Please do not send anything more. {merchant} can accept or return it: give them the reference below.",
    ),
    S.REVIEW_VALUE: Words(
        Phase.REVIEW,
        "Something arrived, being reviewed",
        "A payment came in a way that takes a closer look, as when an app or an exchange sends it for you. "
        "It is on record, and {merchant} is looking at it.",
        "Please do not send it again. To help, give {merchant} the reference below and say how you sent it.",
    ),
    S.REVIEW_REVERSED: Words(
        Phase.REVIEW,
        "The network took a payment back",
        "A payment that had arrived is not there any more. This happens on networks now and then, and "
        "{merchant} is looking at it.",
        "Please do not send it again before {merchant} asks you to. Give them the reference below.",
    ),
    S.DISPUTED: Words(
        Phase.REVIEW,
        "A question is open, being reviewed",
        "There is an open question about this payment, and {merchant} is looking at it.",
        "You need not send anything. To add to it, give {merchant} the reference below.",
    ),
}

_REFUND: Final = {
    S.REFUND_ADDRESS: Words(
        Phase.RETURNING,
        "Refund: an address is needed",
        "{merchant} is arranging your refund, and needs to know where to send it.",
        "You will get a link from {merchant}: open it and enter your address. "
        "To ask for it, give them the reference below.",
    ),
    S.REFUND_PREPARED: Words(
        Phase.RETURNING,
        "Refund being prepared",
        "{merchant} is preparing your refund. It goes to the address that was named for it.",
        "You need not do anything. This page shows when it was sent.",
    ),
    S.REFUND_SENT: Words(
        Phase.RETURNING,
        "Refund on its way",
        "Your refund was sent. The network has yet to record it.",
        "You need not do anything. This page shows when it has arrived.",
    ),
    S.REFUND_CONFIRMING: Words(
        Phase.RETURNING,
        "Refund being confirmed",
        "Your refund arrived and the network is confirming it.",
        "You need not do anything. Your wallet should show it already.",
    ),
    S.REFUND_ATTENTION: Words(
        Phase.REVIEW,
        "Refund being looked at",
        "Your refund takes longer than usual, and {merchant} is looking at it.",
        "You need not do anything. If you hear nothing, give {merchant} the reference below.",
    ),
    S.REFUNDED: Words(
        Phase.REFUNDED,
        "Refunded",
        "Everything that arrived was returned.",
        "Look for it at the address that was named for the refund. With any question, "
        "give {merchant} the reference below.",
    ),
}

WORDS: Final[Mapping[Situation, Words]] = MappingProxyType(
    _OPEN | _PAID | _UNPAID | _LATE | _REVIEW | _REFUND
)

REFUND_WORDS: Final[Mapping[Situation, str]] = MappingProxyType(
    {
        S.REFUND_ADDRESS: "waiting for your address",
        S.REFUND_PREPARED: "being prepared",
        S.REFUND_SENT: "on its way",
        S.REFUND_CONFIRMING: "being confirmed",
        S.REFUND_ATTENTION: "being looked at",
        S.REFUNDED: "returned",
    }
)
"""One refund in the page's list of them."""

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
    "Something does not work on our side. A payment that you sent is not affected.",
    "This page tries again by itself in a few seconds.",
)
