"""Refunds that the merchant's own wallet pays from a PSBT: chosen outputs, what happens to them, and to two at once.

Cites R-REFUND 1, 2. Real litecoind with its own wallet as the merchant's, real PostgreSQL, the API over HTTP.
Planted bugs seen to fail, beside those that the tests name: outputs chosen that are not final, or not mature, or spent,
or another merchant's, or held by another refund; outputs kept by a refund that was given up, or paid by the link.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, cast

import pytest

from tallystick.chains.source import Source
from tallystick.services.refund_psbts import DEAD, FEE_RATE_FRESH, NO_OUTPUTS
from tallystick.workers.fees import FeeWatch
from tallystick.workers.refunds import PSBT_EVERY, RefundWatch
from tests.cli.processes import run
from tests.support.lite_shop import (
    ASKED,
    LTUB,
    NETWORK,
    YPUB,
    ZPUB,
    LiteShop,
    account_key,
    address_of,
    open_lite_shop,
)
from tests.support.lite_signer import Signer, multisig, private, public
from tests.support.litecoind import Litecoind, coins_text, litoshi, start_litecoind

pytestmark = [
    pytest.mark.chain,
    pytest.mark.asyncio(loop_scope="module"),
]

_numbers = count(100)  # of accounts: no test has another's outputs, though they share the chain


@dataclass(slots=True)
class Till:
    """A shop, the wallet that its money comes to, and our clock, which can be set ahead."""

    shop: LiteShop
    signer: Signer
    number: int
    clock: list[timedelta] = field(default_factory=list)

    @property
    def node(self) -> Litecoind:
        return self.shop.node

    async def paid(self, amount: int = ASKED, *more: int) -> dict[str, Any]:
        """An invoice, paid with these amounts and final."""
        invoice = await self.shop.create()
        for one in (amount, *more):
            await self.node.send(address_of(invoice), one)
        await self.shop.mine(3)
        return invoice

    async def asked(self, invoice: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A refund of it that is requested."""
        body = {"invoice_id": invoice["id"], "reason": "Returned."}
        body |= {"address": await self.node.new_address()} | more
        if "amount" not in more:
            body = {"rule": "received"} | body
        answer = await self.shop.client.post("/v1/refunds", body, key=f"refund-{next(_numbers)}")
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def approved(self, invoice: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A refund of it that is to be signed."""
        refund = await self.asked(invoice, **more)
        return dict(await self.shop.told(f"/v1/refunds/{refund['id']}/approve"))

    async def look(self, refund: dict[str, Any]) -> dict[str, Any]:
        return dict(await self.shop.asked(f"/v1/refunds/{refund['id']}"))

    async def renew(self, after: timedelta = PSBT_EVERY) -> int:
        """What the refund watch does after a while."""
        self.clock.append(after)
        return await RefundWatch(self.shop.ctx).renew()

    async def spends(self, psbt: str) -> set[tuple[str, int]]:
        decoded = await self.node.rpc("decodepsbt", psbt)
        return {(one["txid"], one["vout"]) for one in decoded["tx"]["vin"]}

    async def spend_elsewhere(self, psbt: str) -> str:
        """Spend an output that the PSBT spends, by the same wallet, for something else. Not mined yet."""
        (first, *_) = sorted(await self.spends(psbt))
        known = {(one["txid"], one["vout"]): one for one in await self.signer.unspent()}
        found = known[first]
        amount = litoshi(found["amount"]) - 10_000
        raw = await self.node.rpc(
            "createrawtransaction",
            [{"txid": first[0], "vout": first[1]}],
            {await self.node.new_address(): coins_text(amount)},
        )
        signed = await self.node.rpc_in(self.signer.name, "signrawtransactionwithwallet", raw)
        return await self.node.submit(signed["hex"])


@contextlib.asynccontextmanager
async def open_till(
    database_url: str,
    node: Litecoind,
    key: Callable[[int], str] = lambda number: account_key(ZPUB, number),
    secret: Callable[[int], str] = lambda number: f"wpkh({private(84, number)}/%d/*)",
) -> AsyncIterator[Till]:
    number = next(_numbers) * 3
    ahead: list[timedelta] = []

    def clock() -> datetime:
        return datetime.now(UTC) + sum(ahead, timedelta())

    signer = await Signer.open(node, f"signer-{number}", secret(number))
    async with open_lite_shop(database_url, node, key=key(number), clock=clock) as shop:
        yield Till(shop, signer, number, ahead)


def psbt_of(refund: dict[str, Any]) -> str:
    """A refund's PSBT; what is said about it is complete."""
    request = refund["payment_request"]
    assert request["psbt"] is not None, request
    assert request["psbt_problem"] is None
    assert request["unsigned_transaction"] is None
    return str(request["psbt"])


def problem_of(refund: dict[str, Any]) -> str:
    """Why a refund to be signed has no PSBT; the link is there all the same."""
    request = refund["payment_request"]
    assert (request["psbt"], request["psbt_fee"]) == (None, None)
    assert request["uri"].startswith(f"litecoin:{refund['address']}?amount={refund['amount_sent']}")
    return str(request["psbt_problem"])


WALLETS = {
    "p2wpkh": (
        lambda number: account_key(ZPUB, number),
        lambda number: f"wpkh({private(84, number)}/%d/*)",
    ),
    "p2sh-p2wpkh": (
        lambda number: account_key(YPUB, number),
        lambda number: f"sh(wpkh({private(49, number)}/%d/*))",
    ),
    "p2pkh": (
        lambda number: account_key(LTUB, number),
        lambda number: f"pkh({private(44, number)}/%d/*)",
    ),
    "multisig": (multisig, lambda number: multisig(number, secret=True)),
    "one branch": (
        lambda number: f"wpkh({public(84, number)}/0/*)",
        lambda number: f"wpkh({private(84, number)}/%d/*)",
    ),
}


@pytest.mark.parametrize("kind", WALLETS)
async def test_signed_sent_and_completed(database_url: str, node: Litecoind, kind: str) -> None:
    """Everything that an invoice received goes back; the fee comes out of what another one paid.

    Where the wallet has one branch the change comes back to an invoice's own address: no income, and nobody's case.
    """
    async with open_till(database_url, node, *WALLETS[kind]) as till:
        invoice = await till.paid()
        other = await till.paid()
        refund = await till.approved(invoice)
        psbt = psbt_of(refund)
        assert await till.look(refund) == refund
        decoded = await till.signer.decoded(psbt)
        assert f"{decoded['fee']:.8f}".rstrip("0") == refund["payment_request"]["psbt_fee"]
        txid = await till.signer.send(psbt)
        await till.shop.mine()
        seen = await till.look(refund)
        assert (seen["status"], seen["tx_hash"], seen["payment_request"]) == ("confirming", txid, None)
        await till.shop.mine(2)
        assert (await till.look(refund))["status"] == "completed"
        assert await till.shop.status(invoice) == "refunded"
        received = await node.rpc("gettransaction", txid)
        assert litoshi(received["amount"]) == ASKED
        change = [one for one in await till.signer.unspent() if one["txid"] == txid]
        assert sum(litoshi(one["amount"]) for one in change) == ASKED - litoshi(decoded["fee"])
        assert (await till.shop.status(other), await till.shop.exceptions()) == ("paid", [])


async def test_the_excess_goes_back_out_of_the_payment_itself(database_url: str, node: Litecoind) -> None:
    async with open_till(database_url, node) as till:
        invoice = await till.paid(2 * ASKED)
        refund = await till.approved(invoice, rule="excess")
        assert refund["amount_sent"] == "0.25"
        await till.signer.send(psbt_of(refund))
        await till.shop.mine(3)
        assert (await till.look(refund))["status"] == "completed"
        assert await till.shop.status(invoice) == "overpaid"


async def test_a_fee_that_the_customer_bears_is_kept_back(database_url: str, node: Litecoind) -> None:
    """The one payment suffices then: what is kept back pays the network, and the rest of it stays in the wallet."""
    async with open_till(database_url, node) as till:
        invoice = await till.paid()
        refund = await till.approved(invoice, fee="customer", fee_amount="0.001")
        assert refund["amount_sent"] == "0.249"
        psbt = psbt_of(refund)
        decoded = await till.signer.decoded(psbt)
        assert 0 < decoded["fee"] < 0.001
        await till.signer.send(psbt)
        await till.shop.mine(3)
        assert (await till.look(refund))["status"] == "completed"


async def test_without_enough_known_outputs_there_is_the_link_only(
    database_url: str, node: Litecoind
) -> None:
    """And the PSBT comes by itself, once there are enough."""
    async with open_till(database_url, node) as till:
        refund = await till.approved(await till.paid())
        assert "do not suffice" in problem_of(refund)
        assert await till.renew() == 0
        await till.paid()
        assert await till.renew(timedelta()) == 0  # not again at once
        assert await till.renew() == 1
        renewed = await till.look(refund)
        assert await till.renew() == 0
        await till.signer.send(psbt_of(renewed))
        await till.shop.mine(3)
        assert (await till.look(refund))["status"] == "completed"


async def test_what_is_not_final_is_not_spent(database_url: str, node: Litecoind) -> None:
    """Neither a payment with too few confirmations, nor fresh coins that nobody may spend yet."""
    async with open_till(database_url, node) as till:
        invoice = await till.paid()
        fresh = await till.shop.create()
        await node.mine(1, to=address_of(fresh))
        await till.shop.mine(3)
        late = await till.shop.create()
        await node.send(address_of(late), ASKED)
        await till.shop.mine(2)
        assert "do not suffice" in problem_of(await till.approved(invoice))
        await till.shop.mine()
        assert await till.renew() == 1


async def test_two_refunds_at_once_share_no_output(database_url: str, node: Litecoind) -> None:
    """Planted: the wallets not locked, the table's key gone; the two spend the same outputs."""
    async with open_till(database_url, node) as till:
        invoices = [await till.paid() for _ in range(4)]
        asked = [await till.asked(invoice) for invoice in invoices[:3]]
        refunds = await asyncio.gather(*(till.shop.told(f"/v1/refunds/{one['id']}/approve") for one in asked))
        found = [one for one in refunds if one["payment_request"]["psbt"] is not None]
        (without,) = [one for one in refunds if one["payment_request"]["psbt"] is None]
        assert problem_of(without) == NO_OUTPUTS
        spent = [await till.spends(psbt_of(one)) for one in found]
        assert [len(one) for one in spent] == [2, 2]
        assert not spent[0] & spent[1]
        for one in found:
            await till.signer.send(psbt_of(one))
        await till.shop.mine(3)
        assert {(await till.look(one))["status"] for one in found} == {"completed"}


async def test_outputs_of_a_refund_that_was_given_up_are_free_again(
    database_url: str, node: Litecoind
) -> None:
    async with open_till(database_url, node) as till:
        one, two = await till.paid(), await till.paid()
        first = await till.approved(one)
        second = await till.approved(two)
        assert problem_of(second) == NO_OUTPUTS
        await till.shop.told(f"/v1/refunds/{first['id']}/reject", {"note": "No."})
        assert await till.renew() == 1
        assert await till.spends(psbt_of(await till.look(second))) == await till.spends(psbt_of(first))


async def test_an_output_spent_elsewhere_needs_a_new_psbt(database_url: str, node: Litecoind) -> None:
    """Not before that is final: until then the first one could still be mined, and both would be paid.

    Planted: another chosen at once; a dead one shown.
    """
    async with open_till(database_url, node) as till:
        invoice = await till.paid()
        for _ in range(2):
            await till.paid()
        refund = await till.approved(invoice)
        before = psbt_of(refund)
        await till.spend_elsewhere(before)
        await till.shop.mine()
        assert problem_of(await till.look(refund)) == DEAD
        assert await till.renew() == 0
        assert problem_of(await till.look(refund)) == DEAD
        await till.shop.mine(2)
        assert await till.renew() == 1
        renewed = await till.look(refund)
        after = psbt_of(renewed)
        assert await till.spends(after) != await till.spends(before)
        await till.signer.send(after)
        await till.shop.mine(3)
        assert (await till.look(refund))["status"] == "completed"


async def test_spent_elsewhere_in_a_block_that_went_it_is_the_same_psbt_again(
    database_url: str, node: Litecoind
) -> None:
    async with open_till(database_url, node) as till:
        invoice = await till.paid()
        await till.paid()
        refund = await till.approved(invoice)
        await till.spend_elsewhere(psbt_of(refund))
        await till.shop.mine(2)
        assert problem_of(await till.look(refund)) == DEAD
        await node.reorg(2, [[], [], []])
        await till.shop.follow()
        assert await till.renew() == 0
        assert (await till.look(refund))["payment_request"] == refund["payment_request"]
        await node.restart(forget_mempool=True)


async def test_an_output_whose_block_went_is_waited_for(database_url: str, node: Litecoind) -> None:
    """It can be mined again, and with it the first PSBT. Planted: shown meanwhile; another chosen."""
    async with open_till(database_url, node) as till:
        invoice = await till.paid()
        await till.shop.mine(3)
        await till.paid()
        refund = await till.approved(invoice)
        await till.shop.mine(2)
        await till.paid(3 * ASKED)
        await node.reorg(8)
        await till.shop.follow()
        assert problem_of(await till.look(refund)) == DEAD
        await node.mine_only()
        await till.shop.follow()
        assert await till.renew() == 0
        await till.shop.mine()
        assert (await till.look(refund))["payment_request"] == refund["payment_request"]


async def test_a_refund_whose_block_went_keeps_its_outputs(database_url: str, node: Litecoind) -> None:
    """Its transaction waits to be mined again. Planted: outputs given back at completion; another refund takes them."""
    async with open_till(database_url, node) as till:
        invoice, other = await till.paid(), await till.paid()
        refund = await till.approved(invoice)
        txid = await till.signer.send(psbt_of(refund))
        await till.shop.mine(3)
        assert (await till.look(refund))["status"] == "completed"
        await node.reorg(3)
        await till.shop.follow()
        assert (await till.look(refund))["status"] == "broadcast"
        second = await till.approved(other)
        assert problem_of(second) == NO_OUTPUTS
        assert txid in await node.mempool()
        await till.shop.mine(3)
        assert (await till.look(refund))["status"] == "completed"


async def test_paid_by_the_link_the_outputs_are_free_again(database_url: str, node: Litecoind) -> None:
    """The merchant paid from another wallet: the transfer completes the refund, and the PSBT is not needed."""
    async with open_till(database_url, node) as till:
        one, two = await till.paid(), await till.paid()
        first = await till.approved(one)
        second = await till.approved(two)
        await node.send(first["address"], ASKED)
        await till.shop.mine(3)
        assert (await till.look(first))["status"] == "completed"
        assert await till.renew() == 1
        assert await till.spends(psbt_of(await till.look(second))) == await till.spends(psbt_of(first))


async def test_the_fee_is_what_the_node_said_lately(database_url: str, node: Litecoind) -> None:
    """Later it is the configuration's. Planted: an old rate believed; a rate that not every node relays."""

    @dataclass
    class Estimates:
        fee: int

        async def fee_rate(self) -> int:
            return self.fee

    async with open_till(database_url, node) as till:
        ctx = till.shop.ctx
        network = ctx.networks[NETWORK]
        assert network.fee_rate_default == 10_000

        async def said(fee_rate: int) -> None:
            await FeeWatch(ctx, network, cast("Source", Estimates(fee_rate))).look()

        await said(77_000)
        virtual_bytes = 141  # at most, of one input and two outputs
        dear = await till.approved(await till.paid(2 * ASKED), rule="excess")
        assert dear["payment_request"]["psbt_fee"] == coins_text(virtual_bytes * 77).rstrip("0")
        till.clock.append(FEE_RATE_FRESH + timedelta(seconds=1))
        cheap = await till.approved(await till.paid(2 * ASKED), rule="excess")
        assert cheap["payment_request"]["psbt_fee"] == coins_text(virtual_bytes * 10).rstrip("0")
        await said(150)
        least = await till.approved(await till.paid(2 * ASKED), rule="excess")
        assert least["payment_request"]["psbt_fee"] == coins_text(virtual_bytes).rstrip("0")
        await said(9_000_000)
        absurd = await till.approved(await till.paid(2 * ASKED), rule="excess")
        assert "9000000 for 1,000 virtual bytes is beyond reason" in problem_of(absurd)


async def test_the_command_line_shows_what_to_sign(database_url: str, node: Litecoind) -> None:
    values = {"KIND": "bitcoin", "CHAIN": "litecoin-regtest", "RPC": node.url, "CONFIRMATIONS": "3"}
    settings = {f"TALLYSTICK_NETWORKS__{NETWORK.upper()}__{name}": value for name, value in values.items()}
    settings["TALLYSTICK_DATABASE_URL"] = database_url
    async with open_till(database_url, node) as till:
        one, two = await till.asked(await till.paid()), await till.asked(await till.paid())
        approved = (await run("refund", "approve", one["id"], **settings)).out
        shown = await till.look(one)
        assert psbt_of(shown) in "".join(approved.split())
        assert f"fee of {shown['payment_request']['psbt_fee']} LTC" in " ".join(approved.split())
        assert f"litecoin:{one['address']}?amount=0.25" in approved
        without = (await run("refund", "approve", two["id"], **settings)).out
        assert f"No PSBT: {NO_OUTPUTS}" in " ".join(without.split())
        whole = (await run("refund", "show", one["id"], "--json", **settings)).object
        assert whole["payment_request"] == shown["payment_request"]


async def test_dust_is_not_sent(database_url: str, node: Litecoind) -> None:
    async with open_till(database_url, node) as till:
        invoice = await till.paid()
        await till.paid()
        refund = await till.approved(invoice, amount="0.00002939")
        assert "less than 2940" in problem_of(refund)


async def test_another_merchants_outputs_are_not_spent(database_url: str, node: Litecoind) -> None:
    """Not even of one that registered the same key."""
    async with open_till(database_url, node) as till:
        other = await till.shop.another_merchant("Other", account_key(ZPUB, till.number))
        theirs = await other.create()
        await node.send(address_of(theirs), 4 * ASKED)
        refund = await till.approved(await till.paid())
        assert "do not suffice" in problem_of(refund)


async def test_approved_again_it_is_the_same_psbt(database_url: str) -> None:
    """Whatever a person decides: signed twice it is one transaction. Planted: chosen anew at each approval.

    A node of its own, because its clock runs ahead of the world for good.
    """
    async with start_litecoind() as node, open_till(database_url, node) as till:
        await node.fund(10)
        await till.shop.follow()
        invoice = await till.paid()
        for _ in range(3):
            await till.paid(2 * ASKED)
        refund = await till.approved(invoice)
        till.clock.append(timedelta(days=8))
        await node.set_time(int(till.shop.ctx.now().timestamp()))
        await till.shop.mine(12)
        assert await RefundWatch(till.shop.ctx).batch() == 1
        stopped = await till.look(refund)
        assert (stopped["status"], stopped["payment_request"]) == ("needs_attention", None)
        other = await till.approved(await till.paid())
        await till.paid(9 * ASKED)
        again = await till.shop.told(f"/v1/refunds/{refund['id']}/approve")
        assert again["payment_request"] == refund["payment_request"]
        assert not await till.spends(psbt_of(other)) & await till.spends(psbt_of(again))
