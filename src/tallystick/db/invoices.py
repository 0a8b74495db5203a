"""Invoices as stored: rows to core types and back.

For: the services that judge and show invoices. Holds true: whatever is read for many invoices is read in a handful of
statements, whatever their number; a status is written only with the status it expects.
Must not: decide a status, or render anything.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from tallystick.core.assess import Wakeup
from tallystick.core.chain import Anchor, BlockRef, Channel, CreditKey, Finality, NetworkView, Requirement
from tallystick.core.errors import StaleWrite
from tallystick.core.invoice import (
    Conflict,
    Decision,
    DecisionKind,
    Decisions,
    EarlierQuote,
    Facts,
    InvoiceTerms,
    LatePayment,
    Match,
    OptionStatus,
    OptionTerms,
    PaymentStatus,
    Status,
    Tolerance,
    TransferFact,
)
from tallystick.core.money import Asset, Price
from tallystick.core.refund import RefundFact, RefundStatus
from tallystick.db.sql import Connection, Record, load

SQL: Final = load("invoices")


@dataclass(frozen=True, slots=True)
class StoredQuote:
    """The quote in force: rate as a decimal string, where it came from, and until when it is promised.

    `spread_bps` is the merchant's spread in the amount. `answers` is what the sources said, as rendered JSON; it is
    written for the books and not read back here.
    """

    rate: str
    source: str
    quoted_at: datetime
    expires_at: datetime
    spread_bps: int = 0
    answers: str = "[]"


@dataclass(frozen=True, slots=True)
class StoredOption:
    """A payment option as stored."""

    terms: OptionTerms
    family: str
    status: OptionStatus
    address: str | None
    wallet_id: str | None
    derivation_index: int | None
    quote: StoredQuote
    policy_name: str
    policy_version: int
    policy_explanation: str


@dataclass(frozen=True, slots=True)
class StoredPayment:
    """What was last derived about a transfer."""

    id: str
    match: Match
    status: PaymentStatus
    event_sequence: int
    confirmed_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredTransfer:
    """A transfer as stored, with what is only shown, and its payment where it has one."""

    fact: TransferFact
    family: str
    sender: str
    recipient: str
    contract: str | None
    first_seen_at: datetime
    log_indexes: dict[str, int | None]
    payment: StoredPayment | None


@dataclass(frozen=True, slots=True)
class StoredInvoice:
    """Everything that is stored about one invoice, in core's terms."""

    terms: InvoiceTerms
    merchant_id: str
    order_id: str | None
    status: Status
    sequence: int
    event_sequence: int
    amount_paid: int
    decisions: Decisions
    fulfillment: dict[str, Any] | None
    product_type: str | None
    customer: dict[str, Any]
    metadata: dict[str, Any]
    success_url: str | None
    cancel_url: str | None
    created_at: datetime
    updated_at: datetime
    options: tuple[StoredOption, ...]
    transfers: tuple[StoredTransfer, ...] = field(default=())
    refunds: tuple[RefundFact, ...] = field(default=())
    settlement_id: str | None = None

    @property
    def id(self) -> str:
        """The invoice's id."""
        return self.terms.id

    @property
    def networks(self) -> set[str]:
        """Networks whose view matters when this invoice is judged."""
        return (
            {option.terms.asset.network for option in self.options}
            | {transfer.fact.key.network for transfer in self.transfers}
            | {refund.asset.network for refund in self.refunds}
        )

    def facts(self, views: dict[str, NetworkView]) -> Facts:
        """What is known, for the assessment."""
        relevant = {name: view for name, view in views.items() if name in self.networks}
        transfers = tuple(transfer.fact for transfer in self.transfers)
        return Facts(transfers, self.decisions, relevant, self.refunds)


async def networks_of(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Names of the networks that matter to these invoices, sorted."""
    return [row["network"] for row in await SQL.networks_of.all(connection, ids=list(ids))]


async def read_invoices(
    connection: Connection, ids: Sequence[str], *, lock: bool = False
) -> list[StoredInvoice]:
    """The invoices of these ids that exist, sorted by id; with `lock` no other writer can change them meanwhile."""
    wanted = sorted(set(ids))
    if not wanted:
        return []
    statement = SQL.lock_invoices if lock else SQL.read_invoices
    rows = await statement.all(connection, ids=wanted)
    options = _grouped(await SQL.options_of.all(connection, ids=wanted), "invoice_id")
    transfers = _grouped(await SQL.transfers_of.all(connection, ids=wanted), "invoice_id")
    recorded = {row["id"]: row for row in await SQL.recorded_of.all(connection, ids=wanted)}
    anchors: dict[str, list[Record]] = {}
    conflicts: dict[str, list[Record]] = {}
    if transfers:
        anchors = _grouped(await SQL.anchors_of.all(connection, ids=wanted), "transfer_id")
        conflicts = _grouped(await SQL.conflicts_of.all(connection, ids=wanted), "transfer_id")
    return [
        _invoice(
            row,
            tuple(_option(option) for option in options.get(row["id"], ())),
            tuple(
                _transfer(transfer, anchors.get(transfer["id"], []), conflicts.get(transfer["id"], []))
                for transfer in transfers.get(row["id"], ())
            ),
            recorded.get(row["id"]),
        )
        for row in rows
    ]


def _grouped(rows: list[Record], column: str) -> dict[str, list[Record]]:
    found: defaultdict[str, list[Record]] = defaultdict(list)
    for row in rows:
        found[row[column]].append(row)
    return dict(found)


def _invoice(
    row: Record,
    options: tuple[StoredOption, ...],
    transfers: tuple[StoredTransfer, ...],
    recorded: Record | None,
) -> StoredInvoice:
    decided = (recorded["decisions"] if recorded is not None else None) or []
    refunds = (recorded["refunds"] if recorded is not None else None) or []
    terms = InvoiceTerms(
        id=row["id"],
        price=Price(row["amount"], row["currency"], row["decimals"]),
        expires_at=row["expires_at"],
        grace=timedelta(seconds=row["grace_seconds"]),
        late_payment=LatePayment(row["late_payment"]),
        options=tuple(option.terms for option in options),
    )
    return StoredInvoice(
        terms=terms,
        merchant_id=row["merchant_id"],
        order_id=row["order_id"],
        status=Status(row["status"]),
        sequence=row["sequence"],
        event_sequence=row["event_sequence"],
        amount_paid=row["amount_paid"],
        decisions=Decisions(
            row["canceled_at"],
            row["fulfilled_at"],
            row["settled_at"],
            tuple(_decision(one) for one in decided),
        ),
        fulfillment=row["fulfillment"],
        product_type=row["product_type"],
        customer=row["customer"],
        metadata=row["metadata"],
        success_url=row["success_url"],
        cancel_url=row["cancel_url"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        options=options,
        transfers=transfers,
        refunds=tuple(_refund(one) for one in refunds),
        settlement_id=row["settlement_id"],
    )


def _decision(row: dict[str, Any]) -> Decision:
    return Decision(row["number"], DecisionKind(row["kind"]), frozenset(row["transfer_ids"]), row["value"])


def _refund(row: dict[str, Any]) -> RefundFact:
    return RefundFact(
        id=row["id"],
        status=RefundStatus(row["status"]),
        asset=Asset(row["network"], row["symbol"], row["decimals"], row["contract"]),
        amount=row["amount"],
        requirement=Requirement(Finality(row["finality"]), row["confirmations"] or 1),
        transfer_ids=frozenset(row["transfer_ids"]),
        withdraws=row["withdraws"],
        fee_amount=row["fee_amount"],
        anchors=tuple(
            Anchor(
                BlockRef(one["hash"], one["height"]),
                datetime.fromisoformat(one["time"]),
                one["in_best_chain"],
            )
            for one in row["anchors"] or ()
        ),
    )


def _option(row: Record) -> StoredOption:
    terms = OptionTerms(
        id=row["id"],
        asset=Asset(row["network"], row["asset_symbol"], row["asset_decimals"], row["contract"]),
        amount_expected=row["amount_expected"],
        requirement=Requirement(
            Finality(row["finality"]), row["confirmations_required"] or 1, row["zero_conf"]
        ),
        tolerance=Tolerance(row["tolerance_under_bps"], row["tolerance_over_bps"]),
        active=row["address"] is not None,
        earlier=tuple(
            EarlierQuote(one["amount"], datetime.fromisoformat(one["ended_at"]))
            for one in row["earlier"] or ()
        ),
    )
    return StoredOption(
        terms=terms,
        family=row["family"],
        status=OptionStatus(row["status"]),
        address=row["address"],
        wallet_id=row["wallet_id"],
        derivation_index=row["derivation_index"],
        quote=StoredQuote(
            row["rate"], row["rate_source"], row["quoted_at"], row["quote_expires_at"], row["spread_bps"]
        ),
        policy_name=row["policy_name"],
        policy_version=row["policy_version"],
        policy_explanation=row["policy_explanation"],
    )


def _anchor(row: Record) -> Anchor:
    return Anchor(BlockRef(row["hash"], row["height"]), row["time"], row["in_best_chain"])


def _transfer(row: Record, anchors: list[Record], conflicts: list[Record]) -> StoredTransfer:
    network = row["network"]
    asset = None
    if row["asset_symbol"] is not None:
        asset = Asset(network, row["asset_symbol"], row["asset_decimals"], row["contract"])
    payment = None
    if row["payment_id"] is not None:
        payment = StoredPayment(
            row["payment_id"],
            Match(row["match"]),
            PaymentStatus(row["payment_status"]),
            row["event_sequence"],
            row["confirmed_at"],
        )
    return StoredTransfer(
        fact=TransferFact(
            id=row["id"],
            key=CreditKey(network, row["tx_hash"], Channel(row["channel"]), row["ordinal"]),
            option_id=row["option_id"],
            asset=asset,
            amount=row["amount"],
            first_evidence_at=row["first_evidence_at"],
            anchors=tuple(_anchor(anchor) for anchor in anchors),
            conflicts=tuple(Conflict(conflict["tx_hash"], _anchor(conflict)) for conflict in conflicts),
            in_mempool=row["in_mempool"],
            internal=row["internal"],
        ),
        family=row["family"],
        sender=row["sender"],
        recipient=row["recipient"],
        contract=row["contract"],
        first_seen_at=row["first_seen_at"],
        log_indexes={anchor["hash"]: anchor["log_index"] for anchor in anchors},
        payment=payment,
    )


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


async def write_invoices(connection: Connection, writes: Sequence[InvoiceWrite], at: datetime) -> None:
    """Write statuses, each with its expected old one. Raises StaleWrite when any invoice was not as expected."""
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
