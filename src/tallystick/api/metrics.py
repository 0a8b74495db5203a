"""What the API counts about itself, in the process-wide registry.

For: the edge and `/metrics`. Holds true: labels are route templates, methods and statuses, so their number is
bounded whatever is asked for. Must not: label by merchant, key or address.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Gauge, Histogram

from tallystick.observability import REGISTRY

REQUEST_SECONDS: Final = Histogram(
    "tallystick_http_request_seconds",
    "From the request's arrival to the beginning of its answer.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
POOL_CONNECTIONS: Final = Gauge(
    "tallystick_database_connections", "Connections of the pool, by state.", ["state"], registry=REGISTRY
)
METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


def observe(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request. Methods that do not exist are counted together."""
    REQUEST_SECONDS.labels(method if method in METHODS else "other", route, str(status)).observe(seconds)


def show_pool(size: int, idle: int) -> None:
    """Set the gauges of the pool."""
    POOL_CONNECTIONS.labels("idle").set(idle)
    POOL_CONNECTIONS.labels("busy").set(size - idle)
