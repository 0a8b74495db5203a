"""What holds for every request: headers, unknown addresses, outages, time-outs, defects, limits, readiness."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from litestar import get, post

import tallystick
from tallystick.api.limits import Limits, MinuteCounter
from tallystick.api.problems import published_codes
from tallystick.core.errors import RateLimited
from tallystick.services.networks import record_status, sync_networks
from tests.api.test_bodies import problem
from tests.support.app import Api, Client, Merchant, mine_by_hand, running_api


async def test_every_answer_carries_the_security_headers(client: Client) -> None:
    for path in ("/v1/networks", "/v1/nothing", "/nothing", "/healthz", "/docs", "/openapi.json", "/metrics"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-request-id"].startswith("req_")
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


async def test_unknown_addresses_and_methods_are_problems(client: Client) -> None:
    for path in (
        "/",
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v2/invoices",
        "/v1/invoices/x/y/z",
        "/%00",
        "/..%2f..%2fetc/passwd",
    ):
        problem(await client.get(path), 404, "not_found")
    for method, path in (
        ("DELETE", "/v1/invoices"),
        ("PUT", "/v1/invoices"),
        ("GET", "/v1/invoices/x/cancel"),
        ("POST", "/healthz"),
    ):
        answer = await client.http.request(method, path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"]


async def test_which_methods_there_are_is_answered(client: Client) -> None:
    for path in ("/v1/invoices", "/v1/invoices/inv_x/cancel", "/v1/events", "/healthz"):
        answer = await client.http.request("OPTIONS", path)
        assert answer.status_code == 204, answer.text
        assert "OPTIONS" in answer.headers["allow"]
        assert "access-control-allow-origin" not in answer.headers
    # All of them, also where an address has several handlers: the framework by itself names the first one's only.
    for path, methods in (
        ("/v1/invoices", "GET, OPTIONS, POST"),
        ("/v1/webhook_endpoints/whe_x", "DELETE, GET, OPTIONS, PATCH"),
    ):
        assert (await client.http.request("OPTIONS", path)).headers["allow"] == methods


async def test_a_number_in_an_address_is_digits(client: Client) -> None:
    """`null` was read as "left out", `5.0` and `1e1` as whole numbers: nobody who writes them means that."""
    for value in ("null", " 5", "5.0", "0x5", "1e1", "٥", "", "9" * 400):
        for path in ("/v1/invoices?limit=", "/v1/confirmation_policies?version="):
            problem(await client.get(path + quote(value)), 400, "invalid_parameter")


async def test_a_database_that_went_away_is_503(database_url: str) -> None:
    async with running_api(database_url, limits=Limits(key_cache_seconds=60)) as api:
        merchant = await api.merchant()
        client = api.client(merchant.key)
        assert (await client.get("/v1/networks")).status_code == 200
        await api.ctx.database.close()
        for answer in (
            await client.get("/v1/networks"),
            await client.post("/v1/invoices", {"amount": "1", "currency": "USD"}),
        ):
            problem(answer, 503, "database_unavailable")
            assert answer.headers["retry-after"] == "1"
        problem(await api.client("ts_" + "a" * 32).get("/v1/networks"), 503, "database_unavailable")
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "waiting")
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200


async def test_killed_connections_are_replaced(api: Api, client: Client) -> None:
    assert (await client.get("/v1/networks")).status_code == 200
    async with api.ctx.database.connection() as connection:
        others = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.execute(others)
    async with asyncio.timeout(20):
        while (answer := await client.get("/v1/networks")).status_code != 200:
            problem(answer, 503, "database_unavailable")


@get("/breaks")
async def breaks() -> None:
    """A defect."""
    raise LookupError("the secret is ts_abc")


@post("/hangs")
async def hangs() -> None:
    """Never answers by itself."""
    await asyncio.Event().wait()


async def test_a_defect_is_logged_and_told_by_its_id_only(database_url: str) -> None:
    async with running_api(database_url, routes=[breaks]) as api:
        with structlog.testing.capture_logs() as lines:
            answer = await api.client().get("/breaks")
        document = problem(answer, 500, "internal_error")
        assert "secret" not in answer.text
        assert "LookupError" not in answer.text
        assert document["request_id"] == answer.headers["x-request-id"]
        (line,) = [line for line in lines if line["event"] == "defect"]
        assert line["request_id"] == document["request_id"]
        assert isinstance(line["exc_info"], LookupError)


async def test_a_request_that_takes_too_long_is_given_up(database_url: str) -> None:
    async with running_api(database_url, routes=[hangs], limits=Limits(request_seconds=0.2)) as api:
        answer = await api.client().post("/hangs")
        problem(answer, 503, "request_timeout")
        # Its commit may have been under way: a caller who is told that nothing happened would do it twice.
        assert "is not known" in answer.json()["detail"]


async def test_a_body_that_never_comes_is_given_up(database_url: str) -> None:
    async with running_api(database_url, limits=Limits(request_seconds=0.3)) as api:
        merchant = await api.merchant()
        host, _, port = api.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"POST /v1/invoices HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {merchant.key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
        )
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
        assert b" 503 " in head.splitlines()[0]
        writer.close()
        await writer.wait_closed()


async def test_too_many_requests_of_one_key_are_refused(database_url: str) -> None:
    async with running_api(database_url, limits=Limits(key_per_minute=3)) as api:
        merchant = await api.merchant()
        client, other = api.client(merchant.key), api.client((await api.merchant("B", account=None)).key)
        answers = [await client.get("/v1/networks") for _ in range(9)]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert refused  # nine in a row: at most six are let through, should the minute end in between
        problem(refused[0], 429, "rate_limited")
        assert 1 <= int(refused[0].headers["retry-after"]) <= 60
        assert (await other.get("/v1/networks")).status_code == 200


async def test_guessing_keys_is_slowed_down(database_url: str) -> None:
    async with running_api(database_url, limits=Limits(anonymous_per_minute=3)) as api:
        statuses = {
            (await api.client(f"ts_{letter * 32}").get("/v1/networks")).status_code for letter in "abcdefghi"
        }
        assert statuses == {401, 429}
        assert (await api.client().get("/healthz")).status_code == 200


def test_the_counter_forgets_after_a_minute() -> None:
    now = 0.0
    counter = MinuteCounter(2, monotonic=lambda: now)
    counter.count("a")
    counter.count("a")
    counter.count("b")
    with pytest.raises(RateLimited) as refused:
        counter.count("a")
    assert refused.value.retry_after_seconds == 60
    now = 60.0
    counter.count("a")


async def test_readiness_waits_for_networks_that_answer(database_url: str) -> None:
    async with running_api(database_url, followed=False) as api:
        client = api.client()

        async def ready() -> tuple[int, list[str]]:
            answer = await client.get("/readyz")
            return answer.status_code, answer.json()["reasons"]

        status, reasons = await ready()
        assert (status, len(reasons)) == (503, 1)  # not set up
        async with api.ctx.database.transaction() as connection:
            await sync_networks(connection, api.ctx.networks)
        status, reasons = await ready()
        assert (status, len(reasons)) == (503, 2)  # nobody has asked them yet
        await mine_by_hand(api.ctx, "ethereum")
        status, reasons = await ready()
        assert status == 503
        assert "polygon" in reasons[0]
        async with api.ctx.database.transaction() as connection:
            await record_status(connection, "polygon", "unavailable", "connection refused")
        assert await ready() == (200, [])  # a network that does not answer keeps nobody waiting
        async with api.ctx.database.transaction() as connection:
            await record_status(connection, "polygon", "misconfigured", "another chain")
        assert await ready() == (200, [])


async def test_metrics_count_by_route_and_never_by_what_was_asked(client: Client) -> None:
    await client.get("/v1/invoices/inv_" + "0" * 26)
    await client.get("/some/guess")
    await client.http.request("PROPFIND", "/v1/invoices")
    page = (await client.get("/metrics")).text
    assert (
        'tallystick_http_request_seconds_count{method="GET",route="/v1/invoices/{invoice_id}",status="404"}'
        in page
    )
    assert 'route="(none)"' in page
    assert 'method="other"' in page
    assert "guess" not in page
    assert "PROPFIND" not in page
    assert 'tallystick_database_connections{state="idle"}' in page


async def test_the_schema_describes_every_route(client: Client) -> None:
    from tests.api.test_rights import ROUTES

    schema = (await client.get("/openapi.json")).json()
    assert schema["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, item in schema["paths"].items() for method in item}
    assert {(route.method, route.path) for route in ROUTES} <= described
    create = schema["paths"]["/v1/invoices"]["post"]
    assert create["security"] == [{"secret_key": []}]
    assert create["operationId"] == "create_invoice"
    assert json.dumps(create["requestBody"]).count("CreateInvoice") == 1
    fields = schema["components"]["schemas"]["CreateInvoice"]
    assert set(fields["required"]) == {"amount", "currency"}
    assert _references(schema) <= {name for kind in schema["components"].values() for name in kind}


async def test_the_schema_tells_of_errors_as_they_are_sent(client: Client) -> None:
    schema = (await client.get("/openapi.json")).json()
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            statuses = set(operation["responses"])
            assert "500" in statuses, (method, path)
            assert not path.startswith("/v1") or {"400", "401", "429", "503"} <= statuses, (method, path)
    conflict = schema["components"]["responses"]["Conflict"]["content"]["application/problem+json"]["schema"]
    assert conflict["allOf"][0] == {"$ref": "#/components/schemas/Problem"}
    assert "network_unavailable" in conflict["allOf"][1]["properties"]["code"]["enum"]
    assert schema["components"]["schemas"]["CreateInvoice"]["additionalProperties"] is False
    link = schema["paths"]["/v1/invoices"]["post"]["responses"]["201"]["links"]["cancel_invoice"]
    assert link == {"operationId": "cancel_invoice", "parameters": {"invoice_id": "$response.body#/id"}}


def test_every_code_that_is_raised_is_published() -> None:
    """Three were not: `unsupported_asset`, `unsupported_network` and `unknown_symbol` had no entry at /docs/errors."""
    package = Path(tallystick.__file__).parent
    raised = {
        found
        for part in ("api", "core", "services")
        for source in (package / part).rglob("*.py")
        for found in re.findall(r"""\bcode="([a-z_]+)\"""", source.read_text())
    }
    assert "unsupported_network" in raised
    assert raised <= set(published_codes())


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"].rpartition("/")[2]} if "$ref" in value else set()
        return own.union(*(_references(inner) for inner in value.values()))
    if isinstance(value, list):
        return set().union(*(_references(inner) for inner in value))
    return set()


async def test_the_reference_needs_no_script_and_nobody_else(client: Client) -> None:
    for path in ("/docs", "/docs/errors"):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert "<script" not in answer.text
        assert "src=" not in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    page = (await client.get("/docs")).text
    assert "/v1/invoices/{invoice_id}/cancel" in page
    # meaning and limits of a field that may be null, too
    assert "other characters than ASCII are percent-encoded" in page
    assert "length at most 2048" in page
    errors = (await client.get("/docs/errors")).text
    for code in published_codes():
        assert f'id="{code}"' in errors


async def test_keys_are_stored_as_hashes_and_never_logged(api: Api, merchant: Merchant) -> None:
    with structlog.testing.capture_logs() as lines:
        await api.client(merchant.key).get("/v1/networks")
        await api.client(merchant.key + "x").get("/v1/networks")
        await api.client(merchant.key).raw("/v1/invoices", b"{")
    assert merchant.key not in repr(lines)
    async with api.ctx.database.connection() as connection:
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        )
        for table in tables:
            rows = await connection.fetch(f'SELECT t::text FROM "{table[0]}" t')
            assert merchant.key not in repr(rows), table[0]


async def test_the_reference_leads_to_every_object_it_names(client: Client) -> None:
    """A link to a heading that is not there, or a name that only the framework understands, helps nobody."""
    page = (await client.get("/docs")).text
    named = set(re.findall(r'href="#([^"]+)"', page))
    assert {"object-Invoice", "object-CreateInvoice"} <= named
    assert named <= set(re.findall(r'id="([^"]+)"', page))
    text = re.sub(r"<[^>]+>", "", page)
    assert "Page of Invoice" in text
    assert "tallystick.services" not in text
    assert "`" not in text
