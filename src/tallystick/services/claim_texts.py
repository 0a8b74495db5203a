"""Every sentence of the claim page, on which a customer says where a refund is to go, in one place.

For: `services.claiming` and the page's template. Holds true: every status of a refund has words; they say what is and
what the customer does next, in plain words; nothing promises what the system cannot know. `{name}` marks are filled by
`str.format` with plain text, which the page escapes. Must not: contain markup, or show the merchant's own notes.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from tallystick.core.refund import RefundStatus
from tallystick.services.checkout_words import Phase, Words

ASK: Final = Words(
    Phase.CHOOSE,
    "Where should your refund go?",
    "{merchant} returns {amount} {asset} to you, on the {network} network.",
    "Give the address of a wallet that is yours and can receive {asset} on {network}.",
)
SURE: Final = Words(
    Phase.CHOOSE,
    "Is this your address?",
    "{amount} {asset} will be sent there on the {network} network. It cannot be taken back.",
    "Compare it with your wallet, sign by sign. After you confirm, it cannot be changed here.",
)
EXPIRED: Final = Words(
    Phase.CLOSED,
    "This link has expired",
    "Your refund is not lost. Links to this page work for some days only.",
    "Ask {merchant} for a new link.",
)

_REVIEW: Final = Words(
    Phase.REVIEW,
    "Being reviewed",
    "{merchant} is looking at this refund. Your address is on record.",
    "You need not do anything. If you hear nothing, contact {merchant}.",
)

STATUS_WORDS: Final = MappingProxyType(
    {
        RefundStatus.REQUESTED: Words(
            Phase.WAITING,
            "Address saved",
            "{merchant} has yet to approve the refund.",
            "You need not do anything. This page shows how things stand whenever you open it.",
        ),
        RefundStatus.APPROVED: Words(
            Phase.WAITING,
            "Refund approved",
            "{merchant} will send it.",
            "You need not do anything. This page shows how things stand whenever you open it.",
        ),
        RefundStatus.AWAITING_SIGNATURE: Words(
            Phase.WAITING,
            "Refund approved",
            "{merchant} will send it to your address.",
            "You need not do anything. This page shows how things stand whenever you open it.",
        ),
        RefundStatus.BROADCAST: Words(
            Phase.SEEN,
            "On its way",
            "{merchant} says that the refund was sent. The network has yet to write it into a block.",
            "You need not do anything.",
        ),
        RefundStatus.CONFIRMING: Words(
            Phase.CONFIRMING,
            "Arriving",
            "The refund is in a block and the network is confirming it.",
            "You need not do anything. Your wallet may show it already.",
        ),
        RefundStatus.COMPLETED: Words(
            Phase.REFUNDED,
            "Refunded",
            "{amount} {asset} were sent to your address.",
            "Look in your wallet. Contact {merchant} with any question.",
        ),
        RefundStatus.REJECTED: Words(
            Phase.CLOSED,
            "Refund not approved",
            "{merchant} decided not to make this refund.",
            "Contact {merchant} with any question.",
        ),
        RefundStatus.FAILED: Words(
            Phase.REVIEW,
            "This refund was stopped",
            "It was not completed. What you paid is on record and nothing is lost.",
            "Contact {merchant}: they decide what happens next.",
        ),
        RefundStatus.NEEDS_ATTENTION: _REVIEW,
    }
)

NOT_FOUND: Final = Words(
    Phase.CLOSED,
    "No such refund",
    "There is no refund behind this link. It may be incomplete, or a newer one has taken its place.",
    "Open the newest link from the shop again, or ask the shop for one.",
)
CROSS_SITE: Final = Words(
    Phase.PROBLEM,
    "Please open the refund page itself",
    "The form was sent from another site, so nothing was changed.",
    "Open the link from the shop and use the form there.",
)
TOO_MANY: Final = Words(
    Phase.PROBLEM,
    "Too many requests",
    "This page was asked for very often in a short time.",
    "Please wait a minute and open the link again. Nothing is lost.",
)
UNAVAILABLE: Final = Words(
    Phase.PROBLEM,
    "This page is unavailable for a moment",
    "Something is wrong on our side. Your refund is not affected.",
    "This page tries again by itself in a few seconds.",
)

LABELS: Final = MappingProxyType(
    {
        "order": "Order",
        "footer": "Refunds come straight from the shop. Tallystick holds no money.",
        "address": "Your address on {network}",
        "address_hint": "Copy it from your wallet. Never type it from memory.",
        "warning_network": (
            "Only an address on the {network} network that can receive {asset}. On another network the money is lost."
        ),
        "warning_sender": (
            "If you paid from an exchange, do not use the address that the payment came from: it belongs to the "
            "exchange. Ask it for your own deposit address for {asset} on {network}, or use your own wallet."
        ),
        "is_sender": (
            "This is the address that your payment came from. If you paid from an exchange, it is not yours: money "
            "sent there may be lost. Go on only if you hold the key of this address."
        ),
        "no_checksum": (
            "This address was given without capital letters, so a typing error cannot be noticed. Compare it with care."
        ),
        "go_on": "Go on",
        "confirm": "Confirm this address",
        "sure": "I have compared it with my wallet, and it is mine.",
        "sure_missing": "Please compare the address and tick the box.",
        "change": "Change it",
        "sent_to": "Goes to",
        "amount": "You get",
        "fee_kept": "{fee} {asset} of {whole} {asset} are kept back for the network's fee.",
        "transaction": "Transaction",
        "confirmations": "{have} of {need} confirmations",
        "refresh": "Look again",
    }
)
