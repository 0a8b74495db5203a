"""A served API and a merchant of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.app import Api, Client, Merchant, running_api


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    """The API on a database of its own."""
    async with running_api(database_url) as served:
        yield served


@pytest.fixture
async def merchant(api: Api) -> Merchant:
    """A merchant with a wallet."""
    return await api.merchant()


@pytest.fixture
def client(api: Api, merchant: Merchant) -> Client:
    """That merchant's client."""
    return api.client(merchant.key)
