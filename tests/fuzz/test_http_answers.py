"""Whatever comes back over HTTP, from nodes, exchanges and webhook receivers: a typed error or an answer in words.

F-NODE 1, F-HOOK 2, R-INV 4. A server sends bytes that are nearly HTTP: lengths that lie, chunks that do not end,
encodings that are not theirs, headers without end, dates that never were, or a break anywhere.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.chains.json_rpc import Answer, Call, RpcClient, RpcLimits, new_session
from tallystick.chains.pauses import retry_after_seconds
from tallystick.core.errors import SourceError
from tallystick.core.webhook import RETRY_AFTER_MAX, parse_retry_after
from tallystick.db.webhooks import ClaimedDelivery
from tallystick.rates.exchange import Exchange, ExchangeOptions, _Reply
from tallystick.rates.live import utc_now
from tallystick.rates.routes import Map
from tallystick.services.context import Context
from tallystick.workers.webhook_sender import Sender
from tests.fuzz.effort import SECONDS, effort, seeds
from tests.fuzz.mutations import mutate
from tests.support.exchanges import open_market

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANY = msgspec.json.Decoder(Answer[Any])
BODY = b'{"jsonrpc":"2.0","id":1,"result":"0x1"}'
DATES = (
    "0", "-1", "1e9", "99999999999999999999999", "٥", "1.5", "", " ", "soon", "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 0001 00:00:00 +2359", "Mon, 99 Foo 2026 25:61:61 GMT",
    "Thu, 01 Jan 2026 00:00:00 +999999", "Thu, 1 Jan 99999 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:00 -0000",
)  # fmt: skip
DATE_PARTS = (
    "Thu,", "Thu", "01", "1", "32", "Jan", "Feb-2026", "2026", "26", "99999", "00:00:00", "24:60:61", "12.30", "GMT",
    "+0000", "-0000", "+9999", "-2400", "EST", "0", "-1", ",", "(comment", "00:00:00.5", "1:2:3:4", "٢٠٢٦",
)  # fmt: skip
STATUS_LINES = (
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 429 Slow",
    b"HTTP/1.1 503 No", b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Up", b"HTTP/1.1 302 Found", b"HTTP/1.1 410 Gone",
    b"HTTP/1.1 999 ?", b"HTTP/1.1 0 ?", b"HTTP/1.1 -1 ?", b"HTTP/1.1 20000 ?", b"HTTP/9.9 200 OK",
    b"HTTP/1.1 two OK", b"ICY 200 OK", b"", b"HTTP/1.1 200 \xff\xfe", b"\x16\x03\x01\x02\x00", b"SSH-2.0-x",
)  # fmt: skip


def nearly_http(seed: int) -> bytes:
    """An answer with one or two things wrong about it."""
    chance = random.Random(seed)
    status = chance.choice(STATUS_LINES) if chance.random() < 0.4 else STATUS_LINES[0]
    body = chance.choice(
        (*[BODY] * 6, b"", b"null", b"<html>", BODY[:-3], chance.randbytes(50), b"\x1f\x8b" + bytes(9))
    )
    headers: list[bytes] = [b"Content-Type: application/json"]
    match chance.randrange(9):
        case 0:
            headers.append(b"Transfer-Encoding: chunked")
            body = chance.choice(
                (
                    b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
                    b"zz\r\n" + body,
                    b"-5\r\n" + body,
                    b"fffffffffffffffff\r\n",
                )
            )
        case 1:
            length = chance.choice(
                ("-1", "0", "1", "99999999999999999999", "1e3", "٥", "", "5, 5", "5\r\nContent-Length: 7")
            )
            headers.append(b"Content-Length: " + length.encode())
        case 2:
            packed = chance.choice((gzip.compress(body), zlib.compress(body), body, gzip.compress(body)[:-4]))
            name = chance.choice(
                (b"gzip", b"deflate", b"br", b"zstd", b"identity", b"gzip, gzip", b"x-unknown")
            )
            headers += [b"Content-Encoding: " + name, b"Content-Length: %d" % len(packed)]
            body = packed
        case 3:
            headers.append(b"X: " + b"a" * chance.choice((9_000, 70_000)))
        case 4:
            headers += [b"X-%d: y" % number for number in range(chance.choice((50, 5_000)))]
        case 5:
            headers.append(
                chance.choice((b"no colon", b": no name", b" folded", b"A\0B: c", b"A: b\0c", b"\xff: \xff"))
            )
        case 6:
            headers.append(
                b"Content-Type: text/html; charset=" + chance.choice((b"utf-16", b"nonsense", b"\xff"))
            )
        case 7:
            headers.append(b"Set-Cookie: " + chance.choice((b"a=b; Max-Age=x", b"=;=;", b"a" * 5_000)))
        case _:
            headers.append(b"Content-Length: %d" % len(body))
    headers += [
        f"{name}: {chance.choice(DATES)}".encode()
        for name in ("Retry-After", "Date")
        if chance.random() < 0.4
    ]
    text = b"\r\n".join([status, *headers]) + b"\r\n\r\n" + body
    return text[: chance.randrange(len(text) + 1)] if chance.random() < 0.15 else text


@asynccontextmanager
async def saying(says: Callable[[], bytes]) -> AsyncIterator[int]:
    """A server that reads a request and sends these bytes; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(65_536)
            writer.write(says())
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            pass

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_node_that_hardly_speaks_http() -> None:
    limits = RpcLimits(attempts_max=1, total_timeout_seconds=5, response_bytes_max=100_000)
    current = b""
    answered = 0
    told: list[str] = []
    async with saying(lambda: current) as port, new_session(limits) as session:
        for seed in seeds(400):
            current = nearly_http(seed)
            client = RpcClient(f"http://user:secretword@127.0.0.1:{port}/", session, limits)
            try:
                assert await client.call(Call("eth_chainId"), ANY) == "0x1", current
                answered += 1
            except SourceError as error:
                told.append(f"{error!r} {error} {error.remedy}")
    assert not [text for text in told if "secretword" in text]
    assert SECONDS or answered > 20


async def test_a_webhook_receiver_that_hardly_speaks_http() -> None:
    ctx = cast("Context", SimpleNamespace(allow_private_targets=True, now=lambda: NOW))
    current = b""
    known: set[int | None] = set()
    async with saying(lambda: current) as port, Sender(ctx, connections_max=2, timeout_seconds=5) as sender:
        delivery = ClaimedDelivery(
            "dlv", "evt", "whe", 0, NOW, "{}", f"http://127.0.0.1:{port}/", "whsec_" + "A" * 32, None
        )
        for seed in seeds(300):
            current = nearly_http(seed)
            answer = await sender.send(delivery)
            known.add(answer.status_code)
            assert answer.status_code is None or 100 <= answer.status_code <= 999, current
            assert len(answer.error or "") < 200, current
            assert (answer.error or "").isprintable(), current
            assert 0 <= (answer.retry_after_seconds or 0) <= RETRY_AFTER_MAX.total_seconds(), current
    assert SECONDS or ({200, 302, None} <= known and len(known) > 6)


@given(
    text=st.one_of(
        st.text(max_size=80),
        st.sampled_from(DATES),
        st.lists(st.sampled_from(DATE_PARTS), max_size=8).map(" ".join),
    )
)
@effort(500)
def test_a_wish_to_wait(text: str) -> None:
    """Both readers of Retry-After: seconds within their bounds, or none."""
    for seconds in (parse_retry_after(text, NOW), retry_after_seconds(text, NOW)):
        assert seconds is None or 0 <= seconds <= timedelta(days=30).total_seconds()


@pytest.mark.parametrize("style", ["kraken", "coinbase", "binance"])
async def test_an_exchange_whose_ticker_is_wrong_somewhere(style: str) -> None:
    """A price, exact and positive, or a SourceError that repeats nothing of what came."""
    async with open_market(style) as market:
        pair = next(iter(market.quotes))
        market.set(pair, "2499.10", "2500.30", "2400")
        exchange = Exchange(ExchangeOptions(style, Map(pivots=("USD",), pegs={}), market.url, 5.0), utc_now)
        try:
            honest = await exchange.ask(*pair.split("/"))
            assert honest.rate == Fraction("2499.70")
            door = cast("Any", exchange._door)
            sent: list[tuple[Mapping[str, str], bytes]] = []
            real = door.get

            @asynccontextmanager
            async def listening(url: Any, **options: Any) -> AsyncIterator[_Reply]:
                async with real(url, **options) as reply:
                    sent.append((reply.headers, reply.content))
                    yield reply

            door.get = listening
            await exchange.ask(*pair.split("/"))
            headers, body = sent[-1]
            document = json.loads(body)

            async def one(seed: int) -> None:
                mutated = mutate(document, seed)

                @asynccontextmanager
                async def lying(url: Any, **options: Any) -> AsyncIterator[_Reply]:
                    yield _Reply(200, "OK", headers, mutated.text)

                door.get = lying
                try:
                    answer = await exchange.ask(*pair.split("/"))
                except SourceError as error:
                    told.append(f"{error} {error!r}")
                    return
                assert answer.rate is None or answer.rate > 0, mutated
                assert answer.at is None or answer.at.tzinfo is not None, mutated
                assert len(f"{answer}") < 1_000, mutated

            told: list[str] = []
            for seed in seeds(250):
                await one(seed)
            assert max(len(text) for text in told) < 400
        finally:
            await exchange.close()
