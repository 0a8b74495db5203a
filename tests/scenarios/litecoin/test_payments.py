"""Paid in litecoin: the ordinary ways, several outputs, crumbs, fresh coins, one's own coins, every kind of address.

Cites R-CHAIN 2-4, F-CHAIN 9-10, F-TOKEN 2, 3, 8. Real litecoind, real PostgreSQL, the API over HTTP.
"""

from __future__ import annotations

import pytest

from tallystick.config import from_document
from tallystick.core.chain import Channel, ObservedTransfer
from tests.support.app import mine_by_hand
from tests.support.lite_shop import (
    ASKED,
    LTUB,
    MTUB,
    NETWORK,
    XPUB,
    YPUB,
    ZPUB,
    LiteShop,
    account,
    account_key,
    address_of,
    open_lite_shop,
    option_of,
    payment_of,
    private_key,
)
from tests.support.litecoind import COIN, Litecoind, Sent, coins_text

pytestmark = [
    pytest.mark.chain,
    pytest.mark.asyncio(loop_scope="module"),
]


async def test_seen_then_confirming_then_paid(shop: LiteShop, node: Litecoind) -> None:
    """One payment, told once each; nothing credited before its block is three deep."""
    invoice = await shop.create(order_id="1001")
    option = option_of(invoice)
    assert (option["asset"], option["amount_expected"], option["status"]) == ("LTC", "0.25", "active")
    assert option["address"].startswith("rltc1q")
    assert option["uri"].startswith(f"litecoin:{option['address']}?amount=0.25")
    assert option["derivation"]["path"].endswith("0/0")
    sent = await node.send(option["address"], ASKED)
    for _ in range(3):
        await shop.follow()
    seen = await shop.get(invoice)
    payment = payment_of(seen)
    assert (seen["status"], seen["amount_paid"], seen["next_action"]["owner"]) == (
        "detected",
        "0.00",
        "network",
    )
    assert (payment["tx_hash"], payment["ordinal"], payment["to"]) == (sent.txid, 0, option["address"])
    assert (payment["status"], payment["confirmations"], payment["block_hash"]) == ("detected", 0, None)
    assert (payment["from"], payment["traits"], payment["on_time"]) == (None, ["replaceable"], True)
    await shop.mine()
    seen = await shop.get(invoice)
    assert (seen["status"], payment_of(seen)["confirmations"]) == ("confirming", 1)
    assert payment_of(seen)["block_hash"] == await node.best()
    assert payment_of(seen)["block_height"] == await node.height()
    await shop.mine()
    assert await shop.status(invoice) == "confirming"
    await shop.mine()
    seen = await shop.get(invoice)
    assert (seen["status"], seen["amount_paid"], payment_of(seen)["id"]) == ("paid", "25.00", payment["id"])
    assert await shop.way(invoice) == ["awaiting_payment", "detected", "confirming", "paid"]
    assert await shop.event_types(payment["id"]) == ["payment.detected", "payment.confirmed"]
    trace = await shop.asked(f"/v1/trace/{sent.txid}")
    assert [one["order_id"] for one in trace["transfers"]] == ["1001"]
    found = await shop.asked("/v1/invoices", address=option["address"])
    assert [one["id"] for one in found["data"]] == [invoice["id"]]
    balances = (await shop.asked("/v1/ledger/accounts"))["data"]
    assert "0.25" in [one["balance"] for one in balances if one["asset"] == "LTC"]


async def test_found_in_a_block_without_having_been_seen(shop: LiteShop, node: Litecoind) -> None:
    """Whoever mines it himself, or while we were down: the block alone is enough."""
    invoice = await shop.create()
    await node.mine_only(await node.sign({address_of(invoice): ASKED}))
    await shop.mine(2)
    assert await shop.way(invoice) == ["awaiting_payment", "confirming", "paid"]


async def test_a_part_and_the_rest(shop: LiteShop, node: Litecoind) -> None:
    """Part received; the rest is asked, and makes it paid."""
    invoice = await shop.create()
    await node.send(address_of(invoice), ASKED // 5)
    await shop.follow()
    assert await shop.status(invoice) == "partially_paid"
    await shop.mine(3)
    seen = await shop.get(invoice)
    assert (seen["status"], seen["amount_paid"]) == ("partially_paid", "5.00")
    assert (option_of(seen)["amount_received"], option_of(seen)["amount_due"]) == ("0.05", "0.2")
    await node.send(address_of(invoice), ASKED - ASKED // 5)
    await shop.mine(3)
    seen = await shop.get(invoice)
    assert (seen["status"], seen["amount_paid"], len(seen["payments"])) == ("paid", "25.00", 2)


async def test_more_than_was_asked(shop: LiteShop, node: Litecoind) -> None:
    """Overpaid once it is confirmed, with an exception for the excess."""
    invoice = await shop.create()
    await node.send(address_of(invoice), 2 * ASKED)
    await shop.mine(3)
    seen = await shop.get(invoice)
    assert (seen["status"], seen["amount_paid"]) == ("overpaid", "50.00")
    assert await shop.exceptions(invoice) == ["overpaid"]


# -- several outputs


async def test_two_outputs_of_one_transaction_to_one_invoice(shop: LiteShop, node: Litecoind) -> None:
    """Each output is a payment of its own, also between outputs to others (F-TOKEN 3).

    Bug planted: the transaction as a credit's identity, without the output (one payment, half the money).
    """
    invoice = await shop.create()
    address, other = address_of(invoice), await node.new_address()
    sent = await node.pay([(other, COIN), (address, ASKED // 2), (other, 7 * COIN), (address, ASKED // 2)])
    await shop.follow()
    assert await shop.status(invoice) == "detected"
    await shop.mine(3)
    seen = await shop.get(invoice)
    assert (seen["status"], seen["amount_paid"]) == ("paid", "25.00")
    found = {(one["tx_hash"], one["ordinal"], one["amount"]) for one in seen["payments"]}
    assert found == {(sent.txid, 1, "0.125"), (sent.txid, 3, "0.125")}


async def test_one_transaction_pays_two_invoices_and_half_of_a_third(shop: LiteShop, node: Litecoind) -> None:
    """As exchanges pay: everybody in one transaction."""
    first, second, third = [await shop.create() for _ in range(3)]
    await node.pay({address_of(first): ASKED, address_of(third): ASKED // 2, address_of(second): ASKED})
    await shop.follow()
    assert [await shop.status(one) for one in (first, second, third)] == [
        "detected",
        "detected",
        "partially_paid",
    ]
    await shop.mine(3)
    assert [await shop.status(one) for one in (first, second, third)] == ["paid", "paid", "partially_paid"]


# -- outputs that are not what they seem


async def test_dust_is_flagged_and_changes_nothing(shop: LiteShop, node: Litecoind) -> None:
    """Nodes do not relay it, but a miner may take it: kept as evidence, no state, no exception (F-TOKEN 2)."""
    invoice = await shop.create()
    await node.mine_only(await node.sign({address_of(invoice): 600}))
    await shop.mine(2)
    seen = await shop.get(invoice)
    assert (seen["status"], await shop.exceptions(invoice)) == ("awaiting_payment", [])
    (payment,) = (await shop.asked("/v1/payments", invoice_id=invoice["id"]))["data"]
    assert (payment["amount"], "dust" in payment["traits"]) == ("0.000006", True)
    await node.send(address_of(invoice), ASKED)
    await shop.mine(3)
    assert await shop.status(invoice) == "paid"


async def test_fresh_coins_count_when_they_can_be_spent(shop: LiteShop, node: Litecoind) -> None:
    """A miner paid out directly to the invoice: 100 blocks, whatever the rules ask (F-CHAIN 10).

    Bug planted: maturity left out of finality; paid after three blocks.
    """
    subsidy = 50 * COIN >> ((await node.height() + 1) // 150)
    invoice = await shop.create(coins_text(subsidy), currency="LTC", expires_in=86_400)
    await node.mine(1, to=address_of(invoice))
    await shop.follow()
    seen = await shop.get(invoice)
    payment = payment_of(seen)
    assert (seen["status"], payment["traits"]) == ("confirming", ["coinbase"])
    assert (payment["confirmations"], payment["confirmations_required"]) == (1, 100)
    await shop.mine(98)
    seen = await shop.get(invoice)
    assert (seen["status"], payment_of(seen)["confirmations"]) == ("confirming", 99)
    await shop.mine()
    assert await shop.status(invoice) == "paid"


async def test_coins_moved_among_our_own_addresses_are_not_income(shop: LiteShop, node: Litecoind) -> None:
    """What one invoice received, sent on to the address of another: that one stays unpaid (F-TOKEN 8).

    Bug planted: what a transaction spends is not compared with what we received; the second invoice is paid.
    """
    first, second, third = [await shop.create() for _ in range(3)]
    paying = await node.send(address_of(first), ASKED)
    await shop.mine(3)
    assert await shop.status(first) == "paid"
    moving = await spend_received(node, paying, 0, private_key(0), address_of(second))
    await node.submit(moving)
    await shop.follow()
    assert await shop.status(second) == "awaiting_payment"
    await shop.mine(3)
    seen = await shop.get(second)
    assert (seen["status"], seen["amount_paid"], await shop.exceptions(second)) == (
        "awaiting_payment",
        "0.00",
        [],
    )
    assert option_of(seen)["amount_received"] == "0"
    # Moved on once more, from an address that never received income: still our own.
    again = await spend_received(node, moving, 0, private_key(1), address_of(third))
    await node.submit(again)
    await shop.mine(3)
    assert await shop.status(third) == "awaiting_payment"
    assert await shop.status(first) == "paid"
    await node.send(address_of(second), ASKED)
    await shop.mine(3)
    seen = await shop.get(second)
    assert (seen["status"], seen["amount_paid"]) == ("paid", "25.00")


async def test_what_another_shop_received_is_income_here(shop: LiteShop, node: Litecoind) -> None:
    """One merchant pays another from what a customer paid him, before a block holds either: both are paid.

    Bug planted: whose output is spent is not asked, only whether it is one of ours; the second shop is never paid.
    """
    other = await shop.another_merchant("supplier", account_key(ZPUB, 5))
    sale, supply = await shop.create(), await other.create("20.00")
    paying = await node.send(address_of(sale), ASKED)
    moving = await spend_received(node, paying, 0, private_key(0), address_of(supply))
    await node.submit(moving)
    await shop.follow()
    assert (await shop.status(sale), await other.status(supply)) == ("detected", "detected")
    await shop.mine(3)
    assert (await shop.status(sale), await other.status(supply)) == ("paid", "overpaid")


async def spend_received(node: Litecoind, sent: Sent, vout: int, key: str, to: str) -> Sent:
    """A transaction that moves on what a shop received; signed with the shop's key, told to nobody."""
    decoded = await node.rpc("decoderawtransaction", sent.raw)
    output = decoded["vout"][vout]
    amount = int(output["value"] * COIN) - 10_000
    raw = await node.rpc(
        "createrawtransaction", [{"txid": sent.txid, "vout": vout}], [{to: coins_text(amount)}]
    )
    previous = {
        "txid": sent.txid,
        "vout": vout,
        "scriptPubKey": output["scriptPubKey"]["hex"],
        "amount": str(output["value"]),
    }
    signed = await node.rpc("signrawtransactionwithkey", raw, [key], [previous])
    assert signed["complete"], signed
    decoded = await node.rpc("decoderawtransaction", signed["hex"])
    return Sent(decoded["txid"], signed["hex"], ())


async def test_paid_on_another_network_of_the_family(database_url: str, node: Litecoind) -> None:
    """The same script exists on every network of the family: there it is a wrong network, for a person to look at."""
    main = {"kind": "bitcoin", "chain": "litecoin-regtest", "rpc": [node.url], "confirmations": 3}
    more = main | {"chain": "litecoin-testnet", "rpc": ["http://127.0.0.1:9"]}  # its blocks come by hand
    both = from_document({"networks": {NETWORK: main, "testnet": more}}, environment={})
    async with open_lite_shop(database_url, node, config=both) as shop:
        invoice = await shop.create()
        script = await node.script_of(address_of(invoice))
        await mine_by_hand(shop.ctx, "testnet")
        await mine_by_hand(shop.ctx, "testnet", output_to(script, ASKED))
        seen = await shop.get(invoice)
        assert (seen["status"], await shop.exceptions(invoice)) == ("review_required", ["wrong_network"])
        payment = payment_of(seen)
        assert (payment["network"], payment["to"][:5], payment["match"]) == (
            "testnet",
            "tltc1",
            "wrong_network",
        )


def output_to(script: str, amount: int) -> ObservedTransfer:
    """An output of some transaction, as a source tells it."""
    return ObservedTransfer(
        tx_hash="ab" * 32,
        channel=Channel.OUTPUT,
        ordinal=1,
        sender="",
        to=script,
        contract=None,
        amount=amount,
        spend_keys=("cd" * 32 + ":0", "ef" * 32 + ":7"),
    )


# -- every kind of address


def described(kind: str) -> str:
    """An account's output descriptor."""
    keys = [account(84, number).to_public().to_base58(version=XPUB) for number in (1, 2, 3)]
    return {
        "wpkh": f"wpkh([73c5da0a/84h/2h/1h]{keys[0]}/0/*)",
        "sh": f"sh(wpkh({keys[1]}/0/*))",
        "tr": f"tr({keys[2]}/<0;1>/*)",
        "multisig": f"wsh(sortedmulti(2,{keys[0]}/0/*,{keys[1]}/0/*,{keys[2]}/0/*))",
    }[kind]


async def test_every_kind_of_wallet_is_paid(shop: LiteShop, node: Litecoind) -> None:
    """Each prefix and each descriptor gives addresses of its kind; one transaction pays them all.

    What the node derives from the same descriptors is the same (the first thousand: tests of addresses).
    """
    keys = {
        "xpub": (account_key(XPUB, 1), ("m", "n")),
        "Ltub": (account_key(LTUB, 2), ("m", "n")),
        "ypub": (account_key(YPUB, 1), ("Q", "2")),
        "Mtub": (account_key(MTUB, 2), ("Q", "2")),
        "zpub": (account_key(ZPUB, 4), ("rltc1q",)),
        "wpkh": (described("wpkh"), ("rltc1q",)),
        "sh": (described("sh"), ("Q", "2")),
        "tr": (described("tr"), ("rltc1p",)),
        "multisig": (described("multisig"), ("rltc1q",)),
    }
    shops = {kind: await shop.another_merchant(kind, key) for kind, (key, _) in keys.items()}
    invoices = {kind: await other.create() for kind, other in shops.items()}
    for kind, invoice in invoices.items():
        assert address_of(invoice).startswith(keys[kind][1]), (kind, address_of(invoice))
    assert len({address_of(invoice) for invoice in invoices.values()}) == len(keys)
    await node.pay({address_of(invoice): ASKED for invoice in invoices.values()})
    await shop.follow()
    assert {await shops[kind].status(invoice) for kind, invoice in invoices.items()} == {"detected"}
    await shop.mine(3)
    assert {await shops[kind].status(invoice) for kind, invoice in invoices.items()} == {"paid"}
