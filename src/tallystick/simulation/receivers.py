"""Merchants' servers that receive webhooks: up, down, slow, wrong, gone, and what they have got.

For: the simulation, in the place of the sender's HTTP. Holds true: a receiver checks every delivery with nothing but
the standard library and what the merchant was told (address, secrets), and keeps what it accepted; anything that a
receiver could complain about is noted as a complaint.
Must not: know the database.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from enum import StrEnum

from tallystick.core.webhook import Answer
from tallystick.db.webhooks import ClaimedDelivery
from tallystick.simulation.clock import WorldClock
from tallystick.workers.webhook_sender import signed_headers

SLOW_MS = 16_000
QUICK_MS = 50


class Mood(StrEnum):
    """How a receiver behaves now."""

    UP = "up"
    DOWN = "down"  # no connection
    FAILING = "failing"  # answers 500
    SLOW = "slow"  # does not answer in time
    BUSY = "busy"  # answers 429 and says when to come back
    MOVED = "moved"  # answers 301
    GONE = "gone"  # answers 410


@dataclass(slots=True)
class Receiver:
    """One endpoint's server. `secrets` are those the merchant knows, newest first."""

    merchant_id: str
    url: str
    endpoint_id: str
    secrets: list[str]
    mood: Mood = Mood.UP
    accepted: dict[str, bytes] = field(default_factory=dict)  # event id -> body


class Mailroom:
    """All receivers, and the way to them. Attempts of one turn happen side by side: time passes once for all."""

    def __init__(self, clock: WorldClock) -> None:
        self._clock = clock
        self.by_url: dict[str, Receiver] = {}
        self.complaints: list[str] = []
        self.attempted: list[str] = []  # endpoint ids, in the order tried
        self._passed_ms = 0

    def restart(self) -> None:
        """No receivers, no memory."""
        self.by_url.clear()
        self.complaints.clear()
        self.attempted.clear()
        self._passed_ms = 0

    def let_time_pass(self) -> None:
        """The slowest of the attempts since the last call is over."""
        self._clock.advance(self._passed_ms)
        self._passed_ms = 0

    async def send(self, delivery: ClaimedDelivery) -> Answer:
        """One attempt, in the place of `workers.webhook_sender.Sender.send`."""
        self.attempted.append(delivery.endpoint_id)
        receiver = self.by_url.get(delivery.url)
        if receiver is None or receiver.mood is Mood.DOWN:
            return Answer(None, "No connection: Connection refused.")
        if receiver.mood is Mood.SLOW:
            self._passed_ms = max(self._passed_ms, SLOW_MS)
            return Answer(None, "No answer came within 15 s.")
        self._passed_ms = max(self._passed_ms, QUICK_MS)
        match receiver.mood:
            case Mood.FAILING:
                return Answer(500, "The endpoint answered 500.")
            case Mood.BUSY:
                return Answer(429, "The endpoint answered 429.", 30)
            case Mood.MOVED:
                return Answer(301, "The endpoint answered 301; redirects are not followed.")
            case Mood.GONE:
                return Answer(410, "The endpoint answered 410.")
            case _:
                self._accept(receiver, delivery)
                return Answer(204)

    def _accept(self, receiver: Receiver, delivery: ClaimedDelivery) -> None:
        body = delivery.body.encode()
        headers = signed_headers(delivery, self._clock.now())
        if not _verified(receiver.secrets, headers, body):
            self.complaints.append(f"{receiver.endpoint_id}: event {delivery.event_id} is not signed by us")
        known = receiver.accepted.setdefault(headers["webhook-id"], body)
        if known != body:
            self.complaints.append(f"{receiver.endpoint_id}: event {delivery.event_id} came with two bodies")


def _verified(secrets: list[str], headers: dict[str, str], body: bytes) -> bool:
    """Standard Webhooks, as a receiver checks it."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    given = {part.partition(",")[2] for part in headers["webhook-signature"].split()}
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        if base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() in given:
            return True
    return False
