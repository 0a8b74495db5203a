"""Refunds for operators: look at them, approve, reject, make a new claim link. Of every merchant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from tallystick.cli.common import JsonFlag, console, print_json, print_object
from tallystick.cli.manage import operator, transact

if TYPE_CHECKING:
    from tallystick.db.sql import Connection
    from tallystick.services.context import Context
    from tallystick.services.objects import Refund

refund: Final = App(name="refund", help="Refunds: see them, approve or reject them.")

LISTED_MAX: Final = 1000

NoteOption = Annotated[str, Parameter(help="Why; kept with the decision.")]


@refund.command(name="list")
def list_refunds(
    *,
    status: str | None = None,
    merchant: str | None = None,
    limit: Annotated[int, Parameter(help="How many at most.")] = 50,
    json: JsonFlag = False,
) -> None:
    """List refunds, newest first.

    Parameters
    ----------
    status
        Only in this status, such as requested or needs_attention.
    merchant
        Only of this merchant.
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.core.errors import InvalidInput
        from tallystick.core.refund import RefundStatus
        from tallystick.services import refunds

        if status is not None and status not in tuple(RefundStatus):
            raise InvalidInput.at("/status", f"must be one of {', '.join(RefundStatus)}")
        if not 1 <= limit <= LISTED_MAX:
            raise InvalidInput.at("/limit", f"must be 1 to {LISTED_MAX}")
        return await refunds.all_refunds(connection, ctx, merchant, status, limit)

    found = transact(work)
    if json:
        print_json({"data": found})
        return
    out = console()
    for one in found:
        out.print(_line(one), markup=False)
    if not found:
        out.print("There are no such refunds.", markup=False)


@refund.command(name="show")
def show_refund(refund_id: str, *, json: JsonFlag = False) -> None:
    """Show a refund, of whichever merchant, with its history.

    Parameters
    ----------
    refund_id
        rfd_…
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.services import refunds

        found = await refunds.get_refund(connection, ctx, None, refund_id)
        return found, await refunds.history_of(connection, refund_id)

    found, history = transact(work)
    print_object({**msgspec.to_builtins(found), "transitions": msgspec.to_builtins(history)}, as_json=json)


@refund.command(name="approve")
def approve_refund(refund_id: str, *, note: NoteOption = "", json: JsonFlag = False) -> None:
    """Let a refund be paid; one that needed attention: let it go on. It is signed in the merchant's wallet.

    Parameters
    ----------
    refund_id
        rfd_…
    """
    _decide("approve_refund", refund_id, note, as_json=json)


@refund.command(name="reject")
def reject_refund(refund_id: str, *, note: NoteOption = "", json: JsonFlag = False) -> None:
    """Refuse a refund, or give up one that waits to be sent or needs attention.

    Parameters
    ----------
    refund_id
        rfd_…
    """
    _decide("reject_refund", refund_id, note, as_json=json)


@refund.command(name="claim-link")
def claim_link(refund_id: str, *, json: JsonFlag = False) -> None:
    """Make a new link on which the customer gives the address. It is shown this once; the one before stops working.

    Parameters
    ----------
    refund_id
        rfd_…
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.services import refund_decisions

        made = await refund_decisions.new_claim_link(connection, ctx, None, operator(), refund_id)
        return {"id": made.id, "claim_url": made.claim_url, "claim_expires_at": made.claim_expires_at}

    print_object(transact(work), as_json=json)


def _decide(decision: str, refund_id: str, note: str, *, as_json: bool) -> None:
    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.services import refund_decisions

        use_case = getattr(refund_decisions, decision)
        return await use_case(connection, ctx, None, operator(), refund_id, note)

    decided = transact(work)
    if as_json:
        print_json(decided)
        return
    console().print(_line(decided), markup=False)


def _line(one: Refund) -> str:
    trouble = f"\n  {one.problem}" if one.problem else ""
    where = one.address or "no address yet"
    return (
        f"{one.id}  {one.status}  {one.amount} {one.asset} on {one.network}, invoice {one.invoice_id}\n"
        f"  to {where}; next: {one.next_action.owner}: {one.next_action.text}{trouble}{_to_sign(one)}"
    )


def _to_sign(one: Refund) -> str:
    """What a wallet opens or signs, where there is something to sign."""
    request = one.payment_request
    if request is None:
        return ""
    lines = [request.uri]
    if request.psbt is not None:
        lines.append(f"PSBT, which pays a fee of {request.psbt_fee} {one.asset}:\n  {request.psbt}")
    elif request.psbt_problem is not None:
        lines.append(f"No PSBT: {request.psbt_problem}")
    return "".join(f"\n  {line}" for line in lines)
