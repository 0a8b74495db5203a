"""Commands that only look: an invoice with its history, a transaction with what it paid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from cyclopts import App

from tallystick.cli.common import JsonFlag, console, print_json
from tallystick.cli.manage import transact

if TYPE_CHECKING:
    from rich.table import Table

    from tallystick.db.sql import Connection
    from tallystick.services.context import Context
    from tallystick.services.objects import Invoice, Transition

invoice: Final = App(name="invoice", help="Invoices.")


@invoice.command(name="show")
def show_invoice(invoice_id: str, *, json: JsonFlag = False) -> None:
    """Show an invoice, of whichever merchant, with its history.

    Parameters
    ----------
    invoice_id
        inv_…
    """

    async def work(connection: Connection, ctx: Context) -> tuple[Any, Any]:
        from tallystick.core.errors import NotFound
        from tallystick.db.operators import merchant_of_invoice
        from tallystick.services import invoices

        merchant_id = await merchant_of_invoice(connection, invoice_id)
        if merchant_id is None:
            raise NotFound("There is no such invoice.", object_id=invoice_id)
        found = await invoices.get_invoice(connection, ctx, merchant_id, invoice_id)
        return found, await invoices.list_transitions(connection, merchant_id, invoice_id)

    found, history = transact(work)
    if json:
        print_json({**msgspec.to_builtins(found), "transitions": msgspec.to_builtins(history)})
        return
    _show(found, history)


def trace(tx_hash: str, *, json: JsonFlag = False) -> None:
    """Show what a transaction paid: invoice, order, payment.

    Parameters
    ----------
    tx_hash
        The transaction's hash as its network writes it.
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.core.errors import NotFound
        from tallystick.db.operators import merchants_of_transaction
        from tallystick.services import payments

        transfers: list[Any] = []
        for merchant_id in await merchants_of_transaction(connection, tx_hash.lower()):
            traced = await payments.trace(connection, ctx, merchant_id, tx_hash)
            transfers += traced.transfers
        if not transfers:
            raise NotFound(
                "No transfer of this transaction went to an address issued here.", object_id=tx_hash
            )
        return payments.Trace(transfers=transfers)

    found = transact(work)
    if json:
        print_json(found)
        return
    table = _table("Invoice", "Order", "Amount", "Status", "Block", "Confirmations")
    for transfer in found.transfers:
        payment = transfer.payment
        table.add_row(
            transfer.invoice_id,
            transfer.order_id or "-",
            f"{payment.amount} {payment.asset or payment.token_contract}",
            payment.status,
            str(payment.block_height or "-"),
            str(payment.confirmations),
        )
    console().print(table)


def _show(found: Invoice, history: list[Transition]) -> None:
    out = console()
    out.print(f"[bold]{found.id}[/]  {found.status}  {found.amount} {found.currency}", markup=True)
    out.print(
        f"order {found.order_id or '-'} · paid {found.amount_paid} · expires {found.expires_at}", markup=False
    )
    out.print(f"next: {found.next_action.owner}: {found.next_action.text}", markup=False)
    out.print(found.checkout_url, markup=False)
    options = _table("Option", "Network", "Asked", "Received", "Confirmations", "Status", "Address")
    for option in found.payment_options:
        required = option.confirmations_required or option.finality
        options.add_row(
            option.id,
            option.network,
            f"{option.amount_expected} {option.asset}",
            option.amount_received,
            f"{option.confirmations}/{required}",
            option.status,
            option.address or "-",
        )
    out.print(options)
    if found.payments:
        payments = _table("Payment", "Amount", "Status", "Block", "Transaction")
        for payment in found.payments:
            payments.add_row(
                payment.id,
                f"{payment.amount} {payment.asset or payment.token_contract}",
                payment.status,
                str(payment.block_height or "-"),
                payment.tx_hash,
            )
        out.print(payments)
    steps = _table("#", "At", "To", "Reason", "By")
    for step in history:
        steps.add_row(
            str(step.sequence), f"{step.at:%Y-%m-%d %H:%M:%S}", step.to, step.reason, step.actor.type
        )
    out.print(steps)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
