"""⑦ The one definition of what is still true: a few statements over the ledger, however many nodes.

A node is fresh when the recipe, and every input that it would get today, have the data versions it was made from,
and its bytes are there. Nothing here depends on time.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import artifact, attempt, damage, edge, lease, recipe
from ctcore.collecting import without_collecting
from ctcore.inputs import Wanted
from ctcore.leases import is_alive
from ctcore.memo import prepare
from ctcore.project import Project
from ctcore.reasons import (
    Node,
    Reason,
    State,
    Verdict,
    changed,
    differences,
    name_of,
    reference_change,
)
from ctcore.step import Step

Keys = Mapping[str, set[str]]


@dataclass
class Verdicts:
    """Every node that is not fresh, and how many nodes each step has. What is not listed is fresh."""

    totals: dict[str, int] = field(default_factory=dict)
    by_step: dict[str, dict[str, Verdict]] = field(default_factory=dict)

    def of(self, asset: str, partition: str) -> Verdict:
        return self.by_step.get(asset, {}).get(partition) or Verdict(asset, partition, "fresh")

    def stale(self) -> list[Verdict]:
        """Everything that would have to run, in the order in which it could."""
        listed = (verdict for some in self.by_step.values() for verdict in some.values())
        return [verdict for verdict in listed if verdict.state not in ("excluded", "running")]

    def count(self, asset: str) -> dict[State, int]:
        counts: dict[State, int] = defaultdict(int)
        for verdict in self.by_step[asset].values():
            counts[verdict.state] += 1
        listed = sum(n for state, n in counts.items() if state != "excluded")
        return {"fresh": self.totals[asset] - listed, **counts}


@without_collecting
def evaluate(project: Project, only: Keys | None = None) -> Verdicts:
    """The verdict on every node, or on those of `only` (step → partitions) and what they are made from."""
    with project.catalog.read() as connection:
        wanted = None if only is None else with_ancestors(project, connection, only)
        found = Verdicts()
        for step in project.steps:
            if wanted is not None and step.name not in wanted:
                continue
            keys = None if wanted is None else wanted[step.name]
            _Evaluation(project, connection, step, keys).into(found)
        return found


def with_ancestors(project: Project, connection: Connection, only: Keys) -> dict[str, set[str]]:
    """The named nodes and every node that they are made from today."""
    wanted: dict[str, set[str]] = defaultdict(set, {name: set(keys) for name, keys in only.items()})
    for name in reversed(project.steps.order):
        if wanted.get(name):
            for source in project.inputs.wanted(project.steps[name], wanted[name]):
                if source.input in project.steps[name].inputs:
                    up = project.steps[name].inputs[source.input]
                    wanted[up].update(connection.execute(select(source.rows.c.source).distinct()).scalars())
    return {name: keys for name, keys in wanted.items() if keys}


class _Evaluation:
    """One step: collects the reasons of its nodes, then says their states."""

    def __init__(self, project: Project, connection: Connection, step: Step, keys: set[str] | None) -> None:
        self.project = project
        self.connection = connection
        self.step = step
        self.keys = keys
        self.nodes = project.inputs.nodes(step, keys)
        self.reasons: dict[str, list[Reason]] = defaultdict(list)

    def into(self, found: Verdicts) -> None:
        self._missing()
        self._recipes()
        for wanted in self.project.inputs.wanted(self.step, self.keys):
            self._differing(wanted)
        lost = self._damaged()
        self._upstream(found)
        found.totals[self.step.name] = self._count()
        found.by_step[self.step.name] = self._verdicts(lost)

    def _add(self, partition: str, kind: Any, words: str, node: Node | None = None) -> None:
        self.reasons[partition].append(Reason(kind, words, node))

    def _count(self) -> int:
        return self.connection.execute(select(func.count()).select_from(self.nodes)).scalar_one()

    def _mine(self) -> Any:
        made = artifact.c.asset == self.step.name
        if self.keys is None:
            return made
        return and_(made, in_keys(artifact.c.partition, self.keys, self.project.dialect))

    def _missing(self) -> None:
        made = and_(artifact.c.asset == self.step.name, artifact.c.partition == self.nodes.c.partition)
        rows = self.connection.execute(
            select(self.nodes.c.partition)
            .select_from(self.nodes.outerjoin(artifact, made))
            .where(artifact.c.partition.is_(None))
            .order_by(self.nodes.c.position)
        )
        for partition in rows.scalars():
            self._add(partition, "missing", "never made")

    def _recipes(self) -> None:
        """Few recipes were ever used: compare those, then name the nodes that used another one."""
        today = self.project.recipes[self.step.name]
        used = self.connection.execute(
            select(recipe).where(recipe.c.step == self.step.name, recipe.c.digest != today.digest)
        )
        said = {row.id: list(_recipe_reasons(row, today)) for row in used}
        if not said:
            return
        rows = self.connection.execute(
            select(artifact.c.partition, artifact.c.recipe)
            .join(self.nodes, self.nodes.c.partition == artifact.c.partition)
            .where(self._mine(), artifact.c.recipe.in_(said))
        )
        for partition, recipe_id in rows:
            self.reasons[partition].extend(said[recipe_id])

    def _differing(self, wanted: Wanted) -> None:
        now = wanted.rows
        used = and_(
            edge.c.materialization == artifact.c.materialization,
            edge.c.input == wanted.input,
            edge.c.asset == now.c.asset,
            edge.c.partition == now.c.source,
        )
        mine = and_(artifact.c.asset == self.step.name, artifact.c.partition == now.c.partition)
        other = self.connection.execute(
            select(now.c.partition, now.c.asset, now.c.source, edge.c.version, now.c.version)
            .select_from(now.join(artifact, mine).outerjoin(edge, used))
            .where(or_(edge.c.version.is_(None), edge.c.version != now.c.version))
            .order_by(now.c.position)
        )
        for partition, asset, source, old, new in other:
            self._said(wanted, partition, (asset, source), old, new)
        self._gone(wanted)

    def _gone(self, wanted: Wanted) -> None:
        """Inputs that were used and would not be given today.

        EXCEPT, because it sorts: SQLite runs the outer join that says the same as a loop in a loop.
        """
        now = wanted.rows
        used = and_(edge.c.materialization == artifact.c.materialization, edge.c.input == wanted.input)
        edges = artifact.join(edge, used)
        gone = (
            select(artifact.c.partition, edge.c.asset, edge.c.partition.label("source"))
            .select_from(edges.join(self.nodes, self.nodes.c.partition == artifact.c.partition))
            .where(self._mine())
            .except_(select(now.c.partition, now.c.asset, now.c.source))
            .subquery()
        )
        version = (
            select(edge.c.version)
            .select_from(edges)
            .where(
                artifact.c.asset == self.step.name,
                artifact.c.partition == gone.c.partition,
                edge.c.asset == gone.c.asset,
                edge.c.partition == gone.c.source,
            )
        )
        rows = self.connection.execute(
            select(gone, version.scalar_subquery()).order_by(gone.c.partition, gone.c.asset, gone.c.source)
        )
        for partition, asset, source, old in rows:
            self._said(wanted, partition, (asset, source), old, None)

    def _said(self, wanted: Wanted, partition: str, source: Node, old: str | None, new: str | None) -> None:
        name = wanted.input
        if name.startswith("reference:"):
            self._add(partition, "reference", reference_change(source[1], old, new), source)
        elif name in self.step.columns:
            if old is not None and new is not None:  # who came and went is said of the members
                self._add(partition, "metadata", f"{name} of {source[1]} changed", source)  # values are personal data
        elif wanted.fan_in and old is None:
            self._add(partition, "member-added", f"{name_of(source)} as {name}", source)
        elif wanted.fan_in and new is None:
            self._add(partition, "member-removed", f"{name_of(source)} as {name}", source)
        else:
            self._add(partition, "input", changed(f"{name} ({name_of(source)})", old, new), source)

    def _damaged(self) -> set[str]:
        rows = self.connection.execute(
            select(damage.c.partition, damage.c.file, damage.c.problem)
            .join(self.nodes, self.nodes.c.partition == damage.c.partition)
            .where(damage.c.asset == self.step.name)
            .order_by(damage.c.partition, damage.c.file)
        )
        lost = set()
        for partition, file, problem in rows:
            lost.add(partition)
            self._add(partition, "bytes", f"{file} {problem}", (self.step.name, partition))
        return lost

    def _upstream(self, found: Verdicts) -> None:
        """Ancestors that are not fresh: the first one an input, with its root cause and how many more."""
        for wanted in self.project.inputs.wanted(self.step, self.keys):
            up = self.step.inputs.get(wanted.input)
            stale = {
                key: verdict for key, verdict in found.by_step.get(up or "", {}).items() if verdict.state != "excluded"
            }
            if not stale:
                continue
            waiting: dict[str, list[Verdict]] = defaultdict(list)
            for partition, source in self._sources(wanted, up or "", stale):
                waiting[partition].append(stale[source])
            for partition, verdicts in waiting.items():
                self.reasons[partition].append(_because(wanted.input, verdicts))

    def _sources(self, wanted: Wanted, up: str, stale: Iterable[str]) -> Iterable[tuple[str, str]]:
        rows = wanted.rows
        return [
            (row[0], row[1])
            for row in self.connection.execute(
                select(rows.c.partition, rows.c.source)
                .where(in_keys(rows.c.source, stale, self.project.dialect))
                .order_by(rows.c.position)
            )
        ]

    def _verdicts(self, lost: set[str]) -> dict[str, Verdict]:
        name = self.step.name
        running = _running(self.connection, name)
        failed = _still_failing(self.project, self.connection, self.step, self.reasons)
        verdicts = {}
        for partition, reasons in self.reasons.items():
            state: State = "stale"
            if partition in running:
                state = "running"
            elif partition in failed:
                state = "failed"
            elif partition in lost:
                state = "lost"
            elif reasons[0].kind == "missing":
                state = "missing"
            verdicts[partition] = Verdict(name, partition, state, tuple(reasons))
        excluded = self.project.inputs.excluded(self.step, self.keys) if self.step.level != "cohort" else None
        for partition in self.connection.execute(excluded).scalars() if excluded is not None else ():
            why = Reason("missing", f"has not what {name} needs ({_needs(self.step)})")
            verdicts[partition] = Verdict(name, partition, "excluded", (why,))
        return verdicts


def _needs(step: Step) -> str:
    return ", ".join([*step.files, *step.inputs]) or step.level


def _because(name: str, verdicts: list[Verdict]) -> Reason:
    """The reason `upstream`, from the first stale source of an input."""
    first = verdicts[0]
    inherited = next((r for r in first.reasons if r.kind == "upstream"), None)
    direct = next((r for r in first.reasons if r.kind != "upstream"), None)
    if inherited is not None and direct is None:
        root, path = inherited.node, (first.node, *inherited.path)
        words = f"{name} ({name_of(first.node)}) waits for {name_of(root or first.node)}"
    else:
        root, path = first.node, (first.node,)
        state = "was never made" if first.state == "missing" else f"is {first.state}, {direct}"
        words = f"{name} ({name_of(first.node)}) {state}"
    if len(verdicts) > 1:
        words += f", and {len(verdicts) - 1} more"
    return Reason("upstream", words, root, path, len(verdicts))


def _recipe_reasons(used: Any, today: Any) -> Iterable[Reason]:
    if used.code != today.code:
        yield Reason("code", changed(used.step, used.code, today.code))
    old, new = json.loads(used.parameters), dict(today.parameters)
    if old != new:
        yield Reason("parameters", differences(old, new))
    old, new = json.loads(used.environment), dict(today.environment)
    if old != new:
        yield Reason("environment", differences(old, new))


def _running(connection: Connection, asset: str) -> set[str]:
    rows = connection.execute(select(lease.c.partition, lease.c.owner, lease.c.job).where(lease.c.asset == asset))
    return {row.partition for row in rows if is_alive(row.owner) or is_alive(row.job)}


def _still_failing(project: Project, connection: Connection, step: Step, candidates: Iterable[str]) -> set[str]:
    """Nodes whose last call failed and would be the same call today."""
    last = select(func.max(attempt.c.id)).where(attempt.c.asset == step.name).group_by(attempt.c.partition)
    rows = connection.execute(select(attempt.c.partition, attempt.c.key).where(attempt.c.id.in_(last)))
    keys = {row.partition: row.key for row in rows}
    asked = [partition for partition in candidates if partition in keys]
    ready = prepare(project, step, asked).ready if asked else {}
    return {partition for partition, prepared in ready.items() if prepared.key == keys[partition]}
