"""The real console script in processes of its own, for the tests of the command line.

Holds true: a process sees only the settings that its test gives, and is gone when its test ends. Nothing is waited for
without a deadline.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

SCRIPT = Path(sys.executable).with_name("tallystick")
# Generous: the machine may be busy with everything else.
DEADLINE_SECONDS = 90.0


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def object(self) -> Any:
        """What `--json` printed: exactly one document."""
        return json.loads(self.out)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The tests' environment without settings of ours, then these."""
    kept = {"TALLYSTICK_ANVIL", "TALLYSTICK_POSTGRES_USER"}
    base = {k: v for k, v in os.environ.items() if not k.startswith("TALLYSTICK_") or k in kept}
    return base | dict(settings)


async def run(*arguments: str, **settings: str) -> Done:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(
        SCRIPT,
        *arguments,
        env=environment(settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


@dataclass
class Server:
    """A running `tallystick up` (or another command that serves)."""

    process: asyncio.subprocess.Process
    url: str

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        await self.process.wait()

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def serving(*arguments: str, **settings: str) -> AsyncIterator[Server]:
    """A server that is ready (`/readyz` answers 200) at the start of the block and stopped at its end."""
    process = await asyncio.create_subprocess_exec(
        SCRIPT,
        *arguments,
        "--json",
        env=environment({"TALLYSTICK_LISTEN": "127.0.0.1:0"} | settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=None,
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            server = Server(process, await _url_from(process))
            await ready(server.url)
        yield server
        await server.stop()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _url_from(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    text = b""
    while line := await process.stdout.readline():
        text += line
        if line.rstrip() == b"}":
            return "http://" + str(json.loads(text)["listen"])
    raise AssertionError(f"the server ended with {await process.wait()} before it was ready")


async def ready(url: str) -> None:
    """Wait until the server is ready. The caller sets the deadline."""
    async with aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"{url}/readyz") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.05)


async def gone(processes: list[psutil.Process]) -> None:
    """Wait until all of these are gone."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while any(_lives(process) for process in processes):
            await asyncio.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(pid: int) -> list[psutil.Process]:
    """A process and everything it started."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]
