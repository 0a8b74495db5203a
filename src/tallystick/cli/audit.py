"""`tallystick audit`: whether all that is stored is what its facts, its log and the chain say. It reads only.

Holds true: it may run beside the server; exit code 1 when anything is wrong. Must not: hold rules; the services do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from tallystick.cli.common import JsonFlag, console, load_config, print_json
from tallystick.core.errors import DatabaseError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from tallystick.config import Config
    from tallystick.db.pool import Database
    from tallystick.services.audit_chain import Compared
    from tallystick.services.audit_database import Report
    from tallystick.services.context import Context

Blocks = str | int | tuple[int, int]
UNREAD_SHOWN_MAX: Final = 5


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the log of a merchant ended."""

    length: int
    hash: str


def audit(
    *,
    rpc: Annotated[
        str | None,
        Parameter(help="Compare blocks with this node, preferably one that the server does not use."),
    ] = None,
    network: Annotated[
        str | None, Parameter(help="The network of that node. Not needed where one is configured.")
    ] = None,
    blocks: Annotated[
        str,
        Parameter(
            help="Which blocks: ours (what holds our transfers, the newest and a sample), all, the newest N, FROM-TO."
        ),
    ] = "ours",
    heads: Annotated[
        Path | None,
        Parameter(
            help="A file kept elsewhere: compare the logs with the ends noted in it, then note the new ones."
        ),
    ] = None,
    patience: Annotated[
        float, Parameter(help="Seconds that what is due may wait.", validator=Number(gte=0))
    ] = 300.0,
    json: JsonFlag = False,
) -> int:
    """Check the whole database: replay facts to states, ledger, the log's hashes, events, cursors, what is overdue.

    It reads only, in batches, and may run beside the server. Exit code 1 when something is wrong.
    """
    from tallystick.runtime import open_context, open_database, run
    from tallystick.services.audit_database import Report as Found
    from tallystick.services.audit_database import audit as look

    wanted = _blocks(blocks)
    settings = load_config()
    noted = _read_notes(heads)

    async def main(_stop: asyncio.Event) -> tuple[Found, Compared | None]:
        async with open_database(settings, migrate=False) as database:
            await _expect_schema(database)
            ctx = await open_context(settings, database)
            with _bar("invoices", shown=not json) as on_progress:
                report = await look(
                    ctx, on_progress=on_progress, patience=timedelta(seconds=patience), noted=noted
                )
            if rpc is None:
                return report, None
            with _bar("blocks", shown=not json) as on_progress:
                return report, await _compare(ctx, settings, rpc, network, wanted, on_progress)

    report, compared = run(main)
    problems = [*report.problems, *(compared.problems if compared else ())]
    checked = report.checked | (compared.checked if compared else {})
    checked["problems"] = report.checked["problems"] + (len(compared.problems) if compared else 0)
    if heads is not None and report.logs_in_order:
        notes = {merchant_id: _Note(length, told) for merchant_id, (length, told) in report.ends.items()}
        # Beside it first: broken off in the middle, what was noted before is still there.
        new = heads.with_name(f"{heads.name}.new")
        new.write_bytes(msgspec.json.format(msgspec.json.encode(notes), indent=2) + b"\n")
        new.replace(heads)
    if json:
        print_json({"ok": not problems, "checked": checked, "problems": problems})
    else:
        _show(report, compared, checked, problems)
    return 1 if problems else 0


async def _expect_schema(database: Database) -> None:
    """Whoever only looks does not migrate. Raises DatabaseError where the schema is not this version's."""
    from tallystick.db.operators import database_state
    from tallystick.db.revision import newest_revision

    async with database.connection() as connection:
        found = (await database_state(connection)).revision
    if found != newest_revision():
        raise DatabaseError(
            f"The database has schema {found or 'none'}, this version knows {newest_revision()}.",
            remedy="Use the version that runs on it, or `tallystick migrate`.",
        )


def _blocks(text: str) -> Blocks:
    """What `--blocks` says. Raises InvalidInput."""
    if text in ("ours", "all"):
        return text
    first, dash, last = text.partition("-")
    if first.isascii() and first.isdigit() and not dash:
        return int(first)
    if dash and all(part.isascii() and part.isdigit() for part in (first, last)) and int(first) <= int(last):
        return int(first), int(last)
    raise InvalidInput.at("/blocks", 'must be "ours", "all", a number of blocks, or FROM-TO')


def _read_notes(file: Path | None) -> dict[str, tuple[int, str]]:
    """The ends of the logs that an earlier audit noted; none before the first. Raises InvalidInput."""
    if file is None or not file.exists():
        return {}
    try:
        notes = msgspec.json.decode(file.read_bytes(), type=dict[str, _Note])
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidInput.at("/heads", f"{file} cannot be read: {error}") from None
    return {merchant_id: (note.length, note.hash) for merchant_id, note in notes.items()}


async def _compare(
    ctx: Context,
    settings: Config,
    rpc: str,
    name: str | None,
    wanted: Blocks,
    on_progress: Callable[[int, int], None],
) -> Compared:
    """Compare with the given node in the place of the configured ones."""
    from tallystick.runtime import network_of
    from tallystick.runtime_sources import build_source
    from tallystick.services.audit_chain import compare, heights_to_compare

    if name is None:
        if len(settings.networks) != 1:
            raise InvalidInput.at("/network", "is needed: say of which network the node is")
        name = next(iter(settings.networks))
    configured = network_of(settings, name)
    source = build_source(replace(configured, rpc=(rpc,)))
    try:
        heights, _ = await heights_to_compare(ctx, name, wanted)
        return await compare(ctx, configured.network, source, heights, on_progress=on_progress)
    finally:
        await source.close()


@contextmanager
def _bar(what: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal's standard error; nothing anywhere else."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    errors = Console(stderr=True)
    if not shown or not errors.is_terminal:
        yield lambda _done, _of: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _show(report: Report, compared: Compared | None, checked: dict[str, int], problems: list[Any]) -> None:
    out = console()
    out.print("Checked:", style="bold")
    for name, figure in checked.items():
        if name != "problems":
            out.print(f"  {name.replace('_', ' ')}: {figure:,}", markup=False)
    for one in (compared.unread if compared else [])[:UNREAD_SHOWN_MAX]:
        out.print(f"  not read: {one}", markup=False)
    for merchant_id, (length, told) in sorted(report.ends.items()):
        out.print(f"  log of {merchant_id}: {length:,} rows, ends with {told}", markup=False)
    for problem in problems:
        out.print(f"{problem.rule}: {problem.object_id}: {problem.detail}", markup=False)
    if len(problems) < checked["problems"]:
        out.print(f"… and {checked['problems'] - len(problems):,} more.", markup=False)
    out.print("Something is wrong." if problems else "Everything is in order.", style="bold")
