"""The whole server is killed while 30 invoices end in every other way than exactly paid (F-HOOK 3, F-API 5, R-CHAIN 6).

Over-, under- and late paid: their blocks are being booked, people resolve what is open, refunds are approved. Each time
`kill -9` comes in the middle. Whoever got no answer asks again under the same idempotency key. Afterwards every
invariant of the database holds, its books included, and each exception, refund, decision and event is there once.
Planted, each seen to fail here: a decision and the answer remembered for its key in a transaction each (its repetition
is refused); the books written in a transaction of their own, a moment later (statuses without entries).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from tallystick.db.embedded import EmbeddedPostgres
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services.context import Context
from tests.support.evm import Chain
from tests.support.installation import Installation
from tests.support.invariants import check_invariants
from tests.support.stand import RATES, until

pytestmark = [pytest.mark.chain, pytest.mark.slow]

EACH = 6  # invoices of each kind
KILL_SECONDS_MAX = 0.4  # a poll and the intake of a block are over by then
AT_ONCE = 6
CONFIRMATIONS = 2
HOME = f"0x{'c0ffee' * 6}0001"
OVER, UNDER, LATE, RULE, EXACT = "over", "under", "late", "rule", "exact"
AMOUNTS = {OVER: 2 * 10**16, UNDER: 5 * 10**15, LATE: 10**16, RULE: 10**16, EXACT: 10**16}
RESOLUTIONS: dict[str, dict[str, Any]] = {
    "overpaid": {"action": "refund", "refund": {"address": HOME}},
    "underpaid": {"action": "refund", "refund": {"address": HOME}},
    "late": {"action": "accept"},
}


async def test_killed_while_endings_are_booked_resolved_and_given_back(
    shop: Installation, chain: Chain
) -> None:
    """One shop through three kinds of interruption; each case and refund decided exactly once."""
    chance = random.Random(20261121)
    invoices = await _create(shop)
    await _pay(chain, [one for kind in (OVER, UNDER, EXACT) for one in invoices[kind]])
    await chain.mine(CONFIRMATIONS)
    await _kill_after(shop, chance.uniform(0, KILL_SECONDS_MAX))

    ends = max(one["expires_at"] for kind in invoices.values() for one in kind)
    await chain.set_next_time(_unix(ends) + 1)
    await chain.mine()
    await _pay(chain, [one for kind in (LATE, RULE) for one in invoices[kind]])
    await chain.mine(CONFIRMATIONS)
    await _kill_after(shop, chance.uniform(0, KILL_SECONDS_MAX))
    booked = {OVER: "overpaid", UNDER: "underpaid", LATE: "late_paid", RULE: "late_paid", EXACT: "paid"}
    await until(lambda: _stand_as(shop, invoices, booked))

    cases = await shop.all("/v1/exceptions")
    assert Counter(case["kind"] for case in cases) == dict.fromkeys(RESOLUTIONS, EACH)
    await _killed_in_the_middle(
        shop,
        [
            (f"/v1/exceptions/{case['id']}/resolve", {"note": "killed meanwhile"} | RESOLUTIONS[case["kind"]])
            for case in cases
        ],
    )
    refunds = await shop.all("/v1/refunds")
    assert Counter(refund["status"] for refund in refunds) == {"requested": 3 * EACH}
    await _killed_in_the_middle(
        shop, [(f"/v1/refunds/{refund['id']}/approve", {"note": "looks right"}) for refund in refunds]
    )
    await until(lambda: _stand_as(shop, invoices, booked | {LATE: "paid"}))
    refunds = await shop.all("/v1/refunds")
    assert Counter(refund["status"] for refund in refunds) == {
        "awaiting_signature": 2 * EACH,
        "approved": EACH,  # by rule: the customer has to give an address
    }
    await shop.stop()
    await _check_once(shop, len(cases), len(refunds))


async def _create(shop: Installation) -> dict[str, list[dict[str, Any]]]:
    async with shop.session() as session:

        async def one(kind: str) -> dict[str, Any]:
            body = {
                "amount": "25.00",
                "currency": "USD",
                "accepted": [{"asset": "ETH", "network": "local"}],
                "late_payment": "refund" if kind == RULE else "review",
                "metadata": {"kind": kind},
            }
            made: dict[str, Any] = await shop.post("/v1/invoices", body, session=session)
            return made

        return {kind: list(await asyncio.gather(*(one(kind) for _ in range(EACH)))) for kind in AMOUNTS}


async def _pay(chain: Chain, invoices: Sequence[dict[str, Any]]) -> None:
    for invoice in invoices:
        amount = AMOUNTS[invoice["metadata"]["kind"]]
        await chain.send_native(invoice["payment_options"][0]["address"], amount)


def _unix(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


async def _kill_after(shop: Installation, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await shop.kill()
    await shop.start()


async def _stand_as(
    shop: Installation, invoices: dict[str, list[dict[str, Any]]], wanted: dict[str, str]
) -> bool:
    found = {one["id"]: one["status"] for one in await shop.all("/v1/invoices")}
    return all(found[one["id"]] == wanted[kind] for kind, made in invoices.items() for one in made)


async def _killed_in_the_middle(shop: Installation, asked: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Ask all of it; the server dies with a third answered and others on their way. Then ask the others again."""
    answered: set[str] = set()
    enough = asyncio.Event()
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> None:
        async with turns:
            try:
                async with session.post(path, json=body, headers={"Idempotency-Key": path[-60:]}) as answer:
                    assert answer.status == 200, await answer.text()
            except aiohttp.ClientError:
                return
            answered.add(path)
            if len(answered) * 3 >= len(asked):
                enough.set()

    async with shop.session() as session:
        running = asyncio.gather(*(one(session, path, body) for path, body in asked))
        await enough.wait()
        await shop.kill()
        await running
    assert len(answered) < len(asked), "nothing was interrupted"
    await shop.start()
    async with shop.session() as session:
        await asyncio.gather(*(one(session, path, body) for path, body in asked if path not in answered))
    assert len(answered) == len(asked)


async def _check_once(shop: Installation, cases: int, refunds: int) -> None:
    """The database at rest: every invariant, and each thing once."""
    async with EmbeddedPostgres(shop.folder / "data").run() as url:
        database = await Database.open(url, connections_max=4)
        try:
            ctx = Context(
                database=database, networks={}, rates=StaticRates(RATES), public_url="http://127.0.0.1"
            )
            await check_invariants(ctx)
            async with database.connection() as connection:
                rows = await connection.fetch("SELECT type, count(*) AS n FROM events GROUP BY type")
                told = {row["type"]: row["n"] for row in rows}
                doubled = await connection.fetch(
                    "SELECT object_id, sequence FROM events GROUP BY object_id, sequence HAVING count(*) > 1"
                )
                decisions = await connection.fetch("SELECT exception_id FROM decisions")
                opened = await connection.fetch("SELECT invoice_id, kind FROM exceptions")
        finally:
            await database.close()
    assert doubled == []
    assert len(set(opened)) == len(opened) == cases
    assert (told["exception.opened"], told["exception.resolved"]) == (cases, cases)
    assert (told["refund.requested"], told["refund.approved"]) == (refunds, refunds)
    assert len(decisions) == len({row["exception_id"] for row in decisions}) == EACH
