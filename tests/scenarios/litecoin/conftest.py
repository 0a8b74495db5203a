"""A litecoind for all tests of a module, and a shop of its own for each of them.

The node goes on from test to test: its chain only grows, each test has its own database and addresses. What a test
needs to be true of the chain it makes true itself. Parallel runs give a module's tests to one worker
(`tests.conftest.TOGETHER`). Modules: mark them with the module's loop, which the node lives on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest_asyncio

from tests.support.lite_shop import LiteShop, open_lite_shop
from tests.support.litecoind import Litecoind, start_litecoind

MODULE: Final = "module"


@pytest_asyncio.fixture(scope=MODULE, loop_scope=MODULE)
async def node() -> AsyncIterator[Litecoind]:
    """A node whose wallet has forty coins to spend, so that no test has to wait for another's change."""
    async with start_litecoind() as litecoind:
        await litecoind.fund(40)
        yield litecoind


@pytest_asyncio.fixture(loop_scope=MODULE)
async def shop(database_url: str, node: Litecoind) -> AsyncIterator[LiteShop]:
    """A shop that takes LTC after three confirmations, and follows the chain through changes of up to 20 blocks."""
    async with open_lite_shop(database_url, node) as opened:
        yield opened
