"""The books of an invoice, as a pure function of the same facts as its status.

For: `services.booking`, which writes the difference to what is stored. Holds true: the balance of `onchain` is what is
confirmed less what was sent back, in every asset. The books depend on facts only, never on the order in which they
came, so a reorganisation that takes a payment takes its entries back, and one that returns it books them again.
Must not: know rows, ids of entries, or the clock; decide whether an invoice is paid (`core.assess` does).

Three kinds of entries follow from facts:

* *receipt*, one for each payment while it is confirmed: what arrived is on chain, and nobody's yet (suspense).
* *position*, one for each invoice: whose the confirmed money is by what is true about the invoice now.
  `core.ledger.POSITIONS` is the table; `SPECIAL` are the rules that hold beside it. What is undecided stays in
  suspense: the same money that an open exception asks a person about.
* *refund_sent*, one for each refund while its own transfer is final.

Where more came than was asked, the excess is taken from what arrived last, as the fraction of it that was not needed;
fractions of a base unit are not owed. A refund that names no transfers takes from the excess first, then from what is
undecided, then from what the merchant earned. A refund not yet sent is owed only as far as what it gives back stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction

from tallystick.core.assess import Assessment, being_given_back
from tallystick.core.invoice import (
    DecisionKind,
    Facts,
    InvoiceTerms,
    LatePayment,
    Match,
    PaymentStatus,
    Status,
    TransferFact,
)
from tallystick.core.ledger import POSITIONS, Account, Denomination, Entry, EntryKind, Lines, Rule
from tallystick.core.refund import DECIDED, RefundFact, RefundStatus, RefundVerdict
from tallystick.core.shares import Unit, Verdict, units_of


@dataclass(frozen=True, slots=True)
class Books:
    """Every entry that should be in force for an invoice: receipts by transfer, refunds by refund."""

    receipts: dict[str, Entry]
    position: Entry | None
    refunds: dict[str, Entry]

    def entries(self) -> Iterator[Entry]:
        """All of them."""
        yield from self.receipts.values()
        if self.position is not None:
            yield self.position
        yield from self.refunds.values()


def books(terms: InvoiceTerms, facts: Facts, judged: Assessment) -> Books:
    """The books of an invoice, from the facts that `judged` was made of."""
    verdicts = {verdict.transfer_id: verdict for verdict in judged.verdicts}
    transfers = {fact.id: fact for fact in facts.transfers if fact.id in verdicts}
    receipts = {
        fact.id: entry
        for fact in sorted(transfers.values(), key=_arrival)
        if (entry := receipt(fact, verdicts[fact.id])) is not None
    }
    about = {fact.id: fact for fact in facts.refunds}
    sent = {
        verdict.refund_id: entry
        for verdict in judged.refunds
        if (entry := refund_sent(about[verdict.refund_id], verdict)) is not None
    }
    if not receipts and not sent and not transfers:
        return Books({}, None, {})
    return Books(receipts, position(terms, facts, judged), sent)


def receipt(fact: TransferFact, verdict: Verdict) -> Entry | None:
    """What a confirmed payment brings, whatever it is for; None for anything else.

    Not for tokens that nobody configured (they have no value in the books), nor for coins moved among one's own.
    """
    if fact.asset is None or not _is_received(fact, verdict):
        return None
    lines = Lines()
    lines.move(Denomination.of_asset(fact.asset), Account.ONCHAIN, Account.SUSPENSE, fact.amount)
    return lines.entry(EntryKind.RECEIPT, f"Confirmed on {fact.key.network} in {fact.key.tx_hash}.")


def refund_sent(fact: RefundFact, verdict: RefundVerdict) -> Entry | None:
    """What a completed refund takes: None before its own transfer is final.

    Where the customer bears the network's fee, what is kept back for it is a credit to `fees`: the merchant pays that
    fee from elsewhere. What was sent more than once is a loss.
    """
    if verdict.status is not RefundStatus.COMPLETED:
        return None
    lines, denomination = Lines(), Denomination.of_asset(fact.asset)
    sent = fact.amount - fact.fee_amount
    lines.move(denomination, Account.REFUNDS_PAYABLE, Account.ONCHAIN, sent)
    lines.move(denomination, Account.REFUNDS_PAYABLE, Account.FEES, fact.fee_amount)
    lines.move(denomination, Account.LOSSES, Account.ONCHAIN, sent * max(0, verdict.times_sent - 1))
    return lines.entry(EntryKind.REFUND_SENT, f"The refund's transfer is final on {fact.asset.network}.")


def position(terms: InvoiceTerms, facts: Facts, judged: Assessment) -> Entry | None:
    """Whose the confirmed money of an invoice is, and what is still owed; None where there is nothing to say."""
    case = _Case.of(terms, facts, judged)
    lines = Lines()
    buckets = _buckets(case)
    for denomination, found in sorted(buckets.items()):
        lost = found.short
        for account, amount in found.amounts.items():
            if account is not Account.SUSPENSE:
                lines.move(denomination, Account.SUSPENSE, account, amount)
        lines.move(denomination, Account.SUSPENSE, Account.REFUNDS_PAYABLE, found.given_back)
        lines.move(denomination, Account.LOSSES, Account.REFUNDS_PAYABLE, lost)
    owed = _missing(case)
    if owed is not None:
        account, amount = owed
        lines.move(Denomination.of_price(terms.price), account, Account.EXPECTED, amount)
    return lines.entry(EntryKind.POSITION, f"The invoice is {judged.status}.")


# How it is found -----------------------------------------------------------------------------------------------------


def _arrival(fact: TransferFact) -> tuple[datetime, str, str, str]:
    """The order of arrival: the first chain time that held it. Ties are broken by identity, so that all agree."""
    return fact.first_evidence_at, fact.key.network, fact.key.tx_hash, fact.id


def _is_received(fact: TransferFact, verdict: Verdict) -> bool:
    return (
        verdict.status is PaymentStatus.CONFIRMED
        and verdict.match is not Match.UNSUPPORTED_TOKEN
        and not fact.internal
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """Everything that the rules are asked of.

    `units` are what counts, less what is being given back. `paying` are those that pay the invoice, in the order of
    arrival: late money does where it is accepted, kept, or too much.
    """

    terms: InvoiceTerms
    facts: Facts
    judged: Assessment
    verdicts: Mapping[str, Verdict]
    transfers: Mapping[str, TransferFact]
    set_aside: frozenset[str]
    units: list[Unit]
    paying: list[Unit]

    @classmethod
    def of(cls, terms: InvoiceTerms, facts: Facts, judged: Assessment) -> _Case:
        verdicts = {verdict.transfer_id: verdict for verdict in judged.verdicts}
        transfers = {fact.id: fact for fact in sorted(facts.transfers, key=_arrival) if fact.id in verdicts}
        set_aside = being_given_back(facts, judged.refunds)
        counting = [(fact, verdicts[fact.id]) for fact in transfers.values() if fact.id not in set_aside]
        units = units_of(terms, facts.decisions, counting)
        late_too = terms.late_payment is LatePayment.ACCEPT or judged.too_much
        kept = facts.decisions.named(DecisionKind.KEEP)
        paying = [
            unit for unit in units if unit.confirmed and (late_too or unit.on_time or unit.members <= kept)
        ]
        paying.sort(key=lambda unit: max(_arrival(transfers[one]) for one in unit.members))
        return cls(terms, facts, judged, verdicts, transfers, set_aside, units, paying)

    @property
    def rule(self) -> Rule:
        return POSITIONS[self.judged.status]

    @property
    def written_off(self) -> frozenset[str]:
        return self.facts.decisions.named(DecisionKind.WRITE_OFF)


@dataclass(slots=True)
class _Bucket:
    """One denomination of an invoice: where each base unit of what is confirmed goes.

    `given_back` is what refunds take of it, `short` what a sent refund took beyond it.
    """

    amounts: dict[Account, int] = field(
        default_factory=lambda: {Account.OVERPAYMENT: 0, Account.SUSPENSE: 0, Account.MERCHANT: 0}
    )
    given_back: int = 0
    short: int = 0

    def take(self, amount: int) -> int:
        """Take for a refund: from the excess first, then what is undecided, then what was earned. What is left over."""
        for account, there in self.amounts.items():
            taken = min(there, amount)
            self.amounts[account] -= taken
            self.given_back += taken
            amount -= taken
        return amount


def _buckets(case: _Case) -> dict[Denomination, _Bucket]:
    """Where all confirmed money of an invoice goes, by denomination."""
    left = {
        fact.id: fact.amount for fact in case.transfers.values() if _is_received(fact, case.verdicts[fact.id])
    }
    found: dict[Denomination, _Bucket] = {}
    rest = list(_take_named(case, left, found))
    overpaid = _excess(case, left) if case.judged.too_much else {}
    earned = _earned(case)
    for transfer_id, amount in left.items():
        fact = case.transfers[transfer_id]
        if fact.asset is None:
            continue
        bucket = found.setdefault(Denomination.of_asset(fact.asset), _Bucket())
        excess = min(amount, overpaid.get(transfer_id, 0)) if transfer_id in earned else 0
        bucket.amounts[Account.OVERPAYMENT] += excess
        bucket.amounts[Account.MERCHANT if transfer_id in earned else Account.SUSPENSE] += amount - excess
    for refund, amount, sent in rest:
        bucket = found.setdefault(Denomination.of_asset(refund.asset), _Bucket())
        uncovered = bucket.take(amount)
        bucket.short += uncovered if sent else 0
    return found


def _take_named(
    case: _Case, left: dict[str, int], found: dict[Denomination, _Bucket]
) -> Iterator[tuple[RefundFact, int, bool]]:
    """Let every refund that is owed or sent take from the transfers it names; answer what each still needs.

    Sent ones come first: what has left cannot wait for what is only promised.
    """
    status = {verdict.refund_id: verdict.status for verdict in case.judged.refunds}
    owed = [refund for refund in case.facts.refunds if status[refund.id] in DECIDED]
    for refund in sorted(owed, key=lambda one: (status[one.id] is not RefundStatus.COMPLETED, one.id)):
        denomination = Denomination.of_asset(refund.asset)
        need = refund.amount
        for transfer_id in sorted(refund.transfer_ids & left.keys()):
            asset = case.transfers[transfer_id].asset
            if asset is not None and Denomination.of_asset(asset) == denomination:
                taken = min(left[transfer_id], need)
                left[transfer_id] -= taken
                need -= taken
                found.setdefault(denomination, _Bucket()).given_back += taken
        yield refund, need, status[refund.id] is RefundStatus.COMPLETED


def _earned(case: _Case) -> frozenset[str]:
    """Transfers that are the merchant's: what pays an invoice that is paid, and what was kept by decision."""
    if case.rule.money is not Account.MERCHANT:
        return case.written_off
    return case.written_off.union(*(unit.members for unit in case.paying))


def _excess(case: _Case, left: Mapping[str, int]) -> dict[str, int]:
    """Base units of each transfer above what was asked, taken from what arrived last. Rounded down.

    `left` is what refunds leave of the transfers that they name: what goes back is not too much any more.
    """
    shares = [(unit, _counts_for(unit, case) * _part_left(unit, case, left)) for unit in case.paying]
    excess = sum((share for _, share in shares), Fraction(0)) - 1
    found: dict[str, int] = {}
    for unit, share in reversed(shares):
        if excess <= 0:
            break
        if share:
            over = min(excess, share)
            excess -= over
            found |= {one: math.floor(left.get(one, 0) * over / share) for one in unit.members}
    return found


def _part_left(unit: Unit, case: _Case, left: Mapping[str, int]) -> Fraction:
    """How much of a unit no named refund takes; of several transfers that count together, the least."""
    return min(Fraction(left.get(one, 0), case.transfers[one].amount) for one in unit.members)


def _counts_for(unit: Unit, case: _Case) -> Fraction:
    """The share of the price that a unit brought. What a person accepted counts as the price, not as more."""
    accepted = any(
        decision.kind is DecisionKind.ACCEPT and unit.members <= decision.transfer_ids
        for decision in case.facts.decisions.recorded
    )
    return min(Fraction(1), unit.asked) if accepted else unit.asked


def _missing(case: _Case) -> tuple[Account, int] | None:
    """What of the price has not come, in units of the price, and where that is booked."""
    lost = _lost_after_delivery(case)
    if lost:
        given_up = lost <= case.written_off
        amount = case.terms.price.amount - case.judged.amount_paid
        return (Account.LOSSES if given_up else Account.RECEIVABLE), max(0, amount)
    account = case.rule.missing
    if account is None or (case.judged.status is Status.UNDERPAID and _all_dealt_with(case)):
        return None
    counting = case.paying if account is Account.LOSSES else [unit for unit in case.units if unit.confirmed]
    share = sum((unit.asked for unit in counting), Fraction(0))
    return account, max(0, case.terms.price.amount - math.floor(share * case.terms.price.amount))


def _lost_after_delivery(case: _Case) -> frozenset[str]:
    """Transfers that had paid for goods which left, and do not stand any more, while nothing else pays for them."""
    decisions = case.facts.decisions
    if decisions.fulfilled_at is None or case.judged.sufficient or case.judged.status is Status.REFUNDED:
        return frozenset()
    counted = decisions.named(DecisionKind.ACCEPT, DecisionKind.CREDIT)
    return frozenset(
        fact.id
        for fact in case.transfers.values()
        if case.verdicts[fact.id].status is not PaymentStatus.CONFIRMED
        and (case.verdicts[fact.id].match is Match.MATCHED or fact.id in counted)
        and not (fact.internal or case.terms.is_dust(fact) or fact.id in case.set_aside)
    )


def _all_dealt_with(case: _Case) -> bool:
    """Whether a person, or a refund, has spoken about everything that came towards an invoice."""
    dealt_with = case.facts.decisions.named(DecisionKind.DISMISS, DecisionKind.WRITE_OFF) | case.set_aside
    return all(unit.members <= dealt_with for unit in case.units)
