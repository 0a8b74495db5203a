"""The bodies that the API takes, field for field as published.

For: the handlers, and OpenAPI, which is made from them. Holds true: an unknown field is an error; amounts are
strings; lengths are bounded here, meaning is judged by services and core. Metadata holds strings only: a number
would come back changed by one reader or another. Must not: hold defaults that differ from the services'.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tallystick.core.cases import Resolution
from tallystick.core.errors import FieldProblem, InvalidInput
from tallystick.core.invoice import LatePayment
from tallystick.core.money import AMOUNT_TEXT_LENGTH_MAX, DECIMAL_PATTERN
from tallystick.core.policy_rules import RULES_MAX
from tallystick.core.refund import FeePayer, RefundRule
from tallystick.core.urls import URL_LENGTH_MAX, check_return_url
from tallystick.services.disputes import EVIDENCE_MAX, DisputeOutcome, Exhibit
from tallystick.services.exceptions import NOTE_LENGTH_MAX, RefundWish, Resolve
from tallystick.services.invoices import NewInvoice
from tallystick.services.policies import PolicyRule, PreviewRequest
from tallystick.services.wallets import NewWallet
from tallystick.services.webhooks import EndpointChange, NewEndpoint

EXAMPLE_XPUB = (
    "xpub6DCoCpSuQZB2jawqnGMEPS63ePKWkwWPH4TU45Q7LPXWuNd8TMtVx"
    "RrgjtEshuqpK3mdhaWHPFsBngh5GFZaM6si3yZdUsT8ddYM3PwnATt"
)
"""Account 0 of the mnemonic that BIP39's test vectors begin with: known to everybody, so nobody takes money on it."""

METADATA_KEYS_MAX = 50
METADATA_KEY_LENGTH_MAX = 40
METADATA_VALUE_LENGTH_MAX = 500

Word = Annotated[str, Meta(min_length=1, max_length=64)]
Reference = Annotated[str, Meta(min_length=1, max_length=200)]
Note = Annotated[str, Meta(min_length=1, max_length=1000)]
Link = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=URL_LENGTH_MAX,
        description="An https link; other characters than ASCII are percent-encoded.",
        examples=["https://shop.example/after?order=7"],
        extra_json_schema={"format": "uri"},
    ),
]
Pairs = Annotated[
    dict[str, str],
    Meta(
        description="Up to 50 pairs of text: names of up to 40 characters, values of up to 500. Kept as sent.",
        examples=[{"basket": "7"}],
        # Checked by `check_pairs`, which names the pair.
        extra_json_schema={
            "maxProperties": METADATA_KEYS_MAX,
            "propertyNames": {"minLength": 1, "maxLength": METADATA_KEY_LENGTH_MAX},
            "additionalProperties": {"type": "string", "maxLength": METADATA_VALUE_LENGTH_MAX},
        },
    ),
]
Amount = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=AMOUNT_TEXT_LENGTH_MAX,
        description='A decimal string such as "12.50", with at most as many decimal places as its unit has.',
        examples=["12.50"],
        extra_json_schema={"pattern": f"^{DECIMAL_PATTERN}$"},
    ),
]
Currency = Annotated[
    str,
    Meta(min_length=1, max_length=20, description="ISO 4217 code, or an asset's symbol.", examples=["USD"]),
]
EventName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="An event's type; `*`: all of them.",
        examples=["invoice.paid"],
    ),
]
AssetSymbol = Annotated[str, Meta(min_length=1, max_length=64, examples=["ETH"])]
NetworkName = Annotated[str, Meta(min_length=1, max_length=64, examples=["ethereum"])]
Address = Annotated[
    str, Meta(min_length=1, max_length=200, examples=["0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"])
]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every request body."""


class NoFields(Body, frozen=True):
    """An action without fields: no body, or `{}`."""


class Accepted(Body, frozen=True):
    """A way to pay: an asset by its symbol, on a network by its name."""

    asset: AssetSymbol
    network: NetworkName


class Customer(Body, frozen=True):
    """Who pays, as far as the merchant wants it kept with the invoice."""

    reference: Annotated[str, Meta(max_length=200)] | None = None
    email: Annotated[str, Meta(max_length=254)] | None = None
    name: Annotated[str, Meta(max_length=200)] | None = None


class CreateInvoice(Body, frozen=True):
    """What is asked of whom. `expires_in` is in seconds."""

    amount: Amount
    currency: Currency
    accepted: Annotated[list[Accepted], Meta(min_length=1, max_length=100)] | None = None
    order_id: Reference | None = None
    customer: Customer | None = None
    product_type: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    metadata: Pairs | None = None
    expires_in: Annotated[int, Meta(ge=10, le=2_592_000)] = 900
    success_url: Link | None = None
    cancel_url: Link | None = None
    late_payment: LatePayment = LatePayment.REVIEW
    confirmation_policy: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    activate: bool | None = None

    def to_service(self) -> NewInvoice:
        """As the service takes it. Raises InvalidInput for links and metadata."""
        for pointer, link in (("/success_url", self.success_url), ("/cancel_url", self.cancel_url)):
            if link is not None:
                check_return_url(link, pointer=pointer)
        customer = {} if self.customer is None else msgspec.to_builtins(self.customer)
        return NewInvoice(
            amount=self.amount,
            currency=self.currency,
            accepted=None
            if self.accepted is None
            else tuple((one.asset, one.network) for one in self.accepted),
            order_id=self.order_id,
            customer={name: value for name, value in customer.items() if value is not None},
            product_type=self.product_type,
            metadata=check_pairs("/metadata", self.metadata or {}),
            expires_in_seconds=self.expires_in,
            success_url=self.success_url,
            cancel_url=self.cancel_url,
            late_payment=self.late_payment,
            confirmation_policy=self.confirmation_policy,
            activate=self.activate,
        )


class RecordFulfillment(Body, frozen=True):
    """What the merchant says about the delivery; all of it is optional."""

    reference: Reference | None = None
    note: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None

    def to_service(self) -> dict[str, Any]:
        """As the service takes it: only what was said."""
        said = {"reference": self.reference, "note": self.note}
        return {name: value for name, value in said.items() if value is not None}


class RefundOfCase(Body, frozen=True):
    """How a refund that resolves an exception is made. What is left out follows from the exception."""

    payment_option_id: Word | None = None
    amount: Amount | None = None
    rule: RefundRule | None = None
    address: Address | None = None
    network: NetworkName | None = None
    asset: AssetSymbol | None = None
    reason: Note | None = None
    fee: FeePayer = FeePayer.MERCHANT
    fee_amount: Amount | None = None


class ResolveException(Body, frozen=True):
    """What was decided. `value`, in the currency of the invoice it counts to, belongs to credit, and to attach where
    the other invoice did not ask for this; `invoice_id` and `payment_option_id` to attach: the other invoice; `refund`
    to refund."""

    action: Resolution
    note: Annotated[str, Meta(min_length=1, max_length=NOTE_LENGTH_MAX)]
    value: Amount | None = None
    invoice_id: Word | None = None
    payment_option_id: Word | None = None
    refund: RefundOfCase | None = None

    def to_service(self) -> Resolve:
        """As the service takes it."""
        wish = {} if self.refund is None else msgspec.structs.asdict(self.refund)
        return Resolve(
            action=self.action,
            note=self.note,
            refund=RefundWish(**wish),
            value=self.value,
            invoice_id=self.invoice_id,
            payment_option_id=self.payment_option_id,
        )


class AssignException(Body, frozen=True):
    """Who has the case from now on: a person or a team, in your own words."""

    owner: Reference
    note: Annotated[str, Meta(min_length=1, max_length=NOTE_LENGTH_MAX)] | None = None


class DisputeEvidence(Body, frozen=True):
    """One piece of evidence: what it is, and either its text or its address."""

    type: Word
    text: Annotated[str, Meta(min_length=1, max_length=2000)] | None = None
    url: Link | None = None


def _exhibits(evidence: list[DisputeEvidence]) -> tuple[Exhibit, ...]:
    """Evidence as the service takes it. Raises InvalidInput for links."""
    for position, one in enumerate(evidence):
        if one.url is not None:
            check_return_url(one.url, pointer=f"/evidence/{position}/url")
    return tuple(Exhibit(one.type, one.text, one.url) for one in evidence)


class OpenDispute(Body, frozen=True):
    """Why a payment is disputed."""

    reason: Reference
    note: Annotated[str, Meta(min_length=1, max_length=2000)]
    evidence: Annotated[list[DisputeEvidence], Meta(max_length=EVIDENCE_MAX)] = []

    def exhibits(self) -> tuple[Exhibit, ...]:
        """As the service takes it."""
        return _exhibits(self.evidence)


class ResolveDispute(Body, frozen=True):
    """How a dispute ended: for the merchant, for the customer (then give money back by a refund), or withdrawn."""

    outcome: DisputeOutcome
    note: Annotated[str, Meta(min_length=1, max_length=2000)]
    evidence: Annotated[list[DisputeEvidence], Meta(max_length=EVIDENCE_MAX)] = []

    def exhibits(self) -> tuple[Exhibit, ...]:
        """As the service takes it."""
        return _exhibits(self.evidence)


class RegisterWallet(Body, frozen=True):
    """An account's public key. A private key is refused."""

    family: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            description="evm, bitcoin, litecoin or tron.",
            examples=["evm"],
        ),
    ]
    account_key: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=4096,
            description="The account's extended public key; for Bitcoin and Litecoin also an output descriptor.",
            examples=[EXAMPLE_XPUB],
        ),
    ]
    label: Annotated[str, Meta(max_length=200)] = ""

    def to_service(self) -> NewWallet:
        """As the service takes it."""
        return NewWallet(self.family, self.account_key, self.label)


class PutConfirmationPolicy(Body, frozen=True):
    """All rules, in order: the first that matches applies. An empty list leaves every network's default."""

    rules: Annotated[list[PolicyRule], Meta(max_length=RULES_MAX)]


class PreviewConfirmationPolicy(Body, frozen=True):
    """An invoice as far as rules look at it. `asset` and `network` left out: everything that would be accepted."""

    amount: Amount
    currency: Currency
    asset: AssetSymbol | None = None
    network: NetworkName | None = None
    product_type: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    confirmation_policy: Annotated[str, Meta(min_length=1, max_length=100)] | None = None

    def to_service(self) -> PreviewRequest:
        """As the service takes it."""
        return PreviewRequest(
            amount=self.amount,
            currency=self.currency,
            asset=self.asset,
            network=self.network,
            product_type=self.product_type,
            confirmation_policy=self.confirmation_policy,
        )


class CreateEndpoint(Body, frozen=True):
    """Where events are to be delivered."""

    url: Link
    events: Annotated[list[EventName], Meta(min_length=1, max_length=100)] = msgspec.field(
        default_factory=lambda: ["*"]
    )
    description: Annotated[str, Meta(max_length=500)] = ""

    def to_service(self) -> NewEndpoint:
        """As the service takes it."""
        return NewEndpoint(self.url, tuple(self.events), self.description)


class ChangeEndpoint(Body, frozen=True):
    """What to change; a field that is left out stays as it is."""

    url: Link | UnsetType = UNSET
    events: Annotated[list[EventName], Meta(min_length=1, max_length=100)] | UnsetType = UNSET
    description: Annotated[str, Meta(max_length=500)] | UnsetType = UNSET
    status: Word | UnsetType = UNSET

    def to_service(self) -> EndpointChange:
        """As the service takes it."""
        return EndpointChange(
            url=None if self.url is UNSET else self.url,
            events=None if self.events is UNSET else tuple(self.events),
            description=None if self.description is UNSET else self.description,
            status=None if self.status is UNSET else self.status,
        )


class Redeliver(Body, frozen=True):
    """To which endpoint; left out: to every enabled one that wants the event or had it."""

    endpoint_id: Word | None = None


def check_pairs(pointer: str, pairs: dict[str, str]) -> dict[str, str]:
    """The pairs as given, if they keep to the limits. Raises InvalidInput."""
    if len(pairs) > METADATA_KEYS_MAX:
        raise InvalidInput.at(pointer, f"has {len(pairs)} keys; at most {METADATA_KEYS_MAX} are possible")
    problems: list[FieldProblem] = []
    for key, value in pairs.items():
        place = f"{pointer}/{key[:METADATA_KEY_LENGTH_MAX].replace('~', '~0').replace('/', '~1')}"
        if not 1 <= len(key) <= METADATA_KEY_LENGTH_MAX:
            problems.append(FieldProblem(place, f"a key has 1 to {METADATA_KEY_LENGTH_MAX} characters"))
        if len(value) > METADATA_VALUE_LENGTH_MAX:
            problems.append(
                FieldProblem(place, f"a value has at most {METADATA_VALUE_LENGTH_MAX} characters")
            )
    if problems:
        raise InvalidInput("The metadata does not keep to its limits.", problems=tuple(problems))
    return pairs
