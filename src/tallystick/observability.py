"""Logs and metrics: what a process says about itself.

For: every process at its start (`configure_logging`), workers that count, `/metrics`.
Holds true: logs go to standard error, as text for people on a terminal and as one JSON object per line elsewhere; API
keys, webhook secrets and credentials in URLs never reach a line, whichever library writes it. All metrics are in
`REGISTRY`, and begin with `tallystick_`.
Must not: be needed for correctness. A metric's labels come from the configuration or the code, never from a request, so
that their number is bounded.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import datetime
from typing import Any, Final, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from tallystick.services.objects import NetworkObject

REDACTED: Final = "[redacted]"
NETWORK_STATUSES: Final = ("following", "catching_up", "degraded", "halted", "misconfigured", "unavailable")
_REDACTION_DEPTH_MAX: Final = 8
_SECRETS: Final = re.compile(
    r"\b(ts_|whsec_)[A-Za-z0-9_+/=-]{4,}"  # API keys and webhook secrets
    r"|(?<=://)[^\s/@'\"<>]{1,512}@"  # user and password in a URL
    r"|(?<=[?&])((?:api_?key|key|token|password|secret)=)[^\s&'\"]+"  # keys in a query
    r"|\b[xyztuv]prv[1-9A-HJ-NP-Za-km-z]{20,}",  # an extended private key, should one ever be sent to us
    re.IGNORECASE,
)
_SECRET_FIELDS: Final = frozenset(
    {"authorization", "password", "secret", "api_key", "previous_secret", "cookie"}
)

REGISTRY: Final = CollectorRegistry()
"""Everything that this process counts. Others may register their own metrics here."""

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

NETWORK_HEAD: Final = Gauge(
    "tallystick_network_head_height", "The node's best block.", ["network"], registry=REGISTRY
)
NETWORK_HEIGHT: Final = Gauge(
    "tallystick_network_processed_height",
    "The last block processed completely.",
    ["network"],
    registry=REGISTRY,
)
NETWORK_LAG_BLOCKS: Final = Gauge(
    "tallystick_network_lag_blocks",
    "Blocks between the node's best and ours.",
    ["network"],
    registry=REGISTRY,
)
NETWORK_LAG_SECONDS: Final = Gauge(
    "tallystick_network_lag_seconds", "How far behind in time we are.", ["network"], registry=REGISTRY
)
NETWORK_STATUS: Final = Gauge(
    "tallystick_network_status",
    "1 for the status that the network has.",
    ["network", "status"],
    registry=REGISTRY,
)
DELIVERIES_PENDING: Final = Gauge(
    "tallystick_deliveries_pending", "Webhook deliveries that are not done.", registry=REGISTRY
)
DELIVERIES_DUE_AGE: Final = Gauge(
    "tallystick_deliveries_oldest_due_seconds",
    "How long the most overdue webhook delivery has been due; 0 when none is.",
    registry=REGISTRY,
)
QUOTES_RENEWED: Final = Counter(
    "tallystick_quotes_renewed_total", "Quotes that ended and were made anew.", registry=REGISTRY
)
QUOTES_NOT_RENEWED: Final = Counter(
    "tallystick_quotes_not_renewed_total",
    "How often a quote that had ended could not be made anew, for want of a rate. It is tried again every 15 seconds.",
    registry=REGISTRY,
)
WORKER_UP: Final = Gauge("tallystick_worker_up", "1 while the worker runs.", ["worker"], registry=REGISTRY)
WORKER_CRASHES: Final = Counter(
    "tallystick_worker_crashes_total",
    "How often the worker ended without being asked.",
    ["worker"],
    registry=REGISTRY,
)


def show_networks(networks: Sequence[NetworkObject]) -> None:
    """Set the networks' gauges. What is not known is left out rather than shown as zero."""
    for network in networks:
        for gauge, value in (
            (NETWORK_HEAD, network.head),
            (NETWORK_HEIGHT, network.height),
            (NETWORK_LAG_BLOCKS, network.lag_blocks),
            (NETWORK_LAG_SECONDS, network.lag_seconds),
        ):
            if value is not None:
                gauge.labels(network.name).set(value)
        for status in NETWORK_STATUSES:
            NETWORK_STATUS.labels(network.name, status).set(int(status == network.status))


def show_deliveries(pending: int, oldest_due: datetime | None, now: datetime) -> None:
    """Set the deliveries' gauges. `oldest_due` is the earliest due time among those pending."""
    DELIVERIES_PENDING.set(pending)
    age_seconds = 0.0 if oldest_due is None else (now - oldest_due).total_seconds()
    DELIVERIES_DUE_AGE.set(max(0.0, age_seconds))


def metrics_page() -> bytes:
    """All metrics in Prometheus's text format."""
    return generate_latest(REGISTRY)


def redacted(text: str) -> str:
    """The text without API keys, webhook secrets, private keys and credentials in URLs."""
    return _SECRETS.sub(
        lambda found: f"{found.group(1) or found.group(2) or ''}{REDACTED}{_rest(found)}", text
    )


def _rest(found: re.Match[str]) -> str:
    return "@" if found.group().endswith("@") else ""


def _without_secrets(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if depth > _REDACTION_DEPTH_MAX:
        return REDACTED
    if isinstance(value, Mapping):
        return {
            key: REDACTED if str(key).lower() in _SECRET_FIELDS else _without_secrets(inner, depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_without_secrets(inner, depth + 1) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redacted(str(value))


def redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: the event without secrets, also in what an exception says."""
    return {
        key: REDACTED if key.lower() in _SECRET_FIELDS else _without_secrets(value)
        for key, value in event.items()
    }


class _CurrentStandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at the moment: a progress bar puts itself in between to keep lines whole."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self.stream = sys.stderr
        super().emit(record)


def configure_logging(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Send everything that is logged, also through the standard library, to `stream` (standard error).

    `form` is text, json, or auto: text when the stream is a terminal.
    """
    given, stream = stream, sys.stderr if stream is None else stream
    as_text = form == "text" or (form == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks are made text before the secrets are taken out, so that none slips through inside one.
    last: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        redact_event,
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if as_text
        else structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _CurrentStandardError() if given is None else logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn", "alembic", "asyncio", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
