"""⑦ What may be read: everybody who is usable today, and results into which nobody else went."""

from collections.abc import Container, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from sqlalchemy import Connection

from ctcore.inputs import Inputs
from ctcore.leftout import LeftOut, left_out
from ctcore.mirror.mirror import Mirror
from ctcore.mirror.ranges import Flags
from ctcore.project import Project
from ctcore.reasons import Node
from ctcore.standing import today
from ctcore.step import ENTITY_LEVELS, Step
from ctcore.veil import Veil
from ctcore.within import Within


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
    _by_use: dict[str | None, Within] = field(default_factory=dict, compare=False)

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
        """Of a level, whose results of a step may be read: who may be used for that step; cohorts of which it may be
        made."""
        if self.everybody or (level == "cohort" and step not in self.project.steps):
            return self.shows(level)
        return self.inputs.nodes(self.project.steps[step]) if level == "cohort" else self.inputs.kin.able(step, level)

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
        """Of which nodes the current result may be read: nobody went into it who may not be used for it today. Consent
        is asked of all who are inside, through any number of steps; quality, where somebody is taken."""
        if self.everybody:
            return self.shows(step.level)
        if not self.bars_somebody:
            return self.able(step.name, step.level)
        clean = self._own.clean(step.name)
        return clean & self._permitted(step.name).clean(step.name) if self._is_limited(step.name) else clean

    def was_dirty(self, step: Step) -> set[str]:
        """Nodes into which, in any of their makings, somebody went who may not be used today."""
        if self.everybody or not self.bars_somebody:
            return set()
        dirty = self._own.ever.get(step.name, set())
        return dirty | self._permitted(step.name).ever[step.name] if self._is_limited(step.name) else dirty

    def unwilling(self, node: Node) -> int:
        """How many patients are inside the current result of a node whose consent does not allow it."""
        return self._permitted(node[0]).patients(node)

    @cached_property
    def _own(self) -> Within:
        return Within(lambda: self.connection, self.mirror, self.inputs, self.able)

    def _permitted(self, step: str) -> Within:
        """Steps that are for one use have it in common."""
        use = self.mirror.shape.uses[step]
        if use not in self._by_use:
            self._by_use[use] = Within.permitted(lambda: self.connection, self.mirror, self.inputs, step)
        return self._by_use[use]

    def _is_limited(self, step: str) -> bool:
        return step in self.inputs.kin.limited

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


def level_names(level: str) -> str:
    """`patients` of `patient`."""
    return f"{level}s"
