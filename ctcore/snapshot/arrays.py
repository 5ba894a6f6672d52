"""Groups of numbers that lie behind each other in one array: a node's inputs, a patient's assays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctcore.snapshot.versions import Places

Flags = NDArray[np.bool_]


def group_members(start: Places, count: Places) -> tuple[Places, Places]:
    """Of groups by start and length: which group each element is of, and where it lies."""
    if len(count) == 1:
        return np.zeros(count[0], np.int64), np.arange(start[0], start[0] + count[0])
    owner = np.repeat(np.arange(len(count)), count)
    before = np.cumsum(count) - count
    return owner, np.arange(len(owner)) - np.repeat(before - start, count)


def take(array: NDArray[Any], places: Places) -> NDArray[Any]:
    """`array[places]`; where they lie side by side, as in a cohort of everybody, without copying it."""
    n = len(places)
    if n and places[-1] - places[0] == n - 1 and (n == 1 or bool((places[1:] > places[:-1]).all())):
        return array[places[0] : places[0] + n]
    return array[places]


def any_of(flags: Flags, owner: Places, groups: int) -> Flags:
    """Which groups have an element whose flag is set."""
    found = np.zeros(groups, np.bool_)
    found[owner[flags]] = True
    return found


@dataclass(frozen=True)
class Groups:
    """Members by group, in ascending order: `members[start[g] : start[g + 1]]`."""

    start: Places
    members: Places

    @classmethod
    def of(cls, group: Places, groups: int) -> "Groups":
        """From the group of each member; negative where it has none."""
        order = np.argsort(group, kind="stable")
        order = order[np.count_nonzero(group < 0) :]
        counts = np.bincount(group[order], minlength=groups)
        return cls(np.concatenate(([0], np.cumsum(counts))), order)

    def pairs(self, chosen: Places) -> tuple[Places, Places]:
        """The members of these groups: which of the chosen each belongs to, and the member."""
        owner, place = group_members(self.start[chosen], self.start[chosen + 1] - self.start[chosen])
        return owner, self.members[place]
