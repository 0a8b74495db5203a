"""The demo's timeline: what happens, when, and what shows it, as lines on a terminal.

Must not: find anything out; it is told.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TextIO

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HASH_SHOWN: Final = 18
_STYLES: Final = {
    "paid": "bold green",
    "overpaid": "bold green",
    "confirming": "cyan",
    "detected": "cyan",
    "partially_paid": "yellow",
    "expired": "red",
    "review_required": "yellow",
    "canceled": "red",
}
WIDTH_OF_KIND: Final = 10


class Timeline:
    """Lines with the seconds since the start, one per happening."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._started = time.monotonic()

    def say(self, *lines: str, style: str = "") -> None:
        """Lines without a time, for the visitor to read or to copy."""
        for line in lines:
            self._console.print(Text(line, style=style))

    def note(self, kind: str, text: str, detail: str = "", *, style: str = "") -> None:
        """One happening: who, what, and the evidence."""
        seconds = time.monotonic() - self._started
        self._console.print(
            Text.assemble(
                (f"{seconds:6.1f} s  ", "dim"),
                (f"{kind:<{WIDTH_OF_KIND}}", "bold"),
                (text, style),
                (f"  {detail}" if detail else "", "dim"),
            )
        )

    def transition(self, transition: Mapping[str, Any]) -> None:
        """A step of an invoice, with what it rests on."""
        state = str(transition["to"])
        before = transition["from"] or "·"
        text = f"{before} → {state} ({transition['reason']})"
        self.note("invoice", text, evidence_text(transition["evidence"]), style=_STYLES.get(state, ""))

    def webhook(self, event: Mapping[str, Any]) -> None:
        """An event that the shop received and whose signature it verified."""
        self.note(
            "webhook", f"{event['type']}, signature verified by the shop", str(event["id"]), style="magenta"
        )


def evidence_text(evidence: Sequence[Mapping[str, Any]]) -> str:
    """The evidence of a transition in a few words. Unknown kinds are named by their type."""
    parts = []
    for item in evidence:
        match item["type"]:
            case "transfer":
                where = f"block {item['block_height']}" if "block_height" in item else "no block"
                parts.append(
                    f"{item['amount']} {item['asset']} in {shortened(item['tx_hash'])}, {where}, "
                    f"{item['confirmations']} confirmation{'' if item['confirmations'] == 1 else 's'}"
                )
            case "address":
                parts.append(f"address {item['address']}")
            case "quote":
                parts.append(f"{item['amount']} {item['asset']}")
            case "block" | "request" | "mempool":
                pass  # the transfer says in which block it stands, or in none; who asked stands in the reason
            case other:
                parts.append(str(other))
    return "; ".join(parts)


def shortened(text: str) -> str:
    """A hash, cut for a line."""
    return text if len(text) <= HASH_SHOWN else f"{text[:HASH_SHOWN]}…"
