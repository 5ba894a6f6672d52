"""Narrow a command to the members of a cohort, and to the complete cases of a pairing."""

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ctcore.cohorts.pairings import Readiness, declared_pairing, group_entities, names_of, readiness
from ctcore.errors import Usage
from ctcore.inputs.current import current_inputs
from ctcore.inputs.exclusions import by_kind, count_exclusions
from ctcore.inputs.resolve import Inputs
from ctcore.model.cohort_rule import Cohort
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.project import Project
from ctcore.snapshot.arrays import Flags
from ctcore.snapshot.hierarchy import Hierarchy, in_cohort
from ctcore.step import Step

Keys = Mapping[str, set[str]]
TOLD = 10  # groups that are left out and named one by one


@dataclass(frozen=True)
class NodeFilter:
    """A cohort, a pairing, or both. With a pairing: groups that have any of it; `complete_only`: all of it."""

    cohort: str | None = None
    pairing: str | None = None
    complete_only: bool = False

    def __bool__(self) -> bool:
        return self != NodeFilter()

    @property
    def options(self) -> list[str]:
        """The options as typed in the shell."""
        named = [("--cohort", self.cohort), ("--pairing", self.pairing)]
        said = [part for option, name in named if name is not None for part in (option, name)]
        return [*said, *(["--complete-only"] if self.complete_only else [])]

    def resolved_pairing(self, project: Project) -> str | None:
        """The pairing to use: the named one, that of the cohort, or the only one; None if there is none."""
        if self.pairing is not None:
            return declared_pairing(project, self.pairing).name
        if not self.complete_only:
            return None
        of_cohort = known_cohort(project, self.cohort).pairing if self.cohort else None
        known = list(project.settings.pairings)
        if of_cohort is None and len(known) != 1:
            way = f"say which: --pairing {' or '.join(known)}" if known else "declare one: [pairings.NAME] in ct.toml"
            raise Usage(f"--complete-only: complete in which pairing? {way}")
        return of_cohort or known[0]


@dataclass(frozen=True)
class FilteredNodes:
    """The remaining nodes by step, and notes on the others."""

    keys: Keys
    notes: tuple[str, ...] = ()


def known_cohort(project: Project, name: str) -> Cohort:
    known = project.settings.cohorts
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise Usage(f"no cohort {name!r}; declared: {', '.join(known)}{hint}")
    return known[name]


def members_of(project: Project, name: str) -> dict[Level, list[str]]:
    """The members of a cohort by level; the cohort itself is a node of its own level."""
    cohort = known_cohort(project, name)
    with project.catalog.read() as connection:
        hierarchy = current_inputs(project, connection)[1].hierarchy
    found: dict[Level, list[str]] = {
        one: names_of(hierarchy, one, in_cohort(hierarchy, one, cohort)) for one in ENTITY_LEVELS
    }
    return {**found, "cohort": [name]}


def filter_nodes(project: Project, narrowing: NodeFilter, keys: Keys | None) -> FilteredNodes:
    """Drop nodes outside the cohort or incomplete in the pairing (None: from all nodes of all steps).

    Usage error if nodes were named and none of them remains.
    """
    narrower = _Narrower(project, narrowing)
    asked = {
        step.name: keys.get(step.name) if keys else None for step in project.steps if keys is None or step.name in keys
    }
    found: dict[str, set[str]] = {}
    for name, mine in asked.items():
        left = narrower.of(project.steps[name])
        found[name] = left if mine is None else left & mine
    some = {name: left for name, left in found.items() if left}
    if keys and not some:
        refuse_all_excluded(project, keys)
        where, (many, why) = " ".join(narrowing.options), _exclusions(project, keys)
        hint = f"{many:,} {'is' if many == 1 else 'are'} excluded ({why}), and " if many else ""
        raise Usage(f"none of the selected nodes is left by {where}; {hint}`ct cohort {where}` says who is in it")
    return FilteredNodes(some, tuple(narrower.said()))


def refuse_all_excluded(project: Project, keys: Keys) -> None:
    """Usage error where nodes were selected and each is excluded: how many, and by what."""
    many, why = _exclusions(project, keys)
    if many and many == sum(map(len, keys.values())):
        which = "the selected node is" if many == 1 else f"all {many:,} selected nodes are"
        raise Usage(f"{which} excluded ({why}); `ct status --all` lists them")


def _exclusions(project: Project, keys: Keys) -> tuple[int, str]:
    """How many of these nodes are excluded, and by what: `2 consent revoked, 1 qc_fail`. Names nobody."""
    kinds = Counter[str]()
    with project.catalog.read() as connection:
        inputs = current_inputs(project, connection)[1]
        for step, names in ((project.steps[name], names) for name, names in keys.items()):
            if step.level != "cohort":
                index = inputs.hierarchy.entities[step.level].index
                places = [index[name] for name in names if name in index]
                kinds += count_exclusions(connection, inputs, step.name, step.level, places)
    return kinds.total(), by_kind(kinds)


class _Narrower:
    """The remaining entities by level. Steps that somebody is censored for have their own complete cases."""

    def __init__(self, project: Project, narrowing: NodeFilter) -> None:
        self.project, self.narrowing = project, narrowing
        self.cohort = known_cohort(project, narrowing.cohort) if narrowing.cohort else None
        self.pairing = narrowing.resolved_pairing(project)
        with project.catalog.read() as connection:
            self.inputs: Inputs = current_inputs(project, connection)[1]
        self.hierarchy: Hierarchy = self.inputs.hierarchy
        self._ready: dict[str | None, Readiness] = {}
        self._names: dict[tuple[Level, str | None], set[str]] = {}

    def of(self, step: Step) -> set[str]:
        special = any(step.name in some.barred_for for some in self.hierarchy.entities.values())
        purpose = step.name if special and self.pairing else None
        if step.level == "cohort":
            return self._cohorts(purpose)
        if (step.level, purpose) not in self._names:
            self._names[step.level, purpose] = set(
                names_of(self.hierarchy, step.level, self._flags(step.level, purpose))
            )
        return self._names[step.level, purpose]

    def _flags(self, level: Level, purpose: str | None) -> Flags:
        found = self.hierarchy.usable[level]
        if self.cohort is not None:
            found = found & in_cohort(self.hierarchy, level, self.cohort)
        if self.pairing is None:
            return found
        ready = self.ready(purpose)
        chosen = [row.at for row in ready.rows if row.status == "complete" or not self.narrowing.complete_only]
        return found & group_entities(self.hierarchy, ready, chosen).get(level, np.zeros_like(found))

    def _cohorts(self, purpose: str | None) -> set[str]:
        """A cohort's own nodes are made from all its members, so they remain only if no member is dropped."""
        if self.cohort is None or (self.pairing and self.left_out(purpose)):
            return set()
        return {self.cohort.name}

    def ready(self, purpose: str | None) -> Readiness:
        if purpose not in self._ready:
            assert self.pairing is not None
            name = self.cohort.name if self.cohort else None
            self._ready[purpose] = readiness(self.project, self.pairing, step=purpose, cohort=name)
        return self._ready[purpose]

    def left_out(self, purpose: str | None) -> int:
        ready = self.ready(purpose)
        return ready.without + (len(ready.rows) - ready.counts["complete"] if self.narrowing.complete_only else 0)

    def said(self) -> list[str]:
        """How many groups are left out and why, in the words of `ct cohort --pairing`."""
        if self.pairing is None:
            return []
        ready, many = self.ready(None), self.left_out(None)
        if not many:
            return [f"left out: nobody; all are complete in {self.pairing}"]
        rows = [row for row in ready.rows if row.status != "complete"] if self.narrowing.complete_only else []
        without = f", {ready.without} without any of it" if ready.without else ""
        told = [f"  {row.who} {row.status}: {row.reason}" for row in rows[:TOLD]]
        more = [f"  … and {len(rows) - TOLD} more: `ct cohort --pairing {self.pairing}`"] if len(rows) > TOLD else []
        own = [f"  {self.cohort.name} itself is made from all of its members, and left out too"] if self.cohort else []
        counts = ready.words if self.narrowing.complete_only else f"{len(ready.rows)} have some of it"
        return [f"left out: {ready.pairing.groups(many)} by {self.pairing} ({counts}{without})", *told, *more, *own]
