"""Amounts: read, shown and quoted exactly, from one base unit to 2^256 - 1."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.errors import InvalidInput
from tallystick.core.money import (
    AMOUNT_MAX,
    AMOUNT_TEXT_LENGTH_MAX,
    DECIMALS_MAX,
    Asset,
    Price,
    fiat_decimals,
    format_price,
    format_rate,
    format_units,
    parse_decimal,
    parse_units,
    quote_amount,
)

ETHER = Asset("alpha", "ETH", 18)
TETHER = Asset("alpha", "USDT", 6, "0x" + "aa" * 20)
UNITS = st.integers(0, AMOUNT_MAX) | st.integers(0, 10**6)
DECIMALS = st.integers(0, DECIMALS_MAX)

NONSENSE = [
    "",
    " ",
    "1 ",
    " 1",
    "1\n",
    "+1",
    "-1",
    "-0",
    "1e3",
    "1E3",
    "1_000",
    "1,000",
    "1,5",
    "0x10",
    "01",
    "00",
    "00.5",
    ".5",
    "5.",
    "1.2.3",
    ".",
    "NaN",
    "nan",
    "inf",
    "Infinity",
    "1/2",
    "\uff11\uff12",  # full-width digits
    "\u0661",  # Arabic-Indic one
    "1\u00b2",  # superscript two, a digit to str.isdigit
    "1\u00a0000",
    "\u22121",  # a typographic minus
    "1\x00",
    "$1",
    "1 USD",
    "ten",
]


@given(UNITS, DECIMALS)
def test_what_is_written_reads_back_as_the_same_amount(units: int, decimals: int) -> None:
    assert parse_units(format_units(units, decimals), decimals) == units


@given(UNITS, DECIMALS, st.integers(0, DECIMALS_MAX))
def test_needed_places_change_only_the_look(units: int, decimals: int, places_min: int) -> None:
    text = format_units(units, decimals, places_min=places_min)
    assert parse_units(text, decimals) == units
    assert len(text.partition(".")[2]) >= min(places_min, decimals)


@given(st.from_regex(r"\A(0|[1-9][0-9]{0,30})(\.[0-9]{1,18})?\Z"))
def test_a_plain_decimal_means_exactly_what_it_says(text: str) -> None:
    assert parse_units(text, 18) == Fraction(text) * 10**18


@pytest.mark.parametrize(
    ("units", "decimals", "places", "text"),
    [
        (0, 0, 0, "0"),
        (0, 18, 0, "0"),
        (0, 2, 2, "0.00"),
        (1, 18, 0, "0.000000000000000001"),
        (1250, 2, 2, "12.50"),
        (1250, 2, 0, "12.5"),
        (1200, 0, 2, "1200"),
        (-1250, 2, 2, "-12.50"),
        (10**18, 18, 0, "1"),
        (AMOUNT_MAX, 0, 0, str(AMOUNT_MAX)),
    ],
)
def test_amounts_as_text(units: int, decimals: int, places: int, text: str) -> None:
    assert format_units(units, decimals, places_min=places) == text


@pytest.mark.parametrize("text", NONSENSE, ids=ascii)
def test_nonsense_is_refused_at_the_field(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_units(text, 18, pointer="/amount")
    assert [problem.pointer for problem in refused.value.problems] == ["/amount"]
    with pytest.raises(InvalidInput):
        parse_decimal(text)


@given(st.text(max_size=12))
def test_whatever_is_accepted_is_plain_ascii(text: str) -> None:
    try:
        parse_decimal(text)
    except InvalidInput:
        return
    assert set(text) <= set("0123456789.")


@pytest.mark.parametrize(
    ("text", "decimals"), [("0.001", 2), ("1.0", 0), ("12.500", 2), ("0.0000000000000000001", 18)]
)
def test_more_decimal_places_than_the_unit_has_are_refused_never_rounded(text: str, decimals: int) -> None:
    """Planted bug seen to fail: trailing zeros stripped before counting."""
    with pytest.raises(InvalidInput, match="decimal places"):
        parse_units(text, decimals)


def test_the_largest_amount_fits_and_one_more_does_not() -> None:
    assert parse_units(str(2**256 - 1), 0) == 2**256 - 1
    assert parse_units(format_units(2**256 - 1, 18), 18) == 2**256 - 1
    with pytest.raises(InvalidInput, match="larger"):
        parse_units(str(2**256), 0)


def test_a_very_long_number_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidInput):
        parse_decimal("1" * (AMOUNT_TEXT_LENGTH_MAX + 1))
    assert parse_decimal("1" * AMOUNT_TEXT_LENGTH_MAX) > 0


PRICES = st.builds(Price, st.integers(1, 10**24), st.just("USD"), st.integers(0, 4))
RATES = st.fractions(min_value=Fraction(1, 10**12), max_value=10**9)
ASSETS = st.builds(
    lambda decimals, quoted: Asset("alpha", "X", decimals, None, quoted),
    st.integers(0, 24),
    st.none() | st.integers(0, 30),
)


@given(PRICES, ASSETS, RATES)
def test_a_quote_is_never_worth_less_than_the_price_and_less_than_one_asked_unit_more(
    price: Price, asset: Asset, rate: Fraction
) -> None:
    """Planted bug seen to fail: `floor` in place of `ceil`; the same with rounding to the nearest."""
    amount = quote_amount(price, asset, rate)
    exact = Fraction(price.amount, 10**price.decimals) / rate * 10**asset.decimals
    unit = 10 ** (asset.decimals - asset.asked_decimals)
    assert 0 <= amount - exact < unit
    assert amount % unit == 0
    assert amount > 0


@given(ASSETS)
def test_the_asked_unit_can_be_typed(asset: Asset) -> None:
    assert asset.asked_decimals <= asset.decimals
    if asset.quote_decimals is None:
        assert asset.asked_decimals == min(8, asset.decimals)


@pytest.mark.parametrize(
    ("price", "asset", "rate", "amount"),
    [
        (Price(5000, "USD", 2), ETHER, Fraction(2500), 2 * 10**16),  # 50.00 at 2500 is exactly 0.02
        (Price(100, "USD", 2), ETHER, Fraction(3000), 33334 * 10**10),  # 0.000333… goes up to 0.00033334
        (Price(1999, "USD", 2), TETHER, Fraction(1), 19_990_000),
        (Price(1, "JPY", 0), TETHER, Fraction(155), 6_452),
        (Price(1, "KWD", 3), TETHER, Fraction(31, 100), 3_226),
        (Price(15, "ETH", 1), ETHER, None, 15 * 10**17),  # 1.5 asked is never 1.4999…
        (Price(1, "ETH", 18), ETHER, None, 1),
        (Price(123_456_789_012_345_678, "ETH", 18), ETHER, None, 123_456_789_012_345_678),
    ],
)
def test_quotes(price: Price, asset: Asset, rate: Fraction | None, amount: int) -> None:
    assert quote_amount(price, asset, rate) == amount


@given(st.integers(1, AMOUNT_MAX), st.integers(0, 18))
def test_a_price_in_the_asset_itself_is_asked_to_the_last_unit(amount: int, decimals: int) -> None:
    price = Price(amount, "ETH", decimals)
    assert quote_amount(price, ETHER, None) == amount * 10 ** (18 - decimals)


def test_a_price_finer_than_the_asset_is_refused() -> None:
    with pytest.raises(InvalidInput, match="USDT on alpha"):
        quote_amount(Price(1, "USDT", 18), TETHER, None)
    assert quote_amount(Price(10**12, "USDT", 18), TETHER, None) == 1


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(-1)])
def test_a_rate_that_is_not_positive_never_prices_anything(rate: Fraction) -> None:
    with pytest.raises(ValueError, match="positive"):
        quote_amount(Price(1, "USD", 2), ETHER, rate)


def test_prices_keep_their_minor_units_and_assets_lose_needless_zeros() -> None:
    assert format_price(1250, Price(1250, "USD", 2)) == "12.50"
    assert format_price(0, Price(1250, "KWD", 3)) == "0.000"
    assert format_price(7, Price(7, "JPY", 0)) == "7"
    assert format_price(15 * 10**17, Price(1, "ETH", 18)) == "1.5"


def test_rates_are_shown_exactly_where_they_can_be_and_never_too_high() -> None:
    assert format_rate(Fraction("2500.125")) == "2500.125"
    assert format_rate(Fraction(1, 3)) == "0." + "3" * 18
    assert format_rate(Fraction(2, 3)) == "0." + "6" * 18


def test_the_same_symbol_under_another_contract_is_another_asset() -> None:
    assert Asset("alpha", "USDT", 6, "0x01").key != Asset("alpha", "USDT", 6, "0x02").key
    assert ETHER.key == "native"


def test_minor_units_of_currencies() -> None:
    assert [fiat_decimals(code) for code in ("USD", "JPY", "KWD", "CLF", "ETH", "usd", "XAU", "")] == [
        2,
        0,
        3,
        4,
        None,
        None,
        None,
        None,
    ]
