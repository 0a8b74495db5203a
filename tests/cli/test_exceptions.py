"""Exceptions from the command line: what an operator sees, decides, and is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.processes import run
from tests.cli.test_commands import failed
from tests.support.app import running_api

WEI = 10**16  # what 25.00 USD asks


@pytest.fixture
def settings(database_url: str) -> dict[str, str]:
    return {"TALLYSTICK_DATABASE_URL": database_url}


@pytest.fixture
async def invoices(database_url: str) -> list[dict[str, Any]]:
    """Two invoices, each paid twice over, of two merchants."""
    found = []
    async with running_api(database_url) as api:
        for number in range(2):
            merchant = await api.merchant(f"Shop {number}", account=number)
            invoice = await api.client(merchant.key).invoice()
            await api.pay(invoice, 2 * WEI, blocks_more=3, nonce=number)
            found.append(invoice | {"merchant_id": merchant.id})
    return found


async def test_an_operator_looks_decides_and_assigns(
    settings: dict[str, str], invoices: list[dict[str, Any]]
) -> None:
    """Of every merchant, as an operator, with the same rules as the API."""
    listed = (await run("exception", "list", "--json", **settings)).object["data"]
    assert [(case["kind"], case["invoice_id"]) for case in listed] == [
        ("overpaid", invoice["id"]) for invoice in invoices
    ]
    of_one = await run("exception", "list", "--merchant", invoices[1]["merchant_id"], "--json", **settings)
    assert [case["id"] for case in of_one.object["data"]] == [listed[1]["id"]]
    first = listed[0]["id"]
    shown = await run("exception", "show", first, "--json", **settings)
    assert {**shown.object, "age_seconds": 0} == {**listed[0], "age_seconds": 0}
    for_people = await run("exception", "list", **settings)
    assert f"exception {first}, overpaid, open" in for_people.out
    assert "(accept, refund, ignore)" in for_people.out

    given = await run("exception", "assign", first, "ann", "--note", "on call", "--json", **settings)
    assert given.object["owner"] == "ann", given
    assert given.object["assignments"][0]["actor"]["type"] == "operator"
    done = await run("exception", "resolve", first, "accept", "--note", "a tip", "--json", **settings)
    assert done.object["status"] == "resolved", done
    assert done.object["resolution"]["actor"]["type"] == "operator"
    failed(
        await run("exception", "resolve", first, "accept", "--note", "again", **settings), "resolved already"
    )
    open_now = (await run("exception", "list", "--json", **settings)).object["data"]
    assert [case["id"] for case in open_now] == [listed[1]["id"]]

    invoice = await run("invoice", "show", invoices[0]["id"], "--json", **settings)
    assert invoice.object["status"] == "paid"
    assert [case["id"] for case in invoice.object["exceptions"]] == [first]
    assert invoice.object["refunds"] == []
    assert invoice.object["transitions"][-1]["actor"]["type"] == "operator"
    text = (await run("invoice", "show", invoices[0]["id"], **settings)).out
    assert "accept: a tip" in text
    text = (await run("invoice", "show", invoices[1]["id"], **settings)).out
    assert f"exception {listed[1]['id']}, overpaid, open" in text


async def test_an_operator_opens_and_resolves_a_dispute(
    settings: dict[str, str], invoices: list[dict[str, Any]]
) -> None:
    """With what it rests on; a second one is refused."""
    about, note = invoices[0]["id"], ("--note", "the customer wrote")
    evidence = ("--evidence", "message: Where is it?", "--evidence", "photo: https://shop.example/1")
    opening = ("dispute", "open", about, "--reason", "not delivered", *note)
    opened = await run(*opening, *evidence, "--json", **settings)
    assert opened.object["status"] == "disputed", opened
    failed(await run(*opening, **settings), "open already")
    shown = (await run("invoice", "show", about, "--json", **settings)).object
    last = shown["transitions"][-1]
    said = {one["type"]: one for one in last["evidence"]}
    assert (last["actor"]["type"], said["decision"]["reason"]) == ("operator", "not delivered")
    assert (said["message"]["text"], said["photo"]["url"]) == ("Where is it?", "https://shop.example/1")
    done = await run("dispute", "resolve", about, "withdrawn", *note, "--json", **settings)
    assert done.object["status"] == "overpaid", done
    failed(await run("dispute", "resolve", about, "withdrawn", *note, **settings), "No dispute")
    failed(await run("dispute", "resolve", about, "draw", *note, **settings), "merchant, customer, withdrawn")
    failed(await run(*opening, "--evidence", "nothing", **settings), "type: text")
    failed(await run("dispute", "open", "inv_x", "--reason", "r", *note, **settings), "no such invoice")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "exc_none"), "no such exception"),
        (("resolve", "exc_none", "accept", "--note", "n"), "no such exception"),
        (("resolve", "exc_none", "keep", "--note", "n"), "must be one of"),
        (("assign", "exc_none", "ann"), "no such exception"),
        (("list", "--status", "closed"), "open"),
        (("list", "--kind", "odd"), "underpaid"),
        (("list", "--limit", "0"), "1 to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_does_not_exist(settings: dict[str, str], arguments: tuple[str, ...], words: str) -> None:
    failed(await run("exception", *arguments, **settings), words)


async def test_an_empty_queue(settings: dict[str, str]) -> None:
    assert "Nothing needs a person." in (await run("exception", "list", **settings)).out
