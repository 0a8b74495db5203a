"""The strict reader: agrees with ordinary JSON on ordinary values, and refuses everything that has two meanings."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.api.strict_json import (
    BODY_BYTES_MAX,
    DEPTH_MAX,
    convert,
    has_refused_characters,
    parse,
    pointer_of,
)
from tallystick.core.errors import InvalidInput, Malformed

# Characters that are text: no control characters, no surrogates.
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**14), 10**14) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_ordinary_values_are_read_as_they_are(value: Any, ascii_only: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_named_refusal(body: bytes) -> None:
    try:
        parse(body)
    except (Malformed, InvalidInput) as error:
        msgspec.json.encode([problem.pointer for problem in error.problems] + [error.what])


@given(st.text('{}[]",:0123456789eE.+-\\u dtrfalsn', max_size=60))
def test_almost_json_is_a_value_or_a_named_refusal(text: str) -> None:
    try:
        assert parse(text.encode()) == json.loads(text)
    except (Malformed, InvalidInput) as error:
        msgspec.json.encode([problem.pointer for problem in error.problems] + [error.what])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"a": 1, "a": 2}', "/a"),
        (b'{"a": [{"b~/": 1, "c": 2, "b~/": 3}]}', "/a/0/b~0~1"),
        (b'{"a": 1, "\\u0061": 2}', "/a"),
        (b'{"x": "\\ud800"}', "/x"),
        (b'{"x": ["ok", "\\udc00 and more"]}', "/x/1"),
        (b'{"\\ud800": 1}', "/\\ud800"),
    ],
)
def test_two_meanings_are_malformed_and_named(body: bytes, pointer: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse(body)
    assert [problem.pointer for problem in refused.value.problems] == [pointer]
    assert refused.value.code == "malformed_json"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"x": "\\u0000"}', "/x"),
        (b'{"x": {"y": ["\\u0007"]}}', "/x/y/0"),
        (b'{"x": "line\\nline"}', "/x"),
        (b'{"x": "\\u009b"}', "/x"),
        (b'{"a\\u0000b": 1}', "/a\x00b"),
        (b'{"x": 1234567890123456}', "/x"),
        (b'{"x": -1234567890123456}', "/x"),
        (b'{"x": 1e400}', "/x"),
        (b'{"x": ' + b"9" * 100_000 + b"}", "/x"),
        (b'{"x": 0.' + b"1" * 1000 + b"}", "/x"),
    ],
)
def test_values_that_are_refused_are_named(body: bytes, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(body)
    assert [problem.pointer for problem in refused.value.problems] == [pointer]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{]",
        b'{"a":}',
        b"{'a': 1}",
        b"nul",
        b"NaN",
        b'{"x": NaN}',
        b'{"x": Infinity}',
        b'{"x": -Infinity}',
        b'{"x": 01}',
        b'{"x": +1}',
        b'{"x": .5}',
        b'{"x": 1.}',
        b'{"x": 1,}',
        b'{"x": "\x00"}',
        b'{"x": "a\nb"}',
        b"{} {}",
        b"// {}\n{}",
        b"\xef\xbb\xbf{}",
        b'{"x": "\xff"}',
        b'{"x": "\xed\xa0\x80"}',
        b'{"x": "\xc0\x80"}',
        "{}".encode("utf-16"),
        b'{"x": "\\x41"}',
    ],
)
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        parse(body)
    assert refused.value.code == "malformed_json"


def test_a_text_that_never_ends_costs_no_more_than_one_that_does() -> None:
    """Each quote may be where a text begins: looking for its end from every one takes the square of the length.

    Planted: with a scanner that gives up on an unfinished text, this body of 16 KB takes seconds, one of the largest
    size stops the server for hours.
    """
    unfinished = b'"' + b'\\"' * 8_000 + b"[" * (DEPTH_MAX + 1)
    began = time.process_time()
    with pytest.raises(Malformed):
        parse(unfinished)
    assert time.process_time() - began < 1


def test_depth_is_bounded_and_brackets_in_text_do_not_count() -> None:
    deepest = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX
    parse(deepest)
    parse(b'["' + b"[" * 1000 + b'\\"[[["]')
    parse(b"[" + b",".join([b"[]"] * 1000) + b"]")
    for body in (b"[" + deepest + b"]", b"[" * 200_000, b'{"a":' * 50_000):
        with pytest.raises(Malformed):
            parse(body)


def test_size_is_bounded() -> None:
    with pytest.raises(Malformed) as refused:
        parse(b'"' + b"a" * BODY_BYTES_MAX + b'"')
    assert refused.value.code == "body_too_large"


class _Inner(msgspec.Struct, forbid_unknown_fields=True):
    word: str = ""


class _Outer(msgspec.Struct, forbid_unknown_fields=True):
    amount: str
    inner: _Inner | None = None
    many: list[_Inner] = []
    pairs: dict[str, str] = {}


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({}, "/amount"),
        ({"amount": 1}, "/amount"),
        ({"amount": None}, "/amount"),
        ({"amount": "1", "other": 1}, "/other"),
        ({"amount": "1", "a/b~c": 1}, "/a~1b~0c"),
        ({"amount": "1", "inner": {"other": 1}}, "/inner/other"),
        ({"amount": "1", "inner": []}, "/inner"),
        ({"amount": "1", "many": [{}, {"word": 5}]}, "/many/1/word"),
        ({"amount": "1", "many": [{}, {"nord": 5}]}, "/many/1/nord"),
        ({"amount": "1", "pairs": {"a": "1", "b": 2}}, "/pairs/b"),
        ([], ""),
        ("text", ""),
    ],
)
def test_a_struct_that_does_not_fit_names_the_place(value: Any, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        convert(value, _Outer)
    assert [problem.pointer for problem in refused.value.problems] == [pointer]


def test_pointers_are_short_and_can_be_sent() -> None:
    assert len(pointer_of(("x" * 10_000,))) <= 200
    msgspec.json.encode(pointer_of(("\ud800",)))


@given(st.text(max_size=30))
def test_refused_characters(text: str) -> None:
    import unicodedata

    assert has_refused_characters(text) == any(unicodedata.category(c) in ("Cc", "Cs") for c in text)
