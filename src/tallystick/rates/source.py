"""The port through which rates are asked, and the static source.

For: quoting. Holds true: a rate is exact (a Fraction), positive, and names its source; where none is trustworthy the
source raises NoQuote. Must not: round, or fall back to a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol

from tallystick.core.errors import NoQuote

PIVOTS: Final = ("USD", "EUR")
"""Currencies through which two assets are priced against each other when no direct pair is known."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Units of `quote` for one whole `base`, and which sources said so."""

    base: str
    quote: str
    value: Fraction
    source: str


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
        value = self._direct(base, quote)
        for pivot in PIVOTS if value is None else ():
            first, second = self._direct(base, pivot), self._direct(pivot, quote)
            if first is not None and second is not None:
                value = first * second
                break
        if value is None:
            raise NoQuote(
                f"No rate is known for {base} in {quote}.", remedy="Add the pair under [rates.static]."
            )
        return Rate(base, quote, value, "static")

    def _direct(self, base: str, quote: str) -> Fraction | None:
        if base == quote:
            return Fraction(1)
        value = self._pairs.get(f"{base}/{quote}")
        if value is not None:
            return value
        inverse = self._pairs.get(f"{quote}/{base}")
        return None if inverse is None else 1 / inverse
