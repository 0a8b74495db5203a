"""Every text that somebody types or sends: it is read as what it is, or refused by InvalidInput or Malformed.

Near misses of right texts (a sign more, another script's digits, another case, blanks, NUL, half a surrogate), and any
text at all. What is accepted is in normal form: reading it again changes nothing. A text with a private key in it is
never accepted, and never repeated.
"""

from __future__ import annotations

import random
import re
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from bip32 import BIP32
from bip32.base58 import b58decode_check, b58encode_check
from hypothesis import given
from hypothesis import strategies as st

from tallystick.api.request import choice_of, cursor_of, path_id, time_of
from tallystick.api.requests import EXAMPLE_XPUB, CreateInvoice, check_pairs
from tallystick.api.strict_json import BODY_BYTES_MAX, convert, parse
from tallystick.chains.evm.addresses import (
    EvmAccountKey,
    check_destination,
    display,
    normalize,
    normalize_tx_hash,
)
from tallystick.config import parse_listen
from tallystick.core.errors import ConfigurationError, InvalidInput, Malformed, NotFound
from tallystick.core.ids import IdKind, id_pattern, is_id, make_id
from tallystick.core.invoice import Status
from tallystick.core.money import AMOUNT_MAX, DECIMALS_MAX, format_units, parse_decimal, parse_units
from tallystick.core.urls import check_return_url
from tallystick.core.webhook_target import url_problem
from tallystick.services.idempotency import check_key
from tallystick.services.merchants import is_key
from tests.fuzz.effort import effort
from tests.fuzz.mutations import ODD_TEXTS

ADDRESS = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
INVOICE = make_id(IdKind.INVOICE, 1_700_000_000_000, bytes(10))
SIGNS = (
    "\0",
    " ",
    "\n",
    "\t",
    "+",
    "-",
    "_",
    ".",
    ",",
    "٣",
    "３",
    "é",
    "\u202e",
    "\u200b",
    "\ud800",
    "%00",
    "/",
    "\\",
    "'",
    '"',
    "0",
    "f",
    "F",
    "x",
)
NEAR = st.tuples(st.integers(0, 2**32), st.integers(0, 3))
TEXTS = st.one_of(
    st.text(max_size=150), st.sampled_from(ODD_TEXTS), st.text("0123456789abcdefxX. +-eE_", max_size=90)
)


def near(right: str, seed: int, changes: int) -> str:
    """A right text with some signs put in, taken out, or turned into others."""
    chance = random.Random(seed)
    text = right
    for _ in range(changes):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(4):
            case 0:
                text = text[:at] + chance.choice(SIGNS) + text[at:]
            case 1:
                text = text[:at] + text[at + 1 :]
            case 2:
                text = text[:at] + text[at:].swapcase()
            case _:
                text = text[:at] + chance.choice(SIGNS) + text[at + 1 :]
    return text


def _cursor(text: str) -> str | None:
    return cursor_of(IdKind.INVOICE, text)


def _price(text: str) -> str:
    return format_units(parse_units(text, 18), 18)


def _time(text: str) -> str:
    found = time_of("created_after", text)
    assert found is not None
    assert found.tzinfo is UTC
    return found.isoformat()


def _status(text: str) -> str:
    found = choice_of("status", Status, text)
    assert found is not None
    return found.value


def _listen(text: str) -> str:
    host, port = parse_listen(text)
    assert 0 <= port < 2**16
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


READERS: dict[str, tuple[Callable[[str], Any], tuple[str, ...]]] = {
    "address": (normalize, (ADDRESS, ADDRESS.lower(), "0x" + "AB" * 20)),
    "address shown": (display, (ADDRESS, ADDRESS.lower())),
    "destination": (check_destination, (ADDRESS, "0x" + "0" * 40, "0x" + "e" * 40)),
    "transaction hash": (normalize_tx_hash, ("0x" + "ab" * 32, "0x" + "AB" * 32)),
    "amount": (_price, ("0", "12.50", "0.000000000000000001", str(AMOUNT_MAX), "1" + "0" * 58)),
    "return link": (
        lambda text: check_return_url(text, pointer="/x"),
        ("https://a.example/b?c=d#e", "http://localhost:1/"),
    ),
    "id": (lambda text: path_id(IdKind.INVOICE, text), (INVOICE,)),
    "cursor": (_cursor, (INVOICE,)),
    "time": (_time, ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.5+23:59", "0001-01-01T00:00:00+00:01")),
    "status": (_status, ("paid", "underpaid")),
    "idempotency key": (check_key, ("order 7", "~" * 255)),
    "listen address": (_listen, ("127.0.0.1:8420", "[::1]:0")),
}


@pytest.mark.parametrize("kind", READERS)
@given(text=TEXTS, which=st.integers(0, 10), how=NEAR)
@effort(150)
def test_a_text_is_read_or_refused(kind: str, text: str, which: int, how: tuple[int, int]) -> None:
    read, right = READERS[kind]
    for given_text in (text, near(right[which % len(right)], *how)):
        try:
            found = read(given_text)
        except (InvalidInput, Malformed, NotFound, ConfigurationError) as error:
            assert len(str(error)) < 300
            assert given_text not in str(error) or len(given_text) < 20
            continue
        assert read(found) == found, given_text
        assert found.isascii(), given_text
        assert found.isprintable(), given_text


@given(units=st.integers(0, AMOUNT_MAX), decimals=st.integers(0, DECIMALS_MAX), places=st.integers(0, 36))
@effort(500)
def test_an_amount_as_text_and_back(units: int, decimals: int, places: int) -> None:
    text = format_units(units, decimals, places_min=places)
    assert parse_units(text, decimals) == units
    assert parse_decimal(text) * 10**decimals == units


@given(
    seed=st.integers(0, 2**48 - 1),
    randomness=st.binary(min_size=10, max_size=10),
    kind=st.sampled_from(IdKind),
)
@effort(500)
def test_an_id_fits_its_own_kind_only(seed: int, randomness: bytes, kind: IdKind) -> None:
    text = make_id(kind, seed, randomness)
    assert [other for other in IdKind if is_id(other, text)] == [kind]
    assert re.search(id_pattern(kind), text)


@given(text=TEXTS, how=NEAR)
@effort(300)
def test_a_webhook_address_is_judged_in_a_sentence(text: str, how: tuple[int, int]) -> None:
    """A URL that passes has a host that is no address of ours, written so that every reader sees the same host."""
    for url in (
        text,
        "https://" + text,
        near("https://shop.example:8443/hook?x=1", *how),
        near("https://[::1]/", *how),
    ):
        problem = url_problem(url)
        if problem is None:
            parts = urlsplit(url)
            assert parts.scheme == "https"
            assert parts.hostname
            assert url.isascii()
            assert url.isprintable()
            assert not re.fullmatch(r"[0-9.]+|\[.*\]", parts.netloc)
        else:
            assert problem.isprintable()


# -- keys

_ROOT = BIP32.from_seed(bytes(range(32)))
_PRIVATE = str(_ROOT.get_xpriv_from_path("m/44'/60'/0'"))
_RAW = _ROOT.get_privkey_from_path("m/44'/60'/0'/0/0")
_PHRASE = "legal winner thank year wave sausage worth useful legal winner thank yellow"
SECRETS = (
    _PRIVATE, _RAW.hex(), "0x" + _RAW.hex(), "0X" + _RAW.hex().upper(), b58encode_check(b"\x80" + _RAW).decode(),
    b64encode(_RAW).decode(), _PHRASE, _PHRASE.upper(), _PHRASE.replace(" ", "\n"), _PHRASE.replace(" ", ", "),
    " ".join(f"{number}. {word}" for number, word in enumerate(_PHRASE.split(), 1)), f'{{"crypto":"{_RAW.hex()}"}}',
    f"wpkh({_PRIVATE}/0/*)", f"[d34db33f/44'/60'/0']{_PRIVATE}",
)  # fmt: skip


@given(secret=st.sampled_from(SECRETS), before=st.text(max_size=12), behind=st.text(max_size=12), how=NEAR)
@effort(300)
def test_a_private_key_is_refused_and_not_repeated(
    secret: str, before: str, behind: str, how: tuple[int, int]
) -> None:
    for text in (secret, before + secret + behind, near(secret, *how), EXAMPLE_XPUB + secret):
        with pytest.raises(InvalidInput) as refused:
            EvmAccountKey.parse(text)
        said = f"{refused.value!r} {refused.value} {refused.value.problems}"
        for start in range(0, len(secret) - 11, 4):
            assert secret[start : start + 12] not in said


@pytest.mark.parametrize("secret", SECRETS[:4] + SECRETS[6:])
def test_who_gives_a_private_key_is_told_so(secret: str) -> None:
    with pytest.raises(InvalidInput, match="private key or a recovery phrase"):
        EvmAccountKey.parse(f" {secret}\n")


@given(payload=st.binary(min_size=78, max_size=78), kept=st.integers(0, 78), swap=st.integers(0, 77))
@effort(150)
def test_a_key_with_a_right_checksum_and_anything_inside(payload: bytes, kept: int, swap: int) -> None:
    """Also a private key behind a public key's prefix. What passes derives addresses."""
    real = b58decode_check(EXAMPLE_XPUB)
    hidden = real[:45] + b"\0" + _RAW
    for raw in (
        real[:kept] + payload[kept:],
        real[:swap] + payload[:1] + real[swap + 1 :],
        hidden,
        real[:4] + payload[4:],
    ):
        try:
            key = EvmAccountKey.parse(b58encode_check(raw).decode())
        except InvalidInput:
            continue
        assert raw != hidden
        assert normalize(key.derive(0)) != normalize(key.derive(1))
        assert normalize(key.derive(2**31 - 1))


@given(text=TEXTS)
@effort(500)
def test_an_api_key_has_one_form(text: str) -> None:
    assert not is_key(text)
    assert not is_key("ts_" + text) or len(text) == 32


# -- bodies


@given(body=st.binary(max_size=300) | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")))
@effort(400)
def test_a_body_of_any_bytes(body: bytes) -> None:
    for sent in (
        body,
        b'{"amount":"1","currency":' + body + b"}",
        b'{"amount":"' + body + b'"}',
        b"[" * 40 + body,
    ):
        try:
            convert(parse(sent), CreateInvoice)
        except (Malformed, InvalidInput) as error:
            for problem in error.problems:
                assert problem.pointer.isprintable() or "\\" not in problem.pointer
                problem.pointer.encode()


@given(pairs=st.dictionaries(st.text(max_size=60), st.text(max_size=700), max_size=60))
@effort(100)
def test_metadata_keeps_to_its_limits_or_is_refused(pairs: dict[str, str]) -> None:
    fits = len(pairs) <= 50 and all(1 <= len(key) <= 40 and len(value) <= 500 for key, value in pairs.items())
    if fits:
        assert check_pairs("/metadata", pairs) == pairs
    else:
        with pytest.raises(InvalidInput):
            check_pairs("/metadata", pairs)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * BODY_BYTES_MAX,
        b'{"a":' * (BODY_BYTES_MAX // 5),
        b'"' + b"\\" * (BODY_BYTES_MAX - 2) + b'"',
        b'["' * (BODY_BYTES_MAX // 2),
        b'"\\"' * (BODY_BYTES_MAX // 3),
        b"9" * BODY_BYTES_MAX,
        b"-" * BODY_BYTES_MAX,
        b"1e" + b"9" * (BODY_BYTES_MAX - 2),
        b"{" + b",".join(b'"%d":0' % number for number in range(20_000)) + b"}",
        b'{"metadata":{' + b",".join(b'"k":"v"' for _ in range(20_000)) + b"}}",
        b"[" + b"[]," * (BODY_BYTES_MAX // 3 - 2) + b"[]]",
        b" " * BODY_BYTES_MAX,
        b'"' + b"\\ud800" * (BODY_BYTES_MAX // 6 - 1) + b'"',
    ],
    ids=lambda body: body[:12].decode(),
)
def test_the_largest_body_takes_little_time(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises((Malformed, InvalidInput)):
        convert(parse(body[:BODY_BYTES_MAX]), CreateInvoice)
    assert time.process_time() - began < 2.0


def test_times_beyond_the_calendar() -> None:
    for text in ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2026-13-01T00:00:00Z"):
        with pytest.raises(Malformed):
            time_of("created_after", text)
    assert time_of("created_after", "2026-01-31T12:00:00z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
