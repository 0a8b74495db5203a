"""What a balance says beyond what was seen to arrive: a row for each case. Base units of a coin of 18 decimals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.balance import AccountState, BalanceOutcome, Baseline, Finding, judge_balance

COIN = 10**18
E, U, D, M, S = (
    BalanceOutcome.EXPLAINED,
    BalanceOutcome.UNATTRIBUTED,
    BalanceOutcome.DUST,
    BalanceOutcome.MISSING,
    BalanceOutcome.SPENT,
)


def baseline(balance: int, nonce: int) -> Baseline:
    return Baseline(AccountState(balance, nonce), 7)


@pytest.mark.parametrize(
    ("balance", "nonce", "received", "before", "since", "outcome", "amount"),
    [
        # never sent anything: holds what it received, or more
        (0, 0, 0, None, 0, E, 0),
        (COIN, 0, COIN, None, 0, E, 0),
        (COIN, 0, 0, None, 0, U, COIN),
        (3 * COIN, 0, COIN, None, 0, U, 2 * COIN),
        (2**256 - 1, 0, 0, None, 0, U, 2**256 - 1),
        # the baseline is not needed, and an older one that saw less does not matter
        (3 * COIN, 0, COIN, baseline(3 * COIN, 0), 0, U, 2 * COIN),
        (3 * COIN, 0, 3 * COIN, baseline(COIN, 0), 0, E, 0),
        # too little to mean anything; the border
        (1, 0, 0, None, 0, D, 0),
        (COIN // 100_000 - 1, 0, 0, None, 0, D, 0),
        (COIN // 100_000, 0, 0, None, 0, U, COIN // 100_000),
        # less than was seen, though nothing was sent
        (0, 0, COIN, None, 0, M, 0),
        # sent something: only what changed since, and only if nothing was sent since
        (COIN, 1, 9 * COIN, None, 0, S, 0),
        (COIN, 2, 9 * COIN, baseline(COIN, 1), 0, S, 0),
        (COIN, 1, 9 * COIN, baseline(2 * COIN, 0), 0, S, 0),
        (COIN, 1, 9 * COIN, baseline(COIN, 1), 0, E, 0),
        (4 * COIN, 1, 9 * COIN, baseline(COIN, 1), COIN, U, 2 * COIN),
        (COIN, 1, 9 * COIN, baseline(COIN, 1), COIN, M, 0),
    ],
)
def test_what_a_balance_says(
    balance: int,
    nonce: int,
    received: int,
    before: Baseline | None,
    since: int,
    outcome: BalanceOutcome,
    amount: int,
) -> None:
    """Bug planted: the balance taken for the remainder, so that what was seen is found again."""
    found = judge_balance(
        AccountState(balance, nonce), decimals=18, received=received, baseline=before, received_since=since
    )
    assert found == Finding(outcome, amount)


@given(received=st.integers(0, 2**255), hidden=st.integers(0, 2**255))
def test_recording_what_was_found_leaves_nothing_to_find(received: int, hidden: int) -> None:
    """Whatever arrived unseen: once it is recorded it counts as received, and a second look finds nothing."""
    state = AccountState(received + hidden, 0)
    first = judge_balance(state, decimals=18, received=received, baseline=None, received_since=0)
    again = judge_balance(
        state, decimals=18, received=received + first.amount, baseline=None, received_since=0
    )
    assert first.amount in (0, hidden)
    assert again.outcome in (E, D)
