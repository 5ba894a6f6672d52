"""⑦ From what differs to reasons: the evidence and the words, only for the nodes that somebody asks about."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import edge
from ctcore.compare import Differences
from ctcore.inputs import Want
from ctcore.judge import BIT, Evaluated, Judge, kinds_of
from ctcore.mirror.versions import Places, packed, unpacked
from ctcore.project import Project
from ctcore.reasons import (
    Kind,
    Node,
    Reason,
    State,
    changed,
    differences,
    differing,
    name_of,
    private,
    reference_change,
)
from ctcore.step import Step
from ctcore.steps import Recipe

DIRECT = (1 << 16) - 1 - BIT["upstream"]
_Found = tuple[int, Node, str | None, str | None, Kind | None]


class Evidence:
    """The reasons of nodes of one evaluation. What was told once is remembered."""

    def __init__(self, project: Project, state: Evaluated, special: dict[Node, State]) -> None:
        self.project = project
        self.state = state
        self.special = special
        self._direct: dict[str, dict[int, list[Reason]]] = defaultdict(dict)

    def reasons(self, step: Step, places: Places) -> dict[int, tuple[Reason, ...]]:
        """All reasons of these nodes, direct ones first."""
        self._tell(step, places)
        waiting = places[(self.state.kinds[step.name][places] & BIT["upstream"]) != 0]
        because = self._upstream(step, waiting) if len(waiting) else {}
        return {at: (*self._direct[step.name].get(at, ()), *because.get(at, ())) for at in places.tolist()}

    def state_of(self, step: str, place: int) -> State:
        """The verdict in a word; of a node that is not fresh."""
        special = self.special.get((step, self.state.mirror.name(step, place)))
        kinds = int(self.state.kinds[step][place])
        if special is not None:
            return special
        if kinds & BIT["bytes"]:
            return "lost"
        return "missing" if kinds & BIT["missing"] else "stale"

    def _tell(self, step: Step, places: Places) -> None:
        """Direct reasons of these nodes, where they are not known yet."""
        known = self._direct[step.name]
        direct = (self.state.kinds[step.name][places] & DIRECT) != 0
        new = np.array([at for at in places[direct].tolist() if at not in known], np.int64)
        if not len(new):
            return
        for at in new.tolist():
            known[at] = []
        made = self.state.mirror.made[step.name]
        is_made = made.materialization[new] > 0
        for at in new[~is_made].tolist():
            known[at].append(Reason("missing", "never made"))
        here = new[is_made]
        with self.project.catalog.read() as connection:
            judge = Judge(self.project, connection, self.state.mirror, self.state.inputs)
            used = {row.id: row for row in judge.other_recipes(step)}
            for at in here.tolist():
                row = used.get(int(made.recipe[at]))
                if row is not None:
                    known[at] += _recipe_reasons(row, self.project.recipes[step.name])
            for want, _, _, differing_ones in judge.differences(step, here):
                for owner, node, old, new_version, kind in self._found(connection, step, here, want, differing_ones):
                    if kind is not None:
                        known[int(here[owner])].append(_said(want, kind, node, old, new_version))
        harmed = self.state.mirror.damaged.get(step.name, {})
        for at in here.tolist():
            node = (step.name, self.state.mirror.name(step.name, at))
            for file, problem in harmed.get(at, ()):
                known[at].append(Reason("bytes", f"{file} {problem}", node, input=file, new=problem))

    def _found(self, connection: Any, step: Step, here: Places, want: Want, found: Differences) -> Iterator[_Found]:
        """Each difference with its old and new version, by place among the nodes and then by source."""
        kinds = kinds_of(want)
        used = self.state.mirror.made[step.name].used.get(want.role)
        changed_owner, changed_source, _ = found.changed
        came_owner, came_source = found.came
        went_owner, went_edges = found.went
        if not (len(changed_owner) or len(came_owner) or len(went_owner)):
            return
        went_nodes = [used.node(want.role, int(at), self._name) for at in used.source[went_edges]] if used else []
        changed_nodes = [self._source(want, at) for at in changed_source.tolist()]
        owners = [*here[changed_owner].tolist(), *here[went_owner].tolist()]
        old = self._used(connection, step, want, owners, [*changed_nodes, *went_nodes])
        new = self._today(connection, step, want, changed_source)
        listed: list[Any] = [
            (int(owner), node, was, now, kinds[0])
            for owner, node, was, now in zip(changed_owner, changed_nodes, old, new, strict=False)
        ]
        came = zip(came_owner, came_source.tolist(), self._today(connection, step, want, came_source), strict=True)
        listed += [(int(owner), self._source(want, source), None, now, kinds[1]) for owner, source, now in came]
        went = zip(went_owner, went_nodes, old[len(changed_nodes) :], strict=True)
        listed += [(int(owner), node, was, None, kinds[2]) for owner, node, was in went]
        yield from listed

    def _source(self, want: Want, place: int) -> Node:
        return want.asset, self._name(want.asset, place) if want.what != "reference" else want.input.partition(":")[2]

    def _name(self, asset: str, place: int) -> str:
        return self.state.mirror.name(asset, place)

    def _used(
        self, connection: Any, step: Step, want: Want, owners: Sequence[int], sources: Sequence[Node]
    ) -> list[str | None]:
        """The data versions that were used, from the ledger: they never change."""
        if not owners:
            return []
        numbers = self.state.mirror.made[step.name].materialization[owners].tolist()
        dialect = self.project.dialect
        rows = connection.execute(
            select(edge.c.materialization, edge.c.partition, edge.c.version).where(
                in_keys(edge.c.materialization, set(numbers), dialect),
                edge.c.input == want.input,
                edge.c.asset == want.asset,
                in_keys(edge.c.partition, {node[1] for node in sources}, dialect),
            )
        )
        known = {(row.materialization, row.partition): row.version for row in rows}
        return [known.get((number, node[1])) for number, node in zip(numbers, sources, strict=True)]

    def _today(self, connection: Any, step: Step, want: Want, sources: Places) -> list[str | None]:
        if not len(sources):
            return []
        if want.what == "reference":
            return [self.state.mirror.references.get(want.input.partition(":")[2])] * len(sources)
        versions = self.state.inputs.versions(want, step, sources, self.state.mirror)
        none = unpacked(packed([None]))[0]
        return [None if text == none else text for text in unpacked(versions)]

    def _upstream(self, step: Step, places: Places) -> dict[int, list[Reason]]:
        """Ancestors that are not fresh: by input the first one, with its root cause and how many more."""
        found: dict[int, list[Reason]] = defaultdict(list)
        firsts: list[tuple[int, Want, int, int]] = []
        for want in self.state.inputs.wants(step):
            if want.what == "step":
                for owner, source, count in self._first_stale(want, places):
                    firsts.append((int(places[owner]), want, source, count))
        ways = [self._way((want.asset, source)) for _, want, source, _ in firsts]
        for asset in {way[-1][0] for way in ways}:
            self._tell(self.project.steps[asset], np.array(sorted({w[-1][1] for w in ways if w[-1][0] == asset})))
        for (at, want, _, count), way in zip(firsts, ways, strict=True):
            found[at].append(self._because(want.input, way, count))
        return found

    def _first_stale(self, want: Want, places: Places) -> Iterator[tuple[int, int, int]]:
        """Of each of these nodes: the first source of this input that is not fresh, and how many are not."""
        owner, source = want.pairs(places)
        bad = self.state.kinds[want.asset][source] != 0
        owner, source = owner[bad], source[bad]
        groups, first, counts = np.unique(owner, return_index=True, return_counts=True)
        yield from zip(groups.tolist(), source[first].tolist(), counts.tolist(), strict=True)

    def _way(self, start: tuple[str, int]) -> list[tuple[str, int]]:
        """From a node that is not fresh to the first ancestor that has a reason of its own."""
        way = [start]
        while not int(self.state.kinds[way[-1][0]][way[-1][1]]) & DIRECT:
            asset, place = way[-1]
            at = np.array([place])
            wants = (want for want in self.state.inputs.wants(self.project.steps[asset]) if want.what == "step")
            way.append(next((want.asset, source) for want in wants for _, source, _ in self._first_stale(want, at)))
        return way

    def _because(self, name: str, way: Sequence[tuple[str, int]], count: int) -> Reason:
        path = tuple((asset, self._name(asset, place)) for asset, place in way)
        if len(way) > 1:
            words = f"{name} ({name_of(path[0])}) waits for {name_of(path[-1])}"
        else:
            state = self.state_of(*way[0])
            direct = self._direct[way[0][0]][way[0][1]][0]
            words = f"{name} ({name_of(path[0])}) " + (
                "was never made" if state == "missing" else f"is {state}, {direct}"
            )
        if count > 1:
            words += f", and {count - 1} more"
        return Reason("upstream", words, path[-1], path, name)


def _said(want: Want, kind: Kind, node: Node, old: str | None, new: str | None) -> Reason:
    name = want.input
    if kind == "reference":
        words = reference_change(node[1], old, new)
    elif kind == "metadata":  # values are personal data
        words = f"{name} of {node[1]} changed"
        old = private(old)
    elif kind in ("member-added", "member-removed"):
        words = f"{name_of(node)} as {name}"
    else:
        words = changed(f"{name} ({name_of(node)})", old, new)
    return Reason(kind, words, node, input=name, old=old, new=new)


def _recipe_reasons(used: Any, today: Recipe) -> Iterable[Reason]:
    if used.code != today.code:
        yield Reason("code", changed(used.step, used.code, today.code), old=used.code, new=today.code)
    old, new = json.loads(used.parameters), dict(today.parameters)
    if old != new:
        yield Reason("parameters", differences(old, new), old=differing(old, new), new=differing(new, old))
    old, new = json.loads(used.environment), dict(today.environment)
    if old != new:
        yield Reason("environment", differences(old, new), old=differing(old, new), new=differing(new, old))
