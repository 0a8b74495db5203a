"""The command line.

For: operators, and `make run`.
Holds true: an error is one line that says what failed and what to do, with exit code 1 (2 when the command itself was
written wrongly) and no traceback unless `--debug`. Must not: hold rules; commands call services.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, CycloptsError, Parameter

from tallystick import __version__
from tallystick.cli.common import GLOBALS, Globals, print_error
from tallystick.core.errors import TallystickError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

# Python reads bytes that are no UTF-8 as surrogates (PEP 383).
_REFUSED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# Said here too, so that the overview does not import every command.
_COMMANDS: Final = (
    ("demo", "demo:demo", "See a payment from start to end on this machine, with throw-away data."),
    ("up", "serve:up", "Run everything in one process."),
    ("api", "serve:api", "Run the HTTP API and the checkout pages only."),
    ("watch", "serve:watch", "Follow one network only."),
    ("deliver", "serve:deliver", "Deliver webhooks only."),
    ("jobs", "serve:jobs", "Run the timed jobs only."),
    ("migrate", "serve:migrate", "Bring the database to the schema of this version."),
    ("merchant", "manage:merchant", "Create merchants."),
    ("key", "manage:key", "Create API keys."),
    ("wallet", "manage:wallet", "Register account public keys under which customers pay."),
    ("invoice", "inspect:invoice", "Show an invoice with its history."),
    ("exception", "exceptions:exception", "See what needs a person, and decide about it."),
    ("refund", "refunds:refund", "See refunds, approve or reject them."),
    ("dispute", "exceptions:dispute", "Open and resolve disputes about payments."),
    ("trace", "inspect:trace", "Show what a transaction paid."),
    ("audit", "audit:audit", "Check everything stored against its facts, its log and the chain."),
    ("network", "manage:network", "Resume a halted network, or raise what it requires."),
    ("doctor", "doctor:doctor", "Check configuration, database, nodes, tokens, clocks."),
    ("config", "manage:config", "Print an explained configuration file."),
    (
        "simulate",
        "simulate:simulate",
        "Run the whole system against simulated networks, people and failures.",
    ),
    ("bench", "bench:bench", "Run the benchmarks of a checkout."),
)


def build() -> App:
    """The application with its commands, each imported when it is asked for."""
    app = App(
        name="tallystick",
        help="Self-hosted, non-custodial crypto payments.",
        version=__version__,
        result_action="return_value",
    )
    for position, (name, target, text) in enumerate(_COMMANDS):
        app.command(f"tallystick.cli.{target}", name=name, help=text, sort_key=position)

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        config: Annotated[Path | None, Parameter(help="The TOML file. Default: TALLYSTICK_CONFIG.")] = None,
        debug: Annotated[bool, Parameter(negative="", help="Log more, and show tracebacks.")] = False,
    ) -> object:
        GLOBALS.set(Globals(config, debug))
        return app(tokens, exit_on_error=False, print_error=False)

    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command given by `arguments` (else the process's) and exit with its code."""
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    tokens = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in tokens
    # As in the API: no database could keep them, or every terminal that shows them would obey them.
    if any(_REFUSED.search(token) for token in tokens):
        print("tallystick: Arguments are text in UTF-8 without control characters.", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED
    try:
        result = build().meta(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        lines = " ".join(str(error).split())
        print(f"tallystick: {lines} See `tallystick --help`.", file=sys.stderr)  # noqa: T201
        return EXIT_USAGE
    except TallystickError as error:
        if debug:
            raise
        print_error(error)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        return EXIT_FAILED
    except Exception as error:  # the last edge before the user
        if debug:
            raise
        print_error(
            TallystickError(
                f"Something unexpected went wrong ({type(error).__name__}).",
                remedy="Run it again with --debug to see where, and report it please.",
            )
        )
        return EXIT_FAILED
    return result if isinstance(result, int) else 0
