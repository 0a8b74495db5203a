"""Unspent outputs of wallets, and which of them refunds hold.

For: `services.refund_psbts`. Holds true: an output is held by one refund at most, by the table's key.
Must not: choose, or say what is final.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tallystick.core.chain import Anchor, BlockRef, Trait
from tallystick.db.refunds import StoredRefund
from tallystick.db.sql import Connection, Record, load

SQL: Final = load("refund_inputs")

UNSPENT_MAX: Final = 1_000
"""Outputs that are looked at for one choice: the largest ones suffice, or a transaction could not hold them."""

NEWEST_MAX: Final = 10_000
"""A merchant's newest outputs on a network, spent ones included, among which those are sought: coins that lie longer
are none that refunds should need, and looking through all that ever came takes seconds where a million did."""


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """An unspent output of a wallet: a transfer to the address of child `index`, and the block that holds it."""

    transfer_id: str
    txid: str
    vout: int
    amount: int
    script: str
    index: int
    traits: frozenset[Trait]
    anchor: Anchor


@dataclass(frozen=True, slots=True)
class HeldInput:
    """An output that a refund's PSBT spends. `stands`: in the best chain.

    `lost`: the block there that spends it, or that rules out the transaction which makes it.
    """

    transfer_id: str
    outpoint: tuple[str, int]
    stands: bool
    lost: Anchor | None

    @property
    def usable(self) -> bool:
        """Whether a transaction that spends it can be mined now."""
        return self.stands and self.lost is None


async def unspent_outputs(connection: Connection, refund: StoredRefund, wallet_id: str) -> list[StoredOutput]:
    """The wallet's largest unspent outputs on the refund's network that no other refund holds, among NEWEST_MAX."""
    rows = await SQL.unspent_outputs.all(
        connection,
        family=refund.family,
        wallet_id=wallet_id,
        merchant_id=refund.merchant_id,
        network=refund.asset.network,
        refund_id=refund.id,
        newest_count=NEWEST_MAX,
        row_count=UNSPENT_MAX,
    )
    return [
        StoredOutput(
            transfer_id=row["id"],
            txid=row["tx_hash"],
            vout=row["ordinal"],
            amount=int(row["amount"]),
            script=row["recipient"],
            index=row["derivation_index"],
            traits=frozenset(Trait(one) for one in row["traits"]),
            anchor=_anchor(row["hash"], row["height"], row["time"]),
        )
        for row in rows
    ]


async def held_inputs(connection: Connection, refund_id: str) -> list[HeldInput]:
    """What the refund holds."""
    return [_held(row) for row in await SQL.inputs_of.all(connection, refund_id=refund_id)]


async def hold(connection: Connection, refund_id: str, transfer_ids: Sequence[str]) -> None:
    """The refund holds these outputs, in place of those that it held."""
    await SQL.release_inputs.run(connection, refund_id=refund_id)
    if transfer_ids:
        await SQL.hold_inputs.run(connection, refund_id=refund_id, transfer_ids=sorted(transfer_ids))


def _held(row: Record) -> HeldInput:
    lost = row["lost_hash"]
    return HeldInput(
        transfer_id=row["transfer_id"],
        outpoint=(row["tx_hash"], row["ordinal"]),
        stands=row["stands"],
        lost=None if lost is None else _anchor(lost, row["lost_height"], row["lost_time"]),
    )


def _anchor(hash: str, height: int, time: datetime) -> Anchor:
    return Anchor(BlockRef(hash, height), time, in_best_chain=True)
