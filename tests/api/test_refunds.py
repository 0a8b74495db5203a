"""Refunds over HTTP: what can be asked, by whom, and what is refused.

Cites R-REFUND 1-3, F-TOKEN 2, F-API 1, 3, 5. What the chain does to refunds is in `tests/scenarios/test_refunds.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from tallystick.core.chain import Block, Channel
from tallystick.core.money import format_units
from tallystick.rates.source import Rate, StaticRates
from tallystick.services.claiming import confirm_address
from tallystick.services.intake import Step, apply_step
from tallystick.services.merchants import Scope
from tests.support.app import Api, Client, Merchant, mine_by_hand, running_api, transfer_to
from tests.support.stand import RATES

WEI = 10**16  # what 25.00 USD asks
HERE = "0xC0FfEe0000000000000000000000000000000001".lower()
BAD_CHECKSUM = (
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD"  # EIP-55's first example with its last letter's case changed
)


class MovingRates:
    """Static rates that a test moves."""

    def __init__(self) -> None:
        self.pairs = dict(RATES)
        self.before: Callable[[], Awaitable[None]] | None = None  # what happens while the sources are asked

    async def rate(self, base: str, quote: str) -> Rate:
        """The rate now."""
        if self.before is not None:
            await self.before()
        return await StaticRates(self.pairs).rate(base, quote)


@pytest.fixture
def rates() -> MovingRates:
    return MovingRates()


@pytest.fixture
async def api(database_url: str, rates: MovingRates) -> AsyncIterator[Api]:
    """The API with rates that can move."""
    async with running_api(database_url, rates=rates) as served:
        yield served


async def paid(api: Api, client: Client, *amounts: int, **changes: Any) -> dict[str, Any]:
    """An invoice over 25 USD in ETH with these payments (what it asks by default), confirmed."""
    invoice = await client.invoice(**changes)
    nonce = int(invoice["id"][-8:], 32)
    for number, amount in enumerate(amounts or (WEI,)):
        await api.pay(invoice, amount, nonce=nonce + number)
    for _ in range(2):
        await mine_by_hand(api.ctx, "ethereum")
    return invoice


_keys = iter(f"refund-{number}" for number in range(10_000))


async def ask(client: Client, invoice: dict[str, Any], **changes: Any) -> Any:
    """The answer to a request for everything, unless said otherwise."""
    body: dict[str, Any] = {"invoice_id": invoice["id"], "reason": "returned", "address": HERE}
    if "amount" not in changes and "rule" not in changes:
        body["rule"] = "received"
    sent = {name: value for name, value in (body | changes).items() if value is not None}
    return await client.post("/v1/refunds", sent, key=next(_keys))


def pointers(answer: Any) -> list[str]:
    """Where the fields are wrong."""
    assert answer.status_code == 422, answer.text
    return [problem["pointer"] for problem in answer.json()["errors"]]


async def test_a_refund_as_it_is_asked_for_and_read(api: Api, client: Client) -> None:
    invoice = await paid(api, client)
    answer = await ask(client, invoice, payment_option_id=invoice["payment_options"][0]["id"])
    assert answer.status_code == 201, answer.text
    refund = answer.json()
    assert answer.headers["location"].endswith(f"/v1/refunds/{refund['id']}")
    assert refund["id"].startswith("rfd_")
    shown = {
        "object": "refund",
        "status": "requested",
        "invoice_id": invoice["id"],
        "asset": "ETH",
        "network": "ethereum",
        "amount": "0.01",
        "amount_sent": "0.01",
        "fee": "merchant",
        "fee_amount": "0",
        "rule": "received",
        "address": "0xC0ffEE0000000000000000000000000000000001",
        "address_source": "merchant",
        "reason": "returned",
        "approved_by": None,
        "payment_request": None,
        "tx_hash": None,
        "confirmations": 0,
        "problem": None,
    }
    assert {name: refund[name] for name in shown} | {"address": refund["address"].lower()} == shown | {
        "address": HERE
    }
    assert refund["requested_by"]["type"] == "merchant"
    assert refund["next_action"]["action"] == "approve"
    assert "claim_url" not in refund
    assert (await client.get(f"/v1/refunds/{refund['id']}")).json() == refund
    approved = (await client.post(f"/v1/refunds/{refund['id']}/approve")).json()
    assert approved["status"] == "awaiting_signature"
    request = approved["payment_request"]
    assert request["uri"] == f"ethereum:{approved['address']}@1?value={WEI}"
    assert request["unsigned_transaction"] == {
        "type": "0x2",
        "chain_id": 1,
        "from": None,
        "to": approved["address"],
        "value": str(WEI),
        "data": "0x",
    }


async def test_the_idempotency_key_is_required_and_holds(api: Api, client: Client) -> None:
    """The same key and body is the same refund; without one nothing happens."""
    invoice = await paid(api, client)
    body = {"invoice_id": invoice["id"], "reason": "returned", "rule": "received"}
    refused = await client.post("/v1/refunds", body)
    assert (refused.status_code, refused.json()["code"]) == (400, "idempotency_key_required")
    first = await client.post("/v1/refunds", body, key="once")
    again = await client.post("/v1/refunds", body, key="once")
    assert (first.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert first.json() == again.json()
    assert first.json()["claim_url"].startswith(f"{api.url}/r/{first.json()['id']}?token=")
    listed = (await client.get("/v1/refunds")).json()["data"]
    assert [one["id"] for one in listed] == [first.json()["id"]]
    assert "claim_url" not in listed[0]


async def test_rights(api: Api, client: Client, merchant: Merchant) -> None:
    """Each right opens its own doors; another merchant's refund does not exist."""
    invoice = await paid(api, client)
    refund = (await ask(client, invoice)).json()
    reader = api.client(await api.key(merchant, Scope.INVOICES_READ))
    asker = api.client(await api.key(merchant, Scope.REFUNDS_WRITE))
    approver = api.client(await api.key(merchant, Scope.REFUNDS_APPROVE))
    path = f"/v1/refunds/{refund['id']}"
    assert [(await one.get(path)).status_code for one in (reader, asker, approver)] == [200] * 3
    assert (await ask(reader, invoice)).status_code == 403
    assert (await ask(approver, invoice)).status_code == 403
    assert (await asker.post(f"{path}/approve")).status_code == 403
    assert (await asker.post(f"{path}/reject")).status_code == 403
    assert (await approver.post(f"{path}/claim_link")).status_code == 403
    stranger = api.client((await api.merchant("Other", account=1)).key)
    assert (await stranger.get(path)).status_code == 404
    for action, body in (
        ("approve", None),
        ("reject", None),
        ("broadcast", {"tx_hash": "0x" + "1" * 64}),
        ("claim_link", None),
    ):
        assert (await stranger.post(f"{path}/{action}", body)).status_code == 404
    assert (await ask(stranger, invoice)).status_code == 404
    assert (await approver.post(f"{path}/approve", {"note": "fine"})).json()["decision_note"] == "fine"


async def test_lists_filter(api: Api, client: Client) -> None:
    one, other = await paid(api, client), await paid(api, client)
    first, second = (await ask(client, one)).json(), (await ask(client, other)).json()
    await client.post(f"/v1/refunds/{first['id']}/reject", {"note": "no"})

    async def ids(**parameters: str) -> list[str]:
        return [found["id"] for found in (await client.get("/v1/refunds", **parameters)).json()["data"]]

    assert await ids() == [second["id"], first["id"]]
    assert await ids(status="rejected") == [first["id"]]
    assert await ids(invoice_id=other["id"]) == [second["id"]]
    page = (await client.get("/v1/refunds", limit="1")).json()
    assert [found["id"] for found in page["data"]] == [second["id"]]
    assert await ids(cursor=page["next_cursor"]) == [first["id"]]
    assert (await client.get("/v1/refunds", status="lost")).json()["code"] == "invalid_parameter"
    assert (await client.get("/v1/refunds", order_id="1")).json()["code"] == "unknown_parameter"


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"rule": "amount"}, "/amount"),
        ({"rule": None}, "/amount"),
        ({"amount": "0.01", "rule": "received"}, "/rule"),
        ({"amount": "0.0100000000000000001", "rule": None}, "/amount"),
        ({"amount": "0.011", "rule": None}, "/amount"),
        ({"amount": "0", "rule": None}, "/amount"),
        ({"amount": "1e-3", "rule": None}, "/amount"),
        ({"payment_option_id": "opt_00000000000000000000000000"}, "/payment_option_id"),
        ({"asset": "DUSD"}, "/asset"),
        ({"network": "polygon"}, "/network"),
        ({"fee_amount": "0.001"}, "/fee_amount"),
        ({"fee": "customer"}, "/fee_amount"),
        ({"fee": "customer", "fee_amount": "0.01"}, "/fee_amount"),
        ({"fee": "sender"}, "/fee"),
        ({"reason": ""}, "/reason"),
        ({"reason": None}, "/reason"),
        ({"exception_id": "exc_00000000000000000000000000"}, "/invoice_id"),
        ({"invoice_id": None}, "/invoice_id"),
        ({"address": "0x" + "0" * 40}, "/address"),
        ({"address": "0x" + "0" * 39 + "1"}, "/address"),
        ({"address": "0x000000000000000000000000000000000000dEaD"}, "/address"),
        ({"address": "0xEeeeeEeeeEeEeeEeEeEeeEEEeeeeEeeeeeeeEEeE"}, "/address"),  # "the native coin"
        ({"address": "0x" + "f" * 40}, "/address"),
        ({"address": BAD_CHECKSUM}, "/address"),
        ({"address": "0x" + "a1" * 20}, "/address"),  # the token's contract
        ({"address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"}, "/address"),
        ({"claim_url": "x"}, "/claim_url"),
    ],
)
async def test_what_is_wrong_is_named(
    api: Api, client: Client, changes: dict[str, Any], pointer: str
) -> None:
    invoice = await paid(api, client)
    answer = await ask(client, invoice, **({"rule": "received"} | changes))
    assert pointers(answer) == [pointer], answer.text
    assert (await client.get("/v1/refunds")).json()["data"] == []


async def test_no_address_of_ours_is_a_destination(api: Api, client: Client) -> None:
    """Neither this merchant's nor another's issued address (F-CHAIN: money in a circle)."""
    invoice = await paid(api, client)
    other = await api.client((await api.merchant("Other", account=1)).key).invoice()
    for issued in (invoice, other):
        answer = await ask(client, invoice, address=issued["payment_options"][0]["address"])
        assert pointers(answer) == ["/address"]


async def test_only_confirmed_money_goes_back(api: Api, client: Client) -> None:
    """Seen and confirming money is not there to be given back; dust of a stranger changes nothing."""
    invoice = await client.invoice()
    assert (await ask(client, invoice)).json()["code"] == "invalid_state"
    await api.pay(invoice, WEI, nonce=77)
    refused = await ask(client, invoice)
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid_state")
    await mine_by_hand(api.ctx, "ethereum")
    await mine_by_hand(api.ctx, "ethereum")
    assert (await ask(client, invoice)).status_code == 201
    gone = await ask(client, invoice)
    assert (gone.status_code, gone.json()["code"]) == (409, "invalid_state")


async def test_never_more_than_came_whatever_is_asked(api: Api, client: Client) -> None:
    """Parts, rejected ones, and the rest: the sum of what is alive stays within what was credited."""
    invoice = await paid(api, client)
    first = (await ask(client, invoice, amount="0.006")).json()
    assert pointers(await ask(client, invoice, amount="0.0041")) == ["/amount"]
    rest = (await ask(client, invoice)).json()
    assert rest["amount"] == "0.004"
    await client.post(f"/v1/refunds/{first['id']}/reject")
    assert (await ask(client, invoice, amount="0.006")).status_code == 201
    assert (await ask(client, invoice, amount="0.000000000000000001")).status_code == 422


async def test_an_unpaid_invoice_gives_back_everything_or_nothing(api: Api, client: Client) -> None:
    """A part that went back would count towards what more money can make paid.

    Bug planted: parts allowed (returned 0.003, topped up 0.005: paid with 0.007 of 0.01 there).
    """
    invoice = await paid(api, client, WEI // 2)
    assert pointers(await ask(client, invoice, amount="0.003")) == ["/amount"]
    refund = (await ask(client, invoice)).json()
    assert refund["amount"] == "0.005"
    await client.post(f"/v1/refunds/{refund['id']}/approve")
    assert (await client.get(f"/v1/invoices/{invoice['id']}")).json()["status"] == "awaiting_payment"


async def test_the_customer_bears_a_fee(api: Api, client: Client) -> None:
    invoice = await paid(api, client)
    refund = (await ask(client, invoice, fee="customer", fee_amount="0.0005")).json()
    assert (refund["amount"], refund["fee_amount"], refund["amount_sent"]) == ("0.01", "0.0005", "0.0095")
    approved = (await client.post(f"/v1/refunds/{refund['id']}/approve")).json()
    assert approved["payment_request"]["unsigned_transaction"]["value"] == str(95 * 10**14)


@pytest.mark.parametrize(
    ("rate", "amount"),
    [
        (Fraction(5000), "0.005"),  # dearer now: less of it is worth 25 USD
        (Fraction(2000), "0.01"),  # cheaper: more would be, but only this came
        (Fraction(3000), "0.00833334"),  # rounded up to a payable unit
    ],
)
async def test_the_fiat_value_by_the_rate_now(
    api: Api, client: Client, rates: MovingRates, rate: Fraction, amount: str
) -> None:
    invoice = await paid(api, client)
    rates.pairs["ETH/USD"] = rate
    refund = (await ask(client, invoice, rule="fiat_value")).json()
    assert refund["amount"] == amount
    assert refund["detail"] == {
        "value": "25",
        "currency": "USD",
        "rate": format_units(int(rate), 0),
        "rate_source": "static",
    }


async def test_no_rate_no_fiat_value(api: Api, client: Client, rates: MovingRates) -> None:
    invoice = await paid(api, client)
    rates.pairs.clear()
    answer = await ask(client, invoice, rule="fiat_value")
    assert (answer.status_code, answer.json()["code"]) == (409, "rate_unavailable")


@pytest.mark.parametrize("way", ["invoice", "exception", "resolution"])
async def test_rates_are_asked_before_anything_is_locked(
    api: Api, client: Client, rates: MovingRates, way: str
) -> None:
    """A defect once: from an exception the exchanges were asked under lock, so that a slow one held up every block."""
    invoice = await paid(api, client, WEI, WEI // 5)
    (case,) = (await client.get("/v1/exceptions", invoice_id=invoice["id"])).json()["data"]
    looked: list[int] = []

    async def look() -> None:
        async with api.ctx.database.transaction() as connection:
            networks = await connection.fetch("SELECT name FROM networks FOR NO KEY UPDATE NOWAIT")
            await connection.fetch("SELECT id FROM invoices FOR NO KEY UPDATE NOWAIT")
        looked.append(len(networks))

    rates.before = look
    if way == "invoice":
        answer = await ask(client, invoice, rule="fiat_value")
    elif way == "exception":
        answer = await ask(client, invoice, invoice_id=None, exception_id=case["id"], rule="fiat_value")
    else:
        said = {"action": "refund", "note": "back", "refund": {"rule": "fiat_value", "address": HERE}}
        answer = await client.post(f"/v1/exceptions/{case['id']}/resolve", said)
    assert answer.is_success, answer.text
    (count,) = looked
    assert count > 0


async def test_the_excess_only(api: Api, client: Client) -> None:
    invoice = await paid(api, client, WEI, WEI // 5)
    assert (await ask(client, invoice, rule="excess")).json()["amount"] == "0.002"
    assert (await ask(client, invoice, rule="excess")).status_code == 409
    exact = await paid(api, client)
    assert (await ask(client, exact, rule="excess")).status_code == 409


async def test_from_an_exception(api: Api, client: Client) -> None:
    """An overpayment's case is resolved by the refund of the excess, once."""
    invoice = await paid(api, client, WEI, WEI // 5)
    (case,) = (await client.get("/v1/exceptions", invoice_id=invoice["id"])).json()["data"]
    body = {"exception_id": case["id"], "reason": "paid too much", "address": HERE}
    made = await client.post("/v1/refunds", body, key="from-the-case")
    assert made.status_code == 201, made.text
    assert (made.json()["amount"], made.json()["rule"]) == ("0.002", "excess")
    assert made.json()["exception_id"] == case["id"]
    closed = (await client.get(f"/v1/exceptions/{case['id']}")).json()
    assert (closed["status"], closed["resolution"]["action"]) == ("resolved", "refund")
    assert closed["resolution"]["refund_id"] == made.json()["id"]
    again = await client.post("/v1/refunds", body, key="from-the-case-again")
    assert (again.status_code, again.json()["code"]) == (409, "invalid_state")
    stranger = api.client((await api.merchant("Other", account=1)).key)
    assert (await stranger.post("/v1/refunds", body, key="mine?")).status_code == 404


async def test_a_second_person_where_the_merchant_wants_one(
    api: Api, client: Client, merchant: Merchant
) -> None:
    """The requester's own key cannot approve then, nor after something went wrong; it can without the rule."""
    invoice = await paid(api, client)
    async with api.ctx.database.transaction() as connection:
        await connection.execute(
            "UPDATE merchants SET refund_second_person = true WHERE id = $1", merchant.id
        )
    refund = (await ask(client, invoice)).json()
    path = f"/v1/refunds/{refund['id']}"
    own = await client.post(f"{path}/approve")
    assert (own.status_code, own.json()["code"]) == (409, "invalid_state")
    other = api.client(await api.key(merchant, Scope.REFUNDS_APPROVE))
    approved = (await other.post(f"{path}/approve")).json()
    assert approved["status"] == "awaiting_signature"
    assert approved["approved_by"] != approved["requested_by"]


async def test_the_second_person_approves_where_the_money_goes(
    api: Api, client: Client, merchant: Merchant
) -> None:
    """Without an address nothing is approved there: who asks holds the claim link, and could name their own.

    Found by attack: approved first, the requester made a new link and gave an address of theirs as the customer's.
    Bug planted: the address not looked at (200 instead of 409).
    """
    invoice = await paid(api, client)
    async with api.ctx.database.transaction() as connection:
        await connection.execute(
            "UPDATE merchants SET refund_second_person = true WHERE id = $1", merchant.id
        )
    refund = (await ask(client, invoice, address=None)).json()
    assert refund["address"] is None
    other = api.client(await api.key(merchant, Scope.REFUNDS_APPROVE))
    early = await other.post(f"/v1/refunds/{refund['id']}/approve")
    assert (early.status_code, early.json()["code"]) == (409, "invalid_state")
    assert "no address yet" in early.json()["detail"]
    token = refund["claim_url"].partition("?token=")[2]
    async with api.ctx.database.transaction() as connection:
        await confirm_address(connection, api.ctx, refund["id"], token, HERE)
    approved = await other.post(f"/v1/refunds/{refund['id']}/approve")
    assert approved.json()["status"] == "awaiting_signature"


async def test_who_makes_the_claim_link_is_not_the_second_person(
    api: Api, client: Client, merchant: Merchant
) -> None:
    """One key could else ask for the link of a refund that the rule opened, name its own address, and approve it.

    Bug planted: only the requester looked at (200 instead of 409).
    """
    invoice = await paid(api, client)
    async with api.ctx.database.transaction() as connection:
        await connection.execute(
            "UPDATE merchants SET refund_second_person = true WHERE id = $1", merchant.id
        )
    refund = (await ask(client, invoice, address=None)).json()
    other = api.client(await api.key(merchant, Scope.REFUNDS_APPROVE, Scope.REFUNDS_WRITE))
    linked = (await other.post(f"/v1/refunds/{refund['id']}/claim_link")).json()
    token = linked["claim_url"].partition("?token=")[2]
    async with api.ctx.database.transaction() as connection:
        await confirm_address(connection, api.ctx, refund["id"], token, HERE)
    refused = await other.post(f"/v1/refunds/{refund['id']}/approve")
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid_state")
    third = api.client(await api.key(merchant, Scope.REFUNDS_APPROVE))
    assert (await third.post(f"/v1/refunds/{refund['id']}/approve")).json()["status"] == "awaiting_signature"


async def test_the_number_of_refunds_of_an_invoice_is_bounded(
    api: Api, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by attack: a thousand of them made every block that touches the invoice slow."""
    monkeypatch.setattr("tallystick.services.refunds.REFUNDS_PER_INVOICE_MAX", 2)
    invoice = await paid(api, client)
    answers = [await ask(client, invoice, rule=None, amount="0.001") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 409]


async def test_two_approvers_at_once_over_http(api: Api, client: Client, merchant: Merchant) -> None:
    """Real concurrency: one 200, the other 409 invalid_state; one payment request (F-API 5)."""
    invoice = await paid(api, client)
    refund = (await ask(client, invoice)).json()
    other = api.client(await api.key(merchant, Scope.REFUNDS_APPROVE))
    path = f"/v1/refunds/{refund['id']}/approve"
    answers = await asyncio.gather(client.post(path), other.post(path))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    (late,) = [answer for answer in answers if answer.status_code == 409]
    assert late.json()["code"] == "invalid_state"
    events = (await client.get("/v1/events", object_id=refund["id"])).json()["data"]
    assert sorted(event["type"] for event in events) == sorted(
        ["refund.requested", "refund.approved", "refund.awaiting_signature"]
    )


async def test_decisions_are_made_once(api: Api, client: Client) -> None:
    invoice = await paid(api, client)
    refund = (await ask(client, invoice)).json()
    path = f"/v1/refunds/{refund['id']}"
    hash_of_it = "0x" + "ab" * 32
    assert (await client.post(f"{path}/broadcast", {"tx_hash": hash_of_it})).status_code == 409
    assert (await client.post(f"{path}/claim_link")).status_code == 409
    await client.post(f"{path}/approve")
    assert (await client.post(f"{path}/approve")).json()["code"] == "invalid_state"
    assert pointers(await client.post(f"{path}/broadcast", {"tx_hash": "0x12"})) == ["/tx_hash"]
    sent = (await client.post(f"{path}/broadcast", {"tx_hash": hash_of_it.upper().replace("X", "x")})).json()
    assert (sent["status"], sent["tx_hash"]) == ("broadcast", hash_of_it)
    assert (await client.post(f"{path}/broadcast", {"tx_hash": hash_of_it})).json() == sent
    bumped = (await client.post(f"{path}/broadcast", {"tx_hash": "0x" + "cd" * 32})).json()
    assert (bumped["status"], bumped["tx_hash"]) == ("broadcast", "0x" + "cd" * 32)
    for action in ("approve", "reject"):  # what was said to be sent is the chain's to decide
        assert (await client.post(f"{path}/{action}")).json()["code"] == "invalid_state"
    transfer = transfer_to(HERE, WEI, nonce=4242)
    await mine_by_hand(api.ctx, "ethereum", transfer)
    seen = (await client.get(path)).json()
    assert (seen["status"], seen["tx_hash"], seen["confirmations"]) == ("confirming", transfer.tx_hash, 1)
    other = await client.post(f"{path}/broadcast", {"tx_hash": "0x" + "ee" * 32})
    assert (other.status_code, other.json()["code"]) == (409, "invalid_state")
    assert (await client.post(f"{path}/broadcast", {"tx_hash": transfer.tx_hash})).json() == seen


@pytest.mark.parametrize("to_first_too", [False, True])
async def test_a_transaction_that_pays_another_refund_on_another_branch(
    api: Api, client: Client, to_first_too: bool
) -> None:
    """Mined again, a contract's transaction can move something else at the same place (see `credit_keys`).

    A defect once: the follower stopped at the key that was taken, or took another's money for the first refund's.
    """
    there = "0x" + "c0ffee" * 6 + "0002"
    first, second = [(await ask(client, await paid(api, client), address=to)).json() for to in (HERE, there)]
    for refund in (first, second):
        await client.post(f"/v1/refunds/{refund['id']}/approve")
    ancestor = (await mine_by_hand(api.ctx, "ethereum")).header.ref
    sent = transfer_to(HERE, WEI, nonce=51)
    lost = await mine_by_hand(api.ctx, "ethereum", sent)
    assert (await client.get(f"/v1/refunds/{first['id']}")).json()["status"] == "confirming"
    moved = [replace(sent, to=there)]
    if to_first_too:
        moved.append(
            replace(sent, amount=WEI - 1, ordinal=1)
        )  # to the first one's address, but not its amount
    header = replace(lost.header, hash="0x" + "b1" * 32)
    branch = Block(header, tuple(moved), dict.fromkeys(sent.spend_keys, sent.tx_hash))
    step = Step(expected=lost.header.ref, blocks=(branch,), ancestor=ancestor)
    await apply_step(api.ctx, api.ctx.networks["ethereum"], step)
    statuses = [(await client.get(f"/v1/refunds/{one['id']}")).json()["status"] for one in (first, second)]
    assert statuses == ["broadcast", "confirming"]
    back = replace(lost, header=replace(lost.header, hash="0x" + "b2" * 32))
    step = Step(expected=header.ref, blocks=(back,), ancestor=ancestor)
    await apply_step(api.ctx, api.ctx.networks["ethereum"], step)
    statuses = [(await client.get(f"/v1/refunds/{one['id']}")).json()["status"] for one in (first, second)]
    assert statuses == ["confirming", "broadcast"]


async def test_the_limit_holds_in_the_database_too(api: Api, client: Client) -> None:
    """Whatever the code in front forgets, an INSERT beyond what was credited is refused.

    Bug planted: the trigger without its lock on the invoice (two transactions at once take twice the money).
    """
    import asyncpg

    invoice = await paid(api, client)
    refund = (await ask(client, invoice, amount="0.006")).json()
    copy = (
        "INSERT INTO refunds SELECT (jsonb_populate_record(r, jsonb_build_object('id', $2::text, 'amount', $3::numeric,"
        " 'amount_sent', $3::numeric))).* FROM refunds AS r WHERE r.id = $1"
    )
    async with api.ctx.database.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(copy, refund["id"], "rfd_copy", 5 * 10**15)

    started = asyncio.Event()

    async def insert(number: int) -> bool:
        async with api.ctx.database.connection() as connection:
            try:
                async with connection.transaction():
                    if number:
                        await started.wait()
                    await connection.execute(copy, refund["id"], f"rfd_copy{number}", 3 * 10**15)
                    started.set()
                    if not number:
                        await asyncio.sleep(0.2)  # the other one inserts meanwhile
            except asyncpg.CheckViolationError:
                return False
            return True

    assert sorted(await asyncio.gather(insert(0), insert(1))) == [False, True]


async def test_what_came_on_another_network_goes_back_there(api: Api, client: Client) -> None:
    """The payment request is for the network it came by; the transfer is looked for there only."""
    invoice = await client.invoice()
    there = invoice["payment_options"][0]["address"]
    await mine_by_hand(api.ctx, "polygon", transfer_to(there, WEI, nonce=31))
    for _ in range(2):
        await mine_by_hand(api.ctx, "polygon")
    refund = (await ask(client, invoice)).json()
    assert (refund["network"], refund["amount"]) == ("polygon", "0.01")
    approved = (await client.post(f"/v1/refunds/{refund['id']}/approve")).json()
    assert approved["payment_request"]["unsigned_transaction"]["chain_id"] == 137
    await mine_by_hand(api.ctx, "ethereum", transfer_to(HERE, WEI, nonce=32))
    path = f"/v1/refunds/{refund['id']}"
    assert (await client.get(path)).json()["status"] == "awaiting_signature"
    await mine_by_hand(api.ctx, "polygon", transfer_to(HERE, WEI, nonce=33))
    assert (await client.get(path)).json()["status"] == "confirming"


async def test_the_token_goes_back_by_its_contract(api: Api, client: Client) -> None:
    """The unsigned transaction is ERC-20's transfer, encoded by the ABI."""
    invoice = await client.invoice(accepted=[{"asset": "DUSD", "network": "ethereum"}])
    option = invoice["payment_options"][0]
    token = replace(
        transfer_to(option["address"], 25 * 10**6, nonce=41), contract="0x" + "a1" * 20, channel=Channel.LOG
    )
    await mine_by_hand(api.ctx, "ethereum", token)
    for _ in range(2):
        await mine_by_hand(api.ctx, "ethereum")
    refund = (await ask(client, invoice, amount="2.5")).json()
    approved = (await client.post(f"/v1/refunds/{refund['id']}/approve")).json()
    request = approved["payment_request"]
    assert request["uri"] == (
        f"ethereum:{option['token_contract']}@1/transfer?address={approved['address']}&uint256=2500000"
    )
    unsigned = request["unsigned_transaction"]
    assert (unsigned["to"], unsigned["value"]) == (option["token_contract"], "0")
    assert unsigned["data"] == f"0xa9059cbb{HERE[2:]:0>64}{2_500_000:064x}"
