"""Ten thousand random histories: the end does not depend on the way, and every step on the way is legal.

`test_order_does_not_matter` draws sets of facts, tells them in two random orders with repetitions, and writes the
status after each as the one writer does. `test_people_and_chains` lets the chain and people do anything that the
services would let them do, in any order: pay, reorganise, replace, expire, accept, credit, dismiss, keep, dispute,
refund, settle.

Planted bugs seen to fail: `_unique` left out (repetition); `sorted` left out of `_standing_groups`, so that the order
in which decisions are told decides; DISPUTED -> CONFIRMING left out of EDGES; a completed refund judged before the
dispute; the question about a reversal left out; REFUNDED left with {REVIEW_REQUIRED} as its only edge.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from tallystick.core.assess import Assessment, assess
from tallystick.core.cases import wanted_cases
from tallystick.core.chain import Finality, NetworkView, Requirement, Trait
from tallystick.core.invoice import (
    Conflict,
    Decision,
    DecisionKind,
    Decisions,
    EarlierQuote,
    Facts,
    InvoiceTerms,
    LatePayment,
    Match,
    PaymentStatus,
    Status,
    TransferFact,
)
from tallystick.core.refund import RefundFact, RefundStatus
from tallystick.core.shares import LIVE
from tallystick.core.transitions import EDGES, steps
from tests.core.samples import (
    COIN,
    NOW,
    OTHER_TOKEN,
    TWO_BLOCKS,
    anchor,
    at,
    option,
    terms,
    transfer,
    view,
)

HISTORIES = 10_000
CHUNKS = 4  # so that several processes can share the work
AMOUNTS = (1, 20, 50, 60, 100, 130)
S = Status


def asked(rng: random.Random) -> InvoiceTerms:
    """One or two options, sometimes quoted again, sometimes with zero confirmations."""
    at_sight = rng.random() < 0.1
    accepted = frozenset({Trait.REPLACEABLE}) if at_sight and rng.random() < 0.5 else frozenset[Trait]()
    requirement = Requirement(Finality.DEPTH, rng.choice((1, 2, 3)), at_sight, accepted)
    first = option(requirement=requirement)
    if rng.random() < 0.3:
        first = replace(first, earlier=(EarlierQuote(120, at(-60)), EarlierQuote(90, at(-30))))
    second = option(COIN, 10**18, id="opt_2", requirement=requirement)
    options = (first, second) if rng.random() < 0.5 else (first,)
    return terms(*options, late=rng.choice(list(LatePayment)))


def some_transfer(rng: random.Random, wanted: InvoiceTerms, name: int) -> TransferFact:
    """A transfer of any kind, as it stands in the end."""
    chosen = rng.choice(wanted.options)
    asset = OTHER_TOKEN if rng.random() < 0.15 else chosen.asset
    amount = rng.choice(AMOUNTS) * (10**16 if asset is COIN else 1)
    seconds = rng.choice((-90, -45, -1, 0, 1, 90))
    height = rng.randint(1, 10)
    fate = rng.choice(("block", "block", "block", "gone", "mempool", "moved", "replaced"))
    gone = anchor(height, best=False, seconds=seconds, name=f"0xgone{name}")
    there = anchor(min(10, height + 1), seconds=seconds + 5)
    fact = transfer(
        amount,
        *{"block": (there,), "moved": (gone, there), "gone": (gone,)}.get(fate, ()),
        id=f"trf_{name}",
        asset=None if rng.random() < 0.05 else asset,
        option_id=chosen.id,
        seconds=seconds,
        in_mempool=fate == "mempool",
        conflicts=(Conflict("0xother", anchor(9)),) if fate == "replaced" else (),
    )
    traits = frozenset({rng.choice(list(Trait))}) if rng.random() < 0.2 else frozenset[Trait]()
    return replace(fact, internal=rng.random() < 0.05, traits=traits)


@dataclass
class Teller:
    """Tells facts one after the other, and writes the status after each as the one writer does."""

    terms: InvoiceTerms
    status: Status = S.AWAITING_PAYMENT
    way: list[Status] = field(default_factory=list)

    def tell(self, facts: Facts) -> Assessment:
        judged = assess(self.terms, facts, NOW)
        stops = steps(self.status, judged.status, late=judged.late)
        for start, stop in zip((self.status, *stops), stops, strict=False):
            assert stop in EDGES[start]
        self.way += stops
        self.status = judged.status
        wanted_cases(self.terms, facts, judged)
        return judged


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_order_does_not_matter(chunk: int) -> None:
    for seed in range(chunk, HISTORIES, CHUNKS):
        rng = random.Random(seed)
        wanted = asked(rng)
        whole = [some_transfer(rng, wanted, name) for name in range(rng.randint(1, 5))]
        scanned = rng.choice((-30, 1))
        ends = [_told(rng, wanted, whole, scanned) for _ in range(2)]
        assert ends[0] == ends[1], f"seed {seed}"


def _told(
    rng: random.Random, wanted: InvoiceTerms, whole: list[TransferFact], scanned: int
) -> tuple[Assessment, tuple[object, ...]]:
    order = whole + rng.sample(whole, rng.randint(0, len(whole)))
    rng.shuffle(order)
    teller = Teller(wanted)
    closes_at = rng.randint(0, len(order))
    facts = Facts((), Decisions(), {})
    for told in range(1, len(order) + 1):
        # Before the window ends chain time has not passed the deadline; transfers after it cannot be known yet, but a
        # second network or a late sighting may tell them in any order, so nothing is left out here.
        until = scanned if told >= closes_at else -30
        facts = Facts(tuple(order[:told]), Decisions(), {"alpha": view(scanned=until)})
        judged = teller.tell(facts)
    facts = replace(facts, networks={"alpha": view(scanned=scanned)})
    judged = teller.tell(facts)
    return judged, wanted_cases(wanted, facts, judged)


@dataclass
class People:
    """One invoice, its chain and the people around it. Each method is one thing that can happen next."""

    rng: random.Random
    terms: InvoiceTerms
    teller: Teller
    tip: int = 3
    scanned: int = -30
    transfers: dict[str, TransferFact] = field(default_factory=dict)
    decisions: Decisions = field(default_factory=Decisions)
    refunds: dict[str, RefundFact] = field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        views: dict[str, NetworkView] = {"alpha": view(self.tip, scanned=self.scanned)}
        return Facts(tuple(self.transfers.values()), self.decisions, views, tuple(self.refunds.values()))

    def pay(self) -> None:
        name = len(self.transfers)
        if name < 4:
            fact = some_transfer(self.rng, self.terms, name)
            seconds = 60 if self.scanned > 0 else -60
            fact = replace(
                fact,
                first_evidence_at=at(seconds),
                anchors=(anchor(self.tip, seconds=seconds, name=f"0x{name}-{self.tip}"),),
                conflicts=(),
                in_mempool=False,
            )
            self.transfers[fact.id] = fact

    def see(self) -> None:
        self.pay()
        if self.transfers:
            last = list(self.transfers)[-1]
            self.transfers[last] = replace(self.transfers[last], anchors=(), in_mempool=True)

    def mine(self) -> None:
        self.tip += self.rng.randint(1, 3)

    def close(self) -> None:
        self.scanned = 1

    def reorganise(self) -> None:
        """Some transfers leave the best chain; a refund's own transaction may as well."""
        for name, fact in self.transfers.items():
            if self.rng.random() < 0.5:
                self.transfers[name] = replace(
                    fact,
                    anchors=tuple(replace(one, in_best_chain=False) for one in fact.anchors),
                    in_mempool=self.rng.random() < 0.3,
                    conflicts=(Conflict("0xother", anchor(self.tip)),) if self.rng.random() < 0.2 else (),
                )
        for name, refund in self.refunds.items():
            if self.rng.random() < 0.3:
                gone = tuple(replace(one, in_best_chain=False) for one in refund.anchors)
                self.refunds[name] = replace(refund, anchors=gone)

    def mine_again(self) -> None:
        for name, fact in self.transfers.items():
            if not any(one.in_best_chain for one in fact.anchors) and self.rng.random() < 0.7:
                there = anchor(self.tip, name=f"0x{name}-{self.tip}-{len(fact.anchors)}")
                self.transfers[name] = replace(
                    fact, anchors=(*fact.anchors, there), conflicts=(), in_mempool=False
                )

    def cancel(self) -> None:
        if self.teller.status in (S.CREATED, S.QUOTED, S.AWAITING_PAYMENT):
            self.decisions = replace(self.decisions, canceled_at=NOW)

    def fulfil(self) -> None:
        if self.teller.status in (S.PAID, S.OVERPAID, S.SETTLED):
            self.decisions = replace(self.decisions, fulfilled_at=NOW)

    def settle(self) -> None:
        if self.teller.status in (S.PAID, S.OVERPAID):
            self.decisions = replace(self.decisions, settled_at=NOW)

    def dispute(self) -> None:
        if self.decisions.dispute_open:
            self._decide(DecisionKind.RESOLVE_DISPUTE, frozenset())
        elif S.DISPUTED in EDGES[self.teller.status]:
            self._decide(DecisionKind.OPEN_DISPUTE, frozenset())

    def resolve(self) -> None:
        """What `resolve` may do about any open case."""
        judged = assess(self.terms, self.facts, NOW)
        cases = wanted_cases(self.terms, self.facts, judged)
        if cases:
            case = self.rng.choice(cases)
            kind = self.rng.choice((DecisionKind.ACCEPT, DecisionKind.CREDIT, DecisionKind.DISMISS))
            if case.kind == "overpaid":
                kind = DecisionKind.KEEP
            elif case.kind == "unsupported_token":
                kind = DecisionKind.DISMISS
            self._decide(kind, case.transfer_ids)

    def decide_again(self) -> None:
        """A second word about the same transfers: the last one holds."""
        counted = (DecisionKind.ACCEPT, DecisionKind.CREDIT)
        before = [one.transfer_ids for one in self.decisions.recorded if one.kind in counted]
        if before and self.decisions.settled_at is None:
            self._decide(self.rng.choice(counted), self.rng.choice(before))

    def dismiss_reversal(self) -> None:
        if self.teller.status is S.REVIEW_REQUIRED:
            live = {v.transfer_id for v in self._judged().verdicts if v.status is PaymentStatus.CONFIRMED}
            self._decide(DecisionKind.DISMISS, frozenset(self.transfers) - live)

    def refund(self) -> None:
        confirmed = [
            verdict.transfer_id
            for verdict in self._judged().verdicts
            if verdict.status is PaymentStatus.CONFIRMED and verdict.match is Match.MATCHED
        ]
        spoken = frozenset[str]().union(*(one.transfer_ids for one in self.refunds.values()))
        free = [self.transfers[one] for one in sorted(frozenset(confirmed) - spoken)]
        if free and len(self.refunds) < 2:
            asset = free[0].asset
            assert asset is not None
            named = [fact for fact in free if fact.asset == asset]
            name = f"rfd_{len(self.refunds)}"
            self.refunds[name] = RefundFact(
                name,
                RefundStatus.AWAITING_SIGNATURE,
                asset,
                sum(fact.amount for fact in named),
                TWO_BLOCKS,
                frozenset(fact.id for fact in named),
                withdraws=self.teller.status not in (S.PAID, S.OVERPAID, S.SETTLED),
            )

    def send_refund(self) -> None:
        for name, refund in self.refunds.items():
            if not any(one.in_best_chain for one in refund.anchors):
                there = anchor(self.tip, name=f"0xr{name}-{self.tip}-{len(refund.anchors)}")
                self.refunds[name] = replace(refund, anchors=(*refund.anchors, there))

    def fail_refund(self) -> None:
        for name, refund in self.refunds.items():
            if not refund.anchors:
                self.refunds[name] = replace(refund, status=RefundStatus.FAILED)

    def _judged(self) -> Assessment:
        return assess(self.terms, self.facts, NOW)

    def _decide(self, kind: DecisionKind, named: frozenset[str]) -> None:
        value = self.rng.choice((100, 5_000, 10_000)) if kind is DecisionKind.CREDIT else None
        one = Decision(len(self.decisions.recorded) + 1, kind, named, value)
        self.decisions = replace(self.decisions, recorded=(*self.decisions.recorded, one))


def _nexts(people: People) -> list[Callable[[], None]]:
    return [
        *(people.pay, people.pay, people.mine, people.mine, people.close, people.see, people.reorganise),
        *(people.mine_again, people.cancel, people.fulfil, people.settle, people.dispute, people.resolve),
        *(people.resolve, people.dismiss_reversal, people.refund, people.send_refund, people.fail_refund),
        people.decide_again,
    ]


def _next(people: People, nexts: list[Callable[[], None]]) -> Callable[[], None]:
    """Anything; half of the time what leads further into the rare corners."""
    if people.rng.random() < 0.5:
        if people.teller.status is S.REFUNDED:
            return people.rng.choice((people.reorganise, people.pay, people.mine_again))
        if people.refunds:
            return people.rng.choice((people.send_refund, people.mine))
        if people.transfers and people.teller.status in (S.PAID, S.OVERPAID, S.UNDERPAID, S.LATE_PAID):
            return people.rng.choice((people.refund, people.resolve, people.reorganise))
    return people.rng.choice(nexts)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_people_and_chains(chunk: int) -> None:
    """Every status is reached, none by an illegal step, and the order in which facts are listed never matters."""
    reached: set[Status] = set()
    for seed in range(chunk, HISTORIES, 2 * CHUNKS):
        rng = random.Random(seed)
        wanted = asked(rng)
        people = People(rng, wanted, Teller(wanted))
        nexts = _nexts(people)
        names: list[str] = []
        judged = people.teller.tell(people.facts)
        for _ in range(rng.randint(4, 14)):
            move = _next(people, nexts)
            names.append(move.__name__)
            move()
            judged = people.teller.tell(people.facts)
            _check(people, judged, f"seed {seed}: {names}")
        reached |= set(people.teller.way)
        assert _shuffled(rng, people) == judged, f"seed {seed}: {names}"
    assert reached == set(Status) - {S.CREATED, S.QUOTED}


def _shuffled(rng: random.Random, people: People) -> Assessment:
    facts = people.facts
    transfers = [*facts.transfers, *facts.transfers]
    recorded = list(facts.decisions.recorded)
    rng.shuffle(transfers)
    rng.shuffle(recorded)
    decisions = replace(facts.decisions, recorded=tuple(recorded))
    other = Facts(tuple(transfers), decisions, facts.networks, tuple(reversed(facts.refunds)))
    return assess(people.terms, other, NOW)


def _check(people: People, judged: Assessment, said: str) -> None:
    """What holds whatever happened."""
    status, decisions = judged.status, people.decisions
    assert (status is S.DISPUTED) == decisions.dispute_open, said
    if status is S.SETTLED:
        assert decisions.settled_at is not None, said
    if status in (S.PAID, S.OVERPAID):
        assert judged.sufficient, said
        assert any(verdict.status is PaymentStatus.CONFIRMED for verdict in judged.verdicts), said
    if status is S.REFUNDED:
        live = {verdict.transfer_id for verdict in judged.verdicts if verdict.status in LIVE}
        done = {one.refund_id for one in judged.refunds if one.status is RefundStatus.COMPLETED}
        back = frozenset[str]().union(*(people.refunds[name].transfer_ids for name in done))
        assert back & live, said
    if status is S.CANCELED:
        assert decisions.canceled_at is not None, said
    if decisions.fulfilled_at is not None and not judged.sufficient:
        standing = {v.transfer_id for v in judged.verdicts if v.status is PaymentStatus.CONFIRMED}
        dismissed = decisions.named(DecisionKind.DISMISS)
        value = {
            fact.id
            for fact in people.transfers.values()
            if fact.asset is not None and not fact.internal and not people.terms.is_dust(fact)
        }
        if value - standing - dismissed and not decisions.dispute_open:
            assert status in (S.REVIEW_REQUIRED, S.REFUNDED), said
    if decisions.settled_at is not None:
        assert status in (S.SETTLED, S.REVIEW_REQUIRED, S.DISPUTED, S.REFUNDED), said
