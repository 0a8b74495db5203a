"""What every use case is given: the database, the configured networks, the rates, the clock and the randomness.

Holds true: time and randomness come from here and from nowhere else, so a simulation can inject both.
Must not: hold state that matters after a restart.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from tallystick.core.ids import RANDOM_BYTES, IdKind, make_id
from tallystick.core.network import Network
from tallystick.db.pool import Database
from tallystick.rates.source import RateSource


class ActorType(StrEnum):
    """Who causes a change."""

    SYSTEM = "system"
    MERCHANT = "merchant"
    OPERATOR = "operator"
    CUSTOMER = "customer"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who causes a change: a worker, an API key, an operator, or the customer on the checkout page."""

    type: ActorType
    id: str | None = None


SYSTEM = Actor(ActorType.SYSTEM)
CUSTOMER = Actor(ActorType.CUSTOMER)


def system_clock() -> datetime:
    """Our clock: aware, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Context:
    """Everything a use case needs besides its arguments. `public_url` has no trailing slash.

    `clock` tells the date and may be set back; `monotonic` only grows, in seconds from an arbitrary start: for pauses.
    """

    database: Database
    networks: Mapping[str, Network]
    rates: RateSource
    public_url: str
    allow_private_targets: bool = False
    clock: Callable[[], datetime] = field(default=system_clock)
    monotonic: Callable[[], float] = field(default=time.monotonic)
    entropy: Callable[[int], bytes] = field(default=secrets.token_bytes)

    def now(self) -> datetime:
        """The current time of our clock."""
        return self.clock()

    def new_id(self, kind: IdKind) -> str:
        """A fresh identifier of this kind."""
        return make_id(kind, int(self.now().timestamp() * 1000), self.entropy(RANDOM_BYTES))
