"""How much of what came can be given back, and for which transfers a refund stands.

For: `services.refunds` (which records refunds) and the one writer (which sees when a refund's ground is gone). Holds
true: only what stands in the best chain, final by what is required of it (`required_for`), can be given back: a
sighting is no money, whatever a rule counts. Assets are never mixed. What refunds under way or completed took is not
there a second time.
Must not: know rows, rates, or who may decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from tallystick.core.assess import Assessment
from tallystick.core.chain import is_final
from tallystick.core.invoice import (
    Facts,
    InvoiceTerms,
    LatePayment,
    Match,
    Status,
    TransferFact,
    required_for,
)
from tallystick.core.money import Asset
from tallystick.core.refund import ALIVE, RefundFact, given_back
from tallystick.core.shares import LIVE, Measure, add_up, units_of

NOTHING: Final = Fraction(0)


def standing(terms: InvoiceTerms, facts: Facts) -> tuple[TransferFact, ...]:
    """Transfers whose money is there for good: final in the best chain, of a configured asset, not internal."""
    found: list[TransferFact] = []
    for fact in facts.transfers:
        view = facts.networks.get(fact.key.network)
        anchor = next((one for one in fact.anchors if one.in_best_chain), None)
        requirement = required_for(terms.option(fact.option_id), fact, facts.networks)
        known = fact.asset is not None and not fact.internal
        if known and view is not None and is_final(anchor, requirement, view):
            found.append(fact)
    return tuple(found)


def same_asset(one: Asset | None, other: Asset) -> bool:
    """Whether both are the same asset: network and contract; a symbol proves nothing."""
    return one is not None and (one.network, one.key) == (other.network, other.key)


@dataclass(frozen=True, slots=True)
class Holding:
    """What an invoice holds of one asset. `transfers` are those in question that no refund alive gives back in full;
    `credited` is all that stands, `taken` what refunds alive take, both in base units.
    """

    asset: Asset
    transfers: tuple[TransferFact, ...]
    credited: int
    taken: int

    @property
    def left(self) -> int:
        """Base units that can be given back for the transfers in question."""
        return max(0, min(sum(fact.amount for fact in self.transfers), self.credited - self.taken))


def holding(
    terms: InvoiceTerms, facts: Facts, asset: Asset, *, scope: frozenset[str] | None = None
) -> Holding:
    """What there is of an asset. `scope` restricts the question to certain transfers; None asks for all."""
    all_of_it = [fact for fact in standing(terms, facts) if same_asset(fact.asset, asset)]
    alive = [one for one in facts.refunds if one.status in ALIVE and same_asset(one.asset, asset)]
    amounts = {fact.id: fact.amount for fact in all_of_it}
    covered = given_back(alive, {one.id for one in alive}, amounts)
    return Holding(
        asset=asset,
        transfers=tuple(
            fact for fact in all_of_it if fact.id not in covered and (scope is None or fact.id in scope)
        ),
        credited=sum(fact.amount for fact in all_of_it),
        taken=sum(one.amount for one in alive),
    )


def excess(terms: InvoiceTerms, facts: Facts, judged: Assessment, asset: Asset) -> int:
    """Base units of the asset by which what is confirmed exceeds what was asked, less what refunds alive took.

    In fractions of the price, so that several assets add up; rounded down to a base unit. An asset that was not asked
    for has no excess.
    """
    verdicts = {verdict.transfer_id: verdict for verdict in judged.verdicts}
    pairs = [(fact, verdicts[fact.id]) for fact in facts.transfers if fact.id in verdicts]
    total = add_up(units_of(terms, facts.decisions, pairs), Measure.ASKED).confirmed
    for refund in facts.refunds:
        if refund.status in ALIVE:
            total -= _share_of(terms, facts, refund.asset, refund.amount)
    asked = _asked(terms, facts, asset)
    return 0 if asked is None else max(0, math.floor((total - 1) * asked))


def credited_value(terms: InvoiceTerms, facts: Facts, asset: Asset) -> Fraction:
    """The part of the price that what stands of the asset paid, by the quotes it was paid at."""
    return sum(
        (
            Fraction(fact.amount, terms.option(fact.option_id).asked_at(fact.first_evidence_at))
            for fact in standing(terms, facts)
            if same_asset(fact.asset, asset) and same_asset(terms.option(fact.option_id).asset, asset)
        ),
        NOTHING,
    )


def _share_of(terms: InvoiceTerms, facts: Facts, asset: Asset, amount: int) -> Fraction:
    asked = _asked(terms, facts, asset)
    return NOTHING if asked is None else Fraction(amount, asked)


def _asked(terms: InvoiceTerms, facts: Facts, asset: Asset) -> int | None:
    """What the option of this asset asked by the quote in force when its newest transfer was first evidenced."""
    option = next((one for one in terms.options if same_asset(one.asset, asset)), None)
    if option is None:
        return None
    times = [
        fact.first_evidence_at
        for fact in standing(terms, facts)
        if fact.option_id == option.id and same_asset(fact.asset, asset)
    ]
    return option.asked_at(max(times)) if times else option.amount_expected


def partly_allowed(terms: InvoiceTerms, judged: Assessment) -> bool:
    """Whether less than everything may be given back.

    A part that went back would still count towards an invoice that more money can make paid: there, all or nothing.
    """
    return judged.sufficient or (judged.window_closed and terms.late_payment is not LatePayment.ACCEPT)


def unfounded(terms: InvoiceTerms, facts: Facts, refund: RefundFact, basis: Sequence[str]) -> bool:
    """Whether what a refund was built on is gone: a transfer it counted on, or money that others took."""
    there = {fact.id for fact in standing(terms, facts)}
    if not set(basis) <= there:
        return True
    all_of_it = holding(terms, facts, refund.asset)
    return all_of_it.taken > all_of_it.credited


def owed_by_rule(terms: InvoiceTerms, facts: Facts, judged: Assessment) -> tuple[TransferFact, ...]:
    """Transfers that the merchant's rule for late money gives back: everything, once all of it stands.

    Empty unless the rule is to refund, the window is closed for good and late money made the invoice enough.
    """
    by_rule = terms.late_payment is LatePayment.REFUND and not facts.decisions.withdrawn
    if not by_rule or judged.status is not Status.LATE_PAID or not judged.window_closed:
        return ()
    status = {verdict.transfer_id: verdict for verdict in judged.verdicts}
    live = [
        fact
        for fact in facts.transfers
        if fact.id in status
        and status[fact.id].status in LIVE
        and status[fact.id].match is Match.MATCHED
        and not fact.internal
        and not terms.is_dust(fact)
    ]
    there = {fact.id for fact in standing(terms, facts)}
    return tuple(live) if all(fact.id in there for fact in live) else ()
