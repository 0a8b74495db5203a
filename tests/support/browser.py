"""A real Chromium for tests, and a visitor who notices what goes wrong on a page.

For: tests of pages and whole-payment scenarios.

    async with chromium() as browser, visitor(browser, device=PHONE) as page_visit:
        await page_visit.page.goto(url)
        assert page_visit.problems == []

Holds true: the browser never leaves the machine; console errors, script errors, policy violations, failed requests and
requests to other hosts are collected in `Visit.problems`. Pictures go to the git-ignored folder `test-results`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    Response,
    ViewportSize,
    async_playwright,
)

EXECUTABLE: Final = os.environ.get("TALLYSTICK_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PICTURES: Final = Path(__file__).parents[2] / "test-results"
WANTED: Final = os.environ.get("TALLYSTICK_PICTURES", "") not in {"", "0"}

PHONE: Final = ViewportSize(width=360, height=740)
SMALL_PHONE: Final = ViewportSize(width=320, height=568)
DESKTOP: Final = ViewportSize(width=1280, height=800)

SERIOUS: Final = frozenset({"serious", "critical"})


@dataclass(slots=True)
class Visit:
    """One page of one visitor."""

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    async def picture(self, folder: str, name: str, *, full: bool = False) -> Path:
        """Save what the visitor sees under `test-results/<folder>/<name>.png`, where pictures are wanted.

        `make pictures` wants them: they are for people to look at, and take as long as everything that is checked.
        """
        path = PICTURES / folder / f"{name}.png"
        if not WANTED:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=path, full_page=full)
        return path

    async def accessibility_problems(self) -> list[str]:
        """What axe calls serious or critical on the page as it stands."""
        results = await Axe().run(self.page)
        return [
            f"{found['id']}: {found['help']} at {[node['target'] for node in found['nodes']]}"
            for found in results.response["violations"]
            if found["impact"] in SERIOUS
        ]

    async def code_drawn(self) -> None:
        """Wait until the QR code is loaded; fails if broken. (The policy forbids Playwright to poll.)"""
        await self.page.locator("#qr").evaluate("image => image.decode()")

    async def overflow_px(self) -> int:
        """How far the page is wider than the screen."""
        script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(await self.page.evaluate(script))

    async def scroll_px(self) -> int:
        """How far the page is higher than the screen."""
        script = "document.documentElement.scrollHeight - document.documentElement.clientHeight"
        return int(await self.page.evaluate(script))

    async def finished_weight(self) -> int:
        """Bytes of all finished bodies so far, compressed as they were sent."""
        entries: Any = await self.page.evaluate(
            "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
            ".map((entry) => entry.encodedBodySize)"
        )
        return sum(int(entry) for entry in entries)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser for the length of the block."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=EXECUTABLE, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def visitor(
    browser: Browser,
    *,
    device: ViewportSize = PHONE,
    dark: bool = False,
    javascript: bool = True,
    reduced_motion: bool = True,
) -> AsyncIterator[Visit]:
    """A visitor with a clean profile. Clipboard access is granted, as after a person's click."""
    context = await browser.new_context(
        viewport=device,
        color_scheme="dark" if dark else "light",
        java_script_enabled=javascript,
        reduced_motion="reduce" if reduced_motion else "no-preference",
        permissions=["clipboard-read", "clipboard-write"],
        locale="en-GB",
    )
    try:
        visit = Visit(await context.new_page())
        _watch(visit)
        yield visit
    finally:
        await context.close()


def _watch(visit: Visit) -> None:
    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            visit.problems.append(f"console {message.type}: {message.text}")

    def on_request(request: Request) -> None:
        visit.requests.append(request.url)
        if urlsplit(request.url).hostname not in ("127.0.0.1", "localhost"):
            visit.problems.append(f"request to another host: {request.url}")

    def on_failed(request: Request) -> None:
        # What the visitor's own reload or the page's own change gave up did not fail.
        if "ERR_ABORTED" not in (request.failure or ""):
            visit.problems.append(f"request failed: {request.url} {request.failure}")

    def on_response(response: Response) -> None:
        if response.status >= 400:
            visit.problems.append(f"answer {response.status}: {response.url}")

    visit.page.on("console", on_console)
    visit.page.on("pageerror", lambda error: visit.problems.append(f"script error: {error}"))
    visit.page.on("request", on_request)
    visit.page.on("requestfailed", on_failed)
    visit.page.on("response", on_response)
