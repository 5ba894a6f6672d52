"""Which nodes exist today, and the sources of each of their inputs.

The one definition of a node's inputs. Staleness compares it with the ledger's edges; the memo key is computed from it.
Nodes are positions: of the entity in its level, of the cohort in ct.toml.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sqlalchemy import Connection

from ctcore.catalog.attribute_sql import attribute_texts
from ctcore.config.settings import Settings
from ctcore.model.reasons import Kind
from ctcore.snapshot.arrays import Flags, Groups, take
from ctcore.snapshot.artifacts import Role
from ctcore.snapshot.hierarchy import Hierarchy, in_cohort, rank
from ctcore.snapshot.snapshot import Snapshot
from ctcore.snapshot.versions import Places, Whole, is_known, no_versions, pack
from ctcore.step import Step
from ctcore.steps.graph import StepGraph

ROLE = "role:"  # before the column that tells what members are
What = Literal["file", "step", "reference", "column"]


@dataclass(frozen=True)
class ResolvedInput:
    """One input of a step. Its sources are positions of `asset`; with `fan_in` they are members of the node.

    Sources lie above the nodes (`above` leads from a node to its source), below them (`below` leads from a node to its
    sources), or are the node itself; of a cohort they are its `members`. `existing`: which sources exist.
    """

    input: str
    asset: str
    what: What
    fan_in: bool = False
    above: Places | None = None
    below: Groups | None = None
    downward: bool = False
    members: tuple[Places, ...] | None = None
    existing: Flags | None = None

    @property
    def role(self) -> Role:
        return (self.input, self.asset)

    @property
    def column(self) -> str:
        """Of a column or a role: `level.column`."""
        return self.input.removeprefix(ROLE)

    @property
    def is_role(self) -> bool:
        return self.input.startswith(ROLE)

    @property
    def kinds(self) -> tuple[Kind, Kind | None, Kind | None]:
        """The kinds of reasons for a changed, new or removed source of this input."""
        if self.what == "reference":
            return "reference", "reference", "reference"
        if self.what == "column":
            changed: Kind = "member-role" if self.is_role else "metadata"
            return changed, None, None  # who came and went is said of the members; what is read, of the code
        if self.fan_in:
            return "input", "member-added", "member-removed"
        return "input", "input", "input"

    def pairs(self, chosen: Places) -> tuple[Places, Places]:
        """The inputs of these nodes: which of the chosen each belongs to, and its source; ascending."""
        if self.members is not None:
            groups = [self.members[at] for at in chosen]
            if len(groups) == 1:
                return np.zeros(len(groups[0]), np.int64), groups[0]
            owner = np.repeat(np.arange(len(chosen)), [len(one) for one in groups])
            return owner, np.concatenate([np.zeros(0, np.int64), *groups])
        if self.downward:
            assert self.below is not None
            owner, source = self.below.pairs(chosen)
        else:
            owner, source = np.arange(len(chosen)), chosen if self.above is None else self.above[chosen]
        if self.existing is None or self.existing.all():
            return owner, source
        kept = self.existing[source]
        return owner[kept], source[kept]

    def takers(self, sources: Places) -> Places | None:
        """The nodes that have one of these sources; None: any may."""
        if self.members is not None or self.what == "reference":
            return None
        if self.above is None:
            return sources
        if self.downward:
            return np.unique(self.above[sources])
        assert self.below is not None
        return self.below.pairs(sources)[1]


class Inputs:
    """Today's nodes and inputs, in one state of the catalog. Answers are kept."""

    def __init__(self, graph: StepGraph, settings: Settings, snapshot: Snapshot) -> None:
        self.graph = graph
        self.settings = settings
        self.snapshot = snapshot
        self.hierarchy = Hierarchy(snapshot.entities)
        self.complete = self._complete()
        self._wants: dict[str, tuple[ResolvedInput, ...]] = {}
        self._members: dict[tuple[str, str], Flags] = {}
        self._allowed: dict[str, Flags] = {}

    def nodes(self, step: Step) -> Flags:
        """The partitions that the step has today: usable, with everything that the step needs."""
        if step.level == "cohort":
            return self._cohorts_of(step)
        return self.complete[step.name] & self.hierarchy.usable_for(step.name, step.level)

    def excluded(self, step: Step) -> Places:
        """Entities of the step's level that are barred from it or lack a required input; cohorts whose result would
        contain somebody without consent."""
        return np.flatnonzero(~self.nodes(step))

    def wants(self, step: Step) -> tuple[ResolvedInput, ...]:
        """All inputs of a step."""
        if step.name not in self._wants:
            self._wants[step.name] = tuple(self._listed(step))
        return self._wants[step.name]

    def with_ancestors(self, wanted: Mapping[str, Places]) -> dict[str, Places]:
        """These nodes and every node that they are made from today, by step."""
        found = {name: np.unique(places) for name, places in wanted.items()}
        # From the last step up: all that take from a step have told what they take before it is its turn.
        for name in reversed(self.graph.order):
            for want in self.wants(self.graph[name]) if len(found.get(name, ())) else ():
                if want.what == "step":
                    sources = want.pairs(found[name])[1]
                    found[want.asset] = np.union1d(found.get(want.asset, sources), sources)
        return {name: places for name, places in found.items() if len(places)}

    def with_descendants(self, wanted: Mapping[str, Places]) -> dict[str, Places]:
        """These nodes and every node that is made from them today, by step."""
        found = {name: np.unique(places) for name, places in wanted.items()}
        for step in self.graph:
            nodes = self.nodes(step)
            for want in self.wants(step):
                if want.what == "step" and len(found.get(want.asset, ())):
                    takers = want.takers(found[want.asset])
                    if takers is None:
                        takers = np.array(
                            [at for at in np.flatnonzero(nodes).tolist() if self._takes(want, at, found)], np.int64
                        )
                    found[step.name] = np.union1d(found.get(step.name, takers), takers[nodes[takers]])
        return {name: places for name, places in found.items() if len(places)}

    @staticmethod
    def _takes(want: ResolvedInput, cohort: int, found: Mapping[str, Places]) -> bool:
        return bool(np.isin(want.pairs(np.array([cohort]))[1], found[want.asset]).any())

    def versions(self, want: ResolvedInput, step: Step, sources: Places, snapshot: Snapshot) -> Whole:
        """The data versions of these sources today, in this state of the catalog; zeros where there is none."""
        if want.what == "step":
            return take(snapshot.made[want.asset].version, sources)
        if want.what == "file":
            files = snapshot.entities[step.level].files.get(want.input)
            return no_versions(len(sources)) if files is None else take(files, sources)  # nobody has such a file
        if want.what == "column":
            level, _, name = want.column.partition(".")
            return snapshot.entities[level].columns[name][self.hierarchy.ancestors(want.asset, level)[sources]]
        one = pack([snapshot.references.get(want.input.removeprefix("reference:"))])
        return np.broadcast_to(one, (len(sources), 4))

    def texts(self, connection: Connection, want: ResolvedInput, sources: Places) -> list[str | None]:
        """The values of a column, or the roles, of these sources, as canonical JSON."""
        level, _, column = want.column.partition(".")
        ids = self.snapshot.entities[level].ids
        owners = [ids[at] for at in self.hierarchy.ancestors(want.asset, level)[sources].tolist()]
        known = attribute_texts(connection, level, column, owners)
        return [known[owner] for owner in owners]

    def _listed(self, step: Step) -> Iterator[ResolvedInput]:
        for role in step.files:
            yield ResolvedInput(role, step.level, "file")
        for name, up in step.inputs.items():
            yield self._artifacts(step, name, self.graph[up])
        for key in step.references:
            nothing = np.zeros(len(self.snapshot.names(step.name)), np.int64)
            yield ResolvedInput(f"reference:{key}", "reference", "reference", above=nothing)
        for column in step.columns:
            yield from self._columns(step, column)
        if step.role is not None:
            yield from self._columns(step, step.role, ROLE)

    def _artifacts(self, step: Step, name: str, up: Step) -> ResolvedInput:
        if step.level == "cohort":
            if up.level == "cohort":
                return ResolvedInput(name, up.name, "step", existing=self.nodes(up))
            return ResolvedInput(
                name, up.name, "step", fan_in=True, members=self._in_cohorts(up.level, self._usable_nodes(step, up))
            )
        usable = self._usable_nodes(step, up)
        return ResolvedInput(
            name,
            up.name,
            "step",
            rank(up.level) > rank(step.level),
            existing=usable,
            **self._level_links(step, up.level),
        )

    def _usable_nodes(self, step: Step, up: Step) -> Flags:
        """The nodes of another step that this step may use."""
        return self.nodes(up) & self.hierarchy.usable_for(step.name, up.level)

    def _level_links(self, step: Step, level: str) -> dict[str, Any]:
        """From the nodes of a step to the entities of another level."""
        if level == step.level:
            return {}
        downward = rank(level) > rank(step.level)
        low, high = (level, step.level) if downward else (step.level, level)
        return {
            "above": self.hierarchy.ancestors(low, high),
            "below": self.hierarchy.descendants(high, low),
            "downward": downward,
        }

    def _cohorts_of(self, step: Step) -> Flags:
        """Cohorts for which the step may be made. Its direct members are selected, but nobody selects who is inside
        another cohort's result: all of them must consent to this step's use, too, however many steps lie between."""
        if step.name not in self._allowed:
            found = np.ones(len(self.settings.cohorts), np.bool_)
            for up in self.cohort_inputs(step):
                found &= self.nodes(up) & ~self.holding(step, up)
            self._allowed[step.name] = found
        return self._allowed[step.name]

    def cohort_inputs(self, step: Step) -> list[Step]:
        """The steps whose results of the same cohort it takes."""
        ups = (self.graph[up] for up in dict.fromkeys(step.inputs.values()))
        return [up for up in ups if step.level == up.level == "cohort"]

    def holding(self, step: Step, up: Step) -> Flags:
        """Cohorts whose results of `up`, if made today, would contain somebody whose consent does not allow `step`."""
        found = np.zeros(len(self.settings.cohorts), np.bool_)
        if step.name in self.hierarchy.limited_steps:
            for at in range(len(found)):
                found[at] = len(self.nonconsenting_patients(step, up, at)) > 0
        return found

    def nonconsenting_patients(self, step: Step, up: Step, cohort: int) -> Places:
        """The patients inside one cohort's result of `up`, as it would be made today, whose consent does not allow
        `step`."""
        found = [np.zeros(0, np.int64)]
        for name in self.graph.upstream([up.name]):
            for want in self.wants(self.graph[name]) if self.graph[name].level == "cohort" else ():
                if want.what == "step" and want.fan_in:
                    level = self.graph[want.asset].level
                    source = want.pairs(np.array([cohort]))[1]
                    found.append(
                        self.hierarchy.ancestors(level, "patient")[
                            source[~self.hierarchy.permits(step.name, level)[source]]
                        ]
                    )
        return np.unique(np.concatenate(found))

    def _columns(self, step: Step, column: str, mark: str = "") -> Iterator[ResolvedInput]:
        """A column of the node's entity or an ancestor; of each member if it lies below. `mark`: the kind of input."""
        level = column.partition(".")[0]
        if step.level != "cohort" and rank(level) <= rank(step.level):
            yield ResolvedInput(column, step.level, "column")
            return
        usable: dict[str, Flags] = {}
        for up in (self.graph[name] for name in step.inputs.values()):
            if up.level != "cohort" and rank(level) <= rank(up.level):
                usable[up.level] = usable.get(up.level, False) | self._usable_nodes(step, up)
        for other, flags in usable.items():
            if step.level == "cohort":
                yield ResolvedInput(f"{mark}{column}", other, "column", members=self._in_cohorts(other, flags))
            elif rank(other) > rank(step.level):
                yield ResolvedInput(
                    f"{mark}{column}", other, "column", existing=flags, **self._level_links(step, other)
                )

    def _in_cohorts(self, level: str, usable: Flags) -> tuple[Places, ...]:
        return tuple(np.flatnonzero(usable & self._in_cohort(level, name)) for name in self.settings.cohorts)

    def _in_cohort(self, level: str, name: str) -> Flags:
        if (level, name) not in self._members:
            self._members[level, name] = in_cohort(self.hierarchy, level, self.settings.cohorts[name])  # type: ignore[arg-type]
        return self._members[level, name]

    def _complete(self) -> dict[str, Flags]:
        """Entities with every required input of a step and of all steps before it: raw files, and members below."""
        found: dict[str, Flags] = {}
        # Upstream steps first: who lacks something there lacks it here.
        for step in self.graph:
            if step.level == "cohort":
                continue
            some = self.snapshot.entities[step.level]
            flags = np.ones(len(some), np.bool_)
            for role in step.files:
                flags &= is_known(some.files[role]) if role in some.files else False
            for up in (self.graph[name] for name in step.inputs.values()):
                has = found[up.name] & self.hierarchy.usable_for(up.name, up.level)
                if up.level != step.level:
                    has = self.hierarchy.related(
                        has & self.hierarchy.usable_for(step.name, up.level), up.level, step.level
                    )
                flags &= has
            found[step.name] = flags
        return found
