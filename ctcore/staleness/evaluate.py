"""The one definition of fresh: a few operations on columns, for any number of nodes.

A node is fresh if its bytes are there, and its recipe and every input of today have the data versions that it was made
from. Nothing here depends on time. Nodes that no event touched since the last evaluation are not evaluated again. A
node has the same verdict alone and among a million.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from ctcore.catalog.tables import recipe
from ctcore.inputs.exclusions import without_consent
from ctcore.inputs.resolve import Inputs, ResolvedInput
from ctcore.model.reasons import Kind, Reason
from ctcore.project import Project
from ctcore.snapshot.arrays import Flags, any_of, take
from ctcore.snapshot.artifacts import StepArtifacts, UsedInputs
from ctcore.snapshot.snapshot import CatalogChanges, Snapshot
from ctcore.snapshot.versions import Places
from ctcore.staleness.compare import Differences, compare
from ctcore.staleness.direct_reasons import direct_reasons
from ctcore.step import Step
from ctcore.steps.graph import Recipe
from ctcore.store.digest import canonical_json
from ctcore.util.gc import without_collecting

KINDS: tuple[Kind, ...] = get_args(Kind)
BIT: Mapping[Kind, int] = {kind: 1 << at for at, kind in enumerate(KINDS)}
# As many kinds as there are bits: one more than 16 needs a wider type, also in `upstream_reasons.DIRECT`.
Kinds = NDArray[np.uint16]
"""(n,) a bit for each kind of reason that a node has; 0 where it is fresh, or is no node."""

_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class NodeStates:
    """The kinds of reasons of every node, in one state of the catalog and of the steps; `waived` were accepted."""

    snapshot: Snapshot
    inputs: Inputs
    recipes: Mapping[str, str]
    kinds: Mapping[str, Kinds]
    waived: Mapping[str, Mapping[int, tuple[Reason, ...]]]


@without_collecting
def evaluate_nodes(
    project: Project,
    connection: Connection,
    snapshot: Snapshot,
    inputs: Inputs,
    before: NodeStates | None,
    touched: CatalogChanges,
) -> NodeStates:
    """Evaluate every node; with `before`, only nodes that the changes since then may affect."""
    recipes = {name: one.digest for name, one in project.recipes.items()}
    judge = Evaluator(project, connection, snapshot, inputs)
    turned: dict[str, Places] = {}
    for step in project.steps:  # upstream steps come first
        nodes = inputs.nodes(step)
        # `all`: who belongs to a cohort may have changed, and no event says which nodes that concerns.
        old = before.kinds.get(step.name) if before is not None and not touched.all else None
        if before is not None and old is not None:
            # Copies, here and of the kinds: somebody may still be reading the evaluation before (0011).
            judge.waived[step.name] = dict(before.waived.get(step.name, {}))
        if before is None or old is None:
            old, places = np.zeros(len(nodes), np.uint16), np.flatnonzero(nodes)
        # No event tells of an edited step: its recipe is compared at each evaluation.
        elif before.recipes.get(step.name) != recipes[step.name]:
            places = np.flatnonzero(nodes)
        else:
            places = np.flatnonzero(nodes & _reached(step, inputs, touched, turned, len(nodes)))
        if not len(places):
            judge.kinds[step.name] = old
            continue
        kinds = old.copy()
        kinds[places] = judge.of(step, places)
        judge.kinds[step.name] = kinds
        # A descendant waits for a node that is not fresh, whatever its reasons. So only nodes that became fresh, or
        # stopped being so, make others worth a look.
        turned[step.name] = np.flatnonzero((old != 0) != (kinds != 0))
    return NodeStates(snapshot, inputs, recipes, judge.kinds, judge.waived)


def _reached(step: Step, inputs: Inputs, touched: CatalogChanges, turned: Mapping[str, Places], nodes: int) -> Flags:
    """The nodes of a step whose verdict may have changed."""
    found = np.zeros(nodes, np.bool_)
    found[list(touched.nodes.get(step.name, ()))] = True
    for want in inputs.wants(step):
        if want.what == "reference" and want.input.removeprefix("reference:") in touched.references:
            return np.ones(nodes, np.bool_)
        some = touched.files.get((step.level, want.input), set()) if want.what == "file" else set[int]()
        if want.what == "step":
            some = touched.nodes.get(want.asset, set())
        for sources in (np.array(list(some), np.int64), turned.get(want.asset, _NONE)):
            if len(sources):
                takers = want.takers(sources)
                found[slice(None) if takers is None else takers] = True
    return found


class Evaluator:
    """Compares the inputs that nodes were made from with those that they would be made from today."""

    def __init__(self, project: Project, connection: Connection, snapshot: Snapshot, inputs: Inputs) -> None:
        self.project = project
        self.connection = connection
        self.snapshot = snapshot
        self.inputs = inputs
        self.kinds: dict[str, Kinds] = {}
        self.waived: dict[str, dict[int, tuple[Reason, ...]]] = {}

    def of(self, step: Step, places: Places) -> Kinds:
        """The kinds of reasons of these nodes of a step whose inputs have been judged."""
        made = self.snapshot.made[step.name]
        found = np.zeros(len(places), np.uint16)
        is_made = made.materialization[places] > 0
        found[~is_made] = BIT["missing"]
        here = np.flatnonzero(is_made)
        found[here] |= self._recipes(step, made, places[here])
        waits = np.zeros(len(places), np.bool_)
        for want, owner, source, differences in self.differences(step, places[here]):
            _mark(found, here, want, differences)
            self._wait(waits, here, want, owner, source)
        # What was never made has no edges to compare: it can only wait.
        others = np.flatnonzero(~is_made)
        for want in self.inputs.wants(step) if len(others) else ():
            self._wait(waits, others, want, *want.pairs(places[others]))
        harmed = self.snapshot.damaged.get(step.name)
        if harmed:
            found[np.isin(places, list(harmed)) & is_made] |= BIT["bytes"]
        # Before "upstream": waiting for an ancestor is no reason that anybody can accept.
        self._waive(step, made, places, found)
        found[waits] |= BIT["upstream"]
        return found

    def _waive(self, step: Step, made: StepArtifacts, places: Places, found: Kinds) -> None:
        """Take away the reasons that were accepted, of these makings and with this evidence."""
        before = self.waived.get(step.name, {})
        known = {at: before[at] for at in before.keys() - set(places.tolist())} if before else {}
        self.waived[step.name] = known
        waivers = self.snapshot.waivers.get(step.name)
        rows = np.flatnonzero((found != 0) & np.isin(places, list(waivers or ())))
        if not waivers or not len(rows):
            return
        told = direct_reasons(self, step, places[rows])
        went = [reason for at in places[rows].tolist() for reason in told[at]]
        # Whoever took consent back is no longer accepted as a difference, whenever the acceptance was written.
        never = without_consent(self.connection, self.snapshot, self.inputs, step, went)
        for row in rows.tolist():
            at = int(places[row])
            stands = {evidence for number, evidence in waivers[at] if number == made.materialization[at]}
            accepted = tuple(one for one in told[at] if one.evidence in stands and one.node not in never)
            if accepted:
                known[at] = accepted
                left: set[Kind] = {reason.kind for reason in told[at] if reason not in accepted}
                found[row] = sum(BIT[kind] for kind in left)

    def _wait(self, waits: Flags, here: Places, want: ResolvedInput, owner: Places, source: Places) -> None:
        """Mark the nodes that have an ancestor which is not fresh."""
        if want.what == "step" and self.kinds[want.asset].any():
            waits[here[any_of(take(self.kinds[want.asset], source) != 0, owner, len(here))]] = True

    def differences(self, step: Step, places: Places) -> Iterator[tuple[ResolvedInput, Places, Places, Differences]]:
        """The differences of these made nodes by input, and then former inputs that are none today."""
        made = self.snapshot.made[step.name]
        none = UsedInputs.none(len(made.recipe))
        wants = self.inputs.wants(step)
        for want in wants:
            owner, source = want.pairs(places)
            versions = self.inputs.versions(want, step, source, self.snapshot)
            yield want, owner, source, compare(want, made.used.get(want.role, none), places, versions, owner, source)
        # An input that the step no longer takes is inside its old results all the same.
        today = {want.role for want in wants}
        for role, used in made.used.items():
            if role not in today and used.count[places].any():
                want = ResolvedInput(*role, what=_what(step, role[0]), fan_in=_is_fan_in(wants, role[0]))
                nothing = np.zeros(0, np.int64)
                gone = Differences((nothing, nothing, nothing), (nothing, nothing), used.pairs(places))
                yield want, nothing, nothing, gone

    def other_recipes(self, step: Step) -> list[Any]:
        """The recipes (rows) by which a step was done and which are not today's."""
        today = self.project.recipes[step.name].digest
        return [row for row in self._known_recipes.get(step.name, ()) if row.digest != today]

    @cached_property
    def _known_recipes(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for row in self.connection.execute(select(recipe)):
            found.setdefault(row.step, []).append(row)
        return found

    def _recipes(self, step: Step, made: StepArtifacts, places: Places) -> Kinds:
        """Few recipes were ever used: compare those, then the nodes' numbers of recipes."""
        used = made.recipe[places]
        other = self.other_recipes(step)
        bits = np.zeros(max([int(used.max(initial=0)), *(row.id for row in other)]) + 1, np.uint16)
        for row in other:
            bits[row.id] = sum(BIT[kind] for kind in differing_parts(row, self.project.recipes[step.name]))
        return bits[used]


def differing_parts(used: Any, today: Recipe) -> list[Kind]:
    """In which of its parts a recipe (a row) is not today's."""
    parts: list[Kind] = ["code"] if used.code != today.code else []
    # As texts: equal values have one canonical JSON, which costs no parsing.
    if used.parameters != canonical_json(dict(today.parameters)).decode():
        parts.append("parameters")
    if used.environment != canonical_json(dict(today.environment)).decode():
        parts.append("environment")
    return parts


def _mark(found: Kinds, here: Places, want: ResolvedInput, differences: Differences) -> None:
    owners = (differences.changed[0], differences.came[0], differences.went[0])
    for kind, owner in zip(want.kinds, owners, strict=True):
        if kind is not None and len(owner):
            found[here[owner]] |= BIT[kind]


def _what(step: Step, name: str) -> Any:
    if name.startswith("reference:"):
        return "reference"
    return "column" if "." in name else "file"


def _is_fan_in(wants: Iterable[ResolvedInput], name: str) -> bool:
    return any(want.input == name and want.fan_in for want in wants)
