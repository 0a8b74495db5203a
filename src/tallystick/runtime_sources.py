"""The source that speaks to a configured network's nodes.

For: the runtime and the commands. Holds true: only the modules of the network's own kind are imported, when they are
needed: they are slow to load. Nothing is asked before the first question.
Must not: decide anything that the configuration does not say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tallystick.config_kinds import BitcoinSettings, EvmSettings, TronSettings

if TYPE_CHECKING:
    from tallystick.chains.source import Source
    from tallystick.config_networks import NetworkConfig

BITCOIN_BATCH_MAX: Final = 500
"""Transactions of a mempool that are asked for in one request."""


def build_source(network: NetworkConfig) -> Source:
    """The source that speaks to this network's nodes."""
    settings = network.settings
    if isinstance(settings, EvmSettings):
        return _evm_source(network, settings)
    if isinstance(settings, BitcoinSettings):
        return _bitcoin_source(network, settings)
    return _tron_source(network, settings)


def _evm_source(network: NetworkConfig, settings: EvmSettings) -> Source:
    from tallystick.chains.evm.source import EvmOptions, EvmSource
    from tallystick.chains.json_rpc import RpcLimits

    return EvmSource(
        EvmOptions(
            network=network.network.name,
            chain_id=settings.chain_id,
            rpc_urls=network.rpc,
            genesis_hash=network.genesis_hash,
            finality_tags=settings.finality_tags,
            blooms=settings.blooms,
            traces=settings.traces,
            limits=RpcLimits(total_timeout_seconds=float(network.request_timeout_seconds)),
        )
    )


def _bitcoin_source(network: NetworkConfig, settings: BitcoinSettings) -> Source:
    from tallystick.chains.bitcoin.source import BitcoinOptions, BitcoinSource
    from tallystick.chains.json_rpc import RpcLimits

    return BitcoinSource(
        BitcoinOptions(
            network=network.network.name,
            chain=settings.chain,
            rpc_urls=network.rpc,
            cookie_file=settings.cookie_file,
            genesis_hash=network.genesis_hash,
            hint_urls=settings.zmq,
            limits=RpcLimits(
                batch_size_max=BITCOIN_BATCH_MAX, total_timeout_seconds=float(network.request_timeout_seconds)
            ),
        )
    )


def _tron_source(network: NetworkConfig, settings: TronSettings) -> Source:
    from tallystick.chains.json_rpc import RpcLimits

    limits = RpcLimits(total_timeout_seconds=float(network.request_timeout_seconds))
    if settings.api == "jsonrpc":
        from tallystick.chains.evm.source import EvmSource
        from tallystick.chains.tron.json_rpc import evm_options

        return EvmSource(
            evm_options(
                network.network.name,
                settings.chain_id,
                network.rpc,
                genesis_hash=network.genesis_hash,
                requests_per_second=settings.requests_per_second,
                limits=limits,
            )
        )
    from tallystick.chains.tron.source import TronOptions, TronSource

    return TronSource(
        TronOptions(
            network=network.network.name,
            chain_id=settings.chain_id,
            urls=network.rpc,
            genesis_hash=network.genesis_hash,
            requests_per_second=settings.requests_per_second,
            limits=limits,
        )
    )
