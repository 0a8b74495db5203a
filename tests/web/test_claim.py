"""The claim page: the customer says where a refund goes, once; nobody without the link sees anything.

Cites R-REFUND 1, F-TOKEN 2. In Chromium: words, pictures, accessibility, without a script; over plain HTTP: tokens,
foreign sites, limits.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, ViewportSize

from tallystick.api.app import create_app
from tallystick.api.limits import MinuteCounter
from tallystick.core.refund import RefundRule, RefundStatus
from tallystick.services import objects, refund_decisions, refunds
from tallystick.services.claim_texts import STATUS_WORDS
from tallystick.services.context import Actor, ActorType
from tallystick.services.refunds import NewRefund
from tallystick.web.checkout import checkout_routes
from tallystick.web.claims import claim_routes
from tallystick.web.stream import InvoiceHub
from tests.support.browser import DESKTOP, PHONE, SMALL_PHONE, Visit, visitor
from tests.support.web_server import serve
from tests.web.shop import USDC, Shop

MERCHANT = Actor(ActorType.MERCHANT, "key_test")
MINE = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"  # an example of EIP-55
OTHER = "0x52908400098527886E0F7030069857D2E4169EE7"  # another one
REQUESTS_PER_MINUTE = 60


@dataclass(slots=True)
class Page:
    """A paid invoice, its refund, and where the customer finds it."""

    shop: Shop
    url: str
    invoice: objects.Invoice
    refund: objects.Refund

    @property
    def token(self) -> str:
        """The link's token."""
        return str(self.refund.claim_url).partition("?token=")[2]

    @property
    def path(self) -> str:
        """The page without its token."""
        return f"{self.url}/r/{self.refund.id}"

    @property
    def link(self) -> str:
        """The link that the customer got."""
        return f"{self.path}?token={self.token}"

    async def do(self, use_case: Any, *arguments: Any) -> objects.Refund:
        """One of the merchant's decisions."""
        async with self.shop.database.transaction() as connection:
            made: objects.Refund = await use_case(
                connection, self.shop.ctx, self.shop.merchant_id, MERCHANT, self.refund.id, *arguments
            )
        return made

    async def now(self) -> objects.Refund:
        """The refund as it stands."""
        async with self.shop.database.connection() as connection:
            return await refunds.get_refund(connection, self.shop.ctx, self.shop.merchant_id, self.refund.id)


async def rows(page: Page, statement: str) -> list[Any]:
    """Whatever a test wants to see of the database."""
    async with page.shop.database.connection() as connection:
        return list(await connection.fetch(statement))


async def ask(shop: Shop, invoice: objects.Invoice, **more: Any) -> objects.Refund:
    """A refund without an address."""
    wanted: dict[str, Any] = {
        "invoice_id": invoice.id,
        "reason": "internal: suspected reseller",
        "rule": RefundRule.RECEIVED,
    }
    async with shop.database.transaction() as connection:
        return await refunds.create_refund(
            connection, shop.ctx, shop.merchant_id, MERCHANT, NewRefund(**(wanted | more))
        )


@pytest.fixture
async def page(shop: Shop) -> AsyncIterator[Page]:
    invoice = await shop.activate(await shop.create())
    await shop.pay(invoice)
    await shop.mine("ethereum", 12)
    refund = await ask(shop, invoice)
    routes = [
        claim_routes(shop.ctx, MinuteCounter(REQUESTS_PER_MINUTE).count),
        checkout_routes(
            shop.ctx, InvoiceHub(shop.ctx)
        ),  # style and sign are served there; nobody watches here
    ]
    async with serve(create_app(shop.ctx, routes=routes)) as url:
        yield Page(shop, url, invoice, refund)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        yield client


async def look(visit: Visit, page: Page, name: str, folder: str, *, axe: bool) -> None:
    """Everything that holds for each state on each screen."""
    assert await visit.overflow_px() <= 0, name
    assert "suspected reseller" not in await visit.page.content()
    await visit.picture(f"claim/{folder}", name, full=True)
    if axe:
        assert await visit.accessibility_problems() == [], name
    assert visit.problems == [], name


@pytest.mark.browser
@pytest.mark.parametrize(
    ("name", "device", "dark", "axe"),
    [
        ("phone", PHONE, False, True),
        ("phone-dark", PHONE, True, True),
        ("small-phone", SMALL_PHONE, False, False),
        ("desktop", DESKTOP, False, True),
    ],
)
async def test_the_customer_gives_an_address_and_follows_the_refund(
    page: Page, browser: Browser, name: str, device: ViewportSize, dark: bool, axe: bool
) -> None:
    """From the link to the money, without a script; a mistyped address is refused in words."""
    async with visitor(browser, device=device, dark=dark, javascript=axe) as visit:
        tab = visit.page
        await tab.goto(page.link)
        assert await tab.inner_text("h1") == "Where should your refund go?"
        assert await tab.input_value("#claim-address") == ""  # never prefilled
        await look(visit, page, "1-form", name, axe=axe)
        visit.problems.clear()
        await tab.fill("#claim-address", MINE.replace("c5d359", "c5d358"))
        await tab.click("button")
        assert "typing error" in await tab.inner_text("[role=alert]")
        assert [found for found in visit.problems if "422" not in found] == []
        visit.problems.clear()
        await look(visit, page, "2-mistyped", name, axe=axe)
        await tab.fill("#claim-address", f"  {MINE.lower()} ")
        await tab.click("button")
        assert await tab.inner_text("h1") == "Is this your address?"
        assert MINE in await tab.inner_text("main")
        await look(visit, page, "3-compare", name, axe=axe)
        await tab.check("[name=sure]")
        await tab.click("button")
        assert await tab.inner_text("h1") == "Address saved"
        await look(visit, page, "4-saved", name, axe=axe)
        refund = await page.now()
        assert (refund.address, refund.address_source, refund.status) == (MINE, "customer", "requested")
        await page.do(refund_decisions.approve_refund)
        await tab.click("text=Look again")
        assert await tab.inner_text("h1") == "Refund approved"
        units = 49 * 10**6
        await page.shop.block("ethereum", to=MINE.lower(), contract=USDC.contract, amount=units)
        await page.shop.mine("ethereum", 4)
        await tab.reload()
        assert await tab.inner_text("h1") == "Arriving"
        assert "5 of 12 confirmations" in await tab.inner_text("main")
        await look(visit, page, "5-arriving", name, axe=axe)
        await page.shop.mine("ethereum", 7)
        await tab.reload()
        assert await tab.inner_text("h1") == "Refunded"
        assert str((await page.now()).tx_hash) in await tab.inner_text("main")
        await look(visit, page, "6-refunded", name, axe=axe)


@pytest.mark.browser
async def test_the_senders_address_is_warned_of(page: Page, browser: Browser) -> None:
    """It may belong to an exchange. It is not forbidden: a person's own wallet sends, too."""
    (row,) = await rows(page, "SELECT DISTINCT sender FROM transfers")
    async with visitor(browser, device=PHONE) as visit:
        await visit.page.goto(page.link)
        await visit.page.fill("#claim-address", row["sender"])
        await visit.page.click("button")
        assert "the address that your payment came from" in await visit.page.inner_text(".warning.strong")
        await look(visit, page, "sender", "phone", axe=True)


def test_every_status_has_words() -> None:
    assert set(STATUS_WORDS) == set(RefundStatus)


def form(page: Page, address: str, **more: str) -> dict[str, str]:
    """What the forms send."""
    return {"token": page.token, "address": address, **more}


async def confirm(http: httpx.AsyncClient, page: Page, address: str, **more: str) -> httpx.Response:
    """The second form."""
    return await http.post(f"{page.path}/confirm", data=form(page, address, sure="yes", **more))


async def test_the_link_sets_the_address_once(page: Page, http: httpx.AsyncClient) -> None:
    """Afterwards it only looks; a second confirmation changes nothing, also one that was opened before.

    Bug planted: `_asks` without the address (the second confirmation takes the refund elsewhere).
    """
    done = await confirm(http, page, MINE)
    assert (done.status_code, done.headers["location"]) == (303, page.link.removeprefix(page.url))
    assert (await confirm(http, page, MINE)).status_code == 303
    assert (await confirm(http, page, OTHER)).status_code == 303
    assert (await http.post(f"{page.path}/check", data=form(page, OTHER))).status_code == 303
    assert (await page.now()).address == MINE
    shown = await http.get(page.link)
    assert "Address saved" in shown.text
    assert "<form" not in shown.text


async def test_without_the_right_link_there_is_nothing(page: Page, http: httpx.AsyncClient) -> None:
    """No token, a wrong one, another refund's, one that a newer link replaced: the same page, and it says nothing."""
    nobody = await http.get(f"{page.url}/r/rfd_{'0' * 26}?token={page.token}")
    wrong = [
        await http.get(page.path),
        await http.get(f"{page.path}?token="),
        await http.get(f"{page.path}?token={'a' * 32}"),
        await http.get(f"{page.path}?token={'a' * 3000}"),
        await http.get(f"{page.path}?token=%F0%28%8C%BC"),
        await http.get(f"{page.url}/r/none?token={page.token}"),
        await http.post(f"{page.path}/confirm", data={"token": "a" * 32, "address": MINE, "sure": "yes"}),
        await http.post(f"{page.path}/check", data={"address": MINE}),
        await http.post(f"{page.path}/check", content=b"\xff\xfe"),
    ]
    assert {answer.status_code for answer in [nobody, *wrong]} == {404}
    assert {answer.text for answer in wrong} == {nobody.text}
    async with page.shop.database.transaction() as connection:
        newer = await refund_decisions.new_claim_link(
            connection, page.shop.ctx, page.shop.merchant_id, MERCHANT, page.refund.id
        )
    assert (await confirm(http, page, MINE)).status_code == 404
    assert (await page.now()).address is None
    page.refund = newer
    assert (await confirm(http, page, MINE)).status_code == 303
    assert (await page.now()).address == MINE


async def test_only_the_hash_of_the_token_is_stored(page: Page) -> None:
    """160 random bits; neither refunds nor events hold them.

    Bug planted: the token stored as it is.
    """
    assert len(page.token) == 32
    statement = "SELECT claim_token_hash AS hash, r::text AS text FROM refunds AS r"
    (stored,) = await rows(page, statement)
    assert stored["hash"] == hashlib.sha256(page.token.encode()).digest()
    events = await rows(page, "SELECT e.body::text AS text FROM events AS e WHERE object_id LIKE 'rfd_%'")
    assert events
    for row in [stored, *events]:
        assert page.token not in row["text"]
        assert page.token.encode().hex() not in row["text"]


async def test_the_link_ends(page: Page, http: httpx.AsyncClient) -> None:
    """After seven days it sets nothing any more, and says what to do."""
    page.shop.now = page.shop.now.replace(year=page.shop.now.year + 1)
    assert "This link has expired" in (await http.get(page.link)).text
    await confirm(http, page, MINE)
    assert (await page.now()).address is None


async def test_the_box_has_to_be_ticked(page: Page, http: httpx.AsyncClient) -> None:
    answer = await http.post(f"{page.path}/confirm", data=form(page, MINE))
    assert answer.status_code == 422
    assert "tick the box" in answer.text
    assert (await page.now()).address is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "0x12",
        "0x" + "0" * 40,
        "<script>alert(1)</script>",
        "javascript:alert(1)",
        "0x" + "1" * 5000,
        str(USDC.contract),
    ],
)
async def test_no_address_that_would_lose_the_money(
    page: Page, http: httpx.AsyncClient, address: str
) -> None:
    """Refused on both forms, and shown escaped."""
    for action in ("check", "confirm"):
        answer = await http.post(f"{page.path}/{action}", data=form(page, address, sure="yes"))
        assert answer.status_code == 422
        assert "<script>" not in answer.text
    assert (await page.now()).address is None


async def test_no_issued_address(page: Page, http: httpx.AsyncClient) -> None:
    issued = str(page.invoice.payment_options[0].address)
    answer = await confirm(http, page, issued)
    assert answer.status_code == 422
    assert "issued to receive payments" in answer.text


async def test_a_foreign_site_cannot_send_the_form(page: Page, http: httpx.AsyncClient) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        answer = await http.post(f"{page.path}/confirm", data=form(page, MINE, sure="yes"), headers=headers)
        assert answer.status_code == 403
    assert (await page.now()).address is None


async def test_a_form_that_no_page_of_ours_sends(page: Page, http: httpx.AsyncClient) -> None:
    """Parts, files, other encodings, bytes that are no text: nothing is set, and the server has no fault to report.

    Found by hand: a part that is no UTF-8 was a 500 with a stack trace in the log, before the token was looked at.
    """
    part = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    fields = {b"token": page.token.encode(), b"address": MINE.encode(), b"sure": b"yes"}
    whole = b"".join(part % pair for pair in fields.items()) + b"--x--\r\n"
    parts = "multipart/form-data; boundary=x"
    words = "application/x-www-form-urlencoded"
    bodies = [
        (parts, part % (b"token", b"\xff\xfe") + b"--x--\r\n"),
        (parts, whole),
        (parts, b"--x\r\nbroken"),
        ("multipart/form-data", whole),
        ("application/json", b"{}"),
        ("", b"token=1"),
        (words, b"\xff=\xfe&token=%ff"),
        (words, b"a" * 300_000),
    ]
    for kind, body in bodies:
        for action in ("check", "confirm"):
            answer = await http.post(f"{page.path}/{action}", content=body, headers={"Content-Type": kind})
            assert 400 <= answer.status_code < 500, (kind, body[:40], answer.status_code)
    assert (await page.now()).address is None


async def test_the_page_is_sealed(page: Page, http: httpx.AsyncClient) -> None:
    """No script at all, no frame, nothing kept, nothing told to other sites."""
    answer = await http.get(page.link)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert "<script" not in answer.text


async def test_asking_often_is_slowed_down(page: Page, http: httpx.AsyncClient) -> None:
    answers = [await http.get(f"{page.path}?token={number}") for number in range(REQUESTS_PER_MINUTE + 2)]
    # The counter may begin anew when a minute ends meanwhile; then the second half is still within the limit.
    statuses = [answer.status_code for answer in answers]
    more = [] if 429 in statuses else [await http.get(page.path) for _ in range(REQUESTS_PER_MINUTE + 1)]
    slowed = [answer for answer in [*answers, *more] if answer.status_code == 429]
    assert slowed
    assert int(slowed[0].headers["retry-after"]) >= 1
