"""`tallystick audit` as a process: beside a running server, on a broken database, with another node and noted logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cli.processes import run, serving
from tests.support.anvil import Anvil, start_anvil, unique_chain_id
from tests.support.evm import Chain
from tests.support.stand import address_in, evm_network, open_stand, units

UNGUARDED = "SET session_replication_role = replica;"


def network(chain: Anvil) -> dict[str, str]:
    """The network of the shop, by the environment alone."""
    prefix = "TALLYSTICK_NETWORKS__LOCAL__"
    values = {
        "KIND": "evm",
        "CHAIN_ID": str(chain.chain_id),
        "RPC": chain.url,
        "NATIVE__SYMBOL": "ETH",
        "NATIVE__DECIMALS": "18",
        "CONFIRMATIONS": "3",
        "POLL_INTERVAL_MS": "50",
    }
    return {f"{prefix}{name}": value for name, value in values.items()}


async def shop_with_a_payment(url: str, anvil: Anvil) -> None:
    """One invoice paid, one that waits."""
    async with (
        Chain(anvil.url, anvil.chain_id) as chain,
        open_stand(url, (evm_network("local", anvil.chain_id), anvil.url)) as stand,
    ):
        paid = await stand.create("25.00")
        await stand.create("25.00")
        await chain.send_native(address_in(paid), units("0.01"))
        await chain.mine(4)
        await stand.follow()


async def execute(url: str, statement: str) -> None:
    """As the owner of the database, past its guards."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"{UNGUARDED} {statement}")
    finally:
        await connection.close()


def rules(report: dict[str, Any]) -> set[str]:
    return {problem["rule"] for problem in report["problems"]}


async def test_beside_a_running_server_on_its_own_folder(data_dir: Path, anvil: Anvil) -> None:
    settings = {"TALLYSTICK_DATA_DIR": str(data_dir)} | network(anvil)
    async with serving("up", **settings):
        created = await run("merchant", "create", "--name", "M", "--json", **settings)
        assert created.code == 0
        done = await run("audit", "--json", **settings)
    assert (done.code, done.err) == (0, "")
    assert list(done.object) == ["ok", "checked", "problems"]
    assert done.object["ok"] is True
    assert done.object["problems"] == []
    assert done.object["checked"]["networks"] == 1


async def test_figures_and_problems(database_url: str, anvil: Anvil) -> None:
    settings = {"TALLYSTICK_DATABASE_URL": database_url} | network(anvil)
    await shop_with_a_payment(database_url, anvil)
    text = await run("audit", "--rpc", anvil.url, **settings)
    assert text.code == 0, text
    for line in (
        "invoices: 2",
        "transfers: 1",
        "transfers compared: 1",
        "blocks unread: 0",
        "Everything is in order.",
    ):
        assert line in text.out
    await execute(database_url, "UPDATE transitions SET actor_id = 'me' WHERE to_status = 'paid'")
    broken = await run("audit", "--json", **settings)
    assert broken.code == 1
    assert broken.object["ok"] is False
    assert rules(broken.object) == {"log-hash"}
    assert broken.object["checked"]["problems"] == 1
    assert list(broken.object["problems"][0]) == ["rule", "object_id", "detail"]
    text = await run("audit", **settings)
    assert text.code == 1
    assert "log-hash: inv_" in text.out
    assert "Something is wrong." in text.out


async def test_a_node_of_another_chain_is_refused(database_url: str, anvil: Anvil) -> None:
    settings = {"TALLYSTICK_DATABASE_URL": database_url} | network(anvil)
    async with start_anvil(chain_id=unique_chain_id()) as other:
        done = await run("audit", "--json", "--rpc", other.url, **settings)
    assert (done.code, done.out) == (1, "")
    assert "serves chain" in done.err


async def test_a_history_rewritten_from_end_to_end_shows_in_what_was_noted(
    database_url: str, anvil: Anvil, tmp_path: Path
) -> None:
    """Whoever owns the database can seal anew what they changed. They do not have the file."""
    settings = {"TALLYSTICK_DATABASE_URL": database_url} | network(anvil)
    await shop_with_a_payment(database_url, anvil)
    noted = tmp_path / "heads.json"
    first = await run("audit", "--json", "--heads", str(noted), **settings)
    assert first.code == 0
    (end,) = json.loads(noted.read_bytes()).values()
    assert end["length"] == first.object["checked"]["log_rows"]
    assert (await run("audit", "--json", "--heads", str(noted), **settings)).code == 0

    await execute(
        database_url,
        """UPDATE transitions SET at = at - interval '1 day' WHERE sequence = 2;
        CREATE TEMP TABLE old AS SELECT * FROM transition_log; DELETE FROM transition_log;
        UPDATE transition_log_heads SET length = 0, hash = transition_log_start(merchant_id);
        SELECT seal_transitions(array_agg(invoice_id ORDER BY position), array_agg(sequence ORDER BY position))
        FROM old""",
    )
    assert (await run("audit", "--json", **settings)).code == 0
    before = noted.read_bytes()
    done = await run("audit", "--json", "--heads", str(noted), **settings)
    assert done.code == 1
    assert rules(done.object) == {"log-rewritten"}
    assert noted.read_bytes() == before


async def test_a_database_of_another_version_is_left_as_it_is(empty_database_url: str) -> None:
    done = await run("audit", "--json", TALLYSTICK_DATABASE_URL=empty_database_url)
    assert (done.code, done.out) == (1, "")
    assert "schema none" in done.err
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--blocks", "some"), "blocks"),
        (("--blocks", "9-3"), "blocks"),
        (("--rpc", "http://127.0.0.1:9", "--network", "moon"), "moon"),
        (("--heads", "/dev/null"), "heads"),
    ],
)
async def test_what_is_asked_wrongly(database_url: str, arguments: tuple[str, ...], word: str) -> None:
    done = await run("audit", *arguments, "--json", TALLYSTICK_DATABASE_URL=database_url)
    assert (done.code, done.out) == (1, "")
    assert word in done.err
    assert done.err.count("\n") == 1
