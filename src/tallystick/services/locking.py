"""Locking invoices for a decision: first the networks that matter to them, by name, then the invoices, by id.

For: services that record what a person decided. Holds true: while the transaction lasts no block changes what the
decision is judged by; the order is the one that followers keep, so that nobody waits in a circle.
Must not: judge or write anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.core.errors import NotFound, StaleWrite
from tallystick.db import invoices as store
from tallystick.db.networks import share_networks
from tallystick.db.sql import Connection


async def lock_invoices(
    connection: Connection, merchant_id: str, ids: Sequence[str]
) -> dict[str, store.StoredInvoice]:
    """These invoices of the merchant, by id. Raises NotFound; StaleWrite when a payment on yet another network came."""
    names = await store.networks_of(connection, ids)
    await share_networks(connection, names)
    found = {invoice.id: invoice for invoice in await store.read_invoices(connection, ids, lock=True)}
    for wanted in ids:
        if wanted not in found or found[wanted].merchant_id != merchant_id:
            raise NotFound("There is no such invoice.", object_id=wanted)
        if not found[wanted].networks <= set(names):
            raise StaleWrite("A payment on another network came meanwhile.", object_id=wanted)
    return found
