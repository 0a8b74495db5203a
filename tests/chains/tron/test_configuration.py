"""From the text of the configuration to the source that asks TRON's nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.chains.evm.source import EvmSource
from tallystick.chains.source import Source
from tallystick.chains.tron.source import TronSource
from tallystick.config import NetworkConfig, load
from tallystick.core.chain import Finality
from tallystick.core.errors import ConfigurationError
from tallystick.runtime_sources import build_source
from tests.support.tron_node import CHAIN_ID, TronNode

USDT = '[networks.tron.tokens.USDT]\ncontract = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"\ndecimals = 6\n'


def network(tmp_path: Path, text: str) -> NetworkConfig:
    """The network as read."""
    file = tmp_path / "tallystick.toml"
    file.write_text(f"[networks.tron]\n{text}")
    file.chmod(0o600)
    return load(file, environment={}).networks["tron"]


async def opened(config: NetworkConfig) -> Source:
    source = build_source(config)
    await source.close()
    return source


async def test_the_nodes_own_interface_is_the_default(tmp_path: Path) -> None:
    config = network(
        tmp_path, 'kind = "tron"\nchain = "tron-nile"\nrpc = ["https://KEY@nile.trongrid.io"]\n' + USDT
    )
    assert (config.network.family, config.network.chain) == ("tron", "3448148188")
    assert (config.network.native.symbol, config.network.native.decimals) == ("TRX", 6)
    assert config.network.tokens[0].contract == "0xa614f803b6fd780986a42c78ec9c7f77e6ded13c"
    assert [asset.symbol for asset in config.network.assets] == ["TRX", "USDT"]
    assert (config.poll_interval_ms, config.mempool, config.network.has_accounts) == (3000, False, False)
    source = await opened(config)
    assert isinstance(source, TronSource)
    assert [node.name for node in source.nodes()] == ["nile.trongrid.io:443"]
    assert "KEY" not in repr(config)


async def test_by_json_rpc_only_tokens_can_be_asked_for(tmp_path: Path) -> None:
    """TRX would be asked for, and its payment never seen.

    Bug planted: all assets count; a customer pays in TRX, and nobody ever sees it.
    """
    text = 'kind = "tron"\napi = "jsonrpc"\nrpc = ["https://KEY@api.trongrid.io"]\n'
    config = network(tmp_path, text + USDT)
    assert [asset.symbol for asset in config.network.assets] == ["USDT"]
    assert config.network.asset_by_symbol("TRX") is None
    assert config.network.chain == "728126428"
    assert isinstance(await opened(config), EvmSource)
    with pytest.raises(ConfigurationError, match="do not tell payments in TRX"):
        network(tmp_path, text)


def test_the_preset_waits_for_solidified_blocks(tmp_path: Path) -> None:
    config = network(tmp_path, 'rpc = ["https://KEY@api.trongrid.io"]\n')
    assert config.network.requirement.finality is Finality.FINALIZED
    assert [asset.symbol for asset in config.network.assets] == ["TRX", "USDT", "USDC"]
    assert config.poll_interval_ms == 3000


def test_a_finality_that_tron_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="finalized"):
        network(tmp_path, 'kind = "tron"\nfinality = "safe"\nrpc = ["https://KEY@api.trongrid.io"]\n')


async def test_a_configured_source_reads_a_node(tmp_path: Path) -> None:
    async with TronNode() as node:
        height = node.mine(blocks=3)
        config = network(
            tmp_path, f'kind = "tron"\nchain_id = {CHAIN_ID}\nrpc = ["{node.url}/key-in-the-path"]\n'
        )
        source = build_source(config)
        try:
            assert (await source.head()).header.height == height
            assert (await source.identity()).chain == config.network.chain
        finally:
            await source.close()
