"""(a) Invoices created per second over HTTP, against the same database's rate of single INSERTs, each its own
commit."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Final

import aiohttp
import asyncpg

from bench.server import running_server
from bench.stage import NETWORK, BlockPlan, durable_database, open_shop, stub_node

CLIENTS: Final = (1, 8, 32)


@dataclass(frozen=True, slots=True)
class CreationResult:
    """One number of clients. Rates are per second, times in milliseconds; `ratio` is invoices over commits."""

    clients: int
    invoices: int
    invoices_per_second: float
    p50_ms: float
    p99_ms: float
    commits_per_second: float
    ratio: float


async def creation(seconds: float) -> list[CreationResult]:
    """Measure at 1, 8 and 32 clients. Every invoice issues an address, locks a rate and records three transitions."""
    results = []
    async with durable_database() as url, open_shop(url) as shop:
        with stub_node() as node:
            await node.append([BlockPlan(1)])
            async with running_server(url, node.url) as server:
                await _clients(server, shop.api_key, 4, min(2.0, seconds))  # warm
                for clients in CLIENTS:
                    commits = await _commits(url, clients, seconds / 2)
                    times, took = await _clients(server, shop.api_key, clients, seconds)
                    quantiles = statistics.quantiles(times, n=100)
                    rate = len(times) / took
                    results.append(
                        CreationResult(
                            clients=clients,
                            invoices=len(times),
                            invoices_per_second=round(rate, 1),
                            p50_ms=round(1000 * quantiles[49], 2),
                            p99_ms=round(1000 * quantiles[98], 2),
                            commits_per_second=round(commits, 1),
                            ratio=round(rate / commits, 3),
                        )
                    )
    return results


async def _clients(server: str, api_key: str, clients: int, seconds: float) -> tuple[list[float], float]:
    body = {
        "amount": "25.00",
        "currency": "USD",
        "accepted": [{"asset": "DUSD", "network": NETWORK.name}],
        "order_id": "bench",
    }
    times: list[float] = []

    async def client(session: aiohttp.ClientSession, until: float) -> None:
        while (begun := time.perf_counter()) < until:
            async with session.post(f"{server}/v1/invoices", json=body) as answer:
                await answer.read()
                if answer.status != 201:
                    raise RuntimeError(f"the server answered {answer.status}")
            times.append(time.perf_counter() - begun)

    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Authorization": f"Bearer {api_key}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        begun = time.perf_counter()
        await asyncio.gather(*(client(session, begun + seconds) for _ in range(clients)))
        return times, time.perf_counter() - begun


async def _commits(url: str, clients: int, seconds: float) -> float:
    """Single-row INSERTs, each its own durable commit, per second."""
    pool = await asyncpg.create_pool(url, min_size=clients, max_size=clients)
    try:
        await pool.execute(
            "CREATE TABLE IF NOT EXISTS bench_commits (n bigint GENERATED ALWAYS AS IDENTITY, t text)"
        )
        count = 0

        async def client(until: float) -> None:
            nonlocal count
            async with pool.acquire() as connection:
                while time.perf_counter() < until:
                    await connection.execute("INSERT INTO bench_commits (t) VALUES ($1)", "x")
                    count += 1

        begun = time.perf_counter()
        await asyncio.gather(*(client(begun + seconds) for _ in range(clients)))
        return count / (time.perf_counter() - begun)
    finally:
        await pool.close()
