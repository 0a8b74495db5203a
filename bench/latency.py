"""(d) Time from a block being served by the node to the signed webhook's arrival at the merchant."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web

from bench.intake import UNITS
from bench.server import running_server
from bench.stage import NETWORK, BlockPlan, durable_database, open_shop, stub_node

ARRIVAL_SECONDS_MAX: Final = 30


@dataclass(frozen=True, slots=True)
class LatencyResult:
    """One poll interval. Times in milliseconds, from the block's first availability to the webhook's arrival."""

    poll_interval_ms: int
    payments: int
    p50_ms: float
    p99_ms: float
    p50_without_poll_ms: float


async def latency(samples: int) -> list[LatencyResult]:
    """Measure with the default poll interval and with a short one, where our own share shows."""
    return [await _case(50, samples), await _case(1000, samples)]


async def _case(poll_interval_ms: int, samples: int) -> LatencyResult:
    arrivals: asyncio.Queue[float] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        event = json.loads(await request.read())
        if event["type"] == "payment.detected":
            arrivals.put_nowait(time.perf_counter())
        return web.Response()

    app = web.Application()
    app.router.add_post("/", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    target = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        times = await _measure(poll_interval_ms, samples, target, arrivals)
    finally:
        await runner.cleanup()
    quantiles = statistics.quantiles(times, n=100)
    return LatencyResult(
        poll_interval_ms=poll_interval_ms,
        payments=len(times),
        p50_ms=round(1000 * quantiles[49], 1),
        p99_ms=round(1000 * quantiles[98], 1),
        p50_without_poll_ms=round(max(0.0, 1000 * quantiles[49] - poll_interval_ms / 2), 1),
    )


async def _measure(
    poll_interval_ms: int, samples: int, target: str, arrivals: asyncio.Queue[float]
) -> list[float]:
    times: list[float] = []
    chance = random.Random(1)
    async with durable_database() as url, open_shop(url) as shop:
        with stub_node() as node:
            await node.append([BlockPlan(1)])
            headers = {"Authorization": f"Bearer {shop.api_key}"}
            async with (
                running_server(url, node.url, poll_interval_ms=poll_interval_ms) as server,
                aiohttp.ClientSession(server, headers=headers, raise_for_status=True) as session,
            ):
                endpoint = {"url": target, "events": ["payment.detected"]}
                await session.post("/v1/webhook_endpoints", json=endpoint)
                invoice = {
                    "amount": "25.00",
                    "currency": "USD",
                    "accepted": [{"asset": "DUSD", "network": NETWORK.name}],
                }
                for _ in range(samples):
                    async with session.post("/v1/invoices", json=invoice) as answer:
                        address = (await answer.json())["payment_options"][0]["address"].lower()
                    # Blocks come at any moment of the poll interval, not in step with it.
                    await asyncio.sleep(chance.random() * poll_interval_ms / 1000)
                    await node.append([BlockPlan(200, ((address, UNITS),))])
                    served = time.perf_counter()
                    times.append(await asyncio.wait_for(arrivals.get(), ARRIVAL_SECONDS_MAX) - served)
    return times
