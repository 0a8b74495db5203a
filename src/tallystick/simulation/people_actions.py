"""What customers do: pay rightly, and in every wrong way (failures.md F-PAY, F-TOKEN).

Holds true: customers know what the API answered and nothing else; what they send is a transaction like any other, whose
fate is the chain's.
"""

from __future__ import annotations

from tallystick.chains.simulated.blocks import Transaction
from tallystick.chains.simulated.transactions import (
    UINT256_MAX,
    address_of,
    batch,
    contract_call,
    failed,
    fee_on_transfer,
    late_event,
    native,
    nothing_moved,
    token,
)
from tallystick.core.money import Asset
from tallystick.simulation import output_actions
from tallystick.simulation.world import Ask, Place, World

RECENT = 12
CUSTOMERS = 6


def some_ask(world: World) -> Ask | None:
    """Something a customer was asked to pay: mostly lately, sometimes long ago."""
    asks = [ask for shop in world.shops for ask in shop.asks]
    if not asks:
        return None
    asks.sort(key=lambda ask: ask.invoice_id)
    return world.chance.pick(asks if world.chance.one_in(6) else asks[-RECENT:])


def _customer(world: World) -> str:
    return address_of(f"customer {world.chance.below(CUSTOMERS)}")


def _amount(world: World, asked: int) -> tuple[int, str]:
    chance = world.chance
    kind = chance.weighted(
        [
            ("right", 50),
            ("half", 10),
            ("a bit less", 4),
            ("double", 5),
            ("a bit more", 4),
            ("dust", 2),
            ("huge", 1),
        ]
    )
    amount = {
        "right": asked,
        "half": asked // 2,
        "a bit less": asked - asked // 500 - 1,
        "double": 2 * asked,
        "a bit more": asked + asked // 500 + 1,
        "dust": max(1, asked // 50_000),
        "huge": UINT256_MAX,
    }[kind]
    return max(1, amount), kind


def transfer(world: World, place: Place, asset: Asset, to: str, amount: int, sender: str) -> Transaction:
    """A plain transfer of an asset."""
    if place.network.shows_risks:
        return output_actions.payment(world, place, [(to, amount)], sender)
    nonce = world.nonce(place, sender)
    if asset.contract is None:
        return native(sender, nonce, to, amount)
    return token(sender, nonce, asset.contract, to, amount)


async def pay(world: World) -> str:
    """A customer pays what was asked, more or less."""
    ask = some_ask(world)
    if ask is None:
        return "nothing is asked"
    place = world.places[ask.asset.network]
    amount, kind = _amount(world, ask.amount)
    if kind == "huge" and ask.asset.contract is None:
        amount = ask.amount * 1000
    sent = transfer(world, place, ask.asset, ask.address, amount, _customer(world))
    place.chain.submit(sent)
    return f"{ask.invoice_id} {ask.asset.symbol}@{ask.asset.network} {kind} {sent.hash[:12]}"


async def pay_wrongly(world: World) -> str:
    """A customer sends another asset, to another network, twice at once, junk, or through a contract."""
    ask = some_ask(world)
    if ask is None:
        return "nothing is asked"
    chance, sender = world.chance, _customer(world)
    if world.places[ask.asset.network].network.shows_risks:
        return await output_actions.pay_wrongly(world, ask, sender)
    home = world.places[ask.asset.network]
    kind = chance.weighted(
        [
            ("another asset", 4),
            ("another network", 4),
            ("a junk token", 3),
            ("through a contract", 4),
            ("two in one", 3),
            ("for two invoices", 2),
            ("a token with a fee", 2),
            ("a late event", 1),
            ("nothing moved", 1),
            ("failing", 2),
        ]
    )
    accounts = [one for one in world.places.values() if not one.network.shows_risks]
    place = chance.pick(accounts) if kind == "another network" else home
    nonce = world.nonce(place, sender)
    contract = next((one.contract for one in home.network.tokens if one.contract is not None), "")
    match kind:
        case "another asset" | "another network":
            asset = chance.pick(place.network.assets)
            world.nonces[place.network.name, sender] -= 1
            sent = transfer(world, place, asset, ask.address, ask.amount, sender)
        case "a junk token":
            sent = token(sender, nonce, address_of(f"junk {chance.below(3)}"), ask.address, ask.amount)
        case "through a contract":
            sent = contract_call(sender, nonce, address_of("exchange"), [(ask.address, ask.amount)])
        case "two in one":
            payees = [(ask.address, ask.amount // 2), (ask.address, ask.amount - ask.amount // 2)]
            sent = batch(sender, nonce, payees, contract=ask.asset.contract or contract)
        case "for two invoices":
            other = some_ask(world) or ask
            if world.places[other.asset.network].network.shows_risks:
                other = ask  # nobody can pay there from here
            payees = [(ask.address, ask.amount), (other.address, other.amount)]
            sent = batch(sender, nonce, payees, contract=contract, first_ordinal=chance.below(3))
        case "a token with a fee":
            sent = fee_on_transfer(sender, nonce, contract, ask.address, ask.amount, ask.amount // 100)
        case "a late event":
            sent = late_event(sender, nonce, contract, ask.address, ask.amount)
        case "nothing moved":
            sent = nothing_moved(sender, nonce, contract, ask.address, ask.amount)
        case _:
            sent = failed(native(sender, nonce, ask.address, ask.amount))
    place.chain.submit(sent)
    return f"{ask.invoice_id} {kind} on {place.network.name} {sent.hash[:12]}"
