"""Two pieces of work at once: two calls of the API, or a call and a worker.

For: `run`. Holds true: one of the two is stopped before one of its statements, inside its transaction; the other one
runs until it is done or waits for a lock that the first one holds; then the first goes on to its end, and then the
other. Only one of the two ever runs, and who waits for whom the database itself says, so the outcome is the seed's and
not the machine's. Whatever they do to each other, the rules hold, and they never wait in a circle.
Must not: decide by time who is next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from enum import Enum
from typing import Any, Final

import asyncpg

from tallystick.chains.simulated.transactions import address_of
from tallystick.db.sql import load
from tallystick.simulation.calls import Response
from tallystick.simulation.chain_actions import next_time
from tallystick.simulation.work_actions import look
from tallystick.simulation.world import Call, Shop, World

SQL: Final = load("simulation")

PAUSES_MAX: Final = 14
LOOK_EVERY_SECONDS: Final = 0.002
IN_PROGRESS: Final = "idempotency_in_progress"


_WITH_MONEY: Final = frozenset(
    {
        "partially_paid",
        "paid",
        "overpaid",
        "underpaid",
        "late_paid",
        "review_required",
        "settled",
        "disputed",
        "refunded",
    }
)
"""Statuses of an invoice that received something."""


class Side(Enum):
    """Which of the two."""

    FIRST = 1
    SECOND = 2

    @property
    def other(self) -> Side:
        """The other one."""
        return Side.SECOND if self is Side.FIRST else Side.FIRST


_side: ContextVar[Side | None] = ContextVar("side", default=None)

Piece = Callable[[], Awaitable[str]]
"""A piece of work; answers in words what came of it."""


class Match:
    """One duel. The first is stopped before its `pause_at`-th statement, or the first one after it in a transaction."""

    def __init__(self, world: World, pause_at: int) -> None:
        self._world = world
        self._pause_at = pause_at
        self._statements = 0
        self._paused = asyncio.Event()
        self._turns = {side: asyncio.Event() for side in Side}
        self._pids: dict[Side, int] = {}

    async def before(self, connection: asyncpg.Connection[Any], query: str) -> None:
        """See `breaking.Referee`."""
        side = _side.get()
        if side is None:
            return
        await self._turns[side].wait()
        self._pids[side] = connection.get_server_pid()
        if side is Side.SECOND or self._paused.is_set():
            return
        self._statements += not query.startswith("BEGIN")
        if self._statements >= self._pause_at and connection.is_in_transaction():
            self._turns[side].clear()
            self._paused.set()
            await self._turns[side].wait()

    async def after(self) -> None:
        """See `breaking.Referee`."""
        side = _side.get()
        if side is not None:
            await self._turns[side].wait()

    async def run(self, first: Piece, second: Piece) -> tuple[str, str]:
        """Have both done; answers what came of each. Raises what either raised."""
        tasks = {
            Side.FIRST: asyncio.create_task(self._alone(Side.FIRST, first)),
            Side.SECOND: asyncio.create_task(self._alone(Side.SECOND, second)),
        }
        self._world.breaker.referee = self
        try:
            side = Side.FIRST
            while not all(task.done() for task in tasks.values()):
                if not tasks[side].done():
                    await self._let(side, tasks[side])
                side = side.other
        finally:
            self._world.breaker.referee = None
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        return tasks[Side.FIRST].result(), tasks[Side.SECOND].result()

    async def _alone(self, side: Side, piece: Piece) -> str:
        _side.set(side)
        await self._turns[side].wait()
        return await piece()

    async def _let(self, side: Side, task: asyncio.Task[str]) -> None:
        """Let one of them run until it is done, stops, or waits for the other."""
        stops = not self._paused.is_set()
        self._turns[side].set()
        stopped = asyncio.create_task(self._paused.wait())
        try:
            while True:
                waited = {task, stopped} if stops and side is Side.FIRST else {task}
                done, _ = await asyncio.wait(
                    waited, timeout=LOOK_EVERY_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if done or await self._waits(side):
                    return
        finally:
            self._turns[side].clear()
            stopped.cancel()

    async def _waits(self, side: Side) -> bool:
        """Whether it waits for a lock that the other one holds. The other one does not move meanwhile."""
        if len(self._pids) < len(Side):
            return False
        async with self._world.database.aside() as connection:
            return bool(
                await SQL.waits_for.value(connection, pid=self._pids[side], holder=self._pids[side.other])
            )


async def duel(world: World) -> str:
    """Two things happen at once that are about the same invoice."""
    world.breaker.rest()
    chance = world.chance
    shop = chance.pick(world.shops)
    listed = await world.get(shop, "/v1/invoices")
    invoices = listed.json()["data"] if listed.ok else []
    paid = [one for one in invoices if one["status"] in _WITH_MONEY]
    if not invoices:
        return "no invoice"
    invoice = chance.pick(paid if paid and not chance.one_in(3) else invoices)
    invoice_id = invoice["id"]
    calls = await _calls(world, shop, invoice)
    if not calls:
        return f"{invoice_id} {invoice['status']} nothing to do"
    first = _called(world, shop, *chance.pick(calls))
    if chance.one_in(4):
        return await _twins(world, first)
    name, piece = _piece(world, first)
    if chance.one_in(2):
        other_name, other = _piece(world, _called(world, shop, *chance.pick(calls)))
    else:
        other_name, other = _work(world)
    if chance.one_in(3):
        name, piece, other_name, other = other_name, other, name, piece
    pause_at = 1 + chance.below(PAUSES_MAX)
    came = await _match(world, pause_at, piece, other)
    return f"{invoice_id} {name} at {pause_at}: {came[0]} | {other_name}: {came[1]}"


async def _match(world: World, pause_at: int, first: Piece, second: Piece) -> tuple[str, str]:
    before = world.breaker.deadlocks
    try:
        return await Match(world, pause_at).run(first, second)
    finally:
        if world.breaker.deadlocks > before:
            world.flaw("deadlock", "", "two pieces of work waited for each other")


async def _calls(world: World, shop: Shop, invoice: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What the merchant may do about an invoice now, whether it is wise or not."""
    note = {"note": "at once"}
    invoice_id, path = invoice["id"], f"/v1/invoices/{invoice['id']}"
    if invoice["status"] not in _WITH_MONEY:
        open_options = [one for one in invoice["payment_options"] if one["status"] == "quoted"]
        return [
            (f"{path}/cancel", {}),
            *[(f"{path}/options/{option['id']}/activate", {}) for option in open_options],
        ]
    refund = {"invoice_id": invoice_id, "rule": "received"}
    number = world.calls + 1
    found: list[tuple[str, dict[str, Any]]] = [
        (f"{path}/fulfillment", {}),
        (f"{path}/dispute", {"reason": "not received", "note": "at once"}),
        ("/v1/refunds", refund | {"reason": f"asked at once in {number}"}),
        (
            "/v1/refunds",
            refund | {"reason": f"asked in {number} at once", "address": address_of("customer 1")},
        ),
    ]
    refunds = await world.get(shop, f"/v1/refunds?invoice_id={invoice_id}")
    for one in refunds.json()["data"] if refunds.ok else []:
        found += [(f"/v1/refunds/{one['id']}/{what}", note) for what in ("approve", "approve", "reject")]
    cases = await world.get(shop, "/v1/exceptions?status=open")
    for case in cases.json()["data"] if cases.ok else []:
        if case["invoice_id"] == invoice_id:
            ways = [{"action": action, **note} for action in ("accept", "refund", "write_off")]
            found += [(f"/v1/exceptions/{case['id']}/resolve", body) for body in ways]
    return found


def _called(world: World, shop: Shop, path: str, body: dict[str, Any]) -> Call:
    world.calls += 1
    asked = Call(shop, path, body, f"call-{world.calls}", None, world.clock.now())
    world.unanswered.append(asked)
    return asked


def _piece(world: World, asked: Call) -> tuple[str, Piece]:
    async def piece() -> str:
        return (await world.repeat(asked)).word

    return "/".join(asked.path.split("/")[2:]), piece


async def _twins(world: World, asked: Call) -> str:
    """The same call twice, under one idempotency key: it is done once, and nobody is told otherwise."""
    answers: list[Response] = []

    async def piece() -> str:
        answers.append(await world.repeat(asked))
        return answers[-1].word

    pause_at = 1 + world.chance.below(PAUSES_MAX)
    first, second = await _match(world, pause_at, piece, piece)
    done = [answer for answer in answers if answer.ok]
    refused = [answer for answer in answers if not answer.ok and IN_PROGRESS not in answer.word]
    if len({answer.body for answer in done}) > 1 or (done and refused):
        world.flaw("one-effect-per-call", asked.key, f"{asked.path} twice at once: {first} and {second}")
    return f"{asked.path} twice at {pause_at}: {first} | {second}"


def _work(world: World) -> tuple[str, Piece]:
    """A worker's turn that may be about the same invoice."""
    chance = world.chance
    place = chance.pick(list(world.places.values()))
    kind = chance.pick(("a block", "a block", "a block", "the standby", "windows", "quotes", "refunds"))
    if kind in ("a block", "the standby"):
        waiting = list(place.chain.mempool)
        time = next_time(world, place)
        place.chain.mine(time, waiting, salt=chance.below(1 << 30))
    follower = place.standby if kind == "the standby" else place.follower

    async def piece() -> str:
        match kind:
            case "windows":
                return str(await world.expirer.batch(place.network.name))
            case "quotes":
                return str(await world.requoter.batch())
            case "refunds":
                return str(await world.refund_watch.batch())
            case _:
                return (await look(world, follower))[0] or "read"

    return f"{kind} of {place.network.name}", piece
