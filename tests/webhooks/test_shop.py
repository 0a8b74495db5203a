"""The demonstration's shop: a receiver as a merchant should write it."""

from __future__ import annotations

from typing import Any

import aiohttp

from tallystick.demo.shop import open_shop
from tallystick.services import webhooks
from tests.support.webhooks import Bench, attempted, delivering


async def test_the_shop_believes_signed_events_once(bench: Bench) -> None:
    told: list[dict[str, Any]] = []
    async with open_shop(told.append) as shop, delivering(bench):
        endpoint = await bench.endpoint(shop.url)
        assert isinstance(endpoint.secret, str)
        shop.secrets.append(endpoint.secret)
        (event_id,) = await bench.publish()
        await bench.settled(attempted(1), event_id)
        async with bench.ctx.database.transaction() as connection:
            await webhooks.redeliver(connection, bench.ctx, bench.merchant_id, event_id)
        delivery = await bench.settled(attempted(2), event_id)
        assert [attempt.status_code for attempt in delivery.attempts] == [204, 204]
        assert (shop.refused, shop.repeated) == (0, 1)
    assert [event["id"] for event in told] == [event_id]


async def test_the_shop_refuses_what_is_not_signed() -> None:
    told: list[dict[str, Any]] = []
    async with open_shop(told.append) as shop, aiohttp.ClientSession() as session:
        shop.secrets.append("whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0")
        bad: tuple[dict[str, str], ...] = (
            {},
            {"webhook-id": "evt_1", "webhook-timestamp": "0", "webhook-signature": "v1,AAAA"},
            {"webhook-id": "evt_1", "webhook-timestamp": "9999999999", "webhook-signature": "v1,AAAA"},
            {"webhook-id": "evt_1", "webhook-timestamp": "now", "webhook-signature": "v1"},
        )
        for headers in bad:
            async with session.post(shop.url, data=b"{}", headers=headers) as answer:
                assert answer.status == 401
        async with session.post(shop.url, data=b"\xff\xfe", headers=bad[1]) as answer:
            assert answer.status == 401
    assert told == []
    assert shop.refused == 5


async def test_the_shop_refuses_another_endpoints_signature(bench: Bench) -> None:
    told: list[dict[str, Any]] = []
    async with open_shop(told.append) as shop, delivering(bench):
        endpoint = await bench.endpoint(shop.url)
        other = await bench.endpoint("http://127.0.0.1:9/", events=["invoice.expired"])
        assert isinstance(other.secret, str)
        shop.secrets.append(other.secret)
        (event_id,) = await bench.publish()
        delivery = await bench.settled(attempted(1), event_id)
    assert delivery.endpoint_id == endpoint.id
    assert delivery.attempts[0].status_code == 401
    assert told == []
