"""⑦ Accepted reasons as they stand: which reasons of which makings somebody waived, and the words for it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, literal, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import acceptance, artifact, edge, waiver
from ctcore.reasons import Node, Verdict, named
from ctcore.words import Part, Plain, Recorded, Words

_STANDS = and_(
    waiver.c.undone.is_(None),
    artifact.c.asset == waiver.c.asset,
    artifact.c.partition == waiver.c.partition,
    artifact.c.materialization == waiver.c.materialization,
)


def waived(connection: Connection, asset: str) -> dict[str, set[str]]:
    """What is waived of a step's nodes: partition → evidence of reasons. Empty, at once, where nothing is.

    The filter: a reason is waived when its evidence is among those of its node. A waiver holds for the making that is
    current, and for this evidence, which is the same kind, input, node, old and new; with another new value it is
    another reason. For arrays: the evidence of `code`, `parameters` and `environment` follows from the recipe used and
    that of today, so it is one value a used recipe, compared with these rows by node; it changes with the events
    `accept` and `accept-undone`, whose bodies name the nodes.
    """
    rows = connection.execute(
        select(waiver.c.partition, waiver.c.evidence).where(waiver.c.asset == asset).where(_STANDS)
    )
    found: dict[str, set[str]] = defaultdict(set)
    for partition, evidence in rows:
        found[partition].add(evidence)
    return found


def any_waiver(connection: Connection) -> bool:
    """Whether anything was ever accepted."""
    return connection.execute(select(waiver.c.asset).limit(1)).first() is not None


@dataclass(frozen=True)
class Waiver:
    """One reason of one node that stands as accepted."""

    node: Node
    kind: str
    words: str
    evidence: str
    acceptance: int
    actor: str
    at: str
    reason: str

    @property
    def sentence(self) -> Words:
        who = Plain(f" was accepted by {self.actor} on {self.at[:10]}: ")
        return Words(Plain(f"{self.kind}: "), Recorded(self.words), who, Recorded(self.reason))


def holding(connection: Connection, verdicts: Iterable[Verdict]) -> dict[Node, list[Waiver]]:
    """The waivers that make these verdicts what they are: those of their waived reasons."""
    wanted: dict[str, dict[str, set[str]]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.waived:
            wanted[verdict.asset][verdict.partition] = {reason.evidence for reason in verdict.waived}
    found: dict[Node, list[Waiver]] = defaultdict(list)
    for asset, evidence in wanted.items():
        for row in _standing(connection, asset, evidence):
            if row.evidence in evidence[row.partition]:
                evidence[row.partition].discard(row.evidence)  # the same, accepted by two at once, is said once
                one = Waiver((asset, row.partition), row.kind, row.words, row.evidence, row.id, *row[5:])
                found[one.node].append(one)
    return found


def _standing(connection: Connection, asset: str, partitions: Iterable[str]) -> Iterable[Any]:
    return connection.execute(
        select(
            waiver.c.partition,
            waiver.c.kind,
            waiver.c.words,
            waiver.c.evidence,
            acceptance.c.id,
            acceptance.c.actor,
            acceptance.c.at,
            acceptance.c.reason,
        )
        .join(acceptance, acceptance.c.id == waiver.c.acceptance)
        .where(waiver.c.asset == asset, in_keys(waiver.c.partition, partitions))
        .where(_STANDS)
        .order_by(waiver.c.partition, acceptance.c.id, waiver.c.kind)
    )


def built_from(
    connection: Connection, asset: str, partitions: Iterable[str], marked: Iterable[Verdict]
) -> dict[str, list[Words]]:
    """What these nodes of a step were built from although it differs, by partition: a sentence an acceptance.

    `marked` are verdicts with waived reasons. A node counts as built from another one when its artifact, or one that
    its artifact was built from, used the content which that one has now.
    """
    standing = holding(connection, marked)
    if not standing:
        return {}
    found: dict[str, dict[tuple[str, str, int], list[Waiver]]] = defaultdict(lambda: defaultdict(list))
    for partition, *source in _lineage(connection, asset, partitions):
        for one in standing.get((source[0], source[1]), ()):
            found[partition][(one.node[0], one.kind, one.acceptance)].append(one)
    return {partition: [_said(some) for some in groups.values()] for partition, groups in found.items()}


def _lineage(connection: Connection, asset: str, partitions: Iterable[str]) -> Iterable[Any]:
    """(partition, ancestor's asset, ancestor's partition), however far up."""
    mine = select(
        artifact.c.partition.label("root"), artifact.c.asset, artifact.c.partition, literal(0).label("above")
    ).where(artifact.c.asset == asset, in_keys(artifact.c.partition, partitions))
    walk = mine.cte("walk", recursive=True)
    below, source = artifact.alias(), artifact.alias()
    walk = walk.union(
        select(walk.c.root, source.c.asset, source.c.partition, literal(1))
        .join(below, and_(below.c.asset == walk.c.asset, below.c.partition == walk.c.partition))
        .join(edge, edge.c.materialization == below.c.materialization)
        .join(source, and_(source.c.asset == edge.c.asset, source.c.partition == edge.c.partition))
        .where(source.c.data_version == edge.c.version)
    )
    return connection.execute(
        select(walk.c.root, walk.c.asset, walk.c.partition)
        .where(walk.c.above == 1)
        .order_by(walk.c.root, walk.c.asset, walk.c.partition)
    )


def summaries(connection: Connection, verdicts: Iterable[Verdict]) -> list[Words]:
    """What was accepted of these nodes, an acceptance a line."""
    alike: dict[tuple[str, str, int], list[Waiver]] = defaultdict(list)
    for some in holding(connection, verdicts).values():
        for one in some:
            alike[(one.node[0], one.kind, one.acceptance)].append(one)
    return [Words(*_names(some), ": ", some[0].sentence) for some in alike.values()]


def _said(some: list[Waiver]) -> Words:
    return Words("built from ", *_names(some), ", whose ", some[0].sentence)


def _names(some: list[Waiver]) -> tuple[Part, ...]:
    name = named(some[0].node)
    return (name,) if len(some) == 1 else (Plain(f"{len(some)} nodes of {some[0].node[0]} ("), name, " first)")
