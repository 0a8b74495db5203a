"""Which outputs pay, and what it costs: properties over everything that can be asked, and the figures of the BIPs.

Planted bugs seen to fail: one output listed twice counted twice; the dust of a change neither paid out nor in the fee;
a dust change paid out; the fee of the second output forgotten; a fee rounded down; the smallest outputs first; what
costs more than it holds taken as well; the limit of inputs, and that of the fee, left out.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.chains.bitcoin.choosing import (
    FEE_MAX,
    FEE_RATE_MAX,
    FEE_RATE_MIN,
    INPUTS_MAX,
    Choice,
    Costs,
    Shortage,
    Unspent,
    choose,
    dust_limit,
    fee_bounds,
    input_weight,
    output_bytes,
)

COSTS = Costs(
    input_weight=input_weight("p2wpkh"),
    segwit=True,
    destination_bytes=output_bytes(22),
    change_bytes=output_bytes(22),
    change_min=294,
    fee_rate=1_000,
)


def unspent(number: int, amount: int) -> Unspent:
    return Unspent(f"{number:064x}", number % 3, amount, "0014" + "00" * 20, number)


AMOUNTS = st.one_of(st.integers(1, 5_000), st.integers(1, 10**8), st.integers(1, 21 * 10**14))
KINDS = st.sampled_from(["p2pkh", "p2sh-p2wpkh", "p2wpkh", "p2tr", "p2wsh"])


@st.composite
def costs(draw: st.DrawFn) -> Costs:
    kind = draw(KINDS)
    return Costs(
        input_weight=input_weight(kind, signatures=draw(st.integers(1, 15)), witness_script_bytes=513),
        segwit=kind != "p2pkh",
        destination_bytes=output_bytes(draw(st.integers(22, 42))),
        change_bytes=output_bytes(draw(st.integers(22, 34))),
        change_min=draw(st.integers(294, 5_460)),
        fee_rate=draw(st.integers(FEE_RATE_MIN, FEE_RATE_MAX)),
    )


@given(st.lists(AMOUNTS, max_size=260), AMOUNTS, costs(), st.data())
def test_nothing_is_lost_and_the_fee_is_within_bounds(
    amounts: list[int], amount: int, costs: Costs, data: st.DataObject
) -> None:
    known = [unspent(number, one) for number, one in enumerate(amounts)]
    listed = known + data.draw(st.lists(st.sampled_from(known), max_size=5) if known else st.just([]))
    found = choose(listed, amount, costs)
    if isinstance(found, Shortage):
        return
    outpoints = [one.outpoint for one in found.inputs]
    assert outpoints == sorted(set(outpoints))
    assert set(found.inputs) <= set(known)
    assert 1 <= len(found.inputs) <= INPUTS_MAX
    assert sum(one.amount for one in found.inputs) == amount + found.change + found.fee
    assert found.change == 0 or found.change >= costs.change_min
    least, most = fee_bounds(len(found.inputs), costs)
    assert least <= found.fee < most
    assert found.fee <= FEE_MAX


@given(st.lists(AMOUNTS, min_size=1, max_size=40), AMOUNTS, costs())
def test_there_is_a_choice_whenever_all_of_it_suffices(amounts: list[int], amount: int, costs: Costs) -> None:
    """And none when it does not: what everything that is worth spending leaves after its own fee decides."""
    known = [unspent(number, one) for number, one in enumerate(amounts)]
    input_fee = ceil(Fraction(ceil(Fraction(costs.input_weight, 4)) * costs.fee_rate, 1000))
    worth = sorted((one for one in amounts if one > input_fee), reverse=True)
    suffices = any(
        sum(worth[:count]) >= amount + fee_bounds(count, costs)[0] for count in range(1, len(worth) + 1)
    )
    found = choose(known, amount, costs)
    if suffices:
        assert isinstance(found, Choice) or "beyond reason" in found.reason
    else:
        assert isinstance(found, Shortage)


@given(st.lists(AMOUNTS, min_size=1, max_size=30, unique=True), AMOUNTS, costs(), st.randoms())
def test_the_order_in_which_outputs_are_told_does_not_matter(
    amounts: list[int], amount: int, costs: Costs, random: object
) -> None:
    known = [unspent(number, one) for number, one in enumerate(amounts)]
    shuffled = list(known)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis hands over a random.Random
    assert choose(known, amount, costs) == choose(shuffled, amount, costs)


def test_the_largest_are_chosen_until_it_is_enough() -> None:
    known = [unspent(number, amount) for number, amount in enumerate([10_000, 70_000, 40_000, 5_000])]
    found = choose(known, 100_000, COSTS)
    assert isinstance(found, Choice)
    assert sorted(one.amount for one in found.inputs) == [40_000, 70_000]
    assert found.fee == 209  # 2 inputs and 2 outputs of p2wpkh are 834 weight units at most
    assert found.change == 10_000 - 209


def test_fees_are_rounded_up() -> None:
    """An input and an output of p2wpkh are 438 weight units, so 109.5 virtual bytes."""
    for fee_rate, fee in ((1_000, 110), (1_001, 111), (1_009, 111), (1_010, 112)):
        found = choose([unspent(1, 50_000 + fee)], 50_000, replace(COSTS, fee_rate=fee_rate))
        assert isinstance(found, Choice)
        assert found.fee == fee
        assert isinstance(
            choose([unspent(1, 50_000 + fee - 1)], 50_000, replace(COSTS, fee_rate=fee_rate)), Shortage
        )


def test_a_change_that_is_dust_is_fee() -> None:
    fee_alone, fee_both = 110, 141
    for left, change in ((0, 0), (fee_both - fee_alone + 293, 0), (fee_both - fee_alone + 294, 294)):
        found = choose([unspent(1, 50_000 + fee_alone + left)], 50_000, COSTS)
        assert isinstance(found, Choice)
        assert (found.change, found.fee) == (change, fee_alone + left - change)


@pytest.mark.parametrize(
    ("known", "amount", "costs", "reason"),
    [
        ([], 1, COSTS, "do not suffice"),
        ([50_000], 50_000, COSTS, "do not suffice"),
        ([68] * 400, 300, COSTS, "do not suffice"),  # each costs as much to spend as it holds
        ([10_000] * 400, 2_500_000, COSTS, "more known outputs"),
        ([10**8], 1_000, replace(COSTS, fee_rate=FEE_RATE_MIN - 1), "beyond reason"),
        ([10**8], 1_000, replace(COSTS, fee_rate=FEE_RATE_MAX + 1), "beyond reason"),
        ([10**8] * 150, 149 * 10**8, replace(COSTS, fee_rate=FEE_RATE_MAX), "fee of"),
        ([10**6] * 190, 180 * 10**6, replace(COSTS, input_weight=3_000), "more known outputs"),
    ],
)
def test_why_there_is_none(known: list[int], amount: int, costs: Costs, reason: str) -> None:
    found = choose([unspent(number, one) for number, one in enumerate(known)], amount, costs)
    assert isinstance(found, Shortage)
    assert reason in found.reason


def test_input_weights_are_those_of_the_literature() -> None:
    """Virtual bytes of an input with the longest signature: Bitcoin Core's own figures for its wallet."""
    figures = {"p2pkh": 148, "p2sh-p2wpkh": 91, "p2wpkh": 68, "p2tr": 57.5}
    assert {kind: input_weight(kind) / 4 for kind in figures} == figures
    assert input_weight("p2wsh", signatures=2, witness_script_bytes=105) / 4 == 41 + 254 / 4


def test_dust_limits_are_those_of_the_nodes() -> None:
    """Bitcoin Core's documented limits; Litecoin Core's rate is ten times as high."""
    scripts = {
        "76a914" + "00" * 20 + "88ac": 546,
        "a914" + "00" * 20 + "87": 540,
        "0014" + "00" * 20: 294,
        "0020" + "00" * 32: 330,
        "5120" + "00" * 32: 330,
    }
    assert {script: dust_limit("bitcoin", script) for script in scripts} == scripts
    assert dust_limit("litecoin", "0014" + "00" * 20) == 2_940
