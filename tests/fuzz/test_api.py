"""The served API against its own description, by schemathesis: all its checks, all its phases.

Requests are made from `/openapi.json` (its examples, every boundary, at random, and in sequences along the links), and
each answer is compared with it: status, media type, headers, body, what must be refused, what must not, methods, keys,
objects that are there after their creation and gone after their deletion. What is expected otherwise than schemathesis
expects stands in `schemathesis.toml`, with the reason.

The cases are the same in every run. `TALLYSTICK_FUZZ_SECONDS` makes it go on with other ones for that long, from a
seed that is shown (`make fuzz`).

Planted in a copy of the sources, and found: a route without the guard in front (`ignored_auth`); a word of a list that
is not looked at (a 500, on five operations); a deletion that deletes nothing (`use_after_free`, by a sequence).
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import structlog

from tallystick.api.metrics import REQUEST_SECONDS
from tests.fuzz.shop import busy_shop
from tests.support.invariants import check_invariants

# What these need is in other objects: what is left of a payment, which actions a case has. Their good answers are
# shown in tests/api. All others are answered well at least once.
MOSTLY_REFUSED = {("POST", "/v1/refunds"), ("POST", "/v1/exceptions/{exception_id}/resolve")}
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
SECONDS = os.environ.get("TALLYSTICK_FUZZ_SECONDS", "")
HOW_MUCH = (f"--max-time={SECONDS}",) if SECONDS else ("--generation-deterministic", "--max-examples=10")


async def test_the_api_is_what_it_says_it_is(database_url: str, tmp_path: Path) -> None:
    async with busy_shop(database_url) as (api, merchant):
        before = _answered_well()
        with structlog.testing.capture_logs() as lines:
            asked = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "schemathesis.cli",
                f"--config-file={CONFIGURATION}",
                "--no-color",
                "run",
                f"{api.url}/openapi.json",
                f"--header=Authorization: Bearer {merchant.key}",
                *HOW_MUCH,
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await asked.communicate()
        report = said.decode(errors="replace")
        assert asked.returncode == 0, report
        assert not [line for line in lines if line["log_level"] in ("error", "warning")], report
        await check_invariants(api.ctx)
        # Nothing is shown about an operation that only ever refused what it was sent.
        described = (await api.client().get("/openapi.json")).json()["paths"]
        operations = {(method.upper(), path) for path, item in described.items() for method in item}
        assert len(operations) > 40
        after = _answered_well()
        refused = {one for one in operations if after.get(one, 0) == before.get(one, 0)}
        assert SECONDS or refused <= MOSTLY_REFUSED, report


def _answered_well() -> dict[tuple[str, str], int]:
    """How often each operation answered 2xx in this process, by its method and path."""
    found: dict[tuple[str, str], int] = {}
    for metric in REQUEST_SECONDS.collect():
        for sample in metric.samples:
            if sample.name.endswith("_count") and sample.labels["status"].startswith("2"):
                place = (sample.labels["method"], sample.labels["route"].replace(":str}", "}"))
                found[place] = found.get(place, 0) + int(sample.value)
    return found
