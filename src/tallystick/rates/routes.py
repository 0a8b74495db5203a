"""By which listed pairs a source can price one symbol in another.

For: `rates.exchange`. Pure. Holds true: a route uses only pairs that the source lists; a token stands for a currency
only where the operator wrote that it may (a peg), so a dollar token is never taken for dollars in silence. Must not:
know an exchange.

The shortest way wins: the pair itself, the pair the other way round, the same with a pegged symbol in place of either;
and only then two pairs through the first pivot that has both.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Leg:
    """One listed pair ("ETH/USD"), and whether its price is to be turned round."""

    symbol: str
    inverse: bool = False

    def __str__(self) -> str:
        return f"1 ÷ {self.symbol}" if self.inverse else self.symbol


@dataclass(frozen=True, slots=True)
class Map:
    """What may be used besides the pair itself. `pegs` holds a symbol and the symbol for which it may stand."""

    pivots: Sequence[str] = ()
    pegs: Mapping[str, str] = field(default_factory=dict)

    def route(self, listed: Container[str], base: str, quote: str) -> tuple[Leg, ...]:
        """One leg or two whose prices multiply to units of `quote` for one `base`; none where there is no way."""
        direct = self._leg(listed, base, quote)
        if direct is not None:
            return (direct,)
        for pivot in self.pivots:
            if pivot in (base, quote):
                continue
            first, second = self._leg(listed, base, pivot), self._leg(listed, pivot, quote)
            if first is not None and second is not None:
                return first, second
        return ()

    def _leg(self, listed: Container[str], base: str, quote: str) -> Leg | None:
        for one in self._names(base):
            for other in self._names(quote):
                if one == other:  # a peg alone: nobody was asked, so it is no price
                    continue
                if f"{one}/{other}" in listed:
                    return Leg(f"{one}/{other}")
                if f"{other}/{one}" in listed:
                    return Leg(f"{other}/{one}", inverse=True)
        return None

    def _names(self, symbol: str) -> list[str]:
        """The symbol, and those that may stand for it or it for them."""
        same = [token for token, currency in self.pegs.items() if currency == symbol]
        return [symbol, *same, *([self.pegs[symbol]] if symbol in self.pegs else [])]
