"""One simulated installation: a real database, real services and workers, simulated networks, merchants, receivers.

For: the actions and the runner. Holds true: all that outlives a crash is the database, the chains and what people
outside remember; everything that a process keeps in memory is made anew by `restart`. Everything random comes from the
world's chance.
Must not: check anything (`checks` does), or choose what happens next (`run` does).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from functools import cache
from typing import Any, Final

import msgspec
from bip32 import BIP32

from tallystick.api.app import create_app
from tallystick.api.auth import KeyRing
from tallystick.api.edge import Application
from tallystick.api.limits import Limits
from tallystick.chains.simulated.chain import SimulatedChain
from tallystick.chains.simulated.nodes import SimulatedNode
from tallystick.chains.simulated.source import SimulatedSource
from tallystick.chains.simulated.transactions import address_of
from tallystick.core.chain import Finality, Requirement
from tallystick.core.errors import NoQuote
from tallystick.core.money import Asset
from tallystick.core.network import Network
from tallystick.db.pool import Database
from tallystick.db.sql import load
from tallystick.rates.source import Answer, Rate
from tallystick.services.auditing import Problem
from tallystick.services.context import Context
from tallystick.services.delivering import LEASE, Attempted
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import sync_networks
from tallystick.services.wallets import NewWallet, register_wallet
from tallystick.simulation.breaking import Breaker, breakable
from tallystick.simulation.calls import Response, call
from tallystick.simulation.chance import Chance
from tallystick.simulation.clock import WorldClock
from tallystick.simulation.receivers import Mailroom
from tallystick.workers.balances import BalanceChecker
from tallystick.workers.courier import Courier
from tallystick.workers.expire import Expirer
from tallystick.workers.follow import Follower, FollowerOptions
from tallystick.workers.lanes import Lanes
from tallystick.workers.refunds import RefundWatch
from tallystick.workers.requote import Requoter
from tallystick.workers.tidy import Tidier

SQL: Final = load("simulation")

NETWORKS_MAX: Final = 4
SHOPS: Final = 3
NODES: Final = 2
_NAMES: Final = ("alpha", "beta", "gamma", "delta")
IN_FLIGHT_MAX: Final = 8
PER_ENDPOINT_MAX: Final = 2
"""A deliverer's places: few, so that one endpoint that takes too many is seen to."""
_GENEROUS: Final = Limits(key_per_minute=1 << 40, anonymous_per_minute=1 << 40, request_seconds=86_400.0)
"""No limit of these: they count real seconds, and a machine may be suspended in the middle of a step."""
_QUICK: Final = {"plan_cache_mode": "force_generic_plan", "jit": "off", "synchronous_commit": "off"}
"""Tables are small and statements always the same: planning would take most of the time. Nothing here need outlive a
power cut."""
_FOLLOWING: Final = FollowerOptions(batch_blocks=8, start_height=0)


_KEY_PATHS: Final = {"evm": "m/44'/60'/0'", "bitcoin": "m/84'/0'/0'", "litecoin": "m/84'/2'/0'"}
_OUTPUT_CHAINS: Final = {
    "bitcoin": ("bitcoin-regtest", "bitcoin-signet", "bitcoin-testnet4", "bitcoin"),
    "litecoin": ("litecoin-regtest", "litecoin-testnet", "litecoin", "litecoin-regtest"),
}
_OUTPUT_COINS: Final = {"bitcoin": ("BTC", 1_000_000, 20_000), "litecoin": ("LTC", 100_000_000, 10_000)}
"""The coin of a family, what may count at sight at most, and what a payment costs while nobody knows better."""


@cache
def account_key(family: str, number: int) -> str:
    """The account public key of a shop: any will do, as long as it is always the same."""
    key = BIP32.from_seed(b"a simulated shop's wallet, number %d" % number)
    xpub = str(key.get_xpub_from_path(_KEY_PATHS[family]))
    return xpub if family == "evm" else f"wpkh({xpub}/<0;1>/*)"


@dataclass(slots=True)
class Ask:
    """What a customer was told to pay: one payment option, as answered by the API."""

    shop: Shop
    invoice_id: str
    option_id: str
    asset: Asset
    address: str  # normal form
    amount: int  # base units


@dataclass(slots=True)
class Shop:
    """A merchant, as far as the merchant's own systems know."""

    id: str
    key: str
    purse: str  # the address from which it pays refunds
    asks: list[Ask] = field(default_factory=list)
    invoices: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Call:
    """A POST whose answer never came. Whoever made it makes it again, under the same idempotency key."""

    shop: Shop
    path: str
    body: Any
    key: str
    then: Callable[[Response], None] | None
    made_at: datetime


@dataclass(slots=True)
class Place:
    """One network with everything around it."""

    network: Network
    chain: SimulatedChain
    nodes: list[SimulatedNode]
    side_nodes: list[SimulatedNode]  # those that balances are read from
    interval_seconds: int
    follower: Follower
    standby: Follower
    checker: BalanceChecker | None  # None: outputs have no balance that a node could tell
    failures: int = 0


class WorldRates:
    """Prices that move with the world, and sometimes are nowhere to be had."""

    def __init__(self) -> None:
        self.prices: dict[str, int] = {}  # symbol -> cents
        self.silent = False

    async def rate(self, base: str, quote: str) -> Rate:
        """See RateSource.rate."""
        if self.silent or base not in self.prices or (quote != "USD" and quote not in self.prices):
            raise NoQuote(f"No rate is known for {base} in {quote}.", remedy="Ask again later.")
        value = Fraction(self.prices[base], 100 if quote == "USD" else self.prices[quote])
        return Rate(
            base, quote, value, "simulated", (Answer("simulated", f"{base}/{quote}", value, used=True),)
        )


class World:
    """See the module. Open with `World.open`; `begin` starts a seed on an empty database."""

    def __init__(self, database: Database, breaker: Breaker) -> None:
        self.database = database
        self.breaker = breaker
        self.clock = WorldClock()
        self.chance = Chance(0)
        self.kinds = Chance(0, "kinds")
        self.ids = Chance(0, "ids")
        self.mailroom = Mailroom(self.clock)
        self.mailroom.foreign = self._foreign
        self.rates = WorldRates()
        self.networks: dict[str, Network] = {}
        self.ctx = Context(
            database=database,
            networks=self.networks,
            rates=self.rates,
            public_url="https://pay.example",
            allow_private_targets=False,
            clock=self.clock.now,
            monotonic=self.clock.monotonic,
            entropy=lambda count: self.ids.bytes(count),  # noqa: PLW0108  # `ids` is another stream for each seed
        )
        self.app: Application = create_app(self.ctx, limits=_GENEROUS)
        self.places: dict[str, Place] = {}
        self.shops: list[Shop] = []
        self.unanswered: list[Call] = []
        self.nonces: dict[tuple[str, str], int] = {}
        self.claim_links: list[tuple[str, str]] = []
        self.flaws: list[Problem] = []
        self.unrecorded: list[Attempted] = []  # sent by another deliverer, which hangs
        self.calls = 0
        self.restarts = 0

    @classmethod
    async def open(cls, url: str) -> World:
        """A world on a migrated database, which it may wipe at will."""
        breaker = Breaker()
        database = await Database.open(
            url, connections_max=6, connection_class=breakable(breaker), settings=_QUICK
        )
        return cls(database, breaker)

    async def begin(self, seed: int, network_count: int | None) -> None:
        """Empty the database and set the scene of a seed. `network_count` None: as the seed says."""
        self.breaker.rest()
        async with self.database.connection() as connection:
            await SQL.wipe.run(connection)
        self.chance, self.ids = Chance(seed, "events"), Chance(seed, "ids")
        self.clock.restart()
        self.mailroom.restart()
        self.shops, self.unanswered, self.nonces = [], [], {}
        self.claim_links, self.flaws, self.unrecorded = [], [], []
        self.calls = self.restarts = 0
        self.rates.silent = False
        self.rates.prices = {"ETH": 250_000, "DUSD": 100, "EURX": 117}
        self.kinds = Chance(seed, "kinds")
        count = network_count or self.chance.between(1, 3)
        self.places = {name: self._place(name, number) for number, name in enumerate(_NAMES[:count], 1)}
        self.networks.clear()
        self.networks.update({name: place.network for name, place in self.places.items()})
        async with self.database.transaction() as connection:
            await sync_networks(connection, self.networks)
            for number in range(SHOPS):
                merchant_id, key = await create_merchant(connection, self.ctx, f"Shop {number}")
                for family in dict.fromkeys(["evm", *(one.family for one in self.networks.values())]):
                    new = NewWallet(family, account_key(family, number), "main")
                    await register_wallet(connection, self.ctx, merchant_id, new)
                self.shops.append(Shop(merchant_id, key, address_of(f"purse {number}")))
        self.restart()

    @property
    def has_outputs(self) -> bool:
        """Whether any network is one of outputs: what happens on such only is drawn where there is one."""
        return any(network.shows_risks for network in self.networks.values())

    def _place(self, name: str, number: int) -> Place:
        """A network. About one in three is of outputs, which a stream of its own says."""
        if self.kinds.one_in(3):
            return self._output_place(name, number, self.kinds.pick(("bitcoin", "litecoin")))
        chance = self.chance
        tokens = (
            Asset(name, "DUSD", 6, address_of(f"dusd {number}")),
            Asset(name, "EURX", 18, address_of(f"eurx {number}")),
        )
        finality = chance.weighted([(Finality.DEPTH, 6), (Finality.SAFE, 1), (Finality.FINALIZED, 1)])
        tags = finality is not Finality.DEPTH or chance.one_in(3)
        network = Network(
            name=name,
            family="evm",
            chain=str(1000 + number),
            native=Asset(name, "ETH", 18),
            tokens=tokens[: chance.between(1, 2)],
            requirement=Requirement(finality, chance.between(1, 5)),
            safety_depth=chance.between(8, 16),
            finality_tags=tags,
        )
        chain = SimulatedChain(name, network.chain, self.clock.true)
        lags = {"safe_lag": 4, "finalized_lag": 8} if tags else {}
        nodes = [SimulatedNode(f"{name}-{place}", chain, **lags) for place in range(2 * NODES)]
        interval = chance.pick((2, 5, 12))
        return Place(network, chain, nodes[:NODES], nodes[NODES:], interval, *self._workers(network, nodes))

    def _output_place(self, name: str, number: int, family: str) -> Place:
        chance = self.chance
        symbol, limit, fee_rate = _OUTPUT_COINS[family]
        self.rates.prices |= {"BTC": 6_000_000} if symbol == "BTC" else {"LTC": 8_000}
        network = Network(
            name=name,
            family=family,
            chain=_OUTPUT_CHAINS[family][number - 1],
            native=Asset(name, symbol, 8),
            requirement=Requirement(Finality.DEPTH, chance.between(1, 5)),
            safety_depth=chance.between(8, 16),
            finality_tags=False,
            loose_times=True,
            zero_conf_limit=limit,
            fee_rate_default=fee_rate,
            has_accounts=False,
        )
        chain = SimulatedChain(name, network.chain, self.clock.true, loose_times=True)
        nodes = [SimulatedNode(f"{name}-{place}", chain) for place in range(NODES)]
        return Place(network, chain, nodes, [], chance.pick((5, 30, 150)), *self._workers(network, nodes))

    def _workers(
        self, network: Network, nodes: list[SimulatedNode]
    ) -> tuple[Follower, Follower, BalanceChecker | None]:
        """What a process keeps in memory for a network: its follower, a standby, its looks at balances."""
        main, side = nodes[:NODES], nodes[NODES:]
        return (
            Follower(self.ctx, network, SimulatedSource(network, main), _FOLLOWING),
            Follower(self.ctx, network, SimulatedSource(network, main[::-1]), _FOLLOWING),
            BalanceChecker(self.ctx, network, SimulatedSource(network, side))
            if network.has_accounts
            else None,
        )

    def restart(self) -> None:
        """The process starts: nothing is left of what the one before had in memory."""
        self.restarts += 1
        ctx = self.ctx
        for place in self.places.values():
            made = self._workers(place.network, place.nodes + place.side_nodes)
            place.follower, place.standby, place.checker = made
            place.failures = 0
        checkers = {name: place.checker for name, place in self.places.items() if place.checker is not None}
        self.expirer = Expirer(ctx, checkers)
        self.requoter = Requoter(ctx)
        self.refund_watch = RefundWatch(ctx)
        self.tidier = Tidier(ctx)
        self.lanes = Lanes(in_flight_max=IN_FLIGHT_MAX, per_endpoint_max=PER_ENDPOINT_MAX)
        self.courier = self._courier(self.lanes)
        self.app.state.key_ring = KeyRing(ctx, _GENEROUS)

    def _courier(self, lanes: Lanes) -> Courier:
        return Courier(self.ctx, self.mailroom, lanes, lease=LEASE, monotonic=self.clock.monotonic)

    def another_courier(self) -> Courier:
        """A deliverer in another process, which has just started."""
        return self._courier(Lanes(in_flight_max=IN_FLIGHT_MAX, per_endpoint_max=PER_ENDPOINT_MAX))

    def _foreign(self, merchant_id: str, body: bytes) -> str | None:
        """The invoice of another merchant that an event tells of, if it does."""
        shown = msgspec.json.decode(body)["data"]["object"]
        ids = {shown.get("id"), shown.get("invoice_id")}
        others = (shop for shop in self.shops if shop.id != merchant_id)
        return next((one for shop in others for one in shop.invoices if one in ids), None)

    def flaw(self, rule: str, object_id: str, detail: str) -> None:
        """Note something that must never happen, whatever was injected."""
        self.flaws.append(Problem(rule, object_id, detail))

    # -- people outside

    def nonce(self, place: Place, sender: str) -> int:
        """The next nonce of somebody's own wallet."""
        number = self.nonces.get((place.network.name, sender), 0)
        self.nonces[place.network.name, sender] = number + 1
        return number

    async def ask(self, shop: Shop, method: str, path: str, body: Any = None) -> Response:
        """A merchant's server asks, or sets something to a value: no harm in doing it twice."""
        return self._looked_at(path, await call(self.app, method, path, key=shop.key, body=body))

    async def get(self, shop: Shop, path: str) -> Response:
        """A merchant's server reads."""
        return await self.ask(shop, "GET", path)

    def _looked_at(self, path: str, response: Response) -> Response:
        """An answer; one that says that we failed is a flaw unless the database was taken away."""
        if response.status >= 500 and self.breaker.broke_at is None:
            self.flaw("internal-error", path, f"{response.status} {response.body[:300]!r}")
        return response

    async def post(
        self, shop: Shop, path: str, body: Any = None, *, then: Callable[[Response], None] | None = None
    ) -> Response:
        """A merchant's server does something, under an idempotency key of its own.

        `then` is told of the final answer: now, or once the call was repeated after its answer was lost.
        """
        self.calls += 1
        asked = Call(shop, path, body, f"call-{self.calls}", then, self.clock.now())
        self.unanswered.append(asked)
        return await self.repeat(asked)

    async def repeat(self, asked: Call) -> Response:
        """Make a call; it stays unanswered unless a final answer comes."""
        answered = await call(
            self.app, "POST", asked.path, key=asked.shop.key, body=asked.body, idempotency_key=asked.key
        )
        response = self._looked_at(asked.path, answered)
        if response.status < 500:  # whatever the merchant did wrong stays wrong
            if asked in self.unanswered:
                self.unanswered.remove(asked)
            if asked.then is not None:
                asked.then(response)
        return response


Action = Callable[[World], Awaitable[str]]
"""One thing that happens; answers in words what came of it. The words are part of the log, so they name no time of
the real machine and nothing else that differs between two runs of a seed."""
