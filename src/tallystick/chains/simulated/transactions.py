"""Transactions of a simulated network, built from what they are meant to do: honest ones, and tokens that misbehave.

For: the simulation and tests. Holds true: a transaction's hash commits to its sender, its nonce and what it does, so
that two with the same parts are the same transaction, on whichever chain. `salt` makes another one of the same parts.
Must not: know a chain's state; who gives the same sender and nonce twice gets two transactions that exclude each other.

Amounts are base units; addresses and contracts are lower-case text. Token contracts here have no symbol: whether a
contract is the configured one or an impostor is a matter of its address alone, as it is for the system under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tallystick.chains.simulated.blocks import Move, Transaction, hashed
from tallystick.core.chain import Channel

UINT256_MAX: Final = 2**256 - 1
"""The largest amount that an EVM token can name, and that anybody can emit from a contract of their own."""

Payee = tuple[str, int]
"""Who gets how much."""


def address_of(label: str) -> str:
    """An address that nobody has a key for, the same for the same label: a customer, a contract, an impostor."""
    return "0x" + hashed("address", label)[-40:]


def native(sender: str, nonce: int, to: str, amount: int, *, salt: int = 0) -> Transaction:
    """Coins sent straight to an address."""
    return _made(sender, nonce, (_value(to, amount),), salt)


def token(sender: str, nonce: int, contract: str, to: str, amount: int, *, salt: int = 0) -> Transaction:
    """An ordinary token transfer: one event, first in its transaction."""
    return _made(sender, nonce, (_log(contract, to, amount),), salt)


def batch(
    sender: str, nonce: int, payees: Sequence[Payee], *, contract: str, first_ordinal: int = 0, salt: int = 0
) -> Transaction:
    """One transaction with an event for each payee, who may be named twice: several payments of one transaction.

    `first_ordinal` above 0: events that move nothing stand before them.
    """
    moves = [_log(contract, to, amount, first_ordinal + place) for place, (to, amount) in enumerate(payees)]
    return _made(sender, nonce, tuple(moves), salt, ())


def contract_call(
    sender: str, nonce: int, wallet: str, payees: Sequence[Payee], *, salt: int = 0
) -> Transaction:
    """Coins that the contract `wallet` sends on: seen in traces only, and on a node without them in balances only."""
    moves = [
        Move(to, None, amount, Channel.TRACE, place, source=wallet)
        for place, (to, amount) in enumerate(payees)
    ]
    return _made(sender, nonce, tuple(moves), salt, ())


def fee_on_transfer(
    sender: str, nonce: int, contract: str, to: str, amount: int, fee: int, *, salt: int = 0
) -> Transaction:
    """A token that keeps a part: `amount` is announced, `amount - fee` arrives, and the fee goes to the contract."""
    moves = (_log(contract, to, amount - fee), _log(contract, contract, fee, 1))
    return _made(sender, nonce, moves, salt, (_log(contract, to, amount),))


def late_event(
    sender: str, nonce: int, contract: str, to: str, amount: int, *, before: int = 1, salt: int = 0
) -> Transaction:
    """A token that writes other events first: announced as the first of its transaction, found further back."""
    return _made(sender, nonce, (_log(contract, to, amount, before),), salt, (_log(contract, to, amount),))


def nothing_moved(
    sender: str, nonce: int, contract: str, to: str, amount: int, *, salt: int = 0
) -> Transaction:
    """A call that announces a transfer, succeeds and moves nothing: no event at all, or one of zero units."""
    return _made(sender, nonce, (_log(contract, to, 0),), salt, (_log(contract, to, amount),))


def failed(transaction: Transaction) -> Transaction:
    """The same transaction, failing where it is mined next: its spend key is used up and nothing moves."""
    return replace(transaction, succeeds=False, promises=transaction.announced)


def doing(transaction: Transaction, moves: Sequence[Move]) -> Transaction:
    """The same transaction, taking another course where it is mined next, as contracts may."""
    return replace(transaction, succeeds=True, moves=tuple(moves), promises=transaction.announced)


def instead_of(transaction: Transaction, to: str, amount: int, *, salt: int = 0) -> Transaction:
    """Another transaction of the same sender and nonce: coins to `to`. Only one of the two can ever be mined."""
    return native(transaction.sender, transaction.nonce, to, amount, salt=salt)


def _value(to: str, amount: int) -> Move:
    return Move(to, None, amount, Channel.VALUE, 0)


def _log(contract: str, to: str, amount: int, ordinal: int = 0) -> Move:
    return Move(to, contract, amount, Channel.LOG, ordinal)


def _made(
    sender: str,
    nonce: int,
    moves: tuple[Move, ...],
    salt: int,
    promises: tuple[Move, ...] | None = None,
) -> Transaction:
    parts = [
        tuple(
            (move.to, move.contract, move.amount, move.channel.value, move.ordinal, move.source)
            for move in told
        )
        for told in (moves, promises or ())
    ]
    tx_hash = hashed("transaction", sender, nonce, *parts, salt)
    return Transaction(tx_hash, sender, nonce, moves, True, promises)
