"""Transactions of a simulated network whose coins are outputs, as Bitcoin's and Litecoin's: what they spend and pay.

For: the simulation and tests. Holds true: a transaction's hash commits to what it spends and pays, so that two with the
same parts are the same transaction, on whichever chain; `salt` makes another one of the same parts. Addresses are
output scripts and hashes have no prefix, as the families write both.
Must not: know a chain's state; who spends one output in two transactions gets two that exclude each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tallystick.chains.simulated.blocks import Move, Transaction, hashed
from tallystick.chains.simulated.transactions import Payee
from tallystick.core.chain import Channel, Trait


def script_of(label: str) -> str:
    """The script of an address that nobody has a key for (P2WPKH, BIP141), the same for the same label."""
    return "0014" + hashed("script", label)[-40:]


def coin(owner: str, number: int) -> str:
    """An output that somebody owns from before the chain's history: there to be spent, once."""
    return f"{hashed('coin', owner, number)[2:]}:{number % 3}"


def paying(
    spends: Sequence[str], payees: Sequence[Payee], *, replaceable: bool = False, salt: int = 0
) -> Transaction:
    """A payment from these outputs to these scripts, one output each, in this order.

    `replaceable`: it says that another may take its place (BIP125).
    """
    traits = frozenset({Trait.REPLACEABLE}) if replaceable else frozenset()
    return _made(tuple(spends), payees, traits, salt)


def coinbase(parent: str, payees: Sequence[Payee], *, salt: int = 0) -> Transaction:
    """What the miner of a block on `parent` (its hash) pays out: newly made coin."""
    made = _made((), payees, frozenset({Trait.COINBASE}), hashed(parent, salt))
    return replace(made, spends=(f"coinbase:{made.hash}",))


def pegout(parent: str, payees: Sequence[Payee], *, salt: int = 0) -> Transaction:
    """What leaves Litecoin's extension block in a block on `parent`: every block there could spend the same."""
    return _made(
        (f"{hashed('extension', parent)[2:]}:0",), payees, frozenset({Trait.PEGOUT}), hashed(parent, salt)
    )


def outbidding(
    transaction: Transaction,
    payees: Sequence[Payee],
    *,
    place: int = 0,
    others: Sequence[str] = (),
    salt: int = 0,
) -> Transaction:
    """A transaction that needs the output which another one spends in `place`, and besides `others`: only one of the
    two can ever be mined."""
    shared = transaction.spends[place % len(transaction.spends)]
    replaceable = Trait.REPLACEABLE in transaction.traits
    return paying((shared, *others), payees, replaceable=replaceable, salt=salt)


def _made(
    spends: tuple[str, ...], payees: Sequence[Payee], traits: frozenset[Trait], salt: int | str
) -> Transaction:
    moves = tuple(
        Move(to, None, amount, Channel.OUTPUT, place, source="") for place, (to, amount) in enumerate(payees)
    )
    parts = [(move.to, move.amount) for move in moves]
    tx_hash = hashed("outputs", spends, tuple(parts), tuple(sorted(traits)), salt)[2:]
    return Transaction(tx_hash, "", 0, moves, spends=spends, traits=traits)
