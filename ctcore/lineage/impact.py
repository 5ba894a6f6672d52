"""Everything built from something, by the ledger's edges, including results that today's sheet would not allow."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Text, and_, func, or_, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.lost_inputs import makings_of_lost_inputs
from ctcore.catalog.tables import edge, materialization, member
from ctcore.catalog.tombstones import purge_words_by_making
from ctcore.cohorts.descendants import descendants_of
from ctcore.cohorts.partitions import partitions
from ctcore.governance.access import MissingConsent, missing_consents
from ctcore.governance.masking import Mask
from ctcore.lineage.target import Target
from ctcore.lineage.walk import (
    Making,
    descendant_walk,
    distances,
    find_cycle,
    makings,
    same_content,
    walk_start,
    walked_ids,
)
from ctcore.model.levels import ENTITY_LEVELS, LEVELS
from ctcore.model.masked_text import NodeName, Plain, Words, join_words
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import Reason, node_text
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from ctcore.store.digest import DIGEST_LENGTH
from ctcore.util.clock import today
from ctcore.util.gc import without_collecting

Pairs = Mapping[int, Sequence[int]]  # making → makings that were made from it


@dataclass(frozen=True)
class AffectedMaking:
    """A making that contains the target, at this distance. `former`: why today's making would not contain it.

    `withheld`: it belongs to a patient without consent, and is counted but not named; `purged`: its files are gone.
    """

    making: Making
    depth: int
    former: Words | None = None
    withheld: Words | None = None
    purged: str | None = None


@dataclass(frozen=True)
class ImpactRow:
    """One step: how many of its nodes, how many earlier makings still lie in the store, how many are purged."""

    level: str
    step: str
    nodes: int
    size: int
    earlier: int
    earlier_size: int
    former: int
    purged: int


@dataclass
class Impact:
    """Everything built from the target, nearest first. `unsure`: how many other makings may contain it, as something
    that they were made from is lost."""

    target: Target
    affected: list[AffectedMaking] = field(default_factory=list)
    past_parents: dict[Node, Words] = field(default_factory=dict)
    cycle: list[Node] = field(default_factory=list)
    levels: Mapping[str, str] = field(default_factory=dict)
    unsure: int = 0

    @cached_property
    def former(self) -> list[AffectedMaking]:
        """Current artifacts with it inside, although today's sheet and rules would leave it out."""
        return [one for one in self.affected if one.former and one.making.current]

    @cached_property
    def hidden(self) -> list[AffectedMaking]:
        """Makings of patients without consent. They are counted, and named only for a reason."""
        return [one for one in self.affected if one.withheld]

    @property
    def why_hidden(self) -> Words:
        return join_words(dict.fromkeys(one.withheld for one in self.hidden if one.withheld))

    def unmasked(self) -> "Impact":
        """The same for a person who may see all of it. The disclosure is recorded."""
        return replace(self, affected=[replace(one, withheld=None) for one in self.affected])

    def rows(self) -> list[ImpactRow]:
        """By level and step, in the order in which they are made."""
        found: dict[str, list[AffectedMaking]] = defaultdict(list)
        for one in self.affected:
            found[one.making.asset].append(one)
        return sorted((self._row(step, some) for step, some in found.items()), key=self._place)

    def _row(self, step: str, some: list[AffectedMaking]) -> ImpactRow:
        now = [one.making.size for one in some if one.making.current]
        before = [one.making.size for one in some if not one.making.current and not one.purged]
        former = sum(1 for one in some if one.former and one.making.current)
        purged = sum(1 for one in some if one.purged)
        return ImpactRow(self.levels.get(step, "?"), step, len(now), sum(now), len(before), sum(before), former, purged)

    def _place(self, row: ImpactRow) -> tuple[int, int, str]:
        order = list(self.levels)
        level = (*reversed(LEVELS[:3]), "cohort", "?").index(row.level)
        return (level, order.index(row.step) if row.step in order else len(order), row.step)


@without_collecting
def impact(project: Project, target: Target) -> Impact:
    """Everything made from these makings and registry nodes, directly or through others."""
    levels = {step.name: step.level for step in project.steps}
    with project.catalog.read() as connection:
        entities = [node for node in target.registered if node[0] in ENTITY_LEVELS]
        now, before = descendants_of(connection, entities) if not target.digest else (set(entities), {})
        others = set(target.registered) - set(entities)
        first = first_makings(project, connection, now | before.keys() | others, target.contents)
        ids = walked_ids(connection, descendant_walk(walk_start({*target.made, *first.nodes})))
        unsure = _unsure(connection, levels, ids)
        made = makings(connection, ids)
        pairs = pairs_of(connection, ids)
        purged = purge_words_by_making(connection, ids)
        secret = missing_consents(connection, today(), project.settings.uses.required)
    depths = _depths(target.made, first, pairs)
    former = _former(project, made, pairs, _Seeds(target.made, first.nodes, before, levels)) if entities else {}
    ordered = sorted(depths, key=lambda number: (depths[number], number))
    cycle = [made[number].node for number in find_cycle(ordered, lambda number: pairs.get(number, ()))]
    affected = []
    for number in ordered:
        hidden = _withheld(secret, levels.get(made[number].asset), made[number].partition)
        affected.append(AffectedMaking(made[number], depths[number], former.get(number), hidden, purged.get(number)))
    return Impact(target, affected, before, cycle, levels, unsure)


def _unsure(connection: Connection, levels: Mapping[str, str], certain: Iterable[int]) -> int:
    """The number of other makings that were made, at any distance, from something that is lost."""
    lost = makings_of_lost_inputs(connection, levels.items())
    return len(set(walked_ids(connection, descendant_walk(walk_start(lost)))).difference(certain)) if lost else 0


def _withheld(secret: Mapping[Node, MissingConsent], level: str | None, partition: str) -> Words | None:
    """Why a node is not named. Of a step that is no longer declared, only the ID is known."""
    possible = (level,) if level else ENTITY_LEVELS
    return next((secret[one, partition].sentence for one in possible if (one, partition) in secret), None)


@dataclass
class FirstMakings:
    """The makings that take registry nodes themselves, or are about them, each with the nodes."""

    nodes: dict[int, set[Node]] = field(default_factory=lambda: defaultdict(set))
    direct: dict[int, None] = field(default_factory=dict)
    on_regions: dict[int, None] = field(default_factory=dict)  # those that take a region on the reference


def _depths(made: Iterable[int], first: FirstMakings, pairs: Pairs) -> dict[int, int]:
    """The distance from the target to each making: the target itself is 0, a result of a raw file 1.

    A making that only has the entity as a member, or belongs to it, has the distance of its edges, or 1 without edges.
    """
    start, regions = -1, -2  # in front of the first ones, numbers that no making has

    def from_these(begin: Iterable[int]) -> dict[int, int]:
        following = {**pairs, start: [*begin, regions], regions: list(first.on_regions)}
        return distances([*made, start], lambda number: following.get(number, ()))

    nearest, every = from_these(first.direct), from_these(first.nodes.keys() - first.on_regions.keys())
    return {number: nearest.get(number, depth) for number, depth in every.items() if number >= 0}


def first_makings(project: Project, connection: Connection, nodes: set[Node], digests: Set[str] | None) -> FirstMakings:
    """`digests`: only by these contents of the nodes."""
    found = FirstMakings()
    keys: dict[str, set[str]] = defaultdict(set)
    for asset, partition in nodes:
        keys[asset].add(partition)
    for asset, some in keys.items():
        statements = [_using(asset, some, digests), *(_about(project, asset, some) if digests is None else ())]
        for at, statement in enumerate(statements):
            rows: Any = connection.execute(statement)
            for number, partition in rows:
                found.nodes[number].add((asset, partition))
                if at == 0:
                    found.direct[number] = None
        if asset == "reference":
            on: Any = connection.execute(_on_regions(some))
            for number, partition, version in on:
                if digests is not None and digests.isdisjoint(version.split(" ")):
                    continue
                found.nodes[number].add((asset, partition))
                found.on_regions[number] = None
    return found


def _using(asset: str, keys: set[str], digests: Set[str] | None) -> Any:
    """By the edges."""
    used = and_(edge.c.asset == asset, in_keys(edge.c.partition, keys))
    if digests is not None:  # a reference's version ends with it
        last = func.substr(edge.c.version, func.length(edge.c.version) - (DIGEST_LENGTH - 1), type_=Text)
        used = and_(used, in_keys(last, digests))
    return select(edge.c.materialization, edge.c.partition).where(used)


def _on_regions(keys: Iterable[str]) -> Any:
    """Makings whose region's version names the reference that it lies on."""
    on = or_(*(edge.c.version.startswith(f"on {key} ", autoescape=True) for key in sorted(keys)))
    mine = and_(edge.c.asset == "reference", on)
    return select(edge.c.materialization, edge.c.partition, edge.c.version).where(mine)


def _about(project: Project, asset: str, keys: set[str]) -> Iterator[Any]:
    """Makings by their members and by their own entity: a result may belong to an entity without any input of it."""
    if asset in ENTITY_LEVELS:
        inside = and_(member.c.level == asset, in_keys(member.c.entity, keys))
        yield select(member.c.materialization, member.c.entity).where(inside)
        steps = [step.name for step in project.steps if step.level == asset]
        about = and_(materialization.c.asset.in_(steps), in_keys(materialization.c.partition, keys))
        yield select(materialization.c.id, materialization.c.partition).where(about)


def pairs_of(connection: Connection, ids: Iterable[int]) -> Pairs:
    rows = connection.execute(
        select(materialization.c.id, edge.c.materialization)
        .select_from(materialization.join(edge, same_content()))
        .where(in_keys(materialization.c.id, ids))
        .distinct()
        .order_by(materialization.c.id, edge.c.materialization)
    )
    found: dict[int, list[int]] = defaultdict(list)
    for source, consumer in rows:
        found[source].append(consumer)
    return found


@dataclass(frozen=True)
class _Seeds:
    """The starting points of a walk, and which of them only the past explains."""

    made: Mapping[int, Making]
    first: Mapping[int, set[Node]]
    before: Mapping[Node, Words]
    levels: Mapping[str, str]

    def why_former(self, number: int) -> Words | None:
        """Why a making would not take these nodes today; None where one of them is still its own."""
        nodes = self.first.get(number, set())
        if not nodes or nodes - self.before.keys():
            return None
        return self.before[min(nodes)]


def _former(project: Project, made: Mapping[int, Making], pairs: Pairs, seeds: _Seeds) -> dict[int, Words]:
    """Makings to which today no way leads from the target, each with the first thing in the way."""
    today = _Today(project, made.values(), seeds.levels)
    why: dict[int, Words] = {}
    kept = dict.fromkeys(seeds.made)
    for number in seeds.first:
        said = seeds.why_former(number) or today.without(made[number].node)
        said = said or today.dropped(made[number].node, seeds.first[number])
        if said is None:
            kept[number] = None
        else:
            why[number] = said
    waiting = list(kept)
    for source in waiting:
        for number in pairs.get(source, ()):
            said = today.without(made[number].node) or today.dropped(made[number].node, {made[source].node})
            if said is not None:
                why.setdefault(number, said)
            elif number not in kept:
                kept[number] = None
                waiting.append(number)
    why |= dict(_inherited(made, pairs, kept, why))
    return {number: said for number, said in why.items() if number not in kept}


def _inherited(
    made: Mapping[int, Making], pairs: Pairs, kept: Mapping[int, None], first: Mapping[int, Words]
) -> Iterator[tuple[int, Words]]:
    """A making from a former one is former for the same reason."""
    why = dict(first)
    waiting = [number for number in why if number not in kept]
    for source in waiting:
        for number in pairs.get(source, ()):
            if number not in kept and number not in why:
                why[number] = Words(node_text(made[source].node), ": ", why[source])
                waiting.append(number)
                yield number, Words("through ", why[number])


class _Today:
    """Today's inputs of nodes, from the definition that verdicts use."""

    def __init__(self, project: Project, made: Iterable[Making], levels: Mapping[str, str]) -> None:
        self.levels = levels
        mine: dict[str, set[str]] = defaultdict(set)
        for one in made:
            mine[one.asset].add(one.partition)
        known = {level: set(partitions(project, level)) for level in LEVELS}
        self.known = {step: keys & known[levels[step]] for step, keys in mine.items() if step in levels}
        verdicts = evaluate(project)
        listed = (verdict for step, keys in self.known.items() for verdict in verdicts.listed(step, keys))
        self.found = {verdict.node: verdict for verdict in listed}

    def without(self, node: Node) -> Words | None:
        """Why the node is not made at all today."""
        step, partition = node
        if step not in self.levels:
            return Words(Plain(f"step {step} is no longer declared"))
        if partition not in self.known[step]:
            level = self.levels[step]
            return Words(NodeName((level, partition), f"{level} {partition}"), " is no longer there")
        verdict = self.found.get(node)
        if verdict is None or verdict.state != "excluded":
            return None
        return Words(node_text(node), " is excluded: ", verdict.sentence)

    def dropped(self, node: Node, sources: set[Node]) -> Words | None:
        """Why the node would take none of these today."""
        gone: dict[Node | None, Words] = {}
        for reason in self.found[node].reasons if node in self.found else ():
            if _is_gone(reason) and reason.node is not None:
                step, partition = reason.node
                member: Node = (self.levels.get(step, step), partition)  # its columns are not told apart from it
                said = Words(node_text(node), ": ", reason.sentence)
                gone |= {reason.node: said, member: said}
        return gone[min(sources)] if gone and sources <= gone.keys() else None


def _is_gone(reason: Reason) -> bool:
    """A member or an input that was used and would not be given today."""
    return reason.kind == "member-removed" or (reason.kind == "input" and reason.new is None)


def as_data(found: Impact, seen: Mask, every: bool = True) -> dict[str, Any]:
    """For programs: the rows, and each making with its depth."""
    return {
        "asked": found.target.text,
        "digest": found.target.digest,
        "notes": list(map(seen.mask_words, found.target.notes)),
        "registered": [seen.name(node) for node in found.target.registered],
        "steps": [vars(row) for row in found.rows()],
        "former": len(found.former),
        "cycle": [name_of(node) for node in found.cycle],
        "withheld": len(found.hidden),
        "unsure": found.unsure,
        "makings": [_affected_data(one, seen) for one in found.affected if not one.withheld] if every else [],
    }


def _affected_data(one: AffectedMaking, seen: Mask) -> dict[str, Any]:
    made = one.making
    names = ("data_version", "folder", "size", "started_at", "current")
    said = {name: getattr(made, name) for name in names}
    more = {"former": one.former and seen.mask_words(one.former), "purged": one.purged}
    return {"node": name_of(made.node), "materialization": made.id, "depth": one.depth, **said, **more}
