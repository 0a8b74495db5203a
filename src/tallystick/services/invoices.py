"""Invoices: create, read, list, activate an option, cancel, record fulfilment.

For: the API, the checkout page and the command line. Holds true: each function does one thing inside the caller's
transaction; every state change goes through `services.assessing`; an object of another merchant does not exist.
Must not: write a status, or know HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from tallystick.chains.families import FAMILIES
from tallystick.core.assess import Assessment, assess
from tallystick.core.chain import NetworkView
from tallystick.core.errors import Conflict, InvalidInput, NetworkUnavailable, NotFound
from tallystick.core.ids import IdKind
from tallystick.core.invoice import (
    Decisions,
    InvoiceTerms,
    LatePayment,
    OptionStatus,
    OptionTerms,
    Status,
)
from tallystick.core.money import Price
from tallystick.core.policy import Applied
from tallystick.db import invoice_writes as writes
from tallystick.db import invoices as store
from tallystick.db.merchants import MerchantSettings, merchant_settings
from tallystick.db.networks import read_views, share_networks
from tallystick.db.sql import Connection
from tallystick.services import objects, policies, quoting, requoting
from tallystick.services.assessing import Cause, CauseKind, Changes, assess_invoices, decide, first_step
from tallystick.services.context import Actor, Context
from tallystick.services.events import publish
from tallystick.services.issuing import allocate, issuing_wallets, require_available
from tallystick.services.paging import Page, page_of
from tallystick.services.presenting import invoice_object, transition_object

EXPIRES_IN_SECONDS_MIN: Final = 10
EXPIRES_IN_SECONDS_MAX: Final = 30 * 24 * 3600

_OPEN: Final = frozenset(
    {
        Status.CREATED,
        Status.QUOTED,
        Status.AWAITING_PAYMENT,
        Status.DETECTED,
        Status.PARTIALLY_PAID,
        Status.REVIEW_REQUIRED,
    }
)
_CANCELABLE: Final = (Status.CREATED, Status.QUOTED, Status.AWAITING_PAYMENT)
_FULFILLABLE: Final = (Status.PAID, Status.OVERPAID, Status.SETTLED)

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class NewInvoice:
    """What a merchant asks for. `accepted` holds (asset symbol, network name) pairs; None is all there is a wallet
    for."""

    amount: str
    currency: str
    accepted: tuple[tuple[str, str], ...] | None = None
    order_id: str | None = None
    customer: Mapping[str, Any] = field(default_factory=dict)
    product_type: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    expires_in_seconds: int = 900
    success_url: str | None = None
    cancel_url: str | None = None
    late_payment: LatePayment = LatePayment.REVIEW
    confirmation_policy: str | None = None
    activate: bool | None = None


@dataclass(frozen=True, slots=True)
class InvoiceFilter:
    """Which invoices a list shows; None does not restrict."""

    status: Status | None = None
    order_id: str | None = None
    tx_hash: str | None = None
    address: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


async def create_invoice(
    connection: Connection, ctx: Context, merchant_id: str, actor: Actor, new: NewInvoice
) -> objects.Invoice:
    """Create, quote and, where asked, issue addresses: all or nothing.

    Raises InvalidInput naming the field, Conflict, NoQuote, NetworkUnavailable.
    """
    if not EXPIRES_IN_SECONDS_MIN <= new.expires_in_seconds <= EXPIRES_IN_SECONDS_MAX:
        raise InvalidInput.at(
            "/expires_in", f"must lie between {EXPIRES_IN_SECONDS_MIN} and {EXPIRES_IN_SECONDS_MAX} seconds"
        )
    wallets = await issuing_wallets(connection, merchant_id)
    accepted = quoting.resolve_accepted(ctx, new.accepted, set(wallets))
    price = quoting.read_price(ctx, new.amount, new.currency, accepted)
    settings = await merchant_settings(connection, merchant_id) or MerchantSettings("")
    quoted = await quoting.quote(
        ctx, price, accepted, asked=new.accepted is not None, spread_bps=settings.spread_bps
    )
    ways = [(one.network, one.asset) for one in quoted]
    amounts = [one.amount for one in quoted]
    wanted = policies.Wanted(price, ways, new.product_type, new.confirmation_policy, amounts)
    applied = await policies.choose_for(connection, ctx, merchant_id, wanted)
    now = ctx.now()
    chosen = list(zip(quoted, applied, strict=True))
    invoice = _new_invoice(ctx, merchant_id, settings, new, price, chosen, now)
    activate = new.activate if new.activate is not None else len(quoted) == 1
    views = await read_views(connection, ctx.networks)
    if activate:
        require_available(views, {option.network.name for option in quoted})
        networks = {option.network.name: option.network for option in quoted}
        options = [
            await allocate(ctx, networks[option.terms.asset.network], wallets, option)
            for option in invoice.options
        ]
        invoice = _with_options(invoice, options)
    return await _store_new(connection, ctx, invoice, views, actor)


def _new_invoice(
    ctx: Context,
    merchant_id: str,
    settings: MerchantSettings,
    new: NewInvoice,
    price: Price,
    chosen: Sequence[tuple[quoting.QuotedOption, Applied]],
    now: datetime,
) -> store.StoredInvoice:
    expires_at = now + timedelta(seconds=new.expires_in_seconds)
    quote_ends_at = now + timedelta(seconds=settings.quote_seconds)
    options = tuple(
        store.StoredOption(
            terms=OptionTerms(
                id=ctx.new_id(IdKind.OPTION),
                asset=one.asset,
                amount_expected=one.amount,
                requirement=applied.requirement,
                tolerance=applied.tolerance,
                active=False,
            ),
            family=one.network.family,
            status=OptionStatus.QUOTED,
            address=None,
            wallet_id=None,
            derivation_index=None,
            quote=store.StoredQuote(
                one.rate,
                one.source,
                now,
                expires_at if one.exact else min(expires_at, quote_ends_at),
                one.spread_bps,
                one.answers,
            ),
            policy_name=applied.name,
            policy_version=applied.version,
            policy_explanation=applied.explanation,
        )
        for one, applied in chosen
    )
    return store.StoredInvoice(
        terms=InvoiceTerms(
            id=ctx.new_id(IdKind.INVOICE),
            price=price,
            expires_at=expires_at,
            grace=timedelta(seconds=settings.grace_seconds),
            late_payment=new.late_payment,
            options=tuple(option.terms for option in options),
        ),
        merchant_id=merchant_id,
        order_id=new.order_id,
        status=Status.CREATED,
        sequence=1,
        event_sequence=1,
        amount_paid=0,
        decisions=Decisions(),
        fulfillment=None,
        product_type=new.product_type,
        customer=dict(new.customer),
        metadata=dict(new.metadata),
        success_url=new.success_url,
        cancel_url=new.cancel_url,
        created_at=now,
        updated_at=now,
        options=options,
    )


def _with_options(invoice: store.StoredInvoice, options: Sequence[store.StoredOption]) -> store.StoredInvoice:
    terms = replace(invoice.terms, options=tuple(option.terms for option in options))
    return replace(invoice, terms=terms, options=tuple(options))


async def _store_new(
    connection: Connection,
    ctx: Context,
    invoice: store.StoredInvoice,
    views: dict[str, NetworkView],
    actor: Actor,
) -> objects.Invoice:
    """Insert the invoice in the status its first assessment gives, with the history that leads there."""
    now = invoice.created_at
    cause = Cause(CauseKind.REQUEST, actor, ({"type": "request", "actor": actor.type.value, "id": actor.id},))
    changes = Changes()
    judged = decide(ctx, invoice, views, cause, now, changes)
    shown = invoice_object(ctx, invoice, judged, status=judged.status, updated_at=now)
    first, created_event = first_step(invoice, shown, cause)
    await writes.insert_invoice(
        connection, invoice, changes.invoices[0], [first, *changes.transitions], changes.wakeups[invoice.id]
    )
    await publish(connection, ctx, [created_event, *changes.events], at=now)
    return shown


async def get_invoice(
    connection: Connection, ctx: Context, merchant_id: str, invoice_id: str
) -> objects.Invoice:
    """The invoice as it stands. Raises NotFound."""
    return (await _show(connection, ctx, [await _own(connection, merchant_id, invoice_id)]))[0]


@dataclass(frozen=True, slots=True)
class Looked:
    """An invoice read and judged in one look: as stored, what is true, and as the merchant sees it."""

    stored: store.StoredInvoice
    judged: Assessment
    shown: objects.Invoice


async def load_public(connection: Connection, ctx: Context, invoice_id: str) -> tuple[Looked, str]:
    """An invoice for its customer, who has no key but knows the id, and the merchant's name. Raises NotFound.

    Whoever shows it to the customer chooses what of it they may see.
    """
    name = await store.SQL.merchant_name_of.value(connection, id=invoice_id)
    if name is None:
        raise NotFound("There is no such invoice.", object_id=invoice_id)
    return (await _look(connection, ctx, [invoice_id]))[0], str(name)


async def show_invoices(connection: Connection, ctx: Context, ids: Sequence[str]) -> list[objects.Invoice]:
    """These invoices as they stand, in the order asked. For callers that checked whose they are."""
    return await _show(connection, ctx, ids)


async def list_invoices(
    connection: Connection,
    ctx: Context,
    merchant_id: str,
    wanted: InvoiceFilter,
    limit: int,
    cursor: str | None,
) -> Page[objects.Invoice]:
    """A page of the merchant's invoices, newest first."""
    rows = await store.SQL.list_ids.all(
        connection,
        merchant_id=merchant_id,
        before_id=cursor,
        status=wanted.status,
        order_id=wanted.order_id,
        tx_hash=wanted.tx_hash.lower() if wanted.tx_hash is not None else None,
        address=_address(wanted.address),
        created_after=wanted.created_after,
        created_before=wanted.created_before,
        row_count=limit + 1,
    )
    kept, next_cursor = page_of([row["id"] for row in rows], limit, lambda found: found)
    return Page(data=await _show(connection, ctx, list(kept)), next_cursor=next_cursor)


def _address(text: str | None) -> str | None:
    """An address to look for, in the normal form of its family; as it is where no family knows it."""
    if text is None:
        return None
    for family in FAMILIES.values():
        try:
            return family.normalize(text, None)
        except InvalidInput:
            continue
    return text


async def list_transitions(
    connection: Connection, merchant_id: str, invoice_id: str
) -> list[objects.Transition]:
    """The whole history of an invoice, oldest first. Raises NotFound."""
    await _own(connection, merchant_id, invoice_id)
    rows = await store.SQL.transitions_of.all(connection, invoice_id=invoice_id)
    return [transition_object(row) for row in rows]


async def activate_option(
    connection: Connection,
    ctx: Context,
    merchant_id: str | None,
    actor: Actor,
    invoice_id: str,
    option_id: str,
) -> objects.Invoice:
    """Issue the address of an option, once: a second call changes nothing and answers the same.

    Where its quote has ended it is quoted anew first. `merchant_id` None is the customer on the checkout page. Raises
    NotFound, Conflict, NoQuote, NetworkUnavailable.
    """
    await _own(connection, merchant_id, invoice_id)
    rates = await requoting.ask_if_ended(connection, ctx, option_id)
    invoice = await _lock(connection, merchant_id, invoice_id)
    option = next((option for option in invoice.options if option.terms.id == option_id), None)
    if option is None:
        raise NotFound("The invoice has no such payment option.", object_id=option_id)
    if option.status is OptionStatus.QUOTED:
        now = ctx.now()
        if invoice.status not in _OPEN or now > invoice.terms.expires_at:
            raise Conflict(
                f"The invoice is {invoice.status}: no new way to pay can be opened.", object_id=invoice_id
            )
        network = ctx.networks.get(option.terms.asset.network)
        if network is None:
            raise NetworkUnavailable(
                "The network is no longer configured.", object_id=option.terms.asset.network
            )
        require_available(await read_views(connection, ctx.networks), {network.name})
        await requoting.renew_ended(connection, ctx, option_id, rates)
        wallets = await issuing_wallets(connection, invoice.merchant_id)
        issued = await allocate(ctx, network, wallets, option)
        await writes.activate_option(connection, issued, now)
        await assess_invoices(connection, ctx, [invoice_id], _request(actor))
    elif option.status is OptionStatus.EXPIRED:
        raise Conflict("The payment option has expired.", object_id=option_id)
    return (await _show(connection, ctx, [invoice_id]))[0]


async def cancel_invoice(
    connection: Connection, ctx: Context, merchant_id: str, actor: Actor, invoice_id: str
) -> objects.Invoice:
    """Withdraw an invoice that nobody has paid. Raises NotFound, Conflict."""
    invoice = await _lock(connection, merchant_id, invoice_id)
    allowed = [status.value for status in _CANCELABLE]
    if not await store.SQL.record_cancel.run(connection, id=invoice_id, at=ctx.now(), allowed=allowed):
        raise Conflict(
            f"The invoice is {invoice.status} and can no longer be canceled.", object_id=invoice_id
        )
    await assess_invoices(connection, ctx, [invoice_id], _request(actor))
    return (await _show(connection, ctx, [invoice_id]))[0]


async def record_fulfillment(
    connection: Connection,
    ctx: Context,
    merchant_id: str,
    actor: Actor,
    invoice_id: str,
    note: Mapping[str, Any],
) -> objects.Invoice:
    """Record once that the merchant delivered; again changes nothing. Raises NotFound, Conflict."""
    invoice = await _lock(connection, merchant_id, invoice_id)
    if invoice.decisions.fulfilled_at is None:
        # By which transition it was paid when it was delivered: a later reversal and a second payment change nothing.
        by = {"actor": {"type": actor.type.value, "id": actor.id}, "transition_sequence": invoice.sequence}
        said = _encode({**note, **by}).decode()
        allowed = [status.value for status in _FULFILLABLE]
        if not await store.SQL.record_fulfillment.run(
            connection, id=invoice_id, at=ctx.now(), fulfillment=said, allowed=allowed
        ):
            raise Conflict(
                f"The invoice is {invoice.status}, not paid: do not deliver yet.", object_id=invoice_id
            )
    return (await _show(connection, ctx, [invoice_id]))[0]


def _request(actor: Actor) -> Cause:
    return Cause(CauseKind.REQUEST, actor, ({"type": "request", "actor": actor.type.value, "id": actor.id},))


async def _own(connection: Connection, merchant_id: str | None, invoice_id: str) -> str:
    """The id, once it is sure that the merchant owns it."""
    row = await store.SQL.invoice_owner.one(connection, id=invoice_id)
    if row is None or (merchant_id is not None and row["merchant_id"] != merchant_id):
        raise NotFound("There is no such invoice.", object_id=invoice_id)
    return invoice_id


async def _lock(connection: Connection, merchant_id: str | None, invoice_id: str) -> store.StoredInvoice:
    """Lock the invoice and, before it, its networks: the order that every writer keeps."""
    await _own(connection, merchant_id, invoice_id)
    await share_networks(connection, await store.networks_of(connection, [invoice_id]))
    return (await store.read_invoices(connection, [invoice_id], lock=True))[0]


async def _show(connection: Connection, ctx: Context, ids: Sequence[str]) -> list[objects.Invoice]:
    return [looked.shown for looked in await _look(connection, ctx, ids)]


async def _look(connection: Connection, ctx: Context, ids: Sequence[str]) -> list[Looked]:
    if not ids:
        return []
    stored = {invoice.id: invoice for invoice in await store.read_invoices(connection, ids)}
    views = await read_views(connection, ctx.networks)
    now = ctx.now()
    found: list[Looked] = []
    for wanted in ids:
        invoice = stored[wanted]
        judged = assess(invoice.terms, invoice.facts(views), now)
        shown = invoice_object(ctx, invoice, judged, status=invoice.status, updated_at=invoice.updated_at)
        found.append(Looked(invoice, judged, shown))
    return found
