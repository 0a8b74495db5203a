"""Public invoices as samples, and the view made of them: for tests that need no database. What is nobody's business but
the merchant's holds `secret` or `internal`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tallystick.core.invoice import Status
from tallystick.services import objects
from tallystick.services.checkout import build_view
from tallystick.services.checkout_situations import Known
from tallystick.services.checkout_view import CustomerView
from tests.web.shop import NETWORKS

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


def option(**changes: Any) -> objects.PaymentOption:
    given: dict[str, Any] = {
        "id": "opt_1",
        "asset": "ETH",
        "network": "ethereum",
        "token_contract": None,
        "decimals": 18,
        "status": "active",
        "address": ADDRESS,
        "derivation": objects.Derivation(wallet_id="wal_secret", path="0/7", index=7),
        "amount_expected": "0.0196",
        "amount_detected": "0",
        "amount_received": "0",
        "amount_due": "0.0196",
        "uri": f"ethereum:{ADDRESS}@1?value=19600000000000000",
        "rate": objects.QuotedRate(
            value="2500", source="static", quoted_at=NOW, expires_at=NOW + timedelta(seconds=900)
        ),
        "tolerance": objects.Tolerance(under_bps=50, over_bps=1000),
        "confirmations": 0,
        "confirmations_required": 12,
        "finality": "depth",
        "policy": objects.Policy(name="secret-policy", explanation="internal reasons"),
    }
    return objects.PaymentOption(**(given | changes))


def payment(**changes: Any) -> objects.Payment:
    given: dict[str, Any] = {
        "id": "pay_1",
        "invoice_id": "inv_1",
        "option_id": "opt_1",
        "transfer_id": "trf_1",
        "match": "matched",
        "tx_hash": "0x" + "ab" * 32,
        "ordinal": 0,
        "log_index": None,
        "sender": "0xSender",
        "to": ADDRESS,
        "asset": "ETH",
        "network": "ethereum",
        "token_contract": None,
        "amount": "0.0196",
        "status": "confirming",
        "block_height": 5,
        "block_hash": "0xb",
        "block_time": NOW,
        "first_seen_at": NOW,
        "confirmations": 3,
        "confirmations_required": 12,
        "traits": [],
        "on_time": True,
        "replaced_by": None,
        "confirmed_at": None,
    }
    return objects.Payment(**(given | changes))


def invoice(status: Status, **changes: Any) -> objects.Invoice:
    given: dict[str, Any] = {
        "id": "inv_1",
        "status": status.value,
        "order_id": "A-1001",
        "amount": "49.00",
        "currency": "USD",
        "amount_paid": "0.00",
        "payment_options": [option()],
        "payments": [],
        "checkout_url": "http://127.0.0.1/i/inv_1",
        "next_action": objects.NextAction(owner="support", action="x", text="internal next action"),
        "late_payment": "review",
        "product_type": "secret-type",
        "success_url": "https://shop.example/thanks",
        "cancel_url": "https://shop.example/basket",
        "canceled_at": None,
        "fulfilled_at": None,
        "fulfillment": {"note": "secret note"},
        "settlement_id": None,
        "expires_at": NOW + timedelta(seconds=900),
        "created_at": NOW,
        "updated_at": NOW,
        "metadata": {"internal": "secret-margin"},
        "customer": {"email": "jo@customer.example"},
    }
    return objects.Invoice(**(given | changes))


def view(
    status: Status,
    *,
    now: datetime = NOW,
    known: Known = Known(),  # noqa: B008  # frozen
    **changes: Any,
) -> CustomerView:
    return build_view(
        invoice(status, **changes), merchant_name="Kiln & Clay", networks=NETWORKS, now=now, known=known
    )
