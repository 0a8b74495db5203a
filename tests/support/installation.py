"""A real `tallystick up` in a process group of its own: started, killed as a power cut would, started again.

For: system tests. Holds true: only the console script and HTTP are used, as a merchant would. Must not: share memory, a
connection or a clock with the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.anvil import free_port
from tests.support.stand import account_key

READY_SECONDS_MAX = 60
TALLYSTICK = str(Path(sys.executable).parent / "tallystick")


@dataclass(frozen=True, slots=True)
class NodeAt:
    """A network of the configuration: its chain, its node's URL, and a DUSD token with six decimals."""

    name: str
    chain_id: int
    url: str
    token: str
    confirmations: int = 3

    def text(self) -> str:
        """The network's part of the TOML file."""
        return f"""
[networks.{self.name}]
kind = "evm"
chain_id = {self.chain_id}
rpc = ["{self.url}"]
native = {{ symbol = "ETH", decimals = 18 }}
confirmations = {self.confirmations}
poll_interval_ms = 100
[networks.{self.name}.tokens.DUSD]
contract = "{self.token}"
decimals = 6
"""


@dataclass(frozen=True, slots=True)
class LitecoindAt:
    """A Litecoin network of the configuration. The URL holds the node's name and password."""

    name: str
    url: str
    confirmations: int = 3

    def text(self) -> str:
        """The network's part of the TOML file."""
        return f"""
[networks.{self.name}]
kind = "bitcoin"
chain = "litecoin-regtest"
rpc = ["{self.url}"]
confirmations = {self.confirmations}
poll_interval_ms = 100
"""


@dataclass(frozen=True, slots=True)
class TronAt:
    """A TRON network of the configuration, with USDT. What the URL holds before the host is an access key."""

    name: str
    chain_id: int
    url: str
    usdt: str

    def text(self) -> str:
        """The network's part of the TOML file."""
        return f"""
[networks.{self.name}]
kind = "tron"
chain_id = {self.chain_id}
rpc = ["{self.url}"]
finality = "finalized"
requests_per_second = 1000
poll_interval_ms = 100
[networks.{self.name}.tokens.USDT]
contract = "{self.usdt}"
decimals = 6
par = "USD"
"""


def configuration(folder: Path, port: int, networks: Sequence[NodeAt | LitecoindAt | TronAt]) -> str:
    """The TOML file."""
    text = f"""
listen = "127.0.0.1:{port}"
data_dir = "{folder / "data"}"
[webhooks]
allow_private_targets = true
[rates.static]
"ETH/USD" = "2500"
"DUSD/USD" = "1"
"LTC/USD" = "100"
"TRX/USD" = "0.25"
"""
    return text + "".join(network.text() for network in networks)


@dataclass(slots=True)
class Installation:
    """One data folder and configuration; the server may run or not."""

    folder: Path
    networks: Sequence[NodeAt]
    others: Sequence[LitecoindAt | TronAt] = ()
    port: int = field(default_factory=free_port)
    api_key: str = ""
    process: asyncio.subprocess.Process | None = None
    starts: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        return self.folder / "tallystick.toml"

    def environment(self) -> dict[str, str]:
        """Our own configuration and nothing of the surroundings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")}
        return kept | {"TALLYSTICK_CONFIG": str(self.config)}

    async def start(self) -> None:
        """Start the server and wait until it is ready."""
        self.config.write_text(configuration(self.folder, self.port, [*self.networks, *self.others]))
        log = (self.folder / f"server-{self.starts}.log").open("wb")
        self.starts += 1
        self.process = await asyncio.create_subprocess_exec(
            TALLYSTICK, "up", stdout=log, stderr=log, env=self.environment(), start_new_session=True
        )
        log.close()
        try:
            await self._ready()
        except TimeoutError:
            last = (self.folder / f"server-{self.starts - 1}.log").read_text()[-3000:]
            await self.kill()
            raise AssertionError(f"the server did not get ready:\n{last}") from None
        except AssertionError:
            await self.kill()
            raise

    async def _ready(self) -> None:
        async with asyncio.timeout(READY_SECONDS_MAX), aiohttp.ClientSession() as session:
            while True:
                assert self.process is not None
                if self.process.returncode is not None:
                    raise AssertionError((self.folder / f"server-{self.starts - 1}.log").read_text()[-3000:])
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """SIGKILL for the server and everything it started, PostgreSQL included: a power cut."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        self.process = None

    async def stop(self) -> None:
        """Ask it to stop, as Ctrl-C does."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGINT)
            await self.process.wait()
            self.process = None

    async def command(self, *arguments: str) -> Any:
        """Run another command on the same installation; answer its JSON."""
        process = await asyncio.create_subprocess_exec(
            TALLYSTICK, *arguments, "--json", env=self.environment(), stdout=-1, stderr=-1
        )
        out, problems = await process.communicate()
        assert process.returncode == 0, problems.decode()
        return json.loads(out)

    async def open_shop(
        self, name: str = "Tally & Sons", *, family: str = "evm", key: str | None = None
    ) -> None:
        """Make a merchant with a wallet while the server runs."""
        made = await self.command("merchant", "create", "--name", name)
        self.api_key = made["api_key"]
        wallet = {"family": family, "account_key": key or account_key(), "label": "main"}
        await self.post("/v1/wallets", wallet)

    def session(self) -> aiohttp.ClientSession:
        """An HTTP session with the shop's key."""
        return aiohttp.ClientSession(self.url, headers={"Authorization": f"Bearer {self.api_key}"})

    async def post(self, path: str, body: Any, *, session: aiohttp.ClientSession | None = None) -> Any:
        """POST and answer the JSON; anything but success fails the test."""
        own = session is None
        session = session or self.session()
        try:
            async with session.post(path, json=body) as answer:
                assert answer.status < 300, await answer.text()
                return await answer.json()
        finally:
            if own:
                await session.close()

    async def get(self, path: str) -> Any:
        """GET and answer the JSON."""
        async with self.session() as session, session.get(path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def all(self, path: str) -> list[Any]:
        """Every object of a list, page by page."""
        found: list[Any] = []
        cursor = ""
        while True:
            mark = "&" if "?" in path else "?"
            page = await self.get(f"{path}{mark}limit=200{cursor}")
            found += page["data"]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"
