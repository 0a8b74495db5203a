"""Which unspent outputs pay for a transaction, what it weighs and what fee it pays.

For: payment requests of refunds (`chains.bitcoin.psbt`). Holds true: what goes in is what comes out, to the last unit:
destination, change and fee; an output is chosen once; a change that no node would relay goes to the fee and never
becomes an output; the fee is what the rate asks for the weight, rounded up, and never above FEE_MAX.
Must not: know keys, read a clock, draw chance (the same question has the same answer), or ask a node.

Weights are BIP 141's: a byte outside witnesses weighs 4 units, one inside weighs 1; 4 units are one virtual byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tallystick.chains.bitcoin.addresses import witness_of

INPUTS_MAX: Final = 200
"""More inputs than a person can check, and slower to sign than hardware wallets allow."""

WEIGHT_MAX: Final = 400_000
"""Weight units: nodes relay nothing heavier (Bitcoin Core, `MAX_STANDARD_TX_WEIGHT`)."""

FEE_RATE_MIN: Final = 1_000
FEE_RATE_MAX: Final = 5_000_000
"""Base units per 1,000 virtual bytes. Below the first many nodes relay nothing (`-minrelaytxfee` before Bitcoin Core
30); the second is more than was ever asked for, and half of what `sendrawtransaction` itself refuses: an estimate above
it is an error."""

FEE_MAX: Final = 10_000_000
"""Base units: what Core's own wallet pays for one transaction at most (`-maxtxfee`)."""

DUST_RATE: Final[Mapping[str, int]] = {"bitcoin": 3_000, "litecoin": 30_000}
"""Base units per 1,000 virtual bytes, by family: `-dustrelayfee` of Bitcoin Core and of Litecoin Core."""

_SIGNATURE: Final = 1 + 72  # a push and a DER signature with its type, at its longest (BIP 66, low S)
_PUBLIC_KEY: Final = 1 + 33
_OUTPOINT_AND_SEQUENCE: Final = 36 + 4


@dataclass(frozen=True, slots=True)
class Unspent:
    """An output that can be spent: `amount` in base units, `script` lower-case hex, `index` of the key it pays to."""

    txid: str
    vout: int
    amount: int
    script: str
    index: int

    @property
    def outpoint(self) -> tuple[str, int]:
        """What names it on its chain."""
        return self.txid, self.vout


@dataclass(frozen=True, slots=True)
class Costs:
    """What the parts of a transaction cost.

    `input_weight`: weight units of one signed input, at most. `segwit`: whether its inputs have witnesses.
    `destination_bytes`, `change_bytes`: an output with its amount. `change_min`: base units; less is dust.
    `fee_rate`: base units per 1,000 virtual bytes.
    """

    input_weight: int
    segwit: bool
    destination_bytes: int
    change_bytes: int
    change_min: int
    fee_rate: int

    @property
    def alone(self) -> tuple[int, ...]:
        """The outputs without change, in bytes."""
        return (self.destination_bytes,)

    @property
    def both(self) -> tuple[int, ...]:
        """The outputs with change, in bytes."""
        return self.destination_bytes, self.change_bytes


@dataclass(frozen=True, slots=True)
class Choice:
    """Inputs in the order of BIP 69, what is left for the wallet (0: no change output), and the fee. Base units."""

    inputs: tuple[Unspent, ...]
    change: int
    fee: int


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why no choice is possible, in a sentence for people."""

    reason: str


def output_bytes(script_bytes: int) -> int:
    """Bytes of an output whose script has so many bytes: 8 of amount, the script and its length."""
    return 8 + _length_bytes(script_bytes) + script_bytes


def dust_limit(family: str, script: str) -> int:
    """The least base units that nodes relay to an output script (lower-case hex).

    What it takes to spend the output, at the family's dust rate: Bitcoin Core's `GetDustThreshold`, where spending
    takes 148 bytes, or 67 with a witness.
    """
    program = bytes.fromhex(script)
    version, _ = witness_of(program)
    spending = 148 if version is None else 67
    return (output_bytes(len(program)) + spending) * DUST_RATE[family] // 1000


def input_weight(kind: str, *, signatures: int = 1, witness_script_bytes: int = 0) -> int:
    """Weight units of a signed input, at most. `kind`: p2pkh, p2sh-p2wpkh, p2wpkh, p2tr, p2wsh or p2sh-p2wsh.

    For the last two: how many signatures the witness script takes, and its bytes. The parts are those of BIP 141
    (witness and nesting), BIP 341 (a key path's signature has 64 bytes) and BIP 11 (a multisig begins with an empty
    element).
    """
    script_sig = {"p2pkh": _SIGNATURE + _PUBLIC_KEY, "p2sh-p2wpkh": 1 + 22, "p2sh-p2wsh": 1 + 34}.get(kind, 0)
    if kind in ("p2wpkh", "p2sh-p2wpkh"):
        witness = 1 + _SIGNATURE + _PUBLIC_KEY
    elif kind == "p2tr":
        witness = 1 + 1 + 64
    elif kind in ("p2wsh", "p2sh-p2wsh"):
        counted = _length_bytes(signatures + 2)
        script = _length_bytes(witness_script_bytes) + witness_script_bytes
        witness = counted + 1 + signatures * _SIGNATURE + script
    else:
        witness = 0
    return 4 * (_OUTPOINT_AND_SEQUENCE + _length_bytes(script_sig) + script_sig) + witness


def choose(unspent: Iterable[Unspent], amount: int, costs: Costs) -> Choice | Shortage:
    """Enough unspent outputs to pay `amount` base units and the fee: the largest, until it is enough.

    An output that costs more to spend than it holds is not chosen. `amount` must be positive.
    """
    rate = costs.fee_rate
    if not FEE_RATE_MIN <= rate <= FEE_RATE_MAX:
        return Shortage(f"A fee rate of {rate} for 1,000 virtual bytes is beyond reason.")
    input_fee = _fee(costs.input_weight, rate)
    different = {one.outpoint: one for one in unspent}.values()
    worth = [one for one in different if one.amount > input_fee]
    worth.sort(key=lambda one: (-one.amount, one.outpoint))
    total = 0
    for count, one in enumerate(worth, start=1):
        if count > INPUTS_MAX or _weight(count, costs, costs.both) > WEIGHT_MAX:
            return Shortage("It would take more known outputs than one transaction holds.")
        total += one.amount
        if total >= amount + _fee(_weight(count, costs, costs.alone), rate):
            settled = _settle(worth[:count], total, amount, costs)
            if settled.fee > FEE_MAX:
                return Shortage(f"Its fee of {settled.fee} base units is beyond reason.")
            return settled
    return Shortage("The known unspent outputs do not suffice for the amount and the fee.")


def _settle(chosen: list[Unspent], total: int, amount: int, costs: Costs) -> Choice:
    """Split what is above `amount` into change and fee."""
    inputs = tuple(sorted(chosen, key=lambda one: one.outpoint))
    fee = _fee(_weight(len(inputs), costs, costs.both), costs.fee_rate)
    change = total - amount - fee
    if change < costs.change_min:
        return Choice(inputs, 0, total - amount)
    return Choice(inputs, change, fee)


def fee_bounds(count: int, costs: Costs) -> tuple[int, int]:
    """The least and the most that a choice of so many inputs pays as fee, in base units.

    At least the rate for its weight; at most that with a change output, and what is too small to be one.
    """
    least = _fee(_weight(count, costs, costs.alone), costs.fee_rate)
    both = _fee(_weight(count, costs, costs.both), costs.fee_rate)
    return least, both + costs.change_min


def _weight(count: int, costs: Costs, outputs: tuple[int, ...]) -> int:
    """Weight units of a transaction of `count` inputs: version, lock time, both counts, a witness's marker and flag."""
    frame = 4 + 4 + _length_bytes(count) + _length_bytes(len(outputs))
    return 4 * (frame + sum(outputs)) + (2 if costs.segwit else 0) + count * costs.input_weight


def _fee(weight: int, rate: int) -> int:
    """Base units for so many weight units; virtual bytes and fee are rounded up."""
    virtual_bytes = -(-weight // 4)
    return -(-virtual_bytes * rate // 1000)


def _length_bytes(count: int) -> int:
    """Bytes of a count as transactions write it (CompactSize); nothing here needs more than 65,535."""
    return 1 if count < 253 else 3
