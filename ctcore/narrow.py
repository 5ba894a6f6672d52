"""⑦ Narrowing what a command is about: to the members of a cohort, and to what is complete in a pairing."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ctcore.cohort import Cohort
from ctcore.cohorts import Kin, in_cohort
from ctcore.errors import Usage
from ctcore.inputs import Inputs
from ctcore.mirror.ranges import Flags
from ctcore.pairs import Readiness, declared, names_of, of_groups, readiness
from ctcore.project import Project
from ctcore.standing import today
from ctcore.step import ENTITY_LEVELS, Level, Step

Keys = Mapping[str, set[str]]
TOLD = 10  # groups that are left out and named one by one


@dataclass(frozen=True)
class Narrowing:
    """A cohort, a pairing, or both. With a pairing: groups that have any of it; `complete_only`: all of it."""

    cohort: str | None = None
    pairing: str | None = None
    complete_only: bool = False

    def __bool__(self) -> bool:
        return self != Narrowing()

    @property
    def options(self) -> list[str]:
        """As they are written in the shell."""
        named = [("--cohort", self.cohort), ("--pairing", self.pairing)]
        said = [part for option, name in named if name is not None for part in (option, name)]
        return [*said, *(["--complete-only"] if self.complete_only else [])]

    def paired(self, project: Project) -> str | None:
        """The pairing that is meant; without a name that of the cohort, or the only one. None: none is."""
        if self.pairing is not None:
            return declared(project, self.pairing).name
        if not self.complete_only:
            return None
        of_cohort = known_cohort(project, self.cohort).pairing if self.cohort else None
        known = list(project.settings.pairings)
        if of_cohort is None and len(known) != 1:
            way = f"say which: --pairing {' or '.join(known)}" if known else "declare one: [pairings.NAME] in ct.toml"
            raise Usage(f"--complete-only: complete in which pairing? {way}")
        return of_cohort or known[0]


@dataclass(frozen=True)
class Narrowed:
    """The nodes that are left by step, and what a person should know of those that are not."""

    keys: Keys
    said: tuple[str, ...] = ()


def known_cohort(project: Project, name: str) -> Cohort:
    known = project.settings.cohorts
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise Usage(f"no cohort {name!r}; declared: {', '.join(known)}{hint}")
    return known[name]


def members_of(project: Project, name: str) -> dict[Level, list[str]]:
    """Who is in a cohort, by level; the cohort itself is a node of its own level."""
    cohort = known_cohort(project, name)
    with project.catalog.read() as connection:
        kin = today(project, connection)[1].kin
    found: dict[Level, list[str]] = {one: names_of(kin, one, in_cohort(kin, one, cohort)) for one in ENTITY_LEVELS}
    return {**found, "cohort": [name]}


def narrow(project: Project, narrowing: Narrowing, keys: Keys | None) -> Narrowed:
    """These nodes (None: all of all steps), without those that are not of the cohort or not complete.

    Usage error where something was asked for and nothing of it is left.
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
        where = " ".join(narrowing.options)
        raise Usage(f"nothing that is selected is left by {where}; `ct cohort {where}` says who is in it")
    return Narrowed(some, tuple(narrower.said()))


class _Narrower:
    """Who is left, level by level; for a step for which somebody is censored, by what is complete for it."""

    def __init__(self, project: Project, narrowing: Narrowing) -> None:
        self.project, self.narrowing = project, narrowing
        self.cohort = known_cohort(project, narrowing.cohort) if narrowing.cohort else None
        self.pairing = narrowing.paired(project)
        with project.catalog.read() as connection:
            self.inputs: Inputs = today(project, connection)[1]
        self.kin: Kin = self.inputs.kin
        self._ready: dict[str | None, Readiness] = {}
        self._names: dict[tuple[Level, str | None], set[str]] = {}

    def of(self, step: Step) -> set[str]:
        special = any(step.name in some.barred_for for some in self.kin.entities.values())
        purpose = step.name if special and self.pairing else None
        if step.level == "cohort":
            return self._cohorts(purpose)
        if (step.level, purpose) not in self._names:
            self._names[step.level, purpose] = set(names_of(self.kin, step.level, self._flags(step.level, purpose)))
        return self._names[step.level, purpose]

    def _flags(self, level: Level, purpose: str | None) -> Flags:
        found = self.kin.usable[level]
        if self.cohort is not None:
            found = found & in_cohort(self.kin, level, self.cohort)
        if self.pairing is None:
            return found
        ready = self.ready(purpose)
        chosen = [row.at for row in ready.rows if row.status == "complete" or not self.narrowing.complete_only]
        return found & of_groups(self.kin, ready, chosen).get(level, np.zeros_like(found))

    def _cohorts(self, purpose: str | None) -> set[str]:
        """A cohort's own nodes are made from all of its members: they are left where nobody is left out."""
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
