"""Refunds: a payment in the other direction, and what is known about it.

For: the assessment (what is being given back does not pay; what was given back is settled), `services.refunds`
(which records the decisions), and the documentation. Holds true: a refund's status moves along EDGES only; what the
chain shows about the outgoing transfer always wins over what anybody told; nothing is ever sent again by itself.
Must not: know keys, or how a transfer is built.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from tallystick.core.chain import Anchor, NetworkView, Requirement, canonical_anchor, confirmations, is_final
from tallystick.core.money import Asset


class RefundStatus(StrEnum):
    """Every state of a refund."""

    REQUESTED = "requested"  # asked for; needs an approval
    APPROVED = (
        "approved"  # may be paid; needs an address that the customer, or the merchant for them, confirmed
    )
    AWAITING_SIGNATURE = (
        "awaiting_signature"  # a payment request exists; the merchant signs and sends it elsewhere
    )
    BROADCAST = "broadcast"  # said to be sent, or seen once and not in the best chain now
    CONFIRMING = "confirming"  # in the best chain, requirement not yet met
    COMPLETED = "completed"  # in the best chain, requirement met
    REJECTED = "rejected"  # refused by a person
    FAILED = "failed"  # given up by a person after trouble
    NEEDS_ATTENTION = "needs_attention"  # something is wrong: a person has to look before anything is sent


class RefundRule(StrEnum):
    """How the amount of a refund is found."""

    AMOUNT = "amount"  # named in the request
    RECEIVED = "received"  # everything that was received and not yet given back
    EXCESS = "excess"  # what came above what was asked
    FIAT_VALUE = "fiat_value"  # as much as what it paid of the price is worth now, at most what was received


class FeePayer(StrEnum):
    """Who bears the network's fee of the outgoing transfer."""

    MERCHANT = "merchant"
    CUSTOMER = "customer"


class AddressSource(StrEnum):
    """Who gave and confirmed the address. Never the chain: a sender's address may belong to an exchange."""

    MERCHANT = "merchant"
    CUSTOMER = "customer"


_R = RefundStatus
_ON_CHAIN: Final = frozenset({_R.CONFIRMING, _R.COMPLETED})

EDGES: Final[dict[RefundStatus, frozenset[RefundStatus]]] = {
    _R.REQUESTED: frozenset({_R.APPROVED, _R.REJECTED}),
    _R.APPROVED: frozenset({_R.AWAITING_SIGNATURE, _R.REJECTED, _R.FAILED, _R.NEEDS_ATTENTION}),
    _R.AWAITING_SIGNATURE: _ON_CHAIN | {_R.BROADCAST, _R.FAILED, _R.NEEDS_ATTENTION},
    _R.BROADCAST: _ON_CHAIN | {_R.NEEDS_ATTENTION},
    # The outgoing transfer's block can leave the best chain like any other.
    _R.CONFIRMING: frozenset({_R.COMPLETED, _R.BROADCAST}),
    _R.COMPLETED: frozenset({_R.CONFIRMING, _R.BROADCAST}),
    _R.NEEDS_ATTENTION: _ON_CHAIN | {_R.AWAITING_SIGNATURE, _R.BROADCAST, _R.APPROVED, _R.FAILED},
    _R.REJECTED: frozenset(),
    _R.FAILED: _ON_CHAIN,  # whoever gave up and was wrong: the chain shows that it was sent after all
}

PENDING: Final = frozenset(_R) - {_R.REJECTED, _R.FAILED, _R.COMPLETED}
"""Refunds under way: their amount is spoken for, so no other refund can take it."""

ALIVE: Final = PENDING | {_R.COMPLETED}
"""Refunds whose amount is not there any more for another one."""

DECIDED: Final = frozenset(_R) - {_R.REQUESTED, _R.REJECTED, _R.FAILED}
"""Refunds that a person approved and nobody gave up: owed, or paid."""

APPROVABLE: Final = frozenset({_R.REQUESTED, _R.NEEDS_ATTENTION})
"""Refunds that a person may let go on."""

UNSENT: Final = frozenset({_R.APPROVED, _R.AWAITING_SIGNATURE})
"""Approved refunds of which nobody said, and nothing shows, that they were sent."""

GIVING_UP: Final[dict[RefundStatus, RefundStatus]] = {
    _R.REQUESTED: _R.REJECTED,
    _R.APPROVED: _R.REJECTED,
    _R.AWAITING_SIGNATURE: _R.FAILED,
    _R.NEEDS_ATTENTION: _R.FAILED,
}
"""What a refund becomes when a person refuses it or gives it up. One said to be sent is not: the chain decides."""

SIGN_WITHIN: Final = timedelta(days=7)
"""How long a payment request may wait to be signed before a person has to look."""

SEEN_WITHIN: Final = timedelta(hours=24)
"""How long a transfer said to be sent may stay unseen before a person has to look."""


def diagram() -> str:
    """The table as a Mermaid state diagram, for the documentation. A pure function of EDGES."""
    lines = ["stateDiagram-v2", f"    [*] --> {_R.REQUESTED}"]
    lines += [f"    {start} --> {stop}" for start in _R for stop in _R if stop in EDGES[start]]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class RefundFact:
    """What is known about a refund of an invoice.

    `status` is the stored one: it carries the decisions of people. `amount` is what it takes from what was received, in
    base units of `asset`. `transfer_ids` are the incoming transfers it gives back in full, if it does; with `withdraws`
    they stop paying the invoice as soon as the refund is approved, else when it is completed. `anchors` are the blocks
    that held the outgoing transfer. `option_id` is the option that the money came to.
    """

    id: str
    status: RefundStatus
    asset: Asset
    amount: int
    requirement: Requirement
    transfer_ids: frozenset[str] = frozenset()
    withdraws: bool = False
    anchors: tuple[Anchor, ...] = ()
    fee_amount: int = 0  # base units of `amount` that are kept back for the network's fee
    option_id: str | None = None


@dataclass(frozen=True, slots=True)
class RefundVerdict:
    """What is true about a refund now. `times_sent` is how many transfers of it stand in the best chain: more than one
    is money sent twice."""

    refund_id: str
    status: RefundStatus
    anchor: Anchor | None
    confirmations: int
    times_sent: int = 0


def judge_refund(fact: RefundFact, view: NetworkView | None) -> RefundVerdict:
    """Judge a refund by the chain: an outgoing transfer in the best chain decides, whatever was said before.

    One that left the best chain is back to `broadcast`: it may be mined again, and nobody sends it twice.
    """
    anchor = canonical_anchor(fact.anchors)
    count = confirmations(anchor, view) if view is not None else 0
    if anchor is not None and view is not None:
        final = is_final(anchor, fact.requirement, view)
        times_sent = sum(one.in_best_chain for one in fact.anchors)
        return RefundVerdict(fact.id, _R.COMPLETED if final else _R.CONFIRMING, anchor, count, times_sent)
    if fact.status in _ON_CHAIN:
        return RefundVerdict(fact.id, _R.BROADCAST, None, 0)
    return RefundVerdict(fact.id, fact.status, None, 0)


def given_back(
    refunds: Iterable[RefundFact], completed: Collection[str], amounts: Mapping[str, int]
) -> frozenset[str]:
    """Transfers that were returned in full, by refunds whose ids are `completed`. `amounts` are the transfers' own.

    A refund may name transfers of which an earlier one returned a part; they are returned once both have arrived, so of
    an asset such refunds count together.
    """
    found: set[str] = set()
    together: dict[tuple[str, str], tuple[int, set[str]]] = {}
    for refund in refunds:
        if refund.id not in completed:
            continue
        named = refund.transfer_ids & amounts.keys()
        if named and refund.amount >= sum(amounts[one] for one in named):
            found |= named
            continue
        key = (refund.asset.network, refund.asset.key)
        amount, before = together.get(key, (0, set()))
        together[key] = (amount + refund.amount, before | named)
    for amount, named_together in together.values():
        if amount >= sum(amounts[one] for one in named_together):
            found |= named_together
    return frozenset(found)
