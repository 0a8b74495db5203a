"""One invoice, a fixed handful of things that happen, and every order in which they can.

For: `test_all_interleavings`. A `World` is a value: what the chain, the mempool and people have done so far, and what
is left to happen. `events` names everything that can happen next. What is possible is what the chain and the services
would allow: a block holds what waits, a fork drops blocks and brings as many others, a person decides only about what
is a case, and what `core.cases.decision_on` makes of it is what is recorded.
Holds true: nothing is drawn; two worlds that differ only in how they came about are equal, so that each is looked at
once, however many orders lead to it. Must not: know how anything is assessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from tallystick.core.assess import Assessment, assess
from tallystick.core.cases import GUIDES, Case, CaseKind, Resolution, decision_on, wanted_cases
from tallystick.core.chain import Anchor, BlockRef, NetworkView
from tallystick.core.invoice import (
    Conflict,
    Decision,
    DecisionKind,
    Decisions,
    Facts,
    InvoiceTerms,
    LatePayment,
    PaymentStatus,
    Status,
    TransferFact,
)
from tallystick.core.money import Price
from tallystick.core.refund import RefundFact, RefundStatus
from tallystick.core.refundable import holding, partly_allowed
from tallystick.core.transitions import EDGES
from tests.core.samples import COIN, NOW, OTHER_TOKEN, TOKEN, TWO_BLOCKS, at, option, terms, transfer

PRICE = 10_000
CANCELABLE = frozenset({Status.CREATED, Status.QUOTED, Status.AWAITING_PAYMENT})
FULFILLABLE = frozenset({Status.PAID, Status.OVERPAID, Status.SETTLED})
REFUND = "r"
"""The refund's own transaction. Others are named after their transfers, `x` before the name of what they replace."""


@dataclass(frozen=True, eq=False)
class Scope:
    """What happens, in whatever order: transfers (percent of the price), blocks, forks, the end of the window, what
    people decide, and after a refund was decided its sending.

    `c` is paid in the coin, through an option of its own; `w` is a transfer of an asset that was not asked for.
    """

    name: str
    amounts: dict[str, int]
    late: LatePayment = LatePayment.REVIEW
    mines: int = 2
    forks: int = 1
    decisions: int = 2
    expiry: bool = True
    refunds: bool = False
    disputes: bool = False

    def __str__(self) -> str:
        return self.name

    @cached_property
    def terms(self) -> InvoiceTerms:
        """What the invoice asks: 100 units of a token or one coin, two blocks deep."""
        options = [option()]
        if "c" in self.amounts:
            options.append(option(COIN, 10**18, id="opt_2"))
        return replace(terms(*options, late=self.late), price=Price(PRICE, "USD", 2))


@dataclass(frozen=True, slots=True)
class Block:
    """A block above the common root: whether its chain time is past the deadline, and what it holds."""

    late: bool
    holds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Refund:
    """A refund that somebody asked for and approved."""

    amount: int
    names: frozenset[str]
    withdraws: bool
    status: RefundStatus = RefundStatus.AWAITING_SIGNATURE


@dataclass(frozen=True, slots=True)
class Known:
    """Everything that was stored and that facts are made of: chain, mempool, first evidence (name, was late), what
    people decided."""

    blocks: tuple[Block, ...] = ()
    waiting: frozenset[str] = frozenset()
    seen: frozenset[tuple[str, bool]] = frozenset()
    scanned_late: bool = False
    recorded: tuple[Decision, ...] = ()
    canceled: bool = False
    fulfilled: bool = False
    settled: bool = False
    refund: Refund | None = None

    @property
    def held(self) -> frozenset[str]:
        """What stands in the best chain."""
        return frozenset[str]().union(*(block.holds for block in self.blocks))

    def facts(self, scope: Scope) -> Facts:
        """The facts as the database would tell them, in one of the orders that tests try."""
        found = tuple(self._transfer(scope, name, late=late) for name, late in sorted(self.seen))
        tip = len(self.blocks)
        view = NetworkView(
            "alpha", BlockRef(f"0x{tip}", tip), at(1 if self.scanned_late else -1), requirement=TWO_BLOCKS
        )
        decided = Decisions(
            NOW if self.canceled else None,
            NOW if self.fulfilled else None,
            NOW if self.settled else None,
            self.recorded,
        )
        return Facts(found, decided, {"alpha": view}, self._refunds())

    def _transfer(self, scope: Scope, name: str, *, late: bool) -> TransferFact:
        return transfer(
            scope.amounts[name] * (10**16 if name == "c" else 1),
            *self._anchors(name),
            id=name,
            asset={"w": OTHER_TOKEN, "c": COIN}.get(name, TOKEN),
            option_id="opt_2" if name == "c" else "opt_1",
            seconds=60 if late else -60,
            conflicts=tuple(Conflict("0xother", one) for one in self._anchors(f"x{name}")),
            in_mempool=name in self.waiting,
        )

    def _refunds(self) -> tuple[RefundFact, ...]:
        if self.refund is None:
            return ()
        asked = self.refund
        return (
            RefundFact(
                "refund",
                asked.status,
                TOKEN,
                asked.amount,
                TWO_BLOCKS,
                asked.names,
                asked.withdraws,
                self._anchors(REFUND),
            ),
        )

    def _anchors(self, name: str) -> tuple[Anchor, ...]:
        return tuple(
            Anchor(BlockRef(f"0x{height}", height), at(60 if block.late else -60), in_best_chain=True)
            for height, block in enumerate(self.blocks, start=1)
            if name in block.holds
        )


@dataclass(frozen=True, slots=True)
class Left:
    """What is left to happen. `late_now`: the window has ended, so blocks are past the deadline from now on."""

    to_pay: frozenset[str]
    mines: int
    forks: int
    decisions: int
    to_expire: bool
    late_now: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """What is known, what is left, the stored status, and which transfers were confirmed once."""

    known: Known
    left: Left
    status: Status = Status.AWAITING_PAYMENT
    counted: frozenset[str] = frozenset()

    @classmethod
    def start(cls, scope: Scope) -> World:
        """Nothing has happened."""
        names = frozenset(scope.amounts)
        return cls(Known(), Left(names, scope.mines, scope.forks, scope.decisions, scope.expiry))


@dataclass(frozen=True, slots=True)
class Looked:
    """Facts, and what follows from them. Worked out once for every set of facts."""

    facts: Facts
    judged: Assessment
    cases: tuple[Case, ...]
    confirmed: frozenset[str]

    @classmethod
    def at(cls, known: Known, scope: Scope) -> Looked:
        """Judge what is known."""
        facts = known.facts(scope)
        judged = assess(scope.terms, facts, NOW)
        confirmed = {one.transfer_id for one in judged.verdicts if one.status is PaymentStatus.CONFIRMED}
        return cls(facts, judged, wanted_cases(scope.terms, facts, judged), frozenset(confirmed))


def events(world: World, scope: Scope, looked: Looked) -> Iterator[tuple[str, Known, Left]]:
    """Everything that can happen next: its name, what is known then, and what is left."""
    known, left = world.known, world.left
    for name in sorted(left.to_pay):
        sent = replace(known, waiting=known.waiting | {name})
        # What was not asked for is told when a block holds it.
        told = sent if name == "w" else _seen(sent, {name}, late=left.late_now)
        yield f"{name} is sent", told, replace(left, to_pay=left.to_pay - {name})
    if left.mines:
        mined = _mined(known, known.waiting, late=left.late_now)
        yield "a block", mined, replace(left, mines=left.mines - 1)
    if left.forks:
        after = replace(left, forks=left.forks - 1)
        for name, forked in _forks(known, late_now=left.late_now):
            yield name, forked, after
    if left.to_expire:
        yield "the window ends", known, replace(left, to_expire=False, late_now=True)
    if known.refund is not None and _unsent(known, known.refund):
        yield "the refund is sent", replace(known, waiting=known.waiting | {REFUND}), left
    if left.decisions:
        after = replace(left, decisions=left.decisions - 1)
        for name, decided in _decisions(world, scope, looked):
            yield name, decided, after


def _unsent(known: Known, refund: Refund) -> bool:
    return refund.status is RefundStatus.AWAITING_SIGNATURE and REFUND not in known.held | known.waiting


def _seen(known: Known, names: frozenset[str] | set[str], *, late: bool) -> Known:
    told = {name for name, _ in known.seen}
    new = {(name, late) for name in names if name not in told and name != REFUND and name[0] != "x"}
    return replace(known, seen=known.seen | new) if new else known


def _mined(known: Known, holds: frozenset[str], *, late: bool) -> Known:
    """After a block with these; it is past the deadline where its parent is."""
    block = Block(late or (bool(known.blocks) and known.blocks[-1].late), holds)
    gone = holds | {name[1:] for name in holds if name[0] == "x"}
    mined = replace(
        known,
        blocks=(*known.blocks, block),
        waiting=known.waiting - gone,
        scanned_late=known.scanned_late or block.late,
    )
    return _seen(mined, holds, late=block.late)


def _forks(known: Known, *, late_now: bool) -> Iterator[tuple[str, Known]]:
    """One or two blocks give way to as many: empty ones, ones with all that was lost, or one with a rival."""
    for depth in (1, 2):
        if depth > len(known.blocks):
            return
        kept, dropped = known.blocks[:-depth], known.blocks[-depth:]
        lost = frozenset[str]().union(*(block.holds for block in dropped))
        back = frozenset(name for name in lost if name[0] != "x")
        bare = replace(known, blocks=kept, waiting=known.waiting | back)
        contents = [("empty", frozenset[str]()), ("with all of it", bare.waiting)]
        contents += [(f"with a rival of {name}", frozenset({f"x{name}"})) for name in sorted(back - {REFUND})]
        for what, holds in contents:
            if not holds and what != "empty":
                continue
            after = _mined(bare, holds, late=late_now)
            for _ in range(depth - 1):
                after = _mined(after, frozenset(), late=late_now)
            yield f"{depth} blocks are replaced, {what}", after
        if late_now and not (kept and kept[-1].late):
            yield (
                f"{depth} blocks are replaced by one of before the deadline",
                _mined(bare, bare.waiting, late=False),
            )


def _decisions(world: World, scope: Scope, looked: Looked) -> Iterator[tuple[str, Known]]:
    known = world.known
    for case in [*looked.cases, *_reversals(world, looked)]:
        for action in GUIDES[case.kind].resolutions:
            yield from _resolved(known, case, action, looked)
    if world.status in CANCELABLE and not known.canceled:
        yield "canceled", replace(known, canceled=True)
    if world.status in FULFILLABLE and not known.fulfilled:
        yield "fulfilled", replace(known, fulfilled=True)
    if world.status in (Status.PAID, Status.OVERPAID) and not known.settled:
        yield "settled", replace(known, settled=True)
    if scope.disputes:
        if looked.facts.decisions.dispute_open:
            yield "dispute resolved", _recorded(known, DecisionKind.RESOLVE_DISPUTE)
        elif Status.DISPUTED in EDGES[world.status]:
            yield "dispute opened", _recorded(known, DecisionKind.OPEN_DISPUTE)
    if scope.refunds:
        yield from _refunds(known, scope, looked)


def _reversals(world: World, looked: Looked) -> Iterator[Case]:
    """What had counted and does not stand is a case of its own, which the services open when they see it happen."""
    lost = world.counted - looked.confirmed
    if lost and world.known.fulfilled:
        yield Case(CaseKind.REVERSED, lost)


def _resolved(known: Known, case: Case, action: Resolution, looked: Looked) -> Iterator[tuple[str, Known]]:
    if action in (Resolution.REFUND, Resolution.ATTACH):
        return
    decision = decision_on(case, action, looked.facts, looked.judged)
    if decision is None or not decision[1]:
        return
    kind, named = decision
    for value in (PRICE // 2, PRICE) if kind is DecisionKind.CREDIT else (None,):
        yield f"{case.kind}: {action} {value or ''}", _recorded(known, kind, named, value)


def _recorded(
    known: Known, kind: DecisionKind, named: frozenset[str] = frozenset(), value: int | None = None
) -> Known:
    one = Decision(len(known.recorded) + 1, kind, named, value)
    return replace(known, recorded=(*known.recorded, one))


def _refunds(known: Known, scope: Scope, looked: Looked) -> Iterator[tuple[str, Known]]:
    """Give back all that stands, or half of it where that is allowed; or give a refund up that nobody sent."""
    if known.refund is None:
        held = holding(scope.terms, looked.facts, TOKEN)
        if held.left:
            names = frozenset(fact.id for fact in held.transfers)
            yield "refund", replace(known, refund=Refund(held.left, names, not looked.judged.sufficient))
            if partly_allowed(scope.terms, looked.judged):
                half = Refund(held.left // 2, frozenset(), withdraws=False)
                yield "refund of a half", replace(known, refund=half)
    elif _unsent(known, known.refund):
        yield "refund given up", replace(known, refund=replace(known.refund, status=RefundStatus.FAILED))
