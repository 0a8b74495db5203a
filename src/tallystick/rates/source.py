"""The port through which rates are asked, and the static source.

For: quoting. Holds true: a rate is exact (a Fraction), positive, and names its source; where none is trustworthy the
source raises NoQuote. Must not: round, or fall back to a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Final, Protocol

from tallystick.core.errors import NoQuote

PIVOTS: Final = ("USD", "EUR")
"""Currencies through which two assets are priced against each other when no direct pair is known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one source said when it was asked, for the books.

    `pair` is what the rate was read from, in the source's own symbols. `rate` is units of the asked quote for one whole
    base, None where the source gave none; `at` is the time of its price. `problem` says why it was not used.
    """

    source: str
    pair: str
    rate: Fraction | None = None
    at: datetime | None = None
    used: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """Units of `quote` for one whole `base`, which sources said so, and what each of them answered.

    `at` is when the sources were asked; None for a rate that does not depend on the time.
    """

    base: str
    quote: str
    value: Fraction
    source: str
    answers: tuple[Answer, ...] = ()
    at: datetime | None = None


class RateSource(Protocol):
    """Anything that can price one asset symbol in a currency or another symbol."""

    async def rate(self, base: str, quote: str) -> Rate:
        """The rate now. Raises NoQuote where none is known or trusted."""
        ...


class StaticRates:
    """Rates written in the configuration: pairs like "ETH/USD". Answers the pair, its inverse, or a cross."""

    def __init__(self, pairs: Mapping[str, Fraction]) -> None:
        if any(value <= 0 for value in pairs.values()):
            raise ValueError("a rate is positive")
        self._pairs = dict(pairs)

    async def rate(self, base: str, quote: str) -> Rate:
        """The rate of the pair, its inverse, or through one pivot currency. Raises NoQuote."""
        value = self.written(base, quote)
        for pivot in PIVOTS if value is None else ():
            first, second = self.written(base, pivot), self.written(pivot, quote)
            if first is not None and second is not None:
                value = first * second
                break
        if value is None:
            raise NoQuote(
                f"No rate is known for {base} in {quote}.", remedy="Add the pair under [rates.static]."
            )
        answer = Answer("static", f"{base}/{quote}", value, used=True)
        return Rate(base, quote, value, "static", (answer,))

    def written(self, base: str, quote: str) -> Fraction | None:
        """The rate as the pair or its inverse says it, without any pivot."""
        if base == quote:
            return Fraction(1)
        value = self._pairs.get(f"{base}/{quote}")
        if value is not None:
            return value
        inverse = self._pairs.get(f"{quote}/{base}")
        return None if inverse is None else 1 / inverse
