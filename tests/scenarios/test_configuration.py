"""What was promised to customers outlives the configuration it was promised under (R-CHAIN 8).

An operator takes a token or a network out of the configuration, or puts it back, while invoices wait for it.
"""

from __future__ import annotations

from dataclasses import replace

from tallystick.core.network import Network
from tallystick.services.networks import unwatched
from tests.support.evm import Chain
from tests.support.stand import Stand, address_in, units


async def reconfigure(stand: Stand, network: Network) -> None:
    """Start again with this network in place of the one of its name."""
    stand.ctx = replace(stand.ctx, networks={**stand.ctx.networks, network.name: network})
    await stand.restart(network.name)


async def test_a_token_taken_out_still_pays_the_invoices_that_asked_for_it(
    stand: Stand, chain: Chain, token: str
) -> None:
    """What the customer was told to send is credited; elsewhere the same token is one that nobody knows.

    Bug planted: assets taken from the configuration alone; the payment is kept as junk, for ever.
    """
    asked = await stand.create("25.00", ("DUSD", "local"))
    other = await stand.create("25.00", ("ETH", "local"))
    await reconfigure(stand, replace(stand.ctx.networks["local"], tokens=()))
    for invoice in (asked, other):
        await chain.send_token(token, address_in(invoice), units("25", 6))
    await chain.mine(4)
    await stand.follow()
    paid = await stand.get(asked)
    assert (paid.status, paid.amount_paid, paid.payments[0].asset) == ("paid", "25.00", "DUSD")
    unpaid = await stand.get(other)
    assert (unpaid.status, unpaid.payments) == ("awaiting_payment", [])


async def test_another_number_of_decimals_does_not_change_what_was_asked(
    stand: Stand, chain: Chain, token: str
) -> None:
    """A corrected configuration is for new invoices; amounts of old ones are shown as they were quoted."""
    invoice = await stand.create("25.00", ("DUSD", "local"))
    network = stand.ctx.networks["local"]
    await reconfigure(stand, replace(network, tokens=(replace(network.tokens[0], decimals=18),)))
    await chain.send_token(token, address_in(invoice), units("25", 6))
    await chain.mine(4)
    await stand.follow()
    paid = await stand.get(invoice)
    assert (paid.status, paid.payments[0].amount) == ("paid", "25")
    assert paid.payment_options[0].amount_received == "25"


async def test_invoices_that_wait_for_a_network_taken_out_are_counted(stand: Stand, chain: Chain) -> None:
    """They can neither expire nor be paid, so the start says so; whoever needs nothing of it is not among them."""
    await stand.create("25.00")
    await stand.create("25.00", ("ETH", "local"), ("DUSD", "local"))  # no way chosen: our own clock ends it
    paid = await stand.create("25.00", expires_in_seconds=10)
    await chain.send_native(address_in(paid), units("0.01"))
    await chain.mine(4)
    await chain.set_next_time(await chain.time() + 60)
    await chain.mine()
    await stand.follow()
    await stand.expire()
    async with stand.ctx.database.connection() as connection:
        assert await unwatched(connection, stand.ctx.networks) == {}
        assert await unwatched(connection, {}) == {"local": 1}
