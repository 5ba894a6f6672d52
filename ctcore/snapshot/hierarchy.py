"""Ancestors, descendants, exclusions and cohort members of today, in columns."""

from collections.abc import Mapping, Set
from functools import cached_property
from typing import Any

import numpy as np

from ctcore.model.cohort_rule import COMPARES, Cohort, Condition
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.spellings import texts_of
from ctcore.snapshot.arrays import Flags, Groups, any_of
from ctcore.snapshot.entities import Entities, number_of
from ctcore.snapshot.versions import Places, Whole, are_among


def rank(level: str) -> int:
    return ENTITY_LEVELS.index(level)  # type: ignore[arg-type]


class Hierarchy:
    """Ancestors and descendants. All answers are by position in a level."""

    def __init__(self, entities: Mapping[str, Entities]) -> None:
        self.entities = entities
        self._above: dict[tuple[str, str], Places] = {}
        self._below: dict[tuple[str, str], Groups] = {}
        self._able: dict[tuple[str, str], Flags] = {}

    def ancestors(self, level: str, higher: str) -> Places:
        """The ancestor of everybody of a level at a higher one (or at the same)."""
        if (level, higher) not in self._above:
            found = np.arange(len(self.entities[level]))
            for at in range(rank(level), rank(higher), -1):
                found = self.entities[ENTITY_LEVELS[at]].parents[found]
            self._above[level, higher] = found
        return self._above[level, higher]

    def descendants(self, level: str, lower: str) -> Groups:
        """The descendants of everybody of a level at a lower one."""
        if (level, lower) not in self._below:
            self._below[level, lower] = Groups.of(self.ancestors(lower, level), len(self.entities[level]))
        return self._below[level, lower]

    @cached_property
    def usable(self) -> dict[str, Flags]:
        """Entities that may be used: none with a barred ancestor."""
        return self._inherited({level: ~some.barred for level, some in self.entities.items()})

    @cached_property
    def withheld(self) -> dict[str, Flags]:
        """Entities whose existence must not be shown: patients without consent and their descendants."""
        shown = self._inherited({level: ~some.withheld for level, some in self.entities.items()})
        return {level: ~flags for level, flags in shown.items()}

    def _inherited(self, own: Mapping[str, Flags]) -> dict[str, Flags]:
        """True for an entity if it is true for it and for all its ancestors."""
        found: dict[str, Flags] = {}
        for level in ENTITY_LEVELS:
            found[level] = own[level]
            if level != "patient":
                found[level] = own[level] & found[ENTITY_LEVELS[rank(level) - 1]][self.entities[level].parents]
        return found

    def usable_for(self, step: str, level: str) -> Flags:
        """Entities of a level that a step may use."""
        if (step, level) not in self._able:
            found = self.usable[level]
            for higher in ENTITY_LEVELS[: rank(level) + 1]:
                some = self.entities[higher].barred_for.get(step)
                if some is not None:
                    found = found & ~some[self.ancestors(level, higher)]
            self._able[step, level] = found
        return self._able[step, level]

    @property
    def limited_steps(self) -> Set[str]:
        """Steps that some patient's consent is too limited for."""
        return self.entities["patient"].nonconsenting.keys()

    def forbids(self, step: str) -> bool:
        """Whether anybody's consent does not allow a step."""
        return bool(self.withheld["patient"].any()) or step in self.limited_steps

    def permits(self, step: str, level: str) -> Flags:
        """Entities whose patient's consent allows a step. Quality does not count here."""
        some = self.entities["patient"].nonconsenting.get(step)
        allowed = ~self.withheld[level]
        return allowed if some is None else allowed & ~some[self.ancestors(level, "patient")]

    def related(self, flags: Flags, level: str, other: str) -> Flags:
        """Entities of `other` with an ancestor or a descendant at `level` that has this flag."""
        if rank(level) <= rank(other):
            return flags[self.ancestors(other, level)]
        return any_of(flags, self.ancestors(level, other), len(self.entities[other]))

    def column(self, column: str, of: str) -> Whole:
        """The data versions of `level.column` for everybody of a level below it (or of its own)."""
        level, _, name = column.partition(".")
        return self.entities[level].columns[name][self.ancestors(of, level)]


def in_cohort(hierarchy: Hierarchy, level: Level, cohort: Cohort) -> Flags:
    """Members of a cohort at a level: decided at the rule's level, and through ancestors or descendants elsewhere."""
    return hierarchy.related(_chosen(hierarchy, cohort), cohort.deciding_level, level) & hierarchy.usable[level]


def _chosen(hierarchy: Hierarchy, cohort: Cohort) -> Flags:
    """Entities of the rule's level that satisfy it."""
    level = cohort.deciding_level
    found = _with_enough(hierarchy, cohort, _fitting(hierarchy, cohort))
    found = hierarchy.related(found, cohort.depth, level) & hierarchy.usable[level]
    if cohort.members is not None:
        index = hierarchy.entities[cohort.listed].index
        listed = np.zeros(len(index), np.bool_)
        listed[[index[one] for one in cohort.members if one in index]] = True
        found &= hierarchy.related(listed, cohort.listed, level)
    if cohort.any_of:
        found &= np.logical_or.reduce([in_cohort(hierarchy, level, one) for one in cohort.any_of])
    for one in cohort.all_of:
        found &= in_cohort(hierarchy, level, one)
    for one in cohort.none_of:
        found &= ~in_cohort(hierarchy, level, one)
    return found


def _fitting(hierarchy: Hierarchy, cohort: Cohort) -> Flags:
    """Entities of the deepest level of `where` that satisfy all of it, by their own columns and their ancestors'."""
    found = hierarchy.usable[cohort.depth].copy()
    for column, conditions in cohort.where.items():
        own = column.partition(".")[0]
        for one in conditions:
            found &= _meets(hierarchy, column, one)[hierarchy.ancestors(cohort.depth, own)]
    return found


def _meets(hierarchy: Hierarchy, column: str, condition: Condition) -> Flags:
    level, _, name = column.partition(".")
    values = hierarchy.entities[level].columns[name]
    if condition.op in COMPARES:
        numbers, bound = hierarchy.entities[level].numbers[name], number_of(condition.values[0])
        return _COMPARE[condition.op](numbers, bound)  # a blank is NaN, for which no comparison holds
    blank = are_among(values, ["null"])
    if condition.op == "known":
        return blank if condition.values == ("false",) else ~blank
    has = are_among(values, [text for value in condition.values for text in texts_of(value)])
    return ~has & ~blank if condition.op == "not" else has & ~blank


_COMPARE: Mapping[str, Any] = {">=": np.greater_equal, ">": np.greater, "<=": np.less_equal, "<": np.less}


def _with_enough(hierarchy: Hierarchy, cohort: Cohort, found: Flags) -> Flags:
    """Patients with enough specimens and assays that satisfy `where`."""
    enough = np.ones(len(hierarchy.entities["patient"]), np.bool_)
    for level, least in cohort.has.items():
        mine = hierarchy.related(found, cohort.depth, level) & hierarchy.usable[level]
        enough &= np.bincount(hierarchy.ancestors(level, "patient")[mine], minlength=len(enough)) >= least
    return found & enough[hierarchy.ancestors(cohort.depth, "patient")]
