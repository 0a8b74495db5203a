"""What a customer may see of an invoice, ready to be shown.

For: the checkout page and its stream. Holds true: the view is a pure function of the public invoice, the merchant's
name and the time; it names everything it shows, so nothing of the invoice reaches a customer by accident (no metadata,
no customer data, no policies, no wallet). An address and a payment URI are in it only while money is asked for, so that
a finished page cannot be paid again. `success_url` is in it only when the payment is complete.
Must not: decide a state (that is `core.assess`), or contain markup.
"""

from __future__ import annotations

import decimal
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec
from babel.numbers import format_currency, get_currency_precision

from tallystick.core.invoice import Match, OptionStatus, PaymentStatus, Status
from tallystick.core.money import AMOUNT_TEXT_LENGTH_MAX, fiat_decimals
from tallystick.core.network import Network
from tallystick.db.sql import Connection
from tallystick.services import checkout_texts as texts
from tallystick.services import objects
from tallystick.services.context import Context
from tallystick.services.invoices import load_public

PAYMENTS_SHOWN_MAX: Final = 10
NAME_LENGTH_MAX: Final = 40

REFRESH_SECONDS_MOVING: Final = 10
REFRESH_SECONDS_RESTING: Final = 60

# Names that customers know, by EVM chain id. A network that is not here goes by its configured name.
EVM_NAMES: Final[Mapping[str, str]] = {
    "1": "Ethereum",
    "10": "OP Mainnet",
    "56": "BNB Smart Chain",
    "100": "Gnosis",
    "137": "Polygon",
    "8453": "Base",
    "42161": "Arbitrum One",
    "43114": "Avalanche C-Chain",
    "11155111": "Sepolia (test network)",
}

_TURNING: Final = frozenset({"R", "AL", "AN", "RLE", "RLO", "LRE", "LRO", "PDF", "RLI", "LRI", "FSI", "PDI"})

_PAYABLE: Final = frozenset({Status.AWAITING_PAYMENT, Status.PARTIALLY_PAID})
_OPEN: Final = frozenset({Status.CREATED, Status.QUOTED}) | _PAYABLE
_ON_ITS_WAY: Final = frozenset({Status.DETECTED, Status.CONFIRMING})
_COMPLETE: Final = frozenset({Status.PAID, Status.OVERPAID, Status.SETTLED})
_CANCELABLE: Final = frozenset({Status.CREATED, Status.QUOTED, Status.AWAITING_PAYMENT})
_ENDED_UNPAID: Final = frozenset({Status.EXPIRED, Status.CANCELED})


class CheckoutProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the confirmation is. `need` is None where the network's own finality decides."""

    have: int
    need: int | None
    text: str


class CheckoutOption(msgspec.Struct, frozen=True, kw_only=True):
    """One way to pay. `amount` is what to send now: the rest, when part arrived. Decimal string in `asset`."""

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
    warning: str


class CheckoutPayment(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer that arrived, as the customer's own wallet shows it too."""

    tx_hash: str
    amount: str
    asset: str
    network_name: str
    status: str
    text: str


class CustomerView(msgspec.Struct, frozen=True, kw_only=True):
    """The customer's view. `shows` names the parts of the page that apply, `selected` the option to pay by default."""

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


async def customer_view(connection: Connection, ctx: Context, invoice_id: str) -> CustomerView:
    """The customer's view of an invoice, whoever's it is: knowing the id is the right to look. Raises NotFound."""
    invoice, merchant_name = await load_public(connection, ctx, invoice_id)
    return build_view(invoice, merchant_name=merchant_name, networks=ctx.networks, now=ctx.now())


def build_view(
    invoice: objects.Invoice, *, merchant_name: str, networks: Mapping[str, Network], now: datetime
) -> CustomerView:
    """Make the view. `now` is our clock, aware; it only decides whether the time to pay is over."""
    status = Status(invoice.status)
    seconds_left = max(0, int((invoice.expires_at - now).total_seconds()))
    time_up = status in _OPEN and now >= invoice.expires_at
    options = tuple(
        _option(option, networks, status=status, time_up=time_up) for option in invoice.payment_options
    )
    selected = _selected(invoice.payment_options)
    progress = _progress(invoice.payment_options, status)
    payments = _payments(invoice.payments, networks)
    dropped = any(payment.status == PaymentStatus.ORPHANED for payment in payments)
    payable = any(option.address is not None for option in options)
    words = _words(status, progress, time_up=time_up, dropped=dropped, payable=payable)
    success_url = invoice.success_url if status in _COMPLETE else None
    cancel_url = invoice.cancel_url if status in _CANCELABLE | _ENDED_UNPAID else None
    spoken = name_in_sentence(merchant_name)
    return CustomerView(
        id=invoice.id,
        merchant_name=merchant_name,
        order_id=invoice.order_id,
        amount=invoice.amount,
        currency=invoice.currency,
        amount_text=price_text(invoice.amount, invoice.currency),
        status=status.value,
        phase=words.phase.value,
        headline=words.headline,
        text=words.text.format(merchant=spoken),
        next_step=words.next_step.format(merchant=spoken),
        progress=progress,
        options=options,
        selected=selected,
        payments=payments,
        expires_at=invoice.expires_at,
        seconds_left=seconds_left,
        refresh_seconds=REFRESH_SECONDS_MOVING if status in _OPEN | _ON_ITS_WAY else REFRESH_SECONDS_RESTING,
        shows=_shows(status, options, payments, time_up=time_up, progress=progress),
        success_url=_web_link(success_url),
        cancel_url=_web_link(cancel_url),
        cancel_text=texts.LABELS["cancel" if status in _CANCELABLE and not time_up else "to_shop"].format(
            merchant=spoken
        ),
        success_text=texts.LABELS["to_shop"].format(merchant=spoken),
    )


def network_name(name: str, networks: Mapping[str, Network]) -> str:
    """The name customers know a configured network by."""
    network = networks.get(name)
    if network is not None and network.family == "evm" and network.chain in EVM_NAMES:
        return EVM_NAMES[network.chain]
    return name.replace("_", " ").replace("-", " ").title()


def name_in_sentence(name: str) -> str:
    """A merchant's name inside a sentence: shortened where it would drown it, and kept from turning its direction.

    The isolate (U+2068, U+2069) is what Unicode's bidirectional algorithm (UAX 9, section 2.4.2) has for this.
    """
    short = name if len(name) <= NAME_LENGTH_MAX else name[: NAME_LENGTH_MAX - 1].rstrip() + "…"
    turns = any(unicodedata.bidirectional(character) in _TURNING for character in short)
    return f"\u2068{short}\u2069" if turns else short


def price_text(amount: str, currency: str) -> str:
    """A price as people write it: fiat by the locale's rules, an asset as number and symbol. Exact, never rounded."""
    decimals = fiat_decimals(currency)
    # Where the locale's data has fewer decimals than ISO 4217, it would round: then the number is shown as it is.
    if decimals is None or get_currency_precision(currency) != decimals:
        return f"{amount} {currency}"
    with decimal.localcontext(decimal.Context(prec=2 * AMOUNT_TEXT_LENGTH_MAX)):
        return str(format_currency(Decimal(amount), currency, locale=texts.LOCALE))


def _words(
    status: Status, progress: CheckoutProgress | None, *, time_up: bool, dropped: bool, payable: bool
) -> texts.Words:
    if time_up:
        return texts.TIME_UP_PARTIAL if status is Status.PARTIALLY_PAID else texts.TIME_UP
    if status in _PAYABLE and not payable:
        return texts.NOT_WATCHED
    words = texts.STATUS_WORDS[status]
    if status in _PAYABLE and dropped:
        return texts.Words(words.phase, texts.DROPPED_HEADLINE, texts.DROPPED_TEXT, texts.DROPPED_NEXT_STEP)
    if status is Status.CONFIRMING and progress is not None and progress.need is not None:
        headline = texts.CONFIRMING_COUNT.format(have=progress.have, need=progress.need)
        return texts.Words(words.phase, headline, words.text, words.next_step)
    return words


def _option(
    option: objects.PaymentOption,
    networks: Mapping[str, Network],
    *,
    status: Status,
    time_up: bool,
) -> CheckoutOption:
    name = network_name(option.network, networks)
    # Nobody watches a network that left the configuration: nobody is invited to pay there.
    watched = option.network in networks
    asked = status in _PAYABLE and not time_up and option.status == OptionStatus.ACTIVE.value and watched
    address = option.address if asked else None
    received = None
    if status is Status.PARTIALLY_PAID and option.amount_detected != "0":
        received = texts.RECEIVED.format(
            amount=option.amount_detected, asset=option.asset, expected=option.amount_expected
        )
    return CheckoutOption(
        id=option.id,
        asset=option.asset,
        network=option.network,
        network_name=name,
        token_contract=option.token_contract,
        status=option.status,
        amount=option.amount_due if option.amount_due != "0" else option.amount_expected,
        amount_expected=option.amount_expected,
        received_text=received,
        address=address,
        address_parts=(address[:6], address[6:-6], address[-6:]) if address is not None else None,
        uri=option.uri if asked else None,
        warning=texts.WARNING.format(asset=option.asset, network=name),
    )


def _selected(options: list[objects.PaymentOption]) -> str | None:
    """The option a fresh page shows: the one that money came to, else the first with an address."""
    active = [option for option in options if option.address is not None]
    paid = [option for option in active if option.amount_detected != "0"]
    return next((option.id for option in (*paid, *active)), None)


def _progress(options: list[objects.PaymentOption], status: Status) -> CheckoutProgress | None:
    """The least advanced of the options that money came to."""
    paid = [option for option in options if option.amount_detected != "0"]
    if status not in _ON_ITS_WAY or not paid:
        return None
    by_finality = next((option for option in paid if option.confirmations_required is None), None)
    if by_finality is not None:
        text = texts.PROGRESS_FINALITY.get(by_finality.finality, by_finality.finality)
        return CheckoutProgress(have=by_finality.confirmations, need=None, text=text)
    needs = {option.id: option.confirmations_required or 1 for option in paid}
    slowest = max(paid, key=lambda option: needs[option.id] - option.confirmations)
    need = needs[slowest.id]
    have = min(slowest.confirmations, need)
    return CheckoutProgress(have=have, need=need, text=texts.PROGRESS_COUNT.format(have=have, need=need))


def _payments(
    payments: list[objects.Payment], networks: Mapping[str, Network]
) -> tuple[CheckoutPayment, ...]:
    """The newest transfers. Unknown tokens are left out: anyone can send junk, and its name may be bait."""
    known = [payment for payment in payments if payment.asset is not None]
    return tuple(
        CheckoutPayment(
            tx_hash=payment.tx_hash,
            amount=payment.amount,
            asset=payment.asset or "",
            network_name=network_name(payment.network, networks),
            status=payment.status,
            text=(
                texts.PAYMENT_WORDS[PaymentStatus(payment.status)]
                if payment.match == Match.MATCHED.value
                else texts.PAYMENT_MISMATCH
            ),
        )
        for payment in known[-PAYMENTS_SHOWN_MAX:]
    )


def _shows(
    status: Status,
    options: tuple[CheckoutOption, ...],
    payments: tuple[CheckoutPayment, ...],
    *,
    time_up: bool,
    progress: CheckoutProgress | None,
) -> tuple[str, ...]:
    """Which parts of the page apply now."""
    pay = any(option.address is not None for option in options)
    parts = {
        "choose": status is Status.QUOTED and not time_up,
        "pay": pay,
        "others": pay and len(options) > 1,
        "countdown": status in _OPEN and not time_up,
        "progress": progress is not None,
        "payments": bool(payments),
    }
    return tuple(name for name, applies in parts.items() if applies)


def _web_link(url: str | None) -> str | None:
    """A link the page may carry. Checked when the invoice was made; checked again because it becomes a link here."""
    return url if url is not None and url.startswith(("https://", "http://")) else None
