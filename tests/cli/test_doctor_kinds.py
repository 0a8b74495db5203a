"""`tallystick doctor` on networks of Bitcoin's family and TRON: on a real litecoind, also through a proxy that lies."""

from __future__ import annotations

import pytest

from tallystick.cli.doctor_kinds import check_access_keys
from tallystick.config import from_document
from tests.cli.test_doctor import examine
from tests.support.litecoind import Litecoind, start_litecoind
from tests.support.lying_core import CoreFault, LyingCore


def lite(node: Litecoind, **changes: str) -> dict[str, str]:
    values = {"KIND": "bitcoin", "CHAIN": "litecoin-regtest", "RPC": node.url} | changes
    return {f"TALLYSTICK_NETWORKS__LITE__{name}": value for name, value in values.items()}


async def test_a_healthy_node(database_url: str) -> None:
    async with start_litecoind() as node:
        await node.mine(3)
        code, ok, checks = await examine(TALLYSTICK_DATABASE_URL=database_url, **lite(node))
    assert (code, ok) == (0, True), checks
    assert checks["lite"]["text"] == "Chain litecoin-regtest, best block 3."
    assert checks["lite blocks"]["text"] == "Blocks are there from 0 on at least."
    assert "cannot estimate fees yet" in checks["lite fees"]["text"]
    assert "10000" in checks["lite fees"]["text"]
    assert checks["lite nodes"]["level"] == "warning"


async def test_another_chain(database_url: str) -> None:
    async with start_litecoind() as node:
        code, _, checks = await examine(
            TALLYSTICK_DATABASE_URL=database_url, **lite(node, CHAIN="litecoin-testnet")
        )
        _, _, bitcoin = await examine(
            TALLYSTICK_DATABASE_URL=database_url, **lite(node, CHAIN="bitcoin-regtest")
        )
    assert code == 1
    assert checks["lite"]["level"] == "problem"
    assert "litecoin-testnet" in checks["lite"]["text"]
    assert bitcoin["lite"]["level"] == "problem"  # whose regtest it is shows in the first block
    assert "secret" not in str(checks)
    assert "secret" not in str(bitcoin)


async def test_a_wrong_password(database_url: str) -> None:
    async with start_litecoind() as node:
        rpc = node.url.replace("secret", "mistaken")
        code, _, checks = await examine(TALLYSTICK_DATABASE_URL=database_url, **lite(node, RPC=rpc))
    assert code == 1
    assert checks["lite"]["level"] == "problem"
    assert "mistaken" not in str(checks)


@pytest.mark.parametrize(
    ("fault", "name", "words"),
    [
        (CoreFault.PRUNED, "lite blocks", "pruned"),
        (CoreFault.DOWNLOADING, "lite", "still downloading the chain"),
        (CoreFault.WARMING_UP, "lite", "still starting"),
        (CoreFault.OTHER_CHAIN, "lite", "litecoin-regtest"),
    ],
)
async def test_a_node_that_cannot_serve(database_url: str, fault: CoreFault, name: str, words: str) -> None:
    """Planted once, and seen to fail: no look at old blocks, so that a pruned node passed."""
    async with start_litecoind() as node, LyingCore(node.url) as proxy:
        await node.mine(3)
        await proxy.lie_so(fault)
        code, _, checks = await examine(TALLYSTICK_DATABASE_URL=database_url, **lite(node, RPC=proxy.url))
    assert code == 1
    assert checks[name]["level"] == "problem"
    assert words in checks[name]["text"]


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://127.0.0.1:8090", False),
        ("https://api.trongrid.io", True),
        ("https://trongrid.io/", True),
        ("https://nile.trongrid.io:443/x", True),
        ("https://KEY@api.trongrid.io", False),
        ("https://notrongrid.io", False),
    ],
)
def test_trongrid_without_a_key(url: str, warned: bool) -> None:
    network = {"kind": "tron", "rpc": ["http://127.0.0.1:1", url]}
    config = from_document({"networks": {"tron": network}}, environment={"TALLYSTICK_DATA_DIR": "/x"})
    checks = check_access_keys(config.networks["tron"])
    assert [check.level for check in checks] == ["warning"] * warned
    assert all("Node 2" in check.text and "https://KEY@" in (check.remedy or "") for check in checks)


async def test_a_tron_node_that_nobody_runs(database_url: str) -> None:
    settings = {"KIND": "tron", "RPC": "http://ACCESS-KEY@127.0.0.1:9"}
    code, _, checks = await examine(
        TALLYSTICK_DATABASE_URL=database_url,
        **{f"TALLYSTICK_NETWORKS__TRON__{name}": value for name, value in settings.items()},
    )
    assert code == 1
    assert checks["tron"]["level"] == "problem"
    assert "ACCESS-KEY" not in str(checks)
