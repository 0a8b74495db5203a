"""What goes wrong with a JSON document on its way: one place of it, named, so that a test can say what must follow.

Holds true: a mutation is drawn from numbers only, so hypothesis can repeat and shrink it.
"""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass
from typing import Any

ODD_TEXTS = (
    "", "0x", "0X1", "0x0", "0x00", "0x_1", "-0x1", "0x-1", "+1", " 0x1", "0x1 ", "0xg", "0x" + "z" * 64, "null",
    "0x" + "f" * 64, "0x1" + "0" * 64, "0x" + "F" * 40, "0x" + "f" * 40, "0x" + "0" * 64, "0x" + "00" * 256,
    "0x" + "ff" * 256, "0x" + " " * 40, "0x" + "\0" * 40, "0x" + "\u0661" * 40, "0x" + "é" * 64, "\ud7ff\ue000",
    "é" * 66, "0x" + "f" * 10_000, "NaN", "1e400", "1" * 5000, "0x" + "\0" * 64, "0x" + "_" * 64, "0x" + "+" * 40,
)  # fmt: skip
ODD_LETTERS = ("z", "\0", " ", "_", "+", "F", "\u0661", "é", "x", "0x", "\n")
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, 1.5, -0.0, 1e308,
    float("nan"), float("inf"), [], {}, [None], [[]], {"a": {"b": []}}, {"": ""}, [["0x1"]] * 50,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutated:
    """A document after a mutation: its bytes, and the path to where it was changed (empty: anywhere)."""

    text: bytes
    path: tuple[str | int, ...]
    how: str


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path to everything in a document."""
    found: list[tuple[str | int, ...]] = []
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += [(*path, key), *places(inner, (*path, key))]
    return found


def mutate(document: Any, seed: int) -> Mutated:
    """The document with one thing wrong."""
    chance = random.Random(seed)
    if not isinstance(document, dict | list) or chance.random() < 0.12:
        return _damaged(document, chance)
    document = copy.deepcopy(document)
    path = chance.choice(places(document) or [()])
    if not path:
        return Mutated(_written(chance.choice(ODD_VALUES)), (), "replaced")
    holder: Any = document
    for step in path[:-1]:
        holder = holder[step]
    key = path[-1]
    how = chance.choice(
        ("text", "letters", "value", "value", "drop", "double", "deep", "swap", "wide", "digit")
    )
    match how:
        case "text":
            holder[key] = chance.choice(ODD_TEXTS)
        case "letters":  # of the same length, so that only a look at each of them finds it
            length = len(holder[key]) if isinstance(holder[key], str) else 66
            holder[key] = ("0x" + chance.choice(ODD_LETTERS) * length)[:length]
        case "value":
            holder[key] = chance.choice(ODD_VALUES)
        case "drop":
            del holder[key]
        case "double" if isinstance(holder, list) and isinstance(key, int):
            holder.insert(key, copy.deepcopy(holder[key]))
        case "deep":
            holder[key] = _nested(chance.choice((10, 200, 5_000)), chance.choice(("list", "object")))
        case "swap":
            other = chance.choice(places(document))
            inner: Any = document
            for step in other:
                inner = inner[step]
            holder[key] = copy.deepcopy(inner)
        case "wide":
            holder[key] = [copy.deepcopy(holder[key])] * 300
        case _:
            how = "digit"
            holder[key] = _other_digit(holder[key], chance)
    return Mutated(_written(document), path, how)


class _Deep(str):
    """Text that is written as it is: deeper than `json` writes."""

    __slots__ = ()


def _nested(depth: int, kind: str) -> _Deep:
    opening, closing = ("[", "]") if kind == "list" else ('{"calls":[', "]}")
    return _Deep(opening * depth + closing * depth)


def _written(document: Any) -> bytes:
    deep: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, _Deep):
            deep.append(str(value))
            return f"@deep{len(deep) - 1}@"
        if isinstance(value, dict):
            return {key: marked(inner) for key, inner in value.items()}
        return [marked(inner) for inner in value] if isinstance(value, list) else value

    text = json.dumps(marked(document))
    for number, inner in enumerate(deep):
        text = text.replace(f'"@deep{number}@"', inner)
    return text.encode("utf-8", "surrogatepass")


def _other_digit(value: Any, chance: random.Random) -> Any:
    """The nearest that still looks right: one digit of a text, or a number, is another."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + chance.choice((-1, 1))
    if isinstance(value, str) and len(value) > 2:
        at = chance.randrange(2, len(value))
        return value[:at] + chance.choice("0123456789abcdefABCDEF") + value[at + 1 :]
    return value


def _damaged(document: Any, chance: random.Random) -> Mutated:
    """Bytes cut off, changed, or put before and behind."""
    text = bytearray(_written(document))
    match chance.randrange(5):
        case 0:
            del text[chance.randrange(len(text)) :]
        case 1:
            start = chance.randrange(len(text))
            text[start : start + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
        case 2:
            text = bytearray(
                chance.choice((b"", b"null", b"<html>busy</html>", b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0"))
            )
        case 3:
            text += chance.choice((b"\0", b"}", b"{}", b" \n", b"// end"))
        case _:
            text = bytearray(chance.randbytes(chance.randrange(200)))
    return Mutated(bytes(text), (), "damaged")
