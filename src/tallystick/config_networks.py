"""The `[networks]` part of the configuration: which chains are followed, what counts there, which nodes are asked.

For: `config`. Holds true: a network is checked as far as that goes without asking anybody: one network per chain, one
asset per contract and per symbol, contracts with a right checksum (EIP-55), requirements that watch long enough.
Must not: ask a node (that a token's decimals are right, `doctor` and the follower find out).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

from tallystick.config_kinds import FEE_RATE_MAX, Defaults, KindRead, Settings, read_kind
from tallystick.config_reader import Table, environment_form
from tallystick.core.chain import Finality, Requirement
from tallystick.core.currencies import MINOR_UNIT_DECIMALS
from tallystick.core.errors import ConfigurationError, InvalidInput
from tallystick.core.money import DECIMALS_MAX, Asset, parse_units
from tallystick.core.network import Network

URL_LENGTH_MAX: Final = 2048
NETWORKS_MAX: Final = 64
TOKENS_MAX: Final = 256
CONFIRMATIONS_MAX: Final = 10_000
SAFETY_DEPTH_DEFAULT: Final = 64
SAFETY_DEPTH_MAX: Final = 100_000
HEIGHT_MAX: Final = 2**53

_NETWORK_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
SYMBOL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._$+-]{0,19}", re.ASCII)
_HASH: Final = re.compile(r"(?:0x)?[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """One network: what it is (`network`), and how its nodes are asked; `settings` are those of its kind.

    `rpc` may hold credentials and is never shown. `start_height` counts on the very first start only.
    `batch_blocks` are read before any of them is applied. `stale_after_seconds`: a head that does not
    move for so long makes the network degraded. `mempool`: whether payments are shown before a block holds them.
    """

    network: Network
    settings: Settings
    rpc: tuple[str, ...] = field(repr=False)
    poll_interval_ms: int = 1000
    start_height: Literal["head"] | int = "head"
    batch_blocks: int = 16
    stale_after_seconds: int = 300
    request_timeout_seconds: int = 30
    genesis_hash: str | None = None
    mempool: bool = True


def read_networks(table: Table) -> dict[str, NetworkConfig]:
    """All networks. Raises ConfigurationError."""
    found: dict[str, NetworkConfig] = {}
    variables: dict[str, str] = {}
    chains: dict[tuple[str, str], str] = {}
    for name in table.entries():
        if not _NETWORK_NAME.fullmatch(name):
            raise table.error(
                name, "a network's name is a small letter, then small letters, digits, - and _ (at most 40)"
            )
        config = _network(table.table(name), name)
        same_variable = variables.setdefault(environment_form(name), name)
        same_chain = chains.setdefault((config.network.family, config.network.chain), name)
        if same_variable != name:
            raise table.error(name, f"cannot be told from {same_variable} in the environment")
        if same_chain != name:
            raise table.error(
                name,
                f"is the same chain as {same_chain}, so every payment would count twice",
                remedy="Put all nodes of a chain into one network's rpc list.",
            )
        found[name] = config
        if len(found) > NETWORKS_MAX:
            raise table.error(None, f"there are more than {NETWORKS_MAX} networks")
    return found


def _network(table: Table, name: str) -> NetworkConfig:
    kind = read_kind(table)
    defaults = kind.defaults
    requirement, safety_depth = _safety(table, defaults.confirmations)
    if requirement.finality is not Finality.DEPTH and not kind.finality_tags:
        needs = "needs finality_tags" if kind.family == "evm" else "is not what chains of this kind have"
        raise table.error("finality", f'"{requirement.finality}" {needs}')
    if requirement.finality is Finality.SAFE and not kind.has_safe:
        raise table.error(
            "finality", '"safe" is not what chains of this kind have', remedy='Use "finalized".'
        )
    assets, pegs = _assets(table, name, kind)
    if not kind.tells_native and len(assets) == 1:
        raise table.error(
            "tokens", f"are missing: asked this way, nodes do not tell payments in {assets[0].symbol}"
        )
    found = NetworkConfig(
        network=Network(
            name=name,
            family=kind.family,
            chain=kind.chain,
            native=assets[0],
            tokens=assets[1:],
            requirement=requirement,
            safety_depth=safety_depth,
            pegs=pegs,
            finality_tags=kind.finality_tags,
            loose_times=kind.loose_times,
            zero_conf_limit=_zero_conf_limit(table, assets[0], defaults),
            fee_rate_default=_fee_rate(table, defaults),
            has_accounts=kind.has_accounts,
            tells_native=kind.tells_native,
        ),
        settings=kind.settings,
        rpc=_rpc(table),
        poll_interval_ms=table.integer(
            "poll_interval_ms", defaults.poll_interval_ms, at_least=50, at_most=600_000
        ),
        start_height=_start_height(table),
        batch_blocks=table.integer("batch_blocks", defaults.batch_blocks, at_least=1, at_most=100),
        stale_after_seconds=table.integer(
            "stale_after_seconds", defaults.stale_after_seconds, at_least=5, at_most=86_400
        ),
        request_timeout_seconds=table.integer(
            "request_timeout_seconds", defaults.request_timeout_seconds, at_least=1, at_most=300
        ),
        genesis_hash=_genesis_hash(table, kind),
        mempool=table.flag("mempool", default=True) if kind.family != "tron" else False,
    )
    table.finish()
    return found


def _zero_conf_limit(table: Table, native: Asset, defaults: Defaults) -> int | None:
    """In base units; written in whole coins."""
    text = table.text_or_none("zero_conf_limit") or defaults.zero_conf_limit
    if text is None:
        return None
    try:
        return parse_units(text, native.decimals)
    except InvalidInput:
        raise table.error(
            "zero_conf_limit", f'must be an amount of {native.symbol} in quotes, such as "0.01"'
        ) from None


def _fee_rate(table: Table, defaults: Defaults) -> int | None:
    if defaults.fee_rate is None:
        return None
    return table.integer("fee_rate_default", defaults.fee_rate, at_least=1, at_most=FEE_RATE_MAX)


def _safety(table: Table, confirmations_default: int) -> tuple[Requirement, int]:
    finality = Finality(table.choice("finality", "depth", tuple(Finality)))
    if finality is not Finality.DEPTH and table.holds("confirmations"):
        raise table.error(
            "confirmations", f'has no meaning beside finality = "{finality}"', remedy="Keep one of them."
        )
    confirmations = table.integer(
        "confirmations", confirmations_default, at_least=1, at_most=CONFIRMATIONS_MAX
    )
    default = max(SAFETY_DEPTH_DEFAULT, confirmations)
    safety_depth = table.integer("safety_depth", default, at_least=1, at_most=SAFETY_DEPTH_MAX)
    if finality is Finality.DEPTH and safety_depth < confirmations:
        raise table.error(
            "safety_depth",
            f"is less than the confirmations ({confirmations}), so paid invoices would no longer be watched",
            remedy="Set it to the confirmations or more.",
        )
    return Requirement(finality, confirmations if finality is Finality.DEPTH else 1), safety_depth


def _assets(table: Table, network: str, kind: KindRead) -> tuple[tuple[Asset, ...], dict[str, str]]:
    """The native coin and the tokens, and which of them are priced at par with a currency."""
    pegs: dict[str, str] = {}
    native = table.table("native")
    symbol, decimals = kind.defaults.native or (None, None)
    assets = [_asset(native, native.text("symbol", symbol), "symbol", network, None, pegs, decimals)]
    if decimals is not None and assets[0].decimals != decimals:
        raise native.error("decimals", f"is {decimals} on every chain of this kind")
    native.finish()
    tokens = table.table("tokens")
    for symbol in tokens.entries():
        if not kind.has_tokens:
            raise tokens.error(symbol, "there are no tokens on chains of this kind")
        token = tokens.table(symbol)
        asset = _asset(token, symbol, None, network, _contract(token, kind.family), pegs)
        token.finish()
        for other in assets:
            if other.symbol.upper() == symbol.upper():
                raise tokens.error(symbol, f"the symbol {other.symbol} is already taken on this network")
            if other.contract == asset.contract:
                raise token.error("contract", f"is already the contract of {other.symbol}")
        assets.append(asset)
        if len(assets) > TOKENS_MAX:
            raise tokens.error(None, f"there are more than {TOKENS_MAX} tokens")
    return tuple(assets), pegs


def _asset(
    table: Table,
    symbol: str,
    symbol_key: str | None,
    network: str,
    contract: str | None,
    pegs: dict[str, str],
    decimals_default: int | None = None,
) -> Asset:
    if not SYMBOL.fullmatch(symbol):
        raise table.error(symbol_key, "a symbol is at most 20 letters, digits and ._$+-")
    if symbol.upper() in MINOR_UNIT_DECIMALS:
        raise table.error(
            symbol_key, f"{symbol} is a currency of ISO 4217", remedy="Give the asset another symbol."
        )
    decimals = table.integer("decimals", decimals_default, at_least=0, at_most=DECIMALS_MAX)
    quote_decimals = table.integer("quote_decimals", -1, at_least=0, at_most=decimals)
    asset = Asset(network, symbol, decimals, contract, None if quote_decimals < 0 else quote_decimals)
    par = table.text_or_none("par")
    if par is not None:
        if par not in MINOR_UNIT_DECIMALS:
            raise table.error("par", 'must be a currency of ISO 4217, such as "USD"')
        pegs[asset.key] = par
    return asset


def _contract(table: Table, family: str) -> str:
    from tallystick.chains.families import FAMILIES  # only here: it loads the key libraries

    try:
        contract = FAMILIES[family].normalize(table.text("contract"), None)
    except InvalidInput as problem:
        raise table.error("contract", problem.what.rstrip(".")) from None
    if int(contract, 16) == 0:
        raise table.error("contract", "is the zero address")
    return contract


def _rpc(table: Table) -> tuple[str, ...]:
    urls = table.texts("rpc")
    if not urls:
        raise table.error(
            "rpc", "names no node", remedy='Give at least one, such as ["http://127.0.0.1:8545"].'
        )
    for number, url in enumerate(urls, start=1):
        if len(url) > URL_LENGTH_MAX or not is_web_url(url):
            raise table.error("rpc", f"node {number} must be an http:// or https:// address")
    if len(set(urls)) != len(urls):
        raise table.error("rpc", "names a node twice, which would compare it with itself")
    return urls


def _start_height(table: Table) -> Literal["head"] | int:
    try:
        if table.text("start_height", "head") == "head":
            return "head"
    except ConfigurationError:
        pass  # no text, so it must be a number
    return table.integer("start_height", None, at_least=0, at_most=HEIGHT_MAX)


def _genesis_hash(table: Table, kind: KindRead) -> str | None:
    text = table.text_or_none("genesis_hash")
    if text is None:
        return None
    lead = "0x" if kind.family in ("evm", "tron") else ""
    if not _HASH.fullmatch(text.lower()) or not text.lower().startswith(lead):
        raise table.error("genesis_hash", f"must be {'0x and ' if lead else ''}64 hexadecimal digits")
    return lead + text.lower().removeprefix("0x")


def is_web_url(url: str) -> bool:
    """Whether this is an absolute http or https address with a host."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        return False
