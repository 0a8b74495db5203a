"""The real server in a process of its own, as a merchant runs it, on the benchmark's database and stub node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from bench.stage import CHAIN_ID, NETWORK
from tests.support.anvil import free_port

READY_SECONDS_MAX = 60


def _configuration(database_url: str, node_url: str, port: int, poll_interval_ms: int) -> str:
    token = NETWORK.tokens[0]
    return f"""
listen = "127.0.0.1:{port}"
database_url = "{database_url}"
[log]
level = "warning"
[webhooks]
allow_private_targets = true
[rates.static]
"ETH/USD" = "2500"
"DUSD/USD" = "1"
[networks.{NETWORK.name}]
kind = "evm"
chain_id = {CHAIN_ID}
rpc = ["{node_url}"]
native = {{ symbol = "ETH", decimals = 18 }}
confirmations = 3
poll_interval_ms = {poll_interval_ms}
[networks.{NETWORK.name}.tokens.DUSD]
contract = "{token.contract}"
decimals = {token.decimals}
"""


@contextlib.asynccontextmanager
async def running_server(
    database_url: str, node_url: str, *, poll_interval_ms: int = 1000
) -> AsyncIterator[str]:
    """The URL of a ready `tallystick up`; it is stopped at the end."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tallystick-bench-") as folder:
        config = Path(folder) / "tallystick.toml"
        config.write_text(_configuration(database_url, node_url, port, poll_interval_ms))
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")
        }
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "tallystick"), "up", "--config", str(config), env=environment
        )
        try:
            url = f"http://127.0.0.1:{port}"
            await _until_ready(url, process)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _until_ready(url: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(READY_SECONDS_MAX), aiohttp.ClientSession() as session:
        while True:
            if process.returncode is not None:
                raise RuntimeError("the server ended at start")
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)
