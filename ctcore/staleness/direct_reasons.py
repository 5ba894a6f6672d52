"""The direct reasons of nodes, with evidence. They are computed only for nodes that somebody looks at."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import edge
from ctcore.catalog.tombstones import purge_words_by_partition
from ctcore.code.archive import differing_names as differing_code
from ctcore.code.archive import read_code
from ctcore.inputs.resolve import ResolvedInput
from ctcore.model.masked_text import NodeName, Plain, QuotedText, Words
from ctcore.model.node import Node
from ctcore.model.reasons import (
    Kind,
    Reason,
    code_change,
    differences,
    differing_members,
    input_change,
    members_text,
    node_text,
    private_digest,
    reference_change,
    role_change,
)
from ctcore.project import Project
from ctcore.snapshot.versions import Places, pack, unpack
from ctcore.staleness.compare import Differences
from ctcore.staleness.rule_changes import RuleChange
from ctcore.step import Step
from ctcore.steps.graph import Recipe
from ctcore.store.folder_content import differing_members as differing_members_in

if TYPE_CHECKING:
    from ctcore.staleness.evaluate import Evaluator

_Found = tuple[int, Node, str | None, str | None, Kind | None]


def direct_reasons(judge: "Evaluator", step: Step, places: Places) -> dict[int, list[Reason]]:
    """All reasons of these nodes except those in their ancestors; accepted ones are included."""
    found: dict[int, list[Reason]] = {at: [] for at in places.tolist()}
    made = judge.snapshot.made[step.name]
    is_made = made.materialization[places] > 0
    names = {at: judge.snapshot.name(step.name, at) for at in places[~is_made].tolist()}
    purged = purge_words_by_partition(judge.connection, step.name, names.values()) if names else {}
    for at, name in names.items():
        said = purged.get(name, "never made")
        said += f"; {step.way_to(name)}" * step.made_elsewhere
        found[at].append(Reason("missing", Words(Plain(said))))
    here = places[is_made]
    today = judge.project.recipes[step.name]
    used = {row.id: list(_recipe_reasons(judge.project, row, today)) for row in judge.other_recipes(step)}
    ruled = RuleChange.of(judge, step, here)
    for at in here.tolist():
        found[at] += used.get(int(made.recipe[at]), ())
    for want, _, _, differing_ones in judge.differences(step, here):
        for owner, node, old, new, kind in _InputReasons(judge, step, here, want).found(differing_ones):
            if kind is not None:
                because = ruled.reason_words(want, int(here[owner]), kind, node)
                if kind == "reference":
                    because = members_text(differing_members_of(judge.project, old, new))
                found[int(here[owner])].append(_reason(want, kind, node, old, new, because))
    harmed = judge.snapshot.damaged.get(step.name, {})
    for at in here.tolist() if harmed else ():
        node = (step.name, judge.snapshot.name(step.name, at))
        for file, problem in harmed.get(at, ()):
            words = Words(QuotedText(f"{file} {problem}"))
            found[at].append(Reason("bytes", words, node, input=file, new=problem))
    return found


class _InputReasons:
    """One input of some nodes that have been made."""

    def __init__(self, judge: "Evaluator", step: Step, here: Places, want: ResolvedInput) -> None:
        self.judge, self.step, self.here, self.want = judge, step, here, want

    def found(self, found: Differences) -> Iterator[_Found]:
        """Each difference with its old and new version, by place among the nodes and then by source."""
        kinds, snapshot = self.want.kinds, self.judge.snapshot
        used = snapshot.made[self.step.name].used.get(self.want.role)
        changed_owner, changed_source, _ = found.changed
        came_owner, came_source = found.came
        went_owner, went_edges = found.went
        if not (len(changed_owner) or len(came_owner) or len(went_owner)):
            return
        went_nodes = (
            [used.node(self.want.role, int(at), snapshot.name) for at in used.source[went_edges]] if used else []
        )
        changed_nodes = [self._source(at) for at in changed_source.tolist()]
        owners = [*self.here[changed_owner].tolist(), *self.here[went_owner].tolist()]
        old = self._used(owners, [*changed_nodes, *went_nodes])
        new = self._today(changed_source)
        # Not strict: `old` goes on with the versions of the sources that went, which are taken below.
        listed: list[Any] = [
            (int(owner), node, was, now, kinds[0])
            for owner, node, was, now in zip(changed_owner, changed_nodes, old, new, strict=False)
        ]
        came = zip(came_owner, came_source.tolist(), self._today(came_source), strict=True)
        listed += [(int(owner), self._source(source), None, now, kinds[1]) for owner, source, now in came]
        went = zip(went_owner, went_nodes, old[len(changed_nodes) :], strict=True)
        listed += [(int(owner), node, was, None, kinds[2]) for owner, node, was in went]
        yield from listed

    def _source(self, place: int) -> Node:
        if self.want.what == "reference":
            return self.want.asset, self.want.input.partition(":")[2]
        return self.want.asset, self.judge.snapshot.name(self.want.asset, place)

    def _used(self, owners: Sequence[int], sources: Sequence[Node]) -> list[str | None]:
        """The data versions that were used, from the ledger: they never change."""
        if not owners:
            return []
        numbers = self.judge.snapshot.made[self.step.name].materialization[owners].tolist()
        rows = self.judge.connection.execute(
            select(edge.c.materialization, edge.c.partition, edge.c.version).where(
                in_keys(edge.c.materialization, set(numbers)),
                edge.c.input == self.want.input,
                edge.c.asset == self.want.asset,
                in_keys(edge.c.partition, {node[1] for node in sources}),
            )
        )
        known = {(row.materialization, row.partition): row.version for row in rows}
        return [known.get((number, node[1])) for number, node in zip(numbers, sources, strict=True)]

    def _today(self, sources: Places) -> list[str | None]:
        if not len(sources):
            return []
        snapshot = self.judge.snapshot
        if self.want.what == "reference":
            return [snapshot.references.get(self.want.input.partition(":")[2])] * len(sources)
        if self.want.is_role:
            return self.judge.inputs.texts(self.judge.connection, self.want, sources)
        versions = self.judge.inputs.versions(self.want, self.step, sources, snapshot)
        none = unpack(pack([None]))[0]
        return [None if text == none else text for text in unpack(versions)]


def differing_members_of(project: Project, old: str | None, new: str | None) -> list[str]:
    """Which paths of a folder, a reference or a raw file, differ between two of its data versions."""
    digests = [(version or "").rpartition(" ")[2] for version in (old, new)]
    return differing_members_in(project.store.root, *digests)


def _reason(want: ResolvedInput, kind: Kind, node: Node, old: str | None, new: str | None, because: str) -> Reason:
    name = want.input
    if kind == "reference":
        words = Words(Plain(reference_change(node[1], old, new) + because))
    elif kind == "metadata":  # values are personal data
        words = Words(Plain(f"{name} of "), NodeName(node, node[1]), " changed")
        # `new` comes from the snapshot, which keeps digests; only the ledger's edge has the value itself.
        old = private_digest(old)
    elif kind == "member-role":
        words = role_change(node, old, new)
    elif kind in ("member-added", "member-removed"):
        words = Words(node_text(node), Plain(f" as {name}"), QuotedText(because))
    else:
        words = input_change(name, node, old, new)
    return Reason(kind, words, node, input=name, old=old, new=new)


def _recipe_reasons(project: Project, used: Any, today: Recipe) -> Iterable[Reason]:
    if used.code != today.code:
        before = read_code(project.store.root, used.code)
        names = differing_code(before, project.codes[today.step].content) if before else []
        words = code_change(used.step, used.code, today.code, names)
        yield Reason("code", words, old=used.code, new=today.code)
    old, new = json.loads(used.parameters), dict(today.parameters)
    if old != new:
        yield Reason(
            "parameters",
            Words(Plain(differences(old, new))),
            old=differing_members(old, new),
            new=differing_members(new, old),
        )
    old, new = json.loads(used.environment), dict(today.environment)
    if old != new:
        yield Reason(
            "environment",
            Words(Plain(differences(old, new))),
            old=differing_members(old, new),
            new=differing_members(new, old),
        )
