"""Every situation on every kind of screen: right words, nothing broken, and a picture to look at."""

from __future__ import annotations

from typing import Final, Literal

import pytest
from playwright.async_api import Browser, ViewportSize

from tallystick.core.invoice import Status
from tallystick.services.checkout_words import WORDS
from tests.support.browser import DESKTOP, SMALL_PHONE, visitor
from tests.support.browser import PHONE as LOW_PHONE
from tests.web.conftest import Checkout
from tests.web.scenes import SCENES, in_status

pytestmark = pytest.mark.browser

PHONE: Final = ViewportSize(width=390, height=844)
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")

# What the public contract promises that the customer sees, in the page's own words.
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
    Status.REVIEW_REQUIRED: "Another coin arrived, being reviewed",
    Status.DISPUTED: "A question is open, being reviewed",
    Status.SETTLED: "Payment complete",
    Status.REFUNDED: "Refunded",
    Status.CANCELED: "Canceled",
}


@pytest.mark.parametrize(("name", "device"), [("phone", PHONE), ("desktop", DESKTOP)])
async def test_every_situation_is_readable(
    checkout: Checkout, browser: Browser, name: str, device: ViewportSize
) -> None:
    """In light and in dark: nothing is cut off, and whoever cannot see it well can use it all the same."""
    async with visitor(browser, device=device) as visit:
        for number, (situation, scene) in enumerate(SCENES.items()):
            invoice = await scene(checkout.shop)
            await visit.page.goto(checkout.page(invoice))
            await visit.page.wait_for_selector("body[data-live]")
            assert await visit.page.get_attribute("body", "data-phase") == WORDS[situation].phase.value
            assert "secret" not in await visit.page.content()
            for scheme in SCHEMES:
                await visit.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                assert await visit.overflow_px() <= 0, f"{situation} is wider than the screen"
                await visit.picture(f"checkout/{name}-{scheme}", situation.value, full=True)
                # Every situation on a phone, and some in the dark: axe takes longer than all the rest.
                if scheme == "light" if device is PHONE else scheme == "dark" and number % 4 == 0:
                    assert await visit.accessibility_problems() == [], situation
            assert visit.problems == [], situation


@pytest.mark.parametrize(
    ("name", "device", "javascript"),
    [("small-phone", SMALL_PHONE, True), ("phone-without-script", PHONE, False)],
)
async def test_every_status_shows_its_words(
    checkout: Checkout, browser: Browser, name: str, device: ViewportSize, javascript: bool
) -> None:
    async with visitor(browser, device=device, javascript=javascript) as visit:
        for status in Status:
            invoice = await in_status(checkout.shop, status)
            await visit.page.goto(checkout.page(invoice))
            if javascript:
                await visit.page.wait_for_selector("body[data-live]")
            assert await visit.page.inner_text("h1") == SEES[status]
            assert "built-in" not in await visit.page.content()
            assert await visit.overflow_px() <= 0, f"{status} is wider than the screen"
            await visit.picture(f"checkout/{name}", status.value, full=True)
            assert visit.problems == [], status


async def test_paying_needs_no_scrolling_on_a_phone(checkout: Checkout, browser: Browser) -> None:
    invoice = await in_status(checkout.shop, Status.AWAITING_PAYMENT)
    async with visitor(browser, device=LOW_PHONE) as visit:
        await visit.page.goto(checkout.page(invoice))
        assert await visit.scroll_px() <= 0
