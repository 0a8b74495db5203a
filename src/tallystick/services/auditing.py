"""The rules that must hold in a database whatever happened, and the looking.

For: `tallystick audit`, the simulator after each of its steps, and every scenario test. Holds true: each rule has an id
and a sentence; what can be said in SQL is said in SQL, apart from the code that writes, and the rest is found again
from the facts by the pure functions of core; looking changes nothing. The rules about some invoices cost one round trip
for all that SQL says, and follow indexes, so that a database of any size is gone through in batches.
Must not: open a transaction (the caller gives a connection that sees one moment), or repair anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, NewType

from tallystick.core.network import Network
from tallystick.core.refund import EDGES as REFUND_EDGES
from tallystick.core.transitions import EDGES, Reason
from tallystick.db import audit as stored
from tallystick.db.sql import Connection
from tallystick.services.audit_replay import REPLAYED, replay
from tallystick.services.context import Context

Marker = NewType("Marker", int)
"""A moment in the history of a database, for `touched_since`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that must hold: its id, one sentence, and whether it is about single invoices or the whole."""

    id: str
    holds: str
    scope: Literal["invoice", "whole"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A broken rule: which, about what, and how it shows."""

    rule: str
    object_id: str
    detail: str


RULES: Final = tuple(
    [Rule(one, holds, "invoice") for one, holds in (stored.OF_INVOICES | REPLAYED).items()]
    + [Rule(one, holds, "whole") for one, holds in stored.OF_ALL.items()]
)
"""Every rule. The sentences of those that are said in SQL stand with their statements."""

PATIENCE: Final = timedelta(minutes=5)
"""How long after its due time something may wait before it counts as forgotten."""


def _names(names: Iterable[str]) -> str:
    """Names as the keys of a JSON object: one value for the database, written once."""
    return json.dumps(dict.fromkeys(names, 1))


_EDGES: Final = _names([">created", *(f"{start}>{stop}" for start, stops in EDGES.items() for stop in stops)])
_REFUND_EDGES: Final = _names(
    [">requested", *(f"{start}>{stop}" for start, stops in REFUND_EDGES.items() for stop in stops)]
)
_REASONS: Final = _names(reason.value for reason in Reason)


async def check_invoices(connection: Connection, ctx: Context, ids: Sequence[str]) -> list[Problem]:
    """What breaks a rule about these invoices, as this connection sees them."""
    if not ids:
        return []
    assets = [asset for network in ctx.networks.values() for asset in network.assets]
    broken = await stored.broken_by_invoices(
        connection,
        ids,
        now=ctx.now(),
        edges=_EDGES,
        reasons=_REASONS,
        refund_edges=_REFUND_EDGES,
        assets=[f"{asset.network} {asset.key}" for asset in assets],
        units=[asset.asked_decimals for asset in assets],
        loose=[network.name for network in ctx.networks.values() if network.loose_times],
    )
    return _problems(broken + await replay(connection, ctx, ids))


async def check_whole(
    connection: Connection, ctx: Context, *, patience: timedelta = PATIENCE, deep: bool = True
) -> list[Problem]:
    """What breaks a rule about networks, accounts, what waits and what guards, as this connection sees it.

    What is overdue by more than `patience` on our clock counts as forgotten. Without `deep` the rules that read whole
    tables are left out.
    """
    networks: list[Network] = list(ctx.networks.values())
    given = {
        "as_of": ctx.now() - patience,
        "names": [network.name for network in networks],
        "depths": [network.safety_depth for network in networks],
        "guards": list(stored.GUARDS),
    }
    return _problems(await stored.broken_by_all(connection, deep=deep, **given))


async def touched_since(connection: Connection, marker: Marker | None) -> tuple[Marker, list[str]]:
    """Invoices of which anything was written since a marker, sorted, and the marker for the next time.

    None begins: every invoice. Nothing is left out; what was written about the moment of the marker can come twice. It
    reads whole tables, so it is for small databases.
    """
    number, ids = await stored.touched(connection, marker)
    return Marker(number), ids


def _problems(broken: Sequence[stored.Broken]) -> list[Problem]:
    return [Problem(one.rule, one.object_id, one.detail) for one in broken]
