"""⑦ What a node was made from beside what it would be made from today, for any number of nodes at once."""

from dataclasses import dataclass

import numpy as np

from ctcore.inputs import Want
from ctcore.mirror.made import Used
from ctcore.mirror.ranges import Flags, taken
from ctcore.mirror.versions import Places, Whole, differ


@dataclass(frozen=True)
class Differences:
    """Of some chosen nodes, by place among the chosen: sources that changed, came, and went.

    `changed` and `went` say where the edge lies in what was used; `came` and `changed` which source it is.
    """

    changed: tuple[Places, Places, Places]
    came: tuple[Places, Places]
    went: tuple[Places, Places]


def compare(want: Want, used: Used, chosen: Places, versions: Whole, owner: Places, source: Places) -> Differences:
    """`owner` and `source` are the pairs that `want` gives for the chosen nodes, `versions` those of the sources."""
    was_owner, edges = used.pairs(chosen)
    was_source = taken(used.source, edges)
    if len(owner) == len(was_owner) and np.array_equal(source, was_source) and np.array_equal(owner, was_owner):
        other = np.flatnonzero(differ(versions, taken(used.version, edges)))
        empty = np.zeros(0, np.int64)
        return Differences((owner[other], source[other], edges[other]), (empty, empty), (empty, empty))
    today, before = _keys(owner, source, was_source), _keys(was_owner, was_source, source)
    place, stayed = _among(today, before)
    other = stayed.copy()
    other[stayed] = differ(versions[stayed], used.version[edges[place[stayed]]])
    gone = ~_among(before, today)[1]
    return Differences(
        (owner[other], source[other], edges[place[other]]),
        (owner[~stayed], source[~stayed]),
        (was_owner[gone], edges[gone]),
    )


def _keys(owner: Places, source: Places, others: Places) -> Places:
    """One ascending number for each pair. Sources may be negative: what is unknown today."""
    low = min(int(source.min(initial=0)), int(others.min(initial=0)))
    width = max(int(source.max(initial=0)), int(others.max(initial=0))) - low + 1
    return owner.astype(np.int64) * width + (source.astype(np.int64) - low)


def _among(asked: Places, known: Places) -> tuple[Places, Flags]:
    if not len(known):
        return np.zeros(len(asked), np.int64), np.zeros(len(asked), np.bool_)
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return place, known[place] == asked
