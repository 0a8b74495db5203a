"""Who may do what: every route × no key, every scope, and another merchant's object.

The matrix goes through the routes as registered, so a new route without an expectation here fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tallystick.api.app import v1_handlers
from tallystick.api.limits import Limits
from tallystick.services.merchants import Scope
from tests.support.app import Api, Client, Merchant, junk_to, mine_by_hand, running_api

CASES = Scope.EXCEPTIONS_WRITE
READ, WRITE, HOOKS, ADMIN = Scope.INVOICES_READ, Scope.INVOICES_WRITE, Scope.WEBHOOKS_WRITE, Scope.ADMIN
REPORTS = Scope.REPORTS_READ
ASKS, APPROVES = Scope.REFUNDS_WRITE, Scope.REFUNDS_APPROVE
ANY = frozenset(Scope)


@dataclass(frozen=True)
class Route:
    """What a route asks for. `body` makes the request valid; `{name}` in the path is filled from what is owned."""

    method: str
    path: str
    scopes: frozenset[Scope]
    body: dict[str, Any] | None = None
    query: str = ""


def _route(
    method: str, path: str, *scopes: Scope, body: dict[str, Any] | None = None, query: str = ""
) -> Route:
    return Route(method, path, frozenset({*scopes, ADMIN}), body, query)


INVOICE = {"amount": "5.00", "currency": "USD", "accepted": [{"asset": "ETH", "network": "ethereum"}]}
ROUTES = (
    _route("POST", "/v1/invoices", WRITE, body=INVOICE),
    _route("GET", "/v1/invoices", READ),
    _route("GET", "/v1/invoices/{invoice_id}", READ),
    _route("POST", "/v1/invoices/{invoice_id}/options/{option_id}/activate", WRITE, body={}),
    _route("GET", "/v1/invoices/{invoice_id}/transitions", READ),
    _route("POST", "/v1/invoices/{invoice_id}/cancel", WRITE, body={}),
    _route("POST", "/v1/invoices/{invoice_id}/fulfillment", WRITE, body={}),
    _route("POST", "/v1/invoices/{invoice_id}/dispute", CASES, body={"reason": "late", "note": "n"}),
    _route(
        "POST", "/v1/invoices/{invoice_id}/dispute/resolve", CASES, body={"outcome": "merchant", "note": "n"}
    ),
    _route("GET", "/v1/exceptions", READ, CASES),
    _route("GET", "/v1/exceptions/{exception_id}", READ, CASES),
    _route("POST", "/v1/exceptions/{exception_id}/resolve", CASES, body={"action": "ignore", "note": "junk"}),
    _route("POST", "/v1/exceptions/{exception_id}/assign", CASES, body={"owner": "ann"}),
    _route("POST", "/v1/refunds", ASKS, body={"reason": "r"}),
    _route("GET", "/v1/refunds", READ, ASKS, APPROVES),
    _route("GET", "/v1/refunds/{refund_id}", READ, ASKS, APPROVES),
    _route("POST", "/v1/refunds/{refund_id}/approve", APPROVES, body={}),
    _route("POST", "/v1/refunds/{refund_id}/reject", APPROVES, body={}),
    _route("POST", "/v1/refunds/{refund_id}/broadcast", ASKS, body={"tx_hash": "0x" + "1" * 64}),
    _route("POST", "/v1/refunds/{refund_id}/claim_link", ASKS, body={}),
    _route("GET", "/v1/payments", READ),
    _route("GET", "/v1/payments/{payment_id}", READ),
    _route("GET", "/v1/trace/{tx_hash}", READ),
    _route("GET", "/v1/ledger/accounts", REPORTS),
    _route("GET", "/v1/ledger/entries", REPORTS),
    _route("POST", "/v1/wallets", body={"family": "evm", "account_key": "xpub"}),
    _route("GET", "/v1/wallets"),
    _route("GET", "/v1/wallets/{wallet_id}"),
    _route("GET", "/v1/networks", *ANY),
    _route("GET", "/v1/rates", *ANY, query="?base=ETH&quote=USD"),
    _route("GET", "/v1/confirmation_policies", READ),
    _route("PUT", "/v1/confirmation_policies", body={"rules": []}),
    _route("POST", "/v1/confirmation_policies/preview", READ, body={"amount": "5.00", "currency": "USD"}),
    _route("POST", "/v1/webhook_endpoints", HOOKS, body={"url": "https://shop.example/hook"}),
    _route("GET", "/v1/webhook_endpoints", HOOKS),
    _route("GET", "/v1/webhook_endpoints/{endpoint_id}", HOOKS),
    _route("PATCH", "/v1/webhook_endpoints/{endpoint_id}", HOOKS, body={"description": "changed"}),
    _route("POST", "/v1/webhook_endpoints/{endpoint_id}/rotate_secret", HOOKS, body={}),
    _route("POST", "/v1/webhook_endpoints/{endpoint_id}/ping", HOOKS, body={}),
    _route("GET", "/v1/events", READ, HOOKS),
    _route("GET", "/v1/events/{event_id}", READ, HOOKS),
    _route("GET", "/v1/events/{event_id}/deliveries", READ, HOOKS),
    _route("POST", "/v1/events/{event_id}/redeliver", HOOKS, body={}),
    _route("DELETE", "/v1/webhook_endpoints/{endpoint_id}", HOOKS),
)


def test_every_registered_route_is_in_the_matrix() -> None:
    registered = {
        (method, "/v1" + path.replace(":str", ""))
        for handler in v1_handlers()
        for path in handler.paths
        for method in handler.http_methods
    }
    assert registered == {(route.method, route.path) for route in ROUTES}


async def _owned(api: Api, merchant: Merchant, nonce: int) -> dict[str, str]:
    """One object of every kind that the merchant owns, by the name that paths use."""
    client = api.client(merchant.key)
    endpoint = (await client.post("/v1/webhook_endpoints", {"url": "https://shop.example/hook"})).json()
    invoice = await client.invoice()
    tx_hash = await api.pay(invoice, 10**16, blocks_more=3, nonce=nonce)
    payment = (await client.get("/v1/payments")).json()["data"][0]
    asked = {"invoice_id": invoice["id"], "amount": "0.001", "reason": "broken cup"}
    refund = (await client.post("/v1/refunds", asked, key="refund")).json()
    event = (await client.get("/v1/events")).json()["data"][0]
    wallet = (await client.get("/v1/wallets")).json()["data"][0]
    await mine_by_hand(api.ctx, "ethereum", junk_to(invoice["payment_options"][0]["address"], nonce=nonce))
    case = (await client.get("/v1/exceptions")).json()["data"][0]
    assert (await client.get(f"/v1/invoices/{invoice['id']}")).json()["status"] == "paid"
    return {
        "invoice_id": invoice["id"],
        "option_id": invoice["payment_options"][0]["id"],
        "payment_id": payment["id"],
        "tx_hash": tx_hash,
        "event_id": event["id"],
        "wallet_id": wallet["id"],
        "endpoint_id": endpoint["id"],
        "exception_id": case["id"],
        "refund_id": refund["id"],
    }


async def _ask(client: Client, route: Route, owned: dict[str, str]) -> Any:
    path = route.path.format(**owned) + route.query
    if route.body is None:
        return await client.http.request(route.method, path)
    return await client.http.request(route.method, path, json=route.body)


async def test_without_a_good_key_every_route_is_401(api: Api) -> None:
    nobody = dict.fromkeys(
        (
            *("invoice_id", "option_id", "payment_id", "tx_hash", "event_id", "wallet_id", "endpoint_id"),
            *("exception_id", "refund_id"),
        ),
        "x",
    )
    client = api.client()
    for header in (None, "", "Bearer", "Basic abc", "Bearer ts_wrong", "Bearer ts_" + "a" * 32):
        if header is not None:
            client.http.headers["Authorization"] = header
        for route in ROUTES:
            answer = await _ask(client, route, nobody)
            assert answer.status_code == 401, route
            assert answer.json()["code"] == "unauthenticated"
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_every_route_asks_for_its_scopes(api: Api, merchant: Merchant) -> None:
    owned = await _owned(api, merchant, 0)
    for scope in Scope:
        client = api.client(await api.key(merchant, scope))
        for route in ROUTES:
            if scope in route.scopes and route.method in ("DELETE", "PATCH", "POST", "PUT"):
                continue  # allowed changes are shown by each resource's own tests
            answer = await _ask(client, route, owned)
            if scope in route.scopes:
                assert answer.status_code == 200, (scope, route, answer.text)
            else:
                assert answer.status_code == 403, (scope, route, answer.text)
                assert answer.json()["code"] == "insufficient_scope"


async def test_another_merchants_object_is_404_on_every_route(api: Api, merchant: Merchant) -> None:
    owned = await _owned(api, merchant, 0)
    stranger = await api.merchant("Other shop", account=1)
    own = await _owned(api, stranger, 1)
    client = api.client(stranger.key)
    for route in ROUTES:
        if "{" not in route.path:
            continue
        foreign = await _ask(client, route, owned)
        assert foreign.status_code == 404, (route, foreign.text)
        assert foreign.json()["code"] == "not_found"
        for name, value in owned.items():
            mixed = {**own, name: value}
            if "{" + name + "}" in route.path:
                answer = await _ask(client, route, mixed)
                assert answer.status_code == 404, (route, name, answer.text)
    # and nothing of it happened
    mine = api.client(merchant.key)
    invoice = (await mine.get(f"/v1/invoices/{owned['invoice_id']}")).json()
    assert (invoice["status"], invoice["fulfilled_at"]) == ("paid", None)
    assert (await mine.get(f"/v1/refunds/{owned['refund_id']}")).json()["status"] == "requested"
    endpoint = (await mine.get(f"/v1/webhook_endpoints/{owned['endpoint_id']}")).json()
    assert (endpoint["status"], endpoint["description"]) == ("enabled", "")


async def test_lists_show_the_own_objects_only(api: Api, merchant: Merchant) -> None:
    owned = await _owned(api, merchant, 0)
    stranger = await api.merchant("Other shop", account=None)
    client = api.client(stranger.key)
    filters: dict[str, list[dict[str, str]]] = {
        "/v1/invoices": [{}, {"tx_hash": owned["tx_hash"]}],
        "/v1/payments": [{}, {"invoice_id": owned["invoice_id"]}, {"tx_hash": owned["tx_hash"]}],
        "/v1/events": [{}, {"object_id": owned["invoice_id"]}],
        "/v1/wallets": [{}],
        "/v1/webhook_endpoints": [{}],
        "/v1/exceptions": [{}, {"invoice_id": owned["invoice_id"]}],
        "/v1/refunds": [{}, {"invoice_id": owned["invoice_id"]}],
    }
    for path, choices in filters.items():
        for choice in choices:
            answer = await client.get(path, **choice)
            assert answer.status_code == 200, answer.text
            assert answer.json() == {"data": [], "next_cursor": None}, path


async def test_a_redelivery_to_anothers_endpoint_is_refused(api: Api, merchant: Merchant) -> None:
    owned = await _owned(api, merchant, 0)
    stranger = await api.merchant("Other shop", account=1)
    own = await _owned(api, stranger, 1)
    answer = await api.client(stranger.key).post(
        f"/v1/events/{own['event_id']}/redeliver", {"endpoint_id": owned["endpoint_id"]}
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/endpoint_id"


async def test_ids_of_another_shape_are_404(client: Client) -> None:
    for odd in (
        "inv_",
        "inv_" + "0" * 25,
        "inv_" + "0" * 27,
        "pay_" + "0" * 26,
        "%00",
        "..%2f",
        "'",
        "inv_%F0%9F%98%80",
    ):
        answer = await client.get(f"/v1/invoices/{odd}")
        assert answer.status_code == 404, (odd, answer.text)
        assert answer.headers["content-type"].startswith("application/problem+json")


async def test_a_revoked_key_stops_working_after_the_documented_delay(database_url: str) -> None:
    async with running_api(database_url, limits=Limits(key_cache_seconds=0)) as api:
        merchant = await api.merchant(account=None)
        client = api.client(merchant.key)
        assert (await client.get("/v1/networks")).status_code == 200
        async with api.ctx.database.transaction() as connection:
            await connection.execute("UPDATE api_keys SET revoked_at = now()")
        assert (await client.get("/v1/networks")).status_code == 401
