"""⑦ What may be read: everybody who is usable today, and results into which nobody else went."""

from collections.abc import Container, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import edge, materialization
from ctcore.inputs import Inputs
from ctcore.leftout import LeftOut, left_out
from ctcore.mirror.mirror import Mirror
from ctcore.mirror.ranges import Flags
from ctcore.mirror.versions import Places, Short
from ctcore.project import Project
from ctcore.standing import today
from ctcore.step import ENTITY_LEVELS, Step
from ctcore.veil import Veil


@dataclass(frozen=True)
class Names(Container[str]):
    """All names that are known but some: of a large cohort, nearly everybody may be read of, for every step."""

    known: Set[str]
    hidden: Set[str]

    def __contains__(self, name: object) -> bool:
        return name in self.known and name not in self.hidden


@dataclass(frozen=True)
class Gate:
    """The engine's flags in one state of the catalog. `everybody`: somebody asked for the excluded, by name."""

    project: Project
    connection: Connection
    mirror: Mirror
    inputs: Inputs
    everybody: bool = False
    _known: dict[str, Set[str]] = field(default_factory=dict, compare=False)

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

    def names(self, level: str) -> "Names":
        """The IDs of those whose rows may be read."""
        return self.among(level, self.shows(level))

    def among(self, level: str, flags: Flags, but: Set[str] = frozenset()) -> "Names":
        """The IDs of a level that have this flag, without some."""
        if level not in self._known:
            self._known[level] = frozenset(self._ids(level))
        ids = self._ids(level)
        return Names(self._known[level], frozenset(ids[at] for at in np.flatnonzero(~flags).tolist()) | but)

    def _ids(self, level: str) -> Sequence[str]:
        return self.mirror.shape.cohorts if level == "cohort" else self.mirror.entities[level].ids

    def able(self, step: str, level: str) -> Flags:
        """Of a level, whose results of a step may be read: who may be used for that step."""
        return self.shows(level) if level == "cohort" or self.everybody else self.inputs.kin.able(step, level)

    @cached_property
    def left_out(self) -> dict[str, int]:
        """How many of each level may not be used."""
        return {level: int((~self.usable(level)).sum()) for level in ENTITY_LEVELS}

    @cached_property
    def why_left_out(self) -> LeftOut:
        """The same with the kinds of reasons, and who is barred from single steps."""
        if not self.connection.closed:
            return left_out(self.connection, self.inputs)
        with self.project.catalog.read() as connection:  # what was read is said when all of it is shown
            return left_out(connection, self.inputs)

    @property
    def audit(self) -> str:
        """The line for people: what is not in what they see, or what is although it may not be used."""
        what = self.why_left_out.words
        if not what:
            return "left out: nothing; everybody may be used"
        if self.everybody:
            return f"INCLUDED although they may not be used: {what}; as asked for, that is recorded"
        return f"left out: {what}; with all that belongs to them or was made with them"

    def is_clean(self, step: Step) -> Flags:
        """Of which nodes the current result may be read: nobody went into it who may not be used for it today."""
        return self.shows(step.level) if self.everybody else self._clean_of(step)

    def was_dirty(self, step: Step) -> set[str]:
        """Nodes into which, in any of their makings, somebody went who may not be used today."""
        return set() if self.everybody else self._ever.get(step.name, set())

    @cached_property
    def _clean(self) -> dict[str, Flags]:
        """The steps that were looked at so far."""
        return {}

    def _clean_of(self, wanted: Step) -> Flags:
        """Step by step down the graph, from what the current artifacts were made from, as far as the wanted one."""
        found = self._clean
        for step in self.project.steps if wanted.name not in found else ():
            if step.name in found:
                continue
            clean = self.able(step.name, step.level).copy()
            for role, used in self.mirror.made[step.name].used.items() if self.bars_somebody else ():
                owner, place = used.pairs(np.arange(len(clean)))
                bad = self._bad_sources(step.name, role[1], used.source[place], used.version[place], found)
                clean[owner[bad]] = False
            found[step.name] = clean
            if step.name == wanted.name:
                break
        return found[wanted.name]

    @cached_property
    def veil(self) -> Veil:
        """Hides everybody who may not be used, unless they were asked for."""
        hidden = {level: np.flatnonzero(~self.shows(level)).tolist() for level in ENTITY_LEVELS}
        ids = {level: {self._ids(level)[at] for at in some} for level, some in hidden.items()}
        return Veil(ids, self.mirror.shape.levels)

    @cached_property
    def bars_somebody(self) -> bool:
        """Whether anybody may not be used, be it for one step."""
        return any(one.barred.any() or one.barred_for for one in self.inputs.kin.entities.values())

    def _bad_sources(self, step: str, asset: str, source: Places, version: Short, clean: dict[str, Flags]) -> Flags:
        """Which sources hold somebody who may not be used for the step. What is not registered any more, or was made by
        a step that is not there any more, may not be used either."""
        if asset == "reference":
            return np.zeros(len(source), np.bool_)
        level = self.mirror.shape.levels.get(asset, asset)
        gone, at = source < 0, np.maximum(source, 0)
        if level not in (*ENTITY_LEVELS, "cohort") or not len(self.shows(level)):
            return gone
        bad = gone | ~self.able(step, level)[at]
        if asset in clean:
            now = self.mirror.made[asset].version[at]
            older = (now[:, 0] != version[:, 0]) | (now[:, 1] != version[:, 1])
            bad |= ~older & ~clean[asset][at]
            if older.any():
                bad |= older & np.isin(at, self.mirror.locate(asset, sorted(self._ever.get(asset, ()))))
        return bad

    @cached_property
    def _ever(self) -> dict[str, set[str]]:
        """By step, the nodes that ever had an input of somebody who may not be used for it.

        Along the ledger, and not along what is declared today: a step may have had other inputs, and inputs of steps
        that are not there any more. Until nothing more is found, as those of then may go round in today's order.
        """
        sources = self._sources if self.bars_somebody else {}
        found = {name: self._barred(name, self._level(name)) for name in (*sources, *self.project.steps.order)}
        asked: dict[tuple[str, str], int] = {}
        grown = True
        while grown:
            grown = False
            for name, up in ((name, up) for name, ups in sources.items() for up in ups):
                barred = found.get(up, set()) | self._barred(name, self._level(up))
                if len(barred) > asked.get((name, up), 0):
                    asked[name, up], before = len(barred), len(found[name])
                    found[name] |= self._made_from(name, up, barred)
                    grown |= len(found[name]) > before
        return found

    @property
    def _sources(self) -> dict[str, list[str]]:
        """Of what each step was ever made, but references; in the order of today's steps, those of before first."""
        made = select(materialization.c.asset, edge.c.asset.label("up")).join(
            edge, edge.c.materialization == materialization.c.id
        )
        found: dict[str, list[str]] = {}
        for name, up in self.connection.execute(made.where(edge.c.asset != "reference").distinct()):
            found.setdefault(name, []).append(up)
        order = list(self.project.steps.order)
        return dict(sorted(found.items(), key=lambda one: order.index(one[0]) if one[0] in order else -1))

    def _level(self, asset: str) -> str:
        return self.mirror.shape.levels.get(asset, asset)

    def _barred(self, step: str, level: str) -> set[str]:
        if level == "cohort":
            return set()
        if level not in ENTITY_LEVELS:  # a step that is not there any more: of whatever level it was
            return set().union(*(self._barred(step, one) for one in ENTITY_LEVELS))
        ids = self.mirror.entities[level].ids
        return {ids[at] for at in np.flatnonzero(~self.inputs.kin.able(step, level)).tolist()}

    def _made_from(self, step: str, up: str, sources: set[str]) -> set[str]:
        rows = self.connection.execute(
            select(materialization.c.partition)
            .join(edge, edge.c.materialization == materialization.c.id)
            .where(materialization.c.asset == step, edge.c.asset == up)
            .where(in_keys(edge.c.partition, sources))
            .distinct()
        )
        return set(rows.scalars())


def level_names(level: str) -> str:
    """`patients` of `patient`."""
    return f"{level}s"
