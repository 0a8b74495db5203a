"""Writes the table of docs/networks.md from the presets, so that documentation and settings cannot differ.

For: `python -m tools.networks_doc` after a change of `presets.toml`; a test compares the file with `written()`.
Holds true: nothing about a preset is written here that the file says already.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from tallystick.config_presets import presets

TARGET: Final = Path(__file__).resolve().parent.parent / "docs" / "networks.md"
BEGIN: Final = "<!-- presets: begin (python -m tools.networks_doc) -->"
END: Final = "<!-- presets: end -->"


def render() -> str:
    """The presets, as people read them."""
    parts = [_overview()]
    parts += [_one(name, preset) for name, preset in presets().items()]
    return "\n".join(parts)


def written(page: str) -> str:
    """The page with its generated part replaced."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{render()}\n{END}{after}"


def requirement(preset: dict[str, Any]) -> str:
    """What a payment waits for, in a few words."""
    return f"`{preset['finality']}`" if "finality" in preset else f"{preset['confirmations']} confirmations"


def _overview() -> str:
    lines = [
        "| preset | kind | chain | coin | tokens | a payment waits for | watched for |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, preset in presets().items():
        chain = preset.get("chain_id", preset.get("chain"))
        tokens = ", ".join(preset.get("tokens", {})) or "–"
        lines.append(
            f"| `{name}` | {preset['kind']} | {chain} | {preset['native']['symbol']} | {tokens} | "
            f"{requirement(preset)} | {preset['safety_depth']} blocks |"
        )
    return "\n".join(lines) + "\n"


def _one(name: str, preset: dict[str, Any]) -> str:
    lines = [
        f"### {name}",
        "",
        preset["reason"],
        "",
        f"What `confirmations` counts: {preset['confirmations_mean']}",
    ]
    for symbol, token in preset.get("tokens", {}).items():
        lines += [""] if symbol == next(iter(preset["tokens"])) else []
        lines.append(f"- {symbol}: `{token['contract']}`, {token['decimals']} decimals")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(written(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
