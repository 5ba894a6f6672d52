"""What may be read: entities that are usable today, and results with only these inside."""

from collections.abc import Container, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from sqlalchemy import Connection

from ctcore.governance.access import unregistered_members
from ctcore.governance.masking import Mask
from ctcore.inputs.contributors import Contributors
from ctcore.inputs.current import current_inputs
from ctcore.inputs.resolve import Inputs
from ctcore.lineage.past_contributors import PastContributors
from ctcore.lineage.walk import Lineage
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.node import Node
from ctcore.project import Project
from ctcore.query.exclusion_counts import ExclusionCounts, exclusion_counts
from ctcore.snapshot.arrays import Flags
from ctcore.snapshot.snapshot import Snapshot
from ctcore.step import Step


@dataclass(frozen=True)
class Names(Container[str]):
    """All known names but some: of a large cohort, nearly everybody may be read, for every step."""

    known: Set[str]
    hidden: Set[str]

    def __contains__(self, name: object) -> bool:
        return name in self.known and name not in self.hidden


@dataclass(frozen=True)
class Gate:
    """The flags of one state of the catalog. `everybody`: the excluded were requested by name."""

    project: Project
    connection: Connection
    snapshot: Snapshot
    inputs: Inputs
    everybody: bool = False
    _known: dict[str, Set[str]] = field(default_factory=dict, compare=False)
    _by_use: dict[str | None, Contributors] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, project: Project, connection: Connection, everybody: bool = False) -> "Gate":
        snapshot, inputs = current_inputs(project, connection)
        return cls(project, connection, snapshot, inputs, everybody)

    def usable(self, level: str) -> Flags:
        """Who of a level may be used, by position."""
        return self.inputs.hierarchy.usable[level]

    def shows(self, level: str) -> Flags:
        """Whose rows may be read, by position. A cohort's own rows always may."""
        if level == "cohort":
            return np.ones(len(self.project.settings.cohorts), np.bool_)
        return np.ones_like(self.usable(level)) if self.everybody else self.usable(level)

    def names(self, level: str) -> "Names":
        """The IDs of entities whose rows may be read."""
        return self.ids_where(level, self.shows(level))

    def ids_where(self, level: str, flags: Flags, but: Set[str] = frozenset()) -> "Names":
        """The IDs of a level that have this flag, without some."""
        if level not in self._known:
            self._known[level] = frozenset(self._ids(level))
        ids = self._ids(level)
        return Names(self._known[level], frozenset(ids[at] for at in np.flatnonzero(~flags).tolist()) | but)

    def _ids(self, level: str) -> Sequence[str]:
        return self.snapshot.shape.cohorts if level == "cohort" else self.snapshot.entities[level].ids

    def usable_for(self, step: str, level: str) -> Flags:
        """Whose results of a step may be read: entities that the step may use, and cohorts."""
        if self.everybody or (level == "cohort" and step not in self.project.steps):
            return self.shows(level)
        return (
            self.inputs.nodes(self.project.steps[step])
            if level == "cohort"
            else self.inputs.hierarchy.usable_for(step, level)
        )

    @cached_property
    def left_out(self) -> dict[str, int]:
        """How many of each level may not be used."""
        return {level: int((~self.usable(level)).sum()) for level in ENTITY_LEVELS}

    @cached_property
    def why_left_out(self) -> ExclusionCounts:
        """The exclusion counts with kinds of reasons, and exclusions from single steps."""
        if not self.connection.closed:
            return exclusion_counts(self.connection, self.inputs)
        with self.project.catalog.read() as connection:  # what was read is said when all of it is shown
            return exclusion_counts(connection, self.inputs)

    @property
    def audit(self) -> str:
        """The line for readers: what their view leaves out, or which excluded people it includes."""
        what = self.why_left_out.words
        if not what:
            return "left out: nothing; everybody may be used"
        if self.everybody:
            return f"INCLUDED although they may not be used: {what}; as asked for, that is recorded"
        return f"left out: {what}; with their descendants and the results made with them"

    def is_clean(self, step: Step) -> Flags:
        """Nodes whose current result may be read: nobody inside is barred from its use today. Consent is checked
        through any number of steps; quality, for direct members."""
        if self.everybody:
            return self.shows(step.level)
        if not self.bars_somebody:
            return self.usable_for(step.name, step.level)
        clean = self._own.permitted_nodes(step.name)
        return clean & self._permitted(step.name).permitted_nodes(step.name) if self._is_limited(step.name) else clean

    def was_dirty(self, step: Step) -> set[str]:
        """Nodes that contained, in any making, somebody who may not be used today."""
        if self.everybody or not self.bars_somebody:
            return set()
        dirty = self._own.ever.get(step.name, set())
        return dirty | self._permitted(step.name).ever[step.name] if self._is_limited(step.name) else dirty

    def nonconsenting_patients(self, node: Node) -> int:
        """How many patients are inside the current result of a node whose consent does not allow it."""
        return self._permitted(node[0]).patients(node)

    def is_of_lost(self, node: Node) -> bool:
        """Whether a node was made, at any distance, from what was lost with an earlier catalog."""
        return node[1] in self._own.of_lost.get(node[0], ())

    def past_contributors(self, lineage: Lineage) -> PastContributors:
        """Who was inside makings, of any time."""
        return PastContributors(lineage, self.snapshot, self.inputs)

    @cached_property
    def _own(self) -> Contributors:
        return Contributors(lambda: self.connection, self.snapshot, self.inputs, self.usable_for)

    def _permitted(self, step: str) -> Contributors:
        """Steps that are for one use have it in common."""
        use = self.snapshot.shape.uses[step]
        if use not in self._by_use:
            self._by_use[use] = Contributors.permitted(lambda: self.connection, self.snapshot, self.inputs, step)
        return self._by_use[use]

    def _is_limited(self, step: str) -> bool:
        return step in self.inputs.hierarchy.limited_steps

    @cached_property
    def mask(self) -> Mask:
        """The mask of everybody who may not be used, unless they were requested; if there are any, members whom nobody
        registered count as such."""
        hidden = {level: np.flatnonzero(~self.shows(level)).tolist() for level in ENTITY_LEVELS}
        ids = {level: {self._ids(level)[at] for at in some} for level, some in hidden.items()}
        if any(ids.values()):
            for level, name in unregistered_members(self.connection):
                ids[level].add(name)
        return Mask(ids, self.snapshot.shape.levels)

    @cached_property
    def bars_somebody(self) -> bool:
        """Whether anybody may not be used, be it for one step."""
        return any(one.barred.any() or one.barred_for for one in self.inputs.hierarchy.entities.values())


def level_names(level: str) -> str:
    """`patients` of `patient`."""
    return f"{level}s"
