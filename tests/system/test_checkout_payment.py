"""A customer pays on the checkout page of an installed server: a real browser, a real chain (F-CHAIN 1, F-HOOK 3).

The page is never reloaded by the test to make it right: two tabs follow by themselves what the chain does, also
through `kill -9` of the whole server and a reorganisation. In every state a reload, and a browser without script, show
the same, once the server has read all there is on the chain: each tab hears of that by itself, one sooner than the
other.
Pictures of every state go to the git-ignored folder `test-results/payment`, in light and dark.
Planted: the stream not opened again after an error; the code kept when the amount changes. Each failed the long test.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, ViewportSize, expect

from tallystick.db.embedded import temporary_data_folder
from tests.support.anvil import start_anvil, unique_chain_id
from tests.support.browser import DESKTOP, PHONE, Visit, chromium, visitor
from tests.support.evm import Chain
from tests.support.installation import Installation, NodeAt
from tests.support.stand import until

# One installation for all of them: starting it takes longer than what is done with it. tests/conftest.py keeps them on
# one worker.
MODULE: Final = "module"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.chain,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope=MODULE),
]

PATIENCE_MS: Final = 30_000  # an upper bound for a busy machine; nothing waits longer than it must
DECIMALS: Final = {"ETH": 18, "DUSD": 6}
PRICE: Final = {"ETH": "0.01", "DUSD": "25"}  # 25.00 USD at the installation's fixed rates
HALF: Final = {"ETH": "0.005", "DUSD": "12.5"}
SHORT_SECONDS: Final = (
    16  # enough on a busy machine to open a page and to see one payment there; then it is waited for
)
# How a browser tells that nobody answered; forgiven only for the time the server was dead.
OUTAGE: Final = "net::ERR_"

expect.set_options(timeout=PATIENCE_MS)


@pytest_asyncio.fixture(scope=MODULE, loop_scope=MODULE)
async def chain() -> AsyncIterator[Chain]:
    """A chain that mines on demand."""
    async with start_anvil(chain_id=unique_chain_id()) as anvil, Chain(anvil.url, anvil.chain_id) as helper:
        yield helper


@pytest_asyncio.fixture(scope=MODULE, loop_scope=MODULE)
async def shop(chain: Chain) -> AsyncIterator[Installation]:
    """A running installation with a merchant. Customers know its network as Ethereum."""
    token = await chain.deploy_token()
    with temporary_data_folder("tallystick-pay-") as folder:
        installation = Installation(folder, [NodeAt("ethereum", chain.chain_id, chain.url, token)])
        await installation.start()
        try:
            await installation.open_shop()
            yield installation
        finally:
            if installation.process is not None:
                await installation.kill()


@pytest_asyncio.fixture(scope=MODULE, loop_scope=MODULE)
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


@dataclass(slots=True)
class Customer:
    """Somebody who pays one invoice, with two tabs open on it, and looks at it without script from time to time."""

    shop: Installation
    still: Visit
    chain: Chain
    token: str
    url: str
    device: ViewportSize
    folder: str
    asset: str
    tabs: dict[str, Visit]
    states: int = 0

    async def sees(self, headline: str, name: str, *, amount: str | None = None) -> None:
        """Both tabs get there by themselves; a reload and a browser without script agree; pictures are taken."""
        self.states += 1
        for scheme, tab in self.tabs.items():
            await expect(tab.page.locator("h1")).to_have_text(headline)
            await expect(tab.page.locator(".pay")).to_be_visible(visible=amount is not None)
            if amount is not None:
                await expect(tab.page.locator("#amount")).to_have_text(amount)
                await tab.code_drawn()
            assert await tab.overflow_px() <= 0
            await tab.picture(f"payment/{self.folder}-{scheme}", f"{self.states:02}-{name}", full=True)
        await self._agrees()
        for tab in self.tabs.values():
            assert tab.problems == []

    async def _agrees(self) -> None:
        """Once the server has read the chain, both tabs get to show what it shows, and a reload shows the same."""
        page = self.tabs["light"].page
        await until_read(self.shop, self.chain)
        await self.still.page.goto(page.url)
        shown = await seen_on(self.still.page)
        await self.still.page.goto("about:blank")  # left open, it would refresh itself at any moment
        assert self.still.problems == []
        for scheme, tab in self.tabs.items():
            await until_shown(tab.page, shown, f"the {scheme} tab stayed behind")
        await page.reload()
        await page.wait_for_selector("body[data-live]")
        assert await seen_on(page) == shown, "a reload shows something else"

    async def pay(self, address: str, amount: str) -> Any:
        """Put a payment into the chain's pool; answer the signed transaction."""
        units = int(Decimal(amount).scaleb(DECIMALS[self.asset]))
        if self.asset == "ETH":
            return await self.chain.send_native(address, units)
        return await self.chain.send_token(self.token, address, units)

    def forgive_outage(self) -> None:
        """Forget what the browser said about a server that was dead, and nothing else."""
        for tab in self.tabs.values():
            tab.problems[:] = [problem for problem in tab.problems if OUTAGE not in problem]


async def until_read(shop: Installation, chain: Chain) -> None:
    """Wait until the server has processed the chain's newest block."""

    async def read() -> bool:
        (network,) = (await shop.get("/v1/networks"))["data"]
        return bool(network["height"] == await chain.height() and network["status"] == "following")

    await until(read, PATIENCE_MS / 1000)


async def until_shown(page: Page, wanted: list[str], complaint: str) -> None:
    """Wait until the page shows this."""
    seen: list[str] = []

    async def shows() -> bool:
        seen[:] = await seen_on(page)
        return seen == wanted

    with contextlib.suppress(TimeoutError):
        await until(shows, PATIENCE_MS / 1000)
    assert seen == wanted, complaint


async def seen_on(page: Page) -> list[str]:
    """The visible words, drawings, links and codes: what every browser must agree on, but for the clock that runs."""
    text = re.sub(r"\d+:\d\d\b", "clock", await page.locator("main").inner_text())
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [line for line in lines if line not in {"Copy", "This page refreshes itself every few seconds."}]
    for selector, attribute in (
        ("#qr", "src"),
        ("#sign", "href"),
        ("#tally .done", "d"),
        ("a.button", "href"),
    ):
        found.append(f"{selector} {await page.locator(selector).first.get_attribute(attribute) or ''}")
    return found


async def invoice_for(shop: Installation, **more: Any) -> dict[str, Any]:
    """An invoice over 25.00 USD that may be paid in two ways."""
    body = {
        "amount": "25.00",
        "currency": "USD",
        "order_id": "1042",
        "success_url": "https://shop.example/thanks",
        "cancel_url": "https://shop.example/basket",
        "accepted": [{"asset": asset, "network": "ethereum"} for asset in ("ETH", "DUSD")],
    }
    made: dict[str, Any] = await shop.post("/v1/invoices", body | more)
    return made


@pytest.mark.parametrize(
    ("folder", "device", "asset"), [("phone", PHONE, "ETH"), ("desktop", DESKTOP, "DUSD")]
)
async def test_a_whole_payment_in_two_tabs_through_a_power_cut_and_a_reorganisation(
    shop: Installation, chain: Chain, browser: Browser, folder: str, device: ViewportSize, asset: str
) -> None:
    invoice = await invoice_for(shop)
    page_url = f"{shop.url}/i/{invoice['id']}"
    async with AsyncExitStack() as stack:
        tabs = {
            scheme: await stack.enter_async_context(visitor(browser, device=device, dark=scheme == "dark"))
            for scheme in ("light", "dark")
        }
        still = await stack.enter_async_context(visitor(browser, device=device, javascript=False))
        customer = Customer(shop, still, chain, shop.networks[0].token, page_url, device, folder, asset, tabs)
        for tab in tabs.values():
            await tab.page.goto(page_url)
            await tab.page.wait_for_selector("body[data-live]")
        await customer.sees("Choose how to pay", "choose")
        address = await _choose(customer)
        await customer.sees("Waiting for your payment", "waiting", amount=PRICE[asset])
        codes = await _codes(customer)

        await customer.pay(address, HALF[asset])
        await chain.mine(3)
        await customer.sees("Part received, send the rest", "partial", amount=HALF[asset])
        assert await tabs["dark"].page.inner_text("#address") == address
        assert not codes & await _codes(customer), "the code still asks for the whole amount"

        rest = await _paid_while_the_server_is_dead(customer, shop, address)
        await customer.sees("Confirming 1 of 3", "confirming-1")
        await chain.mine()
        await customer.sees("Confirming 2 of 3", "confirming-2")

        await chain.reorg(2)  # the block with the rest is gone, the half is deeper and stays
        await customer.sees("The network dropped a payment", "reorganised", amount=HALF[asset])
        assert await tabs["dark"].page.inner_text("#address") == address
        await expect(tabs["dark"].page.locator("#payments li")).to_have_count(2)

        await chain.submit(rest)
        await chain.mine()
        await customer.sees("Confirming 1 of 3", "confirming-again")
        await chain.mine(2)
        await customer.sees("Payment complete", "complete")
        for tab in tabs.values():
            back = tab.page.get_by_role("link", name="Return to Tally & Sons")
            await expect(back).to_have_attribute("href", "https://shop.example/thanks")
            assert await tab.accessibility_problems() == []
    assert (await shop.get(f"/v1/invoices/{invoice['id']}"))["status"] == "paid"


async def _choose(customer: Customer) -> str:
    """One tab chooses with a click, the other follows. Everything a payer needs is there. Answers the address."""
    light, dark = (customer.tabs[scheme].page for scheme in ("light", "dark"))
    await light.get_by_role("button", name=re.compile(f"^{customer.asset} on")).click()
    await expect(light.locator("#address")).to_have_text(re.compile(r"^0x[0-9a-fA-F]{40}$"))
    await light.wait_for_selector("body[data-live]")
    address = await light.inner_text("#address")
    for page in (light, dark):
        await expect(page.locator("#address")).to_have_text(address)
        await expect(page.locator("#clock")).to_have_text(re.compile(r"^1[45]:\d\d$"))
        await expect(page.locator(".warning")).to_contain_text(
            f"Send only {customer.asset} on the Ethereum network."
        )
        await expect(page.locator("#qr")).to_be_visible()
        await expect(page.locator(".choose")).to_be_hidden()
    return address


async def _codes(customer: Customer) -> set[str]:
    """What the codes of both tabs are made from: the address the picture is fetched from, and the wallet link."""
    found = set()
    for tab in customer.tabs.values():
        found.add(await tab.page.get_attribute("#qr", "src") or "")
        found.add(await tab.page.get_attribute("a[data-href='option.uri']", "href") or "")
    return found


async def _paid_while_the_server_is_dead(customer: Customer, shop: Installation, address: str) -> Any:
    """Everything is killed; the rest arrives meanwhile; the page tells of the lost connection, then is right again."""
    await shop.kill()
    rest = await customer.pay(address, HALF[customer.asset])
    await customer.chain.mine()
    for scheme, tab in customer.tabs.items():
        if customer.device is PHONE:  # the notice comes after eight seconds: once is enough to wait for it
            await expect(tab.page.locator("#offline")).to_be_visible()
        await expect(tab.page.locator("#address")).to_have_text(address)  # nothing is taken from the customer
        await tab.picture(
            f"payment/{customer.folder}-{scheme}", f"{customer.states:02}b-server-dead", full=True
        )
    await shop.start()
    for tab in customer.tabs.values():
        await expect(tab.page.locator("h1")).to_have_text("Confirming 1 of 3")
        await expect(tab.page.locator("#offline")).to_be_hidden()
    customer.forgive_outage()
    return rest


async def test_a_part_is_topped_up_or_it_is_told_what_was_missing(
    shop: Installation, chain: Chain, browser: Browser
) -> None:
    """Two customers send a part. One sends the rest, to the same address by the new code; one lets the time run out.

    Planted and seen to fail: the amounts that came left out of the words; the whole amount asked again after a part.
    """
    accepted = [{"asset": "ETH", "network": "ethereum"}]
    async with visitor(browser, device=PHONE) as one, visitor(browser, device=DESKTOP) as other:
        # The short one first: its time runs out while the other customer pays.
        short = await invoice_for(
            shop, accepted=accepted, expires_in=SHORT_SECONDS, order_id="</p><b>1043</b>"
        )
        address = await _part_received(other, shop, chain, short)
        topped = await invoice_for(shop, accepted=accepted)
        assert await _part_received(one, shop, chain, topped) != address
        await chain.send_native(await one.page.inner_text("#address"), int(Decimal("0.006").scaleb(18)))
        await chain.mine(3)
        await expect(one.page.locator("h1")).to_have_text("Payment complete")
        await expect(one.page.locator("#payments li")).to_have_count(2)

        await expect(other.page.locator("h1")).to_have_text("The time to pay is over")
        await expect(other.page.locator(".state")).to_contain_text("Please do not send more now.")
        ends = int(datetime.fromisoformat(short["expires_at"]).timestamp())
        await chain.set_next_time(ends + 2)
        await chain.mine(3)
        await expect(other.page.locator("h1")).to_have_text("Part received, contact us")
        await expect(other.page.locator(".state")).to_contain_text("0.004 ETH came, 0.006 ETH was missing.")
        await expect(other.page.locator(".pay")).to_be_hidden()
        await expect(other.page.locator("#reference")).to_contain_text("</p><b>1043</b>")
        await expect(other.page.locator("#reference")).to_contain_text(short["id"])
        await other.picture("payment/desktop-light", "22-underpaid", full=True)
        for visit in (one, other):
            assert await visit.accessibility_problems() == []
            assert visit.problems == []
    assert (await shop.get(f"/v1/invoices/{topped['id']}"))["status"] == "paid"
    assert (await shop.get(f"/v1/invoices/{short['id']}"))["status"] == "underpaid"


async def _part_received(visit: Visit, shop: Installation, chain: Chain, invoice: dict[str, Any]) -> str:
    """A customer opens the page and sends a part; the page asks for the rest. Answers the address."""
    page = visit.page
    await page.goto(f"{shop.url}/i/{invoice['id']}")
    await page.wait_for_selector("body[data-live]")
    address = await page.inner_text("#address")
    await chain.send_native(address, int(Decimal("0.004").scaleb(18)))
    await chain.mine(3)
    await expect(page.locator("h1")).to_have_text("Part received, send the rest")
    await expect(page.locator(".received")).to_have_text("0.004 ETH of 0.01 ETH received")
    await expect(page.locator("#amount")).to_have_text("0.006")
    await expect(page.locator("#address")).to_have_text(address)
    uri = await page.get_attribute("a[data-href='option.uri']", "href")
    assert uri is not None
    assert uri.endswith("value=6000000000000000")
    return address


async def test_nobody_pays_in_time(shop: Installation, chain: Chain, browser: Browser) -> None:
    """The time runs out on the page while it is open; then the chain is read past it, and the invoice is expired."""
    invoice = await invoice_for(shop, expires_in=10, accepted=[{"asset": "ETH", "network": "ethereum"}])
    page_url = f"{shop.url}/i/{invoice['id']}"
    async with AsyncExitStack() as stack:
        tabs = {
            f"{name}-{'dark' if dark else 'light'}": await stack.enter_async_context(
                visitor(browser, device=device, dark=dark)
            )
            for name, device in (("phone", PHONE), ("desktop", DESKTOP))
            for dark in (False, True)
        }
        for tab in tabs.values():
            await tab.page.goto(page_url)
            await tab.page.wait_for_selector("body[data-live]")
        for name, tab in tabs.items():
            await expect(tab.page.locator("h1")).to_have_text("The time to pay is over")
            await expect(tab.page.locator(".pay")).to_be_hidden()
            await tab.picture(f"payment/{name}", "20-time-up", full=True)
        # A reorganisation before may have left this chain's clock behind ours.
        await chain.set_next_time(int(datetime.fromisoformat(invoice["expires_at"]).timestamp()) + 2)
        await chain.mine(3)
        for name, tab in tabs.items():
            await expect(tab.page.locator("h1")).to_have_text("Expired")
            await expect(tab.page.get_by_role("link", name="Return to Tally & Sons")).to_have_attribute(
                "href", "https://shop.example/basket"
            )
            assert "0x" not in await tab.page.inner_text("main")
            await tab.picture(f"payment/{name}", "21-expired", full=True)
            assert await tab.accessibility_problems() == []
            assert tab.problems == []


async def test_the_reference_is_readable_everywhere(shop: Installation, browser: Browser) -> None:
    """`/docs` and `/docs/errors` as the installed server serves them: nothing cut off, nobody else is asked."""
    for name, device in (("phone", PHONE), ("desktop", DESKTOP)):
        for dark in (False, True):
            async with visitor(browser, device=device, dark=dark) as visit:
                for path in ("docs", "docs/errors"):
                    await visit.page.goto(f"{shop.url}/{path}")
                    assert await visit.overflow_px() <= 0, f"{path} is wider than a {name}"
                    scheme = "dark" if dark else "light"
                    await visit.picture(f"payment/{name}-{scheme}", path.replace("/", "-"))
                    if dark == (
                        device is DESKTOP
                    ):  # each colour and each width once: it is slow on a long page
                        assert await visit.accessibility_problems() == []
                assert visit.problems == []
