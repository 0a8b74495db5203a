"""How much of the deliverer each endpoint may use.

For: `workers.deliver`. Holds true: an endpoint begins with a few deliveries in flight, gets one more for each quick
success, and half as many after each failure or slow answer; endpoints that are down to one share half of all places, so
however many are dead or slow, the other half is there for those that work. An answer that asks to wait is obeyed here
for the endpoint's other deliveries, too.
Must not: know HTTP or the database. Lives in one process and may be forgotten at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ROOM_FIRST: Final = 4
QUICK_SECONDS_MAX: Final = 1.0
HOLD_SECONDS_MAX: Final = 60.0  # longer waits stand on the delivery itself
LANES_MAX: Final = 2048


@dataclass(slots=True)
class _Lane:
    in_flight: int
    room: int
    held_until: float = 0.0


class Lanes:
    """The endpoints that are busy or known to be slow. Times are seconds of a monotonic clock."""

    def __init__(self, *, in_flight_max: int, per_endpoint_max: int) -> None:
        self._in_flight_max = in_flight_max
        self._per_endpoint_max = per_endpoint_max
        self._lanes: dict[str, _Lane] = {}
        self._in_flight = 0

    @property
    def free(self) -> int:
        """How many more deliveries may be in flight altogether."""
        return self._in_flight_max - self._in_flight

    @property
    def room_first(self) -> int:
        """How many an endpoint may have that nothing is known of."""
        return min(ROOM_FIRST, self._per_endpoint_max)

    @property
    def slow_free(self) -> bool:
        """Whether there is a place left in the half that slow endpoints share."""
        slow = sum(lane.in_flight for lane in self._lanes.values() if lane.room == 1)
        return slow < max(1, self._in_flight_max // 2)

    def rooms(self, now: float) -> dict[str, int]:
        """How many more each known endpoint may get now."""
        slow_free = self.slow_free
        return {
            endpoint: 0
            if lane.held_until > now or (lane.room == 1 and not slow_free)
            else max(0, lane.room - lane.in_flight)
            for endpoint, lane in self._lanes.items()
        }

    def enter(self, endpoint_id: str, *, failing: bool) -> None:
        """A delivery to this endpoint begins. `failing` is whether its last attempt failed, as far as is stored."""
        lane = self._lanes.get(endpoint_id)
        if lane is None:
            lane = self._lanes[endpoint_id] = _Lane(0, 1 if failing else self.room_first)
        lane.in_flight += 1
        self._in_flight += 1

    def leave(
        self, endpoint_id: str, now: float, *, accepted: bool, seconds: float, hold_seconds: float = 0.0
    ) -> None:
        """A delivery ended after `seconds`; the endpoint asked for a pause of `hold_seconds`."""
        lane = self._lanes[endpoint_id]
        lane.in_flight -= 1
        self._in_flight -= 1
        if accepted and seconds <= QUICK_SECONDS_MAX:
            lane.room = min(self._per_endpoint_max, lane.room + 1)
        else:
            lane.room = max(1, lane.room // 2)
        if hold_seconds > 0:
            lane.held_until = max(lane.held_until, now + min(hold_seconds, HOLD_SECONDS_MAX))
        if not lane.in_flight and lane.held_until <= now and lane.room >= self.room_first:
            del self._lanes[endpoint_id]  # as good as unknown
        elif len(self._lanes) > LANES_MAX:
            self._forget_one()

    def _forget_one(self) -> None:
        idle = next((endpoint for endpoint, lane in self._lanes.items() if not lane.in_flight), None)
        if idle is not None:
            del self._lanes[idle]
