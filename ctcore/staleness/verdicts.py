"""The verdicts of all nodes: computed at once, and put into words for the nodes that somebody looks at."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import overload
from weakref import WeakKeyDictionary

import numpy as np
from sqlalchemy import Connection, select

from ctcore.catalog.tables import lease
from ctcore.inputs.current import KnownCatalog, known_catalog
from ctcore.inputs.exclusions import why_excluded
from ctcore.inputs.key import prepare
from ctcore.model.node import Node
from ctcore.model.reasons import Kind, Reason, State, Verdict
from ctcore.project import Project
from ctcore.projects.leases import living_processes
from ctcore.snapshot.versions import Places
from ctcore.staleness.evaluate import BIT, KINDS, NodeStates, evaluate_nodes
from ctcore.staleness.upstream_reasons import Evidence
from ctcore.step import Step

TOLD = 500  # nodes whose reasons are told together


class Verdicts:
    """The verdict on every node, in one state of the catalog. Reasons are put into words when they are looked at."""

    def __init__(self, project: Project, state: NodeStates, special: dict[Node, State]) -> None:
        self.project = project
        self.state = state
        self.special = special
        self.evidence = Evidence(project, state, special)

    @cached_property
    def totals(self) -> dict[str, int]:
        """How many nodes each step has."""
        return {step.name: int(self.state.inputs.nodes(step).sum()) for step in self.project.steps}

    def of(self, asset: str, partition: str) -> Verdict:
        """The verdict of one node. A node that does not exist is fresh: see `has`."""
        step, place = self.project.steps[asset], self.state.snapshot.locate(asset, [partition])[0]
        if place >= 0 and self.state.kinds[asset][place]:
            return next(self._verdicts(step, np.array([place])))
        if place >= 0 and place in self.excluded[asset]:
            return next(self._excluded(step, np.array([place])))
        return self.accepted[asset].get(partition) or Verdict(asset, partition, "fresh")

    def has(self, asset: str, partition: str) -> bool:
        """Whether there is such a node, be it an excluded one."""
        place = self.state.snapshot.locate(asset, [partition])[0]
        step = self.project.steps[asset]
        return place >= 0 and bool(self.state.inputs.nodes(step)[place] or place in self.excluded[asset])

    @cached_property
    def excluded(self) -> dict[str, set[int]]:
        """Which places of each step are nodes that are left out."""
        return {step.name: set(self.state.inputs.excluded(step).tolist()) for step in self.project.steps}

    def listed(self, asset: str, partitions: Iterable[str] | None = None) -> list[Verdict]:
        """The nodes of a step that are not fresh, in the order of the cohort; or those of some partitions."""
        step, kinds = self.project.steps[asset], self.state.kinds[asset]
        places, excluded = np.flatnonzero(kinds), self.state.inputs.excluded(step)
        if partitions is not None:
            asked = np.array(self.state.snapshot.locate(asset, list(partitions)), np.int64)
            places, excluded = np.intersect1d(places, asked), np.intersect1d(excluded, asked)
        return [*self._verdicts(step, places), *self._excluded(step, excluded)]

    def stale(self) -> list[Verdict]:
        """Everything that would have to run, in the order in which it could."""
        some = (verdict for step in self.project.steps for verdict in self.listed(step.name))
        return [verdict for verdict in some if verdict.state not in ("excluded", "running")]

    @cached_property
    def accepted(self) -> dict[str, dict[str, Verdict]]:
        """Nodes that are fresh because of an acceptance, by step."""
        found: dict[str, dict[str, Verdict]] = {step.name: {} for step in self.project.steps}
        for step, waived in self.state.waived.items():
            for at, reasons in sorted(waived.items()):
                if not self.state.kinds[step][at]:
                    name = self.state.snapshot.name(step, at)
                    found[step][name] = Verdict(step, name, "fresh", waived=reasons)
        return found

    def with_acceptances(self) -> list[Verdict]:
        """Nodes with at least one accepted reason, fresh or not."""
        fresh = [verdict for some in self.accepted.values() for verdict in some.values()]
        names = {step: [self.state.snapshot.name(step, at) for at in some] for step, some in self.state.waived.items()}
        return fresh + [one for step, some in names.items() if some for one in self.listed(step, some)]

    def unblocked(self) -> list[Verdict]:
        """Nodes that are not fresh and wait for nothing else, in an order in which they could run."""
        found: list[Verdict] = []
        for step in self.project.steps:
            kinds = self.state.kinds[step.name]
            found += self._verdicts(step, np.flatnonzero((kinds != 0) & (kinds & BIT["upstream"] == 0)))
        return [verdict for verdict in found if verdict.state != "running"]

    def states(self, asset: str) -> list[State]:
        """The states of all partitions of a step, in the order of the cohort. A partition without a node is
        excluded."""
        kinds, nodes = self.state.kinds[asset], self.state.inputs.nodes(self.project.steps[asset])
        found: list[State] = ["fresh" if node else "excluded" for node in nodes.tolist()]
        for at in np.flatnonzero(kinds).tolist():
            found[at] = self.evidence.state_of(asset, at)
        return found

    def count(self, asset: str) -> dict[State, int]:
        """How many nodes of a step are in each state."""
        step, kinds = self.project.steps[asset], self.state.kinds[asset]
        lost, missing = (kinds & BIT["bytes"]) != 0, (kinds & BIT["missing"]) != 0
        counts: Counter[str] = Counter(
            missing=int((missing & ~lost).sum()),
            lost=int(lost.sum()),
            stale=int(((kinds != 0) & ~missing & ~lost).sum()),
            excluded=len(self.state.inputs.excluded(step)),
        )
        for node, state in self.special.items():
            if node[0] == asset:
                place = self.state.snapshot.locate(asset, [node[1]])[0]
                counts[state] += 1
                # It was counted above by its reasons, too.
                counts["lost" if lost[place] else "missing" if missing[place] else "stale"] -= 1
        fresh = self.totals[asset] - int((kinds != 0).sum())
        return {"fresh": fresh, **{state: n for state, n in counts.items() if n}}  # type: ignore[dict-item]

    def _verdicts(self, step: Step, places: Places) -> Iterator[Verdict]:
        waived, names = self.state.waived.get(step.name, {}), self.state.snapshot.names(step.name)
        for first in range(0, len(places), TOLD):
            some = _Told(self.evidence, step, places[first : first + TOLD])
            for at in places[first : first + TOLD].tolist():
                name = names[int(at)]
                state, kinds = self.evidence.state_of(step.name, at), kinds_in(int(self.state.kinds[step.name][at]))
                yield Verdict(step.name, name, state, _Later(some, at), kinds, waived.get(at, ()))

    def _excluded(self, step: Step, places: Places) -> Iterator[Verdict]:
        if not len(places):
            return
        with self.project.catalog.read() as connection:
            why = why_excluded(connection, self.state.inputs, step, places.tolist())
        for at, reasons in why.items():
            yield Verdict(step.name, self.state.snapshot.name(step.name, at), "excluded", reasons)


@dataclass
class Evaluation:
    """The last evaluation of one catalog."""

    known: KnownCatalog
    last: NodeStates | None = None

    def for_rollback(self) -> "Evaluation":
        """A copy for a transaction that is rolled back: its findings stay there."""
        with self.known.lock:
            return Evaluation(self.known.for_rollback(), self.last)

    def today(self, project: Project, connection: Connection) -> NodeStates:
        """Evaluated anew, where anything changed that it follows from."""
        snapshot, inputs = self.known.catch_up(project, connection)
        self.last = evaluate_nodes(project, connection, snapshot, inputs, self.last, self.known.changes())
        return self.last


_evaluations: WeakKeyDictionary[KnownCatalog, Evaluation] = WeakKeyDictionary()


def evaluation(project: Project) -> Evaluation:
    """The evaluation of a project's catalog in this process. It is dropped with the catalog's snapshot."""
    known = known_catalog(project)
    with known.lock:
        return _evaluations.setdefault(known, Evaluation(known))


def evaluate(project: Project, here: Evaluation | None = None) -> Verdicts:
    """The verdict on every node, from this process's evaluation of the catalog, or from the one given."""
    here = here or evaluation(project)
    # A transaction sees the state at its first statement (sqlite.org/isolation.html; PostgreSQL's manual, 13.2.2):
    # after the lock is had, so never an older one than the snapshot that others have brought up to date.
    with project.catalog.read() as connection, here.known.lock:
        state = here.today(project, connection)
        special: dict[Node, State] = {**_failing(project, connection, state), **_running(project, connection, state)}
    return Verdicts(project, state, special)


@cache
def kinds_in(bits: int) -> tuple[Kind, ...]:
    return tuple(kind for kind in KINDS if bits & BIT[kind])


class _Told:
    """The reasons of some nodes of a step, computed together when one of them is used."""

    def __init__(self, evidence: Evidence, step: Step, places: Places) -> None:
        self.evidence, self.step, self.places = evidence, step, places

    @cached_property
    def reasons(self) -> dict[int, tuple[Reason, ...]]:
        return self.evidence.reasons(self.step, self.places)


class _Later(Sequence[Reason]):
    """The reasons of one node, once they are looked at."""

    def __init__(self, told: _Told, place: int) -> None:
        self._told, self._place = told, place

    @overload
    def __getitem__(self, at: int) -> Reason: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Reason]: ...
    def __getitem__(self, at: int | slice) -> Reason | Sequence[Reason]:
        return self._told.reasons[self._place][at]

    def __len__(self) -> int:
        return len(self._told.reasons[self._place])

    def __iter__(self) -> Iterator[Reason]:
        """Iterate in a fifth of the time of a plain sequence: each of 800,000 nodes is visited ten times."""
        return iter(self._told.reasons[self._place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> tuple[type[tuple[Reason, ...]], tuple[tuple[Reason, ...]]]:
        return tuple, (tuple(self),)


def _running(project: Project, connection: Connection, state: NodeStates) -> dict[Node, State]:
    """Nodes that are not fresh and that some process works on now."""
    rows = connection.execute(select(lease.c.asset, lease.c.partition, lease.c.owner, lease.c.job)).all()
    alive = living_processes(project, [name for row in rows for name in (row.owner, row.job)])
    busy = [(row.asset, row.partition) for row in rows if row.owner in alive or row.job in alive]
    return {node: "running" for node in busy if _is_open(state, node)}


def _is_open(state: NodeStates, node: Node) -> bool:
    place = state.snapshot.locate(node[0], [node[1]])[0] if node[0] in state.kinds else -1
    return place >= 0 and bool(state.kinds[node[0]][place])


def _failing(project: Project, connection: Connection, state: NodeStates) -> dict[Node, State]:
    """Nodes whose last call failed and would be the same call today."""
    found: dict[Node, State] = {}
    for step, keys in state.snapshot.failed.items():
        if step not in state.kinds:
            continue
        names = {state.snapshot.name(step, at): key for at, key in keys.items() if state.kinds[step][at]}
        ready = prepare(project, project.steps[step], names, connection=connection).ready if names else {}
        found.update({call.node: "failed" for call in ready.values() if call.key == names[call.node[1]]})
    return found
