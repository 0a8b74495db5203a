"""The queue of exceptions and disputes over HTTP: filters, pages, bodies, pointers, rights, repetition."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tallystick.core.cases import CaseKind
from tallystick.services.cases import open_cases
from tallystick.services.merchants import Scope
from tests.support.app import Api, Client, Merchant, junk_to, mine_by_hand

WEI = 10**16  # what 25.00 USD asks
NOTE = "talked to the customer"


async def overpaid(api: Api, client: Client, *, nonce: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """An invoice paid twice over, and the case about it."""
    invoice = await client.invoice()
    await api.pay(invoice, 2 * WEI, blocks_more=3, nonce=nonce)
    found = (await client.get("/v1/exceptions", invoice_id=invoice["id"])).json()["data"]
    return invoice, found[0]


async def junk(api: Api, client: Client, *, nonce: int = 0) -> dict[str, Any]:
    """A case about a token that nobody configured."""
    invoice = await client.invoice()
    await mine_by_hand(api.ctx, "ethereum", junk_to(invoice["payment_options"][0]["address"], nonce=nonce))
    found: dict[str, Any] = (await client.get("/v1/exceptions", invoice_id=invoice["id"])).json()["data"][0]
    return found


async def test_an_exception_is_shown_with_owner_age_and_next_action(api: Api, client: Client) -> None:
    invoice, case = await overpaid(api, client)
    payment = (await client.get("/v1/payments")).json()["data"][0]
    age = case.pop("age_seconds")
    assert 0 <= age < 60
    assert case["detail"]["transfers"][0]["tx_hash"] == payment["tx_hash"]
    assert {**case, "detail": {}, "opened_at": ""} == {
        "id": case["id"],
        "object": "exception",
        "kind": "overpaid",
        "meaning": "more than the tolerance above came",
        "invoice_id": invoice["id"],
        "order_id": None,
        "subject": None,
        "payment_ids": [payment["id"]],
        "owner": "support",
        "assignments": [],
        "status": "open",
        "next_action": {
            "owner": "support",
            "action": "decide",
            "text": "Give the excess back, or keep it if the customer agrees (accept).",
        },
        "actions": ["accept", "refund", "ignore"],
        "detail": {},
        "opened_at": "",
        "resolution": None,
        "resolved_at": None,
    }
    read = (await client.get(f"/v1/exceptions/{case['id']}")).json()
    assert {**read, "age_seconds": 0} == {**case, "age_seconds": 0}
    event = (await client.get("/v1/events", type="exception.opened")).json()["data"][0]
    assert event["data"]["object"] == case  # without an age, which would be wrong when it is read


async def test_the_queue_is_filtered_and_paged_oldest_first(api: Api, client: Client) -> None:
    ids = [(await junk(api, client, nonce=number))["id"] for number in range(3)]
    _, more = await overpaid(api, client, nonce=9)
    await client.post(f"/v1/exceptions/{ids[0]}/resolve", {"action": "ignore", "note": NOTE})
    everything = sorted([*ids, more["id"]])
    for query, expected in [
        ({}, everything),
        ({"status": "open"}, [one for one in everything if one != ids[0]]),
        ({"status": "resolved"}, [ids[0]]),
        ({"kind": "overpaid"}, [more["id"]]),
        ({"invoice_id": more["invoice_id"]}, [more["id"]]),
        ({"invoice_id": "inv_none"}, []),
    ]:
        answer = (await client.get("/v1/exceptions", **query)).json()
        assert ([one["id"] for one in answer["data"]], answer["next_cursor"]) == (expected, None), query
    paged: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/v1/exceptions", limit=3, **cursor)).json()
        paged += [one["id"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert paged == everything
    for name, value in (("status", "closed"), ("kind", "odd"), ("cursor", "inv_1"), ("limit", "0")):
        answer = await client.get("/v1/exceptions", **{name: value})
        assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (400, name)
    assert (await client.get("/v1/exceptions", owner="x")).json()["code"] == "unknown_parameter"


async def test_resolving_is_done_once(api: Api, client: Client) -> None:
    """A repetition under its key answers the same, any other is too late."""
    invoice, case = await overpaid(api, client)
    path, body = f"/v1/exceptions/{case['id']}/resolve", {"action": "accept", "note": NOTE}
    done = await client.post(path, body, key="once")
    assert done.status_code == 200, done.text
    shown = done.json()
    assert (shown["status"], shown["actions"], shown["next_action"]["action"]) == ("resolved", [], "none")
    resolution = shown["resolution"]
    assert (resolution["action"], resolution["note"], resolution["decision"]) == ("accept", NOTE, "keep")
    assert resolution["actor"]["type"] == "merchant"
    assert resolution["actor"]["id"].startswith("key_")
    assert (await client.get(f"/v1/invoices/{invoice['id']}")).json()["status"] == "paid"
    again = await client.post(path, body, key="once")
    assert (again.status_code, again.json()) == (200, shown)
    for late in (path, f"/v1/exceptions/{case['id']}/assign"):
        answer = await client.post(late, body if late == path else {"owner": "ann"})
        assert (answer.status_code, answer.json()["code"]) == (409, "invalid_state")


async def test_of_two_resolvers_one_is_carried_out(api: Api, client: Client) -> None:
    invoice, case = await overpaid(api, client)
    answers = await asyncio.gather(
        *(
            client.post(f"/v1/exceptions/{case['id']}/resolve", {"action": action, "note": NOTE})
            for action in ("accept", "ignore") * 4
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    kept = next(answer for answer in answers if answer.status_code == 200).json()["resolution"]["action"]
    status = (await client.get(f"/v1/invoices/{invoice['id']}")).json()["status"]
    assert status == ("paid" if kept == "accept" else "overpaid")


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/action"]),
        ({"action": "accept"}, ["/note"]),
        ({"action": "accept", "note": ""}, ["/note"]),
        ({"action": "accept", "note": "  "}, ["/note"]),
        ({"action": "accept", "note": "x" * 2001}, ["/note"]),
        ({"action": "keep", "note": NOTE}, ["/action"]),
        ({"action": "write_off", "note": NOTE}, ["/action"]),
        ({"action": "accept", "note": NOTE, "value": "1.00"}, ["/value"]),
        (
            {"action": "accept", "note": NOTE, "invoice_id": "inv_x", "payment_option_id": "o"},
            ["/invoice_id", "/payment_option_id"],
        ),
        ({"action": "accept", "note": NOTE, "refund": {"amount": "1"}}, ["/refund"]),
        ({"action": "refund", "note": NOTE, "refund": {"amount": "-1"}}, ["/refund/amount"]),
        ({"action": "refund", "note": NOTE, "refund": {"rule": "all"}}, ["/refund/rule"]),
        ({"action": "refund", "note": NOTE, "refund": {"address": "0x12"}}, ["/refund/address"]),
        ({"action": "accept", "note": NOTE, "why": "?"}, ["/why"]),
    ],
)
async def test_wrong_bodies_name_their_fields(
    api: Api, client: Client, body: dict[str, Any], pointers: list[str]
) -> None:
    _, case = await overpaid(api, client)
    answer = await client.post(f"/v1/exceptions/{case['id']}/resolve", body)
    assert answer.status_code == 422, answer.text
    assert [one["pointer"] for one in answer.json()["errors"]] == pointers, answer.text
    assert (await client.get(f"/v1/exceptions/{case['id']}")).json()["status"] == "open"


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"action": "credit"}, "/value"),
        ({"action": "credit", "value": "0.00"}, "/value"),
        ({"action": "credit", "value": "1.001"}, "/value"),
        ({"action": "credit", "value": "-1.00"}, "/value"),
        ({"action": "credit", "value": "9" * 90}, "/value"),
        ({"action": "attach"}, "/invoice_id"),
        ({"action": "attach", "invoice_id": "inv_" + "0" * 26}, "/invoice_id"),
    ],
)
async def test_a_value_and_a_target_are_checked(
    api: Api, client: Client, more: dict[str, Any], pointer: str
) -> None:
    """On a canceled invoice that was paid all the same."""
    invoice = await client.invoice()
    await client.post(f"/v1/invoices/{invoice['id']}/cancel")
    await api.pay(invoice, WEI, blocks_more=3)
    (case,) = (await client.get("/v1/exceptions")).json()["data"]
    answer = await client.post(f"/v1/exceptions/{case['id']}/resolve", {"note": NOTE, **more})
    assert answer.status_code == 422, answer.text
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


async def test_money_is_not_attached_to_another_merchants_invoice(api: Api, client: Client) -> None:
    """Theirs looks like none; and nothing of theirs changes."""
    invoice = await client.invoice()
    await client.post(f"/v1/invoices/{invoice['id']}/cancel")
    await api.pay(invoice, WEI, blocks_more=3)
    (case,) = (await client.get("/v1/exceptions")).json()["data"]
    stranger = await api.merchant("Other shop", account=1)
    theirs = api.client(stranger.key)
    target = await theirs.invoice()
    body = {"action": "attach", "note": NOTE, "invoice_id": target["id"]}
    answer = await client.post(f"/v1/exceptions/{case['id']}/resolve", body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/invoice_id")
    assert (await theirs.get(f"/v1/invoices/{target['id']}")).json()["payments"] == []
    own = await client.invoice()
    done = await client.post(f"/v1/exceptions/{case['id']}/resolve", {**body, "invoice_id": own["id"]})
    assert (done.status_code, done.json()["resolution"]["invoice_id"]) == (200, own["id"])
    assert (await client.get(f"/v1/invoices/{own['id']}")).json()["status"] == "paid"
    (payment,) = (await client.get("/v1/payments", invoice_id=own["id"])).json()["data"]
    trace = (await client.get(f"/v1/trace/{payment['tx_hash']}")).json()
    assert [one["invoice_id"] for one in trace["transfers"]] == [own["id"]]


async def test_a_refund_needs_its_own_right(api: Api, merchant: Merchant, client: Client) -> None:
    _, case = await overpaid(api, client)
    path = f"/v1/exceptions/{case['id']}/resolve"
    body = {"action": "refund", "note": NOTE, "refund": {"address": "0x" + "0a" * 20}}
    only = api.client(await api.key(merchant, Scope.EXCEPTIONS_WRITE))
    assert (await only.post(path, body)).status_code == 403
    both = api.client(await api.key(merchant, Scope.EXCEPTIONS_WRITE, Scope.REFUNDS_WRITE))
    done = await both.post(path, body)
    assert done.status_code == 200, done.text
    refund = done.json()["refund"]
    assert (refund["rule"], refund["status"], refund["exception_id"]) == ("excess", "requested", case["id"])
    assert done.json()["resolution"]["refund_id"] == refund["id"]
    assert "refund" not in (await client.get(f"/v1/exceptions/{case['id']}")).json()
    told = (await client.get("/v1/events", type="exception.resolved")).json()["data"][0]["data"]["object"]
    assert "refund" not in told


async def test_a_case_is_given_to_somebody(api: Api, client: Client) -> None:
    _, case = await overpaid(api, client)
    path = f"/v1/exceptions/{case['id']}/assign"
    first = await client.post(path, {"owner": "ann@shop.example", "note": "knows the customer"})
    second = (await client.post(path, {"owner": "Finance team"})).json()
    assert first.json()["owner"] == first.json()["next_action"]["owner"] == "ann@shop.example"
    assert (second["owner"], second["status"]) == ("Finance team", "open")
    assert [(one["owner"], one["note"]) for one in second["assignments"]] == [
        ("ann@shop.example", "knows the customer"),
        ("Finance team", None),
    ]
    for body, pointer in [
        ({}, "/owner"),
        ({"owner": ""}, "/owner"),
        ({"owner": " "}, "/owner"),
        ({"owner": "x" * 201}, "/owner"),
        ({"owner": "x", "note": ""}, "/note"),
    ]:
        answer = await client.post(path, body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text


async def test_the_history_of_assignments_is_bounded(api: Api, client: Client) -> None:
    _, case = await overpaid(api, client)
    for number in range(102):
        await client.post(f"/v1/exceptions/{case['id']}/assign", {"owner": f"nobody {number}"})
    kept = (await client.get(f"/v1/exceptions/{case['id']}")).json()["assignments"]
    assert (len(kept), kept[-1]["owner"]) == (100, "nobody 101")


async def test_a_case_about_no_invoice_takes_no_decision_about_one(
    api: Api, merchant: Merchant, client: Client
) -> None:
    """A deposit that reconciliation found: until it says to which invoice it belongs, it can be written off only."""
    async with api.ctx.database.transaction() as connection:
        (case_id,) = await open_cases(
            connection,
            api.ctx,
            merchant_ids=[merchant.id],
            kind=CaseKind.UNMATCHED,
            subject="deposit",
            detail={},
            now=api.ctx.now(),
        )
    own = await client.invoice()
    body = {"action": "attach", "note": NOTE, "invoice_id": own["id"]}
    answer = await client.post(f"/v1/exceptions/{case_id}/resolve", body)
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_state")
    done = await client.post(f"/v1/exceptions/{case_id}/resolve", {"action": "write_off", "note": NOTE})
    assert (done.status_code, done.json()["status"]) == (200, "resolved")


DISPUTE = {
    "reason": "not delivered",
    "note": NOTE,
    "evidence": [
        {"type": "message", "text": "Where is it?"},
        {"type": "photo", "url": "https://x.example/1"},
    ],
}


async def test_a_dispute_over_http(api: Api, client: Client) -> None:
    invoice = await client.invoice()
    path = f"/v1/invoices/{invoice['id']}/dispute"
    early = await client.post(path, DISPUTE)
    assert (early.status_code, early.json()["code"]) == (409, "invalid_state")
    await api.pay(invoice, WEI, blocks_more=3)
    opened = await client.post(path, DISPUTE)
    assert (opened.status_code, opened.json()["status"]) == (200, "disputed")
    assert opened.json()["next_action"]["owner"] == "support"
    assert (await client.post(path, DISPUTE)).status_code == 409
    fulfil = await client.post(f"/v1/invoices/{invoice['id']}/fulfillment", {})
    assert fulfil.status_code == 409
    done = await client.post(f"{path}/resolve", {"outcome": "merchant", "note": NOTE})
    assert (done.status_code, done.json()["status"]) == (200, "paid")
    assert (await client.post(f"{path}/resolve", {"outcome": "merchant", "note": NOTE})).status_code == 409
    steps = (await client.get(f"/v1/invoices/{invoice['id']}/transitions")).json()["data"]
    assert [(step["to"], step["reason"]) for step in steps[-2:]] == [
        ("disputed", "dispute_opened"),
        ("paid", "dispute_resolved"),
    ]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"reason": ""}, "/reason"),
        ({"reason": "x" * 201}, "/reason"),
        ({"note": " "}, "/note"),
        ({"note": "x" * 2001}, "/note"),
        ({"evidence": [{"type": "t", "text": "x"}] * 21}, "/evidence"),
        ({"evidence": [{"type": "t"}]}, "/evidence/0"),
        ({"evidence": [{"type": "t", "text": "x", "url": "https://x.example/"}]}, "/evidence/0"),
        ({"evidence": [{"type": "t", "url": "javascript:alert(1)"}]}, "/evidence/0/url"),
        ({"evidence": [{"type": "", "text": "x"}]}, "/evidence/0/type"),
        ({"evidence": [{"type": "t", "text": "x" * 2001}]}, "/evidence/0/text"),
    ],
)
async def test_a_dispute_is_checked(api: Api, client: Client, change: dict[str, Any], pointer: str) -> None:
    invoice = await client.invoice()
    await api.pay(invoice, WEI, blocks_more=3)
    answer = await client.post(f"/v1/invoices/{invoice['id']}/dispute", DISPUTE | change)
    assert answer.status_code == 422, answer.text
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
    assert (await client.get(f"/v1/invoices/{invoice['id']}")).json()["status"] == "paid"


async def test_the_outcome_of_a_dispute_is_one_of_three(api: Api, client: Client) -> None:
    invoice = await client.invoice()
    answer = await client.post(
        f"/v1/invoices/{invoice['id']}/dispute/resolve", {"outcome": "draw", "note": NOTE}
    )
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/outcome")


async def test_the_description_explains_the_actions(api: Api) -> None:
    schema = (await api.client().get("/openapi.json")).json()
    resolve = schema["paths"]["/v1/exceptions/{exception_id}/resolve"]["post"]
    for action in ("accept", "credit", "refund", "attach", "write_off", "ignore"):
        assert f"`{action}`" in resolve["description"]
    assert "/v1/invoices/{invoice_id}/dispute" in schema["paths"]
