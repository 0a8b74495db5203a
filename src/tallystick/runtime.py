"""Put the parts together: database, context, sources, application, workers.

For: the command line and the demo.
Holds true: whatever was opened is closed, in the opposite order, however it ends; the server serves whatever the state
of its networks. Modules that are slow to import are imported by what needs them, so that every command starts quickly.
Must not: hold rules; those are the services'.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from tallystick.config import Config, NetworkConfig
from tallystick.core.errors import ConfigurationError, DatabaseError
from tallystick.workers.supervise import Loop, Supervisor

if TYPE_CHECKING:
    from tallystick.config_rates import RatesConfig
    from tallystick.db.pool import Database
    from tallystick.rates.live import ConfiguredRates, LiveRates
    from tallystick.rates.source import RateSource
    from tallystick.services.context import Context

log = structlog.get_logger(__name__)

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal was closed
METRICS_SECONDS: Final = 2.0
BACKLOG_COUNT_MAX: Final = 100_000
CONNECTIONS_PER_PROCESS: Final = (
    4  # held for long: the deliverer's and the checkout's ears, metrics, one in reserve
)
ResultT = TypeVar("ResultT")


class Part(Enum):
    """What a process can do. `up` does everything; the others are for running apart."""

    API = auto()
    FOLLOW = auto()
    DELIVER = auto()
    JOBS = auto()


EVERYTHING: Final = frozenset(Part)


@dataclass(frozen=True, slots=True)
class Ready:
    """What a started process tells. `listen` is host:port, or None where nothing is served."""

    url: str
    listen: str | None
    context: Context


Progress = Callable[[str, int, int], None]
"""Told a network's name, the height just processed and the node's head."""


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, ResultT]]) -> ResultT:
    """Run `main` on uvloop; SIGINT, SIGTERM and SIGHUP set its stop event, a second one cancels it."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_until_signalled(main))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None  # the second signal: the user does not want to wait


async def _until_signalled(main: Callable[[asyncio.Event], Awaitable[ResultT]]) -> ResultT:
    stop = asyncio.Event()
    task = asyncio.ensure_future(main(stop))
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            task.cancel()
            return
        log.info("stopping", signal=signal.Signals(number).name)
        stop.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def database_url(config: Config) -> AsyncIterator[str]:
    """The database to use: the configured one, else the embedded one, started here unless it runs already."""
    if config.database_url is not None:
        yield config.database_url
        return
    from tallystick.db.embedded import EmbeddedPostgres

    async with EmbeddedPostgres(config.data_dir).run() as url:
        yield url


@asynccontextmanager
async def open_database(config: Config, *, migrate: bool = True) -> AsyncIterator[Database]:
    """An open pool on a database with the newest schema. Raises DatabaseError."""
    from tallystick.db.pool import Database

    async with database_url(config) as url:
        if migrate and not await _is_current(url):
            await migrate_database(url)
        # A follower keeps one connection for its lock, so they come on top of those for work.
        connections_max = (
            config.server.database_connections_max + len(config.networks) + CONNECTIONS_PER_PROCESS
        )
        database = await Database.open(url, connections_max=connections_max)
        try:
            yield database
        finally:
            await database.close()


async def _is_current(url: str) -> bool:
    """Whether the schema is the newest one already. Saves loading the migration tools at nearly every start."""
    import asyncpg

    from tallystick.db.operators import database_state
    from tallystick.db.pool import CONNECT_SECONDS_MAX
    from tallystick.db.revision import newest_revision

    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS_MAX)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseError(
            f"The database cannot be reached ({type(error).__name__}).",
            remedy="Check TALLYSTICK_DATABASE_URL and that the server runs.",
        ) from error
    try:
        return (await database_state(connection)).revision == newest_revision()
    finally:
        await connection.close()


async def migrate_database(url: str) -> str:
    """Bring the database to the newest schema; its revision. Raises DatabaseError."""
    import asyncpg

    from tallystick.db.migrate import migrate

    try:
        return await migrate(url)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise DatabaseError(
            f"The database refused to be migrated ({type(error).__name__}).",
            remedy="Check TALLYSTICK_DATABASE_URL and that its user may create tables there.",
        ) from error


def build_rates(config: RatesConfig) -> ConfiguredRates:
    """The configured sources of prices. Nothing is opened before the first question; close them at the end."""
    from tallystick.rates.live import ConfiguredRates
    from tallystick.rates.source import StaticRates

    return ConfiguredRates(StaticRates(config.static), _live_rates(config) if config.exchanges else None)


def _live_rates(config: RatesConfig) -> LiveRates:
    from tallystick.rates.exchange import Exchange, ExchangeOptions
    from tallystick.rates.live import LiveOptions, LiveRates, utc_now
    from tallystick.rates.median import Rules
    from tallystick.rates.routes import Map

    seconds_max = float(config.request_timeout_seconds)
    ways = Map(config.pivots, config.pegs)
    return LiveRates(
        [
            Exchange(ExchangeOptions(name, ways, config.urls.get(name), seconds_max), utc_now)
            for name in config.exchanges
        ],
        LiveOptions(
            Rules(config.min_sources, config.stale_after_seconds, config.outlier_bps),
            cache_seconds=float(config.cache_seconds),
            seconds_max=seconds_max,
            aside_seconds=float(config.aside_seconds),
        ),
    )


async def open_context(
    config: Config, database: Database, *, port: int | None = None, rates: RateSource | None = None
) -> Context:
    """What use cases need; the configured networks have their rows afterwards.

    `rates` are the configured ones unless given; who quotes gives them, and closes them.
    """
    from tallystick.services.context import Context
    from tallystick.services.networks import sync_networks

    context = Context(
        database=database,
        networks={name: network.network for name, network in config.networks.items()},
        rates=build_rates(config.rates) if rates is None else rates,
        public_url=config.url_on(config.port if port is None else port),
        allow_private_targets=config.webhooks.allow_private_targets,
    )
    async with database.transaction() as connection:
        await sync_networks(connection, context.networks)
    return context


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _tell_of_unwatched(context: Context) -> None:
    from tallystick.services.networks import unwatched

    async with context.database.connection() as connection:
        waiting = await unwatched(connection, context.networks)
    for name, invoices in waiting.items():
        log.warning(
            "network.not_configured",
            network=name,
            invoices_waiting=invoices,
            remedy="They neither expire nor get paid until the network is configured again.",
        )


def network_of(config: Config, name: str) -> NetworkConfig:
    """The configured network of that name. Raises ConfigurationError."""
    network = config.networks.get(name)
    if network is None:
        known = ", ".join(config.networks) or "none"
        raise ConfigurationError(
            f"There is no network {name!r} in the configuration.", remedy=f"Configured networks: {known}."
        )
    return network


async def serve(
    config: Config,
    parts: frozenset[Part],
    stop: asyncio.Event,
    *,
    network: str | None = None,
    on_ready: Callable[[Ready], None],
    on_progress: Progress | None = None,
) -> None:
    """Run these parts until `stop`. `network` restricts following to one network.

    `on_ready` is called when requests are answered. Raises ConfigurationError, DatabaseError, ServerFailed.
    """
    followed = [] if Part.FOLLOW not in parts else list(config.networks.values())
    if network is not None:
        followed = [network_of(config, network)]
    async with AsyncExitStack() as stack:
        address: socket.socket | None = None
        if Part.API in parts:
            from tallystick.server import take_address

            address = take_address(config.host, config.port)
            stack.callback(address.close)
            loading = asyncio.create_task(asyncio.to_thread(_load_application), name="load-application")
            stack.push_async_callback(lambda: asyncio.gather(loading, return_exceptions=True))
        database = await stack.enter_async_context(open_database(config))
        port = config.port if address is None else address.getsockname()[1]
        rates = build_rates(config.rates)
        stack.push_async_callback(rates.close)
        context = await open_context(config, database, port=port, rates=rates)
        await _tell_of_unwatched(context)
        if parts & {
            Part.API,
            Part.JOBS,
        }:  # who quotes: the first customer should not wait for the exchanges' lists
            opening = asyncio.create_task(rates.open(), name="open-rates")
            stack.push_async_callback(_end, opening)
        loops = _loops(stack, context, parts, followed, on_progress)
        if Part.JOBS in parts:
            loops += _job_loops(stack, context, config)
        supervisor = Supervisor(loops, stop_seconds_max=config.server.stop_seconds_max)
        async with _supervised(supervisor, stop):
            if address is None:
                on_ready(Ready(context.public_url, None, context))
                await stop.wait()
            else:
                listen = f"{config.host}:{port}"
                await _serve_http(
                    config,
                    context,
                    address,
                    stop,
                    lambda: on_ready(Ready(context.public_url, listen, context)),
                )


@asynccontextmanager
async def _supervised(supervisor: Supervisor, stop: asyncio.Event) -> AsyncIterator[None]:
    """The workers run for the length of the block; at its end they are stopped, also after an error in it."""
    running = asyncio.create_task(supervisor.run(stop), name="supervisor")
    try:
        yield
    finally:
        stop.set()
        await running


def _loops(
    stack: AsyncExitStack,
    context: Context,
    parts: frozenset[Part],
    followed: list[NetworkConfig],
    on_progress: Progress | None,
) -> list[Loop]:
    loops = [_follow_loop(stack, context, network, on_progress) for network in followed]
    if Part.DELIVER in parts:
        from tallystick.workers.deliver import Deliverer

        loops.append(Loop("deliver", Deliverer(context).run))
    if Part.API in parts:
        # A deliverer counts what waits; where it runs in another process, the one that shows metrics does.
        counts = Part.DELIVER not in parts
        loops.append(Loop("metrics", lambda stop: _refresh_metrics(context, stop, deliveries=counts)))
    return loops


def _job_loops(stack: AsyncExitStack, context: Context, config: Config) -> list[Loop]:
    """The timed jobs. Balances are looked at through nodes of their own: a follower's is for one follower."""
    from tallystick.chains.source import AccountSource
    from tallystick.runtime_sources import build_source
    from tallystick.workers.balances import BalanceChecker
    from tallystick.workers.expire import Expirer
    from tallystick.workers.refunds import RefundWatch
    from tallystick.workers.requote import Requoter
    from tallystick.workers.tidy import Tidier

    checkers: dict[str, BalanceChecker] = {}
    for name, network in config.networks.items():
        if not network.network.has_accounts:
            continue
        source = build_source(network)
        stack.push_async_callback(source.close)
        if isinstance(source, AccountSource):
            checkers[name] = BalanceChecker(context, network.network, source)
    loops = [Loop(f"balances {name}", checker.run) for name, checker in checkers.items()]
    loops.append(Loop("expire", Expirer(context, checkers).run))
    loops.append(Loop("requote", Requoter(context).run))
    loops.append(Loop("refunds", RefundWatch(context).run))
    loops.append(Loop("tidy", Tidier(context).run))
    return loops


def _follow_loop(
    stack: AsyncExitStack, context: Context, network: NetworkConfig, on_progress: Progress | None
) -> Loop:
    from tallystick.runtime_sources import build_source
    from tallystick.workers.follow import Follower, FollowerOptions

    source = build_source(network)
    stack.push_async_callback(source.close)
    name = network.network.name
    options = FollowerOptions(
        poll_interval_seconds=network.poll_interval_ms / 1000,
        batch_blocks=network.batch_blocks,
        stale_after_seconds=network.stale_after_seconds,
        start_height=None if network.start_height == "head" else network.start_height,
        mempool=network.mempool,
    )

    def tell(height: int, head: int) -> None:
        if on_progress is not None:
            on_progress(name, height, head)

    return Loop(f"follow {name}", Follower(context, network.network, source, options, on_progress=tell).run)


async def _refresh_metrics(context: Context, stop: asyncio.Event, *, deliveries: bool) -> None:
    """Show in this process's metrics what the database knows of networks, and of deliveries that wait."""
    from tallystick.db.webhooks import backlog
    from tallystick.observability import show_deliveries, show_networks
    from tallystick.services.networks import list_networks
    from tallystick.workers.waiting import wait_or_stop

    while not stop.is_set():
        async with context.database.connection() as connection:
            show_networks(await list_networks(connection, context))
            if deliveries:
                waiting = await backlog(connection, count_max=BACKLOG_COUNT_MAX)
                show_deliveries(waiting.pending, waiting.oldest_due_at, context.now())
        await wait_or_stop(stop, METRICS_SECONDS)


def _load_application() -> None:
    """Import the application while the database starts: each takes most of a second."""
    import tallystick.api.app
    import tallystick.web.checkout
    import tallystick.web.claims  # noqa: F401


async def _serve_http(
    config: Config,
    context: Context,
    address: socket.socket,
    stop: asyncio.Event,
    on_ready: Callable[[], None],
) -> None:
    from tallystick import server
    from tallystick.api.app import create_app
    from tallystick.api.limits import MinuteCounter
    from tallystick.web.checkout import checkout_routes
    from tallystick.web.claims import CLAIMS_PER_MINUTE, claim_routes
    from tallystick.web.stream import InvoiceHub

    hub = InvoiceHub(context)
    claims = claim_routes(context, MinuteCounter(CLAIMS_PER_MINUTE).count)
    async with hub.running():
        await server.serve(
            create_app(context, routes=[checkout_routes(context, hub), claims]),
            address,
            stop,
            trusted_proxies=config.server.trusted_proxies,
            stop_seconds_max=config.server.stop_seconds_max,
            on_ready=on_ready,
            before_stop=hub.close,
        )
