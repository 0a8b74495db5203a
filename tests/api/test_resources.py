"""Each resource through its ordinary life over real HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from tallystick.rates.source import Answer, Rate
from tests.api.test_bodies import problem
from tests.support.app import Api, Client, Merchant, mine_by_hand, running_api
from tests.support.stand import account_key

ETH = 10**16  # 25 USD at 2500


async def test_creation_says_where_the_object_is(api: Api, client: Client) -> None:
    answer = await client.post("/v1/invoices", {"amount": "25.00", "currency": "USD"})
    assert answer.status_code == 201
    invoice = answer.json()
    assert answer.headers["location"] == f"{api.url}/v1/invoices/{invoice['id']}"
    assert (await client.http.get(answer.headers["location"])).json() == invoice
    assert invoice["checkout_url"].startswith(api.url)
    assert invoice["created_at"].endswith("Z")
    # without `accepted`: everything there is a wallet for, and the customer chooses
    ways = [(option["asset"], option["network"], option["status"]) for option in invoice["payment_options"]]
    assert ways == [
        ("ETH", "ethereum", "quoted"),
        ("DUSD", "ethereum", "quoted"),
        ("ETH", "polygon", "quoted"),
    ]
    assert invoice["status"] == "quoted"


async def test_an_option_is_activated_once(client: Client) -> None:
    invoice = await client.invoice(activate=False)
    option = invoice["payment_options"][0]
    assert (option["status"], option["address"]) == ("quoted", None)
    path = f"/v1/invoices/{invoice['id']}/options/{option['id']}/activate"
    first = await client.post(path)
    assert first.status_code == 200
    assert first.json()["status"] == "awaiting_payment"
    assert first.json()["payment_options"][0]["address"].startswith("0x")
    assert (await client.post(path)).json() == first.json()
    problem(
        await client.post(f"/v1/invoices/{invoice['id']}/options/opt_{'0' * 26}/activate"), 404, "not_found"
    )


async def test_cancel_once_and_only_what_nobody_paid(api: Api, client: Client) -> None:
    unpaid, paid = await client.invoice(), await client.invoice()
    await api.pay(paid, ETH)
    canceled = await client.post(f"/v1/invoices/{unpaid['id']}/cancel", {})
    assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
    problem(await client.post(f"/v1/invoices/{unpaid['id']}/cancel"), 409, "invalid_state")
    problem(await client.post(f"/v1/invoices/{paid['id']}/cancel"), 409, "invalid_state")
    assert (await client.get(f"/v1/invoices/{paid['id']}")).json()["status"] == "confirming"


async def test_a_canceled_invoice_offers_nothing_any_more(client: Client) -> None:
    """Neither in the answer nor in the event nor later. (Found by simulation: it went on offering.)"""
    accepted = [{"asset": "ETH", "network": "ethereum"}, {"asset": "ETH", "network": "polygon"}]
    invoice = await client.invoice(accepted=accepted)
    path = f"/v1/invoices/{invoice['id']}"
    canceled = (await client.post(f"{path}/cancel")).json()
    (event,) = (await client.get("/v1/events", type="invoice.canceled")).json()["data"]
    for shown in (canceled, event["data"]["object"], (await client.get(path)).json()):
        assert [option["status"] for option in shown["payment_options"]] == ["expired", "expired"]
    option_id = invoice["payment_options"][0]["id"]
    problem(await client.post(f"{path}/options/{option_id}/activate"), 409, "invalid_state")


async def test_from_payment_to_fulfilment(api: Api, client: Client) -> None:
    invoice = await client.invoice(order_id="order 7")
    path = f"/v1/invoices/{invoice['id']}"
    problem(await client.post(f"{path}/fulfillment"), 409, "invalid_state")
    tx_hash = await api.pay(invoice, ETH, blocks_more=2)
    paid = (await client.get(path)).json()
    assert (paid["status"], paid["amount_paid"], paid["next_action"]["owner"]) == (
        "paid",
        "25.00",
        "merchant",
    )

    history = (await client.get(f"{path}/transitions")).json()
    assert history["next_cursor"] is None
    assert [step["to"] for step in history["data"]] == [
        "created",
        "quoted",
        "awaiting_payment",
        "confirming",
        "paid",
    ]
    assert [step["sequence"] for step in history["data"]] == [1, 2, 3, 4, 5]
    assert all(step["evidence"] for step in history["data"])

    listed = (await client.get("/v1/payments", invoice_id=invoice["id"])).json()["data"]
    assert listed == paid["payments"]
    (payment,) = listed
    assert (payment["tx_hash"], payment["amount"], payment["status"]) == (tx_hash, "0.01", "confirmed")
    assert "from" in payment
    assert (await client.get(f"/v1/payments/{payment['id']}")).json() == payment
    assert (await client.get("/v1/payments", status="confirmed")).json()["data"] == [payment]
    assert (await client.get("/v1/payments", status="orphaned")).json()["data"] == []
    assert (await client.get("/v1/payments", tx_hash=tx_hash)).json()["data"] == [payment]

    (transfer,) = (await client.get(f"/v1/trace/{tx_hash.upper().replace('0X', '0x')}")).json()["transfers"]
    assert (transfer["invoice_id"], transfer["order_id"]) == (invoice["id"], "order 7")
    problem(await client.get("/v1/trace/0x" + "0" * 64), 404, "not_found")

    done = await client.post(f"{path}/fulfillment", {"reference": "parcel 1", "note": "sent"})
    assert done.status_code == 200
    assert done.json()["fulfilled_at"].endswith("Z")
    assert done.json()["fulfillment"]["reference"] == "parcel 1"
    again = await client.post(f"{path}/fulfillment", {"reference": "parcel 2"})
    assert (again.status_code, again.json()) == (200, done.json())


async def test_pages_show_everything_once_newest_first(client: Client) -> None:
    made = [(await client.invoice(order_id=f"order {number}"))["id"] for number in range(7)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/v1/invoices", limit=3, **cursor)).json()
        seen += [invoice["id"] for invoice in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
        await client.invoice()  # what is added meanwhile does not disturb the pages that follow
    assert seen == made[::-1]
    exact = (await client.get("/v1/invoices", limit=9)).json()
    assert (len(exact["data"]), exact["next_cursor"]) == (9, None)


async def test_invoices_are_found_by_what_is_known_of_them(api: Api, client: Client) -> None:
    before = datetime.now(UTC)
    wanted, other = await client.invoice(order_id="A"), await client.invoice(order_id="B")
    tx_hash = await api.pay(wanted, ETH // 2)
    address = wanted["payment_options"][0]["address"]

    async def found(**filters: Any) -> list[str]:
        answer = await client.get("/v1/invoices", **filters)
        assert answer.status_code == 200, answer.text
        return [invoice["id"] for invoice in answer.json()["data"]]

    both = [other["id"], wanted["id"]]
    assert await found() == both
    assert await found(order_id="A") == [wanted["id"]]
    assert await found(order_id="a") == []
    assert await found(tx_hash=tx_hash) == [wanted["id"]]
    assert await found(address=address) == await found(address=address.lower()) == [wanted["id"]]
    assert await found(status="partially_paid") == [wanted["id"]]
    assert await found(status="partially_paid", order_id="B") == []
    early, late = (before - timedelta(hours=1)).isoformat(), (before + timedelta(hours=1)).isoformat()
    assert await found(created_after=early, created_before=late) == both
    assert await found(created_after=late) == await found(created_before=early) == []


async def test_wallets(api: Api) -> None:
    merchant = await api.merchant(account=None)
    client = api.client(merchant.key)
    body = {"family": "evm", "account_key": account_key(0), "label": "till"}
    answer = await client.post("/v1/wallets", body)
    assert answer.status_code == 201
    wallet = answer.json()
    # the well-known first accounts of the test mnemonic
    first = [
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    ]
    assert wallet["first_addresses"] == {"ethereum": first, "polygon": first}
    assert (wallet["next_index"], wallet["gap"], wallet["label"]) == (0, 20, "till")
    problem(await client.post("/v1/wallets", body), 409, "already_exists")
    invoice = await client.invoice()
    assert invoice["payment_options"][0]["address"] == first[0]
    assert invoice["payment_options"][0]["derivation"] == {
        "wallet_id": wallet["id"],
        "path": "0/0",
        "index": 0,
    }
    assert (await client.get(f"/v1/wallets/{wallet['id']}")).json()["next_index"] == 1
    assert [one["id"] for one in (await client.get("/v1/wallets")).json()["data"]] == [wallet["id"]]


async def test_the_same_key_at_another_merchant_shares_the_counter_silently(api: Api, client: Client) -> None:
    other = api.client((await api.merchant("Other", account=0)).key)
    addresses = [
        (await who.invoice())["payment_options"][0]["address"] for who in (client, other, client, other)
    ]
    assert len(set(addresses)) == 4
    for who in (client, other):
        assert (await who.get("/v1/wallets")).json()["data"][0]["next_index"] == 4


async def test_families_that_there_are_not_are_refused_with_those_that_there_are(client: Client) -> None:
    answer = await client.post("/v1/wallets", {"family": "lightning", "account_key": account_key(0)})
    document = problem(answer, 422, "validation_failed", "/family")
    assert all(family in document["detail"] for family in ("evm", "tron", "bitcoin", "litecoin"))


async def test_networks_and_rates(api: Api, client: Client) -> None:
    networks = (await client.get("/v1/networks")).json()["data"]
    assert [network["name"] for network in networks] == ["ethereum", "polygon"]
    ethereum = networks[0]
    assert (ethereum["kind"], ethereum["chain_id"], ethereum["status"]) == ("evm", 1, "following")
    assert ethereum["native"] == {"symbol": "ETH", "decimals": 18}
    height = ethereum["height"]
    await mine_by_hand(api.ctx, "ethereum")
    assert (await client.get("/v1/networks")).json()["data"][0]["height"] == height + 1
    rate = (await client.get("/v1/rates", base="ETH", quote="USD")).json()
    assert (rate["value"], rate["source"]) == ("2500", "static")
    answer = {
        "source": "static",
        "pair": "ETH/USD",
        "rate": "2500",
        "at": None,
        "used": True,
        "problem": None,
    }
    assert rate["sources"] == [answer]
    assert (await client.get("/v1/rates", base="USD", quote="ETH")).json()["value"] == "0.0004"


async def test_a_rate_shows_every_source_and_why_it_was_not_used(database_url: str) -> None:
    at = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

    class Live:
        """Two exchanges, one of which is ten times wrong."""

        async def rate(self, base: str, quote: str) -> Rate:
            answers = (
                Answer("kraken", "ETH/USD", Fraction("2500.10"), at, used=True),
                Answer(
                    "coinbase", "ETH/USD", Fraction(25000), at, problem="the rate lies 900 % from the middle"
                ),
                Answer("binance", "ETH/USD", problem="It did not answer in time."),
            )
            return Rate(base, quote, Fraction("2500.10"), "kraken", answers, at)

    async with running_api(database_url, rates=Live()) as api:
        client = api.client((await api.merchant()).key)
        rate = (await client.get("/v1/rates", base="ETH", quote="USD")).json()
    assert (rate["object"], rate["base"], rate["quote"]) == ("rate", "ETH", "USD")
    assert (rate["value"], rate["source"], rate["at"]) == ("2500.1", "kraken", "2026-11-21T12:00:00Z")
    assert [(one["source"], one["rate"], one["used"], one["problem"]) for one in rate["sources"]] == [
        ("kraken", "2500.1", True, None),
        ("coinbase", "25000", False, "the rate lies 900 % from the middle"),
        ("binance", None, False, "It did not answer in time."),
    ]


async def test_webhook_endpoints(client: Client) -> None:
    made = await client.post(
        "/v1/webhook_endpoints",
        {"url": "https://shop.example/hook", "events": ["invoice.paid"], "description": "main"},
    )
    assert made.status_code == 201
    endpoint = made.json()
    secret = endpoint.pop("secret")
    assert secret.startswith("whsec_")
    path = f"/v1/webhook_endpoints/{endpoint['id']}"
    shown = (await client.get(path)).json()
    assert shown == endpoint
    assert secret not in (await client.get("/v1/webhook_endpoints")).text
    changed = await client.http.patch(path, json={"events": ["*"], "status": "disabled"})
    assert changed.status_code == 200
    assert changed.json() | {"events": ["*"], "status": "disabled", "description": "main"} == changed.json()
    assert "secret" not in changed.json()
    problem(await client.post(f"{path}/ping"), 409, "invalid_state")
    assert (await client.http.patch(path, json={"status": "enabled"})).json()["status"] == "enabled"
    problem(await client.http.patch(path, json={"url": None}), 422, "validation_failed", "/url")
    rotated = (await client.post(f"{path}/rotate_secret")).json()
    assert rotated["secret"] != secret
    gone = await client.http.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    problem(await client.get(path), 404, "not_found")
    problem(await client.http.delete(path), 404, "not_found")


async def test_events_and_their_deliveries(client: Client) -> None:
    endpoint = (await client.post("/v1/webhook_endpoints", {"url": "https://shop.example/hook"})).json()
    invoice = await client.invoice()
    listed = (await client.get("/v1/events", object_id=invoice["id"])).json()["data"]
    # Events of one millisecond have ids in any order: receivers sort by the object's own sequence.
    newest = sorted(listed, key=lambda event: -event["data"]["sequence"])
    assert newest[-1]["type"] == "invoice.created"
    assert newest[0]["data"]["object"]["id"] == invoice["id"]
    assert [event["data"]["sequence"] for event in newest] == list(range(len(newest), 0, -1))
    stream = (await client.get("/v1/events", after=newest[-1]["id"])).json()["data"]
    assert [event["id"] for event in stream] == [event["id"] for event in newest[-2::-1]]
    only = (await client.get("/v1/events", type="invoice.created")).json()["data"]
    assert [event["id"] for event in only] == [newest[-1]["id"]]
    path = f"/v1/events/{newest[0]['id']}"
    assert (await client.get(path)).json() == newest[0]
    (delivery,) = (await client.get(f"{path}/deliveries")).json()["data"]
    assert (delivery["endpoint_id"], delivery["status"], delivery["attempts"]) == (
        endpoint["id"],
        "pending",
        [],
    )
    again = await client.post(f"{path}/redeliver", {"endpoint_id": endpoint["id"]})
    assert again.status_code == 200
    assert [one["id"] for one in again.json()["data"]] == [delivery["id"]]
    ping = (await client.post(f"/v1/webhook_endpoints/{endpoint['id']}/ping")).json()
    assert ping["type"] == "webhook.ping"
    problem(await client.get("/v1/events", after="x"), 400, "invalid_parameter")


async def test_the_merchants_name_is_not_needed_to_ask(api: Api, merchant: Merchant) -> None:
    """Keys are accepted in any case of the scheme's name, with more than one space."""
    client = api.client()
    client.http.headers["Authorization"] = f"bearer   {merchant.key}"
    assert (await client.get("/v1/networks")).status_code == 200
