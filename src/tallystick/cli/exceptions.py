"""The queue of exceptions and disputes for operators: what needs a person, and deciding about it. Of all merchants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from tallystick.cli.common import JsonFlag, console, print_json, print_object
from tallystick.cli.inspect import case_line
from tallystick.cli.manage import operator, transact

if TYPE_CHECKING:
    from tallystick.db.sql import Connection
    from tallystick.services.context import Context
    from tallystick.services.disputes import Exhibit

exception: Final = App(name="exception", help="Exceptions: what needs a person.")
dispute: Final = App(name="dispute", help="Disputes about payments.")

LISTED_MAX: Final = 1000
TYPE_LENGTH_MAX: Final = 64


@exception.command(name="list")
def list_exceptions(
    *,
    status: str = "open",
    kind: str | None = None,
    invoice: str | None = None,
    merchant: str | None = None,
    limit: Annotated[int, Parameter(help="How many at most.")] = 50,
    json: JsonFlag = False,
) -> None:
    """List exceptions, oldest first.

    Parameters
    ----------
    status
        open, resolved, or any.
    kind
        Only this kind, such as underpaid or late.
    invoice
        Only about this invoice.
    merchant
        Only of this merchant.
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.core.cases import CaseKind, CaseStatus
        from tallystick.core.errors import InvalidInput
        from tallystick.db.operators import exception_ids
        from tallystick.services import exceptions

        if status not in (*CaseStatus, "any"):
            raise InvalidInput.at("/status", f"must be {', '.join(CaseStatus)} or any")
        if kind is not None and kind not in tuple(CaseKind):
            raise InvalidInput.at("/kind", f"must be one of {', '.join(CaseKind)}")
        if not 1 <= limit <= LISTED_MAX:
            raise InvalidInput.at("/limit", f"must be 1 to {LISTED_MAX}")
        ids = await exception_ids(
            connection,
            merchant_id=merchant,
            status=None if status == "any" else status,
            kind=kind,
            invoice_id=invoice,
            row_count=limit,
        )
        return await exceptions.show_exceptions(connection, ctx, ids)

    found = transact(work)
    if json:
        print_json({"data": found})
        return
    out = console()
    for case in found:
        out.print(
            f"{case_line(case)}\n  {_age(case.age_seconds)}, invoice {case.invoice_id or '-'}", markup=False
        )
    if not found:
        out.print("Nothing needs a person.", markup=False)


@exception.command(name="show")
def show_exception(exception_id: str, *, json: JsonFlag = False) -> None:
    """Show an exception.

    Parameters
    ----------
    exception_id
        exc_…
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.services import exceptions

        owner = await _merchant(connection, exception_id)
        return await exceptions.get_exception(connection, ctx, owner, exception_id)

    print_object(transact(work), as_json=json)


@exception.command(name="resolve")
def resolve_exception(
    exception_id: str,
    action: str,
    *,
    note: str,
    value: str | None = None,
    invoice: str | None = None,
    option: str | None = None,
    amount: str | None = None,
    address: str | None = None,
    json: JsonFlag = False,
) -> None:
    """Decide about an exception, and close it. The exception says which actions it has.

    Parameters
    ----------
    exception_id
        exc_…
    action
        accept, credit, refund, attach, write_off or ignore.
    note
        Why; kept with the decision.
    value
        For credit, and for attach where the other invoice did not ask for this: in the currency of the invoice.
    invoice
        For attach: the other invoice.
    option
        For attach and refund: which of the invoice's payment options.
    amount
        For refund: how much of the asset. Left out: all that the exception is about.
    address
        For refund: where to, if the customer has confirmed it to you. Left out: they give it on a claim page.
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.core.cases import Resolution
        from tallystick.core.errors import InvalidInput
        from tallystick.services import exceptions

        if action not in tuple(Resolution):
            raise InvalidInput.at("/action", f"must be one of {', '.join(Resolution)}")
        refunding = action == Resolution.REFUND
        wish = exceptions.RefundWish(
            payment_option_id=option if refunding else None, amount=amount, address=address
        )
        asked = exceptions.Resolve(
            action=Resolution(action),
            note=note,
            refund=wish,
            value=value,
            invoice_id=invoice,
            payment_option_id=None if refunding else option,
        )
        owner = await _merchant(connection, exception_id)
        return await exceptions.resolve(connection, ctx, owner, operator(), exception_id, asked)

    print_object(transact(work), as_json=json)


@exception.command(name="assign")
def assign_exception(
    exception_id: str, owner: str, *, note: str | None = None, json: JsonFlag = False
) -> None:
    """Give an open exception to a person or a team.

    Parameters
    ----------
    exception_id
        exc_…
    owner
        Who has it from now on.
    note
        Why.
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.services import exceptions

        merchant_id = await _merchant(connection, exception_id)
        return await exceptions.assign(connection, ctx, merchant_id, operator(), exception_id, owner, note)

    print_object(transact(work), as_json=json)


@dispute.command(name="open")
def open_dispute(
    invoice_id: str,
    *,
    reason: str,
    note: str,
    evidence: Annotated[list[str] | None, Parameter(negative="")] = None,
    json: JsonFlag = False,
) -> None:
    """Say that an invoice's payment is disputed.

    Parameters
    ----------
    invoice_id
        inv_…
    reason
        What is claimed, in a few words.
    note
        What you know about it; kept with the history.
    evidence
        What it rests on, such as "message: Where is it?" or "photo: https://…". May be given several times.
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.services import disputes

        owner = await _owner_of(connection, invoice_id)
        return await disputes.open_dispute(
            connection,
            ctx,
            owner,
            operator(),
            invoice_id,
            reason=reason,
            note=note,
            evidence=_exhibits(evidence or []),
        )

    print_object(transact(work), as_json=json)


@dispute.command(name="resolve")
def resolve_dispute(
    invoice_id: str,
    outcome: str,
    *,
    note: str,
    evidence: Annotated[list[str] | None, Parameter(negative="")] = None,
    json: JsonFlag = False,
) -> None:
    """Say how a dispute ended. No money moves: where the customer is right, ask for a refund.

    Parameters
    ----------
    invoice_id
        inv_…
    outcome
        merchant, customer or withdrawn.
    note
        How it was settled; kept with the history.
    evidence
        As for opening.
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.core.errors import InvalidInput
        from tallystick.services import disputes

        if outcome not in tuple(disputes.DisputeOutcome):
            raise InvalidInput.at("/outcome", f"must be one of {', '.join(disputes.DisputeOutcome)}")
        owner = await _owner_of(connection, invoice_id)
        return await disputes.resolve_dispute(
            connection,
            ctx,
            owner,
            operator(),
            invoice_id,
            outcome=disputes.DisputeOutcome(outcome),
            note=note,
            evidence=_exhibits(evidence or []),
        )

    print_object(transact(work), as_json=json)


def _exhibits(evidence: list[str]) -> tuple[Exhibit, ...]:
    """`type: text` or `type: https://…` each."""
    from tallystick.core.errors import InvalidInput
    from tallystick.core.urls import check_return_url
    from tallystick.services.disputes import Exhibit

    found = []
    for position, one in enumerate(evidence):
        kind, colon, rest = (part.strip() for part in one.partition(":"))
        pointer = f"/evidence/{position}"
        if not (colon and rest and 1 <= len(kind) <= TYPE_LENGTH_MAX):
            raise InvalidInput.at(pointer, 'must be written as "type: text"')
        if rest.startswith(("http://", "https://")):
            check_return_url(rest, pointer=pointer)
            found.append(Exhibit(kind, url=rest))
        else:
            found.append(Exhibit(kind, text=rest))
    return tuple(found)


async def _owner_of(connection: Connection, invoice_id: str) -> str:
    from tallystick.core.errors import NotFound
    from tallystick.db.operators import merchant_of_invoice

    owner = await merchant_of_invoice(connection, invoice_id)
    if owner is None:
        raise NotFound("There is no such invoice.", object_id=invoice_id)
    return owner


async def _merchant(connection: Connection, exception_id: str) -> str:
    from tallystick.core.errors import NotFound
    from tallystick.db.operators import merchant_of_exception

    owner = await merchant_of_exception(connection, exception_id)
    if owner is None:
        raise NotFound("There is no such exception.", object_id=exception_id)
    return owner


def _age(seconds: Any) -> str:
    """For how long, in the largest unit that fits."""
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"for {seconds // size} {unit}"
    return f"for {seconds} seconds"
