"""A small world around one invoice, to be walked exhaustively: two short chains, a mempool, people's decisions.

For: the small-scope test. A `World` is a value; `events` names everything that can happen next and answers the world
after it. Nothing is sampled: the test visits every state that can be reached within a number of events.
Holds true: blocks of the world obey what real chains obey (a transaction stands at most once in a chain, a transaction
and its conflict never both, time never goes back along a chain). Must not: know how the assessment decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tallystick.core.chain import Anchor, BlockRef, Finality, NetworkView, Requirement
from tallystick.core.invoice import (
    Conflict,
    Decisions,
    Facts,
    InvoiceTerms,
    LatePayment,
    OptionTerms,
    Status,
    Tolerance,
    TransferFact,
)
from tallystick.core.money import Price
from tests.core.samples import (
    BETA_TOKEN,
    COIN,
    DEADLINE,
    NOW,
    OTHER_TOKEN,
    TOKEN,
    at,
    option,
    terms,
    transfer,
)

CANCELABLE = frozenset({Status.CREATED, Status.QUOTED, Status.AWAITING_PAYMENT})
FULFILLABLE = frozenset({Status.PAID, Status.OVERPAID, Status.SETTLED})


@dataclass(frozen=True, slots=True)
class Block:
    """What one block of the small world holds: names of transfers, `x` before the name of one it replaces."""

    past_deadline: bool
    holds: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """A best chain above a common root, what was ever seen of it (name to "was late"), and how far it was scanned."""

    blocks: tuple[Block, ...] = ()
    seen: frozenset[tuple[str, bool]] = frozenset()
    scanned_past: bool = False

    @property
    def held(self) -> frozenset[str]:
        """Everything that stands in the best chain now."""
        return frozenset(block.holds for block in self.blocks if block.holds)

    def was_late(self, name: str) -> bool | None:
        """Whether the first evidence was late, or None if there is none."""
        return next((late for known, late in self.seen if known == name), None)

    def mined(self, holds: str = "", *, past: bool = False, drop: int = 0) -> Chain | None:
        """The chain after one more block, in place of the last `drop` ones; None where that is impossible."""
        kept = self.blocks[: len(self.blocks) - drop] if drop else self.blocks
        twin = holds.removeprefix("x") if holds.startswith("x") else f"x{holds}"
        if drop > len(self.blocks) or (holds and any(block.holds in (holds, twin) for block in kept)):
            return None
        late = past or bool(kept and kept[-1].past_deadline)
        seen = self.seen
        if holds and not holds.startswith("x") and self.was_late(holds) is None:
            seen |= {(holds, late)}
        return Chain((*kept, Block(late, holds)), seen, self.scanned_past or late)


@dataclass(frozen=True)
class Setting:
    """What is fixed while a world unfolds: amounts in percent of the price, the late rule, and what may happen.

    `a`, `b` and `l` are transfers of the asked asset; `w` is one of another configured asset. `b` is paid through a
    second option where `beta` or `coin` is set. `mempool` lets `a` be seen outside a block. `tolerances` are those of
    the two options.
    """

    name: str
    amounts: dict[str, int]
    late: LatePayment = LatePayment.REVIEW
    beta: bool = False
    coin: bool = False
    mempool: bool = False
    tolerances: tuple[Tolerance, Tolerance] = (Tolerance(50, 1000), Tolerance(50, 1000))
    zero_conf: bool = False

    @cached_property
    def terms(self) -> InvoiceTerms:
        """What the invoice asks."""
        requirement = Requirement(Finality.DEPTH, 2, zero_conf=self.zero_conf)
        options: list[OptionTerms] = [option(requirement=requirement, tolerance=self.tolerances[0])]
        if self.beta or self.coin:
            asset = BETA_TOKEN if self.beta else COIN
            options.append(
                option(asset, 1000, id="opt_2", requirement=requirement, tolerance=self.tolerances[1])
            )
        return replace(terms(*options, late=self.late), price=Price(10_000, "USD", 2))

    @property
    def b_is_second(self) -> bool:
        """Whether `b` goes to the second option."""
        return self.beta or self.coin


@dataclass(frozen=True, slots=True)
class World:
    """Everything that assessments can see, and the status that was last stored."""

    status: Status
    alpha: Chain = Chain()
    beta: Chain = Chain()
    pending: bool = False
    canceled: bool = False
    fulfilled: bool = False
    closed_before: bool = False

    def facts(self, setting: Setting) -> Facts:
        """The facts as the database would tell them."""
        found: list[TransferFact] = []
        for chain, name in [(self.alpha, "alpha"), (self.beta, "beta")]:
            for known, late in sorted(chain.seen):
                found.append(self._transfer(setting, chain, name, known, late=late))
        views = {"alpha": _view("alpha", self.alpha)}
        if setting.beta:
            views["beta"] = _view("beta", self.beta)
        decisions = Decisions(NOW if self.canceled else None, NOW if self.fulfilled else None)
        return Facts(tuple(found), decisions, views)

    def _transfer(
        self, setting: Setting, chain: Chain, network: str, name: str, *, late: bool
    ) -> TransferFact:
        second = name == "b" and setting.b_is_second
        asset = TOKEN
        if second:
            asset = BETA_TOKEN if setting.beta else COIN
        elif name == "w":
            asset = OTHER_TOKEN
        amount = setting.amounts.get(name, 100) * (10 if second else 1)
        seconds = 60 if late else -60
        return transfer(
            amount,
            *_anchors(chain, name, seconds),
            id=f"trf_{name}",
            asset=asset,
            network=network,
            option_id="opt_2" if second else "opt_1",
            seconds=seconds,
            conflicts=tuple(
                Conflict("0xreplacement", found) for found in _anchors(chain, f"x{name}", seconds)
            ),
            in_mempool=self.pending and name == "a",
        )


def _anchors(chain: Chain, name: str, seconds: int) -> tuple[Anchor, ...]:
    return tuple(
        Anchor(BlockRef(f"0x{height}", height), at(seconds), in_best_chain=True)
        for height, block in enumerate(chain.blocks, start=1)
        if block.holds == name
    )


def _view(name: str, chain: Chain) -> NetworkView:
    tip = BlockRef(f"0x{len(chain.blocks)}", len(chain.blocks))
    return NetworkView(name, tip, at(1 if chain.scanned_past else 0))


def events(world: World, setting: Setting) -> Iterator[tuple[str, World]]:
    """Everything that can happen next: the event's name, and the world after it (its status still the old one)."""
    for name, chain in _alpha_events(world, setting):
        pending = world.pending and not chain.held & {"a", "xa"}
        yield name, replace(world, alpha=chain, pending=pending)
    if setting.mempool:
        yield from _mempool_events(world)
    if setting.beta:
        for name, chain in _mining(world.beta, ("b",), "beta"):
            yield name, replace(world, beta=chain)
    if world.status in CANCELABLE and not world.canceled:
        yield "the merchant cancels", replace(world, canceled=True)
    if world.status in FULFILLABLE and not world.fulfilled:
        yield "the merchant fulfils", replace(world, fulfilled=True)


def _alpha_events(world: World, setting: Setting) -> Iterator[tuple[str, Chain]]:
    replaceable = world.alpha.was_late("a") is not None
    names = ["a", *([] if setting.beta else ["b"]), "w", *(["xa"] if replaceable else [])]
    yield from _mining(world.alpha, names, "alpha")
    late = world.alpha.mined("l", past=True)
    if late is not None:
        yield "late transfer l in a block", late
    for holds in ("", *(name for name in ("a", "xa") if name in names)):
        for drop in (1, 2):
            branch = world.alpha.mined(holds, drop=drop)
            if branch is not None:
                yield f"reorganisation drops {drop}, new branch holds {holds or 'nothing'}", branch


def _mining(chain: Chain, names: Sequence[str], network: str) -> Iterator[tuple[str, Chain]]:
    """An empty block in time or past the deadline, one block for each name, and a reorganisation to an empty block."""
    for holds, past, drop in [
        ("", False, 0),
        ("", True, 0),
        *((name, False, 0) for name in names),
        ("", False, 1),
    ]:
        after = chain.mined(holds, past=past, drop=drop)
        if after is not None and (network == "beta" or drop == 0):
            yield f"{network}: block holds {holds or 'nothing'}{', past the deadline' * past}", after


def _mempool_events(world: World) -> Iterator[tuple[str, World]]:
    if world.pending:
        yield "a vanishes from the mempool", replace(world, pending=False)
    elif not world.alpha.held & {"a", "xa"}:
        late = world.alpha.scanned_past
        first = world.alpha.was_late("a")
        seen = world.alpha.seen if first is not None else world.alpha.seen | {("a", late)}
        yield "a is seen in the mempool", replace(world, pending=True, alpha=replace(world.alpha, seen=seen))


__all__ = ["DEADLINE", "Setting", "World", "events"]
