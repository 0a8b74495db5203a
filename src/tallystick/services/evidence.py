"""What a transition rests on, and the word for why it happened.

For: the one writer. Holds true: every transition gets evidence that a person can check without us (transaction and
block hashes, deadlines, quotes, requests); the lists are bounded. Must not: decide whether a transition happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tallystick.chains.families import FAMILIES
from tallystick.core.assess import Assessment
from tallystick.core.chain import NetworkView
from tallystick.core.invoice import Match, PaymentStatus, Status
from tallystick.core.money import format_units
from tallystick.core.network import Network
from tallystick.core.shares import Verdict
from tallystick.core.transitions import Reason
from tallystick.db.invoices import StoredInvoice, StoredTransfer

EVIDENCE_TRANSFERS_MAX: Final = 20

_ORDER: Final = {
    Status.AWAITING_PAYMENT: 0,
    Status.EXPIRED: 0,
    Status.CANCELED: 0,
    Status.PARTIALLY_PAID: 1,
    Status.UNDERPAID: 1,
    Status.REVIEW_REQUIRED: 1,
    Status.LATE_PAID: 2,
    Status.DETECTED: 3,
    Status.CONFIRMING: 4,
    Status.PAID: 5,
    Status.OVERPAID: 6,
    Status.SETTLED: 7,
    Status.REFUNDED: 7,
}

_FORWARD: Final = {
    Status.QUOTED: Reason.RATES_LOCKED,
    Status.AWAITING_PAYMENT: Reason.OPTION_ACTIVATED,
    Status.DETECTED: Reason.PAYMENT_SEEN,
    Status.PARTIALLY_PAID: Reason.PAYMENT_PARTIAL,
    Status.CONFIRMING: Reason.PAYMENT_IN_BLOCK,
    Status.PAID: Reason.POLICY_MET,
    Status.OVERPAID: Reason.AMOUNT_ABOVE_TOLERANCE,
    Status.UNDERPAID: Reason.WINDOW_CLOSED,
    Status.EXPIRED: Reason.WINDOW_CLOSED,
    Status.LATE_PAID: Reason.LATE_PAYMENT,
    Status.REVIEW_REQUIRED: Reason.MISMATCHED_PAYMENT,
    Status.CANCELED: Reason.CANCELED,
    Status.DISPUTED: Reason.DISPUTE_OPENED,
    Status.REFUNDED: Reason.REFUND_COMPLETED,
    Status.SETTLED: Reason.SETTLED,
}

# A block that uses up what a sighted payment needed, or in which it fails, takes it away without any reorganisation.
_NEVER_TO_COME: Final = frozenset({PaymentStatus.REPLACED, PaymentStatus.FAILED})


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else the word depends on: what took evidence away, what payments became by it, and decisions."""

    reorganised: bool  # blocks left the best chain
    vanished: bool  # a node stopped showing what was outside any block
    decided: bool  # a person decided something about the payment
    became: frozenset[PaymentStatus]
    fulfilled: bool
    settled: bool


def reason_of(before: Status, after: Status, judged: Assessment, around: Circumstances) -> Reason:
    """The published word for the step from `before` to `after`. Only the chain takes evidence away."""
    if after in (Status.DISPUTED, Status.REFUNDED, Status.SETTLED) and before is not Status.DISPUTED:
        return _FORWARD[after]
    if around.decided:
        return Reason.DISPUTE_RESOLVED if before is Status.DISPUTED else Reason.DECIDED
    if around.reorganised or around.vanished or around.became & _NEVER_TO_COME:
        taken = _taken_away(before, after, around)
        if taken is not None:
            return taken
    if judged.late and after in (Status.PAID, Status.OVERPAID):
        return Reason.LATE_PAYMENT_ACCEPTED
    return _FORWARD[after]


def _taken_away(before: Status, after: Status, around: Circumstances) -> Reason | None:
    """The word where the chain took something away; None where it did not."""
    if PaymentStatus.REPLACED in around.became and _ORDER.get(after, 0) < _ORDER.get(before, 0):
        replaced = Reason.REPLACED
    else:
        replaced = Reason.REORGANIZED if around.reorganised else Reason.VANISHED
    if after is Status.REVIEW_REQUIRED and _ORDER.get(after, 0) < _ORDER.get(before, 0):
        if before is Status.REFUNDED:
            return Reason.REVERSED_AFTER_REFUND
        if around.settled:
            return Reason.REVERSED_AFTER_SETTLEMENT
        return Reason.REVERSED_AFTER_FULFILLMENT if around.fulfilled else replaced
    if before is Status.REFUNDED:
        return Reason.REFUND_REORGANIZED
    return replaced if _ORDER.get(after, 0) < _ORDER.get(before, 0) else None


def evidence_of(
    invoice: StoredInvoice,
    after: Status,
    judged: Assessment,
    views: Mapping[str, NetworkView],
    networks: Mapping[str, Network],
) -> tuple[dict[str, Any], ...]:
    """What shows that `after` is true: quotes, addresses, the deadline, transfers with their blocks."""
    if after is Status.QUOTED:
        return tuple(_quote(invoice, position) for position in range(len(invoice.options)))
    transfers = _transfers(invoice, judged)
    if after is Status.AWAITING_PAYMENT and not transfers:
        return tuple(
            {
                "type": "address",
                "option_id": option.terms.id,
                "network": option.terms.asset.network,
                "address": FAMILIES[option.family].display(
                    option.address, networks.get(option.terms.asset.network)
                ),
            }
            for option in invoice.options
            if option.address is not None
        )
    if after in (Status.EXPIRED, Status.UNDERPAID):
        return (_deadline(invoice, views), *transfers)
    return transfers


def _quote(invoice: StoredInvoice, position: int) -> dict[str, Any]:
    option = invoice.options[position]
    asset = option.terms.asset
    return {
        "type": "quote",
        "option_id": option.terms.id,
        "asset": asset.symbol,
        "network": asset.network,
        "amount": format_units(option.terms.amount_expected, asset.decimals),
        "rate": option.quote.rate,
        "source": option.quote.source,
    }


def _deadline(invoice: StoredInvoice, views: Mapping[str, NetworkView]) -> dict[str, Any]:
    active = sorted({option.terms.asset.network for option in invoice.options if option.terms.active})
    return {
        "type": "deadline",
        "deadline": invoice.terms.deadline,
        "scanned_until": {name: views[name].scanned_until for name in active if name in views},
    }


def _transfers(invoice: StoredInvoice, judged: Assessment) -> tuple[dict[str, Any], ...]:
    verdicts = {verdict.transfer_id: verdict for verdict in judged.verdicts}
    known = [
        _transfer(transfer, verdicts[transfer.fact.id])
        for transfer in invoice.transfers
        if verdicts[transfer.fact.id].match is not Match.UNSUPPORTED_TOKEN
    ]
    return tuple(known[:EVIDENCE_TRANSFERS_MAX])


def _transfer(transfer: StoredTransfer, verdict: Verdict) -> dict[str, Any]:
    fact = transfer.fact
    shown: dict[str, Any] = {
        "type": "transfer",
        "transfer_id": fact.id,
        "network": fact.key.network,
        "tx_hash": fact.key.tx_hash,
        "ordinal": fact.key.ordinal,
        "asset": fact.asset.symbol if fact.asset is not None else None,
        "amount": format_units(fact.amount, fact.asset.decimals)
        if fact.asset is not None
        else str(fact.amount),
        "match": verdict.match.value,
        "status": verdict.status.value,
        "confirmations": verdict.confirmations,
        "on_time": verdict.on_time,
    }
    if verdict.anchor is not None:
        shown |= {"block_hash": verdict.anchor.block.hash, "block_height": verdict.anchor.block.height}
    if verdict.replaced_by is not None:
        shown["replaced_by"] = verdict.replaced_by
    return shown
