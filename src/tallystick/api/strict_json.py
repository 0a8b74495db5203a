"""Reading a request's JSON so strictly that no two readers could understand it differently.

For: every request body. Holds true: what gets through is UTF-8, at most DEPTH_MAX deep, has no key twice (RFC 7493
section 2.3), no number that another reader would round, and no text with control characters or lone surrogates. A
body that breaks the grammar, or has two meanings, is `Malformed` (400); one whose values are refused is
`InvalidInput` (422); both name the place by a JSON pointer (RFC 6901) wherever there is one.
Must not: know what the body is for (that is the struct it is converted to).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec

from tallystick.core.errors import FieldProblem, InvalidInput, Malformed

BODY_BYTES_MAX: Final = 256 * 1024
DEPTH_MAX: Final = 32
INTEGER_DIGITS_MAX: Final = 15
"""Every integer of this many digits is exact in IEEE 754 double precision (RFC 7493 section 2.2)."""

NUMBER_TEXT_LENGTH_MAX: Final = 32
POINTER_LENGTH_MAX: Final = 200

# Possessive, and an unfinished string reaches to the end: whatever is sent, each byte is looked at once.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_OPENING: Final = re.compile(rb"[\[{]")
_REFUSED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")

_MISSING: Final = re.compile(r"Object missing required field `([^`]*)`(?: - at `(.*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*?)`(?: - at `([^`]*)`)?", re.DOTALL)
_OTHER: Final = re.compile(r"(.*?)(?: - at `(key in )?([^`]*)`)?", re.DOTALL)
_STEP: Final = re.compile(r"\.([A-Za-z0-9_]+)|\[(\d+)\]|(\[\.\.\.\])")

T = TypeVar("T")


class _Repeated(dict[str, Any]):
    """An object that had a key twice; found again by the walk, which knows the pointer."""

    key = ""


class _HugeNumber:
    """A number that readers would disagree about; likewise."""


_HUGE: Final = _HugeNumber()


def parse(body: bytes) -> Any:
    """The body as plain values. Raises Malformed or InvalidInput."""
    if len(body) > BODY_BYTES_MAX:
        raise Malformed(f"The body is larger than {BODY_BYTES_MAX} bytes.", code="body_too_large")
    _check_depth(body)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not UTF-8 (byte {error.start}).", code="malformed_json") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Malformed(f"The body is not JSON: {error.msg} ({where}).", code="malformed_json") from None
    _check_values(value)
    return value


def convert(value: Any, type_: type[T]) -> T:
    """The plain values as a struct. Raises InvalidInput at the place that does not fit."""
    try:
        return msgspec.convert(value, type_, strict=True)
    except msgspec.ValidationError as error:
        raise _as_invalid(str(error), value) from None


def pointer_of(path: tuple[str | int, ...]) -> str:
    """A JSON pointer (RFC 6901 section 3), shortened where it would repeat too much of the request."""
    text = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= POINTER_LENGTH_MAX else text[: POINTER_LENGTH_MAX - 1] + "…"


def has_refused_characters(text: str) -> bool:
    """Whether text holds NUL, another control character (Unicode category Cc) or a lone surrogate."""
    return _REFUSED.search(text) is not None


def _check_depth(body: bytes) -> None:
    """Before parsing, so that nesting costs neither stack nor time. Strings are skipped as a whole."""
    if len(_OPENING.findall(body)) <= DEPTH_MAX:
        return
    depth = 0
    for match in _TOKEN.finditer(body):
        token = match[0][:1]
        if token in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise Malformed(f"The body is nested deeper than {DEPTH_MAX} levels.", code="malformed_json")
        elif token in b"]}":
            depth -= 1


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated = _Repeated(found)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            repeated.key = key
            break
        seen.add(key)
    return repeated


def _integer(text: str) -> int | _HugeNumber:
    return int(text) if len(text.lstrip("-")) <= INTEGER_DIGITS_MAX else _HUGE


def _fraction(text: str) -> float | _HugeNumber:
    """No field takes a number with a fraction; the value only lives until the struct refuses it."""
    value = float(text) if len(text) <= NUMBER_TEXT_LENGTH_MAX else float("inf")
    return value if abs(value) < 10**INTEGER_DIGITS_MAX else _HUGE


def _constant(name: str) -> Any:
    raise Malformed(f"The body is not JSON: {name} is not a JSON value.", code="malformed_json")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_fraction, parse_constant=_constant
)


def _check_values(value: Any) -> None:
    for path, item in _walk(value):
        if isinstance(item, str):
            if _REFUSED.search(item) is not None:
                raise _bad_text(path, item)
        elif item is _HUGE:
            detail = f"is a number with more than {INTEGER_DIGITS_MAX} digits"
            raise InvalidInput.at(pointer_of(path), detail)
        elif isinstance(item, _Repeated):
            pointer = pointer_of((*path, item.key))
            raise Malformed(
                "The body has a key twice.",
                problems=(FieldProblem(pointer, "is there twice"),),
                code="malformed_json",
            )


def _bad_text(path: tuple[str | int, ...], text: str) -> Malformed | InvalidInput:
    pointer = pointer_of(path)
    if _SURROGATE.search(text) is not None:
        detail = "holds half of a surrogate pair, which is no character"
        return Malformed(detail, problems=(FieldProblem(pointer, detail),), code="malformed_json")
    return InvalidInput.at(pointer, "holds a control character")


def _walk(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value below and including this one, and every key, each with its path. Depth is bounded already."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while waiting:
        path, item = waiting.pop()
        yield path, item
        if isinstance(item, dict):
            for key, inner in item.items():
                yield (*path, key), key
                waiting.append(((*path, key), inner))
        elif isinstance(item, list):
            waiting.extend(((*path, index), inner) for index, inner in enumerate(item))


def _as_invalid(message: str, value: Any) -> InvalidInput:
    """Turn msgspec's sentence (which names the place as `$.a[0].b`) into our error with a pointer."""
    if match := _MISSING.fullmatch(message):
        return InvalidInput.at(pointer_of((*_path(match[2], value), match[1])), "is required")
    if match := _UNKNOWN.fullmatch(message):
        return InvalidInput.at(pointer_of((*_path(match[2], value), match[1])), "is not a known field")
    match = _OTHER.fullmatch(message)
    if match is None:
        return InvalidInput("The body does not have the expected form.")
    detail = match[1].replace("`", "").replace(" | null", "")
    return InvalidInput.at(pointer_of(_path(match[3], value)), detail[:1].lower() + detail[1:])


def _path(text: str | None, value: Any) -> tuple[str | int, ...]:
    """Steps of msgspec's path. It does not name the key of a free-form object; the first misfit is searched."""
    steps: list[str | int] = []
    for name, index, anonymous in _STEP.findall(text or ""):
        step: str | int = int(index) if index else name
        if anonymous:
            if not isinstance(value, dict):
                break
            step = next((key for key, inner in value.items() if not isinstance(inner, str)), "")
        steps.append(step)
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = None
    return tuple(steps)
