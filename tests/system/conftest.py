"""What the tests of a whole installation have in common: a chain that mines on demand, and a shop that runs.

Holds true: the shop is a real `tallystick up`; whatever the test left of it is killed at the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tallystick.db.embedded import temporary_data_folder
from tests.support.anvil import start_anvil, unique_chain_id
from tests.support.evm import Chain
from tests.support.installation import Installation, NodeAt

CONFIRMATIONS = 3


@pytest.fixture
async def chain() -> AsyncIterator[Chain]:
    """A chain that mines on demand."""
    async with start_anvil(chain_id=unique_chain_id()) as anvil, Chain(anvil.url, anvil.chain_id) as helper:
        yield helper


@pytest.fixture
async def shop(chain: Chain, request: pytest.FixtureRequest) -> AsyncIterator[Installation]:
    """A running installation with a merchant. The module's CONFIRMATIONS are what its network asks for."""
    token = await chain.deploy_token()
    confirmations = getattr(request.module, "CONFIRMATIONS", CONFIRMATIONS)
    with temporary_data_folder("tallystick-system-") as folder:
        node = NodeAt("local", chain.chain_id, chain.url, token, confirmations=confirmations)
        installation = Installation(folder, [node])
        await installation.start()
        try:
            await installation.open_shop()
            yield installation
        finally:
            if installation.process is not None:
                await installation.kill()
