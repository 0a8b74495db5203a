"""Refunds on a chain of outputs whose blocks are written by hand: what no real node can be made to show in a moment.

On a real node, with a wallet that signs: `tests/scenarios/litecoin/test_refund_psbts.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from embit.psbt import PSBT

from tallystick.chains.bitcoin.addresses import display
from tallystick.core.chain import Channel, ObservedTransfer
from tallystick.core.refund import RefundRule
from tallystick.db import refund_inputs
from tallystick.services import objects, refund_decisions, refunds
from tallystick.services.refunds import NewRefund
from tallystick.workers.refunds import PSBT_EVERY, RefundWatch
from tests.support.outputs import ACTOR, ASKED, OUTPUTS, Till, coin, hash_of, open_till

SCRIPT = f"0014{hash_of('customer')[:40]}"
"""Where the customer wants the money: an output script that nobody here was issued."""


@pytest.fixture
async def till(database_url: str) -> AsyncIterator[Till]:
    async with open_till(database_url, replace(OUTPUTS, fee_rate_default=1_000)) as shop:
        yield shop


async def paid(till: Till, amount: int = ASKED) -> tuple[objects.Invoice, ObservedTransfer]:
    """An invoice, and the payment of it, which is final."""
    invoice = await till.create()
    (transfer,) = till.pay(invoice, amount=amount)
    await till.mine(transfer, blocks=2)
    return invoice, transfer


async def approved(till: Till, invoice: objects.Invoice, **more: Any) -> objects.Refund:
    """A refund of it that is to be signed."""
    address = display(SCRIPT, till.network.chain)
    wanted: dict[str, Any] = {"invoice_id": invoice.id, "reason": "returned", "address": address}
    wanted |= more or {"rule": RefundRule.RECEIVED}
    async with till.ctx.database.transaction() as connection:
        asked = await refunds.create_refund(
            connection, till.ctx, till.merchant_id, ACTOR, NewRefund(**wanted)
        )
        return await refund_decisions.approve_refund(connection, till.ctx, till.merchant_id, ACTOR, asked.id)


async def look(till: Till, refund: objects.Refund) -> objects.Refund:
    """The refund as it stands."""
    async with till.ctx.database.connection() as connection:
        return await refunds.get_refund(connection, till.ctx, till.merchant_id, refund.id)


def spends(refund: objects.Refund) -> set[tuple[str, int]]:
    """The outputs that its PSBT spends; none without one."""
    request = refund.payment_request
    assert request is not None
    if request.psbt is None:
        return set()
    return {(one.txid.hex(), one.vout) for one in PSBT.from_base64(request.psbt).tx.vin}


async def renewed(till: Till) -> int:
    """How many PSBTs the refund watch makes anew after a while."""
    till.clock.advance(PSBT_EVERY.total_seconds())
    return await RefundWatch(till.ctx).renew()


def sent(text: str, amount: int = ASKED) -> ObservedTransfer:
    """A transfer to the customer."""
    return ObservedTransfer(hash_of(text), Channel.OUTPUT, 0, "", SCRIPT, None, amount, (coin(text),))


@pytest.mark.parametrize(("early", "status"), [(0, "confirming"), (1, "awaiting_signature")])
async def test_a_refund_is_recognised_in_a_block_dated_before_it(till: Till, early: int, status: str) -> None:
    """Miners date blocks behind as well as ahead. What is older than that was sent for another reason.

    A defect once: two minutes were allowed as on other chains. The refund looked unsent, and what its PSBT spent looked
    spent elsewhere, so that another PSBT was made: the customer was to be paid twice.
    """
    till.clock.advance(6 * 3600)
    invoice, _ = await paid(till)
    refund = await approved(till, invoice)
    dated = till.clock.at - timedelta(hours=2, seconds=early)
    await till.mine(sent("refund"), time=dated)
    assert (await look(till, refund)).status == status


async def test_a_psbt_whose_output_was_replaced_for_good_is_made_anew(till: Till) -> None:
    """A payment that the PSBT spends left the chain, and another transaction spent what it needs.

    A defect once: only an output that was spent elsewhere was given up, so that the refund waited for ever for one that
    can never come. Bug planted: given up as soon as it is replaced, though a reorganisation may bring it back.
    """
    invoice, own = await paid(till, 2 * ASKED)
    _, largest = await paid(till, 8 * ASKED)
    refund = await approved(till, invoice, rule=RefundRule.EXCESS)
    assert spends(refund) == {(largest.tx_hash, 0)}
    await till.reorganise(2, [])
    await till.mine(spends={largest.spend_keys[0]: hash_of("another transaction")})
    assert await renewed(till) == 0
    assert spends(await look(till, refund)) == set()
    await till.mine()
    assert await renewed(till) == 1
    assert spends(await look(till, refund)) == {(own.tx_hash, 0)}


async def test_outputs_are_sought_among_the_newest(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ever came and were spent, a refund that waits for an output costs the same every minute.

    A defect once: every output that a merchant ever received was looked through, a second for a million.
    """
    monkeypatch.setattr(refund_inputs, "NEWEST_MAX", 2)
    invoice, _ = await paid(till, 8 * ASKED)
    newest = set()
    for _ in range(2):
        till.clock.advance(1)
        _, transfer = await paid(till, 2 * ASKED)
        newest.add((transfer.tx_hash, 0))
    refund = await approved(till, invoice, amount="0.0003")
    assert len(spends(refund) & newest) == len(spends(refund)) == 1
