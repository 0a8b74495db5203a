"""Every address and header that a browser, a customer or anybody else can send: never a 5xx, never a stack trace.

Over real HTTP, with the checkout's and the claim page's routes: odd paths, queries, headers, cookies, forms, streams,
keys. The API's own operations are in `test_api`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_from_bytes, urlencode

import httpx
import pytest
import structlog

from tallystick.api.app import create_app
from tallystick.services import objects, refunds
from tallystick.services.context import Actor, ActorType
from tallystick.services.refunds import NewRefund
from tallystick.web.checkout import checkout_routes
from tallystick.web.claims import claim_routes
from tallystick.web.stream import InvoiceHub
from tests.fuzz.effort import SECONDS, seeds
from tests.fuzz.mutations import ODD_TEXTS
from tests.fuzz.shop import UNLIMITED
from tests.support.invariants import check_invariants
from tests.support.web_server import serve
from tests.web.shop import Shop, open_shop

MERCHANT = Actor(ActorType.MERCHANT, "key_test")
ADDRESS = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
HEADERS = (
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "content-type",
    "cookie",
    "if-none-match",
    "range",
    "if-modified-since",
    "idempotency-key",
    "last-event-id",
    "origin",
    "referer",
    "sec-fetch-site",
    "user-agent",
    "te",
    "x-forwarded-for",
    "x-forwarded-proto",
    "forwarded",
    "x-http-method-override",
    "upgrade",
    "expect",
    "via",
)
VALUES = (
    "",
    " ",
    "*",
    "null",
    "\xe4",
    "\xff\xfe",
    "a" * 3_000,
    "Bearer",
    "Bearer ts_" + "a" * 32,
    "bearer  ts_x",
    "Basic =",
    "Bearer ts_\xe4",
    "gzip;q=x",
    "gzip, br, *;q=0",
    'W/"x"',
    "bytes=0-",
    "bytes=9-1,-",
    "application/json; charset=utf-7",
    "multipart/form-data",
    "multipart/form-data; boundary=" + "-" * 200,
    "application/x-www-form-urlencoded; charset=x",
    "a=b; c; =; d=\x7f",
    "127.0.0.1, unknown, [::1]:99",
    "for=unknown;proto=x",
    "websocket",
    "same-origin",
    "cross-site",
    "none",
    "evt_" + "0" * 26,
    "-1",
    "\t",
    "trailers",
    "Sun, 99 Foo 0000 00:00:00 GMT",
    "%00",
    "DELETE",
    "é".encode().decode("latin-1"),
)

METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "QUERY")


@dataclass(slots=True)
class Site:
    """The shop's pages, and what there is to ask for."""

    shop: Shop
    http: httpx.AsyncClient
    invoice: objects.Invoice
    refund: objects.Refund

    @property
    def token(self) -> str:
        return str(self.refund.claim_url).partition("?token=")[2]

    def paths(self) -> tuple[str, ...]:
        option = self.invoice.payment_options[0].id
        return (
            f"/i/{self.invoice.id}",
            f"/i/{self.invoice.id}/options/{option}",
            f"/i/{self.invoice.id}/options/{option}/qr.svg",
            f"/r/{self.refund.id}",
            f"/r/{self.refund.id}/check",
            f"/r/{self.refund.id}/confirm",
            "/static/checkout/checkout.css",
            f"/v1/invoices/{self.invoice.id}",
            "/v1/events",
            "/healthz",
            "/metrics",
            "/docs",
            "/docs/errors",
            "/openapi.json",
            "/",
        )


@asynccontextmanager
async def _open(database_url: str) -> AsyncIterator[Site]:
    async with open_shop(database_url) as shop:
        hub = InvoiceHub(shop.ctx)
        routes = [checkout_routes(shop.ctx, hub), claim_routes(shop.ctx, lambda _: None)]
        app = create_app(shop.ctx, routes=routes, limits=UNLIMITED)
        async with hub.running(), serve(app, before_stop=hub.close) as url:
            invoice = await shop.activate(await shop.create())
            await shop.pay(invoice)
            await shop.mine("ethereum", 12)
            async with shop.database.transaction() as connection:
                # An address is asked for.
                wish = NewRefund(reason="returned", invoice_id=invoice.id, amount="0.001")
                refund = await refunds.create_refund(connection, shop.ctx, shop.merchant_id, MERCHANT, wish)
            async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as http:
                yield Site(shop, http, invoice, refund)


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with _open(database_url) as opened:
        yield opened


def _odd_path(chance: random.Random, path: str) -> str:
    at = chance.randrange(len(path) + 1)
    odd = chance.choice(
        (
            quote(chance.choice(ODD_TEXTS)[:300], safe=""),
            quote_from_bytes(chance.randbytes(4)),
            "/",
            "//",
            "/../",
            "/%2e%2e/",
            "%2F",
            "%",
            "%zz",
            ";x",
            "%00",
            "\\",
            "%5c",
            "x" * 700,
            "{",
            "}",
            "|",
            "^",
            "~",
            "%F0%9F%92%A9",
        )
    )
    return path[:at] + odd + (path[at:] if chance.random() < 0.7 else "")


def _odd_query(chance: random.Random, site: Site) -> str:
    names = (
        "option",
        "notice",
        "v",
        "token",
        "limit",
        "cursor",
        "status",
        "created_after",
        "after",
        "x",
        "",
        "é",
        "\0",
    )
    pairs = [
        (
            chance.choice(names),
            chance.choice(
                (
                    *ODD_TEXTS,
                    site.token,
                    site.invoice.payment_options[0].id,
                    "paid",
                    "1e3",
                    "2026-01-01T00:00:00Z",
                )
            ),
        )
        for _ in range(chance.randrange(4))
    ]
    return (
        urlencode(pairs, errors="surrogatepass")
        if chance.random() < 0.9
        else quote_from_bytes(chance.randbytes(20))
    )


def _odd_form(chance: random.Random, site: Site) -> tuple[bytes, str]:
    fields: list[tuple[str, Any]] = [
        ("token", site.token if chance.random() < 0.6 else chance.choice(ODD_TEXTS)),
        ("address", chance.choice((ADDRESS, ADDRESS.lower(), *ODD_TEXTS))),
        ("sure", chance.choice(("no", "YES", "", "yes\0", "on"))),
        *[(chance.choice(ODD_TEXTS), "x") for _ in range(chance.randrange(3))],
    ]
    chance.shuffle(fields)
    kind = chance.choice(
        ("application/x-www-form-urlencoded",) * 4
        + ("multipart/form-data; boundary=b", "application/json", "text/plain")
    )
    body = urlencode(fields[: chance.randrange(len(fields) + 1)], errors="surrogatepass").encode()
    match chance.randrange(6):
        case 0:
            body = chance.randbytes(100)
        case 1:
            body = b"&".join([b"a=b"] * 3_000)
        case 2:
            body = (
                b'--b\r\nContent-Disposition: form-data; name="token"\r\n\r\n'
                + body
                + chance.choice((b"", b"\r\n--b--", b"\r\n--b"))
            )
        case _:
            pass
    return body, kind


async def test_whatever_is_asked_for_there_is_an_answer(site: Site) -> None:
    problems = []
    answers: dict[int, int] = {}
    with structlog.testing.capture_logs() as lines:
        for seed in seeds(500):
            chance = random.Random(seed)
            path = chance.choice(site.paths())
            path = _odd_path(chance, path) if chance.random() < 0.4 else path
            query = _odd_query(chance, site) if chance.random() < 0.5 else ""
            forms = path.endswith(("/check", "/confirm", site.invoice.payment_options[0].id))
            method = chance.choice(METHODS) if chance.random() < 0.3 else "POST" if forms else "GET"
            headers = [
                (chance.choice(HEADERS).encode(), chance.choice(VALUES).encode("latin-1"))
                for _ in range(chance.randrange(4))
            ]
            body, kind = _odd_form(chance, site) if method == "POST" else (b"", "")
            if kind:
                headers.append((b"content-type", kind.encode()))
            try:
                url = httpx.URL(str(site.http.base_url).rstrip("/") + path + (f"?{query}" if query else ""))
                answer = await site.http.request(method, url, headers=headers, content=body)
            except (httpx.InvalidURL, httpx.LocalProtocolError):
                continue  # httpx would not send it
            answers[answer.status_code] = answers.get(answer.status_code, 0) + 1
            if (
                answer.status_code >= 500
                or "Traceback" in answer.text
                or site.token in str(answer.headers.get("x-request-id"))
            ):
                problems.append((seed, method, path, query, headers, answer.status_code, answer.text[:300]))
    assert not problems, problems[:3]
    assert not [line for line in lines if line["log_level"] in ("error", "warning")], lines[:3]
    assert SECONDS or ({200, 404, 405, 422} <= answers.keys() and sum(answers.values()) > 300), answers
    await check_invariants(site.shop.ctx)


async def test_the_claim_form_sets_no_address_by_chance(site: Site) -> None:
    """Nothing but our own token with a right address and the confirmation does; and only one address ever."""
    for seed in seeds(200):
        chance = random.Random(seed)
        body, kind = _odd_form(chance, site)
        path = f"/r/{site.refund.id}/{chance.choice(('check', 'confirm'))}"
        answer = await site.http.post(path, content=body, headers={"content-type": kind})
        assert answer.status_code in (200, 303, 400, 404, 413, 422), (
            seed,
            answer.status_code,
            answer.text[:200],
        )
        assert answer.headers["content-security-policy"]
    async with site.shop.database.connection() as connection:
        assert await connection.fetchval("SELECT address FROM refunds WHERE id = $1", site.refund.id) is None
    sent = {"token": site.token, "address": ADDRESS, "sure": "yes"}
    assert (await site.http.post(f"/r/{site.refund.id}/confirm", data=sent)).status_code == 303
    async with site.shop.database.connection() as connection:
        stored = await connection.fetchval("SELECT address FROM refunds WHERE id = $1", site.refund.id)
    assert stored == ADDRESS.lower()


async def test_a_stream_asked_for_in_odd_ways(site: Site) -> None:
    """The customer's stream begins with the state now, whatever was seen last; and there is none of what is not."""
    begun = 0
    for seed in seeds(60):
        chance = random.Random(seed)
        path = f"/i/{site.invoice.id}/events"
        path = _odd_path(chance, path) if chance.random() < 0.3 else path
        headers = [
            (b"last-event-id", chance.choice(VALUES).encode("latin-1")),
            (b"accept", b"text/event-stream"),
        ]
        try:
            url = httpx.URL(str(site.http.base_url).rstrip("/") + path + "?" + _odd_query(chance, site))
            async with site.http.stream("GET", url, headers=headers) as answer:
                assert answer.status_code in (200, 400, 404), (seed, path, answer.status_code)
                if answer.headers["content-type"].startswith("text/event-stream"):
                    async with asyncio.timeout(20):
                        first = await anext(answer.aiter_text())
                    assert first.startswith(("event: invoice", "retry:", "id:", "data:")), (seed, first[:80])
                    begun += 1
        except (httpx.InvalidURL, httpx.LocalProtocolError):
            continue
    assert SECONDS or begun > 20


async def test_bytes_that_are_hardly_a_request(site: Site) -> None:
    """Requests that no library would send: the server answers 4xx or closes, and serves the next as before."""
    host, port = site.http.base_url.host, site.http.base_url.port
    assert port is not None
    lines = (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%00 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00",
        b"POST /v1/invoices HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /v1/invoices HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/invoices HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        b"POST /v1/invoices HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nCookie: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\n A: b\r\n\r\n",
        b"GET /\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nExpect: 200-maybe\r\n\r\n",
        b"get / http/1.1\r\n\r\n",
    )
    for line in lines:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(line)
            writer.write_eof()
            async with asyncio.timeout(20):
                answer = await reader.read(4_096)
        except ConnectionError:
            answer = b""
        finally:
            writer.close()
        status = answer.split(b" ")[1:2]
        assert not answer or b"200" <= status[0] < b"500", (line[:60], answer[:200])
        assert b"Traceback" not in answer
    assert (await site.http.get("/healthz")).status_code == 200
