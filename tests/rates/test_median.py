"""The median's rules, by example and as properties. Cites F-MONEY 2, R-INV 4."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.rates.median import AHEAD_SECONDS_MAX, RATE_MAX, RATE_MIN, Rules, judge, median
from tallystick.rates.source import Answer

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
RULES = Rules(sources_min=2, age_seconds_max=120, outlier_bps=500)


def said(name: str, rate: str | Fraction | None, *, age: float = 1, problem: str | None = None) -> Answer:
    """An answer of a source, so many seconds old."""
    value = None if rate is None else Fraction(rate)
    return Answer(name, "ETH/USD", value, NOW - timedelta(seconds=age), problem=problem)


def rate_of(*rates: str, rules: Rules = RULES) -> Fraction | None:
    """The rate out of fresh answers."""
    return judge([said(f"s{number}", rate) for number, rate in enumerate(rates)], rules, NOW).rate


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (("2500", "2510", "2490"), "2500"),
        (("2500", "2510"), "2505"),
        (("2500", "2510", "25000"), "2505"),  # ten times too much is dropped, not averaged
        (("2500", "2510", "250"), "2505"),
        (("2500", "2510", "2490", "25000"), "2500"),
        (("2500", "25000"), None),  # nobody can say which is wrong
        (("2500", "2500", "25000", "25000"), None),
        (("2500",), None),  # one is not two
        ((), None),
        (("2500", "0", "2510"), "2505"),
        (("2500", "-2510", "2510"), "2505"),
        (("0", "0", "0"), None),
        (("1", "0", "2500"), None),
        (("2500", str(RATE_MAX * 10), "2510"), "2505"),
        (("0.1", "0.2", "0.30000000000000000000000001"), None),  # all further apart than 5 %
    ],
)
def test_the_rules_by_example(rates: tuple[str, ...], expected: str | None) -> None:
    """Bugs planted: no outlier dropped (2500, 2510 and 25000 give 2510); sources_min not looked at."""
    assert rate_of(*rates) == (None if expected is None else Fraction(expected))


def test_an_outlier_lies_beyond_the_limit_and_not_on_it() -> None:
    assert rate_of("100", "100", "105") == 100
    on, beyond = (
        judge([said("a", "100"), said("b", "100"), said("c", rate)], RULES, NOW)
        for rate in ("105", "105.0001")
    )
    assert [answer.used for answer in on.answers] == [True, True, True]
    assert [answer.used for answer in beyond.answers] == [True, True, False]
    assert beyond.answers[2].problem == "the rate lies 5 % from the middle"


@pytest.mark.parametrize(
    ("age", "used"), [(0, True), (120, True), (120.5, False), (-AHEAD_SECONDS_MAX, True), (-61, False)]
)
def test_the_age_limit(age: float, used: bool) -> None:
    """Bug planted: the age not looked at; an hour-old price counts."""
    found = judge([said("a", "100"), said("b", "100"), said("c", "100", age=age)], RULES, NOW)
    assert found.answers[2].used is used
    assert (found.answers[2].problem is None) is used


def test_stale_answers_do_not_outvote_fresh_ones() -> None:
    """Two frozen exchanges agree with each other about yesterday."""
    answers = [said("a", "2500"), said("b", "3000", age=86_400), said("c", "3000", age=86_400)]
    found = judge(answers, RULES, NOW)
    assert found.rate is None
    assert found.answers[0].problem == "too few sources agree: 1 of 2"
    assert judge(answers, replace(RULES, sources_min=1), NOW).rate == 2500


def test_every_answer_comes_back_with_its_reason() -> None:
    failed = Answer("d", "ETH/USD", problem="It did not answer in time.")
    found = judge([said("a", "2500"), said("b", "2501"), said("c", "9"), failed], RULES, NOW)
    assert [answer.source for answer in found.answers] == ["a", "b", "c", "d"]
    assert [answer.used for answer in found.answers] == [True, True, False, False]
    assert found.answers[3].problem == "It did not answer in time."
    assert [answer.source for answer in found.used] == ["a", "b"]


def test_nothing_has_no_median() -> None:
    with pytest.raises(ValueError, match="nothing"):
        median([])


positive = st.fractions(min_value=Fraction(1, 1000), max_value=10**9, max_denominator=10**12)
anything = st.none() | st.fractions(max_denominator=10**20) | st.just(Fraction(0)) | positive
answers = st.lists(
    st.builds(
        said,
        st.sampled_from("abcdef"),
        anything,
        age=st.floats(-1e6, 1e6) | st.floats(0, 100),
        problem=st.none() | st.none() | st.just("failed"),
    ),
    max_size=8,
)
rules = st.builds(
    Rules,
    sources_min=st.integers(1, 4),
    age_seconds_max=st.integers(5, 3600),
    outlier_bps=st.integers(1, 5000),
)


@given(answers, rules)
def test_whatever_they_say_the_rate_is_one_that_enough_of_them_say(said_: list[Answer], by: Rules) -> None:
    """It lies between the answers used; those are fresh, positive, near; there are enough; the rest say why not."""
    found = judge(said_, by, NOW)
    assert len(found.answers) == len(said_)
    for answer, before in zip(found.answers, said_, strict=True):
        assert (answer.problem is None) is answer.used
        assert (answer.source, answer.rate, answer.at) == (before.source, before.rate, before.at)
    used = [answer.rate for answer in found.used if answer.rate is not None]
    if found.rate is None:
        assert not found.used
        return
    assert len(used) >= by.sources_min
    assert min(used) <= found.rate <= max(used)
    assert all(RATE_MIN <= rate <= RATE_MAX for rate in used)
    assert all(
        before.problem is None for before, after in zip(said_, found.answers, strict=True) if after.used
    )
    assert all(
        answer.at is not None and NOW - answer.at <= timedelta(seconds=by.age_seconds_max)
        for answer in found.used
    )
    # Whoever was used is within the limit of one middle, so no two of them are further apart than twice the limit.
    spread = Fraction(2 * by.outlier_bps, 10_000)
    assert max(used) - min(used) <= spread * max(used) / (1 - spread / 2)


@given(answers, rules, st.randoms())
def test_the_order_of_the_answers_does_not_matter(said_: list[Answer], by: Rules, chance: object) -> None:
    shuffled = list(said_)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert judge(said_, by, NOW).rate == judge(shuffled, by, NOW).rate


@given(
    middle=positive,
    honest=st.lists(st.integers(-100, 100), min_size=2, max_size=6),
    factor=st.fractions(min_value=Fraction(1, 10**6), max_value=10**6),
)
def test_one_liar_among_honest_ones_never_leads_away_from_them(
    middle: Fraction, honest: list[int], factor: Fraction
) -> None:
    """Honest ones lie within 1 % of each other; a liar may say anything.

    Bug planted: the mean instead of the median; a liar 4 % off moves the rate out of the honest ones' range.
    """
    rates = [middle * (10_000 + offset) / 10_000 for offset in honest]
    found = judge([*(said("h", rate) for rate in rates), said("liar", middle * factor)], RULES, NOW)
    assert found.rate is not None
    assert min(rates) <= found.rate <= max(rates)


@given(positive, positive)
def test_exactness(one: Fraction, other: Fraction) -> None:
    """No digit is lost: the middle of two is their exact mean."""
    near = one + (other % (one / 100))
    assert judge([said("a", one), said("b", near)], RULES, NOW).rate == (one + near) / 2
