"""`kill -9` at every commit point, right before and right after its COMMIT (F-HOOK 3, F-API 1 and 5, R-CHAIN 6 and 10).

The list of points is read from the code (`tests/support/commit_points.py`); one that no server of this test died at
fails it, so that nobody adds a place that commits without showing what a crash there does. The server is a real
`tallystick up` that kills itself at the points (`crash_server`); a shop is taken through invoices, payments, expiry,
refunds, decisions and deliveries meanwhile. After each death every invariant of the database is checked, before the
next start; whoever got no answer asks again under the same idempotency key.
Planted, each seen to fail here: the answer of a key stored in a transaction of its own after the effect's (its
repetition is refused); the cursor moved in a transaction of its own before the block's facts, and deliveries called
delivered when they are claimed (the database is not in order); a place that commits and is not in the story.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web

from tallystick.db.embedded import temporary_data_folder
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services.context import Context
from tallystick.services.merchants import create_merchant
from tests.support.anvil import start_anvil, unique_chain_id
from tests.support.commit_points import commit_points
from tests.support.crash_driver import STEP_SECONDS_MAX, CrashingShop
from tests.support.crash_server import AFTER, BEFORE
from tests.support.evm import Chain
from tests.support.installation import NodeAt
from tests.support.lying_proxy import Fault, LyingProxy
from tests.support.receiver import Received, Receiver, accept, running_receiver
from tests.support.stand import RATES, account_key, evm_network

pytestmark = [pytest.mark.chain, pytest.mark.slow]

NOT_OF_A_SERVER = {
    "cli.manage.transact.main": "a command by hand: one transaction, repeated by who typed it",
    "demo.run._create_merchant": "the demo's money is play money, its folder is new each time",
    "workers.follow.Follower._prune": "one statement that forgets blocks nothing rests on, after a thousand of them",
}
HOME = f"0x{'c0ffee' * 6}0001"
PRICE = 10**16  # what 25.00 USD asks in ETH
CONFIRMATIONS = 2
STOPS_MAX = 5
ROUNDS_MAX = 3
Json = dict[str, Any]


class Story:
    """What happens in the shop, in chapters."""

    def __init__(self, shop: CrashingShop, chain: Chain, proxy: LyingProxy, receiver: Receiver) -> None:
        self.shop, self.chain, self.proxy, self.receiver = shop, chain, proxy, receiver
        self.invoices = 0
        self.rounds = 1  # how often the chapters that can be told again were told

    async def invoice(self, *networks: str, **more: Any) -> Json:
        """A new invoice of 25 dollars in ETH."""
        self.invoices += 1
        accepted = [{"asset": asset, "network": "local"} for asset in networks or ("ETH",)]
        made: Json = await self.shop.post(
            "/v1/invoices", {"amount": "25.00", "currency": "USD", "accepted": accepted} | more
        )
        return made

    async def pay(self, invoice: Json, amount: int = PRICE, *, mine: int = CONFIRMATIONS) -> None:
        await self.chain.send_native(invoice["payment_options"][0]["address"], amount)
        await self.chain.mine(mine)

    async def case(self, invoice: Json, kind: str) -> Json:
        """The open case about an invoice."""

        async def found() -> Json | None:
            cases = await self.shop.all("/v1/exceptions?status=open")
            return next(
                (one for one in cases if (one["invoice_id"], one["kind"]) == (invoice["id"], kind)), None
            )

        case: Json = await self.shop.until(found)
        return case

    async def hours_pass(self, hours: float) -> None:
        """On our clock and on the chain."""
        await self.chain.set_next_time(await self.chain.time() + int(hours * 3600))
        await self.chain.mine()
        await self.shop.again(hours=hours)

    async def set_up(self) -> None:
        """A wallet, rules, and two endpoints of which one never accepts anything and is deleted."""
        shop = self.shop
        await shop.post("/v1/wallets", {"family": "evm", "account_key": account_key(), "label": "main"})
        rule = {"name": "large", "match": {"amount_gte": "5000"}, "require": {"confirmations": 9}}
        await shop.ask("PUT", "/v1/confirmation_policies", {"rules": [rule]})
        await shop.post("/v1/confirmation_policies/preview", {"amount": "25.00", "currency": "USD"})
        hook = await shop.post("/v1/webhook_endpoints", {"url": f"{self.receiver.url}/hook", "events": ["*"]})
        self.receiver.secrets.append(hook["secret"])
        own = f"/v1/webhook_endpoints/{hook['id']}"
        await shop.ask("PATCH", own, {"description": "the till"})
        self.receiver.secrets.append((await shop.post(f"{own}/rotate_secret"))["secret"])
        await shop.post(f"{own}/ping")
        self.closed = await shop.post(
            "/v1/webhook_endpoints", {"url": f"{self.receiver.url}/closed", "events": ["*"]}
        )

    async def paid_and_disputed(self) -> None:
        """Seen, in a block, paid, delivered, disputed; a refund whose address the customer gives, then rejected."""
        shop = self.shop
        invoice = await self.invoice()
        await self.pay(invoice, mine=0)
        await shop.invoice_is(invoice, "detected")
        await self.chain.mine(CONFIRMATIONS)
        await shop.invoice_is(invoice, "paid")
        own = f"/v1/invoices/{invoice['id']}"
        await shop.post(f"{own}/fulfillment", {"reference": "parcel 7"})
        await shop.post(f"{own}/dispute", {"reason": "not delivered", "note": "The customer says so."})
        await shop.post(
            f"{own}/dispute/resolve", {"outcome": "merchant", "note": "The parcel was signed for."}
        )
        refund = await shop.post(
            "/v1/refunds", {"reason": "returned", "invoice_id": invoice["id"], "amount": "0.001"}
        )
        link = (await shop.post(f"/v1/refunds/{refund['id']}/claim_link"))["claim_url"]
        path, _, token = link.partition("?token=")
        fields = {"token": token, "address": HOME, "sure": "yes"}
        await shop.form(f"/r/{path.rpartition('/')[2]}/confirm", fields)
        assert (await shop.get(f"/v1/refunds/{refund['id']}"))["address"].lower() == HOME
        await shop.post(f"/v1/refunds/{refund['id']}/reject", {"note": "Not after all."})

    async def overpaid_and_given_back(self) -> None:
        """A case, decided; its refund approved, signed elsewhere, told, seen on chain, completed."""
        shop = self.shop
        invoice = await self.invoice()
        await self.pay(invoice, 2 * PRICE)
        await shop.invoice_is(invoice, "overpaid")
        case = f"/v1/exceptions/{(await self.case(invoice, 'overpaid'))['id']}"
        await shop.post(f"{case}/assign", {"owner": "the till"})
        await shop.post(
            f"{case}/resolve", {"action": "refund", "note": "Too much.", "refund": {"address": HOME}}
        )
        (refund,) = [one for one in await shop.all("/v1/refunds") if one["invoice_id"] == invoice["id"]]
        approved = await shop.post(f"/v1/refunds/{refund['id']}/approve", {"note": "looks right"})
        fixed = approved["payment_request"]["unsigned_transaction"]
        signed = await self.chain.sign(to=fixed["to"], value=int(fixed["value"]), sender=3)
        await shop.post(f"/v1/refunds/{refund['id']}/broadcast", {"tx_hash": signed.tx_hash})
        await self.chain.submit(signed)
        await self.chain.mine(CONFIRMATIONS)
        await shop.refund_is(refund, "completed")

    async def chosen_and_canceled(self) -> None:
        """One way to pay chosen on the page, the other by the merchant; nothing comes."""
        invoice = await self.invoice("ETH", "DUSD", activate=False)
        first, second = invoice["payment_options"]
        await self.shop.form(f"/i/{invoice['id']}/options/{first['id']}", {})
        await self.shop.post(f"/v1/invoices/{invoice['id']}/options/{second['id']}/activate")
        await self.shop.post(f"/v1/invoices/{invoice['id']}/cancel")

    async def hidden(self) -> None:
        """Seen outside any block, until the operator switches the look at the mempool off, and on again."""
        shop = self.shop
        invoice = await self.invoice()
        await self.pay(invoice, mine=0)
        await shop.invoice_is(invoice, "detected")
        await shop.again(mempool=False)
        await shop.died_at("services.sightings.withdraw_sightings")
        await shop.invoice_is(invoice, "awaiting_payment")
        await shop.again()
        await self.chain.mine(CONFIRMATIONS)
        await shop.invoice_is(invoice, "paid")

    async def node_in_trouble(self) -> None:
        """The node fails until that is shown, then works again."""
        self.proxy.lie(Fault.SERVER_ERROR)
        await self.shop.died_at("workers.follow.Follower.note_trouble")
        self.proxy.lie(None)

        async def following() -> bool:
            return bool((await self.shop.get("/v1/networks"))["data"][0]["status"] == "following")

        await self.shop.until(following)

    async def stopped_while_delivering(self) -> None:
        """Ctrl-C while a receiver does not answer: what was claimed is given back."""
        reached = asyncio.Event()

        async def hang(_request: web.Request, _received: Received) -> web.StreamResponse:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

        point = "workers.courier.Courier.release"
        self.receiver.answer = hang
        for _ in range(STOPS_MAX):  # one that takes too long to stop is cut short, and gives nothing back
            reached.clear()
            await self.invoice(expires_in=10)
            async with asyncio.timeout(STEP_SECONDS_MAX):
                while not reached.is_set():
                    await self.shop.alive()
                    await asyncio.sleep(0.02)
            await self.shop.interrupt()
            if sum(line.startswith(f"{point} ") for line in self.shop.died()) == 2:
                break
        self.receiver.answer = accept

    async def time_passes(self) -> None:
        """Windows end, quotes end, a refund is not seen, answers are old enough to forget, late money comes."""
        shop = self.shop
        under, late, quoted = (
            await self.invoice(),
            await self.invoice(),
            await self.invoice(expires_in=86_400),
        )
        await self.pay(under, PRICE // 2)
        over = await self.invoice()
        await self.pay(over, 2 * PRICE)
        case = f"/v1/exceptions/{(await self.case(over, 'overpaid'))['id']}"
        await shop.post(
            f"{case}/resolve", {"action": "refund", "note": "Too much.", "refund": {"address": HOME}}
        )
        (refund,) = [one for one in await shop.all("/v1/refunds") if one["invoice_id"] == over["id"]]
        await shop.post(f"/v1/refunds/{refund['id']}/approve")
        await self.hours_pass(0.5)
        await shop.invoice_is(late, "expired")
        await shop.invoice_is(under, "underpaid")
        await shop.died_at("workers.balances.BalanceChecker.batch")
        await shop.died_at("workers.requote.Requoter.batch")
        await self.pay(late)
        await shop.invoice_is(late, "late_paid")
        await self.pay(quoted)
        await shop.invoice_is(quoted, "paid")
        event = (await shop.get("/v1/events?limit=1"))["data"][0]
        await shop.post(f"/v1/events/{event['id']}/redeliver")
        await shop.ask("DELETE", f"/v1/webhook_endpoints/{self.closed['id']}")
        await self.hours_pass(24 * 8)
        await shop.refund_is(refund, "needs_attention")
        for point in ("workers.tidy.Tidier.batch", "workers.courier.Courier.keep_house"):
            await shop.died_at(point)


@pytest.fixture
async def story(database_url: str) -> AsyncIterator[Story]:
    """A merchant on a chain of his own, behind a proxy, and a receiver that refuses what goes to /closed."""
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(start_anvil(chain_id=unique_chain_id()))
        chain = await stack.enter_async_context(Chain(node.url, node.chain_id))
        token = await chain.deploy_token()
        proxy = await stack.enter_async_context(LyingProxy(node.url))
        receiver = await stack.enter_async_context(running_receiver())
        receiver.check_clock = False
        database = await Database.open(database_url, connections_max=4)
        stack.push_async_callback(database.close)
        network = evm_network("local", chain.chain_id, token=token, confirmations=CONFIRMATIONS)
        ctx = Context(database, {"local": network}, StaticRates(RATES), "http://127.0.0.1")
        async with database.transaction() as connection:
            _, api_key = await create_merchant(connection, ctx, "Tally & Sons")
        folder = stack.enter_context(temporary_data_folder("tallystick-points-"))
        at = NodeAt("local", chain.chain_id, proxy.url, token, confirmations=CONFIRMATIONS)
        shop = CrashingShop(folder, [at], database_url, ctx, spared=NOT_OF_A_SERVER, api_key=api_key)
        await stack.enter_async_context(shop)
        await shop.start()
        yield Story(shop, chain, proxy, receiver)


async def test_killed_on_both_sides_of_every_commit(story: Story) -> None:
    """Every effect once, every event delivered, nothing half done, whatever was being committed."""
    shop, receiver = story.shop, story.receiver
    refused: Counter[str] = Counter()

    async def picky(request: web.Request, received: Received) -> web.StreamResponse:
        if request.path == "/closed":
            refused[received.id] += 1
            return web.Response(status=500)
        return await accept(request, received)

    receiver.answer = picky
    await story.set_up()
    await story.paid_and_disputed()
    await story.overpaid_and_given_back()
    await story.chosen_and_canceled()
    await story.hidden()
    await story.node_in_trouble()
    await story.time_passes()
    await story.stopped_while_delivering()
    wanted = {f"{point} {side}" for point in commit_points() for side in (BEFORE, AFTER)}
    exempt = {f"{point} {side}" for point in NOT_OF_A_SERVER for side in (BEFORE, AFTER)}
    for _ in range(ROUNDS_MAX):
        # Between an effect's commit and the death after it, the server may have died at another place: then asking
        # again has no effect to die after. Another customer has.
        if not wanted - exempt - set(shop.died()):
            break
        story.rounds += 1
        await story.paid_and_disputed()
        await story.overpaid_and_given_back()
        await story.chosen_and_canceled()
    await shop.again(hours=0.1)  # leases of what was on its way when the server died are over
    events = await shop.all("/v1/events")

    async def all_arrived() -> bool:
        arrived = {one.id for one in receiver.received if one.path == "/hook"}
        return {event["id"] for event in events} <= arrived

    await shop.until(all_arrived)
    await _check_effects(story, events)
    died = shop.died()
    assert sorted(wanted - exempt - set(died)) == [], "a place that commits was never died at"
    assert len(died) == len(set(died))
    assert shop.loose() == [], "written and committed outside a transaction"
    assert set(NOT_OF_A_SERVER) <= set(commit_points()), "the table names a place that is no more"


async def _check_effects(story: Story, events: list[Json]) -> None:
    """Each thing that was asked for is there once."""
    shop = story.shop
    assert len(await shop.all("/v1/invoices")) == story.invoices
    assert len(await shop.all("/v1/wallets")) == 1
    assert len(await shop.all("/v1/webhook_endpoints")) == 1
    assert len(await shop.all("/v1/refunds")) == 1 + 2 * story.rounds
    assert len({event["id"] for event in events}) == len(events)
    told = Counter(event["type"] for event in events)
    once = ("invoice.disputed", "refund.completed", "refund.rejected")
    assert {kind: told[kind] for kind in once if told[kind] != story.rounds} == {}
    assert told["webhook.ping"] == 1
    numbered = Counter((event["data"]["object"]["id"], event["data"].get("sequence")) for event in events)
    assert {key: n for key, n in numbered.items() if n > 1 and key[1] is not None} == {}
    assert all(datetime.fromisoformat(event["created_at"]).tzinfo for event in events)
