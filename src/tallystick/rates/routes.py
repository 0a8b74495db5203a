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
        # What one peg ties together is priced by pairs that name it: by the peg, everything would be worth exactly one.
        pegs = self._stand_in(base) != self._stand_in(quote)
        direct = self._leg(listed, base, quote, pegs=pegs)
        if direct is not None:
            return (direct,)
        for pivot in self.pivots:
            if pivot in (base, quote):
                continue
            first, second = (
                self._leg(listed, base, pivot, pegs=pegs),
                self._leg(listed, pivot, quote, pegs=pegs),
            )
            if first is not None and second is not None:
                return first, second
        return ()

    def _leg(self, listed: Container[str], base: str, quote: str, *, pegs: bool) -> Leg | None:
        tied = not pegs or self._stand_in(base) == self._stand_in(quote)
        for one in [base] if tied else self._names(base):
            for other in [quote] if tied else self._names(quote):
                if f"{one}/{other}" in listed:
                    return Leg(f"{one}/{other}")
                if f"{other}/{one}" in listed:
                    return Leg(f"{other}/{one}", inverse=True)
        return None

    def _stand_in(self, symbol: str) -> str:
        return self.pegs.get(symbol, symbol)

    def _names(self, symbol: str) -> list[str]:
        """The symbol, and those that may stand for it or it for them."""
        same = [token for token, currency in self.pegs.items() if currency == symbol]
        return [symbol, *same, *([self.pegs[symbol]] if symbol in self.pegs else [])]
