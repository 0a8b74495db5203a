"""Exact amounts: integers of base units inside, decimal strings outside.

For: every place where an amount is read, shown, compared or converted.
Holds true: no float and no `decimal` context rounding takes part. `parse_units` and `format_units` are
inverse to each other; a string with more decimals than its unit has is an error, never a rounding. 256-bit
token amounts with 18 decimals fit. Quotes round up, values round down, both against the payer of the
difference: a shop is never asked to accept less than its price, a value credited is never more than arrived.
Must not: know which assets a merchant accepts, or where a rate comes from.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from tallystick.core.currencies import MINOR_UNIT_DECIMALS
from tallystick.core.errors import InvalidInput

AMOUNT_MAX: Final = 2**256 - 1
"""The largest amount of base units: what an ERC-20 transfer can carry. Fits NUMERIC(78, 0)."""

DECIMALS_MAX: Final = 36
AMOUNT_TEXT_LENGTH_MAX: Final = 120
QUOTE_DECIMALS_MAX: Final = 8

# ASCII digits only: no sign, exponent, underscore, space or full-width digit. "1." and ".5" are refused too.
DECIMAL_PATTERN: Final = r"(0|[1-9][0-9]*)(?:\.([0-9]+))?"
_DECIMAL: Final = re.compile(DECIMAL_PATTERN, re.ASCII)


@dataclass(frozen=True, slots=True)
class Asset:
    """Something that can be paid: a network's native coin (`contract` None) or a token bound to its contract."""

    network: str
    symbol: str
    decimals: int
    contract: str | None = None
    quote_decimals: int | None = None

    @property
    def key(self) -> str:
        """Identity inside the network: the contract, or `native`. Never the symbol, which anybody can copy."""
        return self.contract or "native"

    @property
    def asked_decimals(self) -> int:
        """Decimals of a quoted amount, so that a person can type it."""
        if self.quote_decimals is not None:
            return min(self.quote_decimals, self.decimals)
        return min(self.decimals, QUOTE_DECIMALS_MAX)


@dataclass(frozen=True, slots=True)
class Price:
    """What an invoice asks: `amount` in units of 10**-decimals of `currency` (ISO 4217 code or asset symbol)."""

    amount: int
    currency: str
    decimals: int


def parse_decimal(text: str, *, pointer: str = "") -> Fraction:
    """Read a plain decimal string exactly. Raises InvalidInput at `pointer` for anything else."""
    match = _DECIMAL.fullmatch(text) if len(text) <= AMOUNT_TEXT_LENGTH_MAX else None
    if match is None:
        raise InvalidInput.at(pointer, 'must be a plain decimal number in a string, such as "12.50"')
    return Fraction(text)


def parse_units(text: str, decimals: int, *, pointer: str = "") -> int:
    """Read a decimal string as integer units of 10**-decimals, exactly.

    Raises InvalidInput at `pointer` when the text is no plain decimal, has more decimal places than
    `decimals` (trailing zeros count: what is written must be writable), or exceeds AMOUNT_MAX.
    """
    parse_decimal(text, pointer=pointer)
    whole, _, fraction = text.partition(".")
    if len(fraction) > decimals:
        raise InvalidInput.at(pointer, f"has {len(fraction)} decimal places; at most {decimals} are possible")
    units = int(whole + fraction.ljust(decimals, "0"))
    if units > AMOUNT_MAX:
        raise InvalidInput.at(pointer, "is larger than any amount that a network can carry")
    return units


def format_units(units: int, decimals: int, *, places_min: int = 0) -> str:
    """Write integer units of 10**-decimals as a decimal string without needless zeros.

    At least `places_min` decimal places are written (a price keeps its minor units: `12.50`).
    """
    sign, digits = ("-", str(-units)) if units < 0 else ("", str(units))
    digits = digits.rjust(decimals + 1, "0")
    whole, fraction = (digits[:-decimals], digits[-decimals:]) if decimals else (digits, "")
    fraction = fraction.rstrip("0").ljust(min(places_min, decimals), "0")
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def format_price(amount: int, price: Price) -> str:
    """Write an amount in the units of `price`: fiat with all its minor units, assets without needless zeros."""
    return format_units(amount, price.decimals, places_min=MINOR_UNIT_DECIMALS.get(price.currency, 0))


def format_rate(rate: Fraction, *, places_max: int = 18) -> str:
    """Write a rate as a decimal string; exact where it has at most `places_max` places, else rounded down."""
    return format_units(rate.numerator * 10**places_max // rate.denominator, places_max)


def quote_amount(price: Price, asset: Asset, rate: Fraction | None) -> int:
    """Base units of `asset` that ask for `price`.

    `rate` is units of the price's currency for one whole asset. None means that the price is given in this
    very asset: it is asked exactly, to the last base unit. Otherwise the amount is rounded up to one unit of the
    asset's `asked_decimals`, so it is never worth less than the price and less than one such unit above it.
    """
    if rate is None:
        scaled = Fraction(price.amount * 10**asset.decimals, 10**price.decimals)
        if scaled.denominator != 1:
            raise InvalidInput.at(
                "/amount", f"has more decimal places than {asset.symbol} on {asset.network}"
            )
        return int(scaled)
    if rate <= 0:
        raise ValueError("a rate is positive")
    whole_assets = Fraction(price.amount, 10**price.decimals) / rate
    step: int = 10 ** (asset.decimals - asset.asked_decimals)
    steps: int = math.ceil(whole_assets * 10**asset.asked_decimals)
    return steps * step


def fiat_decimals(currency: str) -> int | None:
    """Decimals of the minor unit of an ISO 4217 currency, or None when `currency` is not one."""
    return MINOR_UNIT_DECIMALS.get(currency)
