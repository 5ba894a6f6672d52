"""Compare the inputs that nodes were made from with those of today, for any number of nodes at once."""

from dataclasses import dataclass

import numpy as np

from ctcore.inputs.resolve import ResolvedInput
from ctcore.snapshot.arrays import Flags, take
from ctcore.snapshot.artifacts import UsedInputs
from ctcore.snapshot.versions import Places, Whole, differing_versions


@dataclass(frozen=True)
class Differences:
    """Changed, new and removed sources of the chosen nodes, by position among the chosen.

    `changed` and `went` point at the recorded edge; `came` and `changed` at the source.
    """

    changed: tuple[Places, Places, Places]
    came: tuple[Places, Places]
    went: tuple[Places, Places]


def compare(
    want: ResolvedInput, used: UsedInputs, chosen: Places, versions: Whole, owner: Places, source: Places
) -> Differences:
    """`owner` and `source` are the pairs that `want` gives for the chosen nodes, `versions` those of the sources."""
    was_owner, edges = used.pairs(chosen)
    was_source = take(used.source, edges)
    # Nearly all nodes keep their sources from one evaluation to the next: then nothing has to be searched.
    if len(owner) == len(was_owner) and np.array_equal(source, was_source) and np.array_equal(owner, was_owner):
        other = np.flatnonzero(differing_versions(versions, take(used.version, edges)))
        empty = np.zeros(0, np.int64)
        return Differences((owner[other], source[other], edges[other]), (empty, empty), (empty, empty))
    today, before = _keys(owner, source, was_source), _keys(was_owner, was_source, source)
    place, stayed = _among(today, before)
    other = stayed.copy()
    other[stayed] = differing_versions(versions[stayed], used.version[edges[place[stayed]]])
    gone = ~_among(before, today)[1]
    return Differences(
        (owner[other], source[other], edges[place[other]]),
        (owner[~stayed], source[~stayed]),
        (was_owner[gone], edges[gone]),
    )


def _keys(owner: Places, source: Places, others: Places) -> Places:
    """One ascending number for each pair. A source is negative if it is unknown today."""
    low = min(int(source.min(initial=0)), int(others.min(initial=0)))
    width = max(int(source.max(initial=0)), int(others.max(initial=0))) - low + 1
    # 10⁶ nodes by 10⁶ sources are 10¹², far from the 9 · 10¹⁸ of 63 bits.
    return owner.astype(np.int64) * width + (source.astype(np.int64) - low)


def _among(asked: Places, known: Places) -> tuple[Places, Flags]:
    if not len(known):
        return np.zeros(len(asked), np.int64), np.zeros(len(asked), np.bool_)
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return place, known[place] == asked
