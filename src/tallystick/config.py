"""The configuration: one TOML file, every key overridable by the environment.

For: everything that runs. `config.default.toml` beside this module documents every key.
Holds true: a `Config` is checked as a whole before anything starts: unknown keys, contradictions, wrong checksums, two
networks on one chain are errors that name the key and what to do. Values are exact: rates are fractions, never floats.
Credentials never show in `repr`.
Must not: touch the network or the database; a wrong but well-formed address is `doctor`'s business.

A key's variable is TALLYSTICK_ and the key's path in capitals, `__` between the levels, any other character than
letters and digits as `_`: `networks.ethereum.safety_depth` is TALLYSTICK_NETWORKS__ETHEREUM__SAFETY_DEPTH.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tallystick.config_networks import URL_LENGTH_MAX, NetworkConfig, is_web_url, read_networks
from tallystick.config_presets import lay_presets
from tallystick.config_rates import RatesConfig, read_rates
from tallystick.config_reader import Table, overlay, read_file
from tallystick.core.errors import ConfigurationError

__all__ = ["Config", "LogConfig", "NetworkConfig", "RatesConfig", "ServerConfig", "WebhookConfig", "load"]

DEFAULT_LISTEN: Final = "127.0.0.1:8420"
PORT_MAX: Final = 65_535

_TOP_LEVEL_KEYS: Final = frozenset({"config", "database_url", "data_dir", "listen", "public_url"})
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The HTTP server. `trusted_proxies` are addresses whose X-Forwarded-For is believed."""

    trusted_proxies: tuple[str, ...] = ()
    stop_seconds_max: int = 10
    database_connections_max: int = 20


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is logged, and how: `auto` is text on a terminal and JSON elsewhere."""

    level: str = "info"
    format: str = "auto"


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """Delivery of events. `allow_private_targets` lets endpoints lie inside the operator's own network."""

    allow_private_targets: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set. `database_url` None means the embedded PostgreSQL in `data_dir`.

    `host` and `port` are where the server listens (port 0: any free one). `public_url` has no trailing slash; None
    means that it follows from the address listened on.
    """

    data_dir: Path
    host: str
    port: int
    database_url: str | None = field(default=None, repr=False)
    public_url: str | None = None
    server: ServerConfig = field(default_factory=ServerConfig)
    log: LogConfig = field(default_factory=LogConfig)
    webhooks: WebhookConfig = field(default_factory=WebhookConfig)
    rates: RatesConfig = field(default_factory=RatesConfig)
    networks: Mapping[str, NetworkConfig] = field(default_factory=dict)
    file: Path | None = None

    def url_on(self, port: int) -> str:
        """The public URL when the server listens on `port`."""
        if self.public_url is not None:
            return self.public_url
        # Nobody can visit "every address"; from this machine the loopback address reaches it.
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"http://{host}:{port}"


def default_text() -> str:
    """The commented file with every key and its default."""
    return resources.files("tallystick").joinpath("config.default.toml").read_text(encoding="utf-8")


def load(file: Path | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration from `file` (else TALLYSTICK_CONFIG, else none) and the environment.

    Raises ConfigurationError, and nothing else, whatever is written there.
    """
    environment = os.environ if environment is None else environment
    if file is None and environment.get("TALLYSTICK_CONFIG"):
        file = Path(environment["TALLYSTICK_CONFIG"])
    return from_document({} if file is None else read_file(file), environment=environment, file=file)


def from_document(
    document: dict[str, Any], *, environment: Mapping[str, str], file: Path | None = None
) -> Config:
    """The configuration in a parsed document, with the environment laid over it. Raises ConfigurationError."""
    overlay(document, {k: v for k, v in environment.items() if k != "TALLYSTICK_CONFIG"}, _TOP_LEVEL_KEYS)
    origin = str(file) if file is not None else "the environment"
    lay_presets(document, origin)
    top = Table(document, path="", origin=origin)
    host, port = _listen(top)
    config = Config(
        database_url=_database_url(top),
        data_dir=_data_dir(top, file),
        host=host,
        port=port,
        public_url=_public_url(top),
        server=_server(top.table("server")),
        log=_log(top.table("log")),
        webhooks=_webhooks(top.table("webhooks")),
        rates=read_rates(top.table("rates")),
        networks=read_networks(top.table("networks")),
        file=file,
    )
    top.finish()
    return config


def parse_listen(text: str) -> tuple[str, int]:
    """Address and port in a text such as 127.0.0.1:8420 or [::1]:8420. Raises ConfigurationError."""
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None or int(match[2]) > PORT_MAX:
        raise ConfigurationError("The listen address must be an address and a port, such as 127.0.0.1:8420.")
    return match[1].strip("[]"), int(match[2])


def _listen(top: Table) -> tuple[str, int]:
    text = top.text("listen", DEFAULT_LISTEN)
    try:
        return parse_listen(text)
    except ConfigurationError as problem:
        raise top.error("listen", problem.what.rstrip(".")) from None


def _database_url(top: Table) -> str | None:
    url = top.text_or_none("database_url")
    if url is not None and not url.startswith(("postgresql://", "postgres://")):
        raise top.error("database_url", "must begin with postgresql://")
    return url


def _data_dir(top: Table, file: Path | None) -> Path:
    text = top.text_or_none("data_dir")
    if text is None:
        from tallystick.db.embedded import default_data_folder  # only here: it loads the database driver

        return default_data_folder()
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise top.error("data_dir", "names a user who does not exist") from None
    # What a file says is meant relative to the file; a variable, relative to where one stands.
    base = file.parent if file is not None and not top.is_from_environment("data_dir") else Path.cwd()
    return Path(os.path.abspath(base / path))  # noqa: PTH100  # resolve() would follow the user's own links


def _public_url(top: Table) -> str | None:
    url = top.text_or_none("public_url", length_max=URL_LENGTH_MAX)
    if url is None:
        return None
    if not is_web_url(url):
        raise top.error("public_url", "must be an http:// or https:// address")
    parts = urlsplit(url)
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise top.error(
            "public_url",
            "must be only a scheme, a host and perhaps a port",
            remedy="Give Tallystick a host name of its own, such as https://pay.example.com.",
        )
    return f"{parts.scheme}://{parts.netloc}"


def _server(table: Table) -> ServerConfig:
    found = ServerConfig(
        trusted_proxies=table.texts("trusted_proxies"),
        stop_seconds_max=table.integer("stop_seconds_max", 10, at_least=1, at_most=600),
        database_connections_max=table.integer("database_connections_max", 20, at_least=4, at_most=1000),
    )
    table.finish()
    return found


def _log(table: Table) -> LogConfig:
    found = LogConfig(
        level=table.choice("level", "info", ("debug", "info", "warning", "error")),
        format=table.choice("format", "auto", ("auto", "text", "json")),
    )
    table.finish()
    return found


def _webhooks(table: Table) -> WebhookConfig:
    found = WebhookConfig(allow_private_targets=table.flag("allow_private_targets", default=False))
    table.finish()
    return found
