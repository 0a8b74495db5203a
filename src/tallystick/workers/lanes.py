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
REMEMBERED_SECONDS_MAX: Final = 5.0  # for a quick endpoint without work
LANES_MAX: Final = 2048


@dataclass(slots=True)
class _Lane:
    in_flight: int
    room: int
    left_at: float = 0.0
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
    def slow_free(self) -> int:
        """How many places are left in the half that slow and failing endpoints share."""
        slow = sum(lane.in_flight for lane in self._lanes.values() if lane.room == 1)
        return max(0, min(self.free, max(1, self._in_flight_max // 2) - slow))

    def rooms(self, now: float) -> dict[str, int]:
        """How many more each known endpoint may get now."""
        self._forget(now)
        slow_free = self.slow_free
        found: dict[str, int] = {}
        for endpoint, lane in self._lanes.items():
            room = 0 if lane.held_until > now else max(0, lane.room - lane.in_flight)
            if lane.room == 1 and room:
                room = min(room, slow_free)
                slow_free -= room
            found[endpoint] = room
        return found

    def enter(self, endpoint_id: str, *, failing: bool) -> None:
        """A delivery to this endpoint begins. `failing` is whether its last attempt failed, as far as is stored."""
        # Taken out and put in again: the slow ones that were served last come last in `rooms`.
        lane = self._lanes.pop(endpoint_id, None) or _Lane(0, self.room_first)
        self._lanes[endpoint_id] = lane
        if failing:
            lane.room = 1
        lane.in_flight += 1
        self._in_flight += 1

    def leave(
        self, endpoint_id: str, now: float, *, accepted: bool, seconds: float, hold_seconds: float = 0.0
    ) -> None:
        """A delivery ended after `seconds`; the endpoint asked for a pause of `hold_seconds`."""
        lane = self._lanes[endpoint_id]
        lane.in_flight -= 1
        lane.left_at = now
        self._in_flight -= 1
        if accepted and seconds <= QUICK_SECONDS_MAX:
            lane.room = min(self._per_endpoint_max, lane.room + 1)
        else:
            lane.room = max(1, lane.room // 2)
        if hold_seconds > 0:
            lane.held_until = max(lane.held_until, now + min(hold_seconds, HOLD_SECONDS_MAX))

    def _forget(self, now: float) -> None:
        """Forget idle endpoints: quick ones after a while, any when there are too many."""
        too_many = len(self._lanes) - LANES_MAX
        for endpoint, lane in list(self._lanes.items()):
            if lane.in_flight or lane.held_until > now:
                continue
            if too_many > 0 or (lane.room >= self.room_first and now - lane.left_at > REMEMBERED_SECONDS_MAX):
                del self._lanes[endpoint]
                too_many -= 1
