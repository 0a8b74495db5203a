"""What an invoice asks, and what is known about it: the input of the assessment.

For: `core.assess`. Holds true: terms never change after creation except by adding (an option is activated, a
decision is recorded); facts only grow; the same terms and facts may be given in any order.
Must not: decide anything (that is `assess`), or know rows, JSON or HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from tallystick.core.chain import (
    Anchor,
    Channel,
    CreditKey,
    Finality,
    NetworkView,
    Requirement,
    Trait,
    required_with,
)
from tallystick.core.money import Asset, Price
from tallystick.core.refund import RefundFact


class Status(StrEnum):
    """Every state of an invoice in the public contract. What each means stands in `core.transitions`."""

    CREATED = "created"
    QUOTED = "quoted"
    AWAITING_PAYMENT = "awaiting_payment"
    DETECTED = "detected"
    PARTIALLY_PAID = "partially_paid"
    CONFIRMING = "confirming"
    PAID = "paid"
    OVERPAID = "overpaid"
    UNDERPAID = "underpaid"
    EXPIRED = "expired"
    LATE_PAID = "late_paid"
    REVIEW_REQUIRED = "review_required"
    DISPUTED = "disputed"
    SETTLED = "settled"
    REFUNDED = "refunded"
    CANCELED = "canceled"


class PaymentStatus(StrEnum):
    """Every state of a payment: a transfer attributed to an invoice."""

    DETECTED = "detected"  # seen outside any block
    CONFIRMING = "confirming"  # in the best chain, requirement not yet met
    CONFIRMED = "confirmed"  # in the best chain, requirement met
    ORPHANED = "orphaned"  # its block left the best chain, and it was not mined again yet
    REPLACED = "replaced"  # a conflicting transaction stands in the best chain: it can never return there
    FAILED = "failed"  # its transaction was mined and failed


class OptionStatus(StrEnum):
    """Every state of a payment option."""

    QUOTED = "quoted"  # priced, no address issued
    ACTIVE = "active"  # address issued
    EXPIRED = "expired"  # the window closed before it was chosen


class LatePayment(StrEnum):
    """What the merchant wants done with money first evidenced after the window."""

    ACCEPT = "accept"
    REVIEW = "review"
    REFUND = "refund"


class Match(StrEnum):
    """How a transfer to an issued address relates to the option the address was issued for."""

    MATCHED = "matched"
    WRONG_ASSET = "wrong_asset"
    WRONG_NETWORK = "wrong_network"
    UNATTRIBUTED_VALUE = (
        "unattributed_value"  # a balance that no transfer explains: a person decides what it is
    )
    UNSUPPORTED_TOKEN = "unsupported_token"  # noqa: S105  # a token of value, no secret


DUST_PER_COIN: Final = 100_000
"""A transfer of less than one coin divided by this is dust."""

DUST_PER_PRICE: Final = 10_000
"""Unless it is at least what was asked divided by this."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far below and above the asked amount still counts as paid in full, in basis points (1/10,000)."""

    under_bps: int = 50
    over_bps: int = 1000


@dataclass(frozen=True, slots=True)
class EarlierQuote:
    """An amount that was asked before, and until when it was in force."""

    amount_expected: int
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class OptionTerms:
    """One way to pay: asset, asked amount in its base units, and the rule that makes a transfer confirmed.

    `amount_expected` is the quote in force; `earlier` holds those before it, oldest first: all that were in force when
    a transfer was first evidenced (more of them change nothing).
    """

    id: str
    asset: Asset
    amount_expected: int
    requirement: Requirement
    tolerance: Tolerance
    active: bool
    earlier: tuple[EarlierQuote, ...] = ()

    def asked_at(self, moment: datetime) -> int:
        """Base units asked by the quote in force at `moment`; before the first quote, what that asked."""
        for quote in self.earlier:
            if moment < quote.ended_at:
                return quote.amount_expected
        return self.amount_expected


@dataclass(frozen=True, slots=True)
class InvoiceTerms:
    """What the merchant asked for. Times are UTC; `grace` extends the window silently."""

    id: str
    price: Price
    expires_at: datetime
    grace: timedelta
    late_payment: LatePayment
    options: tuple[OptionTerms, ...]

    @property
    def deadline(self) -> datetime:
        """The last chain time at which a first evidence is on time."""
        return self.expires_at + self.grace

    def option(self, option_id: str) -> OptionTerms:
        """The option of that id. Raises KeyError: attribution names options of its own invoice only."""
        for option in self.options:
            if option.id == option_id:
                return option
        raise KeyError(option_id)

    def is_dust(self, fact: TransferFact) -> bool:
        """Whether a transfer is too little to mean anything here: dust, unless so little was asked for."""
        if not fact.is_dust:
            return False
        option = self.option(fact.option_id)
        if match_transfer(option, fact.key, fact.asset) is not Match.MATCHED:
            return True
        return fact.amount * DUST_PER_PRICE < option.asked_at(fact.first_evidence_at)


class DecisionKind(StrEnum):
    """What a person can decide about an invoice and the transfers to it. Each is a fact; none names a status."""

    ACCEPT = (
        "accept"  # these transfers count as exactly what was asked, in time, as long as all of them stand
    )
    CREDIT = "credit"  # these transfers count for `value`, in time, as long as all of them stand
    DISMISS = (
        "dismiss"  # these transfers are dealt with: neither a mismatch nor a reversal of them needs review
    )
    WRITE_OFF = "write_off"  # as DISMISS, and: what these transfers brought is the merchant's, what they took is a loss
    KEEP = "keep"  # what these transfers bring above the tolerance is the merchant's to keep
    RECEIVE = (
        "receive"  # these transfers came for another invoice and were attached to this one: they are in time
    )
    SEND = "send"  # these transfers were attached to another invoice: history only, they are no facts here any more
    OPEN_DISPUTE = "open_dispute"  # the customer or the merchant disputes the payment
    RESOLVE_DISPUTE = "resolve_dispute"  # it is settled between them


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision. `value` is in units of the price, for CREDIT only. `number` is its place in the order they came."""

    number: int
    kind: DecisionKind
    transfer_ids: frozenset[str] = frozenset()
    value: int | None = None


@dataclass(frozen=True, slots=True)
class Decisions:
    """What people decided about an invoice. Facts, like transfers: once recorded, never removed."""

    canceled_at: datetime | None = None
    fulfilled_at: datetime | None = None
    settled_at: datetime | None = None
    recorded: tuple[Decision, ...] = ()

    def named(self, *kinds: DecisionKind) -> frozenset[str]:
        """Transfers named by any decision of these kinds."""
        return frozenset[str]().union(*(one.transfer_ids for one in self.recorded if one.kind in kinds))

    @property
    def withdrawn(self) -> bool:
        """Whether the invoice is canceled, and nobody decided since that a payment to it counts all the same."""
        counted = self.named(DecisionKind.ACCEPT, DecisionKind.CREDIT, DecisionKind.RECEIVE)
        return self.canceled_at is not None and not counted

    @property
    def dispute_open(self) -> bool:
        """Whether the last word about a dispute was that there is one."""
        words = [
            one
            for one in self.recorded
            if one.kind in (DecisionKind.OPEN_DISPUTE, DecisionKind.RESOLVE_DISPUTE)
        ]
        return bool(words) and max(words, key=_number).kind is DecisionKind.OPEN_DISPUTE


def _number(decision: Decision) -> int:
    return decision.number


@dataclass(frozen=True, slots=True)
class Conflict:
    """That another transaction used up what the transfer's transaction needed, and where it stands."""

    tx_hash: str
    anchor: Anchor


@dataclass(frozen=True, slots=True)
class TransferFact:
    """Everything known about one transfer to an address issued for `option_id`.

    `asset` is None for a token that nobody configured. `first_evidence_at` is the chain time of the first block
    that ever held it (or of its sighting in the mempool): it decides whether it is on time, for good.
    `in_mempool` is whether the network's node shows it outside any block now. `internal` says that the same merchant
    sent it from another issued address: coins moved among one's own are evidence, not income. `traits` say how far it
    can be relied on.
    """

    id: str
    key: CreditKey
    option_id: str
    asset: Asset | None
    amount: int
    first_evidence_at: datetime
    anchors: tuple[Anchor, ...]
    conflicts: tuple[Conflict, ...] = ()
    in_mempool: bool = False
    internal: bool = False
    traits: frozenset[Trait] = frozenset()

    @property
    def is_dust(self) -> bool:
        """Whether it is too little to mean anything, whatever the asset is worth: less than
        a hundred-thousandth of a coin.

        Anybody can send dust to an address; it is kept as evidence, and changes no state (F-TOKEN-2).
        """
        return self.asset is not None and self.amount * DUST_PER_COIN < 10**self.asset.decimals


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known when an invoice is assessed: transfers, decisions, and how far each network is seen."""

    transfers: tuple[TransferFact, ...]
    decisions: Decisions
    networks: dict[str, NetworkView]
    refunds: tuple[RefundFact, ...] = field(default=())


DEPTH_OF_UNKNOWN: Final = 12
"""Blocks that what came on a network of which nothing is configured needs, where its option names no depth."""


def required_of(option: OptionTerms, network: str, views: Mapping[str, NetworkView]) -> Requirement:
    """When money on `network` is there for good, that came to this option's address.

    The option's requirement speaks of the option's network. On another one that network's own decides: `finalized`
    would never come where a network names no finality, and a depth that suits one says nothing about the other. Where
    it is not known, depth decides: every chain has that. A sighting never counts on a network where nothing was asked.
    """
    if network == option.asset.network:
        return option.requirement
    view = views.get(network)
    own = view.requirement if view is not None else None
    if own is None:
        by_depth = option.requirement.finality is Finality.DEPTH
        own = Requirement(Finality.DEPTH, option.requirement.confirmations if by_depth else DEPTH_OF_UNKNOWN)
    return replace(own, zero_conf=False, accepted_risks=frozenset())


def required_for(option: OptionTerms, fact: TransferFact, views: Mapping[str, NetworkView]) -> Requirement:
    """When this transfer, which came to this option's address, is there for good: newly made coin must be spendable."""
    return required_with(required_of(option, fact.key.network, views), fact.traits)


def match_transfer(option: OptionTerms, key: CreditKey, asset: Asset | None) -> Match:
    """Relate what arrived to what the address was issued for. Precedence: unknown token, network, asset, origin."""
    if asset is None:
        return Match.UNSUPPORTED_TOKEN
    if key.network != option.asset.network:
        return Match.WRONG_NETWORK
    if asset.key != option.asset.key:
        return Match.WRONG_ASSET
    return Match.UNATTRIBUTED_VALUE if key.channel is Channel.BALANCE else Match.MATCHED
