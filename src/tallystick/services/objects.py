"""The public objects, field for field as in the contract: what the API answers and what events carry.

For: `services` (which fill them), `api` (whose OpenAPI is made from them) and receivers. Holds true: amounts are
decimal strings, times are RFC 3339 UTC, an id always has the same name. The same invoice looks the same in an answer
and in an event. Must not: hold anything that a merchant's own systems may not see (secrets appear once, where the
contract says).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class QuotedRate(msgspec.Struct, frozen=True, kw_only=True):
    """The rate an amount was asked at: units of the price's currency for one whole asset."""

    value: str
    source: str
    quoted_at: datetime
    expires_at: datetime


class Tolerance(msgspec.Struct, frozen=True, kw_only=True):
    """Basis points below and above the asked amount that still count as paid in full."""

    under_bps: int
    over_bps: int


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Which rule of which version chose the confirmation requirement, and why, in a sentence. Version 0: there were no
    rules."""

    name: str
    version: int = 0
    explanation: str


class Derivation(msgspec.Struct, frozen=True, kw_only=True):
    """Where an address comes from: the wallet and the path below its account key."""

    wallet_id: str
    path: str
    index: int


class PaymentOption(msgspec.Struct, frozen=True, kw_only=True):
    """One way to pay an invoice."""

    id: str
    object: str = "payment_option"
    asset: str
    network: str
    token_contract: str | None
    decimals: int
    status: str
    address: str | None
    derivation: Derivation | None
    amount_expected: str
    amount_detected: str
    amount_received: str
    amount_due: str
    uri: str | None
    rate: QuotedRate
    tolerance: Tolerance
    confirmations: int
    confirmations_required: int | None
    finality: str
    zero_conf: bool = False
    policy: Policy


class Payment(msgspec.Struct, frozen=True, kw_only=True, rename={"sender": "from"}):
    """A transfer attributed to an invoice."""

    id: str
    object: str = "payment"
    invoice_id: str
    option_id: str
    transfer_id: str
    match: str
    tx_hash: str
    ordinal: int
    log_index: int | None
    sender: str | None
    to: str
    asset: str | None
    network: str
    token_contract: str | None
    amount: str
    status: str
    block_height: int | None
    block_hash: str | None
    block_time: datetime | None
    first_seen_at: datetime
    confirmations: int
    confirmations_required: int | None
    traits: list[str]
    on_time: bool
    replaced_by: str | None
    confirmed_at: datetime | None


class NextAction(msgspec.Struct, frozen=True, kw_only=True):
    """Who has the next move, and what it is."""

    owner: str
    action: str
    text: str


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """A payment intent and its state."""

    id: str
    object: str = "invoice"
    status: str
    order_id: str | None
    amount: str
    currency: str
    amount_paid: str
    payment_options: list[PaymentOption]
    payments: list[Payment]
    checkout_url: str
    next_action: NextAction
    late_payment: str
    product_type: str | None
    success_url: str | None
    cancel_url: str | None
    canceled_at: datetime | None
    fulfilled_at: datetime | None
    fulfillment: dict[str, Any] | None
    settlement_id: str | None
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, Any]
    customer: dict[str, Any]


class ActorObject(msgspec.Struct, frozen=True, kw_only=True):
    """Who caused a change."""

    type: str
    id: str | None


class Transition(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One step of an invoice's history."""

    sequence: int
    from_: str | None
    to: str
    reason: str
    actor: ActorObject
    evidence: list[dict[str, Any]]
    at: datetime


class ExceptionObject(msgspec.Struct, frozen=True, kw_only=True):
    """Something that needs a person: what is the matter, who has it, what they can do, and what was decided.

    `age_seconds` is left out of events. `refund` is filled where resolving asked for one, in that answer only.
    """

    id: str
    object: str = "exception"
    kind: str
    meaning: str
    invoice_id: str | None
    order_id: str | None
    subject: str | None
    payment_ids: list[str]
    owner: str
    assignments: list[dict[str, Any]]
    status: str
    next_action: NextAction
    actions: list[str]
    detail: dict[str, Any]
    opened_at: datetime
    resolution: dict[str, Any] | None
    resolved_at: datetime | None
    age_seconds: int | msgspec.UnsetType = msgspec.UNSET
    refund: Refund | msgspec.UnsetType = msgspec.UNSET


class PaymentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a wallet elsewhere signs: a link that wallets open, and the same as an unsigned transaction.

    `unsigned_transaction` holds what is fixed (`chain_id`, `to`, `value`, `data`; `value` in base units, as a decimal
    string); the wallet fills in who sends it, its nonce and its fee. `psbt` (BIP 174, base64; Bitcoin's family) spends
    outputs that this wallet was paid with and pays `psbt_fee` to the network; it stays the same for as long as it can
    be mined. Where there is none, `psbt_problem` says why, and the link still serves.
    """

    uri: str
    unsigned_transaction: dict[str, Any] | None
    psbt: str | None
    psbt_fee: str | None
    psbt_problem: str | None


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """Money given back: a payment in the other direction. `amount` is what it takes from what was received,
    `amount_sent` what the customer gets. `claim_url` is filled when it is made, and never again."""

    id: str
    object: str = "refund"
    status: str
    invoice_id: str
    exception_id: str | None
    payment_option_id: str
    asset: str
    network: str
    token_contract: str | None
    amount: str
    amount_sent: str
    fee: str
    fee_amount: str
    rule: str
    address: str | None
    address_source: str | None
    reason: str
    detail: dict[str, Any]
    requested_by: ActorObject
    approved_by: ActorObject | None
    decision_note: str | None
    payment_request: PaymentRequest | None
    tx_hash: str | None
    confirmations: int
    confirmations_required: int | None
    problem: str | None
    next_action: NextAction
    claim_expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    claim_url: str | msgspec.UnsetType = msgspec.UNSET


class AssetObject(msgspec.Struct, frozen=True, kw_only=True):
    """A token that counts on a network."""

    symbol: str
    contract: str | None
    decimals: int


class NativeObject(msgspec.Struct, frozen=True, kw_only=True):
    """A network's own coin."""

    symbol: str
    decimals: int


class NetworkObject(msgspec.Struct, frozen=True, kw_only=True):
    """A configured network and how far it has been processed."""

    name: str
    object: str = "network"
    kind: str
    chain_id: int | None
    chain: str | None
    native: NativeObject
    assets: list[AssetObject]
    finality: str
    confirmations: int | None
    safety_depth: int
    status: str
    height: int | None
    head: int | None
    lag_blocks: int | None
    lag_seconds: int | None
    safe_height: int | None
    finalized_height: int | None
    problem: str | None


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """A registered account public key. `first_addresses` are for the owner to compare with their own wallet."""

    id: str
    object: str = "wallet"
    family: str
    label: str
    account_key: str
    first_addresses: dict[str, list[str]]
    next_index: int
    gap: int
    created_at: datetime


class WebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Where events are delivered. `secret` is filled on creation and rotation only."""

    id: str
    object: str = "webhook_endpoint"
    url: str
    events: list[str]
    description: str
    status: str
    disabled_reason: str | None
    failing_since: datetime | None
    created_at: datetime
    secret: str | msgspec.UnsetType = msgspec.UNSET


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a delivery."""

    at: datetime
    status_code: int | None
    duration_ms: int
    error: str | None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """The way of one event to one endpoint."""

    id: str
    object: str = "delivery"
    event_id: str
    endpoint_id: str
    status: str
    next_attempt_at: datetime | None
    attempts: list[Attempt]
    created_at: datetime


class EventData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened to which object. `sequence` counts the events of one object without gaps, so receivers can sort."""

    object: Any
    sequence: int
    previous_status: str | None = None
    transition: Transition | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A change that was recorded. Exactly these bytes are signed and sent."""

    id: str
    object: str = "event"
    type: str
    created_at: datetime
    data: EventData
