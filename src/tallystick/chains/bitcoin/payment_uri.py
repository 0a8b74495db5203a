"""Payment links that wallets of Bitcoin's family open (BIP21).

For: the checkout page's link and QR code, and refunds. Holds true: address and amount are always in it; the amount is a
plain decimal number of whole coins (no exponent, no superfluous zeros), exactly what is asked.
Must not: round, or know what is owed.
"""

from __future__ import annotations

from typing import Final

from tallystick.core.errors import InvalidInput
from tallystick.core.money import format_units

_DECIMALS: Final = 8
UNITS_MAX: Final = 84_000_000 * 10**_DECIMALS
"""More coins than that there never are (Litecoin; of Bitcoin a quarter of it)."""


def payment_uri(family: str, address: str, amount: int) -> str:
    """The link that pays `amount` base units to an address as people write it. Raises InvalidInput."""
    if not 0 < amount <= UNITS_MAX:
        raise InvalidInput("A payment request needs an amount above zero, and below all coins there are.")
    return f"{family}:{address}?amount={format_units(amount, _DECIMALS)}"
