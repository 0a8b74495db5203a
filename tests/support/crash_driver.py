"""A shop whose server dies at every commit point in turn, and customers and merchants who go on regardless.

For: `tests/system/test_commit_points.py`. Holds true: whoever got no answer asks again with the same idempotency key;
each time the server died, what it left behind is checked before it starts again. Its PostgreSQL goes on running: that
it keeps what was committed when the power goes is shown by `test_kill` and `tests/db/test_embedded.py`.
Must not: know what a point does, or choose when the server dies (`crash_server` does).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from tallystick.services.context import Context
from tests.support.crash_server import AFTER
from tests.support.installation import Installation, NodeAt, configuration
from tests.support.invariants import check_invariants

REPOSITORY = Path(__file__).parents[2]
STEP_SECONDS_MAX = 90.0
POLL_SECONDS = 0.04


@dataclass(slots=True)
class CrashingShop:
    """One installation on a given database. `spared` are the points it does not die at."""

    folder: Path
    networks: Sequence[NodeAt]
    database_url: str
    ctx: Context
    spared: Iterable[str] = ()
    api_key: str = ""
    seconds_ahead: int = 0
    mempool: bool = True
    deaths: int = 0
    replays: dict[str, bool] = field(default_factory=dict)
    _installation: Installation = field(init=False)
    _starter: asyncio.subprocess.Process = field(init=False)
    _session: aiohttp.ClientSession = field(init=False)
    _pid: int | None = None
    _ended: asyncio.Task[int] | None = None

    def __post_init__(self) -> None:
        self._installation = Installation(self.folder, self.networks)

    @property
    def url(self) -> str:
        return self._installation.url

    def died(self) -> list[str]:
        """Every point and side that the server died at, in order."""
        file = self.folder / "died"
        return file.read_text().splitlines() if file.exists() else []

    def loose(self) -> list[str]:
        """Statements that committed outside every point."""
        file = self.folder / "loose"
        return file.read_text().splitlines() if file.exists() else []

    async def __aenter__(self) -> Self:
        self._starter = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.crash_server",
            str(self.folder),
            ",".join(self.spared),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=REPOSITORY,
            env=self._installation.environment() | {"TALLYSTICK_DATABASE_URL": self.database_url},
        )
        self._session = aiohttp.ClientSession(self.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self.kill()
        assert self._starter.stdin is not None
        self._starter.stdin.close()
        await self._starter.wait()

    # -- the server's life

    async def start(self) -> None:
        """Start until it answers: it may die on the way."""
        while True:
            text = configuration(self.folder, self._installation.port, self.networks)
            if not self.mempool:
                text = text.replace("poll_interval_ms", "mempool = false\npoll_interval_ms")
            self._installation.config.write_text(text)
            assert self._starter.stdin is not None
            self._starter.stdin.write(f"{self.seconds_ahead}\n".encode())
            self._pid = int(await self._said("started"))
            self._ended = asyncio.create_task(self._end())
            if await self._is_ready():
                return
            await self._note_death()

    async def _said(self, word: str) -> str:
        assert self._starter.stdout is not None
        line = (await self._starter.stdout.readline()).decode()
        assert line.startswith(word), f"the starter said {line!r}\n{self.log()}"
        return line.split()[1]

    async def _end(self) -> int:
        code = int(await self._said("exited"))
        self._pid = None
        return code

    async def _is_ready(self) -> bool:
        assert self._ended is not None
        async with asyncio.timeout(STEP_SECONDS_MAX):
            while not self._ended.done():
                with contextlib.suppress(aiohttp.ClientError):
                    async with self._session.get("/readyz") as answer:
                        if answer.status == 200:
                            return True
                await asyncio.sleep(POLL_SECONDS)
        return False

    async def _note_death(self) -> None:
        """It ended by itself: at a point, and it left everything in order."""
        assert self._ended is not None
        code = await self._ended
        self.deaths += 1
        assert code == -signal.SIGKILL, f"the server ended with {code}\n{self.log()}"
        assert len(self.died()) == self.deaths, self.died()
        await check_invariants(self.ctx)

    def log(self) -> str:
        """The end of what the server said."""
        return (self.folder / "server.log").read_text()[-4000:]

    async def alive(self) -> None:
        """Start it again if it died."""
        assert self._ended is not None
        if self._ended.done():
            await self._note_death()
            await self.start()

    async def kill(self) -> None:
        """`kill -9` from outside."""
        if self._pid is not None and self._ended is not None and not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            await self._ended
        self.deaths = len(self.died())  # it may have been faster

    async def again(self, *, hours: float = 0, mempool: bool = True) -> None:
        """Killed, and started again later by our clock."""
        await self.kill()
        self.seconds_ahead += int(hours * 3600)
        self.mempool = mempool
        await self.start()

    async def interrupt(self) -> None:
        """Ctrl-C; wait for its end. It may die on the way."""
        assert self._pid is not None
        assert self._ended is not None
        os.kill(self._pid, signal.SIGINT)
        async with asyncio.timeout(STEP_SECONDS_MAX):
            code = await self._ended
        self.deaths = len(self.died())
        assert code in (0, -signal.SIGKILL), self.log()
        await check_invariants(self.ctx)
        await self.start()

    # -- what people do

    async def until(self, condition: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until the answer is something, across every death."""
        async with asyncio.timeout(STEP_SECONDS_MAX):
            while True:
                await self.alive()
                with contextlib.suppress(aiohttp.ClientError):
                    found = await condition()
                    if found:
                        return found
                await asyncio.sleep(POLL_SECONDS)

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """A request of the merchant, repeated with its key until it is answered, and once more after that.

        404 is an answer to DELETE: it was carried out before the server died.
        """
        key = str(uuid.uuid4())
        headers = {"Authorization": f"Bearer {self.api_key}"} | (
            {"Idempotency-Key": key} if method == "POST" else {}
        )
        deaths = self.deaths

        async def attempt() -> tuple[int, bool, Any]:
            async with self._session.request(method, path, json=body, headers=headers, **more) as answer:
                assert answer.status < 300 or (method, answer.status) == ("DELETE", 404), await answer.text()
                replayed = answer.headers.get("Idempotent-Replayed") == "true"
                return answer.status, replayed, await answer.json() if answer.status in (200, 201) else None

        status, replayed, answered = await self.until(attempt)
        if method == "POST":
            died = self.died()[deaths:]
            mine = [line for line in died if line.startswith("api.") and line.endswith(AFTER)]
            assert replayed or not mine, (path, died)  # another death may have taken the answer, too
            again = await self.until(attempt)
            assert again == (status, True, answered), path
        return answered

    async def post(self, path: str, body: Any = None) -> Any:
        return await self.ask("POST", path, body)

    async def form(self, path: str, fields: dict[str, str]) -> None:
        """A form sent from one of our pages by a customer, who sends it again when the page did not load."""

        async def attempt() -> bool:
            async with self._session.post(path, data=fields, allow_redirects=False) as answer:
                assert answer.status == 303, (answer.status, await answer.text())
                return True

        await self.until(attempt)

    async def get(self, path: str) -> Any:
        async def attempt() -> Any:
            headers = {"Authorization": f"Bearer {self.api_key}"}
            async with self._session.get(path, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                return await answer.json()

        return await self.until(attempt)

    async def all(self, path: str) -> list[Any]:
        """Every object of a list."""
        found: list[Any] = []
        cursor = ""
        while True:
            page = await self.get(f"{path}{'&' if '?' in path else '?'}limit=200{cursor}")
            found += page["data"]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    async def invoice_is(self, invoice: dict[str, Any], *statuses: str) -> dict[str, Any]:
        """Wait until an invoice has one of these statuses."""
        return await self._is(f"/v1/invoices/{invoice['id']}", statuses)

    async def refund_is(self, refund: dict[str, Any], *statuses: str) -> dict[str, Any]:
        """Wait until a refund has one of these statuses."""
        return await self._is(f"/v1/refunds/{refund['id']}", statuses)

    async def _is(self, path: str, statuses: tuple[str, ...]) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        async def stands() -> bool:
            nonlocal seen
            seen = await self.get(path)
            return seen["status"] in statuses

        try:
            await self.until(stands)
        except TimeoutError:
            raise AssertionError(f"{path} is {seen.get('status')}, not {statuses}\n{self.log()}") from None
        return seen

    async def died_at(self, point: str) -> None:
        """Wait until the server has died at both sides of a point."""

        async def both() -> bool:
            return sum(line.startswith(f"{point} ") for line in self.died()) == 2

        try:
            await self.until(both)
        except TimeoutError:
            raise AssertionError(f"{point} was not reached: {self.died()[-4:]}\n{self.log()}") from None
