"""`python -m bench`: run the benchmarks, print a table and write JSON.

What bounds each today is said under its table, from profiles; what is measured are ratios of one run on one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.table import Table

from bench.creation import creation
from bench.intake import block_sizes, issued_addresses
from bench.latency import latency
from bench.outputs import outputs
from bench.simulation import simulation

TITLES = {
    "creation": (
        "(a) invoices created over HTTP, against single-INSERT commits of the same database",
        "Bound by Python's time per request in the one API process, then by round trips inside the transaction.",
    ),
    "blocks": (
        "(b) intake of blocks, against only fetching and decoding the same bytes",
        "Strangers' blocks: bound by checks and a dozen round trips. Ours: by judging invoices and rendering events.",
    ),
    "addresses": (
        "(c) intake with many addresses issued and open",
        "Flat by design: matching is an index look-up of the block's recipients, what is due is an index range.",
    ),
    "latency": (
        "(d) from a block being served to the webhook's arrival",
        "Bound by the poll interval: on average half of it passes before we look.",
    ),
    "outputs": (
        "(f) intake of full Bitcoin blocks, against only fetching them and decoding them with a library",
        "Bound by Python: reading the bytes of 4,000 transactions, making 10,000 transfers; then by the database.",
    ),
    "simulation": (
        "(e) steps of the simulation, checks and settling included, against commits and round trips there",
        "Bound by Python and PostgreSQL, half each: a dozen statements a step, and the rules about what it wrote.",
    ),
}


async def run(names: Sequence[str], *, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Run the named benchmarks one after the other."""
    found: dict[str, list[dict[str, Any]]] = {}
    if "creation" in names:
        found["creation"] = [asdict(one) for one in await creation(2 if quick else 10)]
    if "blocks" in names:
        found["blocks"] = [asdict(one) for one in await block_sizes(20 if quick else 100)]
    if "addresses" in names:
        sizes = (1_000, 10_000) if quick else (1_000, 100_000, 1_000_000)
        found["addresses"] = [asdict(one) for one in await issued_addresses(40 if quick else 200, sizes)]
    if "latency" in names:
        found["latency"] = [asdict(one) for one in await latency(20 if quick else 120)]
    if "outputs" in names:
        sizes = (1_000, 10_000) if quick else (1_000, 1_000_000)
        found["outputs"] = [asdict(one) for one in await outputs(4 if quick else 12, sizes)]
    if "simulation" in names:
        found["simulation"] = [asdict(one) for one in await simulation(4 if quick else 40)]
    return found


def show(found: dict[str, list[dict[str, Any]]], console: Console) -> None:
    """Print each benchmark as a table with what bounds it."""
    for name, rows in found.items():
        title, bound = TITLES[name]
        table = Table(title=title, caption=bound, title_justify="left", caption_justify="left")
        for column in rows[0]:
            table.add_column(column.replace("_", " "), justify="right")
        for row in rows:
            table.add_row(
                *(f"{value:,}" if isinstance(value, int | float) else str(value) for value in row.values())
            )
        console.print(table, "")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure Tallystick on this machine.")
    parser.add_argument("names", nargs="*", help=f"which ones: {', '.join(TITLES)} (all by default)")
    parser.add_argument("--quick", action="store_true", help="short runs, to see that everything works")
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"), help="where the figures go")
    options = parser.parse_args()
    unknown = set(options.names) - set(TITLES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    found = asyncio.run(run(options.names or tuple(TITLES), quick=options.quick))
    show(found, Console())
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
    }
    report = {
        "at": datetime.now(UTC).isoformat(),
        "machine": machine,
        "quick": options.quick,
        "results": found,
    }
    options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
