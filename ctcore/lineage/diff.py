"""Two makings side by side: the first cause in which they differ, the rest, and where the difference began."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ctcore.code.archive import lines_between, names_between
from ctcore.errors import Usage
from ctcore.governance.masking import WITHHELD, mask_for
from ctcore.inputs.key import Edge
from ctcore.inputs.resolve import ROLE
from ctcore.lineage.attribution import attributions_of
from ctcore.lineage.target import Target, choose, find_target
from ctcore.lineage.trace import outputs_of, recipes_of
from ctcore.lineage.walk import Lineage, Making, lineage_of
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.masked_text import NodeName, Part, Plain, Words
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import (
    MADE_ELSEWHERE,
    Reason,
    change_text,
    code_change,
    differences,
    input_change,
    node_text,
    reference_change,
    role_change,
    short_digest,
)
from ctcore.project import Project
from ctcore.util.gc import without_collecting

Pair = tuple[int, int]
_ORDER = (
    "code",
    "parameters",
    "environment",
    "input",
    "metadata",
    "member-removed",
    "member-added",
    "member-role",
    "reference",
)


@dataclass(frozen=True)
class Cause:
    """One way in which two makings differ. `deeper`: the makings that its two sides came from."""

    reason: Reason
    deeper: Pair | None = None


@dataclass
class Difference:
    """The differences of two makings: files, causes (the first one first), and the roots of differing inputs."""

    a: Making
    b: Making
    lineage: Lineage
    files: dict[str, str] = field(default_factory=dict)  # name → in words
    causes: list[Reason] = field(default_factory=list)
    roots: list[Reason] = field(default_factory=list)
    code: list[str] = field(default_factory=list)  # the lines of it that differ
    beside: list[tuple[str, str]] = field(default_factory=list)  # what is no cause: who asked, where, which commit

    @property
    def same_content(self) -> bool:
        return self.a.data_version == self.b.data_version

    def __bool__(self) -> bool:
        return bool(self.causes) or not self.same_content

    @property
    def sentence(self) -> str:
        names = " and ".join(f"{name_of(one.node)} #{one.id}" for one in (self.a, self.b))
        if self.a.id == self.b.id:
            return f"{names} are one making"
        content = "the same content" if self.same_content else "other content"
        if self.causes:
            return f"{names} have {content}; the first difference is {self.causes[0]}"
        same = "from the same code, parameters, environment and inputs"
        last = "" if self.same_content else ": the step gives other bytes each time it runs"
        return f"{names} have {content}, {same}{last}"


def find_pair(project: Project, a: str, b: str | None) -> Pair:
    """Two makings: `A B`, where B may be a making of A's node (`@12`, `@previous`). A alone is compared with its
    previous making."""
    if b is None:
        second = _one(project, a)
        return (_beside(project, a, second, "previous").id, second.id)
    if a.startswith("@") and b.startswith("@"):
        raise Usage(f"{a} and {b} are makings of which node? Write it before one of them, as in step/partition{a} {b}")
    if b.startswith("@"):
        first = _one(project, a)
        return (first.id, _beside(project, a, first, b[1:]).id)
    if a.startswith("@"):
        second = _one(project, b)
        return (_beside(project, b, second, a[1:]).id, second.id)
    return (_one(project, a).id, _one(project, b).id)


def _one(project: Project, text: str) -> Making:
    found: Target = find_target(project, text)
    made = list(found.made.values())
    if not made:
        seen = mask_for(project, text)
        names = [name_of(node) for node in found.registered if not seen.hides(node)]
        if not names:
            raise Usage(f"{text} is of {WITHHELD}, and nothing makes it")
        raise Usage(f"{text} is {', '.join(names)}, which nothing makes; `ct show {names[0]}` says what it is")
    nodes = {one.node for one in made}
    if len(nodes) > 1:
        seen = mask_for(project, text)
        listed = ", ".join(sorted(name_of(node) for node in nodes if not seen.hides(node))[:5]) or WITHHELD
        raise Usage(f"{text} names {len(nodes)} nodes ({listed}, …); name one of them")
    return next((one for one in made if one.current), made[-1])


def _beside(project: Project, name: str, making: Making, which: str) -> Making:
    """Another making of the same node, which was called so."""
    every = list(find_target(project, name_of(making.node), every=True).made.values())
    if which != "previous":
        return choose(every, which, name)
    earlier = [one for one in every if one.id < making.id]
    if not earlier:
        raise Usage(f"{name} #{making.id} has no earlier making to be compared with")
    return earlier[-1]


@without_collecting
def diff(project: Project, pair: Pair) -> Difference:
    """Compare two makings by their inputs, then the differing inputs, down to where the difference began."""
    with project.catalog.read() as connection:
        lineage = lineage_of(project, connection, pair)
        recipes = recipes_of(connection, {one.recipe for one in lineage.makings.values()})
        outputs = outputs_of(connection, pair)
        stories = attributions_of(connection, pair)
    compare = _Comparison(lineage, recipes, _fan_ins(project), partial(names_between, project.store.root))
    found = Difference(lineage.makings[pair[0]], lineage.makings[pair[1]], lineage)
    found.files = dict(_files(*({one["file"]: one["digest"] for one in outputs.get(n, ())} for n in pair)))
    causes = compare.causes(pair)
    found.causes = [cause.reason for cause in causes]
    codes = [recipes[lineage.makings[number].recipe]["code"] for number in pair]
    found.code = lines_between(project.store.root, *codes) if codes[0] != codes[1] else []
    found.roots = compare.roots(pair, causes)
    one, other = stories[pair[0]], stories[pair[1]]
    told = [(name, getattr(one, name), getattr(other, name)) for name in ("actor", "host", "git")]
    was, now = (lineage.makings[number].reason for number in pair)  # of what is adopted it says who made it
    told += [("reason", was, now)] if any(text.startswith(MADE_ELSEWHERE) for text in (was, now)) else []
    found.beside = [(name, f"{was or 'not told'} → {now or 'not told'}") for name, was, now in told if was != now]
    return found


def _fan_ins(project: Project) -> Callable[[str, str], bool]:
    """Whether an input of a step takes members; of a step that is no longer declared it is seen by their number."""
    found = set()
    for step in project.steps:
        for name, up in step.inputs.items():
            low = project.steps[up].level
            if low != step.level and (step.level == "cohort" or _rank(low) > _rank(step.level)):
                found.add((step.name, name))
    return lambda step, name: (step, name) in found


def _rank(level: str) -> int:
    return ENTITY_LEVELS.index(level)  # type: ignore[arg-type]


def _files(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted({*a, *b}):
        if a.get(name) != b.get(name):
            yield name, change_text(name, a.get(name), b.get(name))


class _Comparison:
    """Makings of two lineages, side by side; each pair is looked at once."""

    def __init__(
        self,
        lineage: Lineage,
        recipes: Mapping[int, Any],
        is_fan_in: Callable[[str, str], bool],
        code_names: Callable[[str, str], list[str]],
    ) -> None:
        self.lineage, self.recipes, self.is_fan_in, self.code_names = lineage, recipes, is_fan_in, code_names

    def causes(self, pair: Pair) -> list[Cause]:
        """The direct causes, in the order of the report."""
        found = [*self._recipe(pair), *self._inputs(pair)]
        return sorted(found, key=lambda cause: _ORDER.index(cause.reason.kind))

    def _recipe(self, pair: Pair) -> Iterator[Cause]:
        a, b = (self.lineage.makings[number] for number in pair)
        if a.recipe == b.recipe:
            return
        old, new = self.recipes[a.recipe], self.recipes[b.recipe]
        if old["step"] != new["step"]:
            yield Cause(Reason("code", Words(Plain(f"another step, {old['step']} → {new['step']}")), b.node))
        elif old["code"] != new["code"]:
            names = self.code_names(old["code"], new["code"])
            yield Cause(Reason("code", code_change(new["step"], old["code"], new["code"], names), b.node))
        for kind in ("parameters", "environment"):
            if old[kind] != new[kind]:
                yield Cause(Reason(kind, Words(Plain(differences(old[kind], new[kind]))), b.node))

    def _inputs(self, pair: Pair) -> Iterator[Cause]:
        old, new = (_named(self.lineage.edges.get(number, ())) for number in pair)
        for name in sorted({*old, *new}):
            mine, other = old.get(name, {}), new.get(name, {})
            if len(mine) == len(other) == 1 and not self._members(pair, name):
                yield from self._one(pair, next(iter(mine.values())), next(iter(other.values())))
                continue
            for source in dict.fromkeys([*mine, *other]):
                yield from self._one(pair, mine.get(source), other.get(source))

    def _members(self, pair: Pair, name: str) -> bool:
        return any(self.is_fan_in(self.lineage.makings[number].asset, name) for number in pair)

    def _one(self, pair: Pair, old: Edge | None, new: Edge | None) -> Iterator[Cause]:
        """One input of both; of one of them only where the other has none."""
        if old is not None and new is not None and old.version == new.version and old[1:3] == new[1:3]:
            return
        used = new or old
        assert used is not None
        source: Node = used[1:3]
        before, after = (one and one.version for one in (old, new))
        if used.asset == "reference":
            words = Words(Plain(reference_change(used.partition, before, after)))
            yield Cause(Reason("reference", words, source))
        elif used.asset in ENTITY_LEVELS and "." in used.input:
            if before != after and before is not None and after is not None:
                if used.input.startswith(ROLE):
                    yield Cause(Reason("member-role", role_change(source, before, after), source))
                    return
                words = Words(Plain(f"{used.input} of "), *_both(old, new), " differs")
                yield Cause(Reason("metadata", words, source))
        elif (old is None or new is None) and self._members(pair, used.input):
            kind = "member-added" if old is None else "member-removed"
            yield Cause(Reason(kind, Words(node_text(source), Plain(f" as {used.input}")), source))
        else:
            yield Cause(Reason("input", _words(old, new, used), source), self._deeper(pair, old, new))

    def _deeper(self, pair: Pair, old: Edge | None, new: Edge | None) -> Pair | None:
        if old is None or new is None or old.version == new.version:
            return None
        a, b = self.lineage.source(pair[0], old), self.lineage.source(pair[1], new)
        return None if a is None or b is None or a == b else (a, b)

    def roots(self, pair: Pair, causes: list[Cause]) -> list[Reason]:
        """Where differing inputs began to differ: causes without a pair of makings behind them, each with its path."""
        found: dict[tuple[str, Words, Node | None], Reason] = {}
        paths: dict[Pair, tuple[Node, ...]] = {pair: ()}
        waiting = [(pair, causes)]
        for one, mine in waiting:
            path = paths[one]
            for cause in mine:
                if cause.deeper is None:
                    if path:
                        said = cause.reason
                        key = (said.kind, said.words, None if said.kind in _SHARED else said.node)
                        found.setdefault(key, Reason(said.kind, said.words, said.node, path))
                elif cause.deeper not in paths:
                    node = self.lineage.makings[cause.deeper[1]].node
                    paths[cause.deeper] = (*path[-_PATH:], node)
                    waiting.append((cause.deeper, self._causes_above(cause.deeper)))
        return list(found.values())

    def _causes_above(self, pair: Pair) -> list[Cause]:
        """The causes of a pair further up; the same causes and other bytes is one as well."""
        causes = self.causes(pair)
        if causes:
            return causes
        node = self.lineage.makings[pair[1]].node
        return [Cause(Reason("bytes", Words(node_text(node), " gave other bytes from the same inputs"), node))]


_SHARED = ("code", "parameters", "environment", "reference")  # told once, however many nodes have it
_PATH = 20  # so many last nodes of a path are kept


def _named(edges: Any) -> dict[str, dict[Node, Edge]]:
    found: dict[str, dict[Node, Edge]] = {}
    for used in edges:
        found.setdefault(used.input, {})[used[1:3]] = used
    return found


def _both(old: Edge | None, new: Edge | None) -> list[Part]:
    """`A1`, or `A1 and A2` where the two sides differ."""
    first, *other = dict.fromkeys(NodeName(one[1:3], one.partition) for one in (old, new) if one is not None)
    return [first, *(part for one in other for part in (" and ", one))]


def _words(old: Edge | None, new: Edge | None, used: Edge) -> Words:
    if old is not None and new is not None and old[1:3] != new[1:3]:
        was, now = ((node_text(one[1:3]), Plain(f" {short_digest(one.version)}")) for one in (old, new))
        return Words(Plain(f"{used.input} "), *was, " → ", *now)
    return input_change(used.input, used[1:3], *(one and one.version for one in (old, new)))


def as_data(found: Difference, opened: Collection[int]) -> dict[str, Any]:
    """For programs. Folders and digests are given of the makings that are `opened`."""
    return {
        "a": _making(found.a, opened),
        "b": _making(found.b, opened),
        "same_content": found.same_content,
        "sentence": found.sentence,
        "files": list(found.files.values()),
        "causes": [_reason(one) for one in found.causes],
        "roots": [_reason(one) for one in found.roots],
        "code": found.code,
    }


def _making(one: Making, opened: Collection[int]) -> dict[str, Any]:
    names = ("data_version", "key", "folder", "started_at", "reason", "run_id", "current")
    said = {name: getattr(one, name) for name in names}
    said |= {} if one.id in opened else {"folder": None, "data_version": None}
    return {"node": name_of(one.node), "materialization": one.id, **said}


def _reason(one: Reason) -> dict[str, Any]:
    path = [name_of(node) for node in one.path]
    return {"kind": one.kind, "words": str(one.words), "node": one.node and name_of(one.node), "path": path}
