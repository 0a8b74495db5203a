"""The books over real HTTP: accounts, entries, filters, pages, the trace, and whose they are."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.test_bodies import problem
from tests.support.app import Api, Client, Merchant

ETH = 10**16  # 25 USD at 2500


async def page(client: Client, path: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = await client.get(path, **parameters)
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


@pytest.fixture
async def paid(api: Api, client: Client) -> dict[str, Any]:
    """A paid invoice, its payment and transaction."""
    invoice = await client.invoice()
    tx_hash = await api.pay(invoice, ETH, blocks_more=3)
    (payment,) = (await client.get("/v1/payments")).json()["data"]
    return {"invoice_id": invoice["id"], "payment_id": payment["id"], "tx_hash": tx_hash}


async def test_accounts_are_sums_of_postings(client: Client, paid: dict[str, Any]) -> None:
    accounts = await page(client, "/v1/ledger/accounts")
    assert all(account["object"] == "ledger_account" for account in accounts)
    shown = [
        (one["name"], one["type"], one["asset"], one["network"], one["token_contract"], one["balance"])
        for one in accounts
    ]
    assert shown == [
        ("onchain", "asset", "ETH", "ethereum", None, "0.01"),
        ("merchant", "income", "ETH", "ethereum", None, "-0.01"),
        ("suspense", "liability", "ETH", "ethereum", None, "0"),
    ]
    assert await page(client, "/v1/ledger/accounts", asset="USD") == []
    assert len(await page(client, "/v1/ledger/accounts", network="ethereum")) == 3
    assert await page(client, "/v1/ledger/accounts", network="polygon", asset="ETH") == []


async def test_entries_newest_first_each_balanced(client: Client, paid: dict[str, Any]) -> None:
    entries = await page(client, "/v1/ledger/entries")
    assert [one["kind"] for one in entries] == ["position", "receipt"]
    assert [one["id"] for one in entries] == sorted((one["id"] for one in entries), reverse=True)
    newest, receipt = entries
    assert newest["postings"] == [
        {"account": "merchant", "asset": "ETH", "network": "ethereum", "token_contract": None, "amount": "-0.01"},
        {"account": "suspense", "asset": "ETH", "network": "ethereum", "token_contract": None, "amount": "0.01"},
    ]  # fmt: skip
    assert (receipt["payment_id"], receipt["invoice_id"]) == (paid["payment_id"], paid["invoice_id"])
    assert paid["tx_hash"] in receipt["note"]
    assert receipt["at"].endswith("Z")
    assert {one["settlement_id"] for one in entries} == {one["refund_id"] for one in entries} == {None}
    pages: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        answer = (await client.get("/v1/ledger/entries", limit=1, **cursor)).json()
        pages += [one["id"] for one in answer["data"]]
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}
    assert pages == [one["id"] for one in entries]


async def test_what_a_part_left_owed_is_taken_back_once_the_rest_came(api: Api, client: Client) -> None:
    invoice = await client.invoice()
    await api.pay(invoice, ETH * 4 // 10, blocks_more=3)
    await api.pay(invoice, ETH * 6 // 10, blocks_more=3)
    entries = await page(client, "/v1/ledger/entries")
    claims = [one for one in reversed(entries) if one["postings"][0]["asset"] == "USD"]
    owed = [one["postings"][0]["amount"] for one in claims]
    assert owed == ["25.00", "-25.00", "15.00", "-15.00"]  # a part was seen; it was confirmed; the rest came
    for claim, back in zip(claims[::2], claims[1::2], strict=True):
        assert (claim["reversed_by"], back["reverses"]) == (back["id"], claim["id"])
    shown = [(one["name"], one["balance"]) for one in await page(client, "/v1/ledger/accounts", asset="USD")]
    assert shown == [("receivable", "0.00"), ("expected", "0.00")]


async def test_entries_are_found_by_what_they_are_about(client: Client, paid: dict[str, Any]) -> None:
    path = "/v1/ledger/entries"
    assert len(await page(client, path, invoice_id=paid["invoice_id"])) == 2
    assert [one["kind"] for one in await page(client, path, payment_id=paid["payment_id"])] == ["receipt"]
    assert await page(client, path, refund_id="rfd_none") == []
    assert [one["kind"] for one in await page(client, path, account="onchain")] == ["receipt"]
    problem(await client.get(path, account="petty_cash"), 400, "invalid_parameter")
    problem(await client.get(path, cursor="ent_no"), 400, "invalid_parameter")
    problem(await client.get(path, asset="ETH"), 400, "unknown_parameter")


async def test_a_trace_leads_to_the_books(client: Client, paid: dict[str, Any]) -> None:
    answer = await client.get(f"/v1/trace/{paid['tx_hash']}")
    (transfer,) = answer.json()["transfers"]
    assert (transfer["payment"]["id"], transfer["refund_id"]) == (paid["payment_id"], None)
    assert [one["kind"] for one in transfer["ledger_entries"]] == ["receipt", "position"]


async def test_anothers_books_are_not_shown(
    api: Api, client: Client, paid: dict[str, Any], merchant: Merchant
) -> None:
    """Planted bug seen to fail: the merchant left out of `balances` or `list_entry_ids`."""
    other = await api.merchant("Other", account=1)
    stranger = api.client(other.key)
    assert await page(stranger, "/v1/ledger/accounts") == []
    assert await page(stranger, "/v1/ledger/entries", invoice_id=paid["invoice_id"]) == []
    assert len(await page(api.client(merchant.key), "/v1/ledger/entries")) == 2
