"""Short ways to say what an invoice asks and what is known, so that a test reads like the case it is about.

Holds true: times are minutes around one deadline; one network `alpha` with a coin and two tokens, a second one `beta`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tallystick.core.chain import Anchor, BlockRef, Channel, CreditKey, Finality, NetworkView, Requirement
from tallystick.core.invoice import (
    Conflict,
    Decisions,
    Facts,
    InvoiceTerms,
    LatePayment,
    OptionTerms,
    Tolerance,
    TransferFact,
)
from tallystick.core.money import Asset, Price

DEADLINE = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
NOW = DEADLINE - timedelta(minutes=10)
COIN = Asset("alpha", "ETH", 18)
TOKEN = Asset("alpha", "USDT", 6, "0x" + "aa" * 20)
OTHER_TOKEN = Asset("alpha", "USDC", 6, "0x" + "bb" * 20)
BETA_TOKEN = Asset("beta", "USDT", 18, "0x" + "cc" * 20)
TWO_BLOCKS = Requirement(Finality.DEPTH, 2)


def at(seconds: int) -> datetime:
    """A chain time, in seconds from the deadline."""
    return DEADLINE + timedelta(seconds=seconds)


def option(
    asset: Asset = TOKEN,
    amount: int = 100,
    *,
    id: str = "opt_1",
    active: bool = True,
    requirement: Requirement = TWO_BLOCKS,
    tolerance: Tolerance = Tolerance(50, 1000),  # noqa: B008  # frozen
) -> OptionTerms:
    return OptionTerms(id, asset, amount, requirement, tolerance, active)


def terms(
    *options: OptionTerms, late: LatePayment = LatePayment.REVIEW, grace_seconds: int = 0, price: int = 10_000
) -> InvoiceTerms:
    grace = timedelta(seconds=grace_seconds)
    return InvoiceTerms("inv_1", Price(price, "USD", 2), DEADLINE - grace, grace, late, options)


def anchor(height: int, *, best: bool = True, seconds: int = -60, name: str | None = None) -> Anchor:
    return Anchor(BlockRef(name or f"0x{height}", height), at(seconds), best)


def transfer(
    amount: int,
    *anchors: Anchor,
    id: str = "trf_1",
    asset: Asset | None = TOKEN,
    network: str = "alpha",
    option_id: str = "opt_1",
    seconds: int = -60,
    conflicts: tuple[Conflict, ...] = (),
    in_mempool: bool = False,
) -> TransferFact:
    """A transfer first evidenced `seconds` after the deadline (negative: before it)."""
    return TransferFact(
        id=id,
        key=CreditKey(network, f"0xhash-{id}", Channel.LOG, 0),
        option_id=option_id,
        asset=asset,
        amount=amount,
        first_evidence_at=at(seconds),
        anchors=anchors,
        conflicts=conflicts,
        in_mempool=in_mempool,
    )


def view(
    tip: int | None = 10,
    *,
    scanned: int | None = -30,
    network: str = "alpha",
    safe: int | None = None,
    finalized: int | None = None,
    requirement: Requirement | None = None,
) -> NetworkView:
    """A network processed up to height `tip`, scanned until `scanned` seconds after the deadline."""
    return NetworkView(
        network,
        None if tip is None else BlockRef(f"0x{tip}", tip),
        None if scanned is None else at(scanned),
        safe,
        finalized,
        requirement=requirement,
    )


def facts(
    *transfers: TransferFact,
    views: tuple[NetworkView, ...] = (),
    decided: Decisions = Decisions(),  # noqa: B008  # frozen
) -> Facts:
    seen = views or (view(),)
    return Facts(transfers, decided, {one.network: one for one in seen})
