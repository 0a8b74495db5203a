"""A configured network whose chain is simulated, for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from tallystick.chains.simulated.transactions import address_of
from tallystick.core.chain import Finality, Requirement
from tallystick.core.money import Asset
from tallystick.core.network import Network

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN: Final = address_of("token contract")


def simulated_network(name: str, chain: str, *, finality_tags: bool = True) -> Network:
    """A network of family evm with a coin and a token of six decimals; three confirmations are enough."""
    return Network(
        name=name,
        family="evm",
        chain=chain,
        native=Asset(name, "ETH", 18),
        tokens=(Asset(name, "DUSD", 6, TOKEN),),
        requirement=Requirement(Finality.DEPTH, 3),
        finality_tags=finality_tags,
    )


def output_network(name: str) -> Network:
    """A network of family bitcoin, whose miners may date blocks ahead; three confirmations are enough."""
    return Network(
        name=name,
        family="bitcoin",
        chain="bitcoin-regtest",
        native=Asset(name, "BTC", 8),
        requirement=Requirement(Finality.DEPTH, 3),
        finality_tags=False,
        loose_times=True,
        has_accounts=False,
    )
