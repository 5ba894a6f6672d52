"""Acceptances in force: which reasons of which makings are waived, and by whom."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, literal, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import acceptance, artifact, edge, waiver
from ctcore.model.masked_text import Part, Plain, QuotedText, Words
from ctcore.model.node import Node
from ctcore.model.reasons import Verdict, node_text

_IN_FORCE = and_(
    waiver.c.undone.is_(None),
    artifact.c.asset == waiver.c.asset,
    artifact.c.partition == waiver.c.partition,
    artifact.c.materialization == waiver.c.materialization,
)


def waived_reasons(connection: Connection, asset: str) -> dict[str, set[str]]:
    """The waived evidence of a step's nodes: partition → evidence of reasons. Empty at once if the step has no waivers.

    A reason is waived if its evidence is among those of its node. A waiver holds for the current making and for this
    evidence: the same kind, input, node, old and new value. With another new value it is another reason. In the arrays,
    the evidence of `code`, `parameters` and `environment` follows from the recipes of then and today, so it is one
    value for each used recipe, compared with these rows by node. It changes with the events `accept` and
    `accept-undone`, whose bodies name the nodes.
    """
    rows = connection.execute(
        select(waiver.c.partition, waiver.c.evidence).where(waiver.c.asset == asset).where(_IN_FORCE)
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
        return Words(Plain(f"{self.kind}: "), QuotedText(self.words), who, QuotedText(self.reason))


def waivers_of(connection: Connection, verdicts: Iterable[Verdict]) -> dict[Node, list[Waiver]]:
    """The waivers behind these verdicts: those of their waived reasons."""
    wanted: dict[str, dict[str, set[str]]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.waived:
            wanted[verdict.asset][verdict.partition] = {reason.evidence for reason in verdict.waived}
    found: dict[Node, list[Waiver]] = defaultdict(list)
    for asset, evidence in wanted.items():
        for row in _waiver_rows(connection, asset, evidence):
            if row.evidence in evidence[row.partition]:
                evidence[row.partition].discard(row.evidence)  # the same, accepted by two at once, is said once
                one = Waiver((asset, row.partition), row.kind, row.words, row.evidence, row.id, *row[5:])
                found[one.node].append(one)
    return found


def _waiver_rows(connection: Connection, asset: str, partitions: Iterable[str]) -> Iterable[Any]:
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
        .where(_IN_FORCE)
        .order_by(waiver.c.partition, acceptance.c.id, waiver.c.kind)
    )


def accepted_sources(
    connection: Connection, asset: str, partitions: Iterable[str], marked: Iterable[Verdict]
) -> dict[str, list[Words]]:
    """The accepted differences that these nodes of a step were built from, by partition: one sentence for each
    acceptance.

    `marked` are verdicts with waived reasons. A node counts as built from another one if its artifact, or an artifact
    that it was built from, used the other's current content.
    """
    in_force = waivers_of(connection, marked)
    if not in_force:
        return {}
    found: dict[str, dict[tuple[str, str, int], list[Waiver]]] = defaultdict(lambda: defaultdict(list))
    for partition, *source in _lineage(connection, asset, partitions):
        for one in in_force.get((source[0], source[1]), ()):
            found[partition][(one.node[0], one.kind, one.acceptance)].append(one)
    return {partition: [_built_from(some) for some in groups.values()] for partition, groups in found.items()}


def _lineage(connection: Connection, asset: str, partitions: Iterable[str]) -> Iterable[Any]:
    """(partition, ancestor's asset, ancestor's partition), however far up."""
    mine = select(
        artifact.c.partition.label("root"), artifact.c.asset, artifact.c.partition, literal(0).label("above")
    ).where(artifact.c.asset == asset, in_keys(artifact.c.partition, partitions))
    walk = mine.cte("walk", recursive=True)
    below, source = artifact.alias(), artifact.alias()
    # UNION, not UNION ALL: it drops rows that it had, so each ancestor is walked from once, however many ways lead to
    # it (sqlite.org/lang_with.html).
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
    """The acceptances of these nodes, one line each."""
    alike: dict[tuple[str, str, int], list[Waiver]] = defaultdict(list)
    for some in waivers_of(connection, verdicts).values():
        for one in some:
            alike[(one.node[0], one.kind, one.acceptance)].append(one)
    return [Words(*_names(some), ": ", some[0].sentence) for some in alike.values()]


def _built_from(some: list[Waiver]) -> Words:
    return Words("built from ", *_names(some), ", whose ", some[0].sentence)


def _names(some: list[Waiver]) -> tuple[Part, ...]:
    name = node_text(some[0].node)
    return (name,) if len(some) == 1 else (Plain(f"{len(some)} nodes of {some[0].node[0]} ("), name, " first)")
