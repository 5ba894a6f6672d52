"""How many entities are excluded, by kind of reason. Counts only, no names."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import Connection

from ctcore.governance.access import Bar, bars
from ctcore.inputs.current import current_inputs
from ctcore.inputs.exclusions import LACKS, by_kind, count_excluded
from ctcore.inputs.resolve import Inputs
from ctcore.model.levels import ENTITY_LEVELS, Level, count_text
from ctcore.model.node import Keys
from ctcore.project import Project
from ctcore.snapshot.entities import Entities, locate_numbers
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
    hierarchy, shape = inputs.hierarchy, inputs.snapshot.shape
    if all(flags.all() for flags in hierarchy.usable.values()) and not any(
        one.barred_for for one in hierarchy.entities.values()
    ):
        return ExclusionCounts()
    found = bars(connection, shape.uses, inputs.snapshot.days[0], required=shape.required)
    kinds = list(dict.fromkeys(bar.kind for bar in found))
    levels: dict[str, Kinds] = {}
    above: Places = np.zeros(0, np.int64)
    for level in ENTITY_LEVELS:
        some = hierarchy.entities[level]
        own = _own(some, [bar for bar in found if bar.step is None], kinds)
        inherited = own if level == "patient" else above[some.parents]
        above = np.where(inherited >= 0, inherited, own)
        levels[level] = {kinds[at]: int((above == at).sum()) for at in np.unique(above[above >= 0])}
    by_step: dict[str, dict[str, Kinds]] = {}
    for step in dict.fromkeys(bar.step for bar in found if bar.step in shape.uses):
        only = [bar for bar in found if bar.step == step]
        for level in ENTITY_LEVELS:
            own = _own(hierarchy.entities[level], only, kinds)[hierarchy.usable[level]]
            if (own >= 0).any():
                counted = {kinds[at]: int((own == at).sum()) for at in np.unique(own[own >= 0])}
                by_step.setdefault(step or "", {})[level] = counted
    return ExclusionCounts({level: some for level, some in levels.items() if some}, by_step)


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
        some, shape = self.hierarchy.entities, inputs.snapshot.shape
        any_barred = {
            level: np.logical_or.reduce([some[level].barred, *some[level].barred_for.values()])
            for level in ENTITY_LEVELS
        }
        somebody = any(flags.any() for flags in any_barred.values())
        days = inputs.snapshot.days
        self.found = bars(connection, shape.uses, days[0], required=shape.required) if somebody else []
        self.kinds = list(dict.fromkeys(bar.kind for bar in self.found))
        self.special = {bar.step for bar in self.found}
        self.touched = {
            level: np.logical_or.reduce([self.hierarchy.related(any_barred[one], one, level) for one in ENTITY_LEVELS])
            for level in ENTITY_LEVELS
        }
        self._first: dict[tuple[str | None, Level], Places] = {}

    def count(self, step: Step, places: Places) -> Kinds:
        """Only those that may be excluded through an input are looked at one by one."""
        if step.level == "cohort":
            return count_excluded(self.connection, self.inputs, step, places.tolist())
        first = self._of(step.name if step.name in self.special else None, step.level)[places]
        numbers, many = np.unique(first[first >= 0], return_counts=True)
        found = Counter(dict(zip([self.kinds[at] for at in numbers], many.tolist(), strict=True)))
        rest = places[first < 0]
        near = rest[self.touched[step.level][rest]]
        found += count_excluded(self.connection, self.inputs, step, near.tolist())
        return found + Counter({LACKS: len(rest) - len(near)})

    def _of(self, step: str | None, level: Level) -> Places:
        """Of everybody of a level the kind of the first bar, that of the highest ancestor first; -1: none."""
        if (step, level) not in self._first:
            mine = [bar for bar in self.found if bar.step in (None, step)]
            own = _own(self.hierarchy.entities[level], mine, self.kinds)
            if level != ENTITY_LEVELS[0]:
                above = self._of(step, ENTITY_LEVELS[ENTITY_LEVELS.index(level) - 1])
                inherited = above[self.hierarchy.entities[level].parents]
                own = np.where(inherited >= 0, inherited, own)
            self._first[step, level] = own
        return self._first[step, level]


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


def _own(some: Entities, found: Sequence[Bar], kinds: Sequence[str]) -> Places:
    """The kind of the first bar of everybody of a level, as its place in `kinds`; -1 where there is none."""
    own = np.full(len(some), -1)
    first: dict[int, str] = {}
    for bar in found:
        first.setdefault(bar.entity, bar.kind)
    place, here = locate_numbers(some.seq, np.array(list(first), np.int64))
    number = {kind: at for at, kind in enumerate(kinds)}
    own[place[here]] = np.array([number[kind] for kind in first.values()], np.int64)[here]
    return own


def _listed(steps: Sequence[str]) -> str:
    more = len(steps) - SHOWN
    return ", ".join(steps[:SHOWN]) + (f" and {more} more step{'s' * (more > 1)}" if more > 0 else "")


def _said(levels: Mapping[str, Kinds]) -> str:
    return ", ".join(f"{count_text(sum(some.values()), level)} ({by_kind(some)})" for level, some in levels.items())
