"""The bodies that refunds take, field for field as published. The rules of `api.requests` hold."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tallystick.api.requests import Amount, AssetSymbol, Body, NetworkName, Word
from tallystick.core.refund import FeePayer, RefundRule
from tallystick.services.refunds import NewRefund

Note = Annotated[str, Meta(max_length=1000, description="Why, in the words of who decides; kept for good.")]


class CreateRefund(Body, frozen=True):
    """What to give back: of an invoice, or of what an exception is about; an amount, or a rule."""

    reason: Annotated[str, Meta(min_length=1, max_length=1000)]
    invoice_id: Word | None = None
    exception_id: Word | None = None
    payment_option_id: Word | None = None
    amount: Amount | None = None
    rule: RefundRule | None = None
    address: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=200,
                examples=["0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"],
                description="Where it goes; you confirm it for the customer. Left out: they give it on the claim page.",
            ),
        ]
        | None
    ) = None
    network: NetworkName | None = None
    asset: AssetSymbol | None = None
    fee: FeePayer = FeePayer.MERCHANT
    fee_amount: (
        Annotated[
            Amount,
            Meta(
                description="With `fee` customer: how much of the amount is kept back for the network's fee.",
            ),
        ]
        | None
    ) = None

    def to_service(self) -> NewRefund:
        """As the service takes it."""
        return NewRefund(
            reason=self.reason,
            invoice_id=self.invoice_id,
            exception_id=self.exception_id,
            payment_option_id=self.payment_option_id,
            amount=self.amount,
            rule=self.rule,
            address=self.address,
            network=self.network,
            asset=self.asset,
            fee=self.fee,
            fee_amount=self.fee_amount,
        )


class DecideRefund(Body, frozen=True):
    """A decision about a refund; the note is optional."""

    note: Note = ""


class BroadcastRefund(Body, frozen=True):
    """In which transaction a refund was sent. Only a hint: the chain decides."""

    tx_hash: Annotated[str, Meta(min_length=1, max_length=100)]
