"""How fast blocks become facts and states, against only fetching and decoding the same bytes.

(b) blocks of 200 and 1,000 transfers, with none, one in a hundred and all of them to our addresses; also where the node
    tells what contract calls move, against fetching and decoding that as well.
(c) blocks of 200 transfers, five of them ours, with 1,000, 100,000 and 1,000,000 addresses issued and open.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import aiohttp
import msgspec

from bench.stage import NETWORK, BlockPlan, Shop, StubNode, durable_database, open_shop, stub_node
from tallystick.chains.evm.source import EvmOptions, EvmSource
from tallystick.services.context import Actor, ActorType
from tallystick.services.invoices import NewInvoice, create_invoice
from tallystick.workers.batches import PREFETCH_BLOCKS
from tallystick.workers.follow import Follower, FollowerOptions

ACTOR: Final = Actor(ActorType.MERCHANT, "bench")
PRICE: Final = "25.00"
UNITS: Final = 25_000_000


@dataclass(frozen=True, slots=True)
class IntakeResult:
    """One case. Rates are per second; `ratio` is our rate over the rate of fetching and decoding alone."""

    case: str
    transfers_per_block: int
    ours_per_block: int
    addresses_issued: int
    blocks: int
    blocks_per_second: float
    transfers_per_second: float
    decode_blocks_per_second: float
    ratio: float
    milliseconds_per_block: float


async def block_sizes(blocks: int) -> list[IntakeResult]:
    """(b)"""
    results: list[IntakeResult] = []
    for transfers in (200, 1000):
        results += [
            await _case(f"{ours} of {transfers} ours", transfers, ours, 0, blocks)
            for ours in (0, transfers // 100, transfers)
        ]
        results.append(await _case(f"0 of {transfers} ours, traced", transfers, 0, 0, blocks, traced=True))
    return results


async def issued_addresses(blocks: int, sizes: tuple[int, ...]) -> list[IntakeResult]:
    """(c)"""
    return [await _case(f"{size:,} issued", 200, 5, size, blocks) for size in sizes]


async def _case(
    name: str, transfers: int, ours: int, issued: int, blocks: int, *, traced: bool = False
) -> IntakeResult:
    blocks = max(4, blocks // 5) if ours == transfers else blocks
    async with durable_database() as url, open_shop(url) as shop:
        with stub_node(traced=traced) as node:
            source = EvmSource(EvmOptions(NETWORK.name, int(NETWORK.chain), (node.url,)))
            follower = Follower(shop.ctx, NETWORK, source, FollowerOptions(batch_blocks=blocks))
            await node.append([BlockPlan(1)])
            while await follower.poll():
                pass
            if issued:
                await issue(shop, issued)
            addresses = await _invoices(shop, ours * blocks)
            plans = [
                BlockPlan(
                    transfers - ours,
                    tuple((address, UNITS) for address in addresses[at * ours : (at + 1) * ours]),
                )
                for at in range(blocks)
            ]
            height = await node.append(plans)
            decode_seconds = await _only_decode(node, height - blocks + 1, height, traced=traced)
            begun = time.perf_counter()
            while await follower.poll():
                pass
            seconds = time.perf_counter() - begun
            await source.close()
    return IntakeResult(
        case=name,
        transfers_per_block=transfers,
        ours_per_block=ours,
        addresses_issued=issued or ours * blocks,
        blocks=blocks,
        blocks_per_second=round(blocks / seconds, 1),
        transfers_per_second=round(blocks * transfers / seconds, 1),
        decode_blocks_per_second=round(blocks / decode_seconds, 1),
        ratio=round(decode_seconds / seconds, 3),
        milliseconds_per_block=round(1000 * seconds / blocks, 2),
    )


async def _invoices(shop: Shop, count: int) -> list[str]:
    """Open invoices for one DUSD payment each; answer their addresses."""
    addresses: list[str] = []
    while len(addresses) < count:
        async with shop.ctx.database.transaction() as connection:
            for _ in range(min(100, count - len(addresses))):
                new = NewInvoice(PRICE, "USD", (("DUSD", NETWORK.name),))
                invoice = await create_invoice(connection, shop.ctx, shop.merchant_id, ACTOR, new)
                addresses.append(str(invoice.payment_options[0].address).lower())
    return addresses


async def _only_decode(node: StubNode, first: int, last: int, *, traced: bool) -> float:
    """Seconds to fetch and decode the same answers, as many at once as the follower asks for."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    gate = asyncio.Semaphore(PREFETCH_BLOCKS)

    async def ask(session: aiohttp.ClientSession, method: str, *params: Any) -> Any:
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        async with session.post(node.url, json=question) as response:
            return decode(await response.read())["result"]

    async def one(session: aiohttp.ClientSession, height: int) -> None:
        async with gate:
            block = await ask(session, "eth_getBlockByNumber", hex(height), True)
            await ask(session, "eth_getBlockReceipts", block["hash"])
            if traced:
                await ask(session, "trace_block", hex(height))

    async with aiohttp.ClientSession() as session:
        await one(
            session, first
        )  # the connection is open and the caches are warm, as they are for the follower
        begun = time.perf_counter()
        await asyncio.gather(*(one(session, height) for height in range(first, last + 1)))
        return time.perf_counter() - begun


async def issue(
    shop: Shop,
    count: int,
    *,
    network: str = NETWORK.name,
    family: str = NETWORK.family,
    symbol: str = "ETH",
    decimals: int = 18,
    prefix: str = "0x",
) -> None:
    """Open invoices by the hundred thousand: rows as `create_invoice` leaves them, written in bulk.

    Addresses are `prefix` and 20 bytes in hex, the normal form of some kind of the family.
    """
    async with shop.ctx.database.transaction() as connection:
        await connection.execute(
            "SET LOCAL session_replication_role = replica"
        )  # no foreign key look-ups for bulk rows
        wallet = await connection.fetchval("SELECT id FROM wallets LIMIT 1")
        await connection.execute(
            """INSERT INTO invoices (id, merchant_id, status, sequence, event_sequence, amount, currency, decimals,
                   late_payment, created_at, expires_at, updated_at)
               SELECT 'inv_bulk' || n, $1, 'awaiting_payment', 3, 3, 2500, 'USD', 2, 'review', now(),
                   now() + interval '1 day', now()
               FROM generate_series(1, $2::int) AS n""",
            shop.merchant_id, count, timeout=600,
        )  # fmt: skip
        await connection.execute(
            """INSERT INTO payment_options (id, invoice_id, merchant_id, position, network, asset_symbol,
            asset_decimals,
                   amount_expected, finality, confirmations_required, tolerance_under_bps, tolerance_over_bps,
                   policy_name, policy_explanation, status, address)
               SELECT 'opt_bulk' || n, 'inv_bulk' || n, $1, 0, $3, $4, $5, 1, 'depth', 3, 50, 1000, '', '',
                   'active', $6::text || substr(encode(sha256(n::text::bytea), 'hex'), 1, 40)
               FROM generate_series(1, $2::int) AS n""",
            shop.merchant_id, count, network, symbol, decimals, prefix, timeout=600,
        )  # fmt: skip
        await connection.execute(
            """INSERT INTO addresses (family, address, merchant_id, wallet_id, derivation_index, invoice_id, option_id,
                   issued_at)
               SELECT $3, address, $1, $2, 1, invoice_id, id, now()
               FROM payment_options WHERE id LIKE 'opt_bulk%'""",
            shop.merchant_id, wallet, family, timeout=600,
        )  # fmt: skip
        await connection.execute(
            """INSERT INTO wakeups (network, marker, position, invoice_id)
               SELECT $1, 'time', 4000000000, id FROM invoices WHERE id LIKE 'inv_bulk%'""",
            network,
            timeout=600,
        )
    async with shop.ctx.database.connection() as connection:
        await connection.execute("VACUUM ANALYZE", timeout=600)


def rows(results: list[IntakeResult]) -> list[dict[str, Any]]:
    """Results as plain values."""
    return [asdict(result) for result in results]
