"""What the chain says about refunds: written where everything else about an invoice is.

For: the one writer of statuses (`services.assessing.save`). Holds true: the outgoing transfer in the best chain moves a
refund on, and its absence moves it back, whatever was told; a refund whose ground is gone before it was sent waits for
a person; the merchant's rule for late money gives each transfer back once, whatever becomes of that. Reading and
writing costs nothing for invoices without refunds.
Must not: send anything, approve anything, or judge (`core.refund` and `core.refundable` do).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from tallystick.chains.families import FAMILIES
from tallystick.core.ids import IdKind
from tallystick.core.invoice import Facts, LatePayment, Status
from tallystick.core.money import Asset
from tallystick.core.refund import (
    SEEN_WITHIN,
    UNSENT,
    FeePayer,
    RefundFact,
    RefundRule,
    RefundStatus,
    RefundVerdict,
)
from tallystick.core.refundable import holding, owed_by_rule, same_asset, unfounded
from tallystick.db.networks import read_views
from tallystick.db.refunds import StoredRefund, read_of_invoices
from tallystick.db.sql import Connection
from tallystick.services.cases import Look
from tallystick.services.context import SYSTEM, Context
from tallystick.services.refund_writing import (
    advance,
    amend,
    create,
    need_attention,
    open_refund_case,
    required_depth,
)

_R = RefundStatus

UNFOUNDED: Final = "What this refund gives back does not stand in the chain any more. Do not send it now."
SENT_TWICE: Final = "Two transfers in the best chain carry out this refund: it was sent twice."
REORGANISED: Final = "The block that held the transfer left the best chain."

_NOTES: Final = {
    _R.CONFIRMING: "The transfer is in a block of the best chain.",
    _R.COMPLETED: "The transfer has the confirmations it needs.",
    _R.BROADCAST: REORGANISED,
}


async def write_refund_verdicts(
    connection: Connection, ctx: Context, looks: Sequence[Look], now: datetime
) -> list[Look]:
    """Move the refunds of these invoices to where the chain says they are. The caller holds the invoices' locks.

    Answers the looks, with what was opened by rule: for who asks afterwards whether a person is still needed.
    """
    concerned = [look for look in looks if look.invoice.refunds or _may_owe(look)]
    if not concerned:
        return list(looks)
    views = await read_views(connection, ctx.networks)
    stored = await read_of_invoices(connection, [look.invoice.id for look in concerned])
    refunds = {refund.id: refund for refund in stored}
    after: dict[str, Look] = {}
    for look in concerned:
        facts = _as_judged(look.invoice.facts(views), look.judged.refunds)
        for verdict in look.judged.refunds:
            await _follow(connection, ctx, look, facts, refunds[verdict.refund_id], verdict, now)
        of_invoice = [refund for refund in stored if refund.invoice_id == look.invoice.id]
        opened = await _refund_by_rule(connection, ctx, look, facts, of_invoice, now)
        after[look.invoice.id] = _with_opened(look, opened)
    return [after.get(look.invoice.id, look) for look in looks]


def _with_opened(look: Look, opened: Sequence[StoredRefund]) -> Look:
    """The look, with refunds that were opened since."""
    if not opened:
        return look
    invoice, judged = look.invoice, look.judged
    facts = tuple(
        RefundFact(
            id=refund.id,
            status=refund.status,
            asset=refund.asset,
            amount=refund.amount,
            requirement=invoice.terms.option(refund.option_id).requirement,
            transfer_ids=frozenset(refund.transfer_ids),
            withdraws=refund.withdraws,
        )
        for refund in opened
    )
    verdicts = tuple(RefundVerdict(refund.id, refund.status, None, 0) for refund in opened)
    return replace(
        look,
        invoice=replace(invoice, refunds=(*invoice.refunds, *facts)),
        judged=replace(judged, refunds=(*judged.refunds, *verdicts)),
    )


def _may_owe(look: Look) -> bool:
    return look.invoice.terms.late_payment is LatePayment.REFUND and look.judged.status is Status.LATE_PAID


def _as_judged(facts: Facts, verdicts: Sequence[RefundVerdict]) -> Facts:
    """The facts with what is now true about each refund in place of what was stored."""
    status = {verdict.refund_id: verdict.status for verdict in verdicts}
    refunds = tuple(replace(one, status=status.get(one.id, one.status)) for one in facts.refunds)
    return replace(facts, refunds=refunds)


async def _follow(
    connection: Connection,
    ctx: Context,
    look: Look,
    facts: Facts,
    refund: StoredRefund,
    verdict: RefundVerdict,
    now: datetime,
) -> None:
    """Write what is true about one refund, where it differs from what is stored."""
    if verdict.status is not refund.status:
        refund = await _move(connection, ctx, refund, verdict, now)
    elif refund.status in UNSENT:
        fact = next(one for one in facts.refunds if one.id == refund.id)
        if unfounded(look.invoice.terms, facts, fact, refund.basis_ids):
            await need_attention(connection, ctx, refund, UNFOUNDED)
    if verdict.times_sent > 1 and refund.problem != SENT_TWICE:
        await amend(connection, ctx, refund, problem=SENT_TWICE)
        await open_refund_case(connection, ctx, refund, SENT_TWICE)


async def _move(
    connection: Connection, ctx: Context, refund: StoredRefund, verdict: RefundVerdict, now: datetime
) -> StoredRefund:
    changes: dict[str, Any] = {"broadcast_at": refund.broadcast_at or now}
    if verdict.status is _R.BROADCAST:
        changes |= {"attention_at": now + SEEN_WITHIN, "problem": REORGANISED}
    else:
        changes |= {"attention_at": None, "problem": None}
    note = _NOTES[verdict.status]
    return await advance(connection, ctx, refund, verdict.status, SYSTEM, note, **changes)


async def _refund_by_rule(
    connection: Connection,
    ctx: Context,
    look: Look,
    facts: Facts,
    known: Sequence[StoredRefund],
    now: datetime,
) -> list[StoredRefund]:
    """Open the refund that the merchant's rule for late money asks for. It waits for an approval and an address.

    Once for each transfer, whatever became of that: what a person refused to give back is not asked for again because
    more came. Answers what was opened.
    """
    terms = look.invoice.terms
    opened: list[StoredRefund] = []
    assets: dict[tuple[str, str], Asset] = {}
    owed = owed_by_rule(terms, facts, look.judged)
    for fact in owed:
        if fact.asset is not None:
            assets.setdefault((fact.asset.network, fact.asset.key), fact.asset)
    for asset in assets.values():
        asked = {one_id for one in known if same_asset(one.asset, asset) for one_id in one.basis_ids}
        holds = holding(terms, facts, asset, scope=frozenset(fact.id for fact in facts.transfers) - asked)
        ids = {fact.id for fact in holds.transfers}
        if holds.left == 0 or ids.isdisjoint(fact.id for fact in owed):
            continue
        option_id = holds.transfers[0].option_id
        family = next(option.family for option in look.invoice.options if option.terms.id == option_id)
        if family not in FAMILIES:
            continue
        reason = "The payment came after its time, and late payments are given back."
        refund = StoredRefund(
            id=ctx.new_id(IdKind.REFUND),
            merchant_id=look.invoice.merchant_id,
            invoice_id=look.invoice.id,
            option_id=option_id,
            exception_id=None,
            status=_R.REQUESTED,
            rule=RefundRule.RECEIVED,
            asset=asset,
            family=family,
            amount=holds.left,
            fee=FeePayer.MERCHANT,
            fee_amount=0,
            transfer_ids=tuple(sorted(ids)),
            basis_ids=tuple(sorted(ids)),
            withdraws=True,
            reason=reason,
            detail={},
            requested_by_type=SYSTEM.type.value,
            requested_by=None,
            requested_at=now,
            updated_at=now,
            confirmations_required=required_depth(look.invoice, option_id),
        )
        opened.append(await create(connection, ctx, refund, SYSTEM, reason))
    return opened
