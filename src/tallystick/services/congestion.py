"""The operator's answer to congestion: raise what a network requires, for new invoices and for open ones.

For: the command line. Holds true: a raise is recorded with its reason and with how many options it changed; it never
lowers a requirement and never takes back a payment that is confirmed. The raise and all that it changes are one
transaction; no invoice made meanwhile escapes it, because making one keeps raises away
(`db.policies.keep_raises_away`). While it stands, it is a floor for new invoices (`services.policies`).
Must not: touch a requirement that the network's own word decides (safe, finalized), or write a status.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tallystick.core.errors import Conflict, InvalidInput, NotFound
from tallystick.core.invoice import Status
from tallystick.core.policy import Floor, raise_words
from tallystick.core.policy_rules import CONFIRMATIONS_MAX, NOTE_LENGTH_MAX
from tallystick.db.networks import share_networks
from tallystick.db.policies import SQL, begin_raise
from tallystick.db.sql import Connection
from tallystick.services.assessing import Cause, CauseKind, assess_invoices
from tallystick.services.context import Actor, Context
from tallystick.services.events import INVOICES_CHANNEL, notify

BATCH_COUNT: Final = 500

_OPEN: Final = (
    Status.CREATED,
    Status.QUOTED,
    Status.AWAITING_PAYMENT,
    Status.DETECTED,
    Status.PARTIALLY_PAID,
    Status.CONFIRMING,
)


class RaisedRequirement(msgspec.Struct, frozen=True, kw_only=True):
    """What a raise did. `options_raised` counts the open payment options that required less until now."""

    network: str
    confirmations: int
    options_raised: int
    note: str


class LiftedRequirement(msgspec.Struct, frozen=True, kw_only=True):
    """A network whose raise ended: new invoices get what the rules say; open ones keep what they have."""

    network: str
    status: str = "lifted"


async def raise_requirement(
    connection: Connection, ctx: Context, actor: Actor, name: str, confirmations: int, note: str
) -> RaisedRequirement:
    """Require at least `confirmations` blocks on a network, of new invoices and of open options.

    Options of which a payment is confirmed already stay as they are. A raise that stands already is replaced.
    Raises NotFound, InvalidInput at /confirmations or /note.
    """
    _check(confirmations, note)
    floor = Floor(name, confirmations, note)
    await _lock(connection, name)
    now = ctx.now()
    evidence = {
        "type": "requirement_raised",
        "network": name,
        "confirmations": confirmations,
        "note": note,
    }
    cause = Cause(CauseKind.REQUEST, actor, (evidence,))
    count, after_id = 0, ""
    while True:
        rows = await SQL.lock_open_below.all(
            connection,
            after_id=after_id,
            statuses=[status.value for status in _OPEN],
            network=name,
            confirmations=confirmations,
            row_count=BATCH_COUNT,
        )
        if not rows:
            break
        after_id = rows[-1]["id"]
        count += await _raise_options(connection, ctx, floor, [row["id"] for row in rows], cause)
    await SQL.lift_raise.run(connection, network=name, at=now)
    await SQL.insert_raise.run(
        connection,
        network=name,
        confirmations=confirmations,
        note=note,
        actor_type=actor.type.value,
        actor_id=actor.id,
        options_raised=count,
        at=now,
    )
    return RaisedRequirement(network=name, confirmations=confirmations, options_raised=count, note=note)


async def lift_requirement(connection: Connection, ctx: Context, name: str) -> LiftedRequirement:
    """End the raise that stands on a network. Open options keep what they require. Raises NotFound, Conflict."""
    await _lock(connection, name)
    if await SQL.lift_raise.run(connection, network=name, at=ctx.now()) == 0:
        raise Conflict("Nothing is raised on this network.", object_id=name)
    return LiftedRequirement(network=name)


def _check(confirmations: int, note: str) -> None:
    if not 1 <= confirmations <= CONFIRMATIONS_MAX:
        raise InvalidInput.at("/confirmations", f"must lie between 1 and {CONFIRMATIONS_MAX}")
    if not 1 <= len(note.strip()) <= NOTE_LENGTH_MAX or not note.isprintable():
        raise InvalidInput.at("/note", f"must be 1 to {NOTE_LENGTH_MAX} printable characters that say why")


async def _lock(connection: Connection, name: str) -> None:
    """Wait until nobody makes an invoice, then keep every network from moving, as whoever judges invoices does.

    All networks: an invoice may have options on several, and those that are confirming are judged anew.
    """
    await begin_raise(connection)
    names = [row["name"] for row in await SQL.network_names.all(connection)]
    if name not in names:
        raise NotFound("There is no such network.", object_id=name)
    await share_networks(connection, names)


async def _raise_options(
    connection: Connection, ctx: Context, floor: Floor, ids: list[str], cause: Cause
) -> int:
    """Raise the options of these locked invoices; answer how many. Who waits for a depth then waits for the new one."""
    rows = await SQL.raise_options.all(
        connection,
        ids=ids,
        network=floor.network,
        confirmations=floor.confirmations,
        words=raise_words(floor),
    )
    waiting = sorted({row["invoice_id"] for row in rows if row["is_waiting"]})
    if waiting:
        await assess_invoices(connection, ctx, waiting, cause)
    changed = sorted({row["invoice_id"] for row in rows})
    await notify(connection, [(INVOICES_CHANNEL, invoice_id) for invoice_id in changed])
    return len(rows)
