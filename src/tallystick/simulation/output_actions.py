"""What people do on networks whose coins are outputs: several inputs, change, conflicts in one input, coins moved on.

For: `people_actions`, `shop_actions` and `chain_actions` wherever a network is one of Bitcoin's or Litecoin's, and
`run`, for what happens on such networks only. Holds true: everybody spends outputs that are theirs, or coins from
before the chain's history, of which nobody knows anything. A purse or a customer has the script that its label names.
Must not: know what the system under test makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.chains.families import FAMILIES
from tallystick.chains.simulated.blocks import SimulatedBlock, Transaction
from tallystick.chains.simulated.outputs import coin, coinbase, outbidding, paying, pegout, script_of
from tallystick.chains.simulated.transactions import Payee
from tallystick.core.chain import Trait
from tallystick.core.network import Network
from tallystick.simulation.world import Ask, Place, Shop, World

INPUTS_MAX = 3
CHANGE_MAX = 100_000_000
ELSEWHERE = "elsewhere"


def typed(network: Network, label: str) -> str:
    """How somebody writes the address with this label there."""
    return FAMILIES[network.family].display(script_of(label), network)


def asks_on(world: World, place: Place, shop: Shop | None = None) -> list[Ask]:
    """What customers were told to pay on a network, to one merchant or to any."""
    shops = world.shops if shop is None else [shop]
    return [ask for one in shops for ask in one.asks if ask.asset.network == place.network.name]


def some_output_place(world: World) -> Place:
    """One of the networks with outputs. There is one, or nobody asks."""
    return world.chance.pick([place for place in world.places.values() if place.network.shows_risks])


def payment(world: World, place: Place, payees: Sequence[Payee], sender: str) -> Transaction:
    """Somebody pays from one to three outputs, own ones among them, which may wait in the mempool still."""
    chance = world.chance
    own = list(place.chain.unspent(script_of(sender)))
    spends = [chance.pick(own)] if own and chance.one_in(2) else []
    count = chance.weighted([(1, 2), (2, 2), (INPUTS_MAX, 3)])
    spends += [coin(sender, world.nonce(place, sender)) for _ in range(max(1, count) - len(spends))]
    outputs = list(payees)
    if not chance.one_in(4):
        outputs.append((script_of(sender), 1 + chance.below(CHANGE_MAX)))
    return paying(chance.shuffled(spends), chance.shuffled(outputs), replaceable=chance.one_in(3))


def refund_payment(world: World, place: Place, shop: Shop, payees: Sequence[Payee]) -> Transaction:
    """A merchant pays from what customers paid, if anything is there, else from a purse."""
    spends = own_outputs(world, place, shop)
    if not spends or world.chance.one_in(3):
        return payment(world, place, payees, shop.purse)
    return paying(spends, [*payees, (script_of(shop.purse), 1 + world.chance.below(CHANGE_MAX))])


def own_outputs(world: World, place: Place, shop: Shop) -> list[str]:
    """One to three unspent outputs at addresses that were issued for a merchant."""
    addresses = list(dict.fromkeys(ask.address for ask in asks_on(world, place, shop)))
    found = [outpoint for address in addresses for outpoint in place.chain.unspent(address)]
    return world.chance.shuffled(found)[: world.chance.between(1, INPUTS_MAX)]


def rival_of(world: World, place: Place, one: Transaction) -> Transaction:
    """Something that excludes this transaction: it shares an input or all, and pays elsewhere, or the same anew."""
    chance = world.chance
    payees = [(move.to, move.amount) for move in one.moves]
    kind = chance.weighted([("elsewhere", 4), ("again", 3), ("less", 1)])
    if kind == "elsewhere":
        payees = [(script_of(ELSEWHERE), 1 + chance.below(CHANGE_MAX))]
    if kind == "less":
        payees = [(to, max(1, amount - 1)) for to, amount in payees]
    place_of_input = len(one.spends) - 1 - (chance.below(len(one.spends)) if chance.one_in(2) else 0)
    others = [key for number, key in enumerate(one.spends) if number != place_of_input]
    if not chance.one_in(3):  # the rest of what it pays with comes from elsewhere
        others = [coin(ELSEWHERE, world.nonce(place, ELSEWHERE)) for _ in others]
    return outbidding(one, payees, place=place_of_input, others=others, salt=chance.below(1 << 30))


async def pay_wrongly(world: World, ask: Ask, sender: str) -> str:
    """What customers do with outputs that merchants did not ask for."""
    chance, place = world.chance, world.places[ask.asset.network]
    kind = chance.weighted(
        [
            ("two in one", 4),
            ("for two invoices", 4),
            ("another network", 2),
            ("crumbs", 2),
            ("outbid at once", 3),
            ("from what waits", 4),
        ]
    )
    payees = [(ask.address, ask.amount)]
    match kind:
        case "two in one":
            payees = [(ask.address, ask.amount - ask.amount // 2), (ask.address, max(1, ask.amount // 2))]
        case "for two invoices":
            other = chance.pick(asks_on(world, place))
            payees.append((other.address, other.amount))
        case "another network":
            family = place.network.family
            place = chance.pick([one for one in world.places.values() if one.network.family == family])
        case "crumbs":
            payees = [(ask.address, chance.between(1, 600)) for _ in range(chance.between(1, 4))]
        case "from what waits":
            parent = payment(world, place, [(script_of(sender), ask.amount)], ELSEWHERE)
            place.chain.submit(parent)
        case _:
            pass
    sent = payment(world, place, payees, sender)
    place.chain.submit(sent)
    if kind == "outbid at once":
        place.chain.submit(rival_of(world, place, sent))
    return f"{ask.invoice_id} {kind} on {place.network.name} {sent.hash[:10]}"


async def move_coins(world: World) -> str:
    """A merchant's wallet moves what customers paid: among issued addresses, to a purse, or to another merchant's."""
    chance, place = world.chance, some_output_place(world)
    shop = chance.pick(world.shops)
    spends = own_outputs(world, place, shop)
    if not spends:
        return f"{place.network.name} {shop.id[-4:]} has nothing"
    own, all_asks = asks_on(world, place, shop), asks_on(world, place)
    payees: list[Payee] = []
    for _ in range(chance.between(1, 2)):
        kind = chance.weighted([("own", 4), ("purse", 2), ("another's", 1)])
        ask = chance.pick(own if kind == "own" else all_asks)
        to = script_of(shop.purse) if kind == "purse" else ask.address
        payees.append((to, chance.pick((ask.amount, 1 + chance.below(CHANGE_MAX)))))
    sent = paying(spends, payees, replaceable=chance.one_in(3))
    place.chain.submit(sent)
    return f"{place.network.name} {shop.id[-4:]} moved {len(spends)} to {len(payees)} {sent.hash[:10]}"


async def outbid(world: World) -> str:
    """Somebody replaces a payment that waits: its sender by another fee or amount, or whoever shares a coin with it."""
    place = some_output_place(world)
    issued = {ask.address for ask in asks_on(world, place)}
    waiting = [one for one in place.chain.mempool.values() if any(move.to in issued for move in one.moves)]
    if not waiting:
        return f"{place.network.name} no payment waits"
    one = world.chance.pick(waiting)
    other = rival_of(world, place, one)
    place.chain.submit(other)
    return f"{place.network.name} {one.hash[:10]} by {other.hash[:10]}"


async def node_restarts(world: World) -> str:
    """A node starts anew and has not kept its mempool."""
    place = some_output_place(world)
    node = world.chance.pick(place.nodes)
    node.restart()
    return f"{node.name} forgot {len(place.chain.mempool)}"


def made_by_miner(world: World, place: Place, parent: SimulatedBlock) -> list[Transaction]:
    """Now and then a miner is a customer, or one takes coins out of Litecoin's extension block to pay."""
    if not place.network.shows_risks:
        return []
    chance, asks = world.chance, asks_on(world, place)
    made: list[Transaction] = []
    if not asks or not chance.one_in(15):
        return made
    ask, salt = chance.pick(asks), chance.below(1 << 30)
    payees = [(ask.address, ask.amount), (script_of("miner"), 1 + chance.below(CHANGE_MAX))]
    if place.network.family == "litecoin" and chance.one_in(2):
        return [pegout(parent.hash, payees, salt=salt)]
    return [coinbase(parent.hash, chance.shuffled(payees), salt=salt)]


def waits_to_mature(place: Place) -> bool:
    """Whether a miner's coin came to somebody lately, so that a long run of blocks shows something."""
    chain = place.chain
    return any(
        Trait.COINBASE in one.traits
        for height in range(max(1, chain.height - 30), chain.height + 1)
        if (block := chain.at(height)) is not None
        for one in block.transactions
    )
