"""What every scenario can ask for: a chain, a token, a shop. The shop checks the whole database at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.anvil import Anvil, start_anvil, unique_chain_id
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


@pytest.fixture
async def other() -> AsyncIterator[Chain]:
    """A second chain."""
    async with start_anvil(chain_id=unique_chain_id()) as node, Chain(node.url, node.chain_id) as helper:
        yield helper


@pytest.fixture
async def two(
    database_url: str, chain: Chain, other: Chain, token: str, clock: Clock
) -> AsyncIterator[Stand]:
    """A shop on two networks, one confirmation each, with a clock that stands."""
    networks = (
        (evm_network("local", chain.chain_id, token=token, confirmations=1), chain.url),
        (evm_network("other", other.chain_id, confirmations=1), other.url),
    )
    async with open_stand(database_url, *networks, clock=clock) as shop:
        yield shop
