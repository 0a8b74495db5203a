"""What merchants must not do, and try: see or change what is another's.

Holds true: every object a merchant has is tried by others, by every way that the API offers for its kind; the answer is
the one for what does not exist, and lists name nothing of others. Anything else is a violation.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from tallystick.chains.simulated.transactions import address_of
from tallystick.simulation.world import Shop, World

Way: TypeAlias = tuple[str, str, dict[str, Any] | None]
"""Method, the rest of the path, and the body."""

_NOTE: Final[dict[str, Any]] = {"note": "not mine"}
_INVOICE_WAYS: Final[tuple[Way, ...]] = (
    ("GET", "", None),
    ("GET", "/transitions", None),
    ("POST", "/cancel", {}),
    ("POST", "/fulfillment", {}),
    ("POST", "/dispute", {"reason": "not mine", "note": "not mine"}),
    ("POST", "/dispute/resolve", {"outcome": "customer", "note": "not mine"}),
)
_REFUND_WAYS: Final[tuple[Way, ...]] = (
    ("GET", "", None),
    ("POST", "/approve", _NOTE),
    ("POST", "/reject", _NOTE),
    ("POST", "/broadcast", {"tx_hash": "0x" + "cd" * 32}),
    ("POST", "/claim_link", {}),
)
_EXCEPTION_WAYS: Final[tuple[Way, ...]] = (
    ("GET", "", None),
    ("POST", "/resolve", {"action": "ignore", "note": "not mine"}),
    ("POST", "/assign", {"owner": "somebody else"}),
)
_ENDPOINT_WAYS: Final[tuple[Way, ...]] = (
    ("GET", "", None),
    ("PATCH", "", {"status": "disabled"}),
    ("DELETE", "", None),
    ("POST", "/rotate_secret", {}),
    ("POST", "/ping", {}),
)
_EVENT_WAYS: Final[tuple[Way, ...]] = (
    ("GET", "", None),
    ("GET", "/deliveries", None),
    ("POST", "/redeliver", {}),
)
_LISTS: Final = ("invoices", "payments", "refunds", "exceptions", "events", "webhook_endpoints", "wallets")


async def pry(world: World) -> str:
    """A merchant tries what is another's."""
    chance = world.chance
    shop = chance.pick(world.shops)
    others = [one for one in world.shops if one is not shop]
    other = chance.pick(others)
    kind = chance.weighted(
        [
            ("list", 3),
            ("invoice", 4),
            ("money", 2),
            ("refund", 2),
            ("exception", 2),
            ("endpoint", 2),
            ("event", 2),
        ]
    )
    if kind == "list":
        return await _lists(world, shop)
    if kind == "money":
        return await _take(world, shop, other)
    if kind == "invoice":
        return await _try(world, shop, "/v1/invoices", other.invoices, _INVOICE_WAYS)
    if kind == "endpoint":
        ids = [one.endpoint_id for one in world.mailroom.by_url.values() if one.merchant_id == other.id]
        return await _try(world, shop, "/v1/webhook_endpoints", ids, _ENDPOINT_WAYS)
    if kind == "event":
        ids = [
            event_id
            for one in world.mailroom.by_url.values()
            if one.merchant_id == other.id
            for event_id in one.accepted
        ]
        return await _try(world, shop, "/v1/events", ids, _EVENT_WAYS)
    path, ways = ("/v1/refunds", _REFUND_WAYS) if kind == "refund" else ("/v1/exceptions", _EXCEPTION_WAYS)
    listed = await world.get(other, path)
    ids = [one["id"] for one in listed.json()["data"]] if listed.ok else []
    return await _try(world, shop, path, ids, ways)


async def _try(
    world: World,
    shop: Shop,
    path: str,
    ids: list[str],
    ways: tuple[Way, ...],
) -> str:
    if not ids:
        return f"nothing to pry into at {path}"
    object_id = world.chance.pick(ids)
    method, rest, body = world.chance.pick(ways)
    where = f"{path}/{object_id}{rest}"
    if method == "POST":
        response = await world.post(shop, where, body)
    else:
        response = await world.ask(shop, method, where, body)
    if response.status not in (404, 503):
        world.flaw(
            "foreign-object", object_id, f"another merchant was answered {response.word} at {method} {rest}"
        )
    return f"{method} {where} {response.word}"


async def _take(world: World, shop: Shop, other: Shop) -> str:
    """Have the money of another's invoice, or count it to one's own."""
    if not other.invoices:
        return "nothing to take"
    invoice_id = world.chance.pick(other.invoices)
    queue = await world.get(shop, "/v1/exceptions?status=open")
    cases = queue.json()["data"] if queue.ok else []
    if cases and world.chance.one_in(2):
        case = world.chance.pick(cases)
        body = {"action": "attach", "note": "not mine", "invoice_id": invoice_id}
        response = await world.post(shop, f"/v1/exceptions/{case['id']}/resolve", body)
    else:
        body = {
            "invoice_id": invoice_id,
            "rule": "received",
            "reason": "not mine",
            "address": address_of("me"),
        }
        response = await world.post(shop, "/v1/refunds", body)
    if response.ok:
        world.flaw("foreign-object", invoice_id, f"another merchant was answered {response.word}")
    return f"{invoice_id} {response.word}"


async def _lists(world: World, shop: Shop) -> str:
    """What a merchant is shown is its own."""
    name = world.chance.pick(_LISTS)
    response = await world.get(shop, f"/v1/{name}")
    text = response.body.decode()
    for other in world.shops:
        foreign = [other.id, *other.invoices] if other is not shop else []
        for object_id in foreign:
            if object_id in text:
                world.flaw("foreign-object", object_id, f"another merchant is shown it among {name}")
    return f"{name} {response.word}"
