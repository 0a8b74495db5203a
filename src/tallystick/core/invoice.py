"""What an invoice asks, and what is known about it: the input of the assessment.

For: `core.assess`. Holds true: terms never change after creation except by adding (an option is activated, a
decision is recorded); facts only grow; the same terms and facts may be given in any order.
Must not: decide anything (that is `assess`), or know rows, JSON or HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from tallystick.core.chain import Anchor, CreditKey, NetworkView, Requirement
from tallystick.core.money import Asset, Price


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
    UNSUPPORTED_TOKEN = "unsupported_token"  # noqa: S105  # a token of value, no secret


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far below and above the asked amount still counts as paid in full, in basis points (1/10,000)."""

    under_bps: int = 50
    over_bps: int = 1000


@dataclass(frozen=True, slots=True)
class OptionTerms:
    """One way to pay: asset, asked amount in its base units, and the rule that makes a transfer confirmed."""

    id: str
    asset: Asset
    amount_expected: int
    requirement: Requirement
    tolerance: Tolerance
    active: bool


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


@dataclass(frozen=True, slots=True)
class Decisions:
    """What people decided about an invoice. Facts, like transfers: once recorded, never removed."""

    canceled_at: datetime | None = None
    fulfilled_at: datetime | None = None


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
    `in_mempool` is whether the network's node shows it outside any block now.
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


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known when an invoice is assessed: transfers, decisions, and how far each network is seen."""

    transfers: tuple[TransferFact, ...]
    decisions: Decisions
    networks: dict[str, NetworkView]


def match_transfer(option: OptionTerms, network: str, asset: Asset | None) -> Match:
    """Relate what arrived to what the address was issued for. Precedence: unknown token, network, asset."""
    if asset is None:
        return Match.UNSUPPORTED_TOKEN
    if network != option.asset.network:
        return Match.WRONG_NETWORK
    return Match.MATCHED if asset.key == option.asset.key else Match.WRONG_ASSET
