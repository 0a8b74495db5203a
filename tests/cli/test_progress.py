"""Bars while a network catches up: only on a terminal, only where there is something to catch up."""

from __future__ import annotations

import io
import sys

import pytest

from tallystick.cli.serve import BAR_BLOCKS_MIN, CatchUp


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, heights: list[int], head: int) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with CatchUp() as bars:
        for height in heights:
            bars.show("anvil", height, head)
            bars.show("other", height, height)
    return stream.getvalue()


def test_a_bar_for_a_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    text = show(Terminal(), monkeypatch, list(range(0, 401, 100)), 400)
    assert "anvil catches up" in text
    assert "other" not in text


def test_no_bar_for_a_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert show(Terminal(), monkeypatch, [0, 1, 2], BAR_BLOCKS_MIN - 1) == ""


def test_no_bar_outside_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert show(io.StringIO(), monkeypatch, [0, 100, 400], 400) == ""
