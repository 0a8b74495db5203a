"""Identifiers: their shape, their order, and what is no identifier."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.ids import RANDOM_BYTES, IdKind, is_id, make_id

TIMES = st.integers(0, 2**48 - 1)
CHANCE = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


@given(st.sampled_from(IdKind), TIMES, CHANCE)
def test_an_id_has_the_published_shape(kind: IdKind, unix_ms: int, chance: bytes) -> None:
    made = make_id(kind, unix_ms, chance)
    prefix, _, body = made.partition("_")
    assert prefix == kind.value
    assert len(body) == 26
    assert set(body) <= set("0123456789abcdefghijklmnopqrstuv")
    assert is_id(kind, made)
    assert [other for other in IdKind if is_id(other, made)] == [kind]


@given(st.tuples(TIMES, CHANCE), st.tuples(TIMES, CHANCE))
def test_ids_sort_as_text_by_time_and_then_by_chance(one: tuple[int, bytes], two: tuple[int, bytes]) -> None:
    """Planted bug seen to fail: the alphabet of base32 (letters before digits) in place of base32hex."""
    made = [make_id(IdKind.INVOICE, *given_) for given_ in (one, two)]
    assert (made[0] < made[1]) == (one < two)
    assert (made[0] == made[1]) == (one == two)


@pytest.mark.parametrize("size", [0, RANDOM_BYTES - 1, RANDOM_BYTES + 1])
def test_another_number_of_random_bytes_is_a_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="random bytes"):
        make_id(IdKind.INVOICE, 0, b"\0" * size)


def test_a_time_beyond_48_bits_is_a_mistake() -> None:
    with pytest.raises(OverflowError):
        make_id(IdKind.INVOICE, 2**48, b"\0" * RANDOM_BYTES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "inv_",
        "inv",
        "_" + "0" * 26,
        "inv_" + "0" * 25,
        "inv_" + "0" * 27,
        "inv_" + "0" * 25 + "w",
        "inv_" + "0" * 25 + "A",
        "INV_" + "0" * 26,
        "opt_" + "0" * 26,
        "inv_" + "0" * 26 + "\n",
        " inv_" + "0" * 26,
        "inv_" + "\u0660" * 26,  # digits of another script
    ],
    ids=ascii,
)
def test_what_is_no_id(text: str) -> None:
    assert not is_id(IdKind.INVOICE, text)


def test_prefixes_are_those_of_the_public_contract() -> None:
    published = [
        "inv",
        "opt",
        "pay",
        "trf",
        "evt",
        "whe",
        "dlv",
        "rfd",
        "stl",
        "esc",
        "exc",
        "wal",
        "mer",
        "key",
    ]
    assert set(published) <= {kind.value for kind in IdKind}
