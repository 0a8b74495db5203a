"""One effect per idempotency key: twins, replays, crashes, and keys that are no keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tallystick.core.errors import IdempotencyInProgress
from tallystick.db.sql import Connection
from tallystick.services import idempotency
from tallystick.services.idempotency import Answer, hash_request, run_once
from tests.support.app import Api, Client, Merchant

BODY = {"amount": "25.00", "currency": "USD", "accepted": [{"asset": "ETH", "network": "ethereum"}]}


async def count(api: Api, table: str) -> int:
    async with api.ctx.database.connection() as connection:
        found: int = await connection.fetchval(f"SELECT count(*) FROM {table}")
    return found


async def test_a_hundred_simultaneous_twins_make_one_invoice(api: Api, client: Client) -> None:
    answers = await asyncio.gather(*(client.post("/v1/invoices", BODY, key="order-1") for _ in range(100)))
    made = [answer for answer in answers if answer.status_code == 201]
    others = [answer for answer in answers if answer.status_code != 201]
    assert made
    assert {answer.content for answer in made} == {made[0].content}
    assert sum("idempotent-replayed" not in answer.headers for answer in made) == 1
    assert {(answer.status_code, answer.json()["code"]) for answer in others} <= {
        (409, "idempotency_in_progress")
    }
    assert await count(api, "invoices") == 1
    assert await count(api, "addresses") == 1
    assert await count(api, "idempotency_keys") == 1


async def test_a_repeat_is_answered_byte_for_byte(api: Api, client: Client) -> None:
    first = await client.post("/v1/invoices", BODY, key="k")
    await client.post(f"/v1/invoices/{first.json()['id']}/cancel")
    again = await client.post("/v1/invoices", BODY, key="k")
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert await count(api, "invoices") == 1


async def test_another_request_under_the_key_is_refused(api: Api, client: Client) -> None:
    first = await client.post("/v1/invoices", BODY, key="k")
    other_body = await client.post("/v1/invoices", BODY | {"amount": "26.00"}, key="k")
    other_path = await client.post(f"/v1/invoices/{first.json()['id']}/cancel", key="k")
    for answer in (other_body, other_path):
        assert answer.status_code == 422
        assert answer.json()["code"] == "idempotency_key_reused"
    assert await count(api, "invoices") == 1
    assert (await client.get(f"/v1/invoices/{first.json()['id']}")).json()["status"] == "awaiting_payment"


async def test_actions_are_protected_too(client: Client) -> None:
    endpoint = (await client.post("/v1/webhook_endpoints", {"url": "https://shop.example/hook"})).json()
    path = f"/v1/webhook_endpoints/{endpoint['id']}/rotate_secret"
    first = await client.post(path, key="rotate")
    again = await client.post(path, {}, key="rotate")  # no body and {} are the same request
    assert first.status_code == again.status_code == 200
    assert first.json()["secret"] == again.json()["secret"] != endpoint["secret"]


async def test_keys_of_two_merchants_never_meet(api: Api, client: Client) -> None:
    other = api.client((await api.merchant("Other", account=1)).key)
    mine = await client.post("/v1/invoices", BODY, key="same")
    theirs = await other.post("/v1/invoices", BODY, key="same")
    assert mine.json()["id"] != theirs.json()["id"]
    assert "idempotent-replayed" not in theirs.headers


async def test_errors_are_not_kept(api: Api, client: Client) -> None:
    refused = await client.post("/v1/invoices", BODY | {"amount": "0.001"}, key="k")
    assert refused.status_code == 422
    accepted = await client.post("/v1/invoices", BODY, key="k")
    assert accepted.status_code == 201
    assert await count(api, "invoices") == 1


@pytest.mark.parametrize("key", ["", "a" * 256, "tab\there", "umlaut-\xe4"])
async def test_keys_that_are_no_keys(api: Api, client: Client, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = await client.http.post(
        "/v1/invoices", json=BODY, headers=[(b"Idempotency-Key", headers["Idempotency-Key"])]
    )
    assert answer.status_code == 400
    assert answer.json()["code"] == "idempotency_key_invalid"
    assert await count(api, "invoices") == 0


async def test_the_longest_and_oddest_key(client: Client) -> None:
    key = ("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ " * 10)[:254] + "z"
    assert (await client.post("/v1/invoices", BODY, key=key)).status_code == 201
    assert (await client.post("/v1/invoices", BODY, key=key)).headers["idempotent-replayed"] == "true"


async def test_without_a_key_every_request_counts(api: Api, client: Client) -> None:
    ids = {(await client.post("/v1/invoices", BODY)).json()["id"] for _ in range(3)}
    assert len(ids) == 3
    assert await count(api, "idempotency_keys") == 0


@contextlib.asynccontextmanager
async def cut_after(monkeypatch: pytest.MonkeyPatch, api: Api, *, committed: bool) -> AsyncIterator[None]:
    """Within the block the process "dies" once, right before or right after the commit: no answer leaves."""
    transaction = type(api.ctx.database).transaction

    @contextlib.asynccontextmanager
    async def dying(database: Any) -> AsyncIterator[Connection]:
        async with transaction(database) as connection:
            yield connection
            if not committed:
                raise _Died
        raise _Died

    with monkeypatch.context() as patch:
        patch.setattr(type(api.ctx.database), "transaction", dying)
        yield


class _Died(BaseException):
    """Not an Exception: nothing in the API may turn it into an answer."""


@pytest.mark.parametrize("committed", [True, False])
async def test_a_death_around_the_commit_changes_nothing(
    api: Api, merchant: Merchant, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    ctx = api.ctx
    request_hash = hash_request("POST", "/v1/things", b"{}")
    runs: list[int] = []

    async def work(connection: Connection) -> Answer:
        runs.append(1)
        await connection.execute("UPDATE merchants SET name = name || '+'")
        return Answer(201, b'{"id":"x"}')

    async def request() -> Answer:
        async with ctx.database.transaction() as connection:
            return await run_once(connection, ctx, merchant.id, "k", request_hash, work)

    async with cut_after(monkeypatch, api, committed=committed):
        with pytest.raises(_Died):
            await request()
    answer = await request()
    assert answer == Answer(201, b'{"id":"x"}', replayed=committed)
    assert len(runs) == (1 if committed else 2)
    async with ctx.database.connection() as connection:
        assert await connection.fetchval("SELECT name FROM merchants") == "Shop+"


async def test_a_client_cut_off_before_the_answer_repeats_safely(
    api: Api, client: Client, merchant: Merchant
) -> None:
    """Real connections are cut while the request is being carried out; whatever was committed is found again."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    body = b'{"amount":"25.00","currency":"USD","accepted":[{"asset":"ETH","network":"ethereum"}]}'
    head = (
        f"POST /v1/invoices HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {merchant.key}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: cut\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    for _ in range(10):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(head + body)
        await writer.drain()
        writer.transport.abort()
    async with asyncio.timeout(20):
        while True:
            answer = await client.raw("/v1/invoices", body, Idempotency_Key="cut")
            if answer.status_code == 201:
                break
            assert answer.json()["code"] == "idempotency_in_progress"
            await asyncio.sleep(0.01)
    assert await count(api, "invoices") == 1


async def test_a_twin_is_told_at_once_while_the_first_is_at_work(api: Api, merchant: Merchant) -> None:
    ctx = api.ctx
    started, finish = asyncio.Event(), asyncio.Event()

    async def work(_: Connection) -> Answer:
        started.set()
        await finish.wait()
        return Answer(200, b"{}")

    async def request() -> Answer:
        async with ctx.database.transaction() as connection:
            return await run_once(connection, ctx, merchant.id, "k", b"h" * 32, work)

    first = asyncio.create_task(request())
    await started.wait()
    with pytest.raises(IdempotencyInProgress):
        await request()
    finish.set()
    assert not (await first).replayed
    assert (await request()).replayed


async def test_old_answers_are_forgotten_and_new_ones_kept(api: Api, client: Client) -> None:
    await client.post("/v1/invoices", BODY, key="old")
    await client.post("/v1/invoices", BODY, key="new")
    async with api.ctx.database.transaction() as connection:
        await connection.execute(
            "UPDATE idempotency_keys SET created_at = now() - interval '49 hours' WHERE key = 'old'"
        )
        assert await idempotency.remove_old(connection, api.ctx) == 1
    assert (await client.post("/v1/invoices", BODY, key="new")).headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in (await client.post("/v1/invoices", BODY, key="old")).headers
