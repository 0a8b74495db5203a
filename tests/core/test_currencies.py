"""The table of currencies against a maintained copy of ISO 4217."""

from __future__ import annotations

from iso4217 import Currency

from tallystick.core.currencies import MINOR_UNIT_DECIMALS


def test_codes_and_minor_units_are_those_of_the_standard() -> None:
    """Planted bug seen to fail: KWD moved to two decimals."""
    standard = {str(one.code): one.exponent for one in Currency if one.exponent is not None}
    assert len(standard) > 150
    assert standard == MINOR_UNIT_DECIMALS


def test_what_has_no_minor_unit_is_no_currency_to_price_in() -> None:
    assert not {"XAU", "XTS", "XXX", "XDR"} & set(MINOR_UNIT_DECIMALS)
