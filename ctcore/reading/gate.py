"""⑦ What may be read: everybody who is usable today, and results into which nobody else went."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import edge, materialization
from ctcore.errors import Usage
from ctcore.inputs import Inputs
from ctcore.mirror.mirror import Mirror
from ctcore.mirror.ranges import Flags
from ctcore.mirror.versions import Places, Short
from ctcore.project import Project
from ctcore.standing import today
from ctcore.step import ENTITY_LEVELS, Step

EVENT = "read-excluded"


@dataclass(frozen=True)
class Gate:
    """The engine's flags in one state of the catalog. `everybody`: somebody asked for the excluded, by name."""

    project: Project
    connection: Connection
    mirror: Mirror
    inputs: Inputs
    everybody: bool = False

    @classmethod
    def of(cls, project: Project, connection: Connection, everybody: bool = False) -> "Gate":
        mirror, inputs = today(project, connection)
        return cls(project, connection, mirror, inputs, everybody)

    def usable(self, level: str) -> Flags:
        """Who of a level may be used, by position."""
        return self.inputs.kin.usable[level]

    def shows(self, level: str) -> Flags:
        """Whose rows may be read, by position. A cohort's own rows always are."""
        if level == "cohort":
            return np.ones(len(self.project.settings.cohorts), np.bool_)
        return np.ones_like(self.usable(level)) if self.everybody else self.usable(level)

    def names(self, level: str) -> set[str]:
        """The IDs of those whose rows may be read."""
        ids = self.mirror.shape.cohorts if level == "cohort" else self.mirror.entities[level].ids
        return {ids[at] for at in np.flatnonzero(self.shows(level)).tolist()}

    @cached_property
    def left_out(self) -> dict[str, int]:
        """How many of each level may not be used."""
        return {level: int((~self.usable(level)).sum()) for level in ENTITY_LEVELS}

    @property
    def audit(self) -> str:
        """The line for people: what is not in what they see, or what is although it may not be used."""
        counted = [f"{n} {level_names(level) if n != 1 else level}" for level, n in self.left_out.items() if n]
        if not counted:
            return "left out: nothing; everybody may be used"
        what = ", ".join(counted)
        if self.everybody:
            return f"INCLUDED although they may not be used: {what}, as asked for; that is recorded"
        return f"left out: {what} that may not be used, with all that belongs to them or was made with them"

    def is_clean(self, step: Step) -> Flags:
        """Of which nodes the current result may be read: nobody went into it who may not be used today."""
        return self.shows(step.level) if self.everybody else self._clean[step.name]

    def was_dirty(self, step: Step) -> set[str]:
        """Nodes into which, in any of their makings, somebody went who may not be used today."""
        return set() if self.everybody else self._ever.get(step.name, set())

    @cached_property
    def _clean(self) -> dict[str, Flags]:
        """Step by step down the graph, from what the current artifacts were made from."""
        found: dict[str, Flags] = {}
        for step in self.project.steps:
            clean = self.shows(step.level).copy()
            made = self.mirror.made[step.name]
            for role, used in made.used.items():
                owner, place = used.pairs(np.arange(len(clean)))
                bad = self._bad_sources(role[1], used.source[place], used.version[place], found)
                clean[owner[bad]] = False
            found[step.name] = clean
        return found

    def _bad_sources(self, asset: str, source: Places, version: Short, clean: dict[str, Flags]) -> Flags:
        """Which sources hold somebody who may not be used. What is not registered any more may not be used either."""
        if asset == "reference":
            return np.zeros(len(source), np.bool_)
        level = self.mirror.shape.levels.get(asset, asset)
        gone, at = source < 0, np.maximum(source, 0)
        if not len(self.shows(level)):
            return gone
        bad = gone | ~self.shows(level)[at]
        if asset in clean:
            now = self.mirror.made[asset].version[at]
            older = (now[:, 0] != version[:, 0]) | (now[:, 1] != version[:, 1])
            ever = np.isin(at, self.mirror.locate(asset, sorted(self._ever.get(asset, ()))))
            bad |= np.where(older, ever, ~clean[asset][at])
        return bad

    @cached_property
    def _ever(self) -> dict[str, set[str]]:
        """By step, the nodes that ever had an input of somebody who may not be used."""
        if not any(self.left_out.values()):
            return {}
        found: dict[str, set[str]] = {}
        for level in ENTITY_LEVELS:
            ids = self.mirror.entities[level].ids
            found[level] = {ids[at] for at in np.flatnonzero(~self.usable(level)).tolist()}
        for step in self.project.steps:
            mine = set(found[step.level]) if step.level != "cohort" else set()
            for up in {*step.inputs.values()}:
                mine |= self._made_from(step.name, up, found[up])
            found[step.name] = mine
        return found

    def _made_from(self, step: str, up: str, sources: set[str]) -> set[str]:
        rows = self.connection.execute(
            select(materialization.c.partition)
            .join(edge, edge.c.materialization == materialization.c.id)
            .where(materialization.c.asset == step, edge.c.asset == up)
            .where(in_keys(edge.c.partition, sources, self.project.dialect))
            .distinct()
        )
        return set(rows.scalars())


def level_names(level: str) -> str:
    """`patients` of `patient`."""
    return f"{level}s"


def asked_for_excluded(project: Project, reason: str | None, what: str) -> bool:
    """Whether the excluded are to be shown: only with a reason, which is written down before anything is read."""
    if reason is None:
        return False
    if len(reason.strip()) < 8 or not reason.isprintable():
        raise Usage(f'--include-excluded "{reason}": say why in one sentence; it is kept beside your name')
    with project.catalog.write() as writer:
        writer.event(EVENT, what, {"reason": reason.strip()})
    return True
