"""Chains for the tests of sources."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.anvil import Anvil
from tests.support.evm import Chain


@pytest.fixture
async def chain(anvil: Anvil) -> AsyncIterator[Chain]:
    """A local EVM chain under control, which mines on demand."""
    async with Chain(anvil.url, anvil.chain_id) as chain:
        yield chain
