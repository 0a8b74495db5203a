"""The customer's view of an invoice: everything that the checkout page and its stream hold, named field by field.

For: `services.checkout` (which fills it), the page's template and script, and whoever builds a page of their own on the
stream. Holds true: what is not named here does not reach a customer; fields are added, never renamed or taken away.
Must not: know how a field is found.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class CheckoutProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the confirmation is. `need` is None where the network's own finality decides."""

    have: int
    need: int | None
    text: str


class CheckoutOption(msgspec.Struct, frozen=True, kw_only=True):
    """One way to pay. `amount` is what to send now: the rest, when part arrived. Decimal string in `asset`.

    `quote_seconds_left` counts down to `quote_ends_at`, after which the amount is worked out anew; both are None where
    the amount holds until the end. `requoting_text` is there from then until the new amount is.
    """

    id: str
    asset: str
    network: str
    network_name: str
    token_contract: str | None
    status: str
    amount: str
    amount_expected: str
    received_text: str | None
    address: str | None
    address_parts: tuple[str, str, str] | None
    uri: str | None
    qr_text: str | None
    warning: str
    quote_ends_at: datetime | None = None
    quote_seconds_left: int | None = None
    requoting_text: str | None = None


class CheckoutPayment(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer that arrived, as the customer's own wallet shows it too."""

    tx_hash: str
    amount: str
    asset: str
    network_name: str
    status: str
    text: str


class CheckoutRefund(msgspec.Struct, frozen=True, kw_only=True):
    """One refund: what is sent, how far it is, and its transaction once the chain holds it."""

    amount: str
    asset: str
    network_name: str
    text: str
    tx_hash: str | None


class CustomerView(msgspec.Struct, frozen=True, kw_only=True):
    """The customer's view. `shows` names the parts of the page that apply, `selected` the option to pay by default.

    `situation` is finer than `status` (`services.checkout_situations`). `quote_seconds_left` is the soonest end of an
    amount among the options to choose from.
    """

    id: str
    object: str = "checkout"
    merchant_name: str
    order_id: str | None
    amount: str
    currency: str
    amount_text: str
    status: str
    phase: str
    headline: str
    text: str
    next_step: str
    progress: CheckoutProgress | None
    options: tuple[CheckoutOption, ...]
    selected: str | None
    payments: tuple[CheckoutPayment, ...]
    expires_at: datetime
    seconds_left: int
    refresh_seconds: int
    shows: tuple[str, ...]
    success_url: str | None
    cancel_url: str | None
    cancel_text: str
    success_text: str
    situation: str
    refunds: tuple[CheckoutRefund, ...]
    quote_seconds_left: int | None


def without_clock(view: CustomerView) -> CustomerView:
    """The view without what moves by itself: two views that differ only in the time left are the same."""
    options = tuple(msgspec.structs.replace(option, quote_seconds_left=None) for option in view.options)
    return msgspec.structs.replace(view, options=options, seconds_left=0, quote_seconds_left=None)
