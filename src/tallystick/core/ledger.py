"""The vocabulary of the books: accounts, balanced entries, and the table of what each status books.

For: `core.books`, which says which entries stand for an invoice; `services.booking`, which writes them; and the
documentation, which shows the tables. Debits are positive, credits negative; every entry sums to zero in each
denomination it names.
Holds true: an entry that does not balance cannot be made. `POSITIONS` and `SPECIAL` are the one place that says which
transition books what: the books change exactly as far as the rows of the two statuses differ.
Must not: know facts, rows, or the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tallystick.core.errors import Unbalanced
from tallystick.core.invoice import Status
from tallystick.core.money import AMOUNT_MAX, Asset, Price

# Accounts and entries ------------------------------------------------------------------------------------------------


class Account(StrEnum):
    """Every account. A merchant has each of them in every denomination that was ever booked."""

    RECEIVABLE = "receivable"
    EXPECTED = "expected"
    ONCHAIN = "onchain"
    MERCHANT = "merchant"
    OVERPAYMENT = "overpayment"
    REFUNDS_PAYABLE = "refunds_payable"
    SUSPENSE = "suspense"
    LOSSES = "losses"
    FEES = "fees"
    SETTLED = "settled"


class AccountType(StrEnum):
    """What an account is to the merchant. Assets and expenses have debit balances (positive), the others credits."""

    ASSET = "asset"
    LIABILITY = "liability"
    INCOME = "income"
    EXPENSE = "expense"


ACCOUNTS: Final[dict[Account, tuple[AccountType, str]]] = {
    Account.RECEIVABLE: (
        AccountType.ASSET,
        "what customers still owe of a price: while a part came, or when a payment left the chain after delivery",
    ),
    Account.EXPECTED: (
        AccountType.INCOME,
        "the other side of `receivable`, and of `losses` in a currency: what was asked and has not come",
    ),
    Account.ONCHAIN: (AccountType.ASSET, "what is confirmed on chain, less the refunds sent"),
    Account.MERCHANT: (AccountType.INCOME, "what paid for an invoice, or was kept by decision"),
    Account.OVERPAYMENT: (
        AccountType.LIABILITY,
        "what came above what was asked: the customer's until decided",
    ),
    Account.REFUNDS_PAYABLE: (
        AccountType.LIABILITY,
        "refunds that were approved and are not sent and final yet",
    ),
    Account.SUSPENSE: (
        AccountType.LIABILITY,
        "what arrived and is nobody's yet: not enough, late, or not what was asked",
    ),
    Account.LOSSES: (
        AccountType.EXPENSE,
        "what a refund took and the chain did not leave; discounts given; goods that nobody paid for",
    ),
    Account.FEES: (AccountType.EXPENSE, "network fees: a credit is what customers bore of them"),
    Account.SETTLED: (AccountType.INCOME, "what a closed settlement batch took over from `merchant`"),
}


class EntryKind(StrEnum):
    """What an entry books."""

    RECEIPT = "receipt"
    POSITION = "position"
    REFUND_SENT = "refund_sent"
    FEE = "fee"
    ADJUSTMENT = "adjustment"
    SETTLEMENT = "settlement"


FROM_FACTS: Final = frozenset({EntryKind.RECEIPT, EntryKind.POSITION, EntryKind.REFUND_SENT})
"""Kinds that follow from facts. The others are booked once, by what happened."""


@dataclass(frozen=True, slots=True, order=True)
class Denomination:
    """What an amount is counted in: an asset on a network, or a currency (`network` and `contract` are empty).

    `contract` is `native` for a network's coin. `decimals` says how many base units make one.
    """

    network: str
    contract: str
    symbol: str
    decimals: int

    @classmethod
    def of_asset(cls, asset: Asset) -> Denomination:
        """The denomination of an asset."""
        return cls(asset.network, asset.key, asset.symbol, asset.decimals)

    @classmethod
    def of_price(cls, price: Price) -> Denomination:
        """The denomination of a price: also a price in an asset's symbol is a claim, and lives on no network."""
        return cls("", "", price.currency, price.decimals)


@dataclass(frozen=True, slots=True)
class Posting:
    """One line: `amount` base units to an account, debits positive. At most AMOUNT_MAX each way."""

    account: Account
    denomination: Denomination
    amount: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A balanced entry. `note` says why, in words, and does not make two entries differ.

    Raises Unbalanced for fewer than two lines, an empty line, or lines that do not cancel out.
    """

    kind: EntryKind
    postings: tuple[Posting, ...]
    note: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        sums: dict[Denomination, int] = {}
        for posting in self.postings:
            sums[posting.denomination] = sums.get(posting.denomination, 0) + posting.amount
        if len(self.postings) < 2 or any(sums.values()):
            raise Unbalanced(
                f"A {self.kind} entry of {len(self.postings)} lines does not cancel out: {sums}."
            )
        if any(not 0 < abs(posting.amount) <= AMOUNT_MAX for posting in self.postings):
            raise Unbalanced(
                f"A {self.kind} entry has a line without an amount, or with one too large to write."
            )

    def opposite(self, note: str) -> Entry:
        """The entry that takes this one back."""
        lines = (Posting(one.account, one.denomination, -one.amount) for one in self.postings)
        return Entry(self.kind, tuple(lines), note)


class Lines:
    """Amounts by denomination and account, until they make an entry. Each is written once, in a fixed order."""

    def __init__(self) -> None:
        self._amounts: dict[Denomination, dict[Account, int]] = {}

    def move(self, denomination: Denomination, debit: Account, credit: Account, amount: int) -> None:
        """Debit one account and credit another."""
        if amount:
            amounts = self._amounts.setdefault(denomination, {})
            amounts[debit] = amounts.get(debit, 0) + amount
            amounts[credit] = amounts.get(credit, 0) - amount

    def entry(self, kind: EntryKind, note: str) -> Entry | None:
        """The entry, or None where nothing is to be said."""
        postings = tuple(
            Posting(account, denomination, part)
            for denomination, amounts in sorted(self._amounts.items())
            for account in sorted(amounts, key=_ORDER.__getitem__)
            for part in _writable(amounts[account])
        )
        return Entry(kind, postings, note) if postings else None


_ORDER: Final = {account: place for place, account in enumerate(Account)}


def _writable(amount: int) -> Iterator[int]:
    """An amount in parts that fit their column: hostile tokens can carry sums that no single transfer can."""
    if 0 < abs(amount) <= AMOUNT_MAX:
        yield amount
        return
    sign = -1 if amount < 0 else 1
    left = abs(amount)
    while left:
        part = min(left, AMOUNT_MAX)
        yield sign * part
        left -= part


# The table -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """What a status books: where confirmed money that counts goes, and where what is missing of the price does."""

    money: Account
    missing: Account | None
    words: str


_EARNED: Final = Rule(
    Account.MERCHANT,
    Account.LOSSES,
    "What pays the invoice is the merchant's. What is missing of the price is a discount given: within the tolerance, "
    "or accepted by a person.",
)
_PART: Final = Rule(
    Account.SUSPENSE, Account.RECEIVABLE, "What came waits; the customer owes the rest of the price."
)
_ON_ITS_WAY: Final = Rule(
    Account.SUSPENSE, None, "Enough is on its way: what is confirmed of it waits for the rest to be."
)
_WAITING: Final = Rule(Account.SUSPENSE, None, "What came waits for a decision; nothing more is expected.")
_NOTHING: Final = Rule(Account.SUSPENSE, None, "Nothing is expected, and nothing that came counts.")

POSITIONS: Final[dict[Status, Rule]] = {
    Status.CREATED: _NOTHING,
    Status.QUOTED: _NOTHING,
    Status.AWAITING_PAYMENT: _NOTHING,
    Status.DETECTED: _ON_ITS_WAY,
    Status.PARTIALLY_PAID: _PART,
    Status.CONFIRMING: _ON_ITS_WAY,
    Status.PAID: _EARNED,
    Status.OVERPAID: _EARNED,
    Status.UNDERPAID: _PART,
    Status.EXPIRED: _NOTHING,
    Status.LATE_PAID: _WAITING,
    Status.REVIEW_REQUIRED: _WAITING,
    Status.DISPUTED: _WAITING,
    Status.SETTLED: _EARNED,
    Status.REFUNDED: _NOTHING,
    Status.CANCELED: _NOTHING,
}
"""What an invoice books in each status: every transition changes the books exactly as far as the two rows differ."""


class Special(StrEnum):
    """Rules that hold beside the row of the status, named by what they are about."""

    EXCESS = "excess"
    UNDECIDED = "undecided"
    WRITTEN_OFF = "written_off"
    NOTHING_EXPECTED = "nothing_expected"
    REFUND_OWED = "refund_owed"
    REFUND_UNCOVERED = "refund_uncovered"
    GOODS_LEFT = "goods_left"
    GOODS_WRITTEN_OFF = "goods_written_off"


SPECIAL: Final[dict[Special, tuple[str, str]]] = {
    Special.EXCESS: (
        "the invoice is paid, and more is confirmed than the tolerance above, which nobody decided to keep",
        "the excess above what was asked goes to `overpayment`, not to `merchant`",
    ),
    Special.UNDECIDED: (
        "the invoice is paid, and there is also money that does not count: another asset or network, or late",
        "that money stays in `suspense` until a person decides",
    ),
    Special.WRITTEN_OFF: (
        "a person kept what came, without counting it (`write_off`, or accepted where the invoice was paid already)",
        "it goes from `suspense` to `merchant`, whatever the status",
    ),
    Special.NOTHING_EXPECTED: (
        "underpaid, and everything that came is dealt with or on its way back",
        "nothing is `receivable` any more",
    ),
    Special.REFUND_OWED: (
        "a refund is approved",
        "its amount goes to `refunds_payable`, as far as what it gives back is confirmed",
    ),
    Special.REFUND_UNCOVERED: (
        "a refund was sent, and what it gave back left the chain",
        "the part that nothing covers is booked from `losses`",
    ),
    Special.GOODS_LEFT: (
        "the goods were delivered, and what had paid for them left the chain",
        "what is missing of the price is `receivable`",
    ),
    Special.GOODS_WRITTEN_OFF: (
        "the same, and a person wrote the lost payment off",
        "what is missing of the price goes to `losses`",
    ),
}


def balances(entries: Iterable[Entry]) -> dict[tuple[Denomination, Account], int]:
    """The sum of each account's postings, without those that are zero."""
    found: dict[tuple[Denomination, Account], int] = {}
    for entry in entries:
        for posting in entry.postings:
            key = posting.denomination, posting.account
            found[key] = found.get(key, 0) + posting.amount
    return {key: amount for key, amount in found.items() if amount}
