"""Recording what a person decided, as facts: decisions about an invoice's transfers, and attaching them to another.

For: `services.exceptions` and `services.disputes`. Holds true: who, why and what it rests on are recorded with each
decision, and with the transitions that follow from it; a transfer counts to one invoice at a time, and both invoices
say where it went or came from.
Must not: lock (the caller holds the invoices), or write a status (`services.assessing` does).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tallystick.core.errors import Conflict, InvalidInput
from tallystick.core.invoice import DecisionKind, Match, Status, match_transfer
from tallystick.core.money import Asset
from tallystick.core.refund import RefundStatus
from tallystick.db import decisions as store
from tallystick.db.invoices import StoredInvoice, StoredOption, StoredTransfer
from tallystick.db.sql import Connection
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.context import Actor, Context

_NOT_ATTACHABLE: Final = frozenset({Status.CREATED, Status.QUOTED, Status.CANCELED, Status.SETTLED})
"""Nobody was asked to pay these at an address, or nobody is any more, or finance has counted them already."""

_OVER: Final = frozenset({RefundStatus.REJECTED, RefundStatus.FAILED})


@dataclass(frozen=True, slots=True)
class Decider:
    """A person's decision while it is carried out: who, why, about which case (None: about none), and when."""

    ctx: Context
    actor: Actor
    note: str
    exception_id: str | None
    at: datetime

    async def record(
        self,
        connection: Connection,
        invoice: StoredInvoice,
        kind: DecisionKind,
        transfer_ids: Iterable[str] = (),
        *,
        value: int | None = None,
        evidence: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Add one decision about an invoice."""
        await store.insert_decision(
            connection,
            invoice_id=invoice.id,
            merchant_id=invoice.merchant_id,
            kind=kind,
            transfer_ids=transfer_ids,
            value=value,
            note=self.note,
            evidence=evidence,
            exception_id=self.exception_id,
            actor_type=self.actor.type,
            actor_id=self.actor.id,
            at=self.at,
        )

    async def assess(
        self,
        connection: Connection,
        ids: Sequence[str],
        word: str,
        more: Mapping[str, Any],
        evidence: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Judge these invoices anew; what follows rests on this decision. `more` is told with it."""
        said: dict[str, Any] = {"type": "decision", "kind": word, "note": self.note, **more}
        if self.exception_id is not None:
            said["exception_id"] = self.exception_id
        cause = Cause(CauseKind.DECISION, self.actor, (said, *evidence))
        await assess_invoices(connection, self.ctx, ids, cause)


async def attach(
    connection: Connection,
    decider: Decider,
    transfer_ids: frozenset[str],
    source: StoredInvoice,
    target: StoredInvoice,
    *,
    option_id: str | None,
    value: int | None,
) -> None:
    """Let transfers of one invoice count to another, in time. The caller holds both, and judges both afterwards.

    `value`, in units of the target's price, is what they count for where they do not fit an option of it. Raises
    InvalidInput at /invoice_id, /payment_option_id or /value, and Conflict where a refund speaks for them or the
    target takes no money.
    """
    moving = [transfer for transfer in source.transfers if transfer.fact.id in transfer_ids]
    if not moving:
        raise Conflict("None of these transfers is at this invoice any more.", object_id=source.id)
    _check_target(source, target)
    _check_refunds(source, moving)
    moved = [_moved(transfer, _option(target, transfer, option_id)) for transfer in moving]
    if value is None and any(one.match is not Match.MATCHED for one in moved):
        raise InvalidInput.at(
            "/value", f"is needed: {target.id} did not ask for this, so say what it counts for there"
        )
    ids = [one.transfer_id for one in moved]
    await store.move_transfers(
        connection,
        moved,
        merchant_id=source.merchant_id,
        from_invoice_id=source.id,
        to_invoice_id=target.id,
        at=decider.at,
    )
    await decider.record(connection, source, DecisionKind.SEND, ids, evidence=[_other(target)])
    await decider.record(connection, target, DecisionKind.RECEIVE, ids, evidence=[_other(source)])
    if value is not None:
        await decider.record(connection, target, DecisionKind.CREDIT, ids, value=value)


def _check_target(source: StoredInvoice, target: StoredInvoice) -> None:
    if target.id == source.id:
        raise InvalidInput.at("/invoice_id", "is the invoice that they belong to already")
    gone = target.decisions.canceled_at is not None or target.decisions.settled_at is not None
    if gone or target.status in _NOT_ATTACHABLE or not any(one.terms.active for one in target.options):
        raise Conflict(
            f"The invoice is {target.status}: nothing can be attached to it.",
            object_id=target.id,
            remedy="Name one that asked for payment at an address, and is neither canceled nor settled.",
        )


def _check_refunds(source: StoredInvoice, moving: Sequence[StoredTransfer]) -> None:
    """What is being given back, or was, stays where the refund can find it."""
    assets = {_identity(transfer.fact.asset) for transfer in moving}
    for refund in source.refunds:
        if refund.status not in _OVER and _identity(refund.asset) in assets:
            raise Conflict(
                "A refund of this invoice speaks for what came in this asset.",
                object_id=refund.id,
                remedy="Reject it first, or leave the transfers where they are.",
            )


def _option(target: StoredInvoice, transfer: StoredTransfer, option_id: str | None) -> StoredOption:
    """Which option of the target a transfer counts to: the one named, the one that asked for it, or any."""
    if option_id is not None:
        for option in target.options:
            if option.terms.id == option_id:
                return option
        raise InvalidInput.at("/payment_option_id", f"is no option of {target.id}")
    wanted = _identity(transfer.fact.asset)
    fitting = [one for one in target.options if _identity(one.terms.asset) == wanted]
    issued = [one for one in target.options if one.terms.active]
    return next((one for one in fitting if one.terms.active), None) or (fitting or issued)[0]


def _identity(asset: Asset | None) -> tuple[str, str] | None:
    return None if asset is None else (asset.network, asset.key)


def _moved(transfer: StoredTransfer, option: StoredOption) -> store.Moved:
    fact = transfer.fact
    return store.Moved(fact.id, option.terms.id, match_transfer(option.terms, fact.key, fact.asset))


def _other(invoice: StoredInvoice) -> dict[str, Any]:
    return {"type": "invoice", "invoice_id": invoice.id, "order_id": invoice.order_id}
