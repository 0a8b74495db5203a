"""`tallystick doctor`: look at everything that can be wrong with an installation, and say it in words with a remedy.

Holds true: it changes nothing (it does not even migrate); a check that fails does not keep the others from being made.
Must not: repeat credentials.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.cli.common import JsonFlag, console, load_config, print_json
from tallystick.cli.doctor_kinds import check_access_keys, check_kind
from tallystick.cli.doctor_rates import check_live_rates, check_written_rates
from tallystick.cli.doctor_report import OK, PROBLEM, WARNING, Check
from tallystick.core.errors import SourceError, TallystickError

if TYPE_CHECKING:
    from datetime import datetime

    from tallystick.chains.source import Source
    from tallystick.config import Config, NetworkConfig
    from tallystick.db.pool import Database
    from tallystick.db.sql import Connection

NETWORK_SECONDS_MAX: Final = 30.0
CLOCK_SKEW_SECONDS_MAX: Final = 5
BLOCK_AHEAD_SECONDS_MAX: Final = 15
LOOSE_AHEAD_SECONDS_MAX: Final = 7200
"""How far ahead a miner of Bitcoin's family may date a block."""
LAG_BLOCKS_SHOWN: Final = 5


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was looked at; `ok` is false where there is a problem."""

    ok: bool
    checks: list[Check]


def doctor(*, json: JsonFlag = False) -> int:
    """Check configuration, database, nodes, tokens, clocks. Exit code 1 when there is a problem."""
    from tallystick.runtime import run

    async def main(_stop: asyncio.Event) -> Report:
        return await examine()

    report = run(main)
    if json:
        print_json(report)
    else:
        _show(report)
    return 0 if report.ok else 1


async def examine() -> Report:
    """Make all checks."""
    try:
        config = load_config()
    except TallystickError as error:
        return _report([_failed("configuration", error)])
    where = f"read from {config.file}" if config.file else "no file, only the environment and defaults"
    checks = [Check(name="configuration", level=OK, text=f"Valid ({where}).")]
    checks += _check_networks_configured(config) + _check_address(config) + _check_webhooks(config)
    checks += await check_live_rates(config)
    async with _connected(config, checks) as database:
        for network in config.networks.values():
            checks += await _check_network(network, database)
    return _report(checks)


def _report(checks: list[Check]) -> Report:
    return Report(ok=all(check.level != PROBLEM for check in checks), checks=checks)


def _failed(name: str, error: TallystickError, remedy: str | None = None) -> Check:
    which = f" ({error.object_id})" if error.object_id else ""
    return Check(name=name, level=PROBLEM, text=f"{error.what}{which}", remedy=error.remedy or remedy)


def _check_networks_configured(config: Config) -> list[Check]:
    if not config.networks:
        return [
            Check(
                name="networks",
                level=WARNING,
                text="No network is configured, so nothing can be paid.",
                remedy="Add one: `tallystick config` prints a file to begin with.",
            )
        ]
    return check_written_rates(config)


def _check_address(config: Config) -> list[Check]:
    from tallystick.core.errors import ConfigurationError
    from tallystick.server import take_address

    url = config.url_on(config.port)
    checks = [Check(name="public address", level=OK, text=f"Checkout links begin with {url}.")]
    if url.startswith("http://") and not _is_loopback(config.host):
        checks = [
            Check(
                name="public address",
                level=WARNING,
                text=f"Checkout links begin with {url}: without TLS others can read and change what customers see.",
                remedy="Put a reverse proxy with TLS in front and set public_url to its https:// address.",
            )
        ]
    try:
        take_address(config.host, config.port).close()
    except ConfigurationError as error:
        text = f"{error.what} If that is this Tallystick, running, all is well."
        checks.append(Check(name="listen address", level=WARNING, text=text, remedy=error.remedy))
    else:
        checks.append(
            Check(name="listen address", level=OK, text=f"{config.host}:{config.port} is free to listen on.")
        )
    return checks


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_webhooks(config: Config) -> list[Check]:
    if not config.webhooks.allow_private_targets:
        return [Check(name="webhooks", level=OK, text="Private and local targets are refused.")]
    return [
        Check(
            name="webhooks",
            level=WARNING,
            text="Endpoints may lie in private networks: holders of API keys can make this server call into yours.",
            remedy="Set webhooks.allow_private_targets to false unless you trust every merchant.",
        )
    ]


@asynccontextmanager
async def _connected(config: Config, checks: list[Check]) -> AsyncIterator[Database | None]:
    """The database after its checks, or None where it is not usable."""
    from contextlib import AsyncExitStack

    from tallystick.runtime import open_database

    async with AsyncExitStack() as stack:
        try:
            database = await stack.enter_async_context(open_database(config, migrate=False))
            async with database.connection() as connection:
                found = await _check_database(connection)
        except TallystickError as error:
            checks.append(_failed("database", error))
            database = None
        else:
            checks += found
            # Without our tables there is nothing more to ask it.
            database = database if all(check.level == OK for check in found) else None
        yield database


async def _check_database(connection: Connection) -> list[Check]:
    from datetime import UTC, datetime

    from tallystick.db.operators import database_state
    from tallystick.db.revision import newest_revision

    state = await database_state(connection)
    newest = newest_revision()
    if state.revision is None:
        schema = Check(
            name="database",
            level=WARNING,
            text=f"PostgreSQL {state.version} is reachable and empty.",
            remedy="Nothing to do: `tallystick up` or `tallystick migrate` makes the tables.",
        )
    elif state.revision != newest:
        schema = Check(
            name="database",
            level=PROBLEM,
            text=f"PostgreSQL {state.version} has schema {state.revision}; this version works with {newest}.",
            remedy="Run `tallystick migrate`, or the version that made it if that is a newer one.",
        )
    else:
        schema = Check(name="database", level=OK, text=f"PostgreSQL {state.version}, schema {newest}.")
    skew = abs((state.clock - datetime.now(UTC)).total_seconds())
    clock = Check(name="clock", level=OK, text="Our clock and the database's agree.")
    if skew > CLOCK_SKEW_SECONDS_MAX:
        clock = Check(
            name="clock",
            level=PROBLEM,
            text=f"Our clock and the database's differ by {skew:.0f} s.",
            remedy="Keep both machines' clocks right (NTP).",
        )
    return [schema, clock]


async def _check_network(network: NetworkConfig, database: Database | None) -> list[Check]:
    from tallystick.runtime_sources import build_source

    name = network.network.name
    source = build_source(network)
    try:
        async with asyncio.timeout(NETWORK_SECONDS_MAX):
            checks = await _ask_network(network, source, database)
    except SourceError as error:
        checks = [_failed(name, error, _NODE_REMEDY)]
    except TimeoutError:
        text = f"The nodes did not answer within {NETWORK_SECONDS_MAX:.0f} s."
        checks = [
            Check(name=name, level=PROBLEM, text=text, remedy="Check that they run and can be reached.")
        ]
    finally:
        await source.close()
    checks += check_access_keys(network)
    for node in source.nodes():
        if node.problem is not None:
            checks.append(
                Check(name=f"{name} node {node.name}", level=PROBLEM, text=node.problem, remedy=_NODE_REMEDY)
            )
    if len(network.rpc) == 1:
        checks.append(
            Check(
                name=f"{name} nodes",
                level=WARNING,
                text="Only one node is asked, so its word is taken for the chain.",
                remedy="Add a second, independent node to rpc.",
            )
        )
    return checks


_NODE_REMEDY: Final = "Check that the node runs, is reachable from here and serves this chain."


async def _ask_network(network: NetworkConfig, source: Source, database: Database | None) -> list[Check]:
    from datetime import UTC, datetime

    from tallystick.core.errors import BlockNotFound

    name = network.network.name
    identity = await source.identity()
    head = await source.head()
    checks = [
        Check(name=name, level=OK, text=f"Chain {identity.chain}, best block {head.header.height}."),
        _check_block_time(network, head.header.time, datetime.now(UTC)),
    ]
    await source.confirm_agreement(head.header)
    if isinstance(network.start_height, int) and network.start_height > head.header.height:
        raise BlockNotFound(
            f"start_height {network.start_height} is above the node's best block.", object_id=name
        )
    next_height = None
    if database is not None:
        async with database.connection() as connection:
            checks += await _check_progress(connection, network, identity.genesis_hash, head.header.height)
            next_height = await _next_height(connection, name)
    checks += await check_kind(network, source, head.header.height, next_height)
    return checks


def _check_block_time(network: NetworkConfig, at: datetime, now: datetime) -> Check:
    name = f"{network.network.name} block time"
    age = (now - at).total_seconds()
    ahead_max = LOOSE_AHEAD_SECONDS_MAX if network.network.loose_times else BLOCK_AHEAD_SECONDS_MAX
    if age < -ahead_max:
        return Check(
            name=name,
            level=PROBLEM,
            text=f"The newest block is {-age:.0f} s in the future.",
            remedy="Set this machine's clock right (NTP); windows and deadlines depend on it.",
        )
    if age > network.stale_after_seconds:
        return Check(
            name=name,
            level=WARNING,
            text=f"The newest block is {age:.0f} s old.",
            remedy="Check that the node is in step with its chain, and this machine's clock.",
        )
    return Check(name=name, level=OK, text=f"The newest block is {max(0, age):.0f} s old.")


async def _next_height(connection: Connection, name: str) -> int | None:
    from tallystick.db.operators import network_state

    found = await network_state(connection, name)
    return None if found is None or found.height is None else found.height + 1


async def _check_progress(
    connection: Connection, network: NetworkConfig, genesis: str, head: int
) -> list[Check]:
    from tallystick.db.operators import network_state

    name = network.network.name
    found = await network_state(connection, name)
    pinned = None if found is None or found.genesis_hash is None else (found.chain, found.genesis_hash)
    if pinned is not None and pinned != (network.network.chain, genesis):
        return [
            Check(
                name=f"{name} identity",
                level=PROBLEM,
                text=f"This network was chain {pinned[0]} with genesis {pinned[1]} at first contact.",
                remedy="Point it at nodes of that chain; configure another chain under a new name.",
            )
        ]
    if found is None or found.height is None:
        return [Check(name=f"{name} progress", level=OK, text="Not followed yet.")]
    lag = head - found.height
    remedy = f"Look into it, then `tallystick network resume {name}`." if found.status == "halted" else None
    if found.status in ("halted", "misconfigured"):
        text = found.problem or f"The network is {found.status}."
        return [Check(name=f"{name} progress", level=PROBLEM, text=text, remedy=remedy)]
    if lag > LAG_BLOCKS_SHOWN:
        return [
            Check(
                name=f"{name} progress",
                level=WARNING,
                text=f"Processed to block {found.height}, {lag} blocks behind.",
                remedy="It catches up while `tallystick up` or `tallystick watch` runs.",
            )
        ]
    return [Check(name=f"{name} progress", level=OK, text=f"Processed to block {found.height}.")]


def _show(report: Report) -> None:
    from rich.text import Text

    out = console()
    marks = {OK: ("ok      ", "green"), WARNING: ("warning ", "yellow"), PROBLEM: ("problem ", "bold red")}
    for check in report.checks:
        out.print(Text.assemble(marks[check.level], (f"{check.name}: ", "bold"), check.text))
        if check.remedy and check.level != OK:
            out.print(Text(f"        {check.remedy}", style="dim"))
