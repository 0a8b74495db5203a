"""Whatever stands in the configuration: a configuration, or one ConfigurationError in one sentence without a secret.

Mutated from the commented default file with everything in it, from the environment, and as bytes; and files that are
meant to keep the reader busy. `tests/test_config.py` says what is accepted and in which words things are refused.
"""

from __future__ import annotations

import copy
import json
import random
import time
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.config import Config, default_text, from_document
from tallystick.config_reader import FILE_BYTES_MAX, KEY_PARTS_MAX, environment_form, parse
from tallystick.core.errors import ConfigurationError
from tests.fuzz.effort import effort
from tests.fuzz.mutations import ODD_TEXTS, ODD_VALUES, places

SECRET = "secretword"
SECONDS_MAX = 10.0
"""Far more than any of the files below takes (the slowest 2 s here), far less than the one that took days would."""


def _whole() -> dict[str, Any]:
    """The default file with every comment that is a setting taken at its word, and with secrets where they may be."""
    lines = []
    for line in default_text().splitlines():
        bare = line.removeprefix("# ").removeprefix("#").strip()
        is_setting = line.startswith("#") and (bare.startswith("[") or " = " in bare.split("#")[0])
        lines.append(bare if is_setting and not bare[:1].isupper() else line)
    document = tomllib.loads("\n".join(lines).replace("0x…", "0x" + "ab" * 32))
    document["database_url"] = f"postgresql://user:{SECRET}@127.0.0.1/db"
    document["networks"]["ethereum"]["rpc"] = [f"https://user:{SECRET}@node.example/{SECRET}?key={SECRET}"]
    return document


WHOLE = _whole()


def read(document: dict[str, Any], environment: dict[str, str] | None = None) -> Config | None:
    """The configuration, or None where it is refused as it should be."""
    try:
        found = from_document(
            document, environment={"TALLYSTICK_DATA_DIR": "/somewhere", **(environment or {})}
        )
    except ConfigurationError as error:
        said = f"{error} {error!r} {error.remedy} {error.object_id}"
        assert SECRET not in said
        assert 10 < len(str(error)) < 1_500, said
        assert "\n" not in str(error)
        assert error.object_id
        return None
    assert SECRET not in repr(found)
    return found


def test_the_whole_file_is_read() -> None:
    assert read(copy.deepcopy(WHOLE)) is not None


@given(seed=st.integers(0, 2**48), count=st.integers(1, 3))
@effort(600)
def test_a_mutated_file(seed: int, count: int) -> None:
    chance = random.Random(seed)
    document = copy.deepcopy(WHOLE)
    for _ in range(count):
        path = chance.choice(places(document))
        holder: Any = document
        for step in path[:-1]:
            holder = holder[step]
        match chance.randrange(5):
            case 0:
                del holder[path[-1]]
            case 1:
                holder[path[-1]] = chance.choice(ODD_TEXTS)
            case 2:
                holder[path[-1]] = copy.deepcopy(chance.choice(ODD_VALUES))
            case 3 if isinstance(holder, dict):
                holder[chance.choice(ODD_TEXTS)] = holder.pop(path[-1])
            case _:  # where a secret may stand, one that is written wrongly
                document["database_url"] = chance.choice(ODD_TEXTS) + SECRET
                document["networks"] = {"ethereum": {**WHOLE["networks"]["ethereum"], "rpc": [SECRET]}}
    read(document)


@given(seed=st.integers(0, 2**48))
@effort(400)
def test_a_mutated_environment(seed: int) -> None:
    chance = random.Random(seed)
    environment = {}
    for _ in range(chance.randint(1, 3)):
        path = chance.choice(places(WHOLE))
        levels = [environment_form(str(step)) for step in path]
        if chance.random() < 0.3:
            levels[chance.randrange(len(levels))] = chance.choice(
                ("", "X", "Ä", "A" * 500, "0", "TOKENS", "ETHEREUM")
            )
        values: tuple[str, ...] = (*ODD_TEXTS, "[" * 2_000, '["a', "true", "-0", "a,b", "https://a.example")
        if levels[-1] in (
            "RPC",
            "DATABASE_URL",
            "SOURCES",
        ):  # elsewhere nobody puts a secret, and it may be shown
            values = (*values, json.dumps([SECRET]), f"x{SECRET}", f"https://u:{SECRET}@", f"a,{SECRET}")
        value = chance.choice(values)
        environment["TALLYSTICK_" + "__".join(levels)] = value
    read(copy.deepcopy(WHOLE) if chance.random() < 0.5 else {}, environment)


@given(seed=st.integers(0, 2**48))
@effort(250)
def test_a_damaged_file(seed: int) -> None:
    chance = random.Random(seed)
    text = bytearray(default_text().replace("127.0.0.1", f"user:{SECRET}@host").encode())
    for _ in range(chance.randint(1, 5)):
        start = chance.randrange(len(text))
        pieces = (
            chance.randbytes(3),
            b"",
            b'"',
            b"'''",
            b"[[",
            b"]",
            b"=",
            b"\n",
            b"\r",
            b"\0",
            b"#",
            b"{",
            b".",
            b"\\u",
        )
        text[start : start + chance.randrange(4)] = chance.choice(pieces)
    try:
        document = parse(bytes(text), origin="a file")
    except ConfigurationError as error:
        assert SECRET not in f"{error} {error!r}"
        return
    read(document)


BUSY = {
    "a dotted key": b"a." * (FILE_BYTES_MAX // 2 - 10) + b"a = 1",
    "dotted keys": (b"a." * KEY_PARTS_MAX + b"a%d = 1\n") * 1 + (b"b." * KEY_PARTS_MAX + b"b = 1\n") * 5_000,
    "a dotted header": b"[" + b"a." * 400_000 + b"a]",
    "a dotted key inside": b"x = { " + b"a." * 400_000 + b"a = 1 }",
    "a quoted dotted key": b'"a".' * 200_000 + b'"a" = 1',
    "a long key": b'"' + b"k" * 900_000 + b'" = 1',
    "a long text": b'listen = "' + b"k" * 900_000 + b'"',
    "many keys": b"\n".join(b"k%d = 1" % number for number in range(70_000)),
    "many networks": b"\n".join(b"[networks.k%d]\nkind='evm'" % number for number in range(30_000)),
    "many tables": b"[[networks]]\n" * 70_000,
    "many parts": b"[server]\ntrusted_proxies=[" + b'"a",' * 200_000 + b"]",
    "many rates": b"[rates.static]\n" + b"\n".join(b'"K%d/USD" = "1"' % number for number in range(50_000)),
    "lists in lists": b"listen = " + b"[" * 900_000,
    "tables in tables": b"listen = " + b"{a=" * 300_000,
    "an endless number": b"listen = " + b"9" * 900_000,
    "an endless hex number": b"[server]\nstop_seconds_max = 0x" + b"9" * 900_000,
    "an endless fraction": b"[server]\nstop_seconds_max = 1e" + b"9" * 900_000,
    "an endless time": b"[server]\nstop_seconds_max = 2026-01-01T00:00:00." + b"9" * 900_000,
    "a text without end": b'listen = """' + b'x"' * 400_000,
    "too large": b"#" * (100 * 2**20),
}


def test_a_line_of_dots_that_says_nothing_is_no_deep_key() -> None:
    """People draw lines in their files."""
    drawn = b"  # " + b"." * 100 + b'\nlisten = "127.0.0.1:1"\n#' + b". " * 100
    assert parse(drawn, origin="a file") == {"listen": "127.0.0.1:1"}


@pytest.mark.parametrize("kind", BUSY)
def test_a_file_that_is_meant_to_keep_us_busy(kind: str) -> None:
    """The dotted key was ours: the parser takes the square of its parts, 17 s for 40 kB and days for a megabyte."""
    began = time.process_time()
    with pytest.raises(ConfigurationError) as raised:
        from_document(parse(BUSY[kind], origin="a file"), environment={"TALLYSTICK_DATA_DIR": "/somewhere"})
    assert time.process_time() - began < SECONDS_MAX
    assert len(str(raised.value)) < 500
