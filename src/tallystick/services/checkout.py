"""What a customer may see of an invoice, ready to be shown.

For: the checkout page and its stream. Holds true: the view is a pure function of the public invoice, of what
`checkout_situations` knows beside it, of the merchant's name and the time; it names everything it shows, so nothing of
the invoice reaches a customer by accident (no metadata, no customer data, no policies, no wallet, no exceptions, no
notes, no refund's id or address). An address and a payment URI are in it only while money is asked for at an amount
that holds, so that neither a finished page nor an outdated amount can be paid. `success_url` is in it only when the
payment is complete.
Must not: decide a state (that is `core.assess`), or contain markup.
"""

from __future__ import annotations

import decimal
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from babel.numbers import format_currency, get_currency_precision

from tallystick.chains.families import FAMILIES
from tallystick.core.invoice import LatePayment, Match, OptionStatus, PaymentStatus, Status
from tallystick.core.money import AMOUNT_TEXT_LENGTH_MAX, fiat_decimals, format_units
from tallystick.core.network import Network
from tallystick.db.sql import Connection, load
from tallystick.services import checkout_texts as texts
from tallystick.services import objects
from tallystick.services.checkout_situations import Known, Moment, RefundSeen, Situation, known_of, situation
from tallystick.services.checkout_view import (
    CheckoutOption,
    CheckoutPayment,
    CheckoutProgress,
    CheckoutRefund,
    CustomerView,
)
from tallystick.services.checkout_words import REFUND_WORDS, WORDS, Phase
from tallystick.services.context import Context
from tallystick.services.invoices import Looked, load_public

SQL: Final = load("checkout")

PAYMENTS_SHOWN_MAX: Final = 10
REFUNDS_SHOWN_MAX: Final = 5
NAME_LENGTH_MAX: Final = 40

REFRESH_SECONDS_MOVING: Final = 10
REFRESH_SECONDS_RESTING: Final = 60

_TURNING: Final = frozenset({"R", "AL", "AN", "RLE", "RLO", "LRE", "LRO", "PDF", "RLI", "LRI", "FSI", "PDI"})

_PAYABLE: Final = frozenset({Status.AWAITING_PAYMENT, Status.PARTIALLY_PAID})
_OPEN: Final = frozenset({Status.CREATED, Status.QUOTED}) | _PAYABLE
_ON_ITS_WAY: Final = frozenset({Status.DETECTED, Status.CONFIRMING})
_COMPLETE: Final = frozenset({Status.PAID, Status.OVERPAID, Status.SETTLED})
_CANCELABLE: Final = frozenset({Status.CREATED, Status.QUOTED, Status.AWAITING_PAYMENT})
_ENDED_UNPAID: Final = frozenset({Status.EXPIRED, Status.CANCELED})
_ENDED: Final = frozenset(
    {Phase.COMPLETE, Phase.REVIEW, Phase.PROBLEM, Phase.RETURNING, Phase.REFUNDED, Phase.CLOSED}
)


async def customer_view(connection: Connection, ctx: Context, invoice_id: str) -> CustomerView:
    """The customer's view of an invoice, whoever's it is: knowing the id is the right to look. Raises NotFound."""
    looked, merchant_name = await load_public(connection, ctx, invoice_id)
    refunds = await _refunds_seen(connection, looked) if looked.stored.refunds else ()
    known = known_of(looked.stored, looked.judged, refunds)
    return build_view(
        looked.shown, merchant_name=merchant_name, networks=ctx.networks, now=ctx.now(), known=known
    )


async def _refunds_seen(connection: Connection, looked: Looked) -> tuple[RefundSeen, ...]:
    """The refunds as their customer may see them, each with the status that is true now."""
    status = {verdict.refund_id: verdict.status for verdict in looked.judged.refunds}
    rows = await SQL.refunds_of.all(connection, invoice_id=looked.stored.id)
    return tuple(
        RefundSeen(
            status=status[row["id"]],
            has_address=row["has_address"],
            amount=format_units(int(row["amount_sent"]), row["asset_decimals"]),
            asset=row["asset_symbol"],
            network=row["network"],
            tx_hash=row["tx_hash"],
        )
        for row in rows
        if row["id"] in status
    )


def build_view(
    invoice: objects.Invoice,
    *,
    merchant_name: str,
    networks: Mapping[str, Network],
    now: datetime,
    known: Known = Known(),  # noqa: B008  # frozen
) -> CustomerView:
    """Make the view. `now` is our clock, aware; it only decides which times are over."""
    status = Status(invoice.status)
    time_up = status in _OPEN and now >= invoice.expires_at
    options = tuple(
        _option(option, invoice, networks, time_up=time_up, now=now) for option in invoice.payment_options
    )
    moment = Moment(
        time_up=time_up,
        payable=any(option.address is not None for option in options),
        requoting=any(option.requoting_text is not None for option in options),
    )
    found = situation(invoice, known, moment)
    progress = _progress(invoice, known)
    payments = _payments(invoice.payments, networks)
    refunds = _refunds(known, networks)
    spoken = name_in_sentence(merchant_name)
    headline, text, next_step = _sentences(found, invoice, progress, spoken)
    cancelable = status in _CANCELABLE and not time_up
    return CustomerView(
        id=invoice.id,
        merchant_name=merchant_name,
        order_id=invoice.order_id,
        amount=invoice.amount,
        currency=invoice.currency,
        amount_text=price_text(invoice.amount, invoice.currency),
        status=status.value,
        phase=WORDS[found].phase.value,
        headline=headline,
        text=text,
        next_step=next_step,
        progress=progress,
        options=options,
        selected=_selected(invoice.payment_options),
        payments=payments,
        expires_at=invoice.expires_at,
        seconds_left=max(0, int((invoice.expires_at - now).total_seconds())),
        refresh_seconds=REFRESH_SECONDS_MOVING if status in _OPEN | _ON_ITS_WAY else REFRESH_SECONDS_RESTING,
        shows=_shows(found, options, payments, refunds, progress),
        success_url=_web_link(invoice.success_url if status in _COMPLETE else None),
        cancel_url=_web_link(invoice.cancel_url if status in _CANCELABLE | _ENDED_UNPAID else None),
        cancel_text=texts.LABELS["cancel" if cancelable else "to_shop"].format(merchant=spoken),
        success_text=texts.LABELS["to_shop"].format(merchant=spoken),
        situation=found.value,
        refunds=refunds,
        quote_seconds_left=min(
            (one.quote_seconds_left for one in options if one.quote_seconds_left is not None), default=None
        ),
    )


def network_name(name: str, networks: Mapping[str, Network]) -> str:
    """The name customers know a configured network by."""
    network = networks.get(name)
    title = None if network is None else FAMILIES[network.family].title(network)
    return title or name.replace("_", " ").replace("-", " ").title()


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


def _sentences(
    found: Situation, invoice: objects.Invoice, progress: CheckoutProgress | None, spoken: str
) -> tuple[str, str, str]:
    """Headline, text and next step, filled in."""
    words = WORDS[found]
    paid = _paid_to(invoice)
    arrived = texts.AND.join(f"{option.amount_detected} {option.asset}" for option in paid)
    missing = texts.OR.join(f"{one.amount_due} {one.asset}" for one in paid if one.amount_due != "0")
    filling = {
        "merchant": spoken,
        "arrived": arrived or texts.ARRIVED_UNKNOWN,
        "missing": missing or texts.MISSING_UNKNOWN,
        "coins": _coins(paid),
    }
    headline = words.headline
    if found is Situation.CONFIRMING and progress is not None and progress.need is not None:
        headline = texts.CONFIRMING_COUNT.format(have=progress.have, need=progress.need)
    return headline, words.text.format(**filling), words.next_step.format(**filling)


def _paid_to(invoice: objects.Invoice) -> list[objects.PaymentOption]:
    """The options that money came to."""
    return [option for option in invoice.payment_options if option.amount_detected != "0"]


def _coins(options: Sequence[objects.PaymentOption]) -> str:
    """The assets of these options, each once."""
    return texts.AND.join(dict.fromkeys(option.asset for option in options))


def _option(
    option: objects.PaymentOption,
    invoice: objects.Invoice,
    networks: Mapping[str, Network],
    *,
    time_up: bool,
    now: datetime,
) -> CheckoutOption:
    name = network_name(option.network, networks)
    status = Status(invoice.status)
    # Nobody watches a network that left the configuration: nobody is invited to pay there.
    watched = option.network in networks
    asked = status in _PAYABLE and not time_up and option.status == OptionStatus.ACTIVE.value and watched
    holds_until = option.rate.expires_at if option.rate.expires_at < invoice.expires_at else None
    requoting = asked and holds_until is not None and now >= holds_until
    payable = asked and not requoting
    address = option.address if payable else None
    choosing = status is Status.QUOTED and not time_up
    counts_down = holds_until is not None and now < holds_until and (payable or choosing)
    return CheckoutOption(
        id=option.id,
        asset=option.asset,
        network=option.network,
        network_name=name,
        token_contract=option.token_contract,
        status=option.status,
        amount=option.amount_due if option.amount_due != "0" else option.amount_expected,
        amount_expected=option.amount_expected,
        received_text=_received_text(option, invoice) if status is Status.PARTIALLY_PAID else None,
        address=address,
        address_parts=(address[:6], address[6:-6], address[-6:]) if address is not None else None,
        uri=option.uri if payable else None,
        qr_text=_qr_text(option, networks[option.network]) if payable else None,
        warning=texts.WARNING.format(asset=option.asset, network=name),
        quote_ends_at=holds_until if counts_down else None,
        quote_seconds_left=(
            int((holds_until - now).total_seconds()) if counts_down and holds_until is not None else None
        ),
        requoting_text=texts.REQUOTING.format(asset=option.asset) if requoting else None,
    )


def _qr_text(option: objects.PaymentOption, network: Network) -> str | None:
    if option.uri is None or option.address is None:
        return None
    return FAMILIES[network.family].qr_text(option.uri, option.address)


def _received_text(option: objects.PaymentOption, invoice: objects.Invoice) -> str | None:
    """What came by this option, or that its amount is the rest of a price paid in part with another coin."""
    others = [one for one in _paid_to(invoice) if one.id != option.id]
    if others:
        return texts.REST_IN_ANOTHER_COIN.format(coins=_coins(_paid_to(invoice)), asset=option.asset)
    if option.amount_detected == "0":
        return None
    return texts.RECEIVED.format(
        amount=option.amount_detected, asset=option.asset, expected=option.amount_expected
    )


def _selected(options: list[objects.PaymentOption]) -> str | None:
    """The option a fresh page shows: the one that money came to, else the first with an address."""
    active = [option for option in options if option.address is not None]
    paid = [option for option in active if option.amount_detected != "0"]
    return next((option.id for option in (*paid, *active)), None)


def _progress(invoice: objects.Invoice, known: Known) -> CheckoutProgress | None:
    """The least advanced of the options that money came to."""
    paid = _paid_to(invoice)
    status = Status(invoice.status)
    accepted = invoice.late_payment == LatePayment.ACCEPT.value and not known.withdrawn
    late = status is Status.LATE_PAID and accepted and known.pending is None
    if not paid or not (late or status in _ON_ITS_WAY):
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
                else texts.MISMATCHES[Match(payment.match)]
            ),
        )
        for payment in known[-PAYMENTS_SHOWN_MAX:]
    )


def _refunds(known: Known, networks: Mapping[str, Network]) -> tuple[CheckoutRefund, ...]:
    """The newest refunds, except those that were refused or given up."""
    shown = [(refund, refund.situation) for refund in known.refunds]
    return tuple(
        CheckoutRefund(
            amount=refund.amount,
            asset=refund.asset,
            network_name=network_name(refund.network, networks),
            text=REFUND_WORDS[found],
            tx_hash=refund.tx_hash,
        )
        for refund, found in shown
        if found is not None
    )[-REFUNDS_SHOWN_MAX:]


def _shows(
    found: Situation,
    options: tuple[CheckoutOption, ...],
    payments: tuple[CheckoutPayment, ...],
    refunds: tuple[CheckoutRefund, ...],
    progress: CheckoutProgress | None,
) -> tuple[str, ...]:
    """Which parts of the page apply now."""
    pay = any(option.address is not None for option in options)
    asked = pay or found is Situation.REQUOTING
    choose = found is Situation.QUOTED
    quoted_again = any(option.quote_seconds_left is not None for option in options)
    parts = {
        "choose": choose,
        "pay": pay,
        "others": asked and len(options) > 1,
        "countdown": asked or choose or found in (Situation.CREATED, Situation.NOT_WATCHED),
        "quotes": choose and quoted_again,
        "progress": progress is not None,
        "payments": bool(payments),
        "refunds": bool(refunds),
        "reference": WORDS[found].phase in _ENDED,
    }
    return tuple(name for name, applies in parts.items() if applies)


def _web_link(url: str | None) -> str | None:
    """A link the page may carry. Checked when the invoice was made; checked again because it becomes a link here."""
    return url if url is not None and url.startswith(("https://", "http://")) else None
