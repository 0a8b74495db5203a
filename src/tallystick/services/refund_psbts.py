"""The PSBT of a refund: made of outputs that are known to be unspent, kept, and made anew once it can never be mined.

For: `services.refund_writing` (refunds that may be signed) and the refund watch. Holds true: an output is held by one
refund at most; only outputs that are final by the network's requirement, and mature, are spent. A PSBT stays the same
for as long as it can be mined, whatever people decide meanwhile: signed twice it is one transaction. Another takes its
place only once what spent one of its outputs elsewhere, or replaced the payment that made one, is final, so that no
reorganisation lets both be mined. Whoever asks holds the invoice's lock; the wallets are locked here, after it.
Must not: change a refund's status, sign, or know how a transaction is built (`chains.bitcoin.psbt` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from tallystick.chains.bitcoin.choosing import DUST_RATE, FEE_RATE_MIN, Shortage, Unspent
from tallystick.chains.bitcoin.descriptors import read_account_key
from tallystick.chains.bitcoin.psbt import Built, Payment, build
from tallystick.core.chain import NetworkView, is_final, required_with
from tallystick.core.network import Network
from tallystick.core.refund import RefundStatus
from tallystick.db.networks import read_views
from tallystick.db.refund_inputs import SQL, HeldInput, StoredOutput, held_inputs, hold, unspent_outputs
from tallystick.db.refunds import StoredRefund
from tallystick.db.sql import Connection
from tallystick.services.context import Context

FEE_RATE_FRESH: Final = timedelta(hours=1)
"""How long a node's word about fees is taken. Later the configuration's own rate counts."""

NO_FEE_RATE: Final = "What the network asks as a fee is not known yet."
NO_OUTPUTS: Final = "No final unspent output of the wallet is known."
DEAD: Final = (
    "An output that the PSBT spends was spent elsewhere, or left the best chain. Another one is made once it is sure "
    "that this one can never be mined."
)
"""In place of a PSBT that cannot be mined now."""


def has_psbt(refund: StoredRefund) -> bool:
    """Whether wallets sign a PSBT for a refund like this one."""
    return refund.family in DUST_RATE and refund.asset.contract is None


async def psbt_changes(connection: Connection, ctx: Context, refund: StoredRefund) -> dict[str, Any]:
    """What changes of a refund that is to be signed, so that it has its PSBT; its outputs are held for it.

    The caller stores it. Nothing, where the PSBT that it has can be mined; without one `psbt_problem` says why.
    """
    network = ctx.networks.get(refund.asset.network)
    if network is None or refund.address is None or not has_psbt(refund):
        return {}
    wallets = await SQL.lock_wallets.all(connection, merchant_id=refund.merchant_id, family=refund.family)
    held = await held_inputs(connection, refund.id)
    if refund.psbt is not None and held and all(one.usable for one in held):
        return {}
    view = (await read_views(connection, ctx.networks))[network.name]
    if held and not _dead_for_good(held, network, view):
        return {"psbt_at": ctx.now()}
    built = await _choose(
        connection, ctx, refund, network, view, [(row["id"], row["account_key"]) for row in wallets]
    )
    if isinstance(built, Shortage):
        await hold(connection, refund.id, [])
        return _changes(ctx, None, built.reason)
    return _changes(ctx, built, None)


async def _choose(
    connection: Connection,
    ctx: Context,
    refund: StoredRefund,
    network: Network,
    view: NetworkView,
    wallets: Sequence[tuple[str, str]],
) -> Built | Shortage:
    """A PSBT from the newest wallet whose known outputs suffice, which are held for it. `wallets`: id, account key.

    From one wallet only: no other signs for it.
    """
    fee_rate = await _fee_rate(connection, ctx, network)
    if fee_rate is None:
        return Shortage(NO_FEE_RATE)
    payment = Payment(refund.family, refund.address or "", refund.amount_sent, fee_rate)
    shortage = Shortage(NO_OUTPUTS)
    for wallet_id, account_key in wallets:
        stored = await unspent_outputs(connection, refund, wallet_id)
        outputs = [one for one in stored if _spendable(one, network, view)]
        if not outputs:
            continue
        descriptor = read_account_key(account_key, refund.family).descriptor
        built = build(descriptor, [_unspent(one) for one in outputs], payment)
        if isinstance(built, Built):
            chosen = {one.outpoint for one in built.choice.inputs}
            ids = [one.transfer_id for one in outputs if (one.txid, one.vout) in chosen]
            await hold(connection, refund.id, ids)
            return built
        shortage = built
    return shortage


def _spendable(output: StoredOutput, network: Network, view: NetworkView) -> bool:
    """Whether it is final by the network's own requirement, whatever the invoice's was, and mature."""
    return is_final(output.anchor, required_with(network.requirement, output.traits), view)


def _unspent(output: StoredOutput) -> Unspent:
    return Unspent(output.txid, output.vout, output.amount, output.script, output.index)


def _dead_for_good(held: Sequence[HeldInput], network: Network, view: NetworkView) -> bool:
    """Whether a transaction that spends all of these can never be mined: what took one of them away is final."""
    return any(one.lost is not None and is_final(one.lost, network.requirement, view) for one in held)


async def _fee_rate(connection: Connection, ctx: Context, network: Network) -> int | None:
    """Base units per 1,000 virtual bytes: what a node said lately, else the configuration's; None: not known.

    Never less than what every node relays, though some say so.
    """
    row = await SQL.fee_rate_of.one(connection, network=network.name)
    fee_rate = network.fee_rate_default
    if row is not None and row["fee_rate"] is not None and ctx.now() - row["fee_rate_at"] <= FEE_RATE_FRESH:
        fee_rate = int(row["fee_rate"])
    return None if fee_rate is None else max(fee_rate, FEE_RATE_MIN)


def _changes(ctx: Context, built: Built | None, problem: str | None) -> dict[str, Any]:
    return {
        "psbt": built.text if built is not None else None,
        "psbt_fee": built.choice.fee if built is not None else None,
        "psbt_problem": problem,
        "psbt_at": ctx.now(),
        "psbt_dead": False,
    }


async def release_inputs(connection: Connection, refund: StoredRefund) -> None:
    """Give back what a refund holds once it has ended.

    One that was given up holds nothing: should its PSBT be sent after all, another that spends the same outputs cannot
    be. One that is completed keeps what a block spends, because that block can leave the best chain.
    """
    if not has_psbt(refund):
        return
    if refund.status in (RefundStatus.REJECTED, RefundStatus.FAILED):
        await SQL.release_inputs.run(connection, refund_id=refund.id)
    elif refund.status is RefundStatus.COMPLETED:
        await SQL.release_unspent_inputs.run(connection, refund_id=refund.id)
