"""⑦ All that is not fresh, counted and grouped: what `ct stale` and the asset check `fresh` say."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ctcore.project import Project
from ctcore.reasons import Reason, Verdict, name_of
from ctcore.staleness import Keys, Verdicts, evaluate
from ctcore.step import Level
from ctcore.veil import veil

Groups = Mapping[tuple[str, Reason], Sequence[str]]
EACH_UP_TO = 40  # nodes that are listed one by one; beyond, by what they have in common


@dataclass(frozen=True)
class Count:
    """One step: how many of its nodes are what. `missing`, `changed` and `waiting` are all that is not fresh.

    `changed`: something of its own differs. `waiting`: only something that it is made from is about to change.
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
class Group:
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
    """What is not fresh of all nodes, or of those that were chosen."""

    counts: Sequence[Count]
    verdicts: Sequence[Verdict]

    def groups(self) -> list[Group]:
        """The reasons, grouped by step and kind."""
        found: dict[tuple[str, Reason], list[str]] = defaultdict(list)
        for verdict in self.verdicts:
            for reason in verdict.reasons:
                found[(verdict.asset, reason)].append(verdict.partition)
        return grouped(found)


def overview(project: Project, keys: Keys | None = None) -> Overview:
    """Steps in the order of the data."""
    return overview_of(project, evaluate(project), keys)


def overview_of(project: Project, found: Verdicts, keys: Keys | None = None) -> Overview:
    """The same from verdicts that are there already. Nobody without consent is named."""
    counts, listed = [], []
    seen = veil(project)
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


def grouped(groups: Groups) -> list[Group]:
    """Reasons that the veil has told, by step, kind, input and the step where the root cause lies; what people read of
    many nodes."""
    alike: dict[tuple[str, str, str | None, str | None], list[tuple[Reason, Sequence[str]]]] = defaultdict(list)
    for (asset, reason), partitions in groups.items():
        root = reason.node[0] if reason.node is not None and reason.kind == "upstream" else None
        alike[(asset, reason.kind, reason.input, root)].append((reason, partitions))
    return [_group(asset, kind, source, some) for (asset, kind, source, _), some in alike.items()]


def _group(asset: str, kind: str, source: str | None, some: Sequence[tuple[Reason, Sequence[str]]]) -> Group:
    first, partitions = some[0]
    nodes = len(partitions) if len(some) == 1 else len({key for _, keys in some for key in keys})
    same = all(reason.words == first.words for reason, _ in some)
    return Group(asset, kind, source, nodes, partitions[0], str(first.words), same)


def by_node(verdicts: Iterable[Verdict]) -> list[tuple[str, str, str, str]]:
    """(node, state, changed or about to, all reasons)."""
    return [(name_of(v.node), v.state, change_of(v), v.why) for v in verdicts]
