"""Blocks and positions: connecting, depth, finality, common ancestors."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.chain import (
    RISKS,
    AlreadyConnected,
    BlockHeader,
    BlockRef,
    Connected,
    Finality,
    NeedsOlderBlock,
    Requirement,
    Trait,
    canonical_anchor,
    common_ancestor,
    confirmations,
    connect,
    counts_at_sight,
    final_at_height,
    is_final,
    mature_at_height,
    outpoint_of,
    required_with,
)
from tests.core.samples import DEADLINE, anchor, view

CURSOR = BlockRef("0xc", 10)


def header(height: int, parent: str, hash_: str = "0xnew") -> BlockHeader:
    return BlockHeader(hash_, parent, height, DEADLINE)


@pytest.mark.parametrize(
    ("cursor", "block", "answer"),
    [
        (None, header(500, "0xwhatever"), Connected(BlockRef("0xnew", 500))),
        (CURSOR, header(11, "0xc"), Connected(BlockRef("0xnew", 11))),
        (CURSOR, header(10, "0xb", "0xc"), AlreadyConnected(CURSOR)),
        (CURSOR, header(12, "0xd"), NeedsOlderBlock(11)),  # a gap is never jumped
        (CURSOR, header(12, "0xc"), NeedsOlderBlock(11)),  # not even where the parent's hash seems to fit
        (CURSOR, header(10_000, "0xz"), NeedsOlderBlock(11)),
        (CURSOR, header(11, "0xother"), NeedsOlderBlock(10)),  # another branch: look at our own height
        (CURSOR, header(10, "0xb", "0xother"), NeedsOlderBlock(10)),
        (CURSOR, header(7, "0x6"), NeedsOlderBlock(7)),  # the node is behind, or its chain is shorter
        (CURSOR, header(0, ""), NeedsOlderBlock(0)),
    ],
)
def test_a_block_connects_only_on_top_of_the_block_it_names(
    cursor: BlockRef | None, block: BlockHeader, answer: object
) -> None:
    """Planted bugs seen to fail: the parent not compared; the height not compared."""
    assert connect(cursor, block) == answer


@given(
    st.integers(0, 30), st.integers(0, 30), st.sampled_from(["0xc", "0xd"]), st.sampled_from(["0xc", "0xn"])
)
def test_connecting_never_skips_and_never_asks_for_a_height_above_the_next(
    cursor_height: int, height: int, parent: str, hash_: str
) -> None:
    cursor = BlockRef("0xc", cursor_height)
    answer = connect(cursor, header(height, parent, hash_))
    if isinstance(answer, Connected):
        assert (height, parent) == (cursor_height + 1, "0xc")
    elif isinstance(answer, NeedsOlderBlock):
        assert answer.height <= cursor_height + 1


@pytest.mark.parametrize(
    ("tip", "height", "best", "expected"),
    [
        (10, 10, True, 1),
        (10, 9, True, 2),
        (10, 1, True, 10),
        (10, 5, False, 0),
        (None, 5, True, 0),
        (4, 5, True, 0),
    ],
)
def test_confirmations_count_the_block_itself(
    tip: int | None, height: int, best: bool, expected: int
) -> None:
    assert confirmations(anchor(height, best=best), view(tip)) == expected
    assert confirmations(None, view(tip)) == 0


@pytest.mark.parametrize(
    ("requirement", "height", "final"),
    [
        (Requirement(Finality.DEPTH, 1), 10, True),
        (Requirement(Finality.DEPTH, 2), 10, False),
        (Requirement(Finality.DEPTH, 2), 9, True),
        (Requirement(Finality.DEPTH, 6), 6, False),
        (Requirement(Finality.DEPTH, 6), 5, True),
        (Requirement(Finality.DEPTH, 0), 10, True),
        (Requirement(Finality.SAFE), 8, True),
        (Requirement(Finality.SAFE), 9, False),
        (Requirement(Finality.FINALIZED), 6, True),
        (Requirement(Finality.FINALIZED), 7, False),
    ],
)
def test_final_begins_exactly_where_it_is_promised(
    requirement: Requirement, height: int, final: bool
) -> None:
    """Planted bug seen to fail: `<` in place of `<=`, `>` in place of `>=`."""
    seen = view(10, safe=8, finalized=6)
    assert is_final(anchor(height), requirement, seen) is final
    assert not is_final(anchor(height, best=False), requirement, seen)
    assert not is_final(None, requirement, seen)


@pytest.mark.parametrize("finality", [Finality.SAFE, Finality.FINALIZED])
def test_a_network_that_says_nothing_makes_nothing_final(finality: Finality) -> None:
    assert not is_final(anchor(1), Requirement(finality), view(10))


def test_no_depth_at_all_is_still_one_block() -> None:
    assert not is_final(anchor(11), Requirement(Finality.DEPTH, 0), view(10))


@given(st.sampled_from(Finality), st.integers(1, 20), st.integers(0, 40), st.integers(0, 60))
def test_the_height_to_wait_for_is_the_first_at_which_it_is_final(
    finality: Finality, count: int, height: int, reached: int
) -> None:
    """Planted bug seen to fail: one block too late, so that nobody is woken when it is time."""
    requirement = Requirement(finality, count)
    awaited = final_at_height(anchor(height), requirement)
    now = is_final(anchor(height), requirement, view(reached, safe=reached, finalized=reached))
    assert now == (reached >= awaited)


TRAITS = st.frozensets(st.sampled_from(Trait))


@given(
    st.builds(Requirement, st.sampled_from(Finality), st.integers(1, 120), st.booleans()),
    TRAITS,
    st.integers(0, 150),
)
def test_what_matures_is_final_when_it_is_mature_and_as_deep_as_asked(
    requirement: Requirement, traits: frozenset[Trait], reached: int
) -> None:
    """Said in another way than the code does: final as without traits, and old enough to be spent.

    Planted bugs seen to fail: maturity asked of depth alone; the least of two maturities; a coinbase counted at sight.
    """
    needed = required_with(requirement, traits)
    age = 100 if Trait.COINBASE in traits else 6 if Trait.PEGOUT in traits else 0
    seen, held = view(reached, safe=reached, finalized=reached), anchor(0)
    old_enough = reached + 1 >= age
    assert is_final(held, needed, seen) == (is_final(held, requirement, seen) and old_enough)
    assert needed.zero_conf == (requirement.zero_conf and age == 0)
    last = max(final_at_height(held, needed), mature_at_height(held, needed))
    assert is_final(held, needed, seen) == (reached >= last)
    if requirement.finality is Finality.DEPTH:
        assert needed.confirmations == max(requirement.confirmations, age)


@given(TRAITS, st.frozensets(st.sampled_from(sorted(RISKS))), st.booleans())
def test_a_sighting_counts_only_with_risks_that_are_accepted(
    traits: frozenset[Trait], accepted: frozenset[Trait], zero_conf: bool
) -> None:
    """Planted bug seen to fail: `&` in place of `<=`, so that one accepted risk accepts the other."""
    requirement = Requirement(Finality.DEPTH, 2, zero_conf, accepted)
    refused = [risk for risk in (Trait.REPLACEABLE, Trait.UNCONFIRMED_PARENT) if risk in traits - accepted]
    assert counts_at_sight(requirement, traits) == (zero_conf and not refused)


@pytest.mark.parametrize(
    ("key", "output"),
    [
        (f"{'ab' * 32}:0", ("ab" * 32, 0)),
        (f"{'ab' * 32}:4294967295", ("ab" * 32, 4294967295)),
        (f"coinbase:{'ab' * 32}", None),
        (f"0x{'ab' * 20}:7", None),  # EVM: sender and nonce
        (f"tx:0x{'ab' * 32}", None),
        ("ab" * 32, None),
        (f"{'ab' * 32}:\u0661", None),
        (f"{'ab' * 32}:", None),
    ],
)
def test_which_output_a_spend_key_names(key: str, output: tuple[str, int] | None) -> None:
    assert outpoint_of(key) == output


def test_the_anchor_in_the_best_chain_counts_wherever_it_stands_in_the_list() -> None:
    best, lost, older = anchor(5), anchor(4, best=False), anchor(3, best=False)
    assert canonical_anchor((lost, best, older)) is best
    assert canonical_anchor((lost, older)) is None
    assert canonical_anchor(()) is None


OURS = tuple(BlockRef(f"0x{height}", height) for height in range(5, 11))


@pytest.mark.parametrize(
    ("theirs", "ancestor"),
    [
        ({10: "0x10", 9: "0x9"}, 10),
        ({10: "0xz", 9: "0x9", 8: "0x8"}, 9),
        ({10: "0xz", 9: "0xy", 5: "0x5"}, 5),
        ({10: "0xz", 5: "0xv"}, None),
        ({11: "0x10"}, None),  # our block at another height is another block
        ({}, None),
    ],
)
def test_the_common_ancestor_is_the_highest_shared_block(
    theirs: dict[int, str], ancestor: int | None
) -> None:
    found = common_ancestor(OURS, theirs)
    assert found == (None if ancestor is None else BlockRef(f"0x{ancestor}", ancestor))
    assert common_ancestor(tuple(reversed(OURS)), theirs) == found


def test_a_header_knows_its_place() -> None:
    assert replace(header(3, "0x2"), hash="0x3").ref == BlockRef("0x3", 3)
