"""Native coin sent by contracts: found by traces where the node has them, by balances where it has not.

Cites F-TOKEN 3, 4, 8, F-CHAIN 2, F-ADDR 3, R-CHAIN 6, 8. A real chain, real PostgreSQL; every scenario ends with the
check of the whole database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from tallystick.core.balance import AccountState, BalanceOutcome
from tallystick.core.chain import BlockRef
from tallystick.core.errors import IllegalTransition, StaleWrite
from tallystick.db.sql import Connection
from tallystick.services import balances
from tallystick.services.assessing import Cause, assess_invoices
from tallystick.services.balances import Look, check_invoices
from tallystick.services.context import Actor, ActorType, Context
from tallystick.services.objects import Invoice
from tallystick.workers.balances import BalanceChecker
from tallystick.workers.expire import Expirer
from tests.cli.processes import run
from tests.support.anvil import start_anvil, unique_chain_id
from tests.support.evm import Chain, address_of, contract
from tests.support.lying_proxy import Fault, LyingProxy
from tests.support.stand import Clock, Stand, address_in, evm_network, open_stand, units

WEI = units("0.01")  # what 25.00 USD asks
OPERATOR = Actor(ActorType.OPERATOR, "test")


@pytest.fixture
async def batch(chain: Chain) -> str:
    """A contract that pays many at once, as exchanges do."""
    return await chain.deploy("Batch")


async def settle(stand: Stand, chain: Chain, blocks: int = 3) -> None:
    """Mine what is in the pool, deep enough to be confirmed, and read it."""
    await chain.mine(blocks)
    await stand.follow()


# -- by traces


async def test_one_transaction_of_an_exchange_pays_three_invoices(
    stand: Stand, chain: Chain, batch: str
) -> None:
    """None of them is the transaction's receiver; each gets its own payment, once."""
    asked = [await stand.create("25.00") for _ in range(3)]
    to = [address_in(invoice) for invoice in asked]
    signed = await chain.send_call(batch, "Batch", "payNative", to, [WEI] * 3, value=3 * WEI)
    await settle(stand, chain)
    ordinals = set()
    for invoice in asked:
        seen = await stand.get(invoice)
        (payment,) = seen.payments
        assert (seen.status, seen.amount_paid, payment.match) == ("paid", "25.00", "matched")
        assert payment.tx_hash == signed.tx_hash
        assert payment.sender is not None
        assert payment.sender.lower() == batch
        ordinals.add(payment.ordinal)
    assert ordinals == {0, 1, 2}


async def test_what_an_ancestor_takes_back_pays_nobody(stand: Stand, chain: Chain) -> None:
    """The inner payment succeeds, a call above it fails, the transaction succeeds: no credit, nothing kept.

    Bug planted: failure not inherited; the invoice is paid by nothing.
    """
    moves = await chain.deploy("NativeMoves")
    await chain.send_native(moves, units("1"))
    lost, kept = await stand.create("25.00"), await stand.create("25.00")
    await chain.send_call(moves, "NativeMoves", "payDeepUndone", address_in(lost), address_in(kept), WEI)
    await settle(stand, chain)
    assert (await stand.status(lost), await stand.status(kept)) == ("awaiting_payment", "paid")
    assert await stand.rows("SELECT 1 FROM transfers WHERE invoice_id = $1", lost.id) == []


async def test_mined_again_is_one_credit(stand: Stand, chain: Chain, batch: str) -> None:
    """In another block at another position: one payment, two anchors, the same credit key (F-CHAIN 2)."""
    invoice = await stand.create("25.00")
    signed = await chain.send_call(batch, "Batch", "payNative", [address_in(invoice)], [WEI], value=WEI)
    await settle(stand, chain)
    assert await stand.status(invoice) == "paid"
    await chain.reorg(3)
    await stand.follow()
    assert (await stand.get(invoice)).payments[0].status == "orphaned"
    await chain.send_native(address_of(7), 1, sender=5)
    await chain.mine()
    await chain.submit(signed)
    await settle(stand, chain)
    seen = await stand.get(invoice)
    assert (seen.status, seen.amount_paid, len(seen.payments)) == ("paid", "25.00", 1)
    assert len(await stand.rows("SELECT 1 FROM anchors")) == 2


async def test_mined_again_with_another_amount_is_another_payment(stand: Stand, chain: Chain) -> None:
    """What a contract pays can depend on what came before: the first amount is not credited for the second one.

    Bug planted: a stored transfer known again by its place alone; the invoice stays paid by money that is not there.
    """
    moves = await chain.deploy("NativeMoves")
    await chain.send_native(moves, 10 * WEI)
    await chain.mine()
    invoice = await stand.create("25.00")
    share = await chain.send_call(moves, "NativeMoves", "payTenth", address_in(invoice))
    await settle(stand, chain)
    assert (await stand.get(invoice)).amount_paid == "25.00"
    await chain.reorg(3)
    drained = await chain.sign(
        to=moves, data=contract("NativeMoves").call("pay", address_of(7), 5 * WEI), sender=5
    )
    await chain.submit(drained)
    await chain.mine()
    await chain.submit(share)
    await settle(stand, chain)
    seen = await stand.get(invoice)
    assert seen.amount_paid == "12.50"
    assert sorted(payment.status for payment in seen.payments) == ["confirmed", "failed"]
    # And back: the first branch's payment stands again under its own key.
    await chain.reorg(4)
    await chain.submit(share)
    await settle(stand, chain, 5)
    seen = await stand.get(invoice)
    assert (seen.status, seen.amount_paid) == ("paid", "25.00")
    assert sorted(payment.status for payment in seen.payments) == ["confirmed", "failed"]


async def test_a_payment_mined_again_where_traces_are_lost_has_not_failed(
    database_url: str, chain: Chain, batch: str
) -> None:
    """The new block holds the transaction, but its node no longer tells what it moved: nobody knows, so nobody says
    "failed". The balance shows that the money is there.

    Bug planted: not told taken for not moved; the payment is called failed for ever.
    """
    network = evm_network("local", chain.chain_id, confirmations=1)
    async with LyingProxy(chain.url) as proxy, open_stand(database_url, (network, proxy.url)) as stand:
        invoice = await stand.create("25.00")
        to = [address_in(invoice)]
        signed = await chain.send_call(batch, "Batch", "payNative", to, [WEI], value=WEI)
        await settle(stand, chain, 1)
        assert await stand.status(invoice) == "paid"
        proxy.lie(Fault.TRACES_REFUSED)
        await chain.reorg(1)
        await chain.submit(signed)
        await settle(stand, chain, 2)
        seen = await stand.get(invoice)
        assert [payment.status for payment in seen.payments] == ["orphaned"]
        (look,) = await check(stand, invoice)
        assert look.finding.amount == WEI
        assert (await stand.get(invoice)).status == "review_required"


# -- internal moves


@pytest.mark.parametrize("kind", ["value", "log"])
async def test_coins_moved_among_our_own_addresses_are_not_income(
    stand: Stand, chain: Chain, token: str, kind: str
) -> None:
    """From one issued address of the merchant to another: evidence, no payment, no state (F-TOKEN 8).

    Bug planted: the sender not looked up; the second invoice is paid with the first one's money.
    """
    asset = "ETH" if kind == "value" else "DUSD"
    first, second = (
        await stand.create("25.00", (asset, "local")),
        await stand.create("25.00", (asset, "local")),
    )
    sender = address_in(first).lower()
    await chain.rpc("anvil_setBalance", sender, hex(units("1")))
    await chain.rpc("anvil_impersonateAccount", sender)
    call: dict[str, str] = {"from": sender, "to": address_in(second), "value": hex(WEI)}
    if kind == "log":
        await chain.send_token(token, sender, units("25", 6))
        await chain.mine()
        data = contract("DemoToken").call("transfer", address_in(second), units("25", 6))
        call = {"from": sender, "to": token, "data": "0x" + data.hex()}
    await chain.rpc("eth_sendTransaction", call)
    await settle(stand, chain)
    seen = await stand.get(second)
    assert (seen.status, seen.amount_paid) == ("awaiting_payment", "0.00")
    (row,) = await stand.rows("SELECT internal FROM transfers WHERE invoice_id = $1", second.id)
    assert row["internal"] is True
    stranger = await chain.send_native(address_in(second), WEI)
    await settle(stand, chain)
    (row,) = await stand.rows("SELECT internal FROM transfers WHERE tx_hash = $1", stranger.tx_hash)
    assert row["internal"] is False


# -- by balances, where no node traces


@pytest.fixture
async def untraced(database_url: str, chain: Chain, clock: Clock) -> AsyncIterator[Stand]:
    """A shop whose node tells nothing of contract calls, with a clock that stands. One confirmation is enough."""
    network = evm_network("local", chain.chain_id, confirmations=1)
    async with open_stand(database_url, (network, chain.url), clock=clock, traces="off") as shop:
        yield shop


def checker(stand: Stand, name: str = "local") -> BalanceChecker:
    """What the jobs run for a network."""
    return BalanceChecker(stand.ctx, stand.ctx.networks[name], stand.sources[name])


async def check(stand: Stand, invoice: Invoice) -> list[Look]:
    """As a person asks for it."""
    return await check_invoices(stand.ctx, stand.sources, [invoice.id], OPERATOR)


async def end_window(stand: Stand, chain: Chain, clock: Clock, invoice: Invoice) -> None:
    """A block after the deadline, read."""
    await chain.set_next_time(int(invoice.expires_at.timestamp()) + 5)
    await chain.mine()
    clock.at = max(clock.at, invoice.expires_at)
    clock.advance(10)
    await stand.follow()


async def pay_by_contract(chain: Chain, batch: str, invoice: Invoice, amount: int = WEI) -> str:
    """Native coin by an inner call, in a block of its own."""
    to = [address_in(invoice)]
    signed = await chain.send_call(batch, "Batch", "payNative", to, [amount], value=amount)
    await chain.mine()
    return signed.tx_hash


async def findings(stand: Stand) -> list[tuple[int, str]]:
    """Amounts found by balance, with the status of their payments, smallest first."""
    rows = await stand.rows(
        "SELECT t.amount, p.status FROM transfers AS t JOIN payments AS p ON p.transfer_id = t.id "
        "WHERE t.channel = 'balance' ORDER BY t.amount"
    )
    return [(int(row["amount"]), row["status"]) for row in rows]


async def test_a_paid_invoice_does_not_expire_before_its_balance_was_looked_at(
    untraced: Stand, chain: Chain, clock: Clock, batch: str
) -> None:
    """At the end of the window the expirer looks first: the value goes to a person, and nobody is told "expired".

    Bug planted: judged without a look; the invoice expires although it was paid.
    """
    invoice = await untraced.create("25.00")
    unpaid = await untraced.create("25.00")
    await pay_by_contract(chain, batch, invoice)
    await end_window(untraced, chain, clock, invoice)
    expirer = Expirer(untraced.ctx, {"local": checker(untraced)})
    assert await expirer.batch("local") == 2
    seen = await untraced.get(invoice)
    assert (seen.status, seen.amount_paid) == ("review_required", "0.00")
    assert "expired" not in await untraced.way(invoice)
    assert await untraced.status(unpaid) == "expired"
    (payment,) = seen.payments
    assert (payment.match, payment.status, payment.sender) == ("unattributed_value", "confirmed", None)
    address = address_in(invoice).lower()
    assert payment.tx_hash == f"balance:{address}:{payment.block_hash}"
    evidence = (await untraced.last(invoice)).evidence
    (shown,) = [one for one in evidence if one["type"] == "balance"]
    assert (shown["unexplained"], shown["seen_arriving"]) == ("0.01", "0")
    rows = await untraced.rows("SELECT kind FROM exceptions WHERE invoice_id = $1", invoice.id)
    assert [row["kind"] for row in rows] == ["unattributed_value"]


async def test_an_expired_invoice_is_looked_at_now_and_later(
    untraced: Stand, chain: Chain, clock: Clock, batch: str
) -> None:
    """At the end, ten minutes and a day later, found by what is due; each time only what is new, then no more."""
    invoice = await untraced.create("25.00")
    await end_window(untraced, chain, clock, invoice)
    await untraced.expire()
    assert await untraced.status(invoice) == "expired"
    jobs = checker(untraced)
    assert (await jobs.batch(), await jobs.batch()) == (1, 0)
    assert await untraced.status(invoice) == "expired"
    await pay_by_contract(chain, batch, invoice)
    await untraced.follow()
    clock.advance(599)
    assert await jobs.batch() == 0
    clock.advance(1)
    assert (await jobs.batch(), await jobs.batch()) == (1, 0)
    assert await untraced.status(invoice) == "review_required"
    assert await findings(untraced) == [(WEI, "confirmed")]
    clock.advance(86_400)
    assert (await jobs.batch(), await jobs.batch()) == (1, 0)
    clock.advance(10 * 86_400)
    assert await jobs.batch() == 0
    assert await findings(untraced) == [(WEI, "confirmed")]
    (row,) = await untraced.rows("SELECT due_at, outcome FROM balance_checks")
    assert (row["due_at"], row["outcome"]) == (None, "explained")


async def test_asked_by_a_person_again_and_again_nothing_is_found_twice(
    untraced: Stand, chain: Chain, batch: str
) -> None:
    """What was found counts as explained, and so does what comes in later by an ordinary transaction.

    Bug planted: what was found before not counted as explained; every look finds it once more.
    """
    invoice = await untraced.create("25.00")
    await pay_by_contract(chain, batch, invoice)
    await untraced.follow()
    (look,) = await check(untraced, invoice)
    assert (look.finding.outcome, look.finding.amount) == (BalanceOutcome.UNATTRIBUTED, WEI)
    for _ in range(2):
        (look,) = await check(untraced, invoice)
        assert look.finding.outcome is BalanceOutcome.EXPLAINED
    await chain.send_native(address_in(invoice), WEI)
    await settle(untraced, chain)
    assert await untraced.status(invoice) == "paid"
    (look,) = await check(untraced, invoice)
    assert (look.finding.outcome, look.received) == (BalanceOutcome.EXPLAINED, 2 * WEI)
    await pay_by_contract(chain, batch, invoice, 3 * WEI)
    await untraced.follow()
    (look,) = await check(untraced, invoice)
    assert look.finding.amount == 3 * WEI
    assert await findings(untraced) == [(WEI, "confirmed"), (3 * WEI, "confirmed")]
    seen = await untraced.get(invoice)
    assert (seen.status, seen.amount_paid) == ("paid", "25.00")


async def test_two_looks_at_once_find_it_once(untraced: Stand, chain: Chain, batch: str) -> None:
    """Bug planted: invoices not locked before the transfers are added up; both find it."""
    invoice = await untraced.create("25.00")
    await pay_by_contract(chain, batch, invoice)
    await untraced.follow()
    looks = await asyncio.gather(*(check(untraced, invoice) for _ in range(5)))
    assert sorted(look.finding.outcome for (look,) in looks) == ["explained"] * 4 + ["unattributed"]
    assert await findings(untraced) == [(WEI, "confirmed")]


async def test_a_finding_leaves_with_its_block_and_stands_again(
    untraced: Stand, chain: Chain, clock: Clock, batch: str
) -> None:
    """The pinned block is reorganised away, the payment is not: orphaned, then the same payment stands again."""
    invoice = await untraced.create("25.00")
    await pay_by_contract(chain, batch, invoice)
    await end_window(untraced, chain, clock, invoice)
    await untraced.expire()
    jobs = checker(untraced)
    await jobs.batch()
    (before,) = (await untraced.get(invoice)).payments
    assert before.status == "confirmed"
    await chain.reorg(1)
    await chain.mine()
    await untraced.follow()
    assert await findings(untraced) == [(WEI, "orphaned")]
    assert await jobs.batch() == 1  # it is due again because its block left
    (after,) = (await untraced.get(invoice)).payments
    assert (after.id, after.tx_hash, after.status) == (before.id, before.tx_hash, "confirmed")
    assert after.block_hash != before.block_hash
    assert await untraced.status(invoice) == "review_required"


async def test_what_the_new_chain_does_not_hold_is_not_found_again(
    untraced: Stand, chain: Chain, clock: Clock, batch: str
) -> None:
    """The payment itself is reorganised away: the finding stays orphaned, whoever looks. More than before is new."""
    invoice = await untraced.create("25.00")
    await chain.mine()
    await pay_by_contract(chain, batch, invoice)
    await untraced.follow()
    await check(untraced, invoice)
    await chain.reorg(1)
    await chain.mine()
    await untraced.follow()
    (look,) = await check(untraced, invoice)
    assert look.finding.outcome is BalanceOutcome.EXPLAINED
    assert await findings(untraced) == [(WEI, "orphaned")]
    await pay_by_contract(chain, batch, invoice, 3 * WEI)
    await untraced.follow()
    (look,) = await check(untraced, invoice)
    assert look.finding.amount == 3 * WEI
    assert await findings(untraced) == [(WEI, "confirmed"), (2 * WEI, "confirmed")]


async def test_an_address_that_sent_something_is_judged_by_what_changed(
    untraced: Stand, chain: Chain, batch: str
) -> None:
    """The merchant swept it: nothing is said then, but what comes in after the next look is found."""
    invoice = await untraced.create("25.00")
    sender = address_in(invoice).lower()
    await chain.send_native(sender, WEI)
    await settle(untraced, chain)
    (look,) = await check(untraced, invoice)
    assert look.finding.outcome is BalanceOutcome.EXPLAINED
    await chain.rpc("anvil_impersonateAccount", sender)
    await chain.rpc("eth_sendTransaction", {"from": sender, "to": address_of(7), "value": hex(WEI // 2)})
    await pay_by_contract(chain, batch, invoice, 3 * WEI)
    await untraced.follow()
    for outcome in (BalanceOutcome.SPENT, BalanceOutcome.EXPLAINED):
        (look,) = await check(untraced, invoice)
        assert (look.finding.outcome, look.state.nonce) == (outcome, 1)
    await chain.send_native(sender, WEI)
    await pay_by_contract(chain, batch, invoice, 5 * WEI)
    await untraced.follow()
    (look,) = await check(untraced, invoice)
    assert (look.finding.outcome, look.finding.amount) == (BalanceOutcome.UNATTRIBUTED, 5 * WEI)
    assert await findings(untraced) == [(5 * WEI, "confirmed")]


async def test_less_than_was_seen_and_dust_are_nobodys_case(
    untraced: Stand, chain: Chain, batch: str
) -> None:
    """A balance below what arrived is shown, dust is left to add up; neither touches the invoice."""
    invoice = await untraced.create("25.00")
    await pay_by_contract(chain, batch, invoice, units("0.000009"))
    await untraced.follow()
    (look,) = await check(untraced, invoice)
    assert look.finding.outcome is BalanceOutcome.DUST
    assert await untraced.status(invoice) == "awaiting_payment"
    await pay_by_contract(chain, batch, invoice, units("0.000009"))
    await untraced.follow()
    (look,) = await check(untraced, invoice)
    assert look.finding.amount == units("0.000018")
    await chain.rpc("anvil_setBalance", address_in(invoice), "0x1")
    await chain.mine()
    await untraced.follow()
    (look,) = await check(untraced, invoice)
    assert (look.finding.outcome, look.state) == (BalanceOutcome.MISSING, AccountState(1, 0))


async def test_traces_explain_the_balance(timed: Stand, chain: Chain, clock: Clock, batch: str) -> None:
    """Where contract calls are told, the value is a payment like any other, and a look finds nothing besides."""
    invoice = await timed.create("25.00")
    other = await timed.create("25.00")
    await pay_by_contract(chain, batch, invoice)
    await timed.follow()
    assert await timed.status(invoice) == "paid"
    (look,) = await check(timed, invoice)
    assert (look.finding.outcome, look.received) == (BalanceOutcome.EXPLAINED, WEI)
    await end_window(timed, chain, clock, other)
    await timed.expire()
    assert await checker(timed).batch() == 1
    assert await findings(timed) == []


async def test_a_node_that_cannot_tell_holds_the_end_for_a_while(
    untraced: Stand, chain: Chain, clock: Clock, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balance that cannot be read is not nothing: the end waits, a bounded time; what is due stays due (F-NODE)."""
    invoice = await untraced.create("25.00")
    await pay_by_contract(chain, batch, invoice)
    await end_window(untraced, chain, clock, invoice)
    async with LyingProxy(chain.url) as proxy:
        await untraced.restart(url=proxy.url)
        proxy.lie(Fault.SERVER_ERROR)
        jobs = checker(untraced)
        expirer = Expirer(untraced.ctx, {"local": jobs})
        assert await expirer.batch("local") == 0
        assert await untraced.status(invoice) == "awaiting_payment"
        monkeypatch.setattr("tallystick.workers.balances.HOLD_SECONDS_MAX", 0.0)
        assert await expirer.batch("local") == 1
        assert await untraced.status(invoice) == "expired"
        assert await jobs.batch() == 1
        assert await jobs.batch() == 0  # lent to that look, which failed
        proxy.lie(None)
        clock.advance(60)
        assert await jobs.batch() == 1
    assert await untraced.status(invoice) == "review_required"


async def test_an_invoice_that_cannot_be_judged_holds_up_no_other(
    untraced: Stand, chain: Chain, clock: Clock, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect in one invoice's state stays with it: the others of the batch are looked at, before the end and after.

    Bug planted: the whole batch given up; no finding of it is ever recorded.
    """
    broken, sound = [await untraced.create("25.00") for _ in range(2)]
    judge = assess_invoices

    async def defective(connection: Connection, ctx: Context, ids: Sequence[str], cause: Cause) -> None:
        if broken.id in ids:
            raise IllegalTransition("An invoice cannot go from here to there.")
        await judge(connection, ctx, ids, cause)

    monkeypatch.setattr(balances, "assess_invoices", defective)
    for invoice in (broken, sound):
        await pay_by_contract(chain, batch, invoice)
    await end_window(untraced, chain, clock, sound)
    expirer = Expirer(untraced.ctx, {"local": checker(untraced)})
    assert await expirer.batch("local") == 2
    assert (await untraced.status(broken), await untraced.status(sound)) == ("expired", "review_required")
    monkeypatch.undo()
    assert await checker(untraced).batch() == 2
    assert await untraced.status(broken) == "review_required"


async def test_a_block_that_left_while_balances_were_read_is_looked_at_again(
    untraced: Stand, chain: Chain, batch: str
) -> None:
    """The balance is that of a block which is not ours any more: nothing of it is kept."""
    invoice = await untraced.create("25.00")
    await pay_by_contract(chain, batch, invoice)
    await untraced.follow()

    class Slow:
        """Answers, while the chain goes on without that block."""

        async def accounts_at(self, block: BlockRef, addresses: Sequence[str]) -> list[AccountState]:
            found = await untraced.sources["local"].accounts_at(block, addresses)
            await chain.reorg(1)
            await chain.mine()
            await untraced.follow()
            return found

    with pytest.raises(StaleWrite):
        await check_invoices(untraced.ctx, {"local": Slow()}, [invoice.id], OPERATOR)
    assert await findings(untraced) == []
    assert await untraced.rows("SELECT 1 FROM balance_checks WHERE checked_at IS NOT NULL") == []


async def test_a_person_asks_from_the_command_line(
    database_url: str, untraced: Stand, chain: Chain, batch: str
) -> None:
    """`tallystick invoice check`, while a server may run: what it finds, and that a network without an answer fails."""
    invoice = await untraced.create("25.00")
    await pay_by_contract(chain, batch, invoice)
    await untraced.follow()
    settings = {
        "TALLYSTICK_DATABASE_URL": database_url,
        "TALLYSTICK_NETWORKS__LOCAL__KIND": "evm",
        "TALLYSTICK_NETWORKS__LOCAL__CHAIN_ID": str(chain.chain_id),
        "TALLYSTICK_NETWORKS__LOCAL__RPC": chain.url,
        "TALLYSTICK_NETWORKS__LOCAL__NATIVE__SYMBOL": "ETH",
        "TALLYSTICK_NETWORKS__LOCAL__NATIVE__DECIMALS": "18",
    }
    done = await run("invoice", "check", invoice.id, "--json", **settings)
    (checked,) = done.object
    assert (done.code, checked["outcome"], checked["unexplained"]) == (0, "unattributed", "0.01")
    assert checked["block_height"] == await chain.height()
    again = await run("invoice", "check", invoice.id, **settings)
    assert "outcome: explained" in again.out
    assert (await untraced.last(invoice)).actor.type == "operator"
    assert await untraced.status(invoice) == "review_required"
    other = await run("invoice", "check", "inv_nothing", **settings)
    assert (other.code, other.out) == (1, "")
    settings["TALLYSTICK_NETWORKS__LOCAL__RPC"] = "http://127.0.0.1:1"
    dead = await run("invoice", "check", invoice.id, **settings)
    assert dead.code == 1
    assert "cannot be reached" in dead.err


# -- on another network


@pytest.mark.parametrize("traces", ["off", "auto"])
async def test_sent_by_a_contract_on_the_wrong_network(
    database_url: str, chain: Chain, clock: Clock, traces: str
) -> None:
    """The same address on another chain of the family: found there, with traces or by balance, and never credited."""
    async with start_anvil(chain_id=unique_chain_id()) as node, Chain(node.url, node.chain_id) as other:
        networks = (
            (evm_network("local", chain.chain_id, confirmations=1), chain.url),
            (evm_network("other", other.chain_id, confirmations=1), other.url),
        )
        async with open_stand(database_url, *networks, clock=clock, traces=traces) as stand:
            invoice = await stand.create("25.00", ("ETH", "local"))
            batch = await other.deploy("Batch")
            await pay_by_contract(other, batch, invoice)
            await stand.follow()
            await end_window(stand, chain, clock, invoice)
            await stand.expire()
            assert await stand.status(invoice) == ("expired" if traces == "off" else "review_required")
            assert await checker(stand, "other").batch() == 1
            assert await checker(stand, "local").batch() == 1
            seen = await stand.get(invoice)
            (payment,) = seen.payments
            assert (seen.status, seen.amount_paid, payment.network) == ("review_required", "0.00", "other")
            assert payment.match == "wrong_network"
            (row,) = await stand.rows("SELECT channel FROM transfers")
            assert row["channel"] == ("balance" if traces == "off" else "trace")


@pytest.mark.parametrize("asset", ["ETH", "DUSD"])
async def test_sent_by_an_ordinary_transaction_on_the_wrong_network(
    database_url: str, chain: Chain, token: str, asset: str
) -> None:
    """The coin, and a token that is configured there: evidence, a case for a person, no credit (R-CHAIN 8)."""
    async with start_anvil(chain_id=unique_chain_id()) as node, Chain(node.url, node.chain_id) as other:
        there = await other.deploy_token()
        networks = (
            (evm_network("local", chain.chain_id, token=token), chain.url),
            (evm_network("other", other.chain_id, token=there), other.url),
        )
        async with open_stand(database_url, *networks) as stand:
            invoice = await stand.create("25.00", (asset, "local"))
            if asset == "ETH":
                await other.send_native(address_in(invoice), WEI)
            else:
                await other.send_token(there, address_in(invoice), units("25", 6))
            await settle(stand, other)
            seen = await stand.get(invoice)
            (payment,) = seen.payments
            assert (seen.status, seen.amount_paid) == ("review_required", "0.00")
            assert (payment.match, payment.network, payment.status) == ("wrong_network", "other", "confirmed")
            rows = await stand.rows("SELECT kind FROM exceptions WHERE invoice_id = $1", invoice.id)
            assert [row["kind"] for row in rows] == ["wrong_network"]
