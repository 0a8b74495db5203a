"""`tallystick demo`: a whole payment on this machine, with throw-away data.

Holds true: everything that is started is stopped and the data folder removed, however the demo ends (should it be
killed, its database and its chain end by themselves). The server is the real one, and is used through its public
interface; it gets an account's public key only, the customer's keys stay with the simulated customer.
Must not: be used for anything but looking: its chain and its keys are known to the whole world.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from tallystick import config as configuration
from tallystick.core.errors import ConfigurationError
from tallystick.db.embedded import EmbeddedPostgres, temporary_data_folder
from tallystick.demo.anvil import find_anvil, start_anvil
from tallystick.demo.merchant import DemoFailed, Merchant
from tallystick.demo.timeline import Timeline, shortened
from tallystick.runtime import EVERYTHING, Ready, serve

if TYPE_CHECKING:
    from tallystick.demo.anvil import Anvil
    from tallystick.demo.customer import Customer
    from tallystick.demo.shop import Shop

NETWORK: Final = "anvil"
TOKEN: Final = "DUSD"  # noqa: S105  # a coin's symbol
TOKEN_DECIMALS: Final = 6
CONFIRMATIONS: Final = 3
CHAIN_ID_FIRST: Final = 31_337_000_000
BLOCK_SECONDS: Final = 1
DEFAULT_PORT: Final = 8420

START_SECONDS_MAX: Final = 30.0
PAYMENT_SECONDS_MAX: Final = 60.0
LOOK_SECONDS: Final = 0.15
CUSTOMER_THINKS_SECONDS: Final = 2.0
OPEN_INVOICE_SECONDS: Final = 24 * 3600
CUSTOMER_FUNDS: Final = 1_000_000 * 10**TOKEN_DECIMALS

# The merchant's own wallet software would hold these words. The whole world knows them (BIP39's first test vector).
MERCHANT_WORDS: Final = (
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
)
ACCOUNT_PATH: Final = "m/44'/60'/0'"


ResultT = TypeVar("ResultT")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo showed, for `--json`."""

    invoice_id: str
    status: str
    tx_hash: str
    checkout_url: str
    webhooks_verified: list[str]
    transitions: list[str]


@dataclass(frozen=True, slots=True)
class _Stage:
    """Everything that plays a part."""

    ready: Ready
    merchant: Merchant
    merchant_id: str
    api_key: str
    customer: Customer
    token: str
    shop: Shop
    timeline: Timeline
    events: list[dict[str, Any]]


def merchant_account_key() -> str:
    """The public key of the merchant's account, as their wallet software shows it."""
    from bip32 import BIP32
    from eth_account.hdaccount import seed_from_mnemonic

    seed = seed_from_mnemonic(MERCHANT_WORDS, "")
    return str(BIP32.from_seed(seed).get_xpub_from_path(ACCOUNT_PATH))


def check_parts() -> None:
    """Raise, with what to do, where the demo's extra parts are not installed."""
    find_anvil()
    from importlib.util import find_spec

    if find_spec("eth_account") is None:
        raise DemoFailed(
            "The simulated customer needs the package eth-account, which is not installed.",
            remedy="Run `make run`, which installs it; or `pip install tallystick[demo]`.",
        )


async def run_demo(
    stop: asyncio.Event, *, port: int | None, once: bool, as_json: bool, wait_for_key: bool
) -> Outcome | None:
    """Show a payment; then, unless `once`, stay up for the visitor until `stop`. None if stopped before the end."""
    check_parts()
    timeline = Timeline(sys.stderr if as_json else sys.stdout)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_data_folder("tallystick-demo-"))
        stage = await _set_up(stack, folder, stop, timeline, port)
        outcome = await _or_stopped(_first_payment(stage), stop)
        if outcome is None or once:
            return outcome
        await _or_stopped(_stay(stage, stop, wait_for_key=wait_for_key), stop)
        timeline.say("", "Stopping; nothing is left behind.")
        return outcome


async def _or_stopped(work: Coroutine[Any, Any, ResultT], stop: asyncio.Event) -> ResultT | None:
    """The result of `work`, or None if `stop` is set before it ends."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return None
    return working.result()


async def _set_up(
    stack: AsyncExitStack, folder: Path, stop: asyncio.Event, timeline: Timeline, port: int | None
) -> _Stage:
    from tallystick.demo.customer import Customer, development_account
    from tallystick.demo.shop import open_shop

    timeline.note("demo", "a local chain, an empty database and the server are started")
    chain = await stack.enter_async_context(start_anvil(chain_id=CHAIN_ID_FIRST + os.getpid()))
    customer = await stack.enter_async_context(Customer(chain.url, chain.chain_id, development_account(0)))
    token = await _issue_token(chain, customer)
    # Nobody will miss this data, so nobody waits for the disk.
    database = EmbeddedPostgres(folder / "data", worthless_data=True)
    config = _config(await stack.enter_async_context(database.run()), chain, token, port)
    ready = await stack.enter_async_context(_server(config, stop))
    events: list[dict[str, Any]] = []

    def on_event(event: dict[str, Any]) -> None:
        events.append(event)
        timeline.webhook(event)

    shop = await stack.enter_async_context(open_shop(on_event))
    merchant_id, api_key = await _create_merchant(ready)
    merchant = await stack.enter_async_context(Merchant(f"http://{ready.listen}", api_key))
    timeline.note("server", f"answers on http://{ready.listen}", f"chain {chain.chain_id} on {chain.url}")
    stage = _Stage(ready, merchant, merchant_id, api_key, customer, token, shop, timeline, events)
    await _open_the_shop(stage)
    return stage


async def _issue_token(chain: Anvil, customer: Customer) -> str:
    """Deploy the token and give the customer some, in blocks mined for it; then blocks come by the clock."""
    from tallystick.demo.customer import demo_token

    data = demo_token().deployment("Demo Dollar", TOKEN, TOKEN_DECIMALS)
    deployed = await customer.send(to=None, data=data)
    await chain.mine()
    receipt = await chain.rpc("eth_getTransactionReceipt", [deployed])
    token = str(receipt["contractAddress"]).lower()
    await customer.mint(token, customer.address, CUSTOMER_FUNDS)
    await chain.mine()
    await chain.rpc("evm_setIntervalMining", [BLOCK_SECONDS])
    return token


def _config(database_url: str, chain: Anvil, token: str, port: int | None) -> configuration.Config:
    """The demo's configuration. Of the environment only where to listen and the public address are taken over."""
    document: dict[str, Any] = {
        "database_url": database_url,
        "listen": f"127.0.0.1:{_free_or_any(port)}",
        "webhooks": {"allow_private_targets": True},
        "rates": {"static": {"ETH/USD": "2500", f"{TOKEN}/USD": "1"}},
        "networks": {
            NETWORK: {
                "kind": "evm",
                "chain_id": chain.chain_id,
                "rpc": [chain.url],
                "native": {"symbol": "ETH", "decimals": 18, "quote_decimals": 6},
                "confirmations": CONFIRMATIONS,
                "poll_interval_ms": 200,
                "start_height": 0,
                "tokens": {TOKEN: {"contract": token, "decimals": TOKEN_DECIMALS}},
            }
        },
    }
    taken_over = (
        ("TALLYSTICK_PUBLIC_URL",) if port is not None else ("TALLYSTICK_PUBLIC_URL", "TALLYSTICK_LISTEN")
    )
    return configuration.from_document(
        document, environment={name: os.environ[name] for name in taken_over if name in os.environ}
    )


def _free_or_any(port: int | None) -> int:
    """The wanted port; without a wish the usual one if it is free, else any (0)."""
    from tallystick.server import take_address

    if port is not None:
        return port
    try:
        take_address("127.0.0.1", DEFAULT_PORT).close()
    except ConfigurationError:
        return 0
    return DEFAULT_PORT


@asynccontextmanager
async def _server(config: configuration.Config, stop: asyncio.Event) -> AsyncIterator[Ready]:
    """The real server, in this process. Stops the demo when it ends by itself."""
    started: list[Ready] = []
    answers, own_stop = asyncio.Event(), asyncio.Event()

    def on_ready(ready: Ready) -> None:
        started.append(ready)
        answers.set()

    serving = asyncio.create_task(serve(config, EVERYTHING, own_stop, on_ready=on_ready), name="demo-server")
    starting = asyncio.create_task(answers.wait())
    try:
        await asyncio.wait(
            {serving, starting}, timeout=START_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED
        )
        if serving.done():
            serving.result()  # raises what went wrong
        if not started:
            raise DemoFailed(f"The server did not start within {START_SECONDS_MAX:.0f} s.")
        serving.add_done_callback(lambda _task: stop.set())
        yield started[0]
    finally:
        starting.cancel()
        own_stop.set()
        await serving


async def _create_merchant(ready: Ready) -> tuple[str, str]:
    from tallystick.services.merchants import create_merchant

    async with ready.context.database.transaction() as connection:
        return await create_merchant(connection, ready.context, "Demo Coffee Roasters")


async def _open_the_shop(stage: _Stage) -> None:
    """What a merchant does once: register the wallet and the webhook endpoint."""
    await _until(stage.merchant.ready, START_SECONDS_MAX, "The server was not ready in time.")
    key = merchant_account_key()
    wallet = await stage.merchant.post("/v1/wallets", {"family": "evm", "account_key": key, "label": "demo"})
    first = next(iter(wallet["first_addresses"].values()))[0]
    stage.timeline.note("merchant", "registered a wallet by its public key", f"first address {first}")
    endpoint = await stage.merchant.post("/v1/webhook_endpoints", {"url": stage.shop.url, "events": ["*"]})
    stage.shop.secrets.append(endpoint["secret"])
    stage.timeline.note("merchant", "registered a webhook endpoint", stage.shop.url)


async def _first_payment(stage: _Stage) -> Outcome:
    """An invoice is made, a customer picks the token and pays, the shop hears of it."""
    invoice = await stage.merchant.create_invoice("DEMO-1", "25.00", "USD", 900)
    stage.timeline.note("merchant", f"asks 25.00 USD for order DEMO-1: {invoice['id']}")
    stage.timeline.note("checkout", invoice["checkout_url"], style="underline")
    async with asyncio.timeout(PAYMENT_SECONDS_MAX):
        watching = asyncio.create_task(_watch(stage, invoice["id"]))
        try:
            await asyncio.sleep(CUSTOMER_THINKS_SECONDS)  # people look before they pay; nothing waits for it
            tx_hash = await _pay(stage, invoice["id"])
            await watching
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    paid = await stage.merchant.invoice(invoice["id"])

    async def told() -> bool:
        return any(_is_about(event, invoice["id"], "invoice.paid") for event in stage.events)

    await _until(told, PAYMENT_SECONDS_MAX, "The shop did not hear of the payment in time.")
    history = await stage.merchant.transitions(invoice["id"])
    return Outcome(
        invoice_id=invoice["id"],
        status=paid["status"],
        tx_hash=tx_hash,
        checkout_url=invoice["checkout_url"],
        webhooks_verified=[str(event["type"]) for event in stage.events],
        transitions=[step["to"] for step in history],
    )


def _is_about(event: dict[str, Any], invoice_id: str, kind: str) -> bool:
    return bool(event["type"] == kind and event["data"]["object"]["id"] == invoice_id)


async def _pay(stage: _Stage, invoice_id: str) -> str:
    """The customer takes the option that is open, else the token, and pays what is due. The transaction's hash."""
    invoice = await stage.merchant.invoice(invoice_id)
    options = invoice["payment_options"]
    option = next((one for one in options if one["status"] == "active"), None)
    if option is None:
        option = next((one for one in options if one["asset"] == TOKEN), options[0])
        path = f"/v1/invoices/{invoice_id}/options/{option['id']}/activate"
        invoice = await stage.merchant.post(path)
        option = next(one for one in invoice["payment_options"] if one["id"] == option["id"])
    decimals = int(option["decimals"])
    whole, _, fraction = str(option["amount_due"]).partition(".")
    units = int(whole + fraction.ljust(decimals, "0"))
    if option["token_contract"] is None:
        tx_hash = await stage.customer.pay_native(option["address"], units)
    else:
        tx_hash = await stage.customer.pay_token(option["token_contract"], option["address"], units)
    what = f"sends {option['amount_due']} {option['asset']} to {option['address']}"
    stage.timeline.note("customer", what, f"transaction {shortened(tx_hash)}")
    return tx_hash


async def _watch(stage: _Stage, invoice_id: str) -> str:
    """Tell every step of an invoice until it is over; its last status."""
    shown, confirmations = 0, 0
    while True:
        history = await stage.merchant.transitions(invoice_id)
        for step in history[shown:]:
            stage.timeline.transition(step)
        shown = len(history)
        status = str(history[-1]["to"])
        if status in ("paid", "overpaid", "expired", "canceled", "underpaid"):
            return status
        if status == "confirming":
            invoice = await stage.merchant.invoice(invoice_id)
            option = max(invoice["payment_options"], key=lambda one: int(one["confirmations"]))
            if option["confirmations"] > confirmations and option["confirmations"] < CONFIRMATIONS:
                confirmations = option["confirmations"]
                stage.timeline.note(
                    "chain", f"confirmation {confirmations} of {option['confirmations_required']}"
                )
        await asyncio.sleep(LOOK_SECONDS)


async def _until(condition: Callable[[], Awaitable[bool]], seconds_max: float, otherwise: str) -> None:
    """Wait for a condition, with a deadline. Raises DemoFailed."""
    try:
        async with asyncio.timeout(seconds_max):
            while not await condition():  # noqa: ASYNC110  # what is waited for shows in the server's answers only
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise DemoFailed(otherwise) from None


async def _stay(stage: _Stage, stop: asyncio.Event, *, wait_for_key: bool) -> None:
    """Keep an unpaid invoice open for the visitor, and pay it when they press Enter."""
    pressed = asyncio.Event()
    loop = asyncio.get_running_loop()
    if wait_for_key:
        loop.add_reader(sys.stdin.fileno(), lambda: _on_key(pressed, stop))
    try:
        number = 2
        while True:
            invoice = await stage.merchant.create_invoice(
                f"DEMO-{number}", "12.50", "USD", OPEN_INVOICE_SECONDS
            )
            _invite(stage, invoice, first=number == 2, wait_for_key=wait_for_key)
            pressed.clear()  # one press too many must not pay what nobody has seen yet
            watching = asyncio.create_task(_watch(stage, invoice["id"]))
            try:
                await _pay_when_asked(stage, invoice["id"], pressed, watching)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            number += 1
    finally:
        if wait_for_key:
            loop.remove_reader(sys.stdin.fileno())


def _on_key(pressed: asyncio.Event, stop: asyncio.Event) -> None:
    if sys.stdin.readline():
        pressed.set()
    else:  # the terminal was closed
        stop.set()


async def _pay_when_asked(
    stage: _Stage, invoice_id: str, pressed: asyncio.Event, watching: asyncio.Task[str]
) -> None:
    """Until the invoice is over, one payment of what is due for each press of Enter."""
    while not watching.done():
        asked = asyncio.create_task(pressed.wait())
        await asyncio.wait({asked, watching}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if pressed.is_set():
            pressed.clear()
            await _pay(stage, invoice_id)
            await watching
    watching.result()


def _invite(stage: _Stage, invoice: dict[str, Any], *, first: bool, wait_for_key: bool) -> None:
    """Tell the visitor what they can do now; how to call the API is said once."""
    base = f"http://{stage.ready.listen}"
    stage.timeline.say(
        "",
        f"Your turn. Invoice {invoice['order_id']} over {invoice['amount']} {invoice['currency']} is open:",
        f"  {invoice['checkout_url']}",
        style="bold",
    )
    if wait_for_key:
        stage.timeline.say(
            "Choose how to pay there if you like, then press Enter here: the customer pays it."
        )
    if not first:
        stage.timeline.say("")
        return
    stage.timeline.say(
        "",
        "The API, with this merchant's key:",
        f"  export KEY={stage.api_key}",
        f'  curl -H "Authorization: Bearer $KEY" {base}/v1/invoices/{invoice["id"]}',
        f"  curl -H \"Authorization: Bearer $KEY\" -H 'Content-Type: application/json' {base}/v1/invoices \\",
        '    -d \'{"amount": "9.90", "currency": "USD", "order_id": "MINE-1"}\'',
        f"  {base}/docs  shows the rest.",
        "Ctrl-C ends the demo and removes everything it made.",
        "",
    )
