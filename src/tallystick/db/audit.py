"""The rules that can be said in SQL, and what else an audit reads.

For: `services.auditing`. Holds true: a rule is a statement of `queries/audit_*.sql` whose rows are what breaks it,
apart from the code that writes; all rules of one kind run as one statement, composed once from their files, so that
they cost one round trip and see one moment.
Must not: change anything, or know what follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tallystick.db.sql import Connection, Record, Statement, load, union

SQL: Final = load("audit")
_OF_INVOICES: Final = {**load("audit_invoices").items(), **load("audit_ledger").items()}
_OF_ALL: Final = load("audit_whole").items()

DEEP: Final = frozenset(
    {
        "account_onchain",
        "account_sum",
        "chain_height",
        "chain_parent",
        "event_other",
        "index_spent",
        "log_gap",
        "orphan",
    }
)
"""Rules about the whole that read whole tables. The others follow an index, or what is open."""

GUARDS: Final = (
    "refunds_within_credit",
    "ledger_entries_balance",
    "postings_once",
    "ledger_entries_only_grow",
    "postings_only_grow",
    "transitions_logged",
    "transitions_only_grow",
    "transition_log_only_grows",
    "merchants_get_logs",
)
"""Triggers and constraints that refuse what no code of ours does."""


@dataclass(frozen=True, slots=True)
class Broken:
    """One row that breaks a rule. `rule` is the rule's id."""

    rule: str
    object_id: str
    detail: str


def rule_id(name: str) -> str:
    """The id of the rule that a statement is."""
    return name.replace("_", "-")


OF_INVOICES: Final = {rule_id(name): one.about for name, one in _OF_INVOICES.items()}
OF_ALL: Final = {rule_id(name): one.about for name, one in _OF_ALL.items()}

_INVOICES: Final = union("audit_invoices", _OF_INVOICES.values())
_ALL: Final = union("audit_whole", _OF_ALL.values())
_SHALLOW: Final = union("audit_shallow", [one for name, one in _OF_ALL.items() if name not in DEEP])


async def broken_by_invoices(connection: Connection, ids: Sequence[str], **given: Any) -> list[Broken]:
    """What breaks a rule about these invoices. `given` are the other parameters of the rules.

    Quick inside a transaction only, where the statement need not be planned anew each time.
    """
    if connection.is_in_transaction():
        await SQL.plan_once.value(connection)
    return await _broken(connection, _INVOICES, {"ids": list(ids), **given})


async def broken_by_all(connection: Connection, *, deep: bool, **given: Any) -> list[Broken]:
    """What breaks a rule about the whole; without `deep` only rules that follow an index."""
    return await _broken(connection, _ALL if deep else _SHALLOW, given)


async def _broken(connection: Connection, statement: Statement, given: Mapping[str, Any]) -> list[Broken]:
    rows = await statement.all(connection, **given)
    return [Broken(rule_id(row["name"]), row["object_id"], row["detail"]) for row in rows]


async def wakeups_of(connection: Connection, ids: Sequence[str]) -> dict[str, set[tuple[str, str, int]]]:
    """What each of these invoices waits for: network, marker, position."""
    found: dict[str, set[tuple[str, str, int]]] = {one: set() for one in ids}
    for row in await SQL.wakeups_of.all(connection, ids=list(ids)):
        found.setdefault(row["invoice_id"], set()).add((row["network"], row["marker"], row["position"]))
    return found


async def exceptions_of(connection: Connection, ids: Sequence[str]) -> dict[str, list[Record]]:
    """Every exception about each of these invoices."""
    found: dict[str, list[Record]] = {one: [] for one in ids}
    for row in await SQL.exceptions_of.all(connection, ids=list(ids)):
        found[row["invoice_id"]].append(row)
    return found


async def ids_after(connection: Connection, after: str, row_count: int) -> list[str]:
    """The next invoices by id; "" begins."""
    return [row["id"] for row in await SQL.ids_after.all(connection, after=after, row_count=row_count)]


async def touched(connection: Connection, marker: int | None) -> tuple[int, list[str]]:
    """The marker of now, and the invoices written since the one given; all of them without one."""
    if marker is None:
        now = await SQL.marker.value(connection)
        return now, [row["id"] for row in await SQL.all_ids.all(connection)]
    rows = await SQL.touched.all(connection, marker=marker)
    return rows[0]["marker"], [row["id"] for row in rows if row["id"] is not None]
