"""Groups of numbers in one array."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctcore.snapshot.arrays import Groups, any_of, group_members, take


def test_spread_says_the_owner_and_the_place_of_each_element() -> None:
    owner, place = group_members(np.array([10, 0, 5]), np.array([2, 0, 3]))
    assert (owner.tolist(), place.tolist()) == ([0, 0, 2, 2, 2], [10, 11, 5, 6, 7])
    owner, place = group_members(np.array([7]), np.array([2]))
    assert (owner.tolist(), place.tolist()) == ([0, 0], [7, 8])


@given(st.lists(st.integers(0, 9), max_size=12))
def test_taken_is_indexing(places: list[int]) -> None:
    array, at = np.arange(10) * 3, np.array(places, np.int64)
    assert take(array, at).tolist() == array[at].tolist()


def test_neighbours_are_taken_without_a_copy() -> None:
    array = np.arange(10)
    assert np.shares_memory(take(array, np.array([3, 4, 5])), array)
    assert not np.shares_memory(take(array, np.array([3, 5, 4])), array)
    assert take(array, np.array([3, 3, 5])).tolist() == [3, 3, 5]


@given(st.lists(st.integers(-1, 4), max_size=20))
def test_groups_have_their_members_in_order(groups: list[int]) -> None:
    found = Groups.of(np.array(groups, np.int64), 5)
    for group in range(5):
        mine = found.members[found.start[group] : found.start[group + 1]].tolist()
        assert mine == [member for member, one in enumerate(groups) if one == group]
    owner, members = found.pairs(np.array([4, 1]))
    assert [(o, m) for o, m in zip(owner.tolist(), members.tolist(), strict=True)] == [
        *((0, m) for m, one in enumerate(groups) if one == 4),
        *((1, m) for m, one in enumerate(groups) if one == 1),
    ]


def test_a_group_has_any_of_its_flags() -> None:
    found = any_of(np.array([True, False, False, True]), np.array([2, 0, 1, 2]), 4)
    assert found.tolist() == [False, False, True, False]
