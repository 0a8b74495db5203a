"""A merchant's endpoints, pings, the event stream and redelivery, as the services offer them."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tallystick.core.errors import Conflict, InvalidInput, NotFound
from tallystick.services import webhooks
from tallystick.services.webhooks import EndpointChange, EventFilter, NewEndpoint
from tests.support.receiver import Receiver
from tests.support.webhooks import Bench, delivering

URL = "https://shop.example.com/hooks"


async def call(
    bench: Bench, function: Any, *arguments: Any, merchant_id: str | None = None, **named: Any
) -> Any:
    """Call a service in a transaction of its own."""
    async with bench.ctx.database.transaction() as connection:
        return await function(connection, bench.ctx, merchant_id or bench.merchant_id, *arguments, **named)


async def test_a_secret_is_shown_on_creation_and_rotation_only(bench: Bench) -> None:
    made = await call(bench, webhooks.create_endpoint, NewEndpoint(URL, ("invoice.paid",), "Orders"))
    assert made.status == "enabled"
    assert made.events == ["invoice.paid"]
    assert made.description == "Orders"
    assert len(base64.b64decode(made.secret.removeprefix("whsec_"))) == 32
    shown = await call(bench, webhooks.get_endpoint, made.id)
    assert shown.secret is msgspec.UNSET
    assert "secret" not in msgspec.to_builtins(shown)
    assert "secret" not in msgspec.to_builtins((await call(bench, webhooks.list_endpoints, 10, None)).data[0])
    rotated = await call(bench, webhooks.rotate_secret, made.id)
    assert rotated.secret != made.secret
    assert replace_secret(rotated) == replace_secret(made)


def replace_secret(endpoint: Any) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(endpoint).items() if name != "secret"}


@pytest.mark.parametrize(
    ("new", "pointer"),
    [
        (NewEndpoint("ftp://shop.example.com/"), "/url"),
        (NewEndpoint("http://0.0.0.0/"), "/url"),
        (NewEndpoint(URL, ()), "/events"),
        (NewEndpoint(URL, ("*", "invoice.paid")), "/events"),
        (NewEndpoint(URL, ("invoice.paid", "invoice.happy")), "/events/1"),
        (NewEndpoint(URL, ("invoice.*",)), "/events/0"),
        (NewEndpoint(URL, ("*",), "x" * 501), "/description"),
        (NewEndpoint(URL, ("*",), "a\x00b"), "/description"),
        (NewEndpoint(URL, ("*",), "a\ud800b"), "/description"),
    ],
)
async def test_what_is_wrong_is_named(bench: Bench, new: NewEndpoint, pointer: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await call(bench, webhooks.create_endpoint, new)
    assert [problem.pointer for problem in caught.value.problems] == [pointer]
    assert (await call(bench, webhooks.list_endpoints, 10, None)).data == []


async def test_private_targets_need_the_operators_leave(bench: Bench) -> None:
    strict = replace(bench, ctx=replace(bench.ctx, allow_private_targets=False))
    for url in ("http://shop.example.com/", "https://127.0.0.1/", "https://[::1]/", "https://localhost/"):
        with pytest.raises(InvalidInput):
            await call(strict, webhooks.create_endpoint, NewEndpoint(url))
        await call(bench, webhooks.create_endpoint, NewEndpoint(url))


async def test_the_number_of_endpoints_is_limited_also_for_simultaneous_creators(bench: Bench) -> None:
    outcomes = await asyncio.gather(
        *(call(bench, webhooks.create_endpoint, NewEndpoint(f"{URL}/{number}")) for number in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 4
    page = await call(bench, webhooks.list_endpoints, 10, None)
    rest = await call(bench, webhooks.list_endpoints, 10, page.next_cursor)
    assert [len(page.data), len(rest.data), rest.next_cursor] == [10, 6, None]
    ids = [endpoint.id for endpoint in page.data + rest.data]
    assert ids == sorted(ids, reverse=True)
    await call(bench, webhooks.delete_endpoint, ids[0])
    await call(bench, webhooks.create_endpoint, NewEndpoint(URL))


async def test_changes(bench: Bench) -> None:
    made = await call(bench, webhooks.create_endpoint, NewEndpoint(URL))
    changed = await call(
        bench,
        webhooks.update_endpoint,
        made.id,
        EndpointChange(
            url=f"{URL}/2", events=("invoice.paid", "invoice.paid"), description="D", status="disabled"
        ),
    )
    assert (changed.url, changed.events, changed.description) == (f"{URL}/2", ["invoice.paid"], "D")
    assert (changed.status, changed.disabled_reason) == ("disabled", "Disabled by its owner.")
    assert await call(bench, webhooks.get_endpoint, made.id) == changed
    enabled = await call(bench, webhooks.update_endpoint, made.id, EndpointChange(status="enabled"))
    assert (enabled.status, enabled.disabled_reason, enabled.failing_since) == ("enabled", None, None)
    for change in (EndpointChange(status="asleep"), EndpointChange(url="x"), EndpointChange(events=("x",))):
        with pytest.raises(InvalidInput):
            await call(bench, webhooks.update_endpoint, made.id, change)
    assert await call(bench, webhooks.get_endpoint, made.id) == enabled


async def test_a_deleted_endpoint_is_gone_and_its_secret_too(bench: Bench) -> None:
    made = await call(bench, webhooks.create_endpoint, NewEndpoint(URL))
    await call(bench, webhooks.delete_endpoint, made.id)
    for function in (webhooks.get_endpoint, webhooks.delete_endpoint, webhooks.rotate_secret, webhooks.ping):
        with pytest.raises(NotFound):
            await call(bench, function, made.id)
    assert (await call(bench, webhooks.list_endpoints, 10, None)).data == []
    async with bench.ctx.database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT secret, previous_secret FROM webhook_endpoints WHERE id = $1", made.id
        )
    assert row is not None
    assert tuple(row) == ("", None)


async def test_another_merchants_objects_do_not_exist(bench: Bench) -> None:
    other = await bench.merchant()
    made = await call(bench, webhooks.create_endpoint, NewEndpoint(URL))
    (event_id,) = await bench.publish()
    for function, argument in (
        (webhooks.get_endpoint, made.id),
        (webhooks.delete_endpoint, made.id),
        (webhooks.rotate_secret, made.id),
        (webhooks.ping, made.id),
        (webhooks.get_event, event_id),
        (webhooks.list_deliveries, event_id),
        (webhooks.redeliver, event_id),
    ):
        with pytest.raises(NotFound):
            await call(bench, function, argument, merchant_id=other)
    with pytest.raises(NotFound):
        await call(bench, webhooks.update_endpoint, made.id, EndpointChange(), merchant_id=other)
    with pytest.raises(InvalidInput):
        await call(bench, webhooks.list_events, EventFilter(after=event_id), 10, None, merchant_id=other)
    assert (await call(bench, webhooks.list_events, EventFilter(), 10, None, merchant_id=other)).data == []
    (mine,) = await bench.publish(merchant_id=other)
    with pytest.raises(InvalidInput):
        await call(bench, webhooks.redeliver, mine, made.id, merchant_id=other)


async def test_a_ping_goes_to_its_endpoint_only(bench: Bench, receiver: Receiver) -> None:
    wanted = await bench.endpoint(f"{receiver.url}/wanted", events=["invoice.paid"])
    await bench.endpoint(f"{receiver.url}/other")
    async with delivering(bench):
        event = await call(bench, webhooks.ping, wanted.id)
        again = await call(bench, webhooks.ping, wanted.id)
        await bench.all_are("delivered", 2)
        await call(bench, webhooks.redeliver, event.id)
        await receiver.wait_for(3)
    assert {one.path for one in receiver.received} == {"/wanted"}
    assert event.type == "webhook.ping"
    assert event.data.object["id"] == wanted.id
    assert "secret" not in event.data.object
    assert (event.data.sequence, again.data.sequence) == (1, 2)
    assert receiver.received[0].event == msgspec.to_builtins(event)


async def test_a_disabled_endpoint_is_not_pinged(bench: Bench) -> None:
    made = await call(bench, webhooks.create_endpoint, NewEndpoint(URL))
    await call(bench, webhooks.update_endpoint, made.id, EndpointChange(status="disabled"))
    with pytest.raises(Conflict):
        await call(bench, webhooks.ping, made.id)


async def test_only_wanted_types_are_delivered(bench: Bench) -> None:
    paid = await bench.endpoint(URL, events=["invoice.paid"])
    every = await bench.endpoint(URL)
    (event_id,) = await bench.publish(type="invoice.expired")
    assert [one.endpoint_id for one in await bench.deliveries(event_id)] == [every.id]
    (event_id,) = await bench.publish(type="invoice.paid")
    assert {one.endpoint_id for one in await bench.deliveries(event_id)} == {paid.id, every.id}


async def test_events_newest_first_with_filters(bench: Bench) -> None:
    ids = []
    for type_ in ("invoice.paid", "invoice.expired", "invoice.paid"):
        await asyncio.sleep(0.002)  # ids sort by the millisecond
        ids += await bench.publish(type=type_)
    newest = await call(bench, webhooks.list_events, EventFilter(), 2, None)
    assert [event.id for event in newest.data] == [ids[2], ids[1]]
    rest = await call(bench, webhooks.list_events, EventFilter(), 2, newest.next_cursor)
    assert [event.id for event in rest.data] == [ids[0]]
    assert rest.next_cursor is None
    paid = await call(bench, webhooks.list_events, EventFilter(type="invoice.paid"), 10, None)
    assert [event.id for event in paid.data] == [ids[2], ids[0]]
    about = rest.data[0].data.object["id"]
    only = await call(bench, webhooks.list_events, EventFilter(object_id=about), 10, None)
    assert [event.id for event in only.data] == [ids[0]]


async def test_the_stream_waits_for_older_transactions(bench: Bench) -> None:
    """An event of a transaction that began earlier and commits later must not be overtaken."""
    (start,) = await bench.publish()
    database = bench.ctx.database
    async with database.connection() as older:
        opened = older.transaction()
        await opened.start()
        (early,) = await bench.publish_in(older)
        late = await bench.publish(2)
        seen = await call(bench, webhooks.list_events, EventFilter(after=start), 10, None)
        assert seen.data == []
        newest = await call(bench, webhooks.list_events, EventFilter(), 10, None)
        assert len(newest.data) == 3  # the list is not the stream
        await opened.commit()
    seen = await call(bench, webhooks.list_events, EventFilter(after=start), 10, None)
    assert [event.id for event in seen.data] == [early, *late]
    assert seen.next_cursor is None


async def test_the_stream_is_read_page_by_page_without_gaps(bench: Bench) -> None:
    (start,) = await bench.publish()
    await asyncio.gather(*(bench.publish(5) for _ in range(8)))
    read: list[str] = []
    after = start
    while True:
        page = await call(bench, webhooks.list_events, EventFilter(after=after), 7, None)
        read += [event.id for event in page.data]
        if page.next_cursor is None:
            break
        after = read[-1]
    by_cursor: list[str] = []
    cursor = None
    while True:
        page = await call(bench, webhooks.list_events, EventFilter(after=start), 7, cursor)
        by_cursor += [event.id for event in page.data]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(read) == len(set(read)) == 40
    assert by_cursor == read
    with pytest.raises(InvalidInput):
        await call(bench, webhooks.list_events, EventFilter(after="evt_unknown"), 7, None)


async def test_redelivery_includes_new_endpoints(bench: Bench, receiver: Receiver) -> None:
    first = await bench.endpoint(f"{receiver.url}/first")
    (event_id,) = await bench.publish()
    second = await bench.endpoint(f"{receiver.url}/second")
    third = await bench.endpoint(f"{receiver.url}/third", events=["invoice.expired"])
    async with delivering(bench):
        await bench.all_are("delivered", 1)
        found = await call(bench, webhooks.redeliver, event_id)
        assert {one.endpoint_id for one in found} == {first.id, second.id}
        await receiver.wait_for(3)
        await bench.all_are("delivered", 2)
        chosen = await call(bench, webhooks.redeliver, event_id, third.id)
        assert {one.endpoint_id for one in chosen} == {first.id, second.id, third.id}
        await receiver.wait_for(4)
    assert sorted(one.path for one in receiver.received) == ["/first", "/first", "/second", "/third"]


async def test_redelivery_needs_an_enabled_endpoint(bench: Bench) -> None:
    (event_id,) = await bench.publish()
    with pytest.raises(Conflict):
        await call(bench, webhooks.redeliver, event_id)
    made = await call(bench, webhooks.create_endpoint, NewEndpoint(URL))
    await call(bench, webhooks.update_endpoint, made.id, EndpointChange(status="disabled"))
    with pytest.raises(Conflict):
        await call(bench, webhooks.redeliver, event_id, made.id)
    with pytest.raises(NotFound):
        await call(bench, webhooks.redeliver, "evt_unknown")
    with pytest.raises(InvalidInput):
        await call(bench, webhooks.redeliver, event_id, "whe_unknown")
