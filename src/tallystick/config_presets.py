"""Well-known networks: what `presets.toml` says about a network, laid under what the operator wrote.

For: `config`, before it reads the networks, and docs/networks.md. Holds true: what the operator wrote always wins, key
by key; a network takes a preset only if it names one, or has the name of one and no `kind` of its own.
Must not: check values (`config_networks` does, whoever wrote them), or hold anything that is not in the file.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any, Final

from tallystick.core.errors import ConfigurationError

ABOUT: Final = ("reason", "confirmations_mean")
"""What a preset says for people; no settings."""

_REQUIREMENT: Final = frozenset({"confirmations", "finality"})


@cache
def presets() -> dict[str, dict[str, Any]]:
    """The file, by network. Not to be changed."""
    text = resources.files("tallystick").joinpath("presets.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def lay_presets(document: dict[str, Any], origin: str) -> None:
    """Complete each network that follows a preset, in place. Raises ConfigurationError for one that is not there."""
    networks = document.get("networks")
    if not isinstance(networks, dict):
        return
    for name, table in networks.items():
        if isinstance(table, dict):
            networks[name] = _completed(str(name), table, origin)


def _completed(name: str, table: dict[str, Any], origin: str) -> dict[str, Any]:
    asked = table.get("preset")
    if asked is None and ("kind" in table or name not in presets()):
        return table
    wanted = name if asked is None else asked
    if not isinstance(wanted, str) or wanted not in presets():
        raise ConfigurationError(
            f"networks.{name[:40]}.preset: there is no such preset.",
            object_id=origin,
            remedy=f"Presets: {', '.join(presets())}. Or describe the network yourself, beginning with kind.",
        )
    found = {key: value for key, value in presets()[str(wanted)].items() if key not in ABOUT}
    own = {key: value for key, value in table.items() if key not in {"preset", "preset_tokens"}}
    if _REQUIREMENT & own.keys():  # the one that is written replaces whichever the preset has
        found = {key: value for key, value in found.items() if key not in _REQUIREMENT}
    tokens = _tokens(name, found.get("tokens", {}), table, origin)
    merged = found | own
    if isinstance(own.get("native"), dict):
        merged["native"] = found["native"] | own["native"]
    if isinstance(own.get("tokens", {}), dict):  # else the reader says what is wrong with it
        merged["tokens"] = tokens
    return merged


def _tokens(name: str, known: dict[str, Any], table: dict[str, Any], origin: str) -> dict[str, Any]:
    """The preset's tokens that are wanted, each completed by what the operator says of it, and the operator's own."""
    wanted = table.get("preset_tokens", list(known))
    if isinstance(wanted, str):  # in the environment: parts divided by commas
        wanted = [part.strip() for part in wanted.split(",") if part.strip()]
    if not isinstance(wanted, list) or any(not isinstance(one, str) or one not in known for one in wanted):
        raise ConfigurationError(
            f"networks.{name[:40]}.preset_tokens: must be a list of symbols that the preset has.",
            object_id=origin,
            remedy=f"It has: {', '.join(known) or 'none'}.",
        )
    own = table.get("tokens", {})
    if not isinstance(own, dict):
        return {}
    tokens: dict[str, Any] = {symbol: known[symbol] for symbol in wanted}
    for symbol, said in own.items():
        tokens[symbol] = tokens.get(symbol, {}) | said if isinstance(said, dict) else said
    return tokens
