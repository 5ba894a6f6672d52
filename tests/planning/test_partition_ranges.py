"""Few runs for many nodes, and what a making costs."""

from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcore.errors import Usage
from ctcore.model.reasons import Verdict
from ctcore.planning.partition_ranges import GAP, PartitionRange, asked_partitions, asked_text, stretches
from ctcore.planning.past_costs import Cost, Remakings, costs, spending_since
from tests.helpers.kit import make_all, make_project


@given(st.lists(st.integers(0, 3000), unique=True).map(sorted), st.integers(1, 50), st.integers(1, 300))
def test_stretches_hold_everything_once_within_their_bounds(positions: list[int], most: int, gap: int) -> None:
    found = list(stretches(positions, most, gap))
    assert [one for group in found for one in group] == positions
    for group in found:
        assert group[-1] - group[0] < most
        assert all(later - one <= gap for one, later in pairwise(group))
    for one, other in pairwise(found):  # no two that could be one
        assert other[0] - one[0] >= most or other[0] - one[-1] > gap


def test_a_small_gap_is_bridged_and_a_large_one_is_not() -> None:
    assert list(stretches([0, GAP], 500)) == [[0, GAP]]
    assert list(stretches([0, GAP + 1], 500)) == [[0], [GAP + 1]]
    assert list(stretches([], 500)) == []


def test_the_same_nodes_and_reasons_are_the_same_request() -> None:
    one, other = (Verdict("merged", name, "stale") for name in ("S1", "S2"))
    assert PartitionRange("merged", "S1", "S1", (one,)).key == PartitionRange("merged", "S1", "S9", (one,)).key
    assert PartitionRange("merged", "S1", "S1", (one,)).key != PartitionRange("merged", "S1", "S1", (other,)).key


def test_costs_and_spending_are_those_of_the_ledger(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    assert costs(project, ["counted"])["counted"] == Cost()
    make_all(project)
    found = costs(project, ["counted", "joined"])
    assert (found["counted"].runs, found["joined"].runs) == (3, 1)
    assert (found["counted"].seconds or 0) > 0
    assert spending_since(project, "2000-01-01").nodes == 6 and spending_since(project, "2999-01-01").nodes == 0


def test_a_share_of_nothing_is_unknown() -> None:
    assert (Remakings().share, Remakings().share_of_same) == (None, None)
    found = Remakings(other_call=4, gave_other=1, same_call=2, differed=1)
    assert (found.share, found.share_of_same) == (pytest.approx(0.25), pytest.approx(0.5))


@given(flags=st.lists(st.booleans(), min_size=1, max_size=40), seed=st.randoms())
def test_what_was_asked_for_is_told_without_names(flags: list[bool], seed: Random) -> None:
    covered = [f"PATIENT-{n}" for n in range(len(flags))]
    asked = {key for key, flag in zip(covered, flags, strict=True) if flag}
    said = asked_text(covered, asked)
    assert said.startswith(f"{len(asked)} of {len(covered)} ") and "PATIENT" not in said
    mixed = seed.sample(covered, len(covered))
    assert asked_partitions(said, mixed) == [key for key in mixed if key in asked]
    for other in (covered[1:], [*covered, "PATIENT-x"], ["PATIENT-x", *covered[1:]]):
        with pytest.raises(Usage, match="launch them again"):
            asked_partitions(said, other)
