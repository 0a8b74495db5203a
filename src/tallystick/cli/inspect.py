"""Commands that look: at an invoice with its history, a transaction with what it paid, the balances of addresses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec
from cyclopts import App

from tallystick.cli.common import JsonFlag, console, load_config, print_json, print_object
from tallystick.cli.manage import operator, transact

if TYPE_CHECKING:
    from datetime import datetime

    from tallystick.db.sql import Connection
    from tallystick.services.context import Context
    from tallystick.services.objects import ExceptionObject, Invoice, Payment, Refund, Transition

SHOWN_MAX: Final = 200

invoice: Final = App(name="invoice", help="Invoices.")


@invoice.command(name="show")
def show_invoice(invoice_id: str, *, json: JsonFlag = False) -> None:
    """Show an invoice, of whichever merchant, with its history, what needs a person, and its refunds.

    Parameters
    ----------
    invoice_id
        inv_…
    """

    async def work(connection: Connection, ctx: Context) -> tuple[Any, ...]:
        from tallystick.core.errors import NotFound
        from tallystick.db.operators import merchant_of_invoice
        from tallystick.services import exceptions, invoices, refunds

        owner = await merchant_of_invoice(connection, invoice_id)
        if owner is None:
            raise NotFound("There is no such invoice.", object_id=invoice_id)
        found = await invoices.get_invoice(connection, ctx, owner, invoice_id)
        history = await invoices.list_transitions(connection, owner, invoice_id)
        about = exceptions.ExceptionFilter(invoice_id=invoice_id)
        cases = await exceptions.list_exceptions(connection, ctx, owner, about, SHOWN_MAX, None)
        of_it = refunds.RefundFilter(invoice_id=invoice_id)
        given_back = await refunds.list_refunds(connection, ctx, owner, of_it, SHOWN_MAX, None)
        return found, history, cases.data, given_back.data

    found, history, cases, refunds = transact(work)
    if json:
        more = {"transitions": history, "exceptions": cases, "refunds": refunds}
        print_json({**msgspec.to_builtins(found), **msgspec.to_builtins(more)})
        return
    _show(found, history, cases, refunds)


class CheckedAddress(msgspec.Struct, frozen=True, kw_only=True):
    """What came of looking at one address on one network. Amounts are whole coins, as decimal numbers."""

    network: str
    address: str
    outcome: str
    balance: str
    unexplained: str
    block_height: int
    transactions_sent: int


@invoice.command(name="check")
def check_invoice(invoice_id: str, *, json: JsonFlag = False) -> None:
    """Look now whether an invoice's addresses hold native coin that no transaction explains.

    On every network whose nodes say what an address holds: those of the EVM.

    What is found becomes a payment that waits for a decision; nothing is credited by this.

    Parameters
    ----------
    invoice_id
        inv_…
    """
    from tallystick.chains.source import AccountSource
    from tallystick.core.errors import SourceError, StaleWrite, TallystickError
    from tallystick.core.money import format_units
    from tallystick.runtime import open_context, open_database, run
    from tallystick.runtime_sources import build_source
    from tallystick.services.balances import check_invoices

    settings = load_config()

    async def main(_stop: asyncio.Event) -> tuple[list[CheckedAddress], list[TallystickError]]:
        checked: list[CheckedAddress] = []
        problems: list[TallystickError] = []
        async with open_database(settings) as database:
            ctx = await open_context(settings, database)
            for name, network in settings.networks.items():
                source = build_source(network)
                if not network.network.has_accounts or not isinstance(source, AccountSource):
                    await source.close()
                    continue
                try:
                    looks = await check_invoices(ctx, {name: source}, [invoice_id], operator())
                except (SourceError, StaleWrite) as problem:
                    problems.append(problem)
                    continue
                finally:
                    await source.close()
                decimals = network.network.native.decimals
                checked += [
                    CheckedAddress(
                        network=look.network,
                        address=look.address,
                        outcome=look.finding.outcome.value,
                        balance=format_units(look.state.balance, decimals),
                        unexplained=format_units(look.finding.amount, decimals),
                        block_height=look.block.height,
                        transactions_sent=look.state.nonce,
                    )
                    for look in looks
                ]
        return checked, problems

    checked, problems = run(main)
    print_object(checked, as_json=json)
    if problems:
        raise problems[0]


def trace(tx_hash: str, *, json: JsonFlag = False) -> None:
    """Show what a transaction paid or gave back: invoice, order, payment or refund, ledger entries.

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
    out = console()
    for transfer in found.transfers:
        out.print(f"{transfer.invoice_id}  order {transfer.order_id or '-'}", style="bold", markup=False)
        out.print(
            _payment(transfer.payment) if transfer.payment else f"refund {transfer.refund_id}", markup=False
        )
        for entry in transfer.ledger_entries:
            lines = ", ".join(f"{one.account} {one.amount} {one.asset}" for one in entry.postings)
            out.print(f"  {entry.kind} {entry.id}: {lines}", markup=False)


def _show(
    found: Invoice, history: list[Transition], cases: list[ExceptionObject], refunds: list[Refund]
) -> None:
    """Lines rather than tables: hashes and addresses stay whole, to be copied, however narrow the terminal is."""
    out = console()
    out.print(f"{found.id}  {found.status}  {found.amount} {found.currency}", style="bold", markup=False)
    lines = [
        f"order {found.order_id or '-'}, {found.amount_paid} {found.currency} paid, expires {_time(found.expires_at)}",
        *standing(found),
        found.checkout_url,
        "",
    ]
    for option in found.payment_options:
        required = option.confirmations_required or option.finality
        lines += [
            f"option {option.id}, {option.status}: {option.amount_expected} {option.asset} on {option.network}",
            f"  received {option.amount_received}, confirmations {option.confirmations} of {required}",
            *([f"  address {option.address}"] if option.address else []),
        ]
    lines += ["", *map(_payment, found.payments)] if found.payments else []
    lines += ["", *map(case_line, cases)] if cases else []
    lines += ["", *map(_refund, refunds)] if refunds else []
    out.print("\n".join(lines), markup=False)
    out.print()
    for step in history:
        out.print(
            f"{step.sequence:>3}  {_time(step.at)}  {step.to}  ({step.reason}, {step.actor.type})",
            markup=False,
        )


def standing(found: Invoice) -> list[str]:
    """How an invoice stands, for people: what its status means, who has the next move, and what that is."""
    from tallystick.core.invoice import Status
    from tallystick.core.transitions import MEANINGS

    status = Status(found.status)
    late = f" (late payments: {found.late_payment})" if status is Status.LATE_PAID else ""
    return [
        f"means: {MEANINGS[status].means}{late}",
        f"owner: {found.next_action.owner}",
        f"next:  {found.next_action.text}",
    ]


def case_line(case: ExceptionObject) -> str:
    """A case in a line or two: what is the matter, who has it, and what to do or what was decided."""
    what = f"exception {case.id}, {case.kind}, {case.status}: {case.meaning}"
    if case.resolution is None:
        return f"{what}\n  {case.owner}: {case.next_action.text} ({', '.join(case.actions)})"
    action = case.resolution["action"] or "closed by itself"
    return f"{what}\n  {action}: {case.resolution['note']}"


def _refund(refund: Refund) -> str:
    where = f"to {refund.address}" if refund.address is not None else "to an address still to be given"
    return (
        f"refund {refund.id}, {refund.status}: {refund.amount_sent} {refund.asset} on {refund.network} {where}\n"
        f"  {refund.next_action.owner}: {refund.next_action.text}"
    )


def _payment(payment: Payment) -> str:
    where = "in no block" if payment.block_height is None else f"in block {payment.block_height}"
    amount = f"{payment.amount} {payment.asset or payment.token_contract}"
    return (
        f"payment {payment.id}, {payment.status}: {amount} on {payment.network} {where}, "
        f"confirmations {payment.confirmations}\n  transaction {payment.tx_hash}"
    )


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z"
