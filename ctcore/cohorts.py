"""② Who belongs to what today: ancestors and descendants, who may be used, who is in a cohort, in columns."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property

import numpy as np

from ctcore.digest import canonical
from ctcore.mirror.entities import Entities
from ctcore.mirror.ranges import Flags, Groups, any_of
from ctcore.mirror.versions import Places, Whole, are_among
from ctcore.settings import Cohort
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
    """Who of a level satisfies the cohort's rule: by an own or an ancestor's column, or by one of the descendants'."""
    found = kin.usable[level].copy()
    for column, value in cohort.where.items():
        own: Level = column.partition(".")[0]  # type: ignore[assignment]
        has = are_among(kin.column(column, own), texts_of(value)) & kin.usable[own]
        found &= kin.linked(has, own, level)
    return found


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
