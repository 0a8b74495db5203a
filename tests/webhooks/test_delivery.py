"""A delivery's way: signed, sent, recorded; retried, given up, sent again."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import web

from tallystick.core.webhook import RETRY_DELAYS
from tallystick.services import delivering as services
from tallystick.services import webhooks
from tallystick.services.delivering import Disabled
from tallystick.workers.deliver import Deliverer, DelivererOptions
from tests.support.receiver import Received, Receiver, answering, running_receiver
from tests.support.webhooks import Bench, attempted, delivering

QUICK = DelivererOptions(poll_seconds=0.05, stop_seconds_max=0.2, attempt_seconds_max=0.4)


async def test_an_event_arrives_signed_and_byte_for_byte(bench: Bench, receiver: Receiver) -> None:
    endpoint = await bench.endpoint(f"{receiver.url}/hooks?shop=1")
    assert isinstance(endpoint.secret, str)
    receiver.secrets = [endpoint.secret]
    async with delivering(bench):
        (event_id,) = await bench.publish()
        (received,) = await receiver.wait_for(1)
        delivery = await bench.settled(attempted(1), event_id)
    async with bench.ctx.database.connection() as connection:
        stored = await connection.fetchval("SELECT body::text FROM events WHERE id = $1", event_id)
    assert received.signed_by == (0,)
    assert received.body == stored.encode()
    assert received.id == event_id == received.event["id"]
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["User-Agent"].startswith("Tallystick/")
    assert "Cookie" not in received.headers
    assert delivery.status == "delivered"
    assert delivery.next_attempt_at is None
    assert [(attempt.status_code, attempt.error) for attempt in delivery.attempts] == [(204, None)]


async def test_a_changed_body_or_another_secret_does_not_fit(bench: Bench, receiver: Receiver) -> None:
    endpoint = await bench.endpoint(receiver.url)
    other = await bench.endpoint("http://127.0.0.1:9/")
    assert isinstance(endpoint.secret, str)
    assert isinstance(other.secret, str)
    assert endpoint.secret != other.secret
    receiver.secrets = [other.secret, endpoint.secret]
    async with delivering(bench):
        await bench.publish()
        (received,) = await receiver.wait_for(1)
    assert received.signed_by == (1,)


async def test_both_secrets_sign_for_a_day_after_rotation(bench: Bench, receiver: Receiver) -> None:
    receiver.check_clock = False
    old = await bench.endpoint(receiver.url)
    async with bench.ctx.database.transaction() as connection:
        new = await webhooks.rotate_secret(connection, bench.ctx, bench.merchant_id, old.id)
    assert isinstance(old.secret, str)
    assert isinstance(new.secret, str)
    receiver.secrets = [old.secret, new.secret]
    async with delivering(bench):
        for later in (timedelta(hours=23, minutes=59), timedelta(minutes=2), timedelta()):
            (event_id,) = await bench.publish()
            await bench.settled(attempted(1), event_id)  # recorded: its lease no longer depends on the clock
            bench.clock.ahead += later
    assert [one.signed_by for one in receiver.received] == [(0, 1), (0, 1), (1,)]
    assert [len(one.headers["webhook-signature"].split(" ")) for one in receiver.received] == [2, 2, 1]


async def test_retries_follow_the_schedule_and_end(bench: Bench, receiver: Receiver) -> None:
    receiver.check_clock = False
    receiver.answer = answering(500)
    endpoint = await bench.endpoint(receiver.url)
    (event_id,) = await bench.publish()
    async with delivering(bench):
        for retry, delay in enumerate(RETRY_DELAYS, start=1):
            delivery = await bench.settled(attempted(retry), event_id)
            assert delivery.status == "pending"
            assert delivery.next_attempt_at is not None
            begun = delivery.attempts[-1].at
            assert delay <= delivery.next_attempt_at - begun <= delay * 1.1 + timedelta(seconds=5)
            bench.clock.ahead += delivery.next_attempt_at - bench.clock()
        failed = await bench.settled(attempted(10), event_id)
        assert failed.status == "failed"
        assert failed.next_attempt_at is None
        assert {(attempt.status_code, attempt.error) for attempt in failed.attempts} == {
            (500, "The endpoint answered 500.")
        }
        shown = await bench.shown(endpoint.id)
        assert shown.status == "enabled"  # 75 hours of failure are not 5 days
        assert shown.failing_since is not None

        receiver.answer = answering(200)
        async with bench.ctx.database.transaction() as connection:
            await webhooks.redeliver(connection, bench.ctx, bench.merchant_id, event_id)
        again = await bench.settled(lambda found: found.status == "delivered", event_id)
    assert len(again.attempts) == 11
    assert again.id == failed.id
    assert again.attempts[:10] == failed.attempts
    assert len(set(receiver.ids)) == 1
    assert (await bench.shown(endpoint.id)).failing_since is None


async def test_a_redelivery_restarts_the_schedule(bench: Bench, receiver: Receiver) -> None:
    receiver.answer = answering(500)
    await bench.endpoint(receiver.url)
    (event_id,) = await bench.publish()
    async with delivering(bench):
        await bench.settled(attempted(1), event_id)
        bench.clock.ahead += timedelta(seconds=10)
        second = await bench.settled(attempted(2), event_id)
        assert second.next_attempt_at is not None
        assert second.next_attempt_at - second.attempts[-1].at >= timedelta(minutes=5)
        async with bench.ctx.database.transaction() as connection:
            await webhooks.redeliver(connection, bench.ctx, bench.merchant_id, event_id)
        third = await bench.settled(attempted(3), event_id)
    assert third.next_attempt_at is not None
    assert third.next_attempt_at - third.attempts[-1].at < timedelta(seconds=30)


async def test_gone_disables_the_endpoint_at_once(bench: Bench, receiver: Receiver) -> None:
    receiver.answer = answering(410)
    endpoint = await bench.endpoint(receiver.url)
    told: list[Disabled] = []
    deliverer = Deliverer(bench.ctx, QUICK, on_disabled=told.append)
    stop = asyncio.Event()
    running = asyncio.create_task(deliverer.run(stop))
    (event_id,) = await bench.publish()
    delivery = await bench.settled(attempted(1), event_id)
    shown = await bench.shown(endpoint.id)
    stop.set()
    await running
    assert delivery.status == "failed"
    assert shown.status == "disabled"
    assert shown.disabled_reason is not None
    assert "410" in shown.disabled_reason
    assert [one.endpoint_id for one in told] == [endpoint.id]
    assert await bench.publish() != []
    assert await bench.count("pending") == 0  # a disabled endpoint gets no new deliveries


async def test_what_waits_for_a_disabled_or_deleted_endpoint_fails_when_due(
    bench: Bench, receiver: Receiver
) -> None:
    receiver.answer = answering(500)
    first, second = await bench.endpoint(f"{receiver.url}/1"), await bench.endpoint(f"{receiver.url}/2")
    (event_id,) = await bench.publish()
    async with bench.ctx.database.transaction() as connection:
        await webhooks.update_endpoint(
            connection, bench.ctx, bench.merchant_id, first.id, webhooks.EndpointChange(status="disabled")
        )
        await webhooks.delete_endpoint(connection, bench.ctx, bench.merchant_id, second.id)
    async with delivering(bench):
        await bench.all_are("failed", 2)
    assert receiver.received == []
    assert {delivery.status for delivery in await bench.deliveries(event_id)} == {"failed"}


async def test_five_days_of_failure_disable_the_endpoint(bench: Bench, receiver: Receiver) -> None:
    receiver.check_clock = False
    receiver.answer = answering(503)
    endpoint = await bench.endpoint(receiver.url)
    async with delivering(bench):
        (event_id,) = await bench.publish()
        await bench.settled(attempted(1), event_id)
        assert (await bench.shown(endpoint.id)).failing_since is not None
        bench.clock.ahead += timedelta(days=5)
        delivery = await bench.settled(attempted(2), event_id)
        assert delivery.status == "failed"
    shown = await bench.shown(endpoint.id)
    assert shown.status == "disabled"
    assert shown.disabled_reason is not None
    assert "5 days" in shown.disabled_reason


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_obeyed(bench: Bench, receiver: Receiver, status: int) -> None:
    receiver.answer = answering(status, {"Retry-After": "7200"})
    await bench.endpoint(receiver.url)
    (event_id,) = await bench.publish()
    async with delivering(bench):
        delivery = await bench.settled(attempted(1), event_id)
    assert delivery.next_attempt_at is not None
    assert abs(delivery.next_attempt_at - bench.clock() - timedelta(hours=2)) < timedelta(seconds=30)


async def test_a_wish_to_wait_holds_the_endpoints_other_deliveries_too(
    bench: Bench, receiver: Receiver
) -> None:
    receiver.answer = answering(429, {"Retry-After": "60"})
    await bench.endpoint(receiver.url)
    other_merchant = await bench.merchant()
    async with running_receiver() as other, delivering(bench):
        await bench.endpoint(other.url, merchant_id=other_merchant)
        async with bench.ctx.database.connection() as connection:
            await connection.execute(
                "UPDATE webhook_endpoints SET failing_since = now()"
            )  # one claim for both
        (first,) = await bench.publish()
        await bench.settled(attempted(1), first)
        (held,) = await bench.publish()
        await bench.publish(merchant_id=other_merchant)
        await other.wait_for(1)
        assert (await bench.delivery(held)).attempts == []
    assert receiver.ids == [first]


async def test_redirects_are_not_followed(bench: Bench, receiver: Receiver) -> None:
    async with running_receiver() as elsewhere:
        receiver.answer = answering(307, {"Location": f"{elsewhere.url}/stolen"})
        await bench.endpoint(receiver.url)
        (event_id,) = await bench.publish()
        async with delivering(bench):
            delivery = await bench.settled(attempted(1), event_id)
        assert elsewhere.received == []
    assert delivery.status == "pending"
    assert delivery.attempts[0].status_code == 307
    assert delivery.attempts[0].error == "The endpoint answered 307; redirects are not followed."


async def test_no_answer_ends_in_time(bench: Bench, receiver: Receiver) -> None:
    async def never(_request: web.Request, _received: Received) -> web.StreamResponse:
        await asyncio.sleep(3600)
        return web.Response()

    receiver.answer = never
    await bench.endpoint(receiver.url)
    (event_id,) = await bench.publish()
    async with delivering(bench, QUICK):
        delivery = await bench.settled(attempted(1), event_id)
    assert delivery.attempts[0].status_code is None
    assert delivery.attempts[0].error == "No answer came within 0.4 s."
    assert 400 <= delivery.attempts[0].duration_ms < 5000


async def test_an_endless_answer_counts_by_its_status_and_is_cut_off(
    bench: Bench, receiver: Receiver
) -> None:
    written = 0
    cut = asyncio.Event()

    async def endless(request: web.Request, _received: Received) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(status=200)
        await response.prepare(request)
        try:
            while not cut.is_set():
                await response.write(b"x" * 65536)
                written += 65536
        except (ConnectionError, asyncio.CancelledError):
            cut.set()
            raise
        return response

    receiver.answer = endless
    await bench.endpoint(receiver.url)
    (event_id,) = await bench.publish()
    async with delivering(bench):
        delivery = await bench.settled(attempted(1), event_id)
        async with asyncio.timeout(10):
            await cut.wait()
    assert delivery.status == "delivered"
    assert written < 32 * 1024 * 1024  # what the two sockets buffer, not more


async def test_a_dripping_answer_is_not_waited_for(bench: Bench, receiver: Receiver) -> None:
    async def dripping(request: web.Request, _received: Received) -> web.StreamResponse:
        response = web.StreamResponse(status=200)
        await response.prepare(request)
        while request.transport is not None:
            await response.write(b".")
            await asyncio.sleep(0.05)
        return response

    receiver.answer = dripping
    await bench.endpoint(receiver.url)
    (event_id,) = await bench.publish()
    async with delivering(bench):
        delivery = await bench.settled(attempted(1), event_id)
    assert delivery.status == "delivered"
    assert 900 <= delivery.attempts[0].duration_ms < 8000


async def test_a_compressed_answer_is_not_unpacked(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = gzip.compress(b"\0" * (64 * 1024 * 1024))  # 64 KiB, 64 MiB unpacked

    async def send_bomb(_request: web.Request, _received: Received) -> web.StreamResponse:
        return web.Response(status=200, body=bomb, headers={"Content-Encoding": "gzip"})

    unpacked: list[object] = []
    from aiohttp import http_parser

    class Refusing(http_parser.DeflateBuffer):
        def __init__(self, *arguments: object, **named: object) -> None:
            unpacked.append(arguments)
            raise AssertionError("the answer was unpacked")

    monkeypatch.setattr(http_parser, "DeflateBuffer", Refusing)
    receiver.answer = send_bomb
    await bench.endpoint(receiver.url)
    (event_id,) = await bench.publish()
    async with delivering(bench):
        (received,) = await receiver.wait_for(1)
        delivery = await bench.settled(attempted(1), event_id)
    assert delivery.status == "delivered"
    assert unpacked == []
    assert received.headers["Accept-Encoding"] == "identity"


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(talk: Talk) -> AsyncIterator[str]:
    """A server that speaks no HTTP of itself; its URL."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "What came was not a valid HTTP answer."),
        (
            b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n",
            "What came was not a valid HTTP answer.",
        ),
        (b"", "The connection was closed before an answer came."),
        (b"HTTP/1.1 200 OK\r\n", "The connection was closed before an answer came."),
    ],
)
async def test_what_is_not_http_is_said_so(bench: Bench, answer: bytes, error: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    async with raw_server(talk) as url:
        await bench.endpoint(url)
        (event_id,) = await bench.publish()
        async with delivering(bench):
            delivery = await bench.settled(attempted(1), event_id)
    assert delivery.status == "pending"
    assert delivery.attempts[0].error == error


async def test_a_refused_connection_is_said_so(bench: Bench, free_port: Callable[[], int]) -> None:
    await bench.endpoint(f"http://127.0.0.1:{free_port()}/")
    (event_id,) = await bench.publish()
    async with delivering(bench):
        delivery = await bench.settled(attempted(1), event_id)
    assert delivery.attempts[0].error == "No connection: Connection refused."


async def test_a_connection_gone_stale_costs_no_attempt(bench: Bench) -> None:
    """A server may close a kept connection just when it is used again; that says nothing about the receiver."""
    requests = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        requests += 1
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        await reader.readexactly(1)  # the second request is met by a closed door

    async with raw_server(talk) as url:
        await bench.endpoint(url)
        async with delivering(bench):
            (first,) = await bench.publish()
            await bench.settled(attempted(1), first)
            (second,) = await bench.publish()
            delivery = await bench.settled(attempted(1), second)
    assert delivery.status == "delivered"
    assert len(delivery.attempts) == 1
    assert requests == 2


async def test_connections_are_kept(bench: Bench, receiver: Receiver) -> None:
    await bench.endpoint(receiver.url)
    async with delivering(bench):
        for _ in range(10):
            (event_id,) = await bench.publish()
            await bench.settled(attempted(1), event_id)
    assert len(receiver.connections) == 1


async def test_proxies_of_the_environment_are_ignored(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("no_proxy", "")
        await bench.endpoint(receiver.url)
        async with delivering(bench):
            await bench.publish()
            await receiver.wait_for(1)
        assert proxy.received == []


async def test_cookies_are_not_kept(bench: Bench, receiver: Receiver) -> None:
    receiver.answer = answering(200, {"Set-Cookie": "a=b"})
    await bench.endpoint(receiver.url)
    async with delivering(bench):
        for count in (1, 2):
            await bench.publish()
            await receiver.wait_for(count)
    assert all("Cookie" not in one.headers for one in receiver.received)


async def test_only_due_deliveries_are_claimed_and_by_one_claimer(bench: Bench, receiver: Receiver) -> None:
    await bench.endpoint(receiver.url)
    await bench.publish(10)

    async def claim() -> list[str]:
        async with bench.ctx.database.transaction() as connection:
            found = await services.claim_deliveries(
                connection, bench.ctx, after="", rooms={}, room=4, failing=False, limit=100
            )
            return [one.id for one in found]

    first, second, third, fourth = await claim(), await claim(), await claim(), await claim()
    assert [len(first), len(second), len(third), len(fourth)] == [4, 4, 2, 0]
    assert len({*first, *second, *third}) == 10
    bench.clock.ahead += services.LEASE
    assert len(await claim()) == 4
