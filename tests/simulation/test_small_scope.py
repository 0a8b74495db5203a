"""Small-scope exhaustive, through the real services and PostgreSQL: every order of paying, paying again, a block, a
reorganisation, the end of the window and a person's decision.

All orders of the chain's own events are networks, and all ways to place the two payments and the decision among them
are invoices there: each invoice sees one order, side by side with the others, and what one sees must not touch another.
After the last event, and once more when the dust has settled:

- what is stored of a payment is what the chain shows of it, and what is in the chain is stored;
- status, amounts, payments, open cases, books and wakeups are a function of the facts: no two orders that lead to the
  same facts end differently;
- the rules that must hold in a database hold over everything.

Planted bugs, each seen to fail here: a derived case that stays open when its reason is gone; cases and books looked at
only when the status moves; a ledger entry that is not taken back when none is wanted any more; wakeups that stay when
none is wanted any more; of many payments that one block replaces only the first noted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import combinations_with_replacement, permutations
from typing import Any, Final

import pytest

from tallystick.chains.simulated.blocks import Transaction
from tallystick.chains.simulated.chain import SimulatedChain
from tallystick.chains.simulated.nodes import SimulatedNode
from tallystick.chains.simulated.source import SimulatedSource
from tallystick.chains.simulated.transactions import address_of, instead_of, token
from tallystick.core.assess import assess
from tallystick.core.cases import CaseStatus, Resolution, wanted_cases
from tallystick.core.chain import Finality, Requirement
from tallystick.core.errors import Conflict
from tallystick.core.invoice import Facts
from tallystick.core.money import Asset
from tallystick.core.network import Network
from tallystick.core.refund import RefundRule
from tallystick.db.invoices import StoredInvoice, read_invoices
from tallystick.db.networks import read_views
from tallystick.db.pool import Database
from tallystick.db.sql import Connection
from tallystick.rates.source import StaticRates
from tallystick.services import exceptions, invoices, refunds
from tallystick.services.context import Actor, ActorType, Context
from tallystick.services.disputes import open_dispute
from tallystick.services.merchants import create_merchant
from tallystick.services.networks import sync_networks
from tallystick.services.refund_decisions import approve_refund
from tallystick.services.wallets import NewWallet, register_wallet
from tallystick.workers.expire import Expirer
from tallystick.workers.follow import Follower, FollowerOptions
from tests.support.invariants import check_invariants
from tests.support.stand import Clock, account_key

START: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW_SECONDS: Final = 900
PRICE: Final = 100
EACH_PERCENT: Final = 60
"""One payment is too little, both are too much."""

FULFIL, CANCEL, REFUND, DISPUTE = "fulfil", "cancel", "refund", "dispute"
_ACCEPT, _IGNORE, _WRITE_OFF = Resolution.ACCEPT.value, Resolution.IGNORE.value, Resolution.WRITE_OFF.value
SCOPES: Final = [(_ACCEPT, "MFX", False)]
"""What the decision is; a block, a fork and a block past the deadline; whether rivals replace what the fork loses."""

DEEP: Final = [
    (FULFIL, "MFX", True),
    *((decision, "MFX", rival) for decision in (CANCEL, _IGNORE, _WRITE_OFF) for rival in (False, True)),
    (_ACCEPT, "MFX", True),
    (DISPUTE, "MFX", True),
    (REFUND, "MMFX", False),
    (REFUND, "MMFX", True),
    (FULFIL, "MFX", False),
    (_ACCEPT, "MMFX", False),
    (FULFIL, "MMFX", True),
    (_ACCEPT, "MFFX", True),
]
"""What `make exhaustive` plays besides."""

TURNS_MAX: Final = 20
OWN_EVENTS: Final = ("ABD", "ADB", "DAB")
"""Of two payments alike, the one sent first is called A. D is the decision."""

Places = tuple[tuple[str, ...], ...]
"""What happens to one invoice in each slot: before, between and after the chain's events."""


def placements(slots: int) -> Iterator[Places]:
    """Every way to place an invoice's own events among the chain's."""
    for own in OWN_EVENTS:
        for chosen in combinations_with_replacement(range(slots), len(own)):
            yield tuple(
                tuple(event for event, at in zip(own, chosen, strict=True) if at == slot)
                for slot in range(slots)
            )


@dataclass
class Subject:
    """One invoice, the order that it sees, and its payments by name."""

    invoice_id: str
    address: str
    places: Places
    payments: dict[str, Transaction] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class End:
    """What an order led to: facts, and everything that was derived from them, in words that compare."""

    order: str
    facts: object
    state: object


@dataclass
class Story:
    """One network with one order of its own events, and all invoices there."""

    ctx: Context
    clock: Clock
    network: Network
    chain: SimulatedChain
    follower: Follower
    expirer: Expirer
    merchant_id: str
    rival: bool
    decision: str
    subjects: list[Subject] = field(default_factory=list)
    forks: int = 0

    # -- what happens

    async def play(self, order: str) -> None:
        """Everything up to the last event."""
        for slot in range(len(order) + 1):
            for turn in range(len(OWN_EVENTS[0])):
                acting = [one for one in self.subjects if len(one.places[slot]) > turn]
                for one in acting:
                    await self._act(one, one.places[slot][turn])
                if acting:
                    await self.look()
            if slot < len(order):
                self._move_chain(order[slot])
                await self.look()

    async def settle(self) -> None:
        """Nothing more happens but blocks, until every payment has its final place and the window is over."""
        for _ in range(3):
            self._mine(late=True)
        await self.look()

    async def look(self) -> None:
        """The workers' turns: the follower until nothing is new, and the expirer until nothing is due."""
        for _ in range(TURNS_MAX):
            if not await self.follower.poll() and not await self.expirer.batch(self.network.name):
                return
        raise AssertionError("there is always more to do")

    async def _act(self, subject: Subject, event: str) -> None:
        if event == "D":
            await self._decide(subject)
            return
        sender = address_of(f"customer of {subject.invoice_id}")
        amount = PRICE * EACH_PERCENT * 10_000
        payment = token(
            sender, len(subject.payments), self.network.tokens[0].contract or "", subject.address, amount
        )
        subject.payments[event] = payment
        self.chain.submit(payment)

    async def _decide(self, subject: Subject) -> None:
        """Resolve every open case so; or one of the merchant's own actions. What is not possible now is refused."""
        about = (self.ctx, self.merchant_id, ACTOR)
        if self.decision in (_ACCEPT, _IGNORE, _WRITE_OFF):
            for case in await self.open_cases(subject):
                asked = exceptions.Resolve(Resolution(self.decision), "decided")
                if self.decision in case["actions"]:
                    async with self.ctx.database.transaction() as connection:
                        await exceptions.resolve(connection, *about, case["id"], asked)
            return
        with contextlib.suppress(Conflict):
            async with self.ctx.database.transaction() as connection:
                if self.decision == CANCEL:
                    await invoices.cancel_invoice(connection, *about, subject.invoice_id)
                elif self.decision == FULFIL:
                    await invoices.record_fulfillment(connection, *about, subject.invoice_id, {})
                elif self.decision == DISPUTE:
                    await open_dispute(
                        connection, *about, subject.invoice_id, reason="a claim", note="claimed"
                    )
                else:
                    await self._refund(connection, subject)

    async def _refund(self, connection: Connection, subject: Subject) -> None:
        """Give back what is there, and send it at once."""
        customer = address_of(f"refunds of {subject.invoice_id}")
        new = refunds.NewRefund(
            "sent back", invoice_id=subject.invoice_id, rule=RefundRule.RECEIVED, address=customer
        )
        made = await refunds.create_refund(connection, self.ctx, self.merchant_id, ACTOR, new)
        await approve_refund(connection, self.ctx, self.merchant_id, ACTOR, made.id)
        purse = address_of(f"purse for {subject.invoice_id}")
        contract = self.network.tokens[0].contract or ""
        self.chain.submit(token(purse, 0, contract, customer, int(Fraction(made.amount) * 10**6)))

    async def open_cases(self, subject: Subject) -> list[dict[str, Any]]:
        """The invoice's open cases."""
        wanted = exceptions.ExceptionFilter(status=CaseStatus.OPEN, invoice_id=subject.invoice_id)
        async with self.ctx.database.connection() as connection:
            page = await exceptions.list_exceptions(connection, self.ctx, self.merchant_id, wanted, 10, None)
        return [{"id": one.id, "actions": one.actions} for one in page.data]

    def _move_chain(self, event: str) -> None:
        if event == "F":
            self._fork()
        else:
            self._mine(late=event == "X")

    def _mine(self, *, late: bool) -> None:
        self.clock.advance(12)
        deadline = START + timedelta(seconds=WINDOW_SECONDS)
        if late and self.clock.at <= deadline + timedelta(seconds=60):
            self.clock.at = deadline + timedelta(seconds=72)
        self.chain.mine(self.clock.at)

    def _fork(self) -> None:
        """The newest block gives way to two: what it held waits again, or rivals of the first payments are mined."""
        self.clock.advance(12)
        self.forks += 1
        lost = self.chain.head
        rivals: list[Transaction] = []
        if self.rival:
            firsts = {one.payments["A"].hash for one in self.subjects if "A" in one.payments}
            rivals = [
                instead_of(one, address_of("elsewhere"), 1) for one in lost.transactions if one.hash in firsts
            ]
        parent = self.chain.block(lost.header.parent_hash)
        for rival in rivals:
            self.chain.submit(rival)
        first = self.chain.mine(
            self.clock.at, [one.hash for one in rivals], parent=parent.hash, salt=self.forks
        )
        second = self.chain.mine(self.clock.at, [], parent=first.hash, salt=self.forks)
        self.chain.adopt(second.hash)

    # -- what is known, and what was made of it

    async def ends(self, order: str) -> list[End]:
        """Of every invoice: the order it saw, its facts, and everything derived from them, in words that compare."""
        ids = [one.invoice_id for one in self.subjects]
        async with self.ctx.database.connection() as connection:
            stored = {one.id: one for one in await read_invoices(connection, ids)}
            views = await read_views(connection, self.ctx.networks)
            cases = await _by_invoice(connection, _CASES, ids)
            books = await _by_invoice(connection, _BOOKS, ids)
            wakeups = await _by_invoice(connection, _WAKEUPS, ids)
        view = views[self.network.name]
        tip = view.tip.height if view.tip is not None else 0
        found: list[End] = []
        for one in self.subjects:
            invoice = stored[one.invoice_id]
            names = self._names(one, invoice)
            self._check_against_the_chain(one, invoice, names, tip)
            own_cases = [
                (
                    row["kind"],
                    row["status"],
                    row["action"],
                    *sorted(names[name] for name in row["transfer_ids"]),
                )
                for row in cases.get(one.invoice_id, [])
            ]
            # That a payment which had counted was lost is history, and so is what a person answered.
            told = sorted(case for case in own_cases if case[0] == "reversed" or case[2] is not None)
            is_open = {case[0]: set(case[3:]) for case in own_cases if case not in told and case[1] == "open"}
            known = invoice.facts(views)
            judged = assess(invoice.terms, known, self.clock.at)
            for case in wanted_cases(invoice.terms, known, judged):
                # A case grows and never shrinks, so it may be about more than it would be opened for now.
                named = {names[name] for name in case.transfer_ids}
                answered = any(case.kind == row[0] and row[2] is not None for row in own_cases)
                assert answered or named <= is_open[case.kind]
            facts = (_said(known, names, tip), tuple(map(str, told)))
            state = (
                invoice.status,
                invoice.amount_paid,
                tuple(
                    sorted(
                        (names[t.fact.id], t.payment.status, t.payment.match)
                        for t in invoice.transfers
                        if t.payment is not None
                    )
                ),
                tuple(sorted(is_open)),
                tuple(
                    sorted(
                        (row["account"], row["asset"], int(row["amount"]))
                        for row in books.get(invoice.id, [])
                    )
                ),
                tuple(
                    sorted(
                        (row["marker"], row["position"] - tip if row["marker"] == "tip" else "deadline")
                        for row in wakeups.get(invoice.id, [])
                    )
                ),
            )
            found.append(End(f"{order} with {one.places}", facts, state))
        return found

    def _check_against_the_chain(
        self, subject: Subject, invoice: StoredInvoice, names: dict[str, str], tip: int
    ) -> None:
        """What is stored of each payment is what the chain shows of it; what is in the chain is stored."""
        chain = self.chain
        stored = {names[one.fact.id]: one.fact for one in invoice.transfers}
        assert tip == chain.height
        for name, payment in subject.payments.items():
            place, spender = chain.place(payment.hash), chain.spender(payment.spend_key)
            fact = stored.get(name)
            if fact is None:
                assert place is None, f"{name} is in the chain and unknown"
                continue
            held = [one.block.hash for one in fact.anchors if one.in_best_chain]
            assert held == ([] if place is None else [place.hash])
            replaced = any(one.anchor.in_best_chain for one in fact.conflicts)
            assert replaced == (spender is not None and spender != payment.hash)
            assert not fact.in_mempool or payment.hash in chain.mempool

    def _names(self, subject: Subject, invoice: StoredInvoice) -> dict[str, str]:
        of_hash = {payment.hash: name for name, payment in subject.payments.items()}
        return {one.fact.id: of_hash[one.fact.key.tx_hash] for one in invoice.transfers}


ACTOR: Final = Actor(ActorType.MERCHANT, "key_test")
_CASES: Final = (
    "SELECT invoice_id, kind, status, transfer_ids, resolution ->> 'action' AS action"
    " FROM exceptions WHERE invoice_id = ANY($1)"
)
_BOOKS: Final = (
    "SELECT e.invoice_id, p.account, p.asset, sum(p.amount) AS amount FROM postings p"
    " JOIN ledger_entries e ON e.id = p.entry_id WHERE e.invoice_id = ANY($1)"
    " GROUP BY 1, 2, 3 HAVING sum(p.amount) <> 0"
)
_WAKEUPS: Final = "SELECT invoice_id, marker, position FROM wakeups WHERE invoice_id = ANY($1)"


async def _by_invoice(connection: Any, statement: str, ids: Sequence[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in await connection.fetch(statement, list(ids)):
        found.setdefault(row["invoice_id"], []).append(row)
    return found


def _said(facts: Facts, names: dict[str, str], tip: int) -> object:
    """Facts without ids, hashes and heights: two orders that lead to the same are compared."""
    deadline = START + timedelta(seconds=WINDOW_SECONDS)
    transfers = []
    for fact in facts.transfers:
        best = next((one for one in fact.anchors if one.in_best_chain), None)
        transfers.append(
            (
                names[fact.id],
                fact.first_evidence_at > deadline,
                None if best is None else min(3, tip - best.block.height + 1),
                fact.in_mempool,
                any(one.anchor.in_best_chain for one in fact.conflicts),
            )
        )
    decided = tuple(
        (one.kind, tuple(sorted(names[name] for name in one.transfer_ids)), one.value)
        for one in facts.decisions.recorded
    )
    closed = tuple(
        view.scanned_until is not None and view.scanned_until > deadline for view in facts.networks.values()
    )
    decisions = facts.decisions
    sent = [
        (
            one.status,
            one.amount,
            tuple(sorted(names[name] for name in one.transfer_ids)),
            one.withdraws,
            tuple(min(3, tip - anchor.block.height + 1) for anchor in one.anchors if anchor.in_best_chain),
        )
        for one in facts.refunds
    ]
    return (
        tuple(sorted(transfers)),
        tuple(sent),
        decided,
        decisions.canceled_at is not None,
        decisions.fulfilled_at is not None,
        closed,
    )


async def tell(database: Database, number: int, events: str, *, rival: bool, decision: str) -> Story:
    """A network, a merchant and an invoice for every placement; three blocks are there already."""
    name = f"net-{number}"
    contract = address_of(f"token of {name}")
    network = Network(
        name=name,
        family="evm",
        chain=str(7000 + number),
        native=Asset(name, "ETH", 18),
        tokens=(Asset(name, "DUSD", 6, contract),),
        requirement=Requirement(Finality.DEPTH, 2),
        finality_tags=False,
    )
    clock = Clock(START)
    ctx = Context(
        database=database,
        networks={name: network},
        rates=StaticRates({"DUSD/USD": Fraction(1)}),
        public_url="http://127.0.0.1:8420",
        clock=clock,
    )
    chain = SimulatedChain(name, network.chain, START - timedelta(hours=1))
    for back in (36, 24, 12):
        chain.mine(START - timedelta(seconds=back))
    source = SimulatedSource(network, [SimulatedNode("node", chain)])
    follower = Follower(ctx, network, source, FollowerOptions(start_height=0))
    async with database.transaction() as connection:
        await sync_networks(connection, ctx.networks)
        merchant_id, _ = await create_merchant(connection, ctx, f"shop {number}")
        await register_wallet(connection, ctx, merchant_id, NewWallet("evm", account_key(number + 1), "main"))
    story = Story(
        ctx, clock, network, chain, follower, Expirer(ctx), merchant_id, rival=rival, decision=decision
    )
    await story.look()
    new = invoices.NewInvoice(
        amount=f"{PRICE}.00",
        currency="USD",
        accepted=(("DUSD", name),),
        expires_in_seconds=WINDOW_SECONDS,
    )
    async with database.transaction() as connection:
        for places in placements(len(events) + 1):
            made = await invoices.create_invoice(connection, ctx, merchant_id, ACTOR, new)
            address = made.payment_options[0].address
            assert address is not None
            story.subjects.append(Subject(made.id, address.lower(), places))
    return story


@pytest.mark.parametrize(
    ("decision", "events", "rival"),
    SCOPES + (DEEP if os.environ.get("TALLYSTICK_EXHAUSTIVE") else []),
)
async def test_every_order_through_the_services(
    database_url: str, decision: str, events: str, rival: bool
) -> None:
    """Two payments, a block, a fork, the end of the window and a decision, in every order: 360 of them at least.

    The decision: accept whatever is a case, or the goods are delivered. Lost payments return, or rivals replace them.
    """
    database = await Database.open(database_url)
    try:
        stories: list[Story] = []
        ends: list[End] = []
        orders = sorted({"".join(order) for order in permutations(events)})
        for number, order in enumerate(orders):
            story = await tell(database, number, events, rival=rival, decision=decision)
            await story.play(order)
            ends += await story.ends(order)
            await story.settle()
            ends += await story.ends(f"{order}, settled")
            stories.append(story)
        assert len(ends) == 2 * len(orders) * len(list(placements(len(events) + 1))) >= 2 * 360
        assert len({end.facts for end in ends}) * 10 < len(ends) * 9  # many orders lead to the same facts
        _compare(ends)
        networks = {story.network.name: story.network for story in stories}
        await check_invariants(replace(stories[-1].ctx, networks=networks))
    finally:
        await database.close()


def _compare(ends: Sequence[End]) -> None:
    """Raises AssertionError where two orders lead to the same facts and to different states."""
    seen: dict[object, End] = {}
    for end in ends:
        first = seen.setdefault(end.facts, end)
        assert first.state == end.state, (
            f"the same facts:\n{end.facts}\n{first.order}:\n{first.state}\n{end.order}:\n{end.state}"
        )
