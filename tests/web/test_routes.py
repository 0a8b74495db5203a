"""The routes over HTTP: headers, choosing, refusing, caching, escaping, and what they cost."""

from __future__ import annotations

import html
import re
import statistics
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tallystick.core.invoice import Status
from tallystick.services import objects
from tallystick.services.networks import halt
from tallystick.web import assets
from tallystick.web.checkout import clock_text
from tallystick.web.qr import qr_svg
from tests.web.conftest import Checkout

UNKNOWN = "inv_" + "0" * 26
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE invoices; --",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe",
    "A" * 190,
    "ʥɯƃ ℌ𝔢𝔩𝔩𝔬 👩‍👩‍👧‍👦 مرحبا",
]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def choose_url(checkout: Checkout, invoice: objects.Invoice, place: int = 0) -> str:
    return checkout.page(invoice, f"/options/{invoice.payment_options[place].id}")


async def test_the_page_carries_a_strict_policy(checkout: Checkout, http: aiohttp.ClientSession) -> None:
    invoice = await checkout.shop.create()
    async with http.get(checkout.page(invoice)) as answer:
        body = await answer.text()
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.content_type == "text/html"
    assert not re.search(r"\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", body)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//(?!shop\.example)", body)


@pytest.mark.parametrize("path", [UNKNOWN, "inv_nonsense", "x", "inv_%00", "opt_" + "0" * 26])
async def test_unknown_invoices_get_a_friendly_page(
    checkout: Checkout, http: aiohttp.ClientSession, path: str
) -> None:
    for suffix in ("", "/events"):
        async with http.get(f"{checkout.url}/i/{path}{suffix}") as answer:
            assert answer.status == 404
            assert answer.content_type == "text/html"
            assert "No such payment" in await answer.text()
            assert "Content-Security-Policy" in answer.headers


async def test_choosing_issues_one_address_however_often(
    checkout: Checkout, http: aiohttp.ClientSession
) -> None:
    invoice = await checkout.shop.create()
    seen = set()
    location = ""
    for _ in range(3):
        async with http.post(choose_url(checkout, invoice), allow_redirects=False) as answer:
            assert answer.status == 303
            location = answer.headers["Location"]
        async with http.get(checkout.url + location) as page:
            seen.update(re.findall(r"ethereum:0x[0-9a-fA-F]{40}@1[^\"]*", await page.text()))
    assert location == f"/i/{invoice.id}?option={invoice.payment_options[0].id}"
    assert len(seen) == 1
    async with checkout.shop.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM addresses") == 1
        actor = await connection.fetchval(
            "SELECT actor_type FROM transitions WHERE invoice_id = $1 AND to_status = 'awaiting_payment'",
            invoice.id,
        )
    assert actor == "customer"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "none"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8420"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8420"}, 303),
        ({}, 303),
    ],
)
async def test_another_site_cannot_choose(
    checkout: Checkout, http: aiohttp.ClientSession, headers: dict[str, str], status: int
) -> None:
    invoice = await checkout.shop.create()
    async with http.post(choose_url(checkout, invoice), headers=headers, allow_redirects=False) as answer:
        assert answer.status == status
    expected = Status.AWAITING_PAYMENT if status == 303 else Status.QUOTED
    assert await checkout.shop.status(invoice) == expected.value


async def test_an_option_of_another_invoice_is_not_found(
    checkout: Checkout, http: aiohttp.ClientSession
) -> None:
    mine, other = await checkout.shop.create(), await checkout.shop.create()
    for option_id in (other.payment_options[0].id, "opt_" + "0" * 26, "nonsense"):
        async with http.post(checkout.page(mine, f"/options/{option_id}"), allow_redirects=False) as answer:
            assert answer.status == 404
    assert await checkout.shop.status(mine) == "quoted"
    assert await checkout.shop.status(other) == "quoted"


async def test_a_network_in_trouble_is_said_in_words(checkout: Checkout, http: aiohttp.ClientSession) -> None:
    invoice = await checkout.shop.create()
    async with checkout.shop.database.transaction() as connection:
        await halt(connection, checkout.shop.ctx, "ethereum", "two nodes disagree")
    async with http.post(choose_url(checkout, invoice)) as answer:
        assert answer.status == 200
        assert "This network cannot be used just now" in await answer.text()
    assert await checkout.shop.status(invoice) == "quoted"


async def test_choosing_after_the_end_shows_how_things_stand(
    checkout: Checkout, http: aiohttp.ClientSession
) -> None:
    invoice = await checkout.shop.create()
    await checkout.shop.pass_time(901)
    async with http.post(choose_url(checkout, invoice)) as answer:
        body = await answer.text()
    assert answer.status == 200
    assert "can no longer be chosen" in body
    assert "The time to pay is over" in body


async def test_unknown_query_values_do_no_harm(checkout: Checkout, http: aiohttp.ClientSession) -> None:
    invoice = await checkout.shop.create()
    async with http.get(checkout.page(invoice, "?notice=<b>&option=%22x&utm_source=y")) as answer:
        assert answer.status == 200
        assert 'role="alert"' not in await answer.text()


async def test_the_code_is_the_payment_request(checkout: Checkout, http: aiohttp.ClientSession) -> None:
    invoice = await checkout.shop.activate(await checkout.shop.create())
    option = invoice.payment_options[0]
    assert option.uri is not None
    url = checkout.page(invoice, f"/options/{option.id}/qr.svg")
    async with http.get(f"{url}?v={option.amount_due}") as answer:
        assert await answer.read() == qr_svg(option.uri)
        assert answer.content_type == "image/svg+xml"
        assert "max-age" in answer.headers["Cache-Control"]
    async with http.get(f"{url}?v=1") as stale:
        assert stale.headers["Cache-Control"] == "no-store"
    await checkout.shop.pay(invoice, "0.4")
    async with http.get(url) as rest:
        assert await rest.read() != qr_svg(option.uri)
    await checkout.shop.pay(invoice, "0.6")
    async with http.get(url) as finished:
        assert finished.status == 404


async def test_files_are_named_by_content_and_kept_for_good(
    checkout: Checkout, http: aiohttp.ClientSession
) -> None:
    for asset in assets.assets().values():
        async with http.get(checkout.url + asset.path) as answer:
            assert await answer.read() == asset.content
            assert answer.headers["Content-Encoding"] == "gzip"
            assert "immutable" in answer.headers["Cache-Control"]
        async with http.get(checkout.url + asset.path, headers={"Accept-Encoding": "identity"}) as plain:
            assert await plain.read() == asset.content
    for name in ("checkout.css", "..%2f__init__.py", "nothing.js"):
        async with http.get(f"{checkout.url}{assets.PREFIX}/{name}") as answer:
            assert answer.status == 404


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_text_stays_text(checkout: Checkout, http: aiohttp.ClientSession, text: str) -> None:
    merchant_id = await checkout.shop.merchant(text)
    invoice = await checkout.shop.create(merchant_id=merchant_id, order_id=text)
    async with http.get(checkout.page(invoice)) as answer:
        body = await answer.text()
    assert answer.status == 200
    assert html.escape(text, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in body
    for raw in ("<script>alert", "<img src=x"):
        assert raw not in body


async def test_nothing_internal_is_in_the_page(checkout: Checkout, http: aiohttp.ClientSession) -> None:
    invoice = await checkout.shop.activate(await checkout.shop.create())
    async with http.get(checkout.page(invoice)) as answer:
        body = await answer.text()
    for secret in ("margin", "customer.example", checkout.shop.merchant_id, "wal_", "thanks"):
        assert secret not in body


async def test_a_failed_choice_leaves_nothing_behind(checkout: Checkout, http: aiohttp.ClientSession) -> None:
    invoice = await checkout.shop.create()
    async with http.get(choose_url(checkout, invoice)) as wrong_method:
        assert wrong_method.status == 405
    async with http.post(checkout.page(invoice)) as wrong_place:
        assert wrong_place.status == 405
    assert await checkout.shop.status(invoice) == "quoted"


async def test_without_a_database_the_page_says_so(checkout: Checkout, http: aiohttp.ClientSession) -> None:
    invoice = await checkout.shop.create()
    checkout.hub.close()  # gives its listening connection back
    await checkout.shop.database.close()
    async with http.get(checkout.page(invoice)) as answer:
        body = await answer.text()
    assert answer.status == 503
    assert "A payment that you sent is not affected" in body
    assert answer.headers["Retry-After"] == "5"


async def test_the_page_is_quick_and_light(checkout: Checkout, http: aiohttp.ClientSession) -> None:
    invoice = await checkout.shop.activate(await checkout.shop.create())
    seconds = []
    body = b""
    for _ in range(30):
        begin = time.perf_counter()
        async with http.get(checkout.page(invoice)) as answer:
            body = await answer.read()
        seconds.append(time.perf_counter() - begin)
    files = sum(len(asset.compressed) for asset in assets.assets().values())
    code = len(qr_svg(invoice.payment_options[0].uri or ""))
    assert len(body) + files + code < 50_000
    assert statistics.median(seconds) < 0.1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (59, "0:59"),
        (900, "15:00"),
        (3600, "1:00:00"),
        (47 * 3600, "47:00:00"),
        (50 * 3600, "2 d 2 h"),
    ],
)
def test_the_clock_reads_as_people_read(seconds: int, text: str) -> None:
    assert clock_text(seconds) == text
