"""Sightings as stored: which transfers a node shows outside any block, since when one is missing, and which are gone.

For: `services.sightings`; intake ends those that a block settles. Holds true: a sighting is a mark on a transfer, never
a fact about the chain; it is ended, not deleted.
Must not: decide when something is gone, or what that means for an invoice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tallystick.core.chain import ObservedTransfer, Trait
from tallystick.db.spends import record_spends
from tallystick.db.sql import Connection, Record, load

SQL: Final = load("sightings")


@dataclass(frozen=True, slots=True)
class LiveSighting:
    """A sighting that counts now. `missing_since` is our clock when a node first did not know it any more."""

    transfer_id: str
    invoice_id: str
    tx_hash: str
    spend_keys: tuple[str, ...]
    missing_since: datetime | None


@dataclass(frozen=True, slots=True)
class KnownTransfer:
    """A transfer that is stored. `gone_at` is that of its sighting, if it has one.

    `anchored`: a block ever held it. `placed`: the best chain holds it now, or its conflict.
    """

    transfer_id: str
    invoice_id: str
    sighted: bool
    gone_at: datetime | None
    anchored: bool
    placed: bool


async def read_live(connection: Connection, network: str) -> list[LiveSighting]:
    """Every sighting of this network that counts now."""
    return [
        LiveSighting(
            row["transfer_id"],
            row["invoice_id"],
            row["tx_hash"],
            tuple(row["spend_keys"]),
            row["missing_since"],
        )
        for row in await SQL.live.all(connection, network=network)
    ]


async def read_known(
    connection: Connection, network: str, transfers: Sequence[ObservedTransfer]
) -> dict[tuple[str, str, int], KnownTransfer]:
    """Those of these transfers that are stored, by transaction, channel and ordinal."""
    if not transfers:
        return {}
    rows = await SQL.known.all(connection, network=network, **_keys(transfers))
    return {
        (row["tx_hash"], row["channel"], row["ordinal"]): KnownTransfer(
            row["id"], row["invoice_id"], row["sighted"], row["gone_at"], row["anchored"], row["placed"]
        )
        for row in rows
    }


async def insert_sighted(
    connection: Connection,
    network: str,
    transfers: Sequence[ObservedTransfer],
    *,
    ids: Sequence[str],
    owners: Mapping[str, Record],
    evidence_at: datetime,
    at: datetime,
) -> None:
    """New transfers with their sightings. `owners` maps each recipient to its row of `waiting_recipients`."""
    rows = [owners[transfer.to] for transfer in transfers]
    await SQL.insert_sighted.run(
        connection,
        network=network,
        **_keys(transfers),
        ids=list(ids),
        senders=[transfer.sender for transfer in transfers],
        recipients=[transfer.to for transfer in transfers],
        contracts=[transfer.contract for transfer in transfers],
        symbols=[row["asset_symbol"] for row in rows],
        decimals=[row["asset_decimals"] for row in rows],
        amounts=[transfer.amount for transfer in transfers],
        traits=[" ".join(sorted(transfer.traits)) for transfer in transfers],
        merchant_ids=[row["merchant_id"] for row in rows],
        invoice_ids=[row["invoice_id"] for row in rows],
        option_ids=[row["option_id"] for row in rows],
        evidence_at=evidence_at,
        at=at,
    )
    await record_spends(connection, network, transfers)


async def add_traits(connection: Connection, found: Mapping[str, Collection[Trait]]) -> None:
    """What makes known transfers (by id) riskier than they were when they were recorded. Nothing is taken back."""
    texts = [" ".join(sorted(traits)) for traits in found.values()]
    await SQL.add_traits.run(connection, ids=list(found), traits=texts)


def _keys(transfers: Sequence[ObservedTransfer]) -> dict[str, Any]:
    return {
        "tx_hashes": [transfer.tx_hash for transfer in transfers],
        "channels": [transfer.channel for transfer in transfers],
        "ordinals": [transfer.ordinal for transfer in transfers],
    }
