"""What differs between kinds of networks in the configuration: their own keys, and the defaults of common ones.

For: `config_networks`. Holds true: a kind's keys are read whole and checked as far as that goes without asking anybody.
Must not: ask a node, or know tokens and requirements, which every kind has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tallystick.chains.bitcoin.chains import CHAINS
from tallystick.chains.evm.trace_modes import TRACE_MODES, TraceMode
from tallystick.chains.tron.chains import CHAIN_IDS
from tallystick.config_reader import Table

CHAIN_ID_MAX: Final = 2**63 - 1
FEE_RATE_MAX: Final = 100_000_000
"""Base units per 1,000 virtual bytes: a whole coin for a payment of 1,000 bytes is a mistake."""

PATH_LENGTH_MAX: Final = 4096
# Paths of sockets have at most 107 bytes: ZMQ cannot connect to longer ones.
_ZMQ: Final = re.compile(r"tcp://[^\s/@]{1,255}:[0-9]{1,5}|ipc://[^\s@]{1,107}", re.ASCII)


@dataclass(frozen=True, slots=True)
class EvmSettings:
    """How an EVM network's nodes are asked."""

    chain_id: int
    finality_tags: bool = True
    blooms: bool = True
    traces: TraceMode = "auto"


@dataclass(frozen=True, slots=True)
class BitcoinSettings:
    """How nodes of Bitcoin Core's kind are asked.

    `cookie_file` holds the credentials of nodes whose address has none. `zmq` are addresses where a node tells of news.
    """

    chain: str
    cookie_file: Path | None = None
    zmq: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TronSettings:
    """How TRON nodes are asked: by their own HTTP interface or by JSON-RPC (`api`), so often each."""

    chain_id: int
    api: str = "http"
    requests_per_second: int = 10


Settings = EvmSettings | BitcoinSettings | TronSettings


@dataclass(frozen=True, slots=True)
class Defaults:
    """Defaults of the keys that every kind has. `native` is symbol and decimals; None: they must be given.

    `zero_conf_limit` is in whole coins, None for no limit; `fee_rate` in base units per 1,000 virtual bytes.
    """

    confirmations: int = 12
    poll_interval_ms: int = 1000
    batch_blocks: int = 16
    stale_after_seconds: int = 300
    request_timeout_seconds: int = 30
    native: tuple[str, int] | None = None
    zero_conf_limit: str | None = None
    fee_rate: int | None = None


@dataclass(frozen=True, slots=True)
class KindRead:
    """A network's kind as read: its family and chain, its own settings, and what holds where nothing is written.

    `has_safe` is whether its chains tell safe blocks besides finalized ones, `tells_native` whether payments in the
    native coin are seen when its nodes are asked as configured.
    """

    family: str
    chain: str
    settings: Settings
    defaults: Defaults
    has_tokens: bool = True
    finality_tags: bool = True
    has_safe: bool = True
    loose_times: bool = False
    has_accounts: bool = True
    tells_native: bool = True


_BITCOIN_DEFAULTS: Final[Mapping[str, Defaults]] = MappingProxyType(
    {
        "bitcoin": Defaults(
            confirmations=3,
            poll_interval_ms=5000,
            batch_blocks=4,
            stale_after_seconds=7200,
            request_timeout_seconds=60,
            native=("BTC", 8),
            zero_conf_limit="0.01",
            fee_rate=20_000,
        ),
        "litecoin": Defaults(
            confirmations=14,
            poll_interval_ms=5000,
            batch_blocks=4,
            stale_after_seconds=1800,
            request_timeout_seconds=60,
            native=("LTC", 8),
            zero_conf_limit="1",
            fee_rate=10_000,
        ),
    }
)


def read_kind(table: Table) -> KindRead:
    """The kind and its own keys. Raises ConfigurationError."""
    kind = table.text("kind")
    if kind not in _READERS:
        raise table.error("kind", f"must be one of {', '.join(_READERS)}")
    return _READERS[kind](table)


def _evm(table: Table) -> KindRead:
    chain_id = table.integer("chain_id", None, at_least=1, at_most=CHAIN_ID_MAX)
    traces = table.choice("traces", "auto", TRACE_MODES)
    finality_tags = table.flag("finality_tags", default=True)
    settings = EvmSettings(
        chain_id=chain_id,
        finality_tags=finality_tags,
        blooms=table.flag("blooms", default=True),
        traces=next(mode for mode in TRACE_MODES if mode == traces),
    )
    return KindRead("evm", str(chain_id), settings, Defaults(), finality_tags=finality_tags)


def _bitcoin(table: Table) -> KindRead:
    chain = table.text("chain")
    if chain not in CHAINS:
        raise table.error("chain", f"must be one of {', '.join(CHAINS)}")
    family = CHAINS[chain].family
    zmq = table.texts("zmq")
    for number, address in enumerate(zmq, start=1):
        if not _ZMQ.fullmatch(address):
            raise table.error("zmq", f"address {number} must look like tcp://127.0.0.1:28332")
    settings = BitcoinSettings(chain=chain, cookie_file=_cookie_file(table), zmq=zmq)
    return KindRead(
        family,
        chain,
        settings,
        _BITCOIN_DEFAULTS[family],
        has_tokens=False,
        finality_tags=False,
        loose_times=True,
        has_accounts=False,
    )


def _cookie_file(table: Table) -> Path | None:
    text = table.text_or_none("rpc_cookie_file", length_max=PATH_LENGTH_MAX)
    if text is None:
        return None
    path = Path(text)
    if not path.is_absolute():
        raise table.error("rpc_cookie_file", "must be a whole path, beginning with /")
    return path


def _tron(table: Table) -> KindRead:
    if table.holds("chain") and table.holds("chain_id"):
        raise table.error("chain_id", "has no meaning beside chain", remedy="Keep one of them.")
    if table.holds("chain_id"):
        chain_id = table.integer("chain_id", None, at_least=1, at_most=CHAIN_ID_MAX)
    else:
        chain = table.text("chain", "tron")
        if chain not in CHAIN_IDS:
            raise table.error(
                "chain",
                f"must be one of {', '.join(CHAIN_IDS)}",
                remedy="For another chain give its chain_id instead.",
            )
        chain_id = CHAIN_IDS[chain]
    settings = TronSettings(
        chain_id=chain_id,
        api=table.choice("api", "http", ("http", "jsonrpc")),
        requests_per_second=table.integer("requests_per_second", 10, at_least=1, at_most=1000),
    )
    defaults = Defaults(confirmations=20, poll_interval_ms=3000, native=("TRX", 6))
    return KindRead(
        "tron",
        str(chain_id),
        settings,
        defaults,
        has_safe=False,
        has_accounts=False,
        tells_native=settings.api == "http",
    )


_READERS: Final[Mapping[str, Callable[[Table], KindRead]]] = MappingProxyType(
    {"evm": _evm, "bitcoin": _bitcoin, "tron": _tron}
)
