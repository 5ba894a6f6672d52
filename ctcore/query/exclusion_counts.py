"""How many entities are excluded, by kind of reason. Counts only, no names."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from sqlalchemy import Connection

from ctcore.governance.access import Bar, bars
from ctcore.inputs.current import current_inputs
from ctcore.inputs.exclusions import LACKS, by_kind, count_excluded
from ctcore.inputs.resolve import Inputs
from ctcore.model.levels import ENTITY_LEVELS, Level, count_text
from ctcore.model.node import Keys
from ctcore.project import Project
from ctcore.snapshot.arrays import Flags
from ctcore.snapshot.entities import locate_numbers
from ctcore.snapshot.hierarchy import in_cohort
from ctcore.snapshot.versions import Places
from ctcore.step import Step

Kinds = Mapping[str, int]
SHOWN = 5  # steps that are named


@dataclass(frozen=True)
class ExclusionCounts:
    """By level and kind: entities that are excluded from everything (each once). By step: those excluded from that
    step only."""

    levels: Mapping[str, Kinds] = field(default_factory=dict)
    steps: Mapping[str, Mapping[str, Kinds]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.levels or self.steps)

    @property
    def words(self) -> str:
        """`2 patients (1 consent revoked, 1 qc_fail), 3 assays (3 consent revoked)`; empty if nobody is excluded."""
        alike: dict[str, list[str]] = {}
        for step, some in self.steps.items():
            alike.setdefault(_said(some), []).append(step)
        said = [f"for {_listed(steps)} only: {words}" for words, steps in list(alike.items())[:SHOWN]]
        rest = sum(map(len, list(alike.values())[SHOWN:]))
        if rest:
            said.append(f"and for {rest} more steps")
        return "; ".join([*([_said(self.levels)] if self.levels else []), *said])


def exclusion_counts(connection: Connection, inputs: Inputs) -> ExclusionCounts:
    """Who is excluded today, from one look at events and consents."""
    barred = _Barred(connection, inputs)
    levels = {level: some for level in ENTITY_LEVELS if (some := barred.counted(barred.first(None, level)))}
    by_step: dict[str, dict[str, Kinds]] = {}
    for step in dict.fromkeys(bar.step for bar in barred.found if bar.step in inputs.snapshot.shape.uses):
        only = [bar for bar in barred.found if bar.step == step]
        for level in ENTITY_LEVELS:
            own = barred.own(level, only)[inputs.hierarchy.usable[level]]
            if some := barred.counted(own):
                by_step.setdefault(step or "", {})[level] = some
    return ExclusionCounts(levels, by_step)


def excluded_by_step(project: Project, keys: Keys | None = None) -> dict[str, Kinds]:
    """Of each step with excluded nodes, by what they are excluded: kind → how many. `keys`: of these nodes only."""
    found: dict[str, Kinds] = {}
    with project.catalog.read() as connection:
        snapshot, inputs = current_inputs(project, connection)
        barred = _Barred(connection, inputs)
        for step in project.steps:
            if keys is not None and step.name not in keys:
                continue
            places = inputs.excluded(step)
            if keys is not None:
                places = np.intersect1d(places, np.array(snapshot.locate(step.name, list(keys[step.name])), np.int64))
            if len(places):
                found[step.name] = barred.count(step, places)
    return found


class _Barred:
    """By what nodes are excluded, in columns: by their entity or an ancestor, or else through an input."""

    def __init__(self, connection: Connection, inputs: Inputs) -> None:
        self.connection, self.inputs, self.hierarchy = connection, inputs, inputs.hierarchy
        entities, shape = self.hierarchy.entities, inputs.snapshot.shape
        self.flags = {
            level: np.logical_or.reduce([entities[level].barred, *entities[level].barred_for.values()])
            for level in ENTITY_LEVELS
        }
        somebody, day = any(flags.any() for flags in self.flags.values()), inputs.snapshot.days[0]
        self.found = bars(connection, shape.uses, day, required=shape.required) if somebody else []
        self.kinds = list(dict.fromkeys(bar.kind for bar in self.found))
        self.special = {bar.step for bar in self.found}
        self._first: dict[tuple[str | None, Level], Places] = {}

    @cached_property
    def touched(self) -> Mapping[Level, Flags]:
        """Entities of which somebody above or below, or they themselves, are barred from something."""
        related = self.hierarchy.related
        return {
            level: np.logical_or.reduce([related(self.flags[one], one, level) for one in ENTITY_LEVELS])
            for level in ENTITY_LEVELS
        }

    def count(self, step: Step, places: Places) -> Kinds:
        """Only those that may be excluded through an input are looked at one by one."""
        if step.level == "cohort":
            return count_excluded(self.connection, self.inputs, step, places.tolist())
        first = self.first(step.name if step.name in self.special else None, step.level)[places]
        rest = places[first < 0]
        near = rest[self.touched[step.level][rest]]
        found = self.counted(first) + count_excluded(self.connection, self.inputs, step, near.tolist())
        return found + Counter({LACKS: len(rest) - len(near)})

    def counted(self, places: Places) -> Counter[str]:
        """How many of each kind these are, of places in `kinds`."""
        numbers, many = np.unique(places[places >= 0], return_counts=True)
        return Counter(dict(zip([self.kinds[at] for at in numbers], many.tolist(), strict=True)))

    def first(self, step: str | None, level: Level) -> Places:
        """Of everybody of a level the kind of the first bar, that of the highest ancestor first; -1: none."""
        if (step, level) not in self._first:
            mine = [bar for bar in self.found if bar.step in (None, step)]
            own = self.own(level, mine)
            if level != ENTITY_LEVELS[0]:
                above = self.first(step, ENTITY_LEVELS[ENTITY_LEVELS.index(level) - 1])
                inherited = above[self.hierarchy.entities[level].parents]
                own = np.where(inherited >= 0, inherited, own)
            self._first[step, level] = own
        return self._first[step, level]

    def own(self, level: Level, found: Sequence[Bar]) -> Places:
        """The kind of the first of these bars of everybody of a level, as its place in `kinds`; -1: none."""
        some, first = self.hierarchy.entities[level], dict[int, str]()
        for bar in found:
            first.setdefault(bar.entity, bar.kind)
        place, here = locate_numbers(some.seq, np.array(list(first), np.int64))
        number = {kind: at for at, kind in enumerate(self.kinds)}
        own = np.full(len(some), -1)
        own[place[here]] = np.array([number[kind] for kind in first.values()], np.int64)[here]
        return own


def excluded_lines(found: Mapping[str, Kinds]) -> list[str]:
    """The same for people: steps with the same counts are one line. `ct status STEP --missing` names each node."""
    alike: dict[str, list[str]] = {}
    for step, kinds in found.items():
        alike.setdefault(by_kind(kinds), []).append(step)
    return [f"excluded from {_listed(steps)}: {words}" for words, steps in alike.items()]


def emptied_cohorts(project: Project, names: Iterable[str]) -> list[str]:
    """Of which of these cohorts nobody may be used, and who is excluded in this project: a line each."""
    with project.catalog.read() as connection:
        inputs = current_inputs(project, connection)[1]
        cohorts = [(name, project.settings.cohorts[name]) for name in names if name in project.settings.cohorts]
        empty = [name for name, one in cohorts if not in_cohort(inputs.hierarchy, "patient", one).any()]
        words = exclusion_counts(connection, inputs).words if empty else ""
    return [f"nobody of {name} may be used; excluded from all: {words}" for name in empty if words]


def _listed(steps: Sequence[str]) -> str:
    more = len(steps) - SHOWN
    return ", ".join(steps[:SHOWN]) + (f" and {more} more step{'s' * (more > 1)}" if more > 0 else "")


def _said(levels: Mapping[str, Kinds]) -> str:
    return ", ".join(f"{count_text(sum(some.values()), level)} ({by_kind(some)})" for level, some in levels.items())
