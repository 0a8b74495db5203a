"""A real node takes our PSBTs: its wallet signs them, it relays what comes out, and the fee is what we said.

Planted bugs seen to fail: an input's amount wrong by one; the fee rate taken
for one virtual byte instead of a thousand.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from embit.finalizer import finalize_psbt
from embit.psbt import PSBT

from tallystick.chains.bitcoin.addresses import display
from tallystick.chains.bitcoin.choosing import DUST_RATE, Unspent, dust_limit
from tallystick.chains.bitcoin.descriptors import read_account_key
from tallystick.chains.bitcoin.psbt import Built, Payment, build
from tests.support.lite_shop import LTUB, MTUB, YPUB, ZPUB, account, account_key
from tests.support.lite_signer import Signer, multisig, private, public
from tests.support.litecoind import COIN, Litecoind, NodeError, coins_text, litoshi, start_litecoind

FEE_RATE = 2_500


@pytest.fixture
async def node() -> AsyncIterator[Litecoind]:
    async with start_litecoind() as node:
        await node.fund(3)
        yield node


# As registered, and as the signing wallet has it, by branch.
WALLETS = {
    "p2wpkh": (account_key(ZPUB), f"wpkh({private(84)}/%d/*)"),
    "p2sh-p2wpkh": (account_key(YPUB), f"sh(wpkh({private(49)}/%d/*))"),
    "p2sh-p2wpkh in Litecoin's form": (account_key(MTUB), f"sh(wpkh({private(49)}/%d/*))"),
    "p2pkh": (account_key(LTUB), f"pkh({private(44)}/%d/*)"),
    "multisig": (multisig(0), multisig(0, secret=True)),
}


async def paid_to(node: Litecoind, key: str, amounts: dict[int, int]) -> list[Unspent]:
    """Pay child addresses of a key, each its litoshi, and mine it."""
    wallet = read_account_key(key, "litecoin")
    scripts = {wallet.script(index): index for index in amounts}
    outputs = {display(script, "litecoin-regtest"): amounts[index] for script, index in scripts.items()}
    sent = await node.pay(outputs)
    await node.mine()
    decoded = await node.rpc("decoderawtransaction", sent.raw)
    found = []
    for output in decoded["vout"]:
        script = output["scriptPubKey"]["hex"]
        if script in scripts:
            amount = litoshi(output["value"])
            found.append(Unspent(sent.txid, output["n"], amount, script, scripts[script]))
    assert len(found) == len(amounts)
    return found


@pytest.mark.parametrize("kind", WALLETS)
async def test_the_nodes_wallet_signs_and_the_node_mines_it(node: Litecoind, kind: str) -> None:
    key, secret = WALLETS[kind]
    signer = await Signer.open(node, "signer", secret)
    known = await paid_to(node, key, {0: COIN, 3: 2 * COIN, 8: COIN // 2})
    destination = await node.new_address()
    payment = Payment("litecoin", await node.script_of(destination), 250_000_001, FEE_RATE)
    built = build(read_account_key(key, "litecoin").descriptor, known, payment)
    assert isinstance(built, Built)
    assert litoshi((await signer.decoded(built.text))["fee"]) == built.choice.fee
    raw = await signer.sign(built.text)
    (verdict,) = await node.rpc("testmempoolaccept", [raw])
    assert verdict["allowed"], verdict
    least = verdict["vsize"] * FEE_RATE / 1000
    assert least <= built.choice.fee <= least * 1.02 + 3
    txid = await node.submit(raw)
    await node.mine()
    received = await node.rpc("gettransaction", txid)
    assert received["confirmations"] == 1
    change = [one for one in await signer.unspent() if one["txid"] == txid]
    assert [litoshi(one["amount"]) for one in change] == [built.choice.change]


async def test_the_node_takes_taproot(node: Litecoind) -> None:
    """Its own wallet cannot sign for it; the library's keys do."""
    key = f"tr({public(86)}/<0;1>/*)"
    known = await paid_to(node, key, {0: COIN, 3: 2 * COIN})
    payment = Payment("litecoin", await node.script_of(await node.new_address()), 250_000_001, FEE_RATE)
    built = build(read_account_key(key, "litecoin").descriptor, known, payment)
    assert isinstance(built, Built)
    psbt = PSBT.from_string(built.text)
    psbt.sign_with(account(86))
    (verdict,) = await node.rpc("testmempoolaccept", [finalize_psbt(psbt).serialize().hex()])
    assert verdict["allowed"], verdict
    assert verdict["vsize"] * FEE_RATE / 1000 <= built.choice.fee <= verdict["vsize"] * FEE_RATE / 1000 + 3


async def test_the_dust_limit_is_the_nodes(node: Litecoind) -> None:
    """One unit less than we call the least is not relayed; the least is."""
    assert DUST_RATE["litecoin"] == 30_000
    for kind in ("bech32", "p2sh-segwit", "legacy"):
        address = await node.new_address(kind)
        least = dust_limit("litecoin", await node.script_of(address))
        with pytest.raises(NodeError, match="dust"):
            await node.send(address, least - 1)
        await node.send(address, least)


async def test_the_least_fee_rate_is_the_nodes(node: Litecoind) -> None:
    info = await node.rpc("getnetworkinfo")
    assert coins_text(1_000) == f"{info['relayfee']:.8f}"
