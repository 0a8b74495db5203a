"""From what is stored and judged to what is shown: the public objects.

For: answers and event bodies. Holds true: a pure function of a stored invoice and its assessment; the same inputs give
the same bytes. Must not: read the database or a clock.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from tallystick.chains.families import FAMILIES
from tallystick.core.assess import Assessment
from tallystick.core.chain import Finality
from tallystick.core.invoice import Match, Status
from tallystick.core.money import format_price, format_units
from tallystick.core.next_move import NextMove, by_status, next_move
from tallystick.core.shares import Verdict
from tallystick.db.invoices import StoredInvoice, StoredOption, StoredTransfer
from tallystick.services import objects
from tallystick.services.context import Context


def _next_action(move: NextMove) -> objects.NextAction:
    return objects.NextAction(owner=move.owner, action=move.action, text=move.text)


def invoice_object(
    ctx: Context, stored: StoredInvoice, assessment: Assessment, *, status: Status, updated_at: datetime
) -> objects.Invoice:
    """The invoice as the merchant sees it, in `status`."""
    price = stored.terms.price
    is_judged = status is assessment.status
    move = next_move(stored.terms, stored.facts({}), assessment) if is_judged else by_status(status)
    return objects.Invoice(
        id=stored.id,
        status=status.value,
        order_id=stored.order_id,
        amount=format_price(price.amount, price),
        currency=price.currency,
        amount_paid=format_price(assessment.amount_paid, price),
        payment_options=[_option(ctx, option, stored, assessment) for option in stored.options],
        payments=payment_objects(ctx, stored, assessment),
        checkout_url=f"{ctx.public_url}/i/{stored.id}",
        next_action=_next_action(move),
        late_payment=stored.terms.late_payment.value,
        product_type=stored.product_type,
        success_url=stored.success_url,
        cancel_url=stored.cancel_url,
        canceled_at=stored.decisions.canceled_at,
        fulfilled_at=stored.decisions.fulfilled_at,
        fulfillment=stored.fulfillment,
        settlement_id=stored.settlement_id,
        expires_at=stored.terms.expires_at,
        created_at=stored.created_at,
        updated_at=updated_at,
        metadata=stored.metadata,
        customer=stored.customer,
    )


def in_status(shown: objects.Invoice, status: Status, updated_at: datetime) -> objects.Invoice:
    """The same invoice in a status of its way there."""
    if status.value == shown.status:
        return msgspec.structs.replace(shown, updated_at=updated_at)
    action = _next_action(by_status(status))
    return msgspec.structs.replace(shown, status=status.value, next_action=action, updated_at=updated_at)


def payment_objects(ctx: Context, stored: StoredInvoice, assessment: Assessment) -> list[objects.Payment]:
    """The invoice's payments, oldest first. Transfers without a payment (unknown tokens) are left out."""
    verdicts = {verdict.transfer_id: verdict for verdict in assessment.verdicts}
    return [
        payment_object(
            ctx,
            stored,
            transfer,
            verdicts[transfer.fact.id],
            transfer.payment.id,
            transfer.payment.confirmed_at,
        )
        for transfer in stored.transfers
        if transfer.payment is not None
    ]


def payment_object(
    ctx: Context,
    stored: StoredInvoice,
    transfer: StoredTransfer,
    verdict: Verdict,
    payment_id: str,
    confirmed_at: datetime | None,
) -> objects.Payment:
    """One payment as the merchant sees it."""
    fact = transfer.fact
    requirement = verdict.requirement
    family, network = FAMILIES[transfer.family], ctx.networks.get(fact.key.network)
    anchor = verdict.anchor
    decimals = fact.asset.decimals if fact.asset is not None else 0
    return objects.Payment(
        id=payment_id,
        invoice_id=stored.id,
        option_id=fact.option_id,
        transfer_id=fact.id,
        match=verdict.match.value,
        tx_hash=fact.key.tx_hash,
        ordinal=fact.key.ordinal,
        log_index=transfer.log_indexes.get(anchor.block.hash) if anchor is not None else None,
        # Nobody knows who sent a balance, and in Bitcoin's family there is no sender.
        sender=family.display(transfer.sender, network) if transfer.sender else None,
        to=family.display(transfer.recipient, network),
        asset=fact.asset.symbol if fact.asset is not None else None,
        network=fact.key.network,
        token_contract=family.display(transfer.contract, network) if transfer.contract is not None else None,
        amount=format_units(fact.amount, decimals),
        status=verdict.status.value,
        block_height=anchor.block.height if anchor is not None else None,
        block_hash=anchor.block.hash if anchor is not None else None,
        block_time=anchor.time if anchor is not None else None,
        first_seen_at=transfer.first_seen_at,
        confirmations=verdict.confirmations,
        confirmations_required=requirement.confirmations if requirement.finality is Finality.DEPTH else None,
        traits=sorted(fact.traits),
        on_time=verdict.on_time,
        replaced_by=verdict.replaced_by,
        confirmed_at=confirmed_at,
    )


def _option(
    ctx: Context, option: StoredOption, stored: StoredInvoice, assessment: Assessment
) -> objects.PaymentOption:
    terms = option.terms
    asset = terms.asset
    network = ctx.networks.get(asset.network)
    family = FAMILIES[option.family]
    amounts = next(amounts for amounts in assessment.options if amounts.option_id == terms.id)
    uri = None
    if network is not None and option.address is not None:
        uri = family.payment_uri(network, asset, option.address, amounts.due or terms.amount_expected)
    derivation = None
    if option.wallet_id and option.account_key and option.derivation_index is not None:
        index = option.derivation_index
        derivation = objects.Derivation(
            wallet_id=option.wallet_id, path=family.derivation_path(option.account_key, index), index=index
        )
    by_depth = terms.requirement.finality is Finality.DEPTH
    waited_for = _waited_for(terms.id, stored, assessment)
    # Newly made coin waits for longer than the option asks.
    needs = [terms.requirement.confirmations, *(one.requirement.confirmations for one in waited_for)]
    return objects.PaymentOption(
        id=terms.id,
        asset=asset.symbol,
        network=asset.network,
        token_contract=family.display(asset.contract, network) if asset.contract is not None else None,
        decimals=asset.decimals,
        status=option.status.value,
        address=family.display(option.address, network) if option.address is not None else None,
        derivation=derivation,
        amount_expected=format_units(terms.amount_expected, asset.decimals),
        amount_detected=format_units(amounts.detected, asset.decimals),
        amount_received=format_units(amounts.received, asset.decimals),
        amount_due=format_units(amounts.due, asset.decimals),
        uri=uri,
        rate=objects.QuotedRate(
            value=option.quote.rate,
            source=option.quote.source,
            quoted_at=option.quote.quoted_at,
            expires_at=option.quote.expires_at,
        ),
        tolerance=objects.Tolerance(under_bps=terms.tolerance.under_bps, over_bps=terms.tolerance.over_bps),
        confirmations=min((one.confirmations for one in waited_for), default=0),
        confirmations_required=max(needs) if by_depth else None,
        finality=terms.requirement.finality.value,
        zero_conf=terms.requirement.zero_conf,
        policy=objects.Policy(
            name=option.policy_name, version=option.policy_version, explanation=option.policy_explanation
        ),
    )


def _waited_for(option_id: str, stored: StoredInvoice, assessment: Assessment) -> list[Verdict]:
    """The matching payments of an option that blocks hold: the customer waits for the one with the fewest blocks."""
    of_option = {transfer.fact.id for transfer in stored.transfers if transfer.fact.option_id == option_id}
    return [
        verdict
        for verdict in assessment.verdicts
        if verdict.transfer_id in of_option and verdict.match is Match.MATCHED and verdict.anchor is not None
    ]


def transition_object(row: Any) -> objects.Transition:
    """A stored row of history as the merchant sees it."""
    return objects.Transition(
        sequence=row["sequence"],
        from_=row["from_status"],
        to=row["to_status"],
        reason=row["reason"],
        actor=objects.ActorObject(type=row["actor_type"], id=row["actor_id"]),
        evidence=row["evidence"],
        at=row["at"],
    )
