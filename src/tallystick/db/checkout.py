"""What the checkout page reads beyond the invoice itself.

Holds true: statements stand in `queries/checkout.sql`. Must not: know what a customer may see; that is
`services.checkout`.
"""

from __future__ import annotations

from typing import Final

from tallystick.db.sql import Connection, load

SQL: Final = load("checkout")


async def merchant_name_of(connection: Connection, invoice_id: str) -> str | None:
    """The name of the merchant who made the invoice, or None when there is no such invoice."""
    name: str | None = await SQL.merchant_name_of.value(connection, invoice_id=invoice_id)
    return name


async def ping(connection: Connection) -> None:
    """Ask the server for anything. Raises what the driver raises when the connection is dead."""
    await SQL.ping.value(connection)
