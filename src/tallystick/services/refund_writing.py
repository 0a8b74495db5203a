"""The one writer of refunds: every change of a refund, its history, its event, and how it is shown.

For: the services that decide about refunds (`refunds`, `refund_decisions`, `refund_claims`, `refund_verdicts`). Holds
true: a status changes along `core.refund.EDGES` only, with the status and event number it expects; each change has one
line of history and one event of the same number. The caller holds the lock of the refund's invoice.
Must not: decide a status, or open a transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import msgspec

from tallystick.chains.families import FAMILIES
from tallystick.core.cases import CaseKind
from tallystick.core.chain import Finality
from tallystick.core.errors import IllegalTransition
from tallystick.core.money import format_units
from tallystick.core.refund import EDGES, SIGN_WITHIN, RefundStatus
from tallystick.core.transitions import Meaning, Owner
from tallystick.db import refunds as store
from tallystick.db.invoices import StoredInvoice
from tallystick.db.refunds import StoredRefund
from tallystick.db.sql import Connection
from tallystick.services import objects
from tallystick.services.cases import close_case, open_cases
from tallystick.services.context import SYSTEM, Actor, Context
from tallystick.services.events import INVOICES_CHANNEL, NewEvent, notify, publish
from tallystick.services.refund_psbts import DEAD, psbt_changes, release_inputs

_R = RefundStatus

GUIDES: Final[dict[RefundStatus, Meaning]] = {
    _R.REQUESTED: Meaning("asked for", Owner.FINANCE, "approve", "Approve it, or reject it."),
    _R.APPROVED: Meaning(
        "may be paid, has no address yet",
        Owner.CUSTOMER,
        "give_address",
        "Let the customer give an address on the claim page.",
    ),
    _R.AWAITING_SIGNATURE: Meaning(
        "may be paid, has its address and a payment request",
        Owner.FINANCE,
        "sign",
        "Sign the payment request in your wallet and send it; then tell the transaction's hash.",
    ),
    _R.BROADCAST: Meaning(
        "said to be sent, or seen and not in the best chain now",
        Owner.NETWORK,
        "wait",
        "Wait for the network to include it.",
    ),
    _R.CONFIRMING: Meaning("in a block", Owner.NETWORK, "wait", "Wait for the confirmations."),
    _R.COMPLETED: Meaning("in a block with its confirmations", Owner.NONE, "none", "Nothing to do."),
    _R.REJECTED: Meaning("refused by a person", Owner.NONE, "none", "Nothing to do."),
    _R.FAILED: Meaning("given up by a person", Owner.NONE, "none", "Nothing to do."),
    _R.NEEDS_ATTENTION: Meaning(
        "something is wrong; nothing is sent",
        Owner.FINANCE,
        "look",
        "Find out what happened. Approve it again to go on, or reject it to give it up. Nothing is sent by itself.",
    ),
}
"""What each status says, who has the next move, and what it is."""


async def create(
    connection: Connection, ctx: Context, refund: StoredRefund, actor: Actor, note: str
) -> StoredRefund:
    """Store a new refund, with the first line of its history and its event."""
    await store.insert_refund(connection, refund)
    await _record(connection, ctx, None, refund, actor, note, refund.requested_at)
    return refund


async def advance(
    connection: Connection,
    ctx: Context,
    old: StoredRefund,
    status: RefundStatus,
    actor: Actor,
    note: str,
    **changes: Any,
) -> StoredRefund:
    """Move a refund to a status, with other columns that change with it. Raises IllegalTransition, StaleWrite.

    The exception about one that needed attention is closed: it goes on, or has ended.
    """
    if status not in EDGES[old.status]:
        raise IllegalTransition(
            f"A refund cannot go from {old.status} to {status}.",
            object_id=old.id,
            remedy="This is a defect in Tallystick: nothing was written; please report the refund's history.",
        )
    now = ctx.now()
    new = replace(old, status=status, event_sequence=old.event_sequence + 1, **changes)
    written = await store.update_refund(connection, old, new, now)
    await release_inputs(connection, written)
    await _record(connection, ctx, old.status, written, actor, note, now)
    if old.status is _R.NEEDS_ATTENTION:
        await _close_case(connection, ctx, written, f"The refund is {status} now.")
    return written


async def amend(connection: Connection, ctx: Context, old: StoredRefund, **changes: Any) -> StoredRefund:
    """Change something besides the status. Raises StaleWrite."""
    written = await store.update_refund(connection, old, replace(old, **changes), ctx.now())
    await notify(connection, [(INVOICES_CHANNEL, old.invoice_id)])  # its checkout page shows the refund
    return written


async def let_sign(connection: Connection, ctx: Context, refund: StoredRefund, actor: Actor) -> StoredRefund:
    """Make the payment request of an approved refund that has its address; else leave it as it is."""
    if refund.status is not _R.APPROVED or refund.address is None:
        return refund
    return await advance(
        connection,
        ctx,
        refund,
        _R.AWAITING_SIGNATURE,
        actor,
        "Approved, and the address is confirmed.",
        attention_at=ctx.now() + SIGN_WITHIN,
        **await psbt_changes(connection, ctx, refund),
    )


async def _close_case(connection: Connection, ctx: Context, refund: StoredRefund, note: str) -> None:
    """Resolve the open exception about a refund, if there is one: its reason is gone."""
    row = await store.SQL.open_case_of.one(connection, invoice_id=refund.invoice_id, refund_id=refund.id)
    if row is not None:
        await close_case(connection, ctx, row["id"], note, ctx.now())


async def need_attention(
    connection: Connection, ctx: Context, refund: StoredRefund, problem: str
) -> StoredRefund:
    """Stop a refund until a person has looked, and put it into the queue of exceptions."""
    stopped = await advance(
        connection, ctx, refund, _R.NEEDS_ATTENTION, SYSTEM, problem, problem=problem, attention_at=None
    )
    await open_refund_case(connection, ctx, stopped, problem)
    return stopped


async def open_refund_case(connection: Connection, ctx: Context, refund: StoredRefund, problem: str) -> None:
    """Open the exception about a refund, unless it is open."""
    await open_cases(
        connection,
        ctx,
        merchant_ids=[refund.merchant_id],
        kind=CaseKind.REFUND_FAILED,
        invoice_id=refund.invoice_id,
        subject=refund.id,
        detail={
            "refund_id": refund.id,
            "problem": problem,
            "amount": format_units(refund.amount, refund.asset.decimals),
            "asset": refund.asset.symbol,
            "network": refund.asset.network,
            "tx_hash": refund.chain_tx_hash or refund.tx_hash,
        },
        now=ctx.now(),
    )


async def _record(
    connection: Connection,
    ctx: Context,
    before: RefundStatus | None,
    refund: StoredRefund,
    actor: Actor,
    note: str,
    now: datetime,
) -> None:
    await notify(connection, [(INVOICES_CHANNEL, refund.invoice_id)])  # its checkout page shows the refund
    await store.SQL.insert_transition.run(
        connection,
        refund_id=refund.id,
        sequence=refund.event_sequence,
        from_status=before,
        to_status=refund.status,
        actor_type=actor.type.value,
        actor_id=actor.id,
        note=note,
        at=now,
    )
    event = NewEvent(
        merchant_id=refund.merchant_id,
        type=f"refund.{refund.status}",
        object_id=refund.id,
        sequence=refund.event_sequence,
        object=refund_object(ctx, refund),
        previous_status=before.value if before is not None else None,
    )
    await publish(connection, ctx, [event], at=now)


def refund_object(ctx: Context, refund: StoredRefund, *, claim_url: str | None = None) -> objects.Refund:
    """A refund as the merchant sees it. `claim_url` is given once, to whoever made the link."""
    asset = refund.asset
    family, network = FAMILIES[refund.family], ctx.networks.get(asset.network)

    def amount(units: int) -> str:
        return format_units(units, asset.decimals)

    approved = refund.decided_by_type is not None and refund.status is not _R.REJECTED
    return objects.Refund(
        id=refund.id,
        status=refund.status.value,
        invoice_id=refund.invoice_id,
        exception_id=refund.exception_id,
        payment_option_id=refund.option_id,
        asset=asset.symbol,
        network=asset.network,
        token_contract=family.display(asset.contract, network) if asset.contract is not None else None,
        amount=amount(refund.amount),
        amount_sent=amount(refund.amount_sent),
        fee=refund.fee.value,
        fee_amount=amount(refund.fee_amount),
        rule=refund.rule.value,
        address=family.display(refund.address, network) if refund.address is not None else None,
        address_source=refund.address_source.value if refund.address_source is not None else None,
        reason=refund.reason,
        detail=refund.detail,
        requested_by=objects.ActorObject(type=refund.requested_by_type, id=refund.requested_by),
        approved_by=(
            objects.ActorObject(type=refund.decided_by_type or "", id=refund.decided_by) if approved else None
        ),
        decision_note=refund.decision_note,
        payment_request=_payment_request(ctx, refund),
        tx_hash=refund.chain_tx_hash or refund.tx_hash,
        confirmations=refund.confirmations,
        confirmations_required=_depth_shown(ctx, refund),
        problem=refund.problem,
        next_action=next_action(refund),
        claim_expires_at=refund.claim_expires_at if refund.address is None else None,
        created_at=refund.requested_at,
        updated_at=refund.updated_at,
        claim_url=msgspec.UNSET if claim_url is None else claim_url,
    )


def next_action(refund: StoredRefund) -> objects.NextAction:
    """Who has the next move."""
    guide = GUIDES[refund.status]
    return objects.NextAction(owner=guide.owner.value, action=guide.action, text=guide.action_text)


def _payment_request(ctx: Context, refund: StoredRefund) -> objects.PaymentRequest | None:
    """Only while it is to be signed: what needs attention or was sent must not be sent from an old answer.

    Not while its network is halted either: the money that it gives back may have left the chain.
    """
    network = ctx.networks.get(refund.asset.network)
    if (
        refund.status is not _R.AWAITING_SIGNATURE
        or refund.address is None
        or network is None
        or refund.halted
    ):
        return None
    family = FAMILIES[refund.family]
    return objects.PaymentRequest(
        uri=family.payment_uri(network, refund.asset, refund.address, refund.amount_sent),
        unsigned_transaction=family.unsigned_transaction(
            network, refund.asset, refund.address, refund.amount_sent
        ),
        psbt=None if refund.psbt_dead else refund.psbt,
        psbt_fee=(
            None
            if refund.psbt_dead or refund.psbt_fee is None
            else format_units(refund.psbt_fee, refund.asset.decimals)
        ),
        psbt_problem=DEAD if refund.psbt_dead else refund.psbt_problem,
    )


def _depth_shown(ctx: Context, refund: StoredRefund) -> int | None:
    """Confirmations that it needs: on another network than its option's, that network's own (`required_of`)."""
    network = ctx.networks.get(refund.asset.network)
    if network is None or refund.option_network in (None, network.name):
        return refund.confirmations_required
    return network.requirement.confirmations if network.requirement.finality is Finality.DEPTH else None


def required_depth(invoice: StoredInvoice, option_id: str) -> int | None:
    """Confirmations that a refund needs: those of the option it was paid by; None where finality decides."""
    requirement = invoice.terms.option(option_id).requirement
    return requirement.confirmations if requirement.finality is Finality.DEPTH else None


async def show(connection: Connection, ctx: Context, ids: Sequence[str]) -> list[objects.Refund]:
    """These refunds as they stand, in the order asked."""
    found = {refund.id: refund for refund in await store.read_refunds(connection, ids)}
    return [refund_object(ctx, found[one]) for one in ids if one in found]
