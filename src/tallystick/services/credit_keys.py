"""Which credit key a transfer of a block has, given what is stored already, of payments and of refunds alike.

For: the intake. A transaction that is mined again, or was sighted before it was mined, keeps its hash; what it does may
differ: a swap pays out another amount, a contract pays somebody else. A credit key names the place of a transfer
inside its transaction, so that two different transfers could claim one key, and the stored one would be taken for the
new one. Holds true: a stored transfer is found again only by a transfer of the same place *and* content (receiver,
contract, amount); another content at the same place gets a key of its own, the same one each time it comes back.
Must not: decide what became of the transfer that did not come back (`core.assess` does, from its conflict with itself).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from tallystick.core.chain import ObservedTransfer
from tallystick.core.network import Network
from tallystick.db.sql import Connection, Record, load

SQL: Final = load("intake")

PLACES: Final = 1 << 20
"""Places inside one transaction; a block's gas pays for far fewer. A second content at a place has the ordinal
place + PLACES, a third one place + 2 * PLACES, and so on."""

Identity: TypeAlias = tuple[str, str, int, str, str | None, int]
"""Transaction, channel, place, receiver, contract, amount."""


def identity_of(transfer: ObservedTransfer) -> Identity:
    """What makes a transfer of a block the same as one seen before."""
    place = transfer.ordinal % PLACES
    return transfer.tx_hash, transfer.channel, place, transfer.to, transfer.contract, transfer.amount


def stored_identity(row: Record) -> Identity:
    """The same of a stored transfer."""
    place = row["ordinal"] % PLACES
    return row["tx_hash"], row["channel"], place, row["recipient"], row["contract"], int(row["amount"])


async def keyed(
    connection: Connection, network: Network, transfers: Sequence[ObservedTransfer]
) -> list[ObservedTransfer]:
    """These transfers of one block, each under the key of the stored transfer that it is, or under one that is free."""
    hashes = sorted({transfer.tx_hash for transfer in transfers})
    rows = await SQL.known_transfers.all(connection, network=network.name, tx_hashes=hashes)
    if not rows:
        return list(transfers)
    known = {stored_identity(row): row["ordinal"] for row in rows}
    taken = {(row["tx_hash"], row["channel"], row["ordinal"]) for row in rows}
    found: list[ObservedTransfer] = []
    for transfer in transfers:
        ordinal = known.get(identity_of(transfer))
        found.append(
            at_free_place(transfer, taken) if ordinal is None else replace(transfer, ordinal=ordinal)
        )
    return found


def at_free_place(transfer: ObservedTransfer, taken: Collection[tuple[str, str, int]]) -> ObservedTransfer:
    """The transfer under the first key of its place that is not `taken` (transaction, channel, ordinal)."""
    ordinal = transfer.ordinal
    while (transfer.tx_hash, transfer.channel, ordinal) in taken:
        ordinal += PLACES
    return transfer if ordinal == transfer.ordinal else replace(transfer, ordinal=ordinal)
