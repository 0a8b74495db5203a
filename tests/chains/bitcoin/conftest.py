"""A real node for the tests of Bitcoin's family."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.litecoind import Litecoind, start_litecoind


@pytest.fixture
async def litecoind() -> AsyncIterator[Litecoind]:
    """A node with its own regtest chain, whose wallet has coins to spend. It has no index of transactions."""
    async with start_litecoind() as node:
        await node.fund()
        yield node
