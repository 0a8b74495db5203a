"""What transactions use up, as stored, and which of our outputs were spent.

For: `services.intake`, `services.sightings` and `services.refund_intake`. Holds true: what a transaction uses up is
stored once, with the first of its transfers; a spending names the block that holds it, and counts only while that block
is in the best chain.
Must not: decide what a conflict or a spending means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tallystick.core.chain import ObservedTransfer, outpoint_of
from tallystick.db.sql import Connection, Record, load

SQL: Final = load("spends")


async def record_spends(connection: Connection, network: str, transfers: Sequence[ObservedTransfer]) -> None:
    """What the transactions of these transfers use up. Known ones are left as they are."""
    pairs = sorted({(transfer.tx_hash, key) for transfer in transfers for key in transfer.spend_keys})
    await SQL.insert_spends.run(
        connection,
        network=network,
        tx_hashes=[tx_hash for tx_hash, _ in pairs],
        spend_keys=[key for _, key in pairs],
    )


async def own_outputs(connection: Connection, network: str, spend_keys: Iterable[str]) -> dict[str, Record]:
    """Which of these spend keys name outputs that came to issued addresses, each with its id and merchant."""
    outpoints = [found for key in spend_keys if (found := outpoint_of(key)) is not None]
    if not outpoints:
        return {}
    rows = await SQL.own_outputs.all(
        connection,
        network=network,
        tx_hashes=[tx_hash for tx_hash, _ in outpoints],
        ordinals=[ordinal for _, ordinal in outpoints],
    )
    return {f"{row['tx_hash']}:{row['ordinal']}": row for row in rows}


async def record_spendings(
    connection: Connection, network: str, block_hash: str, spent: Sequence[tuple[str, str]]
) -> None:
    """That transactions of this block spent outputs of ours: transfer id and transaction hash of each."""
    await SQL.insert_spendings.run(
        connection,
        network=network,
        block_hash=block_hash,
        transfer_ids=[transfer_id for transfer_id, _ in spent],
        tx_hashes=[tx_hash for _, tx_hash in spent],
    )
