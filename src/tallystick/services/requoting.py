"""Quoting anew: a quote ended while its invoice is open, so the amount is asked at today's rate.

For: `workers.requote`, and the activation of an option whose quote has ended. Holds true: the old quote stays in the
books and values what was first evidenced while it was in force; a new one takes the number after it, once, however many
try; without a trustworthy rate the old quote stays in force. Must not: touch a status, change a quote, or ask for a
rate while invoices are locked (whoever calls asks first).

Nothing is judged anew: a payment's value depends on the quote in force when it was first evidenced, and no payment is
first evidenced by quoting.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tallystick.core.errors import InvalidInput, NoQuote
from tallystick.core.invoice import OptionStatus, Status
from tallystick.core.money import Asset
from tallystick.core.network import Network
from tallystick.db import quotes as store
from tallystick.db.quotes import QuotedRow
from tallystick.db.sql import Connection
from tallystick.services.context import Context
from tallystick.services.events import INVOICES_CHANNEL, notify
from tallystick.services.quoting import QuotedOption, Rates, ask_rates, quote_option, symbol_to_ask

RENEWED: Final = frozenset({Status.CREATED, Status.QUOTED, Status.AWAITING_PAYMENT, Status.PARTIALLY_PAID})
"""Statuses in which somebody may still pay."""

NO_RATE_SECONDS: Final = 15
LOCKED_SECONDS: Final = 1
"""How soon to try again after there was no rate, and after another transaction was in the way."""

NOT_NOW_SECONDS: Final = 60
PAID_SECONDS: Final = 3600
# Not refunded: where the chain takes the payment and the refund, the customer is asked again.
_OVER: Final = frozenset({Status.CANCELED, Status.EXPIRED, Status.UNDERPAID, Status.SETTLED})
_PAID: Final = frozenset({Status.PAID, Status.OVERPAID, Status.LATE_PAID})

Asked = Mapping[str, Rates]
"""Rates by the currency of the price, then by symbol."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a batch went. `waiting` names what had no rate, as "ETH in USD", with the options that wait for it."""

    renewed: int
    waiting: Mapping[str, int]


async def ask_for(ctx: Context, rows: Sequence[QuotedRow]) -> Asked:
    """Ask for every rate that these options need, each once. Takes as long as the sources do: hold no lock."""
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        known = _configured(ctx, row)
        symbol = symbol_to_ask(*known, row.price.currency) if known is not None else None
        if symbol is not None:
            wanted[row.price.currency].add(symbol)
    return {currency: await ask_rates(ctx, symbols, currency) for currency, symbols in wanted.items()}


async def renew_due(connection: Connection, ctx: Context, option_ids: Sequence[str], asked: Asked) -> Outcome:
    """Quote those of the options anew whose quote has ended by now, and say when to look at each of them again."""
    now = ctx.now()
    locked = await store.lock_invoices_of(connection, option_ids)
    # Read under the lock: another worker may have been here since the rates were asked.
    rows = await store.read_quoted(connection, option_ids)
    waiting: defaultdict[str, int] = defaultdict(int)
    new: list[store.NewQuote] = []
    due_at: dict[str, datetime] = {}
    forgotten: list[str] = []
    for row in rows:
        again = _look_again(row, now) if row.invoice_id in locked else now + timedelta(seconds=LOCKED_SECONDS)
        if again is None:
            forgotten.append(row.option_id)
        elif again > now:
            due_at[row.option_id] = again
        else:
            made = _new_quote(ctx, row, asked, now)
            if isinstance(made, str):
                waiting[made] += 1
                due_at[row.option_id] = now + timedelta(seconds=NO_RATE_SECONDS)
            else:
                new.append(made)
    renewed = await _put_in_force(connection, rows, new, now)
    await store.reschedule(connection, due_at)
    await store.forget(connection, forgotten)
    return Outcome(renewed, dict(waiting))


async def ask_if_ended(connection: Connection, ctx: Context, option_id: str) -> Asked:
    """The rates that `renew_ended` will need, before anything is locked; none while the option's quote holds."""
    now = ctx.now()
    rows = await store.read_quoted(connection, [option_id])
    return await ask_for(ctx, [row for row in rows if row.quote_ends_at <= now < row.expires_at])


async def renew_ended(connection: Connection, ctx: Context, option_id: str, asked: Asked) -> bool:
    """Quote an option anew if its quote has ended; answer whether. The caller has locked its invoice.

    Raises NoQuote where no rate can be trusted: nobody is invited to pay at a rate that is not promised any more.
    """
    now = ctx.now()
    row = (await store.read_quoted(connection, [option_id]))[0]
    if row.quote_ends_at > now or row.quote_ends_at >= row.expires_at:
        return False
    made = _new_quote(ctx, row, asked, now)
    if isinstance(made, str):
        raise NoQuote(
            f"The price has to be quoted anew, and there is no rate that can be trusted for {made}.",
            object_id=row.option_id,
            remedy="Try again in a moment, or choose another way to pay.",
        )
    return await _put_in_force(connection, [row], [made], now) == 1


async def _put_in_force(
    connection: Connection, rows: Sequence[QuotedRow], new: Sequence[store.NewQuote], now: datetime
) -> int:
    """Add the quotes, tell who watches their invoices, and look again when they end."""
    if not new:
        return 0
    taken = await store.renew(connection, new, now)
    windows = {row.option_id: row.expires_at for row in rows}
    last = [quote.option_id for quote in new if quote.ends_at >= windows[quote.option_id]]
    await store.reschedule(
        connection, {quote.option_id: quote.ends_at for quote in new if quote.option_id not in last}
    )
    await store.forget(connection, last)
    await notify(connection, [(INVOICES_CHANNEL, invoice_id) for invoice_id in sorted(set(taken.values()))])
    return len(taken)


def _look_again(row: QuotedRow, now: datetime) -> datetime | None:
    """When to look at the option again: `now` or before means that it is to be quoted, None never."""
    if now >= row.expires_at or row.status in _OVER or row.option_status is OptionStatus.EXPIRED:
        return None
    if row.quote_ends_at >= row.expires_at:
        return None
    if row.status in RENEWED:
        return row.quote_ends_at
    # Enough was seen. It may yet vanish or be reorganised away, and then the customer is asked to pay again.
    seconds = PAID_SECONDS if row.status in _PAID else NOT_NOW_SECONDS
    return now + timedelta(seconds=seconds)


def _new_quote(ctx: Context, row: QuotedRow, asked: Asked, now: datetime) -> store.NewQuote | str:
    """The quote that follows the one in force; or, where there is no rate, what it would have to be of."""
    known = _configured(ctx, row)
    if known is None:
        return f"{row.asset_key} on {row.network}, which is not configured any more"
    network, asset = known
    symbol = symbol_to_ask(network, asset, row.price.currency)
    if symbol is not None and symbol not in asked.get(row.price.currency, {}):
        return f"{symbol} in {row.price.currency}"
    try:
        quoted = quote_option(network, asset, row.price, asked.get(row.price.currency, {}), row.spread_bps)
    except (NoQuote, InvalidInput):  # the second: at this rate the amount is more than any transfer can carry
        return f"{asset.symbol} in {row.price.currency}"
    return _as_row(row, quoted, now)


def _as_row(row: QuotedRow, quoted: QuotedOption, now: datetime) -> store.NewQuote:
    ends_at = row.expires_at if quoted.exact else now + timedelta(seconds=row.quote_seconds)
    return store.NewQuote(
        option_id=row.option_id,
        number=row.quote_number + 1,
        amount=quoted.amount,
        rate=quoted.rate,
        source=quoted.source,
        ends_at=min(row.expires_at, ends_at),
        spread_bps=quoted.spread_bps,
        answers=quoted.answers,
    )


def _configured(ctx: Context, row: QuotedRow) -> tuple[Network, Asset] | None:
    """Network and asset as configured now; None where they are not any more, or count otherwise than when asked."""
    network = ctx.networks.get(row.network)
    asset = next((one for one in network.assets if one.key == row.asset_key), None) if network else None
    if network is None or asset is None or asset.decimals != row.asset_decimals:
        return None
    return network, asset
