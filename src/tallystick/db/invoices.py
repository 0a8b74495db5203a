"""Invoices as stored: rows to core types.

For: the services that judge and show invoices. Holds true: whatever is read for many invoices is read in a handful of
statements, whatever their number.
Must not: write (`db.invoice_writes` does), decide a status, or render anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from tallystick.core.chain import (
    Anchor,
    BlockRef,
    Channel,
    CreditKey,
    Finality,
    NetworkView,
    Requirement,
    Trait,
)
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
    required_of,
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
    """A payment option as stored. `account_key` is that of the wallet which its address comes from."""

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
    account_key: str | None = None


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
        refunds = tuple(self._required(refund, relevant) for refund in self.refunds)
        return Facts(transfers, self.decisions, relevant, refunds)

    def _required(self, refund: RefundFact, views: dict[str, NetworkView]) -> RefundFact:
        """The refund, by the requirement of the network that it is paid on."""
        if refund.option_id is None:
            return refund
        option = self.terms.option(refund.option_id)
        return replace(refund, requirement=required_of(option, refund.asset.network, views))


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
    places: dict[str, list[Record]] = {}
    if transfers:
        places = _grouped(await SQL.places_of.all(connection, ids=wanted), "transfer_id")
    return [
        _invoice(
            row,
            tuple(_option(option) for option in options.get(row["id"], ())),
            tuple(
                _transfer(transfer, places.get(transfer["id"], []))
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
        option_id=row["option_id"],
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
            Finality(row["finality"]),
            row["confirmations_required"] or 1,
            row["zero_conf"],
            frozenset(Trait(one) for one in row["zero_conf_accepts"]),
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
        account_key=row["account_key"],
    )


def _anchor(row: Record) -> Anchor:
    return Anchor(BlockRef(row["hash"], row["height"]), row["time"], row["in_best_chain"])


def _transfer(row: Record, places: list[Record]) -> StoredTransfer:
    network = row["network"]
    anchors = [place for place in places if place["in_the_way"] is None]
    conflicts = [place for place in places if place["in_the_way"] is not None]
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
            conflicts=tuple(Conflict(conflict["in_the_way"], _anchor(conflict)) for conflict in conflicts),
            in_mempool=row["in_mempool"],
            internal=row["internal"],
            traits=frozenset(Trait(one) for one in row["traits"]),
        ),
        family=row["family"],
        sender=row["sender"],
        recipient=row["recipient"],
        contract=row["contract"],
        first_seen_at=row["first_seen_at"],
        log_indexes={anchor["hash"]: anchor["log_index"] for anchor in anchors},
        payment=payment,
    )
