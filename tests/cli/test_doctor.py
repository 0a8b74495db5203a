"""`tallystick doctor`: every kind of trouble is found, named and given a remedy; what is well is said to be."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import run, serving
from tests.support.anvil import Anvil
from tests.support.exchanges import open_market

GREEN = "127.0.0.1:0"


async def examine(**settings: str) -> tuple[int, bool, dict[str, dict[str, Any]]]:
    done = await run("doctor", "--json", **({"TALLYSTICK_LISTEN": GREEN} | settings))
    report = done.object
    assert done.code == (0 if report["ok"] else 1)
    for check in report["checks"]:
        assert check["level"] == "ok" or check["remedy"], check
    return done.code, report["ok"], {check["name"]: check for check in report["checks"]}


def network(chain: Anvil, **changes: str) -> dict[str, str]:
    prefix = "TALLYSTICK_NETWORKS__ANVIL__"
    values = {
        "KIND": "evm",
        "CHAIN_ID": str(chain.chain_id),
        "RPC": chain.url,
        "NATIVE__SYMBOL": "ETH",
        "NATIVE__DECIMALS": "18",
        "POLL_INTERVAL_MS": "50",
    } | changes
    return {f"{prefix}{name}": value for name, value in values.items()}


async def deploy(chain: Anvil) -> str:
    from tallystick.demo.customer import Customer, demo_token, development_account

    async with Customer(chain.url, chain.chain_id, development_account(0)) as customer:
        deployed = await customer.send(to=None, data=demo_token().deployment("Dollar", "DUSD", 6))
        await chain.mine()
        receipt = await chain.rpc("eth_getTransactionReceipt", [deployed])
        return str(receipt["contractAddress"])


async def test_a_healthy_installation(database_url: str, anvil: Anvil) -> None:
    token = (await deploy(anvil)).lower()
    settings = network(anvil, TOKENS__DUSD__CONTRACT=token, TOKENS__DUSD__DECIMALS="6") | {
        "TALLYSTICK_DATABASE_URL": database_url,
        "TALLYSTICK_RATES__STATIC__ETH_USD": "2500",
        "TALLYSTICK_RATES__STATIC__DUSD_USD": "1",
    }
    code, ok, checks = await examine(**settings)
    assert (code, ok) == (0, True), checks
    assert checks["anvil"]["level"] == "ok"
    assert str(anvil.chain_id) in checks["anvil"]["text"]
    assert checks["anvil DUSD"]["text"] == "6 decimals, as the contract says."
    assert checks["anvil nodes"]["level"] == "warning"  # one node alone
    assert checks["anvil progress"]["text"] == "Not followed yet."
    assert checks["database"]["level"] == "ok"


async def test_while_up_runs(database_url: str, anvil: Anvil) -> None:
    await anvil.mine(2)
    settings = network(anvil) | {"TALLYSTICK_DATABASE_URL": database_url}
    async with serving("up", **settings) as server:
        listen = server.url.removeprefix("http://")
        code, _, checks = await examine(**settings, TALLYSTICK_LISTEN=listen)
    assert code == 0
    assert checks["anvil progress"]["text"] == "Processed to block 2."
    assert "another program listens" in checks["listen address"]["text"]
    assert checks["anvil ETH"]["level"] == "warning"  # no rate


async def test_exchanges_are_asked_and_named(database_url: str, anvil: Anvil) -> None:
    """The whole way from the environment to three exchanges; one has no say before its dollar token stands for one."""
    async with AsyncExitStack() as stack:
        styles = ("kraken", "coinbase", "binance")
        markets = {style: await stack.enter_async_context(open_market(style)) for style in styles}
        settings = network(anvil) | {
            "TALLYSTICK_DATABASE_URL": database_url,
            "TALLYSTICK_RATES__SOURCES": "kraken,coinbase,binance",
            **{f"TALLYSTICK_RATES__URLS__{style.upper()}": market.url for style, market in markets.items()},
        }
        _, _, checks = await examine(**settings)
        assert checks["rate of ETH"]["level"] == "warning"
        assert checks["rate of ETH"]["text"] == (
            "2500 USD (median of kraken, coinbase). binance: the exchange does not list it."
        )
        _, _, checks = await examine(**settings, TALLYSTICK_RATES__PEGS__USDT="USD")
        assert checks["rate of ETH"]["text"] == "2500 USD (median of kraken, coinbase, binance)."
        assert checks["rate of ETH"]["level"] == "ok"
        for market in markets.values():
            market.trouble = "500"
        _, _, checks = await examine(**settings)
        assert "No rate can be trusted for ETH in USD" in checks["rate of ETH"]["text"]
        assert "anvil ETH" not in checks


@pytest.mark.parametrize(
    ("decimals", "at", "level", "words"),
    [
        ("18", None, "problem", "The contract says 6 decimals, the configuration 18."),
        ("6", "0x" + "12" * 20, "problem", "no contract at this address"),
    ],
)
async def test_a_wrong_token(
    database_url: str, anvil: Anvil, decimals: str, at: str | None, level: str, words: str
) -> None:
    token = at or (await deploy(anvil)).lower()
    settings = network(anvil, TOKENS__DUSD__CONTRACT=token, TOKENS__DUSD__DECIMALS=decimals)
    code, ok, checks = await examine(**settings, TALLYSTICK_DATABASE_URL=database_url)
    assert (code, ok) == (1, False)
    found = [check for name, check in checks.items() if name == "anvil DUSD" and words in check["text"]]
    assert [check["level"] for check in found] == [level]


async def test_another_name_than_the_contracts(database_url: str, anvil: Anvil) -> None:
    token = (await deploy(anvil)).lower()
    settings = network(anvil, TOKENS__USDC__CONTRACT=token, TOKENS__USDC__DECIMALS="6")
    _, ok, checks = await examine(**settings, TALLYSTICK_DATABASE_URL=database_url)
    assert ok
    assert "'DUSD'" in checks["anvil USDC"]["text"]


async def test_a_node_of_another_chain_and_a_dead_node(database_url: str, anvil: Anvil) -> None:
    wrong = network(anvil, CHAIN_ID=str(anvil.chain_id + 1))
    code, ok, checks = await examine(**wrong, TALLYSTICK_DATABASE_URL=database_url)
    assert (code, ok) == (1, False)
    assert str(anvil.chain_id + 1) in checks["anvil"]["text"]
    assert checks["anvil"]["level"] == "problem"

    dead = network(anvil, RPC=f"{anvil.url},http://user:hunter2@127.0.0.1:9")
    done = await run("doctor", **dead, TALLYSTICK_DATABASE_URL=database_url)
    assert done.code == 1
    assert "anvil node 127.0.0.1:9" in done.out
    assert "hunter2" not in done.out + done.err


async def test_without_a_database_the_rest_is_still_looked_at(tmp_path: Path, anvil: Anvil) -> None:
    url = f"postgresql://x:hunter2@/x?host={tmp_path}"
    done = await run(
        "doctor", "--json", **network(anvil), TALLYSTICK_DATABASE_URL=url, TALLYSTICK_LISTEN=GREEN
    )
    checks = {check["name"]: check for check in done.object["checks"]}
    assert done.code == 1
    assert checks["database"]["level"] == "problem"
    assert checks["anvil"]["level"] == "ok"
    assert "hunter2" not in done.out + done.err


async def test_schema_configuration_and_warnings(empty_database_url: str, tmp_path: Path) -> None:
    settings = {"TALLYSTICK_DATABASE_URL": empty_database_url}
    _, ok, checks = await examine(
        **settings | {"TALLYSTICK_LISTEN": "0.0.0.0:0", "TALLYSTICK_WEBHOOKS__ALLOW_PRIVATE_TARGETS": "true"}
    )
    assert ok
    assert "empty" in checks["database"]["text"]
    assert checks["networks"]["level"] == "warning"
    assert checks["webhooks"]["level"] == "warning"
    assert "TLS" in checks["public address"]["text"]
    assert (await run("migrate", **settings)).code == 0

    import asyncpg

    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("UPDATE alembic_version SET version_num = '0000'")
    await connection.close()
    code, _, checks = await examine(**settings)
    assert code == 1
    assert "0000" in checks["database"]["text"]

    broken = tmp_path / "broken.toml"
    broken.write_text("listen = ")
    code, _, checks = await examine(TALLYSTICK_CONFIG=str(broken))
    assert code == 1
    assert checks["configuration"]["level"] == "problem"
