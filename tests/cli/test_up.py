"""`tallystick up` as a process: used while it runs, killed, started again, stopped; and its parts run apart."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.cli.processes import SCRIPT, environment, family, gone, run, serving
from tests.cli.test_commands import XPUB
from tests.support.anvil import start_anvil, unique_chain_id
from tests.support.exchanges import open_market


async def get(url: str, key: str | None = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession(headers=headers) as http, http.get(url) as response:
        return response.status, await response.json(content_type=None)


def network_settings(chain_id: int, url: str) -> dict[str, str]:
    """A network given by the environment alone."""
    prefix = "TALLYSTICK_NETWORKS__ANVIL__"
    return {
        f"{prefix}KIND": "evm",
        f"{prefix}CHAIN_ID": str(chain_id),
        f"{prefix}RPC": url,
        f"{prefix}NATIVE__SYMBOL": "ETH",
        f"{prefix}NATIVE__DECIMALS": "18",
        f"{prefix}POLL_INTERVAL_MS": "50",
    }


async def test_a_merchant_is_created_while_up_runs_on_the_same_folder_and_survives_kill_9(
    data_dir: Path,
) -> None:
    settings = {"TALLYSTICK_DATA_DIR": str(data_dir)}
    async with serving("up", **settings) as server:
        created = (await run("merchant", "create", "--name", "M", "--json", **settings)).object
        status, answer = await get(f"{server.url}/v1/wallets", created["api_key"])
        assert (status, answer["data"]) == (200, [])
        assert (await get(f"{server.url}/v1/wallets"))[0] == 401
        everything = family(server.process.pid)
        assert len(everything) > 1  # the database is among them
        await server.kill()
    await gone(everything)
    async with serving("up", **settings) as server:
        assert (await get(f"{server.url}/v1/wallets", created["api_key"]))[0] == 200
        everything = family(server.process.pid)
        assert await server.stop(signal.SIGINT) == 0
    await gone(everything)


async def test_exchanges_are_asked_by_a_server_that_starts_without_waiting_for_them(
    database_url: str,
) -> None:
    """One of them hangs from the start: the server is ready all the same, quotes by the others, stops at once."""
    async with AsyncExitStack() as stack:
        styles = ("kraken", "coinbase", "binance")
        markets = {style: await stack.enter_async_context(open_market(style)) for style in styles}
        markets["binance"].trouble, markets["binance"].trouble_everywhere = "slow", True
        settings = network_settings(31337, "http://127.0.0.1:9") | {
            "TALLYSTICK_DATABASE_URL": database_url,
            "TALLYSTICK_RATES__SOURCES": ",".join(styles),
            "TALLYSTICK_RATES__REQUEST_TIMEOUT_SECONDS": "10",
            **{f"TALLYSTICK_RATES__URLS__{style.upper()}": market.url for style, market in markets.items()},
        }
        async with serving("up", **settings) as server:
            key = (await run("merchant", "create", "--name", "M", "--json", **settings)).object["api_key"]
            status, rate = await get(f"{server.url}/v1/rates?base=ETH&quote=USD", key)
            assert (status, rate["value"]) == (200, "2500")
            assert rate["source"] == "median of kraken, coinbase"
            assert rate["sources"][2]["problem"] == "It did not answer in time."
            async with asyncio.timeout(9):
                assert await server.stop(signal.SIGTERM) == 0


@pytest.mark.chain
async def test_one_network_that_fails_stops_neither_the_server_nor_the_other(database_url: str) -> None:
    async with start_anvil(chain_id=unique_chain_id()) as chain:
        dead = network_settings(chain.chain_id + 500, "http://127.0.0.1:9")
        settings = {name.replace("ANVIL", "DEAD"): value for name, value in dead.items()}
        settings |= network_settings(chain.chain_id, chain.url) | {"TALLYSTICK_DATABASE_URL": database_url}
        async with serving("up", **settings) as server:
            key = (await run("merchant", "create", "--name", "M", "--json", **settings)).object["api_key"]
            height = await chain.mine(3)
            async with asyncio.timeout(30):
                while True:
                    _, answer = await get(f"{server.url}/v1/networks", key)
                    found = {network["name"]: network for network in answer["data"]}
                    if found["anvil"]["height"] == height and found["dead"]["problem"]:
                        break
                    await asyncio.sleep(0.05)
            assert found["anvil"]["status"] == "following"
            assert found["dead"]["status"] == "unavailable"
            wanted = f'tallystick_network_processed_height{{network="anvil"}} {float(height)}'
            async with asyncio.timeout(30), aiohttp.ClientSession() as http:
                while True:
                    async with http.get(f"{server.url}/metrics") as response:
                        metrics = await response.text()
                    if wanted in metrics:
                        break
                    await asyncio.sleep(0.1)
            assert 'tallystick_worker_up{worker="follow anvil"} 1.0' in metrics


@pytest.mark.chain
async def test_the_parts_run_apart(database_url: str) -> None:
    async with start_anvil(chain_id=unique_chain_id()) as chain:
        settings = network_settings(chain.chain_id, chain.url) | {"TALLYSTICK_DATABASE_URL": database_url}
        workers = [
            await asyncio.create_subprocess_exec(
                SCRIPT,
                *arguments,
                env=environment(settings),
                stdout=asyncio.subprocess.PIPE,
            )
            for arguments in (("watch", "anvil"), ("deliver",), ("jobs",))
        ]
        try:
            for worker in workers:
                assert worker.stdout is not None
                async with asyncio.timeout(60):
                    assert (await worker.stdout.readline()).startswith(b"Running")
            async with serving(
                "api", **settings
            ) as server:  # ready once the network was followed by another process
                assert (await get(f"{server.url}/healthz"))[0] == 200
            for worker in workers:
                worker.terminate()
                async with asyncio.timeout(60):
                    assert await worker.wait() == 0
        finally:
            for worker in workers:
                if worker.returncode is None:
                    worker.kill()


async def test_a_second_signal_ends_it_at_once(database_url: str) -> None:
    settings = {"TALLYSTICK_DATABASE_URL": database_url, "TALLYSTICK_SERVER__STOP_SECONDS_MAX": "600"}
    async with serving("up", **settings) as server:
        key = (await run("merchant", "create", "--name", "M", "--json", **settings)).object["api_key"]
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        # A request that runs: the server waits for a body that does not come.
        writer.write(
            b"POST /v1/invoices HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
            b"Content-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
            % key.encode()
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        server.process.terminate()
        while True:  # until it takes no new request
            try:
                _reader, probe = await asyncio.open_connection(host, int(port))
            except OSError:
                break
            probe.close()
            await asyncio.sleep(0.02)
        assert server.process.returncode is None
        assert await server.stop() == 130
        writer.close()


@pytest.mark.chain
async def test_an_open_checkout_stream_does_not_hold_up_the_end(database_url: str) -> None:
    async with start_anvil(chain_id=unique_chain_id()) as chain:
        settings = network_settings(chain.chain_id, chain.url) | {
            "TALLYSTICK_DATABASE_URL": database_url,
            "TALLYSTICK_RATES__STATIC__ETH_USD": "2500",
            "TALLYSTICK_SERVER__STOP_SECONDS_MAX": "600",  # far more than the test waits
        }
        async with serving("up", **settings) as server:
            created = (await run("merchant", "create", "--name", "M", "--json", **settings)).object
            of_merchant = ("--merchant", created["merchant_id"], "--account-key", XPUB)
            assert (await run("wallet", "add", *of_merchant, **settings)).code == 0
            headers = {"Authorization": f"Bearer {created['api_key']}"}
            async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(60)) as http:
                wanted = {"amount": "5", "currency": "USD"}
                async with http.post(f"{server.url}/v1/invoices", json=wanted) as response:
                    invoice = await response.json()
                async with http.get(f"{server.url}/i/{invoice['id']}/events") as stream:
                    assert b"event: invoice" in await stream.content.readuntil(b"\r\n\r\n")
                    assert await server.stop() == 0
                    await stream.content.read()  # it was ended, not broken off: that would be an error here
            shown = await run("invoice", "show", invoice["id"], "--json", **settings)
            assert shown.object["status"] == "awaiting_payment"
            assert [step["to"] for step in shown.object["transitions"]] == [
                "created",
                "quoted",
                "awaiting_payment",
            ]
            for_people = await run("invoice", "show", invoice["id"], **settings)
            assert invoice["payment_options"][0]["address"] in for_people.out


async def test_a_taken_address_is_said_at_once(database_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = await run("up", "--listen", listen, TALLYSTICK_DATABASE_URL=database_url)
    assert done.code == 1
    assert f"cannot listen on {listen}: another program listens there" in done.err


async def test_a_request_that_never_ends_does_not_hold_up_the_end(database_url: str) -> None:
    settings = {"TALLYSTICK_DATABASE_URL": database_url, "TALLYSTICK_SERVER__STOP_SECONDS_MAX": "60"}
    async with serving("up", **settings) as server:
        host, port = server.url.removeprefix("http://").split(":")
        _reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")  # a request that never ends
        await writer.drain()
        async with asyncio.timeout(20):
            assert await server.stop() == 0
        writer.close()
