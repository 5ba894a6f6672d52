"""Who should have a step's result and has none that is fresh and usable: why, since when, who said so, what to do."""

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import artifact, attempt, damage, event, lease, materialization, reference_version, run
from ctcore.governance.access import Bar, bars
from ctcore.governance.masking import Mask
from ctcore.lineage.trace import registrations
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import Reason, Verdict
from ctcore.project import Project
from ctcore.staleness.verdicts import Verdicts, evaluate
from ctcore.step import Step
from ctcore.steps.graph import REGISTRY


class Said(NamedTuple):
    """Since when something holds, and who said so; empty where nobody recorded it."""

    since: str = ""
    by: str = ""


@dataclass(frozen=True)
class MissingResult:
    """One entity without a fresh, usable result. `next` is a command."""

    node: Node
    state: str
    why: str
    since: str
    by: str
    next: str

    @property
    def as_json(self) -> dict[str, Any]:
        told = {name: getattr(self, name) or None for name in ("since", "by")}
        return {"node": name_of(self.node), "state": self.state, "why": self.why, **told, "next": self.next}


@dataclass(frozen=True)
class MissingResults:
    """Those of one step, in the order of the cohort. Hidden people have no row."""

    step: str
    level: Level
    rows: Sequence[MissingResult]


def missing_results(project: Project, step: Step, seen: Mask, only: Collection[str] | None = None) -> MissingResults:
    """One row an entity of the step's level, from a few statements for all of them. `only`: of these partitions."""
    verdicts = evaluate(project)
    place = {name: at for at, name in enumerate(verdicts.state.snapshot.names(step.name))}
    listed = [one for one in verdicts.listed(step.name, only) if not (seen and seen.hides(one.node))]
    listed.sort(key=lambda one: place[one.partition])
    told = [seen.verdict(one) for one in listed]
    with project.catalog.read() as connection:
        facts = _Facts(project, connection, verdicts, step, told, seen)
        rows = [_row(facts, one) for one in told]
    return MissingResults(step.name, step.level, rows)


def _row(facts: "_Facts", one: Verdict) -> MissingResult:
    said = facts.said(one)
    why = "; ".join(str(reason.words) if reason.kind == one.state else str(reason) for reason in one.reasons)
    failure = facts.failures.get(one.node)
    if one.state == "failed" and failure is not None:
        why = f"{failure.error}; {why}"
    return MissingResult(one.node, one.state, why, said.since, said.by, facts.next(one))


class _Failure(NamedTuple):
    error: str
    log: str | None
    said: Said


class _Facts:
    """What the catalog has recorded of the reasons of these nodes."""

    def __init__(
        self,
        project: Project,
        connection: Connection,
        verdicts: Verdicts,
        step: Step,
        listed: Sequence[Verdict],
        seen: Mask,
    ) -> None:
        self.step, self.connection, self.steps = step, connection, project.steps
        self.roots = _roots(verdicts, listed, seen)
        every = [*listed, *self.roots.values()]
        self.bars = self._bars(verdicts, listed)
        self.failures = self._failures(seen, [one.node for one in every if one.state == "failed"])
        self.running = self._running({one.asset for one in every if one.state == "running"})
        inputs = [r.node for one in every for r in one.reasons if r.kind == "input" and r.node is not None]
        self.damaged = self._damaged({one.asset for one in every if one.state == "lost"})
        self.sources = {**self._made(inputs), **self._files(inputs)}
        self.references = self._references() if any("reference" in one.kinds for one in every) else {}
        self.registered = self._registered(verdicts, [one.node for one in every if one.state == "missing"])

    def said(self, one: Verdict) -> Said:
        """Of the state itself; or else of the earliest of the reasons that are on record."""
        if one.state == "failed" and one.node in self.failures:
            return self.failures[one.node].said
        if one.state == "running":
            return self.running.get(one.node, Said())
        return min((said for reason in one.reasons if (said := self._of(one, reason)).since), default=Said())

    def _of(self, one: Verdict, reason: Reason) -> Said:
        """Of one reason, by the evidence that it names."""
        if reason.kind == "upstream":
            root = self.roots.get(reason.node) if reason.node else None
            return self.said(root) if root is not None else Said()
        if reason.kind == "excluded":
            bar = self.bars.get(reason.node) if reason.node else None
            return Said(bar.since, bar.actor) if bar else Said()
        if reason.kind == "reference":
            return self.references.get((reason.input or "").removeprefix("reference:"), Said())
        of_node = {"bytes": self.damaged, "missing": self.registered}
        found = of_node[reason.kind].get(one.node) if reason.kind in of_node else None
        return found or (self.sources.get(reason.node) if reason.kind == "input" and reason.node else None) or Said()

    def next(self, one: Verdict) -> str:
        """The command that goes on from here."""
        if one.state == "excluded":
            return self._next_of_excluded(one)
        if one.state == "running":
            return "ct jobs"
        failed = next((node for node in self._causes(one) if node in self.failures), None)
        if failed is not None:
            return _command("logs" if self.failures[failed].log else "why", name_of(failed))
        asked = next((node for node in self._causes(one) if self._is_elsewhere(node, one)), one.node)
        return _command("adopt" if self._is_elsewhere(asked, one) else "run", name_of(asked))

    def _is_elsewhere(self, node: Node, one: Verdict) -> bool:
        """Whether a cause is to be adopted. A node that only waits is not due yet."""
        step = self.steps.by_name.get(node[0])
        return step is not None and step.made_elsewhere and not (node == one.node and one.only_waits)

    def _causes(self, one: Verdict) -> Iterable[Node]:
        yield one.node
        yield from (reason.node for reason in one.reasons if reason.kind == "upstream" and reason.node)

    def _next_of_excluded(self, one: Verdict) -> str:
        for reason in one.reasons:
            if reason.kind == "excluded" and reason.node is not None:
                bar = self.bars.get(reason.node)
                if bar is None or not bar.ethics:
                    return _command("qc", "history", name_of(reason.node))
                return _command("consent", "history", reason.node[1])
        if self.step.level == "cohort":
            return _command("why", name_of(one.node))
        return _command("show", f"{self.step.level}/{one.partition}")

    def _bars(self, verdicts: Verdicts, listed: Sequence[Verdict]) -> Mapping[Node, Bar]:
        """The first bar of everybody who bars one of the nodes."""
        entities, shape = verdicts.state.snapshot.entities, verdicts.state.snapshot.shape
        nodes = {r.node for one in listed if one.state == "excluded" for r in one.reasons if r.kind == "excluded"}
        whose = {int(entities[who[0]].seq[entities[who[0]].index[who[1]]]): who for who in nodes if who}
        found: dict[Node, Bar] = {}
        day = verdicts.state.snapshot.days[0]
        for bar in bars(self.connection, shape.uses, day, whose, shape.required) if whose else ():
            if bar.step in (None, self.step.name):
                found.setdefault(whose[bar.entity], bar)
        return found

    def _failures(self, seen: Mask, nodes: Collection[Node]) -> Mapping[Node, _Failure]:
        """The last failed call of each; who asked for it is on the event."""
        if not nodes:
            return {}
        mine = attempt.c.asset.in_({node[0] for node in nodes}) & in_keys(attempt.c.partition, _keys(nodes))
        last = select(func.max(attempt.c.id)).where(mine).group_by(attempt.c.asset, attempt.c.partition)
        who = self._events("fail", nodes)
        found: dict[Node, _Failure] = {}
        for row in self.connection.execute(select(attempt).where(attempt.c.id.in_(last))):
            error = ": ".join(line.strip() for line in row.error.splitlines()[:2])
            node = (row.asset, row.partition)
            found[node] = _Failure(seen.text(error), row.log, who.get(node, Said(row.ended_at)))
        # Steps and partitions are two lists in the statement, so it also found other partitions of these steps.
        return {node: found[node] for node in nodes if node in found}

    def _running(self, assets: Collection[str]) -> Mapping[Node, Said]:
        if not assets:
            return {}
        asked = select(lease.c.asset, lease.c.partition, lease.c.since, run.c.actor)
        asked = asked.select_from(lease.outerjoin(run, run.c.id == lease.c.run_id)).where(lease.c.asset.in_(assets))
        return {(row.asset, row.partition): Said(row.since, row.actor or "") for row in self.connection.execute(asked)}

    def _damaged(self, assets: Collection[str]) -> Mapping[Node, Said]:
        if not assets:
            return {}
        first = select(damage.c.asset, damage.c.partition, func.min(damage.c.found_at))
        first = first.where(damage.c.asset.in_(assets)).group_by(damage.c.asset, damage.c.partition)
        return {(row[0], row[1]): Said(row[2]) for row in self.connection.execute(first)}

    def _made(self, nodes: Collection[Node]) -> Mapping[Node, Said]:
        """Since when the artifacts of these nodes are there, and who asked for them."""
        mine = {node for node in nodes if node[0] not in REGISTRY}
        if not mine:
            return {}
        made = materialization.c
        asked = select(artifact.c.asset, artifact.c.partition, made.started_at, made.actor)
        asked = asked.join(materialization, made.id == artifact.c.materialization)
        asked = asked.where(artifact.c.asset.in_({node[0] for node in mine}))
        rows = self.connection.execute(asked.where(in_keys(artifact.c.partition, _keys(mine))))
        return {(row[0], row[1]): Said(row[2], row[3] or "") for row in rows}

    def _files(self, nodes: Collection[Node]) -> Mapping[Node, Said]:
        """When other bytes of these entities' raw files were seen first."""
        return self._events("file", [node for node in nodes if node[0] in ENTITY_LEVELS])

    def _events(self, kind: str, nodes: Collection[Node]) -> Mapping[Node, Said]:
        """The last event of a kind about each of these nodes."""
        names = {name_of(node): node for node in nodes}
        if not names:
            return {}
        mine = (event.c.kind == kind) & in_keys(event.c.subject, names)
        last = select(func.max(event.c.seq)).where(mine).group_by(event.c.subject)
        rows = self.connection.execute(select(event.c.subject, event.c.at, event.c.actor).where(event.c.seq.in_(last)))
        return {names[row.subject]: Said(row.at, row.actor) for row in rows}

    def _references(self) -> Mapping[str, Said]:
        held = reference_version.c
        rows = self.connection.execute(select(held.key, held.at, held.actor).order_by(held.number))
        return {row.key: Said(row.at, row.actor) for row in rows}

    def _registered(self, verdicts: Verdicts, nodes: Collection[Node]) -> Mapping[Node, Said]:
        """A result that was never made is missing since its entity was registered, by whom the sheet was."""
        snapshot, seqs = verdicts.state.snapshot, dict[Node, int]()
        for node in nodes:
            level = snapshot.shape.levels.get(node[0], "cohort")
            if level != "cohort":
                seqs[node] = int(snapshot.entities[level].seq[snapshot.entities[level].index[node[1]]])
        sheets = registrations(self.connection, set(seqs.values()))
        return {node: Said(*sheets[seq][1:]) for node, seq in seqs.items() if seq in sheets}


def _roots(verdicts: Verdicts, listed: Sequence[Verdict], seen: Mask) -> Mapping[Node, Verdict]:
    """The verdicts of the root causes of those that wait."""
    by_step: dict[str, set[str]] = {}
    for one in listed:
        for reason in one.reasons:
            if reason.kind == "upstream" and reason.node is not None:
                by_step.setdefault(reason.node[0], set()).add(reason.node[1])
    return {one.node: seen.verdict(one) for asset, some in by_step.items() for one in verdicts.listed(asset, some)}


def _keys(nodes: Iterable[Node]) -> list[str]:
    return sorted({node[1] for node in nodes})


def _command(*words: str) -> str:
    return shlex.join(["ct", *words])
