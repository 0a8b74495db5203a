"""Commands that run until they are stopped: everything in one process, or one part of it."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Annotated, Final, Self

from cyclopts import Parameter

from tallystick.cli.common import JsonFlag, load_config, print_json, print_object

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

BAR_BLOCKS_MIN: Final = 20  # below that it is over before anybody has read it

ListenOption = Annotated[str | None, Parameter(help="Address and port, instead of the configured one.")]


def up(*, listen: ListenOption = None, json: JsonFlag = False) -> None:
    """Run everything in one process: API, checkout, network followers, webhooks, jobs.

    The database is TALLYSTICK_DATABASE_URL, or an embedded PostgreSQL in the data folder.
    """
    from tallystick.runtime import EVERYTHING

    _serve(EVERYTHING, listen=listen, as_json=json)


def api(*, listen: ListenOption = None, json: JsonFlag = False) -> None:
    """Run the HTTP API and the checkout pages only."""
    from tallystick.runtime import Part

    _serve(frozenset({Part.API}), listen=listen, as_json=json)


def watch(network: str) -> None:
    """Follow one network only.

    Parameters
    ----------
    network
        Its name in the configuration.
    """
    from tallystick.runtime import Part

    _serve(frozenset({Part.FOLLOW}), network=network)


def deliver() -> None:
    """Deliver webhooks only. Any number of these may run."""
    from tallystick.runtime import Part

    _serve(frozenset({Part.DELIVER}))


def jobs() -> None:
    """Run the timed jobs only: what is due by the clock."""
    from tallystick.runtime import Part

    _serve(frozenset({Part.JOBS}))


def migrate(*, json: JsonFlag = False) -> None:
    """Bring the database to the schema of this version. `up` does this by itself."""
    from tallystick.runtime import database_url, migrate_database, run

    config = load_config()

    async def main(_stop: asyncio.Event) -> str:
        async with database_url(config) as url:
            return await migrate_database(url)

    print_object({"revision": run(main)}, as_json=json)


def _serve(
    parts: frozenset[object], *, network: str | None = None, listen: str | None = None, as_json: bool = False
) -> None:
    from dataclasses import replace

    from tallystick.config import parse_listen
    from tallystick.runtime import Part, Ready, run, serve

    started = time.monotonic()
    config = load_config(serving=True)
    if listen is not None:
        host, port = parse_listen(listen)
        config = replace(config, host=host, port=port)

    def on_ready(ready: Ready) -> None:
        seconds = time.monotonic() - started
        if as_json:
            print_json({"url": ready.url, "listen": ready.listen})
        elif ready.listen:
            where = f"Tallystick listens on http://{ready.listen} ({seconds:.1f} s)."
            public = "" if ready.url == f"http://{ready.listen}" else f" Customers reach it at {ready.url}."
            print(f"{where}{public} Ctrl-C stops it.", flush=True)  # noqa: T201
            if not config.networks:
                hint = "No network is configured: `tallystick config` prints a file to begin with."
                print(hint, file=sys.stderr, flush=True)  # noqa: T201
        else:
            print("Running. Ctrl-C stops it.", flush=True)  # noqa: T201

    async def main(stop: asyncio.Event) -> None:
        wanted = frozenset(part for part in parts if isinstance(part, Part))
        with CatchUp() as bars:
            await serve(config, wanted, stop, network=network, on_ready=on_ready, on_progress=bars.show)

    run(main)


class CatchUp:
    """Progress bars on a terminal while networks catch up. Elsewhere nothing is shown; the metrics tell."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._firsts: dict[str, int] = {}
        self._shows = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def show(self, network: str, height: int, head: int) -> None:
        """Told after every block."""
        if not self._shows:
            return
        if network not in self._tasks:
            if head - height < BAR_BLOCKS_MIN:
                return
            self._tasks[network] = self._started().add_task(network, start=True, total=head - height)
            self._firsts[network] = height
        progress, task = self._started(), self._tasks[network]
        progress.update(task, completed=height - self._firsts[network], total=head - self._firsts[network])
        if height >= head:
            progress.remove_task(self._tasks.pop(network))
            if not self._tasks:
                self._end()

    def _started(self) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description} catches up"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("blocks"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        return self._progress

    def _end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
