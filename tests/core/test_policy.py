"""Which rule applies, why, and what cannot be a rule."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.chain import RISKS, Finality, Requirement, Trait
from tallystick.core.errors import InvalidInput
from tallystick.core.invoice import Tolerance
from tallystick.core.money import Asset, Price
from tallystick.core.network import Network
from tallystick.core.policy import (
    Applied,
    Floor,
    SightLimit,
    Subject,
    choose,
    currencies_needed,
    is_below,
    raised,
    stricter,
)
from tallystick.core.policy_rules import NETWORK_DEFAULT, Conditions, Policy, Rule, validate

DEFAULT = Requirement(Finality.DEPTH, 12)
ALPHA = Network(
    "alpha", "evm", "1", Asset("alpha", "ETH", 18), (Asset("alpha", "USDC", 6, "0x" + "aa" * 20),)
)
BETA = Network("beta", "evm", "2", Asset("beta", "BNB", 18), finality_tags=False)
NETWORKS = {"alpha": ALPHA, "beta": BETA}


def rule(name: str = "r", confirmations: int = 6, **conditions: Any) -> Rule:
    return Rule(name, Conditions(**conditions), Finality.DEPTH, confirmations)


def policy(*rules: Rule, version: int = 4) -> Policy:
    return Policy(version, rules)


def usd(cents: int, **changes: Any) -> Subject:
    subject = Subject("alpha", "ETH", "download", Price(cents, "USD", 2), DEFAULT)
    return replace(subject, **changes)


FIAT = policy(
    rule("tiny", 1, amount_lt="10"),
    rule("small", 2, amount_gte="10", amount_lt="100", network="alpha"),
    rule("licences", 4, product_type="licence"),
    rule("tokens", 5, asset="USDC"),
    rule("big", 30, amount_gte="1000.50"),
)

CASES: list[tuple[str, Subject, str]] = [
    ("nothing is below everything", usd(1), "tiny"),
    ("the cent below a bound", usd(9_99), "tiny"),
    ("a lower bound is included, an upper one is not", usd(10_00), "small"),
    ("the cent below the next", usd(99_99), "small"),
    ("a bound that no rule takes", usd(100_00), NETWORK_DEFAULT),
    ("another network", usd(50_00, network="beta"), NETWORK_DEFAULT),
    ("the product", usd(100_00, product_type="licence"), "licences"),
    ("no product is not that product", usd(100_00, product_type=None), NETWORK_DEFAULT),
    ("the asset", usd(100_00, asset="USDC"), "tokens"),
    ("the first of two that match", usd(2000_00, product_type="licence", asset="USDC"), "licences"),
    ("an exact bound with decimals", usd(1000_50), "big"),
    ("a cent less", usd(1000_49), NETWORK_DEFAULT),
    ("a band is in the invoice's own currency", usd(0, price=Price(9, "JPY", 0)), "tiny"),
    ("and an amount in an asset as well", usd(0, price=Price(10**19 - 1, "ETH", 18)), "tiny"),
    ("exactly", usd(0, price=Price(10**19, "ETH", 18)), "small"),
]


@pytest.mark.parametrize(("what", "subject", "expected"), CASES, ids=[what for what, _, _ in CASES])
def test_the_first_rule_that_matches_applies(what: str, subject: Subject, expected: str) -> None:
    """Planted bug seen to fail: `amount <= amount_gte` in place of `<`; and trying the rules from the end."""
    applied = choose(FIAT, subject)
    assert applied.name == expected
    found = FIAT.rule(expected)
    assert applied.requirement == (DEFAULT if found is None else found.requirement)
    assert applied.version == 4


def test_without_rules_the_networks_default_applies() -> None:
    applied = choose(Policy(), usd(1))
    sentence = (
        "There are no rules, so the default of the network alpha applies: "
        "a payment counts once 12 blocks hold or follow it."
    )
    assert applied == Applied(NETWORK_DEFAULT, 0, DEFAULT, Tolerance(), sentence)


def test_the_explanation_says_which_rule_why_and_what_it_requires() -> None:
    full = rule(
        "Café ✓", 6, network="alpha", asset="ETH", product_type="download", amount_gte="100", amount_lt="250"
    )
    assert choose(policy(rule("x", product_type="other"), full), usd(100_00)).explanation == (
        'Rule 2 of 2, "Café ✓", of policy version 4 matched because the network is alpha, the asset is ETH, the '
        'product type is "download" and the amount of 100.00 USD is at least 100 USD and below 250 USD: a payment '
        "counts once 6 blocks hold or follow it."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"confirmations": 1}, "once 1 block holds it."),
        ({"confirmations": 2}, "once 2 blocks hold or follow it."),
        ({"finality": Finality.SAFE, "confirmations": None}, "once the network calls its block safe."),
        (
            {"finality": Finality.FINALIZED, "confirmations": None},
            "once the network has finalized its block.",
        ),
        (
            {"zero_conf": True},
            "at first sight, coins before any block holds them, tokens in their first block.",
        ),
    ],
)
def test_every_requirement_has_words(changes: dict[str, Any], words: str) -> None:
    applied = choose(policy(replace(rule(), **changes)), usd(1))
    assert applied.explanation == (
        f'Rule 1 of 1, "r", of policy version 4 matched because it matches everything: a payment counts {words}'
    )
    assert applied.requirement.zero_conf is changes.get("zero_conf", False)


def test_another_currency_is_compared_by_the_rate_exactly() -> None:
    third = Fraction(1, 3)
    bands = policy(rule("below", amount_lt="100", amount_currency="EUR"), rule("rest"))
    assert choose(bands, usd(300_00, rates={"EUR": third})).name == "rest"  # 300 USD are exactly 100 EUR
    below = choose(bands, usd(299_99, rates={"EUR": third}))
    assert below.name == "below"
    assert (
        "the amount of 299.99 USD is below 100 EUR at 0.333333333333333333 EUR for 1 USD" in below.explanation
    )


def test_a_band_in_the_invoices_own_currency_needs_no_rate() -> None:
    assert choose(policy(rule("own", amount_lt="100", amount_currency="USD")), usd(1)).name == "own"


def test_currencies_needed() -> None:
    rules = policy(
        rule("a", amount_lt="1", amount_currency="EUR"),
        rule("b", amount_lt="1"),
        rule("c", amount_gte="1", amount_currency="USD"),
        rule("d", amount_gte="1", amount_currency="JPY"),
        rule("e", amount_gte="2", amount_currency="EUR"),
    )
    assert currencies_needed(rules, "USD") == ("EUR", "JPY")


def test_without_a_rate_the_strictest_of_what_might_apply_is_required() -> None:
    """Planted bug seen to fail: a rule that cannot be judged is skipped (`if not answer: continue`)."""
    rules = policy(
        replace(rule("small", 1, amount_lt="100", amount_currency="EUR"), tolerance=Tolerance(500, 2000)),
        replace(rule("large", 40, amount_gte="100", amount_currency="EUR"), tolerance=Tolerance(20, 3000)),
        rule("rest", 3),
        rule("never looked at", 900),
    )
    applied = choose(rules, usd(50_00))
    assert (applied.name, applied.requirement) == ("large", Requirement(Finality.DEPTH, 40))
    assert applied.tolerance == Tolerance(20, 1000)
    assert applied.explanation == (
        'No rate from USD to EUR is known, so policy version 4 cannot tell which of rule 1 "small", rule 2 "large" and '
        'rule 3 "rest" applies, and the strictest of what they ask for is required: a payment counts once 40 '
        "blocks hold or follow it."
    )


def test_a_rule_that_cannot_match_anyway_does_not_matter_without_a_rate() -> None:
    rules = policy(rule("other", 900, network="beta", amount_lt="1", amount_currency="EUR"), rule("rest", 3))
    assert choose(rules, usd(50_00)).name == "rest"


def test_without_a_rate_a_sighting_counts_only_where_every_rule_says_so() -> None:
    sighting = replace(rule("s", 1, amount_lt="5", amount_currency="EUR"), zero_conf=True)
    assert choose(policy(sighting), usd(1)).requirement == DEFAULT
    assert choose(policy(sighting, replace(rule("all", 1), zero_conf=True)), usd(1)).requirement.zero_conf


accepted = st.frozensets(st.sampled_from(sorted(RISKS)))
requirements = st.builds(
    lambda finality, confirmations, risks: Requirement(
        finality, confirmations if finality is Finality.DEPTH else 1, risks is not None, risks or frozenset()
    ),
    st.sampled_from(Finality),
    st.integers(1, 50),
    st.one_of(st.none(), accepted),
)


def at_least(one: Requirement, other: Requirement) -> bool:
    """Whether `one` is not weaker, said without `stricter`."""
    if one.zero_conf and not (other.zero_conf and one.accepted_risks <= other.accepted_risks):
        return False
    if one.finality is Finality.FINALIZED:
        return True
    return one.finality is other.finality and one.confirmations >= other.confirmations


@given(requirements, requirements)
def test_the_stricter_of_two_is_weaker_than_neither(one: Requirement, other: Requirement) -> None:
    both = stricter(one, other)
    assert at_least(both, one)
    assert at_least(both, other)
    assert stricter(one, one) == one
    if at_least(one, other):
        assert both == one


amounts = st.integers(0, 400)
texts = st.one_of(st.none(), amounts.map(lambda cents: f"{cents // 100}.{cents % 100:02}"))


@st.composite
def rules(draw: st.DrawFn) -> tuple[Rule, ...]:
    made = draw(
        st.lists(
            st.builds(
                lambda conditions, needed, tolerance: Rule(
                    "x",
                    conditions,
                    needed.finality,
                    needed.confirmations,
                    needed.zero_conf,
                    tolerance,
                    needed.accepted_risks,
                ),
                st.builds(
                    Conditions,
                    network=st.sampled_from([None, "alpha", "beta"]),
                    asset=st.sampled_from([None, "ETH", "USDC"]),
                    product_type=st.sampled_from([None, "download"]),
                    amount_gte=texts,
                    amount_lt=texts,
                    amount_currency=st.sampled_from([None, "USD", "EUR"]),
                ),
                requirements,
                st.builds(Tolerance, st.integers(0, 100), st.integers(0, 100)),
            ),
            max_size=6,
        )
    )
    return tuple(replace(one, name=f"rule {number}") for number, one in enumerate(made))


def holds(one: Rule, subject: Subject, rate: Fraction) -> bool:
    """A rule's condition, said in another way than the code does."""
    wanted = one.conditions
    factor = rate if wanted.amount_currency == "EUR" else 1
    amount = Fraction(subject.price.amount, 100) * factor
    return (
        (wanted.network is None or wanted.network == subject.network)
        and (wanted.asset is None or wanted.asset == subject.asset)
        and (wanted.product_type is None or wanted.product_type == subject.product_type)
        and (wanted.amount_gte is None or Fraction(wanted.amount_gte) <= amount)
        and (wanted.amount_lt is None or amount < Fraction(wanted.amount_lt))
    )


rates = st.fractions(Fraction(1, 50), 50)


@given(rules(), amounts, rates)
def test_exactly_the_first_match_applies(all_rules: tuple[Rule, ...], cents: int, rate: Fraction) -> None:
    subject = usd(cents, rates={"EUR": rate})
    expected = next((one.name for one in all_rules if holds(one, subject, rate)), NETWORK_DEFAULT)
    assert choose(Policy(1, all_rules), subject).name == expected


@given(rules(), amounts, rates)
def test_ignorance_never_makes_a_requirement_weaker(
    all_rules: tuple[Rule, ...], cents: int, rate: Fraction
) -> None:
    """Whatever the rate would have been: what is required without it is no weaker than what would have been."""
    chosen = Policy(1, all_rules)
    blind, seeing = choose(chosen, usd(cents)), choose(chosen, usd(cents, rates={"EUR": rate}))
    assert at_least(blind.requirement, seeing.requirement)
    assert blind.tolerance.under_bps <= seeing.tolerance.under_bps
    assert blind.tolerance.over_bps <= seeing.tolerance.over_bps


@given(rules(), amounts)
def test_a_catch_all_in_front_hides_everything(all_rules: tuple[Rule, ...], cents: int) -> None:
    """Order matters: the same rule in front applies always, behind a match never."""
    everything = rule("everything", 7)
    subject = usd(cents, rates={"EUR": Fraction(1)})
    assert choose(Policy(1, (everything, *all_rules)), subject).name == "everything"
    behind = choose(Policy(1, (*all_rules, everything)), subject).name
    alone = choose(Policy(1, all_rules), subject).name
    assert behind == ("everything" if alone == NETWORK_DEFAULT else alone)


def test_a_rule_asked_for_by_name_applies_whatever_the_amount_and_product() -> None:
    rules = policy(
        rule("all", 1), rule("named", 9, network="alpha", amount_gte="5000", product_type="licence")
    )
    applied = choose(rules, usd(1), asked_for="named")
    assert (applied.name, applied.requirement.confirmations) == ("named", 9)
    assert applied.explanation.startswith('Rule 2 of 2, "named", of policy version 4 was asked for by name: ')
    assert choose(rules, usd(1, network="beta"), asked_for="named").name == "all"  # where it does not fit


def test_the_default_asked_for_by_name_applies_in_front_of_every_rule() -> None:
    applied = choose(policy(rule("all", 1)), usd(1), asked_for=NETWORK_DEFAULT)
    assert (applied.name, applied.requirement) == (NETWORK_DEFAULT, DEFAULT)
    assert applied.explanation.startswith("The default of the network alpha was asked for by name: ")


def test_a_name_that_is_no_rule() -> None:
    with pytest.raises(KeyError):
        choose(policy(rule("all")), usd(1), asked_for="unheard of")


@pytest.mark.parametrize(
    ("needed", "after"),
    [
        (Requirement(Finality.DEPTH, 3), Requirement(Finality.DEPTH, 20)),
        (Requirement(Finality.DEPTH, 20), None),
        (Requirement(Finality.DEPTH, 21), None),
        (Requirement(Finality.SAFE), None),
        (Requirement(Finality.FINALIZED), None),
        (Requirement(Finality.DEPTH, 1, zero_conf=True), Requirement(Finality.DEPTH, 20)),
        (Requirement(Finality.DEPTH, 30, zero_conf=True), Requirement(Finality.DEPTH, 30)),
        (Requirement(Finality.SAFE, zero_conf=True), Requirement(Finality.SAFE)),
        (
            Requirement(Finality.DEPTH, 30, zero_conf=True, accepted_risks=RISKS),
            Requirement(Finality.DEPTH, 30),
        ),
    ],
)
def test_an_operators_floor(needed: Requirement, after: Requirement | None) -> None:
    floor = Floor("alpha", 20, "many reorganisations")
    before = Applied("r", 1, needed, Tolerance(), "Because.")
    assert is_below(needed, floor) is (after is not None)
    if after is None:
        assert raised(before, floor) == before
        return
    assert raised(before, floor) == replace(
        before,
        requirement=after,
        explanation="Because. The operator raised this: on alpha nothing less than 20 confirmations is enough at "
        "present (many reorganisations).",
    )


LIMIT = SightLimit(1_000, "0.00001 BTC")
AT_SIGHT = replace(rule("sight", 2), zero_conf=True, zero_conf_accepts=frozenset({Trait.REPLACEABLE}))
BOUNDED = replace(AT_SIGHT, conditions=Conditions(amount_lt="500"))
BEYOND = (
    " It does not count at first sight: without an amount_lt of its own a rule reaches to the limit of alpha for that, "
    "0.00001 BTC."
)


@pytest.mark.parametrize(
    ("one", "amount", "limit", "by_name", "counts"),
    [
        (AT_SIGHT, 1_000, LIMIT, False, True),
        (AT_SIGHT, 1_001, LIMIT, False, False),
        (AT_SIGHT, None, LIMIT, False, False),  # not known: as if it were too much
        (AT_SIGHT, 1_001, None, False, True),
        (BOUNDED, 1_001, LIMIT, False, True),
        (BOUNDED, 1_001, LIMIT, True, False),  # asked for by name a rule's own amount bounds nothing
        (BOUNDED, 1_000, LIMIT, True, True),
    ],
)
def test_up_to_the_networks_limit_a_rule_counts_sightings(
    one: Rule, amount: int | None, limit: SightLimit | None, by_name: bool, counts: bool
) -> None:
    """Planted bugs seen to fail: an unknown amount taken for none; a rule asked for by name taken as bounded."""
    subject = usd(1_00, amount=amount, sight_limit=limit)
    applied = choose(policy(one), subject, asked_for="sight" if by_name else None)
    needed = replace(
        one.requirement, zero_conf=counts, accepted_risks=one.zero_conf_accepts if counts else frozenset()
    )
    assert applied.requirement == needed
    assert applied.explanation.endswith(BEYOND) is not counts


@pytest.mark.parametrize(
    ("risks", "words"),
    [
        (frozenset(), ", unless its sender can still replace it or it spends what no block holds yet."),
        (frozenset({Trait.REPLACEABLE}), ", unless it spends what no block holds yet."),
        (RISKS, ", tokens in their first block."),
    ],
)
def test_which_risks_are_left_is_said_where_they_are_shown(risks: frozenset[Trait], words: str) -> None:
    at_sight = replace(AT_SIGHT, zero_conf_accepts=risks)
    assert choose(policy(at_sight), usd(1, shows_risks=True)).explanation.endswith(words)
    assert choose(policy(at_sight), usd(1)).explanation.endswith("tokens in their first block.")


GOOD = rule("good")
BAD: list[tuple[Any, str]] = [
    (replace(GOOD, zero_conf_accepts=RISKS), "/zero_conf_accepts"),
    (replace(GOOD, zero_conf=True, zero_conf_accepts=frozenset({Trait.DUST})), "/zero_conf_accepts"),
    (replace(GOOD, name=""), "/name"),
    (replace(GOOD, name="x" * 65), "/name"),
    (replace(GOOD, name="a\u202eb"), "/name"),
    (replace(GOOD, name=" x"), "/name"),
    (replace(GOOD, name="Network Default"), "/name"),
    (rule(network="gamma"), "/match/network"),
    (rule(asset="DOGE"), "/match/asset"),
    (rule(asset="BNB", network="alpha"), "/match/asset"),
    (rule(amount_gte="-1"), "/match/amount_gte"),
    (rule(amount_gte="1e3"), "/match/amount_gte"),
    (rule(amount_lt="x"), "/match/amount_lt"),
    (rule(amount_lt="0"), "/match/amount_lt"),
    (rule(amount_gte="5", amount_lt="5.00"), "/match/amount_lt"),
    (rule(amount_gte="5", amount_currency="XXQ"), "/match/amount_currency"),
    (rule(amount_currency="EUR"), "/match/amount_currency"),
    (replace(GOOD, confirmations=None), "/require/confirmations"),
    (replace(GOOD, confirmations=0), "/require/confirmations"),
    (replace(GOOD, confirmations=10_001), "/require/confirmations"),
    (replace(GOOD, finality=Finality.SAFE, confirmations=None), "/require/finality"),
    (Rule("b", Conditions(network="beta"), Finality.FINALIZED, None), "/require/finality"),
    (Rule("b", Conditions(asset="BNB"), Finality.FINALIZED, None), "/require/finality"),
    (replace(GOOD, tolerance=Tolerance(10_000, 0)), "/tolerance/under_bps"),
    (replace(GOOD, tolerance=Tolerance(-1, 0)), "/tolerance/under_bps"),
    (replace(GOOD, tolerance=Tolerance(0, 100_001)), "/tolerance/over_bps"),
]


@pytest.mark.parametrize(("bad", "pointer"), BAD, ids=[f"{n}{p}" for n, (_, p) in enumerate(BAD)])
def test_a_wrong_rule_is_refused_with_its_place(bad: Rule, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        validate([rule("first"), bad], NETWORKS)
    assert [problem.pointer for problem in refused.value.problems] == [f"/rules/1{pointer}"]


@pytest.mark.parametrize(
    "good",
    [
        GOOD,
        rule("Ünïcode ✓ name", 1),
        replace(GOOD, confirmations=10_000, zero_conf=True, tolerance=Tolerance(9_999, 100_000)),
        replace(GOOD, confirmations=1, tolerance=Tolerance(0, 0)),
        rule(asset="BNB"),
        rule(amount_gte="0", amount_lt="0.01", amount_currency="ETH"),
        Rule("f", Conditions(network="alpha"), Finality.FINALIZED, None),
        Rule("f", Conditions(asset="USDC"), Finality.SAFE, None),
    ],
    ids=str,
)
def test_a_good_rule_passes(good: Rule) -> None:
    validate([good], NETWORKS)


def test_names_are_unique_and_problems_are_told_together() -> None:
    with pytest.raises(InvalidInput) as refused:
        validate([GOOD, rule("x", 0), GOOD, replace(GOOD, confirmations=0)], NETWORKS)
    assert [problem.pointer for problem in refused.value.problems] == [
        "/rules/1/require/confirmations",
        "/rules/2/name",
        "/rules/3/name",
        "/rules/3/require/confirmations",
    ]


def test_rules_name_at_most_ten_currencies() -> None:
    codes = ["EUR", "USD", "JPY", "GBP", "CHF", "CZK", "DKK", "SEK", "NOK", "PLN", "HUF"]
    many = [rule(code, amount_lt="5", amount_currency=code) for code in codes]
    validate([*many[:10], replace(many[0], name="again")], NETWORKS)
    with pytest.raises(InvalidInput) as refused:
        validate(many, NETWORKS)
    assert [problem.pointer for problem in refused.value.problems] == ["/rules/10/match/amount_currency"]


def test_there_are_at_most_a_hundred_rules_and_twenty_problems() -> None:
    many = [rule(f"rule {number}", 0) for number in range(100)]
    with pytest.raises(InvalidInput) as refused:
        validate(many, NETWORKS)
    assert len(refused.value.problems) == 20
    validate([replace(one, confirmations=1) for one in many], NETWORKS)
    with pytest.raises(InvalidInput) as refused:
        validate([*many, GOOD], NETWORKS)
    assert [problem.pointer for problem in refused.value.problems] == ["/rules"]
