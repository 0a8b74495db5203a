"""What every scenario can ask for: a chain, a token, a shop. The shop checks the whole database at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.anvil import Anvil
from tests.support.evm import Chain
from tests.support.stand import Clock, Stand, evm_network, open_stand


@pytest.fixture
async def chain(anvil: Anvil) -> AsyncIterator[Chain]:
    """The chain behind the shop."""
    async with Chain(anvil.url, anvil.chain_id) as helper:
        yield helper


@pytest.fixture
async def token(chain: Chain) -> str:
    """A six-decimals token that the shop accepts as DUSD."""
    return await chain.deploy_token()


@pytest.fixture
async def stand(database_url: str, chain: Chain, token: str) -> AsyncIterator[Stand]:
    """A shop that takes ETH and DUSD after three confirmations."""
    async with open_stand(
        database_url, (evm_network("local", chain.chain_id, token=token), chain.url)
    ) as shop:
        yield shop


@pytest.fixture
async def clock(chain: Chain, token: str) -> Clock:
    """Our clock, standing at the time of the newest block."""
    return Clock.of(await chain.time())


@pytest.fixture
async def timed(database_url: str, chain: Chain, token: str, clock: Clock) -> AsyncIterator[Stand]:
    """The same shop with a clock that stands, so that deadlines are whole seconds. One confirmation is enough."""
    network = evm_network("local", chain.chain_id, token=token, confirmations=1)
    async with open_stand(database_url, (network, chain.url), clock=clock) as shop:
        yield shop
