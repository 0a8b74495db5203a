"""Bad requests over real HTTP: each gets a problem document naming the place; nothing is a 500, nothing is half-
written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from typing import Any

import httpx
import pytest

from tests.support.app import Api, Client, Merchant

GOOD = {"amount": "25.00", "currency": "USD", "accepted": [{"asset": "ETH", "network": "ethereum"}]}


def problem(answer: httpx.Response, status: int, code: str, pointer: str | None = None) -> dict[str, Any]:
    """The problem document, checked for its form and these values."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["code"] == code, document
    assert document["type"].endswith(f"/docs/errors#{code}")
    assert document["title"]
    assert document["detail"]
    if pointer is not None:
        assert [item["pointer"] for item in document["errors"]] == [pointer], document
    return document


async def nothing_was_written(api: Api) -> None:
    async with api.ctx.database.connection() as connection:
        for table in ("invoices", "addresses", "events", "idempotency_keys", "webhook_endpoints"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"amount": 25}, "/amount"),
        ({"amount": 25.5}, "/amount"),
        ({"amount": None}, "/amount"),
        ({"amount": ""}, "/amount"),
        ({"amount": "-1"}, "/amount"),
        ({"amount": "0"}, "/amount"),
        ({"amount": "1e3"}, "/amount"),
        ({"amount": "1_000"}, "/amount"),
        ({"amount": "１２"}, "/amount"),
        ({"amount": "NaN"}, "/amount"),
        ({"amount": "25.001"}, "/amount"),
        ({"amount": "9" * 121}, "/amount"),
        ({"currency": "XXQ"}, "/currency"),
        ({"currency": ""}, "/currency"),
        ({"currency": 5}, "/currency"),
        ({"accepted": []}, "/accepted"),
        ({"accepted": {}}, "/accepted"),
        ({"accepted": [{"asset": "ETH"}]}, "/accepted/0/network"),
        ({"accepted": [{"asset": "ETH", "network": "ethereum", "chain": 1}]}, "/accepted/0/chain"),
        ({"order_id": "x" * 201}, "/order_id"),
        ({"order_id": "a\x00b"}, "/order_id"),
        ({"customer": {"phone": "1"}}, "/customer/phone"),
        ({"customer": {"email": "x" * 255}}, "/customer/email"),
        ({"customer": "Alice"}, "/customer"),
        ({"metadata": {"a": 1}}, "/metadata/a"),
        ({"metadata": {"ok": "1", "nested/key": {}}}, "/metadata/nested~1key"),
        ({"metadata": {"": "1"}}, "/metadata/"),
        ({"metadata": {"k" * 41: "1"}}, "/metadata/" + "k" * 40),
        ({"metadata": {"k": "v" * 501}}, "/metadata/k"),
        ({"metadata": {str(n): "v" for n in range(51)}}, "/metadata"),
        ({"expires_in": 9}, "/expires_in"),
        ({"expires_in": 2_592_001}, "/expires_in"),
        ({"expires_in": "900"}, "/expires_in"),
        ({"expires_in": 900.5}, "/expires_in"),
        ({"expires_in": True}, "/expires_in"),
        ({"expires_in": 10**30}, "/expires_in"),
        ({"success_url": "javascript:alert(1)"}, "/success_url"),
        ({"success_url": "http://shop.example/"}, "/success_url"),
        ({"cancel_url": "https://u:p@shop.example/"}, "/cancel_url"),
        ({"late_payment": "maybe"}, "/late_payment"),
        ({"confirmation_policy": "unheard of"}, "/confirmation_policy"),
        ({"activate": "yes"}, "/activate"),
        ({"unknown": 1}, "/unknown"),
        ({"Amount": "1"}, "/Amount"),
    ],
)
async def test_each_wrong_field_is_named(
    api: Api, client: Client, change: dict[str, Any], pointer: str
) -> None:
    problem(await client.post("/v1/invoices", GOOD | change, key="k"), 422, "validation_failed", pointer)
    await nothing_was_written(api)


async def test_fields_at_their_limits_are_taken_and_kept_as_sent(client: Client) -> None:
    sent = {
        "order_id": "é́ — order 1",  # a combining mark stays one
        "customer": {"reference": "x" * 200, "email": "a@b.example", "name": "Ünïcode 🙂"},
        "metadata": {str(n).rjust(40, "k"): "v" * 500 for n in range(50)},
        "expires_in": 2_592_000,
        "success_url": "https://shop.example/ok?id=1",
        "cancel_url": "http://localhost:3000/cancel",
        "late_payment": "accept",
        "product_type": "digital",
    }
    invoice = await client.invoice(**sent)
    for name in (
        "order_id",
        "customer",
        "metadata",
        "success_url",
        "cancel_url",
        "late_payment",
        "product_type",
    ):
        assert invoice[name] == sent[name]
    again = (await client.get(f"/v1/invoices/{invoice['id']}")).json()
    assert again["customer"] == sent["customer"]
    assert (await client.get("/v1/invoices", order_id=sent["order_id"])).json()["data"][0]["id"] == invoice[
        "id"
    ]


async def test_null_is_the_same_as_left_out(client: Client) -> None:
    nothing = dict.fromkeys(("order_id", "customer", "product_type", "metadata", "success_url", "activate"))
    invoice = await client.invoice(**nothing)
    assert invoice["metadata"] == {}
    assert invoice["customer"] == {}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b'{"amount": "1", "amount": "2", "currency": "USD"}', "malformed_json"),
        (b'{"amount": "\\ud800", "currency": "USD"}', "malformed_json"),
        (b'{"amount": NaN}', "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "malformed_json"),
        (b'{"order_id": "' + b"x" * 262_144 + b'"}', "body_too_large"),
    ],
)
async def test_what_cannot_be_read_is_400(api: Api, client: Client, body: bytes, code: str) -> None:
    problem(await client.raw("/v1/invoices", body), 400, code)
    await nothing_was_written(api)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", ""]
)
async def test_a_body_must_say_that_it_is_json(client: Client, kind: str) -> None:
    answer = await client.raw("/v1/invoices", json.dumps(GOOD).encode(), content_type=kind)
    problem(answer, 400, "unsupported_content_type")


async def test_json_may_name_its_only_encoding(client: Client) -> None:
    for kind in ("application/json", "Application/JSON; charset=UTF-8", 'application/json; charset="utf-8"'):
        answer = await client.raw("/v1/invoices", json.dumps(GOOD).encode(), content_type=kind)
        assert answer.status_code == 201, kind


async def test_an_endless_body_is_answered_while_it_is_still_coming(api: Api, merchant: Merchant) -> None:
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /v1/invoices HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {merchant.key}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    for _ in range(5):  # 320 KiB, and no end of the body
        writer.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"}")
    assert b" 400 " in head.splitlines()[0]
    assert json.loads(body)["code"] == "body_too_large"
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_wrong_bodies_of_other_resources(api: Api, client: Client) -> None:
    wrong: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("/v1/wallets", {}, "/family"),
        ("/v1/wallets", {"family": "evm"}, "/account_key"),
        ("/v1/wallets", {"family": "evm", "account_key": "xpub", "label": "x" * 201}, "/label"),
        ("/v1/wallets", {"family": "doge", "account_key": "xpub1"}, "/family"),
        ("/v1/webhook_endpoints", {}, "/url"),
        ("/v1/webhook_endpoints", {"url": "ftp://x"}, "/url"),
        ("/v1/webhook_endpoints", {"url": "https://x.example", "events": []}, "/events"),
        ("/v1/webhook_endpoints", {"url": "https://x.example", "events": ["no.such"]}, "/events/0"),
        ("/v1/webhook_endpoints", {"url": "https://x.example", "secret": "mine"}, "/secret"),
    )
    for path, body, pointer in wrong:
        problem(await client.post(path, body), 422, "validation_failed", pointer)
    await nothing_was_written(api)


async def test_actions_without_fields_take_nothing_or_an_empty_object(client: Client) -> None:
    endpoint = (await client.post("/v1/webhook_endpoints", {"url": "https://shop.example/hook"})).json()
    path = f"/v1/webhook_endpoints/{endpoint['id']}/ping"
    bodies: tuple[dict[str, Any] | None, ...] = (None, {})
    for body in bodies:
        assert (await client.post(path, body)).status_code == 200
    problem(await client.post(path, {"x": 1}), 422, "validation_failed", "/x")
    problem(await client.post(path, []), 422, "validation_failed", "")
    problem(await client.raw(path, b"null"), 422, "validation_failed", "")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_parameter"),
        ("limit=201", "invalid_parameter"),
        ("limit=-1", "invalid_parameter"),
        ("limit=ten", "invalid_parameter"),
        ("limit=1.5", "invalid_parameter"),
        ("limit=", "invalid_parameter"),
        ("limit=99999999999999999999999", "invalid_parameter"),
        ("limit=1&limit=2", "invalid_parameter"),
        ("cursor=x", "invalid_parameter"),
        ("cursor=pay_" + "0" * 26, "invalid_parameter"),
        ("status=gone", "invalid_parameter"),
        ("created_after=yesterday", "invalid_parameter"),
        ("created_after=2026-01-01", "invalid_parameter"),
        ("created_after=2026-01-01T00:00:00", "invalid_parameter"),
        ("created_before=0001-01-01T00:00:00%2B23:00", "invalid_parameter"),
        ("order_id=%00", "invalid_parameter"),
        ("order_id=" + "x" * 501, "invalid_parameter"),
        ("page=2", "unknown_parameter"),
        ("Limit=2", "unknown_parameter"),
        ("=", "unknown_parameter"),
        ("%00=1", "unknown_parameter"),
    ],
)
async def test_wrong_parameters_are_400(client: Client, query: str, code: str) -> None:
    problem(await client.get(f"/v1/invoices?{query}"), 400, code)


async def test_posts_take_no_parameters(api: Api, client: Client) -> None:
    problem(await client.post("/v1/invoices?dry_run=1", GOOD), 400, "unknown_parameter")
    await nothing_was_written(api)


async def test_odd_text_in_filters_finds_nothing(client: Client) -> None:
    for name in ("order_id", "tx_hash", "address"):
        for value in ("'; DROP TABLE invoices; --", "%", "🙂", "0x", "\\", "0X" + "F" * 64):
            answer = await client.get("/v1/invoices", **{name: value})
            assert answer.status_code == 200, answer.text
            assert answer.json()["data"] == []


async def test_rates_name_what_is_missing(client: Client) -> None:
    for query in ("", "?base=ETH", "?base=ETH&quote=", "?base=E%20H&quote=USD"):
        problem(await client.get(f"/v1/rates{query}"), 400, "invalid_parameter")
    problem(await client.get("/v1/rates?base=ETH&quote=XYZ"), 422, "unknown_symbol")
    problem(await client.get("/v1/rates?base=XYZ&quote=USD"), 422, "unknown_symbol")
    problem(await client.get("/v1/rates?base=ETH&quote=CHF"), 409, "rate_unavailable")


async def test_mutated_requests_never_break_the_server(api: Api, client: Client) -> None:
    """Seeded: a good body with bytes changed, values swapped for odd ones, and fields put where they do not belong."""
    chance = random.Random(20261121)
    good = json.dumps(GOOD | {"metadata": {"a": "b"}, "customer": {"name": "x"}, "expires_in": 60}).encode()
    odd: tuple[Any, ...] = (
        None,
        True,
        -1,
        10**40,
        1e308,
        "",
        "\x00",
        "\ud800",
        "🙂" * 300,
        [],
        {},
        [[]],
        {"a": {}},
        "0" * 130,
        "1e9",
    )
    fields = [*json.loads(good), "id", "__proto__", ""]
    for _ in range(150):
        if chance.random() < 0.5:
            body = bytearray(good)
            for _ in range(chance.randint(1, 4)):
                body[chance.randrange(len(body))] = chance.randrange(256)
            answer = await client.raw("/v1/invoices", bytes(body))
        else:
            value = json.loads(good) | {chance.choice(fields): chance.choice(odd) for _ in range(2)}
            answer = await client.raw("/v1/invoices", json.dumps(value).encode())
        assert answer.status_code in (201, 400, 409, 422), (answer.status_code, answer.text)
        assert answer.json()
