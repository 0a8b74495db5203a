"""Checks of balances as stored: which addresses are due, what is known of each, what was found.

Holds true: an address is looked at on a network by one worker at a time, for as long as its lease; what was found is a
transfer like any other, and no row of it is ever changed. Must not: decide what a balance means (`core.balance` does).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tallystick.core.balance import AccountState, Baseline
from tallystick.core.chain import BlockHeader
from tallystick.db.sql import Connection, Record, load

SQL: Final = load("balances")


@dataclass(frozen=True, slots=True)
class Subject:
    """An issued address on one network, and what is known of it there up to a height. Amounts are base units."""

    address: str
    family: str
    merchant_id: str
    invoice_id: str
    option_id: str
    started_at: datetime | None
    baseline: Baseline | None
    received: int
    received_since: int


@dataclass(frozen=True, slots=True)
class Found:
    """What was found at an address before. `stands`: a block that shows it is in the best chain."""

    transfer_id: str
    address: str
    invoice_id: str
    tx_hash: str
    amount: int
    stands: bool


async def schedule_checks(
    connection: Connection, invoice_ids: Sequence[str], networks: Iterable[str], at: datetime
) -> None:
    """Look at the addresses of these invoices, whose windows have ended, on these networks; again later.

    Does nothing the second time.
    """
    if invoice_ids:
        await SQL.schedule_checks.run(
            connection, invoice_ids=list(invoice_ids), networks=list(networks), at=at
        )


async def claim_due(
    connection: Connection, network: str, now: datetime, lease_until: datetime, *, count_max: int
) -> list[str]:
    """Up to `count_max` addresses that are due on a network, lent until `lease_until`."""
    rows = await SQL.claim_due.all(
        connection, network=network, now=now, lease_until=lease_until, row_count=count_max
    )
    return [row["address"] for row in rows]


async def read_subjects(
    connection: Connection, network: str, family: str, height: int, addresses: Sequence[str]
) -> dict[str, Subject]:
    """What is known of these addresses on a network up to `height`, by address."""
    rows = await SQL.read_subjects.all(
        connection, network=network, family=family, height=height, addresses=list(addresses)
    )
    return {row["address"]: _subject(row) for row in rows}


def _subject(row: Record) -> Subject:
    baseline = None
    if row["height"] is not None and row["balance"] is not None:
        baseline = Baseline(AccountState(int(row["balance"]), row["nonce"]), row["height"])
    return Subject(
        address=row["address"],
        family=row["family"],
        merchant_id=row["merchant_id"],
        invoice_id=row["invoice_id"],
        option_id=row["option_id"],
        started_at=row["started_at"],
        baseline=baseline,
        received=int(row["received"]),
        received_since=int(row["received_since"]),
    )


async def read_findings(connection: Connection, network: str, addresses: Sequence[str]) -> list[Found]:
    """What was found at these addresses of a network before, oldest first."""
    rows = await SQL.findings_of.all(connection, network=network, addresses=list(addresses))
    return [
        Found(
            row["id"], row["recipient"], row["invoice_id"], row["tx_hash"], int(row["amount"]), row["stands"]
        )
        for row in rows
    ]


async def read_pinned(connection: Connection, network: str, block_hash: str) -> BlockHeader | None:
    """A block of our best chain (its parent left empty), or None if it is not, or not any more."""
    row = await SQL.pinned_block.one(connection, network=network, hash=block_hash)
    return None if row is None else BlockHeader(row["hash"], "", row["height"], row["time"])
