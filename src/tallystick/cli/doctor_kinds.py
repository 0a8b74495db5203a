"""What `doctor` looks at besides on networks of one kind: tokens and traces, pruned nodes and fees, access keys.

For: `doctor`. Holds true: it asks only, and changes nothing. Must not: repeat credentials.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tallystick.cli.doctor_report import OK, PROBLEM, WARNING, Check
from tallystick.config_kinds import BitcoinSettings, EvmSettings, TronSettings
from tallystick.core.errors import SourceError

if TYPE_CHECKING:
    from tallystick.chains.evm.source import EvmSource
    from tallystick.chains.source import Source
    from tallystick.chains.tron.source import TronSource
    from tallystick.config import NetworkConfig
    from tallystick.core.money import Asset

_KEYED_HOSTS: Final = "trongrid.io"


async def check_kind(
    network: NetworkConfig, source: Source, head_height: int, next_height: int | None
) -> list[Check]:
    """The checks of the network's kind. `next_height` is the block that is processed next, None before the first.

    Raises SourceError.
    """
    settings = network.settings
    if isinstance(settings, BitcoinSettings):
        return [
            await _check_history(network, source, head_height, next_height),
            *await _check_fees(network, source),
        ]
    checks: list[Check] = []
    from tallystick.chains.evm.source import EvmSource
    from tallystick.chains.tron.source import TronSource

    if isinstance(source, EvmSource) and isinstance(settings, EvmSettings):
        checks += [
            _check_traces(network, settings, node, way) for node, way in (await source.tracing()).items()
        ]
    if isinstance(source, EvmSource | TronSource):
        checks += [await _check_token(network, source, token) for token in network.network.tokens]
    return checks


async def _check_history(
    network: NetworkConfig, source: Source, head_height: int, next_height: int | None
) -> Check:
    """Whether blocks are there as far back as they may be needed: a pruned node throws them away."""
    name = f"{network.network.name} blocks"
    needed = max(0, head_height - network.network.safety_depth)
    if next_height is not None and next_height <= head_height:
        needed = min(needed, next_height)
    elif isinstance(network.start_height, int):
        needed = min(needed, network.start_height)
    try:
        await source.block_at(needed)
    except SourceError as error:
        return Check(
            name=name,
            level=PROBLEM,
            text=f"Block {needed}, which may be needed next, cannot be read: {error.what}",
            remedy=error.remedy or "Use a node that keeps more blocks (`prune` in its configuration).",
        )
    return Check(name=name, level=OK, text=f"Blocks are there from {needed} on at least.")


async def _check_fees(network: NetworkConfig, source: Source) -> list[Check]:
    from tallystick.chains.source import FeeSource

    if not isinstance(source, FeeSource):
        return []
    name = f"{network.network.name} fees"
    why = ""
    try:
        rate = await source.fee_rate()
    except SourceError as error:
        rate, why = None, f" ({error.what.rstrip('.')})"
    if rate is not None:
        text = f"The node estimates {rate} base units per 1,000 vbytes."
        return [Check(name=name, level=OK, text=text)]
    fallback = network.network.fee_rate_default
    text = f"The node cannot estimate fees yet{why}; refunds are written with {fallback} base units per 1,000 vbytes."
    return [
        Check(
            name=name,
            level=OK if network.network.chain.endswith("-regtest") else WARNING,
            text=text,
            remedy="It can after it has seen some blocks; else set fee_rate_default to what is usual.",
        )
    ]


def check_access_keys(network: NetworkConfig) -> list[Check]:
    """Whether providers that want an access key get one. Asks nobody."""
    if not isinstance(network.settings, TronSettings):
        return []
    name = f"{network.network.name} access key"
    checks = []
    for number, url in enumerate(network.rpc, start=1):
        parts = urlsplit(url)
        host = parts.hostname or ""
        if (host == _KEYED_HOSTS or host.endswith(f".{_KEYED_HOSTS}")) and not parts.username:
            checks.append(
                Check(
                    name=name,
                    level=WARNING,
                    text=f"Node {number} is TronGrid's, and asked without an access key: it refuses soon.",
                    remedy=f"Put the key before the host: https://KEY@{host}",
                )
            )
    return checks


def _check_traces(network: NetworkConfig, settings: EvmSettings, node: str, way: str) -> Check:
    name = f"{network.network.name} traces {node}"
    if way != "none":
        return Check(name=name, level=OK, text=f"What contracts send is seen, by {way}.")
    if settings.traces == "off":
        text = "Switched off: what contracts send is found by balance when a window ends, and waits for a person."
        return Check(name=name, level=OK, text=text)
    return Check(
        name=name,
        level=WARNING,
        text="This node does not tell what contracts send: it is found by balance, and waits for a person.",
        remedy="Put a node with trace_block or debug_traceBlockByHash first, or set traces to off.",
    )


async def _check_token(network: NetworkConfig, source: EvmSource | TronSource, token: Asset) -> Check:
    info = await source.token_info(token.contract or "")
    level, text, remedy = OK, f"{token.decimals} decimals, as the contract says.", None
    if not info.has_code:
        level, text = PROBLEM, "There is no contract at this address."
        remedy = "Correct the contract's address: payments in this token are not seen."
    elif info.decimals is None:
        level, text = WARNING, "The contract does not say how many decimals it has."
        remedy = "Compare with its issuer's documentation."
    elif info.decimals != token.decimals:
        level = PROBLEM
        text = f"The contract says {info.decimals} decimals, the configuration {token.decimals}."
        remedy = "Correct `decimals`: amounts are asked wrongly by powers of ten."
    elif info.symbol != token.symbol:
        level = WARNING
        text = f"The contract calls itself {info.symbol!r}."
        remedy = "Make sure that this is the token you mean."
    return Check(name=f"{network.network.name} {token.symbol}", level=level, text=text, remedy=remedy)
