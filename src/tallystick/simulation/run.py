"""The runner: one seed after the other, one step after the other, everything checked after each.

For: `tallystick simulate`, the tests and the soak. Holds true: the next step, what breaks in it, and everything else
comes from the seed; the log's hash covers every step's outcome and how everything stood at the end, so two machines
that agree on it saw the same. A seed stops at its first violation.
Must not: print; progress is told to whoever asks.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

import structlog

from tallystick.services.auditing import Problem, check_invoices, check_whole, touched_since
from tallystick.simulation import (
    chain_actions,
    delivery_actions,
    duels,
    output_actions,
    people_actions,
    prying,
    shop_actions,
    work_actions,
)
from tallystick.simulation.breaking import Break, Died
from tallystick.simulation.checks import SQL, complaints, passing_problems, truth_problems
from tallystick.simulation.settling import settle
from tallystick.simulation.world import Action, World

WHOLE_EVERY: Final = 50
PASSING_EVERY: Final = 10
BREAK_ONE_IN: Final = 8
STATEMENTS_MAX: Final = 30
WORKERS_IDLE_MAX: Final = timedelta(days=60)
"""While the seed decides which worker has a turn, any of them may come late; at the end nothing may be overdue."""


class Fault(StrEnum):
    """Kinds of trouble that can be switched on or off."""

    CRASHES = "crashes"  # the process is killed between any two statements, before or after a commit
    CUTS = "cuts"  # the database connection is lost there
    NODES = "nodes"  # nodes lag, lie and fail
    FORKS = "forks"  # the best chain changes
    MEMPOOL = "mempool"  # transactions are dropped, replaced, or not shown everywhere
    CLOCKS = "clocks"  # our clock jumps
    RECEIVERS = "receivers"  # webhook receivers fail
    RATES = "rates"  # prices jump and go missing


ALL_FAULTS: Final = frozenset(Fault)

# What a seed means depends on every weight and draw here and in the actions. Seeds of planted bugs and of old failures
# are kept (tests/simulation/found.txt, seeds.txt): after a change search them anew, `python -m tools.plants --search`.
_ALWAYS: Final[tuple[tuple[Action, int], ...]] = (
    (chain_actions.mine, 22),
    (work_actions.follow, 40),
    (delivery_actions.deliver, 10),
    (work_actions.expire, 6),
    (work_actions.requote, 3),
    (work_actions.watch_refunds, 2),
    (work_actions.check_balances, 3),
    (work_actions.tidy, 1),
    (work_actions.time_passes, 6),
    (work_actions.resume_networks, 1),
    (work_actions.claim_address, 4),
    (people_actions.pay, 18),
    (people_actions.pay_wrongly, 7),
    (shop_actions.create_invoice, 14),
    (shop_actions.activate, 6),
    (shop_actions.act_on_invoice, 6),
    (shop_actions.resolve_exception, 8),
    (shop_actions.ask_refund, 4),
    (shop_actions.move_refund, 12),
    (shop_actions.change_rules, 1),
    (delivery_actions.subscribe, 8),
    (prying.pry, 5),
    (shop_actions.repeat_unanswered, 3),
    (duels.duel, 8),
)
_WITH_OUTPUTS: Final[tuple[tuple[Action, int], ...]] = (
    (output_actions.move_coins, 6),
    (output_actions.outbid, 14),
    (output_actions.node_restarts, 1),
    (shop_actions.change_rules, 5),
)
"""What happens besides where a network is one of outputs."""

_WITH: Final[dict[Fault, tuple[tuple[Action, int], ...]]] = {
    Fault.CRASHES: ((work_actions.kill, 2),),
    Fault.CUTS: (),
    Fault.NODES: ((chain_actions.node_fault, 6), (chain_actions.nodes_recover, 4)),
    Fault.FORKS: ((chain_actions.reorganise, 6),),
    Fault.MEMPOOL: ((chain_actions.mempool_changes, 3), (chain_actions.mempools_differ, 1)),
    Fault.CLOCKS: ((work_actions.clock_jumps, 2),),
    Fault.RECEIVERS: ((delivery_actions.mood, 4), (delivery_actions.stall, 4)),
    Fault.RATES: ((work_actions.rates_change, 2),),
}


@dataclass(frozen=True, slots=True)
class Options:
    """How a seed is run. `networks` None: as the seed says, from 1 to 3."""

    steps: int = 300
    networks: int | None = None
    faults: frozenset[Fault] = ALL_FAULTS


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never be, and the step after which it was seen. Step 0 is after the dust had settled."""

    seed: int
    step: int
    rule: str
    object_id: str
    detail: str


@dataclass(slots=True)
class Outcome:
    """What a seed showed."""

    seed: int
    steps: int = 0
    log_hash: str = ""
    violations: list[Violation] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)


class Simulator:
    """Runs seeds in one world. `keep_log` keeps the lines as well as their hash."""

    def __init__(self, world: World, options: Options, *, keep_log: bool = False) -> None:
        self._world = world
        self._options = options
        self._keep_log = keep_log
        self._sent = 0  # statements, up to the last look
        actions = list(_ALWAYS)
        for fault in Fault:
            if fault in options.faults:
                actions.extend(_WITH[fault])
        self._usual = self._actions = tuple(actions)
        self._breaks = tuple(
            kind
            for fault, kinds in (
                (Fault.CRASHES, (Break.DIE_BEFORE, Break.DIE_AFTER)),
                (Fault.CUTS, (Break.CUT_BEFORE, Break.CUT_AFTER)),
            )
            if fault in options.faults
            for kind in kinds
        )

    async def run(self, seed: int, *, on_step: Callable[[int], None] | None = None) -> Outcome:
        """One seed, from an empty database to settled dust."""
        world, outcome = self._world, Outcome(seed)
        digest = hashlib.sha256()

        def note(line: str) -> None:
            digest.update(line.encode() + b"\n")
            if self._keep_log:
                outcome.log.append(line)

        with listening(world):
            await world.begin(seed, self._options.networks)
            self._actions = self._usual + (_WITH_OUTPUTS if world.has_outputs else ())
            marker = None
            for step in range(1, self._options.steps + 1):
                name, words = await self._step()
                outcome.steps = step
                outcome.happened[name] += 1
                note(f"{step} {world.clock.now():%H:%M:%S} {name}: {words}")
                problems, marker = await self._look(step, marker)
                if problems:
                    outcome.violations = _violations(seed, step, problems)
                    break
                if on_step is not None:
                    on_step(step)
            else:
                await self._settle()
                problems = [
                    *world.flaws,
                    *complaints(world),
                    *await self._whole(None),
                    *await truth_problems(world),
                ]
                outcome.violations = _violations(seed, 0, problems)
        async with world.database.connection() as connection:
            note(await SQL.digest.value(connection) or "")
        for violation in outcome.violations:
            note(f"{violation.rule} {violation.object_id} {violation.detail}")
        outcome.log_hash = digest.hexdigest()
        return outcome

    async def _settle(self) -> None:
        try:
            await settle(self._world)
        except Exception as error:  # noqa: BLE001  # a defect, whatever it is: the run says where it was
            self._world.flaw("worker-failed", "settle", f"{type(error).__name__}: {error}")

    async def _step(self) -> tuple[str, str]:
        """One action, broken off somewhere if the seed says so. Answers its name and what came of it."""
        world, chance = self._world, self._world.chance
        action = chance.weighted(self._actions)
        name = getattr(action, "__name__", "?")
        if self._breaks and chance.one_in(BREAK_ONE_IN):
            commits = chance.one_in(2)
            world.breaker.arm(
                chance.pick(self._breaks),
                1 + chance.below(3 if commits else STATEMENTS_MAX),
                only_commits=commits,
            )
        try:
            words = await action(world)
        except Died as died:
            world.restart()
            words = f"died at {died}"
        except work_actions.EXPECTED_WHEN_CUT as error:
            if world.breaker.broke_at is None:
                world.flaw("worker-failed", name, f"{type(error).__name__}: {error}")
            words = f"cut off at {world.breaker.broke_at}"
        except Exception as error:  # noqa: BLE001  # a defect, whatever it is: the run says where it was
            world.flaw("worker-failed", name, f"{type(error).__name__}: {error}")
            words = f"failed: {type(error).__name__}"
        finally:
            world.breaker.rest()
        return name, words

    async def _look(self, step: int, marker: Any) -> tuple[list[Problem], Any]:
        """Check what the step touched, now and then everything."""
        world = self._world
        problems = [*world.flaws, *complaints(world)]
        if (
            world.breaker.sent != self._sent
        ):  # else nothing asked the database for anything, so nothing was written
            async with world.database.connection() as connection:
                marker, touched = await touched_since(connection, marker)
                if touched:
                    problems += await check_invoices(connection, world.ctx, touched)
        if step % WHOLE_EVERY == 0:
            async with world.database.connection() as connection:
                problems += await check_whole(connection, world.ctx, patience=WORKERS_IDLE_MAX)
        if step % PASSING_EVERY == 0:
            problems += await passing_problems(world)
        self._sent = world.breaker.sent
        return problems, marker

    async def _whole(self, ids: list[str] | None) -> list[Problem]:
        world = self._world
        async with world.database.connection() as connection:
            _, every = await touched_since(connection, None)
            return [
                *await check_invoices(connection, world.ctx, ids or every),
                *await check_whole(connection, world.ctx),
            ]


def _violations(seed: int, step: int, problems: Iterable[Problem]) -> list[Violation]:
    return [Violation(seed, step, one.rule, one.object_id, one.detail) for one in problems]


class listening:  # noqa: N801  # reads as what it does
    """Meanwhile every error that the product logs is a flaw of the world, unless the database was taken away."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before: dict[str, Any] = {}

    def __enter__(self) -> None:
        self._before = structlog.get_config()
        structlog.configure(processors=[self._hear], cache_logger_on_first_use=False)

    def __exit__(self, *_: object) -> None:
        structlog.configure(**self._before)

    def _hear(self, _logger: Any, method: str, event: Any) -> Any:
        if method in ("error", "exception", "critical") and self._world.breaker.broke_at is None:
            self._world.flaw("error-logged", str(event.get("event")), str(event.get("exc_info") or event))
        raise structlog.DropEvent


@dataclass(slots=True)
class Rate:
    """How fast it goes."""

    began: float = field(default_factory=time.perf_counter)
    steps: int = 0

    @property
    def steps_per_second(self) -> float:
        """Steps done so far over the time they took."""
        return self.steps / max(1e-9, time.perf_counter() - self.began)
