"""What the balance of an address says beyond the transfers that were seen.

For: `services.balances`, where native coin can arrive without any transaction naming the address: sent by a contract
on a network without traces, withdrawn from staking, paid to whoever proposed a block.
Holds true: only what nothing else explains is reported, and never twice: what was reported before counts as explained.
An address that has sent something is judged by what changed since it was last looked at, or not at all.
Must not: say whose money it is, or whether it pays: a person decides that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tallystick.core.invoice import DUST_PER_COIN


@dataclass(frozen=True, slots=True)
class AccountState:
    """An account at one block: base units of the native coin, and how many transactions it has sent (EVM: nonce)."""

    balance: int
    nonce: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """What an account held when it was last looked at, at a block that is still in the best chain."""

    state: AccountState
    height: int


class BalanceOutcome(StrEnum):
    """What came of looking at a balance. Each has a name, the boring ones too."""

    EXPLAINED = "explained"  # the transfers that were seen add up to it
    UNATTRIBUTED = "unattributed"  # more is there than was seen: recorded
    DUST = "dust"  # more is there, but too little to mean anything: not recorded, so it adds up
    MISSING = "missing"  # less is there than was seen, although nothing was sent: a node is wrong, or moves are unseen
    SPENT = (
        "spent"  # the account sent something since it was last looked at: what it should hold is not known
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome, and base units that nothing explains (for UNATTRIBUTED only)."""

    outcome: BalanceOutcome
    amount: int = 0


def judge_balance(
    state: AccountState,
    *,
    decimals: int,
    received: int,
    baseline: Baseline | None,
    received_since: int,
) -> Finding:
    """Compare an account with what was seen to arrive there, at one block of the best chain. All in base units.

    `received` is everything ever seen to arrive at or below that block, `received_since` what arrived above the
    baseline's. An issued address has normally never sent anything: then it should hold all it received.
    """
    if state.nonce == 0:
        expected = received
    elif baseline is not None and baseline.state.nonce == state.nonce:
        expected = baseline.state.balance + received_since
    else:
        return Finding(BalanceOutcome.SPENT)
    excess = state.balance - expected
    if excess < 0:
        return Finding(BalanceOutcome.MISSING)
    if excess == 0:
        return Finding(BalanceOutcome.EXPLAINED)
    if excess * DUST_PER_COIN < 10**decimals:
        return Finding(BalanceOutcome.DUST)
    return Finding(BalanceOutcome.UNATTRIBUTED, excess)
