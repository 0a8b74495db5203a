"""Fee rates: asked now and then, written down, and nobody's trouble when a node does not say.

Planted bugs seen to fail: an error that ends the follower's turn; a node asked at every look; no answer written over
one that was known.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast

import pytest

from tallystick.chains.source import Source
from tallystick.core.errors import SourceUnavailable
from tallystick.services.context import Context
from tallystick.workers.fees import ASK_EVERY_SECONDS, FeeWatch
from tests.support.app import running_api

NETWORK = "ethereum"


class Node:
    """A source that says fees, as told."""

    def __init__(self, *answers: int | Exception | None) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def fee_rate(self) -> int | None:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Silent:
    """A source of a family that has no such thing."""


@pytest.fixture
async def ctx(database_url: str) -> AsyncIterator[Context]:
    async with running_api(database_url) as api:
        yield api.ctx


def watch(ctx: Context, source: Any, times: list[float]) -> FeeWatch:
    moved = replace(ctx, monotonic=lambda: times[-1])
    return FeeWatch(moved, ctx.networks[NETWORK], cast("Source", source))


async def known(ctx: Context) -> tuple[int | None, bool]:
    async with ctx.database.connection() as connection:
        row = await connection.fetchrow("SELECT fee_rate, fee_rate_at FROM networks WHERE name = $1", NETWORK)
    assert row is not None
    rate: Decimal | None = row["fee_rate"]
    return None if rate is None else int(rate), row["fee_rate_at"] is not None


async def test_it_is_asked_every_few_minutes_and_written_down(ctx: Context) -> None:
    node, times = Node(12_345, 20_000), [0.0]
    fees = watch(ctx, node, times)
    assert await known(ctx) == (None, False)
    for _ in range(3):
        await fees.look()
    assert (node.asked, await known(ctx)) == (1, (12_345, True))
    times.append(ASK_EVERY_SECONDS - 1)
    await fees.look()
    assert node.asked == 1
    times.append(ASK_EVERY_SECONDS)
    await fees.look()
    assert (node.asked, await known(ctx)) == (2, (20_000, True))


async def test_a_node_that_does_not_say_changes_nothing(ctx: Context) -> None:
    node, times = Node(12_345, None, SourceUnavailable("The node is silent."), 9_999), [0.0]
    fees = watch(ctx, node, times)
    for number in range(3):
        times.append(number * ASK_EVERY_SECONDS)
        await fees.look()
        assert await known(ctx) == (12_345, True)
    times.append(3 * ASK_EVERY_SECONDS)
    await fees.look()
    assert (node.asked, await known(ctx)) == (4, (9_999, True))


async def test_other_families_are_not_asked(ctx: Context) -> None:
    await watch(ctx, Silent(), [0.0]).look()
    assert await known(ctx) == (None, False)
