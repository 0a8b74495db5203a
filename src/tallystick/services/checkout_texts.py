"""The small texts of the checkout page: labels, warnings, notices, and the words for single payments.

For: `services.checkout` and the page's template. What a customer reads about the whole situation stands in
`services.checkout_words`. Holds true: no terms of the trade where a plain word exists; no text promises what the system
cannot know. `{name}` marks are filled by `str.format` with plain text, which the page escapes.
Must not: contain markup, or decide which texts apply.

English only today. Translation will wrap these sentences with gettext (Babel extracts them from here).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from tallystick.core.invoice import Match, PaymentStatus

LOCALE: Final = "en"

CONFIRMING_COUNT: Final = "Confirming {have} of {need}"
PROGRESS_COUNT: Final = "{have} of {need} confirmations"
PROGRESS_FINALITY: Final = MappingProxyType(
    {
        "safe": "Waiting until the network calls it safe",
        "finalized": "Waiting until the network calls it final",
    }
)

WARNING: Final = "Send only {asset} on the {network} network. Another coin or network may not arrive."
RECEIVED: Final = "{amount} {asset} of {expected} {asset} received"
REST_IN_ANOTHER_COIN: Final = "Paid in part with {coins}: this is the rest in {asset}"
ARRIVED_UNKNOWN: Final = "a part"
MISSING_UNKNOWN: Final = "the rest"
AND: Final = " and "
OR: Final = " or "

# An option whose quote ended and was not followed by another one yet.
REQUOTING: Final = (
    "The amount in {asset} is being worked out anew. Please wait until it appears here before you pay; "
    "a payment that was already seen counts at the amount that was shown then."
)

PAYMENT_WORDS: Final = MappingProxyType(
    {
        PaymentStatus.DETECTED: "seen",
        PaymentStatus.CONFIRMING: "confirming",
        PaymentStatus.CONFIRMED: "confirmed",
        PaymentStatus.ORPHANED: "dropped for now",
        PaymentStatus.REPLACED: "replaced by another transaction",
        PaymentStatus.FAILED: "did not go through",
    }
)
MISMATCHES: Final = MappingProxyType(
    {
        Match.WRONG_ASSET: "another coin than asked",
        Match.WRONG_NETWORK: "another network than asked",
        Match.UNATTRIBUTED_VALUE: "being looked at",
        Match.UNSUPPORTED_TOKEN: "unknown to us",
    }
)

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
        "qr": "QR code for your wallet",
        "on_network": "on",
        "time_left": "left to pay",
        "after_time": "After that, please do not pay: ask the shop for a new request.",
        "pay_with": "Pay with {asset} on {network}",
        "other_way": "Pay another way",
        "amount_holds": "left at this amount. Then a new one appears here; a payment seen before counts at this one.",
        "amounts_hold": "left at these amounts. Then new ones appear here.",
        "your_payments": "Your payments",
        "your_refunds": "Your refund",
        "reference": "Reference to give to the shop",
        "copy_reference": "Copy reference",
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
