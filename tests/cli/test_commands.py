"""Commands that end by themselves: what they print, how they fail."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tallystick import __version__
from tests.cli.processes import Done, run

XPUB = "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V"
XPRV = "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi"


@pytest.fixture
def settings(database_url: str) -> dict[str, str]:
    return {"TALLYSTICK_DATABASE_URL": database_url}


def failed(done: Done, *words: str, code: int = 1) -> None:
    """It failed with one line that says so, and printed nothing else."""
    assert done.code == code, done
    assert done.out == ""
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("tallystick: ")
    for word in words:
        assert word in done.err


async def test_help_and_version() -> None:
    shown, version = await asyncio.gather(run("--help"), run("--version"))
    assert shown.code == version.code == 0
    for command in ("demo", "up", "watch", "merchant", "doctor"):
        assert command in shown.out
    assert version.out.strip() == __version__


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("merchant", "create"),
        ("merchant", "create", "--nmae", "x"),
        ("up", "--port", "x"),
        ("watch",),
    ],
    ids=" ".join,
)
async def test_a_command_written_wrongly(arguments: tuple[str, ...]) -> None:
    failed(await run(*arguments), "--help", code=2)


async def test_merchant_key_and_wallet(settings: dict[str, str]) -> None:
    merchant = (await run("merchant", "create", "--name", "Café Übersee", "--json", **settings)).object
    assert set(merchant) == {"merchant_id", "api_key"}
    assert merchant["merchant_id"].startswith("mer_")
    assert merchant["api_key"].startswith("ts_")
    of_merchant = ("--merchant", merchant["merchant_id"])

    scopes = ("--scopes", "invoices:read,webhooks:write")
    key = (await run("key", "create", *of_merchant, *scopes, "--json", **settings)).object
    assert key["scopes"] == ["invoices:read", "webhooks:write"]
    assert key["api_key"] != merchant["api_key"]

    wallet = await run("wallet", "add", *of_merchant, "--account-key", XPUB, "--json", **settings)
    assert wallet.object["id"].startswith("wal_"), wallet
    again = await run("wallet", "add", *of_merchant, "--account-key", XPUB, **settings)
    failed(again, "already")
    private = await run("wallet", "add", *of_merchant, "--account-key", XPRV, **settings)
    failed(private, "private key")
    assert XPRV[:20] not in private.err


async def test_what_holds_for_a_merchants_new_invoices(settings: dict[str, str]) -> None:
    """What is not given stays; what is out of range or of nobody is refused, and nothing of it is written."""
    merchant = (await run("merchant", "create", "--name", "Shop", "--json", **settings)).object["merchant_id"]
    change = ("merchant", "set", "--merchant", merchant, "--json")
    shown = await run(*change, "--spread-bps", "75", "--refund-second-person", **settings)
    assert shown.object == {
        "merchant_id": merchant,
        "name": "Shop",
        "spread_bps": 75,
        "quote_seconds": 900,
        "grace_seconds": 0,
        "refund_second_person": True,
    }
    failed(await run(*change, "--grace-seconds", "30", "--quote-seconds", "59", **settings), "60 and 86400")
    again = await run(*change, "--quote-seconds", "600", "--no-refund-second-person", **settings)
    assert again.object == shown.object | {"quote_seconds": 600, "refund_second_person": False}
    nobody = await run("merchant", "set", "--merchant", "mer_none", "--grace-seconds", "5", **settings)
    failed(nobody, "no such merchant")


async def test_for_people_it_is_text(settings: dict[str, str]) -> None:
    done = await run("merchant", "create", "--name", "M", **settings)
    assert done.code == 0
    assert done.out.splitlines()[0].startswith("merchant_id: mer_")
    assert done.out.splitlines()[1].startswith("api_key: ts_")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("invoice", "show", "inv_none"), "no such invoice"),
        (("trace", "0x12"), "No transfer"),
        (("key", "create", "--merchant", "mer_x", "--scopes", "admin"), "no such merchant"),
        (("key", "create", "--merchant", "mer_x", "--scopes", "everything"), "unknown scope"),
        (("wallet", "add", "--merchant", "mer_x", "--account-key", XPUB), "no such merchant"),
        (("merchant", "create", "--name", "a\nb"), "control characters"),
        (("network", "resume", "ethereum"), "no such network"),
        (("network", "raise", "ethereum", "--confirmations", "20", "--note", "why"), "no such network"),
        (("network", "lift", "ethereum"), "no such network"),
        (
            ("network", "raise", "ethereum", "--confirmations", "0", "--note", "why"),
            "confirmations: must lie",
        ),
        (("network", "raise", "ethereum", "--confirmations", "20", "--note", " "), "note: must be"),
        (("watch", "ethereum"), "ethereum"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else "",
)
async def test_what_does_not_exist(settings: dict[str, str], arguments: tuple[str, ...], words: str) -> None:
    failed(await run(*arguments, **settings), words)


async def test_a_network_is_raised_and_lifted(settings: dict[str, str]) -> None:
    prefix = "TALLYSTICK_NETWORKS__ALPHA__"
    given = {"KIND": "evm", "CHAIN_ID": "1", "RPC": "http://127.0.0.1:1"}
    given |= {"NATIVE__SYMBOL": "ETH", "NATIVE__DECIMALS": "18"}
    settings |= {prefix + key: value for key, value in given.items()}
    wanted = ("--confirmations", "20", "--note", "many reorganisations", "--json")
    assert (await run("network", "raise", "alpha", *wanted, **settings)).object == {
        "network": "alpha",
        "confirmations": 20,
        "options_raised": 0,
        "note": "many reorganisations",
    }
    lifted = await run("network", "lift", "alpha", "--json", **settings)
    assert lifted.object == {"network": "alpha", "status": "lifted"}
    failed(await run("network", "lift", "alpha", **settings), "Nothing is raised")


async def test_the_database_is_away(tmp_path: Path) -> None:
    url = f"postgresql://nobody:hunter2@/none?host={tmp_path}"
    done = await run("merchant", "create", "--name", "M", TALLYSTICK_DATABASE_URL=url)
    failed(done, "database cannot be reached", "TALLYSTICK_DATABASE_URL")
    assert "hunter2" not in done.err


async def test_a_wrong_setting_names_itself() -> None:
    failed(await run("migrate", TALLYSTICK_LOG__LEVEL="loud"), "log.level", "TALLYSTICK_LOG__LEVEL")


async def test_migrate_from_nothing_and_again(empty_database_url: str) -> None:
    first, second = [
        (await run("migrate", "--json", TALLYSTICK_DATABASE_URL=empty_database_url)).object for _ in range(2)
    ]
    assert first == second
    assert first["revision"]


async def test_a_newer_database_is_refused(empty_database_url: str) -> None:
    import asyncpg

    settings = {"TALLYSTICK_DATABASE_URL": empty_database_url}
    assert (await run("migrate", **settings)).code == 0
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await connection.close()
    failed(await run("merchant", "create", "--name", "M", **settings), "9999", "newer version")


def test_the_known_revision_is_the_newest_migration() -> None:
    from alembic.script import ScriptDirectory

    from tallystick.db import migrate
    from tallystick.db.revision import newest_revision

    assert newest_revision() == ScriptDirectory.from_config(migrate._config()).get_current_head()


async def test_the_example_configuration_can_be_used(tmp_path: Path, settings: dict[str, str]) -> None:
    example = await run("config")
    file = tmp_path / "tallystick.toml"
    file.write_text(example.out)
    done = await run("--config", str(file), "merchant", "create", "--name", "M", "--json", **settings)
    assert done.code == 0, done
    later = await run("merchant", "create", "--name", "M", "--json", "--config", str(file), **settings)
    assert later.code == 0, later
