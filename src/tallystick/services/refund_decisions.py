"""What people decide about a refund: approve, refuse or give up, tell that it was sent, make a new claim link.

For: the API, the command line. Holds true: the invoice's lock is held, so that of two approvers at once one is late; a
refund is approved only while the money that it gives back stands; what was said to be sent cannot be taken back by
anybody's word. Whoever decides is named in the refund's history with a note. Nothing here sends anything.
Must not: write a status (`refund_writing` does), hold a key, or know HTTP.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from tallystick.chains.families import FAMILIES
from tallystick.core.errors import Conflict, InvalidInput
from tallystick.core.refund import APPROVABLE, GIVING_UP, SEEN_WITHIN, RefundStatus
from tallystick.core.refundable import unfounded
from tallystick.db.merchants import merchant_settings
from tallystick.db.refund_inputs import SQL
from tallystick.db.refunds import StoredRefund
from tallystick.db.sql import Connection
from tallystick.services import objects
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.context import Actor, Context
from tallystick.services.refund_claims import issue_claim
from tallystick.services.refund_psbts import psbt_changes
from tallystick.services.refund_writing import (
    advance,
    amend,
    let_sign,
    need_attention,
    refund_object,
    show,
)
from tallystick.services.refunds import check_text, lock_refund

NOTE_LENGTH_MAX: Final = 1_000

_R = RefundStatus

_OVERDUE: Final = {
    _R.AWAITING_SIGNATURE: "Nobody said that it was sent, and the chain does not show it.",
    _R.BROADCAST: "It was said to be sent, but the chain does not show it.",
}


async def approve_refund(
    connection: Connection,
    ctx: Context,
    merchant_id: str | None,
    actor: Actor,
    refund_id: str,
    note: str = "",
) -> objects.Refund:
    """Let a refund be paid, or go on after somebody looked at it. With an address it waits for a signature at once.

    Raises NotFound; Conflict where it is decided already, where another person has to or has no address to approve, or
    where the money is not there.
    """
    check_text("/note", note, NOTE_LENGTH_MAX, optional=True)
    ground, refund = await lock_refund(connection, ctx, merchant_id, refund_id)
    if refund.status not in APPROVABLE:
        raise Conflict(f"The refund is {refund.status}: it cannot be approved.", object_id=refund_id)
    await _check_second_person(connection, refund, actor)
    fact = next(one for one in ground.facts.refunds if one.id == refund_id)
    if unfounded(ground.invoice.terms, ground.facts, fact, refund.basis_ids):
        raise Conflict(
            "What this refund gives back does not stand in the chain any more.",
            object_id=refund_id,
            remedy="Wait until it does, or reject the refund and ask for another one.",
        )
    now = ctx.now()
    approved = await advance(
        connection,
        ctx,
        refund,
        _R.APPROVED,
        actor,
        note,
        # What meanwhile suffices is not taken away before it is paid back.
        withdraws=refund.withdraws and not ground.judged.sufficient,
        decided_by_type=actor.type.value,
        decided_by=actor.id,
        decided_at=now,
        decision_note=note or None,
        problem=None,
        attention_at=None,
    )
    await let_sign(connection, ctx, approved, actor)
    await _assess(connection, ctx, refund.invoice_id, actor, refund_id)
    return (await show(connection, ctx, [refund_id]))[0]


async def _check_second_person(connection: Connection, refund: StoredRefund, actor: Actor) -> None:
    """Where the merchant requires two persons: the second is another one, and sees where the money goes.

    Whoever asks for a refund is told its claim link. Approved without an address, the first person alone would choose
    where the money goes, on the claim page, after the second had agreed.
    """
    settings = await merchant_settings(connection, refund.merchant_id)
    if settings is None or not settings.refund_second_person:
        return
    firsts = {(refund.requested_by_type, refund.requested_by), (refund.link_by_type, refund.link_by)}
    if (actor.type.value, actor.id) in firsts:
        raise Conflict(
            "Another key or person than the one who asked, or made the claim link, has to approve this refund.",
            object_id=refund.id,
        )
    if refund.address is None:
        raise Conflict(
            "This refund has no address yet: where two persons are required, the second approves where it goes.",
            object_id=refund.id,
            remedy="Approve it once the customer has given an address on the claim page.",
        )


async def reject_refund(
    connection: Connection,
    ctx: Context,
    merchant_id: str | None,
    actor: Actor,
    refund_id: str,
    note: str = "",
) -> objects.Refund:
    """Refuse a refund, or give up one that waits to be sent or needs attention. Raises NotFound, Conflict.

    One that was said to be sent cannot be given up: whether it was is for the chain to show.
    """
    check_text("/note", note, NOTE_LENGTH_MAX, optional=True)
    _, refund = await lock_refund(connection, ctx, merchant_id, refund_id)
    end = GIVING_UP.get(refund.status)
    if end is None:
        raise Conflict(f"The refund is {refund.status}: it cannot be rejected.", object_id=refund_id)
    changes: dict[str, Any] = {"attention_at": None, "decision_note": note or refund.decision_note}
    if end is _R.REJECTED:
        changes |= {
            "decided_by_type": actor.type.value,
            "decided_by": actor.id,
            "decided_at": ctx.now(),
            "problem": None,
        }
    else:
        changes["problem"] = f"Given up: {note}" if note else "Given up."
    await advance(connection, ctx, refund, end, actor, note, **changes)
    await _assess(connection, ctx, refund.invoice_id, actor, refund_id)
    return (await show(connection, ctx, [refund_id]))[0]


async def broadcast_refund(
    connection: Connection, ctx: Context, merchant_id: str | None, actor: Actor, refund_id: str, tx_hash: str
) -> objects.Refund:
    """Note that the refund was sent, in which transaction. A hint: only the chain completes a refund.

    The same hash again changes nothing; another one (a replacement with a higher fee) takes its place while it is not
    seen. Raises NotFound, InvalidInput, Conflict.
    """
    _, refund = await lock_refund(connection, ctx, merchant_id, refund_id)
    try:
        told = FAMILIES[refund.family].normalize_tx_hash(tx_hash)
    except InvalidInput as error:
        raise InvalidInput.at("/tx_hash", error.what) from None
    known = refund.chain_tx_hash or refund.tx_hash
    sent = refund.status in (_R.BROADCAST, _R.CONFIRMING, _R.COMPLETED)
    if sent and told in (known, refund.tx_hash):
        return refund_object(ctx, refund)
    now = ctx.now()
    hint: dict[str, Any] = {"tx_hash": told, "broadcast_at": now, "attention_at": now + SEEN_WITHIN}
    if refund.status is _R.BROADCAST:
        await amend(connection, ctx, refund, **hint)
    elif refund.status in (_R.AWAITING_SIGNATURE, _R.NEEDS_ATTENTION) and refund.address is not None:
        await advance(
            connection, ctx, refund, _R.BROADCAST, actor, f"Told to be sent in {told}.", problem=None, **hint
        )
        await _assess(connection, ctx, refund.invoice_id, actor, refund_id)
    else:
        raise Conflict(f"The refund is {refund.status}: it cannot be sent now.", object_id=refund_id)
    return (await show(connection, ctx, [refund_id]))[0]


async def flag_overdue(connection: Connection, ctx: Context, refund_id: str) -> bool:
    """Stop a refund that should have been seen by now, until a person has looked; whether it was one."""
    _, refund = await lock_refund(connection, ctx, None, refund_id)
    problem = _OVERDUE.get(refund.status)
    if problem is None or refund.attention_at is None or refund.attention_at > ctx.now():
        return False
    await need_attention(connection, ctx, refund, problem)
    return True


async def renew_psbt(connection: Connection, ctx: Context, refund_id: str) -> bool:
    """Make the PSBT of a refund that waits to be signed and has none, or a dead one; whether that changed anything."""
    _, refund = await lock_refund(connection, ctx, None, refund_id)
    if refund.status is not _R.AWAITING_SIGNATURE or refund.halted:
        return False
    changes = await psbt_changes(connection, ctx, refund)
    new = replace(refund, **changes)
    if (new.psbt, new.psbt_problem) == (refund.psbt, refund.psbt_problem):
        await SQL.note_psbt_try.run(connection, refund_id=refund_id, at=ctx.now())
        return False
    await amend(connection, ctx, refund, **changes)
    return True


async def new_claim_link(
    connection: Connection, ctx: Context, merchant_id: str | None, actor: Actor, refund_id: str
) -> objects.Refund:
    """Make a new link to the claim page; the one before stops working. Raises NotFound, Conflict.

    Who is given it is remembered: whoever holds the link can name the address, so they do not approve it as well where
    two persons are required.
    """
    _, refund = await lock_refund(connection, ctx, merchant_id, refund_id)
    if refund.address is not None or refund.status not in (_R.REQUESTED, _R.APPROVED):
        raise Conflict("This refund needs no address.", object_id=refund_id)
    changed, claim_url = issue_claim(ctx, refund)
    written = await amend(
        connection,
        ctx,
        refund,
        claim_token_hash=changed.claim_token_hash,
        claim_expires_at=changed.claim_expires_at,
        link_by_type=actor.type.value,
        link_by=actor.id,
    )
    return refund_object(ctx, written, claim_url=claim_url)


async def _assess(
    connection: Connection, ctx: Context, invoice_id: str, actor: Actor, refund_id: str
) -> None:
    """A decision about a refund can change what its invoice is."""
    evidence = {"type": "refund", "refund_id": refund_id, "actor": actor.type.value, "id": actor.id}
    await assess_invoices(connection, ctx, [invoice_id], Cause(CauseKind.DECISION, actor, (evidence,)))
