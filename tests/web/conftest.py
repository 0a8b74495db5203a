"""A shop with its checkout pages on a port, and a browser to visit them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from playwright.async_api import Browser

from tallystick.api.app import create_app
from tallystick.services import objects
from tallystick.web.checkout import checkout_routes
from tallystick.web.stream import InvoiceHub, StreamLimits
from tests.support.browser import chromium
from tests.support.web_server import serve
from tests.web.shop import Shop, open_shop

LIMITS = StreamLimits(streams_max=20, streams_per_address_max=10, heartbeat_seconds=0.5, reread_seconds=1.0)


@dataclass(slots=True)
class Checkout:
    """The shop, the hub behind its streams, and where its pages are."""

    shop: Shop
    hub: InvoiceHub
    url: str

    def page(self, invoice: objects.Invoice, query: str = "") -> str:
        """The address of an invoice's page."""
        return f"{self.url}/i/{invoice.id}{query}"


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as opened:
        yield opened


@pytest.fixture
async def checkout(shop: Shop) -> AsyncIterator[Checkout]:
    hub = InvoiceHub(shop.ctx, limits=LIMITS)
    app = create_app(shop.ctx, routes=[checkout_routes(shop.ctx, hub)])
    async with hub.running(), serve(app, before_stop=hub.close) as url:
        yield Checkout(shop, hub, url)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened
