"""What scenarios about exceptions say and do: the cases of an invoice, deciding about them, and how they come about.

For: tests of the queue on a real chain. Must not: write to the database except through the services; `settle` does, as
no settlement exists yet.
"""

from __future__ import annotations

from typing import Any

from tallystick.core.cases import Resolution
from tallystick.services import objects
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.disputes import DisputeOutcome, Exhibit, open_dispute, resolve_dispute
from tallystick.services.exceptions import (
    ExceptionFilter,
    Resolve,
    list_exceptions,
    resolve,
)
from tests.support.evm import Chain
from tests.support.stand import ACTOR, Clock, Stand, address_in, units

WEI = units("0.01")  # what 25.00 USD asks
WINDOW = 60


async def cases(stand: Stand, invoice: objects.Invoice | None = None) -> list[objects.ExceptionObject]:
    """The cases about an invoice, oldest first; of the whole shop without one."""
    wanted = ExceptionFilter(invoice_id=invoice.id if invoice is not None else None)
    async with stand.ctx.database.connection() as connection:
        found = await list_exceptions(connection, stand.ctx, stand.merchant_id, wanted, 200, None)
    return found.data


async def kinds(stand: Stand, invoice: objects.Invoice, status: str = "open") -> list[str]:
    """Kinds of an invoice's cases of a status."""
    return [case.kind for case in await cases(stand, invoice) if case.status == status]


async def the_case(stand: Stand, invoice: objects.Invoice) -> objects.ExceptionObject:
    """The one case that is open about an invoice."""
    (case,) = [case for case in await cases(stand, invoice) if case.status == "open"]
    return case


async def decide(
    stand: Stand, invoice: objects.Invoice, action: Resolution, **more: Any
) -> objects.ExceptionObject:
    """Resolve the one open case of an invoice."""
    case = await the_case(stand, invoice)
    asked = Resolve(action=action, note=f"{action} it", **more)
    done: objects.ExceptionObject = await stand.do(resolve, case.id, asked)
    return done


async def mine(stand: Stand, chain: Chain, blocks: int = 1) -> None:
    """Mine what is in the pool and read it."""
    await chain.mine(blocks)
    await stand.follow()


async def close_window(stand: Stand, chain: Chain, clock: Clock) -> None:
    """Let the windows of the invoices made so far end."""
    await chain.set_next_time(max(int(clock.at.timestamp()) + WINDOW, await chain.time()) + 1)
    await mine(stand, chain)
    await stand.expire()


async def underpaid(stand: Stand, chain: Chain, clock: Clock, part: int = WEI // 2) -> objects.Invoice:
    """An invoice of which a part came in time, and whose window has ended."""
    invoice = await stand.create("25.00", expires_in_seconds=WINDOW)
    await chain.send_native(address_in(invoice), part)
    await mine(stand, chain)
    assert await kinds(stand, invoice) == []  # while the window is open there is nothing to decide
    await close_window(stand, chain, clock)
    assert (await stand.status(invoice), await kinds(stand, invoice)) == ("underpaid", ["underpaid"])
    return invoice


async def late(stand: Stand, chain: Chain, clock: Clock, amount: int = WEI, **more: Any) -> objects.Invoice:
    """An invoice for which money came after its window."""
    invoice = await stand.create("25.00", expires_in_seconds=WINDOW, **more)
    await close_window(stand, chain, clock)
    await chain.send_native(address_in(invoice), amount)
    await mine(stand, chain)
    return invoice


async def settle(stand: Stand, invoice: objects.Invoice) -> None:
    """As a closed settlement batch will do it."""
    async with stand.ctx.database.transaction() as connection:
        await connection.execute(
            "UPDATE invoices SET settled_at = $2 WHERE id = $1", invoice.id, stand.ctx.now()
        )
        cause = Cause(CauseKind.REQUEST, ACTOR, ({"type": "settlement"},))
        await assess_invoices(connection, stand.ctx, [invoice.id], cause)


async def dispute(stand: Stand, invoice: objects.Invoice) -> objects.Invoice:
    """Open a dispute."""
    async with stand.ctx.database.transaction() as connection:
        return await open_dispute(
            connection,
            stand.ctx,
            stand.merchant_id,
            ACTOR,
            invoice.id,
            reason="not delivered",
            note="The customer says that nothing came.",
            evidence=(
                Exhibit("message", text="Where is it?"),
                Exhibit("photo", url="https://shop.example/1"),
            ),
        )


async def undispute(stand: Stand, invoice: objects.Invoice, outcome: str) -> objects.Invoice:
    """Resolve it."""
    async with stand.ctx.database.transaction() as connection:
        return await resolve_dispute(
            connection,
            stand.ctx,
            stand.merchant_id,
            ACTOR,
            invoice.id,
            outcome=DisputeOutcome(outcome),
            note="Talked to both.",
        )
