"""Every state under every event: the assessment and the transition table, walked exhaustively in a small world.

All sequences of up to LENGTH events of `tests.core.world` are covered: worlds that look the same to the assessment are
visited once, which changes nothing, because the assessment sees facts only. After each event the invoice is assessed as
the one writer would do it, and every promise of `core.assess` and `core.transitions` is checked.

Each promise was seen to fail with a planted bug:
- confirmed value: `in_time.in_blocks` in place of `in_time.confirmed` in the first question of `_status`;
- fulfilled is never silently unpaid: the question about fulfilment removed;
- never verdicts ahead of the deadline: `closed` ignored for late money (found as a real defect: with two networks, late
  money on one led to `underpaid` while the other could still bring money in time, and from there to an illegal step);
- closed stays closed: `scanned_until` of the small world set back by a reorganisation;
- wakeups: `- 1` removed from `final_at_height`; the window's wakeup left out;
- more money never hurts: the strictest tolerance of all paid options required of the whole sum (a real defect as well).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import pytest

from tallystick.core.assess import Assessment, Marker, assess
from tallystick.core.invoice import LatePayment, Match, PaymentStatus, Status, Tolerance
from tallystick.core.transitions import EDGES, steps
from tests.core.samples import NOW
from tests.core.world import Setting, World, events

LENGTH = 4
S = Status
ASSUMED_OVER = {S.EXPIRED, S.UNDERPAID, S.LATE_PAID}
WINDOW_OPEN = {S.AWAITING_PAYMENT, S.PARTIALLY_PAID}
STRICT, LENIENT = Tolerance(0, 0), Tolerance(2000, 3000)
PARTS = {"a": 60, "b": 50, "l": 100}
WHOLE = {"a": 100, "b": 20, "l": 40}

SETTINGS = [
    *(Setting(f"parts, late {rule}", PARTS, late=rule) for rule in LatePayment),
    *(Setting(f"whole, late {rule}", WHOLE, late=rule) for rule in LatePayment),
    Setting("a late part", {"a": 60, "b": 20, "l": 30}, late=LatePayment.ACCEPT),
    Setting("two networks, parts", {"a": 40, "b": 30, "l": 50}, beta=True),
    Setting("two networks, whole, accept", WHOLE | {"b": 100, "l": 100}, beta=True, late=LatePayment.ACCEPT),
    Setting("mempool", WHOLE, mempool=True),
    Setting("mempool counts", WHOLE, mempool=True, zero_conf=True),
    Setting("lenient and strict option", {"a": 85, "b": 1, "l": 10}, coin=True, tolerances=(LENIENT, STRICT)),
]


@dataclass
class Walk:
    """What a walk saw: how often which edge was written, and how many events were played."""

    events_played: int = 0
    worlds: int = 0
    edges: set[tuple[Status, Status]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Said:
    """Names the step in a failure; written out only then, because writing costs more than judging."""

    setting: Setting
    before: World
    event: str
    status: Status

    def __str__(self) -> str:
        return f"{self.setting.name}: {self.before} -- {self.event} --> {self.status}"


def walk(setting: Setting, length: int = LENGTH) -> Walk:
    """Play every event in every world that `length` events can lead to."""
    found = Walk()
    start = World(S.AWAITING_PAYMENT)
    depth = {start: 0}
    waiting = deque([start])
    while waiting:
        world = waiting.popleft()
        found.worlds += 1
        if depth[world] == length:
            continue
        for event, after in events(world, setting):
            found.events_played += 1
            reached = _judged(setting, world, event, after, found)
            if reached not in depth:
                depth[reached] = depth[world] + 1
                waiting.append(reached)
    return found


def _judged(setting: Setting, before: World, event: str, world: World, found: Walk) -> World:
    """Assess the world as the one writer does, check every promise, answer it with its new status."""
    terms, known = setting.terms, world.facts(setting)
    judged = assess(terms, known, NOW)
    said = _Said(setting, before, event, judged.status)
    way = steps(before.status, judged.status, late=judged.late)
    assert not way or way[-1] is judged.status, said
    for start, stop in zip((before.status, *way), way, strict=False):
        assert stop in EDGES[start], said
        found.edges.add((start, stop))
    closed = world.closed_before or bool(ASSUMED_OVER & set(way))
    if not judged.window_closed and not world.canceled:
        assert not ASSUMED_OVER & set(way), f"a verdict ahead of the deadline: {said}"
    if closed:
        assert not WINDOW_OPEN & set(way), f"a closed window was opened: {said}"
    _check_money(setting, world, judged, said)
    _check_wakeups(setting, world, judged, said)
    return replace(world, status=judged.status, closed_before=closed)


def _check_money(setting: Setting, world: World, judged: Assessment, said: _Said) -> None:
    counted = confirmed_percent(setting, world, judged)
    assert judged.amount_paid == counted, said  # the price is 100.00, so a percent is 100 of its units
    if judged.status in (S.PAID, S.OVERPAID):
        assert counted >= min(9_950, 10_000 - setting.tolerances[0].under_bps), said
    if world.fulfilled:
        assert judged.status in (S.PAID, S.OVERPAID, S.REVIEW_REQUIRED), said
    if judged.status is S.PAID and not world.fulfilled and not world.canceled:
        assert judged.late == (judged.window_closed and not _enough_in_time(setting, world, judged)), said


def confirmed_percent(setting: Setting, world: World, judged: Assessment, *, in_time: bool = False) -> int:
    """Confirmed value by plain counting, in hundredths of a percent of the price."""
    total = 0
    for verdict in judged.verdicts:
        name = verdict.transfer_id.removeprefix("trf_")
        chain = world.beta if name == "b" and setting.beta else world.alpha
        height = next((n for n, block in enumerate(chain.blocks, start=1) if block.holds == name), None)
        deep = height is not None and len(chain.blocks) - height >= 1
        quick = setting.zero_conf and (height is not None or (world.pending and name == "a"))
        assert (verdict.status is PaymentStatus.CONFIRMED) == (deep or quick)
        if (deep or quick) and name != "w" and not (in_time and chain.was_late(name)):
            assert verdict.match is Match.MATCHED
            total += 100 * setting.amounts[name]
    return total


def _enough_in_time(setting: Setting, world: World, judged: Assessment) -> bool:
    return confirmed_percent(setting, world, judged, in_time=True) >= 10_000 - setting.tolerances[0].under_bps


def _check_wakeups(setting: Setting, world: World, judged: Assessment, said: _Said) -> None:
    """Something wakes the invoice up exactly as long as time alone can change the answer, and never too early."""
    chains = {"alpha": world.alpha, "beta": world.beta}
    chain_of = {fact.id: fact.key.network for fact in world.facts(setting).transfers}
    tips = {name: len(chain.blocks) for name, chain in chains.items()}
    heights = {(w.network, w.position) for w in judged.wakeups if w.marker is Marker.TIP}
    windows = {w.network for w in judged.wakeups if w.marker is Marker.TIME}
    for network, position in heights:
        assert position > tips[network], f"due already, would be judged at every block: {said}"
    shallow = {
        (chain_of[verdict.transfer_id], verdict.anchor.block.height + 1)  # two blocks are required
        for verdict in judged.verdicts
        # Also what counts at sight: before it is final it cannot be given back.
        if verdict.anchor is not None and verdict.anchor.block.height == tips[chain_of[verdict.transfer_id]]
    }
    assert heights == shallow, said
    paying = {"alpha", "beta"} if setting.beta else {"alpha"}
    open_windows = {name for name in paying if not chains[name].scanned_past}
    assert windows == (set() if world.canceled else open_windows), said
    assert judged.window_closed == (not open_windows), said


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_state_every_event_leads_to_a_legal_status_and_keeps_every_promise(setting: Setting) -> None:
    """Every state × every event, in every order, up to LENGTH events."""
    found = walk(setting)
    assert found.events_played > 1000
