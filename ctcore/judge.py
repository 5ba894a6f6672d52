"""⑦ The one definition of what is still true: a few operations on columns, however many nodes.

A node is fresh when the recipe, and every input that it would get today, have the data versions it was made from,
and its bytes are there. Nothing here depends on time. What is not touched by an event since the last evaluation is
not evaluated again; a node is evaluated in the same way alone and among a million.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from ctcore.catalog.tables import recipe
from ctcore.collecting import without_collecting
from ctcore.compare import Differences, compare
from ctcore.digest import canonical
from ctcore.excluded import without_consent
from ctcore.inputs import Inputs, Want
from ctcore.mirror.made import Made, Used
from ctcore.mirror.mirror import Mirror, Touched
from ctcore.mirror.ranges import Flags, any_of, taken
from ctcore.mirror.versions import Places
from ctcore.project import Project
from ctcore.reasons import Kind, Reason
from ctcore.step import Step
from ctcore.steps import Recipe
from ctcore.telling import direct_reasons

KINDS: tuple[Kind, ...] = get_args(Kind)
BIT: Mapping[Kind, int] = {kind: 1 << at for at, kind in enumerate(KINDS)}
Kinds = NDArray[np.uint16]
"""(n,) a bit for each kind of reason that a node has; 0 where it is fresh, or is no node."""

_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Evaluated:
    """The kinds of reasons of every node, in one state of the catalog and of the steps; `waived` were accepted."""

    mirror: Mirror
    inputs: Inputs
    recipes: Mapping[str, str]
    kinds: Mapping[str, Kinds]
    waived: Mapping[str, Mapping[int, tuple[Reason, ...]]]


@without_collecting
def evaluated(
    project: Project,
    connection: Connection,
    mirror: Mirror,
    inputs: Inputs,
    before: Evaluated | None,
    touched: Touched,
) -> Evaluated:
    """Every node; with `before`, only those that what was touched since may have changed."""
    recipes = {name: one.digest for name, one in project.recipes.items()}
    judge = Judge(project, connection, mirror, inputs)
    turned: dict[str, Places] = {}
    for step in project.steps:
        nodes = inputs.nodes(step)
        old = before.kinds.get(step.name) if before is not None and not touched.all else None
        if before is not None and old is not None:
            judge.waived[step.name] = dict(before.waived.get(step.name, {}))
        if before is None or old is None:
            old, places = np.zeros(len(nodes), np.uint16), np.flatnonzero(nodes)
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
        turned[step.name] = np.flatnonzero((old != 0) != (kinds != 0))
    return Evaluated(mirror, inputs, recipes, judge.kinds, judge.waived)


def _reached(step: Step, inputs: Inputs, touched: Touched, turned: Mapping[str, Places], nodes: int) -> Flags:
    """The nodes of a step whose verdict may be another one."""
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


class Judge:
    """Finds what differs between what nodes were made from and what they would be made from today."""

    def __init__(self, project: Project, connection: Connection, mirror: Mirror, inputs: Inputs) -> None:
        self.project = project
        self.connection = connection
        self.mirror = mirror
        self.inputs = inputs
        self.kinds: dict[str, Kinds] = {}
        self.waived: dict[str, dict[int, tuple[Reason, ...]]] = {}

    def of(self, step: Step, places: Places) -> Kinds:
        """The kinds of reasons of these nodes of a step whose inputs have been judged."""
        made = self.mirror.made[step.name]
        found = np.zeros(len(places), np.uint16)
        is_made = made.materialization[places] > 0
        found[~is_made] = BIT["missing"]
        here = np.flatnonzero(is_made)
        found[here] |= self._recipes(step, made, places[here])
        waits = np.zeros(len(places), np.bool_)
        for want, owner, source, differences in self.differences(step, places[here]):
            _mark(found, here, want, differences)
            self._wait(waits, here, want, owner, source)
        others = np.flatnonzero(~is_made)
        for want in self.inputs.wants(step) if len(others) else ():
            self._wait(waits, others, want, *want.pairs(places[others]))
        harmed = self.mirror.damaged.get(step.name)
        if harmed:
            found[np.isin(places, list(harmed)) & is_made] |= BIT["bytes"]
        self._waive(step, made, places, found)
        found[waits] |= BIT["upstream"]
        return found

    def _waive(self, step: Step, made: Made, places: Places, found: Kinds) -> None:
        """Take away the reasons that were accepted, of these makings and with this evidence."""
        before = self.waived.get(step.name, {})
        known = {at: before[at] for at in before.keys() - set(places.tolist())} if before else {}
        self.waived[step.name] = known
        waivers = self.mirror.waivers.get(step.name)
        rows = np.flatnonzero((found != 0) & np.isin(places, list(waivers or ())))
        if not waivers or not len(rows):
            return
        told = direct_reasons(self, step, places[rows])
        went = [reason for at in places[rows].tolist() for reason in told[at]]
        never = without_consent(self.connection, self.mirror, self.inputs, step, went)
        for row in rows.tolist():
            at = int(places[row])
            stands = {evidence for number, evidence in waivers[at] if number == made.materialization[at]}
            accepted = tuple(one for one in told[at] if one.evidence in stands and one.node not in never)
            if accepted:
                known[at] = accepted
                left: set[Kind] = {reason.kind for reason in told[at] if reason not in accepted}
                found[row] = sum(BIT[kind] for kind in left)

    def _wait(self, waits: Flags, here: Places, want: Want, owner: Places, source: Places) -> None:
        """Mark the nodes that have an ancestor which is not fresh."""
        if want.what == "step" and self.kinds[want.asset].any():
            waits[here[any_of(taken(self.kinds[want.asset], source) != 0, owner, len(here))]] = True

    def differences(self, step: Step, places: Places) -> Iterator[tuple[Want, Places, Places, Differences]]:
        """By input: what differs of these nodes, which have been made. Then inputs that are none today."""
        made = self.mirror.made[step.name]
        none = Used.none(len(made.recipe))
        wants = self.inputs.wants(step)
        for want in wants:
            owner, source = want.pairs(places)
            versions = self.inputs.versions(want, step, source, self.mirror)
            yield want, owner, source, compare(want, made.used.get(want.role, none), places, versions, owner, source)
        today = {want.role for want in wants}
        for role, used in made.used.items():
            if role not in today and used.count[places].any():
                want = Want(*role, what=_what(step, role[0]), fan_in=_gathers(wants, role[0]))
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

    def _recipes(self, step: Step, made: Made, places: Places) -> Kinds:
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
    if used.parameters != canonical(dict(today.parameters)).decode():
        parts.append("parameters")
    if used.environment != canonical(dict(today.environment)).decode():
        parts.append("environment")
    return parts


def _mark(found: Kinds, here: Places, want: Want, differences: Differences) -> None:
    owners = (differences.changed[0], differences.came[0], differences.went[0])
    for kind, owner in zip(want.kinds, owners, strict=True):
        if kind is not None and len(owner):
            found[here[owner]] |= BIT[kind]


def _what(step: Step, name: str) -> Any:
    if name.startswith("reference:"):
        return "reference"
    return "column" if "." in name else "file"


def _gathers(wants: Iterable[Want], name: str) -> bool:
    return any(want.input == name and want.fan_in for want in wants)
