"""② Who belongs to what today: ancestors and descendants, who may be used, who is in a cohort, in columns."""

import json
import math
from collections.abc import Mapping, Set
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np

from ctcore.cohort import COMPARES, Cohort, Condition
from ctcore.digest import canonical
from ctcore.mirror.entities import Entities, number_of
from ctcore.mirror.ranges import Flags, Groups, any_of
from ctcore.mirror.versions import Places, Whole, are_among
from ctcore.step import ENTITY_LEVELS, Level


def rank(level: str) -> int:
    return ENTITY_LEVELS.index(level)  # type: ignore[arg-type]


class Kin:
    """Who belongs to whom. All answers are by position in a level."""

    def __init__(self, entities: Mapping[str, Entities]) -> None:
        self.entities = entities
        self._above: dict[tuple[str, str], Places] = {}
        self._below: dict[tuple[str, str], Groups] = {}
        self._able: dict[tuple[str, str], Flags] = {}

    def above(self, level: str, higher: str) -> Places:
        """The ancestor of everybody of a level at a higher one (or at the same)."""
        if (level, higher) not in self._above:
            found = np.arange(len(self.entities[level]))
            for at in range(rank(level), rank(higher), -1):
                found = self.entities[ENTITY_LEVELS[at]].parents[found]
            self._above[level, higher] = found
        return self._above[level, higher]

    def below(self, level: str, lower: str) -> Groups:
        """The descendants of everybody of a level at a lower one."""
        if (level, lower) not in self._below:
            self._below[level, lower] = Groups.of(self.above(lower, level), len(self.entities[level]))
        return self._below[level, lower]

    @cached_property
    def usable(self) -> dict[str, Flags]:
        """Who may be used: nobody does who belongs to one that may not."""
        return self._inherited({level: ~some.barred for level, some in self.entities.items()})

    @cached_property
    def withheld(self) -> dict[str, Flags]:
        """Whose very existence is nobody's business: patients without consent and all below them."""
        shown = self._inherited({level: ~some.withheld for level, some in self.entities.items()})
        return {level: ~flags for level, flags in shown.items()}

    def _inherited(self, own: Mapping[str, Flags]) -> dict[str, Flags]:
        """True of whom it is true himself, and of all above."""
        found: dict[str, Flags] = {}
        for level in ENTITY_LEVELS:
            found[level] = own[level]
            if level != "patient":
                found[level] = own[level] & found[ENTITY_LEVELS[rank(level) - 1]][self.entities[level].parents]
        return found

    def able(self, step: str, level: str) -> Flags:
        """Who of a level may be used for a step."""
        if (step, level) not in self._able:
            found = self.usable[level]
            for higher in ENTITY_LEVELS[: rank(level) + 1]:
                some = self.entities[higher].barred_for.get(step)
                if some is not None:
                    found = found & ~some[self.above(level, higher)]
            self._able[step, level] = found
        return self._able[step, level]

    @property
    def limited(self) -> Set[str]:
        """Steps that some patient's consent is too limited for."""
        return self.entities["patient"].unwilling.keys()

    def forbids(self, step: str) -> bool:
        """Whether anybody's consent does not allow a step."""
        return bool(self.withheld["patient"].any()) or step in self.limited

    def permits(self, step: str, level: str) -> Flags:
        """Whose consent, or whose patient's, allows a step. Quality says nothing here."""
        some = self.entities["patient"].unwilling.get(step)
        allowed = ~self.withheld[level]
        return allowed if some is None else allowed & ~some[self.above(level, "patient")]

    def linked(self, flags: Flags, level: str, other: str) -> Flags:
        """Who of `other` has an ancestor or a descendant at `level` with this flag."""
        if rank(level) <= rank(other):
            return flags[self.above(other, level)]
        return any_of(flags, self.above(level, other), len(self.entities[other]))

    def column(self, column: str, of: str) -> Whole:
        """The data versions of `level.column` for everybody of a level below it (or of its own)."""
        level, _, name = column.partition(".")
        return self.entities[level].columns[name][self.above(of, level)]


def in_cohort(kin: Kin, level: Level, cohort: Cohort) -> Flags:
    """Who of a level is in the cohort: decided on the rule's level, for the others by an ancestor or a descendant."""
    return kin.linked(_chosen(kin, cohort), cohort.at, level) & kin.usable[level]


def _chosen(kin: Kin, cohort: Cohort) -> Flags:
    """Who of the rule's level satisfies it."""
    level = cohort.at
    found = _with_enough(kin, cohort, _fitting(kin, cohort))
    found = kin.linked(found, cohort.depth, level) & kin.usable[level]
    if cohort.members is not None:
        index = kin.entities[cohort.listed].index
        listed = np.zeros(len(index), np.bool_)
        listed[[index[one] for one in cohort.members if one in index]] = True
        found &= kin.linked(listed, cohort.listed, level)
    if cohort.any_of:
        found &= np.logical_or.reduce([in_cohort(kin, level, one) for one in cohort.any_of])
    for one in cohort.all_of:
        found &= in_cohort(kin, level, one)
    for one in cohort.none_of:
        found &= ~in_cohort(kin, level, one)
    return found


def _fitting(kin: Kin, cohort: Cohort) -> Flags:
    """Who of the deepest level of `where` satisfies all of it, by itself and its ancestors."""
    found = kin.usable[cohort.depth].copy()
    for column, conditions in cohort.where.items():
        own = column.partition(".")[0]
        for one in conditions:
            found &= _meets(kin, column, one)[kin.above(cohort.depth, own)]
    return found


def _meets(kin: Kin, column: str, condition: Condition) -> Flags:
    level, _, name = column.partition(".")
    values = kin.entities[level].columns[name]
    if condition.op in COMPARES:
        numbers, bound = kin.entities[level].numbers[name], number_of(condition.values[0])
        return _COMPARE[condition.op](numbers, bound)  # a blank is NaN, for which no comparison holds
    blank = are_among(values, ["null"])
    if condition.op == "known":
        return blank if condition.values == ("false",) else ~blank
    has = are_among(values, [text for value in condition.values for text in texts_of(value)])
    return ~has & ~blank if condition.op == "not" else has & ~blank


_COMPARE: Mapping[str, Any] = {">=": np.greater_equal, ">": np.greater, "<=": np.less_equal, "<": np.less}


def _with_enough(kin: Kin, cohort: Cohort, found: Flags) -> Flags:
    """Those of patients who have so many specimens and assays that satisfy `where`."""
    enough = np.ones(len(kin.entities["patient"]), np.bool_)
    for level, least in cohort.has.items():
        mine = kin.linked(found, cohort.depth, level) & kin.usable[level]
        enough &= np.bincount(kin.above(level, "patient")[mine], minlength=len(enough)) >= least
    return found & enough[kin.above(cohort.depth, "patient")]


def texts_of(value: str) -> list[str]:
    """The JSON texts that a value of ct.toml may have in the catalog: as text, number or boolean."""
    texts = [canonical(value).decode()]
    try:
        number = json.loads(value)
    except ValueError:
        return texts
    if isinstance(number, bool):
        return [*texts, value]
    if isinstance(number, int | float) and math.isfinite(number):
        texts += sorted(_spellings(number) | {value})
    return texts


def _spellings(number: float) -> set[str]:
    """The canonical texts of one number: 30 and 30.0."""
    forms = {canonical(number).decode(), *(("0", "-0.0") if number == 0 else ())}
    if number == int(number):
        forms.add(str(int(number)))
    with suppress(OverflowError):
        forms |= {repr(float(number))} if float(number) == number else set()
    return forms
