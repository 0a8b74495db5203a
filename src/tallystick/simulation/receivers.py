"""Merchants' servers that receive webhooks: up, down, slow, wrong, gone, and what they have got.

For: the simulation, in the place of the sender's HTTP. Holds true: a receiver checks every delivery with nothing but
the standard library and what the merchant was told (address, the one secret that its server knows), and keeps what it
accepted; anything that a receiver could complain about is noted as a complaint.
Must not: know the database.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from tallystick.core.webhook import Answer
from tallystick.db.webhooks import ClaimedDelivery
from tallystick.simulation.clock import WorldClock
from tallystick.workers.webhook_sender import signed_headers

SLOW_MS = 16_000
QUICK_MS = 50
OLD_SECRET_SIGNS: Final = timedelta(hours=20)
"""So long a receiver may count on the secret before the newest: a day, less what our clock may be wrong."""


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
    """One endpoint's server. It knows one secret at a time; `next_secret` is told to it at its time."""

    merchant_id: str
    url: str
    endpoint_id: str
    secret: str
    mood: Mood = Mood.UP
    accepted: dict[str, bytes] = field(default_factory=dict)  # event id -> body
    next_secret: tuple[str, datetime] | None = None
    rotation_asked_at: datetime | None = None  # a new secret was asked for, and its answer has not come
    doubtful: bool = False  # it was disabled, or may have been
    told_from: int | None = None  # it was enabled ever since the event of this position

    def doubt(self) -> None:
        """It may be disabled from now on, or enabled again: what it is owed begins anew."""
        self.doubtful, self.told_from = True, None

    def deploy_now(self) -> None:
        """The server is told the newest secret at once: before a merchant asks for another one."""
        if self.next_secret is not None:
            self.secret, self.next_secret = self.next_secret[0], None

    def knows(self, now: datetime) -> str | None:
        """The secret that the server checks with now; None while it cannot know which ones are in use."""
        if self.next_secret is not None and self.next_secret[1] <= now:
            self.deploy_now()
        asked_at = self.rotation_asked_at
        return None if asked_at is not None and now - asked_at > OLD_SECRET_SIGNS else self.secret


class Mailroom:
    """All receivers, and the way to them. Attempts of one turn happen side by side: time passes once for all."""

    def __init__(self, clock: WorldClock) -> None:
        self._clock = clock
        self.by_url: dict[str, Receiver] = {}
        self.complaints: list[tuple[str, str, str]] = []  # rule, endpoint id, in words
        self.foreign: Callable[[str, bytes], str | None] = _nothing
        self.attempted: list[str] = []  # endpoint ids, in the order tried
        self._leases: dict[
            str, datetime
        ] = {}  # of deliveries sent whose outcome is not recorded, on our clock
        self._passed_ms = 0
        self._over = asyncio.Event()

    def restart(self) -> None:
        """No receivers, no memory."""
        self.by_url.clear()
        self.complaints.clear()
        self.attempted.clear()
        self._leases.clear()
        self._passed_ms = 0

    def let_time_pass(self) -> None:
        """The slowest of the attempts since the last call is over."""
        self._clock.advance(self._passed_ms)
        self._passed_ms = 0
        self._over.set()
        self._over = asyncio.Event()

    def recorded(self, delivery_ids: Iterable[str]) -> None:
        """What came of these is stored: the next attempt has its own time."""
        for delivery_id in delivery_ids:
            self._leases.pop(delivery_id, None)

    def is_slow(self, url: str) -> bool:
        """Whether an attempt there ends only with the turn."""
        return url in self.by_url and self.by_url[url].mood is Mood.SLOW

    async def send(self, delivery: ClaimedDelivery) -> Answer:
        """One attempt, in the place of `workers.webhook_sender.Sender.send`."""
        self.attempted.append(delivery.endpoint_id)
        if self._leases.get(delivery.id, self._clock.now()) > self._clock.now():
            self.complaints.append(
                ("sent-under-lease", delivery.id, "sent again while another deliverer has it")
            )
        self._leases[delivery.id] = delivery.leased_until
        receiver = self.by_url.get(delivery.url)
        if receiver is None or receiver.mood is Mood.DOWN:
            return Answer(None, "No connection: Connection refused.")
        if receiver.mood is Mood.SLOW:
            self._passed_ms = max(self._passed_ms, SLOW_MS)
            await self._over.wait()
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
        secret = receiver.knows(self._clock.true)
        if secret is not None and not _verified(secret, headers, body):
            self._complain("webhook-complaint", receiver, f"event {delivery.event_id} is not signed by us")
        known = receiver.accepted.setdefault(headers["webhook-id"], body)
        if known != body:
            self._complain("webhook-complaint", receiver, f"event {delivery.event_id} came with two bodies")
        foreign = self.foreign(receiver.merchant_id, body)
        if foreign is not None:
            self._complain("foreign-event", receiver, f"event {delivery.event_id} is about {foreign}")

    def _complain(self, rule: str, receiver: Receiver, text: str) -> None:
        self.complaints.append((rule, receiver.endpoint_id, text))


def _nothing(_merchant_id: str, _body: bytes) -> None:
    """Nothing is another merchant's, as far as is known."""


def _verified(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Standard Webhooks, as a receiver checks it."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    given = {part.partition(",")[2] for part in headers["webhook-signature"].split()}
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() in given
