"""A dead endpoint is a case in the queue: opened when it is disabled, closed when it is enabled again or deleted.

Cites R-EXC 1.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from tallystick.core.cases import CaseKind, Resolution
from tallystick.services import exceptions, objects, webhooks
from tallystick.services.context import Actor, ActorType
from tallystick.services.exceptions import ExceptionFilter, Resolve
from tests.support.receiver import Receiver, answering, running_receiver
from tests.support.webhooks import Bench, attempted, delivering

ACTOR = Actor(ActorType.OPERATOR, "ann")


async def queue(bench: Bench) -> list[objects.ExceptionObject]:
    """Every case of the merchant."""
    async with bench.ctx.database.connection() as connection:
        found = await exceptions.list_exceptions(
            connection, bench.ctx, bench.merchant_id, ExceptionFilter(), 50, None
        )
    return found.data


async def disabled(bench: Bench, receiver: Receiver) -> objects.WebhookEndpoint:
    """An endpoint that said that it is gone."""
    receiver.answer = answering(410)
    endpoint = await bench.endpoint(receiver.url, events=("invoice.paid",))
    (event_id,) = await bench.publish()
    async with delivering(bench):
        await bench.settled(attempted(1), event_id)
    return endpoint


async def test_a_dead_endpoint_is_a_case_until_it_is_enabled_again(bench: Bench, receiver: Receiver) -> None:
    endpoint = await disabled(bench, receiver)
    (case,) = await queue(bench)
    assert (case.kind, case.subject, case.owner, case.invoice_id) == (
        "webhook_failed",
        endpoint.id,
        "merchant",
        None,
    )
    assert (case.detail["url"], case.actions) == (receiver.url, ["ignore"])
    assert "410" in case.detail["reason"]
    async with bench.ctx.database.transaction() as connection:
        await webhooks.update_endpoint(
            connection, bench.ctx, bench.merchant_id, endpoint.id, webhooks.EndpointChange(description="x")
        )
    assert [one.status for one in await queue(bench)] == ["open"]
    async with bench.ctx.database.transaction() as connection:
        await webhooks.update_endpoint(
            connection, bench.ctx, bench.merchant_id, endpoint.id, webhooks.EndpointChange(status="enabled")
        )
    (closed,) = await queue(bench)
    assert closed.resolution is not None
    assert (closed.status, closed.resolution["action"]) == ("resolved", None)
    assert "enabled" in closed.resolution["note"]


async def test_it_closes_when_the_endpoint_is_deleted(bench: Bench, receiver: Receiver) -> None:
    endpoint = await disabled(bench, receiver)
    async with bench.ctx.database.transaction() as connection:
        await webhooks.delete_endpoint(connection, bench.ctx, bench.merchant_id, endpoint.id)
    assert [one.status for one in await queue(bench)] == ["resolved"]


async def test_a_merchants_other_endpoints_are_told(bench: Bench, receiver: Receiver) -> None:
    async with running_receiver() as other:
        await bench.endpoint(other.url, events=("exception.opened", "exception.resolved"))
        endpoint = await disabled(bench, receiver)
        async with delivering(bench):
            await bench.all_are("delivered", 1)
            async with bench.ctx.database.transaction() as connection:
                await webhooks.update_endpoint(
                    connection,
                    bench.ctx,
                    bench.merchant_id,
                    endpoint.id,
                    webhooks.EndpointChange(status="enabled"),
                )
            await bench.all_are("delivered", 2)
        assert len(other.received) == 2


async def test_failing_for_five_days_is_a_case_too(bench: Bench, receiver: Receiver) -> None:
    receiver.check_clock = False
    receiver.answer = answering(503)
    await bench.endpoint(receiver.url)
    async with delivering(bench):
        (event_id,) = await bench.publish()
        await bench.settled(attempted(1), event_id)
        assert await queue(bench) == []
        bench.clock.ahead += timedelta(days=5)
        await bench.settled(attempted(2), event_id)
    assert [one.kind for one in await queue(bench)] == ["webhook_failed"]


async def test_whoever_disables_their_own_endpoint_knows_it(bench: Bench, receiver: Receiver) -> None:
    endpoint = await bench.endpoint(receiver.url)
    async with bench.ctx.database.transaction() as connection:
        await webhooks.update_endpoint(
            connection, bench.ctx, bench.merchant_id, endpoint.id, webhooks.EndpointChange(status="disabled")
        )
    assert await queue(bench) == []


@pytest.mark.parametrize("action", [Resolution.IGNORE])
async def test_ignored_it_is_a_new_case_when_it_dies_again(
    bench: Bench, receiver: Receiver, action: Resolution
) -> None:
    endpoint = await disabled(bench, receiver)
    (case,) = await queue(bench)
    async with bench.ctx.database.transaction() as connection:
        done = await exceptions.resolve(
            connection, bench.ctx, bench.merchant_id, ACTOR, case.id, Resolve(action, "we poll")
        )
        assert done.resolution is not None
        assert done.resolution["actor"] == {"type": "operator", "id": "ann"}
        await webhooks.update_endpoint(
            connection, bench.ctx, bench.merchant_id, endpoint.id, webhooks.EndpointChange(status="enabled")
        )
    (event_id,) = await bench.publish()
    async with delivering(bench):
        await bench.settled(attempted(1), event_id)
    assert sorted(one.status for one in await queue(bench)) == ["open", "resolved"]
    assert {one.kind for one in await queue(bench)} == {CaseKind.WEBHOOK_FAILED}
