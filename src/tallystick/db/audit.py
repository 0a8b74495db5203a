"""The rules that can be said in SQL, and what else an audit reads.

For: `services.auditing`. Holds true: a rule is a statement of `queries/audit_*.sql` whose rows are what breaks it,
apart from the code that writes; all rules of one kind run as one statement, composed once from their files, so that
they cost one round trip and see one moment.
Must not: change anything, or know what follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
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

SECONDS_MAX: Final = 3600.0
"""How long looking at the whole of a large database may take."""

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
    rows = await statement.all_within(connection, SECONDS_MAX, **given)
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


async def figures(connection: Connection) -> dict[str, int]:
    """How many rows there are of what an audit looks at."""
    rows = await SQL.figures.all_within(connection, SECONDS_MAX)
    return dict(rows[0].items())


async def last_sign_of_life(connection: Connection) -> datetime | None:
    """When a follower last saw a node's head move; None where none ever did."""
    found: datetime | None = await SQL.last_sign_of_life.value(connection)
    return found


async def addresses_of(connection: Connection, ids: Sequence[str]) -> list[Record]:
    """The addresses issued to these invoices, each with the key and the index that give it."""
    return await SQL.addresses_of.all(connection, ids=list(ids))


async def log_ends(connection: Connection) -> dict[str, tuple[int, str]]:
    """Where the log of each merchant ends: its length, its last hash in hexadecimal."""
    rows = await SQL.heads.all(connection)
    return {row["merchant_id"]: (row["length"], row["hash"].hex()) for row in rows}


async def logged_at(connection: Connection, positions: Mapping[str, int]) -> dict[str, str]:
    """The hash (hexadecimal) of one row of the log of each merchant; those without that row are left out."""
    rows = await SQL.logged_at.all(
        connection, merchant_ids=list(positions), positions=list(positions.values())
    )
    return {row["merchant_id"]: row["hash"].hex() for row in rows if row["hash"] is not None}


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block of the best chain with what is stored about it: what it holds, what it rules out, and what it spends."""

    hash: str
    parent_hash: str
    time: datetime
    counted_time: datetime
    held: tuple[Record, ...]
    ruled_out: tuple[Record, ...]
    spent: tuple[Record, ...]


async def heights(connection: Connection, network: str, *, ours: bool) -> list[int]:
    """Heights of the best chain that are stored; with `ours` those that a transfer rests on."""
    statement = SQL.blocks_with_ours if ours else SQL.best_heights
    return [row["height"] for row in await statement.all(connection, network=network)]


async def stored_block(connection: Connection, network: str, height: int) -> StoredBlock | None:
    """What is stored of the best chain at this height; None where it is not."""
    row = await SQL.best_block.one(connection, network=network, height=height)
    if row is None:
        return None
    held = await SQL.held_by.all(connection, network=network, hash=row["hash"])
    ruled_out = await SQL.ruled_out_by.all(connection, network=network, hash=row["hash"])
    spent = await SQL.spent_by.all(connection, network=network, hash=row["hash"])
    return StoredBlock(
        row["hash"],
        row["parent_hash"],
        row["time"],
        row["counted_time"],
        tuple(held),
        tuple(ruled_out),
        tuple(spent),
    )


async def issued_before(
    connection: Connection, network: str, family: str, addresses: Sequence[str], at: datetime
) -> dict[str, Record]:
    """Which of these addresses had been issued at this time, each with what was asked for there."""
    rows = await SQL.issued_before.all(
        connection, network=network, family=family, addresses=list(addresses), at=at
    )
    return {row["address"]: row for row in rows}
