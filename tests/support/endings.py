"""A shop on one or two real chains, and everything that can be done to an invoice of it in one line each.

For: the tables of `tests/scenarios/test_endings.py`. `World` sends, mines, reorganises and decides; `look` says how an
invoice stands: status, cases, books, payments and refunds, without ids and times, so that two ways can be compared.
Holds true: every payment comes from an account of its own, so that any of them can leave the chain without the others;
`rewind` keeps where it was whatever it was not told to take.
Must not: write to the database except through the services (`settle` is what a closed batch will do).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tallystick.core.cases import Resolution
from tallystick.core.ledger import Account
from tallystick.core.money import format_units
from tallystick.demo.customer import Signed
from tallystick.services import objects, refund_decisions
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.disputes import open_dispute
from tallystick.services.exceptions import Resolve, resolve
from tallystick.services.invoices import record_fulfillment
from tallystick.services.merchants import NewSettings, change_settings
from tallystick.services.refunds import NewRefund, create_refund, get_refund
from tests.support.anvil import start_anvil, unique_chain_id
from tests.support.evm import Chain, address_of
from tests.support.stand import ACTOR, Clock, Stand, address_in, evm_network, open_stand, units

WINDOW = 60
CONFIRMATIONS = 2
WALLET = 3  # the development account that the merchant pays refunds from
BYSTANDER, SECOND_BYSTANDER = 8, 9  # each sends one transaction that has nothing to do with us
CUSTOMERS = (1, 2, 4, 5, 6, 7)
HOME = f"0x{'c0ffee' * 6}0001"  # where refunds go: nobody uses it on these chains


@dataclass(frozen=True, slots=True)
class Payment:
    """A transaction that was sent, on which network, by which development account."""

    network: str
    signed: Signed
    account: int


@dataclass(frozen=True, slots=True)
class Look:
    """How an invoice stands. Amounts as people read them; payments by transaction, refunds by amount."""

    status: str
    cases: str
    books: str
    amount_paid: str
    payments: frozenset[tuple[str, str, str, bool, str]]
    refunds: tuple[tuple[str, str], ...]

    def same_but_for_transactions(self) -> Look:
        """The same where two invoices are compared, each with transactions of its own."""
        payments = frozenset(("", *payment[1:]) for payment in self.payments)
        return Look(self.status, self.cases, self.books, self.amount_paid, payments, self.refunds)


@dataclass(slots=True)
class World:
    """The shop, its chains by network, our clock, and what was sent."""

    stand: Stand
    chains: dict[str, Chain]
    clock: Clock
    token: str
    sent: list[Payment] = field(default_factory=list)

    async def give_grace(self, seconds: int) -> None:
        """The window of invoices made from now on is extended silently."""
        async with self.stand.ctx.database.transaction() as connection:
            await change_settings(connection, self.stand.merchant_id, NewSettings(grace_seconds=seconds))

    # -- the chain

    async def invoice(self, *accepted: tuple[str, str], **more: Any) -> objects.Invoice:
        """A new invoice over 25 USD with a window that starts at the chain's time."""
        chain = self.chains["local"]
        self.clock.at = max(self.clock.at, Clock.of(await chain.time()).at)
        wanted = {"expires_in_seconds": WINDOW} | more
        return await self.stand.create("25.00", *(accepted or (("ETH", "local"),)), **wanted)

    async def send(
        self, invoice: objects.Invoice, amount: str = "0.01", *, network: str = "local", position: int = 0
    ) -> Payment:
        """Put a payment in coin into the pool."""
        account = CUSTOMERS[len(self.sent) % len(CUSTOMERS)]
        to = address_in(invoice, position)
        signed = await self.chains[network].send_native(to, units(amount), sender=account)
        return self._remember(Payment(network, signed, account))

    async def send_token(
        self, invoice: objects.Invoice, amount: str = "25", *, contract: str | None = None
    ) -> Payment:
        """Put a payment in DUSD (or another token of six decimals) into the pool."""
        chain = self.chains["local"]
        signed = await chain.send_token(contract or self.token, address_in(invoice), units(amount, 6))
        return self._remember(Payment("local", signed, 0))

    def _remember(self, payment: Payment) -> Payment:
        self.sent.append(payment)
        return payment

    async def mine(self, blocks: int = CONFIRMATIONS, network: str = "local") -> None:
        """Mine and read."""
        await self.chains[network].mine(blocks)
        await self.stand.follow()

    async def mine_at(self, unix_seconds: int, network: str = "local") -> None:
        """One block of exactly this time, not read yet."""
        chain = self.chains[network]
        await chain.set_next_time(unix_seconds)
        await chain.mine()
        assert await chain.time() == unix_seconds

    async def close(self, invoice: objects.Invoice) -> None:
        """Let the invoice's window end on every network."""
        for name, chain in self.chains.items():
            at = max(int(invoice.expires_at.timestamp()), await chain.time()) + 1
            await self.mine_at(at, name)
        await self.stand.follow()
        await self.stand.expire()

    async def height(self, payment: Payment) -> int | None:
        """The block that holds a transaction, None for none."""
        receipt = await self.chains[payment.network].rpc("eth_getTransactionReceipt", payment.signed.tx_hash)
        return None if receipt is None else int(receipt["blockNumber"], 16)

    async def rewind(self, *lost: Payment, instead: tuple[Signed, ...] = ()) -> None:
        """Take these off their chain: its last blocks are replaced by as many that hold `instead` first, and at their
        old places everything else that was sent. Not read yet."""
        network = lost[0].network
        chain = self.chains[network]
        places = {one.signed.tx_hash: await self.height(one) for one in self.sent if one.network == network}
        lowest = min(place for one in lost if (place := places[one.signed.tx_hash]) is not None)
        kept = [
            (one.signed, place - lowest)
            for one in self.sent
            if one not in lost and (place := places.get(one.signed.tx_hash)) is not None and place >= lowest
        ]
        depth = await chain.height() - lowest + 1
        await chain.reorg(depth, [*((one, 0) for one in instead), *kept])

    async def place(self, payment: Payment) -> tuple[str, int]:
        """The block that holds a transaction, and where in it."""
        receipt = await self.chains[payment.network].receipt(payment.signed.tx_hash)
        return str(receipt["blockHash"]), int(receipt["transactionIndex"], 16)

    async def move(self, *payments: Payment) -> None:
        """Another branch holds them, behind another transaction, as deep as before; read."""
        chain = self.chains[payments[0].network]
        other = await self._bystander(chain, SECOND_BYSTANDER)
        await self.rewind(*payments, instead=(other, *(one.signed for one in payments)))
        await self.stand.follow()

    async def _bystander(self, chain: Chain, account: int) -> Signed:
        """A transaction that pays its miner better than any customer's, signed."""
        return await chain.sign(
            to=address_of(0), value=1, sender=account, tip_wei=5 * 10**9, fee_wei=2 * 10**11
        )

    async def submit_again(self, payment: Payment) -> None:
        """Send the same transaction once more, behind another one that pays its miner better: it gets another place."""
        chain = self.chains[payment.network]
        await chain.submit(await self._bystander(chain, BYSTANDER))
        await chain.submit(payment.signed)

    async def conflicting(self, payment: Payment) -> Signed:
        """A transaction of the same account and number that pays somebody else (signed, not sent)."""
        chain = self.chains[payment.network]
        return await chain.replacement(payment.signed, to=address_of(9), value=1, sender=payment.account)

    # -- people

    async def decide(self, invoice: objects.Invoice, action: Resolution, **more: Any) -> None:
        """Resolve the one open case of an invoice."""
        (row,) = await self.stand.rows(
            "SELECT id FROM exceptions WHERE invoice_id = $1 AND status = 'open'", invoice.id
        )
        await self.stand.do(resolve, row["id"], Resolve(action=action, note=f"{action} it", **more))

    async def fulfill(self, invoice: objects.Invoice) -> None:
        """The goods leave."""
        await self.stand.do(record_fulfillment, invoice.id, {"reference": "parcel 7"})

    async def dispute(self, invoice: objects.Invoice) -> None:
        """The customer says that nothing came."""
        async with self.stand.ctx.database.transaction() as connection:
            await open_dispute(
                connection,
                self.stand.ctx,
                self.stand.merchant_id,
                ACTOR,
                invoice.id,
                reason="not delivered",
                note="The customer says that nothing came.",
            )

    async def settle(self, invoice: objects.Invoice) -> None:
        """As a closed settlement batch will do it."""
        async with self.stand.ctx.database.transaction() as connection:
            await connection.execute(
                "UPDATE invoices SET settled_at = $2 WHERE id = $1", invoice.id, self.stand.ctx.now()
            )
            cause = Cause(CauseKind.REQUEST, ACTOR, ({"type": "settlement"},))
            await assess_invoices(connection, self.stand.ctx, [invoice.id], cause)

    async def approve_refund(self, invoice: objects.Invoice, **more: Any) -> objects.Refund:
        """Ask for a refund and approve it; everything to a fresh address unless said otherwise."""
        wanted = NewRefund(**({"reason": "returned", "invoice_id": invoice.id, "address": HOME} | more))
        asked: objects.Refund = await self.stand.do(create_refund, wanted)
        await self.stand.do(refund_decisions.approve_refund, asked.id, "looks right")
        async with self.stand.ctx.database.connection() as connection:
            return await get_refund(connection, self.stand.ctx, self.stand.merchant_id, asked.id)

    async def pay_refund(self, refund: objects.Refund) -> Payment:
        """Sign and send it, as a wallet elsewhere does."""
        assert refund.payment_request is not None
        fixed = refund.payment_request.unsigned_transaction
        assert fixed is not None
        chain = self.chains["local"]
        signed = await chain.sign(
            to=fixed["to"], value=int(fixed["value"]), data=bytes.fromhex(fixed["data"][2:]), sender=WALLET
        )
        await chain.submit(signed)
        return self._remember(Payment("local", signed, WALLET))

    # -- how it stands

    async def look(self, invoice: objects.Invoice) -> Look:
        """How an invoice stands now."""
        seen = await self.stand.get(invoice)
        cases = await self.stand.rows(
            "SELECT kind FROM exceptions WHERE invoice_id = $1 AND status = 'open' ORDER BY kind", invoice.id
        )
        refunds = await self.stand.rows(
            "SELECT status, amount FROM refunds WHERE invoice_id = $1 ORDER BY amount, status", invoice.id
        )
        return Look(
            status=seen.status,
            cases=", ".join(row["kind"] for row in cases),
            books=await self.books(invoice),
            amount_paid=seen.amount_paid,
            payments=frozenset(
                (one.tx_hash, one.match, one.status, one.on_time, one.amount) for one in seen.payments
            ),
            refunds=tuple((row["status"], str(row["amount"])) for row in refunds),
        )

    async def books(self, invoice: objects.Invoice) -> str:
        """Every account with a balance, by what it is counted in: `ETH onchain 0.01 merchant -0.01`."""
        rows = await self.stand.rows(
            """
            SELECT p.network, p.asset, p.decimals, p.account, sum(p.amount) AS balance
            FROM postings AS p JOIN ledger_entries AS e ON e.id = p.entry_id
            WHERE e.invoice_id = $1 GROUP BY p.network, p.asset, p.decimals, p.account HAVING sum(p.amount) <> 0
            """,
            invoice.id,
        )
        order = list(Account)
        found: dict[str, list[tuple[int, str]]] = {}
        for row in rows:
            unit = row["asset"] if row["network"] in ("", "local") else f"{row['asset']} on {row['network']}"
            said = f"{row['account']} {format_units(int(row['balance']), row['decimals'])}"
            found.setdefault(unit, []).append((order.index(Account(row["account"])), said))
        return "; ".join(
            f"{unit} " + " ".join(said for _, said in sorted(lines)) for unit, lines in sorted(found.items())
        )


@contextlib.asynccontextmanager
async def open_world(
    database_url: str, *, second: bool = False, confirmations: int = CONFIRMATIONS, **options: Any
) -> AsyncIterator[World]:
    """A shop that takes ETH and DUSD on `local`, and ETH on `other` where a second chain is asked for.

    Our clock stands at the time of the newest block. At its end the invariants of the whole database are checked.
    """
    async with contextlib.AsyncExitStack() as stack:
        chains: dict[str, Chain] = {}
        for name in ("local", "other") if second else ("local",):
            node = await stack.enter_async_context(start_anvil(chain_id=unique_chain_id()))
            chains[name] = await stack.enter_async_context(Chain(node.url, node.chain_id))
        token = await chains["local"].deploy_token()
        clock = Clock.of(await chains["local"].time())
        networks = [
            (
                evm_network(
                    name,
                    chain.chain_id,
                    token=token if name == "local" else None,
                    confirmations=confirmations,
                ),
                chain.url,
            )
            for name, chain in chains.items()
        ]
        stand = await stack.enter_async_context(open_stand(database_url, *networks, clock=clock, **options))
        yield World(stand, chains, clock, token)
