"""One simulated world for the tests of a module: what costs most is making it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tallystick.simulation.world import World
from tests.conftest import another_database


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(postgres_url: str, migrated_template: str) -> AsyncIterator[World]:
    """A world on a database of its own. Its loop is the module's: mark the tests with `loop_scope="module"`."""
    async with another_database(postgres_url, template=migrated_template) as url:
        opened = await World.open(url)
        try:
            yield opened
        finally:
            await opened.database.close()
