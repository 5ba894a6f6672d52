"""All nodes that are not fresh, counted and grouped, for `ct stale` and the asset check `fresh`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ctcore.governance.masking import mask_of
from ctcore.model.levels import Level
from ctcore.model.node import Keys, name_of
from ctcore.model.reasons import Reason, Verdict
from ctcore.project import Project
from ctcore.staleness.verdicts import Verdicts, evaluate

Groups = Mapping[tuple[str, Reason], Sequence[str]]
EACH_UP_TO = 40  # nodes that are listed one by one; beyond, by what they have in common


@dataclass(frozen=True)
class Count:
    """The numbers of one step's nodes. `missing`, `changed` and `waiting` together are those that are not fresh.

    `changed`: the node has a cause of its own. `waiting`: only one of its ancestors has.
    """

    step: str
    level: Level
    nodes: int
    fresh: int
    accepted: int
    missing: int
    changed: int
    waiting: int
    states: Mapping[str, int]

    @property
    def open(self) -> int:
        return self.missing + self.changed + self.waiting


@dataclass(frozen=True)
class SummaryGroup:
    """Nodes of a step with the same kind of reason. `words` are those of the first; `same`: of all of them."""

    step: str
    kind: str
    input: str | None
    nodes: int
    first: str
    words: str
    same: bool

    @property
    def text(self) -> str:
        return self.words if self.same else f"{name_of((self.step, self.first))}: {self.words}, for one"


@dataclass(frozen=True)
class Overview:
    """All nodes that are not fresh, or the chosen ones among them."""

    counts: Sequence[Count]
    verdicts: Sequence[Verdict]

    def groups(self) -> list[SummaryGroup]:
        """The reasons, grouped by step and kind."""
        found: dict[tuple[str, Reason], list[str]] = defaultdict(list)
        for verdict in self.verdicts:
            for reason in verdict.reasons:
                found[(verdict.asset, reason)].append(verdict.partition)
        return group_reasons(found)


def overview(project: Project, keys: Keys | None = None) -> Overview:
    """Steps in the order of the data."""
    return overview_of(project, evaluate(project), keys)


def overview_of(project: Project, found: Verdicts, keys: Keys | None = None) -> Overview:
    """The same from existing verdicts, without names of people without consent."""
    counts, listed = [], []
    seen = mask_of(project)
    for step in project.steps:
        if keys is not None and step.name not in keys:
            continue
        mine = None if keys is None else keys[step.name]
        some = found.listed(step.name, mine)
        counts.append(_count(found, step.name, step.level, some, mine))
        listed += [seen.verdict(verdict) for verdict in some if verdict.state != "excluded"]
    return Overview(counts, listed)


def is_missing(verdict: Verdict) -> bool:
    """It was never made."""
    return "missing" in verdict.kinds


def change_of(verdict: Verdict) -> str:
    """Never made, changed itself, or only about to."""
    if is_missing(verdict):
        return "never made"
    return "about to change" if verdict.only_waits else "changed"


def _count(found: Verdicts, name: str, level: Level, verdicts: Sequence[Verdict], mine: set[str] | None) -> Count:
    accepted = found.accepted[name].keys()
    states = Counter(verdict.state for verdict in verdicts)
    open_ = Counter(change_of(verdict) for verdict in verdicts if verdict.state != "excluded")
    nodes = found.totals[name] if mine is None else len(mine) - states["excluded"]
    return Count(
        step=name,
        level=level,
        nodes=nodes,
        fresh=nodes - open_.total(),
        accepted=len(accepted if mine is None else accepted & mine),
        missing=open_["never made"],
        changed=open_["changed"],
        waiting=open_["about to change"],
        states=dict(states),
    )


def group_reasons(groups: Groups) -> list[SummaryGroup]:
    """Masked reasons of many nodes, grouped by step, kind, input and the step of the root cause."""
    alike: dict[tuple[str, str, str | None, str | None], list[tuple[Reason, Sequence[str]]]] = defaultdict(list)
    for (asset, reason), partitions in groups.items():
        root = reason.node[0] if reason.node is not None and reason.kind == "upstream" else None
        alike[(asset, reason.kind, reason.input, root)].append((reason, partitions))
    return [_group(asset, kind, source, some) for (asset, kind, source, _), some in alike.items()]


def _group(asset: str, kind: str, source: str | None, some: Sequence[tuple[Reason, Sequence[str]]]) -> SummaryGroup:
    first, partitions = some[0]
    nodes = len(partitions) if len(some) == 1 else len({key for _, keys in some for key in keys})
    same = all(reason.words == first.words for reason, _ in some)
    return SummaryGroup(asset, kind, source, nodes, partitions[0], str(first.words), same)


def by_node(verdicts: Iterable[Verdict]) -> list[tuple[str, str, str, str]]:
    """(node, state, changed or about to, all reasons)."""
    return [(name_of(v.node), v.state, change_of(v), v.why) for v in verdicts]
