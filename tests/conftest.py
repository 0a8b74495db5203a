"""What every test can ask for: an empty or a migrated database of its own, a free port, a local chain.

Holds true: a test never sees another's data and may run beside any other; nothing is left behind. Under
TALLYSTICK_NO_SKIP (set in CI) a skipped test is a failure, so that nothing is silently left out.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import settings

from tallystick.db.embedded import EmbeddedPostgres, temporary_data_folder
from tests.support.anvil import Anvil, free_port, start_anvil, unique_chain_id

NO_SKIP = os.environ.get("TALLYSTICK_NO_SKIP", "") not in {"", "0"}
TEMPLATE = "tallystick_migrated"
# Their tests share what takes long to start.
TOGETHER = ("tests/system/test_checkout_payment.py", "tests/scenarios/litecoin/")
_numbers = itertools.count(1)

# How long one example takes says more about the machine's other work than about ours.
settings.register_profile("tallystick", deadline=None)
settings.load_profile("tallystick")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives each test to the worker that is free next, and those of a module in `TOGETHER` to one worker.

    xdist begins with the largest group. (Its own `loadgroup` does not see the marks with this pytest.)
    """
    if config.getvalue("dist") != "load":  # somebody asked for another way
        return None
    from xdist.scheduler.loadscope import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = _group_of
    return scheduler


def _group_of(nodeid: str) -> str:
    module = nodeid.split("::", 1)[0]
    return module if module.startswith(TOGETHER) else nodeid


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns a skipped test into a failed one where nothing may be skipped."""
    report = yield
    if NO_SKIP and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and nothing may be skipped here: {reason}"
    return report


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server for this test process (0.6 s), without waiting for the disk: its data is worthless.

    Tests want `database_url` or `empty_database_url`; this one is the server's maintenance database.
    """
    # A loop of its own, run here only: the server outlives every test's loop, and its starter must be a lasting thread.
    loop = asyncio.new_event_loop()
    with temporary_data_folder("tallystick-tests-") as folder:
        server = EmbeddedPostgres(folder, worthless_data=True)
        try:
            yield loop.run_until_complete(server.start())
        finally:
            loop.run_until_complete(server.stop())
            loop.close()


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> str:
    """The name of a database that was migrated once, for others to be copied from."""
    from tallystick.db.migrate import migrate

    async def make() -> None:
        await _administer(postgres_url, f"CREATE DATABASE {TEMPLATE}")
        await migrate(database_url_for(postgres_url, TEMPLATE))

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(make())
    finally:
        loop.close()
    return TEMPLATE


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """The URL of a new database without any table."""
    name = f"test_{next(_numbers)}"
    await _administer(postgres_url, f"CREATE DATABASE {name}")
    yield database_url_for(postgres_url, name)
    await _administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(postgres_url: str, migrated_template: str) -> AsyncIterator[str]:
    """The URL of a new database with the current schema, copied from a template (some 20 ms)."""
    async with another_database(postgres_url, template=migrated_template) as url:
        yield url


@asynccontextmanager
async def another_database(server_url: str, *, template: str) -> AsyncIterator[str]:
    """The URL of a new database, copied from a template; for fixtures that live longer than a test."""
    name = f"test_{next(_numbers)}"
    await _administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield database_url_for(server_url, name)
    await _administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(name="free_port")
def free_port_fixture() -> Callable[[], int]:
    """A function that gives a free TCP port on the loopback interface, another one each time."""
    return free_port


@pytest.fixture
async def anvil() -> AsyncIterator[Anvil]:
    """A local chain that mines on demand, with a chain id of its own. For other ways: `start_anvil`."""
    async with start_anvil(chain_id=unique_chain_id()) as chain:
        yield chain


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data folder for a server. Unlike `tmp_path` PostgreSQL can reach it when the tests run as root."""
    with temporary_data_folder("tallystick-test-") as folder:
        yield folder / "data"


def database_url_for(server_url: str, database: str) -> str:
    """The URL of another database of the same server."""
    before, after = server_url.split("@/", 1)
    return f"{before}@/{database}?{after.split('?', 1)[1]}"


async def _administer(server_url: str, statement: str) -> None:
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
