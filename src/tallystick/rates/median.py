"""One rate out of several sources' answers: the median, or none.

For: `rates.live`. Pure: the same answers, rules and time give the same rate, in whatever order they came.
Holds true: the rate lies between the answers that were used, of which there are at least `sources_min`, each fresh,
positive and near the middle; among three or more, one that is wrong by any factor leaves the rate between honest ones.
Every answer comes back with whether it was used and, if not, why. Must not: ask anybody, read a clock, or guess.

The rules, in this order:
1. an answer with a problem of its own, without a rate or time, or outside RATE_MIN..RATE_MAX is not considered;
2. nor is one older than `age_seconds_max`, or from further ahead than AHEAD_SECONDS_MAX (the clocks differ: its age is
   not known);
3. the median of what is left is the middle; whatever lies further from it than `outlier_bps` is dropped;
4. the rate is the median of those that remain, if they are enough; else there is none.

With two answers that contradict each other both lie far from their middle: none is believed (step 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final

from tallystick.rates.source import Answer

BPS: Final = 10_000
AHEAD_SECONDS_MAX: Final = 60
RATE_MIN: Final = Fraction(1, 10**12)
RATE_MAX: Final = Fraction(10**15)
"""Beyond these no two symbols of this world are priced; and below, a rate would lose its digits when it is shown."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When answers are trusted. `outlier_bps` is the greatest distance from the middle, in 1/10,000 of it."""

    sources_min: int = 2
    age_seconds_max: int = 120
    outlier_bps: int = 500


@dataclass(frozen=True, slots=True)
class Judged:
    """The rate, or None; and every answer, in the order given, with its `used` and `problem` set."""

    rate: Fraction | None
    answers: tuple[Answer, ...]

    @property
    def used(self) -> tuple[Answer, ...]:
        """The answers that the rate rests on."""
        return tuple(answer for answer in self.answers if answer.used)


def median(values: Sequence[Fraction]) -> Fraction:
    """The middle value; of an even number the mean of the two in the middle. Raises ValueError for none."""
    if not values:
        raise ValueError("nothing has no median")
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def judge(answers: Sequence[Answer], rules: Rules, now: datetime) -> Judged:
    """Judge the answers by the rules (see the module). `now` is our clock."""
    problems = [_problem(answer, rules, now) for answer in answers]
    rates = [answer.rate for answer, problem in zip(answers, problems, strict=True) if problem is None]
    considered = [rate for rate in rates if rate is not None]
    middle = median(considered) if considered else None
    judged = tuple(
        _placed(answer, problem, middle, rules) for answer, problem in zip(answers, problems, strict=True)
    )
    near = [answer.rate for answer in judged if answer.used and answer.rate is not None]
    if near and len(near) >= rules.sources_min:
        return Judged(median(near), judged)
    alone = f"too few sources agree: {len(near)} of {rules.sources_min}"
    return Judged(None, tuple(replace(one, used=False, problem=alone) if one.used else one for one in judged))


def _problem(answer: Answer, rules: Rules, now: datetime) -> str | None:
    """Why an answer is not considered, or None."""
    if answer.problem is not None:
        return answer.problem
    if answer.rate is None or answer.at is None:
        return "gave no rate with a time"
    if answer.rate <= 0:
        return "the rate is not positive"
    if not RATE_MIN <= answer.rate <= RATE_MAX:
        return "the rate is absurd"
    if now - answer.at > timedelta(seconds=rules.age_seconds_max):
        return f"the price is {int((now - answer.at).total_seconds())} seconds old"
    if answer.at - now > timedelta(seconds=AHEAD_SECONDS_MAX):
        return "the price's time lies ahead of our clock"
    return None


def _placed(answer: Answer, problem: str | None, middle: Fraction | None, rules: Rules) -> Answer:
    """The answer, marked as used or with why not."""
    if problem is None and middle is not None and answer.rate is not None:
        away = abs(answer.rate - middle) / middle
        if away <= Fraction(rules.outlier_bps, BPS):
            return replace(answer, used=True, problem=None)
        percent = min(int(away * 100), 10**6)
        problem = f"the rate lies {percent} % from the middle"
    return replace(answer, used=False, problem=problem)
