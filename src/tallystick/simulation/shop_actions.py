"""What merchants do through the API: sell, cancel, deliver, decide, give back.

Holds true: a merchant knows what the API answered. Every answer is one the contract allows: what is not is noted as a
violation by `World.flaws`.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from tallystick.chains.families import FAMILIES
from tallystick.chains.simulated.transactions import address_of
from tallystick.core.money import parse_units
from tallystick.simulation.calls import Response
from tallystick.simulation.output_actions import refund_payment, typed
from tallystick.simulation.people_actions import transfer
from tallystick.simulation.world import Ask, Shop, World

_DONE_WITH = {
    "paid": "fulfillment",
    "overpaid": "fulfillment",
    "quoted": "cancel",
    "disputed": "dispute/resolve",
}
"""What is mostly done with an invoice of a status."""

_NEXT = {"requested": "approve", "awaiting_signature": "send"}
"""What is mostly done next about a refund."""

EVERYTHING = "all"
"""The rule that names no amount."""

_AMOUNTS = ("0.01", "1.00", "9.99", "25.00", "99.95", "1200.00")
_WINDOWS = (60, 300, 900, 900, 3600)


def _any_shop(world: World) -> Shop:
    return world.chance.pick(world.shops)


def note_invoice(world: World, shop: Shop, invoice: dict[str, Any]) -> None:
    """Remember an invoice as answered, and what its options ask for."""
    if invoice["id"] not in shop.invoices:
        shop.invoices.append(invoice["id"])
    known = {ask.option_id: ask for ask in shop.asks}
    for option in invoice["payment_options"]:
        if option["address"] is None or option["id"] in known:
            continue
        network = world.networks[option["network"]]
        asset = network.asset_by_symbol(option["asset"])
        if asset is None:
            continue
        amount = parse_units(option["amount_expected"], asset.decimals)
        address = FAMILIES[network.family].normalize(option["address"], network)
        shop.asks.append(Ask(shop, invoice["id"], option["id"], asset, address, amount))


async def create_invoice(world: World) -> str:
    """A merchant sells something."""
    shop, chance = _any_shop(world), world.chance
    offers = [
        {"asset": asset.symbol, "network": network.name}
        for network in world.networks.values()
        for asset in network.assets
    ]
    accepted = [chance.pick(offers)] if not chance.one_in(3) else (chance.sample(offers) or offers[:1])
    body = {
        "amount": chance.pick(_AMOUNTS),
        "currency": "USD",
        "accepted": accepted,
        "expires_in": chance.pick(_WINDOWS),
        "late_payment": chance.pick(("review", "review", "accept", "refund")),
        "order_id": f"order-{world.calls + 1}",
        "activate": True if chance.one_in(3) else None,
    }
    if chance.one_in(8):  # priced in the asset itself
        body |= {"amount": "0.5", "currency": accepted[0]["asset"]}
    body = {name: value for name, value in body.items() if value is not None}

    def learn(response: Response) -> None:
        if response.ok:
            note_invoice(world, shop, response.json())

    response = await world.post(shop, "/v1/invoices", body, then=learn)
    if response.ok:
        check_quotes(world, response.json())
    return f"{shop.id[-4:]} {response.word} {response.json().get('id', '') if response.ok else ''}"


def check_quotes(world: World, invoice: dict[str, Any]) -> None:
    """What is asked now, against the prices that are true now."""
    prices = world.rates.prices
    amount, currency = Fraction(invoice["amount"]), invoice["currency"]
    for option in invoice["payment_options"]:
        asset = world.networks[option["network"]].asset_by_symbol(option["asset"])
        if asset is None:
            continue
        asked, worth, unit = Fraction(option["amount_expected"]), amount, Fraction(0)
        if asset.symbol != currency:
            worth = amount * (100 if currency == "USD" else prices[currency]) / prices[asset.symbol]
            unit = Fraction(1, 10**asset.asked_decimals)
        if not worth <= asked < worth + unit and asked != worth:
            world.flaw(
                "quote-true",
                option["id"],
                f"{asked} {asset.symbol} for {amount} {currency}, {worth} is right",
            )


async def activate(world: World) -> str:
    """A customer picks how to pay."""
    shop = _any_shop(world)
    if not shop.invoices:
        return "no invoice"
    invoice_id = world.chance.pick(shop.invoices[-8:])
    found = await world.get(shop, f"/v1/invoices/{invoice_id}")
    if not found.ok:
        return f"{invoice_id} {found.word}"
    open_options = [one for one in found.json()["payment_options"] if one["status"] == "quoted"]
    if not open_options:
        return f"{invoice_id} nothing to pick"
    option = world.chance.pick(open_options)

    def learn(response: Response) -> None:
        if response.ok and response.json().get("object") == "invoice":
            note_invoice(world, shop, response.json())

    response = await world.post(
        shop, f"/v1/invoices/{invoice_id}/options/{option['id']}/activate", {}, then=learn
    )
    if response.ok:
        again = await world.get(shop, f"/v1/invoices/{invoice_id}")
        if again.ok:
            note_invoice(world, shop, again.json())
    return f"{invoice_id} {response.word}"


async def act_on_invoice(world: World) -> str:
    """Cancel, deliver, or look at an invoice."""
    shop, chance = _any_shop(world), world.chance
    if not shop.invoices:
        return "no invoice"
    invoice_id = chance.pick(shop.invoices)
    found = await world.get(shop, f"/v1/invoices/{invoice_id}")
    status = found.json()["status"] if found.ok else ""
    what = chance.weighted(
        [("cancel", 1), ("fulfillment", 2), ("dispute", 1), ("dispute/resolve", 1), ("look", 2)]
    )
    if not chance.one_in(4):
        what = _DONE_WITH.get(status, what)
    if what == "look":
        return f"{invoice_id} {found.word} {status}"
    body: dict[str, Any] = {}
    if what == "dispute":
        body = {"reason": "not received", "note": "the customer says so"}
    if what == "dispute/resolve":
        body = {"outcome": chance.pick(("merchant", "customer", "withdrawn")), "note": "looked into"}
    response = await world.post(shop, f"/v1/invoices/{invoice_id}/{what}", body)
    return f"{invoice_id} {what} {response.word}"


async def resolve_exception(world: World) -> str:
    """Support looks at the queue and decides about a case, as its guide allows or not."""
    shop, chance = _any_shop(world), world.chance
    queue = await world.get(shop, "/v1/exceptions?status=open")
    cases = queue.json()["data"] if queue.ok else []
    if not cases:
        return f"{shop.id[-4:]} {queue.word} nothing open"
    case = chance.pick(cases)
    action = chance.weighted(
        [("accept", 4), ("credit", 2), ("refund", 6), ("attach", 2), ("write_off", 2), ("ignore", 2)]
    )
    body: dict[str, Any] = {"action": action, "note": f"decided in call {world.calls + 1}"}
    if action == "credit":
        body["value"] = chance.pick(("0.50", "10.00"))
    if action == "refund" and chance.one_in(2):
        body["refund"] = {"address": _customers_address(world, case["invoice_id"])}
    if action == "attach":
        body["invoice_id"] = chance.pick(shop.invoices) if shop.invoices else case["invoice_id"]

    response = await world.post(
        shop, f"/v1/exceptions/{case['id']}/resolve", body, then=lambda answer: _learn_links(world, answer)
    )
    return f"{case['id']} {case['kind']} {action} {response.word}"


def _customers_address(world: World, invoice_id: str | None) -> str:
    """Where a customer wants something back: as people write it on the network that the invoice asked for first."""
    label = f"customer {world.chance.below(6)}"
    asks = [ask for shop in world.shops for ask in shop.asks if ask.invoice_id == invoice_id]
    network = world.networks[asks[0].asset.network] if asks else None
    return address_of(label) if network is None or not network.shows_risks else typed(network, label)


async def ask_refund(world: World) -> str:
    """A merchant wants to give something back."""
    shop, chance = _any_shop(world), world.chance
    if not shop.invoices:
        return "no invoice"
    invoice_id = chance.pick(shop.invoices)
    body: dict[str, Any] = {"invoice_id": invoice_id, "reason": f"asked in call {world.calls + 1}"}
    if chance.one_in(3):
        body["amount"] = chance.pick(("0.001", "0.01", "1"))
    else:
        body["rule"] = chance.pick(("received", "received", "excess", "fiat_value"))
    if not chance.one_in(3):
        body["address"] = _customers_address(world, invoice_id)
    response = await world.post(shop, "/v1/refunds", body, then=lambda answer: _learn_links(world, answer))
    return f"{invoice_id} {response.word}"


def _learn_links(world: World, response: Response) -> None:
    """Wherever an answer holds a refund with a link for the customer, the customer gets it."""
    if not response.ok:
        return
    found = [response.json()]
    while found:
        value = found.pop()
        if isinstance(value, dict):
            if "claim_url" in value:
                token = value["claim_url"].rpartition("token=")[2]
                world.claim_links.append((value["id"], token))
            found.extend(value.values())
        elif isinstance(value, list):
            found.extend(value)


async def move_refund(world: World) -> str:
    """Whatever may be next for a refund: approve, reject, claim, send, say in which transaction."""
    shop, chance = _any_shop(world), world.chance
    listed = await world.get(shop, "/v1/refunds")
    refunds = listed.json()["data"] if listed.ok else []
    if not refunds:
        return f"{shop.id[-4:]} {listed.word} no refund"
    waiting = [one for one in refunds if one["status"] in _NEXT]
    refund = chance.pick(waiting if waiting and not chance.one_in(5) else refunds)
    what = chance.weighted([("approve", 3), ("reject", 1), ("send", 3), ("broadcast", 1)])
    if not chance.one_in(5):
        what = _NEXT.get(refund["status"], what)
    if what == "send":
        return await _send_refund(world, shop, refund)
    tx_hash = "ab" * 32 if world.networks[refund["network"]].shows_risks else "0x" + "ab" * 32
    body: dict[str, Any] = {"tx_hash": tx_hash} if what == "broadcast" else {"note": "seen"}
    response = await world.post(shop, f"/v1/refunds/{refund['id']}/{what}", body)
    return f"{refund['id']} {refund['status']} {what} {response.word}"


async def _send_refund(world: World, shop: Shop, refund: dict[str, Any]) -> str:
    """The merchant signs in a wallet of their own: rightly, or not quite, or twice."""
    chance = world.chance
    if refund["payment_request"] is None or refund["address"] is None:
        return f"{refund['id']} {refund['status']} not to be sent"
    place = world.places[refund["network"]]
    asset = place.network.asset_by_symbol(refund["asset"])
    if asset is None:
        return f"{refund['id']} an asset that is gone"
    amount = parse_units(refund["amount_sent"], asset.decimals)
    kind = chance.weighted([("rightly", 10), ("less", 1), ("twice", 4)])
    if kind == "less":
        amount = max(1, amount - 1)
    for _ in range(2 if kind == "twice" else 1):
        to = FAMILIES[place.network.family].normalize(refund["address"], place.network)
        if place.network.shows_risks:
            sent = refund_payment(world, place, shop, [(to, amount)])
        else:
            sent = transfer(world, place, asset, to, amount, shop.purse)
        place.chain.submit(sent)
    return f"{refund['id']} {refund['status']} sent {kind}"


async def change_rules(world: World) -> str:
    """A merchant changes its confirmation rules."""
    shop, chance = _any_shop(world), world.chance
    rules: list[dict[str, Any]] = []
    if not chance.one_in(4):
        rules.append(
            {
                "name": "small",
                "match": {"amount_lt": "30.00", "amount_currency": "USD"},
                "require": {"finality": "depth", "confirmations": chance.between(1, 3)},
                "zero_conf": chance.one_in(3),
                "tolerance": {"under_bps": chance.pick((0, 50)), "over_bps": chance.pick((0, 1000))},
            }
        )
    if chance.one_in(2):
        require = {"finality": "depth", "confirmations": chance.between(2, 8)}
        rules.append({"name": EVERYTHING, "match": {}, "require": require})
    if world.has_outputs:
        for rule in rules:
            rule["zero_conf"] = chance.one_in(2)  # without a limit of its own: the network's
            if rule["zero_conf"]:
                rule["zero_conf_accepts"] = chance.sample(["replaceable", "unconfirmed_parent"])
    response = await world.ask(shop, "PUT", "/v1/confirmation_policies", {"rules": rules})
    return f"{shop.id[-4:]} {len(rules)} rules {response.word}"


async def repeat_unanswered(world: World) -> str:
    """Somebody whose call was never answered makes it again."""
    if not world.unanswered:
        return "all is answered"
    asked = world.chance.pick(world.unanswered)
    response = await world.repeat(asked)
    return f"{asked.key} {asked.path.rsplit('/', 1)[-1]} {response.word}"
