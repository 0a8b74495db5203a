"""A local EVM chain for the demo and the tests: anvil, started, checked and stopped.

Holds true: nothing is written to a chain before the process that we started lives and answers with the chain id that we
gave it (another program may have taken the port); the chain ends with the process that started it.
Must not: be used on the way of a real payment; its accounts' keys are known to the whole world.

The binary is looked for in $TALLYSTICK_ANVIL, on the PATH, and in `node_modules` of the project's folder (`make`
puts it there from package-lock.json).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay, wait_fixed

from tallystick.core.errors import TallystickError
from tallystick.db.child_process import bound_to_us

BINARY_SETTING = "TALLYSTICK_ANVIL"
PLATFORM_PACKAGE_BINARY = Path("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil")
HOST = "127.0.0.1"
# The well-known development words of anvil and Hardhat: the owner of every funded account of the local chain.
MNEMONIC = "test test test test test test test test test test test junk"
START_TIMEOUT_SECONDS = 20.0
STOP_TIMEOUT_SECONDS = 5.0
RPC_TIMEOUT_SECONDS = 60.0
PORT_TRIES = 3


class LocalChainError(TallystickError):
    """The local chain cannot be found, started or used."""

    code = "local_chain_failed"


class _NotYetError(Exception):
    """The chain does not answer yet."""


def free_port() -> int:
    """A TCP port on the loopback interface that was free a moment ago. Check what answers there before trusting it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def find_anvil() -> Path:
    """The anvil binary. Raises LocalChainError, with what to do, when there is none."""
    named = os.environ.get(BINARY_SETTING)
    parents = Path(__file__).resolve().parents
    project = next((parent for parent in parents if (parent / "package.json").exists()), None)
    candidates = [Path(named)] if named else []
    if not named:
        on_path = shutil.which("anvil")
        candidates += [Path(on_path)] if on_path else []
        candidates += [
            folder / PLATFORM_PACKAGE_BINARY for folder in (project, Path.cwd()) if folder is not None
        ]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.resolve()
    raise LocalChainError(
        "The local chain's program, anvil, was not found.",
        object_id=named,
        remedy=f"Run `make run`, which installs it; or `npm ci` in the project's folder; or set {BINARY_SETTING}.",
    )


class Anvil:
    """A running local chain. Made by `start_anvil`."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, chain_id: int, http: aiohttp.ClientSession
    ) -> None:
        self.chain_id = chain_id
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.accounts: tuple[str, ...] = ()
        self._process = process
        self._http = http
        self._last_id = 0

    @property
    def pid(self) -> int:
        """The process id, for tests that stop, freeze or kill the node."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    async def rpc(self, method: str, params: Sequence[Any] = ()) -> Any:
        """One JSON-RPC call: its result. Raises LocalChainError with the node's words when it answers an error."""
        self._last_id += 1
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": list(params)}
        try:
            async with self._http.post(self.url, json=request) as response:
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise LocalChainError(
                f"The local chain did not answer {method}: {error!r}.", object_id=self.url
            ) from error
        if "error" in answer:
            raise LocalChainError(f"The local chain refused {method}: {answer['error']}.", object_id=self.url)
        return answer["result"]

    async def mine(self, blocks: int = 1, *, interval_seconds: int | None = None) -> int:
        """Mines blocks and returns the new height. `interval_seconds` sets their distance in chain time."""
        params = [hex(blocks)] if interval_seconds is None else [hex(blocks), hex(interval_seconds)]
        await self.rpc("anvil_mine", params)
        return await self.height()

    async def height(self) -> int:
        """The height of the newest block."""
        return int(await self.rpc("eth_blockNumber"), 16)

    async def stop(self) -> None:
        """Ends the process; calling it again does nothing."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            self._process.send_signal(how)
            try:
                await asyncio.to_thread(self._process.wait, STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            return


async def _await_ready(anvil: Anvil) -> None:
    """Waits until the process answers with its own chain id. Raises LocalChainError when it dies or is another's."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(_NotYetError),
        wait=wait_fixed(0.01),
        stop=stop_after_delay(START_TIMEOUT_SECONDS),
    ):
        with attempt:
            if not anvil.alive:
                raise LocalChainError("The local chain ended right after its start.", object_id=anvil.url)
            try:
                chain_id = int(await anvil.rpc("eth_chainId"), 16)
            except LocalChainError as error:
                raise _NotYetError from error
            if chain_id != anvil.chain_id or not anvil.alive:
                raise LocalChainError("Another chain answers on the local chain's port.", object_id=anvil.url)
    anvil.accounts = tuple(await anvil.rpc("eth_accounts"))


def _mining(block_time: int | None, automine: bool) -> list[str]:
    if automine:
        return []
    return ["--no-mining"] if block_time is None else ["--block-time", str(block_time)]


@asynccontextmanager
async def start_anvil(
    *,
    chain_id: int,
    block_time: int | None = None,
    automine: bool = False,
    port: int | None = None,
    extra: Sequence[str] = (),
) -> AsyncIterator[Anvil]:
    """Runs a local chain for the length of the block.

    Blocks are mined on demand (`Anvil.mine`); every `block_time` seconds; or, with `automine`, one per
    transaction. Give each chain of one machine its own `chain_id`. `extra` are further arguments of anvil. Without
    a `port` a free one is taken. Raises LocalChainError.
    """
    arguments = ["--silent", "--host", HOST, "--chain-id", str(chain_id), "--mnemonic", MNEMONIC]
    arguments += [*_mining(block_time, automine), *extra]
    timeout = aiohttp.ClientTimeout(total=RPC_TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        # Between our look for a free port and anvil's bind another program may take it: then another port is tried.
        ports = [port] if port is not None else [free_port() for _ in range(PORT_TRIES)]
        anvil = await _start(arguments, ports, chain_id, http)
        try:
            yield anvil
        finally:
            await anvil.stop()


def _launch(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        bound_to_us(command, when_parent_dies=signal.SIGKILL),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us; we stop the chain in our own time
    )


async def _start(
    arguments: Sequence[str], ports: Sequence[int], chain_id: int, http: aiohttp.ClientSession
) -> Anvil:
    """Starts anvil on the first of these ports on which it comes up."""
    program = str(find_anvil())
    problem = LocalChainError("The local chain did not start.")
    for port in ports:
        anvil = Anvil(_launch([program, *arguments, "--port", str(port)]), port, chain_id, http)
        try:
            await _await_ready(anvil)
        except LocalChainError as error:
            await anvil.stop()
            problem = error
        except RetryError as error:
            await anvil.stop()
            problem = LocalChainError(
                f"The local chain did not answer within {START_TIMEOUT_SECONDS:g} s.", object_id=anvil.url
            )
            problem.__cause__ = error
        except BaseException:  # also cancellation: the process must not stay behind
            await anvil.stop()
            raise
        else:
            return anvil
    raise problem
