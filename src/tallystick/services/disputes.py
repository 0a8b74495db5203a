"""Disputes: a claim about a payment, opened and resolved by people, with notes and evidence.

For: the API and the command line. Holds true: one dispute is open at a time; while it is, the invoice is disputed
whatever the chain shows, and afterwards it is again what the evidence says; opening and resolving are decisions, kept
with who, why and what it rests on, and told in the invoice's history.
Must not: move money. Where the customer is right, the next step is a refund.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tallystick.core.errors import Conflict, InvalidInput
from tallystick.core.invoice import DecisionKind, Status
from tallystick.core.transitions import EDGES
from tallystick.db.sql import Connection
from tallystick.services import objects
from tallystick.services.context import Actor, Context
from tallystick.services.deciding import Decider
from tallystick.services.invoices import get_invoice
from tallystick.services.locking import lock_invoices

EVIDENCE_MAX: Final = 20
REASON_LENGTH_MAX: Final = 200
TEXT_LENGTH_MAX: Final = 2000

DISPUTABLE: Final = frozenset(status for status in Status if Status.DISPUTED in EDGES[status])
"""Where there is money to have a dispute about."""


class DisputeOutcome(StrEnum):
    """How a dispute ended."""

    MERCHANT = "merchant"  # the payment stands
    CUSTOMER = "customer"  # the customer gets something back: a refund is the next step
    WITHDRAWN = "withdrawn"  # whoever claimed it takes it back


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One piece of evidence: its type in a word, and a text, or where it is to be found."""

    type: str
    text: str | None = None
    url: str | None = None


async def open_dispute(
    connection: Connection,
    ctx: Context,
    merchant_id: str,
    actor: Actor,
    invoice_id: str,
    *,
    reason: str,
    note: str,
    evidence: tuple[Exhibit, ...] = (),
) -> objects.Invoice:
    """Say that a payment is disputed. Raises NotFound, InvalidInput, Conflict where there is nothing to dispute."""
    if not 1 <= len(reason.strip()) <= len(reason) <= REASON_LENGTH_MAX:
        raise InvalidInput.at("/reason", f"must be 1 to {REASON_LENGTH_MAX} characters, and not blank")
    shown = _checked(note, evidence)
    invoice = (await lock_invoices(connection, merchant_id, [invoice_id]))[invoice_id]
    if invoice.decisions.dispute_open:
        raise Conflict("A dispute is open already.", object_id=invoice_id, remedy="Resolve it first.")
    if invoice.status not in DISPUTABLE:
        raise Conflict(
            f"The invoice is {invoice.status}: there is no payment to dispute.", object_id=invoice_id
        )
    decider = Decider(ctx, actor, note, None, ctx.now())
    said = {"type": "reason", "text": reason}
    await decider.record(connection, invoice, DecisionKind.OPEN_DISPUTE, evidence=[said, *shown])
    await decider.assess(
        connection, [invoice_id], DecisionKind.OPEN_DISPUTE, {"reason": reason}, evidence=shown
    )
    return await get_invoice(connection, ctx, merchant_id, invoice_id)


async def resolve_dispute(
    connection: Connection,
    ctx: Context,
    merchant_id: str,
    actor: Actor,
    invoice_id: str,
    *,
    outcome: DisputeOutcome,
    note: str,
    evidence: tuple[Exhibit, ...] = (),
) -> objects.Invoice:
    """Say how the dispute ended. Raises NotFound, InvalidInput, Conflict where none is open."""
    shown = _checked(note, evidence)
    invoice = (await lock_invoices(connection, merchant_id, [invoice_id]))[invoice_id]
    if not invoice.decisions.dispute_open:
        raise Conflict("No dispute is open.", object_id=invoice_id)
    decider = Decider(ctx, actor, note, None, ctx.now())
    said = {"type": "outcome", "text": outcome.value}
    await decider.record(connection, invoice, DecisionKind.RESOLVE_DISPUTE, evidence=[said, *shown])
    await decider.assess(
        connection, [invoice_id], DecisionKind.RESOLVE_DISPUTE, {"outcome": outcome.value}, evidence=shown
    )
    return await get_invoice(connection, ctx, merchant_id, invoice_id)


def _checked(note: str, evidence: tuple[Exhibit, ...]) -> list[dict[str, Any]]:
    """The evidence as it is kept. Raises InvalidInput naming the field."""
    if not 1 <= len(note.strip()) <= len(note) <= TEXT_LENGTH_MAX:
        raise InvalidInput.at("/note", f"must be 1 to {TEXT_LENGTH_MAX} characters, and not blank")
    if len(evidence) > EVIDENCE_MAX:
        raise InvalidInput.at("/evidence", f"has {len(evidence)} pieces; at most {EVIDENCE_MAX} are possible")
    for position, one in enumerate(evidence):
        if (one.text is None) == (one.url is None):
            raise InvalidInput.at(f"/evidence/{position}", "takes either a text or a url")
        if len(one.text or one.url or "") > TEXT_LENGTH_MAX:
            raise InvalidInput.at(f"/evidence/{position}", f"at most {TEXT_LENGTH_MAX} characters")
    return [
        {"type": one.type, "text": one.text} if one.text is not None else {"type": one.type, "url": one.url}
        for one in evidence
    ]
