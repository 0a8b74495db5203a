"""The ledger as a merchant sees it: accounts with their balances, entries with their postings. Reads only.

For: the API, the trace of a transaction, and whoever checks the books. Holds true: amounts are decimal strings, debits
positive, as they are stored; a currency has no network; nothing is shown of another merchant.
Must not: book anything (`services.booking` does).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from tallystick.core.currencies import MINOR_UNIT_DECIMALS
from tallystick.core.ledger import ACCOUNTS, Account
from tallystick.core.money import format_units
from tallystick.db.ledger import SQL
from tallystick.db.sql import Connection, Record
from tallystick.services.paging import Page, page_of

NATIVE = "native"


class LedgerAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One account in one denomination. `balance` is the sum of its postings: debits positive, credits negative."""

    object: str = "ledger_account"
    name: str
    type: str
    asset: str
    network: str | None
    token_contract: str | None
    balance: str


class LedgerPosting(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an entry: debits positive, credits negative. A currency has no network."""

    account: str
    asset: str
    network: str | None
    token_contract: str | None
    amount: str


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A balanced entry. It is in force unless `reverses` or `reversed_by` names another."""

    id: str
    object: str = "ledger_entry"
    at: datetime
    kind: str
    invoice_id: str | None
    payment_id: str | None
    refund_id: str | None
    settlement_id: str | None
    transition: int | None
    reverses: str | None
    reversed_by: str | None
    note: str
    postings: list[LedgerPosting]


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries a list shows; None does not restrict. `account`: those with a posting to it."""

    invoice_id: str | None = None
    payment_id: str | None = None
    refund_id: str | None = None
    account: Account | None = None


async def list_accounts(
    connection: Connection, merchant_id: str, *, asset: str | None = None, network: str | None = None
) -> list[LedgerAccount]:
    """Every account of the merchant that was ever booked, by denomination and in the order of `core.ledger.Account`."""
    rows = await SQL.balances.all(connection, merchant_id=merchant_id, asset=asset, network=network)
    order = list(ACCOUNTS)
    rows.sort(
        key=lambda row: (row["network"], row["contract"], row["asset"], order.index(Account(row["account"])))
    )
    return [
        LedgerAccount(
            name=row["account"],
            type=ACCOUNTS[Account(row["account"])][0],
            asset=row["asset"],
            network=row["network"] or None,
            token_contract=_token(row),
            balance=_amount(row, row["balance"]),
        )
        for row in rows
    ]


async def list_entries(
    connection: Connection, merchant_id: str, wanted: EntryFilter, limit: int, cursor: str | None
) -> Page[LedgerEntry]:
    """A page of the merchant's entries, newest first."""
    rows = await SQL.list_entry_ids.all(
        connection,
        merchant_id=merchant_id,
        before_id=cursor,
        invoice_id=wanted.invoice_id,
        payment_id=wanted.payment_id,
        refund_id=wanted.refund_id,
        account=wanted.account,
        row_count=limit + 1,
    )
    kept, next_cursor = page_of(rows, limit, lambda row: str(row["id"]))
    return Page(data=await _read(connection, [row["id"] for row in kept]), next_cursor=next_cursor)


async def entries_of_invoices(connection: Connection, invoice_ids: Iterable[str]) -> list[LedgerEntry]:
    """Every entry about these invoices, oldest first. The caller has seen to it that they are the merchant's own."""
    rows = await SQL.ids_of_invoices.all(connection, invoice_ids=sorted(set(invoice_ids)))
    return (await _read(connection, [row["id"] for row in rows]))[::-1]


async def _read(connection: Connection, ids: Sequence[str]) -> list[LedgerEntry]:
    """Entries by id, newest first."""
    found: dict[str, LedgerEntry] = {}
    for row in await SQL.read_entries.all(connection, ids=list(ids)):
        entry = found.setdefault(row["id"], _entry(row))
        entry.postings.append(
            LedgerPosting(
                account=row["account"],
                asset=row["asset"],
                network=row["network"] or None,
                token_contract=_token(row),
                amount=_amount(row, row["amount"]),
            )
        )
    return list(found.values())


def _entry(row: Record) -> LedgerEntry:
    return LedgerEntry(
        id=row["id"],
        at=row["at"],
        kind=row["kind"],
        invoice_id=row["invoice_id"],
        payment_id=row["payment_id"],
        refund_id=row["refund_id"],
        settlement_id=row["settlement_id"],
        transition=row["sequence"],
        reverses=row["reverses"],
        reversed_by=row["reversed_by"],
        note=row["note"],
        postings=[],
    )


def _token(row: Record) -> str | None:
    return None if row["contract"] in ("", NATIVE) else str(row["contract"])


def _amount(row: Record, units: int) -> str:
    """As prices and payments are written: a currency with all its minor units, an asset without needless zeros."""
    places_min = MINOR_UNIT_DECIMALS.get(row["asset"], 0) if row["network"] == "" else 0
    return format_units(units, row["decimals"], places_min=places_min)
