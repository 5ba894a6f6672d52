"""What would run, in which order, why, and at what cost, before anything runs.

Two numbers, because of early cut-off. The upper bound counts everything downstream of what runs. The expected number
uses each step's history: how often a re-making gave other content.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Column, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import artifact
from ctcore.cohorts.filters import NodeFilter, filter_nodes
from ctcore.cohorts.partitions import is_empty
from ctcore.cohorts.selection import select_nodes
from ctcore.config.automation import Policy
from ctcore.config.slurm_profiles import LOCAL
from ctcore.execution.runners import chosen_profile
from ctcore.governance.masking import Mask, mask_of
from ctcore.inputs.key import Hit, Preparation, cache_hits, prepare
from ctcore.inputs.reach import with_ancestors
from ctcore.model.levels import Level
from ctcore.model.masked_text import Plain, Words
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import Reason, Verdict, node_text
from ctcore.planning.past_costs import HOUR_S, Cost, Remakings, changes, costs
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from ctcore.step import Step
from ctcore.util.gc import without_collecting

SPELLED = 3  # so many different words of one kind are listed; more are one group with an example


@dataclass(frozen=True)
class ReasonGroup:
    """Nodes with one reason, or with one kind of reason: how many, and one of them with its words."""

    kind: str
    nodes: int
    example: str
    words: str


@dataclass(frozen=True)
class Scope:
    """The requested nodes: the `named` ones, and those with all their inputs (`only`). None means everything.

    `said` explains what was left out.
    """

    named: Mapping[str, set[str]] | None = None
    only: Mapping[str, set[str]] | None = None
    notes: tuple[str, ...] = ()

    def leaves_alone(self, project: Project, step: str) -> bool:
        """Whether the step is made elsewhere, or has `[policy] step = "never"` and nobody named it."""
        is_never = project.settings.automation.policy(step) == "never" and step not in (self.named or {})
        return is_never or project.steps[step].made_elsewhere


@dataclass(frozen=True)
class StepPlan:
    """One step: nodes that would run at most, nodes that would be reused, nodes that would not, and the evidence."""

    step: str
    level: Level
    leaf: bool  # no step takes what it makes
    policy: Policy
    run: tuple[Verdict, ...]
    reuse: tuple[Verdict, ...]
    expected: float
    why: tuple[ReasonGroup, ...]
    excluded: tuple[ReasonGroup, ...]
    running: int
    failed: int
    cost: Cost
    changes: Remakings
    keys: Mapping[str, str] = field(default_factory=dict)

    def core_hours(self, nodes: float) -> float | None:
        """None if the step was never made, so that there is no history."""
        if not nodes:
            return 0.0
        return None if self.cost.core_seconds is None else nodes * self.cost.core_seconds / HOUR_S

    def elapsed_s(self, nodes: float, at_once: int) -> float | None:
        if not nodes:
            return 0.0
        return None if self.cost.seconds is None else math.ceil(nodes / at_once) * self.cost.seconds


@dataclass(frozen=True)
class Plan:
    """Steps in the order of running; steps without any work are left out."""

    selection: tuple[str, ...]
    place: str
    at_once: int
    steps: tuple[StepPlan, ...]
    notes: tuple[str, ...] = ()

    @property
    def nodes(self) -> int:
        return sum(len(one.run) for one in self.steps)

    @property
    def reused(self) -> int:
        return sum(len(one.reuse) for one in self.steps)

    @property
    def expected(self) -> float:
        return sum(one.expected for one in self.steps)

    @property
    def running_steps(self) -> list[StepPlan]:
        """Steps with at least one node that would run."""
        return [one for one in self.steps if one.run]

    @property
    def leaves(self) -> int:
        """Nodes from which nothing else is made: the results that people wait for."""
        return sum(len(one.run) for one in self.steps if one.leaf)

    @property
    def without_history(self) -> list[str]:
        return [one.step for one in self.running_steps if not one.cost.runs]

    def core_hours(self, expected: bool = False) -> float:
        """Of the steps with a history; `without_history` names the others."""
        each = (one.core_hours(one.expected if expected else len(one.run)) for one in self.steps)
        return sum(hours or 0.0 for hours in each)

    def elapsed_s(self, expected: bool = False) -> float:
        """Step after step, with `at_once` calls at a time; no waiting in queues."""
        each = (one.elapsed_s(one.expected if expected else len(one.run), self.at_once) for one in self.steps)
        return sum(seconds or 0.0 for seconds in each)


def scope(project: Project, texts: Sequence[str], narrowing: NodeFilter | None = None) -> Scope:
    """The nodes of these selections and all their inputs, as `ct run` takes them."""
    named = select_nodes(project, texts)
    if not narrowing:
        return Scope() if named is None else Scope(named, with_ancestors(project, named))
    found = filter_nodes(project, narrowing, named)
    only = with_ancestors(project, found.keys)
    return Scope(None if named is None else found.keys, only, found.notes)


@without_collecting
def plan(
    project: Project, texts: Sequence[str] = (), profile: str | None = None, narrowing: NodeFilter | None = None
) -> Plan:
    """What `ct run` with these selections would do now. Read-only."""
    asked, there = scope(project, texts, narrowing), chosen_profile(project, profile)
    verdicts, only = evaluate(project), {} if is_empty(project) else asked.only
    wanted = project.steps.order if only is None else [name for name in project.steps.order if name in only]
    listed = {name: verdicts.listed(name, None if only is None else only[name]) for name in wanted}
    planner = _Planner(project, {name: some for name, some in listed.items() if some}, asked)
    steps = [planner.step(step) for step in project.steps if listed.get(step.name)]
    at_once = there.in_flight if there else project.settings.run.workers or os.cpu_count() or 1
    told = [one for one in steps if one.run or one.reuse or one.excluded or one.running]
    texts = (*texts, *(narrowing.options if narrowing else ()))
    return Plan(texts, there.name if there else LOCAL, at_once, tuple(told), asked.notes)


class _Planner:
    """Goes through the steps in order and knows of each node how likely its content becomes another one."""

    def __init__(self, project: Project, verdicts: Mapping[str, list[Verdict]], asked: Scope) -> None:
        self.project = project
        self.verdicts = verdicts
        self.asked = asked
        names = list(verdicts)
        self.costs = costs(project, names)
        self.changes = changes(project, names)
        self.moves: dict[str, dict[str, float]] = {}
        self.means: dict[str, float] = {}
        self.held: dict[str, set[str]] = {}
        self.known: set[str] = set()  # steps of which something is reused
        self.future: dict[Node, str] = {}  # what is reused, and the data version that it will have
        self.unsure: set[Node] = set()  # what is made, so that nobody knows yet what it will be
        self.mask = mask_of(project)

    def step(self, step: Step) -> StepPlan:
        listed = self.verdicts[step.name]
        stale = [one for one in listed if one.state not in ("excluded", "running")]
        held = nodes_left_alone(self.project, self.asked, step.name, stale, self.held)
        able = [one for one in stale if one.partition not in held]
        # Only of what waits for nothing: the others will have inputs that are not there yet, and so another key.
        prepared = prepare(self.project, step, [one.partition for one in able if not one.waits])
        found = cache_hits(self.project, prepared.ready.values()) if prepared.ready else {}
        reused = {key: found[call.key].data_version for key, call in prepared.ready.items() if call.key in found}
        below = self._below(step, [one for one in able if one.waits])
        reused |= {key: hit.data_version for key, (_, hit) in below.items()}
        self._foresee(step.name, listed, reused)
        stays = self._stays(step.name, able, {key: call for key, (call, _) in below.items()})
        reused = {key: version for key, version in reused.items() if key not in stays}
        left = reused.keys() | stays | prepared.blocked.keys()
        run = [one for one in able if one.partition not in left]
        likely = {one.partition: self._likely(one) for one in able}
        self._remember(step.name, [one for one in listed if one.state == "running"], able, reused, likely)
        return StepPlan(
            step=step.name,
            level=step.level,
            leaf=not self.project.steps.downstream(step.name),
            policy=self.project.settings.automation.policy(step.name),
            run=tuple(run),
            reuse=tuple(one for one in able if one.partition in reused),
            expected=sum(likely[one.partition] for one in run),
            why=tuple(group_plan_reasons(map(self.mask.verdict, run))),
            excluded=tuple(_not_run(listed, held, prepared, self.mask)),
            running=sum(one.state == "running" for one in listed),
            failed=sum(one.state == "failed" for one in run),
            cost=self.costs[step.name],
            changes=self.changes[step.name],
            keys={key: call.key for key, call in prepared.ready.items()},
        )

    def _below(self, step: Step, waiting: Sequence[Verdict]) -> dict[str, tuple[str, Hit]]:
        """Of waiting nodes, those whose calls are known in advance: all their inputs are reused, and the call was
        made before with these."""
        if not self.known.intersection(step.inputs.values()):
            return {}
        keys = [one.partition for one in waiting if not any(r.path and r.path[0] in self.unsure for r in one.reasons)]
        ready = prepare(self.project, step, keys, future=self.future).ready if keys else {}
        sure = {key: one for key, one in ready.items() if not any(edge[1:3] in self.unsure for edge in one.edges)}
        found = cache_hits(self.project, sure.values()) if sure else {}
        return {key: (one.key, found[one.key]) for key, one in sure.items() if one.key in found}

    def _foresee(self, name: str, listed: Iterable[Verdict], known: Mapping[str, str]) -> None:
        """The future data versions of this step's nodes, as far as they are known."""
        if known:
            self.known.add(name)
        self.future |= {(name, key): version for key, version in known.items()}
        self.unsure |= {one.node for one in listed if one.partition not in known}

    def _stays(self, name: str, able: Iterable[Verdict], calls: Mapping[str, str]) -> set[str]:
        """Nodes that only wait for others, with a result of the same call: once those are fresh, they are fresh
        without a call."""
        waiting = [one.partition for one in able if one.only_waits and one.partition in calls]
        now = _current(self.project, name, waiting, artifact.c.key)
        return {key for key in waiting if now.get(key) == calls[key]}

    def _likely(self, verdict: Verdict) -> float:
        """The probability that a node must be made. It is 1 unless the node only waits for others that may stay as
        they are."""
        if any(reason.kind != "upstream" for reason in verdict.reasons) or verdict.state == "failed":
            return 1.0
        stays = 1.0
        for reason in verdict.reasons:
            moves = self.moves.get(reason.path[0][0], {})
            stays *= 1 - moves.get(reason.path[0][1], 1.0)
            # A reason names the first source that is not fresh; for each of the others, the mean of its step stands in.
            stays *= (1 - self.means.get(reason.path[0][0], 1.0)) ** (reason.sources - 1)
        return 1 - stays

    def _remember(
        self,
        name: str,
        running: Iterable[Verdict],
        able: Iterable[Verdict],
        reused: Mapping[str, str],
        likely: Mapping[str, float],
    ) -> None:
        """How likely each node's content becomes another one."""
        now = _current(self.project, name, reused, artifact.c.data_version)
        found = {one.partition: self._gives_other(one) for one in running}
        for one in able:
            other = self._gives_other(one)
            found[one.partition] = likely[one.partition] * other
            if one.partition in reused:
                found[one.partition] = float(reused[one.partition] != now.get(one.partition))
        self.moves[name] = found
        self.means[name] = sum(found.values()) / len(found) if found else 1.0

    def _gives_other(self, verdict: Verdict) -> float:
        past = self.changes[verdict.asset]
        if any(reason.kind == "missing" for reason in verdict.reasons):
            return 1.0
        lost = all(reason.kind == "bytes" for reason in verdict.reasons)
        share = past.share_of_same if lost else past.share
        # Without a history it is taken to change: the estimate is too high then, and not too low.
        return 1.0 if share is None else share


def nodes_left_alone(
    project: Project, asked: Scope, name: str, stale: Sequence[Verdict], before: dict[str, set[str]]
) -> dict[str, Words]:
    """Nodes that do not run because they are made elsewhere or because of `never`, those that wait for them, and why.

    `before` holds the nodes of the steps above; the new ones are added.
    """
    step = project.steps[name]
    if step.made_elsewhere:
        held = {one.partition: Words(Plain(step.way_to(one.partition))) for one in stale}
    elif asked.leaves_alone(project, name):
        words = Words(Plain(f'[policy] {name} = "never": made only where it is named'))
        held = dict.fromkeys((one.partition for one in stale), words)
    else:
        held = {
            one.partition: _waiting_words(project, reason)
            for one in stale
            for reason in one.reasons
            if reason.path and reason.path[0][1] in before.get(reason.path[0][0], ())
        }
    before[name] = set(held)
    return held


def _waiting_words(project: Project, reason: Reason) -> Words:
    """Of a node that waits for one that does not run."""
    root = project.steps[reason.node[0]] if reason.node else None
    if reason.node and root and root.made_elsewhere:
        return Words("waits for ", node_text(reason.node), ", which is ", Plain(root.way_to(reason.node[1])))
    return Words("waits for ", node_text(reason.path[0]), ", which is left alone ([policy])")


def _current(project: Project, name: str, keys: Iterable[str], column: Column[str]) -> dict[str, str]:
    """The catalog's values of this column for these nodes."""
    listed = list(keys)
    if not listed:
        return {}
    mine = (artifact.c.asset == name) & in_keys(artifact.c.partition, listed)
    with project.catalog.read() as connection:
        return {row[0]: row[1] for row in connection.execute(select(artifact.c.partition, column).where(mine))}


def _not_run(
    listed: Iterable[Verdict], held: Mapping[str, Words], prepared: Preparation, seen: Mask
) -> list[ReasonGroup]:
    """Nodes that are not fresh and would not run, and why."""
    excluded = [seen.verdict(one) for one in listed if one.state == "excluded"]
    found = [ReasonGroup("excluded", g.nodes, g.example, g.words) for g in group_plan_reasons(excluded)]
    for kind, words in (("left alone", held), ("blocked", prepared.blocked)):
        nodes = [one for one in listed if one.partition in words]
        said = [Verdict(*one.node, one.state, (Reason("missing", words[one.partition]),)) for one in nodes]
        found += [ReasonGroup(kind, g.nodes, g.example, g.words) for g in group_plan_reasons(map(seen.verdict, said))]
    return found


def group_plan_reasons(verdicts: Iterable[Verdict]) -> list[ReasonGroup]:
    """The reasons of many nodes after masking, the most frequent first. A node counts once for each of its reasons."""
    exact: Counter[tuple[str, ...]] = Counter()
    kinds: Counter[tuple[str, ...]] = Counter()
    first: dict[tuple[str, ...], tuple[Node, str]] = {}
    for verdict in verdicts:
        spelled = {(*_kind(reason), str(reason.words)) for reason in verdict.reasons}
        exact.update(spelled)
        kinds.update({key[:2] for key in spelled})
        for key in spelled:
            first.setdefault(key, (verdict.node, key[2]))
            first.setdefault(key[:2], (verdict.node, key[2]))
    variety = Counter(key[:2] for key in exact)
    # One group where there are many different words, or as many as nodes: a line for each would say the same.
    alike = {key for key, n in kinds.items() if variety[key] > SPELLED or 1 < variety[key] == n}
    listed = [(key, n) for key, n in exact.items() if key[:2] not in alike] + [(key, kinds[key]) for key in alike]
    found = [ReasonGroup(key[0], n, name_of(first[key][0]), first[key][1]) for key, n in listed]
    return sorted(found, key=lambda group: (-group.nodes, group.kind, group.words))


def _kind(reason: Reason) -> tuple[str, str]:
    """The kind of a reason; for a wait, the step counts as well."""
    return (reason.kind, reason.path[0][0] if reason.path else "")
