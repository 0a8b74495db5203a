"""Writing invoices: each status with the one it expects, many in one statement.

For: the one writer of statuses (`services.assessing`), and the creation of invoices. Holds true: a status is written
only with the status it expects; whatever is written for many invoices takes one statement; history is noted for its
log.
Must not: decide a status, or read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tallystick.core.assess import Wakeup
from tallystick.core.chain import Finality
from tallystick.core.errors import StaleWrite
from tallystick.core.invoice import Match, PaymentStatus, Status
from tallystick.db.invoices import SQL, StoredInvoice, StoredOption
from tallystick.db.sealing import note
from tallystick.db.sql import Connection


@dataclass(frozen=True, slots=True)
class InvoiceWrite:
    """The new state of one invoice, with the state it replaces."""

    id: str
    old_status: Status
    old_sequence: int
    status: Status
    sequence: int
    event_sequence: int
    amount_paid: int


@dataclass(frozen=True, slots=True)
class TransitionWrite:
    """One step of history. `evidence` is rendered JSON: a list that is never empty."""

    invoice_id: str
    sequence: int
    from_status: Status | None
    to_status: Status
    reason: str
    actor_type: str
    actor_id: str | None
    evidence: str


@dataclass(frozen=True, slots=True)
class PaymentWrite:
    """The new state of one payment; `old_status` None makes it."""

    id: str
    transfer_id: str
    merchant_id: str
    invoice_id: str
    option_id: str
    match: Match
    old_status: PaymentStatus | None
    status: PaymentStatus
    event_sequence: int


async def write_invoices(
    connection: Connection, writes: Sequence[InvoiceWrite], at: datetime, *, channel: str
) -> None:
    """Write statuses, each with its expected old one, and tell the channel's listeners which changed.

    Raises StaleWrite when any invoice was not as expected.
    """
    if not writes:
        return
    count = await SQL.update_invoices.run(
        connection,
        ids=[write.id for write in writes],
        old_statuses=[write.old_status for write in writes],
        old_sequences=[write.old_sequence for write in writes],
        statuses=[write.status for write in writes],
        sequences=[write.sequence for write in writes],
        event_sequences=[write.event_sequence for write in writes],
        amounts_paid=[write.amount_paid for write in writes],
        at=at,
        channel=channel,
    )
    if count != len(writes):
        raise StaleWrite(f"{len(writes) - count} of {len(writes)} invoices had changed meanwhile.")


async def write_transitions(connection: Connection, writes: Sequence[TransitionWrite], at: datetime) -> None:
    """Append history."""
    if not writes:
        return
    await SQL.insert_transitions.run(
        connection,
        invoice_ids=[write.invoice_id for write in writes],
        sequences=[write.sequence for write in writes],
        from_statuses=[write.from_status for write in writes],
        to_statuses=[write.to_status for write in writes],
        reasons=[write.reason for write in writes],
        actor_types=[write.actor_type for write in writes],
        actor_ids=[write.actor_id for write in writes],
        evidence=[write.evidence for write in writes],
        at=at,
    )
    note(connection, [(write.invoice_id, write.sequence) for write in writes])


async def write_payments(connection: Connection, writes: Sequence[PaymentWrite], at: datetime) -> None:
    """Insert new payments and update known ones, each with its expected old status. Raises StaleWrite."""
    new = [write for write in writes if write.old_status is None]
    if new:
        await SQL.insert_payments.run(
            connection,
            ids=[write.id for write in new],
            transfer_ids=[write.transfer_id for write in new],
            merchant_ids=[write.merchant_id for write in new],
            invoice_ids=[write.invoice_id for write in new],
            option_ids=[write.option_id for write in new],
            matches=[write.match for write in new],
            statuses=[write.status for write in new],
            event_sequences=[write.event_sequence for write in new],
            at=at,
        )
    known = [write for write in writes if write.old_status is not None]
    if known:
        count = await SQL.update_payments.run(
            connection,
            ids=[write.id for write in known],
            old_statuses=[write.old_status for write in known],
            statuses=[write.status for write in known],
            event_sequences=[write.event_sequence for write in known],
            at=at,
        )
        if count != len(known):
            raise StaleWrite(f"{len(known) - count} of {len(known)} payments had changed meanwhile.")


async def write_wakeups(connection: Connection, wanted: dict[str, tuple[Wakeup, ...]]) -> None:
    """Replace what these invoices (keys) wait for."""
    if not wanted:
        return
    rows = [(wakeup, invoice_id) for invoice_id, wakeups in wanted.items() for wakeup in wakeups]
    await SQL.replace_wakeups.run(
        connection,
        ids=list(wanted),
        networks=[wakeup.network for wakeup, _ in rows],
        markers=[wakeup.marker for wakeup, _ in rows],
        positions=[wakeup.position for wakeup, _ in rows],
        invoice_ids=[invoice_id for _, invoice_id in rows],
    )


async def insert_invoice(
    connection: Connection,
    invoice: StoredInvoice,
    final: InvoiceWrite,
    history: Sequence[TransitionWrite],
    wakeups: Sequence[Wakeup],
) -> None:
    """Insert a new invoice in the state `final`, with all that belongs to it, in one statement."""
    terms = invoice.terms
    await SQL.insert_invoice.run(
        connection,
        id=invoice.id,
        merchant_id=invoice.merchant_id,
        order_id=invoice.order_id,
        status=final.status,
        sequence=final.sequence,
        event_sequence=final.event_sequence,
        amount=terms.price.amount,
        currency=terms.price.currency,
        decimals=terms.price.decimals,
        late_payment=terms.late_payment,
        grace_seconds=int(terms.grace.total_seconds()),
        product_type=invoice.product_type,
        customer=json.dumps(invoice.customer),
        metadata=json.dumps(invoice.metadata),
        success_url=invoice.success_url,
        cancel_url=invoice.cancel_url,
        created_at=invoice.created_at,
        expires_at=terms.expires_at,
        **_option_columns(invoice.options),
        step_sequences=[step.sequence for step in history],
        from_statuses=[step.from_status for step in history],
        to_statuses=[step.to_status for step in history],
        reasons=[step.reason for step in history],
        actor_types=[step.actor_type for step in history],
        actor_ids=[step.actor_id for step in history],
        evidence=[step.evidence for step in history],
        wakeup_networks=[wakeup.network for wakeup in wakeups],
        wakeup_markers=[wakeup.marker for wakeup in wakeups],
        wakeup_positions=[wakeup.position for wakeup in wakeups],
    )
    note(connection, [(step.invoice_id, step.sequence) for step in history])


def _option_columns(options: Sequence[StoredOption]) -> dict[str, list[Any]]:
    """Options as the arrays that `insert_invoice` takes."""
    terms = [option.terms for option in options]
    return {
        "option_ids": [one.id for one in terms],
        "positions": list(range(len(terms))),
        "networks": [one.asset.network for one in terms],
        "symbols": [one.asset.symbol for one in terms],
        "asset_decimals": [one.asset.decimals for one in terms],
        "contracts": [one.asset.contract for one in terms],
        "amounts": [one.amount_expected for one in terms],
        "finalities": [one.requirement.finality for one in terms],
        "confirmations": [
            one.requirement.confirmations if one.requirement.finality is Finality.DEPTH else None
            for one in terms
        ],
        "under_bps": [one.tolerance.under_bps for one in terms],
        "over_bps": [one.tolerance.over_bps for one in terms],
        "zero_confs": [one.requirement.zero_conf for one in terms],
        "accepted": [" ".join(sorted(one.requirement.accepted_risks)) for one in terms],
        "policy_names": [option.policy_name for option in options],
        "policy_versions": [option.policy_version for option in options],
        "policy_explanations": [option.policy_explanation for option in options],
        "rates": [option.quote.rate for option in options],
        "sources": [option.quote.source for option in options],
        "quote_ends": [option.quote.expires_at for option in options],
        "spreads_bps": [option.quote.spread_bps for option in options],
        "answers": [option.quote.answers for option in options],
        "option_statuses": [option.status for option in options],
        "families": [option.family for option in options],
        "addresses": [option.address for option in options],
        "wallet_ids": [option.wallet_id for option in options],
        "derivation_indexes": [option.derivation_index for option in options],
    }


async def activate_option(connection: Connection, option: StoredOption, at: datetime) -> None:
    """Issue `option.address` to an option that has none yet. Raises StaleWrite when it has one."""
    issued = await SQL.activate_option.run(
        connection,
        option_id=option.terms.id,
        address=option.address,
        family=option.family,
        wallet_id=option.wallet_id,
        derivation_index=option.derivation_index,
        at=at,
    )
    if issued != 1:
        raise StaleWrite("The option was activated meanwhile.", object_id=option.terms.id)
