"""A whole shop on a real litecoind, moved by hand: real PostgreSQL, real API over HTTP, real services and follower.

For: scenario tests of Bitcoin's family. The shop is made and asked as merchants do it: the network comes from a
configuration, wallets, invoices and rules go through the API, and what is seen is what the API answers (JSON).
`follow` reads the chain and the mempool until nothing is new, `expire` judges the windows that ended; both are what the
workers do, one turn at a time. `running` runs the real loops instead.
Holds true: whatever a scenario did, `open_lite_shop` checks the invariants of the whole database before it closes.
Amounts that go to the node are litoshi, those of the API are decimal texts.
Must not: write to the database except through the API and the services.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any, Final

from embit import base58, bip32, bip39

from tallystick.chains.source import Source
from tallystick.config import Config, from_document
from tallystick.runtime_sources import build_source
from tallystick.services.context import Context, system_clock
from tallystick.services.networks import resume, sync_networks
from tallystick.workers.expire import Expirer
from tallystick.workers.follow import Follower
from tallystick.workers.supervise import Loop, Supervisor
from tests.support.app import Api, Client, running_api
from tests.support.invariants import check_invariants
from tests.support.litecoind import Litecoind
from tests.support.stand import LOOPS, LOOPS_BACKOFF, until

NETWORK: Final = "litecoin"
RATES: Final = {"LTC/USD": Fraction(100)}
ASKED: Final = 25_000_000
"""What 25.00 USD ask, in litoshi: 0.25 LTC."""
WORDS: Final = "test test test test test test test test test test test junk"

XPUB: Final = bytes.fromhex("0488b21e")
YPUB: Final = bytes.fromhex("049d7cb2")
ZPUB: Final = bytes.fromhex("04b24746")
LTUB: Final = bytes.fromhex("019da462")
MTUB: Final = bytes.fromhex("01b26ef6")
PURPOSE: Final = {XPUB: 44, YPUB: 49, ZPUB: 84, LTUB: 44, MTUB: 49}
REGTEST_KEY: Final = b"\xef"  # prefix of a private key in WIF


def account(purpose: int, number: int = 0) -> bip32.HDKey:
    """An account of the test words: m/purpose'/2'/number' (SLIP-44: 2 is Litecoin), with its private key."""
    root = bip32.HDKey.from_seed(bip39.mnemonic_to_seed(WORDS))
    return root.derive(f"m/{purpose}h/2h/{number}h")


def account_key(prefix: bytes = ZPUB, number: int = 0) -> str:
    """The account's public key as wallets show it, in the form that the prefix stands for."""
    return str(account(PURPOSE[prefix], number).to_public().to_base58(version=prefix))


def private_key(index: int, purpose: int = 84, number: int = 0) -> str:
    """The private key of the address at an index, as the node takes it: for spending what a shop received."""
    secret = account(purpose, number).derive([0, index]).key.serialize()
    return str(base58.encode_check(REGTEST_KEY + secret + b"\x01"))


def option_of(invoice: dict[str, Any]) -> dict[str, Any]:
    """An invoice's only way to pay."""
    (option,) = invoice["payment_options"]
    return dict(option)


def address_of(invoice: dict[str, Any]) -> str:
    """Where an invoice's customer pays."""
    return str(option_of(invoice)["address"])


def payment_of(invoice: dict[str, Any]) -> dict[str, Any]:
    """An invoice's only payment."""
    (payment,) = invoice["payments"]
    return dict(payment)


def payments_by_tx(invoice: dict[str, Any]) -> dict[str, str]:
    """The status of an invoice's payments by their transactions, each of which made one."""
    found = {payment["tx_hash"]: payment["status"] for payment in invoice["payments"]}
    assert len(found) == len(invoice["payments"])
    return found


@dataclass(slots=True)
class LiteShop:
    """One merchant with one Litecoin wallet on one node. Answers are the API's JSON.

    Only the network named `NETWORK` is followed; blocks of others in the configuration come from the test.
    """

    api: Api
    client: Client
    config: Config
    node: Litecoind
    source: Source = field(init=False)
    follower: Follower = field(init=False)

    @property
    def ctx(self) -> Context:
        """What the services are given."""
        return self.api.ctx

    # -- the workers

    async def follow(self) -> None:
        """Read the chain, then the mempool, until nothing is new."""
        while await self.follower.poll():
            pass

    async def expire(self) -> int:
        """Judge every window that has ended; answer how many were judged."""
        expirer = Expirer(self.ctx)
        judged = 0
        for network in ("", *self.ctx.networks):
            while found := await expirer.batch(network):
                judged += found
        return judged

    async def mine(self, blocks: int = 1) -> None:
        """Mine what the mempool holds, and read it."""
        await self.node.mine(blocks)
        await self.follow()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        """Run the real loops meanwhile: the follower and the expirer."""
        loops = [Loop("follow", self.follower.run), Loop("expire", Expirer(self.ctx).run)]
        stop = asyncio.Event()
        supervisor = Supervisor(loops, backoff=LOOPS_BACKOFF)
        task = asyncio.create_task(supervisor.run(stop))
        try:
            yield supervisor
        finally:
            stop.set()
            await task

    def begin(self) -> None:
        """Make the source and the follower, as a process does that starts: they know what the database knows."""
        network = self.config.networks[NETWORK]
        self.source = build_source(network)
        self.follower = Follower(self.ctx, network.network, self.source, LOOPS)

    async def restart(self) -> None:
        """Forget the source and the follower and begin anew: only the database is kept."""
        await self.close()
        self.begin()

    async def close(self) -> None:
        """Close the connections to the node."""
        await self.source.close()

    async def resume(self) -> None:
        """What `tallystick network resume` does."""
        async with self.ctx.database.transaction() as connection:
            await resume(connection, self.ctx, NETWORK)

    # -- the merchant

    async def create(self, amount: str = "25.00", **more: Any) -> dict[str, Any]:
        """A new invoice in USD, payable in LTC, with its address issued."""
        accepted = [{"asset": "LTC", "network": NETWORK}]
        return await self.client.invoice(**({"amount": amount, "accepted": accepted} | more))

    async def asked(self, path: str, **parameters: Any) -> Any:
        """What the API answers to a GET."""
        answer = await self.client.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def told(self, path: str, body: Any = None) -> Any:
        """What the API answers to a POST."""
        answer = await self.client.post(path, body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    async def get(self, invoice: dict[str, Any]) -> dict[str, Any]:
        """The invoice as it stands."""
        return dict(await self.asked(f"/v1/invoices/{invoice['id']}"))

    async def status(self, invoice: dict[str, Any]) -> str:
        """The invoice's status."""
        return str((await self.get(invoice))["status"])

    async def history(self, invoice: dict[str, Any]) -> list[dict[str, Any]]:
        """Every transition."""
        return list((await self.asked(f"/v1/invoices/{invoice['id']}/transitions"))["data"])

    async def last(self, invoice: dict[str, Any]) -> dict[str, Any]:
        """The newest transition."""
        return (await self.history(invoice))[-1]

    async def way(self, invoice: dict[str, Any]) -> list[str]:
        """The statuses the invoice went through since its address was issued."""
        way = [transition["to"] for transition in await self.history(invoice)]
        return way[way.index("awaiting_payment") :]

    async def event_types(self, object_id: str) -> list[str]:
        """Types of the events about an object, in order."""
        events = (await self.asked("/v1/events", object_id=object_id, limit=200))["data"]
        return [event["type"] for event in sorted(events, key=lambda event: int(event["data"]["sequence"]))]

    async def exceptions(self, invoice: dict[str, Any] | None = None) -> list[str]:
        """The kinds of the exceptions that are open, of one invoice or all."""
        wanted = {"status": "open"} | ({} if invoice is None else {"invoice_id": invoice["id"]})
        return sorted(one["kind"] for one in (await self.asked("/v1/exceptions", **wanted))["data"])

    async def network(self) -> dict[str, Any]:
        """The network as operators see it."""
        found = (await self.asked("/v1/networks"))["data"]
        return next(one for one in found if one["name"] == NETWORK)

    async def until_network(self, status: str) -> dict[str, Any]:
        """Wait until operators are shown this status; answer what they were shown then."""
        seen: list[dict[str, Any]] = []

        async def shown() -> bool:
            seen.append(await self.network())
            return bool(seen[-1]["status"] == status)

        await until(shown)
        return seen[-1]

    async def until_status(self, invoice: dict[str, Any], status: str) -> None:
        """Wait until the invoice has this status."""

        async def reached() -> bool:
            return await self.status(invoice) == status

        await until(reached)

    async def rules(self, *rules: dict[str, Any]) -> None:
        """Put these confirmation rules in force."""
        answer = await self.client.http.put("/v1/confirmation_policies", json={"rules": list(rules)})
        assert answer.status_code == 200, answer.text

    async def another_merchant(self, name: str, key: str) -> LiteShop:
        """The same installation as another merchant sees it, with a wallet of this key or descriptor."""
        merchant = await self.api.merchant(name, account=None)
        other = LiteShop(self.api, self.api.client(merchant.key), self.config, self.node)
        await other.told("/v1/wallets", {"family": "litecoin", "account_key": key, "label": name})
        return other


def configuration(urls: Sequence[str], **changes: Any) -> Config:
    """A configuration with one network: regtest, three confirmations. `changes` are of the network's keys."""
    network = {
        "kind": "bitcoin",
        "chain": "litecoin-regtest",
        "rpc": list(urls),
        "confirmations": 3,
        "safety_depth": 20,
    }
    return from_document({"networks": {NETWORK: network | changes}}, environment={})


@contextlib.asynccontextmanager
async def open_lite_shop(
    database_url: str,
    node: Litecoind,
    *,
    clock: Callable[[], datetime] = system_clock,
    key: str | None = None,
    config: Config | None = None,
    **changes: Any,
) -> AsyncIterator[LiteShop]:
    """A shop on this node. The newest block is read before it opens; the mempool is emptied into it.

    At its end the invariants of everything stored are checked, unless the test has failed already.
    """
    config = config or configuration([node.url], **changes)
    networks = [network.network for network in config.networks.values()]
    if await node.mempool():
        await node.mine()
    async with running_api(database_url, networks=networks, followed=False, rates=RATES, clock=clock) as api:
        async with api.ctx.database.transaction() as connection:
            await sync_networks(connection, api.ctx.networks)
        merchant = await api.merchant("Tally & Sons", account=None)
        shop = LiteShop(api, api.client(merchant.key), config, node)
        shop.begin()
        try:
            await shop.follow()
            wallet = {"family": "litecoin", "account_key": key or account_key(), "label": "main"}
            await shop.told("/v1/wallets", wallet)
            yield shop
            await shop.expire()
            await check_invariants(api.ctx)
        finally:
            await shop.close()
