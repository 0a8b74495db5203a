"""The merchant's books: accounts with their balances, entries with their postings."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.params import FromQuery

from tallystick.api.request import ApiRequest, choice_of, cursor_of
from tallystick.api.resources.common import READ_REPORTS, Cursor, Limit, one_of, whole
from tallystick.core.ids import IdKind
from tallystick.core.ledger import Account
from tallystick.services import ledger
from tallystick.services.ledger import EntryFilter
from tallystick.services.paging import LIMIT_DEFAULT, Page


@get("/ledger/accounts", opt=READ_REPORTS, tags=["Ledger"], operation_id="list_ledger_accounts")
async def list_ledger_accounts(
    request: ApiRequest, asset: FromQuery[str | None] = None, network: FromQuery[str | None] = None
) -> Page[ledger.LedgerAccount]:
    """Every account in every asset and currency: the sum of its postings, debits positive."""
    async with request.ctx.database.snapshot() as connection:
        return whole(
            await ledger.list_accounts(connection, request.merchant_id, asset=asset, network=network)
        )


@get("/ledger/entries", opt=READ_REPORTS, tags=["Ledger"], operation_id="list_ledger_entries")
async def list_ledger_entries(
    request: ApiRequest,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    invoice_id: FromQuery[str | None] = None,
    payment_id: FromQuery[str | None] = None,
    refund_id: FromQuery[str | None] = None,
    account: Annotated[str | None, one_of(Account)] = None,
) -> Page[ledger.LedgerEntry]:
    """Entries with their postings, newest first. What is no longer so is taken back by an entry that names it."""
    wanted = EntryFilter(invoice_id, payment_id, refund_id, choice_of("account", Account, account))
    below = cursor_of(IdKind.LEDGER_ENTRY, cursor)
    async with request.ctx.database.snapshot() as connection:
        return await ledger.list_entries(connection, request.merchant_id, wanted, limit, below)


HANDLERS = (list_ledger_accounts, list_ledger_entries)
