"""A customer pays on TRON: what counts, when it is final, and what a merchant gives back.

The node is one in memory that answers in TRON's shapes (`tron_node`), and anvil behind a proxy for its JSON-RPC
(`tron_rpc`). Cites F-TOKEN 1, 3, 5, F-CHAIN 1, 2, 4, R-CHAIN 2, 3, R-REFUND 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tallystick.chains.evm.source import EvmSource
from tallystick.chains.json_rpc import RpcLimits
from tallystick.chains.tron.addresses import display, normalize
from tallystick.chains.tron.json_rpc import evm_options
from tallystick.chains.tron.source import TronOptions, TronSource
from tallystick.core.chain import Finality, Requirement
from tallystick.core.errors import InvalidInput, SourceError
from tallystick.core.refund import RefundRule
from tallystick.services import objects, refund_decisions, refunds
from tallystick.services.audit_chain import compare, heights_to_compare
from tallystick.services.context import Actor, ActorType
from tallystick.services.refunds import NewRefund
from tests.support.evm import Chain
from tests.support.stand import Clock, Stand, address_in
from tests.support.tron_node import (
    CHAIN_ID,
    FIRST_TIME_MS,
    SOLIDIFIED_BEHIND,
    Fault,
    TronNode,
    asset_transfer,
    call,
    step,
    token_payment,
    transfer,
    transfer_log,
)
from tests.support.tron_rpc import TronRpc
from tests.support.tron_stand import open_tron_stand, tron_network

USDT = "0xa614f803b6fd780986a42c78ec9c7f77e6ded13c"
FAKE = "0x" + "fa" * 20
VAULT = "0x" + "7e" * 20
TRX_SUN = 100_000_000  # what 25.00 USD asks, at a quarter of a dollar
USDT_UNITS = 25_000_000
LIMITS = RpcLimits(attempts_max=1, total_timeout_seconds=5.0)


@pytest.fixture
async def node() -> AsyncIterator[TronNode]:
    async with TronNode() as node:
        node.mine(blocks=SOLIDIFIED_BEHIND + 1)
        yield node


@contextlib.asynccontextmanager
async def shop_on(node: TronNode, database_url: str, **more: Any) -> AsyncIterator[Stand]:
    options = TronOptions(
        "tron", CHAIN_ID, (node.url,), requests_per_second=2000.0, aside_seconds=0.05, limits=LIMITS
    )
    network = tron_network(CHAIN_ID, USDT, **more)
    clock = Clock.of(FIRST_TIME_MS // 1000 + 3 * node.height)
    async with open_tron_stand(database_url, network, TronSource(options), clock=clock) as stand:
        yield stand


@pytest.fixture
async def shop(node: TronNode, database_url: str) -> AsyncIterator[Stand]:
    """A shop that waits for solidified blocks."""
    async with shop_on(node, database_url) as stand:
        yield stand


def to(invoice: objects.Invoice) -> str:
    """Where the customer pays, in normal form."""
    return normalize(address_in(invoice))


async def seen(stand: Stand, node: TronNode, blocks: int = 0) -> None:
    """So many more blocks, and all of them read."""
    node.mine(blocks=blocks)
    await stand.follow()


async def test_trx_counts_when_its_block_is_solidified(shop: Stand, node: TronNode) -> None:
    """Not a block earlier, however many stand on it (F-TOKEN 5)."""
    invoice = await shop.create("25.00", ("TRX", "tron"))
    option = invoice.payment_options[0]
    assert (option.amount_expected, option.finality, option.confirmations_required) == (
        "100",
        "finalized",
        None,
    )
    assert address_in(invoice).startswith("T")
    assert option.uri == f"tron:{option.address}?amount=100"
    sent = transfer(to(invoice), TRX_SUN)
    height = node.mine(sent)
    node.solidified = height - 1
    await seen(shop, node, SOLIDIFIED_BEHIND + 10)
    waiting = await shop.get(invoice)
    assert (waiting.status, waiting.amount_paid) == ("confirming", "0.00")
    assert (waiting.payments[0].tx_hash, waiting.payments[0].amount) == (sent.tx_hash, "100")
    node.solidified = height
    await seen(shop, node, 3)
    paid = await shop.get(invoice)
    assert (paid.status, paid.amount_paid) == ("paid", "25.00")
    assert await shop.way(invoice) == ["created", "quoted", "awaiting_payment", "confirming", "paid"]


async def test_usdt_counts_by_its_contract_when_solidified(shop: Stand, node: TronNode) -> None:
    invoice = await shop.create("25.00", ("USDT", "tron"))
    option = invoice.payment_options[0]
    assert option.token_contract == display(USDT) == "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"
    assert option.uri == f"tron:{option.address}"
    node.mine(token_payment(USDT, to(invoice), USDT_UNITS))
    await seen(shop, node, SOLIDIFIED_BEHIND - 2)
    assert await shop.status(invoice) == "confirming"
    await seen(shop, node, 6)
    paid = await shop.get(invoice)
    assert (paid.status, paid.payments[0].asset, paid.payments[0].amount) == ("paid", "USDT", "25")


async def test_a_number_of_blocks_may_be_the_requirement(node: TronNode, database_url: str) -> None:
    """The other choice of a policy; `confirmations` count TRON's blocks of three seconds."""
    requirement = Requirement(Finality.DEPTH, 5)
    async with shop_on(node, database_url, requirement=requirement) as shop:
        invoice = await shop.create("25.00", ("TRX", "tron"))
        node.mine(transfer(to(invoice), TRX_SUN))
        await seen(shop, node, 3)
        assert await shop.status(invoice) == "confirming"
        await seen(shop, node, 1)
        assert await shop.status(invoice) == "paid"


async def test_what_is_no_payment(shop: Stand, node: TronNode) -> None:
    """Failed calls with their logs, junk of two kinds, votes, and steps that were undone (F-TOKEN 1, 5)."""
    asked = [await shop.create("25.00", (asset, "tron")) for asset in ("TRX", "USDT")]
    for address in map(to, asked):
        log = transfer_log(USDT, address, USDT_UNITS)
        node.mine(
            call(USDT, logs=[log], result="REVERT"),
            call(USDT, logs=[log], result="OUT_OF_ENERGY"),
            call(USDT, logs=[log], result="TRANSFER_FAILED"),
            call(USDT, logs=[log], result="DEFAULT"),
            transfer(address, TRX_SUN, result="OUT_OF_TIME"),
            asset_transfer(address, TRX_SUN),
            call(VAULT, inner=[step(VAULT, address, TRX_SUN, rejected=True)]),
            call(VAULT, inner=[step(VAULT, address, TRX_SUN, note="delegateResourceOfEnergy")]),
            call(VAULT, inner=[step(VAULT, address, TRX_SUN, token="1000001")]),
        )
    await seen(shop, node, SOLIDIFIED_BEHIND + 3)
    assert [await shop.status(invoice) for invoice in asked] == ["awaiting_payment"] * 2
    assert await shop.rows("SELECT * FROM transfers") == []


async def test_a_token_of_the_same_name_is_explained_and_not_credited(shop: Stand, node: TronNode) -> None:
    invoice = await shop.create("25.00", ("USDT", "tron"))
    node.mine(token_payment(FAKE, to(invoice), USDT_UNITS))
    await seen(shop, node, SOLIDIFIED_BEHIND + 3)
    assert (await shop.get(invoice)).amount_paid == "0.00"


async def test_trx_sent_by_a_contract_pays(shop: Stand, node: TronNode) -> None:
    """An exchange's or a wallet's contract: seen in the inner transactions, where the node keeps them (F-TOKEN 4)."""
    invoice = await shop.create("25.00", ("TRX", "tron"))
    steps = [step(VAULT, VAULT, 5), step(VAULT, to(invoice), TRX_SUN)]
    node.mine(call(VAULT, inner=steps))
    await seen(shop, node, SOLIDIFIED_BEHIND + 3)
    paid = await shop.get(invoice)
    assert (paid.status, paid.payments[0].ordinal) == ("paid", 1)


async def test_one_call_pays_two_invoices(shop: Stand, node: TronNode) -> None:
    first, second = [await shop.create("25.00", ("USDT", "tron")) for _ in range(2)]
    logs = [transfer_log(USDT, to(invoice), USDT_UNITS) for invoice in (first, second)]
    node.mine(call(USDT, logs=logs))
    await seen(shop, node, SOLIDIFIED_BEHIND + 3)
    paid = [await shop.get(invoice) for invoice in (first, second)]
    assert [one.status for one in paid] == ["paid", "paid"]
    assert [one.payments[0].ordinal for one in paid] == [0, 1]


async def test_a_payment_that_leaves_the_chain_steps_back_and_counts_once_when_it_returns(
    shop: Stand, node: TronNode
) -> None:
    """F-CHAIN 1, 2. No other transaction can take its place: TRON's accounts have no nonce."""
    invoice = await shop.create("25.00", ("TRX", "tron"))
    sent = transfer(to(invoice), TRX_SUN)
    node.mine(sent)
    await seen(shop, node, 2)
    assert await shop.status(invoice) == "confirming"
    node.reorganise(3, transfer(VAULT, 1))
    await seen(shop, node, 1)
    back = await shop.get(invoice)
    assert (back.status, back.amount_paid) != ("paid", "25.00")
    assert all(payment.replaced_by is None for payment in back.payments)
    node.mine(sent)
    await seen(shop, node, SOLIDIFIED_BEHIND + 3)
    paid = await shop.get(invoice)
    assert (paid.status, paid.amount_paid, len(paid.payments)) == ("paid", "25.00", 1)


async def test_a_node_that_leaves_parts_out_delays_and_loses_nothing(shop: Stand, node: TronNode) -> None:
    invoice = await shop.create("25.00", ("USDT", "tron"))
    node.mine(token_payment(USDT, to(invoice), USDT_UNITS), call(USDT, result="REVERT"))
    for fault in (Fault.MISSING_INFO, Fault.NO_INFOS, Fault.EMPTY_BLOCK, Fault.SERVER_ERROR):
        node.lie(fault)
        with contextlib.suppress(SourceError):
            await shop.followers["tron"].poll()
        assert await shop.status(invoice) == "awaiting_payment"
    node.lie(None)
    await seen(shop, node, SOLIDIFIED_BEHIND + 3)
    assert await shop.status(invoice) == "paid"


async def test_another_node_agrees_about_every_block(shop: Stand, node: TronNode) -> None:
    """The audit asks a node that may not keep inner transactions: what it does not tell contradicts nothing."""
    first, second = [await shop.create("25.00", (asset, "tron")) for asset in ("TRX", "USDT")]
    node.mine(call(VAULT, inner=[step(VAULT, to(first), TRX_SUN)]))
    node.mine(token_payment(USDT, to(second), USDT_UNITS), transfer(to(first), 5))
    await seen(shop, node, SOLIDIFIED_BEHIND + 3)
    source = TronSource(TronOptions("tron", CHAIN_ID, (node.url,), requests_per_second=2000.0, limits=LIMITS))
    try:
        heights, _ = await heights_to_compare(shop.ctx, "tron", "all")
        network = shop.ctx.networks["tron"]
        found = await compare(shop.ctx, network, source, heights, second_look_seconds=0)
    finally:
        await source.close()
    assert (found.problems, found.transfers) == ([], 3)


@pytest.mark.parametrize("asset", ["TRX", "USDT"])
async def test_what_a_refund_asks_a_wallet_to_sign_is_found_on_the_chain(
    shop: Stand, node: TronNode, asset: str
) -> None:
    """The unsigned transaction holds what is fixed; whoever completes and sends it, the transfer is recognised."""
    invoice = await shop.create("25.00", (asset, "tron"))
    paid_by = (
        transfer(to(invoice), TRX_SUN) if asset == "TRX" else token_payment(USDT, to(invoice), USDT_UNITS)
    )
    node.mine(paid_by)
    await seen(shop, node, SOLIDIFIED_BEHIND + 3)
    assert await shop.status(invoice) == "paid"
    customer = display("0x" + "c0ffee" * 6 + "0001")
    with pytest.raises(InvalidInput):  # an address of Ethereum's kind: at an exchange it is another account
        await shop.do(refunds.create_refund, refund_of(invoice, normalize(customer)))
    asked: objects.Refund = await shop.do(refunds.create_refund, refund_of(invoice, customer))
    second = Actor(ActorType.MERCHANT, "key_second")
    async with shop.ctx.database.transaction() as connection:
        approved = await refund_decisions.approve_refund(
            connection, shop.ctx, shop.merchant_id, second, asked.id, "looks right"
        )
    assert approved.payment_request is not None
    fixed = approved.payment_request.unsigned_transaction
    assert fixed is not None
    assert fixed["chain_id"] == CHAIN_ID
    if asset == "TRX":
        assert approved.payment_request.uri == f"tron:{customer}?amount=100"
        sent = transfer(normalize(fixed["to_address"]), int(fixed["amount"]), sender=VAULT)
    else:
        assert approved.payment_request.uri == f"tron:{customer}"
        receiver, amount = "0x" + fixed["data"][32:72], int(fixed["data"][72:], 16)
        assert fixed["contract_address"] == display(USDT)
        sent = token_payment(USDT, receiver, amount, sender=VAULT)
    node.mine(sent)
    await seen(shop, node, 1)
    found = await look(shop, asked)
    assert (found.status, found.tx_hash) == ("confirming", sent.tx_hash)
    await seen(shop, node, SOLIDIFIED_BEHIND + 3)
    assert (await look(shop, asked)).status == "completed"
    assert await shop.status(invoice) == "refunded"


def refund_of(invoice: objects.Invoice, address: str) -> NewRefund:
    return NewRefund(reason="returned", invoice_id=invoice.id, address=address, rule=RefundRule.RECEIVED)


async def look(stand: Stand, refund: objects.Refund) -> objects.Refund:
    async with stand.ctx.database.connection() as connection:
        return await refunds.get_refund(connection, stand.ctx, stand.merchant_id, refund.id)


# -- by JSON-RPC, on a real chain that answers as TRON does


@pytest.mark.chain
async def test_usdt_by_json_rpc_counts_when_solidified(chain: Chain, database_url: str) -> None:
    """A provider that offers JSON-RPC only; `finalized` is the solidified block there too."""
    token = await chain.deploy_token()
    async with TronRpc(chain.url) as rpc:
        options = evm_options("tron", chain.chain_id, (rpc.url,), requests_per_second=2000.0, limits=LIMITS)
        network = tron_network(chain.chain_id, token)
        async with open_tron_stand(database_url, network, EvmSource(options)) as shop:
            invoice = await shop.create("25.00", ("USDT", "tron"))
            sent = await chain.send_token(token, to(invoice), USDT_UNITS)
            height = await chain.mine()
            rpc.finalized = height - 1
            await chain.mine(SOLIDIFIED_BEHIND + 10)
            await shop.follow()
            assert await shop.status(invoice) == "confirming"
            rpc.finalized = height
            await chain.mine()
            await shop.follow()
            paid = await shop.get(invoice)
            assert (paid.status, paid.payments[0].tx_hash) == ("paid", sent.tx_hash)


@pytest.mark.chain
async def test_by_json_rpc_no_value_is_taken_for_trx(chain: Chain, database_url: str) -> None:
    """There a transfer of any TRC-10 token looks like one of TRX. Bug planted: values believed; the invoice is paid."""
    token = await chain.deploy_token()
    async with TronRpc(chain.url) as rpc:
        options = evm_options("tron", chain.chain_id, (rpc.url,), requests_per_second=2000.0, limits=LIMITS)
        network = tron_network(chain.chain_id, token)
        async with open_tron_stand(database_url, network, EvmSource(options)) as shop:
            invoice = await shop.create("25.00", ("USDT", "tron"))
            await chain.send_native(to(invoice), TRX_SUN)
            await chain.mine(SOLIDIFIED_BEHIND + 3)
            await shop.follow()
            assert await shop.status(invoice) == "awaiting_payment"
            assert await shop.rows("SELECT * FROM transfers") == []
