"""Logs without secrets, whoever writes them; gauges that say what is known and nothing else."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tallystick.observability import (
    REGISTRY,
    configure_logging,
    metrics_page,
    redacted,
    show_deliveries,
    show_networks,
)
from tallystick.services.objects import NativeObject, NetworkObject

KEY = "ts_2fndqc53e2zwdihicppjfoqplaqpplmj"
WEBHOOK_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
URL = "http://user:hunter2@node.example:8545/path"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    written = io.StringIO()
    try:
        yield written
    finally:
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_secret_reaches_a_line(stream: io.StringIO, form: str) -> None:
    configure_logging("info", form, stream)
    log = structlog.get_logger("ours")
    log.info("request", key=KEY, nested={"list": [WEBHOOK_SECRET, {"secret": "bare"}], "url": URL})
    log.info("header", authorization="anything", password="bare")
    logging.getLogger("theirs").warning("calling %s with %s", URL, KEY)
    try:
        raise ValueError(URL)
    except ValueError:
        log.exception("failed", error=ValueError(KEY))
    text = stream.getvalue()
    assert text.count("\n") >= 4
    for secret in (KEY, WEBHOOK_SECRET, "hunter2", "bare", "anything"):
        assert secret not in text
    assert "node.example" in text


def test_json_lines_are_json(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream)
    structlog.get_logger("ours").info("two\nlines", at=datetime.now(UTC), odd=object(), many={1, 2})
    logging.getLogger("theirs").error("bad")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["two\nlines", "bad"]
    assert {"level", "timestamp", "logger"} <= lines[0].keys()


def test_the_level_holds(stream: io.StringIO) -> None:
    configure_logging("warning", "json", stream)
    structlog.get_logger("ours").info("quiet")
    structlog.get_logger("ours").warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


@given(before=st.text(max_size=30), after=st.text(max_size=30))
def test_a_key_is_found_wherever_it_stands(before: str, after: str) -> None:
    assert KEY not in redacted(f"{before} {KEY} {after}")
    assert "hunter2" not in redacted(f"{before} {URL} {after}")


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("https://pay.example/i/inv_1", "a@b.example", "ts_", "block 0x12", "5 ts_x"):
        assert redacted(text) == text


def network(name: str, **changes: object) -> NetworkObject:
    values: dict[str, object] = {
        "name": name,
        "kind": "evm",
        "chain_id": 1,
        "chain": "1",
        "native": NativeObject(symbol="ETH", decimals=18),
        "assets": [],
        "finality": "depth",
        "confirmations": 1,
        "safety_depth": 64,
        "status": "following",
        "height": 9,
        "head": 11,
        "lag_blocks": 2,
        "lag_seconds": 24,
        "safe_height": None,
        "finalized_height": None,
        "problem": None,
    }
    return NetworkObject(**(values | changes))  # type: ignore[arg-type]


def test_the_networks_gauges() -> None:
    show_networks(
        [network("seen"), network("never", status="unavailable", height=None, head=None, lag_blocks=None)]
    )
    value = REGISTRY.get_sample_value
    assert value("tallystick_network_lag_blocks", {"network": "seen"}) == 2
    assert value("tallystick_network_processed_height", {"network": "seen"}) == 9
    assert value("tallystick_network_processed_height", {"network": "never"}) is None
    assert value("tallystick_network_status", {"network": "never", "status": "unavailable"}) == 1
    show_networks([network("seen", status="halted")])
    assert value("tallystick_network_status", {"network": "seen", "status": "halted"}) == 1
    assert value("tallystick_network_status", {"network": "seen", "status": "following"}) == 0


def test_the_deliveries_gauges() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    value = REGISTRY.get_sample_value
    show_deliveries(3, now - timedelta(seconds=30), now)
    assert value("tallystick_deliveries_pending") == 3
    assert value("tallystick_deliveries_oldest_due_seconds") == 30
    show_deliveries(1, now + timedelta(seconds=30), now)
    assert value("tallystick_deliveries_oldest_due_seconds") == 0
    show_deliveries(0, None, now)
    assert value("tallystick_deliveries_oldest_due_seconds") == 0
    assert b"tallystick_deliveries_pending 0.0" in metrics_page()
