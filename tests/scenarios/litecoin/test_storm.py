"""Everything at once, in an order that chance chooses: afterwards each invoice holds what its address has, and no more.

Cites R-CHAIN 4, F-CHAIN 1-4, 7-8. Real litecoind, real PostgreSQL. What the node's best chain pays to each address is
read from its blocks by other means than ours (its JSON), and compared with what the API says.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tallystick.services.sightings import GONE_AFTER
from tests.support.invariants import check_invariants
from tests.support.lite_shop import ASKED, LiteShop, address_of, open_lite_shop, option_of
from tests.support.litecoind import FEE, Litecoind, NodeError, Sent, litoshi
from tests.support.stand import Clock

pytestmark = [pytest.mark.chain, pytest.mark.asyncio(loop_scope="module")]

INVOICES = 6
STEPS = 50
DEPTH_MAX = 5
STANDS = {"confirmed", "confirming"}
REFUSALS = {-25, -26, -27}
"""What the node says to what it does not take: its coins are gone, it conflicts with another, a block holds it."""


@dataclass(slots=True)
class Storm:
    """Customers, miners and outages, by one source of chance."""

    shop: LiteShop
    clock: Clock
    chance: random.Random
    invoices: list[dict[str, Any]]
    sent: list[Sent] = field(default_factory=list)

    @property
    def node(self) -> Litecoind:
        return self.shop.node

    async def step(self) -> None:
        """One thing happens; mostly we look afterwards."""
        ways: list[tuple[int, Callable[[], Awaitable[object]]]] = [
            (6, self.pay),
            (2, self.replace),
            (3, self.shop.node.mine),
            (2, self.mine_some),
            (3, self.change_the_chain),
            (1, self.shop.restart),
            (1, self.forget),
        ]
        action = self.chance.choices([way for _, way in ways], [weight for weight, _ in ways])[0]
        await action()
        self.clock.advance(self.chance.randint(0, 20))
        if self.chance.random() < 0.7:
            await self.shop.follow()

    def outputs(self) -> list[tuple[str, int]]:
        """Payments of parts to some invoices, one of them twice now and then."""
        chosen = self.chance.choices(self.invoices, k=self.chance.randint(1, 3))
        return [(address_of(invoice), ASKED * self.chance.randint(1, 9) // 20) for invoice in chosen]

    async def pay(self) -> None:
        """A customer pays, by one of his coins or more."""
        coins = self.chance.sample(await self.node.coins(), k=self.chance.randint(1, 2))
        self.sent.append(await self.node.sign(self.outputs(), coins=coins))
        await self.try_to_send(self.sent[-1])

    async def replace(self) -> None:
        """What waits for a block is sent anew with a higher fee, to others or to the same."""
        waiting = [one for one in self.sent if one.txid in await self.node.mempool()]
        if waiting:
            old = self.chance.choice(waiting)
            self.sent.append(
                await self.node.respend(old, self.outputs(), fee=self.chance.randint(5, 50) * FEE)
            )
            await self.try_to_send(self.sent[-1])

    async def mine_some(self) -> None:
        """A miner takes some of what waits, or something nobody has seen that conflicts with it."""
        waiting = [one for one in self.sent if one.txid in await self.node.mempool()]
        taken = [one for one in waiting if self.chance.random() < 0.5]
        if taken and self.chance.random() < 0.5:
            last_coin = taken[-1].coins[-1:]
            taken[-1] = await self.node.sign(self.outputs(), coins=last_coin, fee=5 * FEE)
            self.sent.append(taken[-1])
        await self.try_to_mine(taken)

    async def change_the_chain(self) -> None:
        """Some blocks are replaced by others, which hold some of what they held, or what conflicts with it."""
        depth = self.chance.randint(1, DEPTH_MAX)
        await self.node.undo(depth)
        for _ in range(depth + self.chance.randint(0, 1)):
            await self.mine_some()

    async def forget(self) -> None:
        """The node restarts without its mempool; some wallets send again."""
        waiting = [one for one in self.sent if one.txid in await self.node.mempool()]
        await self.node.restart(forget_mempool=True)
        for one in waiting:
            if self.chance.random() < 0.5:
                await self.try_to_send(one)

    async def try_to_send(self, sent: Sent) -> None:
        """Nodes refuse what conflicts and does not pay enough more, or what rests on coins that are gone."""
        try:
            await self.node.submit(sent)
        except NodeError as error:
            if error.code not in REFUSALS:
                raise

    async def try_to_mine(self, taken: list[Sent]) -> None:
        """A block of these, or an empty one where they do not go together."""
        try:
            await self.node.mine_only(*taken)
        except NodeError as error:
            if error.code not in REFUSALS:
                raise
            await self.node.mine_only()

    async def look(self) -> None:
        """What must hold at any time: stored states follow from the facts, and of two that exclude each other one is
        shown."""
        await self.shop.follow()
        await check_invariants(self.shop.ctx)
        coins_by_tx = {one.txid: {(coin.txid, coin.vout) for coin in one.coins} for one in self.sent}
        shown = {
            payment["tx_hash"]
            for invoice in self.invoices
            for payment in (await self.shop.get(invoice))["payments"]
            if payment["status"] in STANDS | {"detected"}
        }
        used = [coin for tx_hash in shown for coin in coins_by_tx[tx_hash]]
        assert len(used) == len(set(used))

    async def read_chain(self, first: int) -> Chain:
        """The best chain's blocks from a height on, as the node's JSON tells them."""
        invoice_by_script = {await self.node.script_of(address_of(one)): one["id"] for one in self.invoices}
        chain = Chain({one["id"]: set() for one in self.invoices}, {})
        for height in range(first, await self.node.height() + 1):
            block = await self.node.rpc("getblock", await self.node.hash_at(height), 2)
            for transaction in block["tx"]:
                tx_hash = transaction["txid"]
                for spent in transaction["vin"]:
                    chain.spent_by[spent.get("txid"), spent.get("vout")] = tx_hash
                for output in transaction["vout"]:
                    invoice_id = invoice_by_script.get(output["scriptPubKey"]["hex"])
                    if invoice_id is not None:
                        chain.paid[invoice_id].add((tx_hash, output["n"], litoshi(output["value"])))
        return chain


@dataclass(frozen=True, slots=True)
class Chain:
    """What the best chain pays to each invoice (transaction, output, amount), and what spent each output."""

    paid: dict[str, set[tuple[str, int, int]]]
    spent_by: dict[tuple[str | None, int | None], str]


@pytest.mark.parametrize("seed", [1])
async def test_each_invoice_holds_what_its_address_has(database_url: str, node: Litecoind, seed: int) -> None:
    """Fifty things in a row; then what stands is what the chain holds, and amounts are its sums.

    Bugs planted, each found: an output's number left out of what a payment is; a block that left the chain still taken
    for a payment's place; of a transaction's inputs only the first compared; what the mempool spends not compared;
    sightings never taken back.
    """
    clock = Clock.of(int(time.time()) + 1)
    async with open_lite_shop(database_url, node, clock=clock) as shop:
        first = await node.height() + 1
        await shop.mine(DEPTH_MAX)
        invoices = [await shop.create(expires_in=86_400) for _ in range(INVOICES)]
        storm = Storm(shop, clock, random.Random(seed), invoices)
        for number in range(STEPS):
            await storm.step()
            if number % 5 == 4:
                await storm.look()
        await node.mine(3)
        for _ in range(3):  # what no node knows any more is gone after a while
            await shop.follow()
            clock.advance(int(GONE_AFTER.total_seconds()))
        chain = await storm.read_chain(first)
        assert sum(len(outputs) for outputs in chain.paid.values()) >= INVOICES
        coins_by_tx = {one.txid: one.coins for one in storm.sent}
        for invoice in invoices:
            seen = await shop.get(invoice)
            stands = [one for one in seen["payments"] if one["status"] in STANDS]
            held = {(one["tx_hash"], one["ordinal"], litoshi(one["amount"])) for one in stands}
            assert len(stands) == len(held)
            assert held == chain.paid[invoice["id"]]
            assert litoshi(option_of(seen)["amount_received"]) == sum(amount for _, _, amount in held)
            for gone in (one for one in seen["payments"] if one not in stands):
                coins = [(coin.txid, coin.vout) for coin in coins_by_tx[gone["tx_hash"]]]
                instead = {chain.spent_by[coin] for coin in coins if coin in chain.spent_by}
                assert gone["status"] == ("replaced" if instead else "orphaned")
                assert gone["replaced_by"] in instead if instead else gone["replaced_by"] is None
