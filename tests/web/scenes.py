"""Every situation that a customer can be in, brought about the way it is brought about in life.

For: tests of pages that look at all of them. Exceptions to "in life": `created` never outlives its transaction and is
written into the row; refunds and settlement are rows too, because what is tested here is how they are shown.
Every word that is the merchant's own holds `secret`, so that a page that shows one is noticed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from tallystick.core.chain import Channel, Finality
from tallystick.core.ids import IdKind
from tallystick.core.invoice import LatePayment, Status
from tallystick.core.refund import RefundStatus
from tallystick.services import objects
from tallystick.services.checkout_situations import Situation
from tallystick.services.policies import PolicyRule, RuleMatch, RuleRequire, put_policy
from tests.web.shop import MERCHANT, Shop, hash_of

S = Situation
Scene = Callable[[Shop], Awaitable[objects.Invoice]]

_NATIVE: Final = 1  # the place of ETH among the accepted
_COIN_UNITS: Final = 10**16


async def _active(
    shop: Shop, share: str | None = None, *, late: LatePayment | None = None, canceled: bool = False
) -> objects.Invoice:
    """An invoice with an address, withdrawn if asked, and with a part or all of the price sent to it."""
    invoice = await shop.activate(await shop.create(late_payment=late or LatePayment.REVIEW))
    if canceled:
        await shop.cancel(invoice)
    if late is not None:
        await shop.end(invoice)
    if share is not None:
        await shop.pay(invoice, share)
    return invoice


async def _paid(shop: Shop, share: str = "1") -> objects.Invoice:
    invoice = await _active(shop, share)
    await shop.mine("ethereum", 12)
    return invoice


async def _created(shop: Shop) -> objects.Invoice:
    invoice = await shop.create()
    await shop.force(invoice, Status.CREATED)
    return invoice


async def _requoting(shop: Shop) -> objects.Invoice:
    """The amount was promised for two minutes, and no new one is there after them."""
    merchant_id = await shop.merchant("Kiln & Clay Ceramics")
    async with shop.database.transaction() as connection:
        await connection.execute("UPDATE merchants SET quote_seconds = 120 WHERE id = $1", merchant_id)
    invoice = await shop.activate(await shop.create(merchant_id=merchant_id), _NATIVE)
    await shop.pass_time(130)
    return invoice


async def _dropped(shop: Shop) -> objects.Invoice:
    invoice = await _active(shop, "1")
    await shop.reorganise("ethereum", 1)
    return invoice


async def _expired_dropped(shop: Shop) -> objects.Invoice:
    invoice = await _dropped(shop)
    await shop.end(invoice)
    return invoice


async def _detected(shop: Shop) -> objects.Invoice:
    invoice = await _active(shop)
    await shop.sight(invoice)
    return invoice


async def _at_sight(shop: Shop) -> objects.Invoice:
    """The merchant's rule lets small amounts of the native coin count as soon as they are seen."""
    merchant_id = await shop.merchant("Kiln & Clay Ceramics")
    rule = PolicyRule(
        name="small",
        match=RuleMatch(asset="ETH"),
        require=RuleRequire(finality=Finality.DEPTH, confirmations=12),
        zero_conf=True,
    )
    async with shop.database.transaction() as connection:
        await put_policy(connection, shop.ctx, merchant_id, MERCHANT, [rule])
    invoice = await shop.activate(await shop.create(merchant_id=merchant_id), _NATIVE)
    await shop.sight(invoice, _NATIVE)
    return invoice


async def _in_several(shop: Shop) -> objects.Invoice:
    invoice = await _active(shop, "0.4")
    invoice = await shop.activate(invoice, _NATIVE)
    await shop.pay(invoice, "0.25", place=_NATIVE)
    return invoice


async def _confirming(shop: Shop) -> objects.Invoice:
    invoice = await _active(shop, "1")
    await shop.mine("ethereum", 4)
    return invoice


async def _settled(shop: Shop) -> objects.Invoice:
    invoice = await _paid(shop)
    await shop.settle(invoice)
    return invoice


async def _disputed(shop: Shop) -> objects.Invoice:
    invoice = await _paid(shop)
    await shop.dispute(invoice)
    return invoice


async def _time_up(shop: Shop) -> objects.Invoice:
    invoice = await _active(shop)
    await shop.pass_time(901)
    return invoice


async def _time_up_partial(shop: Shop) -> objects.Invoice:
    invoice = await _active(shop, "0.4")
    await shop.pass_time(901)
    return invoice


async def _ended(shop: Shop, share: str | None = None) -> objects.Invoice:
    invoice = await _active(shop, share)
    await shop.end(invoice)
    return invoice


async def _canceled(shop: Shop) -> objects.Invoice:
    return await _active(shop, canceled=True)


async def _wrong_asset(shop: Shop) -> objects.Invoice:
    invoice = await _active(shop)
    await shop.pay(invoice, wrong_asset=True)
    return invoice


async def _wrong_network(shop: Shop, invoice: objects.Invoice | None = None) -> objects.Invoice:
    invoice = invoice or await _active(shop)
    address = invoice.payment_options[0].address
    assert address is not None
    await shop.block("polygon", to=address.lower(), amount=_COIN_UNITS)
    return invoice


async def _several_causes(shop: Shop) -> objects.Invoice:
    return await _wrong_network(shop, await _wrong_asset(shop))


async def _value(shop: Shop) -> objects.Invoice:
    invoice = await shop.activate(await shop.create(), _NATIVE)
    address = invoice.payment_options[_NATIVE].address
    assert address is not None
    await shop.block("ethereum", to=address.lower(), amount=_COIN_UNITS, channel=Channel.BALANCE)
    return invoice


async def _reversed(shop: Shop) -> objects.Invoice:
    invoice = await _paid(shop)
    await shop.fulfill(invoice)
    await shop.reorganise("ethereum", 13)
    return invoice


async def refund(
    shop: Shop,
    invoice: objects.Invoice,
    status: RefundStatus,
    *,
    units: int = 19_600_000,
    address: bool = True,
) -> None:
    """A refund in this status, by the first option: of everything that came, carried out where it is on chain."""
    refund_id, transfer_id = shop.ctx.new_id(IdKind.REFUND), shop.ctx.new_id(IdKind.TRANSFER)
    to = "0x" + "fe" * 20 if address else None
    async with shop.database.transaction() as connection:
        await connection.execute(_REFUND, refund_id, invoice.id, status.value, units, to, shop.now)
        if status in (RefundStatus.CONFIRMING, RefundStatus.COMPLETED):
            block = shop.chains["ethereum"][-1 if status is RefundStatus.CONFIRMING else -12]
            tx_hash = hash_of(f"refund {refund_id}")
            await connection.execute(_REFUND_TRANSFER, transfer_id, refund_id, tx_hash, block.hash, shop.now)
    await shop.judge(invoice)


def _refunding(status: RefundStatus, *, address: bool = True) -> Scene:
    """Too little came, and it goes back."""

    async def scene(shop: Shop) -> objects.Invoice:
        invoice = await _ended(shop, "0.4")
        await shop.mine("ethereum", 12)
        await refund(shop, invoice, status, address=address)
        return invoice

    return scene


def _excess(status: RefundStatus) -> Scene:
    async def scene(shop: Shop) -> objects.Invoice:
        invoice = await _paid(shop, "1.5")
        await refund(shop, invoice, status, units=24_500_000)
        async with shop.database.transaction() as connection:
            # The excess alone goes back: no transfer goes back in full.
            await connection.execute(
                "UPDATE refunds SET transfer_ids = '{}' WHERE invoice_id = $1", invoice.id
            )
        await shop.judge(invoice)
        return invoice

    return scene


SCENES: Final[dict[Situation, Scene]] = {
    S.CREATED: _created,
    S.QUOTED: lambda shop: shop.create(),
    S.AWAITING_PAYMENT: _active,
    S.REQUOTING: _requoting,
    S.DROPPED: _dropped,
    S.DETECTED: _detected,
    S.PARTIALLY_PAID: lambda shop: _active(shop, "0.4"),
    S.PARTIALLY_PAID_IN_SEVERAL: _in_several,
    S.CONFIRMING: _confirming,
    S.PAID: _paid,
    S.PAID_AT_SIGHT: _at_sight,
    S.OVERPAID: lambda shop: _paid(shop, "1.5"),
    S.OVERPAID_RETURNING: _excess(RefundStatus.BROADCAST),
    S.OVERPAID_RETURNED: _excess(RefundStatus.COMPLETED),
    S.SETTLED: _settled,
    S.TIME_UP: _time_up,
    S.TIME_UP_PARTIAL: _time_up_partial,
    S.UNDERPAID: lambda shop: _ended(shop, "0.4"),
    S.UNDERPAID_WITHDRAWN: lambda shop: _active(shop, "0.4", canceled=True),
    S.EXPIRED: _ended,
    S.EXPIRED_DROPPED: _expired_dropped,
    S.CANCELED: _canceled,
    S.LATE_ACCEPTED: lambda shop: _active(shop, "1", late=LatePayment.ACCEPT),
    S.LATE_REVIEWED: lambda shop: _active(shop, "1", late=LatePayment.REVIEW),
    S.LATE_REFUNDED: lambda shop: _active(shop, "1", late=LatePayment.REFUND),
    S.LATE_WITHDRAWN: lambda shop: _active(shop, "1", canceled=True),
    S.REVIEW: _several_causes,
    S.REVIEW_WRONG_ASSET: _wrong_asset,
    S.REVIEW_WRONG_NETWORK: _wrong_network,
    S.REVIEW_VALUE: _value,
    S.REVIEW_REVERSED: _reversed,
    S.DISPUTED: _disputed,
    S.REFUND_ADDRESS: _refunding(RefundStatus.APPROVED, address=False),
    S.REFUND_PREPARED: _refunding(RefundStatus.AWAITING_SIGNATURE),
    S.REFUND_SENT: _refunding(RefundStatus.BROADCAST),
    S.REFUND_CONFIRMING: _refunding(RefundStatus.CONFIRMING),
    S.REFUND_ATTENTION: _refunding(RefundStatus.NEEDS_ATTENTION),
    S.REFUNDED: _refunding(RefundStatus.COMPLETED),
}

PLAIN: Final[dict[Status, Situation]] = {
    status: {
        Status.LATE_PAID: S.LATE_REVIEWED,
        Status.REVIEW_REQUIRED: S.REVIEW_WRONG_ASSET,
    }.get(status)
    or Situation(status.value)
    for status in Status
}
"""For each status the situation that stands for it where only one is looked at."""


async def in_status(shop: Shop, status: Status) -> objects.Invoice:
    """A new invoice that has come to this status."""
    invoice = await SCENES[PLAIN[status]](shop)
    reached = await shop.status(invoice)
    assert reached == status.value, f"came to {reached} instead of {status}"
    return invoice


_REFUND: Final = """
INSERT INTO refunds (id, merchant_id, invoice_id, option_id, status, rule, network, asset_symbol, asset_decimals,
    contract, amount, fee, amount_sent, transfer_ids, reason, address, address_source, address_at, requested_by_type,
    requested_at, decided_by_type, decided_at, decision_note, problem, event_sequence, updated_at)
SELECT $1, o.merchant_id, $2, o.id, $3, 'received', o.network, o.asset_symbol, o.asset_decimals,
    o.contract, $4, 'merchant', $4, ARRAY(SELECT id FROM transfers WHERE invoice_id = $2), 'secret reason', $5::text,
    CASE WHEN $5::text IS NOT NULL THEN 'customer' END, CASE WHEN $5::text IS NOT NULL THEN $6::timestamptz END,
    'merchant', $6, 'merchant', $6, 'secret note', 'secret problem', 1, $6
FROM payment_options AS o WHERE o.invoice_id = $2 AND o.position = 0
"""

_REFUND_TRANSFER: Final = """
WITH found AS (
    INSERT INTO refund_transfers (id, refund_id, invoice_id, network, tx_hash, channel, ordinal, sender, recipient,
        contract, amount, first_evidence_at)
    SELECT $1, $2, r.invoice_id, r.network, $3, 'log', 0, '0xsecret', r.address, r.contract, r.amount_sent,
        $5
    FROM refunds AS r WHERE r.id = $2 RETURNING id, network
)
INSERT INTO refund_anchors (transfer_id, network, block_hash) SELECT id, network, $4 FROM found
"""
