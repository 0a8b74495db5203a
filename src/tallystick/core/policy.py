"""Confirmation policy: which of a merchant's rules says when a payment counts, and why, in words.

For: creating an invoice, and the preview of it. Holds true: the rules are tried in order and the first that matches
applies; the network's own requirement closes the list, so there is always exactly one answer. Amount bands are compared
exactly. The same policy and subject always give the same answer: name, version, requirement, tolerance, explanation.
Must not: know where rules are kept or where rates come from, or touch what was chosen before.

Fail-safe: a rule whose amount band is in a currency to which no rate is known can neither be applied nor skipped. All
rules that might apply (every such rule, up to the first that surely matches) are then taken together, and the strictest
of what they ask for is required (`stricter`). So ignorance can only make a payment wait longer than it had to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import reduce
from typing import Final

from tallystick.core.chain import Finality, Requirement, Trait
from tallystick.core.invoice import Tolerance
from tallystick.core.money import Price, format_price, format_rate
from tallystick.core.policy_rules import NETWORK_DEFAULT, Conditions, Policy, fits_place, listed


@dataclass(frozen=True, slots=True)
class SightLimit:
    """The most that counts at sight on a network, in base units of the asset asked for, and in words."""

    amount: int
    words: str


@dataclass(frozen=True, slots=True)
class Subject:
    """What a rule is looked for: one way to pay a price.

    `default` is the network's own requirement. `rates` holds units of a currency for one whole unit of the price's own,
    as far as they are known; it is asked for the currencies of `currencies_needed` only. `amount` is what is asked in
    base units of the asset (None: not known), `sight_limit` up to how much a payment counts at sight where the rule
    names no amount of its own. `shows_risks`: the network says which payments can be replaced, or rest on others.
    """

    network: str
    asset: str
    product_type: str | None
    price: Price
    default: Requirement
    rates: Mapping[str, Fraction] = field(default_factory=dict)
    amount: int | None = None
    sight_limit: SightLimit | None = None
    shows_risks: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """What was chosen for one way to pay, with the sentence that explains it."""

    name: str
    version: int
    requirement: Requirement
    tolerance: Tolerance
    explanation: str


@dataclass(frozen=True, slots=True)
class Floor:
    """An operator's decision under congestion: on this network no depth below `confirmations` is enough."""

    network: str
    confirmations: int
    note: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A rule that applies, or might. `label` names it inside a sentence, `why` says in words why it matched.

    `capped`: it counts sightings, and more is asked than the network's limit for that.
    """

    name: str
    label: str
    requirement: Requirement
    tolerance: Tolerance
    why: str = ""
    capped: bool = False


def choose(policy: Policy, subject: Subject, *, asked_for: str | None = None) -> Applied:
    """The rule for one way to pay: the first that matches, else the network's default.

    `asked_for` names a rule that is to apply whatever the amount and the product type are, wherever its network and
    asset fit; elsewhere the rules are tried as usual. Raises KeyError when the policy has no such rule.
    """
    if asked_for == NETWORK_DEFAULT:
        why = f"The default of the network {subject.network} was asked for by name"
        return _applied(policy, subject, replace(_default(policy, subject), why=why))
    if asked_for is not None:
        position = next((at for at, rule in enumerate(policy.rules) if rule.name == asked_for), None)
        if position is None:
            raise KeyError(asked_for)
        rule = policy.rules[position]
        if fits_place(rule.conditions, subject.network, subject.asset):
            why = f"{_labelled(policy, position)} was asked for by name"
            # By name it applies whatever the amount is, so an amount of its own limits nothing.
            return _applied(policy, subject, _candidate(policy, position, subject, why, bounded=False))
    return _first_match(policy, subject)


def _first_match(policy: Policy, subject: Subject) -> Applied:
    unsure: list[_Candidate] = []
    unknown: list[str] = []
    for position, rule in enumerate(policy.rules):
        answer, words = _matches(rule.conditions, subject)
        if answer is False:
            continue
        why = f"{_labelled(policy, position)} matched because {words}"
        bounded = rule.conditions.amount_lt is not None
        found = _candidate(policy, position, subject, why, bounded=bounded)
        if answer:
            break
        unsure.append(found)
        if rule.conditions.amount_currency is not None:
            unknown.append(rule.conditions.amount_currency)
    else:
        found = _default(policy, subject)
    if not unsure:
        return _applied(policy, subject, found)
    return _strictest(policy, subject, [*unsure, found], list(dict.fromkeys(unknown)))


def currencies_needed(policy: Policy, currency: str) -> tuple[str, ...]:
    """Currencies other than the price's own to which some amount band needs a rate, in the order of the rules."""
    bands = [rule.conditions.amount_currency for rule in policy.rules if rule.conditions.has_band]
    return tuple(dict.fromkeys(one for one in bands if one is not None and one != currency))


def _matches(conditions: Conditions, subject: Subject) -> tuple[bool | None, str]:
    """Whether the rule matches (None: the rate that would tell is not known), and why, in words."""
    if not fits_place(conditions, subject.network, subject.asset):
        return False, ""
    if conditions.product_type not in (None, subject.product_type):
        return False, ""
    reasons = []
    if conditions.network is not None:
        reasons.append(f"the network is {subject.network}")
    if conditions.asset is not None:
        reasons.append(f"the asset is {subject.asset}")
    if conditions.product_type is not None:
        reasons.append(f'the product type is "{conditions.product_type}"')
    answer: bool | None = True
    if conditions.has_band:
        answer, words = _in_band(conditions, subject)
        reasons.append(words)
    return answer, listed(reasons) if reasons else "it matches everything"


def _in_band(conditions: Conditions, subject: Subject) -> tuple[bool | None, str]:
    price = subject.price
    amount, shown = Fraction(price.amount, 10**price.decimals), format_price(price.amount, price)
    currency, at_rate = price.currency, ""
    if conditions.amount_currency not in (None, price.currency):
        currency = str(conditions.amount_currency)
        rate = subject.rates.get(currency)
        if rate is None:
            return None, ""
        amount *= rate
        at_rate = f" at {format_rate(rate)} {currency} for 1 {price.currency}"
    bounds = []
    if conditions.amount_gte is not None:
        if amount < Fraction(conditions.amount_gte):
            return False, ""
        bounds.append(f"at least {conditions.amount_gte} {currency}")
    if conditions.amount_lt is not None:
        if amount >= Fraction(conditions.amount_lt):
            return False, ""
        bounds.append(f"below {conditions.amount_lt} {currency}")
    return True, f"the amount of {shown} {price.currency} is {' and '.join(bounds)}{at_rate}"


def _labelled(policy: Policy, position: int) -> str:
    name, count = policy.rules[position].name, len(policy.rules)
    return f'Rule {position + 1} of {count}, "{name}", of policy version {policy.version}'


def _candidate(policy: Policy, position: int, subject: Subject, why: str, *, bounded: bool) -> _Candidate:
    rule = policy.rules[position]
    requirement, limit = rule.requirement, subject.sight_limit
    capped = rule.zero_conf and not bounded and limit is not None
    if capped and limit is not None and subject.amount is not None:
        capped = subject.amount > limit.amount
    if capped:
        requirement = replace(requirement, zero_conf=False, accepted_risks=frozenset())
    label = f'rule {position + 1} "{rule.name}"'
    return _Candidate(rule.name, label, requirement, rule.tolerance, why, capped)


def _default(policy: Policy, subject: Subject) -> _Candidate:
    none = f"No rule of policy version {policy.version} matched" if policy.rules else "There are no rules"
    why = f"{none}, so the default of the network {subject.network} applies"
    return _Candidate(NETWORK_DEFAULT, "the network's default", subject.default, Tolerance(), why)


def _applied(policy: Policy, subject: Subject, found: _Candidate) -> Applied:
    sentence = f"{found.why}: {_words(subject, found.requirement)}.{_limit_words(subject, [found])}"
    return Applied(found.name, policy.version, found.requirement, found.tolerance, sentence)


def _strictest(
    policy: Policy, subject: Subject, candidates: Sequence[_Candidate], currencies: Sequence[str]
) -> Applied:
    """What all candidates ask for together. It bears the name of the first that asks for that much by itself."""
    requirement = reduce(stricter, (one.requirement for one in candidates))
    tolerance = Tolerance(
        min(one.tolerance.under_bps for one in candidates), min(one.tolerance.over_bps for one in candidates)
    )
    named = next((one for one in candidates if one.requirement == requirement), candidates[0])
    labels = listed([one.label for one in candidates])
    explanation = (
        f"No rate from {subject.price.currency} to {listed(currencies)} is known, so policy version {policy.version} "
        f"cannot tell which of {labels} applies, and the strictest of what they ask for is required: "
        f"{_words(subject, requirement)}.{_limit_words(subject, candidates)}"
    )
    return Applied(named.name, policy.version, requirement, tolerance, explanation)


_RISK_WORDS: Final = {
    Trait.REPLACEABLE: "its sender can still replace it",
    Trait.UNCONFIRMED_PARENT: "it spends what no block holds yet",
}


def _words(subject: Subject, requirement: Requirement) -> str:
    left = [words for risk, words in _RISK_WORDS.items() if risk not in requirement.accepted_risks]
    if not (requirement.zero_conf and subject.shows_risks and left):
        return requirement_words(requirement)
    return f"{requirement_words(requirement)}, unless {' or '.join(left)}"


def _limit_words(subject: Subject, candidates: Sequence[_Candidate]) -> str:
    if subject.sight_limit is None or not any(one.capped for one in candidates):
        return ""
    return (
        f" It does not count at first sight: without an amount_lt of its own a rule reaches to the limit of "
        f"{subject.network} for that, {subject.sight_limit.words}."
    )


def stricter(one: Requirement, other: Requirement) -> Requirement:
    """The least requirement that is not weaker than either.

    Of two depths the greater; what is finalized cannot be taken back, so it is stricter than any depth and than safe. A
    depth and `safe` cannot be compared: what is finalized is stricter than both. A sighting counts only if both say so,
    and with the risks only that both accept.
    """
    zero_conf = one.zero_conf and other.zero_conf
    risks = one.accepted_risks & other.accepted_risks if zero_conf else frozenset[Trait]()
    if one.finality is not other.finality:
        return Requirement(Finality.FINALIZED, zero_conf=zero_conf, accepted_risks=risks)
    return Requirement(one.finality, max(one.confirmations, other.confirmations), zero_conf, risks)


def raised(applied: Applied, floor: Floor) -> Applied:
    """What was chosen, with an operator's floor under it; unchanged where it asks for that much already."""
    if not is_below(applied.requirement, floor):
        return applied
    needed = applied.requirement
    confirmations = (
        max(needed.confirmations, floor.confirmations)
        if needed.finality is Finality.DEPTH
        else needed.confirmations
    )
    return replace(
        applied,
        requirement=Requirement(needed.finality, confirmations),
        explanation=f"{applied.explanation} {raise_words(floor)}",
    )


def is_below(requirement: Requirement, floor: Floor) -> bool:
    """Whether the floor asks for more: than a lesser depth, or than a mere sighting. Safe and finalized stand."""
    too_shallow = requirement.finality is Finality.DEPTH and requirement.confirmations < floor.confirmations
    return too_shallow or requirement.zero_conf


def raise_words(floor: Floor) -> str:
    """The sentence that an operator's raise adds to an explanation."""
    count = "1 confirmation" if floor.confirmations == 1 else f"{floor.confirmations} confirmations"
    return (
        f"The operator raised this: on {floor.network} nothing less than {count} is enough "
        f"at present ({floor.note})."
    )


def requirement_words(requirement: Requirement) -> str:
    """A requirement as the rest of a sentence."""
    if requirement.zero_conf:
        # What a token's contract will do with a call is sure only once a block holds it.
        return (
            "a payment counts at first sight, coins before any block holds them, tokens in their first block"
        )
    match requirement.finality:
        case Finality.DEPTH:
            count = requirement.confirmations
            if count == 1:
                return "a payment counts once 1 block holds it"
            return f"a payment counts once {count} blocks hold or follow it"
        case Finality.SAFE:
            return "a payment counts once the network calls its block safe"
        case Finality.FINALIZED:
            return "a payment counts once the network has finalized its block"
