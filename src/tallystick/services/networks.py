"""Networks: known to the database, pinned to their chain, watched, halted and resumed.

Holds true: a network's row exists before anything refers to it; its chain id and genesis are pinned at first contact; a
halted network credits nothing until a person decides. Must not: ask a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tallystick.chains.families import FAMILIES
from tallystick.core.cases import CaseKind
from tallystick.core.chain import BlockHeader, Finality
from tallystick.core.errors import Conflict, NotFound, WrongChain
from tallystick.core.network import Network
from tallystick.db.networks import SQL
from tallystick.db.sql import Connection, Record
from tallystick.services import objects
from tallystick.services.cases import SQL as CASES
from tallystick.services.cases import close_subject, open_cases
from tallystick.services.context import Context

HALT_CASES_MAX: Final = 10_000
"""Merchants that are told of a halt; the operator sees it anyway."""


async def sync_networks(connection: Connection, networks: Mapping[str, Network]) -> None:
    """Give every configured network its row. Rows of networks no longer configured stay: invoices refer to them."""
    for network in networks.values():
        await SQL.sync_network.run(connection, name=network.name, family=network.family)


async def unwatched(connection: Connection, networks: Mapping[str, Network]) -> dict[str, int]:
    """Networks no longer configured that invoices wait for, with how many do: these neither expire nor get paid."""
    rows = await SQL.waiting_elsewhere.all(connection, names=list(networks))
    return {row["network"]: row["invoices"] for row in rows}


async def pin(connection: Connection, name: str, chain: str, genesis_hash: str) -> None:
    """Remember the chain at first contact, compare at every later one. Raises WrongChain."""
    row = await SQL.read_network.one(connection, name=name)
    if row is None:
        raise NotFound("The network has no row.", object_id=name, remedy="Restart: it is made at start.")
    if row["genesis_hash"] is None:
        await SQL.pin_network.run(connection, name=name, chain=chain, genesis_hash=genesis_hash)
    elif (row["chain"], row["genesis_hash"]) != (chain, genesis_hash):
        raise WrongChain(
            f"The node serves chain {chain} with genesis {genesis_hash}; this network was chain {row['chain']} "
            f"with genesis {row['genesis_hash']} until now.",
            object_id=name,
            remedy="Point it at the right node; for another chain, configure a network under a new name.",
        )


async def record_head(connection: Connection, ctx: Context, name: str, head: BlockHeader) -> Record | None:
    """What the node says its best block is. Answers the network's row as it is then."""
    return await SQL.record_head.one(connection, name=name, height=head.height, time=head.time, at=ctx.now())


async def record_status(connection: Connection, name: str, status: str, problem: str | None) -> None:
    """What operators are shown; a halted network keeps saying so."""
    await SQL.record_status.run(connection, name=name, status=status, problem=problem)


async def halt(connection: Connection, ctx: Context, name: str, problem: str) -> None:
    """Stop crediting until `resume`, and open an exception with every merchant to whom the network matters."""
    now = ctx.now()
    if not await SQL.halt_network.run(connection, name=name, problem=problem, at=now):
        return
    rows = await CASES.merchants_on_network.all(connection, network=name, row_count=HALT_CASES_MAX)
    await open_cases(
        connection,
        ctx,
        merchant_ids=[row["merchant_id"] for row in rows],
        kind=CaseKind.NETWORK_HALTED,
        subject=name,
        detail={"network": name, "problem": problem},
        now=now,
    )


async def resume(connection: Connection, ctx: Context, name: str) -> None:
    """A person decided to follow the node's chain after all. Raises NotFound, Conflict."""
    if await SQL.read_network.one(connection, name=name) is None:
        raise NotFound("There is no such network.", object_id=name)
    now = ctx.now()
    if await SQL.resume_network.run(connection, name=name, at=now) == 0:
        raise Conflict("The network is not halted.", object_id=name)
    await close_subject(
        connection, ctx, CaseKind.NETWORK_HALTED, name, "The operator resumed the network.", now
    )


async def list_networks(connection: Connection, ctx: Context) -> list[objects.NetworkObject]:
    """Every configured network as operators and merchants see it, by name."""
    rows = {row["name"]: row for row in await SQL.all_networks.all(connection)}
    return [_network(ctx.networks[name], rows[name]) for name in sorted(ctx.networks) if name in rows]


def _network(network: Network, row: Record) -> objects.NetworkObject:
    height, head = row["cursor_height"], row["head_height"]
    behind = None if height is None or head is None else max(0, head - height)
    seconds = None
    if height is not None and row["head_time"] is not None:
        # Level with the head is no lag, whatever a miner dated it.
        seconds = max(0, int((row["head_time"] - row["cursor_time"]).total_seconds())) if behind else 0
    by_depth = network.requirement.finality is Finality.DEPTH
    family = FAMILIES[network.family]
    return objects.NetworkObject(
        name=network.name,
        kind=family.kind,
        chain_id=family.chain_id(network),
        chain=network.chain,
        native=objects.NativeObject(symbol=network.native.symbol, decimals=network.native.decimals),
        assets=[
            objects.AssetObject(
                symbol=asset.symbol,
                contract=family.display(asset.contract, network) if asset.contract is not None else None,
                decimals=asset.decimals,
            )
            for asset in network.assets
        ],
        finality=network.requirement.finality.value,
        confirmations=network.requirement.confirmations if by_depth else None,
        safety_depth=network.safety_depth,
        status=row["status"],
        height=height,
        head=head,
        lag_blocks=behind,
        lag_seconds=seconds,
        safe_height=row["safe_height"],
        finalized_height=row["finalized_height"],
        problem=row["problem"],
    )
