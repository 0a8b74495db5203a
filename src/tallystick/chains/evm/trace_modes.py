"""The ways in which a network's nodes can be asked for what contract calls move, by their names in the configuration.

For: the configuration and `tracing`. A module of its own, so that reading a configuration loads nothing that asks
nodes.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

TraceMode: TypeAlias = Literal["auto", "trace_block", "debug", "off"]
TRACE_MODES: Final[tuple[TraceMode, ...]] = ("auto", "trace_block", "debug", "off")
