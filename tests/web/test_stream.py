"""The stream: the view at once and on every change, whatever happens to notifications, database and neighbours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import aiohttp
import asyncpg
import pytest

from tallystick.core.invoice import LatePayment, Status
from tallystick.core.refund import RefundRule
from tallystick.db.sql import Connection
from tallystick.services import objects
from tallystick.services.checkout import customer_view
from tallystick.services.checkout_view import CustomerView
from tallystick.services.claiming import confirm_address
from tallystick.services.context import Context
from tallystick.services.refund_decisions import reject_refund
from tallystick.services.refunds import NewRefund, create_refund
from tallystick.web.stream import InvoiceHub, StreamLimits
from tests.web.conftest import LIMITS, Checkout
from tests.web.shop import MERCHANT, Shop

SECONDS_MAX = 30.0


@dataclass(slots=True)
class Stream:
    """Reads one stream block by block."""

    answer: aiohttp.ClientResponse
    comments: int = 0
    retry_ms: int | None = None
    ended: bool = field(default=False)

    async def next(self) -> dict[str, Any] | None:
        """The next view, or None at the end of the stream."""
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                fields = await self._block()
                if fields is None:
                    self.ended = True
                    return None
                if "data" in fields:
                    assert fields["event"] == "invoice"
                    return dict(json.loads(fields["data"]))

    async def until(self, status: str) -> dict[str, Any]:
        """The first view in this status."""
        while (view := await self.next()) is not None:
            if view["status"] == status:
                return view
        raise AssertionError(f"the stream ended before {status}")

    async def _block(self) -> dict[str, str] | None:
        fields: dict[str, str] = {}
        while line := await self.answer.content.readline():
            text = line.decode().rstrip("\r\n")
            if not text:
                return fields
            name, _, value = text.partition(": ")
            if name == "":
                self.comments += 1
            elif name == "retry":
                self.retry_ms = int(value)
            fields[name] = value
        return None


@asynccontextmanager
async def stream(checkout: Checkout, invoice: objects.Invoice) -> AsyncIterator[Stream]:
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(checkout.page(invoice, "/events")) as answer,
    ):
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        yield Stream(answer)


async def wait_for_streams(hub: InvoiceHub, count: int) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while hub.streams != count:
            await asyncio.sleep(0.01)


async def test_the_view_comes_at_once_and_on_every_change(checkout: Checkout) -> None:
    shop = checkout.shop
    invoice = await shop.create()
    async with stream(checkout, invoice) as events:
        first = await events.next()
        assert first is not None
        assert first["status"] == "quoted"
        assert first["object"] == "checkout"
        invoice = await shop.activate(invoice)
        assert (await events.until("awaiting_payment"))["options"][0]["uri"].startswith("ethereum:")
        await shop.pay(invoice, "0.4")
        part = await events.until("partially_paid")
        assert part["options"][0]["amount"] == "29.4"
        await shop.pay(invoice, "0.6")
        await events.until("confirming")
        await shop.mine("ethereum", 12)
        assert (await events.until("paid"))["success_url"] == "https://shop.example/thanks"


async def test_a_refund_moves_the_page_when_it_moves(shop: Shop) -> None:
    """By the real services, and without reading anything again for want of news.

    Planted and seen to fail: refunds that tell nobody who watches their invoice.
    """
    invoice = await shop.activate(await shop.create())
    await shop.pay(invoice, "1.5")
    await shop.mine("ethereum", 12)
    hub = InvoiceHub(shop.ctx, limits=StreamLimits(reread_seconds=600.0, heartbeat_seconds=600.0))
    async with hub.running(), asyncio.timeout(SECONDS_MAX):
        events = hub.events(invoice.id, "127.0.0.1")

        async def seen() -> tuple[str, list[str]]:
            view = json.loads(cast("bytes", (await anext(events)).data))
            return view["situation"], [f"{one['amount']} {one['text']}" for one in view["refunds"]]

        assert await seen() == ("overpaid", [])
        asked = NewRefund(reason="secret reason", invoice_id=invoice.id, rule=RefundRule.EXCESS)
        async with shop.database.transaction() as connection:
            refund = await create_refund(connection, shop.ctx, shop.merchant_id, MERCHANT, asked)
        assert await seen() == ("overpaid_returning", ["24.5 waiting for your address"])
        token = str(refund.claim_url).partition("token=")[2]
        async with shop.database.transaction() as connection:
            await confirm_address(connection, shop.ctx, refund.id, token, "0x" + "fe" * 20)
        assert await seen() == ("overpaid_returning", ["24.5 being prepared"])
        async with shop.database.transaction() as connection:
            await reject_refund(connection, shop.ctx, shop.merchant_id, MERCHANT, refund.id, "secret note")
        assert await seen() == ("overpaid", [])


async def test_late_money_that_goes_back_by_rule_waits_for_an_address(shop: Shop) -> None:
    """The rule itself asks for the refund, once the money is there for good."""
    invoice = await shop.activate(await shop.create(late_payment=LatePayment.REFUND))
    await shop.end(invoice)
    await shop.pay(invoice)

    async def situation() -> str:
        async with shop.database.snapshot() as connection:
            return (await customer_view(connection, shop.ctx, invoice.id)).situation

    assert await situation() == "late_refunded"
    await shop.mine("ethereum", 12)
    assert await situation() == "refund_address"


async def test_each_block_moves_the_count(checkout: Checkout) -> None:
    shop = checkout.shop
    invoice = await shop.activate(await shop.create())
    await shop.pay(invoice)
    async with stream(checkout, invoice) as events:
        first = await events.next()
        assert first is not None
        assert first["headline"] == "Confirming 1 of 12"
        await shop.block("ethereum")
        second = await events.next()
        assert second is not None
        assert second["headline"] == "Confirming 2 of 12"


async def test_what_did_not_change_is_not_sent_again(checkout: Checkout) -> None:
    shop = checkout.shop
    invoice = await shop.create()
    async with stream(checkout, invoice) as events:
        await events.next()
        for _ in range(5):
            await shop.force(invoice, Status.QUOTED)  # a notification without a change
        await shop.activate(invoice)
        changed = await events.next()
        assert changed is not None
        assert changed["status"] == "awaiting_payment"


async def test_a_lost_notification_only_delays(checkout: Checkout) -> None:
    invoice = await checkout.shop.create()
    async with stream(checkout, invoice) as events:
        await events.next()
        async with checkout.shop.database.connection() as connection:
            await connection.execute("UPDATE invoices SET status = 'canceled' WHERE id = $1", invoice.id)
        await events.until("canceled")
        assert events.comments >= 1  # it kept the line warm meanwhile


async def test_streams_outlive_a_database_that_drops_every_connection(
    checkout: Checkout, database_url: str
) -> None:
    invoice = await checkout.shop.create()
    async with stream(checkout, invoice) as events:
        await events.next()
        admin = await asyncpg.connect(database_url)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await admin.execute("UPDATE invoices SET status = 'canceled' WHERE id = $1", invoice.id)
        await admin.close()
        await events.until("canceled")
        assert checkout.hub.streams == 1


async def test_two_browsers_see_the_same(checkout: Checkout) -> None:
    invoice = await checkout.shop.create()
    async with stream(checkout, invoice) as one, stream(checkout, invoice) as other:
        assert await one.next() == await other.next()
        await checkout.shop.activate(invoice)
        assert await one.until("awaiting_payment") == await other.until("awaiting_payment")


async def test_whoever_comes_above_the_limit_gets_the_view_and_comes_again(checkout: Checkout) -> None:
    invoice = await checkout.shop.create()
    async with aiohttp.ClientSession() as session:
        open_streams = [
            await session.get(checkout.page(invoice, "/events"))
            for _ in range(LIMITS.streams_per_address_max)
        ]
        await wait_for_streams(checkout.hub, LIMITS.streams_per_address_max)
        async with stream(checkout, invoice) as extra:
            view = await extra.next()
            assert view is not None
            assert view["status"] == "quoted"
            assert extra.retry_ms == int(LIMITS.reread_seconds * 1000)
            assert await extra.next() is None
        for answer in open_streams:
            answer.close()
    await wait_for_streams(checkout.hub, 0)
    async with stream(checkout, invoice) as again:
        await again.next()
        assert checkout.hub.streams == 1


async def test_closing_ends_every_stream(checkout: Checkout) -> None:
    invoice = await checkout.shop.create()
    async with stream(checkout, invoice) as events:
        await events.next()
        checkout.hub.close()
        assert await events.next() is None
    assert checkout.hub.streams == 0


async def test_a_stream_ends_after_its_lifetime(shop: Shop) -> None:
    invoice = await shop.create()
    hub = InvoiceHub(shop.ctx, limits=StreamLimits(heartbeat_seconds=0.05, lifetime_seconds_max=0.2))
    async with asyncio.timeout(SECONDS_MAX), hub.running():
        messages = [message async for message in hub.events(invoice.id, "a")]
    assert sum(message.event == "invoice" for message in messages) == 1
    assert hub.streams == 0


async def test_an_invoice_that_cannot_be_shown_stops_nobody_else(shop: Shop) -> None:
    bad, good = await shop.create(), await shop.create()
    broken: set[str] = set()

    async def read(connection: Connection, ctx: Context, invoice_id: str) -> CustomerView:
        if invoice_id in broken:
            raise KeyError("a defect")
        return await customer_view(connection, ctx, invoice_id)

    hub = InvoiceHub(shop.ctx, limits=LIMITS, read=read)
    async with asyncio.timeout(SECONDS_MAX), hub.running():
        bad_events, good_events = hub.events(bad.id, "a"), hub.events(good.id, "a")
        await anext(bad_events)
        await anext(good_events)
        broken.add(bad.id)
        await shop.force(bad, Status.CANCELED)
        await shop.force(good, Status.CANCELED)
        async for message in good_events:
            if message.event == "invoice":
                assert b'"status":"canceled"' in (message.data if isinstance(message.data, bytes) else b"")
                break
        await good_events.aclose()  # type: ignore[attr-defined]
        await bad_events.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("changes", [50])
async def test_a_slow_browser_gets_the_newest_view_only(shop: Shop, changes: int) -> None:
    invoice = await shop.create()
    hub = InvoiceHub(shop.ctx, limits=LIMITS)
    async with asyncio.timeout(SECONDS_MAX), hub.running():
        events = hub.events(invoice.id, "a")
        await anext(events)
        for _ in range(changes):
            await shop.force(invoice, Status.REVIEW_REQUIRED)
            await shop.force(invoice, Status.QUOTED)
        await shop.force(invoice, Status.CANCELED)
        received = []
        async for message in events:
            if message.event == "invoice":
                assert isinstance(message.data, bytes)
                received.append(json.loads(message.data)["status"])
                if received[-1] == "canceled":
                    break
        assert len(received) < changes
        await events.aclose()  # type: ignore[attr-defined]


ON_NEWS_ONLY = StreamLimits(reread_seconds=600.0, heartbeat_seconds=0.05)


async def next_view(events: AsyncIterator[Any]) -> dict[str, Any]:
    """The next view of a stream, past comments."""
    async for message in events:
        if message.event == "invoice":
            return dict(json.loads(message.data))
    raise AssertionError("the stream ended")


async def test_what_was_taken_back_before_it_was_sent_is_not_sent(shop: Shop) -> None:
    """A browser that was slow is not told what is no longer so.

    Planted and seen to fail: the view that waits is kept when the one that was sent is true again.
    """
    invoice = await shop.create()
    reads: list[str] = []
    more = asyncio.Condition()

    async def read(connection: Connection, ctx: Context, invoice_id: str) -> CustomerView:
        view = await customer_view(connection, ctx, invoice_id)
        async with more:
            reads.append(view.status)
            more.notify_all()
        return view

    def is_last(status: Status) -> bool:
        return reads[-1] == status.value

    hub = InvoiceHub(shop.ctx, limits=ON_NEWS_ONLY, read=read)
    async with asyncio.timeout(SECONDS_MAX), hub.running():
        events = hub.events(invoice.id, "a")
        assert (await next_view(events))["status"] == "quoted"
        for status in (Status.REVIEW_REQUIRED, Status.QUOTED):
            await shop.force(invoice, status)
            async with more:
                await more.wait_for(partial(is_last, status))
        # Whatever the loop does next, it has offered the last one by then.
        other = await shop.create()
        others = hub.events(other.id, "b")
        await next_view(others)
        await shop.force(other, Status.CANCELED)
        assert (await next_view(others))["status"] == "canceled"
        assert (await anext(events)).event != "invoice"
        for stream_of_one in (events, others):
            await stream_of_one.aclose()  # type: ignore[attr-defined]


async def test_a_block_that_comes_while_its_invoice_is_read_is_counted(shop: Shop) -> None:
    """Both while the loop reads, and while a new browser does: nothing has to be read again for want of news.

    Planted and seen to fail: a block moves only what was already shown to count confirmations.
    """
    invoice = await shop.activate(await shop.create())
    reads = 0
    mine_at: set[int] = set()

    async def read(connection: Connection, ctx: Context, invoice_id: str) -> CustomerView:
        nonlocal reads
        reads += 1
        mine = reads in mine_at
        view = await customer_view(connection, ctx, invoice_id)
        if mine:
            await shop.block("ethereum")
        return view

    hub = InvoiceHub(shop.ctx, limits=ON_NEWS_ONLY, read=read)
    async with asyncio.timeout(SECONDS_MAX), hub.running():
        events = hub.events(invoice.id, "a")
        assert (await next_view(events))["status"] == "awaiting_payment"
        await shop.force(invoice, Status.REVIEW_REQUIRED)
        await next_view(events)  # so the loop listens
        await shop.force(invoice, Status.AWAITING_PAYMENT)
        await next_view(events)
        mine_at.add(reads + 1)
        await shop.pay(invoice)
        assert (await next_view(events))["headline"] == "Confirming 1 of 12"
        assert (await next_view(events))["headline"] == "Confirming 2 of 12"
        await events.aclose()  # type: ignore[attr-defined]

        before = reads

        async def slow(connection: Connection, ctx: Context, invoice_id: str) -> CustomerView:
            """The new browser's own read; it goes on when the loop has read what came meanwhile."""
            own = reads == before
            view = await read(connection, ctx, invoice_id)
            while own and reads == before + 1:
                await asyncio.sleep(0.005)
            return view

        mine_at.add(before + 1)
        hub._read = slow
        again = hub.events(invoice.id, "a")
        # News of the block before may still be on its way: then the loop reads first, the browser what was so.
        while (headline := (await next_view(again))["headline"]) != "Confirming 3 of 12":
            assert headline == "Confirming 2 of 12"
        await again.aclose()  # type: ignore[attr-defined]
