"""`tallystick simulate`: the whole system against every kind of trouble, repeatably.

Holds true: it works on throw-away databases of its own and touches no configuration, data or network. Must not: hold
rules; the simulation does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from tallystick.cli.common import JsonFlag, console, parts_of, print_json
from tallystick.core.errors import InvalidInput

if TYPE_CHECKING:
    from tallystick.simulation.campaign import Result
    from tallystick.simulation.run import Options, Outcome

SEEDS_MAX = 1_000_000_000
"""As many as time allows."""


def simulate(
    *,
    seed: Annotated[int, Parameter(help="The first seed.", validator=Number(gte=0))] = 1,
    steps: Annotated[int, Parameter(help="Steps for each seed.", validator=Number(gte=1))] = 300,
    seeds: Annotated[
        int, Parameter(help="How many seeds, one after the other.", validator=Number(gte=1))
    ] = 1,
    networks: Annotated[
        int | None,
        Parameter(
            help="How many networks, 1 to 4. Default: the seed's choice.", validator=Number(gte=1, lte=4)
        ),
    ] = None,
    faults: Annotated[
        tuple[str, ...],
        Parameter(
            help="Kinds of trouble: crashes, cuts, nodes, forks, mempool, clocks, receivers, rates; all; none."
        ),
    ] = ("all",),
    jobs: Annotated[int, Parameter(help="Processes to run seeds in.", validator=Number(gte=1, lte=64))] = 1,
    seconds: Annotated[
        float | None, Parameter(help="Begin no further seed after so long.", validator=Number(gt=0))
    ] = None,
    failures: Annotated[Path | None, Parameter(help="Add failing seeds to this file, one line each.")] = None,
    log: Annotated[bool, Parameter(negative="", help="Print every step, with one seed.")] = False,
    json: JsonFlag = False,
) -> int:
    """Run seeds: real services on a real database; simulated networks, people and failures; checked after each step.

    The same seed does the same everywhere: compare the log's hash. Exit code 1 when a rule was broken.
    """
    from tallystick.simulation.run import Options

    options = Options(steps=steps, networks=networks, faults=_faults(faults))
    with _quiet(), _shown(seeds, steps, shown=not json) as shown:
        result = _run(seed, seeds, options, jobs, seconds, log, shown)
    if failures is not None and result.violations:
        _add_failures(failures, result, options)
    report = {
        "seed": seed,
        "seeds": result.seeds,
        "steps": result.steps,
        "steps_per_second": result.steps_per_second,
        "log_hash": result.log_hash,
        "violations": result.violations,
    }
    if json:
        print_json(report)
    else:
        _print(report, result)
    return 1 if result.violations else 0


def _run(
    seed: int,
    seeds: int,
    options: Options,
    jobs: int,
    seconds: float | None,
    log: bool,  # passed on as given
    shown: _Shown,
) -> Result:
    from tallystick.runtime import run
    from tallystick.simulation.campaign import run_apart, run_here

    chosen = range(seed, seed + (seeds if seconds is None or seeds > 1 else SEEDS_MAX))
    if jobs > 1:
        return run_apart(chosen, options, jobs, seconds_max=seconds, on_seed=shown.seed_done)

    async def main(stop: asyncio.Event) -> Result:
        return await run_here(
            chosen,
            options,
            stop,
            seconds_max=seconds,
            keep_log=log,
            on_step=shown.step_done,
            on_seed=shown.seed_done,
        )

    return run(main)


def _faults(given: tuple[str, ...]) -> frozenset[Any]:
    from tallystick.simulation.run import ALL_FAULTS, Fault

    words = parts_of(given)
    if words == ["all"]:
        return ALL_FAULTS
    if words == ["none"]:
        return frozenset()
    unknown = sorted(set(words) - set(Fault))
    if unknown:
        raise InvalidInput.at(
            "/faults", f"unknown: {', '.join(unknown)}; known are {', '.join(Fault)}, all, none"
        )
    return frozenset(Fault(word) for word in words)


@contextmanager
def _quiet() -> Iterator[None]:
    """What the product logs about injected trouble is not for the terminal."""
    from tallystick.observability import configure_logging

    configure_logging("error", "json")
    yield


def _add_failures(file: Path, result: Result, options: Options) -> None:
    """A line for each failing seed: what is needed to see it again, and what was broken."""
    with file.open("a", encoding="utf-8") as lines:
        told: set[int] = set()
        for one in result.violations:
            if one.seed not in told:
                told.add(one.seed)
                where = f"--networks {options.networks} " if options.networks else ""
                faults = ",".join(sorted(options.faults)) or "none"
                command = f"--seed {one.seed} --steps {options.steps} {where}--faults {faults}"
                lines.write(f"{command}  # step {one.step}: {one.rule}\n")


class _Shown:
    """Progress on a terminal; nothing elsewhere."""

    def __init__(self, progress: Any, task: Any, steps: int) -> None:
        self._progress, self._task, self._steps = progress, task, steps
        self._seeds = 0
        self._step = 0

    def step_done(self, step: int) -> None:
        """One step of the seed under way."""
        if self._progress is not None and step % 10 == 0:
            self._progress.update(self._task, completed=self._seeds * self._steps + step)

    def seed_done(self, outcome: Outcome) -> None:
        """One seed came to its end."""
        self._seeds += 1
        if self._progress is not None:
            self._progress.update(
                self._task, completed=self._seeds * self._steps, description=f"seed {outcome.seed}"
            )


@contextmanager
def _shown(seeds: int, steps: int, *, shown: bool) -> Iterator[_Shown]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    errors = Console(stderr=True)
    if not shown or not errors.is_terminal:
        yield _Shown(None, None, steps)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        yield _Shown(progress, progress.add_task("starting", total=seeds * steps), steps)


def _print(report: dict[str, Any], result: Result) -> None:
    out = console()
    for line in result.log:
        out.print(line, markup=False)
    out.print(
        f"{report['seeds']} seeds from {report['seed']}, {report['steps']} steps, "
        f"{report['steps_per_second']} steps/s, log {report['log_hash']}"
    )
    for one in result.violations:
        out.print(
            f"violation: seed {one.seed} step {one.step}: {one.rule} {one.object_id}: {one.detail}",
            markup=False,
        )
    if not result.violations:
        out.print("No rule was broken.")
