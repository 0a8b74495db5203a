"""Raw settings (a TOML document and the environment) as checked values.

For: `config`, which says which keys there are.
Holds true: every value is read by exactly one call that says what it may be; a key that nobody read is an error naming
the nearest one that exists; whatever is in the file, the only error is ConfigurationError. No message repeats a text
value, because it may hold a password.
Must not: know what a setting means.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from tallystick.core.errors import ConfigurationError

PREFIX: Final = "TALLYSTICK_"
LEVEL_SEPARATOR: Final = "__"
FILE_BYTES_MAX: Final = 1 << 20
TEXT_LENGTH_MAX: Final = 4096
KEY_PARTS_MAX: Final = 64
LIST_LENGTH_MAX: Final = 64
BRACKETS_MAX: Final = 2 * LIST_LENGTH_MAX
_NEAREST_CUTOFF: Final = 0.6
_MISSPELT_CUTOFF: Final = 0.8  # of a variable that may as well belong to something else
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_QUOTED: Final = re.compile(r""""[^"\n]*"|'[^'\n]*'""")
_INTEGER: Final = re.compile(r"-?[0-9]{1,30}", re.ASCII)
_MISSING: Final = object()


class FromEnvironment(str):
    """A text that stands in an environment variable: read as whatever its key takes. `name` is the variable's."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, value: str, name: str) -> Self:
        """Keep the variable's name beside its value."""
        made = super().__new__(cls, value)
        made.name = name
        return made


def read_file(path: Path) -> dict[str, Any]:
    """The document in `path`. Raises ConfigurationError for anything that is not TOML of a sane size."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise ConfigurationError(
            f"The configuration file cannot be read: {reason}.",
            object_id=str(path),
            remedy="Check --config and TALLYSTICK_CONFIG.",
        ) from error
    return parse(content, origin=str(path))


def parse(content: bytes, *, origin: str) -> dict[str, Any]:
    """A TOML document. `origin` names it in errors."""
    if len(content) > FILE_BYTES_MAX:
        raise ConfigurationError(
            f"The configuration is larger than {FILE_BYTES_MAX} bytes.", object_id=origin
        )
    try:
        text = content.decode("utf-8")
        # The parser takes the square of a dotted key's parts: a file of them would keep it busy for days.
        lines = (line for line in _QUOTED.sub("", text).splitlines() if not line.lstrip().startswith("#"))
        if any(line.count(".") > KEY_PARTS_MAX for line in lines):
            raise RecursionError
        return tomllib.loads(text)
    except UnicodeDecodeError:
        problem = "it is not UTF-8 text"
    except RecursionError:
        problem = "it is nested too deeply"
    except (ValueError, OverflowError) as error:
        # tomllib's sentence says where; what stands there is left out, as it may be a password.
        place = re.search(r"\(at [^)]*\)", str(error))
        problem = f"a syntax error {place.group()[1:-1]}" if place else "a value that cannot be read"
    raise ConfigurationError(
        f"The configuration is no valid TOML: {problem}.", object_id=origin, remedy="Correct that place."
    )


def environment_form(key: str) -> str:
    """How a key is written in a variable's name."""
    return re.sub(r"[^A-Z0-9]", "_", key.upper())


def overlay(document: dict[str, Any], environment: Mapping[str, str], top_level_keys: frozenset[str]) -> None:
    """Lay the environment over the document, in place. An empty variable counts as not set.

    A name without a level separator that is no key of ours is left alone, unless it looks like a misspelt one: others
    (container platforms, our own tests) use names of this form, too.
    """
    for name, value in sorted(environment.items()):
        if not name.startswith(PREFIX) or not value:
            continue
        levels = name.removeprefix(PREFIX).split(LEVEL_SEPARATOR)
        if len(levels) == 1:
            key = levels[0].lower()
            if key not in top_level_keys:
                near = difflib.get_close_matches(key, sorted(top_level_keys), 1, _MISSPELT_CUTOFF)
                if near:
                    _unknown(name, f"{PREFIX}{near[0].upper()}", "the environment")
                continue
        elif not all(levels):
            _unknown(name, None, "the environment")
        _put(document, levels, FromEnvironment(value, name))


def _put(document: dict[str, Any], levels: list[str], value: FromEnvironment) -> None:
    table = document
    path: list[str] = []
    for depth, level in enumerate(levels):
        written = next((key for key in table if environment_form(str(key)) == level), None)
        key = _key_for(path, level) if written is None else written
        if depth == len(levels) - 1:
            table[key] = value
            return
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(
                f"{'.'.join([*path, key])} is a value, not a table.",
                object_id=value.name,
                remedy="Remove the variable.",
            )
        table = inner
        path.append(key)


def _key_for(path: list[str], level: str) -> str:
    """The key that a variable's level stands for where the file has none yet: symbols keep their capitals."""
    if path[-1:] == ["tokens"] or path == ["rates", "pegs"]:
        return level
    if path == ["rates", "static"]:
        return "/".join(level.rsplit("_", 1))
    return level.lower()


def _unknown(key: str, nearest: str | None, origin: str) -> NoReturn:
    raise ConfigurationError(
        f"There is no setting {_printable(key)!r}.",
        object_id=origin,
        remedy=f"Did you mean {nearest!r}?" if nearest else "Remove it.",
    )


class Table:
    """One table of the document. Read every key that exists with one of the methods, then call `finish`."""

    def __init__(self, values: Mapping[str, Any], *, path: str, origin: str) -> None:
        self._values = values
        self._known: set[str] = set()
        self.path = path
        self.origin = origin

    def error(self, key: str | None, problem: str, *, remedy: str | None = None) -> ConfigurationError:
        """An error about `key` of this table, or about the table itself."""
        value = self._values.get(key) if key is not None else None
        origin = value.name if isinstance(value, FromEnvironment) else self.origin
        return ConfigurationError(f"{self._name(key)}: {problem}.", object_id=origin, remedy=remedy)

    def finish(self) -> None:
        """Raise ConfigurationError for the first key that was never read."""
        for key, value in self._values.items():
            if key not in self._known:
                near = difflib.get_close_matches(str(key), sorted(self._known), 1, _NEAREST_CUTOFF)
                origin = value.name if isinstance(value, FromEnvironment) else self.origin
                _unknown(self._name(key), self._name(near[0]) if near else None, origin)

    def text(self, key: str, default: str | None = None, *, length_max: int = TEXT_LENGTH_MAX) -> str:
        """A text without control characters; without a default it must be there."""
        found = self.text_or_none(key, length_max=length_max)
        if found is None and default is None:
            raise self.error(key, "is missing")
        return found if found is not None else str(default)

    def text_or_none(self, key: str, *, length_max: int = TEXT_LENGTH_MAX) -> str | None:
        """A text without control characters, or None."""
        value = self._get(key)
        if value is _MISSING:
            return None
        if not isinstance(value, str):
            raise self.error(key, f"must be a text in quotes, not {_kind(value)}")
        return self._checked_text(key, value, length_max)

    def texts(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A list of texts. In the environment: a JSON list, or parts divided by commas."""
        value = self._get(key)
        if value is _MISSING:
            return default
        if isinstance(value, FromEnvironment):
            value = self._list_in(key, value)
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise self.error(key, "must be a list of texts")
        if len(value) > LIST_LENGTH_MAX:
            raise self.error(key, f"has more than {LIST_LENGTH_MAX} parts")
        return tuple(self._checked_text(key, part, TEXT_LENGTH_MAX) for part in value)

    def integer(self, key: str, default: int | None, *, at_least: int, at_most: int) -> int:
        """A whole number in the given range; with the default None it must be there."""
        value = self._get(key)
        if value is _MISSING:
            if default is None:
                raise self.error(key, "is missing")
            return default
        if isinstance(value, FromEnvironment) and _INTEGER.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"must be a whole number, not {_kind(value)}")
        if not at_least <= value <= at_most:
            raise self.error(key, f"must lie between {at_least} and {at_most}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """A yes or no: `true` or `false`."""
        value = self._get(key)
        if value is _MISSING:
            return default
        if isinstance(value, FromEnvironment):
            word = value.lower()
            value = True if word in _TRUE else False if word in _FALSE else value
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        return value

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        """One word of `choices`."""
        value = self.text(key, default)
        if value not in choices:
            raise self.error(key, f"must be one of {', '.join(choices)}")
        return value

    def holds(self, key: str) -> bool:
        """Whether the key is written at all. Does not count as reading it."""
        return key in self._values

    def is_from_environment(self, key: str) -> bool:
        """Whether the value stands in an environment variable rather than in the file."""
        return isinstance(self._values.get(key), FromEnvironment)

    def table(self, key: str) -> Table:
        """An inner table; an empty one where it is not written."""
        value = self._get(key)
        if value is _MISSING:
            value = {}
        if not isinstance(value, dict):
            raise self.error(key, "must be a table")
        return Table(value, path=self._name(key), origin=self.origin)

    def entries(self) -> Iterator[str]:
        """The keys of a table whose keys are names given by the user."""
        for key in list(self._values):
            yield str(key)

    def _get(self, key: str) -> Any:
        self._known.add(key)
        return self._values.get(key, _MISSING)

    def _name(self, key: str | None) -> str:
        parts = [part for part in (self.path, key) if part]
        return ".".join(_printable(part) for part in parts) or "the configuration"

    def _checked_text(self, key: str, value: str, length_max: int) -> str:
        if len(value) > length_max:
            raise self.error(key, f"is longer than {length_max} characters")
        if not value.isprintable():
            raise self.error(key, "holds characters that cannot be printed")
        return str(value)

    def _list_in(self, key: str, value: FromEnvironment) -> Any:
        if not value.lstrip().startswith("["):
            return [part.strip() for part in value.split(",") if part.strip()]
        # A list of texts needs one bracket, and two per IPv6 address; thousands are meant to exhaust the stack.
        if value.count("[") > BRACKETS_MAX:
            raise self.error(key, "must be a JSON list, or texts divided by commas")
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise self.error(key, "must be a JSON list, or texts divided by commas") from None


def _kind(value: object) -> str:
    names = {bool: "a yes or no", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), "a text" if isinstance(value, str) else "a date or time")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:200])
