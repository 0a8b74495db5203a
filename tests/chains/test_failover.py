"""Failover between nodes by itself, with nodes that answer what a test says and a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from tallystick.chains import failover
from tallystick.chains.failover import Expected, Node, NodePool, Patience, not_found
from tallystick.chains.source import ChainIdentity
from tallystick.core.chain import BlockHeader, BlockRef
from tallystick.core.errors import (
    ConfigurationError,
    SourceError,
    SourceIncomplete,
    SourcesDisagree,
    SourceUnavailable,
    WrongChain,
)

CHAIN, GENESIS, HEIGHT = "main", "genesis", 7


@dataclass(slots=True, kw_only=True, eq=False)
class Scripted(Node):
    """A node that serves what it is told to. `trouble` is raised by whatever it is asked; `hangs`: never answers.

    `heights`: of all blocks that it has, with their hashes; None: it has only the one at `HEIGHT`.
    """

    chain: str = CHAIN
    genesis: str = GENESIS
    hash: str | None = "7a"
    trouble: SourceError | None = None
    hangs: bool = False
    heights: dict[int, str] | None = None
    asked: int = 0

    async def answer(self) -> str:
        """The hash of its block, after everything that may be wrong with it."""
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.trouble is not None:
            raise self.trouble
        if self.hash is None:
            raise not_found(self, HEIGHT)
        return self.hash


class Family:
    """Nodes `a`, `b`, ... behind a pool. `now` is its clock, in seconds."""

    def __init__(
        self, count: int = 2, *, genesis: str | None = None, timeout_seconds: float | None = None
    ) -> None:
        self.now = 0.0
        self.opened = 0
        self.troubled: list[str] = []
        self.node = [Scripted(name) for name in "abc"[:count]]
        self.pool = NodePool[Scripted](
            Expected("net", CHAIN, genesis),
            [node.name for node in self.node],
            self._open,
            read_identity=self._read_identity,
            hash_at=self._hash_at,
            now=lambda: self.now,
            patience=Patience(10.0, timeout_seconds),
            on_trouble=lambda node: self.troubled.append(node.name),
        )

    def _open(self) -> Sequence[Scripted]:
        self.opened += 1
        return self.node

    async def _read_identity(self, node: Scripted) -> ChainIdentity:
        await node.answer()
        return ChainIdentity(node.chain, node.genesis)

    async def _hash_at(self, node: Scripted, height: int) -> str | None:
        if node.heights is not None:
            await node.answer()
            return node.heights.get(height)
        assert height == HEIGHT
        return await node.answer()

    async def ask(self) -> str:
        """Who answered."""

        async def question(node: Scripted) -> str:
            self.pool.note_block(node, header(await node.answer()), HEIGHT)
            return node.name

        return await self.pool.ask(question)


def header(block_hash: str, height: int = HEIGHT) -> BlockHeader:
    """A header of which only the hash and the height matter."""
    return BlockHeader(block_hash, "6a", height, datetime(2026, 1, 1, tzinfo=UTC))


def down(retry_after_seconds: int | None = None) -> SourceUnavailable:
    """What a node raises that is down."""
    return SourceUnavailable("It is down.", retry_after_seconds=retry_after_seconds)


def test_a_pool_needs_a_node() -> None:
    with pytest.raises(ConfigurationError):
        Family(0)


async def test_nodes_are_opened_once_and_on_first_use() -> None:
    family = Family()
    assert [(one.name, one.ok, one.problem) for one in family.pool.states()] == [
        ("a", False, "It has not been asked yet."),
        ("b", False, "It has not been asked yet."),
    ]
    assert family.opened == 0
    await family.ask()
    await family.pool.identity()
    assert family.opened == 1
    assert [one.ok for one in family.pool.states()] == [True, True]


@pytest.mark.parametrize(("retry_after", "seconds"), [(None, 10), (3, 10), (30, 30)])
async def test_a_failed_node_is_asked_last_for_as_long_as_it_takes(
    retry_after: int | None, seconds: int
) -> None:
    """And its chain is compared again before it is used. Bug planted: what the node asks for is not heeded."""
    family = Family()
    family.node[0].trouble = down(retry_after)
    assert await family.ask() == "b"
    assert family.troubled[0] == "a"
    assert family.pool.states()[0].problem == "It is down."
    family.node[0].trouble = None
    family.now = seconds - 0.5
    assert await family.ask() == "b"
    family.now = seconds
    asked = family.node[0].asked
    assert await family.ask() == "a"
    assert family.node[0].asked == asked + 2
    assert family.pool.states()[0].problem is None


async def test_nodes_put_aside_are_asked_before_giving_up_the_next_due_first() -> None:
    family = Family(3)
    for position in (1, 0, 2):
        family.node[position].trouble = down()
        family.now += 1
        family.pool.put_aside(family.node[position], down())
    assert [node.name for node in family.pool.in_order()] == ["b", "a", "c"]
    with pytest.raises(SourceUnavailable):
        family.pool.in_use()
    family.node[2].trouble = None
    assert await family.ask() == "c"


async def test_a_node_that_wants_a_pause_is_not_asked_during_it() -> None:
    """Also where there is no other: a provider suspends for longer whoever goes on asking.

    Bug found: a lone node was asked again at once, and again, whatever pause it asked for.
    """
    family = Family(1)
    (node,) = family.node
    node.trouble = down(30)
    with pytest.raises(SourceUnavailable):
        await family.ask()
    asked, node.trouble = node.asked, None
    for family.now in (0.0, 12.0, 29.5):
        for question in (family.ask, family.pool.identity):
            with pytest.raises(SourceUnavailable, match="It is down") as caught:
                await question()
            assert caught.value.retry_after_seconds == pytest.approx(30 - family.now, abs=0.5)
        await family.pool.confirm_agreement(header("another"))
    assert node.asked == asked
    family.now = 30.0
    assert await family.ask() == "a"


async def test_no_pause_is_longer_than_ten_minutes() -> None:
    """Else one wrong answer would keep a network from being read for a day."""
    family = Family(1)
    family.node[0].trouble = down(86_400)
    with pytest.raises(SourceUnavailable):
        await family.ask()
    family.node[0].trouble = None
    family.now = 600.0
    assert await family.ask() == "a"


async def test_the_first_problem_is_told() -> None:
    family = Family()
    family.node[0].trouble = SourceIncomplete("Half of it is missing.")
    family.node[1].trouble = down()
    with pytest.raises(SourceIncomplete):
        await family.ask()


async def test_a_node_that_lags_is_not_put_aside() -> None:
    family = Family()
    assert await family.ask() == "a"
    family.node[0].hash = None
    assert await family.ask() == "b"
    assert family.pool.states()[0].ok
    assert family.pool.in_use().name == "a"


@pytest.mark.parametrize("wrong", [{"chain": "test"}, {"genesis": "another"}])
async def test_a_wrong_chain_comes_before_all_others(wrong: dict[str, str]) -> None:
    """Bug planted: a node on a wrong chain is one that failed; the other one covers it up."""
    family = Family(genesis=GENESIS)
    await family.pool.identity()
    second = family.node[1]
    second.trouble = down()
    family.node[0].trouble = down()
    with pytest.raises(SourceUnavailable):
        await family.ask()
    for node in family.node:
        node.trouble = None
    for name, value in wrong.items():
        setattr(second, name, value)
    with pytest.raises(WrongChain, match=f"Node b .*{next(iter(wrong.values()))}"):
        await family.pool.identity()
    for _ in range(2):
        with pytest.raises(WrongChain, match="Node b"):
            await family.ask()
    second.chain, second.genesis = CHAIN, GENESIS
    assert await family.ask() in ("a", "b")
    await family.pool.identity()


async def test_the_first_node_says_what_the_first_block_is_where_nobody_else_does() -> None:
    family = Family()
    family.node[1].genesis = "another"
    with pytest.raises(WrongChain, match="another"):
        await family.pool.identity()
    family.node[1].trouble = down()
    assert await family.pool.identity() == ChainIdentity(CHAIN, GENESIS)
    family.node[0].trouble = down()
    with pytest.raises(SourceUnavailable):
        await family.pool.identity()


@pytest.mark.parametrize("timeout_seconds", [None, 5.0])
async def test_any_of_the_others_may_disagree(timeout_seconds: float | None) -> None:
    """Bug planted: the node that named the block is asked instead of the others; nobody disagrees."""
    family = Family(3, timeout_seconds=timeout_seconds)
    family.node[0].trouble = down()
    family.node[1].hash = "7b"
    assert await family.ask() == "b"
    family.node[0].trouble = None
    family.now = 60
    with pytest.raises(SourcesDisagree, match=r"Node a has block 7a where another node has 7b\."):
        await family.pool.confirm_agreement(header("7b"))
    family.node[0].hash = "7b"
    with pytest.raises(SourcesDisagree, match="Node c"):
        await family.pool.confirm_agreement(header("7b"))
    family.node[2].hash = None
    await family.pool.confirm_agreement(header("7b"))


@pytest.mark.parametrize("length", [1, 2, 3, 16, 100])
async def test_a_node_that_is_behind_is_asked_for_its_newest(length: int) -> None:
    """Wherever it stands, it is asked few questions, and what it has there decides.

    Bugs planted: only the newest block is asked about; the search ends beside the newest that it has.
    """
    family = Family()
    assert await family.ask() == "a"
    second = family.node[1]
    await family.pool.identity()
    chain = [BlockRef(f"{height}a", height) for height in range(10, 10 + length)]
    top = header(f"{9 + length}a", 9 + length)
    family.pool.note_head(family.node[0], top)
    for newest in range(9, 10 + length):
        honest = {height: f"{height}a" for height in range(newest + 1)}
        second.heights, second.asked = honest, 0
        await family.pool.confirm_agreement(top, chain[:-1])
        assert second.asked <= 2 + length.bit_length()
        if newest < 10:
            continue
        second.heights = honest | {newest: "another"}
        with pytest.raises(SourcesDisagree, match=f"has block another where another node has {newest}a"):
            await family.pool.confirm_agreement(top, chain[:-1])


async def test_silence_is_no_disagreement_and_is_not_waited_for() -> None:
    family = Family(3, timeout_seconds=0.01)
    assert await family.ask() == "a"
    family.node[1].hangs = True
    family.node[2].trouble = down()
    async with asyncio.timeout(5):
        await family.pool.confirm_agreement(header("7a"))
    assert [one.problem for one in family.pool.states()] == [
        None,
        "The node did not answer in time.",
        "It is down.",
    ]


async def test_a_wrong_chain_is_no_disagreement() -> None:
    family = Family(timeout_seconds=5.0)
    assert await family.ask() == "a"
    family.node[1].chain = "test"
    with pytest.raises(WrongChain):
        await family.pool.confirm_agreement(header("7a"))


async def test_another_height_than_asked_for_is_refused() -> None:
    family = Family()

    async def question(node: Scripted) -> Any:
        return family.pool.note_block(node, header("7a", 6 if node.name == "a" else HEIGHT), HEIGHT)

    assert (await family.pool.ask(question)).height == HEIGHT
    assert not family.pool.states()[0].ok


async def test_origins_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a block whose origin is forgotten the first node is thought to have named it."""
    monkeypatch.setattr(failover, "_ORIGINS_REMEMBERED_MAX", 2)
    family = Family()
    second = family.node[1]
    for name in ("x", "y", "z"):
        family.pool.note_head(second, header(name))
    assert list(family.pool._origins) == ["y", "z"]
    assert second.height == HEIGHT
    with pytest.raises(SourcesDisagree, match="Node a"):
        await family.pool.confirm_agreement(header("z"))
    with pytest.raises(SourcesDisagree, match="Node b"):
        await family.pool.confirm_agreement(header("x"))


async def test_cancelling_an_agreement_leaves_nobody_asking() -> None:
    family = Family(timeout_seconds=60.0)
    assert await family.ask() == "a"
    family.node[1].hangs = True
    before = asyncio.all_tasks()
    task = asyncio.create_task(family.pool.confirm_agreement(header("7a")))
    async with asyncio.timeout(5):
        while family.node[1].asked == 0:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
