"""Every status on every kind of screen: right words, nothing broken, and a picture to look at."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, ViewportSize

from tallystick.core.invoice import Status
from tallystick.services.checkout_texts import STATUS_WORDS
from tests.support.browser import DESKTOP, PHONE, SMALL_PHONE, visitor
from tests.web.conftest import Checkout

pytestmark = pytest.mark.browser

# What api.md promises that the customer sees, in the page's own words.
SEES = {
    Status.CREATED: "Preparing your payment",
    Status.QUOTED: "Choose how to pay",
    Status.AWAITING_PAYMENT: "Waiting for your payment",
    Status.DETECTED: "Payment seen",
    Status.PARTIALLY_PAID: "Part received, send the rest",
    Status.CONFIRMING: "Confirming 5 of 12",
    Status.PAID: "Payment complete",
    Status.OVERPAID: "Payment complete",
    Status.UNDERPAID: "Part received, contact us",
    Status.EXPIRED: "Expired",
    Status.LATE_PAID: "Received late, being reviewed",
    Status.REVIEW_REQUIRED: "Being reviewed",
    Status.DISPUTED: "Being reviewed",
    Status.SETTLED: "Payment complete",
    Status.REFUNDED: "Refunded",
    Status.CANCELED: "Canceled",
}


@pytest.mark.parametrize(
    ("name", "device", "dark", "javascript", "axe"),
    [
        ("phone", PHONE, False, True, True),
        ("phone-dark", PHONE, True, True, True),
        ("small-phone", SMALL_PHONE, False, True, False),
        ("desktop", DESKTOP, False, True, True),
        ("desktop-dark", DESKTOP, True, True, False),
        ("phone-without-script", PHONE, False, False, False),
    ],
)
async def test_every_status_shows_its_words(
    checkout: Checkout,
    browser: Browser,
    name: str,
    device: ViewportSize,
    dark: bool,
    javascript: bool,
    axe: bool,
) -> None:
    async with visitor(browser, device=device, dark=dark, javascript=javascript) as visit:
        for status in Status:
            invoice = await checkout.shop.in_status(status)
            await visit.page.goto(checkout.page(invoice))
            if javascript:
                await visit.page.wait_for_selector("body[data-live]")
            assert await visit.page.inner_text("h1") == SEES[status]
            assert await visit.page.get_attribute("body", "data-phase") == STATUS_WORDS[status].phase.value
            assert "built-in" not in await visit.page.content()
            assert await visit.overflow_px() <= 0, f"{status} is wider than the screen"
            await visit.picture(f"checkout/{name}", status.value, full=True)
            if axe:
                assert await visit.accessibility_problems() == [], status
            assert visit.problems == [], status


async def test_paying_needs_no_scrolling_on_a_phone(checkout: Checkout, browser: Browser) -> None:
    invoice = await checkout.shop.in_status(Status.AWAITING_PAYMENT)
    async with visitor(browser, device=PHONE) as visit:
        await visit.page.goto(checkout.page(invoice))
        assert await visit.scroll_px() <= 0
