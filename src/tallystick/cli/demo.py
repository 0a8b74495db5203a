"""`tallystick demo`, which `make run` calls."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from tallystick.cli.common import GLOBALS, Globals, JsonFlag, print_json

if TYPE_CHECKING:
    from tallystick.demo.run import Outcome


def demo(
    *,
    once: Annotated[bool, Parameter(negative="")] = False,
    port: Annotated[int | None, Parameter(validator=validators.Number(gte=0, lte=65_535))] = None,
    json: JsonFlag = False,
) -> int:
    """See a payment from start to end on this machine, with throw-away data.

    Parameters
    ----------
    once
        End after the first paid invoice instead of staying up.
    port
        Where to listen on this machine. Default: 8420 if it is free.
    """
    from tallystick.demo.run import check_parts, run_demo
    from tallystick.observability import configure_logging
    from tallystick.runtime import run

    configure_logging("debug" if GLOBALS.get(Globals()).debug else "warning")
    check_parts()

    async def main(stop: asyncio.Event) -> Outcome | None:
        keys = sys.stdin is not None and sys.stdin.isatty() and not once
        return await run_demo(stop, port=port, once=once, as_json=json, wait_for_key=keys)

    outcome = run(main)
    if outcome is None:
        return 1
    if json:
        print_json(outcome)
    return 0
